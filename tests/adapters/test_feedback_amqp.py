"""Back ends receive feedback over AMQP: what a batch looks like, and what its settlement means."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from moorage.hub.cloud_to_device import Ack, Content
from moorage.hub.feedback import KIND, MAX_BATCH
from moorage.wire.amqp import (
    ACCEPTED,
    RCV_SECOND,
    RELEASED,
    SND_SETTLED,
    DeliveryReceived,
    DispositionReceived,
    Error,
    Message,
    Modified,
    Outcome,
    Receiver,
    Rejected,
    Source,
    Timestamp,
)
from tests.support.amqp_peer import AmqpPeer, Refused
from tests.support.site import HUB_SCOPE, Site
from tests.support.streams import START

Call = Callable[..., AmqpPeer]
ADDRESS = "/messages/serviceBound/feedback"


@pytest.fixture
async def peer(site: Site, call: Call) -> AmqpPeer:
    """An open connection of a back end, to a hub with a device pump-7."""
    await site.add_device("pump-7")
    return await connected(site, call)


async def connected(site: Site, call: Call) -> AmqpPeer:
    peer = call()
    await peer.open()
    await peer.claim(site.token("service"))
    return peer


async def complete(site: Site, count: int = 1) -> None:
    """So many messages are sent to pump-7, and completed by it."""
    queues = site.identities.queues
    for number in range(count):
        content = Content(
            to="/devices/pump-7/messages/devicebound", body=b"", ack=Ack.FULL, message_id=str(number)
        )
        await queues.send("pump-7", None, content)
        lock = queues.take("pump-7", None)
        assert lock is not None
        await queues.complete(lock)


async def delivery(peer: AmqpPeer, link: Receiver) -> DeliveryReceived:
    return await peer.find(DeliveryReceived, lambda event: event.link is link)


def records(found: DeliveryReceived) -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = json.loads(Message.decode(found.message).payload)
    return parsed


async def kept(site: Site) -> int:
    return await site.store.records(KIND, HUB_SCOPE).count()


async def test_a_batch_as_clients_need_it(site: Site, peer: AmqpPeer) -> None:
    """.NET and Java fail one by one where something of it is missing [hub-service 27.17]."""
    link = await peer.attach_receiver(ADDRESS, credit=10)
    await complete(site, 2)
    peer.live(14.9)
    assert peer.seen(DeliveryReceived) == []
    peer.live(0.1)
    found = await delivery(peer, link)
    assert len(found.tag) == 16
    assert not found.settled
    message = Message.decode(found.message)
    assert message.properties is not None
    assert message.properties.content_type == "application/vnd.microsoft.iothub.feedback.json"
    assert message.properties.user_id == b"hub"
    annotations: Any = message.message_annotations
    assert annotations == {"iothub-enqueuedtime": START // 1000}
    assert isinstance(annotations["iothub-enqueuedtime"], Timestamp)
    identity = await site.identities.get("pump-7")
    assert records(found) == [
        {
            "originalMessageId": str(number),
            "description": "Success",
            "deviceGenerationId": identity.generation_id,
            "deviceId": "pump-7",
            "enqueuedTimeUtc": "2027-01-15T08:00:00.0000000Z",
            "statusCode": "Success",
        }
        for number in range(2)
    ]


async def test_a_batch_that_comes_due_while_it_is_looked_for(site: Site, peer: AmqpPeer) -> None:
    """The event loop's timers are good for a millisecond, and the clock is read more than once."""
    link = await peer.attach_receiver(ADDRESS, credit=10)
    await complete(site)
    now, looks = site.time.now, 0

    def in_passing() -> int:
        nonlocal looks
        looks += 1
        return now() - (looks <= 2)  # when the turn begins and when it takes it is a microsecond too early

    peer.live(14)
    site.time.now = in_passing  # type: ignore[method-assign]
    peer.live(1)
    assert len(records(await delivery(peer, link))) == 1


async def test_sixty_four_records_do_not_wait(site: Site, peer: AmqpPeer) -> None:
    link = await peer.attach_receiver(ADDRESS, credit=10)
    await complete(site, MAX_BATCH)
    assert len(records(await delivery(peer, link))) == MAX_BATCH


async def test_what_waited_before_the_link_comes_too_and_no_more_than_credit(
    site: Site, peer: AmqpPeer
) -> None:
    await complete(site, 2 * MAX_BATCH)
    link = await peer.attach_receiver(ADDRESS)
    peer.live(1)
    assert peer.seen(DeliveryReceived) == [], "credit 0 until asked, as .NET does"
    link.flow(1)
    await delivery(peer, link)
    peer.live(1)
    assert peer.seen(DeliveryReceived) == []
    link.flow(1)
    await delivery(peer, link)


@pytest.mark.parametrize("outcome", [ACCEPTED, Rejected(Error("amqp:not-allowed", ""))])
async def test_what_is_accepted_or_rejected_is_gone(site: Site, peer: AmqpPeer, outcome: Outcome) -> None:
    await complete(site)
    site.time.advance(15)
    link = await peer.attach_receiver(ADDRESS, credit=10)
    found = await delivery(peer, link)
    assert await kept(site) == 1
    link.settle(found.delivery_id, outcome)
    peer.turn()
    await site.time.until(lambda: not site.identities.feedback._batches)
    assert await kept(site) == 0
    peer.live(120)
    assert peer.seen(DeliveryReceived) == []


@pytest.mark.parametrize("outcome", [RELEASED, Modified()])
async def test_what_is_released_comes_again(site: Site, peer: AmqpPeer, outcome: Outcome) -> None:
    """Abandon is released with .NET and Java [hub-service 27.18]."""
    await complete(site)
    site.time.advance(15)
    link = await peer.attach_receiver(ADDRESS, credit=10)
    first = await delivery(peer, link)
    link.settle(first.delivery_id, outcome)
    again = await delivery(peer, link)
    assert records(again) == records(first)
    assert again.tag != first.tag


async def test_the_hub_settles_when_it_is_durable(site: Site, peer: AmqpPeer) -> None:
    """A receiver in settle mode second waits for that."""
    await complete(site)
    site.time.advance(15)
    link = await peer.attach_receiver(ADDRESS, credit=10)
    found = await delivery(peer, link)
    link.settle(found.delivery_id, ACCEPTED, settled=False)
    said = await peer.find(DispositionReceived)
    assert (said.delivery_id, said.settled, said.state) == (found.delivery_id, True, ACCEPTED)
    assert await kept(site) == 0
    assert RCV_SECOND == 1


async def test_a_receiver_that_wants_no_settlement_gets_each_batch_once(site: Site, peer: AmqpPeer) -> None:
    await complete(site)
    site.time.advance(15)
    session = peer.wire.sessions[0]
    link = session.attach_receiver("settled", Source(ADDRESS), snd_settle_mode=SND_SETTLED)
    link.flow(10)
    found = await delivery(peer, link)
    assert found.settled
    await site.time.until(lambda: not site.identities.feedback._batches)
    assert await kept(site) == 0


async def test_competing_receivers_share_the_batches(site: Site, call: Call, peer: AmqpPeer) -> None:
    other = await connected(site, call)
    links = [(each, await each.attach_receiver(ADDRESS, credit=1)) for each in (peer, other)]
    await complete(site, 2 * MAX_BATCH)
    batches = [records(await delivery(each, link)) for each, link in links]
    ids = [record["originalMessageId"] for batch in batches for record in batch]
    assert sorted(map(int, ids)) == list(range(2 * MAX_BATCH))


async def test_a_receiver_that_dies_leaves_its_batches_to_others(
    site: Site, call: Call, peer: AmqpPeer
) -> None:
    await complete(site, MAX_BATCH)
    link = await peer.attach_receiver(ADDRESS, credit=10)
    first = await delivery(peer, link)
    other = await connected(site, call)
    second = await other.attach_receiver(ADDRESS, credit=10)
    assert other.seen(DeliveryReceived) == []
    peer.stream.lose()
    assert records(await delivery(other, second)) == records(first)


async def test_a_lock_ends_after_a_minute(site: Site, call: Call, peer: AmqpPeer) -> None:
    await complete(site, MAX_BATCH)
    link = await peer.attach_receiver(ADDRESS, credit=1)
    first = await delivery(peer, link)
    other = await connected(site, call)
    second = await other.attach_receiver(ADDRESS, credit=10)
    site.time.advance(60)
    again = await delivery(other, second)
    assert records(again) == records(first)
    link.settle(first.delivery_id, ACCEPTED, settled=False)
    said = await peer.find(DispositionReceived)
    assert said.state == RELEASED, "too late"
    assert await kept(site) == MAX_BATCH


async def test_a_drain_gives_the_credit_back(peer: AmqpPeer) -> None:
    link = await peer.attach_receiver(ADDRESS)
    link.flow(5, drain=True)
    peer.turn()
    assert link.credit == 0


@pytest.mark.parametrize("policy", ["device", "registryReadWrite"])
async def test_it_takes_the_right_to_receive(site: Site, call: Call, policy: str) -> None:
    peer = call()
    await peer.open()
    await peer.claim(site.token(policy))
    with pytest.raises(Refused) as refused:
        await peer.attach_receiver(ADDRESS)
    assert refused.value.condition == "amqp:unauthorized-access"


async def test_nobody_sends_there(peer: AmqpPeer) -> None:
    with pytest.raises(Refused) as refused:
        await peer.attach_sender(ADDRESS)
    assert refused.value.condition == "amqp:not-implemented"


@pytest.mark.parametrize("name", ["filenotifications", "fileuploadnotifications"])
async def test_file_notifications_are_not_there(peer: AmqpPeer, name: str) -> None:
    with pytest.raises(Refused) as refused:
        await peer.attach_receiver(f"/messages/serviceBound/{name}")
    assert refused.value.condition == "amqp:not-implemented"
