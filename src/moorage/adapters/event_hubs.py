"""The Event Hubs-compatible face of a hub: partitions read over AMQP, `$management`, and the redirect to here.

A reader opens a link from `{entity}/ConsumerGroups/{group}/Partitions/{n}` and gets the partition's events from the
place that its filter names, never more than its credit, and at rest nothing until the log wakes the link. Readers
keep their own place; a consumer group is a name and the rule of who may read beside whom.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage.adapters.amqp import AmqpConversation, LinkHandler, Replies, address_path, response, text
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.errors import Invalid, MoorageError, NotFound, NotSupported
from moorage.hub.instance import Hub
from moorage.interfaces import EventLog, PartitionState, Start, StartProperty
from moorage.wire.amqp import (
    AmqpValue,
    Array,
    DeliveryReceived,
    Described,
    Error,
    Int,
    Long,
    Message,
    Receiver,
    Sender,
    Symbol,
    Timestamp,
    conditions,
    link_redirect,
)
from moorage.wire.errors import Malformed

log = logging.getLogger("moorage.event_hubs")

MANAGEMENT = "$management"
READ_AT_ONCE = 512  # events of one link in one turn: others get theirs between
HOLD_BACK = 256 * 1024  # bytes waiting outward from which on a reader waits [design 3.6]
READERS_WITHOUT_EPOCH = 5  # per consumer group and partition [hub-service 13.2]
NEVER = (
    -62_135_596_800_000
)  # milliseconds of 0001-01-01, for the time of an empty partition [hub-service 13.1]

EPOCH = "com.microsoft:epoch"
RUNTIME_METRIC = "com.microsoft:enable-receiver-runtime-metric"
SELECTOR = "apache.org:selector-filter:string"
SELECTOR_CODE = 0x0000468C00000004

_EXPRESSION = re.compile(
    r"\s*amqp\.annotation\.(?P<property>x-opt-[a-z-]+)\s*(?P<operator>>=?)\s*(?P<quote>['\"]?)(?P<value>[^'\"]*)(?P=quote)\s*",
    re.IGNORECASE,
)
_PROPERTIES = {
    "x-opt-offset": StartProperty.OFFSET,
    "x-opt-sequence-number": StartProperty.SEQUENCE_NUMBER,
    "x-opt-enqueued-time": StartProperty.ENQUEUED_TIME,
    "x-opt-enqueuedtimeutc": StartProperty.ENQUEUED_TIME,
}


def starting_position(expression: str) -> Start:
    """Where a selector lets a reader begin; every dialect of hub-service 13.2. Raises Invalid."""
    found = _EXPRESSION.fullmatch(expression)
    name = _PROPERTIES.get(found["property"].lower()) if found is not None else None
    if found is None or name is None:
        raise Invalid(
            "filter", f"{expression!r} is not a selector on offset, sequence number or enqueued time"
        )
    value, inclusive = found["value"].strip(), found["operator"] == ">="
    if value == "@latest":
        return Start(StartProperty.LATEST)
    if name is StartProperty.OFFSET and value == "-1":
        return Start(StartProperty.FIRST)
    try:
        number = int(value)
    except ValueError:
        raise Invalid("filter", f"{value!r} in {expression!r} is not a number") from None
    if name is StartProperty.ENQUEUED_TIME:
        number *= 1000  # milliseconds on the wire
    return Start(name, number, inclusive)


def start_of(link: Sender) -> Start:
    """No filter means from the start."""
    filters: Any = link.source.filter if link.source is not None else None
    for key, value in (filters or {}).items():
        descriptor = value.descriptor if isinstance(value, Described) else None
        if text(key) == SELECTOR or descriptor in (SELECTOR, SELECTOR_CODE):
            return starting_position(text(value.value if isinstance(value, Described) else value))
    return Start(StartProperty.FIRST)


@dataclass(eq=False)
class _Seats:
    """Who reads one partition in one consumer group."""

    readers: set[PartitionReader] = field(default_factory=set)

    def admit(self, newcomer: PartitionReader) -> list[PartitionReader]:
        """Those who have to leave for `newcomer`. Raises when it may not join. [hub-service 13.2]"""
        highest = max((r.epoch for r in self.readers if r.epoch is not None), default=None)
        if newcomer.epoch is None:
            if highest is not None:
                raise ReaderDisplaced(
                    f"a receiver with epoch {highest} reads this partition, one without epoch may not join it"
                )
            if len(self.readers) >= READERS_WITHOUT_EPOCH:
                raise TooManyReaders(
                    f"{READERS_WITHOUT_EPOCH} receivers read this partition in this consumer group already"
                )
            return []
        if highest is not None and highest > newcomer.epoch:
            raise ReaderDisplaced(
                f"a receiver with the higher epoch {highest} reads this partition, {newcomer.epoch} may not join it"
            )
        return list(self.readers)


class ReaderDisplaced(MoorageError):
    """Another receiver has the partition, by its epoch."""


class TooManyReaders(MoorageError):
    """The consumer group has no place left on this partition."""


class EventHubsFace:
    """Answers `{entity}/…` and, for tools that look for it from the hub's own name, `messages/events/…`."""

    def __init__(self, event_log: EventLog) -> None:
        self.event_log = event_log
        self._seats: defaultdict[tuple[int, str, int], _Seats] = defaultdict(_Seats)

    def takes(self, path: Sequence[str]) -> bool:
        parts = [segment.lower() for segment in path]
        return (
            parts[:2] == ["messages", "events"]
            or parts[-1:] == [MANAGEMENT]
            or (len(parts) == 5 and parts[1] == "consumergroups" and parts[3] == "partitions")
            or (len(parts) == 1 and not parts[0].startswith("$"))
        )

    def attach(
        self, conversation: AmqpConversation, link: Sender | Receiver, path: Sequence[str]
    ) -> LinkHandler:
        hub = conversation.hub
        parts = [segment.lower() for segment in path]
        if parts[:2] == ["messages", "events"]:
            return self._redirect(conversation, link, hub, path)
        if parts[0] not in (hub.entity.lower(), MANAGEMENT):
            raise NotFound("AMQP address", "/".join(path))
        require(conversation, path)
        if parts[-1] == MANAGEMENT:
            return ManagementNode(conversation, link, hub, self.event_log)
        if len(parts) == 1 or not isinstance(link, Sender):
            raise NotSupported(
                "sending to the built-in endpoint", "only devices write to it, through the hub"
            )
        group = next((name for name in hub.consumer_groups if name.lower() == parts[2]), None)
        if group is None:
            raise NotFound("consumer group", path[2])
        partition = int(parts[4]) if parts[4].isdecimal() else -1
        if not 0 <= partition < hub.partition_count:
            raise Invalid("partition", f"{path[4]!r} is not one of 0 to {hub.partition_count - 1}")
        reader = PartitionReader(conversation, link, self.event_log, hub.scope, partition)
        seats = self._seats[hub.scope, group, partition]
        for displaced in seats.admit(reader):
            displaced.leave(reader)
        reader.open(seats.readers)
        return reader

    def _redirect(
        self, conversation: AmqpConversation, link: Sender | Receiver, hub: Hub, path: Sequence[str]
    ) -> LinkHandler:
        """Tell the way from the hub to its built-in endpoint, once credit shows that the link is up [hub-service 14]."""
        require(conversation, path)
        if not isinstance(link, Sender):
            raise NotSupported("sending to messages/events", "only devices write there")
        return Redirect(conversation, link, "/".join([hub.entity, *path[2:]]))


def require(conversation: AmqpConversation, path: Sequence[str]) -> None:
    """The right to read events, for the entity's address or for the hub's `messages/events`."""
    hosts = dict.fromkeys(conversation.hosts)
    entity = conversation.hub.entity
    below = path[1:] if path[0].lower() == entity.lower() else path
    resources = ["/".join([host, entity, *below]) for host in hosts] + [
        f"{host}/messages/events" for host in hosts
    ]
    conversation.grants.require(resources, SERVICE_CONNECT, conversation.server.clock.now())


class Redirect:
    """A link that ends in `amqp:link:redirect` as soon as its credit has come."""

    def __init__(self, conversation: AmqpConversation, link: Sender, path: str) -> None:
        self._conversation = conversation
        self._link = link
        self._path = path
        link.accept()

    def credit(self) -> None:
        remote = self._conversation.hosts[0]
        self._link.detach(
            link_redirect(
                hostname=remote,
                network_host=remote,
                port=5671,
                address=f"amqps://{remote}:5671/{self._path}",
                info={Symbol("com.microsoft:tracking-id"): self._conversation.stream.tracking_id},
            )
        )

    def delivery(self, delivery: DeliveryReceived) -> None:
        pass

    def drained(self) -> None:
        pass

    def recheck(self) -> None:
        pass

    def detached(self) -> None:
        pass


class PartitionReader:
    """One link that reads one partition."""

    def __init__(
        self, conversation: AmqpConversation, link: Sender, event_log: EventLog, scope: int, partition: int
    ) -> None:
        epoch = link.properties.get(EPOCH)
        if epoch is not None and (not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0):
            raise Invalid(EPOCH, f"{epoch!r} is not a number from 0 on")
        self.epoch: int | None = epoch
        self._conversation = conversation
        self._link = link
        self._log = event_log
        self._scope = scope
        self._partition = partition
        self._cursor = event_log.find(scope, partition, start_of(link))
        self._seats: set[PartitionReader] = set()
        self._unwatch: Callable[[], None] = lambda: None
        self._queued = False  # a turn of ours waits in the event loop
        capabilities = {
            text(capability) for capability in (link.remote.desired_capabilities if link.remote else ())
        }
        self._metrics = RUNTIME_METRIC in capabilities

    def open(self, seats: set[PartitionReader]) -> None:
        self._seats = seats
        seats.add(self)
        self._link.accept(offered_capabilities=(RUNTIME_METRIC,) if self._metrics else ())
        self._unwatch = self._log.watch(self._scope, self._partition, self._wake)

    def _wake(self) -> None:
        if self._link.sendable or self._link.drain:
            self._conversation.send(self._turn)

    def credit(self) -> None:
        self._turn()

    def drained(self) -> None:
        self._turn()

    def _turn(self) -> None:
        """Send what credit and the outward buffer allow; go on in the loop's next round when there is more."""
        link = self._link
        room = min(link.sendable, READ_AT_ONCE)
        if room <= 0 or self._conversation.stream.pending > HOLD_BACK:
            return
        try:
            events, self._cursor = self._log.read(self._scope, self._partition, self._cursor, limit=room)
        except MoorageError as error:
            link.detach(Error(*self._conversation.fault(error)))
            return
        if not events:
            if link.drain:
                link.drained()
            return
        messages = [event.message for event in events]
        if self._metrics:
            head = self._runtime_metrics()
            messages = [head + message for message in messages]
        link.send_many(messages)
        if link.sendable and not self._queued:
            self._queued = True
            asyncio.get_running_loop().call_soon(self._go_on)
        elif link.drain:
            self._go_on()

    def _go_on(self) -> None:
        self._queued = False
        if self._link.live:
            self._conversation.send(self._turn)

    def _runtime_metrics(self) -> bytes:
        """The delivery annotations of a reader that asked for them; they stand before everything else."""
        state = self._log.state(self._scope, self._partition)
        return Message(
            delivery_annotations={
                Symbol("last_enqueued_sequence_number"): Long(state.last_sequence_number),
                Symbol("last_enqueued_offset"): str(state.last_offset),
                Symbol("last_enqueued_time_utc"): last_time(state),
                Symbol("runtime_info_retrieval_time_utc"): Timestamp(
                    self._conversation.server.clock.now() // 1000
                ),
            }
        ).encode()

    def leave(self, newcomer: PartitionReader) -> None:
        """Make room for a receiver with a higher epoch."""
        self._conversation.send(
            lambda: self._link.detach(
                Error(
                    conditions.LINK_STOLEN,
                    f"a receiver with the higher epoch {newcomer.epoch} has taken the partition from this one "
                    f"with epoch {self.epoch}",
                )
            )
        )
        self.detached()

    def delivery(self, delivery: DeliveryReceived) -> None:
        pass

    def recheck(self) -> None:
        source = self._link.source
        require(self._conversation, address_path(source.address if source is not None else None))

    def detached(self) -> None:
        self._unwatch()
        self._seats.discard(self)


def last_time(state: PartitionState) -> Timestamp:
    """No value may be null, that of an empty partition included [hub-service 13.1]."""
    time = state.last_enqueued_time
    return Timestamp(NEVER if time is None else time // 1000)


class ManagementNode:
    """`$management`: what partitions there are, and where each one stands."""

    def __init__(
        self, conversation: AmqpConversation, link: Sender | Receiver, hub: Hub, event_log: EventLog
    ) -> None:
        self._conversation = conversation
        self._link = link
        self._hub = hub
        self._log = event_log
        link.accept()
        if isinstance(link, Receiver):
            link.keep_credit(100)

    def delivery(self, delivery: DeliveryReceived) -> None:
        if not delivery.settled:
            delivery.link.settle(delivery.delivery_id)
        try:
            request = Message.decode(delivery.message)
        except Malformed as error:
            delivery.link.detach(Error(conditions.DECODE_ERROR, str(error)))
            return
        node = "/".join(address_path(self._link.target.address if self._link.target else None)).lower()
        Replies(self._link.session, node).post(request, self._answer(request))

    def _answer(self, request: Message) -> Message:
        asked = {text(key): text(value) for key, value in (request.application_properties or {}).items()}
        if asked.get("operation") != "READ":
            return response(request, 501, f"operation '{asked.get('operation', '')}' is not READ")
        if asked.get("name", "").lower() != self._hub.entity.lower():
            return response(request, 404, f"there is no event hub named '{asked.get('name', '')}'")
        kind = asked.get("type")
        if kind == "com.microsoft:eventhub":
            return response(request, 200, "OK", AmqpValue(self._event_hub()))
        if kind == "com.microsoft:partition":
            number = asked.get("partition", "")
            if not number.isdecimal() or int(number) >= self._hub.partition_count:
                return response(request, 404, f"there is no partition '{number}'")
            return response(request, 200, "OK", AmqpValue(self._partition(int(number))))
        return response(request, 501, f"type '{kind}' cannot be read")

    def _event_hub(self) -> dict[str, Any]:
        count = self._hub.partition_count
        return {
            "name": self._hub.entity,
            "type": "com.microsoft:eventhub",
            "created_at": Timestamp(self._hub.created // 1000),
            "partition_count": Int(count),
            "partition_ids": Array(str, tuple(str(number) for number in range(count))),
            "georeplication_factor": Int(1),
        }

    def _partition(self, number: int) -> dict[str, Any]:
        state = self._log.state(self._hub.scope, number)
        return {
            "name": self._hub.entity,
            "type": "com.microsoft:partition",
            "partition": str(number),
            "begin_sequence_number": Long(state.begin_sequence_number),
            "last_enqueued_sequence_number": Long(state.last_sequence_number),
            "last_enqueued_offset": str(state.last_offset),
            "last_enqueued_time_utc": last_time(state),
            "is_partition_empty": state.last_sequence_number < state.begin_sequence_number,
        }

    def credit(self) -> None:
        pass

    def drained(self) -> None:
        pass

    def recheck(self) -> None:
        pass

    def detached(self) -> None:
        pass
