"""A cloud-to-device message waits or has its feedback after a power cut, as its sender and its device were told."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from moorage.app import KINDS
from moorage.errors import Unavailable
from moorage.hub import cloud_to_device as messages
from moorage.hub import feedback
from moorage.hub.cloud_to_device import CloudToDeviceMessage
from moorage.hub.feedback import FeedbackRecord
from moorage.interfaces import Kind, Record
from moorage.store.folder import DataFolder
from moorage.store.sqlite import SqliteStore
from tests.powercut import keep_messages as program

if TYPE_CHECKING:
    from tests.powercut.conftest import Recorder, Recording

T = TypeVar("T", bound=Record)

PROGRAM = Path(program.__file__)
CUTS = 80


@dataclass
class Promised:
    """What was said, by message id."""

    kept: set[str] = field(default_factory=set)
    ending: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    abandoned: dict[str, int] = field(default_factory=dict)
    clearing: set[str] = field(default_factory=set)
    cleared: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, said: list[str]) -> Promised:
        promised = cls()
        for line in said:
            match line.split():
                case ["ended", key, outcome]:
                    promised.ended[key] = outcome
                case ["abandoned", key, count]:
                    promised.abandoned[key] = int(count)
                case [verb, key]:
                    getattr(promised, verb).add(key)
        return promised


@dataclass
class Left:
    """What the records say after a cut, by message id."""

    waiting: Mapping[str, CloudToDeviceMessage]
    told: Mapping[str, FeedbackRecord]

    @classmethod
    async def read(cls, store: SqliteStore) -> Left:
        async def every(kind: Kind[T]) -> list[T]:
            return list((await store.records(kind, program.HUB).page(limit=10_000)).records)

        heads = await every(messages.KIND)
        bodies = {body.key: body.payload for body in await every(messages.BODY_KIND)}
        assert {head.key for head in heads} == set(bodies), "a message is half"
        for head in heads:
            assert bodies[head.key] == program.body_of(head.message_id or "")
        told = await every(feedback.KIND)
        return cls(
            {head.message_id or "": head for head in heads},
            {record.message_id or "": record for record in told},
        )

    def check(self, promised: Promised) -> None:
        assert not set(self.waiting) & set(self.told), "told of a message that still waits"
        for key in promised.kept - promised.ending:
            assert key in self.waiting, f"{key}: lost"
        for key, count in promised.abandoned.items():
            assert key not in self.waiting or self.waiting[key].delivery_count >= count, f"{key}: set back"
        for key, outcome in promised.ended.items():
            assert key not in self.waiting, f"{key}: would be delivered again"
            if key not in promised.clearing:
                assert self.told[key].outcome.name == outcome
        for key in promised.ending - promised.clearing:
            assert key in self.waiting or key in self.told, f"{key}: gone, and nobody hears of it"
        assert not promised.cleared & set(self.told), "feedback would come again"


async def check(path: Path, said: list[str]) -> None:
    """Open what a power cut left and hold it to what was said. Raises AssertionError, or Unavailable."""
    with closing(DataFolder.open(path)) as folder:
        store = SqliteStore.open(folder.records, kinds=KINDS)
        try:
            left = await Left.read(store)
            left.check(Promised.read(said))
            await start_again(store, left)
        finally:
            await store.close()


async def start_again(store: SqliteStore, left: Left) -> None:
    """The server has started again: devices are given what waits for them, by age."""
    identities = program.identities_of(store, program.Afternoon())
    await identities.open()
    for name in {message.name for message in left.waiting.values()}:
        waiting = [message for message in left.waiting.values() if message.name == name]
        assert identities.queues.count(name) == len(waiting)
        lock = identities.queues.take(name, "the device")
        assert lock is not None
        assert lock.message.sequence_number == min(message.sequence_number for message in waiting)


async def check_cuts(recording: Recording, into: Path) -> None:
    for folder, said in recording.cuts(CUTS, seed=13, into=into):
        await check(folder, said)


async def test_no_power_cut_loses_a_message_or_brings_one_back(recorder: Recorder, tmp_path: Path) -> None:
    recording = recorder.run(PROGRAM)
    promised = Promised.read(
        [
            line
            for entry in recording.entries
            if entry.kind == "A"
            for line in entry.data.decode().splitlines()
        ]
    )
    everything = program.MESSAGES * (2 * len(program.DEVICES) + 1)
    assert len(promised.kept) == len(promised.ended) == everything
    assert set(promised.ended.values()) == {
        outcome.name for outcome in feedback.Outcome if outcome is not feedback.Outcome.EXPIRED
    }
    assert len(promised.cleared) >= everything // 2
    assert promised.abandoned
    await check_cuts(recording, tmp_path)


async def test_without_the_sync_of_each_commit_a_power_cut_is_noticed(
    recorder: Recorder, tmp_path: Path
) -> None:
    """The test above is worth something: it fails when SQLite is told not to sync."""
    recording = recorder.run(PROGRAM, "OFF")
    with pytest.raises((AssertionError, Unavailable)):
        await check_cuts(recording, tmp_path)
