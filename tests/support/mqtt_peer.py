"""The other end of an MQTT conversation: our engine in its client's role, over a FakeStream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from moorage.interfaces import OpenConversation, Peer
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import ClientConnection
from tests.support.streams import FakeStream, ManualTime

E = TypeVar("E", bound=packets.Event)


class MqttPeer:
    """`expect` takes the packets in the order in which they come, so that a test also says what does not come."""

    def __init__(
        self, time: ManualTime, open_conversation: OpenConversation, *, chain: Sequence[bytes] = ()
    ) -> None:
        self.time = time
        peer = Peer("192.0.2.7", "mqtt", tuple(chain))
        self.stream = FakeStream(time, open_conversation, peer=peer)
        self.wire = ClientConnection()
        self._events: list[packets.Event] = []

    def send(self, *data: bytes) -> None:
        """All in one read of the server."""
        self.stream.feed(b"".join(data))

    @property
    def received(self) -> list[packets.Event]:
        """What has come and was not expected yet."""
        if data := self.stream.take():
            self._events += self.wire.receive(data)
        return self._events

    async def expect(self, kind: type[E]) -> E:
        """The next packet, which has to be of this kind."""
        await self.time.until(lambda: self.received, kind.__name__)
        event = self._events.pop(0)
        assert isinstance(event, kind), event
        return event

    async def ended(self) -> str:
        """Why the connection has ended, once it has; nothing but what was expected has come before."""
        await self.time.until(lambda: self.stream.over, "the end of the connection")
        assert self.received == []
        assert self.stream.reason is not None
        return self.stream.reason


def user_name(device_id: str, host: str = "localhost") -> str:
    return f"{host}/{device_id}/?api-version=2021-04-12&DeviceClientType=test"


def connect(device_id: str, token: str | None, **fields: object) -> bytes:
    """CONNECT of a device at its hub; `fields` are those of `packets.Connect`."""
    made: dict[str, object] = {
        "client_id": device_id,
        "username": user_name(device_id),
        "password": token.encode() if token is not None else None,
        "clean_session": False,
        "keep_alive": 60,
        **fields,
    }
    return packets.encode_connect(packets.Connect(**made))  # type: ignore[arg-type]


def publish(topic: str, payload: bytes = b"x", packet_id: int | None = None, **flags: bool) -> bytes:
    """QoS 1 with a packet id, QoS 0 without."""
    return packets.encode_publish(
        topic, payload, qos=0 if packet_id is None else 1, packet_id=packet_id, **flags
    )
