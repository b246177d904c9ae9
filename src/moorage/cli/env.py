"""`moorage env` and `moorage wait`: the running server, for shells and scripts."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from moorage.cli.target import NoServer, environment_of, is_ready, running_server
from moorage.shells import FORMATS

DATA = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--data", type=DATA, help="Folder of the server, where several run.")
@click.option(
    "--format",
    "style",
    type=click.Choice(list(FORMATS)),
    default="shell",
    show_default=True,
    help="For which shell, or language.",
)
@click.option("--hub", help="Of that hub of the server; without it of the first.")
def env(data: Path | None, style: str, hub: str | None) -> None:
    """Print the running server's environment, for eval "$(moorage env)".

    The names are those that Microsoft's samples and test suites read.
    """
    server = running_server(data)
    click.echo(FORMATS[style](server.env if hub is None else environment_of(server, hub)))


@click.command()
@click.option("--data", type=DATA, help="Folder of the server, where several run.")
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds to wait at the most.")
def wait(data: Path | None, timeout: float) -> None:
    """Return when the server is ready; exit 1 when it is not within the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            server = running_server(data)
            if is_ready(server):
                return
            why = f"the server with process id {server.pid} is not ready"
        except NoServer as error:
            why = str(error)
        if time.monotonic() >= deadline:
            click.echo(f"moorage: {why}", err=True)
            sys.exit(1)
        time.sleep(0.02)
