"""Devices and modules of type certificateAuthority, by a CA certificate that an operator uploaded [hub-device 2.4]."""

from __future__ import annotations

from datetime import timedelta

import pytest

from moorage.credentials.ca_certificates import CaCertificates
from moorage.credentials.decision import Decision, Finding
from moorage.credentials.issuing import Profile, Validity, moment, sign
from moorage.credentials.workshop.credential import Credential, make_device, make_intermediate, make_root
from moorage.credentials.workshop.subject import read_subject
from moorage.errors import Unauthorized
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import IdentitySettings
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.module_identity import ModuleSettings
from moorage.interfaces import Clock, Store
from tests.hub.test_authority import der, wish

BY_CA = Authentication("certificateAuthority")


@pytest.fixture
def root(clock: Clock) -> Credential:
    return make_root(wish(clock, "plant root", 3650))


@pytest.fixture
def intermediate(clock: Clock, root: Credential) -> Credential:
    return make_intermediate(wish(clock, "line 1", 365), root)


@pytest.fixture
def uploads(store: Store, hub: Hub, clock: Clock) -> CaCertificates:
    return CaCertificates(store, hub.scope, clock)


@pytest.fixture
async def registered(identities: Identities, uploads: CaCertificates, root: Credential) -> Identities:
    """A hub with the root verified, and a device d1 and its module m of that type."""
    await identities.create(IdentitySettings(device_id="d1", authentication=BY_CA))
    await identities.modules.create(ModuleSettings(device_id="d1", module_id="m", authentication=BY_CA))
    await uploads.upload("plant", der(root.certificate)[0], is_verified=True, condition=None)
    return identities


async def refused(
    identities: Identities, chain: list[bytes], clock: Clock, module_id: str | None = None
) -> Decision:
    finding = Finding("connect", "d1")
    with pytest.raises(Unauthorized) as raised:
        await identities.authenticate("d1", password=None, chain=chain, module_id=module_id, finding=finding)
    assert raised.value.remedy
    return finding.refused(clock.now(), raised.value)


def checks(decision: Decision) -> list[tuple[str, bool]]:
    return [(check.name, check.held) for check in decision.checks]


async def test_a_chain_to_a_verified_ca_lets_the_device_in(
    registered: Identities, intermediate: Credential, clock: Clock
) -> None:
    device = make_device(wish(clock, "d1"), intermediate)
    finding = Finding("connect", "d1")
    principal = await registered.authenticate(
        "d1", password=None, chain=der(*device.chain[:2]), finding=finding
    )
    assert (principal.auth_type, principal.auth_scope) == ("x509", "device")
    told = finding.accepted(clock.now())
    assert told.considered == ("device identity d1 (certificateAuthority)", "CA certificate plant")
    (chain,) = (check for check in told.checks if check.name == "certificate chain")
    assert chain.detail == "CN=d1 ← CN=line 1 ← CN=plant root"


async def test_an_intermediate_can_be_the_anchor_and_the_device_sends_its_leaf_alone(
    identities: Identities, uploads: CaCertificates, intermediate: Credential, clock: Clock
) -> None:
    await identities.create(IdentitySettings(device_id="d1", authentication=BY_CA))
    await uploads.upload("line", der(intermediate.certificate)[0], is_verified=True, condition=None)
    device = make_device(wish(clock, "d1"), intermediate)
    await identities.authenticate("d1", password=None, chain=der(*device.chain[:1]))


async def test_without_the_intermediate_the_chain_does_not_get_there(
    registered: Identities, intermediate: Credential, clock: Clock
) -> None:
    device = make_device(wish(clock, "d1"), intermediate)
    decision = await refused(registered, der(*device.chain[:1]), clock)
    assert checks(decision)[-1] == ("issuer trusted", False)
    assert "line 1" in decision.remedy


async def test_a_ca_that_is_not_verified_lets_nobody_in(
    registered: Identities, uploads: CaCertificates, root: Credential, clock: Clock
) -> None:
    """Uploading it again starts its verification over, at once."""
    chain = der(*make_device(wish(clock, "d1"), root).chain)
    await registered.authenticate("d1", password=None, chain=chain)
    ca = await uploads.get("plant")
    await uploads.delete("plant", condition=None)
    await uploads.upload("plant", ca.certificate.der, condition=None)
    decision = await refused(registered, chain, clock)
    assert checks(decision)[-1] == ("CA certificate verified", False)
    assert decision.considered[-1] == "CA certificate plant"
    assert "moorage hub certificate" in decision.remedy
    coded = await uploads.generate_verification_code("plant", condition=None)
    proof = make_device(wish(clock, coded.verification_code or ""), root)
    await uploads.verify("plant", der(*proof.chain)[0], condition=None)
    await registered.authenticate("d1", password=None, chain=chain)
    await uploads.delete("plant", condition=None)
    assert checks(await refused(registered, chain, clock))[-1] == ("issuer trusted", False)


async def test_a_module_s_certificate_names_device_and_module(
    registered: Identities, root: Credential, clock: Clock
) -> None:
    chains = {name: der(*make_device(wish(clock, name), root).chain) for name in ("d1/m", "d1", "m", "d1/n")}
    principal = await registered.authenticate("d1", password=None, chain=chains["d1/m"], module_id="m")
    assert (principal.module_id, principal.auth_scope) == ("m", "module")
    for name in ("d1", "m", "d1/n"):
        decision = await refused(registered, chains[name], clock, "m")
        assert checks(decision)[-1] == ("certificate common name", False), name
    assert checks(await refused(registered, chains["d1/m"], clock))[-1] == ("certificate common name", False)


async def test_each_link_is_judged_and_told(
    registered: Identities, root: Credential, intermediate: Credential, clock: Clock
) -> None:
    now = moment(clock.now())
    expired = Validity(now - timedelta(days=20), now - timedelta(days=10))
    leaf = sign(
        read_subject("d1"),
        intermediate.key.public_key(),
        expired,
        Profile(),
        key=intermediate.key,
        issuer=intermediate.certificate,
    )
    decision = await refused(registered, der(leaf, intermediate.certificate), clock)
    links = [check for check in decision.checks if check.name == "certificate chain"]
    assert [check.held for check in links] == [False, True, True]
    assert "expired" in links[0].detail
    assert links[1].detail == "CN=line 1, issued by CN=plant root"
    assert links[2].detail == "CN=plant root, the anchor"
    assert "Renew" in decision.remedy


async def test_one_ca_of_that_name_is_not_another(registered: Identities, clock: Clock) -> None:
    impostor = make_root(wish(clock, "plant root", 3650))
    decision = await refused(registered, der(*make_device(wish(clock, "d1"), impostor).chain), clock)
    assert ("issuer trusted", False) in checks(decision)
    assert any("another key has signed" in check.detail for check in decision.checks)


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"\x30\x03\x02\x01\x01"])
async def test_what_is_no_certificate(registered: Identities, clock: Clock, rubbish: bytes) -> None:
    decision = await refused(registered, [rubbish], clock)
    assert checks(decision)[-1] == ("certificate present", False)


async def test_another_hub_s_ca_opens_nothing(
    registered: Identities, store: Store, root: Credential, clock: Clock, uploads: CaCertificates
) -> None:
    await uploads.delete("plant", condition=None)
    elsewhere = CaCertificates(store, 99, clock)
    await elsewhere.upload("plant", der(root.certificate)[0], is_verified=True, condition=None)
    chain = der(*make_device(wish(clock, "d1"), root).chain)
    assert checks(await refused(registered, chain, clock))[-1] == ("issuer trusted", False)
