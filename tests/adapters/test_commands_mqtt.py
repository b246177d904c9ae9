"""Cloud-to-device messages over MQTT: topics, acknowledgement, what comes again, and sessions that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from moorage.adapters.commands_mqtt import MAX_BYTES_UNDERWAY, MAX_UNDERWAY
from moorage.adapters.hub_mqtt import HubMqttDoor
from moorage.adapters.mqtt import MqttConversation
from moorage.adapters.subscriptions import MAX_SUBSCRIPTIONS
from moorage.errors import StorageFull
from moorage.hub.cloud_to_device import Ack, Content
from moorage.hub.feedback import KIND as FEEDBACK
from moorage.hub.feedback import Outcome
from moorage.hub.identity import Identities
from moorage.hub.session import TAKEN_OVER, Sessions
from moorage.hub.stored_session import KIND as STORED
from moorage.interfaces import ByteStream, Change, Conversation, Delete, Put
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.packets import ConnAck, PubAck, Publish, SubAck, UnsubAck
from tests.support.mqtt_peer import MqttPeer, connect, publish
from tests.support.site import HUB_SCOPE, Site
from tests.support.streams import ManualTimer

Arrive = Callable[..., MqttPeer]
DEVICEBOUND = "devices/pump-7/messages/devicebound/#"
TO = "/devices/pump-7/messages/devicebound"
BAG = "devices/pump-7/messages/devicebound/%24.to=%2Fdevices%2Fpump-7%2Fmessages%2Fdevicebound"


@pytest.fixture
async def key(site: Site) -> str:
    """Of the device pump-7."""
    return await site.add_device("pump-7")


class Device:
    """Connects as pump-7, as often as it likes."""

    def __init__(self, site: Site, arrive: Arrive, key: str) -> None:
        self.site, self.key, self.arrive = site, key, arrive

    async def connect(self, *, present: bool = False, clean_session: bool = False) -> MqttPeer:
        peer = self.arrive()
        token = self.site.device_token("pump-7", self.key)
        peer.send(connect("pump-7", token, clean_session=clean_session))
        assert await peer.expect(ConnAck) == ConnAck(0, session_present=present)
        return peer

    async def subscribed(self, qos: int = 1, **session: Any) -> MqttPeer:
        peer = await self.connect(**session)
        await subscribe(peer, qos=qos)
        return peer


@pytest.fixture
def device(site: Site, arrive: Arrive, key: str) -> Device:
    return Device(site, arrive, key)


async def subscribe(peer: MqttPeer, topic_filter: str = DEVICEBOUND, *, qos: int = 1) -> None:
    peer.send(packets.encode_subscribe(1, [(topic_filter, qos)]))
    assert await peer.expect(SubAck) == SubAck(1, (qos,))


async def send(site: Site, *bodies: bytes, **members: Any) -> None:
    for body in bodies:
        await site.identities.queues.send("pump-7", None, Content(**{"to": TO, "body": body, **members}))


def acknowledge(peer: MqttPeer, *messages: Publish) -> None:
    peer.send(*(packets.encode_puback(message.packet_id or 0) for message in messages))


async def completed(site: Site, left: int = 0) -> None:
    """Wait until so many messages are left in the queue."""
    await site.time.until(lambda: site.identities.queues.count("pump-7") == left, "PUBACK to be durable")


# --- Topics and payloads ------------------------------------------------------------------------------------


async def test_a_message_comes_under_the_topic_that_clients_expect(site: Site, device: Device) -> None:
    """System properties first, with `%24`; then what the sender asked for; then its own [hub-device 3.8]."""
    peer = await device.subscribed()
    expiry = site.time.now() + 60_000_000
    properties = (("b", "ü/=& %+~"), ("iothub-creation-time-utc", "2027"), ("a", ""), ("n", None))
    await send(
        site,
        bytes(range(256)),
        to="/devices/pump-7/messages/deviceBound",
        ack=Ack.FULL,
        message_id="m 1",
        correlation_id="c",
        user_id="u",
        content_type="text/plain; charset=UTF-8",
        content_encoding="utf-8",
        absolute_expiry_time=expiry,
        properties=properties,
    )
    message = await peer.expect(Publish)
    assert message.topic == (
        "devices/pump-7/messages/devicebound/%24.mid=m%201"
        "&%24.to=%2Fdevices%2Fpump-7%2Fmessages%2FdeviceBound&%24.cid=c&%24.uid=u"
        "&%24.exp=2027-01-15T08%3A01%3A00.0000000Z&%24.ctime=2027"
        "&%24.ct=text%2Fplain%3B%20charset%3DUTF-8&%24.ce=utf-8"
        "&iothub-ack=full&b=%C3%BC%2F%3D%26%20%25%2B~&a=&n"
    )
    assert message.payload == bytes(range(256))
    assert (message.qos, message.retain, message.dup) == (1, False, False)


async def test_a_message_of_nothing(site: Site, device: Device) -> None:
    """The bag is never empty, for .NET takes the topic apart and counts [hub-device 16.1]."""
    peer = await device.subscribed()
    await send(site, b"")
    message = await peer.expect(Publish)
    assert (message.topic, message.payload) == (BAG, b"")


# --- Acknowledgement ----------------------------------------------------------------------------------------


async def test_puback_completes(site: Site, device: Device) -> None:
    peer = await device.subscribed()
    await send(site, b"a", b"b", ack=Ack.POSITIVE)
    first, second = await peer.expect(Publish), await peer.expect(Publish)
    assert (first.payload, second.payload) == (b"a", b"b")
    assert first.packet_id != second.packet_id
    acknowledge(peer, second, first)
    await completed(site)
    assert await site.store.records(FEEDBACK, HUB_SCOPE).count() == 2
    peer.send(packets.encode_puback(7), packets.encode_puback(first.packet_id or 0))
    await peer.time.until(lambda: not peer.received)


async def test_at_qos_0_delivery_completes(site: Site, device: Device) -> None:
    peer = await device.subscribed(qos=0)
    await send(site, b"a", ack=Ack.FULL)
    message = await peer.expect(Publish)
    assert (message.qos, message.packet_id, message.payload) == (0, None, b"a")
    await completed(site)
    assert await site.store.records(FEEDBACK, HUB_SCOPE).count() == 1


async def test_qos_2_is_granted_as_1(device: Device) -> None:
    peer = await device.connect()
    peer.send(packets.encode_subscribe(1, [(DEVICEBOUND, 2)]))
    assert await peer.expect(SubAck) == SubAck(1, (1,))


async def test_messages_sent_before_the_first_subscription_come_with_it(site: Site, device: Device) -> None:
    await send(site, b"a", b"b")
    peer = await device.connect()
    assert peer.received == []
    await subscribe(peer)
    assert [(await peer.expect(Publish)).payload for _ in range(2)] == [b"a", b"b"]


async def test_a_device_that_does_not_acknowledge_gets_sixteen(site: Site, device: Device) -> None:
    peer = await device.subscribed()
    await send(site, *[b"%d" % number for number in range(20)])
    messages = [await peer.expect(Publish) for _ in range(MAX_UNDERWAY)]
    await site.time.until(lambda: peer.received == [])
    acknowledge(peer, messages[3])
    assert (await peer.expect(Publish)).payload == b"16"
    acknowledge(peer, *messages[:3])
    assert [(await peer.expect(Publish)).payload for _ in range(3)] == [b"17", b"18", b"19"]


async def test_large_messages_are_fewer_at_a_time(site: Site, device: Device) -> None:
    peer = await device.subscribed()
    await send(site, *[bytes(60_000)] * 10)
    messages = [await peer.expect(Publish) for _ in range(5)]
    await site.time.until(lambda: peer.received == [])
    acknowledge(peer, messages[0])
    await peer.expect(Publish)


async def test_a_device_that_does_not_read_is_sent_no_more(site: Site, device: Device) -> None:
    peer = await device.subscribed(qos=0)
    peer.stream.stalled = True
    await send(site, *[bytes(60_000)] * 20)
    await site.time.until(lambda: peer.stream.pending > 256 * 1024)
    assert site.identities.queues.count("pump-7") > 10
    assert peer.stream.reason is None
    peer.stream.read_on()
    for _ in range(20):
        await peer.expect(Publish)
        if peer.stream.pending == 0:
            peer.stream._conversation.drained()


async def test_telemetry_and_twins_go_on_beside(site: Site, device: Device) -> None:
    peer = await device.subscribed()
    await send(site, b"a")
    await peer.expect(Publish)
    peer.send(publish("devices/pump-7/messages/events/", b"x", 9))
    assert await peer.expect(PubAck) == PubAck(9)
    assert site.payloads() == [b"x"]


# --- What comes again ---------------------------------------------------------------------------------------


async def test_what_was_not_acknowledged_comes_again(site: Site, device: Device) -> None:
    """Right behind CONNACK, in order, with DUP and the packet id that it had [MQTT-4.4.0-1]."""
    peer = await device.subscribed()
    await send(site, b"a", b"b", b"c")
    first, second, third = [await peer.expect(Publish) for _ in range(3)]
    acknowledge(peer, second)
    await completed(site, 2)
    peer.stream.lose()
    again = await device.connect(present=True)
    found = [await again.expect(Publish) for _ in range(2)]
    assert [(each.payload, each.dup, each.packet_id) for each in found] == [
        (b"a", True, first.packet_id),
        (b"c", True, third.packet_id),
    ]
    await send(site, b"d")
    fresh = await again.expect(Publish)
    assert (fresh.payload, fresh.dup) == (b"d", False)
    assert fresh.packet_id not in (first.packet_id, third.packet_id)
    acknowledge(again, *found, fresh)
    await completed(site)


async def test_a_newer_connection_gets_what_the_older_one_had(site: Site, device: Device) -> None:
    older = await device.subscribed()
    await send(site, b"a")
    message = await older.expect(Publish)
    newer = await device.connect(present=True)
    again = await newer.expect(Publish)
    assert (again.payload, again.dup, again.packet_id) == (b"a", True, message.packet_id)
    await older.ended()
    acknowledge(newer, again)
    await completed(site)


async def test_what_is_not_acknowledged_within_a_minute_comes_again(site: Site, device: Device) -> None:
    peer = await device.subscribed()
    await send(site, b"a")
    first = await peer.expect(Publish)
    peer.send(packets.encode_pingreq())
    await peer.expect(packets.PingResp)
    site.time.advance(60)
    again = await peer.expect(Publish)
    assert (again.payload, again.dup, again.packet_id) == (b"a", True, first.packet_id)
    acknowledge(peer, first)
    await completed(site)


async def test_a_message_that_comes_again_ahead_of_the_timer_takes_up_room_once(
    site: Site, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy event loop runs a timer late: a new message may bring up the old one before."""
    peer = await device.subscribed()
    monkeypatch.setattr(peer.stream, "call_later", lambda *_: ManualTimer(0, lambda: None))
    await send(site, bytes(60_000))
    first = await peer.expect(Publish)
    for _ in range(1 + MAX_BYTES_UNDERWAY // 60_000):
        site.time.advance(60)
        await send(site, b"new")
        again, new = await peer.expect(Publish), await peer.expect(Publish)
        assert (again.packet_id, again.dup, new.payload) == (first.packet_id, True, b"new")
        acknowledge(peer, new)
        await completed(site, left=1)


async def test_a_timer_that_is_early_does_not_end_the_wait(site: Site, device: Device) -> None:
    """The event loop's timers are good for a millisecond: the lock may end while `_unlocked` looks about."""
    peer = await device.subscribed()
    for number in range(MAX_UNDERWAY):
        await send(site, b"%d" % number)
        await peer.expect(Publish)
    now, looks = site.time.now, 0

    def now_and_then() -> int:
        nonlocal looks
        looks += 1
        return now() - (looks == 1)  # the first look is a microsecond too early

    site.time.advance(59)
    site.time.now = now_and_then  # type: ignore[method-assign]
    site.time.advance(1)
    again = [await peer.expect(Publish) for _ in range(MAX_UNDERWAY)]
    assert all(message.dup for message in again)


async def test_what_was_purged_gives_up_its_room_with_its_lock(site: Site, device: Device) -> None:
    """Without PUBACK, nothing else ends its time underway."""
    peer = await device.subscribed()
    for number in range(MAX_UNDERWAY):
        await send(site, b"%d" % number)
        await peer.expect(Publish)
        site.time.advance(1)
    await site.identities.queues.purge("pump-7")
    site.time.advance(60)
    await send(site, *(b"%d" % number for number in range(MAX_UNDERWAY)))
    for _ in range(MAX_UNDERWAY):
        await peer.expect(Publish)


async def test_puback_of_what_was_purged_means_nothing(site: Site, device: Device) -> None:
    peer = await device.subscribed()
    await send(site, b"a", ack=Ack.FULL)
    message = await peer.expect(Publish)
    assert await site.identities.queues.purge("pump-7") == 1
    acknowledge(peer, message)
    await send(site, b"b")
    acknowledge(peer, await peer.expect(Publish))
    await completed(site)
    assert await site.store.records(FEEDBACK, HUB_SCOPE).count() == 1, "Purged, and no Success"


async def test_a_message_that_cannot_be_completed_comes_again(
    site: Site, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await device.subscribed()
    await send(site, b"a")
    message = await peer.expect(Publish)

    async def full(_: object) -> None:
        raise StorageFull("no space")

    with monkeypatch.context() as patched:
        patched.setattr(site.store, "apply", full)
        acknowledge(peer, message)
        peer.send(packets.encode_pingreq())
        await peer.expect(packets.PingResp)
    site.time.advance(60)
    again = await peer.expect(Publish)
    assert (again.payload, again.dup) == (b"a", False), "the first delivery was acknowledged"
    acknowledge(peer, again)
    await completed(site)


async def test_an_expired_message_is_not_delivered(site: Site, device: Device) -> None:
    await send(site, b"a")
    site.time.advance(3600)
    peer = await device.subscribed()
    await send(site, b"b")
    assert (await peer.expect(Publish)).payload == b"b"


async def test_a_message_that_no_topic_can_hold_is_rejected_and_holds_up_none(
    site: Site, device: Device
) -> None:
    """Properties are escaped in the topic, three bytes for one."""
    peer = await device.subscribed()
    await send(site, b"a", ack=Ack.FULL, properties=(("path", "/" * 22_000),))
    await send(site, b"b")
    assert (await peer.expect(Publish)).payload == b"b"
    await completed(site, left=1)
    (record,) = (await site.store.records(FEEDBACK, HUB_SCOPE).page(limit=10)).records
    assert record.outcome is Outcome.REJECTED
    refusal = site.refusal()
    assert (refusal.operation, refusal.subject) == ("cloud-to-device message", "pump-7")
    assert "65535" in refusal.error


# --- Subscriptions and sessions -----------------------------------------------------------------------------


async def test_subscribing_again_delivers_nothing_twice(site: Site, device: Device) -> None:
    peer = await device.subscribed()
    await send(site, b"a")
    await peer.expect(Publish)
    await subscribe(peer, qos=0)
    await send(site, b"b")
    assert (await peer.expect(Publish)).payload == b"b"


async def test_unsubscribing_ends_delivery_and_not_the_connection(site: Site, device: Device) -> None:
    peer = await device.subscribed()
    await send(site, b"a")
    underway = await peer.expect(Publish)
    peer.send(packets.encode_unsubscribe(2, [DEVICEBOUND]))
    await peer.expect(UnsubAck)
    await send(site, b"b")
    acknowledge(peer, underway)
    await completed(site, 1)
    assert peer.received == []
    peer.stream.lose()
    await device.connect(present=False)


async def test_a_session_is_kept_with_all_that_was_subscribed(site: Site, device: Device) -> None:
    peer = await device.connect()
    filters = [(DEVICEBOUND, 1), ("$iothub/twin/res/#", 0), ("$iothub/methods/POST/#", 0)]
    peer.send(packets.encode_subscribe(1, filters))
    await peer.expect(SubAck)
    peer.send(packets.encode_disconnect())
    await peer.ended()
    await send(site, b"a")
    again = await device.connect(present=True)
    acknowledge(again, await again.expect(Publish))
    again.send(publish("$iothub/twin/GET/?$rid=1", b""))
    response = await again.expect(Publish)
    assert response.topic == "$iothub/twin/res/200/?$rid=1"
    await completed(site)


async def test_a_clean_session_forgets_and_is_forgotten(site: Site, device: Device) -> None:
    """Queued messages are not erased by it [hub-device 3.2]."""
    peer = await device.subscribed()
    await send(site, b"a")
    await peer.expect(Publish)
    peer.stream.lose()
    clean = await device.connect(clean_session=True)
    assert await site.store.records(STORED, HUB_SCOPE).count() == 0
    await subscribe(clean)
    again = await clean.expect(Publish)
    assert (again.payload, again.dup) == (b"a", False), "of this session it is the first delivery"
    clean.stream.lose()
    await device.connect(present=False)


class HeldCommits:
    """Commits of kept sessions that wait until they may go on."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self._apply = site.store.apply
        self._free = asyncio.Event()
        self.waiting = 0
        monkeypatch.setattr(site.store, "apply", self._hold)

    async def _hold(self, changes: Sequence[Change]) -> None:
        if any(isinstance(change, Put | Delete) and change.kind is STORED for change in changes):
            self.waiting += 1
            await self._free.wait()
            self.waiting -= 1
        await self._apply(changes)

    def release(self) -> None:
        self._free.set()


async def test_a_clean_session_forgets_what_the_older_connection_is_just_keeping(
    site: Site, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = await device.connect()
    commits = HeldCommits(site, monkeypatch)
    older.send(packets.encode_subscribe(1, [(DEVICEBOUND, 1)]))
    await site.time.until(lambda: commits.waiting)
    connecting = asyncio.create_task(device.connect(clean_session=True))
    for _ in range(50):  # as far as it comes
        await asyncio.sleep(0)
    commits.release()
    clean = await connecting
    assert await older.expect(SubAck) == SubAck(1, (1,)), "it was kept, and is forgotten"
    assert await older.ended() == TAKEN_OVER
    clean.send(packets.encode_disconnect())
    await clean.ended()
    await device.connect(present=False)


async def test_a_connection_that_was_overtaken_keeps_nothing(
    site: Site, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It subscribes while the clean session that takes it over forgets what there was."""
    older = await device.subscribed()
    commits = HeldCommits(site, monkeypatch)
    connecting = asyncio.create_task(device.connect(clean_session=True))
    await site.time.until(lambda: commits.waiting)
    older.send(packets.encode_subscribe(2, [("$iothub/methods/POST/#", 0)]))
    for _ in range(50):
        await asyncio.sleep(0)
    commits.release()
    clean = await connecting
    assert await older.ended() == TAKEN_OVER, "without a SUBACK"
    assert site.refusals() == []
    clean.send(packets.encode_disconnect())
    await clean.ended()
    await device.connect(present=False)


async def test_a_session_outlives_a_restart_of_the_server(
    site: Site, device: Device, hub_door: HubMqttDoor
) -> None:
    peer = await device.subscribed()
    await send(site, b"a", b"b")
    acknowledge(peer, await peer.expect(Publish))
    await completed(site, 1)
    peer.stream.lose()

    identities = Identities(site.hub, site.store, site.time, Sessions(site.time))
    await identities.open()
    door = HubMqttDoor(
        event_log=site.log,
        clock=site.time,
        decisions=site.decisions,
        hub_by_host=lambda _: (site.hub, identities),
    )

    def open_conversation(stream: ByteStream) -> Conversation:
        return MqttConversation(stream, lambda _: door, connect_timeout=30)

    after = Device(site, lambda: MqttPeer(site.time, open_conversation), device.key)
    again = await after.connect(present=True)
    message = await again.expect(Publish)
    assert message.payload == b"b"
    acknowledge(again, message)
    await site.time.until(lambda: identities.queues.count("pump-7") == 0)


async def test_a_device_made_anew_has_no_session(site: Site, device: Device) -> None:
    await device.subscribed()
    await site.identities.delete("pump-7")
    device.key = await site.add_device("pump-7")
    await device.connect(present=False)


async def test_what_could_not_be_kept_is_not_granted(
    site: Site, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await device.connect()

    async def full(_: object) -> None:
        raise StorageFull("no space")

    monkeypatch.setattr(site.store, "apply", full)
    peer.send(packets.encode_subscribe(1, [(DEVICEBOUND, 1)]))
    assert "subscriptions not kept: no space" in await peer.ended()
    assert "subscriptions not kept" in site.refusal().error


async def test_no_more_than_five_filters(site: Site, device: Device) -> None:
    peer = await device.connect()
    filters = [(f"$iothub/methods/POST/m{number}/#", 0) for number in range(MAX_SUBSCRIPTIONS + 1)]
    peer.send(packets.encode_subscribe(1, filters))
    assert await peer.expect(SubAck) == SubAck(1, (0, 0, 0, 0, 0, 0x80))
    peer.send(packets.encode_unsubscribe(2, [filters[0][0]]))
    await peer.expect(UnsubAck)
    peer.send(packets.encode_subscribe(3, [filters[5]]))
    assert await peer.expect(SubAck) == SubAck(3, (0,))


async def test_a_deleted_device_gets_nothing_more(site: Site, device: Device) -> None:
    peer = await device.subscribed()
    await send(site, b"a")
    await peer.expect(Publish)
    await site.identities.delete("pump-7")
    await peer.ended()
    assert site.identities.queues.count("pump-7") == 0
