"""The registry of a hub as provisioning sees it, and the one of a hub that is served here.

A hub of this server takes part in the registration's own commit: its verbs return the changes for that. A hub of
another server is told at once, over its own API, and returns none; so whatever it is told can be told again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from moorage.credentials.connection_string import ConnectionString
from moorage.errors import MoorageError, NotFound
from moorage.hub import twin as twins
from moorage.hub.authentication import Authentication
from moorage.hub.identity import Identities
from moorage.hub.twin import InitialTwin, Twin
from moorage.interfaces import Change, Expect, Put
from moorage.provisioning.service import LinkedHub

Hubs = Mapping[int, Identities]
"""The identities of each hub that is served here, by the hub's internal id."""


class HubRefused(MoorageError):
    """A linked hub of another server did not do what it was asked, or could not be asked.

    The message is for the device: the hub's error JSON, where it answered with one [dps 17.2].
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceData:
    """What goes along with a device from hub to hub."""

    iot_edge: bool
    twin: Twin

    def to_document(self) -> dict[str, Any]:
        return {"iotEdge": self.iot_edge, "twin": twins.KIND.to_document(self.twin)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> DeviceData:
        return cls(iot_edge=document["iotEdge"], twin=twins.KIND.from_document(document["twin"]))


class HubRegistry(Protocol):
    """Every verb may be called again with the same outcome. All but a local one's raise HubRefused."""

    @property
    def distant(self) -> bool:
        """Whether it is told at once, outside of any commit, which takes its time."""
        ...

    async def read(self, device_id: str) -> DeviceData | None: ...

    async def provision(
        self,
        device_id: str,
        authentication: Authentication,
        *,
        iot_edge: bool,
        initial_twin: InitialTwin,
        carried: Twin | None,
        reset: bool,
    ) -> Sequence[Change]:
        """Make `device_id` an enabled identity with these credentials.

        An existing one is taken over, its twin kept unless `reset`. The twin `carried` replaces whatever there is.
        """
        ...

    async def delete(self, device_id: str) -> Sequence[Change]:
        """Nothing happens where there is none."""
        ...


class LocalRegistry:
    """Of a hub that is served here."""

    distant = False

    def __init__(self, hub: Identities) -> None:
        self._hub = hub
        self._scope = hub.hub.scope

    async def read(self, device_id: str) -> DeviceData | None:
        try:
            identity, twin = await self._hub.get(device_id), await self._hub.twin(device_id)
        except NotFound:
            return None
        return DeviceData(iot_edge=identity.iot_edge, twin=twin)

    async def provision(
        self,
        device_id: str,
        authentication: Authentication,
        *,
        iot_edge: bool,
        initial_twin: InitialTwin,
        carried: Twin | None,
        reset: bool,
    ) -> Sequence[Change]:
        changes: list[Change] = list(
            await self._hub.provision(
                device_id, authentication, iot_edge=iot_edge, initial_twin=initial_twin, reset=reset
            )
        )
        if carried is not None:
            changes = [change for change in changes if not _is_twin(change)]
            # The identity beside it is put on its etag, which guards this too.
            changes.append(Put(twins.KIND, self._scope, replace(carried, device_id=device_id), Expect.ANY))
        return changes

    async def delete(self, device_id: str) -> Sequence[Change]:
        return self._hub.removal(device_id)


def _is_twin(change: Change) -> bool:
    return isinstance(change, Put) and change.kind is twins.KIND


Reach = Callable[[ConnectionString], HubRegistry]
"""The registry of a hub of another server."""


class Registries:
    """Those of all linked hubs, wherever they are."""

    def __init__(
        self,
        hubs: Hubs,
        linked_hubs: Callable[[], Awaitable[Sequence[LinkedHub]]],
        reach: Reach | None = None,
    ) -> None:
        """Without `reach` the hubs of other servers are out of reach."""
        self._hubs = hubs
        self._linked_hubs = linked_hubs
        self._reach = reach

    def serves(self, hub: LinkedHub) -> bool:
        return hub.hub in self._hubs or (hub.login is not None and self._reach is not None)

    async def of(self, scope: int) -> HubRegistry | None:
        """By the hub's internal id; None for one that is gone, or of another server and not linked any more."""
        if (local := self._hubs.get(scope)) is not None:
            return LocalRegistry(local)
        for hub in await self._linked_hubs():
            if hub.hub == scope and hub.login is not None and self._reach is not None:
                return self._reach(hub.login)
        return None
