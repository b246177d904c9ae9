"""`moorage hub device-identity`: who may connect to the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from moorage.cli.hub.authentication import (
    authentication_options,
    certificate_options,
    changed_authentication,
    with_made_certificate,
)
from moorage.cli.hub.connection_strings import connection_string_group
from moorage.cli.hub.device_relations import children, parent
from moorage.cli.hub.reach import (
    all_options,
    condition,
    device_id_option,
    device_path,
    etag_option,
    hub_service,
)
from moorage.cli.hub.renew_key import renew_device_key
from moorage.cli.output import output_option, show
from moorage.cli.set_values import Assignment, set_option, with_values
from moorage.cli.target import hub_login_options

F = TypeVar("F", bound=Callable[..., Any])

COLUMNS = {
    "DEVICE ID": "deviceId",
    "STATUS": "status",
    "AUTHENTICATION": "authentication.type",
    "CONNECTION": "connectionState",
    "LAST ACTIVITY": "lastActivityTime",
}


def settings_options(function: F) -> F:
    return all_options(
        function,
        authentication_options,
        click.option("--status", "--sta", type=click.Choice(["enabled", "disabled"])),
        click.option("--status-reason", "--star", help="Why it has that status."),
        click.option("--edge-enabled", "--ee", type=bool, help="Whether the device is an IoT Edge device."),
        click.option("--device-scope", help="Scope of its parent, an IoT Edge device; empty for none."),
    )


@click.group()
def device_identity() -> None:
    """Device identities: who may connect to the hub."""


@device_identity.command()
@device_id_option
@settings_options
@certificate_options
@output_option
@hub_login_options
def create(device_id: str, output: str, login: str | None, data: Path | None, **given: Any) -> None:
    """Let a device connect."""
    document = {"deviceId": device_id, "status": "enabled"}
    service = hub_service(login, data)
    document = _changed(document, with_made_certificate(device_id, given))
    show(service.put(device_path(device_id), document), output, COLUMNS)


@device_identity.command("list")
@click.option("--top", type=click.IntRange(1, 1000), default=1000, help="How many at the most.")
@output_option
@hub_login_options
def list_(top: int, output: str, login: str | None, data: Path | None) -> None:
    """The devices of the hub."""
    show(hub_service(login, data).get("/devices", top=str(top)), output, COLUMNS)


@device_identity.command("show")
@device_id_option
@output_option
@hub_login_options
def show_(device_id: str, output: str, login: str | None, data: Path | None) -> None:
    """One device identity, its keys included."""
    show(hub_service(login, data).get(device_path(device_id)), output, COLUMNS)


@device_identity.command()
@device_id_option
@settings_options
@set_option
@etag_option
@output_option
@hub_login_options
def update(
    device_id: str,
    assignments: tuple[Assignment, ...],
    etag: str | None,
    output: str,
    login: str | None,
    data: Path | None,
    **given: Any,
) -> None:
    """Change a device identity; what is not named stays. A disabled device loses its connection at once."""
    service, path = hub_service(login, data), device_path(device_id)
    document = with_values(_changed(service.get(path), given), assignments)
    show(service.put(path, document, if_match=condition(etag)), output, COLUMNS)


@device_identity.command()
@device_id_option
@etag_option
@hub_login_options
def delete(device_id: str, etag: str | None, login: str | None, data: Path | None) -> None:
    """Delete a device identity, its modules with it; a connected device is dropped."""
    hub_service(login, data).delete(device_path(device_id), if_match=condition(etag))


device_identity.add_command(renew_device_key)
device_identity.add_command(parent)
device_identity.add_command(children)
device_identity.add_command(connection_string_group(of_module=False))


def _changed(document: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`document` with what the options name put in."""
    members: dict[str, Any] = {"status": given["status"], "statusReason": given["status_reason"]}
    members["authentication"] = changed_authentication(document.get("authentication"), given) or None
    edge = given["edge_enabled"]
    if edge is not None:
        members["capabilities"] = {"iotEdge": edge}
    scope = given["device_scope"]
    if scope is not None:
        is_edge = edge if edge is not None else (document.get("capabilities") or {}).get("iotEdge")
        # An edge device's own scope is the hub's to give; its parents have another member [hub-service 5.3].
        members |= {"parentScopes": [scope] if scope else []} if is_edge else {"deviceScope": scope}
    return document | {name: value for name, value in members.items() if value is not None}
