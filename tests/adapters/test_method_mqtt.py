"""Direct methods from a back end's request to the device over MQTT, and back [hub-device 3.11, 9; hub-service 9]."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from moorage.wire.mqtt import packets
from moorage.wire.mqtt.packets import PubAck, Publish, SubAck, UnsubAck
from tests.support.asgi import TRACKING_ID, Answer, Caller
from tests.support.hub_peer import METHODS, Arrive, connected, subscribe, unsubscribe
from tests.support.mqtt_peer import MqttPeer, publish
from tests.support.site import Site

EVENTS = "devices/pump-7/messages/events/"
KIB = 1024


@pytest.fixture
def owner(site: Site) -> Caller:
    return Caller(site.service_api(), token=site.token())


@pytest.fixture
async def key(site: Site) -> str:
    return await site.add_device("pump-7")


@pytest.fixture
async def deaf(site: Site, arrive: Arrive, key: str) -> MqttPeer:
    """pump-7, connected, and not listening to methods."""
    return await connected(site, arrive, "pump-7", key)


@pytest.fixture
async def peer(deaf: MqttPeer) -> MqttPeer:
    """pump-7, listening to every method."""
    await subscribe(deaf, METHODS)
    return deaf


def calling(owner: Caller, method: str = "reboot", **members: Any) -> asyncio.Task[Answer]:
    return asyncio.create_task(owner.call("POST", "/twins/pump-7/methods", {"methodName": method, **members}))


async def called(peer: MqttPeer, method: str = "reboot") -> tuple[str, bytes]:
    """Request id and payload of the call that comes."""
    message = await peer.expect(Publish)
    topic, _, rid = message.topic.partition("?$rid=")
    assert topic == f"$iothub/methods/POST/{method}/"
    assert (message.qos, message.retain) == (0, False)
    assert rid.isalnum(), ".NET takes all behind the sixth character for it [hub-device 16.6]"
    return rid, message.payload


def answer(rid: str, payload: bytes = b"", *, status: object = 200, packet_id: int | None = None) -> bytes:
    return publish(f"$iothub/methods/res/{status}/?$rid={rid}", payload, packet_id)


def failed(answer: Answer, status: int, code: int, *, timeout: str | None = None) -> dict[str, Any]:
    """The error in shape B, whole [hub-service 4.1]."""
    assert answer.status == status, answer.body
    body = answer.json()
    assert set(body) == {"Message", "ExceptionMessage"}
    error: dict[str, Any] = json.loads(body["Message"])
    info = {} if timeout is None else {"info": {"timeout": timeout}}
    known = {"errorCode": code, "trackingId": TRACKING_ID, **info}
    assert error == {**known, "message": error["message"], "timestampUtc": error["timestampUtc"]}
    return error


# --- Calls and answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload", [None, "", "text", 0, 1.50, True, [1, {"a": None}], {}, {"z": 1, "a": [None]}, "grün \u2028"]
)
async def test_payloads_of_every_kind_both_ways(owner: Caller, peer: MqttPeer, payload: Any) -> None:
    """[hub-device 15.73]; Python sends `""` for none at all [hub-service 27.28]."""
    call = calling(owner, payload=payload)
    rid, sent = await called(peer)
    assert json.loads(sent) == payload
    peer.send(answer(rid, sent))
    answered = await call
    assert answered.status == 200
    assert answered.json() == {"status": 200, "payload": payload}


async def test_without_a_payload_both_ways(owner: Caller, peer: MqttPeer) -> None:
    call = calling(owner)
    rid, sent = await called(peer)
    assert sent == b"null"
    peer.send(answer(rid, b""))
    assert (await call).json() == {"status": 200, "payload": None}


@pytest.mark.parametrize("status", [200, 299, 404, 501, 0, -1, 2147483647])
async def test_the_status_is_the_devices_own(owner: Caller, peer: MqttPeer, status: int) -> None:
    call = calling(owner)
    rid, _ = await called(peer)
    peer.send(answer(rid, b'{"a": 1.0}', status=status))
    assert (await call).body == b'{"status":%d,"payload":{"a": 1.0}}' % status, (
        "the payload as it was written"
    )


async def test_many_calls_answered_in_any_order(owner: Caller, peer: MqttPeer) -> None:
    calls = [calling(owner, f"m{number}", payload=number) for number in range(50)]
    rids = [(await called(peer, f"m{number}"))[0] for number in range(50)]
    assert len(set(rids)) == 50
    peer.send(*(answer(rid, b"%d" % number) for number, rid in reversed(list(enumerate(rids)))))
    answers = await asyncio.gather(*calls)
    assert [each.json()["payload"] for each in answers] == list(range(50))


async def test_an_answer_is_acknowledged_in_its_place(site: Site, owner: Caller, peer: MqttPeer) -> None:
    """Python answers with QoS 1 [hub-device 3.11]."""
    call = calling(owner)
    rid, _ = await called(peer)
    peer.send(publish(EVENTS, b"before", 1), answer(rid, b"1", packet_id=2), publish(EVENTS, b"behind", 3))
    assert [(await peer.expect(PubAck)).packet_id for _ in range(3)] == [1, 2, 3]
    assert (await call).status == 200
    assert site.payloads() == [b"before", b"behind"]


async def test_an_answer_that_nobody_waits_for_is_taken_in_silence(peer: MqttPeer) -> None:
    peer.send(answer("77", b"{", packet_id=2), publish(EVENTS, b"", 3))
    assert await peer.expect(PubAck) == PubAck(2)
    assert await peer.expect(PubAck) == PubAck(3)
    assert peer.received == []


@pytest.mark.parametrize(
    "topic",
    [
        "$iothub/methods/res/200/",
        "$iothub/methods/res/ok/?$rid=1",
        "$iothub/methods/res//?$rid=1",
        "$iothub/methods/POST/reboot/?$rid=1",
    ],
)
async def test_an_answer_to_nothing_closes(peer: MqttPeer, topic: str) -> None:
    peer.send(publish(topic, b"", 2))
    assert topic in await peer.ended()


@pytest.mark.parametrize("payload", [b"{", b"not json", b"NaN", b"\xff", b'"' + b"x" * 128 * KIB + b'"'])
async def test_an_answer_that_cannot_be_handed_on(owner: Caller, peer: MqttPeer, payload: bytes) -> None:
    call = calling(owner)
    rid, _ = await called(peer)
    peer.send(answer(rid, payload))
    failed(await call, 502, 502000)
    assert peer.stream.reason is None


async def test_payloads_have_room_up_to_their_limit(owner: Caller, peer: MqttPeer) -> None:
    text = "x" * (128 * KIB - 2)
    call = calling(owner, payload=text)
    rid, sent = await called(peer)
    peer.send(answer(rid, sent))
    assert (await call).json()["payload"] == text
    failed(await calling(owner, payload=text + "x"), 413, 413001)


# --- Who listens --------------------------------------------------------------------------------------------


async def test_a_device_that_is_away(owner: Caller, key: str) -> None:
    error = failed(await calling(owner), 404, 404103, timeout="00:00:00")
    assert error["message"] == "Timed out waiting for device to connect."


async def test_a_device_that_does_not_listen(owner: Caller, deaf: MqttPeer) -> None:
    failed(await calling(owner), 404, 404103, timeout="00:00:00")


async def test_nobody(owner: Caller, key: str) -> None:
    call = {"methodName": "reboot"}
    failed(await owner.call("POST", "/twins/nobody/methods", call), 404, 404001)
    failed(await owner.call("POST", "/twins/nobody/modules/m/methods", call), 404, 404001)
    failed(await owner.call("POST", "/twins/pump-7/modules/m/methods", call), 404, 404010)


async def test_giving_up_the_subscription_and_nothing_else(owner: Caller, peer: MqttPeer) -> None:
    """[hub-device 9]: .NET's suite calls again after that, while telemetry goes on."""
    peer.send(unsubscribe([METHODS]))
    await peer.expect(UnsubAck)
    failed(await calling(owner), 404, 404103, timeout="00:00:00")
    peer.send(publish(EVENTS, b"1", 1))
    assert await peer.expect(PubAck) == PubAck(1)


async def test_a_filter_for_one_method(owner: Caller, deaf: MqttPeer) -> None:
    await subscribe(deaf, "$iothub/methods/POST/reboot/#")
    failed(await calling(owner, "other"), 404, 404103, timeout="00:00:00")
    call = calling(owner, "reboot")
    rid, _ = await called(deaf)
    deaf.send(answer(rid))
    assert (await call).status == 200


@pytest.mark.parametrize(
    "topic_filter",
    [
        "$iothub/methods/POST/reboot",
        "$iothub/methods/POST/+/#",
        "$iothub/methods/POST//#",
        "$iothub/methods/#",
    ],
)
async def test_filters_that_are_not_for_methods(deaf: MqttPeer, topic_filter: str) -> None:
    deaf.send(packets.encode_subscribe(5, [(topic_filter, 0)]))
    assert await deaf.expect(SubAck) == SubAck(5, (0x80,))


# --- Time ---------------------------------------------------------------------------------------------------


async def test_waiting_for_the_device_to_connect(site: Site, owner: Caller, arrive: Arrive, key: str) -> None:
    call = calling(owner, connectTimeoutInSeconds=30)
    await site.time.until(lambda: site.sessions.awaited("pump-7"))
    site.time.advance(29)
    peer = await connected(site, arrive, "pump-7", key)
    await subscribe(peer, "$iothub/twin/res/#")
    assert peer.received == [], "it is reached when it listens, not when it connects"
    await subscribe(peer, METHODS)
    rid, _ = await called(peer)
    site.time.advance(29)  # the response timeout counts from here
    peer.send(answer(rid))
    assert (await call).status == 200
    assert not site.sessions.awaited("pump-7")


async def test_a_caller_who_leaves_as_the_device_comes_takes_up_no_room(
    site: Site, owner: Caller, deaf: MqttPeer
) -> None:
    call = calling(owner, connectTimeoutInSeconds=30)
    await site.time.until(lambda: site.sessions.awaited("pump-7"))
    forget = site.sessions.await_listening("pump-7", call.cancel)  # told behind the call itself
    await subscribe(deaf, METHODS)
    await called(deaf)
    await site.time.until(call.cancelled)
    session = site.sessions.connected("pump-7")
    assert session is not None
    assert not session.calls
    forget()


async def test_waiting_in_vain_for_the_device_to_connect(site: Site, owner: Caller, key: str) -> None:
    call = calling(owner, connectTimeoutInSeconds=75)
    await site.time.until(lambda: site.sessions.awaited("pump-7"))
    site.time.advance(74)
    await asyncio.sleep(0)
    assert not call.done()
    site.time.advance(1)
    error = failed(await call, 404, 404103, timeout="00:01:15")
    assert error["message"] == "Timed out waiting for device to connect."
    assert not site.sessions.awaited("pump-7")


async def test_a_device_that_takes_too_long(site: Site, owner: Caller, peer: MqttPeer) -> None:
    """[hub-device 15.74]: it goes on working, and what it answers later is dropped."""
    call = calling(owner, responseTimeoutInSeconds=5)
    rid, _ = await called(peer)
    site.time.advance(5)
    error = failed(await call, 504, 504101, timeout="00:00:05")
    assert error["message"] == "Timed out waiting for the response from device."
    peer.send(answer(rid, b"1", packet_id=1))
    assert await peer.expect(PubAck) == PubAck(1)
    again = calling(owner)
    rid, _ = await called(peer)
    peer.send(answer(rid, b"2"))
    assert (await again).json()["payload"] == 2


async def test_a_device_that_leaves_with_the_call(owner: Caller, peer: MqttPeer) -> None:
    call = calling(owner)
    await called(peer)
    peer.stream.lose()
    failed(await call, 404, 404104)


async def test_a_device_that_comes_again_has_not_been_called(
    site: Site, owner: Caller, arrive: Arrive, key: str, peer: MqttPeer
) -> None:
    call = calling(owner)
    rid, _ = await called(peer)
    other = await connected(site, arrive, "pump-7", key)
    failed(await call, 404, 404104)
    other.send(answer(rid, b"1", packet_id=1))
    assert await other.expect(PubAck) == PubAck(1)


async def test_a_device_that_is_disabled_with_the_call(site: Site, owner: Caller, peer: MqttPeer) -> None:
    call = calling(owner)
    await called(peer)
    await site.set_status("pump-7", "disabled")
    failed(await call, 404, 404104)


async def test_a_server_that_stops_with_the_call(owner: Caller, peer: MqttPeer) -> None:
    call = calling(owner)
    await called(peer)
    peer.stream.stop()
    failed(await call, 404, 404104)


# --- Limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "methodName"),
        ({"methodName": ""}, "methodName"),
        ({"methodName": 7}, "methodName"),
        ({"methodName": "a b"}, "methodName"),
        ({"methodName": "a/b"}, "methodName"),
        ({"methodName": "a#"}, "methodName"),
        ({"methodName": "grün"}, "methodName"),
        ({"methodName": "x" * 101}, "methodName"),
        ({"methodName": "a", "responseTimeoutInSeconds": 4}, "responseTimeoutInSeconds"),
        ({"methodName": "a", "responseTimeoutInSeconds": 301}, "responseTimeoutInSeconds"),
        ({"methodName": "a", "responseTimeoutInSeconds": "30"}, "responseTimeoutInSeconds"),
        ({"methodName": "a", "connectTimeoutInSeconds": -1}, "connectTimeoutInSeconds"),
        ({"methodName": "a", "connectTimeoutInSeconds": 301}, "connectTimeoutInSeconds"),
        ({"methodName": "a", "connectTimeoutInSeconds": True}, "connectTimeoutInSeconds"),
        ([], "body"),
        (b"{", "body"),
    ],
)
async def test_requests_that_break_a_rule(owner: Caller, peer: MqttPeer, body: Any, field: str) -> None:
    answered = await owner.call("POST", "/twins/pump-7/methods", body)
    error = failed(answered, 400, 400006 if field == "body" else 400004)
    assert field in error["message"]
    assert peer.received == []


@pytest.mark.parametrize("method", ["reboot", "thermostat*getReport", "a-b_c.d~e!f'g|h^i`j%k&l"])
async def test_names_go_through_untouched(owner: Caller, peer: MqttPeer, method: str) -> None:
    call = calling(owner, method)
    rid, _ = await called(peer, method)
    peer.send(answer(rid))
    assert (await call).status == 200


async def test_a_device_has_so_many_calls_at_once(site: Site, owner: Caller, peer: MqttPeer) -> None:
    calls = [calling(owner) for _ in range(100)]
    rids = [(await called(peer))[0] for _ in calls]
    failed(await calling(owner), 403, 403800)
    peer.send(*map(answer, rids))
    assert {each.status for each in await asyncio.gather(*calls)} == {200}


async def test_a_device_has_so_much_unanswered(owner: Caller, peer: MqttPeer) -> None:
    """More than that may not wait for one that does not read."""
    calls = [calling(owner, payload="x" * 120 * KIB) for _ in range(4)]
    rids = [(await called(peer))[0] for _ in calls]
    failed(await calling(owner, payload="x" * 120 * KIB), 403, 403800)
    peer.send(*map(answer, rids))
    assert {each.status for each in await asyncio.gather(*calls)} == {200}


async def test_so_many_wait_for_one_device(site: Site, owner: Caller, arrive: Arrive, key: str) -> None:
    calls = [calling(owner, connectTimeoutInSeconds=10) for _ in range(100)]
    await site.time.until(lambda: site.sessions.awaited("pump-7") == 100)
    failed(await calling(owner, connectTimeoutInSeconds=10), 403, 403800)
    peer = await connected(site, arrive, "pump-7", key)
    await subscribe(peer, METHODS)
    peer.send(*[answer((await called(peer))[0]) for _ in calls])
    assert {each.status for each in await asyncio.gather(*calls)} == {200}


async def test_only_policies_with_the_right(site: Site, peer: MqttPeer) -> None:
    caller = Caller(site.service_api(), token=site.token("device"))
    failed(await calling(caller), 401, 401002)
    assert peer.received == []
