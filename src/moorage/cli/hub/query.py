"""`moorage hub query`: ask for twins in the hub's query language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from moorage.cli.hub.reach import hub_service
from moorage.cli.output import output_option, show
from moorage.cli.target import hub_login_options

TWIN_COLUMNS = {
    "DEVICE ID": "deviceId",
    "MODULE ID": "moduleId",
    "STATUS": "status",
    "CONNECTION": "connectionState",
    "VERSION": "version",
    "TAGS": "tags",
}


@click.command()
@click.option("--query-command", "-q", required=True, help="For instance: select * from devices")
@click.option("--top", type=click.IntRange(min=1), help="How many at the most; without it all of them.")
@output_option
@hub_login_options
def query(query_command: str, top: int | None, output: str, login: str | None, data: Path | None) -> None:
    """Twins of devices or modules, what is picked out of them, or counts: `select status, count() as n from devices
    group by status`."""
    rows = list(hub_service(login, data).pages("/devices/query", {"query": query_command}, top=top))
    if output == "json":
        show(rows, output, {})
    elif rows and all("x509Thumbprint" in row and "properties" in row for row in rows):
        modules = any("moduleId" in row for row in rows)
        show(rows, output, {head: at for head, at in TWIN_COLUMNS.items() if modules or at != "moduleId"})
    else:
        _table(rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    """A column for each name, in the order of the query; a name may hold points, which `show` takes for a path."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    numbered = [{str(place): row.get(name) for place, name in enumerate(names)} for row in rows]
    show(numbered, "table", {name: str(place) for place, name in enumerate(names)})
