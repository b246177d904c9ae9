"""`moorage hub monitor-events`: telemetry and other events as they come in."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from moorage.cli.event_reader import LATEST, EventReceived, enqueued_after, open_reader
from moorage.cli.rest import HUB_API_VERSION, Service
from moorage.cli.target import HUB_VARIABLES, Login, find_login, hub_login_options
from moorage.errors import MoorageError
from moorage.hub.message_route import Source
from moorage.wire.amqp import Message

PROPERTIES = ("sys", "app", "anno", "all")
ORIGIN = "iothub-connection-device-id"
MODULE = "iothub-connection-module-id"
INTERFACE = "dt-dataschema"
COMPONENT = "dt-subject"


@dataclass(frozen=True, slots=True)
class Wish:
    """What to show, and how."""

    device: Callable[[str], object]  # true for the ids to show
    properties: frozenset[str]
    content_type: str | None
    output: str
    devices: frozenset[str] | None = None  # no others, if given
    module: Callable[[str], object] | None = None
    interface: str | None = None

    def line(self, received: EventReceived) -> str | None:
        """None for events that are not meant."""
        event = event_view(received.message, self.properties, self.content_type)
        if not self._means(event):
            return None
        if self.output == "json":
            return json.dumps({"event": event}, indent=4, ensure_ascii=False)
        return "\n".join(_text(received, event))

    def _means(self, event: Mapping[str, Any]) -> bool:
        return (
            bool(self.device(event["origin"]))
            and (self.devices is None or event["origin"] in self.devices)
            and (self.module is None or bool(self.module(event["module"])))
            and self.interface in (None, event["interface"])
        )


def id_pattern(text: str | None) -> Callable[[str], object]:
    """`*` stands for any characters and `?` for one; without either the id as it is."""
    pattern = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in text or "*")
    return re.compile(pattern, re.DOTALL).fullmatch


def devices_found(login: Login, query: str) -> frozenset[str]:
    """The ids in what a query over twins answers, which may call them `deviceId` in any case. Raises Refused."""
    answers = Service(login, HUB_API_VERSION).pages("/devices/query", {"query": query}, top=None)
    members = (member for each in answers if isinstance(each, dict) for member in each.items())
    return frozenset(str(value) for name, value in members if name.lower() == "deviceid")


def telemetry_is_dropped(login: Login) -> bool:
    """Whether nobody can see telemetry; False where the hub does not say."""
    service, hub = Service(login, HUB_API_VERSION), f"/moorage/v1/hubs/{login.host}"
    with contextlib.suppress(MoorageError):
        routes = [service.get(f"{hub}/fallbackRoute"), *service.get(f"{hub}/routes")]
        return not any(each["isEnabled"] and each["source"] == Source.DEVICE_MESSAGES for each in routes)
    return False


def properties_asked(texts: Sequence[str]) -> frozenset[str]:
    """Of `-p sys app`, `-p sys,app`, `-p "sys app"` and `-p sys -p app` alike; nothing means all."""
    names = {name.lower() for text in texts for name in text.replace(",", " ").split()} or {"all"}
    if unknown := names.difference(PROPERTIES):
        raise click.BadParameter(f"{unknown.pop()!r} is not one of {', '.join(PROPERTIES)}", param_hint="-p")
    return frozenset(PROPERTIES if "all" in names else names)


def event_view(message: Message, properties: frozenset[str], content_type: str | None) -> dict[str, Any]:
    """An event with the members that `az iot hub monitor-events` gives it."""
    annotations = _plain(message.message_annotations or {})
    system = _system(message)
    view: dict[str, Any] = {
        "origin": annotations.get(ORIGIN, ""),
        "module": annotations.get(MODULE, ""),
        "interface": annotations.get(INTERFACE, ""),
        "component": annotations.get(COMPONENT, ""),
    }
    if "anno" in properties:
        view["annotations"] = annotations
    shown = {}
    if "sys" in properties:
        shown["system"] = system
    if "app" in properties:
        shown["application"] = _plain(message.application_properties or {})
    if shown:
        view["properties"] = shown
    return view | _payload(message.payload, content_type or str(system.get("content_type", "")))


def _payload(body: bytes, content_type: str) -> dict[str, Any]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return {"payload": base64.b64encode(body).decode(), "payloadEncoding": "base64"}
    if "application/json" in content_type.lower():
        try:
            return {"payload": json.loads(text)}
        except ValueError:
            pass  # what claims to be JSON and is none is shown as it came
    return {"payload": text}


def _system(message: Message) -> dict[str, Any]:
    properties = message.properties
    if properties is None:
        return {}
    named = {field.name: getattr(properties, field.name) for field in fields(properties)}
    return _plain({name: value for name, value in named.items() if value is not None})


def _plain(values: Mapping[Any, Any]) -> dict[str, Any]:
    """AMQP values as JSON has them: bytes as text, whatever else is unknown to JSON by its text."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if value is None or isinstance(value, (bool, float)):
            return value
        return int(value) if isinstance(value, int) else str(value)

    return {str(plain(name)): plain(value) for name, value in values.items()}


def _text(received: EventReceived, event: Mapping[str, Any]) -> Iterator[str]:
    stamped = _plain(received.message.message_annotations or {})
    enqueued = stamped.get("x-opt-enqueued-time")
    when = datetime.fromtimestamp(enqueued / 1000, UTC) if enqueued is not None else None
    time = when.isoformat(timespec="milliseconds").replace("+00:00", "Z") if when is not None else "?"
    place = f"partition {received.partition}, sequence number {stamped.get('x-opt-sequence-number', '?')}"
    yield f"{event['origin']}  {time}  {place}"
    payload = event["payload"]
    yield f"  payload      {payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)}"
    groups = {**event.get("properties", {}), "annotation": event.get("annotations", {})}
    for group, values in groups.items():
        for name, value in values.items():
            yield f"  {group:<11}  {name} = {value}"


@click.command()
@click.argument("more_properties", nargs=-1, metavar="")
@click.option("--device-id", "-d", help="Only of this device; * and ? stand for what differs.")
@click.option("--device-query", "-q", help="Only of the devices that this query finds now, such as by a tag.")
@click.option("--module-id", "-m", help="Only of this module; * and ? stand for what differs.")
@click.option(
    "--interface", "-i", help="Only of devices with this model id, such as dtmi:com:example:Pump;1."
)
@click.option("--consumer-group", "--cg", "-c", default="$Default", show_default=True, help="Consumer group.")
@click.option(
    "--properties",
    "-p",
    multiple=True,
    metavar="[sys|app|anno|all]...",
    help="Which properties to show: system, application, annotations. Without it all.",
)
@click.option(
    "--timeout",
    "--to",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    help="End after so many seconds without an event; 0 waits for ever.",
)
@click.option(
    "--enqueued-time",
    "--et",
    type=click.IntRange(min=0),
    help="Begin with what came in after this time, in milliseconds since 1970; without it now.",
)
@click.option("--message-count", "--mc", type=click.IntRange(min=1), help="End after so many events.")
@click.option("--content-type", "--ct", help="Read payloads as this type, whatever the device said.")
@click.option("--output", "-o", type=click.Choice(["json", "text"]), default="json", show_default=True)
@hub_login_options
def monitor_events(
    more_properties: tuple[str, ...],
    device_id: str | None,
    device_query: str | None,
    module_id: str | None,
    interface: str | None,
    consumer_group: str,
    properties: tuple[str, ...],
    timeout: float,
    enqueued_time: int | None,
    message_count: int | None,
    content_type: str | None,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Show telemetry as it comes in, read from the built-in endpoint over AMQP.

    So are the other events that a message route lets through: see moorage hub message-route.

    Ctrl-C ends it. Exit 1 when --message-count is not reached within --timeout.
    """
    if more_properties and not properties:
        raise click.UsageError(f"Got unexpected extra argument ({more_properties[0]})")
    shown_properties = properties_asked(properties + more_properties)
    selector = LATEST if enqueued_time is None else enqueued_after(enqueued_time)
    target = find_login(login, data, HUB_VARIABLES)
    wish = Wish(
        id_pattern(device_id),
        shown_properties,
        content_type,
        output,
        devices=None if device_query is None else devices_found(target, device_query),
        module=None if module_id is None else id_pattern(module_id),
        interface=interface,
    )
    try:
        shown = asyncio.run(_monitor(target, wish, selector, consumer_group, timeout, message_count))
    except KeyboardInterrupt:
        return
    if not shown and telemetry_is_dropped(target):
        click.echo(
            "moorage: the hub drops telemetry: its fallback route is disabled, and no route takes it",
            err=True,
        )
    if message_count is not None and shown < message_count:
        click.echo(f"moorage: {shown} of {message_count} events came within {timeout:g} s", err=True)
        sys.exit(1)


async def _monitor(
    login: Login, wish: Wish, selector: str, group: str, silence: float, count: int | None
) -> int:
    """How many events were shown when `count` of them were, or none came for `silence` seconds (0: any time)."""
    shown = 0
    async with open_reader(login) as reader:
        say = f"Monitoring {reader.endpoint.host}, consumer group {group}. Ctrl-C ends it."
        events = reader.events(selector, group=group, ready=lambda: click.echo(say, err=True))
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(silence or None) as patience, contextlib.aclosing(events):
                async for received in events:
                    if (line := wish.line(received)) is None:
                        continue
                    click.echo(line)
                    shown += 1
                    if shown == count:
                        break
                    if silence:
                        patience.reschedule(loop.time() + silence)
    return shown
