"""Change the twins in FOLDER from all sides at once, and append to SAID what each caller was promised.

    kept NAME VERSION    the twin is at that version, or at a later one

What is in a twin follows from its versions, whoever was first: each write of a section counts in it, by one.

With a third argument for SQLite's `synchronous` other than FULL, the promises are hollow.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from moorage.app import KINDS
from moorage.errors import MoorageError
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import IdentitySettings
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.module_identity import ModuleSettings
from moorage.hub.session import Sessions, name_of
from moorage.hub.twin import Twin
from moorage.hub.twins import Report
from moorage.store import commit, database
from moorage.store.folder import DataFolder
from moorage.store.sqlite import SqliteStore

HUB = 2
DEVICES = ("pump-1", "pump-2", "pump-3")
MODULE = "camera"
ROUNDS = 25  # of each caller
NOON = 1_780_315_200_000_000  # 2026-06-01T12:00:00Z


class Noon:
    def now(self) -> int:
        return NOON

    def monotonic(self) -> float:
        return 0.0


def identities_of(store: SqliteStore) -> Identities:
    hub = Hub(scope=HUB, name="hub", host_names=("localhost",), advertised_host="localhost", created=NOON)
    return Identities(hub, store, Noon(), Sessions(Noon()))


Say = Callable[[Twin], None]


async def report(identities: Identities, device_id: str, module_id: str | None, say: Say) -> None:
    """As a device does that sends on before it is answered."""
    chance = random.Random(name_of(device_id, module_id))
    number = 0
    for _ in range(ROUNDS):
        reports = []
        for _ in range(chance.choice([1, 1, 5])):
            number += 1
            reports.append(Report({"count": number, "log": "x" * chance.choice([1, 300, 3000])}))
        for outcome in await identities.twins.report(device_id, reports, module_id=module_id):
            assert not isinstance(outcome, MoorageError), outcome
            say(outcome)


async def write(
    identities: Identities, device_id: str, module_id: str | None, say: Say, service: str, section: str
) -> None:
    """As one of several services does that write to one section."""
    for number in range(1, ROUNDS + 1):
        mine: dict[str, Any] = {service: number}
        document = {"tags": mine} if section == "tags" else {"properties": {"desired": mine}}
        say(await identities.twins.patch(device_id, document, module_id=module_id))


async def change_all(identities: Identities, said: int) -> None:
    def say(twin: Twin) -> None:
        os.write(said, f"kept {twin.name} {twin.version}\n".encode())

    callers: list[Awaitable[None]] = []
    for device_id in DEVICES:
        keys = Authentication.symmetric()
        await identities.create(IdentitySettings(device_id=device_id, authentication=keys))
        await identities.modules.create(
            ModuleSettings(device_id=device_id, module_id=MODULE, authentication=keys)
        )
        for module_id in (None, MODULE):
            callers.append(report(identities, device_id, module_id, say))
            callers += [
                write(identities, device_id, module_id, say, service, section)
                for service in ("one", "two")
                for section in ("tags", "desired")
            ]
    await asyncio.gather(*callers)


async def main(path: Path, said: Path, synchronous: str = "FULL") -> None:
    database.SYNCHRONOUS = synchronous
    commit.CHECKPOINT_AFTER = 40  # often enough for a cut to fall within one
    folder = DataFolder.open(path)
    store = SqliteStore.open(folder.records, kinds=KINDS)
    promises = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    await change_all(identities_of(store), promises)
    await store.close()
    folder.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
