"""The command: its options, and the run from the making of the devices to the last word."""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from moorage.cli.dps.service import PATH as SERVICE_PATH
from moorage.cli.rest import DPS_API_VERSION, Service
from moorage.cli.signals import stop_on_signals
from moorage.cli.swarm.crowd import Crowd, Pace
from moorage.cli.swarm.device import Member, Registration
from moorage.cli.swarm.display import Display, summary_lines
from moorage.cli.swarm.links import Server, Tls
from moorage.cli.swarm.population import Population, population
from moorage.cli.target import DPS_VARIABLES, HUB_VARIABLES, Login, find_login, hub_login_options
from moorage.errors import Invalid

ATTESTATIONS = ("x509-group", "symmetric-key", "none")
SMALLEST_MESSAGE, LARGEST_MESSAGE = 64, 262_144
SPARE_FILES = 64  # what a process has open besides its connections

T = TypeVar("T")


def _rate(_: click.Context, __: click.Parameter, text: str) -> float | None:
    """None is as fast as the server acknowledges."""
    if text == "max":
        return None
    try:
        if (rate := float(text)) >= 0:
            return rate
    except ValueError:
        pass
    raise click.BadParameter(f"{text!r} is neither a number nor max")


@click.command()
@click.option("--devices", "count", type=click.IntRange(min=1), default=100, show_default=True)
@click.option(
    "--attestation",
    type=click.Choice(ATTESTATIONS),
    default="x509-group",
    show_default=True,
    help="How devices register: by certificates of a group's CA, by keys derived from a group's, or not at all: "
    "then they are made in the hub, with keys.",
)
@click.option(
    "--rate",
    callback=_rate,
    default="0",
    show_default=True,
    help="Messages a second of all devices together; 0 only holds, max sends as fast as they are acknowledged.",
)
@click.option(
    "--ramp",
    type=click.FloatRange(min=0, min_open=True),
    default=200,
    show_default=True,
    help="Devices that start each second.",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0),
    help="Seconds to hold once all are there; without it until Ctrl-C.",
)
@click.option(
    "--message-size",
    type=click.IntRange(SMALLEST_MESSAGE, LARGEST_MESSAGE),
    default=256,
    show_default=True,
    help="Bytes of each message.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Messages of one device that may wait for their acknowledgement.",
)
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Registrations and connections under way at a time.",
)
@click.option("--prefix", help="What the devices' names and the group's begin with; without it a new one.")
@click.option("--keep", is_flag=True, help="Leave group, registrations and identities where they are.")
@click.option("--no-come-back", is_flag=True, help="Do not connect again after a failure.")
@click.option("--dps-login", help="Connection string of a policy of DPS; without it the environment's.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@hub_login_options
def swarm(
    count: int,
    attestation: str,
    rate: float | None,
    ramp: float,
    duration: float | None,
    message_size: int,
    in_flight: int,
    at_once: int,
    prefix: str | None,
    keep: bool,
    no_come_back: bool,
    dps_login: str | None,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Be thousands of devices: register, connect, send, hold, and say what the server bore.

    What is made for them is deleted at the end. Exit code 1 if not all devices were connected at the end, or not
    all messages acknowledged.
    """
    _allow_files(count)
    display = Display()
    prefix = prefix or f"swarm-{secrets.token_hex(3)}"
    names = [f"{prefix}-{number:05d}" for number in range(1, count + 1)]
    hub = find_login(login, data, HUB_VARIABLES)
    dps = None if attestation == "none" else find_login(dps_login, data, DPS_VARIABLES)
    people = population(attestation, prefix, dps, hub)
    pace = Pace(
        ramp=ramp,
        rate=rate,
        duration=duration,
        message_size=message_size,
        in_flight=in_flight,
        under_way=at_once,
        come_back=not no_come_back,
    )
    try:
        summary = _run(people, names, pace, dps, hub, display)
        text = json.dumps(summary, indent=2) if output == "json" else "\n".join(summary_lines(summary))
        click.echo(text)
    finally:
        if not keep:
            display.note("Cleaning up")
            people.clear(names)
    unacknowledged = any(each["stage"] == "sending" for each in summary["failures"])
    if summary["connected"] < count or unacknowledged:
        sys.exit(1)


def _run(
    people: Population, names: list[str], pace: Pace, dps: Login | None, hub: Login, display: Display
) -> dict[str, Any]:
    trust = hub.trust()
    hubs = {hub.host: Server(hub.host, trust)}
    registration = None
    if dps is not None:
        server = hubs.get(dps.host) or Server(dps.host, dps.trust())
        registration = Registration(server, _id_scope(dps))
    display.note(f"Making {len(names)} devices")
    members = people.make(names, lambda made: None)
    gc.collect()
    gc.freeze()  # they stay as long as the process
    return _in_loop(_watched(members, pace, hubs, registration, display))


async def _watched(
    members: list[Member],
    pace: Pace,
    hubs: dict[str, Server],
    registration: Registration | None,
    display: Display,
) -> dict[str, Any]:
    crowd = Crowd(members, pace, Tls(), hubs, registration)
    stop_on_signals(crowd.stop)
    following = asyncio.create_task(display.follow(crowd.figures))
    try:
        await crowd.run()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return crowd.figures.summary() | {"connected": crowd.connected_at_the_end}


def _in_loop(work: Coroutine[Any, Any, T]) -> T:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def _id_scope(dps: Login) -> str:
    return str(Service(dps, DPS_API_VERSION).get(SERVICE_PATH)["idScope"])


def _allow_files(count: int) -> None:
    """A connection is an open file. Raises Invalid."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise Invalid(
            "--devices", f"this system lets a process open {hard} files (ulimit -Hn): {count} is too many"
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
