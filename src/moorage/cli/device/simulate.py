"""`moorage device simulate`: a whole device, telemetry, methods, twin and messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from moorage.cli.device import hub_packets
from moorage.cli.device.client import (
    CloudMessage,
    DesiredChange,
    DeviceClient,
    HubDevice,
    MethodCall,
    NotConnected,
    TwinRefused,
    connect,
)
from moorage.cli.device.connecting import device_options, find_device, server_options
from moorage.cli.device.messages import message_options, shown
from moorage.cli.json_values import json_value
from moorage.cli.signals import stop_on_signals
from moorage.errors import Unavailable

JSON_PROPERTIES = {"$.ct": "application/json", "$.ce": "utf-8"}
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before a lost connection is made again

Tell = Callable[..., None]
"""An event and its facts by name, for whoever looks on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the device does. `count` None means for ever; `interval` is in seconds; a method is answered with what it
    was given where there is no `method_payload`."""

    text: str
    properties: Mapping[str, str]
    count: int | None
    interval: float
    method_status: int = 200
    method_payload: Any = None
    reported: Any = None

    def message(self, number: int) -> bytes:
        content = {
            "id": str(uuid.uuid4()),
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "data": f"{self.text} #{number}",
        }
        return json.dumps(content).encode()

    def answer(self, call: MethodCall) -> Any:
        if self.method_payload is not None:
            return self.method_payload
        return {
            "methodName": call.name,
            "methodRequestPayload": shown(call.payload) if call.payload else None,
        }


@click.command()
@message_options
@click.option(
    "--msg-count", "--mc", type=click.IntRange(min=0), default=100, show_default=True, help="0 for no end."
)
@click.option(
    "--msg-interval",
    "--mi",
    type=click.FloatRange(min=0),
    default=3,
    show_default=True,
    help="Seconds from one message to the next.",
)
@click.option(
    "--receive-settle",
    "--rs",
    type=click.Choice(["complete"]),
    default="complete",
    help="What becomes of cloud-to-device messages; MQTT can complete them, and no more.",
)
@click.option(
    "--method-response-code", "--mrc", type=int, default=200, show_default=True, help="Status of answers."
)
@click.option("--method-response-payload", "--mrp", type=json_value, help="JSON of answers, or a file of it.")
@click.option(
    "--init-reported-properties", "--irp", type=json_value, help="JSON to report first, or a file of it."
)
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@device_options
@server_options
def simulate(
    text: str,
    properties: dict[str, str],
    msg_count: int,
    msg_interval: float,
    receive_settle: str,
    method_response_code: int,
    method_response_payload: Any,
    init_reported_properties: Any,
    output: str,
    login: str | None,
    data: Path | None,
    **given: Any,
) -> None:
    """Be a device: send telemetry, answer methods, report what is desired, print whatever comes.

    A lost connection is made again. Ctrl-C ends it. With --output json each event is a line of JSON.
    """
    behaviour = Behaviour(
        text=text,
        properties=JSON_PROPERTIES | properties,
        count=msg_count or None,
        interval=msg_interval,
        method_status=method_response_code,
        method_payload=method_response_payload,
        reported=init_reported_properties,
    )
    device = find_device(given, login, data)
    asyncio.run(_until_stopped(run(device, given["protocol"], behaviour, _teller(output))))


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Ctrl-C and SIGTERM end it in order. (A shell starts what runs in its background deaf to Ctrl-C.)"""
    running = asyncio.create_task(work)
    stop_on_signals(running.cancel)
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        await running


async def run(device: HubDevice, protocol: str, behaviour: Behaviour, tell: Tell) -> None:
    """Until all messages are sent. Raises NotConnected, and Unavailable where not even the first try succeeds."""
    simulation = _Simulation(behaviour, tell)
    pause, was_connected = FIRST_PAUSE, False
    while True:
        try:
            async with connect(device, protocol) as client:
                tell("connected", host=device.host, device=device.device_id)
                pause, was_connected = FIRST_PAUSE, True
                await simulation.over(client)
                return
        except NotConnected:
            raise
        except Unavailable as error:
            if not was_connected:
                raise
            tell("lost", reason=str(error), again=f"in {pause:g} s")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


class _Simulation:
    """What goes on over one connection after the other."""

    def __init__(self, behaviour: Behaviour, tell: Tell) -> None:
        self._behaviour = behaviour
        self._tell = tell
        self._sent = 0
        self._reported = False
        self._desired_version: int | None = None

    async def over(self, client: DeviceClient) -> None:
        """Raises Unavailable."""
        await self._begin(client)
        listening = asyncio.create_task(self._listen(client))
        sending = asyncio.create_task(self._send(client))
        try:
            done, _ = await asyncio.wait((listening, sending), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (listening, sending):
                task.cancel()
            await asyncio.gather(listening, sending, return_exceptions=True)

    async def _begin(self, client: DeviceClient) -> None:
        device = client.device
        for refused in await client.subscribe(
            hub_packets.TWIN_RESPONSES,
            hub_packets.DESIRED_CHANGES,
            hub_packets.METHODS,
            hub_packets.devicebound_filter(device.device_id, device.module_id),
        ):
            self._tell("refused", subscription=refused)
        if self._behaviour.reported is not None and not self._reported:
            self._reported = await self._report(client, self._behaviour.reported)
        try:
            desired = (await client.twin())["desired"]
        except TwinRefused as refusal:
            self._tell("refused", twin=str(refusal))
            return
        # What was desired meanwhile is reported like what comes later; at the first start it is only shown.
        if self._desired_version not in (None, desired["$version"]):
            await self._report_desired(client, desired)
        self._desired_version = desired["$version"]
        self._tell("twin", desired=desired)

    async def _send(self, client: DeviceClient) -> None:
        behaviour = self._behaviour
        while behaviour.count is None or self._sent < behaviour.count:
            payload = behaviour.message(self._sent + 1)
            await client.send_event(payload, behaviour.properties)
            self._sent += 1
            self._tell("sent", number=self._sent, payload=shown(payload))
            if self._sent != behaviour.count:
                await asyncio.sleep(behaviour.interval)

    async def _listen(self, client: DeviceClient) -> None:
        while (came := await client.incoming.get()) is not None:
            match came:
                case MethodCall():
                    answer = self._behaviour.answer(came)
                    await client.respond(came, self._behaviour.method_status, answer)
                    self._tell("method", name=came.name, payload=shown(came.payload), answer=answer)
                case DesiredChange(patch):
                    self._desired_version = patch.get("$version")
                    self._tell("desired", patch=patch)
                    await self._report_desired(client, patch)
                case CloudMessage(properties, payload):
                    self._tell("message", payload=shown(payload), properties=dict(properties))
        raise Unavailable(f"{client.device.host} has closed the connection")

    async def _report_desired(self, client: DeviceClient, desired: Mapping[str, Any]) -> None:
        """As `az` does: what is desired is reported to be so."""
        if wanted := {name: value for name, value in desired.items() if not name.startswith("$")}:
            await self._report(client, wanted)

    async def _report(self, client: DeviceClient, properties: Mapping[str, Any]) -> bool:
        try:
            await client.report(properties)
        except TwinRefused as refusal:
            self._tell("refused", report=str(refusal))
            return False
        self._tell("reported", properties=properties)
        return True


def _teller(output: str) -> Tell:
    def tell_text(event: str, **facts: Any) -> None:
        said = "  ".join(f"{name} {_text(value)}" for name, value in facts.items())
        click.echo(f"{datetime.now():%H:%M:%S}  {event:<9}  {said}")

    def tell_json(event: str, **facts: Any) -> None:
        click.echo(json.dumps({"time": datetime.now(UTC).isoformat(), "event": event, **facts}))

    return tell_json if output == "json" else tell_text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
