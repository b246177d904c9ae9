"""What the commands on one hub share: the service, the paths in it, and the columns of tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from moorage.cli.rest import HUB_API_VERSION, Service
from moorage.cli.target import HUB_VARIABLES, find_login

F = TypeVar("F", bound=Callable[..., Any])

device_id_option = click.option("--device-id", "-d", required=True, help="Device id.")
module_id_option = click.option("--module-id", "-m", required=True, help="Module id.")
etag_option = click.option("--etag", "-e", help="Only this version of it; without it whichever is there.")


def hub_service(login: str | None, data: Path | None) -> Service:
    """Raises NoServer, Invalid."""
    return Service(find_login(login, data, HUB_VARIABLES), HUB_API_VERSION)


def device_path(device_id: str, module_id: str | None = None, *, root: str = "/devices") -> str:
    """Of the identity, or with another `root` of what else a device or module has."""
    path = f"{root}/{quote(device_id, safe='')}"
    return path if module_id is None else f"{path}/modules/{quote(module_id, safe='')}"


def twin_path(device_id: str, module_id: str | None = None) -> str:
    return device_path(device_id, module_id, root="/twins")


def condition(etag: str | None) -> str:
    """`If-Match` as Azure's own clients write it, in quotes [hub-service 3]."""
    return f'"{etag or "*"}"'


def all_options(function: F, *options: Callable[[F], F]) -> F:
    """The options in the order in which help shall list them."""
    for option in reversed(options):
        function = option(function)
    return function
