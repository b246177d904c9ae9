"""`moorage hub device-identity`: who may connect to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import HUB_API_VERSION, Service
from moorage.cli.target import HUB_VARIABLES, find_login, hub_login_options

COLUMNS = {
    "DEVICE ID": "deviceId",
    "STATUS": "status",
    "AUTHENTICATION": "authentication.type",
    "CONNECTION": "connectionState",
    "LAST ACTIVITY": "lastActivityTime",
}
METHODS = {
    "shared_private_key": "sas",
    "x509_thumbprint": "selfSigned",
    "x509_ca": "certificateAuthority",
}

device_id_option = click.option("--device-id", "-d", required=True, help="Device id.")


def settings_options(function: Any) -> Any:
    for option in reversed(
        (
            click.option(
                "--auth-method",
                "--am",
                type=click.Choice(list(METHODS)),
                help="How the device proves itself.",
            ),
            click.option("--primary-key", "--pk", help="Symmetric key, base64; made when left out."),
            click.option("--secondary-key", "--sk", help="Symmetric key, base64; made when left out."),
            click.option(
                "--primary-thumbprint", "--ptp", help="SHA-1 or SHA-256 of the certificate, hexadecimal."
            ),
            click.option("--secondary-thumbprint", "--stp", help="Of a second certificate."),
            click.option("--status", "--sta", type=click.Choice(["enabled", "disabled"])),
            click.option("--status-reason", "--star", help="Why it has that status."),
            click.option(
                "--edge-enabled", "--ee", type=bool, help="Whether the device is an IoT Edge device."
            ),
        )
    ):
        function = option(function)
    return function


@click.group()
def device_identity() -> None:
    """Device identities: who may connect to the hub."""


@device_identity.command()
@device_id_option
@settings_options
@output_option
@hub_login_options
def create(device_id: str, output: str, login: str | None, data: Path | None, **settings: Any) -> None:
    """Let a device connect."""
    document = {"deviceId": device_id, "status": "enabled"}
    show(_service(login, data).put(_path(device_id), _changed(document, settings)), output, COLUMNS)


@device_identity.command("list")
@click.option("--top", type=click.IntRange(1, 1000), default=1000, help="How many at the most.")
@output_option
@hub_login_options
def list_(top: int, output: str, login: str | None, data: Path | None) -> None:
    """The devices of the hub."""
    show(_service(login, data).get("/devices", top=str(top)), output, COLUMNS)


@device_identity.command("show")
@device_id_option
@output_option
@hub_login_options
def show_(device_id: str, output: str, login: str | None, data: Path | None) -> None:
    """One device identity, its keys included."""
    show(_service(login, data).get(_path(device_id)), output, COLUMNS)


@device_identity.command()
@device_id_option
@settings_options
@click.option("--etag", "-e", help="Change only this version.")
@output_option
@hub_login_options
def update(
    device_id: str, etag: str | None, output: str, login: str | None, data: Path | None, **settings: Any
) -> None:
    """Change a device identity; what is not named stays. A disabled device loses its connection at once."""
    service = _service(login, data)
    document = _changed(service.get(_path(device_id)), settings)
    show(service.put(_path(device_id), document, if_match=f'"{etag or "*"}"'), output, COLUMNS)


@device_identity.command()
@device_id_option
@click.option("--etag", "-e", help="Delete only this version.")
@hub_login_options
def delete(device_id: str, etag: str | None, login: str | None, data: Path | None) -> None:
    """Delete a device identity; a connected device is dropped."""
    _service(login, data).delete(_path(device_id), if_match=f'"{etag or "*"}"')


def _service(login: str | None, data: Path | None) -> Service:
    return Service(find_login(login, data, HUB_VARIABLES), HUB_API_VERSION)


def _path(device_id: str) -> str:
    return f"/devices/{quote(device_id, safe='')}"


def _changed(document: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`document` with what the options name put in."""
    authentication = dict(document.get("authentication") or {})
    if given["auth_method"]:
        authentication = {"type": METHODS[given["auth_method"]]}
    for member, options in (
        ("symmetricKey", {"primaryKey": "primary_key", "secondaryKey": "secondary_key"}),
        (
            "x509Thumbprint",
            {"primaryThumbprint": "primary_thumbprint", "secondaryThumbprint": "secondary_thumbprint"},
        ),
    ):
        named = {name: given[option] for name, option in options.items() if given[option] is not None}
        if named:
            authentication[member] = {**(authentication.get(member) or {}), **named}
    members: dict[str, Any] = {"status": given["status"], "statusReason": given["status_reason"]}
    if authentication:
        members["authentication"] = authentication
    if given["edge_enabled"] is not None:
        members["capabilities"] = {"iotEdge": given["edge_enabled"]}
    return document | {name: value for name, value in members.items() if value is not None}
