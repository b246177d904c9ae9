"""`moorage explain`: why a device was refused, or let in."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from moorage.cli.output import show
from moorage.cli.rest import Service
from moorage.cli.target import HUB_VARIABLES, find_login, login_options

API_VERSION = "2021-04-12"
LOOK_EVERY = 0.5  # seconds between two looks of --follow


@click.command()
@click.argument("subject", required=False)
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many decisions.")
@click.option("--operation", help="Only of this operation, such as register or connect.")
@click.option("--refused-only", "-r", is_flag=True, help="Only refusals.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--brief", "-b", is_flag=True, help="One line for each.")
@click.option(
    "--output",
    "-o",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="With --follow a JSON document a line.",
)
@login_options
def explain(
    subject: str | None,
    top: int,
    operation: str | None,
    refused_only: bool,
    follow: bool,
    brief: bool,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Show the last decisions about SUBJECT, a registration id or device id; without it, about anybody.

    For each: what proof was presented, what was considered, which check failed, and what would mend it.
    """
    service = Service(find_login(login, data, HUB_VARIABLES), API_VERSION)
    query = {"top": str(top)} | ({"operation": operation} if operation else {})
    if refused_only:
        query["refused"] = "true"
    path = "/moorage/v1/decisions" + (f"/{quote(subject, safe='')}" if subject else "")
    decisions, headers = service.call("GET", path, query=query)
    if follow:
        if subject is None:
            decisions.reverse()  # what comes is told in the order of time
        else:
            query["subject"] = subject
        with contextlib.suppress(KeyboardInterrupt):
            _tell(decisions, brief, output)
            _follow(service, query | {"top": "1000"}, headers["x-ms-continuation"], brief, output)
    elif output == "json":
        show(decisions, "json", {})
    elif brief and decisions:
        _tell(decisions, brief, output)
    elif not decisions:
        click.echo(_nothing(subject, filtered=bool(operation or refused_only)))
    else:
        click.echo("\n\n".join("\n".join(decision_lines(decision)) for decision in decisions))


def _follow(service: Service, query: dict[str, str], place: str, brief: bool, output: str) -> None:
    while True:
        time.sleep(LOOK_EVERY)
        decisions, headers = service.call("GET", "/moorage/v1/decisions", query={**query, "since": place})
        place = headers["x-ms-continuation"]
        if missed := headers.get("moorage-missed"):
            click.echo(f"moorage: {missed} decisions came too fast to be shown", err=True)
        _tell(decisions, brief, output)


def _tell(decisions: list[dict[str, Any]], brief: bool, output: str) -> None:
    for decision in decisions:
        if output == "json":
            click.echo(json.dumps(decision, ensure_ascii=False))
        elif brief:
            click.echo(brief_line(decision))
        else:
            click.echo("\n".join(decision_lines(decision)) + "\n")


def _nothing(subject: str | None, *, filtered: bool) -> str:
    if filtered:
        return "Nothing of that kind was decided since the server started."
    if subject:
        return f"Nothing is known about {subject}: it has not come here since the server started."
    return "Nobody has come here since the server started."


def brief_line(decision: dict[str, Any]) -> str:
    """One decision, for those who look at many."""
    verdict = "accepted" if decision["accepted"] else "REFUSED "
    what = f"{decision['operation']} {decision['subject']}".rstrip()
    failed = ", ".join(check["name"] for check in decision["checks"] if not check["held"])
    why = f"  {failed}: {decision['error']}" if decision["error"] else ""
    return f"{decision['time'][:23]}Z  {verdict}  {what}  from {decision['address']}{why}"


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
