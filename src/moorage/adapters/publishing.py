"""What the hub publishes to one device over MQTT, and in which order what the device published is acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from moorage.interfaces import ByteStream
from moorage.wire.mqtt import packets


class Publisher:
    """One for a connection, so that no two messages under way have the same packet id. [MQTT-2.3.1-4]"""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._last_id = 0
        self.under_way: set[int] = set()
        """Packet ids not to be given again, of messages whose acknowledgement somebody waits for."""

    def next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 0xFFFF + 1
            if self._last_id not in self.under_way:
                return self._last_id

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        """With QoS 1 too it is sent once, and nobody looks for its acknowledgement."""
        packet_id = self.next_id() if qos else None
        self._stream.write(packets.encode_publish(topic, payload, qos=qos, packet_id=packet_id))


class Request(NamedTuple):
    """A message of the device that is no telemetry.

    `acknowledge` sends its PUBACK, `done` says that nothing more is written for it.
    """

    topic: str
    payload: bytes
    acknowledge: Callable[[], None]
    done: Callable[[], None]


class Acknowledgements:
    """PUBACKs leave in the order in which their PUBLISHes came: behind one that has to wait, the others do.

    [MQTT-4.6.0-2]
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._reserved: deque[_Reserved] = deque()

    def send(self, packet_ids: Sequence[int]) -> None:
        """Of messages that are done with."""
        if self._reserved:
            self._reserved[-1].behind += packet_ids
        else:
            self._stream.write(packets.encode_pubacks(packet_ids))

    def reserve(self, packet_id: int) -> _Reserved:
        """A place in the order for a message that is not done with yet."""
        reserved = _Reserved(self, packet_id)
        self._reserved.append(reserved)
        return reserved

    def send_settled(self) -> None:
        ready: list[int] = []
        while self._reserved and self._reserved[0].settled:
            first = self._reserved.popleft()
            ready += (first.packet_id, *first.behind)
        if ready:
            self._stream.write(packets.encode_pubacks(ready))


class _Reserved:
    __slots__ = ("_order", "behind", "packet_id", "settled")

    def __init__(self, order: Acknowledgements, packet_id: int) -> None:
        self._order = order
        self.packet_id = packet_id
        self.behind: list[int] = []
        self.settled = False

    def settle(self) -> None:
        """The message is done with."""
        self.settled = True
        self._order.send_settled()
