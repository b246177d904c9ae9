"""`moorage explain`: why a device was refused, or let in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from moorage.cli.output import show
from moorage.cli.rest import Service
from moorage.cli.target import HUB_VARIABLES, find_login, login_options

API_VERSION = "2021-04-12"


@click.command()
@click.argument("subject", required=False)
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many decisions.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@login_options
def explain(subject: str | None, top: int, output: str, login: str | None, data: Path | None) -> None:
    """Show the last decisions about SUBJECT, a registration id or device id; without it, about anybody.

    For each: what proof was presented, what was considered, which check failed, and what would mend it.
    """
    service = Service(find_login(login, data, HUB_VARIABLES), API_VERSION)
    path = "/moorage/v1/decisions" + (f"/{quote(subject, safe='')}" if subject else "")
    decisions = service.get(path, top=str(top))
    if output == "json":
        show(decisions, "json", {})
    elif not decisions:
        click.echo(
            f"Nothing is known about {subject}: it has not come here since the server started."
            if subject
            else "Nobody has come here since the server started."
        )
    else:
        click.echo("\n\n".join("\n".join(decision_lines(decision)) for decision in decisions))


def decision_lines(decision: dict[str, Any]) -> Iterator[str]:
    """One decision, for people to read."""
    verdict = "accepted" if decision["accepted"] else "REFUSED"
    yield f"{decision['time']}  {decision['operation']} {decision['subject']}  {verdict}"
    if decision["error"]:
        yield f"  why         {decision['error']}"
    if decision["remedy"]:
        yield f"  remedy      {decision['remedy']}"
    yield f"  from        {decision['address']} by {decision['door']}, tracking id {decision['trackingId']}"
    for name, value in decision["proof"].items():
        for item in value if isinstance(value, list) else [value]:
            yield f"  presented   {name}: {_facts(item)}"
    if not decision["proof"]:
        yield "  presented   nothing"
    for record in decision["considered"]:
        yield f"  considered  {record}"
    for check in decision["checks"]:
        detail = f": {check['detail']}" if check["detail"] else ""
        yield f"  check       {'held  ' if check['held'] else 'FAILED'}  {check['name']}{detail}"
    if exchange := decision.get("exchange"):
        yield from _exchange_lines(exchange)


def _exchange_lines(exchange: dict[str, Any]) -> Iterator[str]:
    """What was asked outside. Texts are gone from older decisions."""
    yield f"  asked       {exchange['asked']}"
    if exchange["request"]:
        yield f"              {exchange['request']}"
    status = f"status {exchange['status']}" if exchange["status"] is not None else ""
    outcome = ", ".join(part for part in (status, exchange["failure"]) if part) or "an answer"
    yield f"  answered    {outcome} after {exchange['seconds']} s"
    for text in (exchange["answer"], exchange["detail"]):
        for line in text.splitlines():
            yield f"              {line}"


def _facts(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {fact}" for key, fact in value.items() if fact is not None)
    return str(value)
