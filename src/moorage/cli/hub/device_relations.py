"""`… device-identity parent` and `children`: which IoT Edge device stands above which others [hub-service 5.3]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from moorage.cli.hub.reach import condition, device_id_option, device_path, hub_service
from moorage.cli.listed_values import ListedValues, listed
from moorage.cli.output import output_option, show
from moorage.cli.rest import Service
from moorage.cli.target import hub_login_options
from moorage.errors import Invalid

SCOPE_PREFIX = "ms-azure-iot-edge://"
COLUMNS = {"DEVICE ID": "deviceId", "STATUS": "status", "SCOPE": "deviceScope"}

edge_device_option = click.option("--device-id", "-d", required=True, help="Id of the IoT Edge device.")
force_option = click.option("--force", "-f", is_flag=True, help="Also where it has a parent already.")


@click.group()
def parent() -> None:
    """The IoT Edge device above a device."""


@parent.command("show")
@device_id_option
@output_option
@hub_login_options
def show_parent(device_id: str, output: str, login: str | None, data: Path | None) -> None:
    """The parent of a device."""
    service = hub_service(login, data)
    scopes = service.get(device_path(device_id)).get("parentScopes")
    if not scopes:
        raise Invalid("--device-id", f"{device_id} has no parent")
    name, _, _ = scopes[0].removeprefix(SCOPE_PREFIX).rpartition("-")
    show(service.get(device_path(name)), output, COLUMNS)


@parent.command("set")
@device_id_option
@click.option("--parent-device-id", "--pd", required=True, help="Id of the IoT Edge device.")
@force_option
@output_option
@hub_login_options
def set_(
    device_id: str, parent_device_id: str, force: bool, output: str, login: str | None, data: Path | None
) -> None:
    """Put a device below an IoT Edge device."""
    service = hub_service(login, data)
    scope = _edge_device(service, parent_device_id)["deviceScope"]
    child = _free_to_move(service, device_id, force=force)
    show(_move(service, child, scope), output, COLUMNS)


@click.group()
def children() -> None:
    """The devices below an IoT Edge device."""


@children.command("list")
@edge_device_option
@output_option
@hub_login_options
def list_(device_id: str, output: str, login: str | None, data: Path | None) -> None:
    """The ids of the children."""
    service = hub_service(login, data)
    ids = _children(service, _edge_device(service, device_id))
    if output == "json":
        show(ids, output, {})
    else:
        show([{"deviceId": each} for each in ids], output, {"DEVICE ID": "deviceId"})


@children.command(cls=ListedValues)
@edge_device_option
@click.option("--child-list", "--cl", "names", multiple=True, required=True, help="Ids, separated by spaces.")
@force_option
@hub_login_options
def add(device_id: str, names: tuple[str, ...], force: bool, login: str | None, data: Path | None) -> None:
    """Put devices below an IoT Edge device; all of them, or where one cannot be none."""
    service = hub_service(login, data)
    scope = _edge_device(service, device_id)["deviceScope"]
    for child in [_free_to_move(service, name, force=force) for name in listed(names)]:
        _move(service, child, scope)


@children.command(cls=ListedValues)
@edge_device_option
@click.option("--child-list", "--cl", "names", multiple=True, help="Ids, separated by spaces.")
@click.option("--remove-all", "-a", "every", is_flag=True, help="All children.")
@hub_login_options
def remove(device_id: str, names: tuple[str, ...], every: bool, login: str | None, data: Path | None) -> None:
    """Take children away from an IoT Edge device."""
    if every == bool(names):
        raise click.UsageError("give either --child-list or --remove-all")
    service = hub_service(login, data)
    edge = _edge_device(service, device_id)
    ids = _children(service, edge) if every else listed(names)
    found = [service.get(device_path(each)) for each in ids]
    for child in found:
        if edge["deviceScope"] not in (child.get("parentScopes") or ()):
            raise Invalid("--child-list", f"{child['deviceId']} is not a child of {device_id}")
    for child in found:
        _move(service, child, None)


def _edge_device(service: Service, device_id: str) -> dict[str, Any]:
    document: dict[str, Any] = service.get(device_path(device_id))
    if not document["capabilities"]["iotEdge"]:
        raise Invalid("--device-id", f"{device_id} is not an IoT Edge device (--edge-enabled true)")
    return document


def _free_to_move(service: Service, device_id: str, *, force: bool) -> dict[str, Any]:
    document: dict[str, Any] = service.get(device_path(device_id))
    if document.get("parentScopes") and not force:
        raise Invalid("--force", f"{device_id} has a parent already")
    return document


def _move(service: Service, child: dict[str, Any], scope: str | None) -> Any:
    """Below the edge device of that scope, or (None) below nobody."""
    if child["capabilities"]["iotEdge"]:
        moved = child | {"parentScopes": [scope] if scope else []}
    else:
        moved = child | {"deviceScope": scope or "", "parentScopes": [scope] if scope else []}
    return service.put(device_path(child["deviceId"]), moved, if_match=condition(child["etag"]))


def _children(service: Service, edge: dict[str, Any]) -> list[str]:
    text = f"select deviceId from devices where array_contains(parentScopes, '{edge['deviceScope']}')"
    found = service.pages("/devices/query", {"query": text}, top=None)
    return [each["deviceId"] for each in found]
