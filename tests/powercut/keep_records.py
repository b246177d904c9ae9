"""Keep records in FOLDER, many callers at once, and append to SAID what each was promised.

    put KEY VERSION      the record was put, or replaced by that version
    deleting KEY         is about to be deleted, and may be gone from now on
    deleted KEY
    applied NAME         all records of that set were put

With a third argument for SQLite's `synchronous` other than FULL, the promises are hollow.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from moorage.interfaces import Expect, Kind, Put
from moorage.store import commit, database
from moorage.store.folder import DataFolder
from moorage.store.sqlite import SqliteStore

CALLERS, ROUNDS, SET = 10, 40, 6


@dataclass(frozen=True)
class Buoy:
    name: str
    version: int
    log: str

    @property
    def etag(self) -> str:
        return str(self.version)


def kind(table: str) -> Kind[Buoy]:
    return Kind(
        name=table,
        key=lambda buoy: buoy.name,
        to_document=asdict,
        from_document=lambda document: Buoy(**document),
        index={"version": lambda buoy: [buoy.etag]},
    )


BUOYS, CHAINS = kind("device_identity"), kind("linked_hub")


async def call(store: SqliteStore, said: int, caller: int) -> None:
    def say(text: str) -> None:
        os.write(said, f"{text}\n".encode())

    chance = random.Random(caller)
    buoys = store.records(BUOYS, 1)
    mine: dict[str, Buoy] = {}
    for number in range(ROUNDS):
        name = f"{caller}-{number}"
        log = "x" * chance.choice([10, 300, 3000])
        match chance.choice(["put", "put", "replace", "delete", "apply"]):
            case "replace" if mine:
                buoy = mine[chance.choice(sorted(mine))]
                mine[buoy.name] = await buoys.put(Buoy(buoy.name, buoy.version + 1, log), expect=buoy.etag)
                say(f"put {buoy.name} {buoy.version + 1}")
            case "delete" if mine:
                buoy = mine.pop(chance.choice(sorted(mine)))
                say(f"deleting {buoy.name}")
                await buoys.delete(buoy.name, expect=Expect.PRESENT)
                say(f"deleted {buoy.name}")
            case "apply":
                kinds = [BUOYS, CHAINS] * (SET // 2)
                await store.apply(
                    [Put(of, 2, Buoy(f"{name}-{part}", 1, log)) for part, of in enumerate(kinds)],
                )
                say(f"applied {name}")
            case _:
                mine[name] = await buoys.put(Buoy(name, 1, log))
                say(f"put {name} 1")


async def main(path: Path, said: Path, synchronous: str = "FULL") -> None:
    database.SYNCHRONOUS = synchronous
    commit.CHECKPOINT_AFTER = 40  # often enough for a cut to fall within one
    folder = DataFolder.open(path)
    store = SqliteStore.open(folder.records, kinds=[BUOYS, CHAINS])
    promises = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    await asyncio.gather(*(call(store, promises, caller) for caller in range(CALLERS)))
    await store.close()
    folder.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
