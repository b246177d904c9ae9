"""Keep records in FOLDER while the disk is full, which it is as long as the file of the third argument exists.

Appends to SAID a word for each record: kept or the error when writing, read when it was read while the disk was full.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from moorage.errors import StorageFull
from moorage.interfaces import Kind
from moorage.store.sqlite import SqliteStore


@dataclass(frozen=True)
class Buoy:
    name: str
    version: str = "1"

    @property
    def etag(self) -> str:
        return self.version


BUOYS = Kind[Buoy](
    name="device_identity",
    key=lambda buoy: buoy.name,
    to_document=asdict,
    from_document=lambda document: Buoy(**document),
    index={"version": lambda buoy: [buoy.version]},
)


async def main(path: Path, said: Path, full: str) -> None:
    words = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    store = SqliteStore.open(path / "records.sqlite3", kinds=[BUOYS])
    buoys = store.records(BUOYS, 1)

    async def put(number: int) -> None:
        try:
            await buoys.put(Buoy(f"n{number:03}"))
            os.write(words, b"kept\n")
        except StorageFull as error:
            os.write(words, f"{type(error).__name__}\n".encode())

    await asyncio.gather(*(put(number) for number in range(50)))
    os.close(os.open(full, os.O_WRONLY | os.O_CREAT, 0o600))
    await asyncio.gather(*(put(number) for number in range(50, 100)))
    for number in range(50):
        if await buoys.get(f"n{number:03}") == Buoy(f"n{number:03}"):
            os.write(words, b"read\n")
    os.unlink(full)
    await asyncio.gather(*(put(number) for number in range(50, 100)))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
