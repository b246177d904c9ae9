"""Device identities: who may connect to a hub, and the verbs on them. [hub-service 5]"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.credentials.decision import Finding
from moorage.credentials.sas import CONNECT_SKEW
from moorage.errors import Conflict, Invalid, NotFound, PreconditionFailed, TooMany
from moorage.hub import authority, device_identity, device_queues
from moorage.hub import twin as twins
from moorage.hub.admission import Admission
from moorage.hub.authentication import Authentication
from moorage.hub.authority import TrustedAuthority
from moorage.hub.bulk import Bulk, BulkResult
from moorage.hub.device_identity import (
    DISABLED,
    SCOPE_PREFIX,
    DeviceIdentity,
    IdentitySettings,
    InvalidDeviceScope,
)
from moorage.hub.device_queues import DeviceQueues
from moorage.hub.feedback import Feedback
from moorage.hub.ids import ANY_ETAG, GenerationIds, check_id, new_etag
from moorage.hub.instance import Hub
from moorage.hub.key_regeneration import Regeneration, regenerate
from moorage.hub.modules import Modules
from moorage.hub.presence import Presences, forgotten, forgotten_with_modules
from moorage.hub.session import DEVICE_DELETED, DEVICE_DISABLED, Principal, Sessions, name_of
from moorage.hub.stored_session import StoredSessions
from moorage.hub.twin import (
    EMPTY,
    InitialTwin,
    Twin,
    new_twin,
    reset_twin,
)
from moorage.hub.twins import Twins
from moorage.interfaces import Change, Clock, Delete, Expect, Put, Store

if TYPE_CHECKING:
    from moorage.hub.query.search import TwinQueries

MAX_LIST = 1000
MAX_IDENTITIES = 1_000_000
"""Devices and modules of one hub. [hub-device 13]"""


class RegistryStatistics(NamedTuple):
    total: int
    enabled: int
    disabled: int


# Named here because within the class below `list` is a verb.
Changes = list[Change]


# --- The verbs -------------------------------------------------------------------------------------------


class Identities:
    """The identities of one hub: those of devices, and `modules` beside. What a verb returns is durable."""

    def __init__(
        self,
        hub: Hub,
        store: Store,
        clock: Clock,
        sessions: Sessions,
        *,
        connect_skew: int = CONNECT_SKEW,
        max_identities: int = MAX_IDENTITIES,
    ) -> None:
        """`connect_skew`: seconds for which an expired token still opens a connection."""
        self.hub = hub
        self.sessions = sessions
        self.twins = Twins(hub.scope, store, clock, sessions)
        self._store = store
        self._clock = clock
        self._records = store.records(device_identity.KIND, hub.scope)
        self._twins = store.records(twins.KIND, hub.scope)
        self._authorities = store.records(authority.KIND, hub.scope)
        self._generations = GenerationIds(clock)
        self.feedback = Feedback(hub.scope, store, clock, lambda: self.hub.cloud_to_device)
        self.queues = DeviceQueues(hub.scope, store, clock, self.feedback, lambda: self.hub.cloud_to_device)
        self.stored_sessions = StoredSessions(store, hub.scope)
        sessions.queues = self.queues
        self.modules = Modules(hub.scope, store, clock, sessions, self._generations)
        self.presences = Presences(hub.scope, store, clock, sessions)
        self._max_identities = max_identities
        self._room = 0  # so many may surely be created before it has to be counted again
        self._admission = Admission(lambda: self.hub, store, clock, sessions, connect_skew=connect_skew)

    async def open(self) -> None:
        """Take up what waits; before anything else is called."""
        await self.feedback.open()
        await self.queues.open()

    # Reading

    async def get(self, device_id: str) -> DeviceIdentity:
        """Raises NotFound."""
        identity = await self._records.get(device_id)
        if identity is None:
            raise NotFound("device", device_id)
        return identity

    async def twin(self, device_id: str, module_id: str | None = None) -> Twin:
        """Raises NotFound."""
        return await self.twins.get(device_id, module_id)

    async def list(self, top: int = MAX_LIST) -> Sequence[DeviceIdentity]:
        """Up to `top` identities; a number out of range counts as 1000. [hub-service 5.1]"""
        return (await self._records.page(limit=top if 1 <= top <= MAX_LIST else MAX_LIST)).records

    async def statistics(self) -> RegistryStatistics:
        total, disabled = await self._records.count(), await self._records.count("status", DISABLED)
        return RegistryStatistics(total, total - disabled, disabled)

    def queries(self) -> TwinQueries:
        """Over the twins of the hub. Their modules are imported with the first one."""
        from moorage.hub.query.search import TwinQueries

        return TwinQueries(
            self._store.twin_search(self.hub.scope), self.sessions, self.presences.of, self._clock
        )

    # Writing

    async def create(self, settings: IdentitySettings, initial: InitialTwin = EMPTY) -> DeviceIdentity:
        """Identity and twin, and an edge device's modules, in one commit.

        Raises Conflict, InvalidDeviceScope, TooMany.
        """
        identity = await self._created(settings)
        twin = new_twin(identity.device_id, self._clock.now(), initial.tags, initial.desired)
        scope = self.hub.scope
        try:
            await self._store.apply(
                [
                    Put(device_identity.KIND, scope, identity, Expect.ABSENT),
                    Put(twins.KIND, scope, twin, Expect.ABSENT),
                    forgotten(scope, identity.device_id),
                    *self.modules.following(None, identity),
                ]
            )
        except Conflict:
            raise Conflict("device", identity.device_id) from None
        return identity

    async def update(self, settings: IdentitySettings, if_match: str = ANY_ETAG) -> DeviceIdentity:
        """Replace all that a caller decides. A device that is now disabled loses its connection at once.

        `if_match` is an etag or "*". Raises NotFound, PreconditionFailed, InvalidDeviceScope.
        """
        while True:
            existing = await self.get(settings.device_id)
            _check_etag(existing, if_match)
            identity = await self._updated(existing, settings)
            changed = Put(device_identity.KIND, self.hub.scope, identity, existing.etag)
            try:
                await self._store.apply([changed, *self.modules.following(existing, identity)])
            except PreconditionFailed:
                continue  # somebody else was faster: judge by what there is now
            if identity.status == DISABLED:
                self.sessions.drop_device(identity.device_id, DEVICE_DISABLED)
            elif existing.iot_edge and not identity.iot_edge:
                self.modules.drop_system_modules(identity.device_id)
            return identity

    async def renew(
        self, device_id: str, renewed: Callable[[Authentication], Authentication]
    ) -> Authentication:
        """Replace the credentials alone, by what `renewed` makes of those that are kept. Raises NotFound."""
        while True:
            existing = await self.get(device_id)
            identity = replace(existing, authentication=renewed(existing.authentication), etag=new_etag())
            try:
                return (await self._records.put(identity, expect=existing.etag)).authentication
            except PreconditionFailed:
                continue

    async def exists(self, device_id: str) -> bool:
        return await self._records.get(device_id) is not None

    async def delete(self, device_id: str, if_match: str = ANY_ETAG) -> None:
        """Identity, twin, queue, modules and connections. Raises NotFound, PreconditionFailed."""
        expect = Expect.PRESENT if if_match == ANY_ETAG else if_match
        try:
            await self._store.apply(self.removal(device_id, expect))
        except NotFound:
            raise NotFound("device", device_id) from None
        except PreconditionFailed:
            raise PreconditionFailed("device", device_id) from None
        self.sessions.drop_device(device_id, DEVICE_DELETED)
        self.sessions.forget_device(device_id)

    def removal(self, device_id: str, expect: Expect | str = Expect.ANY) -> Changes:
        """What deletes a device with its twin, queue and modules: changes for the caller's commit."""
        return [
            Delete(device_identity.KIND, self.hub.scope, device_id, expect),
            Delete(twins.KIND, self.hub.scope, device_id, Expect.ANY),
            *forgotten_with_modules(self.hub.scope, device_id),
            *device_queues.removal(self.hub.scope, device_id),
            *self.modules.removal(device_id),
        ]

    async def patch_twin(
        self,
        device_id: str,
        patch: Mapping[str, Any],
        if_match: str = ANY_ETAG,
        *,
        module_id: str | None = None,
    ) -> Twin:
        """`Twins.patch`."""
        return await self.twins.patch(device_id, patch, if_match, module_id=module_id)

    async def provision(
        self,
        device_id: str,
        authentication: Authentication,
        *,
        iot_edge: bool = False,
        initial_twin: InitialTwin = EMPTY,
        reset: bool = False,
    ) -> Changes:
        """What makes `device_id` an enabled identity with these credentials: changes for the caller's commit.

        An existing identity is taken over: its credentials are replaced, its twin is kept unless `reset`. The
        commit raises Conflict or PreconditionFailed when somebody else was faster. [dps 14, 15]
        """
        check_id(device_id, "deviceId")
        settings = IdentitySettings(device_id=device_id, authentication=authentication, iot_edge=iot_edge)
        existing, twin = await self._records.get(device_id), await self._twins.get(device_id)
        now, scope = self._clock.now(), self.hub.scope
        if existing is None:
            identity = await self._created(settings)
        else:
            identity = await self._updated(existing, replace(settings, parent_scopes=existing.parent_scopes))
        expect = existing.etag if existing else Expect.ABSENT
        changes: Changes = [
            Put(device_identity.KIND, scope, identity, expect),
            *self.modules.following(existing, identity),
        ]
        if existing is None:
            changes.append(forgotten(scope, device_id))
        if twin is None:
            fresh = new_twin(device_id, now, initial_twin.tags, initial_twin.desired)
            changes.append(Put(twins.KIND, scope, fresh, Expect.ABSENT))
        elif reset or existing is None:
            changes.append(Put(twins.KIND, scope, reset_twin(twin, now, initial_twin), twin.etag))
        return changes

    async def trust(self, name: str, certificates: Sequence[bytes]) -> Changes:
        """What makes the hub trust a CA by these certificates (DER): changes for the caller's commit, none if it does.

        Those that it trusts the CA by already go on to hold until they expire.
        """
        held = await self._authorities.get(name.lower())
        given = [base64.b64encode(certificate).decode() for certificate in certificates]
        if held is not None and set(given) <= set(held.certificates):
            return []
        known = held or TrustedAuthority(name=name, certificates=(), etag="")
        trusted = known.with_certificates(given, self._clock.now(), new_etag())
        return [Put(authority.KIND, self.hub.scope, trusted, held.etag if held else Expect.ABSENT)]

    async def _created(self, settings: IdentitySettings) -> DeviceIdentity:
        await self._check_parents(settings)
        await self._check_room()
        generation = self._generations.new()
        return DeviceIdentity(
            device_id=settings.device_id,
            generation_id=generation,
            etag=new_etag(),
            status=settings.status,
            status_reason=settings.status_reason,
            authentication=settings.authentication,
            iot_edge=settings.iot_edge,
            device_scope=_device_scope(settings, f"{SCOPE_PREFIX}{settings.device_id}-{generation}"),
            parent_scopes=settings.parent_scopes,
        )

    async def _updated(self, existing: DeviceIdentity, settings: IdentitySettings) -> DeviceIdentity:
        # An edge device that becomes a leaf may send its own scope back; it is no parent of itself.
        parents = tuple(scope for scope in settings.parent_scopes if scope != existing.own_scope)
        settings = replace(settings, parent_scopes=parents)
        await self._check_parents(settings, known=existing.parent_scopes)
        own = existing.own_scope or f"{SCOPE_PREFIX}{settings.device_id}-{self._generations.new()}"
        same_status = settings.status == existing.status
        return DeviceIdentity(
            device_id=existing.device_id,
            generation_id=existing.generation_id,
            etag=new_etag(),
            status=settings.status,
            status_reason=settings.status_reason,
            status_updated_time=existing.status_updated_time if same_status else self._clock.now(),
            authentication=settings.authentication,
            iot_edge=settings.iot_edge,
            device_scope=_device_scope(settings, own),
            parent_scopes=parents,
        )

    async def _check_room(self) -> None:
        """Raises TooMany. Counted anew only after half of what was left has been created: that takes a while."""
        if self._room <= 0:
            left = self._max_identities - await self._records.count() - await self.modules.count()
            if left <= 0:
                raise TooMany("identities", self.hub.name, self._max_identities)
            self._room = (left + 1) // 2
        self._room -= 1

    async def _check_parents(self, settings: IdentitySettings, known: Sequence[str] = ()) -> None:
        if not settings.iot_edge and len(settings.parent_scopes) > 1:
            raise Invalid("parentScopes", "only an edge device has more than one parent")
        for scope in settings.parent_scopes:
            if scope in known:
                continue
            # The id is what stands before the last '-': ids may hold some of their own. [hub-service 5.3]
            parent_id = scope.removeprefix(SCOPE_PREFIX).rpartition("-")[0]
            parent = await self._records.get(parent_id)
            if parent is None or parent.own_scope != scope:
                raise InvalidDeviceScope(
                    "deviceScope", f"{scope!r:.300} is the scope of no edge device of this hub"
                )

    # Many at once

    async def bulk(self, items: Sequence[object]) -> BulkResult:
        """Do up to 100 items in their order, each by itself; none stops the others. [hub-service 5.5]

        Raises Invalid when the request as a whole cannot be read.
        """
        return await Bulk(self).run(items)

    async def regenerate_keys(self, document: Mapping[str, Any]) -> Regeneration:
        """New keys for up to 100 devices and modules, each by itself. Raises Invalid. [hub-service 5.6]"""
        return await regenerate(self, document)

    # Admission

    async def authenticate(
        self,
        device_id: str,
        *,
        password: str | None,
        chain: Sequence[bytes] = (),
        audience_hosts: Sequence[str] = (),
        module_id: str | None = None,
        finding: Finding | None = None,
    ) -> Principal:
        """Who is connecting as this device or module, proven by a SAS token (`password`) or a certificate.

        `chain` is DER, leaf first, the possession of its key proven by the TLS handshake. A token may be for
        any of `audience_hosts`, all names of the hub when left out. `finding` collects the checks made.

        Raises NotFound, Unauthorized, and Disabled once the proof holds. [hub-device 2.2 - 2.5]
        """
        return await self._admission.judge(
            device_id,
            module_id,
            password=password,
            chain=chain,
            hosts=audience_hosts or self.hub.host_names,
            finding=finding or Finding("connect", name_of(device_id, module_id), scope=self.hub.scope),
        )


def _check_etag(identity: DeviceIdentity, if_match: str) -> None:
    if if_match not in (ANY_ETAG, identity.etag):
        raise PreconditionFailed("device", identity.device_id)


def _device_scope(settings: IdentitySettings, own: str) -> str | None:
    if settings.iot_edge:
        return own
    return settings.parent_scopes[0] if settings.parent_scopes else None
