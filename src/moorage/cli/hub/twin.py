"""`moorage hub device-twin` and `module-twin`: the JSON state kept for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from moorage.cli.hub.reach import (
    all_options,
    condition,
    device_id_option,
    etag_option,
    hub_service,
    module_id_option,
    twin_path,
)
from moorage.cli.json_values import json_value
from moorage.cli.output import output_option, show
from moorage.cli.set_values import Assignment, set_option, with_values
from moorage.cli.target import hub_login_options

F = TypeVar("F", bound=Callable[..., Any])


def json_object_or_null(text: str) -> Any:
    """Null clears all of it."""
    value = json_value(text)
    if value is not None and not isinstance(value, dict):
        raise click.BadParameter("a JSON object is wanted, or null")
    return _CLEARED if value is None else value


_CLEARED: Any = object()


def twin_group(*, of_module: bool) -> click.Group:
    """`show|update|replace`; of devices also `list`."""
    noun = "module" if of_module else "device"
    columns = {"DEVICE ID": "deviceId"} | ({"MODULE ID": "moduleId"} if of_module else {})
    columns |= {"VERSION": "version", "TAGS": "tags", "DESIRED": "properties.desired"}

    def named(function: F) -> F:
        if of_module:
            return all_options(function, device_id_option, module_id_option)
        return device_id_option(function)

    @click.group(f"{noun}-twin", help=f"{noun.capitalize()} twins: the JSON state kept for each {noun}.")
    def group() -> None:
        pass

    @group.command("show")
    @named
    @output_option
    @hub_login_options
    def show_(
        device_id: str, output: str, login: str | None, data: Path | None, module_id: str | None = None
    ) -> None:
        """One twin, as services see it."""
        show(hub_service(login, data).get(twin_path(device_id, module_id)), output, columns)

    @group.command()
    @named
    @click.option("--tags", type=json_object_or_null, help="Tags, JSON or a file of it; null clears them.")
    @click.option("--desired", type=json_object_or_null, help="Desired properties, likewise.")
    @set_option
    @etag_option
    @output_option
    @hub_login_options
    def update(
        device_id: str,
        tags: Any,
        desired: Any,
        assignments: tuple[Assignment, ...],
        etag: str | None,
        output: str,
        login: str | None,
        data: Path | None,
        module_id: str | None = None,
    ) -> None:
        """Merge into tags and desired properties: null deletes, what is not named stays.

        A connected device is told of its desired properties at once.
        """
        patch = with_values(_members(tags, desired), assignments)
        if not patch:
            raise click.UsageError("nothing to change: give --tags, --desired or --set")
        service = hub_service(login, data)
        changed = service.patch(twin_path(device_id, module_id), patch, if_match=condition(etag))
        show(changed, output, columns)

    @group.command()
    @named
    @click.option(
        "--json",
        "-j",
        "twin",
        required=True,
        type=json_object_or_null,
        help="The new twin, JSON or a file of it.",
    )
    @etag_option
    @output_option
    @hub_login_options
    def replace(
        device_id: str,
        twin: Any,
        etag: str | None,
        output: str,
        login: str | None,
        data: Path | None,
        module_id: str | None = None,
    ) -> None:
        """Replace tags and desired properties: what the new twin has not is gone."""
        service = hub_service(login, data)
        document = {} if twin is _CLEARED else twin
        changed = service.put(twin_path(device_id, module_id), document, if_match=condition(etag))
        show(changed, output, columns)

    if not of_module:

        @group.command("list")
        @click.option("--top", type=click.IntRange(min=1), help="How many at the most.")
        @click.option("--edge-enabled", "--ee", is_flag=True, help="Of IoT Edge devices alone.")
        @output_option
        @hub_login_options
        def list_(
            top: int | None, edge_enabled: bool, output: str, login: str | None, data: Path | None
        ) -> None:
            """The twins of the hub's devices."""
            where = " WHERE capabilities.iotEdge = true" if edge_enabled else ""
            found = hub_service(login, data).pages(
                "/devices/query", {"query": f"SELECT * FROM devices{where}"}, top=top
            )
            show(list(found), output, columns)

    return group


def _members(tags: Any, desired: Any) -> dict[str, Any]:
    """The patch that the options make. Cleared is null on the wire [hub-service 6.2]."""
    patch: dict[str, Any] = {}
    if tags is not None:
        patch["tags"] = None if tags is _CLEARED else tags
    if desired is not None:
        patch["properties"] = {"desired": None if desired is _CLEARED else desired}
    return patch


device_twin = twin_group(of_module=False)
module_twin = twin_group(of_module=True)
