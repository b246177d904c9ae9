"""What an assignment writes into the hubs [dps 14, 15]: changes for the commit of the registration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moorage.errors import NotFound
from moorage.hub import identity as identities
from moorage.hub import twin as twins
from moorage.hub.authentication import Authentication
from moorage.hub.identity import DeviceIdentity, Identities
from moorage.hub.twin import EMPTY, Twin, read_initial_twin
from moorage.interfaces import Change, Delete, Expect, Put
from moorage.provisioning.registration import Assignment, Substatus
from moorage.provisioning.terms import ReprovisionPolicy, Terms

Hubs = Mapping[int, Identities]
"""The identities of each hub that is served here, by the hub's internal id."""


@dataclass(frozen=True, slots=True)
class Move:
    """From where a device comes, None at first, and where it is to be."""

    last: Assignment | None
    target: Assignment

    @property
    def stays(self) -> bool:
        last = self.last
        return last is not None and (last.hub, last.device_id) == (self.target.hub, self.target.device_id)

    @property
    def leaves(self) -> Assignment | None:
        """The place that is given up, if any."""
        return None if self.stays else self.last

    def substatus(self, policy: ReprovisionPolicy) -> Substatus:
        if self.last is None:
            return Substatus.INITIAL_ASSIGNMENT
        if self.stays:
            return Substatus.REPROVISIONED
        return Substatus.DEVICE_DATA_MIGRATED if policy.migrate_device_data else Substatus.DEVICE_DATA_RESET


async def hub_changes(
    hubs: Hubs,
    move: Move,
    terms: Terms,
    authentication: Authentication,
    policy: ReprovisionPolicy,
    *,
    initial_twin: Mapping[str, Any] | None = None,
) -> Sequence[Change]:
    """The device's identity and twin where it goes, and their end where it leaves.

    Where it stays, its credentials are renewed and its twin is left alone; an identity that the hub has lost
    is made again. A migrated device takes its twin and capabilities along; `initial_twin`, from whoever chose
    the hub, goes before that twin and before the enrollment's [dps 13.2].
    """
    target = hubs[move.target.hub]
    left = move.leaves
    found = await _data(hubs, left) if left and policy.migrate_device_data else None
    initial = terms.initial_twin if initial_twin is None else initial_twin
    changes = await target.provision(
        move.target.device_id,
        authentication,
        iot_edge=found[0].iot_edge if found else terms.iot_edge,
        initial_twin=EMPTY if initial is None else read_initial_twin("initialTwin", initial),
        reset=left is not None,
    )
    if found and initial_twin is None:
        carried = replace(found[1], device_id=move.target.device_id)
        changes = [change for change in changes if change.kind is not twins.KIND]
        # The identity beside it is put on its etag, which guards this too.
        changes.append(Put(twins.KIND, move.target.hub, carried, Expect.ANY))
    if left is not None and left.hub in hubs:
        changes += [
            Delete(kind, left.hub, left.device_id, Expect.ANY) for kind in (identities.KIND, twins.KIND)
        ]
    return changes


async def _data(hubs: Hubs, place: Assignment) -> tuple[DeviceIdentity, Twin] | None:
    """What the hub keeps of a device; None when it has lost it, or is served here no longer."""
    hub = hubs.get(place.hub)
    if hub is None:
        return None
    try:
        return await hub.get(place.device_id), await hub.twin(place.device_id)
    except NotFound:
        return None


def disconnect(hubs: Hubs, place: Assignment) -> None:
    """End the connection of a device that has moved away, once the move is durable."""
    if hub := hubs.get(place.hub):
        hub.sessions.drop(place.device_id, "the device was assigned to another place")
        hub.sessions.forget(place.device_id)
