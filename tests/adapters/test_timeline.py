"""Each way in which a device's connection over MQTT ends, as the timeline tells it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from moorage.adapters.hub_mqtt import HubMqttDoor
from moorage.credentials.sas import make_token, new_key
from moorage.hub.authentication import Authentication
from moorage.hub.module_identity import ModuleSettings
from moorage.hub.session import Cause
from moorage.hub.timeline import ConnectionChange
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.packets import ConnAck
from tests.support.mqtt_peer import MqttPeer, connect, publish
from tests.support.site import HUB_SCOPE, Site

Arrive = Callable[..., MqttPeer]
Ending = Callable[[Site, MqttPeer], Awaitable[object]]


async def arrived(site: Site, arrive: Arrive, *, lifetime: int = 86_400) -> MqttPeer:
    peer = arrive()
    known = await site.identities.get("pump-7")
    token = site.device_token("pump-7", known.authentication.primary_key or "", lifetime=lifetime)
    peer.send(connect("pump-7", token))
    assert await peer.expect(ConnAck) == ConnAck(0, session_present=False)
    return peer


@pytest.fixture
async def peer(site: Site, arrive: Arrive) -> MqttPeer:
    await site.add_device("pump-7")
    return await arrived(site, arrive)


def changes(site: Site) -> list[ConnectionChange]:
    return site.timeline.of(HUB_SCOPE, "pump-7")


async def say_goodbye(site: Site, peer: MqttPeer) -> None:
    peer.send(packets.encode_disconnect())


async def fall_silent(site: Site, peer: MqttPeer) -> None:
    site.time.advance(91)


async def be_lost(site: Site, peer: MqttPeer) -> None:
    peer.stream.lose()


async def be_disabled(site: Site, peer: MqttPeer) -> None:
    await site.set_status("pump-7", "disabled")


async def be_deleted(site: Site, peer: MqttPeer) -> None:
    await site.identities.delete("pump-7")


async def send_nonsense(site: Site, peer: MqttPeer) -> None:
    peer.send(bytes((0x36, 3)) + b"\0\1x")  # PUBLISH with QoS 3


async def publish_elsewhere(site: Site, peer: MqttPeer) -> None:
    peer.send(publish("devices/pump-8/messages/events/"))


async def hear_of_the_stop(site: Site, peer: MqttPeer) -> None:
    peer.stream.stop()


async def read_nothing(site: Site, peer: MqttPeer) -> None:
    peer.stream.abort("over 1048576 bytes wait unsent")


@pytest.mark.parametrize(
    ("end", "cause", "words"),
    [
        (say_goodbye, Cause.DISCONNECT, "sent DISCONNECT"),
        (fall_silent, Cause.KEEP_ALIVE_MISSED, "nothing received for 90 s"),
        (be_lost, Cause.NETWORK_LOST, "closed by peer"),
        (be_disabled, Cause.DISABLED, "disabled"),
        (be_deleted, Cause.DELETED, "deleted"),
        (send_nonsense, Cause.RULE_BROKEN, "PUBLISH with flags 0x6"),
        (publish_elsewhere, Cause.RULE_BROKEN, "is not devices/pump-7/messages/events/"),
        (hear_of_the_stop, Cause.SERVER_STOP, "server stops"),
        (read_nothing, Cause.ENDED_BY_HUB, "wait unsent"),
    ],
)
async def test_an_end_has_its_cause(
    site: Site, peer: MqttPeer, end: Ending, cause: Cause, words: str
) -> None:
    await end(site, peer)
    await site.time.until(lambda: len(changes(site)) == 2, "the end")
    began, ended = changes(site)
    assert began.connected
    assert ended.ending is not None
    assert ended.ending.cause is cause
    assert words in ended.ending.detail
    assert (ended.tracking_id, ended.door, ended.address) == ("ab" * 16, "mqtt", "192.0.2.7")
    await site.time.until(lambda: peer.stream.over, "the end of the stream")
    assert len(changes(site)) == 2, "an end is told once"


async def test_a_newer_connection_takes_over(site: Site, arrive: Arrive, peer: MqttPeer) -> None:
    newer = await arrived(site, arrive)
    await peer.ended()
    endings = [change.ending.cause if change.ending else None for change in changes(site)]
    assert endings == [None, Cause.TAKEN_OVER, None]
    newer.stream.lose()
    await site.time.until(lambda: len(changes(site)) == 4, "the end of the newer one")


async def test_a_token_ends(site: Site, arrive: Arrive, hub_door: HubMqttDoor) -> None:
    await site.add_device("pump-7")
    peer = await arrived(site, arrive, lifetime=30)
    while peer.stream.reason is None:  # it pings, so that it is not its silence that ends it
        peer.send(packets.encode_pingreq())
        site.time.advance(50)
        peer.stream.take()
    await site.time.until(lambda: len(changes(site)) == 2, "the end")
    ending = changes(site)[1].ending
    assert ending is not None
    assert ending.cause is Cause.TOKEN_EXPIRED


async def test_who_is_not_let_in_has_no_connection(site: Site, arrive: Arrive) -> None:
    await site.add_device("pump-7")
    peer = arrive()
    peer.send(connect("pump-7", "rubbish"))
    assert (await peer.expect(ConnAck)).code == 5
    await peer.ended()
    assert changes(site) == []


async def test_a_module_has_a_timeline_of_its_own(site: Site, arrive: Arrive) -> None:
    await site.add_device("pump-7")
    key = new_key(32)
    settings = ModuleSettings(
        device_id="pump-7", module_id="camera", authentication=Authentication.symmetric(key)
    )
    await site.identities.modules.create(settings)
    token = make_token("localhost/devices/pump-7/modules/camera", key, site.seconds + 3600)
    peer = arrive()
    peer.send(connect("pump-7/camera", token, username="localhost/pump-7/camera/?api-version=2021-04-12"))
    assert (await peer.expect(ConnAck)).code == 0
    await site.identities.modules.delete("pump-7", "camera")
    await peer.ended()
    began, ended = site.timeline.of(HUB_SCOPE, "pump-7/camera")
    assert began.connected
    assert ended.ending == (Cause.DELETED, "the module was deleted")
    assert changes(site) == []
