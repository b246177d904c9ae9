"""Back ends send cloud-to-device messages over AMQP: what is kept, what is refused, and who may."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from moorage.adapters.cloud_to_device_amqp import CREDIT, read_body, recipients
from moorage.errors import Invalid
from moorage.hub.cloud_to_device import MAX_MESSAGE, CloudToDeviceMessage
from moorage.wire.amqp import (
    ACCEPTED,
    AmqpSequence,
    AmqpValue,
    ClientSasl,
    Data,
    DispositionReceived,
    Float,
    Int,
    Message,
    Outcome,
    Properties,
    Rejected,
    Sender,
    ULong,
)
from tests.support.amqp_peer import AmqpPeer, Refused
from tests.support.site import Site

Call = Callable[..., AmqpPeer]
TO = "/devices/pump-7/messages/devicebound"
UUID_TEXT = "5d1f0c6a-8e7b-4c34-a0b1-c2d3e4f50617"


@pytest.fixture
async def peer(site: Site, call: Call) -> AmqpPeer:
    """An open connection of a back end that may send, to a hub with a device pump-7."""
    await site.add_device("pump-7")
    peer = call()
    await peer.open()
    await peer.claim(site.token("service"))
    return peer


@pytest.fixture
async def link(peer: AmqpPeer) -> Sender:
    link = await peer.attach_sender("/messages/devicebound")
    await peer.may_send(link)
    return link


def message(body: Any = b"x", *, to: Any = TO, named: dict[str, Any] | None = None, **members: Any) -> bytes:
    properties = Properties(to=to, **members)
    made = Data.of(body) if isinstance(body, bytes) else body
    return Message(properties=properties, application_properties=named, body=made).encode()


async def outcome(peer: AmqpPeer, link: Sender, *messages: bytes) -> list[Outcome]:
    """What the hub says to each of them, sent at once."""
    ids = link.send_many(messages, settled=False)
    assert len(ids) == len(messages)
    found = [await peer.find(DispositionReceived, lambda event, n=n: event.delivery_id == n) for n in ids]  # type: ignore[misc]
    return [each.state for each in found]  # type: ignore[misc]


async def kept(site: Site, name: str = "pump-7") -> tuple[CloudToDeviceMessage, bytes]:
    """The next message of the device, which is completed by that."""
    queues = site.identities.queues
    lock = queues.take(name, None)
    assert lock is not None
    body = await queues.body(lock.message)
    assert body is not None
    await queues.complete(lock)
    return lock.message, body


def told(rejected: Outcome) -> tuple[str, int]:
    """Condition, and the code in the description [hub-service 4.1, shape C]."""
    assert isinstance(rejected, Rejected)
    assert rejected.error is not None
    detail = json.loads(rejected.error.description or "")
    assert set(detail) == {"errorCode", "trackingId", "message", "timestampUtc", "info"}
    return rejected.error.condition, detail["errorCode"]


# --- What is kept -------------------------------------------------------------------------------------------


async def test_a_message_is_kept_as_it_was_sent(site: Site, peer: AmqpPeer, link: Sender) -> None:
    expiry = site.time.now() // 1000 + 60_000
    sent = message(
        bytes(range(256)),
        to="/devices/pump-7/messages/deviceBound",
        message_id="m-1",
        correlation_id="c-1",
        user_id=b"ann",
        content_type="application/json",
        content_encoding="utf-8",
        absolute_expiry_time=expiry,
        named={"z": "1", "iothub-ack": "full", "a": "ü&=/ %", "empty": "", "none": None},
    )
    assert await outcome(peer, link, sent) == [ACCEPTED]
    found, body = await kept(site)
    assert body == bytes(range(256))
    assert found.to == "/devices/pump-7/messages/deviceBound", "clients compare it as it was written"
    assert (found.message_id, found.correlation_id, found.user_id) == ("m-1", "c-1", "ann")
    assert (found.content_type, found.content_encoding) == ("application/json", "utf-8")
    assert found.absolute_expiry_time == found.expires_at == expiry * 1000
    assert found.ack == "full"
    assert found.properties == (("z", "1"), ("a", "ü&=/ %"), ("empty", ""), ("none", None))


async def test_values_of_other_types_keep_their_text(site: Site, peer: AmqpPeer, link: Sender) -> None:
    """Python passes an int on as one, Node an id that looks like a UUID as one [hub-service 11]."""
    named = {"int": Int(-7), "yes": True, "float": Float(0.5), "bytes": b"b", "uuid": UUID(UUID_TEXT)}
    sent = message(message_id=UUID(UUID_TEXT), correlation_id=ULong(8), named=named)
    assert await outcome(peer, link, sent) == [ACCEPTED]
    found, _ = await kept(site)
    assert (found.message_id, found.correlation_id) == (UUID_TEXT, "8")
    assert dict(found.properties) == {
        "int": "-7",
        "yes": "true",
        "float": "0.5",
        "bytes": "b",
        "uuid": UUID_TEXT,
    }


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (None, b""),
        (Data(()), b""),
        (Data.of(b""), b""),
        (Data((b"a", b"b")), b"ab"),
        (AmqpValue("ü"), "ü".encode()),
        (AmqpValue(b"\x00"), b"\x00"),
        (AmqpValue(None), b""),
    ],
    ids=["none", "no section", "empty", "two sections", "text", "binary", "null"],
)
async def test_bodies(site: Site, peer: AmqpPeer, link: Sender, body: Any, payload: bytes) -> None:
    assert await outcome(peer, link, message(body)) == [ACCEPTED]
    assert (await kept(site))[1] == payload


async def test_many_at_once_keep_their_order(site: Site, peer: AmqpPeer, link: Sender) -> None:
    bodies = [b"%d" % number for number in range(50)]
    assert await outcome(peer, link, *[message(body) for body in bodies]) == [ACCEPTED] * 50
    assert [(await kept(site))[1] for _ in bodies] == bodies


async def test_a_message_sent_settled_is_kept_too(site: Site, peer: AmqpPeer, link: Sender) -> None:
    link.send_many([message(b"a")])
    peer.turn()
    await site.time.until(lambda: site.identities.queues.count("pump-7") == 1)


async def test_a_sender_that_is_gone_does_not_take_its_message_back(
    site: Site, peer: AmqpPeer, link: Sender
) -> None:
    link.send_many([message(b"a")], settled=False)
    peer.turn()
    peer.stream.lose()
    await site.time.until(lambda: site.identities.queues.count("pump-7") == 1)


async def test_ids_in_every_writing(site: Site, peer: AmqpPeer, link: Sender) -> None:
    """[hub-service 27.16]"""
    await site.add_device("x#+1")
    await site.add_device("a%41")
    written = {
        "/devices/x#+1/messages/devicebound": "x#+1",
        "devices/x%23%2B1/messages/deviceBound": "x#+1",
        "amqps://localhost/devices/x%23+1/Messages/devicebound": "x#+1",
        "/devices/a%41/messages/devicebound": "a%41",
        "/devices/a%2541/messages/devicebound": "a%41",
    }
    for to, device_id in written.items():
        assert await outcome(peer, link, message(to=to)) == [ACCEPTED], to
        assert (await kept(site, device_id))[0].to == to


# --- What is refused ----------------------------------------------------------------------------------------


async def test_a_device_that_is_not_there(site: Site, peer: AmqpPeer, link: Sender) -> None:
    (answer,) = await outcome(peer, link, message(to="/devices/pump-8/messages/devicebound"))
    assert told(answer) == ("amqp:not-found", 404001)
    refusal = site.refusal()
    assert (refusal.subject, refusal.operation) == ("pump-8", "cloud-to-device message")
    assert refusal.tracking_id == peer.stream.tracking_id


async def test_a_module_that_is_not_there(peer: AmqpPeer, link: Sender) -> None:
    (answer,) = await outcome(peer, link, message(to="/devices/pump-7/modules/a/messages/deviceBound"))
    assert told(answer) == ("amqp:not-found", 404010)


@pytest.mark.parametrize("to", [None, "", "pump-7", "/devices/pump-7", "/devices/pump-7/messages/events"])
async def test_no_recipient(peer: AmqpPeer, link: Sender, to: str | None) -> None:
    (answer,) = await outcome(peer, link, message(to=to))
    assert told(answer) == ("com.microsoft:argument-error", 400003)
    assert isinstance(answer, Rejected)
    assert "Amqp Message.Properties.To must contain the device identifier" in str(answer.error)


async def test_a_full_queue(site: Site, peer: AmqpPeer, link: Sender) -> None:
    answers = await outcome(peer, link, *[message()] * 51)
    assert answers[:50] == [ACCEPTED] * 50
    assert told(answers[50]) == ("amqp:resource-limit-exceeded", 403004)
    assert site.refusal().subject == "pump-7"


async def test_the_size_limit(site: Site, peer: AmqpPeer, link: Sender) -> None:
    """Node's suite sends 65,024 bytes with success [hub-service 11]."""
    answers = await outcome(peer, link, message(b"x" * 65_024), message(b"x" * MAX_MESSAGE))
    assert answers[0] == ACCEPTED
    assert told(answers[1]) == ("amqp:link:message-size-exceeded", 413001)
    assert await outcome(peer, link, message(b"the link lives on")) == [ACCEPTED]


async def test_an_expiry_that_cannot_be(site: Site, peer: AmqpPeer, link: Sender) -> None:
    now = site.time.now() // 1000
    for expiry in (now - 1, now + 2 * 86_400_000 + 1):
        (answer,) = await outcome(peer, link, message(absolute_expiry_time=expiry))
        assert told(answer) == ("com.microsoft:argument-error", 403009)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"named": {"iothub-ack": "maybe"}}, 400004),
        ({"named": {"list": [Int(1)]}}, 400004),
        ({"body": AmqpValue(Int(1))}, 400006),
    ],
)
async def test_what_cannot_be_read(peer: AmqpPeer, link: Sender, members: dict[str, Any], code: int) -> None:
    (answer,) = await outcome(peer, link, message(**members))
    assert told(answer) == ("com.microsoft:argument-error", code)


async def test_garbage_costs_itself_only(peer: AmqpPeer, link: Sender) -> None:
    (answer,) = await outcome(peer, link, b"\x00\x53\x75\xff")
    assert isinstance(answer, Rejected)
    assert answer.error is not None
    assert answer.error.condition == "amqp:decode-error"
    assert await outcome(peer, link, message()) == [ACCEPTED]


async def test_messages_sent_settled_cannot_pile_up(peer: AmqpPeer, link: Sender) -> None:
    for _ in range(3):  # without giving the hub time to do any
        link.send_many([message()] * CREDIT)
        peer.turn()
    error = await peer.detached(link)
    assert error is not None
    assert error.condition == "amqp:resource-limit-exceeded"


def test_sequences_are_no_body() -> None:
    assert read_body(Message(body=AmqpSequence(([],)))) == b""


def test_recipients() -> None:
    assert recipients("/devices/a/modules/b%2F/messages/devicebound") == [("a", "b%2F"), ("a", "b/")]
    with pytest.raises(Invalid):
        recipients("/messages/devicebound")


# --- Who may ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["device", "registryReadWrite"])
async def test_it_takes_the_right_to_send(site: Site, call: Call, policy: str) -> None:
    peer = call()
    await peer.open()
    await peer.claim(site.token(policy))
    with pytest.raises(Refused) as refused:
        await peer.attach_sender("/messages/devicebound")
    assert refused.value.condition == "amqp:unauthorized-access"


async def test_without_a_token_nobody_sends(call: Call) -> None:
    peer = call()
    await peer.open()
    with pytest.raises(Refused) as refused:
        await peer.attach_sender("amqps://localhost/messages/devicebound")
    assert refused.value.condition == "amqp:unauthorized-access"


@pytest.mark.parametrize("address", ["messages/deviceBound", "amqps://localhost/messages/devicebound"])
async def test_over_sasl_plain(site: Site, call: Call, address: str) -> None:
    """As `az iot` and the Go clients come [hub-service 10.1]."""
    await site.add_device("pump-7")
    peer = call(sasl=ClientSasl.plain("service@sas.root.hub", site.token("service")))
    await peer.open()
    link = await peer.attach_sender(address)
    await peer.may_send(link)
    assert await outcome(peer, link, message()) == [ACCEPTED]


async def test_nobody_receives_there(peer: AmqpPeer) -> None:
    with pytest.raises(Refused) as refused:
        await peer.attach_receiver("/messages/devicebound")
    assert refused.value.condition == "amqp:not-implemented"


async def test_the_right_may_end(site: Site, peer: AmqpPeer, link: Sender) -> None:
    peer.live(3600 + 300 + 1)
    error = await peer.detached(link)
    assert error is not None
    assert error.condition == "amqp:unauthorized-access"
