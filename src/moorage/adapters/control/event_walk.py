"""A look through a hub's events, merged over its partitions by the time they came in: onwards or backwards.

One look is bounded, whatever its filters let pass: it ends after so many events or bytes, and says where it ended, for
the next to go on there.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moorage.hub.instance import Hub, partition_of
from moorage.hub.telemetry import DEVICE_ID, MODULE_ID
from moorage.interfaces import EventLog, StoredEvent
from moorage.wire.amqp import Message
from moorage.wire.amqp.types import Symbol

LOOK_AT = 5_000  # events
LOOK_AT_SIZE = 16 << 20  # bytes of the messages looked at
FOUND_SIZE = 4 << 20  # bytes of the messages found: the answer is to be written and read at once
TURN = 50  # events after which others get theirs

MAX_AT_ONCE = 256  # events of one partition in one read
SMALL, LARGE = (
    128 << 10,
    1 << 20,
)  # bytes of one read, below which the next takes more events, above which fewer

Place = tuple[int, ...]
"""For each partition the sequence number of the first event behind it."""

_PROPERTIES = {
    "message-id": "message_id",
    "correlation-id": "correlation_id",
    "user-id": "user_id",
    "to": "to",
    "content-type": "content_type",
    "content-encoding": "content_encoding",
}


class Seen(NamedTuple):
    partition: int
    event: StoredEvent
    message: Message


class Look(NamedTuple):
    """`place` is where it ended. `remaining` events, wanted or not, lie between there and the end that it was given."""

    found: list[Seen]
    place: Place
    remaining: int
    looked_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events are meant: None leaves open. `name` is an application or a system property, or an annotation.

    Without a `value` it is enough that there is one of that name.
    """

    device: str | None = None
    module: str | None = None
    name: str | None = None
    value: str | None = None

    def judge(self, event: StoredEvent) -> Message | None:
        """The event's message if it is meant. A look at the bytes spares most others from being taken apart."""
        named = None if self.name in _PROPERTIES else self.name  # those are not named in the bytes
        for text in (self.device, self.module, named, self.value):
            if text and text.encode() not in event.message:
                return None
        message = Message.decode(event.message)
        return message if self._means(message) else None

    def _means(self, message: Message) -> bool:
        annotations = message.message_annotations or {}
        if self.device is not None and annotations.get(Symbol(DEVICE_ID)) != self.device:
            return False
        if self.module is not None and annotations.get(Symbol(MODULE_ID)) != self.module:
            return False
        return self.name is None or any(self.value in (None, found) for found in _values(message, self.name))


def _values(message: Message, name: str) -> list[str]:
    """Of all that may be called so, application properties first; null is an empty text."""
    found: list[str] = []
    if name in (own := message.application_properties or {}):
        found.append(own[name] or "")
    if name in (annotations := message.message_annotations or {}):
        found.append(str(annotations[name]))
    field = _PROPERTIES.get(name)
    value = getattr(message.properties, field) if field and message.properties is not None else None
    if value is not None:
        found.append(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
    return found


def first_place(log: EventLog, hub: Hub) -> Place:
    """Before the oldest event kept."""
    return tuple(log.state(hub.scope, number).begin_sequence_number for number in range(hub.partition_count))


def last_place(log: EventLog, hub: Hub) -> Place:
    """Behind the newest event."""
    return tuple(
        log.state(hub.scope, number).last_sequence_number + 1 for number in range(hub.partition_count)
    )


async def walk(
    log: EventLog, hub: Hub, wanted: Wanted, begin: Place, end: Place, *, count: int, backwards: bool
) -> Look:
    """Up to `count` events from `begin` on, oldest first, or `backwards` from `end`. Raises Unavailable."""
    numbers = range(hub.partition_count) if wanted.device is None else [partition_of(hub, wanted.device)]
    oldest = first_place(log, hub)
    lanes = [
        _Lane(log, hub.scope, number, max(begin[number], oldest[number]), end[number], backwards=backwards)
        for number in numbers
    ]
    found, looked_at = await _merge(lanes, wanted, count)
    place = list(begin if backwards else end)
    for lane in lanes:
        place[lane.partition] = lane.place
    return Look(found, tuple(place), sum(lane.remaining for lane in lanes), looked_at)


async def _merge(lanes: Sequence[_Lane], wanted: Wanted, count: int) -> tuple[list[Seen], int]:
    """What is wanted of the next events of all lanes, and how many were looked at."""
    found: list[Seen] = []
    looked_at = size = found_size = 0
    ahead = [(lane.key(), lane) for lane in lanes if lane.fill()]
    heapq.heapify(ahead)
    while (
        ahead
        and len(found) < count
        and looked_at < LOOK_AT
        and size < LOOK_AT_SIZE
        and found_size < FOUND_SIZE
    ):
        lane = ahead[0][1]
        event = lane.take()
        if lane.fill():
            heapq.heapreplace(ahead, (lane.key(), lane))
        else:
            heapq.heappop(ahead)
        looked_at += 1
        size += len(event.message)
        if (message := wanted.judge(event)) is not None:
            found.append(Seen(lane.partition, event, message))
            found_size += len(event.message)
        if looked_at % TURN == 0:
            await asyncio.sleep(0)
    return found, looked_at


class _Lane:
    """The events of one partition from `begin` to before `end`, taken from one side."""

    def __init__(
        self, log: EventLog, scope: int, partition: int, begin: int, end: int, *, backwards: bool
    ) -> None:
        self.partition = partition
        self._log = log
        self._scope = scope
        self._begin = begin  # those from here to before `_end` have not been taken
        self._end = max(begin, end)
        self._backwards = backwards
        self._ready: deque[StoredEvent] = deque()  # read already, the next one first
        self._at_once = 8

    @property
    def place(self) -> int:
        """Between what was taken and what was not."""
        return self._end if self._backwards else self._begin

    @property
    def remaining(self) -> int:
        return self._end - self._begin

    def key(self) -> tuple[int, int]:
        """The lane with the smallest has the next event of all; partitions keep apart what came in at one time."""
        time = self._ready[0].enqueued_time
        return (-time, -self.partition) if self._backwards else (time, self.partition)

    def fill(self) -> bool:
        """Whether there is a next event."""
        if not self._ready and self.remaining:
            self._read()
        return bool(self._ready)

    def take(self) -> StoredEvent:
        event = self._ready.popleft()
        if self._backwards:
            self._end = event.sequence_number
        else:
            self._begin = event.sequence_number + 1
        return event

    def _read(self) -> None:
        begin, end = self._begin, self._end
        if self._backwards:
            begin = max(begin, end - self._at_once)
        else:
            end = min(end, begin + self._at_once)
        events: list[StoredEvent] = []
        while begin < end:
            more, begin = self._log.read(self._scope, self.partition, begin, limit=end - begin)
            if not more:
                break
            events += [event for event in more if event.sequence_number < end]
        if not events:  # retention was quicker
            self._begin = self._end
            return
        self._ready.extend(reversed(events) if self._backwards else events)
        size = sum(len(event.message) for event in events)
        if size < SMALL:
            self._at_once = min(2 * self._at_once, MAX_AT_ONCE)
        elif size > LARGE:
            self._at_once = max(self._at_once // 2, 1)
