"""Send, take and settle cloud-to-device messages in FOLDER, many at once, and append to SAID what was promised.

    kept KEY             the message waits for its device
    abandoned KEY COUNT  … and has been given back so often
    ending KEY           somebody is about to take it out of its queue: from here on it may be gone
    ended KEY OUTCOME    it is gone, and its feedback is there
    clearing KEY         a back end is about to complete the feedback on it: from here on that may be gone
    cleared KEY          that is gone

All of a message follows from its id, which stands in its feedback too.

With a third argument for SQLite's `synchronous` other than FULL, the promises are hollow.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

from moorage.app import KINDS
from moorage.hub.authentication import Authentication
from moorage.hub.cloud_to_device import Ack, CloudToDeviceSettings, Content, QueueFull
from moorage.hub.device_identity import IdentitySettings
from moorage.hub.device_queues import Lock
from moorage.hub.feedback import BATCH_AFTER, FeedbackRecord, Outcome
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.module_identity import ModuleSettings
from moorage.hub.session import Sessions, name_of
from moorage.store import commit, database
from moorage.store.folder import DataFolder
from moorage.store.sqlite import SqliteStore

HUB = 2
DEVICES = ("pump-1", "pump-2", "pump-3")
PURGED = "pump-4"
MODULE = "camera"
MESSAGES = 60  # for each device or module
NOON = 1_780_315_200_000_000  # 2026-06-01T12:00:00Z
SETTINGS = CloudToDeviceSettings(
    default_ttl=172_800, lock=300, feedback_lock=300, feedback_ttl=172_800, max_delivery_count=3
)

Say = Callable[[str], None]


class Afternoon:
    """A clock that is told when to go on."""

    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return 0.0


def identities_of(store: SqliteStore, clock: Afternoon) -> Identities:
    hub = Hub(
        scope=HUB,
        name="hub",
        host_names=("localhost",),
        advertised_host="localhost",
        created=NOON,
        cloud_to_device=SETTINGS,
    )
    return Identities(hub, store, clock, Sessions(clock))


def body_of(message_id: str) -> bytes:
    """Some of them need many pages of the database."""
    chance = random.Random(message_id)
    return chance.randbytes(chance.choice([0, 10, 500, 20_000]))


def content(name: str, number: int) -> Content:
    message_id = f"{name}:{number}"
    return Content(to="", body=body_of(message_id), ack=Ack.FULL, message_id=message_id)


def key_of(record: FeedbackRecord) -> str:
    return record.message_id or ""


async def send(identities: Identities, device_id: str, module_id: str | None, say: Say) -> None:
    """As a back end does that waits while the queue is full."""
    name, number = name_of(device_id, module_id), 0
    while number < MESSAGES:
        try:
            message = await identities.queues.send(device_id, module_id, content(name, number))
        except QueueFull:
            await asyncio.sleep(0)
            continue
        say(f"kept {message.message_id}")
        number += 1


async def take(identities: Identities, name: str, say: Say) -> None:
    """As a device does that has several messages at once, wants most of them, and gives some back."""
    queues, chance, left = identities.queues, random.Random(name), MESSAGES

    async def settle(lock: Lock) -> bool:
        key = lock.message.message_id
        draw = chance.random()
        if draw < 0.3 and lock.message.delivery_count + 1 < SETTINGS.max_delivery_count:
            await queues.abandon(lock)
            say(f"abandoned {key} {lock.message.delivery_count}")
            return False
        say(f"ending {key}")
        if draw < 0.3:
            await queues.abandon(lock)
            outcome = Outcome.DELIVERY_COUNT_EXCEEDED
        elif draw < 0.5:
            await queues.reject(lock)
            outcome = Outcome.REJECTED
        else:
            await queues.complete(lock)
            outcome = Outcome.SUCCESS
        say(f"ended {key} {outcome.name}")
        return True

    while left:
        locks: list[Lock] = []
        while len(locks) < 5 and (lock := queues.take(name, "the device")) is not None:
            locks.append(lock)
        left -= sum(await asyncio.gather(*map(settle, locks)))
        await asyncio.sleep(0)


async def send_and_purge(identities: Identities, device_id: str, say: Say) -> None:
    for first in range(0, MESSAGES, 6):
        keys = []
        for number in range(first, first + 6):
            message = await identities.queues.send(device_id, None, content(device_id, number))
            say(f"kept {message.message_id}")
            keys.append(message.message_id)
        for key in keys:
            say(f"ending {key}")
        assert await identities.queues.purge(device_id) == len(keys)
        for key in keys:
            say(f"ended {key} {Outcome.PURGED.name}")


async def listen(identities: Identities, clock: Afternoon, expected: int, say: Say) -> None:
    """As a back end does that takes feedback and completes half of the batches that it is given."""
    feedback, chance, seen = identities.feedback, random.Random("feedback"), 0
    while seen < expected:
        batch = feedback.take("a back end")
        if batch is None:
            if feedback.next_at(clock.now()) is not None:
                clock.time += BATCH_AFTER // 20
            await asyncio.sleep(0)
            continue
        keys = [key_of(record) for record in batch.records]
        if chance.random() < 0.3:
            feedback.abandon(batch.token)
            continue
        for key in keys:
            say(f"clearing {key}")
        await feedback.complete(batch.token)
        for key in keys:
            say(f"cleared {key}")
        seen += len(keys)


async def exchange(store: SqliteStore, said: int) -> None:
    def say(line: str) -> None:
        os.write(said, f"{line}\n".encode())

    clock = Afternoon()
    identities = identities_of(store, clock)
    keys = Authentication.symmetric()
    callers = []
    for device_id in (*DEVICES, PURGED):
        await identities.create(IdentitySettings(device_id=device_id, authentication=keys))
    for device_id in DEVICES:
        await identities.modules.create(
            ModuleSettings(device_id=device_id, module_id=MODULE, authentication=keys)
        )
        for module_id in (None, MODULE):
            callers.append(send(identities, device_id, module_id, say))
            callers.append(take(identities, name_of(device_id, module_id), say))
    callers.append(send_and_purge(identities, PURGED, say))
    everything = MESSAGES * (2 * len(DEVICES) + 1)
    await asyncio.gather(*callers, listen(identities, clock, everything // 2, say))


async def main(path: Path, said: Path, synchronous: str = "FULL") -> None:
    database.SYNCHRONOUS = synchronous
    commit.CHECKPOINT_AFTER = 40  # often enough for a cut to fall within one
    folder = DataFolder.open(path)
    store = SqliteStore.open(folder.records, kinds=KINDS)
    promises = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    await exchange(store, promises)
    await store.close()
    folder.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
