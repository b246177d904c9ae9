"""The promises between the rooms: what the domain may rely on, and what each implementation keeps.

Times are integer microseconds since 1970 UTC unless a name says otherwise. Every key and every log
address starts with the immutable internal id of its hub or DPS instance (`scope`), never with a host name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar


class Clock(Protocol):
    """Time as an input. Only the composition root asks the system."""

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps; only differences mean anything."""
        ...


# --- Records ---------------------------------------------------------------------------------------------


class Record(Protocol):
    """What can be stored: an immutable value that carries the etag of this very version."""

    @property
    def etag(self) -> str: ...


T = TypeVar("T", bound=Record)
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind(Generic[T]):
    """How one kind of record is kept: its table, its key, its JSON document and what it is found by.

    `index` gives for each index name the values under which a record is found, several or none. Of a kind that has
    `few` records, which nearly every request looks at, the store may keep in memory what was read last.
    """

    name: str
    key: Callable[[T], str]
    to_document: Callable[[T], dict[str, Any]]
    from_document: Callable[[dict[str, Any]], T]
    index: Mapping[str, Callable[[T], Sequence[str]]]
    few: bool = False


class Expect(Enum):
    """What a change expects to find under its key; instead of one of these an etag may be given."""

    ABSENT = "absent"  # else Conflict
    PRESENT = "present"  # else NotFound
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Put(Generic[T]):
    kind: Kind[T]
    scope: int
    record: T
    expect: Expect | str = Expect.ABSENT


@dataclass(frozen=True, slots=True)
class PutAll(Generic[T]):
    """Put every one of `records`, whatever is there: many at once, of a kind with neither index nor etags."""

    kind: Kind[T]
    scope: int
    records: Sequence[T]


@dataclass(frozen=True, slots=True)
class Delete:
    kind: Kind[Any]
    scope: int
    key: str
    expect: Expect | str = Expect.PRESENT


@dataclass(frozen=True, slots=True)
class Clear:
    """Delete everything of a scope, of whatever kind. Scopes are never used again."""

    scope: int


@dataclass(frozen=True, slots=True)
class DeleteFound:
    """Delete every record whose `index` holds `value`; there may be none."""

    kind: Kind[Any]
    scope: int
    index: str
    value: str


@dataclass(frozen=True, slots=True)
class DeleteBelow:
    """Delete every record whose key begins with `key` and a slash; there may be none."""

    kind: Kind[Any]
    scope: int
    key: str


@dataclass(frozen=True, slots=True)
class Require:
    """Changes nothing: refuses the commit with NotFound when there is no record under `key`."""

    kind: Kind[Any]
    scope: int
    key: str


@dataclass(frozen=True, slots=True)
class AtMost:
    """Changes nothing: refuses the commit with TooMany when `index` holds `value` for more than `limit` records.

    Those count that the commit has put before this.
    """

    kind: Kind[Any]
    scope: int
    index: str
    value: str
    limit: int


Change = Put[Any] | PutAll[Any] | Delete | Clear | DeleteFound | DeleteBelow | Require | AtMost


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`next` is the key to go on after, None on the last page."""

    records: Sequence[T]
    next: str | None


class Records(Protocol[T]):
    """Durable records of one kind within one scope; a read sees every write that has returned."""

    async def get(self, key: str) -> T | None: ...

    async def find(self, index: str, value: str) -> Sequence[T]:
        """The records whose `index` holds `value`, by key."""
        ...

    async def page(
        self, *, after: str | None = None, limit: int, where: tuple[str, str] | None = None
    ) -> Page[T]:
        """Up to `limit` records in key order, past the key `after`; `where` an index holds a value, if given."""
        ...

    async def count(self, index: str | None = None, value: str | None = None) -> int: ...

    async def put(self, record: T, *, expect: Expect | str = Expect.ABSENT) -> T:
        """Durable on return. Raises Conflict, NotFound, PreconditionFailed, StorageFull."""
        ...

    async def delete(self, key: str, *, expect: Expect | str = Expect.PRESENT) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Which twins are looked for: those of `source` for which `condition`, opaque here, holds; None holds for all.

    `source` is "devices" or "devices.modules". `connected` gives the names of those that are connected now, to any
    thread.
    """

    source: str
    condition: Any
    connected: Callable[[], Sequence[str]]


class Found(NamedTuple):
    """Some of what was looked for, by key. `next` is the key up to which was looked, None when that was the last.

    `rows` has a tuple of records for each: the twin, its device's identity, and of a module's twin the module's. There
    may be more than was looked for unless `exact`, then it is for the caller to judge each.
    """

    rows: Sequence[tuple[Any, ...]]
    next: str | None
    exact: bool


class Reached(NamedTuple):
    """How far was looked, as in `Found`."""

    next: str | None


Add = Callable[[tuple[Any, ...], int, Sequence[Sequence[Any]]], object]
"""Takes the values that twins have in common, how many they are, and columns with a value for each of them."""


class TwinSearch(Protocol):
    """Looks through the twins of one scope, bit by bit, and sees every write that has returned.

    What changes between two calls may be seen or not; what does not change is seen once. Raises Throttled when too
    much is being searched already, and Unavailable when a bit takes too long.
    """

    async def find(self, sought: Sought, *, after: str, limit: int) -> Found:
        """From the key after `after` on ("" from the first), up to `limit` rows, maybe fewer with more to come."""
        ...

    async def gather(
        self, sought: Sought, by: Sequence[Any], summed: Sequence[Any], add: Add, *, after: str
    ) -> Reached | None:
        """Hand to `add`, beside the event loop, what twins with the same values at the paths `by` have at `summed`.

        One group may come in several parts. None, with nothing handed over, when these paths or the condition can be
        judged only in the whole twin.
        """
        ...

    async def aside(self, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises: it takes longer than the event loop may wait, and is done beside it."""
        ...


class Store(Protocol):
    """All records. One implementation embedded (SQLite), one at scale."""

    def records(self, kind: Kind[T], scope: int) -> Records[T]: ...

    def twin_search(self, scope: int) -> TwinSearch: ...

    def turn(self, kind: Kind[Any], scope: int, key: str) -> AbstractAsyncContextManager[None]:
        """Of those who change the record at `key` by what it says, one at a time, in the order in which they came.

        So they need not try again and again; what another server does, or who asks for no turn, their etags tell.
        """
        ...

    async def apply(self, changes: Sequence[Change]) -> None:
        """All or none, in one commit, durable on return; the error names the record that stood in the way."""
        ...


# --- Where a server is reached -----------------------------------------------------------------------------


class Frontage(Protocol):
    """The addresses at which a server listens, and the names that its certificate covers."""

    async def admit(self, name: str, host_names: Sequence[str], taken: Collection[str]) -> tuple[str, ...]:
        """Be reached under `host_names`, or without any under one found for `name` that is not `taken`.

        Returns the names, in lower case. Those that are addresses are listened at from now on. Raises Invalid
        and Unavailable, and then has changed nothing.
        """
        ...

    async def dismiss(self, host_names: Sequence[str]) -> None:
        """Listen no longer at those of `host_names` that are addresses."""
        ...


# --- EventLog --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHead:
    """All of an event but its body and what the log stamps (sequence number, offset, times).

    `annotations` are the hub's (`iothub-connection-device-id`, …). Application properties keep their order;
    a value may be None. `absolute_expiry_time` and `creation_time` are microseconds.
    """

    scope: int
    partition: int
    partition_key: str
    annotations: tuple[tuple[str, str], ...]
    application_properties: tuple[tuple[str, str | None], ...] = ()
    message_id: str | None = None
    user_id: str | None = None
    to: str | None = None
    correlation_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    absolute_expiry_time: int | None = None


class StoredEvent(NamedTuple):
    """An event as kept. `message` is a complete bare AMQP 1.0 message, annotations included."""

    sequence_number: int
    offset: int
    enqueued_time: int
    message: bytes


class PartitionState(NamedTuple):
    """`last_sequence_number` is -1, `last_offset` -1 and `last_enqueued_time` None while nothing was ever kept."""

    begin_sequence_number: int
    last_sequence_number: int
    last_offset: int
    last_enqueued_time: int | None


class StartProperty(Enum):
    FIRST = "first"  # the oldest event kept
    LATEST = "latest"  # only what comes from now on
    OFFSET = "offset"
    SEQUENCE_NUMBER = "sequence number"
    ENQUEUED_TIME = "enqueued time"  # value in microseconds


@dataclass(frozen=True, slots=True)
class Start:
    """From where to read. `inclusive` counts the event at `value` itself in."""

    property: StartProperty
    value: int = 0
    inclusive: bool = False


PreparedHead = Any  # an EventHead that the log has encoded once, opaque to everybody else
Done = Callable[[Exception | None], None]


class EventLog(Protocol):
    """Durable events, ordered per scope and partition."""

    def prepare(self, head: EventHead) -> PreparedHead:
        """Encode `head` once, for any number of appends."""
        ...

    def append(self, events: Sequence[tuple[PreparedHead, bytes]], done: Done) -> None:
        """Keep `events`, in order. `done(None)` is called once they are durable, `done(error)` when they are not kept.

        Calls of `done` come in the order of the appends, on the thread of the caller, never from within `append`.
        Errors: StorageFull, Unavailable.
        """
        ...

    async def settled(self) -> None:
        """Returns when every append made so far has been told what became of it."""
        ...

    def find(self, scope: int, partition: int, start: Start) -> int:
        """The cursor to give to `read`. Raises Invalid for an offset or a number past the end of the log."""
        ...

    def read(self, scope: int, partition: int, cursor: int, *, limit: int) -> tuple[list[StoredEvent], int]:
        """Up to `limit` durable events of the partition from `cursor` on, and the cursor behind them; never waits.

        Empty when there is nothing newer. Events past retention are passed over without an error.
        """
        ...

    def watch(self, scope: int, partition: int, wake: Callable[[], None]) -> Callable[[], None]:
        """`wake()` is called after newer events became durable; the function returned ends that."""
        ...

    def state(self, scope: int, partition: int) -> PartitionState: ...


# --- Outside: others that are asked, and work that goes on behind a caller ---------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorAnswer:
    """What came of asking for a hub. `status` is that of HTTP, None where there is none; `seconds` is how long it took.

    `failure` is empty, or why there is no answer, in a sentence fit for the device; `detail` says more, to the
    operator alone.
    """

    status: int | None = None
    body: bytes = b""
    seconds: float = 0.0
    failure: str = ""
    detail: str = ""


class CustomAllocator(Protocol):
    """Somebody outside who knows to which hub a device belongs [dps 13.2]."""

    def check(self, webhook_url: str) -> None:
        """Raises Invalid for one that can never be asked, so that an enrollment does not come to name it."""
        ...

    async def ask(self, webhook_url: str, request: bytes) -> AllocatorAnswer:
        """`request` is a JSON text. Asked once; ends within a time limit, and never raises over the other side."""
        ...


class Background(Protocol):
    """Work that goes on when its caller has its answer."""

    def start(self, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """Begin `work`. What is returned ends with it, or after a short grace; waiting for it is up to the caller.

        The end of the server cuts `work` off where it stands: what is to go on then must be on disk by itself.
        """
        ...


V = TypeVar("V")


class Expected(Protocol[V]):
    """What one caller waits for and somebody else brings."""

    @property
    def open(self) -> bool:
        """It was not brought yet, and nobody has given up waiting."""
        ...

    def bring(self, value: V) -> None:
        """Here it is. Only the first counts, and none that comes too late."""
        ...

    async def within(self, seconds: float) -> V | None:
        """What is brought, as soon as it is; None when so much time has passed. To be awaited once."""
        ...


class Waiting(Protocol):
    """Waiting that has its limit in time."""

    def expect(self) -> Expected[Any]: ...


# --- Byte streams: what `net` offers to an adapter, and the adapter to `net` --------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. `chain` is the certificate chain presented, DER, leaf first, not judged yet."""

    address: str
    door: str  # "mqtt", "mqtt-ws", "amqp", "amqp-ws", "https", "http"
    chain: tuple[bytes, ...] = ()
    tls_version: str = ""


class Timer(Protocol):
    def cancel(self) -> None: ...


class ByteStream(Protocol):
    """One connection, its bytes in the clear. Given to a conversation; all calls on the event loop's thread."""

    peer: Peer
    tracking_id: str  # 32 hexadecimal digits, one per connection
    last_received: float  # event loop time of the last read

    def write(self, data: bytes) -> None:
        """Send. When more than the outward limit waits unsent, the connection is cut, the reason recorded."""
        ...

    @property
    def pending(self) -> int:
        """Bytes written and not yet taken by the network."""
        ...

    def close(self, reason: str) -> None:
        """Send what is pending, then close; `reason` is for logs and records. Nothing is received any more."""
        ...

    def abort(self, reason: str) -> None:
        """Close at once, what is pending is lost."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def time(self) -> float:
        """Event loop time in seconds, the clock of `last_received` and of `call_later`."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """A timer that is cancelled with the connection."""
        ...


class Conversation(Protocol):
    """What an adapter does with one connection."""

    def received(self, data: bytes) -> None: ...

    def drained(self) -> None:
        """The outward buffer has run low again after it had passed its high mark."""
        ...

    def stopping(self) -> None:
        """The server stops: say goodbye if the protocol has a word for it, and close the stream."""
        ...

    def closed(self, reason: str) -> None:
        """The connection is gone, for whatever reason; always the last call."""
        ...


OpenConversation = Callable[[ByteStream], Conversation]
