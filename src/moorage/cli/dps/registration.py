"""`moorage dps registration`: registration records."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import DPS_API_VERSION, Service
from moorage.cli.target import DPS_VARIABLES, find_login, login_options

COLUMNS = {
    "REGISTRATION ID": "registrationId",
    "STATUS": "status",
    "SUBSTATUS": "substatus",
    "HUB": "assignedHub",
    "DEVICE ID": "deviceId",
    "LAST UPDATED": "lastUpdatedDateTimeUtc",
}

registration_id_option = click.option("--registration-id", "--rid", required=True, help="Registration id.")


@click.group()
def registration() -> None:
    """Registration records: what became of each device's registration."""


@registration.command("show")
@registration_id_option
@output_option
@login_options
def show_(registration_id: str, output: str, login: str | None, data: Path | None) -> None:
    """One registration record."""
    show(_service(login, data).get(_path(registration_id)), output, COLUMNS)


@registration.command()
@registration_id_option
@click.option("--etag", "-e", help="Delete only this version.")
@login_options
def delete(registration_id: str, etag: str | None, login: str | None, data: Path | None) -> None:
    """Forget a registration: the device's next one counts as its first."""
    _service(login, data).delete(_path(registration_id), if_match=etag or "*")


def _service(login: str | None, data: Path | None) -> Service:
    return Service(find_login(login, data, DPS_VARIABLES), DPS_API_VERSION)


def _path(registration_id: str) -> str:
    return f"/registrations/{quote(registration_id, safe='')}"
