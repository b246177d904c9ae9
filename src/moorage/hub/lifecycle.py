"""Who comes and goes: the devices and modules that a commit creates or deletes, told once it is durable.

Identities are made and deleted from many places, alone, in bulk, and by registrations in the commit of their own
record. All of these commits pass here, and none forgets to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from moorage.hub import device_identity, module_identity
from moorage.hub import twin as twins
from moorage.hub.twin import Twin
from moorage.interfaces import (
    Change,
    Delete,
    DeleteFound,
    Expect,
    Kind,
    Put,
    Record,
    Records,
    Store,
    TwinSearch,
)

T = TypeVar("T", bound=Record)

_TWIN_OF: dict[str, Kind[Twin]] = {
    device_identity.KIND.name: twins.KIND,
    module_identity.KIND.name: twins.MODULE_KIND,
}


class LifecycleObserver(Protocol):
    """Told by one hub. It may not raise."""

    def created(self, twin: Twin) -> None: ...

    def deleted(self, twin: Twin) -> None:
        """`twin` is the last there was."""
        ...

    def replaced(self, twin: Twin) -> None:
        """The identity was provisioned anew, with this twin in place of the one it had."""
        ...

    async def settled(self) -> None:
        """What it was told is where it belongs: until then nobody hears that the commit is done."""
        ...


class LifecycleStore:
    """A `Store` whose `apply` tells. Identities come and go with their twins, so always in a commit of several."""

    def __init__(self, store: Store, observer: Callable[[int], LifecycleObserver | None]) -> None:
        """`observer` finds that of a hub by its scope; None where nobody wants to know."""
        self._store = store
        self._observer = observer

    def records(self, kind: Kind[T], scope: int) -> Records[T]:
        return self._store.records(kind, scope)

    def twin_search(self, scope: int) -> TwinSearch:
        return self._store.twin_search(scope)

    def turn(self, kind: Kind[Any], scope: int, key: str) -> AbstractAsyncContextManager[None]:
        return self._store.turn(kind, scope, key)

    async def apply(self, changes: Sequence[Change]) -> None:
        gone = [each for change in changes for each in await self._gone(change)]
        await self._store.apply(changes)
        # Nothing is awaited between the commit and this, so that commits are told in their order.
        told = []
        for observer, twin in reversed(gone):  # the modules of a device before it
            observer.deleted(twin)
            told.append(observer)
        for change in changes:
            watching = self._watching(change) if isinstance(change, Put) else None
            if isinstance(change, Put) and watching is not None:
                _tell_put(watching, change, changes)
                told.append(watching)
        for observer in dict.fromkeys(told):
            await observer.settled()

    async def _gone(self, change: Change) -> list[tuple[LifecycleObserver, Twin]]:
        """The twins of the devices and modules that `change` deletes."""
        if not isinstance(change, Delete | DeleteFound) or (observer := self._watching(change)) is None:
            return []
        records = self._store.records(_TWIN_OF[change.kind.name], change.scope)
        if isinstance(change, DeleteFound):
            return [(observer, twin) for twin in await records.find(change.index, change.value)]
        twin = await records.get(change.key)
        return [] if twin is None else [(observer, twin)]

    def _watching(self, change: Put[Any] | Delete | DeleteFound) -> LifecycleObserver | None:
        return self._observer(change.scope) if change.kind.name in _TWIN_OF else None


def _tell_put(observer: LifecycleObserver, identity: Put[Any], changes: Sequence[Change]) -> None:
    twin = _twin_beside(identity, changes)
    if twin is not None and identity.expect is Expect.ABSENT:
        observer.created(twin)
    elif twin is not None:
        observer.replaced(twin)


def _twin_beside(identity: Put[Any], changes: Sequence[Change]) -> Twin | None:
    """The twin that is put in the same commit."""
    kind, name = _TWIN_OF[identity.kind.name], identity.record.name
    for change in changes:
        if isinstance(change, Put) and change.kind is kind and change.scope == identity.scope:
            twin: Twin = change.record
            if twin.name == name:
                return twin
    return None
