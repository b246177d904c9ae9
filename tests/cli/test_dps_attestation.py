"""The `x509` member as the options of `moorage dps enrollment` and `enrollment-group` make it."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moorage.cli.dps.settings import changed_attestation, x509
from moorage.credentials.workshop.credential import Wish
from moorage.credentials.workshop.credential import pem as pem_of
from moorage.credentials.workshop.flaws import FLAWS
from moorage.credentials.workshop.subject import read_subject
from moorage.errors import Invalid
from tests.support.authorities import root

ONE, TWO = root("one"), root("two", number=1)
INFO = {"certificate": None, "info": {"subjectName": "CN=held"}}


NAMES = ("certificate_path", "secondary_certificate_path", "ca_name", "secondary_ca_name")


def given(**options: Any) -> dict[str, Any]:
    files = {
        name: io.BytesIO(value.pem.encode()) if name.endswith("path") else value
        for name, value in options.items()
    }
    return {**dict.fromkeys(NAMES), **files}


def pem(issued: Any) -> dict[str, str]:
    return {"certificate": issued.pem}


@pytest.mark.parametrize(
    ("options", "member"),
    [
        ({}, None),
        ({"certificate_path": ONE}, {"signingCertificates": {"primary": pem(ONE)}}),
        ({"secondary_certificate_path": TWO}, {"signingCertificates": {"secondary": pem(TWO)}}),
        ({"ca_name": "a", "secondary_ca_name": "b"}, {"caReferences": {"primary": "a", "secondary": "b"}}),
    ],
    ids=["nothing", "a certificate", "a second one", "names"],
)
def test_what_is_given_is_taken(options: dict[str, Any], member: object) -> None:
    assert x509(given(**options), "signingCertificates") == member


def test_files_and_names_exclude_each_other() -> None:
    with pytest.raises(Invalid, match="not both"):
        x509(given(certificate_path=ONE, ca_name="a"), "signingCertificates")


@pytest.mark.parametrize(
    ("held", "options", "member"),
    [
        (
            {"signingCertificates": {"primary": INFO, "secondary": None}, "caReferences": None},
            {"secondary_certificate_path": TWO},
            {"signingCertificates": {"primary": INFO, "secondary": pem(TWO)}},
        ),
        (
            {"signingCertificates": {"primary": INFO, "secondary": INFO}},
            {"remove_certificate": True},
            {"signingCertificates": {"primary": None, "secondary": INFO}},
        ),
        (
            {"signingCertificates": {"primary": None, "secondary": INFO}},
            {"remove_secondary_certificate": True, "secondary_certificate_path": TWO},
            {"signingCertificates": {"primary": None, "secondary": pem(TWO)}},
        ),
        (
            {"signingCertificates": {"primary": INFO, "secondary": INFO}},
            {"ca_name": "a"},
            {"caReferences": {"primary": "a"}},
        ),
        (
            {"signingCertificates": None, "caReferences": {"primary": "a", "secondary": None}},
            {"secondary_ca_name": "b"},
            {"caReferences": {"primary": "a", "secondary": "b"}},
        ),
        (
            {"caReferences": {"primary": "a", "secondary": "b"}},
            {"certificate_path": ONE},
            {"signingCertificates": {"primary": pem(ONE)}},
        ),
        (
            {"caReferences": {"primary": "a", "secondary": None}},
            {},
            {"caReferences": {"primary": "a", "secondary": None}},
        ),
    ],
    ids=["added", "removed", "replaced", "to names", "name added", "to a certificate", "left alone"],
)
def test_what_is_not_named_stays(held: dict[str, Any], options: dict[str, Any], member: object) -> None:
    changed = changed_attestation({"type": "x509", "x509": held}, given(**options), "signingCertificates")
    assert changed == {"type": "x509", "x509": member}


def test_a_device_s_certificate_without_a_name_is_refused_with_the_likely_mistake(tmp_path: Path) -> None:
    certificate = tmp_path / "nameless.pem"
    certificate.write_bytes(pem_of([FLAWS["empty-subject"].make(wish()).certificate]))
    with certificate.open("rb") as file, pytest.raises(Invalid, match="//CN=name") as raised:
        x509(dict.fromkeys(NAMES) | {"certificate_path": file}, "clientCertificates")
    assert raised.value.field == str(certificate)


def wish() -> Wish:
    return Wish(read_subject("pump-7"), datetime(2026, 6, 1, tzinfo=UTC), 30)
