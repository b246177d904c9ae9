"""`moorage hub message-route`: what of a hub goes to its built-in endpoint, telemetry apart from other events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from moorage.cli.hub.reach import hub_service
from moorage.cli.output import output_option, show
from moorage.cli.rest import Service
from moorage.cli.target import HUB_VARIABLES, find_login, hub_login_options
from moorage.hub.message_route import ABSENT, Source

COLUMNS = {
    "NAME": "name",
    "SOURCE": "source",
    "ENDPOINT": "endpointNames",
    "CONDITION": "condition",
    "ENABLED": "isEnabled",
}

F = TypeVar("F", bound=Callable[..., Any])

route_name_option = click.option(
    "--route-name", "--route", "--rn", "route_name", required=True, help="Name of the route."
)


def source_option(*, required: bool) -> Callable[[F], F]:
    return click.option(
        "--source-type",
        "--type",
        "-t",
        "--source",
        "source_type",
        required=required,
        type=click.Choice([*(source.value for source in Source), *ABSENT], case_sensitive=False),
        help="What the route takes.",
    )


def enabled_option(default: bool | None) -> Callable[[F], F]:
    return click.option(
        "--enabled",
        "-e",
        is_flag=False,
        flag_value="true",
        default=default,
        type=click.BOOL,
        help="Whether the route holds.",
    )


@click.group("message-route")
def message_route() -> None:
    """Which telemetry and which other events readers of the built-in endpoint get.

    Without a route the built-in endpoint has all telemetry, by the fallback route, and nothing else. Changes of
    twins, the life cycle of devices and modules, and their connections become events by a route of their own:

        moorage hub message-route create --route-name twins --source-type TwinChangeEvents
    """


@message_route.command()
@route_name_option
@source_option(required=True)
@click.option(
    "--endpoint-name",
    "--endpoint",
    "--en",
    default="events",
    show_default=True,
    help="Where to; events is the built-in endpoint.",
)
@click.option("--condition", "-c", default="true", show_default=True, help="Of what the route takes.")
@enabled_option(default=True)
@output_option
@hub_login_options
def create(
    route_name: str,
    source_type: str,
    endpoint_name: str,
    condition: str,
    enabled: bool,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Make a route; it replaces one of the same name."""
    service, path = _reach(login, data, route_name)
    wanted = {
        "source": source_type,
        "endpointNames": [endpoint_name],
        "condition": condition,
        "isEnabled": enabled,
    }
    show(service.put(path, wanted), output, COLUMNS)


@message_route.command()
@route_name_option
@source_option(required=False)
@click.option("--endpoint-name", "--endpoint", "--en", help="Where to.")
@click.option("--condition", "-c", help="Of what the route takes.")
@enabled_option(default=None)
@output_option
@hub_login_options
def update(
    route_name: str,
    source_type: str | None,
    endpoint_name: str | None,
    condition: str | None,
    enabled: bool | None,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Change a route; what is left out stays."""
    service, path = _reach(login, data, route_name)
    changes = {
        "source": source_type,
        "endpointNames": [endpoint_name] if endpoint_name is not None else None,
        "condition": condition,
        "isEnabled": enabled,
    }
    known = service.get(path)
    wanted = {**known, **{name: value for name, value in changes.items() if value is not None}}
    show(service.put(f"{path.rpartition('/')[0]}/{quote(known['name'], safe='')}", wanted), output, COLUMNS)


@message_route.command("list")
@source_option(required=False)
@output_option
@hub_login_options
def list_(source_type: str | None, output: str, login: str | None, data: Path | None) -> None:
    """All routes, or those of one source."""
    service, path = _reach(login, data)
    wanted = (source_type or "").lower()
    routes = [each for each in service.get(path) if each["source"].lower() == wanted or not wanted]
    show(routes, output, COLUMNS)


@message_route.command("show")
@route_name_option
@output_option
@hub_login_options
def show_(route_name: str, output: str, login: str | None, data: Path | None) -> None:
    """One route."""
    service, path = _reach(login, data, route_name)
    show(service.get(path), output, COLUMNS)


@message_route.command()
@route_name_option
@hub_login_options
def delete(route_name: str, login: str | None, data: Path | None) -> None:
    """Delete a route."""
    service, path = _reach(login, data, route_name)
    service.delete(path)


@message_route.group()
def fallback() -> None:
    """The route of the telemetry that no other route takes."""


@fallback.command("show")
@output_option
@hub_login_options
def show_fallback(output: str, login: str | None, data: Path | None) -> None:
    """Whether it is enabled."""
    service, path = _reach(login, data)
    show(service.get(f"{path.removesuffix('routes')}fallbackRoute"), output, COLUMNS)


@fallback.command("set")
@click.option(
    "--enabled", "-e", is_flag=False, flag_value="true", required=True, type=click.BOOL, help="On or off."
)
@output_option
@hub_login_options
def set_fallback(enabled: bool, output: str, login: str | None, data: Path | None) -> None:
    """Enable or disable it. While it is off, telemetry that no route takes is acknowledged and dropped."""
    service, path = _reach(login, data)
    answer = service.put(f"{path.removesuffix('routes')}fallbackRoute", {"isEnabled": enabled})
    show(answer, output, COLUMNS)


def _reach(login: str | None, data: Path | None, route_name: str | None = None) -> tuple[Service, str]:
    path = f"/moorage/v1/hubs/{find_login(login, data, HUB_VARIABLES).host}/routes"
    return hub_service(login, data), path if route_name is None else f"{path}/{quote(route_name, safe='')}"
