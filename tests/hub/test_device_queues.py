"""The queues of cloud-to-device messages: what waits, what is underway, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from moorage.errors import Invalid, NotFound, StorageFull, TooLarge
from moorage.hub import cloud_to_device, module_identity
from moorage.hub.authentication import Authentication
from moorage.hub.cloud_to_device import (
    MAX_MESSAGE,
    MAX_QUEUE,
    Ack,
    CloudToDeviceMessage,
    CloudToDeviceSettings,
    Content,
    InvalidExpiry,
    LockLost,
    QueueFull,
    read_ack,
)
from moorage.hub.device_identity import DISABLED, IdentitySettings
from moorage.hub.device_queues import DeviceQueues, Lock
from moorage.hub.feedback import KIND as FEEDBACK
from moorage.hub.feedback import FeedbackRecord, Outcome
from moorage.hub.identity import Identities
from moorage.hub.instance import KIND as HUB
from moorage.hub.instance import Hub
from moorage.hub.module_identity import ModuleIdentity
from moorage.hub.session import Sessions
from moorage.interfaces import Clock, Store

Advance = Callable[[float], None]
TO = "/devices/pump-7/messages/devicebound"
HOUR = 3600


@pytest.fixture
async def queues(identities: Identities) -> DeviceQueues:
    """With a device pump-7."""
    settings = IdentitySettings(device_id="pump-7", authentication=Authentication.symmetric())
    await identities.create(settings)
    return identities.queues


def content(body: bytes = b"x", **members: object) -> Content:
    return Content(to=TO, body=body, **members)  # type: ignore[arg-type]


async def send(queues: DeviceQueues, *bodies: bytes, ack: Ack = Ack.NONE) -> list[CloudToDeviceMessage]:
    return [await queues.send("pump-7", None, content(body, ack=ack)) for body in bodies]


async def take(queues: DeviceQueues, name: str = "pump-7", holder: object = None) -> tuple[Lock, bytes]:
    lock = queues.take(name, holder)
    assert lock is not None
    body = await queues.body(lock.message)
    assert body is not None
    return lock, body


async def kept(store: Store) -> tuple[int, int]:
    """Messages and bodies on disk."""
    heads, bodies = store.records(cloud_to_device.KIND, 7), store.records(cloud_to_device.BODY_KIND, 7)
    return await heads.count(), await bodies.count()


async def feedback(store: Store) -> list[FeedbackRecord]:
    return list((await store.records(FEEDBACK, 7).page(limit=100)).records)


async def restarted(hub: Hub, store: Store, clock: Clock) -> Identities:
    identities = Identities(hub, store, clock, Sessions(clock))
    await identities.open()
    return identities


# --- Sending ------------------------------------------------------------------------------------------------


async def test_messages_come_in_the_order_in_which_they_were_sent(queues: DeviceQueues) -> None:
    sent = await send(queues, b"a", b"", bytes(range(256)))
    numbers = [message.sequence_number for message in sent]
    assert numbers == sorted(set(numbers))
    assert [(await take(queues))[1] for _ in sent] == [b"a", b"", bytes(range(256))]
    assert queues.take("pump-7", None) is None


async def test_nobody_sends_to_who_is_not_there(queues: DeviceQueues) -> None:
    for device, module, kind in (
        ("pump-8", None, "device"),
        ("pump-8", "a", "device"),
        ("pump-7", "a", "module"),
    ):
        with pytest.raises(NotFound) as failure:
            await queues.send(device, module, content())
        assert failure.value.kind == kind


async def test_a_queue_takes_fifty_messages(queues: DeviceQueues, advance: Advance) -> None:
    await send(queues, *[b"x"] * MAX_QUEUE)
    await take(queues)  # what is underway counts
    with pytest.raises(QueueFull):
        await send(queues, b"one more")
    assert queues.count("pump-7") == MAX_QUEUE == 50
    advance(HOUR)
    await send(queues, b"now that the others have expired")
    assert queues.count("pump-7") == 1


async def test_messages_on_their_way_to_the_disk_count_too(queues: DeviceQueues) -> None:
    outcomes = await asyncio.gather(*(send(queues, b"x") for _ in range(60)), return_exceptions=True)
    assert sum(isinstance(outcome, QueueFull) for outcome in outcomes) == 10
    assert queues.count("pump-7") == MAX_QUEUE


async def test_the_size_of_a_message(queues: DeviceQueues) -> None:
    room = MAX_MESSAGE - len(TO) - len("namevalueid")
    fits = content(b"x" * room, message_id="id", properties=(("name", "value"),))
    await queues.send("pump-7", None, fits)
    with pytest.raises(TooLarge):
        await queues.send("pump-7", None, replace(fits, body=fits.body + b"x"))


async def test_an_expiry_lies_ahead_and_within_two_days(queues: DeviceQueues, clock: Clock) -> None:
    now, second, day = clock.now(), 1_000_000, 86_400_000_000
    for expiry in (now, now - second, now + 2 * day + 1, 0):
        with pytest.raises(InvalidExpiry):
            await queues.send("pump-7", None, content(absolute_expiry_time=expiry))
    for expiry in (now + second, now + 2 * day):
        await queues.send("pump-7", None, content(absolute_expiry_time=expiry))


def test_acks_in_any_case() -> None:
    assert [read_ack(text) for text in (None, "", "none", "Full", "POSITIVE")] == [
        Ack.NONE,
        Ack.NONE,
        Ack.NONE,
        Ack.FULL,
        Ack.POSITIVE,
    ]
    with pytest.raises(Invalid, match="iothub-ack"):
        read_ack("maybe")


# --- Delivery -----------------------------------------------------------------------------------------------


async def test_what_is_completed_is_gone_for_good(
    queues: DeviceQueues, hub: Hub, store: Store, clock: Clock
) -> None:
    await send(queues, b"a", b"b")
    lock, _ = await take(queues)
    await queues.complete(lock)
    with pytest.raises(LockLost):
        await queues.complete(lock)
    again = (await restarted(hub, store, clock)).queues
    assert [(await take(again))[1], again.take("pump-7", None)] == [b"b", None]
    assert await kept(store) == (1, 1)


async def test_what_is_underway_at_a_restart_comes_again(
    queues: DeviceQueues, hub: Hub, store: Store, clock: Clock
) -> None:
    (sent,) = await send(queues, b"a")
    await take(queues)
    lock, body = await take((await restarted(hub, store, clock)).queues)
    assert (lock.message, body) == (sent, b"a")


async def test_sequence_numbers_rise_over_a_restart(
    queues: DeviceQueues, hub: Hub, store: Store, clock: Clock, advance: Advance
) -> None:
    first, second = await send(queues, b"a", b"b")
    advance(-1)
    (third,) = await send((await restarted(hub, store, clock)).queues, b"c")
    assert first.sequence_number < second.sequence_number < third.sequence_number


async def test_a_lost_connection_gives_back_what_it_had(queues: DeviceQueues) -> None:
    await send(queues, b"a", b"b", b"c")
    mine, other = object(), object()
    first, _ = await take(queues, holder=mine)
    await take(queues, holder=other)
    woken: list[str] = []
    queues.watch("pump-7", lambda: woken.append("woken"))
    queues.release("pump-7", mine)
    assert woken == ["woken"]
    again, body = await take(queues, holder=other)
    assert (body, first.again, again.again) == (b"a", False, True)
    assert again.message.delivery_count == 0, "only the device's own word counts"
    with pytest.raises(LockLost):
        await queues.complete(first)


async def test_a_lock_ends_after_a_minute(queues: DeviceQueues, advance: Advance) -> None:
    await send(queues, b"a")
    late, _ = await take(queues)
    assert queues.next_unlock("pump-7") == late.until
    advance(59.9)
    assert queues.take("pump-7", None) is None
    advance(0.1)
    with pytest.raises(LockLost):
        await queues.complete(late)
    lock, _ = await take(queues)
    await queues.complete(lock)
    assert queues.count("pump-7") == 0


async def test_a_message_given_back_too_often_is_dead(
    queues: DeviceQueues, hub: Hub, store: Store, clock: Clock
) -> None:
    await send(queues, b"a", ack=Ack.FULL)
    for count in range(9):
        lock, _ = await take(queues)
        assert lock.message.delivery_count == count
        await queues.abandon(lock)
    last, body = await take((await restarted(hub, store, clock)).queues)
    assert (last.message.delivery_count, body) == (9, b"a")
    lock, _ = await take(queues)
    await queues.abandon(lock)
    assert queues.count("pump-7") == 0
    assert [record.outcome for record in await feedback(store)] == [Outcome.DELIVERY_COUNT_EXCEEDED]


async def test_a_queue_wakes_the_newest_connection(queues: DeviceQueues) -> None:
    woken: list[str] = []
    older = lambda: woken.append("older")  # noqa: E731
    newer = lambda: woken.append("newer")  # noqa: E731
    queues.watch("pump-7", older)
    queues.watch("pump-7", newer)
    queues.unwatch("pump-7", older)
    await send(queues, b"a")
    assert woken == ["newer"]


async def test_who_looks_while_a_purge_fails_is_told_of_what_is_left(
    queues: DeviceQueues, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being purged is given to nobody; nobody would come back for it either."""
    await send(queues, b"a")
    woken: list[str] = []

    async def look_and_fail(_: object) -> None:
        queues.watch("pump-7", lambda: woken.append("woken"))
        assert queues.take("pump-7", None) is None
        raise StorageFull("no space")

    with monkeypatch.context() as patched:
        patched.setattr(store, "apply", look_and_fail)
        with pytest.raises(StorageFull):
            await queues.purge("pump-7")
    assert woken == ["woken"]
    assert (await take(queues))[1] == b"a"


async def test_who_looks_while_giving_back_fails_is_told_of_what_is_left(
    queues: DeviceQueues, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(queues, b"a")
    lock, _ = await take(queues)
    woken: list[str] = []

    async def look_and_fail(_: object) -> None:
        queues.watch("pump-7", lambda: woken.append("woken"))
        raise StorageFull("no space")

    with monkeypatch.context() as patched:
        patched.setattr(store, "apply", look_and_fail)
        with pytest.raises(StorageFull):
            await queues.abandon(lock)
    assert woken == ["woken"]
    assert (await take(queues))[1] == b"a"


# --- The end of messages ------------------------------------------------------------------------------------


async def test_a_message_expires(queues: DeviceQueues, store: Store, advance: Advance) -> None:
    await send(queues, b"a", ack=Ack.NEGATIVE)
    advance(HOUR - 0.001)
    assert queues.count("pump-7") == 1
    advance(0.001)
    assert (queues.count("pump-7"), queues.take("pump-7", None)) == (0, None)
    await queues.expire()
    assert [record.outcome for record in await feedback(store)] == [Outcome.EXPIRED]
    assert await store.records(cloud_to_device.KIND, 7).count() == 0


async def test_what_is_underway_expires_when_its_lock_ends(
    queues: DeviceQueues, store: Store, advance: Advance
) -> None:
    await send(queues, b"a", b"b", ack=Ack.FULL)
    advance(HOUR - 30)
    completed, _ = await take(queues)
    await take(queues)
    advance(35)
    await queues.expire()
    assert await feedback(store) == []
    await queues.complete(completed)
    advance(30)
    await queues.expire()
    assert [record.outcome for record in await feedback(store)] == [Outcome.SUCCESS, Outcome.EXPIRED]


async def test_the_hubs_own_time_to_live_and_delivery_count(
    queues: DeviceQueues, identities: Identities, advance: Advance
) -> None:
    identities.hub = replace(
        identities.hub, cloud_to_device=CloudToDeviceSettings(default_ttl=60, max_delivery_count=1)
    )
    await send(queues, b"a", b"b")
    lock, _ = await take(queues)
    await queues.abandon(lock)
    assert queues.count("pump-7") == 1
    advance(60)
    assert queues.count("pump-7") == 0


async def test_a_hub_kept_by_an_older_release_has_the_defaults(hub: Hub) -> None:
    document = HUB.to_document(hub)
    del document["cloudToDevice"]
    assert HUB.from_document(document) == hub
    changed = replace(hub, cloud_to_device=CloudToDeviceSettings(default_ttl=61))
    assert HUB.from_document(HUB.to_document(changed)) == changed


@pytest.mark.parametrize("settings", [{"default_ttl": 59}, {"max_delivery_count": 0}, {"feedback_lock": 301}])
def test_settings_have_limits(settings: dict[str, int]) -> None:
    with pytest.raises(Invalid):
        CloudToDeviceSettings(**settings)


async def test_purge_empties_the_queue(queues: DeviceQueues, store: Store) -> None:
    assert await queues.purge("pump-7") == 0
    await send(queues, b"a", b"b", ack=Ack.FULL)
    await send(queues, b"c")
    underway, _ = await take(queues)
    assert await queues.purge("pump-7") == 3
    assert queues.count("pump-7") == 0
    with pytest.raises(LockLost):
        await queues.complete(underway)
    assert [record.outcome for record in await feedback(store)] == [Outcome.PURGED] * 2


@pytest.mark.parametrize("ack", Ack)
async def test_the_sender_hears_what_it_asked_for(queues: DeviceQueues, store: Store, ack: Ack) -> None:
    await send(queues, b"a", b"b", ack=ack)
    completed, _ = await take(queues)
    rejected, _ = await take(queues)
    await queues.complete(completed)
    await queues.reject(rejected)
    heard = [record.outcome for record in await feedback(store)]
    wanted = {
        Ack.NONE: [],
        Ack.POSITIVE: [Outcome.SUCCESS],
        Ack.NEGATIVE: [Outcome.REJECTED],
        Ack.FULL: [Outcome.SUCCESS, Outcome.REJECTED],
    }
    assert heard == wanted[ack]


async def test_a_disabled_device_keeps_its_queue(queues: DeviceQueues, identities: Identities) -> None:
    """[hub-device 16.49]"""
    await send(queues, b"a")
    device = await identities.get("pump-7")
    settings = IdentitySettings(device_id="pump-7", authentication=device.authentication, status=DISABLED)
    await identities.update(settings)
    await send(queues, b"b")
    assert queues.count("pump-7") == 2


async def test_a_deleted_device_has_no_queue(
    queues: DeviceQueues, identities: Identities, store: Store
) -> None:
    module = ModuleIdentity(
        device_id="pump-7",
        module_id="camera",
        generation_id="1",
        etag="e",
        authentication=Authentication.symmetric(),
    )
    await store.records(module_identity.KIND, 7).put(module)
    await send(queues, b"a", b"b")
    await queues.send("pump-7", "camera", content())
    assert (queues.count("pump-7"), queues.count("pump-7/camera")) == (2, 1)
    await identities.delete("pump-7")
    assert await kept(store) == (0, 0)
    await identities.create(IdentitySettings(device_id="pump-7", authentication=Authentication.symmetric()))
    assert queues.count("pump-7") == queues.count("pump-7/camera") == 0


async def test_views_count_what_waits(queues: DeviceQueues, identities: Identities) -> None:
    await send(queues, b"a", b"b")
    assert identities.sessions.presence("pump-7").queued == 2
    assert identities.sessions.presence("pump-8").queued == 0


async def test_what_waits_is_seen_with_who_has_it(queues: DeviceQueues, advance: Advance) -> None:
    first, second = await send(queues, b"first", b"2nd")
    lock, _ = await take(queues)
    assert [(each.message, each.underway) for each in queues.waiting("pump-7")] == [
        (first, True),
        (second, False),
    ]
    assert [each.message.size for each in queues.waiting("pump-7")] == [5, 3]
    queues.put_back(lock)
    assert not any(each.underway for each in queues.waiting("pump-7"))
    advance(HOUR)
    assert queues.waiting("pump-7") == []


async def test_a_message_of_an_older_release_has_no_size(queues: DeviceQueues) -> None:
    (sent,) = await send(queues, b"x")
    kept = cloud_to_device.KIND.to_document(sent)
    del kept["size"]
    assert cloud_to_device.KIND.from_document(kept) == replace(sent, size=None)
