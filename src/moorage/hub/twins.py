"""The twins of one hub: reading them, and the three ways in which they change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from moorage.errors import Invalid, MoorageError, NotFound, PreconditionFailed
from moorage.hub import twin as twin_records
from moorage.hub.ids import ANY_ETAG
from moorage.hub.session import Sessions, name_of
from moorage.hub.twin import Twin
from moorage.hub.twin_change import TwinChange, patch_twin, replace_twin, report
from moorage.interfaces import Clock, Kind, Put, Records, Store

Change = Callable[[Twin, int, Mapping[str, Any]], TwinChange]


class Report(NamedTuple):
    """What a device reports: a patch, and the version of its reported properties that it counts on, if any."""

    patch: object
    version: int | None = None


class OtherVersion(PreconditionFailed):
    """The reported properties of `twin` are not at the version that the device counts on. [hub-device 3.10]"""

    def __init__(self, twin: Twin, expected: int) -> None:
        super().__init__("twin", twin.name)
        self.args = (f"the reported properties are at version {twin.reported.version}, not {expected}",)


class Observer(Protocol):
    """Told of every committed change, those of one twin in their order. It may not raise."""

    def changed(self, change: TwinChange) -> None: ...

    async def settled(self) -> None:
        """What it was told is where it belongs: until then the verb does not return."""
        ...


class Twins:
    """What a verb returns is durable. Each change is told once it is: to the device, and to whoever asked for it."""

    def __init__(self, scope: int, store: Store, clock: Clock, sessions: Sessions) -> None:
        self._scope = scope
        self._store = store
        self._clock = clock
        self._sessions = sessions
        self._devices = store.records(twin_records.KIND, scope)
        self._modules = store.records(twin_records.MODULE_KIND, scope)
        self._observers: list[Observer] = []

    def observe(self, observer: Observer) -> None:
        self._observers.append(observer)

    async def get(self, device_id: str, module_id: str | None = None) -> Twin:
        """Raises NotFound: of the device, if that is missing too."""
        twin = await self._records(module_id).get(name_of(device_id, module_id))
        if twin is not None:
            return twin
        if module_id is not None and await self._devices.get(device_id) is not None:
            raise NotFound("module", name_of(device_id, module_id))
        raise NotFound("device", device_id)

    async def patch(
        self,
        device_id: str,
        document: Mapping[str, Any],
        if_match: str = ANY_ETAG,
        *,
        module_id: str | None = None,
    ) -> Twin:
        """A service's merge patch of tags and desired properties; `if_match` is a twin's `service_etag` or "*".

        Raises NotFound, PreconditionFailed, Invalid.
        """
        return await self._write(patch_twin, device_id, module_id, document, if_match)

    async def replace(
        self,
        device_id: str,
        document: Mapping[str, Any],
        if_match: str = ANY_ETAG,
        *,
        module_id: str | None = None,
    ) -> Twin:
        """Tags and desired properties are those of `document` from now on. Raises as `patch` does."""
        return await self._write(replace_twin, device_id, module_id, document, if_match)

    async def _write(
        self,
        change_twin: Change,
        device_id: str,
        module_id: str | None,
        document: Mapping[str, Any],
        if_match: str,
    ) -> Twin:
        async with self._turn(device_id, module_id):
            while True:
                existing = await self.get(device_id, module_id)
                if if_match not in (ANY_ETAG, existing.service_etag):
                    raise PreconditionFailed("twin", existing.name)
                change = change_twin(existing, self._clock.now(), document)
                if await self._keep(change.after, existing):
                    self._tell([change])
                    break
        await self._settled()
        return change.after

    async def report(
        self, device_id: str, reports: Sequence[Report], *, module_id: str | None = None
    ) -> list[Twin | MoorageError]:
        """Take up what a device reports, in order and in one commit.

        Returns for each the twin behind it, or why it was refused, which leaves the others alone. Raises NotFound,
        Unavailable; then nothing was kept.
        """
        async with self._turn(device_id, module_id):
            while True:
                existing = await self.get(device_id, module_id)
                outcomes, changes = self._taken_up(existing, reports)
                if not changes or await self._keep(changes[-1].after, existing):
                    self._tell(changes)
                    break
        await self._settled()
        return outcomes

    def _taken_up(
        self, twin: Twin, reports: Sequence[Report]
    ) -> tuple[list[Twin | MoorageError], list[TwinChange]]:
        now = self._clock.now()
        outcomes: list[Twin | MoorageError] = []
        changes: list[TwinChange] = []
        for patch, version in reports:
            try:
                if version is not None and version != twin.reported.version:
                    raise OtherVersion(twin, version)
                change = report(twin, now, patch)
            except (Invalid, PreconditionFailed) as error:
                outcomes.append(error)
                continue
            twin = change.after
            changes.append(change)
            outcomes.append(twin)
        return outcomes, changes

    def _turn(self, device_id: str, module_id: str | None) -> AbstractAsyncContextManager[None]:
        return self._store.turn(_kind(module_id), self._scope, name_of(device_id, module_id))

    async def _keep(self, twin: Twin, existing: Twin) -> bool:
        """False when somebody else was faster: then it has to be judged by what there is now, if anything."""
        try:
            await self._store.apply([Put(_kind(twin.module_id), self._scope, twin, existing.etag)])
        except (NotFound, PreconditionFailed):
            return False
        return True

    def _tell(self, changes: Sequence[TwinChange]) -> None:
        """Tell of changes that have been committed; nothing may be awaited between the commit and the telling.

        So they are told in the order of their commits, and a device that is connected then misses none.
        """
        for change in changes:
            session = self._sessions.connected(change.after.name)
            if session is not None and change.desired is not None:
                session.link.desired_changed(change.desired, change.after.desired.version)
            for observer in self._observers:
                observer.changed(change)

    async def _settled(self) -> None:
        for observer in self._observers:
            await observer.settled()

    def _records(self, module_id: str | None) -> Records[Twin]:
        return self._devices if module_id is None else self._modules


def _kind(module_id: str | None) -> Kind[Twin]:
    return twin_records.KIND if module_id is None else twin_records.MODULE_KIND
