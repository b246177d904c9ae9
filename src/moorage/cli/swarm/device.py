"""One device of a swarm: from its registration to its last acknowledgement."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from moorage.cli.device import dps_packets, hub_packets
from moorage.cli.swarm.figures import Figures
from moorage.cli.swarm.links import MQTT_PORT, Credential, Link, Server, Tls
from moorage.credentials.sas import make_token
from moorage.errors import MoorageError
from moorage.wire.errors import Malformed
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import ClientConnection

KEEP_ALIVE = 240  # seconds; a ping goes out well before, see `Crowd`
TOKEN_LIFETIME = 86_400  # seconds
DPS_API_VERSION = "2021-06-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Who a device is: `credential`, or a `key` (base64), proves it to DPS and hub alike."""

    name: str
    credential: Credential | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)


def message_template(size: int) -> bytes:
    """JSON of so many bytes, with places for the number of the message and the time in milliseconds since 1970.

    `size` is 64 at the least.
    """
    known = b'{"sequence":%10d,"sentAt":%14d,"filler":"'
    room = size - len(known % (0, 0)) - len(b'"}')
    return known + b"x" * room + b'"}'


class Surroundings(Protocol):
    """What all devices share, and whom they tell."""

    tls: Tls
    figures: Figures
    template: bytes
    in_flight: int
    registration: Registration | None

    def hub(self, host: str) -> Server:
        """Raises Unavailable."""
        ...

    def ready(self, device: Device) -> None: ...

    def ended(self, device: Device, *, was_ready: bool) -> None: ...

    def acknowledged(self, device: Device) -> None: ...


@dataclass(frozen=True, slots=True)
class Registration:
    """Where to register."""

    server: Server
    id_scope: str


class Device:
    """Tells its surroundings when it can send and when its connection has ended; what it met is in the figures."""

    __slots__ = (
        "_around",
        "_begun",
        "_head",
        "_hub",
        "_hub_host",
        "_link",
        "_mqtt",
        "_packet_id",
        "_ready",
        "_sequence",
        "_stage",
        "_timer",
        "attempts",
        "member",
        "owed",
        "spoke_at",
        "unacknowledged",
    )

    def __init__(self, member: Member, around: Surroundings, hub_host: str) -> None:
        """`hub_host` counts where there is no registration; else DPS says."""
        self.member = member
        self.attempts = 0  # since it was last ready
        self.owed: deque[float] = deque()  # when messages were due that could not be sent yet
        self.unacknowledged: deque[float] = deque()  # when messages were due that were sent
        self.spoke_at = 0.0
        self._around = around
        self._hub_host = hub_host if around.registration is None else ""
        self._hub: Server | None = None
        self._link: Link | None = None
        self._mqtt = ClientConnection()
        self._stage: _Stage | None = None
        self._ready = False
        self._begun = 0.0
        self._packet_id = self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        topic = hub_packets.events_topic(
            member.name, None, {"$.ct": "application/json", "$.ce": "utf-8"}
        ).encode()
        body = len(topic) + 4 + len(around.template % (0, 0))
        length = packets.encode_remaining_length(body)
        self._head = b"".join((b"\x32", length, len(topic).to_bytes(2, "big"), topic))

    @property
    def is_ready(self) -> bool:
        return self._ready

    @property
    def waits_since(self) -> float:
        """When what it is doing was begun."""
        return self._begun

    def start(self) -> None:
        """Register, if it has to and has not, and connect."""
        self.attempts += 1
        self._around.figures.under_way += 1
        if self._hub_host:
            self._connect_to_hub()
        else:
            assert self._around.registration is not None
            self._go(self._around.registration.server, _Registering(self))

    def send(self, due: float, now: float) -> None:
        """A message that was due then. It waits while too many are unacknowledged."""
        if len(self.unacknowledged) >= self._around.in_flight:
            self.owed.append(due)
            return
        self._packet_id = packet_id = self._packet_id % 0xFFFF + 1
        self._sequence += 1
        self.unacknowledged.append(due)
        self.spoke_at = now
        self._around.figures.sent += 1
        payload = self._around.template % (self._sequence, time.time_ns() // 1_000_000)
        assert self._link is not None
        self._link.send(self._head + packet_id.to_bytes(2, "big") + payload)

    def ping(self, now: float) -> None:
        self.spoke_at = now
        if self._link is not None:
            self._link.send(packets.encode_pingreq())

    def give_up(self, reason: str) -> None:
        """The connection, with a failure told."""
        if self._link is not None:
            self._link.close(reason)

    def leave(self) -> None:
        """At the end, politely."""
        if self._timer is not None:
            self._timer.cancel()
        link, self._link = self._link, None
        self._stage = None
        if self._ready:
            self._ready = False
            self._around.figures.connected -= 1
        if link is not None:
            link.close("left", packets.encode_disconnect())

    # --- connections

    def _connect_to_hub(self) -> None:
        if self._hub is None:
            try:
                self._hub = self._around.hub(self._hub_host)
            except MoorageError as error:
                self._stage = _Connecting(self)
                self.closed(str(error))
                return
        self._go(self._hub, _Connecting(self))

    def _go(self, server: Server, stage: _Stage) -> None:
        self._begun = time.perf_counter()
        self._stage = stage
        self._mqtt = ClientConnection()
        self._link = link = Link(server, self._around.tls, self.member.credential, self)
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.create_connection(lambda: link, server.address, MQTT_PORT))
        opening.add_done_callback(lambda done: self._opened_or_not(link, done))

    @staticmethod
    def _opened_or_not(link: Link, done: asyncio.Task[object]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            link.close(f"TCP: {(getattr(error, 'strerror', None) or str(error)).lower()}")

    def opened(self) -> None:
        assert self._link is not None
        if self._stage is not None:
            self._link.send(packets.encode_connect(self._stage.hello()))

    def received(self, data: bytes) -> None:
        mqtt = self._mqtt
        try:
            events = mqtt.receive(data)
        except Malformed as fault:
            self.give_up(f"MQTT: {fault}")
            return
        for event in events:
            if self._mqtt is not mqtt:  # it went on to another connection
                return
            if type(event) is packets.PubAck and self._ready:
                self._acknowledged()
            elif self._stage is not None:
                self._stage.take(event)

    def closed(self, reason: str) -> None:
        stage, self._stage, self._link = self._stage, None, None
        if stage is None:  # it has left, or goes on elsewhere
            return
        figures = self._around.figures
        was_ready, self._ready = self._ready, False
        if was_ready:
            figures.connected -= 1
            figures.lost += 1
            figures.failed("holding", reason)
            if self.unacknowledged:
                figures.failures["sending", f"{reason}, before the acknowledgement"] += len(
                    self.unacknowledged
                )
        else:
            figures.under_way -= 1
            figures.failed(stage.name, reason)
        self.unacknowledged.clear()
        self.owed.clear()
        self._around.ended(self, was_ready=was_ready)

    def _acknowledged(self) -> None:
        if not self.unacknowledged:
            self.give_up("MQTT: a PUBACK too many")
            return
        now = time.perf_counter()
        figures = self._around.figures
        figures.acknowledged += 1
        figures.acknowledging.add(int((now - self.unacknowledged.popleft()) * 1e6))
        if self.owed:
            self.send(self.owed.popleft(), now)
        else:
            self._around.acknowledged(self)

    # --- what the stages bring about

    def assigned(self, host: str, device_id: str) -> None:
        if device_id != self.member.name:
            self.give_up(f"registered under another name, {device_id}")
            return
        figures = self._around.figures
        figures.registered += 1
        figures.registering.add(int((time.perf_counter() - self._begun) * 1e6))
        self._hub_host = host
        link, self._stage = self._link, None
        if link is not None:
            link.close("registered", packets.encode_disconnect())
        self._connect_to_hub()

    def admitted(self) -> None:
        figures = self._around.figures
        figures.connecting.add(int((time.perf_counter() - self._begun) * 1e6))
        figures.connections += 1
        figures.connected += 1
        figures.under_way -= 1
        self.attempts = 0
        self._ready = True
        self.spoke_at = time.perf_counter()
        self._around.ready(self)

    def send_packet(self, packet: bytes) -> None:
        if self._link is not None:
            self._link.send(packet)

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Dropped when the device leaves."""
        self._timer = asyncio.get_running_loop().call_later(seconds, callback)

    def token(self, resource: str, policy: str | None) -> str | None:
        key = self.member.key
        return None if key is None else make_token(resource, key, int(time.time()) + TOKEN_LIFETIME, policy)

    @property
    def hub_host(self) -> str:
        return self._hub_host

    @property
    def registration(self) -> Registration:
        assert self._around.registration is not None
        return self._around.registration


class _Stage(Protocol):
    """What a connection is for."""

    name: str

    def hello(self) -> packets.Connect: ...

    def take(self, event: packets.Event) -> None: ...


class _Connecting:
    name = "connecting"

    def __init__(self, device: Device) -> None:
        self._device = device

    def hello(self) -> packets.Connect:
        device = self._device
        host, name = device.hub_host, device.member.name
        return hub_packets.connect_packet(
            host,
            name,
            token=device.token(f"{host}/devices/{name}", None),
            keep_alive=KEEP_ALIVE,
            clean_session=True,
        )

    def take(self, event: packets.Event) -> None:
        match event:
            case packets.ConnAck(code=0):
                self._device.admitted()
            case packets.ConnAck(code):
                self._device.give_up(f"CONNACK {code}, {hub_packets.REFUSALS.get(code, 'unknown')}")


class _Registering:
    name = "registering"

    def __init__(self, device: Device) -> None:
        self._device = device
        self._operation: str | None = None

    def hello(self) -> packets.Connect:
        device, name = self._device, self._device.member.name
        scope = device.registration.id_scope
        token = device.token(f"{scope}/registrations/{name}", "registration")
        return dps_packets.connect_packet(scope, name, DPS_API_VERSION, token)

    def take(self, event: packets.Event) -> None:
        match event:
            case packets.ConnAck(code=0):
                self._device.send_packet(packets.encode_subscribe(1, [(dps_packets.RESPONSES, 1)]))
            case packets.ConnAck(code):
                self._device.give_up(f"CONNACK {code}")
            case packets.SubAck():
                self._ask()
            case packets.Publish():
                if event.packet_id is not None:
                    self._device.send_packet(packets.encode_puback(event.packet_id))
                self._answered(event)

    def _ask(self) -> None:
        topic = dps_packets.request_topic(self._operation)
        body = json.dumps({"registrationId": self._device.member.name}) if self._operation is None else " "
        self._device.send_packet(packets.encode_publish(topic, body.encode(), qos=1, packet_id=2))

    def _answered(self, event: packets.Publish) -> None:
        told = dps_packets.read_response(event.topic)
        try:
            answer = json.loads(event.payload)
            if told is None:
                raise ValueError(event.topic)
            if told.status in (202, 429):
                self._operation = answer.get("operationId", self._operation)
                wait = dps_packets.DEFAULT_WAIT if told.retry_after is None else told.retry_after
                self._device.later(wait, self._ask)
            elif told.status >= 300:
                self._device.give_up(f"{told.status}: {answer.get('message')}")
            elif answer["status"] != "assigned":
                why = (answer.get("registrationState") or {}).get("errorMessage") or ""
                self._device.give_up(f"{answer['status']} {why}".strip())
            else:
                state = answer["registrationState"]
                self._device.assigned(state["assignedHub"], state["deviceId"])
        except (ValueError, KeyError, AttributeError) as error:
            self._device.give_up(f"an answer that cannot be read: {error}")
