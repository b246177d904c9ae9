"""`moorage hub connection-string`: what back ends and tools of the hub are configured with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from moorage.cli.hub.policy import OWNER
from moorage.cli.output import output_option
from moorage.cli.policy import KEY_TYPES, show_connection_strings
from moorage.cli.policy import connection_string as written
from moorage.cli.target import Login, find_login, hub_login_options


@click.group()
def connection_string() -> None:
    """Connection strings of the hub."""


@connection_string.command("show")
@click.option("--policy-name", "--pn", help=f"Of which policy; without it {OWNER.default_policy}.")
@click.option("--key-type", "--kt", type=KEY_TYPES, default="primary", show_default=True)
@click.option("--all", "--show-all", "every", is_flag=True, help="Of all policies.")
@click.option(
    "--default-eventhub",
    "--eh",
    "event_hub",
    is_flag=True,
    help="For Event Hubs clients: the built-in endpoint.",
)
@output_option
@hub_login_options
def show_(
    policy_name: str | None,
    key_type: str,
    every: bool,
    event_hub: bool,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """The connection string of a policy."""
    found = find_login(login, data, OWNER.variables)
    show_connection_strings(
        OWNER,
        found,
        name=policy_name,
        every=every,
        key_type=key_type,
        output=output,
        write=_for_event_hub(found) if event_hub else partial(written, found),
    )


def _for_event_hub(login: Login) -> Callable[[str, str], str]:
    from moorage.cli.event_reader import find_endpoint

    endpoint = asyncio.run(find_endpoint(login, login.trust()))

    def write(name: str, key: str) -> str:
        policy = f"SharedAccessKeyName={name};SharedAccessKey={key}"
        return f"Endpoint=sb://{endpoint.host}/;{policy};EntityPath={endpoint.entity}"

    return write
