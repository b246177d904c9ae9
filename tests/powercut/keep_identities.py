"""Make, change and delete devices and modules in FOLDER, many at once, and append to SAID how far each has come.

    doing DEVICE STEP    from here on its records may be those after that step
    done DEVICE STEP     they are

Each device goes through the same life again and again. What is kept of it follows from the number of the step.

With a third argument for SQLite's `synchronous` other than FULL, the promises are hollow.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from moorage.app import KINDS
from moorage.hub.authentication import Authentication
from moorage.hub.cloud_to_device import Content
from moorage.hub.device_identity import DISABLED, IdentitySettings
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.module_identity import ModuleSettings
from moorage.hub.modules import SYSTEM_MODULES
from moorage.hub.session import Sessions, name_of
from moorage.hub.twin import InitialTwin
from moorage.store import commit, database
from moorage.store.folder import DataFolder
from moorage.store.sqlite import SqliteStore

HUB = 2
DEVICES = [f"pump-{number}" for number in range(6)]
MODULE = "camera"
LIVES = 5  # of each device
NOON = 1_780_315_200_000_000  # 2026-06-01T12:00:00Z
KEYS = Authentication.symmetric()


class Noon:
    def now(self) -> int:
        return NOON

    def monotonic(self) -> float:
        return 0.0


def identities_of(store: SqliteStore) -> Identities:
    hub = Hub(scope=HUB, name="hub", host_names=("localhost",), advertised_host="localhost", created=NOON)
    return Identities(hub, store, Noon(), Sessions(Noon()))


@dataclass(frozen=True)
class Kept:
    """All that is kept of one device: of its modules who manages them, of its twins the tags and desired properties."""

    status_reason: str | None = None
    modules: Mapping[str, str] = field(default_factory=dict)
    twins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    queued: Mapping[str, int] = field(default_factory=dict)


class Step(NamedTuple):
    act: Callable[[Identities], Awaitable[object]]
    leaves: Kept | None  # None when there is nothing of the device


def life(device_id: str, number: int) -> Iterator[Step]:
    """From the creation of a device to its deletion; every second one is an IoT Edge device for a while."""
    name, word = name_of(device_id, MODULE), f"life-{number}"

    def device(**settings: Any) -> IdentitySettings:
        return IdentitySettings(device_id=device_id, authentication=KEYS, **settings)

    def module(managed_by: str) -> ModuleSettings:
        return ModuleSettings(
            device_id=device_id, module_id=MODULE, authentication=KEYS, managed_by=managed_by
        )

    edge = number % 2 == 0
    runtime = dict.fromkeys(SYSTEM_MODULES, "iotEdge") if edge else {}
    empty: Mapping[str, Any] = {}
    kept = Kept(
        modules=runtime,
        twins={device_id: {"life": number}, **{name_of(device_id, each): empty for each in runtime}},
    )
    yield Step(
        lambda on: on.create(device(iot_edge=edge), InitialTwin(tags={"life": number}, desired={})), kept
    )

    kept = replace(kept, modules={**runtime, MODULE: ""}, twins={**kept.twins, name: {"life": number}})
    yield Step(lambda on: on.modules.create(module(""), InitialTwin(tags={}, desired={"life": number})), kept)

    kept = replace(kept, modules={**runtime, MODULE: word})
    yield Step(lambda on: on.modules.update(module(word)), kept)

    kept = replace(kept, queued={device_id: 1})
    yield Step(lambda on: on.queues.send(device_id, None, Content(to="", body=b"x" * 3000)), kept)
    kept = replace(kept, queued={device_id: 1, name: 1})
    yield Step(lambda on: on.queues.send(device_id, MODULE, Content(to="", body=b"y")), kept)

    kept = replace(kept, twins={**kept.twins, name: {"life": number, "log": "x" * 3000}})
    patch = {"properties": {"desired": {"log": "x" * 3000}}}
    yield Step(lambda on: on.patch_twin(device_id, patch, module_id=MODULE), kept)

    if number % 3 == 0:
        twins = {each: twin for each, twin in kept.twins.items() if each != name}
        kept = replace(kept, modules=runtime, twins=twins, queued={device_id: 1})
        yield Step(lambda on: on.modules.delete(device_id, MODULE), kept)

    # No edge device any more, the modules of its runtime go.
    kept = replace(
        kept,
        status_reason=word,
        modules={each: by for each, by in kept.modules.items() if each == MODULE},
        twins={each: twin for each, twin in kept.twins.items() if each in (device_id, name)},
    )
    yield Step(lambda on: on.update(device(status=DISABLED, status_reason=word)), kept)
    yield Step(lambda on: on.delete(device_id), None)


def steps(device_id: str) -> list[Step]:
    return [step for number in range(LIVES) for step in life(device_id, number)]


async def live(identities: Identities, device_id: str, said: int) -> None:
    for number, step in enumerate(steps(device_id)):
        os.write(said, f"doing {device_id} {number}\n".encode())
        await step.act(identities)
        os.write(said, f"done {device_id} {number}\n".encode())


async def main(path: Path, said: Path, synchronous: str = "FULL") -> None:
    database.SYNCHRONOUS = synchronous
    commit.CHECKPOINT_AFTER = 40  # often enough for a cut to fall within one
    folder = DataFolder.open(path)
    store = SqliteStore.open(folder.records, kinds=KINDS)
    promises = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    identities = identities_of(store)
    await asyncio.gather(*(live(identities, device_id, promises) for device_id in DEVICES))
    await store.close()
    folder.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
