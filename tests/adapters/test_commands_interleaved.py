"""Cloud-to-device messages whatever comes between: devices that connect, are lost, take over, subscribe and acknowledge
as they please, while back ends send, purge, and time goes by. What was accepted comes to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from moorage.hub.cloud_to_device import Content, QueueFull
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.packets import ConnAck, Publish, SubAck
from tests.support.mqtt_peer import MqttPeer, connect
from tests.support.site import Site

Arrive = Callable[..., MqttPeer]

DEVICES = 4
STEPS = 1500
CALM_EVERY = 40  # steps
SETTLED_WITHIN = 400  # turns of the event loop; no time passes meanwhile


class Device:
    """`sent` is what it has to get, `got` what it was given; `listens` is what it was told of its subscription."""

    def __init__(self, site: Site, arrive: Arrive, chance: Random, name: str, key: str) -> None:
        self.site, self.arrive, self.chance, self.name, self.key = site, arrive, chance, name, key
        self.filter = f"devices/{name}/messages/devicebound/#"
        self.peer: MqttPeer | None = None
        self.listens = self.acknowledges = False
        self.sent: set[bytes] = set()
        self.got: set[bytes] = set()
        self.unacknowledged: list[int] = []
        self._requests = self._unsubscribed = 0  # packet ids of the last request, and of the last UNSUBSCRIBE

    async def send(self, body: bytes) -> None:
        try:
            content = Content(to=f"/devices/{self.name}/messages/devicebound", body=body)
            await self.site.identities.queues.send(self.name, None, content)
        except QueueFull:
            return
        self.sent.add(body)

    async def purge(self) -> None:
        await self.site.identities.queues.purge(self.name)
        self.got |= self.sent

    def connect(self) -> None:
        """Ahead of CONNACK it may subscribe. A connection that it has is taken over."""
        self.listens, self.unacknowledged = False, []
        token = self.site.device_token(self.name, self.key)
        first = connect(self.name, token, clean_session=self.chance.random() < 0.2)
        self.peer = self.arrive()
        self.peer.send(first, *([self._subscription()] if self.chance.random() < 0.5 else []))

    def subscribe(self) -> None:
        if self.peer is not None:
            self.peer.send(self._subscription())

    def unsubscribe(self) -> None:
        if self.peer is not None and self.listens:
            self._requests += 1
            self._unsubscribed, self.listens = self._requests, False
            self.peer.send(packets.encode_unsubscribe(self._requests, [self.filter]))

    def lose(self) -> None:
        if self.peer is not None:
            self.peer.stream.lose()
            self.peer = None

    def acknowledge(self) -> None:
        """All that it has, and from here on what comes; or no longer."""
        self.acknowledges = not self.acknowledges
        if self.acknowledges and self.peer is not None:
            self.peer.send(*map(packets.encode_puback, self.unacknowledged))
            self.unacknowledged = []

    def look(self) -> None:
        """Take what has come."""
        if self.peer is None:
            return
        for event in [self.peer.received.pop(0) for _ in range(len(self.peer.received))]:
            if isinstance(event, Publish):
                self._take(self.peer, event)
            elif isinstance(event, SubAck):
                self.listens = event.packet_id > self._unsubscribed
            elif isinstance(event, ConnAck):
                self.listens = event.session_present
        if self.peer.stream.over:
            self.peer = None

    @property
    def missed(self) -> set[bytes]:
        """What it ought to have got."""
        waits = self.peer is not None and self.listens and not self.unacknowledged
        return self.sent - self.got if waits else set()

    def _take(self, peer: MqttPeer, message: Publish) -> None:
        assert message.packet_id is not None
        self.got.add(message.payload)
        if self.acknowledges:
            peer.send(packets.encode_puback(message.packet_id))
        else:
            self.unacknowledged.append(message.packet_id)

    def _subscription(self) -> bytes:
        self._requests += 1
        return packets.encode_subscribe(self._requests, [(self.filter, 1)])


@pytest.mark.parametrize("seed", range(4))
async def test_whoever_listens_gets_what_was_accepted(site: Site, arrive: Arrive, seed: int) -> None:
    chance = Random(seed)
    devices = []
    for number in range(DEVICES):
        name = f"pump-{number}"
        devices.append(Device(site, arrive, chance, name, await site.add_device(name)))
    sending: list[asyncio.Task[None]] = []

    async def calm() -> None:
        await asyncio.gather(*sending)
        sending.clear()
        for _ in range(SETTLED_WITHIN):
            await asyncio.sleep(0)
            for device in devices:
                device.look()

    for step in range(STEPS):
        device = chance.choice(devices)
        match chance.choices(
            ["connect", "subscribe", "unsubscribe", "lose", "acknowledge", "time", "send"],
            [12, 18, 3, 5, 3, 1, 58],
        ):
            case ["connect"]:
                device.connect()
            case ["subscribe"]:
                device.subscribe()
            case ["unsubscribe"]:
                device.unsubscribe()
            case ["lose"]:
                device.lose()
            case ["acknowledge"]:
                device.acknowledge()
            case ["time"]:
                site.time.advance(chance.choice([0.001, 1, 59.9995, 60]))
            case _:
                sending.append(asyncio.create_task(device.send(b"%d" % step)))
        for _ in range(chance.choice([0, 0, 0, 1, 1, 2, 5])):
            await asyncio.sleep(0)
        for each in devices:
            each.look()
        if step % CALM_EVERY == CALM_EVERY - 1:
            await calm()
            assert {each.name: each.missed for each in devices if each.missed} == {}, f"after {step} steps"
            if chance.random() < 0.2:
                await device.purge()
    assert sum(len(each.got) for each in devices) > STEPS / 10, "hardly anything was sent and received"
