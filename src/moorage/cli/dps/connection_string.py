"""`moorage dps connection-string`: what back ends and tools of the provisioning service are configured with."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from moorage.cli.dps.policy import OWNER
from moorage.cli.output import output_option
from moorage.cli.policy import KEY_TYPES, show_connection_strings
from moorage.cli.policy import connection_string as written
from moorage.cli.target import find_login, login_options


@click.group()
def connection_string() -> None:
    """Connection strings of the provisioning service."""


@connection_string.command("show")
@click.option("--policy-name", "--pn", help=f"Of which policy; without it {OWNER.default_policy}.")
@click.option("--key-type", "--kt", "--key", type=KEY_TYPES, default="primary", show_default=True)
@click.option("--all", "--show-all", "every", is_flag=True, help="Of all policies.")
@output_option
@login_options
def show_(
    policy_name: str | None, key_type: str, every: bool, output: str, login: str | None, data: Path | None
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
        write=partial(written, found),
    )
