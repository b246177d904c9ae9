"""`moorage hub create|list|show|update|delete`: hubs of a server, which Azure has its resource manager for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
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

F = TypeVar("F", bound=Callable[..., Any])

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


def _duration(unit: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """A number of `unit` (`H` or `S`), as az takes it, or any duration of ISO 8601."""

    def read(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
        return f"PT{text}{unit}" if text is not None and text.isdecimal() else text

    return read


def _flag(name: str, short: str, help: str) -> Callable[[F], F]:
    return click.option(name, short, is_flag=False, flag_value="true", type=click.BOOL, help=help)


@click.command()
@name_option
@click.option(
    "--c2d-max-delivery-count", "--cdd", type=int, help="How often a device may give a message back."
)
@click.option(
    "--c2d-ttl",
    "--ct",
    callback=_duration("H"),
    help="How long a message waits: hours, or PT10M and the like.",
)
@click.option(
    "--feedback-lock-duration",
    "--fld",
    callback=_duration("S"),
    help="How long a receiver may take for a batch of feedback: seconds, or PT1M and the like.",
)
@click.option(
    "--feedback-max-delivery-count", "--fd", type=int, help="How often a batch of feedback is handed out."
)
@click.option(
    "--feedback-ttl",
    "--ft",
    callback=_duration("H"),
    help="How long feedback is kept: hours, or PT10M and the like.",
)
@_flag("--disable-device-sas", "--dds", "Take no SAS token that is signed by the key of a device.")
@_flag("--disable-module-sas", "--dms", "Take no SAS token that is signed by the key of a module.")
@click.option("--etag", "-e", help="Only this version of it.")
@output_option
@login_options
def update(
    name: str,
    c2d_max_delivery_count: int | None,
    c2d_ttl: str | None,
    feedback_lock_duration: str | None,
    feedback_max_delivery_count: int | None,
    feedback_ttl: str | None,
    disable_device_sas: bool | None,
    disable_module_sas: bool | None,
    etag: str | None,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Change how a hub keeps messages and feedback, and which SAS tokens it takes; what is not named stays."""
    feedback = _named(
        lockDurationAsIso8601=feedback_lock_duration,
        ttlAsIso8601=feedback_ttl,
        maxDeliveryCount=feedback_max_delivery_count,
    )
    messages = _named(
        defaultTtlAsIso8601=c2d_ttl, maxDeliveryCount=c2d_max_delivery_count, feedback=feedback or None
    )
    wanted = _named(
        cloudToDevice=messages or None,
        disableDeviceSAS=disable_device_sas,
        disableModuleSAS=disable_module_sas,
    )
    changed = _service(login, data).patch(f"{ROOT}/{quote(name, safe='')}", wanted, if_match=etag)
    show(changed, output, COLUMNS)


def _named(**members: object) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


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
