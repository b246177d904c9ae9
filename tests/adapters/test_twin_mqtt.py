"""Twins over MQTT: requests, what is reported, and desired properties that change [hub-device 3.10, 7]."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from moorage.errors import StorageFull
from moorage.hub import twin
from moorage.hub.twin import Twin
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.packets import PubAck, Publish, SubAck, UnsubAck
from tests.support.hub_peer import DESIRED, TWIN_RESPONSES, Arrive, connected, subscribe, unsubscribe
from tests.support.mqtt_peer import MqttPeer, publish
from tests.support.site import HUB_SCOPE, Site, failed_checks
from tests.support.twins import SeenChanges

EVENTS = "devices/pump-7/messages/events/"
GET = "$iothub/twin/GET/?$rid="
REPORT = "$iothub/twin/PATCH/properties/reported/?$rid="


@pytest.fixture
async def key(site: Site) -> str:
    """Of the device pump-7."""
    return await site.add_device("pump-7")


@pytest.fixture
async def unheard(site: Site, arrive: Arrive, key: str) -> MqttPeer:
    """pump-7, which listens to nothing."""
    return await connected(site, arrive, "pump-7", key)


@pytest.fixture
async def peer(unheard: MqttPeer) -> MqttPeer:
    """pump-7, listening for twin responses with QoS 0."""
    await subscribe(unheard, TWIN_RESPONSES)
    return unheard


def report(rid: object, patch: object, packet_id: int | None = None) -> bytes:
    payload = patch if isinstance(patch, bytes) else json.dumps(patch).encode()
    return publish(f"{REPORT}{rid}", payload, packet_id)


async def response(peer: MqttPeer) -> tuple[int, str, Any]:
    """Status, what stands behind it in the topic, and the body."""
    message = await peer.expect(Publish)
    prefix, status, rest = message.topic.rsplit("/", 2)
    assert prefix == "$iothub/twin/res"
    return int(status), rest, json.loads(message.payload) if message.payload else None


async def patch_desired(site: Site, desired: object) -> Twin:
    return await site.identities.twins.patch("pump-7", {"properties": {"desired": desired}})


# --- Subscriptions and reading ------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "granted"), [(0, 0), (1, 1), (2, 1)])
async def test_responses_have_the_quality_granted(unheard: MqttPeer, asked: int, granted: int) -> None:
    unheard.send(packets.encode_subscribe(3, [(TWIN_RESPONSES, asked)]), publish(f"{GET}1", b" "))
    assert await unheard.expect(SubAck) == SubAck(3, (granted,))
    answer = await unheard.expect(Publish)
    assert (answer.qos, answer.packet_id is not None) == (granted, bool(granted))
    assert not answer.retain


async def test_without_a_subscription_there_is_no_response(site: Site, unheard: MqttPeer) -> None:
    await subscribe(unheard, TWIN_RESPONSES)
    unheard.send(unsubscribe(["never/subscribed", TWIN_RESPONSES]), publish(f"{GET}1", b"", 5))
    assert await unheard.expect(UnsubAck) == UnsubAck(2)
    assert await unheard.expect(PubAck) == PubAck(5)
    unheard.send(packets.encode_subscribe(7, [(TWIN_RESPONSES, 0)]), publish(f"{GET}2", b""))
    await unheard.expect(SubAck)
    assert (await unheard.expect(Publish)).topic == "$iothub/twin/res/200/?$rid=2"


async def test_a_twin_is_read_with_puback_before_the_response(site: Site, peer: MqttPeer) -> None:
    """Python waits for both, and other clients for the version [hub-device 16.12, 16.15]."""
    await patch_desired(site, {"period": 5})
    peer.send(publish(f"{GET}a%2Fb~1", b" ", 9))
    assert await peer.expect(PubAck) == PubAck(9)
    document = {"desired": {"period": 5, "$version": 2}, "reported": {"$version": 1}}
    assert await response(peer) == (200, "?$rid=a%2Fb~1", document)


async def test_a_request_waits_for_the_telemetry_before_it(site: Site, peer: MqttPeer) -> None:
    site.disk.hold()
    peer.send(publish(EVENTS, b"1", 1), publish(f"{GET}1", b"", 2), report(2, {"a": 1}, 3))
    await site.time.until(lambda: site.disk.waiting)
    assert peer.received == []
    site.disk.release()
    assert await peer.expect(PubAck) == PubAck(1)
    assert await peer.expect(PubAck) == PubAck(2)
    assert (await response(peer))[0] == 200
    assert await peer.expect(PubAck) == PubAck(3)
    assert (await response(peer))[0] == 204


async def test_the_twin_of_a_device_that_is_gone(site: Site, peer: MqttPeer) -> None:
    site.disk.hold()
    peer.send(publish(EVENTS, b"1"), publish(f"{GET}1", b""), report(2, {"a": 1}))
    await site.store.records(twin.KIND, HUB_SCOPE).delete("pump-7")
    site.disk.release()
    for rid in (1, 2):
        status, rest, body = await response(peer)
        assert (status, rest, body["errorCode"]) == (404, f"?$rid={rid}", 404001)


@pytest.mark.parametrize("topic", ["$iothub/twin/GET/", "$iothub/twin/GET/?$version=1"])
async def test_a_question_that_cannot_be_answered_closes(site: Site, peer: MqttPeer, topic: str) -> None:
    peer.send(publish(topic, b"{}", 2))
    await peer.ended()
    assert site.refusal().subject == "pump-7"


@pytest.mark.parametrize("topic", [GET, REPORT])
async def test_a_request_id_that_no_response_could_hold(peer: MqttPeer, topic: str) -> None:
    peer.send(publish(topic + "1" * 65_000, b"", 2))
    assert "$rid" in await peer.ended()


async def test_many_requests_are_all_answered_and_hold_up_the_device(peer: MqttPeer) -> None:
    peer.send(*(publish(f"{GET}{number}", b"") for number in range(300)))
    assert not peer.stream.reading
    for number in range(300):
        assert (await peer.expect(Publish)).topic == f"$iothub/twin/res/200/?$rid={number}"
    await peer.time.until(lambda: peer.stream.reading)


async def test_a_failure_of_ours_is_an_answer_too(
    site: Site, peer: MqttPeer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(site.identities.twins, "get", fail)
    peer.send(publish(f"{GET}1", b""), report(2, {"a": 1}), publish(f"{GET}3", b""))
    for rid in (1, 2, 3):
        status, rest, body = await response(peer)
        assert (status, rest, body["errorCode"]) == (500, f"?$rid={rid}", 500001)
    assert "ZeroDivisionError" in caplog.text


# --- Reported properties ------------------------------------------------------------------------------------


async def test_what_is_reported_is_confirmed_with_its_version(site: Site, peer: MqttPeer) -> None:
    """204 with an empty body: one with `errorCode` in it flips Node to failure [hub-device 16.13]."""
    peer.send(report("a~1", {"fan": {"speed": 3}, "fw": "1.2"}, 9))
    assert await peer.expect(PubAck) == PubAck(9)
    assert await response(peer) == (204, "?$rid=a~1&$version=2", None)
    peer.send(report(2, {"fan": {"speed": None, "state": [1, "2027-01-15T08:00:00Z", 1.0]}}))
    assert await response(peer) == (204, "?$rid=2&$version=3", None)
    made = await site.identities.twins.get("pump-7")
    assert made.reported.values == {"fan": {"state": [1, "2027-01-15T08:00:00Z", 1.0]}, "fw": "1.2"}
    assert isinstance(made.reported.values["fan"]["state"][2], float), "numbers keep their form"
    assert (made.version, made.reported.version, made.desired.version) == (4, 3, 1)
    assert made.service_etag == "AAAAAAAAAAE=", "what a device reports is no service's write"


async def test_patches_that_wait_together_are_one_commit(
    site: Site, peer: MqttPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, commits = site.store.apply, []

    async def count(changes: Any) -> None:
        commits.append(changes)
        await apply(changes)

    monkeypatch.setattr(site.store, "apply", count)
    peer.send(*(report(number, {"n": number}, number) for number in range(1, 11)))
    for number in range(1, 11):
        assert await peer.expect(PubAck) == PubAck(number)
        assert await response(peer) == (204, f"?$rid={number}&$version={number + 1}", None)
    assert len(commits) == 1
    assert (await site.identities.twins.get("pump-7")).reported.values == {"n": 10}


async def test_a_twin_read_between_two_patches_shows_the_first(peer: MqttPeer) -> None:
    peer.send(report(1, {"n": 1}), publish(f"{GET}2", b""), report(3, {"n": 2}))
    assert (await response(peer))[0] == 204
    assert (await response(peer))[2]["reported"] == {"n": 1, "$version": 2}
    assert await response(peer) == (204, "?$rid=3&$version=3", None)


async def test_telemetry_behind_a_patch_is_acknowledged_behind_it(
    site: Site, peer: MqttPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[MQTT-4.6.0-2], though the log is done with it earlier than the records are."""
    apply, go_on = site.store.apply, asyncio.Event()

    async def slow(changes: Any) -> None:
        await go_on.wait()
        await apply(changes)

    monkeypatch.setattr(site.store, "apply", slow)
    peer.send(publish(EVENTS, b"1", 1), report(1, {"a": 1}, 2), publish(EVENTS, b"2", 3))
    assert await peer.expect(PubAck) == PubAck(1)
    peer.send(publish(EVENTS, b"3", 4), publish(f"{GET}2", b"", 5))
    await site.time.until(lambda: site.payloads() == [b"1", b"2", b"3"])
    assert peer.received == []
    go_on.set()
    assert [(await peer.expect(PubAck)).packet_id for _ in range(3)] == [2, 3, 4]
    assert await response(peer) == (204, "?$rid=1&$version=2", None)
    assert await peer.expect(PubAck) == PubAck(5)
    assert (await response(peer))[2]["reported"] == {"a": 1, "$version": 2}


async def test_a_patch_waits_for_its_commit_when_the_device_leaves(site: Site, peer: MqttPeer) -> None:
    peer.send(report(1, {"a": 1}, 2), packets.encode_disconnect())
    assert await peer.expect(PubAck) == PubAck(2)
    assert (await response(peer))[0] == 204
    assert await peer.ended() == "DISCONNECT"


async def test_what_was_reported_before_the_connection_broke_is_kept(site: Site, peer: MqttPeer) -> None:
    peer.send(report(1, {"a": 1}), publish(f"{GET}2", b""), report(3, {"b": 2}))
    changes = SeenChanges()
    site.identities.twins.observe(changes)
    peer.stream.lose()
    await site.time.until(lambda: len(changes) == 2)
    assert changes[1].after.reported.values == {"a": 1, "b": 2}
    assert peer.received == []


async def test_without_a_request_id_the_acknowledgement_is_the_answer(site: Site, peer: MqttPeer) -> None:
    peer.send(publish("$iothub/twin/PATCH/properties/reported/", b'{"a":1}', 2))
    assert await peer.expect(PubAck) == PubAck(2)
    assert (await site.identities.twins.get("pump-7")).reported.values == {"a": 1}
    peer.send(publish("$iothub/twin/PATCH/properties/reported/?$version=2", b'{"b":1}', 3))
    assert await peer.expect(PubAck) == PubAck(3)
    assert peer.received == []


@pytest.mark.parametrize("topic", ["$iothub/twin/PATCH/properties/reported/", f"{REPORT}1"])
async def test_a_patch_that_was_not_done_is_not_acknowledged_to_who_hears_no_response(
    site: Site, unheard: MqttPeer, topic: str
) -> None:
    unheard.send(publish(topic, b'{"a":1}', 1), publish(topic, b'{"$b":1}', 2), publish(EVENTS, b"late", 3))
    assert await unheard.expect(PubAck) == PubAck(1)
    assert "'$'" in await unheard.ended()
    assert failed_checks(site.refusal()) == ["properties.reported"]


BAD = {
    b"": "not JSON",
    b"{": "not JSON",
    b"null": "not a JSON object",
    b"[]": "not a JSON object",
    b'{"a":NaN}': "not JSON",
    b'{"$version":2}': "'$'",
    b'{"ok":1,"deep":{"$x":1}}': "'$'",
    b'{"a.b":1}': "'.'",
    b'{"":1}': "empty",
    b'{"a":[1,null]}': "cannot hold null",
    b'{"a":[{"b":null}]}': "cannot hold null",
    b'{"a":4503599627370496}': "integer",
    b'{"a":"%s"}' % (b"x" * 4097): "longer than 4096",
    b'{"a":"\\ud800"}': "surrogate",
    json.dumps({f"k{number}": "x" * 4000 for number in range(9)}).encode(): "the limit is 32768",
    b'{"a":' * 12 + b"1" + b"}" * 12: "10 levels",
    b"[" * 100_000: "not JSON",
}


@pytest.mark.parametrize(("patch", "why"), BAD.items(), ids=list(BAD.values()))
async def test_a_patch_that_breaks_a_rule_is_refused_whole_and_in_words(
    site: Site, peer: MqttPeer, patch: bytes, why: str
) -> None:
    """The body has `errorCode`, which is all that Node looks at [hub-device 16.14]."""
    peer.send(report(7, patch, 2), report(8, {"b": 1}))
    assert await peer.expect(PubAck) == PubAck(2)
    status, rest, body = await response(peer)
    assert (status, rest) == (400, "?$rid=7")
    assert list(body) == ["errorCode", "trackingId", "message", "timestampUtc"]
    assert (body["errorCode"], body["trackingId"]) == (400004, peer.stream.tracking_id)
    assert why in body["message"]
    assert await response(peer) == (204, "?$rid=8&$version=2", None), "the others are done"
    assert (await site.identities.twins.get("pump-7")).reported.values == {"b": 1}
    decision = site.refusal()
    assert (decision.operation, decision.subject) == ("twin request", "pump-7")
    assert why in decision.error


async def test_a_patch_may_count_on_a_version(site: Site, peer: MqttPeer) -> None:
    """Java asserts 412 for `$version=0` on a twin that has reported [hub-device 3.10]."""
    peer.send(
        report("1&$version=1", {"a": 1}),
        report("2&$version=1", {"a": 2}),
        report("3&$version=0", {"a": 3}),
        report("4&$version=2", {"a": 4}),
        report("5&$version=two", {"a": 5}),
    )
    assert await response(peer) == (204, "?$rid=1&$version=2", None)
    for rid in (2, 3):
        status, rest, body = await response(peer)
        assert (status, rest, body["errorCode"]) == (412, f"?$rid={rid}", 412001)
        assert "at version 2" in body["message"]
    assert await response(peer) == (204, "?$rid=4&$version=3", None)
    assert (await response(peer))[0] == 400


async def test_a_full_disk_is_told(site: Site, peer: MqttPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(_: object) -> None:
        raise StorageFull("the disk takes no more")

    monkeypatch.setattr(site.store, "apply", full)
    peer.send(report(1, {"a": 1}, 2))
    assert await peer.expect(PubAck) == PubAck(2)
    status, _, body = await response(peer)
    assert (status, body["errorCode"]) == (503, 503001)


# --- Desired properties -------------------------------------------------------------------------------------


@pytest.fixture
async def listener(unheard: MqttPeer) -> MqttPeer:
    await subscribe(unheard, DESIRED)
    return unheard


async def told(peer: MqttPeer) -> tuple[str, Any]:
    message = await peer.expect(Publish)
    assert not message.retain
    topic, _, query = message.topic.rpartition("?")
    assert topic == "$iothub/twin/PATCH/properties/desired/"
    return query, json.loads(message.payload)


async def test_a_patch_is_told_with_its_nulls_and_its_version(site: Site, listener: MqttPeer) -> None:
    await patch_desired(site, {"period": 5, "fan": {"speed": 1}})
    assert await told(listener) == ("$version=2", {"period": 5, "fan": {"speed": 1}, "$version": 2})
    await patch_desired(site, {"period": None, "fan": {"speed": None}, "$version": 1, "$metadata": {}})
    assert await told(listener) == ("$version=3", {"period": None, "fan": {"speed": None}, "$version": 3})


async def test_null_for_all_tells_each_key(site: Site, listener: MqttPeer) -> None:
    """Node expects `{}` once it has merged the patch [hub-device 7.4]."""
    await patch_desired(site, {"a": 1, "b": {"c": 2}})
    await told(listener)
    await patch_desired(site, None)
    assert await told(listener) == ("$version=3", {"a": None, "b": None, "$version": 3})


async def test_a_replacement_tells_all_there_is(site: Site, listener: MqttPeer) -> None:
    await patch_desired(site, {"a": 1, "b": 2})
    await told(listener)
    await site.identities.twins.replace("pump-7", {"properties": {"desired": {"b": 3, "c": None}}})
    assert await told(listener) == ("$version=3", {"b": 3, "$version": 3})


async def test_tags_and_reports_are_not_told(site: Site, listener: MqttPeer) -> None:
    await site.identities.twins.patch("pump-7", {"tags": {"site": "north"}})
    listener.send(report(1, {"a": 1}, 5))
    assert await listener.expect(PubAck) == PubAck(5)
    await patch_desired(site, {"a": 1})
    assert (await told(listener))[0] == "$version=2"


@pytest.mark.parametrize("qos", [0, 1])
async def test_changes_have_the_quality_granted(site: Site, unheard: MqttPeer, qos: int) -> None:
    await subscribe(unheard, DESIRED, TWIN_RESPONSES, qos=qos)
    ids = []
    for number in range(3):
        await patch_desired(site, {"n": number})
        unheard.send(publish(f"{GET}{number}", b""))
        for _ in range(2):
            message = await unheard.expect(Publish)
            assert message.qos == qos
            ids.append(message.packet_id)
            if message.packet_id is not None:
                unheard.send(packets.encode_puback(message.packet_id))
    assert len(set(ids)) == (6 if qos else 1), "responses and changes share one count"


async def test_changes_come_in_the_order_of_their_versions(site: Site, listener: MqttPeer) -> None:
    """Each by one more, which Node's suite insists on [hub-device 16.47]."""
    await asyncio.gather(*(patch_desired(site, {f"k{number}": number}) for number in range(20)))
    versions = [(await told(listener))[1]["$version"] for _ in range(20)]
    assert versions == list(range(2, 22))


async def test_who_does_not_listen_is_told_nothing(site: Site, listener: MqttPeer) -> None:
    listener.send(unsubscribe([DESIRED]))
    await listener.expect(UnsubAck)
    await patch_desired(site, {"a": 1})
    await subscribe(listener, DESIRED)
    await patch_desired(site, {"a": 2})
    assert (await told(listener))[1] == {"a": 2, "$version": 3}


async def test_what_changed_while_away_is_read_with_the_twin(
    site: Site, arrive: Arrive, key: str, listener: MqttPeer
) -> None:
    """Nothing is queued for a device that is away [hub-device 3.2]."""
    listener.stream.lose()
    await listener.ended()
    await patch_desired(site, {"a": 1})
    back = await connected(site, arrive, "pump-7", key)
    await subscribe(back, DESIRED, TWIN_RESPONSES)
    back.send(publish(f"{GET}1", b""))
    assert (await response(back))[2]["desired"] == {"a": 1, "$version": 2}
    assert back.received == []


async def test_only_the_device_concerned_is_told(site: Site, arrive: Arrive, listener: MqttPeer) -> None:
    other = await connected(site, arrive, "pump-8", await site.add_device("pump-8"))
    await subscribe(other, DESIRED)
    await patch_desired(site, {"a": 1})
    await told(listener)
    assert other.received == []


async def test_a_device_that_does_not_read_costs_its_own_connection(site: Site, listener: MqttPeer) -> None:
    listener.stream.stalled = True
    for number in range(40):
        await patch_desired(site, {f"k{at}": f"{number}" + "x" * 4000 for at in range(8)})
    assert "wait unsent" in (listener.stream.reason or "")
