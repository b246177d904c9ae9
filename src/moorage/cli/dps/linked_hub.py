"""`moorage dps linked-hub`: the hubs that devices may be assigned to."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from moorage.cli.output import output_option, show
from moorage.cli.rest import DPS_API_VERSION, Service
from moorage.cli.target import DPS_VARIABLES, find_login, login_options

ROOT = "/moorage/v1/linkedHubs"
COLUMNS = {
    "NAME": "name",
    "HUB": "hub",
    "WEIGHT": "allocationWeight",
    "APPLY POLICY": "applyAllocationPolicy",
    "LOCATION": "location",
    "LATENCY": "latencyMs",
}

linked_hub_option = click.option("--linked-hub", required=True, help="Host name of the linked hub.")


def terms_options(function: Any) -> Any:
    for option in reversed(
        (
            click.option("--allocation-weight", type=int, help="1 to 1000: its share of hashed devices."),
            click.option(
                "--apply-allocation-policy", type=bool, help="False: only for enrollments that name the hub."
            ),
            click.option("--location", help="Where it stands, in words."),
            click.option(
                "--latency", type=float, help="Milliseconds from the devices: geoLatency takes the nearest."
            ),
        )
    ):
        function = option(function)
    return function


@click.group()
def linked_hub() -> None:
    """Linked hubs: where devices may be assigned to."""


@linked_hub.command()
@click.option("--hub-name", "--hn", "hub", help="A hub of this server, by its name.")
@click.option(
    "--connection-string",
    "--cs",
    "connection_string",
    help="A hub of another server, by a policy with RegistryWrite and ServiceConnect.",
)
@terms_options
@output_option
@login_options
def create(
    hub: str | None,
    connection_string: str | None,
    output: str,
    login: str | None,
    data: Path | None,
    **terms: Any,
) -> None:
    """Link a hub: one of this server by its name, or one of another by a connection string."""
    wanted = {"hub": hub, "connectionString": connection_string, **_terms(**terms)}
    show(_service(login, data).call("POST", ROOT, wanted)[0], output, COLUMNS)


@linked_hub.command("list")
@output_option
@login_options
def list_(output: str, login: str | None, data: Path | None) -> None:
    """All linked hubs."""
    show(_service(login, data).get(ROOT), output, COLUMNS)


@linked_hub.command("show")
@linked_hub_option
@output_option
@login_options
def show_(linked_hub: str, output: str, login: str | None, data: Path | None) -> None:
    """One linked hub."""
    show(_service(login, data).get(_path(linked_hub)), output, COLUMNS)


@linked_hub.command()
@linked_hub_option
@click.option(
    "--connection-string",
    "--cs",
    "connection_string",
    help="Another one of the same hub of another server, after a change of keys.",
)
@terms_options
@output_option
@login_options
def update(
    linked_hub: str,
    connection_string: str | None,
    output: str,
    login: str | None,
    data: Path | None,
    **terms: Any,
) -> None:
    """Change how a linked hub takes part in allocation; what is not named stays."""
    wanted = _terms(**terms) | ({"connectionString": connection_string} if connection_string else {})
    changed, _ = _service(login, data).call("PATCH", _path(linked_hub), wanted)
    show(changed, output, COLUMNS)


@linked_hub.command()
@linked_hub_option
@login_options
def delete(linked_hub: str, login: str | None, data: Path | None) -> None:
    """Unlink a hub. Its devices stay in it until they register again."""
    _service(login, data).delete(_path(linked_hub))


def _terms(
    *,
    allocation_weight: int | None,
    apply_allocation_policy: bool | None,
    location: str | None,
    latency: float | None,
) -> dict[str, Any]:
    named = {
        "allocationWeight": allocation_weight,
        "applyAllocationPolicy": apply_allocation_policy,
        "location": location,
        "latencyMs": latency,
    }
    return {member: value for member, value in named.items() if value is not None}


def _path(host_name: str) -> str:
    return f"{ROOT}/{quote(host_name, safe='')}"


def _service(login: str | None, data: Path | None) -> Service:
    return Service(find_login(login, data, DPS_VARIABLES), DPS_API_VERSION)
