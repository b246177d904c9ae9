"""CA certificates of a provisioning service or a hub, and the proof that whoever uploads one holds its key [dps 11.3].

upload → not verified → verification code → a certificate of that common name, signed by the CA → verified
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from moorage.credentials.chain import signed_by
from moorage.credentials.etag import new_etag
from moorage.credentials.x509 import Certificate, utc_text
from moorage.errors import Invalid
from moorage.interfaces import Kind

NOUN = "CA certificate"

_NAME = re.compile(r"[A-Za-z0-9\-._]{1,64}")  # [dps 4]


@dataclass(frozen=True, kw_only=True, slots=True)
class CaCertificate:
    """`name` keeps its spelling; `der` is base64; times are in microseconds.

    What is asked of it often is kept beside the DER. `verification_code` is there from when it is asked for until
    it has been used.
    """

    name: str
    der: str
    subject: str
    subject_key: str
    sha1: str
    not_after: int
    is_verified: bool = False
    verification_code: str | None = None
    created: int
    updated: int
    etag: str

    @classmethod
    def of(
        cls, name: str, certificate: Certificate, *, is_verified: bool, created: int, now: int
    ) -> CaCertificate:
        check_ca_name(name)
        return cls(
            name=name,
            der=base64.b64encode(certificate.der).decode(),
            subject=certificate.subject,
            subject_key=certificate.subject_key,
            sha1=certificate.sha1,
            not_after=certificate.not_after,
            is_verified=is_verified,
            created=created,
            updated=now,
            etag=new_etag(),
        )

    def __str__(self) -> str:
        return f"CA certificate {self.name}"

    @property
    def certificate(self) -> Certificate:
        return stored_certificate(self.der)

    def with_code(self, now: int) -> CaCertificate:
        """With a new verification code; one that is verified stays so."""
        return replace(self, verification_code=secrets.token_hex(24).upper(), updated=now, etag=new_etag())

    def verified_by(self, proof: Certificate, now: int) -> CaCertificate:
        """Verified, if `proof` shows that its maker has the key. Raises Invalid with what is wrong."""
        code = self.verification_code
        if code is None:
            raise Invalid("certificate", "no verification code was asked for; generate one first")
        if (proof.common_name or "").strip().upper() != code:
            raise Invalid(
                "certificate", f"its common name is {proof.common_name!r}, not the verification code {code}"
            )
        if proof.issuer_key != self.subject_key:
            raise Invalid("certificate", f"it is issued by {proof.issuer!r}, not by {self.subject!r}")
        if not signed_by(proof, self.certificate):
            raise Invalid("certificate", f"it is not signed by the key of {self.subject!r}")
        if not proof.not_before <= now <= proof.not_after:
            span = f"{utc_text(proof.not_before)} to {utc_text(proof.not_after)}"
            raise Invalid("certificate", f"it is valid from {span}, and now is {utc_text(now)}")
        return replace(self, is_verified=True, verification_code=None, updated=now, etag=new_etag())


@lru_cache(maxsize=512)
def stored_certificate(der: str) -> Certificate:
    """What a record holds, base64 of DER, parsed once for the many devices that come by it."""
    return Certificate(base64.b64decode(der))


def check_ca_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Invalid("name", "must be 1 to 64 letters, digits and - . _")


def _to_document(ca: CaCertificate) -> dict[str, Any]:
    return {member: getattr(ca, member) for member in ca.__slots__}


def _from_document(document: Mapping[str, Any]) -> CaCertificate:
    return CaCertificate(**document)


KIND = Kind[CaCertificate](
    name="ca_certificate",
    key=lambda ca: ca.name.lower(),
    to_document=_to_document,
    from_document=_from_document,
    index={"subject": lambda ca: [ca.subject_key]},
)
"""Kept under the scope of its service or hub, by name in any case; by `subject`, as issuers are looked for."""
