"""`moorage hub device-twin`: the JSON state kept for each device."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import HUB_API_VERSION, Service
from moorage.cli.target import HUB_VARIABLES, find_login, hub_login_options

COLUMNS = {"DEVICE ID": "deviceId", "VERSION": "version", "TAGS": "tags", "DESIRED": "properties.desired"}


@click.group()
def device_twin() -> None:
    """Device twins: the JSON state kept for each device."""


@device_twin.command("show")
@click.option("--device-id", "-d", required=True, help="Device id.")
@output_option
@hub_login_options
def show_(device_id: str, output: str, login: str | None, data: Path | None) -> None:
    """One device twin, as services see it."""
    service = Service(find_login(login, data, HUB_VARIABLES), HUB_API_VERSION)
    show(service.get(f"/twins/{quote(device_id, safe='')}"), output, COLUMNS)
