"""`moorage hub module-identity`: parts of a device that connect by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from moorage.cli.hub.authentication import (
    authentication_options,
    certificate_options,
    changed_authentication,
    with_made_certificate,
)
from moorage.cli.hub.connection_strings import connection_string_group
from moorage.cli.hub.reach import (
    condition,
    device_id_option,
    device_path,
    etag_option,
    hub_service,
    module_id_option,
)
from moorage.cli.hub.renew_key import renew_module_key
from moorage.cli.output import output_option, show
from moorage.cli.set_values import Assignment, set_option, with_values
from moorage.cli.target import hub_login_options

COLUMNS = {
    "DEVICE ID": "deviceId",
    "MODULE ID": "moduleId",
    "AUTHENTICATION": "authentication.type",
    "CONNECTION": "connectionState",
    "LAST ACTIVITY": "lastActivityTime",
}


@click.group()
def module_identity() -> None:
    """Module identities: parts of a device that connect by themselves, with keys and twins of their own."""


@module_identity.command()
@device_id_option
@module_id_option
@authentication_options
@certificate_options
@output_option
@hub_login_options
def create(
    device_id: str, module_id: str, output: str, login: str | None, data: Path | None, **given: Any
) -> None:
    """Let a module of a device connect."""
    service = hub_service(login, data)
    document = _changed(
        {"deviceId": device_id, "moduleId": module_id}, with_made_certificate(module_id, given)
    )
    show(service.put(device_path(device_id, module_id), document), output, COLUMNS)


@module_identity.command("list")
@device_id_option
@click.option("--top", type=click.IntRange(min=1), help="How many at the most.")
@output_option
@hub_login_options
def list_(device_id: str, top: int | None, output: str, login: str | None, data: Path | None) -> None:
    """The modules of a device."""
    show(hub_service(login, data).get(f"{device_path(device_id)}/modules")[:top], output, COLUMNS)


@module_identity.command("show")
@device_id_option
@module_id_option
@output_option
@hub_login_options
def show_(device_id: str, module_id: str, output: str, login: str | None, data: Path | None) -> None:
    """One module identity, its keys included."""
    show(hub_service(login, data).get(device_path(device_id, module_id)), output, COLUMNS)


@module_identity.command()
@device_id_option
@module_id_option
@authentication_options
@set_option
@etag_option
@output_option
@hub_login_options
def update(
    device_id: str,
    module_id: str,
    assignments: tuple[Assignment, ...],
    etag: str | None,
    output: str,
    login: str | None,
    data: Path | None,
    **given: Any,
) -> None:
    """Change a module identity; what is not named stays."""
    service, path = hub_service(login, data), device_path(device_id, module_id)
    document = with_values(_changed(service.get(path), given), assignments)
    show(service.put(path, document, if_match=condition(etag)), output, COLUMNS)


@module_identity.command()
@device_id_option
@module_id_option
@etag_option
@hub_login_options
def delete(device_id: str, module_id: str, etag: str | None, login: str | None, data: Path | None) -> None:
    """Delete a module identity; a connected module is dropped."""
    hub_service(login, data).delete(device_path(device_id, module_id), if_match=condition(etag))


module_identity.add_command(renew_module_key)
module_identity.add_command(connection_string_group(of_module=True))


def _changed(document: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    authentication = changed_authentication(document.get("authentication"), given)
    return document | ({"authentication": authentication} if authentication else {})
