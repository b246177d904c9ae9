"""`moorage explain`: why a device was refused, or let in, and what became of its connections."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import click

from moorage.cli.output import show
from moorage.cli.rest import Refused, Service
from moorage.cli.target import DPS_VARIABLES, HUB_VARIABLES, Login, NoServer, find_login, login_options
from moorage.errors import Invalid, MoorageError

API_VERSION = "2021-04-12"
LOOK_EVERY = 0.25  # seconds between two looks of --follow


@click.command()
@click.argument("subject", required=False)
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many to show.")
@click.option("--operation", help="Only of this operation, such as register or connect.")
@click.option("--tracking-id", help="Only of this tracking id, which stands in what the device was told.")
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
    tracking_id: str | None,
    refused_only: bool,
    follow: bool,
    brief: bool,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Show the last decisions about SUBJECT, a registration id or device id (`device/module`), and its connections.

    Without SUBJECT about anybody. For each decision: what proof was presented, what was considered, which check failed,
    and what would mend it. For each connection: when it began, and why it ended; --operation, --tracking-id and
    --refused-only leave connections out.
    """
    service, hub = _logins(login, data)
    logins = [each for each in (service, hub) if each is not None]
    sought = [[_decisions(each, subject, operation, tracking_id, refused_only) for each in logins]]
    filtered = bool(operation or tracking_id or refused_only)
    if not filtered and hub is not None and (changes := _changes(hub, subject)):
        sought.append([changes])
    answers = _ask_all(sought, top)
    newest = [item for answer in answers for item in answer.items]
    shown = sorted(newest, key=_time)[-top:]
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            for items in _follow([each.row for each in answers], [each.place for each in answers], shown):
                _tell(items, brief, output)
        return
    if subject is None:
        shown.reverse()
    if output == "json":
        show(shown, "json", {})
    elif brief and shown:
        _tell(shown, brief, output)
    elif not shown:
        click.echo(_nothing(subject, filtered=filtered))
    else:
        click.echo("\n\n".join("\n".join(lines_of(item)) for item in shown))


@dataclass(frozen=True, slots=True)
class _Row:
    """What only grows, and is asked for by path: decisions, or changes of connections.

    What comes later is at the path `ahead`, `about` telling whose of it is meant. `what` it is, and `who` asks, is
    for people to read.
    """

    what: str
    who: str
    service: Service
    path: str
    query: Mapping[str, str]
    ahead: str
    query_ahead: Mapping[str, str]
    about: Mapping[str, str | None]

    def holds(self, item: Mapping[str, Any]) -> bool:
        return all(item[member] == value for member, value in self.about.items())


class _Answer(NamedTuple):
    """The newest of a row, and the place behind them."""

    row: _Row
    items: list[dict[str, Any]]
    place: str


class _NotAllowed(MoorageError):
    """No login that is at hand may ask."""


def _logins(login: str | None, data: Path | None) -> tuple[Login | None, Login | None]:
    """Who asks for decisions first, as the owner of the provisioning service sees them all; and the hub's login.

    What the environment says of a hub alone is meant alone. Raises NoServer, Invalid.
    """
    if login:
        return None, find_login(login, data, HUB_VARIABLES)
    in_environment = {
        variables: data is None and any(os.environ.get(name) for name in variables)
        for variables in (DPS_VARIABLES, HUB_VARIABLES)
    }
    if in_environment[HUB_VARIABLES] and not in_environment[DPS_VARIABLES]:
        return None, find_login(None, data, HUB_VARIABLES)
    service, missing = _at_hand(data, DPS_VARIABLES)
    hub, _ = _at_hand(data, HUB_VARIABLES)
    if service is None and hub is None and missing is not None:
        raise missing
    return service, hub


def _at_hand(data: Path | None, variables: tuple[str, ...]) -> tuple[Login | None, MoorageError | None]:
    """Or why there is none: no server, or the key of its owner was deleted."""
    try:
        return find_login(None, data, variables), None
    except (Invalid, NoServer) as error:
        return None, error


def _ask_all(sought: list[list[_Row]], top: int) -> list[_Answer]:
    """By each list the first row whose login may ask; a line tells of a list where none may.

    Raises _NotAllowed when none may anywhere.
    """
    answers, refusals = [], []
    for rows in sought:
        try:
            answers.append(_ask(rows, top))
        except _NotAllowed as refused:
            refusals.append(str(refused))
    if not answers:
        raise _NotAllowed("; ".join(refusals))
    for refusal in refusals:
        click.echo(f"moorage: {refusal}", err=True)
    return answers


def _ask(rows: list[_Row], top: int) -> _Answer:
    refusals = []
    for row in rows:
        try:
            items, headers = row.service.call("GET", row.path, query={**row.query, "top": str(top)})
        except Refused as refused:
            if refused.status != HTTPStatus.UNAUTHORIZED:
                raise
            refusals.append(f"{row.who} may not ({refused})")
        else:
            return _Answer(row, items, headers["x-ms-continuation"])
    raise _NotAllowed(f"{rows[0].what} are not shown: {', '.join(refusals)}")


def _decisions(
    login: Login, subject: str | None, operation: str | None, tracking_id: str | None, refused_only: bool
) -> _Row:
    wish = {"operation": operation, "trackingId": tracking_id}
    query = {name: value for name, value in wish.items() if value}
    if refused_only:
        query["refused"] = "true"
    asked, ahead = ("decisions", _who(login), Service(login, API_VERSION)), "/moorage/v1/decisions"
    if subject is None:
        return _Row(*asked, ahead, query, ahead, query, {})
    path = f"{ahead}/{quote(subject, safe='')}"
    return _Row(*asked, path, query, ahead, {**query, "subject": subject}, {})


def _changes(login: Login, subject: str | None) -> _Row | None:
    """None for a subject that can be no device and no module."""
    asked, hub = ("connections", _who(login), Service(login, API_VERSION)), f"/moorage/v1/hubs/{login.host}"
    ahead = f"{hub}/timeline"
    if subject is None:
        return _Row(*asked, ahead, {}, ahead, {}, {})
    device, *modules = subject.split("/")
    if not device or len(modules) > 1 or not all(modules):
        return None
    path = f"{hub}/devices/{quote(device, safe='')}"
    for module in modules:
        path += f"/modules/{quote(module, safe='')}"
    about = {"deviceId": device, "moduleId": modules[0] if modules else None}
    return _Row(*asked, f"{path}/timeline", {}, ahead, {}, about)


def _who(login: Login) -> str:
    return f"policy {login.policy} of {login.host}"


def _time(item: Mapping[str, Any]) -> str:
    return str(item["time"])


def _follow(
    rows: list[_Row], places: list[str], held: list[dict[str, Any]]
) -> Iterator[list[dict[str, Any]]]:
    """What was there and what comes, in the order of time, without end.

    The rows are asked one after the other, so something older may still come from the one that was asked first: what
    was found at one look is told with the next.
    """
    while True:
        time.sleep(LOOK_EVERY)
        news: list[dict[str, Any]] = []
        for number, row in enumerate(rows):
            query = {**row.query_ahead, "top": "1000", "since": places[number]}
            items, headers = row.service.call("GET", row.ahead, query=query)
            places[number] = headers["x-ms-continuation"]
            if missed := headers.get("moorage-missed"):
                click.echo(f"moorage: {missed} came too fast to be shown", err=True)
            news += filter(row.holds, items)
        until = max(map(_time, held), default="")
        known = sorted([*held, *news], key=_time)
        yield [item for item in known if _time(item) <= until]
        held = [item for item in known if _time(item) > until]


def _tell(items: list[dict[str, Any]], brief: bool, output: str) -> None:
    for item in items:
        if output == "json":
            click.echo(json.dumps(item, ensure_ascii=False))
        elif brief:
            click.echo(brief_line(item))
        else:
            click.echo("\n".join(lines_of(item)) + "\n")


def _nothing(subject: str | None, *, filtered: bool) -> str:
    if filtered:
        return "Nothing of that kind was decided since the server started."
    if subject:
        return f"Nothing is known about {subject}: it has not come here since the server started."
    return "Nobody has come here since the server started."


def lines_of(item: dict[str, Any]) -> Iterator[str]:
    """One decision or change of a connection, for people to read."""
    return change_lines(item) if "state" in item else decision_lines(item)


def change_lines(change: dict[str, Any]) -> Iterator[str]:
    began = change["state"] == "Connected"
    yield f"{change['time']}  connection {_name(change)}  {'connected' if began else 'ENDED'}"
    if not began:
        yield f"  why         {change['detail']}"
        yield f"  cause       {change['cause']}, {change['seconds']:g} s after it began"
    yield f"  from        {change['address']} by {change['door']}, tracking id {change['trackingId']}"


def _name(change: Mapping[str, Any]) -> str:
    return "/".join(filter(None, (change["deviceId"], change["moduleId"])))


def brief_line(item: dict[str, Any]) -> str:
    """One of them, for those who look at many."""
    return _brief_change(item) if "state" in item else _brief_decision(item)


def _brief_change(change: dict[str, Any]) -> str:
    began = change["state"] == "Connected"
    why = "" if began else f"  {change['cause']} after {change['seconds']:g} s: {change['detail']}"
    verdict = "connected" if began else "ended    "
    return f"{change['time'][:23]}Z  {verdict} {_name(change)}  from {change['address']}{why}"


def _brief_decision(decision: dict[str, Any]) -> str:
    verdict = "accepted" if decision["accepted"] else "REFUSED "
    what = f"{decision['operation']} {decision['subject']}".rstrip()
    failed = ", ".join(check["name"] for check in decision["checks"] if not check["held"])
    why = f"  {failed}: {decision['error']}" if decision["error"] else ""
    return f"{decision['time'][:23]}Z  {verdict}  {what}  from {decision['address']}{why}"


def decision_lines(decision: dict[str, Any]) -> Iterator[str]:
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
