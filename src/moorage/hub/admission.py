"""Who may come in: a device or module, judged by what its identity says of its proof. [hub-device 2.2 - 2.5]"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from moorage.credentials import policy as policies
from moorage.credentials.decision import Finding
from moorage.credentials.policy import SharedAccessPolicy
from moorage.credentials.sas import SasToken, parse_token
from moorage.errors import Disabled, NotFound, Unauthorized
from moorage.hub import device_identity, module_identity
from moorage.hub.authentication import (
    CERTIFICATE_AUTHORITY,
    check_certificate,
    check_kind_of_proof,
    check_token,
)
from moorage.hub.authority import Authorities
from moorage.hub.device_identity import DISABLED, DeviceIdentity
from moorage.hub.instance import Hub
from moorage.hub.module_identity import ModuleIdentity
from moorage.hub.session import Principal, Sessions, name_of
from moorage.interfaces import Clock, Store

Identity = DeviceIdentity | ModuleIdentity


class Admission:
    """The judgement of one hub on whoever connects."""

    def __init__(
        self,
        hub: Callable[[], Hub],
        store: Store,
        clock: Clock,
        sessions: Sessions,
        *,
        connect_skew: int,
    ) -> None:
        """`hub` is its record as it is now.

        `connect_skew`: seconds for which an expired token still opens a connection.
        """
        scope = hub().scope
        self._hub = hub
        self._clock = clock
        self._sessions = sessions
        self._connect_skew = connect_skew
        self._devices = store.records(device_identity.KIND, scope)
        self._modules = store.records(module_identity.KIND, scope)
        self._policies = store.records(policies.KIND, scope)
        self._authorities = Authorities(store, scope)

    async def judge(
        self,
        device_id: str,
        module_id: str | None,
        *,
        password: str | None,
        chain: Sequence[bytes],
        hosts: Sequence[str],
        finding: Finding,
    ) -> Principal:
        """Who connects, by a SAS token (`password`) for one of `hosts`, or by a certificate.

        Raises NotFound, Unauthorized, and Disabled once the proof holds.
        """
        finding.present_chain(chain)
        drops = self._sessions.drops
        identity = await self._identity_of(device_id, module_id)
        finding.known = True
        noun = "device" if module_id is None else "module"
        finding.consider(f"{noun} identity {identity.name} ({identity.authentication.type})")
        principal = await self._prove(identity, password, chain, hosts, finding)
        await self._check_enabled(identity)
        while drops != self._sessions.drops:
            # Somebody was dropped while this one was judged; if it was the same, it must not slip in.
            drops = self._sessions.drops
            await self._check_enabled(await self._identity_of(device_id, module_id))
        finding.hold("enabled")
        return principal

    async def _identity_of(self, device_id: str, module_id: str | None) -> Identity:
        if module_id is None:
            return await self._device(device_id)
        module = await self._modules.get(name_of(device_id, module_id))
        if module is None:
            await self._device(device_id)
            raise NotFound("module", name_of(device_id, module_id))
        return module

    async def _device(self, device_id: str) -> DeviceIdentity:
        device = await self._devices.get(device_id)
        if device is None:
            raise NotFound("device", device_id)
        return device

    async def _check_enabled(self, identity: Identity) -> None:
        """A module has no status of its own: it comes in while its device may. [hub-service 5.4]"""
        device = identity
        if not isinstance(device, DeviceIdentity):
            device = await self._device(identity.device_id)
        if device.status == DISABLED:
            raise Disabled("device", device.device_id)

    async def _prove(
        self,
        identity: Identity,
        password: str | None,
        chain: Sequence[bytes],
        hosts: Sequence[str],
        finding: Finding,
    ) -> Principal:
        authentication = identity.authentication
        token = parse_token(password) if password else None
        if token is not None:
            finding.present_token(token)
        check_kind_of_proof(authentication, token)
        finding.hold("kind of proof")
        if token is None:
            if authentication.type == CERTIFICATE_AUTHORITY:
                await self._authorities.check_issued(identity.name, chain, self._clock.now(), finding)
            else:
                check_certificate(authentication, chain, finding)
            return _principal(identity, by_policy=False, auth_type="x509")
        policy = await self._policy_of(token, finding)
        if policy is None:
            self._check_own_keys(identity)
        resources = [f"{host}/devices/{identity.resource}" for host in hosts]
        check_token(authentication, policy, token, resources, self._clock.now(), self._connect_skew, finding)
        return _principal(identity, by_policy=policy is not None, auth_type="sas", token=token)

    def _check_own_keys(self, identity: Identity) -> None:
        """Raises Unauthorized where the hub takes no token that is signed by a key of a device, or of a module."""
        hub, of_device = self._hub(), identity.module_id is None
        if hub.device_sas if of_device else hub.module_sas:
            return
        noun, switch = ("device", "disableDeviceSAS") if of_device else ("module", "disableModuleSAS")
        raise Unauthorized(
            f"the hub takes no SAS token of a {noun}: {switch} is set",
            check="SAS allowed",
            remedy=f"Register a certificate for the {noun}, or let SAS tokens in again: moorage hub update.",
        )

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


def _principal(
    identity: Identity, *, by_policy: bool, auth_type: str, token: SasToken | None = None
) -> Principal:
    module_id = identity.module_id
    own = "device" if module_id is None else "module"
    return Principal(
        identity.device_id,
        identity.generation_id,
        "hub" if by_policy else own,
        auth_type,
        token.expiry * 1_000_000 if token else None,
        module_id,
    )
