"""How fast queries over twins are: in one process, without HTTP, on records in a file of their own.

    python bench/queries.py [--twins 100000] [--runs 3]

Fills a store with identities and twins of about 1.4 KB, then asks. A rate is twins in the store by seconds of wall
time; what the machine does besides is in it, so processor time stands beside it. So does the longest time for which the
event loop answered nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from moorage.app import KINDS, SystemClock
from moorage.cli.up import SWITCH_INTERVAL
from moorage.hub import device_identity, twin
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import DeviceIdentity
from moorage.hub.presence import Presences
from moorage.hub.query.search import TwinQueries
from moorage.hub.session import Sessions
from moorage.hub.twin import Section, Twin
from moorage.interfaces import Change, Put, Store
from moorage.store.sqlite import SqliteStore

SCOPE = 2
NOW = 1_800_000_000_000_000
SITES, FLOORS = 50, 20
TOGETHER = 500  # devices in one commit


class Question(NamedTuple):
    """`wanted`: twins looked at in a second, or None where it is milliseconds at the most."""

    name: str
    text: str
    wanted: float | None = None
    milliseconds: float | None = None


QUESTIONS = (
    Question("one device by its id", "SELECT * FROM devices WHERE deviceId = 'device-050000'", None, 5.0),
    Question("first page of all", "SELECT * FROM devices"),
    Question("a tag, by its index", "SELECT * FROM devices WHERE tags.site = 'nowhere'", 400_000),
    Question(
        "a tag, by its index, and a reported property",
        "SELECT deviceId FROM devices WHERE tags.site = 'site-7' AND properties.reported.battery > 100",
        400_000,
    ),
    Question("the status, by its index", "SELECT deviceId FROM devices WHERE status = 'gone'", 400_000),
    Question(
        "filter on the inside of a tag, nothing found",
        "SELECT deviceId FROM devices WHERE contains(tags.site, 'nowhere')",
        400_000,
    ),
    Question(
        "filter on a reported property, nothing found",
        "SELECT deviceId FROM devices WHERE properties.reported.battery > 100",
        400_000,
    ),
    Question(
        "filter on a tag that all have and a reported property, nothing found",
        "SELECT deviceId FROM devices WHERE tags.customer = 'contoso' AND properties.reported.battery > 100",
        400_000,
    ),
    Question(
        "filter on the status, nothing found",
        "SELECT deviceId FROM devices WHERE status != 'enabled' AND status != 'disabled'",
        400_000,
    ),
    Question(
        "filter on who is connected, nothing found",
        "SELECT deviceId FROM devices WHERE connectionState = 'Connected'",
        400_000,
    ),
    Question("count", "SELECT COUNT() AS n FROM devices"),
    Question("count of a filter", "SELECT COUNT() AS n FROM devices WHERE tags.site = 'site-7'", 400_000),
    Question("group by a tag", "SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site", 200_000),
    Question(
        "group by a tag, with a mean and a maximum",
        "SELECT tags.site, AVG(properties.reported.temperature) AS mean, MAX(properties.reported.battery) AS most "
        "FROM devices GROUP BY tags.site",
        200_000,
    ),
    Question(
        "group by the device: as many groups as twins",
        "SELECT deviceId, COUNT() AS n FROM devices GROUP BY deviceId",
    ),
    Question("group by the status", "SELECT status, COUNT() AS n FROM devices GROUP BY status", 200_000),
    Question("what SQL cannot say", "SELECT deviceId FROM devices WHERE lower(tags.site) = 'nowhere'"),
)


def make_twin(number: int) -> Twin:
    at = {"$lastUpdated": twin.timestamp(NOW + number)}
    site = f"site-{number % SITES}"
    tags = {
        "site": site,
        "building": {"floor": number % FLOORS},
        "customer": "contoso",
    }
    desired = {
        "period": number % 60,
        "telemetry": {"interval": 5},
        "firmware": {"version": f"1.{number % 7}.0"},
    }
    reported = {
        "temperature": 20 + number % 15 / 2,
        "battery": number % 100,
        "firmware": {"version": f"1.{number % 7}.0"},
        "net": {"ip": f"10.0.{number % 200}.{number % 250}", "rssi": -60},
        "lastDesiredVersion": 1,
    }
    made = twin.new_twin(f"device-{number:06}", NOW, tags, desired)
    return Twin(
        **{
            **{name: getattr(made, name) for name in ("device_id", "version", "tags", "desired")},
            "reported": Section(values=reported, metadata=metadata(reported, at), version=9),
        }
    )


def metadata(value: object, at: dict[str, Any]) -> dict[str, Any]:
    below = value.items() if isinstance(value, dict) else ()
    return {**at, **{key: metadata(part, at) for key, part in below}}


def make_device(number: int, authentication: Authentication) -> DeviceIdentity:
    return DeviceIdentity(
        device_id=f"device-{number:06}",
        generation_id="638812345678900000",
        etag="Nzg4MTMyNDE=",
        status="enabled" if number % 10 else "disabled",
        authentication=authentication,
    )


async def fill(store: Store, count: int, scope: int = SCOPE) -> float:
    """Seconds it took."""
    begun, keys = time.perf_counter(), Authentication.symmetric()
    for first in range(0, count, TOGETHER):
        changes: list[Change] = []
        for number in range(first, min(count, first + TOGETHER)):
            changes.append(Put(device_identity.KIND, scope, make_device(number, keys)))
            changes.append(Put(twin.KIND, scope, make_twin(number)))
        await store.apply(changes)
    return time.perf_counter() - begun


class HeldUp(NamedTuple):
    """The longest time for which the event loop answered nobody, and what it worked for at the most, seconds."""

    wall: float
    processor: float


async def held_up(until: asyncio.Event) -> HeldUp:
    wall = processor = 0.0
    while not until.is_set():
        asked, worked = time.perf_counter(), time.thread_time()
        await asyncio.sleep(0.001)
        wall = max(wall, time.perf_counter() - asked - 0.001)
        processor = max(processor, time.thread_time() - worked)
    return HeldUp(wall, processor)


class Taken(NamedTuple):
    wall: float
    processor: float
    held_up: HeldUp


async def take(queries: TwinQueries, text: str) -> Taken:
    done = asyncio.Event()
    watching = asyncio.ensure_future(held_up(done))
    await asyncio.sleep(0)
    processor, wall = time.process_time(), time.perf_counter()
    await queries.run(text)
    taken = time.perf_counter() - wall, time.process_time() - processor
    done.set()
    return Taken(*taken, await watching)


async def take_nothing() -> Taken:
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, done.set)
    return Taken(0.1, 0.0, await held_up(done))


def line(question: Question, count: int, taken: Sequence[Taken]) -> str:
    wall = statistics.median(each.wall for each in taken)
    processor = statistics.median(each.processor for each in taken)
    held = HeldUp(*map(statistics.median, zip(*(each.held_up for each in taken), strict=True)))
    wanted = f"≥ {question.wanted:,.0f} /s" if question.wanted else ""
    kept = "" if not question.wanted else "yes" if count / wall >= question.wanted else "no"
    if question.milliseconds:
        wanted, kept = (
            f"≤ {question.milliseconds:g} ms",
            "yes" if wall * 1e3 <= question.milliseconds else "no",
        )
    rate = "" if question.milliseconds or "page" in question.name else f"{count / wall:,.0f} /s"
    return (
        f"| {question.name} | {wall * 1e3:,.1f} ms | {rate} | {processor * 1e3:,.1f} ms | "
        f"{held.wall * 1e3:.1f} ms | {held.processor * 1e3:.1f} ms | {wanted} | {kept} |"
    )


async def measure(folder: Path, count: int, runs: int) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL)  # as the server has it
    store = SqliteStore.open(folder / "records.sqlite3", kinds=KINDS)
    clock = SystemClock()
    size = len(json.dumps(twin.KIND.to_document(make_twin(12_345)), separators=(",", ":")))
    seconds = await fill(store, count)
    print(f"{count:,} twins of {size:,} bytes at rest, filled in {seconds:.1f} s; medians of {runs} runs\n")
    alone = statistics.median([(await take_nothing()).held_up.wall for _ in range(runs)])
    print(
        f"With nothing to do, the loop is held up for {alone * 1e3:.1f} ms within 100 ms: by this machine.\n"
    )
    print("| query | wall | twins looked at | CPU | loop held up | by its own work | wanted | held |")
    print("|---|---|---|---|---|---|---|---|")
    sessions = Sessions(clock)
    presences = Presences(SCOPE, store, clock, sessions)
    queries = TwinQueries(store.twin_search(SCOPE), sessions, presences.of, clock)
    for question in QUESTIONS:
        await queries.run(question.text)
        print(line(question, count, [await take(queries, question.text) for _ in range(runs)]))
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--twins", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where the records are put; a temporary folder unless given"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        asyncio.run(measure(Path(folder), asked.twins, asked.runs))


if __name__ == "__main__":
    main()
