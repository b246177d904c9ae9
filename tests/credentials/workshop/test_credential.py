"""What the workshop issues, and that openssl takes it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from moorage.credentials.keys import KeyType, key_pem, new_key, read_key
from moorage.credentials.workshop.credential import (
    Credential,
    make_device,
    make_intermediate,
    make_proof,
    make_root,
    pem,
    pfx,
)
from moorage.errors import Invalid
from tests.credentials.workshop.conftest import MakeWish, OpenSsl


@pytest.fixture
def chain(wish: MakeWish) -> list[Credential]:
    """Root, intermediate, device."""
    root = make_root(wish("plant-ca"))
    intermediate = make_intermediate(wish("line-4"), root)
    return [root, intermediate, make_device(wish("pump-7"), intermediate)]


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
def test_openssl_verifies_a_device_below_an_intermediate(
    wish: MakeWish, openssl: OpenSsl, tmp_path: Path, key_type: KeyType
) -> None:
    root = make_root(wish("plant-ca", key_type=key_type), path_length=1)
    intermediate = make_intermediate(wish("line-4", key_type=key_type), root, path_length=0)
    device = make_device(wish("pump-7", key_type=key_type), intermediate)
    (tmp_path / "root.pem").write_bytes(pem([root.certificate]))
    (tmp_path / "chain.pem").write_bytes(pem(device.chain))
    said = openssl(
        *("verify", "-x509_strict", "-purpose", "sslclient", "-auth_level", "2"),
        *("-CAfile", "root.pem", "-untrusted", "chain.pem", "chain.pem"),
    )
    assert said == "chain.pem: OK\n"


def test_a_device_of_its_own_is_self_signed(wish: MakeWish) -> None:
    device = make_device(wish("pump-7"))
    assert device.above == ()
    device.certificate.verify_directly_issued_by(device.certificate)
    assert not device.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = device.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(
    ("key_type", "key_class"), [("ec", ec.EllipticCurvePrivateKey), ("rsa", rsa.RSAPrivateKey)]
)
def test_the_key_is_of_the_kind_asked_for(wish: MakeWish, key_type: KeyType, key_class: type) -> None:
    assert isinstance(make_device(wish("pump-7", key_type=key_type)).key, key_class)


def test_days_count_from_now_and_clocks_may_be_behind(wish: MakeWish) -> None:
    asked = wish("pump-7", days=3)
    certificate = make_device(asked).certificate
    assert certificate.not_valid_after_utc == asked.now + timedelta(days=3)
    assert certificate.not_valid_before_utc < asked.now


def test_nothing_outlives_its_issuer(wish: MakeWish) -> None:
    root = make_root(wish("plant-ca", days=10))
    device = make_device(wish("pump-7", days=365), root)
    assert device.certificate.not_valid_after_utc == root.certificate.not_valid_after_utc


@pytest.mark.parametrize("days", [0, -1, 36_501])
def test_days_have_limits(wish: MakeWish, days: int) -> None:
    with pytest.raises(Invalid, match="--days"):
        make_device(wish("pump-7", days=days))


def test_who_may_not_issue_is_told_so(wish: MakeWish, chain: list[Credential]) -> None:
    root, _, device = chain
    with pytest.raises(Invalid, match="not the certificate of a CA"):
        make_device(wish("pump-8"), device)
    later = wish("pump-8")._replace(now=root.certificate.not_valid_after_utc)
    with pytest.raises(Invalid, match="not valid now"):
        make_device(later, root)


def test_a_path_length_counts_the_cas_below(wish: MakeWish) -> None:
    root = make_root(wish("plant-ca"), path_length=1)
    intermediate = make_intermediate(wish("line-4"), root)
    assert make_device(wish("pump-7"), intermediate).above == (intermediate.certificate, root.certificate)
    with pytest.raises(Invalid, match="CN=plant-ca allows 1 CAs below it, not 2"):
        make_intermediate(wish("cell-2"), intermediate)


def test_the_proof_of_possession_has_the_code_for_its_name(
    wish: MakeWish, chain: list[Credential], openssl: OpenSsl, tmp_path: Path
) -> None:
    code = "106A5SD242AF512B3498BD6098C4941E66R34H268DDB3288"
    proof = make_proof(f" {code}\n", chain[0], wish("x").now)
    (tmp_path / "root.pem").write_bytes(pem([chain[0].certificate]))
    (tmp_path / "proof.pem").write_bytes(pem([proof.certificate]))
    assert openssl("verify", "-CAfile", "root.pem", "proof.pem") == "proof.pem: OK\n"
    assert (
        openssl("x509", "-in", "proof.pem", "-noout", "-subject", "-nameopt", "RFC2253")
        == f"subject=CN={code}\n"
    )
    with pytest.raises(Invalid, match="1 to 64"):
        make_proof("", chain[0], wish("x").now)


@pytest.mark.parametrize("pass_phrase", [None, "1234", "pässword"])
def test_a_key_in_pem_opens_with_its_pass_phrase(wish: MakeWish, pass_phrase: str | None) -> None:
    key = new_key("ec")
    content = key_pem(key, pass_phrase)
    assert (b"ENCRYPTED" in content) is (pass_phrase is not None)
    assert read_key(content, pass_phrase).private_numbers() == key.private_numbers()


@pytest.mark.parametrize(
    ("written_with", "read_with", "why"),
    [("1234", None, "it is encrypted"), (None, "1234", "not encrypted"), ("1234", "4321", "no private key")],
)
def test_a_key_does_not_open_otherwise(written_with: str | None, read_with: str | None, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        read_key(key_pem(new_key("ec"), written_with), read_with)


@pytest.mark.parametrize("pass_phrase", [None, "1234"])
def test_openssl_opens_the_pfx(
    chain: list[Credential], openssl: OpenSsl, tmp_path: Path, pass_phrase: str | None
) -> None:
    (tmp_path / "pump-7.pfx").write_bytes(pfx(chain[2], pass_phrase))
    said = openssl("pkcs12", "-in", "pump-7.pfx", "-nodes", "-passin", f"pass:{pass_phrase or ''}")
    subjects = [line.replace(" ", "") for line in said.splitlines() if line.startswith("subject=")]
    assert subjects == ["subject=CN=pump-7", "subject=CN=line-4", "subject=CN=plant-ca"]
    assert said.count("BEGIN PRIVATE KEY") == 1


def test_a_pfx_holds_the_chain_and_is_closed(chain: list[Credential]) -> None:
    content = pfx(chain[2], "1234")
    loaded = pkcs12.load_pkcs12(content, b"1234")
    assert [held.certificate for held in loaded.additional_certs] == list(chain[2].above)
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_pkcs12(content, b"4321")


def test_a_foreign_key_makes_no_credential(chain: list[Credential]) -> None:
    with pytest.raises(Invalid, match="not the key of the certificate"):
        Credential(chain[0].certificate, chain[1].key)
