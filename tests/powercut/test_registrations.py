"""A device that was told its hub is in that hub after a power cut, in no other, and is told the same again."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from moorage.app import KINDS
from moorage.errors import Unavailable
from moorage.hub import device_identity, twin
from moorage.hub.device_identity import DeviceIdentity
from moorage.hub.twin import Twin
from moorage.provisioning import registration
from moorage.provisioning.registration import RegistrationState, Status
from moorage.store.folder import DataFolder
from moorage.store.sqlite import SqliteStore
from tests.powercut import keep_registrations as program

if TYPE_CHECKING:
    from tests.powercut.conftest import Recorder, Recording

PROGRAM = Path(program.__file__)
CUTS = 60


class Told(NamedTuple):
    operation_id: str
    hub: str


def told_last(said: list[str]) -> dict[str, Told]:
    """By registration id."""
    return {name: Told(*rest) for _, name, *rest in (line.split() for line in said)}


class Left:
    """What the records say after a cut."""

    registrations: dict[str, RegistrationState]
    identities: list[tuple[int, DeviceIdentity]]
    twins: list[tuple[int, Twin]]

    @classmethod
    async def read(cls, store: SqliteStore) -> Left:
        left = cls()
        registrations = (await store.records(registration.KIND, program.DPS).page(limit=1000)).records
        left.registrations = {state.registration_id: state for state in registrations}
        left.identities, left.twins = [], []
        for scope in program.HUBS:
            known = (await store.records(device_identity.KIND, scope).page(limit=1000)).records
            left.identities += [(scope, identity) for identity in known]
            kept = (await store.records(twin.KIND, scope).page(limit=1000)).records
            left.twins += [(scope, each) for each in kept]
        return left

    def check(self) -> None:
        """Each device is where its registration says, with its twin and the credentials that it came with."""
        places = {
            name: (state.assignment.hub if state.assignment else None)
            for name, state in self.registrations.items()
        }
        assert {identity.device_id: scope for scope, identity in self.identities} == places
        assert {each.device_id: scope for scope, each in self.twins} == places
        for count in (
            Counter(i.device_id for _, i in self.identities),
            Counter(t.device_id for _, t in self.twins),
        ):
            assert set(count.values()) <= {1}, "a device is in two hubs"
        for _, identity in self.identities:
            by = self.registrations[identity.device_id].outcome.proof
            assert identity.authentication.primary_thumbprint in (None, by)
        for _, each in self.twins:
            if each.device_id.startswith(("certificate", "key")):
                assert each.tags == {"name": each.device_id}, "the twin has not come along"

    def keeps(self, name: str, told: Told) -> None:
        """What a device was told is there, or has been followed by what it was just going to be told."""
        state = self.registrations.get(name)
        assert state is not None, f"{name} was told its hub and is forgotten"
        assert told.operation_id in state.operations[-2:], f"{name}: set back"
        if state.operation_id == told.operation_id:
            assert (state.status, state.assigned_hub) == (Status.ASSIGNED, told.hub)


async def check(path: Path, said: list[str]) -> None:
    """Open what a power cut left and hold it to what was told. Raises AssertionError, or Unavailable."""
    with closing(DataFolder.open(path)) as folder:
        store = SqliteStore.open(folder.records, kinds=KINDS)
        try:
            left = await Left.read(store)
            left.check()
            for name, told in told_last(said).items():
                left.keeps(name, told)
            if said:
                await come_again(store, left)
        finally:
            await store.close()


async def come_again(store: SqliteStore, left: Left) -> None:
    """The server has started again, and devices ask for what they had been told, and once more for their hub."""
    provisioner = program.provisioner_of(store)
    for name, state in left.registrations.items():
        polled = await provisioner.operation(program.ID_SCOPE, name, state.operation_id)
        assert (polled.status, polled.assigned_hub) == (Status.ASSIGNED, state.assigned_hub)
    for name in program.DEVICES[::2]:
        again = await provisioner.register(program.request(name), program.proof(name))
        assert again.status is Status.ASSIGNED
    (await Left.read(store)).check()


async def check_cuts(recording: Recording, into: Path) -> None:
    for folder, said in recording.cuts(CUTS, seed=7, into=into):
        await check(folder, said)


async def test_no_power_cut_takes_a_device_out_of_its_hub(recorder: Recorder, tmp_path: Path) -> None:
    recording = recorder.run(PROGRAM)
    said = [
        line for entry in recording.entries if entry.kind == "A" for line in entry.data.decode().splitlines()
    ]
    assert len(said) == len(program.DEVICES) * program.ROUNDS
    assert {told.hub for told in told_last(said[::3]).values()} == {
        program.host_of(hub) for hub in program.HUBS
    }
    await check_cuts(recording, tmp_path)


async def test_without_the_sync_of_each_commit_a_power_cut_is_noticed(
    recorder: Recorder, tmp_path: Path
) -> None:
    """The test above is worth something: it fails when SQLite is told not to sync."""
    recording = recorder.run(PROGRAM, "OFF")
    with pytest.raises((AssertionError, Unavailable)):
        await check_cuts(recording, tmp_path)
