"""A write to a twin that was acknowledged, by whomever, is in the twin after a power cut, and the twin is whole."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moorage.app import KINDS
from moorage.errors import Unavailable
from moorage.hub import twin as twins
from moorage.hub.twin import Twin
from moorage.store.folder import DataFolder
from moorage.store.sqlite import SqliteStore
from tests.powercut import keep_twins as program

if TYPE_CHECKING:
    from tests.powercut.conftest import Recorder, Recording

PROGRAM = Path(program.__file__)
CUTS = 100


def kept(said: list[str]) -> dict[str, int]:
    """The highest version that anybody was told, by the name of the twin."""
    versions: dict[str, int] = {}
    for _, name, version in (line.split() for line in said):
        versions[name] = max(versions.get(name, 0), int(version))
    return versions


def check_whole(twin: Twin) -> None:
    """Its sections, its versions and its metadata are of one moment."""
    desired, tags = sum(twin.desired.values.values()), sum(twin.tags.values())
    assert twin.reported.values.get("count", 0) == twin.reported.version - 1
    assert desired == twin.desired.version - 1
    assert (twin.version, twin.revision) == (
        2 + twin.reported.version - 1 + desired + tags,
        1 + desired + tags,
    )
    for section in (twin.desired, twin.reported):
        assert set(section.values) == {key for key in section.metadata if key[0] != "$"}


async def check(path: Path, said: list[str]) -> None:
    """Open what a power cut left and hold it to what was said. Raises AssertionError, or Unavailable."""
    with closing(DataFolder.open(path)) as folder:
        store = SqliteStore.open(folder.records, kinds=KINDS)
        try:
            left: dict[str, Twin] = {}
            for kind in (twins.KIND, twins.MODULE_KIND):
                page = await store.records(kind, program.HUB).page(limit=100)
                left |= {twin.name: twin for twin in page.records}
        finally:
            await store.close()
    for twin in left.values():
        check_whole(twin)
    for name, version in kept(said).items():
        assert name in left, f"{name}: lost"
        assert left[name].version >= version, f"{name}: set back"


async def check_cuts(recording: Recording, into: Path) -> None:
    for folder, said in recording.cuts(CUTS, seed=11, into=into):
        await check(folder, said)


async def test_no_power_cut_takes_back_what_a_twin_was_told(recorder: Recorder, tmp_path: Path) -> None:
    recording = recorder.run(PROGRAM)
    said = [
        line for entry in recording.entries if entry.kind == "A" for line in entry.data.decode().splitlines()
    ]
    assert len(kept(said)) == 2 * len(program.DEVICES)
    assert len(said) > 5 * program.ROUNDS * 2 * len(program.DEVICES)
    await check_cuts(recording, tmp_path)


async def test_without_the_sync_of_each_commit_a_power_cut_is_noticed(
    recorder: Recorder, tmp_path: Path
) -> None:
    """The test above is worth something: it fails when SQLite is told not to sync."""
    recording = recorder.run(PROGRAM, "OFF")
    with pytest.raises((AssertionError, Unavailable)):
        await check_cuts(recording, tmp_path)
