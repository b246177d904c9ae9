"""Modules at their hub over MQTT: each an identity with a connection, topics and telemetry of its own."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from moorage.credentials.sas import new_key
from moorage.hub.authentication import Authentication
from moorage.hub.cloud_to_device import BODY_KIND as BODIES
from moorage.hub.cloud_to_device import Content
from moorage.hub.module_identity import ModuleSettings
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.packets import ConnAck, PubAck, Publish, SubAck, Will
from tests.support.mqtt_peer import MqttPeer, connect, publish
from tests.support.site import HUB_SCOPE, Site, certificate, failed_checks

Arrive = Callable[..., MqttPeer]
EVENTS = "devices/pump-7/modules/logger/messages/events/"


@pytest.fixture
async def device_key(site: Site) -> str:
    return await site.add_device("pump-7")


@pytest.fixture
async def key(site: Site, device_key: str) -> str:
    """Of the module pump-7/logger."""
    return await add_module(site, "logger")


async def add_module(site: Site, module_id: str, authentication: Authentication | None = None) -> str:
    key = new_key(32)
    settings = ModuleSettings(
        device_id="pump-7",
        module_id=module_id,
        authentication=authentication or Authentication.symmetric(key),
    )
    await site.identities.modules.create(settings)
    return key


def module_token(site: Site, key: str, module_id: str = "logger") -> str:
    return site.device_token(f"pump-7/modules/{module_id}", key)


async def connected(
    site: Site, arrive: Arrive, key: str, module_id: str = "logger", will: Will | None = None
) -> MqttPeer:
    peer = arrive()
    peer.send(connect(f"pump-7/{module_id}", module_token(site, key, module_id), will=will))
    assert await peer.expect(ConnAck) == ConnAck(0, session_present=False)
    return peer


async def code_of(arrive: Arrive, packet: bytes, **peer_facts: object) -> int:
    peer = arrive(**peer_facts)
    peer.send(packet)
    answer = await peer.expect(ConnAck)
    if answer.code:
        await peer.ended()
    return answer.code


async def test_telemetry_names_the_module_and_its_output(site: Site, arrive: Arrive, key: str) -> None:
    peer = await connected(site, arrive, key)
    peer.send(publish(EVENTS + "a=b&%24.on=alerts", b"hot", 1))
    assert await peer.expect(PubAck) == PubAck(1)
    (message,) = site.kept()
    annotations = {str(name): value for name, value in (message.message_annotations or {}).items()}
    module = await site.identities.modules.get("pump-7", "logger")
    assert annotations["iothub-connection-device-id"] == "pump-7"
    assert annotations["iothub-connection-module-id"] == "logger"
    assert annotations["iothub-connection-auth-generation-id"] == module.generation_id
    assert json.loads(annotations["iothub-connection-auth-method"])["scope"] == "module"
    assert dict(message.application_properties or {}) == {"a": "b", "iothub-outputname": "alerts"}


async def test_telemetry_of_a_device_names_no_module(site: Site, arrive: Arrive, device_key: str) -> None:
    peer = arrive()
    peer.send(connect("pump-7", site.device_token("pump-7", device_key)))
    await peer.expect(ConnAck)
    peer.send(publish("devices/pump-7/messages/events/", b"x", 1))
    await peer.expect(PubAck)
    (message,) = site.kept()
    assert "iothub-connection-module-id" not in {str(name) for name in message.message_annotations or {}}


@pytest.mark.parametrize(
    "topic",
    [
        "devices/pump-7/messages/events/",
        "devices/pump-7/modules/other/messages/events/",
        "devices/pump-7/modules/loggers/messages/events/",
        "devices/pump-8/modules/logger/messages/events/",
    ],
)
async def test_a_module_publishes_for_itself_alone(site: Site, arrive: Arrive, key: str, topic: str) -> None:
    peer = await connected(site, arrive, key)
    peer.send(publish(topic, b"x", 1))
    await peer.ended()
    assert site.refusal().subject == "pump-7/logger"
    assert failed_checks(site.refusal()) == ["topic"]
    assert site.kept() == []


async def test_whose_key_opens_what(site: Site, arrive: Arrive, device_key: str, key: str) -> None:
    """A module does not connect with its device's key, nor the reverse [hub-device 2.2]."""
    other = await add_module(site, "other")
    cases = [
        ("pump-7/logger", module_token(site, device_key), "signature"),
        ("pump-7/logger", site.device_token("pump-7", device_key), "signature"),
        ("pump-7", module_token(site, key), "signature"),
        ("pump-7", module_token(site, device_key), "audience"),
        ("pump-7/logger", module_token(site, other), "signature"),
        ("pump-7/other", module_token(site, other), "audience"),
        ("pump-7/logger", None, "kind of proof"),
        ("pump-7/none", module_token(site, key, "none"), "known"),
        ("nobody/logger", module_token(site, key), "known"),
        ("pump-7/logger", site.token("service"), "right"),
    ]
    for client_id, token, check in cases:
        before = len(site.refusals())
        assert await code_of(arrive, connect(client_id, token)) == 5, check
        (decision,) = site.refusals()[before:]
        assert (decision.subject, failed_checks(decision)) == (client_id, [check])
    for token in (
        site.token("device"),
        site.token("device", "localhost/devices/pump-7"),
        module_token(site, key),
    ):
        assert await code_of(arrive, connect("pump-7/logger", token)) == 0


async def test_a_module_proves_itself_by_certificate(site: Site, arrive: Arrive, device_key: str) -> None:
    own, other = certificate("logger"), certificate("logger")
    await add_module(site, "logger", Authentication.self_signed(own.sha1, own.sha256))
    packet = connect("pump-7/logger", None)
    assert await code_of(arrive, packet, chain=(own.der,)) == 0
    assert await code_of(arrive, packet, chain=(other.der,)) == 5
    assert failed_checks(site.refusal()) == ["thumbprint"]


async def test_device_and_modules_are_connections_of_their_own(
    site: Site, arrive: Arrive, device_key: str, key: str
) -> None:
    other_key = await add_module(site, "other")
    first, other = await connected(site, arrive, key), await connected(site, arrive, other_key, "other")
    device = arrive()
    device.send(connect("pump-7", site.device_token("pump-7", device_key)))
    await device.expect(ConnAck)
    assert len(site.sessions) == 3
    second = await connected(site, arrive, key)
    await first.ended()
    assert site.refusals() == [], "being taken over is no refusal"
    for peer in (second, other, device):
        peer.send(packets.encode_pingreq())
        await peer.expect(packets.PingResp)


async def test_a_disabled_device_takes_its_modules_along(
    site: Site, arrive: Arrive, device_key: str, key: str
) -> None:
    peer = await connected(site, arrive, key)
    await site.set_status("pump-7", "disabled")
    await peer.ended()
    assert await code_of(arrive, connect("pump-7/logger", module_token(site, key))) == 3
    await site.set_status("pump-7", "enabled")
    peer = await connected(site, arrive, key)
    await site.identities.modules.delete("pump-7", "logger")
    await peer.ended()
    assert await code_of(arrive, connect("pump-7/logger", module_token(site, key))) == 5


async def test_a_module_reads_its_own_twin(site: Site, arrive: Arrive, key: str) -> None:
    await site.identities.patch_twin("pump-7", {"properties": {"desired": {"whose": "the device's"}}})
    patch = {"properties": {"desired": {"whose": "the module's"}}}
    await site.identities.patch_twin("pump-7", patch, module_id="logger")
    peer = await connected(site, arrive, key)
    peer.send(
        packets.encode_subscribe(1, [("$iothub/twin/res/#", 0)]), publish("$iothub/twin/GET/?$rid=1", b"")
    )
    await peer.expect(SubAck)
    answer = await peer.expect(Publish)
    assert json.loads(answer.payload)["desired"]["whose"] == "the module's"


async def test_a_module_goes_some_minutes_after_its_token(site: Site, arrive: Arrive, key: str) -> None:
    """And another stays, whose token is another."""
    peer = arrive()
    expires = site.device_token("pump-7/modules/logger", key, lifetime=600)
    peer.send(connect("pump-7/logger", expires, keep_alive=0))
    await peer.expect(ConnAck)
    other_key = await add_module(site, "other")
    other = arrive()
    other.send(connect("pump-7/other", module_token(site, other_key, "other"), keep_alive=0))
    await other.expect(ConnAck)
    site.time.advance(600 + 299)
    peer.send(publish(EVENTS, b"1", 1))
    await peer.expect(PubAck)
    site.time.advance(1)
    assert "expired" in await peer.ended()
    refusal = site.refusal()
    assert (refusal.subject, failed_checks(refusal)) == ("pump-7/logger", ["expiry"])
    assert not site.sessions.presence("pump-7/logger").connected
    assert site.sessions.presence("pump-7/other").connected


async def test_the_will_of_a_module(site: Site, arrive: Arrive, key: str) -> None:
    peer = await connected(site, arrive, key, will=Will(EVENTS, b"gone", qos=1))
    peer.stream.lose()
    await site.time.until(lambda: site.payloads() == [b"gone"])
    wrong = Will("devices/pump-7/messages/events/", b"gone", qos=1)
    packet = connect("pump-7/logger", module_token(site, key), will=wrong)
    assert await code_of(arrive, packet) == 5


# --- Messages for modules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "topic_filter",
    ["devices/pump-7/modules/logger/messages/devicebound/#", "devices/pump-7/modules/logger/#"],
    ids=["Java", "C and .NET"],
)
async def test_messages_for_a_module(site: Site, arrive: Arrive, key: str, topic_filter: str) -> None:
    """[hub-device 3.8]"""
    peer = await connected(site, arrive, key)
    peer.send(packets.encode_subscribe(1, [(topic_filter, 1)]))
    assert await peer.expect(SubAck) == SubAck(1, (1,))
    to = "/devices/pump-7/modules/logger/messages/deviceBound"
    await site.identities.queues.send("pump-7", "logger", Content(to=to, body=b"a"))
    message = await peer.expect(Publish)
    assert message.payload == b"a"
    assert message.topic == (
        "devices/pump-7/modules/logger/messages/devicebound/"
        "%24.to=%2Fdevices%2Fpump-7%2Fmodules%2Flogger%2Fmessages%2FdeviceBound"
    )
    peer.send(packets.encode_puback(message.packet_id or 0))
    await site.time.until(lambda: site.identities.queues.count("pump-7/logger") == 0)


async def test_a_module_may_listen_to_its_inputs(site: Site, arrive: Arrive, key: str) -> None:
    """Only an IoT Edge gateway sends to inputs, at Azure too [hub-device 3.9]."""
    peer = await connected(site, arrive, key)
    filters = [("devices/pump-7/modules/logger/inputs/#", 1), ("devices/pump-7/modules/other/inputs/#", 1)]
    peer.send(packets.encode_subscribe(1, filters))
    assert await peer.expect(SubAck) == SubAck(1, (1, 0x80))


async def test_messages_of_a_deleted_module_go_with_it(site: Site, key: str) -> None:
    to = "/devices/pump-7/modules/logger/messages/deviceBound"
    await site.identities.queues.send("pump-7", "logger", Content(to=to, body=b"a"))
    assert site.sessions.presence("pump-7/logger").queued == 1
    await site.identities.modules.delete("pump-7", "logger")
    await add_module(site, "logger")
    assert site.identities.queues.count("pump-7/logger") == 0
    assert await site.store.records(BODIES, HUB_SCOPE).count() == 0
