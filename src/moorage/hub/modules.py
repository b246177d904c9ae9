"""The module identities of one hub, and the verbs on them. [hub-service 5.1, 5.4]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from moorage.errors import Conflict, NotFound, PreconditionFailed, Unauthorized
from moorage.hub import device_identity, module_identity
from moorage.hub import twin as twins
from moorage.hub.authentication import NONE, Authentication
from moorage.hub.device_identity import DeviceIdentity
from moorage.hub.device_queues import module_removal
from moorage.hub.ids import ANY_ETAG, GenerationIds, new_etag
from moorage.hub.module_identity import MAX_MODULES, ModuleIdentity, ModuleSettings
from moorage.hub.presence import forgotten
from moorage.hub.session import MODULE_DELETED, NO_EDGE_DEVICE, Sessions, name_of
from moorage.hub.twin import EMPTY, InitialTwin, new_twin
from moorage.interfaces import AtMost, Change, Clock, Delete, DeleteFound, Expect, Put, Require, Store

SYSTEM_MODULES = ("$edgeAgent", "$edgeHub")
"""Those of the IoT Edge runtime: each edge device has them, made and deleted with its capability. [hub-service 5.2]"""

_BY_EDGE = "iotEdge"


class SystemModule(Unauthorized):
    """A module of the IoT Edge runtime, which comes and goes with the capability of its device alone."""


class Modules:
    """What a verb returns is durable."""

    def __init__(
        self, scope: int, store: Store, clock: Clock, sessions: Sessions, generations: GenerationIds
    ) -> None:
        self._scope = scope
        self._store = store
        self._clock = clock
        self._sessions = sessions
        self._generations = generations
        self._records = store.records(module_identity.KIND, scope)
        self._devices = store.records(device_identity.KIND, scope)

    # Reading

    async def get(self, device_id: str, module_id: str) -> ModuleIdentity:
        """Raises NotFound, of the device where that is missing too."""
        module = await self._records.get(name_of(device_id, module_id))
        if module is None:
            await self._device(device_id)
            raise NotFound("module", name_of(device_id, module_id))
        return module

    async def of_device(self, device_id: str) -> Sequence[ModuleIdentity]:
        """Raises NotFound when there is no such device."""
        await self._device(device_id)
        return await self._records.find("device", device_id)

    async def count(self) -> int:
        """Of the whole hub."""
        return await self._records.count()

    async def exists(self, device_id: str, module_id: str) -> bool:
        return await self._records.get(name_of(device_id, module_id)) is not None

    async def _device(self, device_id: str) -> DeviceIdentity:
        device = await self._devices.get(device_id)
        if device is None:
            raise NotFound("device", device_id)
        return device

    # Writing

    async def create(self, settings: ModuleSettings, initial: InitialTwin = EMPTY) -> ModuleIdentity:
        """Identity and twin, in one commit. Raises NotFound for the device, Conflict, TooMany, SystemModule."""
        device = await self._device(settings.device_id)
        if settings.module_id in SYSTEM_MODULES and not device.iot_edge:
            raise SystemModule(
                f"'{settings.module_id}' is a module of the IoT Edge runtime, '{device.device_id}' no edge device",
                check="system module",
                remedy="Turn on the device's capability iotEdge: that makes the module.",
            )
        module = self._new(settings)
        try:
            await self._store.apply(
                [
                    Require(device_identity.KIND, self._scope, settings.device_id),
                    *self._founding(module, initial),
                    AtMost(module_identity.KIND, self._scope, "device", settings.device_id, MAX_MODULES),
                ]
            )
        except Conflict:
            raise Conflict("module", module.name) from None
        except NotFound:
            raise NotFound("device", settings.device_id) from None
        return module

    async def update(self, settings: ModuleSettings, if_match: str = ANY_ETAG) -> ModuleIdentity:
        """Replace all that a caller decides; a connection goes on with the proof it was opened with.

        `if_match` is an etag or "*". Raises NotFound, PreconditionFailed.
        """
        while True:
            existing = await self.get(settings.device_id, settings.module_id)
            if if_match not in (ANY_ETAG, existing.etag):
                raise PreconditionFailed("module", existing.name)
            module = ModuleIdentity(
                device_id=existing.device_id,
                module_id=existing.module_id,
                generation_id=existing.generation_id,
                etag=new_etag(),
                managed_by=settings.managed_by,
                authentication=settings.authentication,
            )
            try:
                return await self._records.put(module, expect=existing.etag)
            except PreconditionFailed:
                continue  # somebody else was faster: judge by what there is now

    async def renew(
        self, device_id: str, module_id: str, renewed: Callable[[Authentication], Authentication]
    ) -> Authentication:
        """Replace the credentials alone, by what `renewed` makes of those that are kept. Raises NotFound."""
        while True:
            existing = await self.get(device_id, module_id)
            module = replace(existing, authentication=renewed(existing.authentication), etag=new_etag())
            try:
                return (await self._records.put(module, expect=existing.etag)).authentication
            except PreconditionFailed:
                continue

    async def delete(self, device_id: str, module_id: str, if_match: str = ANY_ETAG) -> None:
        """Identity, twin, queue and connection. Raises NotFound, PreconditionFailed, SystemModule."""
        await self.get(device_id, module_id)
        if module_id in SYSTEM_MODULES:
            raise SystemModule(
                f"'{module_id}' is a module of the IoT Edge runtime and is not deleted by itself",
                check="system module",
                remedy="Turn off the device's capability iotEdge: that deletes the module.",
            )
        name = name_of(device_id, module_id)
        expect = Expect.PRESENT if if_match == ANY_ETAG else if_match
        try:
            await self._store.apply(
                [
                    Delete(module_identity.KIND, self._scope, name, expect),
                    Delete(twins.MODULE_KIND, self._scope, name, Expect.ANY),
                    *module_removal(self._scope, name),
                    forgotten(self._scope, name),
                ]
            )
        except NotFound:
            raise NotFound("module", name) from None
        except PreconditionFailed:
            raise PreconditionFailed("module", name) from None
        self._sessions.drop(name, MODULE_DELETED)
        self._sessions.forget(name)

    # Beside the changes of their device

    def removal(self, device_id: str) -> list[Change]:
        """What deletes all modules of a device, for the commit that deletes that."""
        return [
            DeleteFound(kind, self._scope, "device", device_id)
            for kind in (module_identity.KIND, twins.MODULE_KIND)
        ]

    def following(self, before: DeviceIdentity | None, after: DeviceIdentity) -> list[Change]:
        """The modules of the IoT Edge runtime, made or deleted as `after` is an edge device and `before` was none."""
        if after.iot_edge == (before is not None and before.iot_edge):
            return []
        names = [name_of(after.device_id, module_id) for module_id in SYSTEM_MODULES]
        changes: list[Change] = [
            Delete(kind, self._scope, name, Expect.ANY)
            for kind in (module_identity.KIND, twins.MODULE_KIND)
            for name in names
        ]
        for name in names:
            changes += (*module_removal(self._scope, name), forgotten(self._scope, name))
        if after.iot_edge:
            for module_id in SYSTEM_MODULES:
                settings = ModuleSettings(
                    device_id=after.device_id,
                    module_id=module_id,
                    authentication=Authentication(NONE),
                    managed_by=_BY_EDGE,
                )
                changes += self._founding(self._new(settings), EMPTY)
        return changes

    def drop_system_modules(self, device_id: str) -> None:
        """End their connections, once they are deleted for good."""
        for module_id in SYSTEM_MODULES:
            name = name_of(device_id, module_id)
            self._sessions.drop(name, NO_EDGE_DEVICE)
            self._sessions.forget(name)

    def _new(self, settings: ModuleSettings) -> ModuleIdentity:
        return ModuleIdentity(
            device_id=settings.device_id,
            module_id=settings.module_id,
            generation_id=self._generations.new(),
            etag=new_etag(),
            managed_by=settings.managed_by,
            authentication=settings.authentication,
        )

    def _founding(self, module: ModuleIdentity, initial: InitialTwin) -> list[Change]:
        twin = new_twin(
            module.device_id,
            self._clock.now(),
            initial.tags,
            initial.desired,
            module_id=module.module_id,
        )
        return [
            Put(module_identity.KIND, self._scope, module, Expect.ABSENT),
            Put(twins.MODULE_KIND, self._scope, twin, Expect.ABSENT),
            forgotten(self._scope, module.name),
        ]
