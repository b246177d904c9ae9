"""`moorage hub consumer-group`: named views of the telemetry, for readers that do not disturb one another."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import HUB_API_VERSION, Service
from moorage.cli.target import HUB_VARIABLES, find_login, hub_login_options_of_named

COLUMNS = {"NAME": "name"}

name_option = click.option("--name", "-n", required=True, help="Name of the consumer group.")


@click.group()
def consumer_group() -> None:
    """Consumer groups of the built-in endpoint."""


@consumer_group.command()
@name_option
@output_option
@hub_login_options_of_named
def create(name: str, output: str, login: str | None, data: Path | None) -> None:
    """Make a consumer group."""
    service, path = _reach(login, data, name)
    show(service.put(path, {}), output, COLUMNS)


@consumer_group.command("list")
@output_option
@hub_login_options_of_named
def list_(output: str, login: str | None, data: Path | None) -> None:
    """All consumer groups."""
    service, path = _reach(login, data)
    show(service.get(path), output, COLUMNS)


@consumer_group.command("show")
@name_option
@output_option
@hub_login_options_of_named
def show_(name: str, output: str, login: str | None, data: Path | None) -> None:
    """One consumer group."""
    service, path = _reach(login, data, name)
    show(service.get(path), output, COLUMNS)


@consumer_group.command()
@name_option
@hub_login_options_of_named
def delete(name: str, login: str | None, data: Path | None) -> None:
    """Delete a consumer group; its readers are closed."""
    service, path = _reach(login, data, name)
    service.delete(path)


def _reach(login: str | None, data: Path | None, name: str | None = None) -> tuple[Service, str]:
    found = find_login(login, data, HUB_VARIABLES)
    path = f"/moorage/v1/hubs/{found.host}/consumerGroups"
    return Service(found, HUB_API_VERSION), path if name is None else f"{path}/{quote(name, safe='')}"
