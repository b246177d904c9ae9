"""The built-in endpoint, read by our own engine: where a reader begins, what it gets, and who reads beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from moorage.adapters import event_hubs
from moorage.adapters.consumer_groups import ReaderDisplaced, Seats, TooManyReaders
from moorage.adapters.event_hubs import (
    EPOCH,
    HOLD_BACK,
    MAX_SELECTOR,
    NEVER,
    READ_AT_ONCE,
    RUNTIME_METRIC,
    TURN_SIZE,
    EventHubsFace,
    starting_position,
)
from moorage.errors import Invalid, MoorageError
from moorage.interfaces import EventHead, Start, StartProperty
from moorage.wire.amqp import (
    Array,
    ClientSasl,
    CreditChanged,
    DeliveryReceived,
    Described,
    Int,
    LinkDetached,
    Long,
    Message,
    Receiver,
    Source,
    Symbol,
    Timestamp,
    UInt,
    ULong,
    conditions,
)
from moorage.wire.amqp import session as amqp_session
from tests.support.amqp_peer import SELECTOR, AmqpPeer, Refused, status
from tests.support.site import HUB_SCOPE, Site, failed_checks
from tests.support.streams import START

Call = Callable[..., AmqpPeer]
READER = "moorage/ConsumerGroups/$Default/Partitions/0"


@pytest.fixture
async def peer(site: Site, call: Call) -> AmqpPeer:
    """An open connection that may read events."""
    return await reader_connection(site, call)


async def reader_connection(site: Site, call: Call, **peer_facts: Any) -> AmqpPeer:
    peer = call(**peer_facts)
    await peer.open()
    await peer.claim(site.token("service"))
    return peer


async def keep(site: Site, *payloads: bytes, partition: int = 0) -> None:
    """Put events into the log, and wait until they are durable."""
    head = EventHead(scope=HUB_SCOPE, partition=partition, partition_key="pump-7", annotations=())
    done: list[Exception | None] = []
    prepared = site.log.prepare(head)
    site.log.append([(prepared, payload) for payload in payloads], done.append)
    await site.time.until(lambda: done)
    assert done == [None]


async def keep_at_intervals(site: Site, count: int) -> None:
    """Events 0, 1, …, each a second after the one before, the first a second after START."""
    for number in range(count):
        site.time.advance(1)
        await keep(site, b"%d" % number)


def sequence_number(message: Message) -> int:
    annotations: Any = message.message_annotations
    number: int = annotations["x-opt-sequence-number"]
    return number


# --- Where a reader begins ----------------------------------------------------------------------------------

OFFSET, NUMBER, TIME = StartProperty.OFFSET, StartProperty.SEQUENCE_NUMBER, StartProperty.ENQUEUED_TIME
_TIME = 1_777_717_230_123


@pytest.mark.parametrize(
    ("expression", "start"),
    [
        ("amqp.annotation.x-opt-offset > '-1'", Start(StartProperty.FIRST)),
        ("amqp.annotation.x-opt-offset > '@latest'", Start(StartProperty.LATEST)),
        ("amqp.annotation.x-opt-offset >= '@latest'", Start(StartProperty.LATEST)),
        ("amqp.annotation.x-opt-sequence-number > '@latest'", Start(StartProperty.LATEST)),
        ("amqp.annotation.x-opt-offset > '4311810304'", Start(OFFSET, 4311810304)),
        ("amqp.annotation.x-opt-offset >= '4311810304'", Start(OFFSET, 4311810304, True)),
        ('amqp.annotation.x-opt-offset>"17"', Start(OFFSET, 17)),
        ("amqp.annotation.x-opt-sequence-number > '17'", Start(NUMBER, 17)),
        ("amqp.annotation.x-opt-sequence-number >= 17", Start(NUMBER, 17, True)),
        ("amqp.annotation.x-opt-sequence-number > '-1'", Start(NUMBER, -1)),
        (f"amqp.annotation.x-opt-enqueued-time > '{_TIME}'", Start(TIME, _TIME * 1000)),
        (f"amqp.annotation.x-opt-enqueued-time >= {_TIME}", Start(TIME, _TIME * 1000, True)),
        (f"amqp.annotation.x-opt-enqueuedtimeutc > {_TIME}", Start(TIME, _TIME * 1000)),
        (f"  AMQP.annotation.X-Opt-EnqueuedTimeUtc  >  {_TIME}  ", Start(TIME, _TIME * 1000)),
    ],
)
def test_selectors_of_all_clients(expression: str, start: Start) -> None:
    assert starting_position(expression) == start


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "amqp.annotation.x-opt-offset",
        "amqp.annotation.x-opt-offset = '1'",
        "amqp.annotation.x-opt-offset < '1'",
        "amqp.annotation.x-opt-offset > '1",
        "amqp.annotation.x-opt-offset > ''",
        "amqp.annotation.x-opt-offset > '1.5'",
        "amqp.annotation.x-opt-offset > '１７'",
        "amqp.annotation.x-opt-offset > '" + "9" * 20 + "'",
        "amqp.annotation.x-opt-offset > '1' AND 1 = 1",
        "amqp.annotation.x-opt-partition-key > 'a'",
        "amqp.annotation.x-opt-offset > " + " " * 60_000 + "'",
        "x" * (MAX_SELECTOR + 1),
    ],
    ids=range(13),
)
def test_selectors_that_select_nothing(expression: str) -> None:
    with pytest.raises(Invalid, match="filter") as refused:
        starting_position(expression)
    assert len(str(refused.value)) < 2 * MAX_SELECTOR


@pytest.mark.parametrize(
    ("selector", "first"),
    [
        (None, 0),
        ("amqp.annotation.x-opt-offset > '-1'", 0),
        ("amqp.annotation.x-opt-offset > '@latest'", 4),
        ("amqp.annotation.x-opt-sequence-number > '1'", 2),
        ("amqp.annotation.x-opt-sequence-number >= '1'", 1),
        (f"amqp.annotation.x-opt-enqueued-time > '{START // 1000 + 2000}'", 2),
        (f"amqp.annotation.x-opt-enqueued-time >= '{START // 1000 + 2000}'", 1),
        (f"amqp.annotation.x-opt-enqueuedtimeutc > {START // 1000 + 2500}", 2),
        (f"amqp.annotation.x-opt-enqueuedtimeutc > {START // 1000 + 9000}", 4),
    ],
)
async def test_a_reader_begins_where_its_filter_says(
    site: Site, peer: AmqpPeer, selector: str | None, first: int
) -> None:
    await keep_at_intervals(site, 4)
    link = await peer.attach_receiver(READER, selector=selector, credit=10)
    await keep(site, b"4")
    messages = await peer.messages(link, 5 - first)
    assert [message.payload for message in messages] == [b"%d" % number for number in range(first, 5)]


@pytest.mark.parametrize(("operator", "first"), [(">", 3), (">=", 2)])
async def test_a_reader_goes_on_from_an_offset_that_it_was_shown(
    site: Site, peer: AmqpPeer, operator: str, first: int
) -> None:
    await keep(site, *(b"%d" % number for number in range(5)))
    link = await peer.attach_receiver(READER, credit=3)
    annotations: Any = (await peer.messages(link, 3))[2].message_annotations
    assert isinstance(annotations["x-opt-offset"], str)
    selector = f"amqp.annotation.x-opt-offset {operator} '{annotations['x-opt-offset']}'"
    again = await peer.attach_receiver(READER, selector=selector, credit=10)
    assert (await peer.messages(again, 1))[0].payload == b"%d" % first


@pytest.mark.parametrize(
    "value",
    [
        Described(SELECTOR, "amqp.annotation.x-opt-sequence-number > '0'"),
        Described(ULong(0x0000468C00000004), "amqp.annotation.x-opt-sequence-number > '0'"),
        Described(SELECTOR, b"amqp.annotation.x-opt-sequence-number > '0'"),
        "amqp.annotation.x-opt-sequence-number > '0'",
    ],
    ids=["symbol", "code", "binary", "not described"],
)
async def test_forms_of_a_filter(site: Site, peer: AmqpPeer, value: Any) -> None:
    await keep(site, b"0", b"1")
    source = Source(READER, filter={Symbol("other"): Described(Symbol("other"), 1.5), SELECTOR: value})
    link = await peer.attach_receiver(READER, source=source, credit=10)
    assert (await peer.messages(link, 1))[0].payload == b"1"


@pytest.mark.parametrize(
    "selector",
    [
        "nonsense",
        "amqp.annotation.x-opt-sequence-number > '17'",
        "amqp.annotation.x-opt-offset > '4311810304'",
    ],
)
async def test_a_place_that_there_is_not(site: Site, peer: AmqpPeer, selector: str) -> None:
    await keep(site, b"0")
    with pytest.raises(Refused) as refused:
        await peer.attach_receiver(READER, selector=selector)
    assert refused.value.condition == "com.microsoft:argument-error"
    assert site.refusal().operation == "attach"


# --- What a reader gets -------------------------------------------------------------------------------------


async def test_never_more_than_the_credit(site: Site, peer: AmqpPeer) -> None:
    await keep(site, *(b"%d" % number for number in range(10)))
    link = await peer.attach_receiver(READER, credit=3)
    assert len(await peer.messages(link, 3)) == 3
    await keep(site, b"10")
    assert peer.waiting(link) == []
    link.flow(4)
    assert [each.payload for each in await peer.messages(link, 4)] == [b"3", b"4", b"5", b"6"]
    assert peer.waiting(link) == []


async def test_nothing_without_credit(site: Site, peer: AmqpPeer) -> None:
    await keep(site, b"0")
    link = await peer.attach_receiver(READER)
    await keep(site, b"1")
    assert peer.waiting(link) == []


async def test_new_events_wake_the_reader(site: Site, peer: AmqpPeer) -> None:
    link = await peer.attach_receiver(READER, credit=100)
    for number in range(5):
        await keep(site, b"%d" % number)
        (message,) = await peer.messages(link, 1)
        assert sequence_number(message) == number


async def test_a_reader_sees_its_own_partition_only(site: Site, peer: AmqpPeer) -> None:
    link = await peer.attach_receiver(READER, credit=100)
    await keep(site, b"elsewhere", partition=1)
    await keep(site, b"here")
    assert [each.payload for each in await peer.messages(link, 1)] == [b"here"]
    assert peer.waiting(link) == []


async def test_a_backlog_of_many_turns(site: Site, peer: AmqpPeer) -> None:
    count = 3 * READ_AT_ONCE + 7
    await keep(site, *(b"%d" % number for number in range(count)))
    link = await peer.attach_receiver(READER, credit=count + 100)
    payloads = [each.payload for each in await peer.messages(link, count)]
    assert payloads == [b"%d" % number for number in range(count)]


async def test_deliveries_are_settled_and_their_ids_have_no_gap(site: Site, peer: AmqpPeer) -> None:
    """rhea drops the connection at a gap in a session [hub-service 27.39]."""
    await keep(site, b"0", b"1")
    await keep(site, b"2", b"3", partition=1)
    session = await peer.begin()
    links = [
        await peer.attach_receiver(
            f"moorage/ConsumerGroups/$Default/Partitions/{n}", session=session, credit=2
        )
        for n in (0, 1)
    ]
    found = [await peer.find(DeliveryReceived) for _ in range(4)]
    assert {each.link for each in found} == set(links)
    assert [each.delivery_id for each in found] == [0, 1, 2, 3]
    assert all(each.settled for each in found)


async def test_a_drain_with_nothing_to_send_gives_the_credit_back(site: Site, peer: AmqpPeer) -> None:
    link = await peer.attach_receiver(READER, credit=10)
    link.flow(10, drain=True)
    await peer.find(CreditChanged, lambda event: event.link is link)
    assert (link.credit, link.drain) == (0, False)
    await keep(site, b"0")
    assert peer.waiting(link) == []


@pytest.mark.parametrize("credit", [2, 3, 10])
async def test_a_drain_is_answered_behind_the_events_that_there_are(
    site: Site, peer: AmqpPeer, credit: int
) -> None:
    await keep(site, b"0", b"1", b"2")
    link = await peer.attach_receiver(READER)
    link.flow(credit, drain=True)
    assert len(await peer.messages(link, min(credit, 3))) == min(credit, 3)
    await peer.find(CreditChanged, lambda event: event.link is link)
    assert (link.credit, link.drain) == (0, False)
    assert peer.waiting(link) == []


async def test_a_drain_of_a_reply_link_is_answered(peer: AmqpPeer) -> None:
    link = await peer.attach_receiver("$cbs", credit=10)
    link.flow(10, drain=True)
    await peer.find(CreditChanged, lambda event: event.link is link)
    assert link.credit == 0


async def test_a_reader_that_does_not_read_costs_no_memory(site: Site, peer: AmqpPeer) -> None:
    """It is held back, not cut, and goes on where it was."""
    for _ in range(20):
        await keep(site, *[b"x" * 10_000] * 50)
    link = await peer.attach_receiver(READER)
    peer.turn()
    peer.stream.stalled = True
    link.flow(5000)
    peer.stream.feed(peer.wire.take_output())
    site.time.advance(1)
    assert HOLD_BACK < peer.stream.pending <= HOLD_BACK + TURN_SIZE + 65_536
    await keep(site, *[b"x" * 10_000] * 50)
    assert peer.stream.pending <= HOLD_BACK + TURN_SIZE + 65_536
    assert peer.stream.reason is None
    peer.stream.read_on()
    messages = await peer.messages(link, 1050)
    assert [sequence_number(each) for each in messages] == list(range(1050))


async def test_many_readers_of_one_connection_share_its_bound(site: Site, peer: AmqpPeer) -> None:
    for partition in range(4):
        await keep(site, *[b"x" * 10_000] * 100, partition=partition)
    links = [await peer.attach_receiver(f"moorage/ConsumerGroups/$Default/Partitions/{n}") for n in range(4)]
    peer.turn()
    peer.stream.stalled = True
    for link in links:
        link.flow(1000)
    peer.stream.feed(peer.wire.take_output())  # all in one read
    assert peer.stream.pending <= HOLD_BACK + TURN_SIZE + 65_536
    peer.stream.read_on()
    for link in links:
        assert len(await peer.messages(link, 100)) == 100


async def test_events_of_all_sizes_in_turns_of_their_own(site: Site, peer: AmqpPeer) -> None:
    """A turn of many small ones may not become one of many large ones."""
    sizes = [10] * 600 + [250_000] * 8 + [10] * 600
    await keep(site, *(b"x" * size for size in sizes[:600]))
    for size in sizes[600:608]:
        await keep(site, b"x" * size)
    await keep(site, *(b"x" * size for size in sizes[608:]))
    link = await peer.attach_receiver(READER)
    peer.turn()
    peer.stream.stalled = True
    link.flow(5000)
    peer.stream.feed(peer.wire.take_output())
    site.time.advance(1)
    assert peer.stream.pending <= HOLD_BACK + TURN_SIZE + 65_536
    peer.stream.read_on()
    assert [len(each.payload) for each in await peer.messages(link, len(sizes))] == sizes


async def test_no_event_is_lost_to_a_small_session_window(
    site: Site, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large event takes many frames: fewer go out than credit allows, and the reader goes on with the next one."""
    monkeypatch.setattr(amqp_session, "INCOMING_WINDOW", 3)
    peer = await reader_connection(site, call, max_frame_size=4096)
    sizes = [3000, 20_000, 10, 9000, 3000, 3000, 3000, 3000, 40_000, 10]
    await keep(site, *(b"x" * size for size in sizes))
    link = await peer.attach_receiver(READER, credit=100)
    messages = await peer.messages(link, len(sizes))
    assert [len(each.payload) for each in messages] == sizes
    assert [sequence_number(each) for each in messages] == list(range(len(sizes)))


async def test_a_drain_waits_for_the_session_window(
    site: Site, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credit may not go back while there are events that it was given for."""
    monkeypatch.setattr(amqp_session, "INCOMING_WINDOW", 3)
    peer = await reader_connection(site, call, max_frame_size=4096)
    await keep(site, *[b"x" * 9000] * 4)
    link = await peer.attach_receiver(READER)
    link.flow(10, drain=True)
    assert len(await peer.messages(link, 4)) == 4
    await peer.find(CreditChanged, lambda event: event.link is link)
    assert link.credit == 0


async def test_the_log_forgets_a_reader_that_is_gone(
    site: Site, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, watched = site.log.watch, []

    def count(scope: int, partition: int, wake: Callable[[], None]) -> Callable[[], None]:
        unwatch = watch(scope, partition, wake)
        watched.append(wake)

        def forget() -> None:
            watched.remove(wake)
            unwatch()

        return forget

    monkeypatch.setattr(site.log, "watch", count)
    peer = await reader_connection(site, call)
    links = [await peer.attach_receiver(READER, credit=1) for _ in range(2)]
    assert len(watched) == 2
    links[0].detach()
    peer.turn()
    assert len(watched) == 1
    peer.stream.lose()
    await peer.ended()
    assert watched == []


async def test_a_log_that_cannot_be_read_ends_the_link_for_now(site: Site, peer: AmqpPeer) -> None:
    await keep(site, b"0")
    link = await peer.attach_receiver(READER)
    site.disk.reads_fail = True
    link.flow(10)
    error = await peer.detached(link)
    assert error is not None
    assert error.condition == "com.microsoft:server-busy"
    site.disk.reads_fail = False
    again = await peer.attach_receiver(READER, credit=10)
    assert len(await peer.messages(again, 1)) == 1


@pytest.mark.parametrize("wanted", [True, False])
async def test_runtime_metrics_for_those_who_ask(site: Site, peer: AmqpPeer, wanted: bool) -> None:
    await keep_at_intervals(site, 3)
    capabilities = [RUNTIME_METRIC, "com.microsoft:georeplication"] if wanted else ["com.microsoft:other"]
    link = await peer.attach_receiver(READER, capabilities=capabilities, credit=2)
    assert link.remote is not None
    assert tuple(link.remote.offered_capabilities) == ((RUNTIME_METRIC,) if wanted else ())
    for message in await peer.messages(link, 2):
        annotations: Any = message.delivery_annotations
        if not wanted:
            assert annotations is None
            continue
        last = site.log.state(HUB_SCOPE, 0)
        assert annotations["last_enqueued_sequence_number"] == 2
        assert annotations["last_enqueued_offset"] == str(last.last_offset)
        assert annotations["last_enqueued_time_utc"] == START // 1000 + 3000
        assert annotations["runtime_info_retrieval_time_utc"] == site.time.now() // 1000
        kinds = {type(annotations[name]) for name in annotations}
        assert kinds == {Long, str, Timestamp}


# --- Addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "/moorage/ConsumerGroups/$Default/Partitions/0",
        "amqps://localhost:5671/moorage/ConsumerGroups/$Default/Partitions/0",
        "MOORAGE/consumergroups/$default/PARTITIONS/0",
    ],
)
async def test_an_address_in_three_forms_and_any_case(site: Site, peer: AmqpPeer, address: str) -> None:
    await keep(site, b"0")
    link = await peer.attach_receiver(address, credit=1)
    assert len(await peer.messages(link, 1)) == 1


@pytest.mark.parametrize(
    ("address", "condition"),
    [
        ("moorage/ConsumerGroups/other/Partitions/0", conditions.NOT_FOUND),
        ("other/ConsumerGroups/$Default/Partitions/0", conditions.NOT_FOUND),
        ("other", conditions.NOT_FOUND),
        ("moorage/ConsumerGroups/$Default/Partitions", conditions.NOT_FOUND),
        ("moorage/ConsumerGroups/$Default/Partitions/4", "com.microsoft:argument-out-of-range"),
        ("moorage/ConsumerGroups/$Default/Partitions/-1", "com.microsoft:argument-out-of-range"),
        ("moorage/ConsumerGroups/$Default/Partitions/x", "com.microsoft:argument-out-of-range"),
        ("moorage/ConsumerGroups/$Default/Partitions/²", "com.microsoft:argument-out-of-range"),
        ("moorage/ConsumerGroups/$Default/Partitions/" + "1" * 5000, "com.microsoft:argument-out-of-range"),
        ("moorage", conditions.NOT_IMPLEMENTED),
    ],
)
async def test_addresses_of_nothing(site: Site, peer: AmqpPeer, address: str, condition: str) -> None:
    with pytest.raises(Refused) as refused:
        await peer.attach_receiver(address)
    assert refused.value.condition == condition
    assert len(refused.value.description) < 1000
    assert site.refusal().operation == "attach"


@pytest.mark.parametrize(
    "address", ["moorage", "moorage/Partitions/0", "moorage/publishers/me", READER, "messages/events"]
)
async def test_sending_to_the_endpoint_is_refused_in_words(peer: AmqpPeer, address: str) -> None:
    with pytest.raises(Refused, match="only devices write") as refused:
        await peer.attach_sender(address)
    assert refused.value.condition == conditions.NOT_IMPLEMENTED


# --- Who may read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", [READER, "moorage/$management", "$management", "messages/events/$management"]
)
async def test_without_a_token_nothing_opens(site: Site, call: Call, address: str) -> None:
    peer = call()
    await peer.open()
    with pytest.raises(Refused, match="no token was presented") as refused:
        await peer.attach_receiver(address)
    assert refused.value.condition == conditions.UNAUTHORIZED_ACCESS
    assert json.loads(refused.value.description)["errorCode"] == 401002
    assert failed_checks(site.refusal()) == ["claims"]


@pytest.mark.parametrize(
    ("name", "resource", "may"),
    [
        ("service", "localhost", True),
        ("iothubowner", "sb://localhost/moorage", True),
        ("service", "localhost/messages/events", True),
        ("service", "sb://localhost/moorage/ConsumerGroups/$Default/Partitions/0", True),
        ("service", "127.0.0.1", True),
        ("service", "sb://localhost/moorage/ConsumerGroups/$Default/Partitions/1", False),
        ("service", "localhost/moor", False),
        ("service", "localhost/devices", False),
        ("registryReadWrite", "localhost", False),
        ("device", "localhost", False),
    ],
)
async def test_the_right_to_read_and_what_it_covers(
    site: Site, call: Call, name: str, resource: str, may: bool
) -> None:
    peer = call()
    await peer.open()
    await peer.claim(site.token(name, resource))
    if may:
        await peer.attach_receiver(READER)
        return
    with pytest.raises(Refused) as refused:
        await peer.attach_receiver(READER)
    assert refused.value.condition == conditions.UNAUTHORIZED_ACCESS


async def test_links_end_with_the_token_that_allowed_them(site: Site, call: Call) -> None:
    """Each at its own time, five minutes past the expiry; and what is renewed goes on."""
    peer = call()
    await peer.open()
    links: list[Receiver] = []
    for number, lifetime in enumerate((600, 1200, 1800)):
        path = f"moorage/ConsumerGroups/$Default/Partitions/{number}"
        await peer.claim(site.token("service", f"localhost/{path}", lifetime=lifetime))
        links.append(await peer.attach_receiver(path, credit=10))
    await peer.claim(site.token("service", "localhost/moorage/$management", lifetime=600))
    node = await peer.attach_receiver("moorage/$management")
    peer.live(899)
    assert peer.seen(LinkDetached) == []
    await peer.claim(
        site.token("service", "localhost/moorage/ConsumerGroups/$Default/Partitions/1", lifetime=3600)
    )
    peer.live(1)
    for link in (links[0], node):
        error = await peer.detached(link)
        assert error is not None
        assert error.condition == conditions.UNAUTHORIZED_ACCESS
    for decision in site.refusals():
        assert (decision.operation, failed_checks(decision)) == ("link", ["claims"])
    peer.live(1200)
    await peer.detached(links[2])
    await keep(site, b"1", partition=1)
    assert len(await peer.messages(links[1], 1)) == 1


async def test_a_connection_by_plain_ends_its_links_with_its_token(site: Site, call: Call) -> None:
    sasl = ClientSasl.plain("service@sas.root.localhost", site.token("service", lifetime=60))
    peer = call(sasl=sasl)
    await peer.open()
    link = await peer.attach_receiver(READER)
    site.time.advance(361)
    error = await peer.detached(link)
    assert error is not None
    assert "expired" in (error.description or "")


# --- Who reads beside whom ----------------------------------------------------------------------------------


async def test_five_readers_without_an_epoch(site: Site, call: Call, peer: AmqpPeer) -> None:
    """In one consumer group on one partition, over all connections."""
    links = [await peer.attach_receiver(READER) for _ in range(3)]
    other = await reader_connection(site, call)
    for _ in range(2):
        await other.attach_receiver(READER)
    with pytest.raises(Refused) as refused:
        await other.attach_receiver(READER)
    assert refused.value.condition == conditions.RESOURCE_LIMIT_EXCEEDED
    assert "5 receivers" in refused.value.description
    assert json.loads(refused.value.description)["errorCode"] == 403002
    await other.attach_receiver("moorage/ConsumerGroups/$Default/Partitions/1")
    links[0].detach()
    peer.turn()
    await other.attach_receiver(READER)


async def test_a_lost_connection_gives_its_places_free(site: Site, call: Call, peer: AmqpPeer) -> None:
    for _ in range(5):
        await peer.attach_receiver(READER)
    peer.stream.lose()
    await peer.ended()
    other = await reader_connection(site, call)
    for _ in range(5):
        await other.attach_receiver(READER)


async def test_a_link_that_is_ended_gives_its_place_free_though_the_peer_says_nothing(
    site: Site, call: Call, face: EventHubsFace
) -> None:
    mute = call()
    await mute.open()
    await mute.claim(site.token("service", lifetime=60))
    for _ in range(5):
        await mute.attach_receiver(READER)
    site.time.advance(361)
    assert len(face._seats[HUB_SCOPE, "$Default", 0]) == 0


@pytest.mark.parametrize(("older", "newer"), [(None, 0), (1, 1), (1, 7)])
async def test_an_epoch_as_high_or_higher_takes_the_partition(
    site: Site, call: Call, peer: AmqpPeer, older: int | None, newer: int
) -> None:
    properties = {EPOCH: Long(older)} if older is not None else None
    displaced = await peer.attach_receiver(READER, properties=properties, credit=10)
    other = await reader_connection(site, call)
    link = await other.attach_receiver(READER, properties={EPOCH: Long(newer)}, credit=10)
    error = await peer.detached(displaced)
    assert error is not None
    assert error.condition == conditions.LINK_STOLEN
    assert json.loads(error.description or "")["errorCode"] == 409002
    await keep(site, b"0")
    assert len(await other.messages(link, 1)) == 1
    assert peer.waiting(displaced) == []


async def test_a_link_ends_once_though_both_sides_say_so(
    site: Site, call: Call, peer: AmqpPeer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moorage.event_hubs")
    displaced = await peer.attach_receiver(READER)
    await peer.attach_receiver(READER, properties={EPOCH: Long(1)})
    await peer.detached(displaced)
    peer.stream.lose()
    await peer.ended()
    said = [record.message for record in caplog.records if record.__dict__.get("link") == displaced.name]
    assert said == ["reader attached", "reader displaced", "reader detached"]


@pytest.mark.parametrize("epoch", [None, 0, 6])
async def test_a_lower_epoch_or_none_may_not_join(site: Site, peer: AmqpPeer, epoch: int | None) -> None:
    link = await peer.attach_receiver(READER, properties={EPOCH: Long(7)}, credit=10)
    with pytest.raises(Refused) as refused:
        await peer.attach_receiver(READER, properties={EPOCH: Long(epoch)} if epoch is not None else None)
    assert refused.value.condition == conditions.LINK_STOLEN
    await keep(site, b"0")
    assert len(await peer.messages(link, 1)) == 1


@pytest.mark.parametrize("epoch", [Long(-1), "7", True, 1.5], ids=repr)
async def test_an_epoch_is_a_number(peer: AmqpPeer, epoch: Any) -> None:
    with pytest.raises(Refused) as refused:
        await peer.attach_receiver(READER, properties={EPOCH: epoch})
    assert refused.value.condition == "com.microsoft:argument-error"


@pytest.mark.parametrize("epoch", [UInt(3), Int(3), ULong(3)], ids=lambda value: type(value).__name__)
async def test_an_epoch_may_have_any_width(peer: AmqpPeer, epoch: Any) -> None:
    await peer.attach_receiver(READER, properties={EPOCH: epoch})


class Chair:
    def __init__(self, epoch: int | None = None) -> None:
        self.epoch = epoch
        self.displaced = False
        self.refused = ""

    def displace(self, error: ReaderDisplaced) -> None:
        self.displaced = True

    def refuse(self, error: MoorageError) -> None:
        self.refused = str(error)


def test_places_at_a_partition() -> None:
    seats, five = Seats(), [Chair() for _ in range(5)]
    for chair in five:
        seats.take(chair)
    with pytest.raises(TooManyReaders):
        seats.take(Chair())
    owner = Chair(3)
    seats.take(owner)
    assert all(chair.displaced for chair in five)
    for late in (Chair(), Chair(2)):
        with pytest.raises(ReaderDisplaced):
            seats.take(late)
    seats.leave(owner)
    seats.take(Chair(0))
    assert len(seats) == 1


# --- $management --------------------------------------------------------------------------------------------


def read(**asked: Any) -> dict[str, Any]:
    return {"operation": "READ", "name": "moorage", **asked}


@pytest.mark.parametrize(
    "node", ["$management", "moorage/$management", "amqps://localhost/MOORAGE/$Management"]
)
async def test_the_endpoint_describes_itself(site: Site, peer: AmqpPeer, node: str) -> None:
    answer = await peer.request(node, read(type="com.microsoft:eventhub"), message_id=ULong(3))
    assert status(answer) == 200
    assert answer.properties is not None
    assert type(answer.properties.correlation_id) is ULong
    body: Any = answer.body
    assert body.value == {
        "name": "moorage",
        "type": "com.microsoft:eventhub",
        "created_at": START // 1000,
        "partition_count": 4,
        "partition_ids": Array(str, ("0", "1", "2", "3")),
        "georeplication_factor": 1,
    }
    assert isinstance(body.value["created_at"], Timestamp)
    assert isinstance(body.value["partition_count"], Int)


async def test_an_empty_partition_has_no_null_in_it(site: Site, peer: AmqpPeer) -> None:
    answer = await peer.request("$management", read(type="com.microsoft:partition", partition="3"))
    body: Any = answer.body
    assert body.value == {
        "name": "moorage",
        "type": "com.microsoft:partition",
        "partition": "3",
        "begin_sequence_number": 0,
        "last_enqueued_sequence_number": -1,
        "last_enqueued_offset": "-1",
        "last_enqueued_time_utc": NEVER,
        "is_partition_empty": True,
    }
    assert isinstance(body.value["last_enqueued_offset"], str)


async def test_a_partition_says_where_it_stands(site: Site, peer: AmqpPeer) -> None:
    await keep_at_intervals(site, 3)
    answer = await peer.request("$management", read(type="com.microsoft:partition", partition=Int(0)))
    body: Any = answer.body
    assert body.value["last_enqueued_sequence_number"] == 2
    assert body.value["last_enqueued_offset"] == str(site.log.state(HUB_SCOPE, 0).last_offset)
    assert body.value["last_enqueued_time_utc"] == START // 1000 + 3000
    assert body.value["is_partition_empty"] is False


@pytest.mark.parametrize("body", [None, b"[]", "text", {}], ids=repr)
async def test_the_body_of_a_question_does_not_matter(peer: AmqpPeer, body: Any) -> None:
    answer = await peer.request("$management", read(type="com.microsoft:eventhub", security_token="x"), body)
    assert status(answer) == 200


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (read(type="com.microsoft:eventhub", name="MOORAGE"), 200),
        (read(type=b"com.microsoft:eventhub", name=b"moorage"), 200),
        (read(type="com.microsoft:eventhub", name="other"), 404),
        ({"operation": "READ", "type": "com.microsoft:eventhub"}, 404),
        (read(type="com.microsoft:partition"), 404),
        (read(type="com.microsoft:partition", partition="4"), 404),
        (read(type="com.microsoft:partition", partition="9" * 5000), 404),
        (read(type="com.microsoft:consumergroup"), 501),
        (read(type="com.microsoft:eventhub", operation="DELETE"), 501),
        ({}, 501),
    ],
    ids=range(10),
)
async def test_questions_and_their_status(peer: AmqpPeer, asked: dict[Any, Any], code: int) -> None:
    answer = await peer.request("$management", asked)
    assert status(answer) == code
    assert isinstance((answer.application_properties or {})["status-code"], Int)


# --- The way from the hub -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "below"),
    [
        ("amqps://localhost/messages/events/$management", "/$management"),
        ("/messages/events/ConsumerGroups/$Default/Partitions/0", "/ConsumerGroups/$Default/Partitions/0"),
        ("/messages/events/", ""),
        ("Messages/Events", ""),
    ],
)
async def test_the_redirect_comes_when_credit_shows_that_the_link_is_up(
    site: Site, call: Call, address: str, below: str
) -> None:
    token = site.token("service", "localhost/messages/events")
    peer = call(sasl=ClientSasl.plain("service@sas.root.localhost", token))
    await peer.open()
    link = await peer.attach_receiver(address)
    assert peer.seen(LinkDetached) == []
    link.flow(1)
    error = await peer.detached(link)
    assert error is not None
    assert error.condition == conditions.LINK_REDIRECT
    info: Any = error.info
    assert (info["hostname"], info["network-host"], info["port"]) == ("localhost", "localhost", 5671)
    assert info["address"] == f"amqps://localhost:5671/moorage{below}"
    assert info["com.microsoft:tracking-id"] == "ab" * 16


async def test_the_redirect_leads_to_where_the_client_came(site: Site, call: Call) -> None:
    peer = await reader_connection(site, call, hostname="127.0.0.1:5671")
    link = await peer.attach_receiver("messages/events/$management", credit=1)
    error = await peer.detached(link)
    assert error is not None
    assert error.info is not None
    assert error.info["address"] == "amqps://127.0.0.1:5671/moorage/$management"
    node = await peer.attach_receiver(error.info["address"], credit=1)
    assert node.live


async def test_a_redirect_that_nobody_asked_for_ends_with_its_token(site: Site, call: Call) -> None:
    peer = call()
    await peer.open()
    await peer.claim(site.token("service", lifetime=60))
    link = await peer.attach_receiver("messages/events")
    site.time.advance(361)
    error = await peer.detached(link)
    assert error is not None
    assert error.condition == conditions.UNAUTHORIZED_ACCESS


def test_a_turn_leaves_room_below_the_bound_of_a_connection() -> None:
    """Else a reader that is merely slow would be cut: 1 MiB may wait outward [design 3.6]."""
    longest = 262_144 + 65_536 + 4096  # a body, the property bag, annotations
    assert event_hubs.HOLD_BACK + max(event_hubs.TURN_SIZE, longest) < 1 << 20
