"""What a file holds, whoever wrote it and in whichever form; and that no secret comes out."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
)
from hypothesis import given
from hypothesis import strategies as st

from moorage.credentials.workshop.credential import (
    Credential,
    make_device,
    make_intermediate,
    make_root,
    pem,
    pfx,
)
from moorage.credentials.workshop.flaws import FLAWS
from moorage.credentials.workshop.inspection import MAX_SIZE, inspect
from moorage.credentials.workshop.request import make_request, registration_text
from moorage.credentials.workshop.subject import read_subject
from moorage.credentials.x509 import thumbprints
from moorage.errors import Invalid
from tests.credentials.workshop.conftest import MakeWish, OpenSsl

PASS_PHRASE = "a pass phrase of ours"


@pytest.fixture
def device(wish: MakeWish) -> Credential:
    root = make_root(wish("plant-ca"), path_length=1)
    return make_device(wish("/CN=pump-7/O=Contoso"), make_intermediate(wish("line-4"), root))


def look(content: bytes, wish: MakeWish, pass_phrase: str | None = None) -> list[dict[str, Any]]:
    return inspect(content, wish("x").now, pass_phrase)


def test_the_facts_of_a_certificate(wish: MakeWish, device: Credential) -> None:
    der = device.certificate.public_bytes(Encoding.DER)
    (found,) = look(der, wish)
    assert found["kind"] == "certificate"
    assert (found["subject"], found["issuer"]) == ("O=Contoso, CN=pump-7", "CN=line-4")
    assert (found["sha1Thumbprint"], found["sha256Thumbprint"]) == thumbprints(der)
    assert (found["key"], found["signatureHash"]) == ("EC secp256r1", "sha256")
    assert (found["ca"], found["selfSigned"]) == (False, False)
    assert (found["keyUsage"], found["extendedKeyUsage"]) == (["digitalSignature"], ["clientAuth"])
    assert found["remarks"] == []


def test_the_facts_of_a_ca(wish: MakeWish, device: Credential) -> None:
    *_, root = look(pem(device.chain), wish)
    assert (root["ca"], root["pathLength"], root["selfSigned"]) == (True, 1, True)
    assert "keyCertSign" in root["keyUsage"]


@pytest.mark.parametrize(
    "form", ["pem", "crlf", "text around", "base64 of pem", "der", "base64 of der", "bom"]
)
def test_a_certificate_in_every_form(wish: MakeWish, device: Credential, form: str) -> None:
    text, der = pem([device.certificate]), device.certificate.public_bytes(Encoding.DER)
    content = {
        "pem": text,
        "crlf": text.replace(b"\n", b"\r\n"),
        "text around": b"Certificate:\n    Data: \xc3\xbc\n" + text + b"the end\n",
        "base64 of pem": base64.b64encode(text),
        "der": der,
        "base64 of der": base64.encodebytes(der),
        "bom": b"\xef\xbb\xbf" + text,
    }[form]
    (found,) = look(content, wish)
    assert found["sha256Thumbprint"] == thumbprints(der).sha256


@pytest.mark.parametrize(("form", "encoding"), [("PEM", Encoding.PEM), ("DER", Encoding.DER)])
def test_pkcs7_by_openssl_and_by_us(
    wish: MakeWish, device: Credential, openssl: OpenSsl, tmp_path: Path, form: str, encoding: Encoding
) -> None:
    (tmp_path / "chain.pem").write_bytes(pem(device.chain))
    openssl("crl2pkcs7", "-nocrl", "-certfile", "chain.pem", "-outform", form, "-out", "chain.p7b")
    ours = pkcs7.serialize_certificates(list(device.chain), encoding)
    for content in ((tmp_path / "chain.p7b").read_bytes(), ours):
        found = look(content, wish)
        assert {each["subject"] for each in found} == {"O=Contoso, CN=pump-7", "CN=line-4", "CN=plant-ca"}
        assert {each["within"] for each in found} == {"PKCS#7"}


@pytest.mark.parametrize("pass_phrase", [None, PASS_PHRASE])
def test_a_pfx(wish: MakeWish, device: Credential, pass_phrase: str | None) -> None:
    found = look(pfx(device, pass_phrase), wish, pass_phrase)
    assert [each["kind"] for each in found] == ["private key", *["certificate"] * 3]
    assert found[0]["belongsTo"] == ["O=Contoso, CN=pump-7"]


def test_a_pfx_without_its_pass_phrase(wish: MakeWish, device: Credential) -> None:
    closed = pfx(device, PASS_PHRASE)
    with pytest.raises(Invalid, match="give its pass phrase"):
        look(closed, wish)
    with pytest.raises(Invalid, match="does not open"):
        look(closed, wish, "another")


@pytest.mark.parametrize(
    ("encoding", "form"),
    [
        (Encoding.PEM, PrivateFormat.PKCS8),
        (Encoding.DER, PrivateFormat.PKCS8),
        (Encoding.PEM, PrivateFormat.TraditionalOpenSSL),
    ],
)
@pytest.mark.parametrize("encrypted", [True, False])
def test_a_private_key_shows_its_public_half_alone(
    wish: MakeWish, device: Credential, encoding: Encoding, form: PrivateFormat, encrypted: bool
) -> None:
    protection = BestAvailableEncryption(PASS_PHRASE.encode()) if encrypted else NoEncryption()
    content = device.key.private_bytes(encoding, form, protection)
    (found,) = look(content, wish, PASS_PHRASE if encrypted else None)
    (certificate,) = look(pem([device.certificate]), wish)
    assert (found["kind"], found["encrypted"]) == ("private key", encrypted)
    assert found["publicKeySha256"] == certificate["publicKeySha256"]


def test_an_encrypted_key_is_told_without_its_pass_phrase(wish: MakeWish, device: Credential) -> None:
    protection = BestAvailableEncryption(PASS_PHRASE.encode())
    for encoding in (Encoding.PEM, Encoding.DER):
        (found,) = look(device.key.private_bytes(encoding, PrivateFormat.PKCS8, protection), wish)
        assert (found["kind"], found["encrypted"]) == ("private key", True)
        assert "publicKeySha256" not in found


def test_a_wrong_pass_phrase_is_an_error(wish: MakeWish, device: Credential) -> None:
    protection = BestAvailableEncryption(PASS_PHRASE.encode())
    with pytest.raises(Invalid, match="cannot be read"):
        look(device.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection), wish, "another")


def test_no_secret_comes_out(wish: MakeWish, device: Credential) -> None:
    shown = json.dumps(look(pfx(device, PASS_PHRASE), wish, PASS_PHRASE))
    secret = device.key.private_numbers()
    value = secret.private_value if hasattr(secret, "private_value") else secret.d
    assert PASS_PHRASE not in shown
    assert str(value) not in shown
    assert f"{value:x}" not in shown.lower()


def test_a_key_beside_a_foreign_certificate(wish: MakeWish) -> None:
    broken = FLAWS["key-mismatch"].make(wish("pump-7"))
    key = broken.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    *_, found = look(pem([broken.certificate]) + key, wish)
    assert found["remarks"] == ["It belongs to none of the certificates here."]


@pytest.mark.parametrize("form", ["pem", "registration text"])
def test_a_signing_request(wish: MakeWish, form: str) -> None:
    request, _ = make_request(read_subject("pump-7"))
    content = {
        "pem": request.public_bytes(Encoding.PEM),
        "registration text": registration_text(request).encode(),
    }
    (found,) = look(content[form], wish)
    assert (found["kind"], found["subject"], found["remarks"]) == ("certificate request", "CN=pump-7", [])


def test_a_public_key(wish: MakeWish, device: Credential) -> None:
    for encoding in (Encoding.PEM, Encoding.DER):
        (found,) = look(
            device.key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo), wish
        )
        assert (found["kind"], found["key"]) == ("public key", "EC secp256r1")


@pytest.mark.parametrize(
    ("flaw", "remark"),
    [
        ("expired", "expired"),
        ("not-yet-valid", "not valid yet"),
        ("sha1", "signed with sha1"),
        ("weak-key", "1024 bits"),
        ("empty-subject", "//CN=name"),
    ],
)
def test_what_a_person_should_know(wish: MakeWish, flaw: str, remark: str) -> None:
    (found,) = look(pem([FLAWS[flaw].make(wish("pump-7")).certificate]), wish)
    assert any(remark in each for each in found["remarks"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing",
        b"\x30\x03\x02\x01\x03",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PKCS7-----\n\n-----END PKCS7-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_holds_nothing_is_refused(wish: MakeWish, content: bytes) -> None:
    with pytest.raises(Invalid):
        look(content, wish)


def test_a_file_that_is_too_large(wish: MakeWish) -> None:
    with pytest.raises(Invalid, match="more than"):
        look(b" " * (MAX_SIZE + 1), wish)


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_something_or_refused(content: bytes) -> None:
    try:
        assert all("remarks" in each for each in inspect(content, datetime(2026, 1, 1, tzinfo=UTC)))
    except Invalid:
        pass
