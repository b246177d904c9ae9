"""One AMQP connection: the ways to open it, tokens, addresses that lead nowhere, and how it ends."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from moorage.adapters.amqp import CHANNEL_MAX, GOODBYE, MAX_CBS_LINKS, AmqpConversation
from moorage.adapters.claims import MAX_GRANTS, Grant, Grants
from moorage.adapters.links import address_path
from moorage.adapters.request_nodes import CREDIT
from moorage.credentials import policy
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.credentials.sas import make_token, new_key, parse_token
from moorage.errors import Unauthorized, Unavailable
from moorage.wire.amqp import (
    AmqpValue,
    ClientSasl,
    Closed,
    Int,
    LinkDetached,
    Message,
    Opened,
    Outcome,
    Properties,
    Rejected,
    SaslCode,
    SaslMechanisms,
    SaslOutcome,
    Sender,
    SessionEnded,
    Source,
    Target,
    UInt,
    ULong,
    conditions,
)
from moorage.wire.amqp.events import DispositionReceived
from moorage.wire.amqp.frames import encode_frame
from moorage.wire.amqp.performatives import Detach, Flow, encode_composite
from tests.support.amqp_peer import AmqpPeer, Refused, status
from tests.support.site import Site, certificate, failed_checks

Call = Callable[..., AmqpPeer]
READER = "moorage/ConsumerGroups/$Default/Partitions/0"
POLICY_USER = "iothubowner@sas.root.localhost"


@pytest.fixture
async def peer(call: Call) -> AmqpPeer:
    """An open connection without SASL, with one session, on which no token was shown."""
    peer = call()
    await peer.open()
    return peer


# --- Opening ------------------------------------------------------------------------------------------------


async def test_without_sasl(call: Call) -> None:
    """So come Node and .NET, and devices with certificates [hub-service 27.3]."""
    peer = call()
    peer.wire.open()
    opened = await peer.find(Opened)
    assert opened.open.channel_max == CHANNEL_MAX
    assert opened.open.max_frame_size == 65_536


@pytest.mark.parametrize("mechanism", ["EXTERNAL", "MSSBCBS", "ANONYMOUS"])
async def test_mechanisms_that_prove_nothing_yet(call: Call, mechanism: str) -> None:
    peer = call(sasl=ClientSasl(mechanism, b""))
    await peer.open()
    offered = await peer.find(SaslMechanisms)
    assert offered.mechanisms[:4] == ("EXTERNAL", "MSSBCBS", "ANONYMOUS", "PLAIN"), "or a client leaves"
    assert offered.mechanisms[4:] == ("TPM",)
    outcome = await peer.find(SaslOutcome)
    assert (outcome.code, outcome.additional_data) == (SaslCode.OK, None)


@pytest.mark.parametrize(
    "user",
    [
        "iothubowner@sas.root.localhost",
        "iothubowner@SAS.ROOT.localhost",
        "iothubowner@sas.root.",
        "iothubowner@sas.",
        "io@thub@sas.root.localhost:5671",
    ],
)
async def test_plain_with_the_token_of_a_policy(site: Site, call: Call, user: str) -> None:
    peer = call(sasl=ClientSasl.plain(user, site.token()))
    await peer.open()
    await peer.attach_receiver(READER)
    assert site.refusals() == []


async def test_plain_names_the_hub_where_open_does_not(site: Site, call: Call) -> None:
    peer = call(
        sasl=ClientSasl.plain(POLICY_USER, site.token(resource="localhost/messages/events")), hostname=None
    )
    await peer.open()
    await peer.attach_receiver(READER)


@pytest.mark.parametrize(
    ("user", "check", "subject"),
    [
        ("pump-7@sas.localhost", "possible", "pump-7"),
        ("pump-7/modules/m@sas.localhost", "possible", "pump-7"),
        ("a@b@sas.localhost", "possible", "a@b"),
        ("iothubowner", "user name", "iothubowner"),
        ("", "user name", ""),
    ],
)
async def test_plain_of_others_is_refused_in_words(
    site: Site, call: Call, user: str, check: str, subject: str
) -> None:
    peer = call(sasl=ClientSasl.plain(user, "SharedAccessSignature sr=x&sig=y&se=1"))
    peer.wire.open()
    assert (await peer.find(SaslOutcome)).code is SaslCode.AUTH
    await peer.ended()
    decision = site.refusal()
    assert (decision.operation, decision.subject) == ("connect", subject)
    assert failed_checks(decision) == [check]


async def test_plain_that_does_not_hold(site: Site, call: Call) -> None:
    good = site.token()
    cases = {
        "signature": make_token("localhost", new_key(), site.seconds + 60, "iothubowner"),
        "expiry": site.token(lifetime=-300),
        "policy known": make_token("localhost", new_key(), site.seconds + 60, "nobody"),
        "token form": "rubbish",
        "possible": site.device_token("pump-7", new_key()),
    }
    for check, password in cases.items():
        before = len(site.refusals())
        peer = call(sasl=ClientSasl.plain(POLICY_USER, password))
        peer.wire.open()
        assert (await peer.find(SaslOutcome)).code is SaslCode.AUTH
        assert "unauthorized-access" in await peer.ended()
        (decision,) = site.refusals()[before:]
        assert failed_checks(decision) == [check]
        assert decision.tracking_id == "ab" * 16
        assert good.partition("&sig=")[2][:20] not in repr(decision)


async def test_plain_that_cannot_be_judged_now_may_be_tried_again(
    site: Site, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*asked: object) -> None:
        raise Unavailable("the disk is slow")

    monkeypatch.setattr(AmqpConversation, "put_token", fail)
    peer = call(sasl=ClientSasl.plain(POLICY_USER, site.token()))
    peer.wire.open()
    assert (await peer.find(SaslOutcome)).code is SaslCode.SYS_TEMP


async def test_plain_that_is_none(site: Site, call: Call) -> None:
    peer = call(sasl=ClientSasl("PLAIN", b"no zero bytes"))
    peer.wire.open()
    assert (await peer.find(SaslOutcome)).code is SaslCode.AUTH
    await peer.ended()
    assert failed_checks(site.refusal()) == ["SASL PLAIN"]


async def test_what_is_sent_ahead_of_the_verdict_is_read_after_it(site: Site, call: Call) -> None:
    """A client may write header and open without waiting; we may not drop them."""
    source, twin = call(sasl=ClientSasl.anonymous()), call(sasl=ClientSasl.plain(POLICY_USER, site.token()))
    source.wire.open()
    # All that a client says up to open, in one piece: taken from one that was answered step by step.
    said = bytearray()
    feed = source.stream.feed

    def listen(data: bytes) -> None:
        said.extend(data)
        feed(data)

    source.stream.feed = listen  # type: ignore[method-assign]
    await source.find(Opened)
    opening = bytes(said)[bytes(said).index(b"AMQP\x00") :]
    twin.wire.open()
    twin.turn()
    twin.stream.feed(opening)
    assert b"AMQP\x00" not in twin.stream.take(), "the verdict needs the store"
    await site.time.until(lambda: b"AMQP\x00\x01\x00\x00" in twin.stream.take())


async def test_no_open_in_time(site: Site, call: Call) -> None:
    peer = call(sasl=ClientSasl.anonymous())
    site.time.advance(30)
    assert await peer.ended() == "no open in time"


async def test_an_open_connection_may_wait(site: Site, peer: AmqpPeer) -> None:
    site.time.advance(200)
    assert not peer.stream.over


# --- Tokens -------------------------------------------------------------------------------------------------


AN_ID = uuid.UUID("8e52e5dc-90a7-44c1-a99c-9f715b96c850")


@pytest.mark.parametrize(
    "message_id",
    [ULong(0), ULong(2**40), AN_ID, "an id", str(AN_ID), b"\x00\xff", None],
    ids=repr,
)
async def test_an_answer_repeats_the_message_id_with_its_type(
    site: Site, peer: AmqpPeer, message_id: Any
) -> None:
    """UUID in, UUID out: C takes ulong alone, Java and Python uuid alone [hub-service 27.5]."""
    answer = await peer.put_token(site.token(), message_id=message_id)
    assert answer.properties is not None
    correlation_id = answer.properties.correlation_id
    assert (correlation_id, type(correlation_id)) == (message_id, type(message_id))


async def test_a_token_that_holds_is_answered_by_an_int_200(site: Site, peer: AmqpPeer) -> None:
    answer = await peer.put_token(site.token())
    said = answer.application_properties or {}
    assert (said["status-code"], type(said["status-code"])) == (200, Int)
    assert said["status-description"] == "OK"


@pytest.mark.parametrize(
    "resource",
    [
        "localhost",
        "LOCALHOST:5671",
        "sb://localhost/moorage",
        "sb://localhost/MOORAGE/consumergroups/$default",
    ],
)
@pytest.mark.parametrize("text_key", [True, False], ids=["text of the key", "bytes of the key"])
async def test_tokens_of_all_clients(site: Site, peer: AmqpPeer, resource: str, text_key: bool) -> None:
    """Event Hubs clients sign with the text of the key [hub-service 27.38]."""
    await peer.claim(site.token("service", resource, text_key=text_key))
    await peer.attach_receiver(READER)


async def test_a_token_that_does_not_hold_leaves_the_links_open(site: Site, peer: AmqpPeer) -> None:
    cases = {
        "signature": make_token("localhost", new_key(), site.seconds + 60, "iothubowner"),
        "expiry": site.token(lifetime=-300),
        "policy known": make_token("localhost", new_key(), site.seconds + 60, "nobody"),
        "token form": "Bearer eyJ0",
    }
    for check, token in cases.items():
        before = len(site.refusals())
        answer = await peer.put_token(token)
        assert status(answer) == 401
        assert "ab" * 16 in (answer.application_properties or {})["status-description"]
        (decision,) = site.refusals()[before:]
        assert (decision.operation, failed_checks(decision)) == ("put-token", [check])
    assert status(await peer.put_token(site.token(lifetime=-299))) == 200
    assert peer.seen(LinkDetached) == []


async def test_the_token_of_a_device_is_refused_in_words(site: Site, peer: AmqpPeer) -> None:
    answer = await peer.put_token(site.device_token("pump-7", await site.add_device("pump-7")))
    assert status(answer) == 501
    assert "MQTT" in (answer.application_properties or {})["status-description"]
    decision = site.refusal()
    assert (decision.operation, decision.subject) == ("put-token", "pump-7")
    assert failed_checks(decision) == ["possible"]


async def test_a_token_for_a_hub_that_is_not_here(site: Site, call: Call) -> None:
    peer = call(hostname="elsewhere")
    await peer.open()
    token = make_token("sb://elsewhere/moorage", new_key(), site.seconds + 60, "iothubowner")
    assert status(await peer.put_token(token)) == 401
    assert failed_checks(site.refusal()) == ["known"]
    with pytest.raises(Refused, match="elsewhere"):
        await peer.attach_receiver(READER)


async def test_other_operations_and_bodies(site: Site, peer: AmqpPeer) -> None:
    assert status(await peer.request("$cbs", {"operation": "delete-token"})) == 400
    assert status(await peer.request("$cbs", {})) == 400
    for body in (None, b"bytes", {"a": 1.5}, UInt(7)):
        assert status(await peer.request("$cbs", {"operation": "put-token"}, body)) == 401
    await peer.claim(site.token())


async def test_a_request_that_is_no_message(site: Site, peer: AmqpPeer) -> None:
    await peer.claim(site.token())
    sender, _ = peer._nodes["$cbs"]
    sender.auto_settle = False
    sender.send(b"\x00", settled=False)
    answer = await peer.find(DispositionReceived)
    outcome = answer.state
    assert isinstance(outcome, Rejected)
    assert outcome.error is not None
    assert outcome.error.condition == conditions.DECODE_ERROR
    assert site.refusal().operation == "request"
    await peer.claim(site.token())


async def test_requests_are_accepted_and_answered_in_their_order(site: Site, peer: AmqpPeer) -> None:
    receiver = await peer.attach_receiver("$cbs", credit=100)
    sender = await peer.attach_sender("$cbs")
    for number in range(50):
        question = Message(
            properties=Properties(message_id=ULong(number)),
            application_properties={"operation": "put-token"},
            body=AmqpValue(site.token() if number % 2 else "rubbish"),
        )
        await site.time.until(lambda: _has_room(peer, sender))
        sender.send(question.encode(), settled=False)
    answers = await peer.messages(receiver, 50)
    assert [each.properties.correlation_id for each in answers if each.properties] == list(range(50))
    assert [status(each) for each in answers] == [401, 200] * 25
    outcomes: set[Outcome] = {each.state for each in peer.seen(DispositionReceived)}  # type: ignore[misc]
    assert len(outcomes) == 1


def _has_room(peer: AmqpPeer, sender: Sender) -> bool:
    peer.turn()
    return sender.sendable > 0


async def test_the_answer_goes_to_the_link_that_reply_to_names(site: Site, peer: AmqpPeer) -> None:
    """By link name or by target; without it, to the first one [hub-service 10.4]."""
    first = await peer.attach_receiver("$cbs", credit=10)
    named = await peer.attach_receiver("$CBS", target=Target("cbs-target"), credit=10)
    other = await peer.begin()
    foreign = await peer.attach_receiver("$cbs", session=other, credit=10)
    sender = await peer.attach_sender("amqps://localhost:5671/$cbs")
    for reply_to, expected in (("cbs-target", named), (named.name, named), ("cbs", first), (None, first)):
        question = Message(
            properties=Properties(message_id="1", reply_to=reply_to),
            application_properties={"operation": "put-token"},
            body=AmqpValue(site.token()),
        )
        sender.post(question.encode())
        await peer.messages(expected, 1)
    assert peer.waiting(foreign) == []


async def test_more_requests_than_there_is_credit_for(site: Site, peer: AmqpPeer) -> None:
    """Those sent settled get their credit back at once; they may still not pile up."""
    sender = await peer.attach_sender("$cbs")
    question = Message(
        application_properties={"operation": "put-token"}, body=AmqpValue(site.token())
    ).encode()
    sent = 0
    while sent < 5 * CREDIT and not [each for each in peer.seen(LinkDetached) if each.link is sender]:
        await site.time.until(lambda: _has_room(peer, sender) or not sender.live)
        sent += len(sender.send_many([question] * CREDIT))
    error = await peer.detached(sender)
    assert error is not None
    assert error.condition == conditions.RESOURCE_LIMIT_EXCEEDED
    await peer.claim(site.token())


async def test_a_failure_of_ours_costs_the_connection(
    site: Site, peer: AmqpPeer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(kind: object, scope: int) -> None:
        raise ZeroDivisionError

    sender = await peer.attach_sender("$cbs")
    monkeypatch.setattr(site.store, "records", fail)
    question = Message(application_properties={"operation": "put-token"}, body=AmqpValue(site.token()))
    sender.post(question.encode())
    assert await peer.ended() == "internal error: ZeroDivisionError"
    assert "ZeroDivisionError" in caplog.text


# --- Claims -------------------------------------------------------------------------------------------------


def granted(name: str, resource: str, expiry: int = 1000) -> Grant:
    (found,) = (each for each in policy.hub_policies() if each.name == name)
    return Grant(parse_token(make_token(resource, found.primary_key, expiry, name)), found)


def test_one_token_has_to_cover_it_and_to_have_the_right() -> None:
    grants = Grants()
    grants.add(granted("registryRead", "localhost"))
    grants.add(granted("service", "localhost/other"))
    for resource in ("localhost/moorage", "localhost/oth", "elsewhere/other"):
        with pytest.raises(Unauthorized):
            grants.require([resource], SERVICE_CONNECT, 0)
    grants.require(["localhost/moorage", "LOCALHOST/Other/more"], SERVICE_CONNECT, 0)


def test_a_later_token_takes_the_place_of_an_earlier() -> None:
    grants = Grants()
    grants.add(granted("service", "localhost", expiry=1000))
    grants.add(granted("service", "localhost", expiry=5000))
    assert grants.next_end(0) == 5_300_000_000
    grants.add(granted("registryRead", "localhost", expiry=5000))
    with pytest.raises(Unauthorized, match="does not have the right ServiceConnect"):
        grants.require(["localhost"], SERVICE_CONNECT, 0)


def test_a_token_counts_for_minutes_past_its_expiry() -> None:
    grants = Grants()
    grants.add(granted("service", "localhost", expiry=1000))
    grants.require(["localhost"], SERVICE_CONNECT, 1_299_999_999)
    with pytest.raises(Unauthorized, match="has expired"):
        grants.require(["localhost"], SERVICE_CONNECT, 1_300_000_000)
    assert grants.next_end(1_299_999_999) == 1_300_000_000
    assert grants.next_end(1_300_000_000) is None


def test_a_connection_shows_only_so_many_tokens() -> None:
    grants = Grants()
    grant = granted("service", "localhost")
    for number in range(MAX_GRANTS):
        token = parse_token(make_token(f"localhost/{number}", new_key(), 1000, "service"))
        grants.add(Grant(token, grant.policy))
    with pytest.raises(Unauthorized, match="at most 1000"):
        grants.add(grant)
    grants.add(granted("service", "localhost/7"))


# --- Addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("a/b", ["a", "b"]),
        ("/a/b", ["a", "b"]),
        ("a/b/", ["a", "b"]),
        ("amqps://host:5671/A/b", ["A", "b"]),
        ("AMQPS://host/a", ["a"]),
        ("amqps://host", []),
        ("", []),
        (None, []),
        (7, []),
        (b"a/b", []),
    ],
)
def test_an_address_is_a_path_however_it_is_written(address: object, path: list[str]) -> None:
    assert address_path(address) == path


@pytest.mark.parametrize(
    ("address", "condition", "code", "subject"),
    [
        ("unknown/address", conditions.NOT_FOUND, 404006, "unknown/address"),
        ("$unknown", conditions.NOT_FOUND, 404006, "$unknown"),
        ("", conditions.NOT_FOUND, 404006, ""),
        (UInt(7), conditions.NOT_FOUND, 404006, ""),
        ("/devices/pump-7/messages/events", conditions.NOT_IMPLEMENTED, 501000, "pump-7"),
        ("amqps://localhost/devices/dev%2B1/twin", conditions.NOT_IMPLEMENTED, 501000, "dev%2B1"),
        ("0ne00ABCDEF/registrations", conditions.NOT_FOUND, 404006, "0ne00ABCDEF/registrations"),
        (
            "/messages/serviceBound/fileNotifications",
            conditions.NOT_IMPLEMENTED,
            501000,
            "messages/serviceBound/fileNotifications",
        ),
    ],
)
@pytest.mark.parametrize("role", ["receiver", "sender"])
async def test_addresses_that_lead_nowhere(
    site: Site, call: Call, address: Any, condition: str, code: int, subject: str, role: str
) -> None:
    leaf = certificate("pump-7")
    peer = call(chain=[leaf.der])
    await peer.open()
    attach = peer.attach_receiver if role == "receiver" else peer.attach_sender
    with pytest.raises(Refused) as refused:
        await attach(address)
    assert refused.value.condition == condition
    told = json.loads(refused.value.description)
    assert (told["errorCode"], told["trackingId"]) == (code, "ab" * 16)
    decision = site.refusal()
    assert (decision.operation, decision.subject, decision.tracking_id) == ("attach", subject, "ab" * 16)
    assert decision.proof["chain"][0]["sha256Thumbprint"] == leaf.sha256
    await peer.attach_receiver("$cbs")


async def test_a_link_without_a_source(peer: AmqpPeer) -> None:
    with pytest.raises(Refused):
        await peer.attach_receiver(None, source=Source(None))


# --- How it ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a protocol header"),
        (b"AMQP\x00\x01\x00\x00\x7f\xff\xff\xff\x02\x00\x00\x00", "frame of 2147483647 bytes"),
        (b"AMQP\x00\x01\x00\x00\x00\x00\x00\x0c\x02\x00\x00\x00\x00\x53\xff\x40", "amqp:decode-error"),
        (b"AMQP\x03\x01\x00\x00\x00\x00\x00\x08\x02\x00\x00\x00", "type 0 out of place"),
    ],
    ids=["http", "oversized", "garbage", "not SASL"],
)
async def test_a_peer_that_breaks_the_protocol(site: Site, call: Call, data: bytes, why: str) -> None:
    peer = call()
    peer.stream.feed(data)
    assert why in await peer.ended()
    decision = site.refusal()
    assert (decision.operation, decision.tracking_id) == ("connection", "ab" * 16)
    assert why in decision.error


async def test_a_session_that_breaks_the_protocol(site: Site, peer: AmqpPeer) -> None:
    """That ends the session, and no other one."""
    broken, other = peer.wire.sessions[0], await peer.begin()
    astray = Flow(incoming_window=10, next_outgoing_id=1, outgoing_window=10, handle=9)
    peer.stream.feed(encode_frame(encode_composite(astray), channel=broken.channel))
    ended = await peer.find(SessionEnded)
    assert ended.session is broken
    assert ended.error is not None
    assert ended.error.condition == conditions.UNATTACHED_HANDLE
    assert site.refusal().operation == "session"
    await peer.attach_receiver("$cbs", session=other)


async def test_a_detach_behind_the_end_of_its_session_is_passed_over(site: Site, peer: AmqpPeer) -> None:
    """Normal traffic of pyamqp [hub-service 27.7]."""
    over = await peer.begin()
    link = await peer.attach_receiver("$cbs", session=over)
    over.end()
    await peer.find(SessionEnded, lambda event: event.session is over)
    late = encode_composite(Detach(handle=link.handle, closed=True))
    peer.stream.feed(encode_frame(late, channel=over.channel))
    await peer.claim(site.token())
    assert site.refusals() == []


async def test_links_are_not_to_be_had_without_end(
    site: Site, peer: AmqpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.adapters.amqp.MAX_CBS_LINKS", 10_000)
    session = peer.wire.sessions[0]
    for number in range(1100):
        session.attach_receiver(f"receiver-{number}", Source("$cbs"))
    ended = await peer.find(SessionEnded)
    assert ended.error is not None
    assert "too many links" in (ended.error.description or "")
    assert "too many links" in site.refusal().error


async def test_a_peer_hears_from_us_as_often_as_it_wants(site: Site, call: Call) -> None:
    """rhea and uamqp leave a connection that is silent for longer [hub-service 27.36]."""
    peer = call(idle_timeout_ms=10_000)
    await peer.open()
    peer.stream.take()
    for _ in range(4):
        site.time.advance(5)
        assert peer.stream.take() == b"\x00\x00\x00\x08\x02\x00\x00\x00"


async def test_there_is_one_timer_however_long_it_lasts(site: Site, call: Call) -> None:
    peer = call(idle_timeout_ms=10_000)
    await peer.open()
    site.time.advance(100)
    assert len([each for each in peer.stream._timers if not each.cancelled and each.due > 100]) == 1


async def test_a_silent_peer_is_left(site: Site, call: Call) -> None:
    peer = call()
    await peer.open()
    site.time.advance(479)
    assert peer.stream.reason is None
    site.time.advance(121)
    assert "nothing was received for 480 seconds" in await peer.ended()
    assert site.refusals() == [], "silence breaks no rule"


async def test_a_peer_that_closes(site: Site, peer: AmqpPeer) -> None:
    peer.wire.close()
    assert await peer.ended() == "AMQP close"
    assert site.refusals() == []


async def test_a_stop_of_the_server(site: Site, peer: AmqpPeer) -> None:
    peer.stream.stop()
    closed = await peer.find(Closed)
    assert closed.error is not None
    assert closed.error.condition == conditions.CONNECTION_FORCED
    assert await peer.ended() == "server stop"
    assert site.refusals() == []


async def test_a_stop_does_not_wait_for_a_peer_that_does_not_answer(site: Site, peer: AmqpPeer) -> None:
    peer.stream.stop()
    assert peer.stream.reason is None
    site.time.advance(GOODBYE)
    assert peer.stream.reason == "server stop"


async def test_a_stop_before_open(call: Call) -> None:
    peer = call()
    peer.stream.stop()
    assert await peer.ended() == "server stop"


async def test_a_lost_connection_takes_its_work_along(site: Site, peer: AmqpPeer) -> None:
    before = len(asyncio.all_tasks())
    sender = await peer.attach_sender("$cbs")
    question = Message(application_properties={"operation": "put-token"}, body=AmqpValue(site.token()))
    sender.send_many([question.encode()] * 20)
    peer.turn()
    peer.stream.lose()
    await peer.ended()
    await site.time.until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_peer_nobody_knows_yet_has_a_few_links_to_show_its_token(site: Site, peer: AmqpPeer) -> None:
    for _ in range(MAX_CBS_LINKS):
        await peer.attach_sender("$cbs")
    with pytest.raises(Refused, match="no more than 16 links"):
        await peer.attach_sender("$cbs")
    assert site.refusal().operation == "attach"
