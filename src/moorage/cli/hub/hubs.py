"""`moorage hub create|list|show|delete`: the hubs of a server. Azure makes and deletes them in its resource manager."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import DPS_API_VERSION, Service
from moorage.cli.target import DPS_VARIABLES, find_login, login_options

ROOT = "/moorage/v1/hubs"
COLUMNS = {
    "NAME": "name",
    "HOST NAME": "hostName",
    "PARTITIONS": "partitionCount",
    "LINKED": "linked",
    "CREATED": "created",
}

name_option = click.option("--name", "-n", required=True, help="Name of the hub.")


@click.command()
@name_option
@click.option(
    "--host-name",
    "host_names",
    multiple=True,
    help="Name or address by which it is reached, may be repeated. Without it the hub gets the next loopback "
    "address, or a name under the server's domain.",
)
@click.option("--partition-count", type=int, default=4, show_default=True, help="Fixed once the hub exists.")
@click.option("--link", is_flag=True, help="Let the provisioning service assign devices to it.")
@output_option
@login_options
def create(
    name: str,
    host_names: tuple[str, ...],
    partition_count: int,
    link: bool,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Make a hub, with devices, policies, partitions and an address of its own."""
    wanted = {"name": name, "hostNames": host_names, "partitionCount": partition_count, "link": link}
    show(_service(login, data).call("POST", ROOT, wanted)[0], output, COLUMNS)
    click.echo(f'Its environment:  eval "$(moorage env --hub {name})"', err=True)


@click.command("list")
@output_option
@login_options
def list_(output: str, login: str | None, data: Path | None) -> None:
    """All hubs of the server, oldest first."""
    show(_service(login, data).get(ROOT), output, COLUMNS)


@click.command("show")
@name_option
@output_option
@login_options
def show_(name: str, output: str, login: str | None, data: Path | None) -> None:
    """One hub."""
    show(_service(login, data).get(f"{ROOT}/{quote(name, safe='')}"), output, COLUMNS)


@click.command()
@name_option
@click.option("--force", is_flag=True, help="Also when it is linked; the link goes with it.")
@login_options
def delete(name: str, force: bool, login: str | None, data: Path | None) -> None:
    """Delete a hub: its devices, twins and policies at once, its telemetry when that expires."""
    query = {"force": "true"} if force else {}
    _service(login, data).call("DELETE", f"{ROOT}/{quote(name, safe='')}", query=query)


def _service(login: str | None, data: Path | None) -> Service:
    return Service(find_login(login, data, DPS_VARIABLES), DPS_API_VERSION)
