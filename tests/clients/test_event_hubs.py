"""The built-in endpoint read by Microsoft's `azure-eventhub`, sync and aio, over AMQP and over WebSockets."""

from __future__ import annotations

import asyncio
import datetime
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from zlib import crc32

import pytest
from azure.eventhub import (
    EventData,
    EventHubConsumerClient,
    EventHubProducerClient,
    TransportType,
    parse_connection_string,
)
from azure.eventhub import aio as eventhub_aio
from azure.eventhub.exceptions import AuthenticationError, ConnectionLostError, EventHubError

from moorage.credentials.sas import new_key
from tests.clients.conftest import EnterShell
from tests.conftest import RunningServer, StartServer
from tests.support.decisions import decisions, failed_checks, refusal
from tests.support.devices import device_client, sas_device
from tests.support.events import (
    Reading,
    Telemetry,
    application_properties,
    arrived,
    consumer_options,
    payload,
    reading,
    reading_async,
    system_properties,
)
from tests.support.services import Hub, with_key
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

PARTITIONS = 4
SENT = 12  # messages that the device of this module has sent


class Source(NamedTuple):
    """A device that has sent SENT messages, and those as a reader from the start has seen them."""

    device_id: str
    events: list[EventData]
    env: Mapping[str, str]

    @property
    def partition(self) -> str:
        return partition_of(self.device_id)


def partition_of(device_id: str) -> str:
    return str(crc32(device_id.encode()) % PARTITIONS)


def send(hub: Hub, device_id: str, count: int) -> None:
    with device_client(sas_device(hub, device_id)) as client:
        for number in range(count):
            client.send_message(f"{device_id} {number}")


@pytest.fixture(scope="module")
def source(server: RunningServer, telemetry: Telemetry) -> Source:
    with pytest.MonkeyPatch.context() as shell:
        for name, value in server.env.items():
            shell.setenv(name, value)
        send(Hub(server.env), "event-hubs-source", SENT)
    return Source("event-hubs-source", telemetry.of("event-hubs-source", SENT), server.env)


def numbers(events: list[EventData]) -> list[int]:
    return [event.sequence_number or 0 for event in events]


# --- Where to begin --------------------------------------------------------------------------------------


def starting_positions(events: list[EventData]) -> Mapping[str, tuple[dict[str, Any], list[int]]]:
    """By name: the options of `receive`, and the sequence numbers of our device that are to come."""
    fifth, middle = events[5], events[5].enqueued_time
    number = fifth.sequence_number
    assert number is not None
    assert middle is not None

    def after(limit: datetime.datetime, *, inclusive: bool) -> list[int]:
        times = [(event.enqueued_time, event) for event in events]
        return numbers([e for t, e in times if t is not None and (t >= limit if inclusive else t > limit)])

    def options(position: Any, *, inclusive: bool = False) -> dict[str, Any]:
        return {"starting_position": position, "starting_position_inclusive": inclusive}

    long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    return {
        "the start": (options("-1"), numbers(events)),
        "an offset": (options(fifth.offset), numbers(events[6:])),
        "an offset, inclusive": (options(fifth.offset, inclusive=True), numbers(events[5:])),
        "a sequence number": (options(number), numbers(events[6:])),
        "a sequence number, inclusive": (options(number, inclusive=True), numbers(events[5:])),
        "an enqueued time": (options(middle), after(middle, inclusive=False)),
        "an enqueued time, inclusive": (options(middle, inclusive=True), after(middle, inclusive=True)),
        "a time before all": (options(long_ago), numbers(events)),
    }


async def test_a_reader_begins_where_it_wants(env: Mapping[str, str], source: Source) -> None:
    wanted = starting_positions(source.events)

    async def read(options: dict[str, Any], count: int) -> list[int]:
        async with reading_async(env, partition_id=source.partition, **options) as reader:
            return numbers(await arrived(reader, count, of=source.device_id))

    came = await asyncio.gather(*(read(options, len(expected)) for options, expected in wanted.values()))

    assert dict(zip(wanted, came, strict=True)) == {name: expected for name, (_, expected) in wanted.items()}


async def test_each_partition_may_have_a_beginning_of_its_own(env: Mapping[str, str], source: Source) -> None:
    positions = {str(number): "@latest" for number in range(PARTITIONS)}
    positions[source.partition] = source.events[7].offset or ""

    async with reading_async(env, starting_position=positions) as reader:
        came = await arrived(reader, SENT - 8, of=source.device_id)

    assert numbers(came) == numbers(source.events[8:])


def test_a_reader_from_the_latest_sees_only_what_comes_then(
    env: Mapping[str, str], hub: Hub, device_id: str
) -> None:
    with device_client(sas_device(hub, device_id)) as client:
        client.send_message("before")
        with reading(env, partition_id=partition_of(device_id), starting_position="@latest") as reader:
            first = first_seen(client, reader, device_id)
            for number in range(first + 1, first + 4):
                client.send_message(str(number))

            came = [event.body_as_str() for event in reader.take(3, of=device_id)]

    assert came == [str(number) for number in range(first + 1, first + 4)]


def first_seen(client: Any, reader: Reading, device_id: str) -> int:
    """Send 0, 1, 2, … until the reader stands and one arrives: which one. The later ones are taken too.

    Slowly: as long as something comes every 0.2 s, the SDK collects and hands out nothing.
    """
    for number in range(1000):
        client.send_message(str(number))
        try:
            event = reader.next(of=device_id, within=0.5)
        except AssertionError:
            continue
        first = int(event.body_as_str())
        assert [int(e.body_as_str()) for e in reader.take(number - first, of=device_id)] == list(
            range(first + 1, number + 1)
        )
        return number
    raise AssertionError("the reader saw none of 1000 messages")


# --- All partitions, batches -----------------------------------------------------------------------------


def a_device_for_each_partition(prefix: str) -> list[str]:
    """Device ids, at the place that is their partition's number."""
    found: dict[str, str] = {}
    for number in itertools.count():
        found.setdefault(partition_of(f"{prefix}-{number}"), f"{prefix}-{number}")
        if len(found) == PARTITIONS:
            return [found[str(partition)] for partition in range(PARTITIONS)]
    raise AssertionError("unreachable: numbers do not end")


def test_a_reader_of_all_partitions(
    env: Mapping[str, str], hub: Hub, telemetry: Telemetry, device_id: str
) -> None:
    names = a_device_for_each_partition(device_id)
    for name in names:
        send(hub, name, 2)
    starts = {str(partition): telemetry.of(name, 2)[0].offset for partition, name in enumerate(names)}

    with reading(env, starting_position=starts, starting_position_inclusive=True) as reader:
        came = sorted(event.body_as_str() for event in reader.take(2 * PARTITIONS))

    assert came == sorted(f"{name} {number}" for name in names for number in range(2))
    assert set(reader.contexts) == set(starts)


async def test_batches(env: Mapping[str, str], source: Source) -> None:
    batches: list[list[EventData]] = []
    full = asyncio.Event()

    async def batch(_: Any, events: list[EventData]) -> None:
        batches.append(events)
        if sum(map(len, batches)) >= SENT:
            full.set()

    async with eventhub_aio.EventHubConsumerClient.from_connection_string(**consumer_options(env)) as client:
        receiving = asyncio.create_task(
            client.receive_batch(
                batch,
                max_batch_size=5,
                partition_id=source.partition,
                starting_position=source.events[0].offset,
                starting_position_inclusive=True,
            )
        )
        await asyncio.wait_for(full.wait(), 15)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)

    assert all(1 <= len(events) <= 5 for events in batches)
    ours = [e for events in batches for e in events if application_properties(e) == {}]
    assert numbers(ours)[:SENT] == numbers(source.events)


def test_an_event_as_the_reader_hands_it_out(env: Mapping[str, str], hub: Hub, source: Source) -> None:
    event = source.events[0]
    system = system_properties(event)

    assert event.body_as_str() == "event-hubs-source 0"
    assert event.partition_key == source.device_id.encode()
    assert isinstance(event.offset, str)
    assert event.enqueued_time is not None
    assert event.enqueued_time.utcoffset() == datetime.timedelta(0)
    assert system["x-opt-sequence-number"] == event.sequence_number
    assert system["x-opt-offset"] == event.offset
    assert system["iothub-connection-device-id"] == source.device_id
    assert system["iothub-message-source"] == "Telemetry"
    assert system["iothub-enqueuedtime"] == system["x-opt-enqueued-time"]
    identity = hub.get(f"/devices/{source.device_id}")
    assert system["iothub-connection-auth-generation-id"] == identity["generationId"]
    assert numbers(source.events) == sorted(set(numbers(source.events)))


# --- What there is ---------------------------------------------------------------------------------------


def test_the_properties_of_the_endpoint_and_its_partitions(env: Mapping[str, str], source: Source) -> None:
    last = source.events[-1]
    with EventHubConsumerClient.from_connection_string(**consumer_options(env)) as client:
        endpoint = client.get_eventhub_properties()
        partition = client.get_partition_properties(source.partition)
        assert client.get_partition_ids() == ["0", "1", "2", "3"]

    name = parse_connection_string(env["EVENTHUB_CONNECTION_STRING"]).eventhub_name
    assert endpoint["eventhub_name"] == partition["eventhub_name"] == name
    assert endpoint["partition_ids"] == ["0", "1", "2", "3"]
    assert endpoint["created_at"] <= datetime.datetime.now(datetime.UTC)
    assert partition["id"] == source.partition
    assert partition["is_empty"] is False
    assert partition["beginning_sequence_number"] == 0
    assert partition["last_enqueued_sequence_number"] >= (last.sequence_number or 0)
    assert int(partition["last_enqueued_offset"]) >= int(last.offset or 0)
    assert partition["last_enqueued_time_utc"] >= last.enqueued_time


async def test_a_reader_may_follow_how_far_it_is_behind(env: Mapping[str, str], source: Source) -> None:
    options: dict[str, Any] = {"starting_position": "-1", "track_last_enqueued_event_properties": True}
    async with reading_async(env, partition_id=source.partition, **options) as reader:
        await arrived(reader, 1, of=source.device_id)
        last = reader.contexts[source.partition].last_enqueued_event_properties

    assert last["sequence_number"] >= source.events[-1].sequence_number
    assert int(last["offset"]) >= int(source.events[-1].offset or 0)
    assert last["enqueued_time"] >= source.events[-1].enqueued_time
    assert last["retrieval_time"] >= last["enqueued_time"]


async def test_the_consumer_group_is_found_in_any_case(env: Mapping[str, str], source: Source) -> None:
    client = {"consumer_group": "$default"}
    async with reading_async(
        env, client=client, partition_id=source.partition, starting_position="-1"
    ) as reader:
        assert numbers(await arrived(reader, 1, of=source.device_id)) == numbers(source.events[:1])


def test_an_unknown_consumer_group(env: Mapping[str, str]) -> None:
    client = {"consumer_group": "no-such-group", "retry_total": 0}
    with (
        reading(env, client=client, partition_id="0", starting_position="-1") as reader,
        pytest.raises(EventHubError, match="no-such-group"),
    ):
        reader.next()


# --- Who may read ----------------------------------------------------------------------------------------


@pytest.fixture
def quiet(start_server: StartServer, enter_shell: EnterShell, device_id: str) -> list[Source]:
    """A device for each partition of a server of its own: owner levels drive all other readers out."""
    env = enter_shell(start_server("--in-memory"))
    names = a_device_for_each_partition(device_id)
    for name in names:
        send(Hub(env), name, SENT)
    return [Source(name, [], env) for name in names]


@asynccontextmanager
async def reader_at(source: Source, level: int | None) -> AsyncIterator[Reading]:
    """A reader of the source's partition, from the start, that has seen the first event."""
    async with reading_async(
        source.env,
        client={"retry_total": 0},
        owner_level=level,
        partition_id=source.partition,
        starting_position="-1",
    ) as reader:
        assert numbers(await arrived(reader, 1)) == [0]
        yield reader


async def sees_the_rest(reader: Reading) -> None:
    assert numbers(await arrived(reader, SENT - 1)) == list(range(1, SENT))


async def test_an_owner_level_as_high_or_higher_takes_the_partition(quiet: list[Source]) -> None:
    async def take_over(source: Source, older: int | None, newer: int) -> None:
        async with reader_at(source, older) as displaced, reader_at(source, newer) as reader:
            with pytest.raises(ConnectionLostError, match="amqp:link:stolen"):
                await arrived(displaced, SENT)
            await sees_the_rest(reader)

    await asyncio.gather(take_over(quiet[0], None, 0), take_over(quiet[1], 1, 1), take_over(quiet[2], 1, 2))


async def test_a_lower_owner_level_may_not_join(quiet: list[Source]) -> None:
    async def try_to_join(source: Source, level: int | None) -> None:
        async with reader_at(source, 2) as reader:
            with pytest.raises(ConnectionLostError, match="amqp:link:stolen"):
                async with reader_at(source, level):
                    raise AssertionError("the newcomer was let in")
            await sees_the_rest(reader)

    await asyncio.gather(try_to_join(quiet[0], 1), try_to_join(quiet[1], None))


async def test_five_readers_each_see_everything_and_a_sixth_may_not_join(quiet: list[Source]) -> None:
    source, five, done = quiet[0], asyncio.Barrier(6), asyncio.Event()
    address = f"moorage/ConsumerGroups/$Default/Partitions/{source.partition}"

    async def read() -> None:
        async with reader_at(source, None) as reader:
            await sees_the_rest(reader)
            await five.wait()
            await done.wait()

    async def read_in_vain() -> None:
        async with reading_async(source.env, partition_id=source.partition, starting_position="-1"):
            await done.wait()

    async with asyncio.TaskGroup() as readers:
        for _ in range(5):
            readers.create_task(read())
        await five.wait()
        readers.create_task(read_in_vain())
        try:
            # The asynchronous client tries again and again without a word of the error: the hub tells it.
            (refused, *_) = await asyncio.to_thread(
                eventually, lambda: decisions(Hub(source.env), address), what="the sixth reader is refused"
            )
        finally:
            done.set()

    assert "5 receivers read this partition" in refused["error"]


def test_a_bad_key(env: Mapping[str, str], hub: Hub) -> None:
    bad = with_key(env["EVENTHUB_CONNECTION_STRING"], new_key())
    options = consumer_options(env) | {"conn_str": bad, "retry_total": 0}

    with (
        EventHubConsumerClient.from_connection_string(**options) as client,
        pytest.raises(AuthenticationError, match="401"),
    ):
        client.get_eventhub_properties()

    assert failed_checks(refusal(hub, "iothubowner")) == ["signature"]


def test_an_unknown_policy(env: Mapping[str, str]) -> None:
    bad = env["EVENTHUB_CONNECTION_STRING"].replace("iothubowner", "nobody")
    options = consumer_options(env) | {"conn_str": bad, "retry_total": 0}

    with (
        EventHubConsumerClient.from_connection_string(**options) as client,
        pytest.raises(AuthenticationError, match="nobody"),
    ):
        client.get_eventhub_properties()


def test_sending_to_the_endpoint_is_refused(env: Mapping[str, str]) -> None:
    producer = EventHubProducerClient.from_connection_string(
        env["EVENTHUB_CONNECTION_STRING"], connection_verify=env["SSL_CERT_FILE"], retry_total=0
    )

    with producer, pytest.raises(EventHubError, match="only devices write to it"):
        producer.send_event(EventData("not from a device"))


# --- By other ways ---------------------------------------------------------------------------------------


def test_reading_by_an_endpoint_of_ones_own(
    server: RunningServer, env: Mapping[str, str], source: Source
) -> None:
    """The client connects to it, and goes on to call the hub by its name in `open` [hub-service 13]."""
    named = {
        "custom_endpoint_address": f"sb://{server.address}:5671",
        "transport_type": TransportType.Amqp,
        "conn_str": env["EVENTHUB_CONNECTION_STRING"].replace(server.address, "localhost"),
    }

    with reading(env, client=named, partition_id=source.partition, starting_position="-1") as reader:
        assert numbers(reader.take(SENT, of=source.device_id)) == numbers(source.events)


def as_emulator(server: RunningServer) -> str:
    """The connection string with which clients go without TLS."""
    text = server.env["EVENTHUB_CONNECTION_STRING"].rstrip(";")
    plain = text.replace(f"sb://{server.address}", f"sb://{server.endpoints['amqp-plain']}")
    assert plain != text
    return f"{plain};UseDevelopmentEmulator=true"


def test_reading_without_tls(start_server: StartServer, enter_shell: EnterShell, device_id: str) -> None:
    server = start_server("--in-memory", "--amqp-plain-port", "0")
    assert f"plain AMQP   {server.endpoints['amqp-plain']}    without TLS" in server.log
    send(Hub(enter_shell(server)), device_id, SENT)
    login = as_emulator(server)
    plain = {"conn_str": login, "connection_verify": None, "retry_total": 0}

    with reading(
        server.env, client=plain, partition_id=partition_of(device_id), starting_position="-1"
    ) as reader:
        came = reader.take(SENT, of=device_id)
    assert [payload(event) for event in came] == [f"{device_id} {number}".encode() for number in range(SENT)]

    wrong = {**plain, "conn_str": with_key(login, new_key(32))}
    with (
        reading(
            server.env, client=wrong, partition_id=partition_of(device_id), starting_position="-1"
        ) as reader,
        pytest.raises(AuthenticationError),
    ):
        reader.next()


async def test_reading_without_tls_with_the_asynchronous_client(
    start_server: StartServer, enter_shell: EnterShell, device_id: str
) -> None:
    server = start_server("--in-memory", "--amqp-plain-port", "0")
    hub = Hub(enter_shell(server))
    await asyncio.to_thread(send, hub, device_id, SENT)
    plain = {"conn_str": as_emulator(server), "connection_verify": None}

    async with reading_async(server.env, client=plain, starting_position="-1") as reader:
        assert len(await arrived(reader, SENT, of=device_id)) == SENT


# --- Over WebSockets -------------------------------------------------------------------------------------


@pytest.mark.port443
def test_reading_over_websockets(env: Mapping[str, str], source: Source) -> None:
    over = {"transport_type": TransportType.AmqpOverWebsocket}

    with reading(env, client=over, partition_id=source.partition, starting_position="-1") as reader:
        assert numbers(reader.take(SENT, of=source.device_id)) == numbers(source.events)


@pytest.mark.port443
async def test_reading_over_websockets_with_the_asynchronous_client(
    env: Mapping[str, str], source: Source
) -> None:
    over = {"transport_type": TransportType.AmqpOverWebsocket}

    async with reading_async(
        env, client=over, partition_id=source.partition, starting_position="-1"
    ) as reader:
        assert numbers(await arrived(reader, SENT, of=source.device_id)) == numbers(source.events)
