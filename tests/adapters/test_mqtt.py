"""What both dialects of MQTT share: CONNECT, keep-alive, and what a fault on the wire leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from moorage.adapters.hub_mqtt import HubMqttDoor
from moorage.adapters.mqtt import Dialect, MqttConversation, request_id
from moorage.errors import Invalid
from moorage.hub.session import Principal
from moorage.interfaces import ByteStream
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import MAX_PACKET
from moorage.wire.mqtt.packets import ConnAck, PingResp, PubAck, SubAck
from tests.support.mqtt_peer import MqttPeer, connect, publish
from tests.support.site import Site, failed_checks

Arrive = Callable[..., MqttPeer]
EVENTS = "devices/pump-7/messages/events/"


@pytest.fixture
async def token(site: Site) -> str:
    """Of the device pump-7."""
    return site.device_token("pump-7", await site.add_device("pump-7"))


@pytest.fixture
async def peer(arrive: Arrive, token: str) -> MqttPeer:
    """The connected device pump-7, keep-alive 60 s."""
    peer = arrive()
    peer.send(connect("pump-7", token))
    await peer.expect(ConnAck)
    return peer


# --- Before CONNECT ---------------------------------------------------------------------------------------


async def test_no_connect_in_time(site: Site, arrive: Arrive) -> None:
    peer = arrive()
    site.time.advance(29.9)
    assert not peer.stream.over
    site.time.advance(0.1)
    assert await peer.ended() == "no CONNECT in time"


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (publish(EVENTS), "PUBLISH before CONNECT"),
        (packets.encode_pingreq(), "PINGREQ before CONNECT"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "before CONNECT"),
        (b"\x10\xff\xff\xff\x7f", "limit is 65536"),
        (b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x3c\x00\x00", "reserved CONNECT flag"),
        (b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x3c\x00\x00", "protocol name"),
    ],
    ids=["publish", "ping", "http", "oversized", "reserved flag", "protocol name"],
)
async def test_what_is_no_connect_gets_no_answer_and_leaves_a_record(
    site: Site, arrive: Arrive, first: bytes, why: str
) -> None:
    peer = arrive(chain=())
    peer.send(first)
    assert why in await peer.ended()
    decision = site.refusal()
    assert (decision.operation, decision.known, decision.tracking_id) == ("connect", False, "ab" * 16)
    assert failed_checks(decision) == ["packet"]
    assert why in decision.error


@pytest.mark.parametrize(("name", "level"), [("MQTT", 5), ("MQTT", 3), ("MQIsdp", 3)])
async def test_another_version_of_mqtt_is_told_so(site: Site, arrive: Arrive, name: str, level: int) -> None:
    peer = arrive()
    peer.send(connect("pump-7", None, protocol_name=name, protocol_level=level))
    assert await peer.expect(ConnAck) == ConnAck(1)
    assert await peer.ended() == f"protocol: {name} level {level} is not MQTT 3.1.1"
    assert failed_checks(site.refusal()) == ["protocol"]


async def test_a_connect_in_crumbs(arrive: Arrive, token: str) -> None:
    peer = arrive()
    for byte in connect("pump-7", token):
        peer.send(bytes((byte,)))
    assert await peer.expect(ConnAck) == ConnAck(0)


# --- While CONNECT is judged --------------------------------------------------------------------------------


async def test_what_comes_ahead_of_connack_is_answered_behind_it(arrive: Arrive, token: str) -> None:
    peer = arrive()
    peer.send(connect("pump-7", token), publish(EVENTS, b"1", 1), packets.encode_pingreq())
    assert not peer.stream.reading
    await peer.expect(ConnAck)
    await peer.expect(PingResp)
    assert await peer.expect(PubAck) == PubAck(1)
    assert peer.stream.reading


async def test_a_fault_behind_connect_is_found_after_connack(site: Site, arrive: Arrive, token: str) -> None:
    peer = arrive()
    peer.send(connect("pump-7", token), publish(EVENTS, b"1", 1), b"\x00\x00")
    await peer.expect(ConnAck)
    assert await peer.expect(PubAck) == PubAck(1)
    assert "type 0" in await peer.ended()
    assert failed_checks(site.refusal()) == ["packet"]
    assert site.payloads() == [b"1"]


async def test_a_device_that_leaves_at_once_has_said_what_it_said(
    site: Site, arrive: Arrive, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, authenticate = asyncio.Event(), site.identities.authenticate

    async def judge_later(device_id: str, **proof: Any) -> Principal:
        await judged.wait()
        return await authenticate(device_id, **proof)

    monkeypatch.setattr(site.identities, "authenticate", judge_later)
    peer = arrive()
    peer.send(connect("pump-7", token), publish(EVENTS, b"1"))
    peer.stream.lose()
    await peer.ended()
    judged.set()
    await site.time.until(site.payloads)
    assert site.payloads() == [b"1"]
    assert site.sessions.connected("pump-7") is None


async def test_what_stands_behind_a_refused_connect_does_not_count(site: Site, arrive: Arrive) -> None:
    peer = arrive()
    peer.send(connect("nobody", None), publish("devices/nobody/messages/events/", b"1", 1))
    assert await peer.expect(ConnAck) == ConnAck(5)
    await peer.ended()
    assert site.payloads() == []


async def test_a_failure_of_ours_is_no_verdict_on_the_device(
    site: Site, hub_door: HubMqttDoor, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(stream: ByteStream, connect: packets.Connect) -> Dialect | None:
        raise ZeroDivisionError

    peer = MqttPeer(
        site.time,
        lambda stream: MqttConversation(
            stream, lambda connect: fail, connect_timeout=30, note_refusal=hub_door.note_refusal
        ),
    )
    peer.send(connect("pump-7", None))
    assert await peer.expect(ConnAck) == ConnAck(3), "the device is to try again"
    await peer.ended()
    assert site.refusal().subject == "pump-7"
    assert "ZeroDivisionError" in caplog.text


async def test_without_records_a_refusal_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def nobody(stream: ByteStream, connect: packets.Connect) -> Dialect | None:
        raise AssertionError("there was no CONNECT")

    peer = MqttPeer(
        site.time, lambda stream: MqttConversation(stream, lambda connect: nobody, connect_timeout=30)
    )
    peer.send(b"\x00\x00")
    await peer.ended()
    assert "connection refused" in caplog.text


# --- Faults, and other ends ---------------------------------------------------------------------------------


async def test_a_second_connect_closes(site: Site, peer: MqttPeer) -> None:
    peer.send(connect("pump-7", None))
    assert "second CONNECT" in await peer.ended()
    decision = site.refusal()
    assert (decision.operation, decision.subject, decision.known) == ("connection", "pump-7", True)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x30" + packets.encode_remaining_length(MAX_PACKET) + b"\x00" * 5, "the limit is"),
        (b"\x32\x02\x00\x00", "topic name is empty"),
        (packets.encode_pingresp(), "PINGRESP from the wrong end"),
        (b"\x82\x05\x00\x01\x00\x00\x00", "topic filter is empty"),
        (b"\x80\x05\x00\x01\x00\x00\x00", "SUBSCRIBE with flags 0x0"),
    ],
    ids=["oversized", "empty topic", "from the server", "empty filter", "flags"],
)
async def test_a_malformed_packet_ends_the_connection_behind_what_was_sound(
    site: Site, peer: MqttPeer, data: bytes, why: str
) -> None:
    peer.send(publish(EVENTS, b"sound", 7), data)
    assert await peer.expect(PubAck) == PubAck(7)
    assert why in await peer.ended()
    decision = site.refusal()
    assert failed_checks(decision) == ["packet"]
    assert why in decision.error
    assert site.payloads() == [b"sound"]


async def test_nothing_is_read_behind_a_fault(site: Site, peer: MqttPeer) -> None:
    site.disk.hold()
    peer.send(publish(EVENTS, b"sound", 7), b"\x00\x00")
    peer.send(publish(EVENTS, b"late", 8))
    site.disk.release()
    await peer.expect(PubAck)
    await peer.ended()
    assert site.payloads() == [b"sound"]


async def test_disconnect_closes_behind_what_is_on_its_way(site: Site, peer: MqttPeer) -> None:
    peer.send(publish(EVENTS, b"last", 9), packets.encode_disconnect())
    assert await peer.expect(PubAck) == PubAck(9)
    assert await peer.ended() == "DISCONNECT"
    assert site.refusals() == []


async def test_a_stop_of_the_server_closes_behind_what_is_on_its_way(site: Site, peer: MqttPeer) -> None:
    site.disk.hold()
    peer.send(publish(EVENTS, b"1", 1))
    await site.time.until(lambda: site.disk.waiting)
    peer.stream.stop()
    site.disk.release()
    assert await peer.expect(PubAck) == PubAck(1)
    assert await peer.ended() == "server stop"
    assert site.refusals() == []


async def test_a_stop_of_the_server_before_connect(arrive: Arrive) -> None:
    peer = arrive()
    peer.stream.stop()
    assert await peer.ended() == "server stop"


# --- Keep-alive ---------------------------------------------------------------------------------------------


async def test_a_silent_device_is_cut_after_half_as_long_again(site: Site, peer: MqttPeer) -> None:
    site.time.advance(89)
    assert not peer.stream.over
    site.time.advance(1)
    assert await peer.ended() == "keep-alive missed: nothing received for 90 s"
    assert site.refusals() == [], "silence breaks no rule"


async def test_any_packet_counts(site: Site, peer: MqttPeer) -> None:
    for packet in (packets.encode_pingreq(), publish(EVENTS), packets.encode_subscribe(1, [("a", 0)])):
        site.time.advance(89)
        peer.send(packet)
    site.time.advance(89)
    await peer.expect(PingResp)
    await peer.expect(SubAck)
    assert not peer.stream.over


@pytest.mark.parametrize("keep_alive", [0, 1740, 65_535], ids=["none", "Python's highest", "highest"])
async def test_the_longest_silence(site: Site, arrive: Arrive, token: str, keep_alive: int) -> None:
    """A device may connect and then say nothing for as long as this."""
    peer = arrive()
    peer.send(connect("pump-7", token, keep_alive=keep_alive))
    await peer.expect(ConnAck)
    site.time.advance(1766.9)
    assert not peer.stream.over
    site.time.advance(0.1)
    assert await peer.ended() == "keep-alive missed: nothing received for 1767 s"


async def test_silence_that_is_of_our_making_does_not_count(site: Site, peer: MqttPeer) -> None:
    site.disk.hold()
    for number in range(1, 6):
        peer.send(publish(EVENTS, b"x" * 250_000, number))
    assert not peer.stream.reading
    peer.send(packets.encode_pingreq())  # waits to be read
    site.time.advance(1000)
    assert not peer.stream.over
    site.disk.release()
    for number in range(1, 6):
        assert await peer.expect(PubAck) == PubAck(number)
    await peer.expect(PingResp)
    site.time.advance(89)
    assert not peer.stream.over


async def test_what_waits_to_be_read_after_a_stall_of_the_server_counts(site: Site, peer: MqttPeer) -> None:
    """Timers that have come due meanwhile may be called before it is read."""
    site.time.call_later(90, lambda: peer.send(packets.encode_pingreq()))
    site.time.advance(90)
    await peer.expect(PingResp)
    site.time.advance(89)
    assert not peer.stream.over
    site.time.advance(1)
    assert await peer.ended() == "keep-alive missed: nothing received for 90 s"


# --- Request topics -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "rid"),
    [
        ("$iothub/twin/GET/?$rid=1", "1"),
        ("$iothub/twin/GET/?$rid=a%20b%2F&$version=3", "a%20b%2F"),
        ("$iothub/twin/GET/?$version=3&$rid=7", "7"),
        ("$iothub/twin/GET/?$rid=", ""),
        ("$iothub/twin/GET/?$rid=a=b?c", "a=b?c"),
        ("$iothub/twin/GET/", None),
        ("$iothub/twin/GET/?x$rid=1", None),
    ],
)
def test_the_request_id_is_what_the_device_wrote(topic: str, rid: str | None) -> None:
    assert request_id(topic) == rid


def test_a_request_id_that_no_response_could_hold() -> None:
    with pytest.raises(Invalid, match="longer than 1024"):
        request_id("$iothub/twin/GET/?$rid=" + "1" * 65_000)


async def test_nothing_is_left_running_behind_a_refusal(site: Site, arrive: Arrive) -> None:
    before = len(asyncio.all_tasks())
    peer = arrive()
    peer.send(connect("nobody", None))
    await peer.expect(ConnAck)
    await peer.ended()
    await site.time.until(lambda: len(asyncio.all_tasks()) == before)
