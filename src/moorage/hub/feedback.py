"""Feedback: what became of cloud-to-device messages, told to the back ends that asked. [hub-service 12.1]

A record is written in the same commit as the outcome that it tells of. Records are handed out in batches, from one
queue for the whole hub: competing receivers share them. Which records make a batch, and who has it locked, is kept
in memory; after a restart they are batched anew.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from moorage.hub.cloud_to_device import SECOND, Ack, CloudToDeviceMessage, CloudToDeviceSettings, LockLost
from moorage.hub.twin import timestamp
from moorage.interfaces import Clock, Delete, Expect, Kind, Put, Store

CONTENT_TYPE = "application/vnd.microsoft.iothub.feedback.json"
MAX_BATCH = 64  # records
BATCH_AFTER = 15 * SECOND
_PAGE = 500


class Outcome(Enum):
    """`statusCode` and its words."""

    SUCCESS = "Success", "Success"
    EXPIRED = "Expired", "Message expired"
    DELIVERY_COUNT_EXCEEDED = "DeliveryCountExceeded", "Message delivery count exceeded"
    REJECTED = "Rejected", "Message rejected"
    PURGED = "Purged", "Message purged"

    def wanted_by(self, ack: Ack) -> bool:
        return ack is Ack.FULL or ack is (Ack.POSITIVE if self is Outcome.SUCCESS else Ack.NEGATIVE)


@dataclass(frozen=True, kw_only=True)
class FeedbackRecord:
    """`number` orders the records of a hub, `at` is when it happened, in microseconds."""

    number: int
    at: int
    outcome: Outcome
    message_id: str | None
    device_id: str
    module_id: str | None
    generation_id: str
    etag: str = ""

    @property
    def key(self) -> str:
        return f"{self.number:020}"

    def view(self) -> dict[str, Any]:
        code, words = self.outcome.value
        module = {} if self.module_id is None else {"moduleId": self.module_id}
        return {
            "originalMessageId": self.message_id,
            "description": words,
            "deviceGenerationId": self.generation_id,
            "deviceId": self.device_id,
            **module,
            "enqueuedTimeUtc": timestamp(self.at),
            "statusCode": code,
        }


def _to_document(record: FeedbackRecord) -> dict[str, Any]:
    return {
        "number": record.number,
        "at": record.at,
        "outcome": record.outcome.name,
        "messageId": record.message_id,
        "deviceId": record.device_id,
        "moduleId": record.module_id,
        "generationId": record.generation_id,
    }


def _from_document(document: dict[str, Any]) -> FeedbackRecord:
    return FeedbackRecord(
        number=document["number"],
        at=document["at"],
        outcome=Outcome[document["outcome"]],
        message_id=document["messageId"],
        device_id=document["deviceId"],
        module_id=document["moduleId"],
        generation_id=document["generationId"],
    )


KIND: Kind[FeedbackRecord] = Kind(
    name="feedback",
    key=lambda record: record.key,
    to_document=_to_document,
    from_document=_from_document,
    index={},
)
"""Kept under the scope of the hub, in the order of the outcomes."""


@dataclass(slots=True, eq=False)
class Batch:
    """Records handed out together. `token` is 16 bytes, new with each delivery; clients make a GUID of it."""

    records: Sequence[FeedbackRecord]
    token: bytes = b""
    locked_until: int = 0
    holder: object = None
    deliveries: int = 0
    settling: bool = False

    @property
    def at(self) -> int:
        """When its last record came, in microseconds."""
        return self.records[-1].at

    def body(self) -> bytes:
        """ASCII: a client reads it through the text form of an AMQP binary. [hub-service 12.1]"""
        return json.dumps([record.view() for record in self.records], separators=(",", ":")).encode("ascii")


@dataclass(eq=False)
class Feedback:
    """The feedback queue of one hub. Times are in microseconds."""

    scope: int
    store: Store
    clock: Clock
    settings: Callable[[], CloudToDeviceSettings]
    _loose: deque[FeedbackRecord] = field(default_factory=deque)  # of no batch yet, by age
    _batches: list[Batch] = field(default_factory=list)  # by age
    _watchers: dict[object, Callable[[], None]] = field(default_factory=dict)
    _last: int = 0

    async def open(self) -> None:
        """Take up what was kept."""
        records, after = self.store.records(KIND, self.scope), None
        while True:
            page = await records.page(after=after, limit=_PAGE)
            self._loose.extend(page.records)
            if (after := page.next) is None:
                break
        self._last = self._loose[-1].number if self._loose else 0

    def of(self, message: CloudToDeviceMessage, outcome: Outcome) -> FeedbackRecord | None:
        """What is to be kept, in the commit of the outcome, when the sender asked for it; then `add` it."""
        if not outcome.wanted_by(message.ack):
            return None
        now = self.clock.now()
        self._last = max(self._last + 1, now)
        return FeedbackRecord(
            number=self._last,
            at=now,
            outcome=outcome,
            message_id=message.message_id,
            device_id=message.device_id,
            module_id=message.module_id,
            generation_id=message.generation_id,
        )

    def put(self, record: FeedbackRecord) -> Put[FeedbackRecord]:
        return Put(KIND, self.scope, record)

    def add(self, records: Sequence[FeedbackRecord]) -> None:
        """They are durable: hand them out when their time comes."""
        if records:
            self._loose.extend(records)
            self._wake()

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """`wake()` is called when there may be something to take, or to wait for; the function returned ends that."""
        mark = object()
        self._watchers[mark] = wake

        def end() -> None:
            self._watchers.pop(mark, None)

        return end

    def _wake(self) -> None:
        for wake in list(self._watchers.values()):
            wake()

    # --- handing out --------------------------------------------------------------------------------------

    def take(self, holder: object) -> Batch | None:
        """The next batch, locked for `holder`; None when none is ready."""
        now = self.clock.now()
        batch = next((each for each in self._batches if self._free(each, now)), None) or self._new_batch(now)
        if batch is None:
            return None
        batch.token = secrets.token_bytes(16)
        batch.locked_until = now + self.settings().feedback_lock * SECOND
        batch.holder = holder
        batch.deliveries += 1
        return batch

    def _free(self, batch: Batch, now: int) -> bool:
        return not batch.settling and batch.locked_until <= now and not self._dead(batch, now)

    def _dead(self, batch: Batch, now: int) -> bool:
        settings = self.settings()
        return (
            batch.deliveries >= settings.feedback_max_delivery_count
            or batch.at + settings.feedback_ttl * SECOND <= now
        )

    def _new_batch(self, now: int) -> Batch | None:
        while self._loose and self._outlived(self._loose[0], now):
            self._batches.append(Batch([self._loose.popleft()]))  # for `expire` to find
        due = self._loose and self._loose[0].at + BATCH_AFTER <= now
        if not due and len(self._loose) < MAX_BATCH:
            return None
        count = min(MAX_BATCH, len(self._loose))
        batch = Batch([self._loose.popleft() for _ in range(count)])
        self._batches.append(batch)
        return batch

    def _outlived(self, record: FeedbackRecord, now: int) -> bool:
        return record.at + self.settings().feedback_ttl * SECOND <= now

    def next_at(self, looked: int) -> int | None:
        """When `take`, which had nothing at `looked`, may have something; None when only a new record can change that.

        That may be past already: whoever asks the clock a second time would miss what came due in between.
        """
        times = [each.locked_until for each in self._batches if not each.settling]
        if self._loose:
            times.append(self._loose[0].at + BATCH_AFTER)
        return min((at for at in times if at > looked), default=None)

    # --- settling -----------------------------------------------------------------------------------------

    def locked(self, token: bytes) -> Batch:
        """The batch delivered under `token`. Raises LockLost."""
        now = self.clock.now()
        for batch in self._batches:
            if batch.token == token and batch.locked_until > now and not batch.settling:
                return batch
        raise LockLost("feedback", token.hex())

    async def complete(self, token: bytes) -> None:
        """Forget the batch, durably. Raises LockLost."""
        await self._forget([self.locked(token)])

    def abandon(self, token: bytes) -> None:
        """Give the batch back, to be handed out again. Raises LockLost."""
        self._free_up([self.locked(token)])

    def release(self, holder: object) -> None:
        """Give back all that `holder` has locked."""
        self._free_up([each for each in self._batches if each.holder is holder and not each.settling])

    def _free_up(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            batch.locked_until, batch.holder, batch.token = 0, None, b""
        if batches:
            self._wake()

    async def expire(self) -> None:
        """Drop what nobody has taken in time, or was handed out too often."""
        now = self.clock.now()
        if self._loose and self._outlived(self._loose[0], now):
            self._new_batch(now)
        ended = [
            each
            for each in self._batches
            if not each.settling and each.locked_until <= now and self._dead(each, now)
        ]
        if ended:
            await self._forget(ended)

    async def _forget(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            batch.settling = True
        try:
            records = itertools.chain.from_iterable(batch.records for batch in batches)
            await self.store.apply([Delete(KIND, self.scope, each.key, Expect.ANY) for each in records])
        except BaseException:
            for batch in batches:  # a lock goes on: at once it would fail again
                batch.settling = False
            self._wake()  # whoever looked meanwhile has passed them over
            raise
        self._batches = [each for each in self._batches if each not in batches]
