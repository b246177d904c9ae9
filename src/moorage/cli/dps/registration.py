"""`moorage dps registration`: registration records."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from moorage.cli.dps.settings import dps_service, etag_option, top_option
from moorage.cli.output import output_option, show
from moorage.cli.target import login_options

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
    show(dps_service(login, data).get(_path(registration_id)), output, COLUMNS)


@registration.command("list")
@click.option("--enrollment-id", "--eid", "--group-id", "--gid", required=True, help="The enrollment group.")
@top_option
@output_option
@login_options
def list_(enrollment_id: str, top: int | None, output: str, login: str | None, data: Path | None) -> None:
    """The records of the devices that came through an enrollment group."""
    path = f"/registrations/{quote(enrollment_id, safe='')}/query"
    show(list(dps_service(login, data).pages(path, {"query": "SELECT *"}, top=top)), output, COLUMNS)


@registration.command()
@registration_id_option
@etag_option
@login_options
def delete(registration_id: str, etag: str | None, login: str | None, data: Path | None) -> None:
    """Forget a registration: the device's next one counts as its first."""
    dps_service(login, data).delete(_path(registration_id), if_match=etag or "*")


def _path(registration_id: str) -> str:
    return f"/registrations/{quote(registration_id, safe='')}"
