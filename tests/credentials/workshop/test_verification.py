"""`verify` finds each flaw that the workshop makes, names it, and lets the good ones pass."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from moorage.credentials.workshop.credential import Credential, make_device, make_intermediate, make_root
from moorage.credentials.workshop.flaws import FLAWS
from moorage.credentials.workshop.verification import Report, verify
from moorage.errors import Invalid
from tests.credentials.workshop.conftest import MakeWish

FOUND = {
    "expired": "it expired at",
    "not-yet-valid": "it is not valid before",
    "cn-mismatch": "its common name is 'not-pump-7', not 'pump-7'",
    "empty-subject": "it names nobody",
    "missing-link": "is neither in the chain nor among the trusted",
    "path-length": "its path length is 0",
    "not-a-ca": "it is no CA certificate",
    "no-cert-sign": "lacks keyCertSign",
    "wrong-issuer": "another key has signed",
    "bad-signature": "another key has signed",
    "sha1": "SHA1",
}
NOT_JUDGED = {
    "chain-order",  # the leaf is not the first: the root is judged, and holds
    "key-mismatch",  # the command looks at the key
    "weak-key",  # of a leaf: TLS refuses it before anybody is asked
    "wrong-usage",  # extended key usage is not asked for
}


def ders(*certificates: x509.Certificate) -> list[bytes]:
    return [each.public_bytes(Encoding.DER) for each in certificates]


def microseconds(wish: MakeWish) -> int:
    return int(wish("x").now.timestamp()) * 1_000_000


def text(report: Report) -> str:
    return " ".join([report.gap, *(flaw for link in report.links for flaw in link.flaws)])


@pytest.fixture
def device(wish: MakeWish) -> Credential:
    return make_device(wish("pump-7"), make_intermediate(wish("line-4"), make_root(wish("plant-ca"))))


@pytest.mark.parametrize("flaw", list(FOUND))
def test_each_flaw_is_found_and_named(wish: MakeWish, flaw: str) -> None:
    broken = FLAWS[flaw].make(wish("pump-7"))
    report = verify(ders(*broken.sent), ders(broken.root), microseconds(wish), common_name="pump-7")
    assert not report.holds
    assert FOUND[flaw] in text(report)
    for link in report.links:
        assert len(link.flaws) == len(link.remedies)
        assert all(link.remedies)


@pytest.mark.parametrize("flaw", sorted(NOT_JUDGED))
def test_what_no_service_looks_at_here_holds(wish: MakeWish, flaw: str) -> None:
    broken = FLAWS[flaw].make(wish("pump-7"))
    assert verify(ders(*broken.sent), ders(broken.root), microseconds(wish)).holds


def test_every_flaw_is_accounted_for() -> None:
    assert set(FLAWS) == set(FOUND) | NOT_JUDGED


def test_a_good_chain_holds_with_and_without_its_root(wish: MakeWish, device: Credential) -> None:
    root = device.chain[-1]
    for sent in (device.chain, device.chain[:-1]):
        report = verify(ders(*sent), ders(root), microseconds(wish), common_name="PUMP-7")
        assert report.holds
        assert [link.certificate.subject for link in report.links] == [
            "CN=pump-7",
            "CN=line-4",
            "CN=plant-ca",
        ]
        assert report.notes == ()


def test_without_anything_to_trust_the_root_in_the_chain_is(wish: MakeWish, device: Credential) -> None:
    report = verify(ders(*device.chain), [], microseconds(wish))
    assert report.holds
    assert "Nothing was given to trust" in report.notes[0]
    assert not verify(ders(*device.chain[:-1]), [], microseconds(wish)).holds


def test_a_self_signed_one_is_its_own_anchor(wish: MakeWish, device: Credential) -> None:
    alone = make_device(wish("pump-8"))
    assert verify(ders(alone.certificate), ders(alone.certificate), microseconds(wish)).holds
    assert not verify(ders(alone.certificate), ders(device.chain[-1]), microseconds(wish)).holds


def test_time_is_an_argument(wish: MakeWish, device: Credential) -> None:
    later = microseconds(wish) + 40 * 86_400_000_000
    report = verify(ders(*device.chain), ders(device.chain[-1]), later)
    assert "it expired at" in text(report)


def test_no_certificate_is_an_error(wish: MakeWish) -> None:
    with pytest.raises(Invalid):
        verify([], [], microseconds(wish))
