"""The queues of cloud-to-device messages of one hub, one for each device and module. [hub-device 8]

    enqueued ── taken by a connection of the device ──> locked ── completed ──> gone
       ^                                                  │
       └── abandoned, connection lost, lock ended ────────┤
                                                          └── rejected, abandoned too often ──> dead
    expired and purged messages are dead too.

A message that is dead is gone as well: Azure shows dead letters to nobody. What its sender hears of it is feedback,
written in the same commit. Locks are kept in memory: what was underway at a crash is enqueued again, and nothing that
was completed durably ever comes back.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from moorage.errors import NotFound
from moorage.hub import cloud_to_device as messages
from moorage.hub import device_identity, module_identity, stored_session
from moorage.hub.cloud_to_device import (
    MAX_QUEUE,
    SECOND,
    Body,
    CloudToDeviceMessage,
    CloudToDeviceSettings,
    Content,
    LockLost,
    QueueFull,
)
from moorage.hub.feedback import Feedback, Outcome
from moorage.hub.session import name_of
from moorage.interfaces import Change, Clock, Delete, DeleteFound, Expect, Put, Require, Store

_PAGE = 500
_KINDS = (messages.KIND, messages.BODY_KIND, stored_session.KIND)


def removal(scope: int, device_id: str) -> list[Change]:
    """What deletes all that waits for a device and its modules, for the commit that deletes that."""
    return [DeleteFound(kind, scope, "device", device_id) for kind in _KINDS]


def module_removal(scope: int, name: str) -> list[Change]:
    """The same of one module."""
    return [DeleteFound(kind, scope, "name", name) for kind in _KINDS]


@dataclass(slots=True, eq=False)
class Entry:
    """A message in its queue. `delivered` once a connection has had it, so that the next one knows."""

    message: CloudToDeviceMessage
    lock: Lock | None = None
    settling: bool = False
    delivered: bool = False

    def free(self, now: int) -> bool:
        return not self.settling and (self.lock is None or self.lock.until <= now)

    def expired(self, now: int) -> bool:
        return self.message.expires_at <= now


@dataclass(frozen=True, slots=True, eq=False)
class Lock:
    """A message given to `holder`; `until` is in microseconds. `again` when it has been delivered before."""

    entry: Entry
    holder: object
    until: int
    again: bool

    @property
    def message(self) -> CloudToDeviceMessage:
        return self.entry.message


class Waiting(NamedTuple):
    """A message in its queue as others see it: `underway` while a connection has it."""

    message: CloudToDeviceMessage
    underway: bool


@dataclass(slots=True, eq=False)
class Queue:
    """Those of one device, by age. `arriving` are on their way to the disk."""

    entries: list[Entry] = field(default_factory=list)
    arriving: int = 0
    wake: Callable[[], None] | None = None

    @property
    def idle(self) -> bool:
        return not self.entries and not self.arriving and self.wake is None


class DeviceQueues:
    """What a verb returns is durable."""

    def __init__(
        self,
        scope: int,
        store: Store,
        clock: Clock,
        feedback: Feedback,
        settings: Callable[[], CloudToDeviceSettings],
    ) -> None:
        self._scope = scope
        self._store = store
        self._clock = clock
        self._feedback = feedback
        self._settings = settings
        self._bodies = store.records(messages.BODY_KIND, scope)
        self._devices = store.records(device_identity.KIND, scope)
        self._modules = store.records(module_identity.KIND, scope)
        self._queues: dict[str, Queue] = {}
        self._expiries: list[tuple[int, int, str]] = []  # a heap; what was settled meanwhile is passed over
        self._last = 0

    async def open(self) -> None:
        """Take up what was kept; before anything else is called."""
        heads, after = self._store.records(messages.KIND, self._scope), None
        while True:
            page = await heads.page(after=after, limit=_PAGE)
            for message in page.records:
                self._enter(message)
                self._last = max(self._last, message.sequence_number)
            if (after := page.next) is None:
                return

    # --- the sender's side --------------------------------------------------------------------------------

    async def send(self, device_id: str, module_id: str | None, content: Content) -> CloudToDeviceMessage:
        """Enqueue for a device or module. Raises NotFound, TooLarge, InvalidExpiry, QueueFull."""
        name, now = name_of(device_id, module_id), self._clock.now()
        content.check(now)
        generation_id = await self._generation(device_id, module_id)
        queue = self._queue(name)
        if len(queue.entries) + queue.arriving >= MAX_QUEUE:
            await self._bury_expired(name, queue)
        if len(queue.entries) + queue.arriving >= MAX_QUEUE:
            raise QueueFull(name)
        message = CloudToDeviceMessage.enqueued(
            content,
            device_id=device_id,
            module_id=module_id,
            generation_id=generation_id,
            sequence_number=self._next_sequence_number(now),
            now=now,
            default_ttl=self._settings().default_ttl,
        )
        queue.arriving += 1
        try:
            await self._store.apply(
                [
                    self._require(device_id, module_id),
                    Put(messages.KIND, self._scope, message),
                    Put(messages.BODY_KIND, self._scope, Body.of(message, content.body)),
                ]
            )
        except NotFound:
            raise NotFound("device" if module_id is None else "module", name) from None
        finally:
            queue.arriving -= 1
        self._enter(message)
        self._wake(name)
        return message

    async def _generation(self, device_id: str, module_id: str | None) -> str:
        """Raises NotFound."""
        if module_id is not None:
            module = await self._modules.get(name_of(device_id, module_id))
            if module is not None:
                return module.generation_id
        device = await self._devices.get(device_id)
        if device is None:
            raise NotFound("device", device_id)
        if module_id is not None:
            raise NotFound("module", name_of(device_id, module_id))
        return device.generation_id

    def _require(self, device_id: str, module_id: str | None) -> Require:
        """Nothing is kept for an identity that was deleted meanwhile."""
        kind = device_identity.KIND if module_id is None else module_identity.KIND
        return Require(kind, self._scope, name_of(device_id, module_id))

    def _next_sequence_number(self, now: int) -> int:
        """Rises, also over a restart that found every queue empty."""
        self._last = max(self._last + 1, now)
        return self._last

    async def purge(self, name: str) -> int:
        """Empty a queue, with what is underway; how many messages that were."""
        queue = self._queues.get(name)
        entries = [each for each in queue.entries if not each.settling] if queue is not None else []
        await self._end(entries, Outcome.PURGED)
        return len(entries)

    def count(self, name: str) -> int:
        """Messages that wait for the device or are underway to it."""
        queue, now = self._queues.get(name), self._clock.now()
        return sum(not each.expired(now) for each in queue.entries) if queue is not None else 0

    def waiting(self, name: str) -> list[Waiting]:
        """The same messages themselves, oldest first."""
        queue, now = self._queues.get(name), self._clock.now()
        entries = queue.entries if queue is not None else []
        return [Waiting(each.message, not each.free(now)) for each in entries if not each.expired(now)]

    # --- the device's side --------------------------------------------------------------------------------

    def watch(self, name: str, wake: Callable[[], None]) -> None:
        """`wake()` is called when `take` may have something. The newest connection of a device is the one called."""
        self._queue(name).wake = wake

    def unwatch(self, name: str, wake: Callable[[], None]) -> None:
        queue = self._queues.get(name)
        if queue is not None and queue.wake == wake:
            queue.wake = None
            self._tidy(name, queue)

    def take(self, name: str, holder: object) -> Lock | None:
        """Lock the oldest message that is free; None when there is none."""
        queue, now = self._queues.get(name), self._clock.now()
        for entry in queue.entries if queue is not None else ():
            if entry.free(now) and not entry.expired(now):
                until = now + self._settings().lock * SECOND
                entry.lock = Lock(entry, holder, until, again=entry.delivered)
                entry.delivered = True
                return entry.lock
        return None

    def next_unlock(self, name: str) -> int | None:
        """When the next lock in the queue ends, in microseconds."""
        queue, now = self._queues.get(name), self._clock.now()
        locks = [each.lock for each in queue.entries if each.lock is not None] if queue is not None else []
        return min((lock.until for lock in locks if lock.until > now), default=None)

    async def body(self, message: CloudToDeviceMessage) -> bytes | None:
        """None when the message is gone meanwhile."""
        kept = await self._bodies.get(message.key)
        return kept.payload if kept is not None else None

    async def complete(self, lock: Lock) -> None:
        """The device has it. Raises LockLost."""
        await self._end([self._held(lock)], Outcome.SUCCESS)

    async def reject(self, lock: Lock) -> None:
        """The device does not want it. Raises LockLost."""
        await self._end([self._held(lock)], Outcome.REJECTED)

    async def abandon(self, lock: Lock) -> None:
        """The device gives it back, which it may not do too often. Raises LockLost."""
        entry = self._held(lock)
        message = entry.message
        if message.delivery_count + 1 >= self._settings().max_delivery_count:
            await self._end([entry], Outcome.DELIVERY_COUNT_EXCEEDED)
            return
        counted = replace(message, delivery_count=message.delivery_count + 1)
        entry.settling = True
        try:
            await self._store.apply([Put(messages.KIND, self._scope, counted, Expect.PRESENT)])
            entry.message = counted
        finally:
            entry.settling, entry.lock = False, None
            self._wake(message.name)

    def put_back(self, lock: Lock) -> None:
        """The device was not given it after all."""
        if lock.entry.lock is lock:
            lock.entry.lock = None
            self._wake(lock.message.name)

    def release(self, name: str, holder: object) -> None:
        """The connection of `holder` is gone: what it had and did not settle is enqueued again."""
        queue = self._queues.get(name)
        freed = False
        for entry in queue.entries if queue is not None else ():
            if entry.lock is not None and entry.lock.holder is holder and not entry.settling:
                entry.lock, freed = None, True
        if freed:
            self._wake(name)

    def _held(self, lock: Lock) -> Entry:
        entry = lock.entry
        if entry.lock is not lock or entry.settling or lock.until <= self._clock.now():
            raise LockLost("message", entry.message.key)
        return entry

    # --- the hub's side -----------------------------------------------------------------------------------

    async def expire(self) -> None:
        """Bury what has outlived its time, unless a device just has it."""
        now, due = self._clock.now(), set()
        while self._expiries and self._expiries[0][0] <= now:
            due.add(heapq.heappop(self._expiries)[2])
        for name in sorted(due):
            if (queue := self._queues.get(name)) is not None:
                await self._bury_expired(name, queue)

    async def _bury_expired(self, name: str, queue: Queue) -> None:
        now = self._clock.now()
        expired = [each for each in queue.entries if each.expired(now)]
        for entry in expired:
            if not entry.free(now):  # look again once the device has settled it, or its lock has ended
                heapq.heappush(self._expiries, (now + SECOND, entry.message.sequence_number, name))
        await self._end([each for each in expired if each.free(now)], Outcome.EXPIRED)

    def forget(self, name: str) -> None:
        """The identity was deleted, and in the same commit what `removal` or `module_removal` has said."""
        if (queue := self._queues.get(name)) is not None:
            queue.entries.clear()
            self._tidy(name, queue)

    def forget_device(self, device_id: str) -> None:
        """The same of a device, and with it of its modules."""
        for name in [each for each in self._queues if each.partition("/")[0] == device_id]:
            self.forget(name)

    async def _end(self, entries: Sequence[Entry], outcome: Outcome) -> None:
        """Take messages out of their queues for good, with feedback, in one commit."""
        if not entries:
            return
        records = []
        changes: list[Change] = []
        for entry in entries:
            entry.settling = True
            message = entry.message
            for kind in (messages.KIND, messages.BODY_KIND):
                changes.append(Delete(kind, self._scope, message.key, Expect.ANY))
            if (record := self._feedback.of(message, outcome)) is not None:
                records.append(record)
                changes.append(self._feedback.put(record))
        try:
            await self._store.apply(changes)
        except BaseException:
            for entry in entries:  # a lock goes on: at once it would fail again
                entry.settling = False
            for name in {entry.message.name for entry in entries}:
                self._wake(name)  # whoever looked meanwhile has passed them over
            raise
        for entry in entries:
            self._leave(entry)
        self._feedback.add(records)

    def _leave(self, entry: Entry) -> None:
        name = entry.message.name
        queue = self._queues.get(name)
        if queue is not None and entry in queue.entries:
            queue.entries.remove(entry)
            self._tidy(name, queue)

    def _enter(self, message: CloudToDeviceMessage) -> None:
        insort(
            self._queue(message.name).entries, Entry(message), key=lambda each: each.message.sequence_number
        )
        heapq.heappush(self._expiries, (message.expires_at, message.sequence_number, message.name))

    def _queue(self, name: str) -> Queue:
        return self._queues.setdefault(name, Queue())

    def _tidy(self, name: str, queue: Queue) -> None:
        if queue.idle and self._queues.get(name) is queue:
            del self._queues[name]

    def _wake(self, name: str) -> None:
        queue = self._queues.get(name)
        if queue is not None and queue.wake is not None:
            queue.wake()
