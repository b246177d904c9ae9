"""What is foreseen of a certificate is what a registration says when it comes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509

from moorage.portal.texts import read
from moorage.provisioning.foresight import Use, foresee
from tests.support.authorities import CA, NOW, Issued, certify, microseconds, root, usage

NOW_US = microseconds(NOW)
OLD = datetime(2020, 1, 1, tzinfo=UTC)
NOT_CA = x509.BasicConstraints(ca=False, path_length=None)
NAMES = x509.NameConstraints(permitted_subtrees=[x509.DNSName("example.org")], excluded_subtrees=None)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
ROOT = root("plant-ca")


def codes(issued: Issued, use: Use, registration_id: str | None = None) -> list[str]:
    found = foresee(issued.certificate, use, registration_id=registration_id, now=NOW_US)
    return [each.code for each in found]


@pytest.mark.parametrize(
    ("issued", "told"),
    [
        (certify("pump-7", None), []),
        (ROOT.issue("pump-7"), []),
        (root("pump-7"), []),  # as openssl req -x509 makes them, marked CA:TRUE
        (certify("pump-7", None, start=OLD, end=OLD.replace(year=2021)), ["expired"]),
        (certify("pump-7", None, start=OLD.replace(year=2040), end=OLD.replace(year=2041)), ["notYetValid"]),
        (certify("pump-8", None), ["otherCommonName"]),
        (certify("PUMP-7", None), []),
        (certify(x509.Name([]), None), ["noCommonName"]),
        (certify("pump 7", None), ["otherCommonName", "unfitCommonName"]),
        (certify("pump-7", None, algorithm="rsa1024"), ["shortKey"]),
        (certify("pump-7", None, extensions=[(UNKNOWN, True)]), []),
    ],
)
def test_of_a_device(issued: Issued, told: list[str]) -> None:
    assert codes(issued, Use.CLIENT, "pump-7") == told


@pytest.mark.parametrize(
    ("issued", "told"),
    [
        (ROOT, []),
        (ROOT.authority("line-4"), []),
        (certify("device", None, extensions=[(NOT_CA, True)]), ["notCa"]),
        (certify("device", None, extensions=[]), ["notCa"]),
        (root("ca", extensions=[(CA, True), (usage(signs=False), True)]), ["noCertSign"]),
        (root("ca", extensions=[(CA, True), (NAMES, True)]), ["nameConstraints"]),
        (root("ca", extensions=[(CA, True), (UNKNOWN, True)]), ["criticalExtension"]),
        (root("ca", algorithm="rsa1024"), ["shortKey"]),
        (root("ca", start=OLD, end=OLD.replace(year=2021)), ["expired"]),
    ],
)
def test_of_an_authority(issued: Issued, told: list[str]) -> None:
    assert codes(issued, Use.SIGNING) == told


def test_without_a_registration_id_the_common_name_is_taken() -> None:
    assert codes(certify("pump-7", None), Use.CLIENT) == []
    assert codes(certify("pump 7", None), Use.CLIENT) == ["unfitCommonName"]


def test_an_authority_before_its_device() -> None:
    found = foresee(
        ROOT.certificate, Use.CLIENT, others=[ROOT.issue("pump-7", number=1).certificate], now=NOW_US
    )
    assert [each.code for each in found] == ["issuerFirst"]
    assert found[0].values == {"subject": "CN=pump-7"}


def test_the_portal_has_a_sentence_for_each() -> None:
    told = {
        "expired",
        "notYetValid",
        "otherCommonName",
        "noCommonName",
        "unfitCommonName",
        "shortKey",
        "weakHash",
        "unknownKey",
        "issuerFirst",
        "notCa",
        "noCertSign",
        "nameConstraints",
        "pathLength",
        "criticalExtension",
        "unreadableExtensions",
    }
    assert {f"certificate_upload.obstacle_{code.lower()}" for code in told} == {
        key for key in read("en") if key.startswith("certificate_upload.obstacle_")
    }
