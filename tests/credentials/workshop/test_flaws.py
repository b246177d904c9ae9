"""Each flaw is what it is called, by the judgement of openssl, and nothing else is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from moorage.credentials.keys import KeyType, public_bytes
from moorage.credentials.workshop.credential import pem
from moorage.credentials.workshop.flaws import FLAWS, Broken
from moorage.credentials.workshop.subject import name_of
from tests.credentials.workshop.conftest import MakeWish, OpenSsl

SEEN_BY_OPENSSL = {
    "expired": "certificate has expired",
    "not-yet-valid": "certificate is not yet valid",
    "missing-link": "unable to get local issuer certificate",
    "path-length": "path length constraint exceeded",
    "not-a-ca": "invalid CA certificate",
    "no-cert-sign": "key usage does not include certificate signing",
    "wrong-usage": "unsuitable certificate purpose",
    "wrong-issuer": "certificate signature failure",
    "bad-signature": "certificate signature failure",
    "sha1": "CA signature digest algorithm too weak",
    "weak-key": "EE certificate key too weak",
}
NOT_IN_THE_CHAIN = {"cn-mismatch", "empty-subject", "chain-order", "key-mismatch"}


def make(wish: MakeWish, flaw: str, **settings: KeyType) -> Broken:
    return FLAWS[flaw].make(wish("pump-7", **settings))


def write(folder: Path, broken: Broken) -> None:
    (folder / "root.pem").write_bytes(pem([broken.root]))
    (folder / "leaf.pem").write_bytes(pem([broken.certificate]))
    (folder / "sent.pem").write_bytes(pem(broken.sent))


VERIFY = ("verify", "-purpose", "sslclient", "-CAfile", "root.pem", "-untrusted", "sent.pem")
STRICTLY = (*VERIFY, "-auth_level", "2", "leaf.pem")


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
@pytest.mark.parametrize("flaw", list(SEEN_BY_OPENSSL))
def test_openssl_finds_the_flaw(
    wish: MakeWish, openssl: OpenSsl, tmp_path: Path, flaw: str, key_type: KeyType
) -> None:
    write(tmp_path, make(wish, flaw, key_type=key_type))
    assert SEEN_BY_OPENSSL[flaw] in openssl(*STRICTLY, ok=False)


@pytest.mark.parametrize("flaw", sorted(NOT_IN_THE_CHAIN))
def test_where_the_flaw_is_elsewhere_the_chain_is_good(
    wish: MakeWish, openssl: OpenSsl, tmp_path: Path, flaw: str
) -> None:
    write(tmp_path, make(wish, flaw))
    assert "leaf.pem: OK" in openssl(*STRICTLY)


def test_every_flaw_is_looked_at() -> None:
    assert set(FLAWS) == set(SEEN_BY_OPENSSL) | NOT_IN_THE_CHAIN


@pytest.mark.parametrize("flaw", list(FLAWS))
def test_only_one_flaw_touches_key_or_name(wish: MakeWish, flaw: str) -> None:
    broken = make(wish, flaw)
    own_key = public_bytes(broken.key.public_key())
    certified = public_bytes(broken.certificate.public_key())
    assert (own_key == certified) is (flaw != "key-mismatch")
    expected = {"cn-mismatch": "not-pump-7", "empty-subject": ""}.get(flaw, "pump-7")
    assert name_of(broken.certificate.subject) == expected
    assert (broken.sent[0] == broken.certificate) is (flaw != "chain-order")
    assert broken.certificate in broken.sent


def test_an_impostor_has_the_name_of_the_intermediate_that_was_sent(wish: MakeWish) -> None:
    broken = make(wish, "wrong-issuer")
    assert broken.certificate.issuer == broken.sent[1].subject
    broken.sent[1].verify_directly_issued_by(broken.root)
    with pytest.raises(InvalidSignature):
        broken.certificate.verify_directly_issued_by(broken.sent[1])


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
def test_sha1_is_a_true_signature(
    wish: MakeWish, openssl: OpenSsl, tmp_path: Path, key_type: KeyType
) -> None:
    write(tmp_path, make(wish, "sha1", key_type=key_type))
    assert "leaf.pem: OK" in openssl(*VERIFY, "-auth_level", "0", "leaf.pem")
    assert "sha1" in openssl("x509", "-in", "leaf.pem", "-noout", "-text").lower()


def test_an_empty_subject_is_what_openssl_makes_of_two_slashes(
    wish: MakeWish, openssl: OpenSsl, tmp_path: Path
) -> None:
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"),
        *("-subj", "//CN=pump-7", "-keyout", "key.pem", "-out", "made.pem"),
    )
    made = x509.load_pem_x509_certificate((tmp_path / "made.pem").read_bytes())
    assert made.subject == make(wish, "empty-subject").certificate.subject == x509.Name([])
