"""The Event Hubs-compatible face of a hub: partitions read over AMQP, `$management`, and the redirect to here.

A reader opens a link from `{entity}/ConsumerGroups/{group}/Partitions/{n}` and gets the partition's events from the
place that its filter names, never more than its credit, and at rest nothing until the log wakes the link. Readers
keep their own place; a consumer group is a name and the rule of who may read beside whom.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from moorage.adapters.amqp import AmqpConversation
from moorage.adapters.consumer_groups import GroupDeleted, ReaderDisplaced, Seats
from moorage.adapters.links import LinkHandler, link_path
from moorage.adapters.request_nodes import RequestNode, response, text
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.errors import Invalid, MoorageError, NotFound, NotSupported
from moorage.hub.instance import Hub
from moorage.interfaces import EventLog, PartitionState, Start, StartProperty
from moorage.wire.amqp import (
    AmqpValue,
    Array,
    Described,
    Int,
    Long,
    Message,
    Receiver,
    Sender,
    Symbol,
    Timestamp,
    link_redirect,
)

log = logging.getLogger("moorage.event_hubs")

MANAGEMENT = "$management"
READ_AT_ONCE = 512  # events of one link in one turn: others get theirs between
TURN_SIZE = 256 * 1024  # bytes of events in one turn, or one event that is longer
HOLD_BACK = 256 * 1024  # bytes waiting outward from which on a reader waits [design 3.6]
NEVER = -62_135_596_800_000  # milliseconds of 0001-01-01: the time of an empty partition [hub-service 13.1]

EPOCH = "com.microsoft:epoch"
RUNTIME_METRIC = "com.microsoft:enable-receiver-runtime-metric"
SELECTOR = "apache.org:selector-filter:string"
SELECTOR_CODE = 0x0000468C00000004
MAX_SELECTOR = 256  # characters

_EXPRESSION = re.compile(
    r"\s*amqp\.annotation\.(?P<property>x-opt-[a-z-]+)\s*(?P<operator>>=?)\s*(?P<quote>['\"]?)(?P<value>[^'\"]*)(?P=quote)\s*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_PROPERTIES = {
    "x-opt-offset": StartProperty.OFFSET,
    "x-opt-sequence-number": StartProperty.SEQUENCE_NUMBER,
    "x-opt-enqueued-time": StartProperty.ENQUEUED_TIME,
    "x-opt-enqueuedtimeutc": StartProperty.ENQUEUED_TIME,
}


def starting_position(expression: str) -> Start:
    """Where a selector lets a reader begin; every dialect of hub-service 13.2. Raises Invalid."""
    found = _EXPRESSION.fullmatch(expression) if len(expression) <= MAX_SELECTOR else None
    name = _PROPERTIES.get(found["property"].lower()) if found is not None else None
    if found is None or name is None:
        raise Invalid(
            "filter",
            f"{expression[:MAX_SELECTOR]!r} is not a selector on offset, sequence number or enqueued time",
        )
    value, inclusive = found["value"].strip(), found["operator"] == ">="
    if value == "@latest":
        return Start(StartProperty.LATEST)
    if name is StartProperty.OFFSET and value == "-1":
        return Start(StartProperty.FIRST)
    if not _NUMBER.fullmatch(value):
        raise Invalid("filter", f"{value!r} in {expression!r} is not a number")
    number = int(value)
    if name is StartProperty.ENQUEUED_TIME:
        number *= 1000  # milliseconds on the wire
    return Start(name, number, inclusive)


def start_of(link: Sender) -> Start:
    """Where the filter of a reader's link begins; without one at the oldest event. Raises Invalid."""
    filters: Any = link.source.filter if link.source is not None else None
    for key, value in (filters or {}).items():
        descriptor = value.descriptor if isinstance(value, Described) else None
        if text(key) == SELECTOR or descriptor in (SELECTOR, SELECTOR_CODE):
            return starting_position(text(value.value if isinstance(value, Described) else value))
    return Start(StartProperty.FIRST)


def partition_number(hub: Hub, name: str) -> int | None:
    """The partition of that name, or None when the hub has no such."""
    number = int(name) if name.isascii() and name.isdecimal() and len(name) < 4 else -1
    return number if 0 <= number < hub.partition_count else None


class EventHubsFace:
    """Answers `{entity}/…` and, for tools that look for it from the hub's own name, `messages/events/…`."""

    def __init__(self, event_log: EventLog, *, find_group: Callable[[int, str], str]) -> None:
        """`find_group` finds a consumer group of a hub's scope as it is named, or raises NotFound."""
        self.event_log = event_log
        self._find_group = find_group
        self._seats: defaultdict[tuple[int, str, int], Seats] = defaultdict(Seats)

    def takes(self, path: Sequence[str]) -> bool:
        match [segment.lower() for segment in path]:
            case ["messages", "events", *_] | [*_, "$management"]:
                return True
            case [_, "consumergroups", _, "partitions", _] | [_, "partitions" | "publishers", _]:
                return True
            case [entity]:
                return not entity.startswith("$")
        return False

    def attach(
        self, conversation: AmqpConversation, link: Sender | Receiver, path: Sequence[str]
    ) -> LinkHandler:
        hub = conversation.hub
        parts = [segment.lower() for segment in path]
        if parts[:2] == ["messages", "events"]:
            return self._redirect(conversation, link, hub, path)
        if parts[0] not in (hub.entity.lower(), MANAGEMENT):
            raise NotFound("AMQP address", "/".join(path)[:300])
        require(conversation, path)
        if parts[-1] == MANAGEMENT:
            return ManagementNode(conversation, link, hub, self.event_log)
        if len(parts) < 5 or not isinstance(link, Sender):
            raise NotSupported(
                "sending to the built-in endpoint", "only devices write to it, through the hub"
            )
        return self._reader(conversation, link, hub, group=path[2], partition=path[4])

    def _reader(
        self, conversation: AmqpConversation, link: Sender, hub: Hub, *, group: str, partition: str
    ) -> PartitionReader:
        known = self._find_group(hub.scope, group)
        number = partition_number(hub, partition)
        if number is None:
            raise Invalid("partition", f"{partition[:20]!r} is not one of 0 to {hub.partition_count - 1}")
        seats = self._seats[hub.scope, known, number]
        reader = PartitionReader(conversation, link, self.event_log, hub.scope, number, seats)
        reader.open()
        return reader

    def end_group(self, scope: int, name: str) -> None:
        """The consumer group was deleted: close its readers."""
        ended = [key for key in self._seats if key[:2] == (scope, name)]
        for key in ended:
            self._seats.pop(key).clear(GroupDeleted(name))

    def _redirect(
        self, conversation: AmqpConversation, link: Sender | Receiver, hub: Hub, path: Sequence[str]
    ) -> LinkHandler:
        """Tell the way from the hub to its built-in endpoint [hub-service 14]."""
        require(conversation, path)
        if not isinstance(link, Sender):
            raise NotSupported("sending to messages/events", "only devices write there")
        return Redirect(conversation, link, "/".join([hub.entity, *path[2:]]))


def require(conversation: AmqpConversation, path: Sequence[str]) -> None:
    """The right to read events, for the entity's address or for the hub's `messages/events`. Raises Unauthorized."""
    entity = conversation.hub.entity
    below = path[1:] if path and path[0].lower() == entity.lower() else path
    resources = ["/".join([host, entity, *below]) for host in conversation.hosts] + [
        f"{host}/messages/events" for host in conversation.hosts
    ]
    conversation.grants.require(resources, SERVICE_CONNECT, conversation.server.clock.now())


class Redirect(LinkHandler):
    """A link that ends in `amqp:link:redirect` as soon as its credit shows that it is up."""

    def __init__(self, conversation: AmqpConversation, link: Sender, path: str) -> None:
        super().__init__(conversation, link)
        self._path = path
        link.accept()

    def credit(self) -> None:
        host = self.conversation.host
        error = link_redirect(
            hostname=host,
            network_host=host,
            port=5671,
            address=f"amqps://{host}:5671/{self._path}",
            info={Symbol("com.microsoft:tracking-id"): self.conversation.stream.tracking_id},
        )
        self.conversation.detach(self.link, error)

    def recheck(self) -> None:
        require(self.conversation, link_path(self.link))


class PartitionReader(LinkHandler):
    """One link that reads one partition."""

    link: Sender

    def __init__(
        self,
        conversation: AmqpConversation,
        link: Sender,
        event_log: EventLog,
        scope: int,
        partition: int,
        seats: Seats,
    ) -> None:
        """Raises Invalid for an epoch or a starting position that cannot be."""
        super().__init__(conversation, link)
        self.epoch = _epoch(link)
        self._log = event_log
        self._scope = scope
        self._partition = partition
        self._seats = seats
        self._cursor = event_log.find(scope, partition, start_of(link))
        self._at_once = READ_AT_ONCE  # events in the next turn, fewer where they were large
        self._queued = False  # a turn of ours waits in the event loop
        self._unwatch: Callable[[], None] = lambda: None
        wishes = link.remote.desired_capabilities if link.remote is not None else ()
        self._metrics = RUNTIME_METRIC in map(text, wishes)

    def open(self) -> None:
        """Join the consumer group and begin. Raises ReaderDisplaced, TooManyReaders."""
        self._seats.take(self)
        self.link.accept(offered_capabilities=(RUNTIME_METRIC,) if self._metrics else ())
        self._unwatch = self._log.watch(self._scope, self._partition, self._wake)
        self._note("reader attached")

    def _wake(self) -> None:
        if self.link.credit:
            self.conversation.send(self._turn)

    def credit(self) -> None:
        self._turn()

    def drained(self) -> None:
        self._turn()

    def _turn(self) -> None:
        """Send what credit and the outward buffer allow; go on in the loop's next round when there is more."""
        link = self.link
        if self.conversation.stream.pending > HOLD_BACK:
            return  # `drained` comes when there is room
        if link.sendable:
            try:
                sent = self._send(min(link.sendable, self._at_once))
            except MoorageError as error:
                self.conversation.detach(link, self.conversation.error(error))
                return
            if sent and link.sendable:
                self._go_on_soon()
                return
        if link.credit and not link.sendable:
            return  # the session's window is used up: credit is told again when it opens
        link.drained()

    def _send(self, room: int) -> int:
        """Send the next events, up to `room` of them and no more than a turn's bytes; how many it were."""
        events, cursor = self._log.read(self._scope, self._partition, self._cursor, limit=room)
        messages = [event.message for event in events]
        fit = _fit(messages)
        self._at_once = fit if fit < len(events) else min(2 * self._at_once, READ_AT_ONCE)
        if self._metrics and events:
            head = self._runtime_metrics()
            messages = [head + message for message in messages[:fit]]
        # Fewer where a large one used up the session's window.
        sent = len(self.link.send_many(messages[:fit]))
        self._cursor = cursor if sent == len(events) else self._past(sent)
        self.conversation.flush()
        return sent

    def _past(self, count: int) -> int:
        """The cursor behind the next `count` events."""
        cursor = self._cursor
        while count > 0:
            events, cursor = self._log.read(self._scope, self._partition, cursor, limit=count)
            if not events:
                break
            count -= len(events)
        return cursor

    def _go_on_soon(self) -> None:
        if not self._queued:
            self._queued = True
            self.conversation.stream.call_later(0, self._go_on)

    def _go_on(self) -> None:
        self._queued = False
        if self.link.live:
            self.conversation.send(self._turn)

    def _runtime_metrics(self) -> bytes:
        """The delivery annotations of a reader that asked for them; they stand before everything else."""
        state = self._log.state(self._scope, self._partition)
        now = self.conversation.server.clock.now()
        return Message(
            delivery_annotations={
                Symbol("last_enqueued_sequence_number"): Long(state.last_sequence_number),
                Symbol("last_enqueued_offset"): str(state.last_offset),
                Symbol("last_enqueued_time_utc"): last_time(state),
                Symbol("runtime_info_retrieval_time_utc"): Timestamp(now // 1000),
            }
        ).encode()

    def displace(self, error: ReaderDisplaced) -> None:
        self._note("reader displaced", reason=str(error))
        self.conversation.send(lambda: self.conversation.detach(self.link, self.conversation.error(error)))

    def refuse(self, error: MoorageError) -> None:
        self.conversation.refuse(self.conversation.finding("link", self.link.name), error)
        self.conversation.send(lambda: self.conversation.detach(self.link, self.conversation.error(error)))

    def recheck(self) -> None:
        require(self.conversation, link_path(self.link))

    def detached(self) -> None:
        self._unwatch()
        self._seats.leave(self)
        self._note("reader detached")

    def _note(self, sentence: str, **facts: str) -> None:
        log.info(
            sentence,
            extra={
                "tracking_id": self.conversation.stream.tracking_id,
                "partition": self._partition,
                "link": self.link.name,
                **facts,
            },
        )


def _fit(messages: Sequence[bytes]) -> int:
    """How many of them make one turn: TURN_SIZE bytes, and one at least."""
    size = 0
    for count, message in enumerate(messages):
        size += len(message)
        if size > TURN_SIZE and count:
            return count
    return len(messages)


def _epoch(link: Sender) -> int | None:
    """The owner level of a receiver that wants the partition for itself. Raises Invalid."""
    epoch = link.properties.get(EPOCH)
    if epoch is None:
        return None
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
        raise Invalid(EPOCH, "is a number from 0 on")
    return epoch


def last_time(state: PartitionState) -> Timestamp:
    """No value may be null, that of an empty partition included [hub-service 13.1]."""
    time = state.last_enqueued_time
    return Timestamp(NEVER if time is None else time // 1000)


class ManagementNode(RequestNode):
    """`$management`: what partitions there are, and where each one stands [hub-service 13.1]."""

    def __init__(
        self, conversation: AmqpConversation, link: Sender | Receiver, hub: Hub, event_log: EventLog
    ) -> None:
        super().__init__(conversation, link)
        self._hub = hub
        self._log = event_log

    def recheck(self) -> None:
        require(self.conversation, link_path(self.link))

    async def answer(self, request: Message) -> Message:
        asked = {text(key): text(value) for key, value in (request.application_properties or {}).items()}
        operation, name, kind = (asked.get(key, "")[:100] for key in ("operation", "name", "type"))
        if operation != "READ":
            return response(request, 501, f"operation '{operation}' is not READ")
        if name.lower() != self._hub.entity.lower():
            return response(request, 404, f"there is no event hub named '{name}'")
        if kind == "com.microsoft:eventhub":
            return response(request, 200, "OK", AmqpValue(self._event_hub()))
        if kind == "com.microsoft:partition":
            number = partition_number(self._hub, asked.get("partition", ""))
            if number is None:
                return response(request, 404, f"there is no partition '{asked.get('partition', '')[:20]}'")
            return response(request, 200, "OK", AmqpValue(self._partition(number)))
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
