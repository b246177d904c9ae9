"""`moorage dps compute-device-key`: the key of one device of a group."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from moorage.cli.dps.settings import dps_service
from moorage.cli.target import login_options
from moorage.credentials.sas import derive_key
from moorage.errors import Invalid


@click.command()
@click.option("--registration-id", "--rid", required=True, help="Of the device, as it will send it.")
@click.option("--symmetric-key", "--key", help="The group's key; without it the running service is asked.")
@click.option("--enrollment-id", "--eid", "--group-id", "--gid", help="The group whose primary key is meant.")
@login_options
def compute_device_key(
    registration_id: str,
    symmetric_key: str | None,
    enrollment_id: str | None,
    login: str | None,
    data: Path | None,
) -> None:
    """Print the key that a device derives from its group's. The spelling of the registration id counts."""
    if symmetric_key is None:
        symmetric_key = group_key(enrollment_id, login, data)
    try:
        click.echo(derive_key(symmetric_key, registration_id))
    except ValueError:
        raise Invalid("--symmetric-key", "a key is base64 text") from None


def group_key(enrollment_id: str | None, login: str | None, data: Path | None) -> str:
    """The primary key of a group. Raises Invalid where it has none."""
    if not enrollment_id:
        raise Invalid("--symmetric-key", "give the group's key, or the group with --enrollment-id")
    path = f"/enrollmentGroups/{quote(enrollment_id, safe='')}/attestationmechanism"
    mechanism, _ = dps_service(login, data).call("POST", path)
    if mechanism["type"] != "symmetricKey":
        raise Invalid(
            "--enrollment-id", f"{enrollment_id!r} is a group by {mechanism['type']}: it has no key"
        )
    key: str = mechanism["symmetricKey"]["primaryKey"]
    return key
