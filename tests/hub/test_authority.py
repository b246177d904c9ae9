"""Devices of type certificateAuthority: by whom their certificates have to be, and what they have to say."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from moorage.credentials.decision import Finding
from moorage.credentials.issuing import Profile, Validity, moment, sign
from moorage.credentials.sas import make_token, new_key
from moorage.credentials.workshop.credential import (
    Credential,
    Wish,
    issue,
    make_device,
    make_intermediate,
    make_root,
)
from moorage.credentials.workshop.subject import read_subject
from moorage.errors import Unauthorized
from moorage.hub.authentication import Authentication
from moorage.hub.authority import KIND
from moorage.hub.device_identity import IdentitySettings
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.interfaces import Clock, Store


def wish(clock: Clock, name: str, days: int = 30) -> Wish:
    return Wish(read_subject(name), moment(clock.now()), days)


def der(*chain: x509.Certificate) -> list[bytes]:
    return [certificate.public_bytes(Encoding.DER) for certificate in chain]


@pytest.fixture
def root(clock: Clock) -> Credential:
    return make_root(wish(clock, "issuing root", 3650))


@pytest.fixture
def intermediate(clock: Clock, root: Credential) -> Credential:
    return make_intermediate(wish(clock, "issuing intermediate", 365), root)


@pytest.fixture
async def trusting(
    identities: Identities, store: Store, root: Credential, intermediate: Credential
) -> Identities:
    """A hub that trusts the CA, and has a device d1 of that type."""
    await store.apply(await identities.trust("CA", der(intermediate.certificate, root.certificate)))
    await identities.create(
        IdentitySettings(device_id="d1", authentication=Authentication("certificateAuthority"))
    )
    return identities


async def failed_check(identities: Identities, chain: list[bytes], password: str | None = None) -> str:
    finding = Finding("connect", "d1")
    with pytest.raises(Unauthorized) as raised:
        await identities.authenticate("d1", password=password, chain=chain, finding=finding)
    assert raised.value.remedy
    return raised.value.check


@pytest.mark.parametrize("sent", ["leaf", "leaf and intermediate", "whole chain"])
async def test_a_certificate_of_the_ca_lets_the_device_in_whatever_of_the_chain_it_sends(
    trusting: Identities, intermediate: Credential, clock: Clock, sent: str
) -> None:
    device = make_device(wish(clock, "d1"), intermediate)
    length = {"leaf": 1, "leaf and intermediate": 2, "whole chain": 3}[sent]
    principal = await trusting.authenticate("d1", password=None, chain=der(*device.chain[:length]))
    assert (principal.device_id, principal.auth_type) == ("d1", "x509")


async def test_a_renewed_certificate_is_as_good_as_the_one_before(
    trusting: Identities, intermediate: Credential, clock: Clock
) -> None:
    for _ in range(2):
        device = make_device(wish(clock, "d1"), intermediate)
        await trusting.authenticate("d1", password=None, chain=der(*device.chain))


async def test_who_is_not_let_in(
    trusting: Identities, root: Credential, intermediate: Credential, clock: Clock
) -> None:
    stranger = make_root(wish(clock, "issuing root", 3650))
    now = moment(clock.now())
    nameless = wish(clock, "d1")._replace(subject=x509.Name([]))
    cases = {
        "certificate present": [],
        "issuer trusted": der(*make_device(wish(clock, "d1"), stranger).chain),
        "certificate common name": der(*make_device(wish(clock, "d2"), intermediate).chain),
    }
    for check, chain in cases.items():
        assert await failed_check(trusting, chain) == check
    for start, end in ((1, 2), (-20, -10)):
        validity = Validity(now + timedelta(hours=start), now + timedelta(hours=end))
        subject, key = read_subject("d1"), intermediate.key
        leaf = sign(subject, key.public_key(), validity, Profile(), key=key, issuer=intermediate.certificate)
        assert await failed_check(trusting, der(leaf)) == "certificate chain"
    assert await failed_check(trusting, der(*issue(nameless, intermediate, Profile()).chain)) == (
        "certificate common name"
    )
    token = make_token("localhost/devices/d1", new_key(), 2**40)
    assert await failed_check(trusting, [], token) == "kind of proof"


async def test_a_device_s_certificate_issues_nothing(
    trusting: Identities, intermediate: Credential, clock: Clock
) -> None:
    device = make_device(wish(clock, "d2"), intermediate)
    forged = issue(wish(clock, "d1"), device, Profile())
    assert await failed_check(trusting, der(*forged.chain)) == "certificate chain"


async def test_without_a_trusted_ca_nobody_comes_by_one(
    identities: Identities, intermediate: Credential, clock: Clock
) -> None:
    await identities.create(
        IdentitySettings(device_id="d1", authentication=Authentication("certificateAuthority"))
    )
    chain = der(*make_device(wish(clock, "d1"), intermediate).chain)
    assert await failed_check(identities, chain) == "issuer trusted"


async def test_a_ca_is_trusted_once_and_keeps_what_it_had(
    trusting: Identities, store: Store, hub: Hub, root: Credential, intermediate: Credential, clock: Clock
) -> None:
    assert await trusting.trust("ca", der(root.certificate)) == []
    renewed = make_intermediate(wish(clock, "issuing intermediate 2", 365), root)
    await store.apply(await trusting.trust("ca", der(renewed.certificate, root.certificate)))
    (kept,) = (await store.records(KIND, hub.scope).page(limit=10)).records
    assert len(kept.certificates) == 3
    assert KIND.from_document(KIND.to_document(kept)) == kept
    for issuer in (intermediate, renewed):
        device = make_device(wish(clock, "d1"), issuer)
        await trusting.authenticate("d1", password=None, chain=der(device.certificate))
