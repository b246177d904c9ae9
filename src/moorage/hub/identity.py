"""Device identities: who may connect to a hub, and the verbs on them. [hub-service 5]"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from moorage.credentials import policy as policies
from moorage.credentials.decision import Finding
from moorage.credentials.policy import SharedAccessPolicy
from moorage.credentials.sas import CONNECT_SKEW, SasToken, parse_token
from moorage.errors import (
    Conflict,
    Disabled,
    Invalid,
    MoorageError,
    NotFound,
    NotSupported,
    PreconditionFailed,
    Unauthorized,
)
from moorage.hub import authority
from moorage.hub import twin as twins
from moorage.hub.authentication import (
    CERTIFICATE_AUTHORITY,
    check_certificate,
    check_kind_of_proof,
    check_token,
)
from moorage.hub.authentication import Authentication as Authentication
from moorage.hub.authentication import read_authentication as read_authentication
from moorage.hub.authority import TrustedAuthority
from moorage.hub.bulk import ANY_ETAG, bulk_error, item_etag, item_mode
from moorage.hub.bulk import BulkError as BulkError
from moorage.hub.bulk import BulkResult as BulkResult
from moorage.hub.bulk import DefinedTwice as DefinedTwice
from moorage.hub.instance import Hub
from moorage.hub.session import ABSENT, Presence, Principal, Sessions
from moorage.hub.twin import (
    EMPTY,
    InitialTwin,
    Twin,
    json_object,
    new_twin,
    patch_twin,
    read_initial_twin,
    reset_twin,
    timestamp,
)
from moorage.interfaces import Clock, Delete, Expect, Kind, Put, Store

ENABLED = "enabled"
DISABLED = "disabled"

MAX_LIST = 1000
MAX_BULK = 100
_MAX_STATUS_REASON = 128
_MAX_PARENTS = 100

_DEVICE_ID = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@$';]{1,128}")
_SCOPE_PREFIX = "ms-azure-iot-edge://"
_TICKS_AT_1970 = 621_355_968_000_000_000  # of 100 ns, since the year 1


class InvalidDeviceScope(Invalid):
    """A scope that belongs to no edge device of the hub. [hub-service 5.3]"""


# --- The record ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DeviceIdentity:
    """A device that may connect. `generation_id` tells it from an earlier one of the same id.

    `device_scope` is the device's own scope when it is an edge device, else that of its parent.
    `status_updated_time` is in microseconds, None while the status has never been changed.
    """

    device_id: str
    generation_id: str
    etag: str
    status: str = ENABLED
    status_reason: str | None = None
    status_updated_time: int | None = None
    authentication: Authentication
    iot_edge: bool = False
    device_scope: str | None = None
    parent_scopes: tuple[str, ...] = ()

    def scope_view(self) -> dict[str, Any]:
        scope = {"deviceScope": self.device_scope} if self.device_scope else {}
        return {**scope, "parentScopes": list(self.parent_scopes)}


def _to_document(identity: DeviceIdentity) -> dict[str, Any]:
    return {
        "deviceId": identity.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "status": identity.status,
        "statusReason": identity.status_reason,
        "statusUpdatedTime": identity.status_updated_time,
        "authentication": identity.authentication.view(),
        "iotEdge": identity.iot_edge,
        "deviceScope": identity.device_scope,
        "parentScopes": list(identity.parent_scopes),
    }


def _from_document(document: dict[str, Any]) -> DeviceIdentity:
    authentication = document["authentication"]
    return DeviceIdentity(
        device_id=document["deviceId"],
        generation_id=document["generationId"],
        etag=document["etag"],
        status=document["status"],
        status_reason=document["statusReason"],
        status_updated_time=document["statusUpdatedTime"],
        authentication=Authentication(
            authentication["type"],
            authentication["symmetricKey"]["primaryKey"],
            authentication["symmetricKey"]["secondaryKey"],
            authentication["x509Thumbprint"]["primaryThumbprint"],
            authentication["x509Thumbprint"]["secondaryThumbprint"],
        ),
        iot_edge=document["iotEdge"],
        device_scope=document["deviceScope"],
        parent_scopes=tuple(document["parentScopes"]),
    )


KIND: Kind[DeviceIdentity] = Kind(
    name="device_identity",
    key=lambda identity: identity.device_id,
    to_document=_to_document,
    from_document=_from_document,
    index={"status": lambda identity: [identity.status]},
)
"""Kept under the scope of the hub, by device id."""


def identity_view(identity: DeviceIdentity, presence: Presence = ABSENT) -> dict[str, Any]:
    """As clients read it. [hub-service 5.2]"""
    return {
        "deviceId": identity.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": presence.state,
        "status": identity.status,
        "statusReason": identity.status_reason,
        "connectionStateUpdatedTime": timestamp(presence.changed_at),
        "statusUpdatedTime": timestamp(identity.status_updated_time),
        "lastActivityTime": timestamp(presence.last_activity),
        "cloudToDeviceMessageCount": 0,
        "authentication": identity.authentication.view(),
        "capabilities": {"iotEdge": identity.iot_edge},
        **identity.scope_view(),
    }


# --- What a caller may decide ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """The part of a device identity that its caller decides; what was left out has its default."""

    device_id: str
    authentication: Authentication
    status: str = ENABLED
    status_reason: str | None = None
    iot_edge: bool = False
    parent_scopes: tuple[str, ...] = ()


def read_settings(device_id: str, document: object) -> IdentitySettings:
    """From the JSON of a device, whose `deviceId`, if it has one, must be `device_id`. Raises Invalid.

    Members the hub decides are passed over. [hub-service 5.2]
    """
    if not isinstance(document, Mapping):
        raise Invalid("", "the device is not a JSON object")
    check_device_id(device_id)
    if document.get("deviceId") not in (None, device_id):
        raise Invalid("deviceId", f"it differs from the '{device_id}' of the address")
    iot_edge = _read_iot_edge(document.get("capabilities"))
    return IdentitySettings(
        device_id=device_id,
        authentication=read_authentication(document.get("authentication")),
        status=_read_status(document.get("status")),
        status_reason=_read_status_reason(document.get("statusReason")),
        iot_edge=iot_edge,
        parent_scopes=_read_parent_scopes(document, iot_edge),
    )


def check_device_id(device_id: object, field: str = "deviceId") -> str:
    """`device_id` itself. Raises Invalid when it breaks the rules of ids. [hub-device 2.1]"""
    if not isinstance(device_id, str) or not _DEVICE_ID.fullmatch(device_id):
        raise Invalid(field, "an id has 1 to 128 ASCII letters, digits and characters of -:.+%_#*?!(),=@$';")
    return device_id


def _read_status(value: object) -> str:
    if value is None:
        return ENABLED
    if not isinstance(value, str) or value.lower() not in (ENABLED, DISABLED):
        raise Invalid("status", f"it is {ENABLED} or {DISABLED}")
    return value.lower()


def _read_status_reason(value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) <= _MAX_STATUS_REASON):
        raise Invalid("statusReason", f"it is a string of up to {_MAX_STATUS_REASON} characters")
    if value and any("\ud800" <= character <= "\udfff" for character in value):
        raise Invalid("statusReason", "it holds half of a surrogate pair")
    return value or None


def _read_iot_edge(capabilities: object) -> bool:
    edge = json_object("capabilities", capabilities).get("iotEdge")
    if edge is not None and not isinstance(edge, bool):
        raise Invalid("capabilities.iotEdge", "it is true or false")
    return bool(edge)


def _read_parent_scopes(document: Mapping[str, Any], iot_edge: bool) -> tuple[str, ...]:
    """`parentScopes`; for a leaf `deviceScope` says it first, which for an edge device is its own."""
    scopes = document.get("parentScopes")
    if not iot_edge and document.get("deviceScope") is not None:
        scopes = [document["deviceScope"]]
    if scopes is None:
        return ()
    if not isinstance(scopes, list) or len(scopes) > _MAX_PARENTS:
        raise Invalid("parentScopes", f"it is an array of up to {_MAX_PARENTS} scopes")
    if not all(isinstance(scope, str) for scope in scopes):
        raise Invalid("parentScopes", "a scope is a string")
    return tuple(filter(None, scopes))


class RegistryStatistics(NamedTuple):
    total: int
    enabled: int
    disabled: int


# Named here because within the class below `list` is a verb.
Changes = list[Put[Any] | Delete]
Errors = list[BulkError]


# --- The verbs -------------------------------------------------------------------------------------------


class Identities:
    """The device identities of one hub. What a verb returns is durable."""

    def __init__(
        self, hub: Hub, store: Store, clock: Clock, sessions: Sessions, *, connect_skew: int = CONNECT_SKEW
    ) -> None:
        """`connect_skew`: seconds for which an expired token still opens a connection."""
        self.hub = hub
        self.sessions = sessions
        self._store = store
        self._clock = clock
        self._connect_skew = connect_skew
        self._records = store.records(KIND, hub.scope)
        self._twins = store.records(twins.KIND, hub.scope)
        self._policies = store.records(policies.KIND, hub.scope)
        self._authorities = store.records(authority.KIND, hub.scope)
        self._last_ticks = 0

    # Reading

    async def get(self, device_id: str) -> DeviceIdentity:
        """Raises NotFound."""
        identity = await self._records.get(device_id)
        if identity is None:
            raise NotFound("device", device_id)
        return identity

    async def twin(self, device_id: str) -> Twin:
        """Raises NotFound."""
        twin = await self._twins.get(device_id)
        if twin is None:
            raise NotFound("device", device_id)
        return twin

    async def list(self, top: int = MAX_LIST) -> Sequence[DeviceIdentity]:
        """Up to `top` identities; a number out of range counts as 1000. [hub-service 5.1]"""
        return (await self._records.page(limit=top if 1 <= top <= MAX_LIST else MAX_LIST)).records

    async def statistics(self) -> RegistryStatistics:
        total, disabled = await self._records.count(), await self._records.count("status", DISABLED)
        return RegistryStatistics(total, total - disabled, disabled)

    # Writing

    async def create(self, settings: IdentitySettings, initial: InitialTwin = EMPTY) -> DeviceIdentity:
        """Identity and twin, in one commit. Raises Conflict, InvalidDeviceScope."""
        identity = await self._created(settings)
        twin = new_twin(identity.device_id, self._clock.now(), initial.tags, initial.desired)
        scope = self.hub.scope
        try:
            await self._store.apply(
                [Put(KIND, scope, identity, Expect.ABSENT), Put(twins.KIND, scope, twin, Expect.ABSENT)]
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
            try:
                await self._records.put(identity, expect=existing.etag)
            except PreconditionFailed:
                continue  # somebody else was faster: judge by what there is now
            if identity.status == DISABLED:
                self.sessions.drop(identity.device_id, "the device was disabled")
            return identity

    async def delete(self, device_id: str, if_match: str = ANY_ETAG) -> None:
        """Identity, twin and connection. Raises NotFound, PreconditionFailed."""
        expect = Expect.PRESENT if if_match == ANY_ETAG else if_match
        try:
            await self._store.apply(
                [
                    Delete(KIND, self.hub.scope, device_id, expect),
                    Delete(twins.KIND, self.hub.scope, device_id, Expect.ANY),
                ]
            )
        except NotFound:
            raise NotFound("device", device_id) from None
        except PreconditionFailed:
            raise PreconditionFailed("device", device_id) from None
        self.sessions.drop(device_id, "the device was deleted")
        self.sessions.forget(device_id)

    async def patch_twin(self, device_id: str, patch: Mapping[str, Any], if_match: str = ANY_ETAG) -> Twin:
        """A service's merge patch of tags and desired properties; `if_match` is a twin's etag or "*".

        Raises NotFound, PreconditionFailed, Invalid.
        """
        while True:
            existing = await self.twin(device_id)
            if if_match not in (ANY_ETAG, existing.etag):
                raise PreconditionFailed("twin", device_id)
            twin = patch_twin(existing, self._clock.now(), patch)
            try:
                return await self._twins.put(twin, expect=existing.etag)
            except PreconditionFailed:
                continue

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
        check_device_id(device_id)
        settings = IdentitySettings(device_id=device_id, authentication=authentication, iot_edge=iot_edge)
        existing, twin = await self._records.get(device_id), await self._twins.get(device_id)
        now, scope = self._clock.now(), self.hub.scope
        if existing is None:
            changes: Changes = [Put(KIND, scope, await self._created(settings), Expect.ABSENT)]
        else:
            kept = replace(settings, parent_scopes=existing.parent_scopes)
            changes = [Put(KIND, scope, await self._updated(existing, kept), existing.etag)]
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
        trusted = known.with_certificates(given, self._clock.now(), _new_etag())
        return [Put(authority.KIND, self.hub.scope, trusted, held.etag if held else Expect.ABSENT)]

    async def _created(self, settings: IdentitySettings) -> DeviceIdentity:
        await self._check_parents(settings)
        ticks = self._ticks()
        return DeviceIdentity(
            device_id=settings.device_id,
            generation_id=str(ticks),
            etag=_new_etag(),
            status=settings.status,
            status_reason=settings.status_reason,
            authentication=settings.authentication,
            iot_edge=settings.iot_edge,
            device_scope=_device_scope(settings, f"{_SCOPE_PREFIX}{settings.device_id}-{ticks}"),
            parent_scopes=settings.parent_scopes,
        )

    async def _updated(self, existing: DeviceIdentity, settings: IdentitySettings) -> DeviceIdentity:
        # An edge device that becomes a leaf may send its own scope back; it is no parent of itself.
        parents = tuple(scope for scope in settings.parent_scopes if scope != _own_scope(existing))
        settings = replace(settings, parent_scopes=parents)
        await self._check_parents(settings, known=existing.parent_scopes)
        own = _own_scope(existing) or f"{_SCOPE_PREFIX}{settings.device_id}-{self._ticks()}"
        same_status = settings.status == existing.status
        return DeviceIdentity(
            device_id=existing.device_id,
            generation_id=existing.generation_id,
            etag=_new_etag(),
            status=settings.status,
            status_reason=settings.status_reason,
            status_updated_time=existing.status_updated_time if same_status else self._clock.now(),
            authentication=settings.authentication,
            iot_edge=settings.iot_edge,
            device_scope=_device_scope(settings, own),
            parent_scopes=parents,
        )

    async def _check_parents(self, settings: IdentitySettings, known: Sequence[str] = ()) -> None:
        if not settings.iot_edge and len(settings.parent_scopes) > 1:
            raise Invalid("parentScopes", "only an edge device has more than one parent")
        for scope in settings.parent_scopes:
            if scope in known:
                continue
            # The id is what stands before the last '-': ids may hold some of their own. [hub-service 5.3]
            parent_id = scope.removeprefix(_SCOPE_PREFIX).rpartition("-")[0]
            parent = await self._records.get(parent_id)
            if parent is None or _own_scope(parent) != scope:
                raise InvalidDeviceScope(
                    "deviceScope", f"{scope!r:.300} is the scope of no edge device of this hub"
                )

    def _ticks(self) -> int:
        """Now, in .NET's unit; never the same twice."""
        self._last_ticks = max(self._last_ticks + 1, _TICKS_AT_1970 + self._clock.now() * 10)
        return self._last_ticks

    # Many at once

    async def bulk(self, items: Sequence[object]) -> BulkResult:
        """Do up to 100 items in their order, each by itself; none stops the others. [hub-service 5.5]

        Raises Invalid when the request as a whole cannot be read.
        """
        if len(items) > MAX_BULK:
            raise Invalid("", f"a bulk request has up to {MAX_BULK} items, this one {len(items)}")
        objects = [item for item in items if isinstance(item, Mapping)]
        if len(objects) < len(items):
            raise Invalid("", "an item of the bulk request is not a JSON object")
        errors: Errors = []
        seen: set[str] = set()
        for item in objects:
            try:
                await self._bulk_item(item, seen)
            except MoorageError as error:
                errors.append(bulk_error(item, error))
        return BulkResult(errors)

    async def _bulk_item(self, item: Mapping[str, Any], seen: set[str]) -> None:
        device_id = check_device_id(item.get("id"), "id")
        if item.get("moduleId") is not None:
            raise NotSupported("module identities")
        if device_id in seen:
            raise DefinedTwice("id", f"the request names '{device_id}' more than once")
        seen.add(device_id)
        mode = item_mode(item)
        if_match = item_etag(item, mode)
        if mode.startswith("updateTwin"):
            await self.patch_twin(device_id, item, if_match)
        elif mode.startswith("delete"):
            await self.delete(device_id, if_match)
        elif mode == "create" or (mode.startswith("createOrUpdate") and not await self._exists(device_id)):
            await self.create(read_settings(device_id, item), read_initial_twin("", item))
        else:
            await self.update(read_settings(device_id, item), if_match)

    async def _exists(self, device_id: str) -> bool:
        return await self._records.get(device_id) is not None

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
        """Who is connecting as `device_id`, proven by a SAS token (`password`) or a certificate.

        `chain` is DER, leaf first, the possession of its key proven by the TLS handshake. A token may be for
        any of `audience_hosts`, all names of the hub when left out. `finding` collects the checks made.

        Raises NotFound, Unauthorized, NotSupported, and Disabled once the proof holds. [hub-device 2.2 – 2.5]
        """
        finding = finding or Finding("connect", device_id, scope=self.hub.scope)
        finding.present_chain(chain)
        if module_id is not None:
            raise NotSupported("module identities")
        drops = self.sessions.drops
        identity = await self._identity_of(device_id, finding)
        principal = await self._prove(
            identity, password, chain, audience_hosts or self.hub.host_names, finding
        )
        _check_enabled(identity)
        while drops != self.sessions.drops:
            # Somebody was dropped while this device was judged; if it was this one, it must not slip in.
            drops = self.sessions.drops
            _check_enabled(await self.get(device_id))
        finding.hold("enabled")
        return principal

    async def _identity_of(self, device_id: str, finding: Finding) -> DeviceIdentity:
        identity = await self.get(device_id)
        finding.known = True
        finding.consider(f"device identity {device_id} ({identity.authentication.type})")
        return identity

    async def _prove(
        self,
        identity: DeviceIdentity,
        password: str | None,
        chain: Sequence[bytes],
        hosts: Sequence[str],
        finding: Finding,
    ) -> Principal:
        token = parse_token(password) if password else None
        if token is not None:
            finding.present_token(token)
        check_kind_of_proof(identity.authentication, token)
        finding.hold("kind of proof")
        if token is None:
            if identity.authentication.type == CERTIFICATE_AUTHORITY:
                await authority.check_issued(
                    self._authorities, identity.device_id, chain, self._clock.now(), finding
                )
            else:
                check_certificate(identity.authentication, chain, finding)
            return Principal(identity.device_id, identity.generation_id, "device", "x509")
        policy = await self._policy_of(token, finding)
        resources = [f"{host}/devices/{identity.device_id}" for host in hosts]
        check_token(
            identity.authentication, policy, token, resources, self._clock.now(), self._connect_skew, finding
        )
        scope = "hub" if policy else "device"
        return Principal(identity.device_id, identity.generation_id, scope, "sas", token.expiry * 1_000_000)

    async def _policy_of(self, token: SasToken, finding: Finding) -> SharedAccessPolicy | None:
        if token.key_name is None:
            return None
        policy = await self._policies.get(token.key_name)
        if policy is None:
            raise Unauthorized(
                f"there is no shared access policy named '{token.key_name[:128]}'",
                check="policy known",
                remedy="Sign with the device's own key and leave 'skn' out, or name an existing policy.",
            )
        finding.consider(f"shared access policy {policy.name}")
        return policy


def _check_enabled(identity: DeviceIdentity) -> None:
    if identity.status == DISABLED:
        raise Disabled("device", identity.device_id)


def _check_etag(identity: DeviceIdentity, if_match: str) -> None:
    if if_match not in (ANY_ETAG, identity.etag):
        raise PreconditionFailed("device", identity.device_id)


def _new_etag() -> str:
    """Base64 of a decimal number. [hub-service 5.2]"""
    return base64.b64encode(str(secrets.randbelow(9 * 10**11) + 10**11).encode()).decode()


def _own_scope(identity: DeviceIdentity) -> str | None:
    return identity.device_scope if identity.iot_edge else None


def _device_scope(settings: IdentitySettings, own: str) -> str | None:
    if settings.iot_edge:
        return own
    return settings.parent_scopes[0] if settings.parent_scopes else None
