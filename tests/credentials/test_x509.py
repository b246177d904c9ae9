"""Certificates as devices bring them: made here, and by openssl as its users call it."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from moorage.credentials.x509 import (
    Certificate,
    check_validity,
    read_certificate,
    read_from_collection,
    thumbprints,
    utc_text,
)
from moorage.errors import Invalid, Unauthorized
from tests.support.authorities import root

NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2027, 1, 1, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
SECOND = 1_000_000


def issue(name: x509.Name, serial: int = 0x0A1B2C) -> bytes:
    """A self-signed leaf without any extension, DER."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
    )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


LEAF = issue(named("sample-device-1"))
PEM = Certificate(LEAF).to_pem()


def test_the_facts_of_a_leaf() -> None:
    certificate = Certificate(LEAF)
    assert certificate.common_name == "sample-device-1"
    assert certificate.subject == certificate.issuer == "CN=sample-device-1"
    assert certificate.serial == "0A1B2C"
    assert certificate.version == 3
    assert utc_text(certificate.not_before) == "2026-01-01T00:00:00Z"
    assert utc_text(certificate.not_after) == "2027-01-01T00:00:00Z"
    assert certificate.sha1 == hashlib.sha1(LEAF).hexdigest().upper()
    assert certificate.sha256 == hashlib.sha256(LEAF).hexdigest().upper()
    assert thumbprints(LEAF) == (certificate.sha1, certificate.sha256)
    assert repr(certificate) == f"<Certificate CN=sample-device-1 {certificate.sha256}>"
    assert certificate == Certificate(LEAF)
    assert len({certificate, Certificate(LEAF), Certificate(issue(named("other")))}) == 2


def test_pem_is_written_as_others_write_it() -> None:
    assert PEM.encode() == x509.load_der_x509_certificate(LEAF).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "source",
    [
        PEM,
        PEM.encode(),
        PEM.replace("\n", "\r\n"),
        "\ufeff" + PEM,
        "subject=CN = sample-device-1\n\n" + PEM + "\n \n",
        PEM + Certificate(issue(named("issuer"))).to_pem(),
        PEM.replace("CERTIFICATE", "X509 CERTIFICATE"),
        base64.b64encode(PEM.encode()).decode(),
        "\ufeff" + base64.b64encode(LEAF).decode(),
        base64.encodebytes(PEM.replace("\n", "\r\n").encode()).decode(),
        base64.b64encode(LEAF).decode(),
        base64.encodebytes(LEAF),
        " " + base64.b64encode(LEAF).decode() + "\r\n",
        LEAF,
    ],
)
def test_each_form_a_client_sends_is_read(source: str | bytes) -> None:
    assert read_certificate(source).der == LEAF


@pytest.mark.parametrize(
    "source",
    [
        "",
        b"",
        "certificate",
        "AAAA",
        b"\x30\x82\x00\x00",
        LEAF[:-1],
        LEAF + b"\x00",
        base64.b64encode(b"nothing").decode(),
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nAAAA",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        "\ud800",
    ],
)
def test_what_is_no_certificate_is_invalid(source: str | bytes) -> None:
    with pytest.raises(Invalid) as fault:
        read_certificate(source)
    assert fault.value.field == "certificate"


CHAIN = [root("root"), root("root").authority("plant", number=1)]
PKCS7 = pkcs7.serialize_certificates([each.certificate.parsed for each in CHAIN], Encoding.DER)
PKCS7_PEM = pkcs7.serialize_certificates([each.certificate.parsed for each in CHAIN], Encoding.PEM)


@pytest.mark.parametrize(
    "source",
    [
        PKCS7,
        PKCS7_PEM,
        PKCS7_PEM.replace(b"PKCS7", b"CMS"),
        base64.b64encode(PKCS7),
        base64.encodebytes(PKCS7_PEM).decode(),
        CHAIN[1].der,
        CHAIN[1].pem,
        base64.b64encode(CHAIN[1].pem.encode()).decode(),
    ],
    ids=["der", "pem", "cms", "base64", "base64 of pem", "one, der", "one, pem", "one, base64"],
)
def test_of_a_collection_the_one_below_the_others_is_read(source: str | bytes) -> None:
    assert read_from_collection(source) == CHAIN[1].certificate


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (
            pkcs7.serialize_certificates([root(each).certificate.parsed for each in "ab"], Encoding.PEM),
            "holds 2 certificates",
        ),
        (PKCS7[:60], "cannot be parsed"),
        ("-----BEGIN PKCS7-----\n!!!\n-----END PKCS7-----", "neither PEM nor DER"),
        (b"", "cannot be parsed"),
    ],
    ids=["two roots", "cut", "no base64", "empty"],
)
def test_a_collection_that_names_no_certificate_is_invalid(source: str | bytes, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        read_from_collection(source)


def test_an_issuer_that_is_no_text_is_found_out_at_once() -> None:
    at = LEAF.index(b"sample-device-1")
    with pytest.raises(Invalid):
        read_certificate(LEAF[:at] + b"\xff" + LEAF[at + 1 :])


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(at=st.integers(0, len(LEAF) - 1), byte=st.integers(0, 255))
def test_a_damaged_certificate_is_read_or_invalid(at: int, byte: int) -> None:
    damaged = LEAF[:at] + bytes([byte]) + LEAF[at + 1 :]
    try:
        certificate = read_certificate(damaged)
    except Invalid:
        return
    assert certificate.der == damaged
    assert certificate.subject is not None
    assert certificate.issuer is not None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_invalid(content: bytes) -> None:
    with pytest.raises(Invalid):
        read_certificate(content)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([], ""),
        ([(NameOID.COMMON_NAME, "d1")], "CN=d1"),
        (
            [
                (NameOID.COUNTRY_NAME, "US"),
                (NameOID.STATE_OR_PROVINCE_NAME, "WA"),
                (NameOID.COMMON_NAME, "d1"),
            ],
            "CN=d1, S=WA, C=US",
        ),
        (
            [(NameOID.ORGANIZATION_NAME, "Contoso, Inc."), (NameOID.COMMON_NAME, "d1")],
            'CN=d1, O="Contoso, Inc."',
        ),
        ([(NameOID.COMMON_NAME, 'a "b"')], 'CN="a ""b"""'),
        ([(NameOID.COMMON_NAME, " d1")], 'CN=" d1"'),
        ([(NameOID.EMAIL_ADDRESS, "a@b.c"), (NameOID.DOMAIN_COMPONENT, "net")], "DC=net, E=a@b.c"),
        ([(NameOID.PSEUDONYM, "x")], "OID.2.5.4.65=x"),
    ],
)
def test_names_are_written_as_dot_net_does(parts: list[tuple[x509.ObjectIdentifier, str]], text: str) -> None:
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])
    assert Certificate(issue(name)).subject == text


def test_a_name_of_several_values_at_one_place() -> None:
    pair = [x509.NameAttribute(NameOID.COMMON_NAME, "d1"), x509.NameAttribute(NameOID.SERIAL_NUMBER, "7")]
    name = x509.Name([x509.RelativeDistinguishedName(pair)])
    assert Certificate(issue(name)).subject == "SERIALNUMBER=7 + CN=d1"  # in the order of DER


def test_the_most_specific_common_name_counts() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, part) for part in ("users", "d1")])
    assert Certificate(issue(name)).common_name == "d1"
    assert Certificate(issue(x509.Name([]))).common_name is None


def test_validity_includes_both_ends() -> None:
    certificate = Certificate(LEAF)
    check_validity(certificate, certificate.not_before)
    check_validity(certificate, certificate.not_after)
    with pytest.raises(Unauthorized, match="not valid before 2026-01-01T00:00:00Z"):
        check_validity(certificate, certificate.not_before - SECOND)
    with pytest.raises(Unauthorized, match="expired at 2027-01-01T00:00:00Z") as refusal:
        check_validity(certificate, certificate.not_after + SECOND)
    assert refusal.value.check == "certificate validity"


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parent / "openssl").glob("*.crt")), ids=lambda file: str(file.stem)
)
def test_what_openssl_makes_is_read(file: Path) -> None:
    """`openssl req -x509` as people call it: no key usage, CA:FALSE, an authority key id of names, …"""
    text = file.read_text()
    certificate = read_certificate(text)
    assert (certificate.common_name, certificate.subject) == ("pump-7", "CN=pump-7")
    assert certificate.version == (1 if "version_1" in file.stem else 3)
    assert certificate.to_pem() == text
    assert certificate.not_after - certificate.not_before == timedelta(days=365) // timedelta(microseconds=1)
