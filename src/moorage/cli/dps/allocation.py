"""`moorage dps allocation`: which hub each device would get."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from moorage.cli.dps.settings import dps_service
from moorage.cli.rest import Service
from moorage.cli.target import login_options

PAGE = 5000  # devices in one request


def hub_and_weight(separator: str, *, default: int | None) -> Any:
    """A type of option: `HUB:3` or `HUB=3`, with a `default` also `HUB`."""

    def read(text: str) -> tuple[str, int]:
        name, given, weight = text.rpartition(separator)
        if not given and default is not None:
            return text, default
        if not name or not weight.isdecimal():
            raise click.BadParameter(f"{text!r} is not HUB{separator}WEIGHT, the weight a number")
        return name, int(weight)

    return read


@click.group()
def allocation() -> None:
    """How devices are spread over the linked hubs."""


@allocation.command()
@click.option(
    "--policy",
    "--ap",
    type=click.Choice(["hashed", "geoLatency", "static"], case_sensitive=False),
    help="In place of the service's own; enrollments keep theirs.",
)
@click.option(
    "--add-hub",
    "added",
    type=hub_and_weight(":", default=1),
    multiple=True,
    metavar="HUB[:WEIGHT]",
    help="Host name of a hub that is not linked. May be repeated.",
)
@click.option("--remove-hub", "removed", multiple=True, metavar="HUB", help="A linked hub. May be repeated.")
@click.option(
    "--weight",
    "weights",
    type=hub_and_weight("=", default=None),
    multiple=True,
    metavar="HUB=N",
    help="Another weight for a linked hub. May be repeated.",
)
@click.option("--devices", is_flag=True, help="List each device, a line of JSON for each with --output json.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@login_options
def simulate(
    policy: str | None,
    added: tuple[tuple[str, int], ...],
    removed: tuple[str, ...],
    weights: tuple[tuple[str, int], ...],
    devices: bool,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Tell which hub each device would get if hubs were linked otherwise. Nothing is changed.

    Counted are the devices with an individual enrollment, and those that have come through an enrollment group.
    """
    what_if = {
        "allocationPolicy": policy,
        "addHubs": dict(added),
        "removeHubs": removed,
        "weights": dict(weights),
        "devices": devices,
        "limit": PAGE,
    }
    total = _Total()
    for page in _pages(dps_service(login, data), what_if):
        total.add(page)
        for device in page.get("list", ()):
            click.echo(json.dumps(device) if output == "json" else _line(device))
    if output == "json":
        click.echo(json.dumps(total.to_json(), indent=None if devices else 2))
    else:
        click.echo("\n".join(total.lines()))


def _pages(service: Service, what_if: dict[str, Any]) -> Iterator[dict[str, Any]]:
    continuation: str | None = None
    while True:
        body = {**what_if, "continuation": continuation}
        page, _ = service.call("POST", "/moorage/v1/allocation/simulate", body)
        yield page
        continuation = page["continuation"]
        if continuation is None:
            return


class _Total:
    """The sum of all pages."""

    def __init__(self) -> None:
        self.devices = 0
        self.now: Counter[str] = Counter()
        self.then: Counter[str] = Counter()
        self.undecided: Counter[str] = Counter()
        self.moves: Counter[tuple[str, str]] = Counter()

    def add(self, page: dict[str, Any]) -> None:
        self.devices += page["devices"]
        for name, counts in page["hubs"].items():
            self.now[name] += counts["now"]
            self.then[name] += counts["then"]
        for reason, counts in page["undecided"].items():
            self.undecided[reason] += counts["then"]
        for move in page["moves"]:
            self.moves[move["from"], move["to"]] += move["count"]

    def to_json(self) -> dict[str, Any]:
        return {
            "devices": self.devices,
            "hubs": {name: {"now": self.now[name], "then": self.then[name]} for name in sorted(self.now)},
            "undecided": dict(self.undecided),
            "moves": [
                {"from": here, "to": there, "count": count}
                for (here, there), count in sorted(self.moves.items())
            ],
        }

    def lines(self) -> Iterator[str]:
        width = max(map(len, ("HUB", *self.now)))
        yield f"{'HUB':{width}}  {'NOW':>8}  {'THEN':>8}  {'CHANGE':>8}"
        for name in sorted(self.now):
            now, then = self.now[name], self.then[name]
            yield f"{name:{width}}  {now:8}  {then:8}  {then - now:+8}"
        reasons = {
            "custom": "would be decided by a webhook or function, which was not asked",
            "disabled": "are disabled",
            "noHub": "would get no hub",
        }
        yield ""
        yield f"{self.devices} devices."
        for reason, why in reasons.items():
            if count := self.undecided[reason]:
                yield f"{count} of them {why}."
        for (here, there), count in sorted(self.moves.items()):
            yield f"{count} would move from {here} to {there} when they register again."
        if not self.moves:
            yield "Nobody would move."


def _line(device: dict[str, Any]) -> str:
    there = device["then"] or f"({device['undecided']})"
    if device["current"] is None:
        return f"{device['registrationId']}  new in {there}"
    if device["moves"]:
        return f"{device['registrationId']}  {device['current']} -> {there}"
    return (
        f"{device['registrationId']}  {device['current']} stays"
        if device["then"]
        else (f"{device['registrationId']}  {device['current']}, then {there}")
    )
