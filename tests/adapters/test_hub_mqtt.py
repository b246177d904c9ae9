"""A device at its hub over MQTT: admission, telemetry, twin, and every way in which the connection ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from moorage.adapters import hub_mqtt
from moorage.adapters.hub_mqtt import HubMqttDoor, UserName
from moorage.errors import Invalid, Unavailable
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import IdentitySettings
from moorage.hub.telemetry import MAX_MESSAGE
from moorage.interfaces import EventHead
from moorage.wire.amqp import Message
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.packets import ConnAck, PingResp, PubAck, SubAck, Will
from tests.support.mqtt_peer import MqttPeer, connect, publish, user_name
from tests.support.site import Site, certificate, failed_checks

Arrive = Callable[..., MqttPeer]
EVENTS = "devices/pump-7/messages/events/"
TWIN = "$iothub/twin/res/#"


@pytest.fixture
async def key(site: Site) -> str:
    """Of the device pump-7."""
    return await site.add_device("pump-7")


@pytest.fixture
async def peer(site: Site, arrive: Arrive, key: str) -> MqttPeer:
    """The connected device pump-7."""
    return await connected(site, arrive, key)


async def connected(site: Site, arrive: Arrive, key: str, **fields: object) -> MqttPeer:
    peer = arrive()
    peer.send(connect("pump-7", site.device_token("pump-7", key), **fields))
    assert await peer.expect(ConnAck) == ConnAck(0, session_present=False)
    return peer


async def code_of(arrive: Arrive, packet: bytes, **peer_facts: Any) -> int:
    """The return code that a CONNECT gets; a refusal has to close."""
    peer = arrive(**peer_facts)
    peer.send(packet)
    answer = await peer.expect(ConnAck)
    if answer.code:
        await peer.ended()
    return answer.code


def properties(message: Message) -> dict[str, Any]:
    return dict(message.application_properties or {})


# --- User names ---------------------------------------------------------------------------------------------

AGENT = "DeviceClientType=azure-iot-device%2F2.14.0%20%28Linux%29"


@pytest.mark.parametrize(
    ("text", "device_id", "module_id"),
    [
        (f"hub/dev/?api-version=2019-10-01&{AGENT}", "dev", None),
        (f"hub/dev/?api-version=2020-09-30&{AGENT}&model-id=dtmi%3Acom%3Ax%3B1", "dev", None),
        (f"hub/dev/?api-version=2021-04-12&model-id=dtmi:com:x;1&{AGENT}", "dev", None),
        (f"hub/dev/mod/?api-version=2020-09-30&{AGENT}", "dev", "mod"),
        ("hub/dev/api-version=2016-11-14&DeviceClientType=iothubclient%2F1.1", "dev", None),
        ("hub/dev/api-version=2016-11-14&DeviceClientType=iothubclient/1.1.23", "dev", None),
        ("hub/dev/mod/?api-version=2020-09-30&DeviceClientType=a/b (c; d/e)", "dev", "mod"),
        ("hub/dev", "dev", None),
        ("hub/dev/", "dev", None),
        ("hub/dev/mod", "dev", "mod"),
        ("hub/de?v/?api-version=2021-04-12", "de?v", None),
        ("hub/dev+1%41#/?api-version=2021-04-12", "dev+1%41#", None),
    ],
)
def test_user_names_of_all_clients(text: str, device_id: str, module_id: str | None) -> None:
    name = UserName.parse(text)
    assert (name.host, name.device_id, name.module_id) == ("hub", device_id, module_id)


def test_the_model_id_of_a_user_name_encoded_or_not() -> None:
    for written in ("dtmi%3Acom%3Ax%3B1", "dtmi:com:x;1"):
        name = UserName.parse(f"hub/dev/?api-version=2021-04-12&model-id={written}&{AGENT}")
        assert name.query["model-id"] == "dtmi:com:x;1"


@pytest.mark.parametrize(
    "text", ["", "hub", "hub/", "/dev", "hub//mod", "hub/dev/mod/more", "?api-version=1", "hub/" + "x" * 129]
)
def test_user_names_that_name_nobody(text: str) -> None:
    with pytest.raises(Invalid, match="expected"):
        UserName.parse(text)


# --- Admission ----------------------------------------------------------------------------------------------


async def test_a_device_is_let_in(site: Site, peer: MqttPeer) -> None:
    (decision,) = site.decisions.of("pump-7")
    assert decision.accepted
    assert decision.tracking_id == peer.stream.tracking_id
    assert site.sessions.connected("pump-7") is not None


@pytest.mark.parametrize("clean_session", [True, False])
async def test_no_session_is_ever_present(site: Site, arrive: Arrive, key: str, clean_session: bool) -> None:
    for _ in range(2):
        await connected(site, arrive, key, clean_session=clean_session)


async def test_refusals_and_their_codes(site: Site, arrive: Arrive, key: str) -> None:
    """5 makes a client give up, 3 makes it try again; 2 and 4 stop C devices for good [hub-device 16.10]."""
    good = site.device_token("pump-7", key)
    await site.add_device("off", status="disabled")
    off = await site.identities.get("off")
    foreign = site.device_token("pump-8", key)
    cases = [
        (connect("nobody", good), 5, "known"),
        (connect("pump-7", None), 5, "kind of proof"),
        (connect("pump-7", "rubbish"), 5, "token form"),
        (connect("pump-7", foreign), 5, "audience"),
        (connect("pump-7", good[:-5] + "12345"), 5, "signature"),
        (connect("pump-7", site.device_token("pump-7", key, lifetime=-300)), 5, "expiry"),
        (connect("pump-7", site.device_token("pump-7", key, lifetime=-86_400)), 5, "expiry"),
        (connect("pump-7", good, client_id="pump-8"), 5, "client id"),
        (connect("pump-7", good, client_id="PUMP-7"), 5, "client id"),
        (connect("pump-7", good, client_id=""), 5, "client id"),
        (connect("pump-7", good, username="localhost"), 5, "user name"),
        (connect("pump-7", good, username=user_name("pump-7", "elsewhere")), 5, "known"),
        (connect("pump-7", good, username="localhost/pump-7/m/", client_id="pump-7/m"), 5, "known"),
        (connect("off", site.device_token("off", off.authentication.primary_key or "")), 3, "enabled"),
    ]
    for packet, code, check in cases:
        before = len(site.refusals())
        assert await code_of(arrive, packet) == code, check
        (decision,) = site.refusals()[before:]
        assert failed_checks(decision) == [check]
        assert decision.tracking_id == "ab" * 16
        assert decision.door == "mqtt"
        assert good.partition("&sig=")[2][:20] not in repr(decision), "a signature is in the record"


async def test_a_token_that_expired_minutes_ago_still_connects(site: Site, arrive: Arrive, key: str) -> None:
    assert await code_of(arrive, connect("pump-7", site.device_token("pump-7", key, lifetime=-299))) == 0


async def test_a_policy_connects_any_device_when_it_has_the_right(
    site: Site, arrive: Arrive, key: str
) -> None:
    assert await code_of(arrive, connect("pump-7", site.token("device", "localhost/devices"))) == 0
    assert await code_of(arrive, connect("pump-7", site.token("service"))) == 5
    assert failed_checks(site.refusal()) == ["right"]


async def test_certificates(site: Site, arrive: Arrive, key: str) -> None:
    own, other = certificate("cam-1"), certificate("cam-1")
    settings = IdentitySettings(device_id="cam-1", authentication=Authentication.self_signed(own.sha1))
    await site.identities.create(settings)
    assert await code_of(arrive, connect("cam-1", None), chain=[own.der]) == 0
    assert await code_of(arrive, connect("cam-1", ""), chain=[own.der]) == 0, "an empty password is none"
    assert await code_of(arrive, connect("cam-1", None), chain=[other.der]) == 5
    assert site.refusal().proof["chain"][0]["sha256Thumbprint"] == other.sha256
    assert await code_of(arrive, connect("cam-1", site.device_token("cam-1", key)), chain=[own.der]) == 5
    with_both = connect("pump-7", site.device_token("pump-7", key))
    assert await code_of(arrive, with_both, chain=[own.der]) == 0, "a device with keys is judged by its token"


async def test_a_store_that_cannot_answer_is_no_verdict(
    site: Site, arrive: Arrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(device_id: str, **proof: object) -> None:
        raise Unavailable("the disk is slow")

    monkeypatch.setattr(site.identities, "authenticate", stuck)
    assert await code_of(arrive, connect("pump-7", None)) == 3
    assert failed_checks(site.refusal()) == ["possible"]


async def test_an_endless_model_id_is_refused(arrive: Arrive, site: Site, key: str) -> None:
    name = f"{user_name('pump-7')}&model-id=dtmi:{'x' * 3000}"
    packet = connect("pump-7", site.device_token("pump-7", key), username=name)
    assert await code_of(arrive, packet) == 5


async def test_a_record_keeps_only_so_much_of_what_a_stranger_writes(arrive: Arrive, site: Site) -> None:
    long = "x" * 30_000
    assert await code_of(arrive, connect(long, None, username=f"localhost/{long}")) == 5
    assert await code_of(arrive, connect("a", None, client_id=long)) == 5
    assert await code_of(arrive, connect("a", None, username=user_name("a", long))) == 5
    assert all(len(repr(decision)) < 3000 for decision in site.refusals())


# --- Telemetry ----------------------------------------------------------------------------------------------


async def test_a_puback_comes_after_the_sync_and_not_before(site: Site, peer: MqttPeer) -> None:
    site.disk.hold()
    peer.send(publish(EVENTS, b"1", 5))
    await site.time.until(lambda: site.disk.waiting)
    assert peer.received == []
    site.disk.release()
    assert await peer.expect(PubAck) == PubAck(5)
    assert site.payloads() == [b"1"]


async def test_quality_of_service_0_is_kept_and_not_acknowledged(site: Site, peer: MqttPeer) -> None:
    peer.send(publish(EVENTS, b"1"), publish(EVENTS, b"2", 1), publish(EVENTS, b"3"))
    assert await peer.expect(PubAck) == PubAck(1)
    assert site.payloads() == [b"1", b"2", b"3"]
    assert peer.received == []


async def test_pubacks_keep_the_order_of_the_messages(site: Site, peer: MqttPeer) -> None:
    """Over reads, topics, twin requests and commits of the log. [MQTT-4.6.0-2]"""
    ids = list(range(100, 0, -1))
    for at in range(0, 100, 10):
        read = []
        for number in ids[at : at + 10]:
            topic = "$iothub/twin/GET/?$rid=1" if number % 7 == 0 else f"{EVENTS}n={number % 3}"
            read.append(publish(topic, b"%d" % number, number))
        peer.send(*read)
    assert [(await peer.expect(PubAck)).packet_id for _ in ids] == ids
    assert sorted(site.payloads()) == sorted(b"%d" % number for number in ids if number % 7)


async def test_a_message_that_the_log_loses_is_not_acknowledged(
    site: Site, peer: MqttPeer, hub_door: HubMqttDoor
) -> None:
    site.disk.full_for = 1
    peer.send(publish(EVENTS, b"lost", 1))
    assert "the disk takes no more events" in await peer.ended()
    assert site.payloads() == []
    assert hub_door.messages == 0
    assert "telemetry not kept" in site.refusal().error


async def test_nothing_is_acknowledged_behind_a_message_that_was_lost(site: Site, peer: MqttPeer) -> None:
    """The second message is kept, for the disk has room again; but its PUBACK would stand in the first one's place."""
    site.disk.full_for = 1
    site.disk.hold()
    peer.send(publish(EVENTS, b"lost", 1))
    await site.time.until(lambda: site.disk.waiting)
    peer.send(publish(EVENTS, b"kept", 2), publish("$iothub/twin/GET/?$rid=1", b"", 3))
    site.disk.release()
    assert "telemetry not kept" in await peer.ended()
    await site.time.until(site.payloads)
    assert site.payloads() == [b"kept"]
    assert peer.stream.late == b"", "the stream need not be asked to swallow a PUBACK"
    assert len(site.refusals()) == 1


async def test_messages_are_counted_when_they_are_kept(
    site: Site, peer: MqttPeer, hub_door: HubMqttDoor
) -> None:
    peer.send(*(publish(EVENTS, b"1", number) for number in (1, 2, 3)))
    for _ in range(3):
        await peer.expect(PubAck)
    assert hub_door.messages == 3


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("", {}),
        ("/", {}),
        ("/a=b", {"a": "b"}),
        ("/a=b/", {"a": "b"}),
        ("/?a=b", {"a": "b"}),
        ("/?a=b&c=d/", {"a": "b", "c": "d"}),
        ("/a", {"a": None}),
        ("/a=", {"a": ""}),
        ("/a=1%2B2%2f3%20%09", {"a": "1+2/3 \t"}),
        ("/a=x=y=z", {"a": "x=y=z"}),
        ("/a=1&a=2", {"a": "2"}),
        ("/k%21%23%24%26%27=%22%5B%5D%3F%3D", {"k!#$&'": '"[]?='}),
        ("/%24.unknown=1", {"$.unknown": "1"}),
        ("/%C3%A9=%E2%82%AC", {"é": "€"}),
    ],
)
async def test_property_bags_of_all_clients(
    site: Site, peer: MqttPeer, rest: str, expected: dict[str, str | None]
) -> None:
    peer.send(publish(f"devices/pump-7/messages/events{rest}", b"", 1))
    await peer.expect(PubAck)
    (message,) = site.kept()
    assert properties(message) == expected


async def test_a_topic_is_taken_apart_once(
    site: Site, peer: MqttPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each message, nor again behind a twin request, for which the wire makes the text anew."""
    prepare, heads = site.log.prepare, []

    def count(head: EventHead) -> object:
        heads.append(head)
        return prepare(head)

    monkeypatch.setattr(site.log, "prepare", count)
    same = [publish(EVENTS + "a=b", b"", 1)] * 5
    peer.send(*same, publish("$iothub/methods/res/200/?$rid=1", b"", 1), *same)
    peer.send(*same)
    for _ in range(16):
        await peer.expect(PubAck)
    assert len(heads) == 1


async def test_system_properties_raw_and_encoded(site: Site, peer: MqttPeer) -> None:
    """Java writes `$.mid`, everybody else `%24.mid` [hub-device 3.6]."""
    for number, bag in enumerate(("$.mid=1&$.ct=text%2Fplain", "%24.mid=1&%24.ct=text%2Fplain"), 1):
        peer.send(publish(EVENTS + bag, b"", number))
        await peer.expect(PubAck)
    for message in site.kept():
        assert message.properties is not None
        assert (message.properties.message_id, message.properties.content_type) == ("1", "text/plain")
        assert properties(message) == {}


async def test_a_bag_that_is_no_text_closes(site: Site, peer: MqttPeer) -> None:
    peer.send(publish(EVENTS, b"sound", 1), publish(EVENTS + "a=%FF", b"", 2))
    assert await peer.expect(PubAck) == PubAck(1)
    assert "property bag" in await peer.ended()
    assert failed_checks(site.refusal()) == ["property bag"]


async def test_what_the_hub_stamps(site: Site, arrive: Arrive, key: str) -> None:
    name = f"{user_name('pump-7')}&model-id=dtmi:com:x;1"
    peer = await connected(site, arrive, key, username=name)
    peer.send(publish(EVENTS, b"1", 1))
    await peer.expect(PubAck)
    (message,) = site.kept()
    stamped = {str(name): value for name, value in (message.message_annotations or {}).items()}
    assert stamped["iothub-connection-device-id"] == "pump-7"
    assert stamped["dt-dataschema"] == "dtmi:com:x;1"
    assert stamped["x-opt-partition-key"] == "pump-7"
    assert json.loads(stamped["iothub-connection-auth-method"])["type"] == "sas"


async def test_retain_becomes_a_property_of_that_message_alone(site: Site, peer: MqttPeer) -> None:
    peer.send(publish(EVENTS, b"1", 1), publish(EVENTS, b"2", 2, retain=True), publish(EVENTS, b"3", 3))
    for number in (1, 2, 3):
        assert await peer.expect(PubAck) == PubAck(number)
    marks = {message.payload: properties(message).get("mqtt-retain") for message in site.kept()}
    assert marks == {b"1": None, b"2": "true", b"3": None}


async def test_a_message_sent_again_is_kept_again_and_acknowledged(site: Site, peer: MqttPeer) -> None:
    peer.send(publish(EVENTS, b"1", 1), publish(EVENTS, b"1", 1, dup=True))
    assert [await peer.expect(PubAck), await peer.expect(PubAck)] == [PubAck(1), PubAck(1)]
    assert site.payloads() == [b"1", b"1"]


async def test_the_size_limit_counts_body_and_properties(site: Site, peer: MqttPeer) -> None:
    peer.send(publish(EVENTS + "name=value", b"x" * (MAX_MESSAGE - 9), 1))
    assert await peer.expect(PubAck) == PubAck(1)
    peer.send(publish(EVENTS + "name=value", b"x" * (MAX_MESSAGE - 8), 2))
    assert "over 262144 bytes" in await peer.ended()
    assert failed_checks(site.refusal()) == ["message"]
    assert len(site.payloads()) == 1


@pytest.mark.parametrize(
    "topic",
    [
        "devices/pump-8/messages/events/",
        "devices/pump-7x/messages/events/",
        "devices/pump-7/messages/eventsx",
        "devices/pump-7/messages/devicebound/",
        "devices/pump-7/modules/m/messages/events/",
        "devices/PUMP-7/messages/events/",
        "$iothub/telemetry",
        "$iothub/twin/PATCH/properties/desired/?$version=1",
        "a",
    ],
)
async def test_other_topics_close(site: Site, peer: MqttPeer, topic: str) -> None:
    peer.send(publish(EVENTS, b"sound", 1), publish(topic, b"", 2), publish(EVENTS, b"late", 3))
    assert await peer.expect(PubAck) == PubAck(1)
    assert topic in await peer.ended()
    assert failed_checks(site.refusal()) == ["topic"]
    assert site.payloads() == [b"sound"]


@pytest.mark.parametrize("device_id", ["pump%37", "de?v", "a=b&c", "$x'!(*),:@."])
async def test_ids_stand_raw_in_topics(site: Site, arrive: Arrive, device_id: str) -> None:
    peer = arrive()
    key = await site.add_device(device_id)
    peer.send(connect(device_id, site.device_token(device_id, key)))
    assert (await peer.expect(ConnAck)).code == 0
    peer.send(publish(f"devices/{device_id}/messages/events/a=b", b"1", 1))
    assert await peer.expect(PubAck) == PubAck(1)
    (message,) = site.kept()
    assert properties(message) == {"a": "b"}


async def test_a_device_whose_id_is_a_wildcard_connects_and_matches_nobody_else(
    site: Site, arrive: Arrive, key: str
) -> None:
    peer = arrive()
    peer.send(connect("+", site.device_token("+", await site.add_device("+"))))
    assert (await peer.expect(ConnAck)).code == 0
    peer.send(publish(EVENTS, b"", 1))
    assert EVENTS in await peer.ended()


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (packets.encode_publish(EVENTS, b"", qos=2, packet_id=1), "QoS 2"),
        (packets.encode_publish("$iothub/twin/GET/?$rid=1", b"", qos=2, packet_id=1), "QoS 2"),
        (packets.encode_pubrel(1), "PubRel"),
        (packets.encode_pubrec(1), "PubRec"),
        (packets.encode_pubcomp(1), "PubComp"),
    ],
    ids=["telemetry", "twin request", "PUBREL", "PUBREC", "PUBCOMP"],
)
async def test_quality_of_service_2_closes(site: Site, peer: MqttPeer, packet: bytes, why: str) -> None:
    peer.send(packet)
    assert why in await peer.ended()
    assert why in site.refusal().error


async def test_a_stray_puback_is_passed_over(peer: MqttPeer) -> None:
    peer.send(packets.encode_puback(77), packets.encode_pingreq())
    await peer.expect(PingResp)


async def test_a_ping_is_answered_while_the_disk_is_slow(site: Site, peer: MqttPeer) -> None:
    site.disk.hold()
    peer.send(publish(EVENTS, b"1", 1), packets.encode_pingreq())
    await peer.expect(PingResp)
    site.disk.release()
    await peer.expect(PubAck)


async def test_a_device_ahead_of_the_disk_is_not_read(site: Site, peer: MqttPeer) -> None:
    site.disk.hold()
    for number in range(1, 8):
        peer.send(publish(EVENTS, b"x" * 200_000, number))
    assert not peer.stream.reading, "a megabyte waits for the disk"
    site.disk.release()
    assert [(await peer.expect(PubAck)).packet_id for _ in range(7)] == list(range(1, 8))
    assert peer.stream.reading


async def test_all_devices_together_are_bounded_too(
    site: Site, arrive: Arrive, peer: MqttPeer, hub_door: HubMqttDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_mqtt, "HIGH_WATER_OF_ALL", 300_000)
    other = arrive()
    other.send(connect("cam-1", site.device_token("cam-1", await site.add_device("cam-1"))))
    await other.expect(ConnAck)
    site.disk.hold()
    peer.send(publish(EVENTS, b"x" * 200_000, 1))
    assert peer.stream.reading
    other.send(publish("devices/cam-1/messages/events/", b"x" * 200_000, 1))
    assert not other.stream.reading
    site.disk.release()
    await peer.expect(PubAck)
    await other.expect(PubAck)
    assert other.stream.reading
    assert hub_door.unsettled == 0


async def test_a_device_that_is_cut_while_it_waits_is_not_read_again(site: Site, peer: MqttPeer) -> None:
    site.disk.hold()
    for number in range(1, 8):
        peer.send(publish(EVENTS, b"x" * 200_000, number))
    await site.set_status("pump-7", "disabled")
    peer.send(publish(EVENTS, b"late", 8))
    site.disk.release()
    assert [(await peer.expect(PubAck)).packet_id for _ in range(6)] == list(range(1, 7))
    await peer.ended()
    assert not peer.stream.reading
    assert b"late" not in site.payloads()


async def test_empty_messages_count_as_well(site: Site, peer: MqttPeer) -> None:
    site.disk.hold()
    peer.send(*[publish(EVENTS, b"", 1)] * 11_000)
    assert not peer.stream.reading
    site.disk.release()
    for _ in range(11_000):
        await peer.expect(PubAck)


# --- Subscriptions ------------------------------------------------------------------------------------------

FILTERS = [
    ("devices/pump-7/messages/devicebound/#", 1),
    (TWIN, 0),
    ("$iothub/twin/PATCH/properties/desired/#", 0),
    ("$iothub/methods/POST/#", 0),
    ("devices/pump-8/messages/devicebound/#", 1),
    ("#", 0),
]


async def test_subscriptions_are_granted_or_refused_one_by_one(site: Site, peer: MqttPeer) -> None:
    peer.send(packets.encode_subscribe(3, FILTERS))
    assert await peer.expect(SubAck) == SubAck(3, (1, 0, 0, 0, 0x80, 0x80))
    decision = site.refusal()
    assert (decision.operation, decision.subject, decision.known) == ("subscribe", "pump-7", True)
    assert "not for this device" in decision.error
    peer.send(packets.encode_subscribe(4, FILTERS))
    await peer.expect(SubAck)
    assert len(site.refusals()) == 1, "one record says it for the whole connection"


# --- The will -----------------------------------------------------------------------------------------------

WILL = Will("devices/pump-7/messages/events/a=b", b"gone", qos=1)


async def wills(site: Site) -> list[Message]:
    """The log, once there is a will in it."""

    def look() -> list[Message]:
        return [each for each in site.kept() if properties(each).get("iothub-MessageType") == "Will"]

    return await site.time.until(look, "the will")


async def test_the_will_of_a_lost_connection(site: Site, arrive: Arrive, key: str) -> None:
    peer = await connected(site, arrive, key, will=WILL)
    peer.stream.lose()
    (will,) = await wills(site)
    assert will.payload == b"gone"
    assert properties(will) == {"a": "b", "iothub-MessageType": "Will"}


async def test_disconnect_takes_the_will_back(site: Site, arrive: Arrive, key: str) -> None:
    peer = await connected(site, arrive, key, will=WILL)
    peer.send(publish(EVENTS, b"last", 1), packets.encode_disconnect())
    await peer.expect(PubAck)
    await peer.ended()
    other = await connected(site, arrive, key)
    other.send(publish(EVENTS, b"later", 1))
    await other.expect(PubAck)
    assert site.payloads() == [b"last", b"later"]


async def test_a_disconnect_behind_a_fault_does_not_count(site: Site, arrive: Arrive, key: str) -> None:
    peer = await connected(site, arrive, key, will=WILL)
    peer.send(publish("foreign", b"", 1), packets.encode_disconnect())
    await peer.ended()
    assert len(await wills(site)) == 1


@pytest.mark.parametrize("end", ["take-over", "keep-alive", "fault", "expiry", "delete", "stop"])
async def test_the_will_of_a_connection_that_the_server_ends(
    site: Site, arrive: Arrive, key: str, end: str
) -> None:
    peer = await connected(site, arrive, key, will=WILL)
    match end:
        case "take-over":
            await connected(site, arrive, key)
        case "keep-alive":
            site.time.advance(90)
        case "fault":
            peer.send(b"\x00\x00")
        case "expiry":
            for _ in range(80):
                site.time.advance(50)
                peer.send(packets.encode_pingreq())
        case "delete":
            await site.identities.delete("pump-7")
        case "stop":
            peer.stream.stop()
    assert len(await wills(site)) == 1


async def test_a_retained_will(site: Site, arrive: Arrive, key: str) -> None:
    peer = await connected(site, arrive, key, will=Will(EVENTS, b"gone", retain=True))
    peer.stream.lose()
    (will,) = await wills(site)
    assert properties(will)["mqtt-retain"] == "true"


@pytest.mark.parametrize(
    "will",
    [
        Will("devices/pump-8/messages/events/", b""),
        Will("$iothub/twin/GET/?$rid=1", b""),
        Will("a/b", b""),
        Will(EVENTS, b"", qos=2),
        Will(EVENTS + "a=%FF", b""),
    ],
    ids=["another device", "twin", "anything", "QoS 2", "no text"],
)
async def test_a_will_that_could_not_be_telemetry_is_refused(
    site: Site, arrive: Arrive, key: str, will: Will
) -> None:
    older = await connected(site, arrive, key)
    assert await code_of(arrive, connect("pump-7", site.device_token("pump-7", key), will=will)) == 5
    assert site.refusal().subject == "pump-7"
    older.send(packets.encode_pingreq())
    await older.expect(PingResp)  # who is refused takes nothing over


async def test_a_will_that_cannot_be_kept_is_logged(
    site: Site, arrive: Arrive, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    peer = await connected(site, arrive, key, will=WILL)
    site.disk.full_for = 1
    peer.stream.lose()
    await site.time.until(lambda: "will not kept" in caplog.text)


# --- One connection a device, for as long as it may ---------------------------------------------------------


async def test_the_newer_connection_wins(site: Site, arrive: Arrive, key: str, peer: MqttPeer) -> None:
    newer = await connected(site, arrive, key)
    assert "connected again" in await peer.ended()
    newer.send(publish(EVENTS, b"1", 1))
    await newer.expect(PubAck)
    session = site.sessions.connected("pump-7")
    assert session is not None
    assert site.refusals() == [], "to come again is not to be refused"


async def test_a_connection_taken_over_still_hears_what_was_kept(
    site: Site, arrive: Arrive, key: str, peer: MqttPeer
) -> None:
    site.disk.hold()
    peer.send(publish(EVENTS, b"1", 1))
    await site.time.until(lambda: site.disk.waiting)
    await connected(site, arrive, key)
    peer.send(publish(EVENTS, b"late", 2))
    site.disk.release()
    assert await peer.expect(PubAck) == PubAck(1)
    await peer.ended()
    assert site.payloads() == [b"1"]


@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_a_device_that_may_no_longer_be_is_cut(site: Site, peer: MqttPeer, how: str) -> None:
    if how == "disabled":
        await site.set_status("pump-7", "disabled")
    else:
        await site.identities.delete("pump-7")
    assert await peer.ended() == f"the device was {how}"
    decision = site.refusal()
    assert (decision.operation, decision.subject) == ("connection", "pump-7")
    assert site.sessions.connected("pump-7") is None


async def test_enabling_again_brings_no_old_connection_back(
    site: Site, arrive: Arrive, key: str, peer: MqttPeer
) -> None:
    await site.set_status("pump-7", "disabled")
    await site.set_status("pump-7", "enabled")
    await peer.ended()
    await connected(site, arrive, key)


async def test_a_token_may_expire_while_connected_and_is_suffered_for_minutes(
    site: Site, arrive: Arrive, key: str
) -> None:
    peer = await connected(site, arrive, key, keep_alive=0)
    site.time.advance(1700)
    peer.send(packets.encode_pingreq())
    site.time.advance(1700)
    peer.send(packets.encode_pingreq())
    site.time.advance(499)
    peer.send(publish(EVENTS, b"1", 1))
    await peer.expect(PingResp)
    await peer.expect(PingResp)
    await peer.expect(PubAck)
    site.time.advance(1)
    assert "expired" in await peer.ended()
    assert failed_checks(site.refusal()) == ["expiry"]


async def test_a_certificate_does_not_expire_while_connected(site: Site, arrive: Arrive) -> None:
    own = certificate("cam-1")
    settings = IdentitySettings(device_id="cam-1", authentication=Authentication.self_signed(own.sha256))
    await site.identities.create(settings)
    peer = arrive(chain=[own.der])
    peer.send(connect("cam-1", None, keep_alive=0))
    await peer.expect(ConnAck)
    for _ in range(100):
        site.time.advance(1000)
        peer.send(packets.encode_pingreq())
        await peer.expect(PingResp)


async def test_what_is_seen_of_a_device(site: Site, peer: MqttPeer) -> None:
    site.time.advance(10)
    peer.send(packets.encode_pingreq())
    seen = site.sessions.presence("pump-7")
    assert (seen.connected, seen.last_activity) == (True, site.time.now())
    site.time.advance(10)
    peer.stream.lose()
    await peer.time.until(lambda: peer.stream.over)
    away = site.sessions.presence("pump-7")
    assert (away.connected, away.changed_at) == (False, site.time.now())
    assert away.last_activity == seen.last_activity
