"""Cloud-to-device messages on one device's MQTT connection. [hub-device 3.8]

What is delivered with QoS 1 waits for its PUBACK, which completes it; with QoS 0 delivery itself does. A few messages
at the most are underway: a device that does not acknowledge gets no more. One whose lock has ended, or whose
connection was lost, is delivered again, under the packet id that it had.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from itertools import chain
from typing import Any, NamedTuple

from moorage.adapters.publishing import Publisher
from moorage.errors import MoorageError, TooLarge
from moorage.hub.cloud_to_device import MAX_QUEUE, SECOND, CloudToDeviceMessage, LockLost
from moorage.hub.device_queues import DeviceQueues, Lock
from moorage.hub.session import Principal
from moorage.hub.twin import timestamp
from moorage.interfaces import ByteStream, Clock, Timer
from moorage.wire.mqtt import packets, topics

log = logging.getLogger("moorage.hub")

MAX_UNDERWAY = 16  # messages [hub-device 3.4]
MAX_BYTES_UNDERWAY = 256 * 1024  # and waiting outward
MAX_TOPIC = 65_535  # bytes [hub-device 3.4]
CREATION_TIME = "iothub-creation-time-utc"


def devicebound(principal: Principal) -> str:
    """The topic that the messages for a device or module come under, without what follows its last slash."""
    return f"devices/{principal.resource}/messages/devicebound"


def property_bag(message: CloudToDeviceMessage) -> str:
    """System properties first, then `iothub-ack` if it was asked for, then the sender's own. [hub-device 3.8]

    `$.to` is always there: a client indexes the segment. [hub-device 16.1]
    """
    expiry = message.absolute_expiry_time
    named = dict(message.properties)
    system = (
        ("$.mid", message.message_id),
        ("$.to", message.to),
        ("$.cid", message.correlation_id),
        ("$.uid", message.user_id),
        ("$.exp", timestamp(expiry) if expiry is not None else None),
        ("$.ctime", named.pop(CREATION_TIME, None)),
        ("$.ct", message.content_type),
        ("$.ce", message.content_encoding),
        ("iothub-ack", str(message.ack) if message.ack != "none" else None),
    )
    return topics.encode_property_bag(
        chain(((name, value) for name, value in system if value is not None), named.items())
    )


class PacketIds:
    """Under which ids devices had the messages that they have not acknowledged, from one connection to the next.

    Kept in memory: over a restart of the server a message may come again under another id.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[int, str], dict[int, int]] = {}

    def take(self, scope: int, name: str) -> dict[int, int]:
        """By sequence number; empty for a device that acknowledged everything."""
        return self._of.pop((scope, name), {})

    def keep(self, scope: int, name: str, ids: dict[int, int]) -> None:
        if ids:
            self._of[scope, name] = ids


class _Underway(NamedTuple):
    lock: Lock
    size: int  # bytes of its packet


class CommandsMqtt:
    """What one connection subscribes to, and delivers from `begin` on."""

    def __init__(
        self,
        stream: ByteStream,
        publisher: Publisher,
        queues: DeviceQueues,
        principal: Principal,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        refused: Callable[[MoorageError], object],
    ) -> None:
        """`spawn` runs a coroutine to its end, whatever becomes of the connection.

        `refused` is told of a message that no MQTT packet can hold.
        """
        self._stream = stream
        self._publisher = publisher
        self._queues = queues
        self._name = principal.name
        self._topic = devicebound(principal)
        own = f"devices/{principal.resource}"
        self._inputs = f"{own}/inputs/#" if principal.module_id is not None else None
        self._filters = {f"{self._topic}/#"} | ({f"{own}/#"} if principal.module_id is not None else set())
        self._clock = clock
        self._spawn = spawn
        self._refused = refused
        self._granted: dict[str, int] = {}  # QoS by topic filter, of those that messages come by
        self._underway: dict[int, _Underway] = {}  # by packet id
        self._ids: dict[int, int] = {}  # packet ids by sequence number, of what was not acknowledged
        self._bytes = 0
        self._delivering: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._over = False

    # --- what the connection says -------------------------------------------------------------------------

    def subscribe(self, topic_filter: str, qos: int) -> int | None:
        """The QoS granted; None for a filter that is not about messages. What is underway does not come again.

        Compared as text: an id may hold `+` and `#`. Inputs of modules are granted, and as at Azure nothing
        comes by them: routing to inputs is the affair of an IoT Edge gateway. [hub-device 3.5, 3.9]
        """
        if topic_filter == self._inputs:
            return min(qos, 1)
        if topic_filter not in self._filters:
            return None
        self._granted[topic_filter] = min(qos, 1)
        return self._granted[topic_filter]

    def unsubscribe(self, topic_filter: str) -> None:
        """What is underway may still be acknowledged."""
        self._granted.pop(topic_filter, None)
        if not self._granted:
            self._queues.unwatch(self._name, self.messages_waiting)

    def resume(self, ids: dict[int, int]) -> None:
        """These were underway when the last connection of the session was lost."""
        self._ids = ids
        self._publisher.under_way.update(ids.values())

    def begin(self) -> None:
        """The device has been told that it is subscribed, if it is."""
        if self._granted and not self._over:
            self._queues.watch(self._name, self.messages_waiting)
            self.messages_waiting()

    def acknowledged(self, packet_id: int) -> None:
        """PUBACK. For an id that nothing is underway under it means nothing."""
        if packet_id not in self._underway:
            return
        lock = self._forget(packet_id).lock
        del self._ids[lock.message.sequence_number]
        self._publisher.under_way.discard(packet_id)
        self._spawn(self._settled(self._queues.complete(lock)))
        self.messages_waiting()

    async def _settled(self, settling: Coroutine[Any, Any, None]) -> None:
        try:
            await settling
        except LockLost:
            pass  # it comes again, or was purged [hub-device 4.5]
        except MoorageError as error:
            log.warning(
                "message not settled, it will be delivered again",
                extra={
                    "tracking_id": self._stream.tracking_id,
                    "device_id": self._name,
                    "reason": str(error),
                },
            )

    def close(self) -> dict[int, int]:
        """The connection takes nothing any more: what was underway is for the next one, as `resume` is told."""
        if not self._over:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
            self._queues.unwatch(self._name, self.messages_waiting)
            self._queues.release(self._name, self)
        return self._ids

    # --- delivering ---------------------------------------------------------------------------------------

    def messages_waiting(self) -> None:
        """There may be something to deliver, or room for it."""
        if self._has_room and self._delivering is None:
            self._delivering = asyncio.get_running_loop().create_task(self._deliver_all())

    @property
    def _has_room(self) -> bool:
        return (
            not self._over
            and bool(self._granted)
            and len(self._underway) < MAX_UNDERWAY
            and self._bytes < MAX_BYTES_UNDERWAY
            and self._stream.pending < MAX_BYTES_UNDERWAY
        )

    async def _deliver_all(self) -> None:
        try:
            while self._has_room and (lock := self._queues.take(self._name, self)) is not None:
                payload = await self._queues.body(lock.message)
                if self._over or not self._granted:
                    self._queues.put_back(lock)
                elif payload is not None:
                    self._deliver(lock, payload, max(self._granted.values()))
        except MoorageError as error:
            self._stream.abort(f"over a message that cannot be read: {error}")
        finally:
            self._delivering = None
            self._await_unlock()

    def _deliver(self, lock: Lock, payload: bytes, qos: int) -> None:
        topic = f"{self._topic}/{property_bag(lock.message)}"
        if len(topic) > MAX_TOPIC:  # escaping makes three bytes of one
            self._refused(TooLarge("properties", f"escaped, as in a topic, they are over {MAX_TOPIC} bytes"))
            self._spawn(self._settled(self._queues.reject(lock)))
            return
        if qos == 0:
            self._stream.write(packets.encode_publish(topic, payload, qos=0))
            self._spawn(self._settled(self._queues.complete(lock)))
            return
        number = lock.message.sequence_number
        again = number in self._ids  # the device has had it within this session [MQTT-3.3.1-1, 4.4.0-1]
        packet_id = self._ids[number] if again else self._new_id()
        if packet_id in self._underway:  # its lock has ended, and `_unlocked` is late
            self._forget(packet_id)
        packet = packets.encode_publish(topic, payload, qos=1, packet_id=packet_id, dup=again)
        self._ids[number] = packet_id
        self._underway[packet_id] = _Underway(lock, len(packet))
        self._bytes += len(packet)
        self._stream.write(packet)

    def _new_id(self) -> int:
        if len(self._ids) > 2 * MAX_QUEUE:  # most are of messages that have expired or were purged meanwhile
            self._publisher.under_way.difference_update(self._ids.values())
            self._ids = {each.lock.message.sequence_number: id_ for id_, each in self._underway.items()}
            self._publisher.under_way.update(self._underway)
        packet_id = self._publisher.next_id()
        self._publisher.under_way.add(packet_id)
        return packet_id

    def _forget(self, packet_id: int) -> _Underway:
        underway = self._underway.pop(packet_id)
        self._bytes -= underway.size
        return underway

    def _await_unlock(self) -> None:
        """What the device does not acknowledge within its lock comes again. [hub-device 3.8]"""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Those underway here are looked at whether they are still in the queue or not, and ended meanwhile or not: they
        # take up room until `_unlocked` forgets them.
        ends = [each.lock.until for each in self._underway.values()]
        if (other := self._queues.next_unlock(self._name)) is not None:
            ends.append(other)
        if ends and not self._over:
            left = max(min(ends) - self._clock.now(), 0)
            self._timer = self._stream.call_later(left / SECOND, self._unlocked)

    def _unlocked(self) -> None:
        now = self._clock.now()
        for packet_id, underway in list(self._underway.items()):
            if underway.lock.until <= now:
                self._forget(packet_id)
        self.messages_waiting()
        self._await_unlock()
