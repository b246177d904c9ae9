"""What an assignment writes into the hubs [dps 14, 15]: changes for the commit of the registration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorage.hub.authentication import Authentication
from moorage.hub.twin import EMPTY, read_initial_twin
from moorage.interfaces import Change
from moorage.provisioning.hub_registry import DeviceData, HubRegistry, Hubs
from moorage.provisioning.registration import Assignment, Substatus
from moorage.provisioning.terms import ReprovisionPolicy, Terms


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


@dataclass(frozen=True, slots=True)
class Route:
    """The registries of a move. `left` is None where nothing is left, or what is left is out of reach."""

    target: HubRegistry
    left: HubRegistry | None

    @property
    def distant(self) -> bool:
        """Whether another server is to be told."""
        return self.target.distant or (self.left is not None and self.left.distant)

    async def data(self, move: Move) -> DeviceData | None:
        """What the hub that is left keeps of the device. Raises HubRefused."""
        if self.left is None or move.leaves is None:
            return None
        return await self.left.read(move.leaves.device_id)


async def hub_changes(
    route: Route,
    move: Move,
    terms: Terms,
    authentication: Authentication,
    *,
    carried: DeviceData | None,
    initial_twin: Mapping[str, Any] | None = None,
) -> Sequence[Change]:
    """The device's identity and twin where it goes, and their end where it leaves: done, or changes to commit.

    Where it stays, its credentials are renewed and its twin is left alone; an identity that the hub has lost
    is made again. A migrated device takes `carried` along; `initial_twin`, from whoever chose the hub, goes
    before that twin and before the enrollment's [dps 13.2]. Raises HubRefused.
    """
    left = move.leaves
    initial = terms.initial_twin if initial_twin is None else initial_twin
    changes = list(
        await route.target.provision(
            move.target.device_id,
            authentication,
            iot_edge=carried.iot_edge if carried else terms.iot_edge,
            initial_twin=EMPTY if initial is None else read_initial_twin("initialTwin", initial),
            carried=carried.twin if carried and initial_twin is None else None,
            reset=left is not None,
        )
    )
    if left is not None and route.left is not None:
        changes += await route.left.delete(left.device_id)
    return changes


def disconnect(hubs: Hubs, place: Assignment) -> None:
    """End the connection of a device that has moved away, once the move is durable."""
    if hub := hubs.get(place.hub):
        hub.sessions.drop_device(place.device_id, "the device was assigned to another place")
        hub.sessions.forget_device(place.device_id)
