"""A device is after a power cut what its last change made of it: with its modules, twins and queue, or gone."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from moorage.app import KINDS
from moorage.errors import Unavailable
from moorage.hub import cloud_to_device, device_identity, module_identity, twin
from moorage.interfaces import Kind, Record
from moorage.store.folder import DataFolder
from moorage.store.sqlite import SqliteStore
from tests.powercut import keep_identities as program
from tests.powercut.keep_identities import Kept

if TYPE_CHECKING:
    from tests.powercut.conftest import Recorder, Recording

T = TypeVar("T", bound=Record)

PROGRAM = Path(program.__file__)
CUTS = 100
STEPS = {device_id: program.steps(device_id) for device_id in program.DEVICES}


async def read(store: SqliteStore) -> dict[str, Kept]:
    """What the records say, by device; of whatever kind they are."""

    async def every(kind: Kind[T]) -> list[T]:
        return list((await store.records(kind, program.HUB).page(limit=1000)).records)

    devices = {each.device_id: each for each in await every(device_identity.KIND)}
    modules = await every(module_identity.KIND)
    twins = [*await every(twin.KIND), *await every(twin.MODULE_KIND)]
    heads, bodies = await every(cloud_to_device.KIND), await every(cloud_to_device.BODY_KIND)
    assert {head.key for head in heads} == {body.key for body in bodies}
    owned = {each.device_id for each in modules} | {each.device_id for each in twins}
    owned |= {head.device_id for head in heads}
    assert owned <= set(devices), "something has no device"
    return {
        device_id: Kept(
            status_reason=device.status_reason,
            modules={each.module_id: each.managed_by for each in modules if each.device_id == device_id},
            twins={
                each.name: {**each.tags, **each.desired.values}
                for each in twins
                if each.device_id == device_id
            },
            queued=dict(Counter(each.name for each in heads if each.device_id == device_id)),
        )
        for device_id, device in devices.items()
    }


def last(said: list[str], verb: str) -> dict[str, int]:
    return {name: int(step) for word, name, step in map(str.split, said) if word == verb}


async def check(path: Path, said: list[str]) -> None:
    """Open what a power cut left and hold it to what was said. Raises AssertionError, or Unavailable."""
    with closing(DataFolder.open(path)) as folder:
        store = SqliteStore.open(folder.records, kinds=KINDS)
        try:
            left = await read(store)
        finally:
            await store.close()
    doing, done = last(said, "doing"), last(said, "done")
    for device_id, steps in STEPS.items():
        possible = {done.get(device_id, -1), doing.get(device_id, -1)}
        states = [steps[step].leaves if step >= 0 else None for step in sorted(possible)]
        assert left.get(device_id) in states, f"{device_id}: neither before nor after its last step"


async def check_cuts(recording: Recording, into: Path) -> None:
    for folder, said in recording.cuts(CUTS, seed=17, into=into):
        await check(folder, said)


async def test_no_power_cut_takes_back_an_identity_or_leaves_half_of_one(
    recorder: Recorder, tmp_path: Path
) -> None:
    recording = recorder.run(PROGRAM)
    said = [
        line for entry in recording.entries if entry.kind == "A" for line in entry.data.decode().splitlines()
    ]
    assert last(said, "done") == {device_id: len(steps) - 1 for device_id, steps in STEPS.items()}
    await check_cuts(recording, tmp_path)


async def test_without_the_sync_of_each_commit_a_power_cut_is_noticed(
    recorder: Recorder, tmp_path: Path
) -> None:
    """The test above is worth something: it fails when SQLite is told not to sync."""
    recording = recorder.run(PROGRAM, "OFF")
    with pytest.raises((AssertionError, Unavailable)):
        await check_cuts(recording, tmp_path)
