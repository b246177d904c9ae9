"""Reading the built-in endpoint with Microsoft's `azure-eventhub`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from queue import Empty, Queue
from typing import Any, cast

from azure.eventhub import EventData, EventHubConsumerClient
from azure.eventhub import aio as eventhub_aio
from azure.eventhub.aio import PartitionContext

DEVICE_ID = b"iothub-connection-device-id"


def origin(event: EventData) -> str:
    """The device that sent it."""
    device_id: bytes = event.system_properties[DEVICE_ID]
    return device_id.decode()


def payload(event: EventData) -> bytes:
    """The body, byte for byte."""
    return b"".join(cast(Iterable[bytes], event.body))


def system_properties(event: EventData) -> dict[str, Any]:
    """With the names and texts as `str`; times stay numbers of milliseconds."""
    return _decoded(event.system_properties)


def application_properties(event: EventData) -> dict[str, Any]:
    return _decoded(event.properties)


def _decoded(values: Mapping[Any, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return value.decode() if isinstance(value, bytes) else value

    return {plain(name): plain(value) for name, value in values.items()}


def consumer_options(env: Mapping[str, str]) -> dict[str, Any]:
    """What `moorage up` tells people to give `from_connection_string`."""
    return {
        "conn_str": env["EVENTHUB_CONNECTION_STRING"],
        "consumer_group": "$Default",
        "connection_verify": env["SSL_CERT_FILE"],
    }


class Reading:
    """One receiving client: what it was handed, in order, and its failures."""

    def __init__(self) -> None:
        self._arrived: Queue[EventData | Exception] = Queue()
        self.contexts: dict[str, Any] = {}

    def event(self, context: Any, event: EventData | None) -> None:
        if event is not None:
            self.contexts[context.partition_id] = context
            self._arrived.put(event)

    def error(self, _: Any, error: Exception) -> None:
        self._arrived.put(error)

    def next(self, *, of: str | None = None, within: float = 15.0) -> EventData:
        """The next event (of one device); an error ends the wait."""
        deadline = time.monotonic() + within
        while True:
            try:
                arrived = self._arrived.get(timeout=max(deadline - time.monotonic(), 0.001))
            except Empty:
                raise AssertionError(f"no event of {of or 'any device'} within {within:g} s") from None
            if isinstance(arrived, Exception):
                raise arrived
            if of is None or origin(arrived) == of:
                return arrived

    def take(self, count: int, *, of: str | None = None) -> list[EventData]:
        return [self.next(of=of) for _ in range(count)]


@contextmanager
def reading(
    env: Mapping[str, str], *, client: Mapping[str, Any] | None = None, **options: Any
) -> Iterator[Reading]:
    """Receives with the synchronous client, in a thread as its users do it, until the block ends.

    `client` are options of the client, `options` those of `receive`.
    """
    what = Reading()
    consumer = EventHubConsumerClient.from_connection_string(**consumer_options(env) | dict(client or {}))
    receiving = threading.Thread(
        target=consumer.receive,
        args=(what.event,),
        kwargs={"on_error": what.error, **options},
        name="receiving",
    )
    receiving.start()
    try:
        yield what
    finally:
        consumer.close()
        receiving.join()


@asynccontextmanager
async def reading_async(
    env: Mapping[str, str], *, client: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[Reading]:
    """The same with the asynchronous client. What has come is to be taken with `arrived`."""
    what = Reading()

    async def event(context: PartitionContext, event: EventData | None) -> None:
        what.event(context, event)

    async def error(context: PartitionContext | None, error: Exception) -> None:
        what.error(context, error)

    consumer = eventhub_aio.EventHubConsumerClient.from_connection_string(
        **consumer_options(env) | dict(client or {})
    )
    async with consumer:
        receiving = asyncio.create_task(consumer.receive(event, on_error=error, **options))
        try:
            yield what
        finally:
            receiving.cancel()
            with suppress(asyncio.CancelledError):
                await receiving


async def arrived(what: Reading, count: int, *, of: str | None = None) -> list[EventData]:
    """`take`, while the event loop goes on."""
    return await asyncio.to_thread(what.take, count, of=of)


class Telemetry:
    """All that comes in at one server, from the start and from all partitions, sorted by device.

    One reader in a thread of its own serves every test: opening one takes the SDK a second or two.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._events: defaultdict[str, list[EventData]] = defaultdict(list)
        self._news = threading.Condition()
        self._error: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._read())
        self._thread = threading.Thread(target=self._run, name="telemetry")
        self._thread.start()

    def of(self, device_id: str, count: int, *, within: float = 15.0) -> list[EventData]:
        """What the device has sent, in order; waits until there are `count` of it."""
        deadline = time.monotonic() + within
        with self._news:
            while len(self._events[device_id]) < count:
                assert self._error is None, f"the reader failed: {self._error!r}"
                if not self._news.wait(deadline - time.monotonic()):
                    came = len(self._events[device_id])
                    raise AssertionError(f"{came} of {count} events of {device_id} within {within:g} s")
            return list(self._events[device_id])

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    async def _read(self) -> None:
        client = eventhub_aio.EventHubConsumerClient.from_connection_string(**consumer_options(self._env))
        async with client:
            await client.receive(self._received, on_error=self._failed, starting_position="-1")

    async def _received(self, _: PartitionContext, event: EventData | None) -> None:
        assert event is not None  # None comes only where a maximum waiting time is asked for
        with self._news:
            self._events[origin(event)].append(event)
            self._news.notify_all()

    async def _failed(self, _: PartitionContext | None, error: Exception) -> None:
        with self._news:
            self._error = error
            self._news.notify_all()
