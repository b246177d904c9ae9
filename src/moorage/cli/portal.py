"""`moorage portal`: a new link into the portal of the running server."""

from __future__ import annotations

from pathlib import Path

import click

from moorage.cli.browser import open_url
from moorage.cli.env import DATA
from moorage.cli.rest import DPS_API_VERSION, Service
from moorage.cli.target import DPS_VARIABLES, Login, running_server
from moorage.errors import Unavailable


@click.command()
@click.option("--data", type=DATA, help="Folder of the server, where several run.")
@click.option("--open", "open_now", is_flag=True, help="Open it in a browser, too.")
def portal(data: Path | None, open_now: bool) -> None:
    """Print a link that opens the portal, signed in. It is good for one sign-in, within an hour."""
    server = running_server(data)
    login = Login.parse(server.env[DPS_VARIABLES[0]], server.env.get("MOORAGE_CA_FILE"))
    made = Service(login, DPS_API_VERSION).call("POST", "/moorage/v1/portal/links")[0]
    click.echo(made["url"])
    if open_now and not open_url(made["url"]):
        raise Unavailable("there is no browser here to open it with")
