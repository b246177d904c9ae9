"""Feedback on cloud-to-device messages: batches, and who has them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from moorage.errors import StorageFull
from moorage.hub.cloud_to_device import Ack, CloudToDeviceMessage, CloudToDeviceSettings, LockLost
from moorage.hub.feedback import BATCH_AFTER, KIND, MAX_BATCH, Batch, Feedback, Outcome
from moorage.interfaces import Clock, Store
from tests.hub.conftest import START

Advance = Callable[[float], None]
MINUTE = 60


@pytest.fixture
def feedback(store: Store, clock: Clock) -> Feedback:
    return Feedback(7, store, clock, CloudToDeviceSettings)


def message(message_id: str | None = "m-1", *, module_id: str | None = None) -> CloudToDeviceMessage:
    return CloudToDeviceMessage(
        device_id="pump-7",
        module_id=module_id,
        generation_id="638812345678901234",
        sequence_number=1,
        enqueued_time=START,
        expires_at=START + 1,
        to="/devices/pump-7/messages/devicebound",
        ack=Ack.FULL,
        message_id=message_id,
    )


async def tell(feedback: Feedback, *message_ids: str) -> None:
    for message_id in message_ids:
        record = feedback.of(message(message_id), Outcome.SUCCESS)
        assert record is not None
        await feedback.store.apply([feedback.put(record)])
        feedback.add([record])


def ids(batch: Batch | None) -> list[str | None]:
    assert batch is not None
    return [record.message_id for record in batch.records]


async def test_a_batch_is_ready_after_fifteen_seconds(feedback: Feedback, advance: Advance) -> None:
    assert feedback.next_at(feedback.clock.now()) is None
    await tell(feedback, "a")
    advance(10)
    await tell(feedback, "b")
    assert feedback.take(None) is None
    assert feedback.next_at(feedback.clock.now()) == START + BATCH_AFTER
    advance(5)
    batch = feedback.take(None)
    assert ids(batch) == ["a", "b"]
    assert batch is not None
    assert len(batch.token) == 16


async def test_a_batch_is_ready_with_64_records(feedback: Feedback) -> None:
    names = [str(number) for number in range(MAX_BATCH + 1)]
    await tell(feedback, *names)
    assert ids(feedback.take(None)) == names[:64]
    assert feedback.take(None) is None


async def test_a_batch_that_cannot_be_forgotten_keeps_its_lock(
    feedback: Feedback, store: Store, advance: Advance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk a receiver would have it again and again; it is told when to come."""
    await tell(feedback, "a")
    advance(15)
    batch = feedback.take(None)
    assert batch is not None
    woken: list[str] = []
    feedback.watch(lambda: woken.append("woken"))

    async def full(_: object) -> None:
        raise StorageFull("no space")

    with monkeypatch.context() as patched:
        patched.setattr(store, "apply", full)
        with pytest.raises(StorageFull):
            await feedback.complete(batch.token)
    assert woken == ["woken"]
    assert feedback.take(None) is None
    assert feedback.next_at(feedback.clock.now()) == batch.locked_until
    advance(MINUTE)
    again = feedback.take(None)
    assert ids(again) == ["a"]
    assert again is not None
    await feedback.complete(again.token)
    assert await store.records(KIND, 7).count() == 0


async def test_what_a_record_says(feedback: Feedback) -> None:
    module = feedback.of(message(module_id="camera"), Outcome.REJECTED)
    device = feedback.of(message(None), Outcome.SUCCESS)
    assert module is not None
    assert device is not None
    body = Batch([module, device]).body()
    assert json.loads(body) == [
        {
            "originalMessageId": "m-1",
            "description": "Message rejected",
            "deviceGenerationId": "638812345678901234",
            "deviceId": "pump-7",
            "moduleId": "camera",
            "enqueuedTimeUtc": "2027-01-15T08:00:00.0000000Z",
            "statusCode": "Rejected",
        },
        {
            "originalMessageId": None,
            "description": "Success",
            "deviceGenerationId": "638812345678901234",
            "deviceId": "pump-7",
            "enqueuedTimeUtc": "2027-01-15T08:00:00.0000000Z",
            "statusCode": "Success",
        },
    ]
    assert body.isascii()
    assert b"\\" not in body


async def test_a_batch_comes_to_one_receiver_at_a_time(feedback: Feedback, advance: Advance) -> None:
    await tell(feedback, "a")
    advance(15)
    first = feedback.take("first")
    assert first is not None
    token = first.token
    assert feedback.take("second") is None
    assert feedback.next_at(feedback.clock.now()) == first.locked_until
    advance(MINUTE)
    second = feedback.take("second")
    assert ids(second) == ["a"]
    assert second is not None
    assert second.token != token
    with pytest.raises(LockLost):
        await feedback.complete(token)
    await feedback.complete(second.token)
    assert (feedback.take("first"), feedback.next_at(feedback.clock.now())) == (None, None)
    assert await feedback.store.records(KIND, 7).count() == 0


async def test_what_is_given_back_comes_again(feedback: Feedback, advance: Advance) -> None:
    woken: list[int] = []
    end = feedback.watch(lambda: woken.append(1))
    await tell(feedback, "a")
    advance(15)
    batch = feedback.take(None)
    assert batch is not None
    feedback.abandon(batch.token)
    assert ids(feedback.take("connection")) == ["a"]
    feedback.release("connection")
    assert ids(feedback.take(None)) == ["a"]
    assert len(woken) == 3
    end()
    await tell(feedback, "b")
    assert len(woken) == 3


async def test_records_outlive_a_restart(
    feedback: Feedback, store: Store, clock: Clock, advance: Advance
) -> None:
    await tell(feedback, "a", "b")
    advance(15)
    feedback.take(None)
    again = Feedback(7, store, clock, CloudToDeviceSettings)
    await again.open()
    assert ids(again.take(None)) == ["a", "b"]


async def test_a_batch_is_dropped_after_an_hour(feedback: Feedback, advance: Advance) -> None:
    await tell(feedback, "a")
    advance(60 * MINUTE)
    await tell(feedback, "b")
    await feedback.expire()
    assert await feedback.store.records(KIND, 7).count() == 1
    advance(15)
    assert ids(feedback.take(None)) == ["b"]


async def test_a_batch_is_dropped_after_ten_deliveries(feedback: Feedback, advance: Advance) -> None:
    await tell(feedback, "a")
    advance(15)
    for _ in range(10):
        batch = feedback.take(None)
        assert batch is not None
        feedback.abandon(batch.token)
    assert feedback.take(None) is None
    await feedback.expire()
    assert await feedback.store.records(KIND, 7).count() == 0
