"""X.509 client certificates: the enrollment holds the device's own certificate, or two.

The other forms of X.509 attestation, by who issued the device's certificate, are in `issuer`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.credentials.decision import Finding
from moorage.credentials.x509 import (
    Certificate,
    explain_missing_name,
    read_certificate,
    thumbprints,
    utc_text,
)
from moorage.errors import Invalid, Unauthorized
from moorage.hub.authentication import Authentication
from moorage.provisioning.attestation.proof import (
    COMMON_NAME,
    MATCHES,
    PRESENTED,
    VALIDITY,
    Attested,
    Claim,
    X509Proof,
)
from moorage.provisioning.reading import Document, required_object


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledCertificate:
    """A certificate as the enrollment keeps it: taken apart once, so that no registration parses it again.

    `der` is base64. Times are in microseconds; thumbprints and serial are hexadecimal in upper case.
    """

    der: str
    common_name: str | None
    subject: str
    issuer: str
    serial: str
    not_before: int
    not_after: int
    sha1: str
    sha256: str
    version: int

    @classmethod
    def of(cls, certificate: Certificate) -> EnrolledCertificate:
        return cls(
            der=base64.b64encode(certificate.der).decode(),
            common_name=certificate.common_name,
            subject=certificate.subject,
            issuer=certificate.issuer,
            serial=certificate.serial,
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            sha1=certificate.sha1,
            sha256=certificate.sha256,
            version=certificate.version,
        )

    def to_json(self) -> dict[str, Any]:
        """All eight members of `info`, and never the certificate itself [dps 11.4]."""
        return {
            "certificate": None,
            "info": {
                "subjectName": self.subject,
                "sha1Thumbprint": self.sha1,
                "sha256Thumbprint": self.sha256,
                "issuerName": self.issuer,
                "notBeforeUtc": utc_text(self.not_before),
                "notAfterUtc": utc_text(self.not_after),
                "serialNumber": self.serial,
                "version": self.version,
            },
        }

    def to_document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class X509Attestation:
    """One or two client certificates, either of which is good for the device."""

    primary: EnrolledCertificate | None
    secondary: EnrolledCertificate | None = None

    type = "x509"
    member = "clientCertificates"

    @property
    def certificates(self) -> tuple[EnrolledCertificate, ...]:
        return tuple(each for each in (self.primary, self.secondary) if each is not None)

    @classmethod
    def read(cls, document: Document, stored: object) -> X509Attestation:
        """From the `x509` member. Certificates that come back as `info` only are those of `stored`."""
        kept = stored.certificates if isinstance(stored, cls) else ()
        return cls(*read_pair(document, cls.member, kept))

    def to_json(self, *, secrets: bool) -> dict[str, Any]:
        """The whole mechanism, without secrets."""
        return x509_json(self.member, pair_json(self.primary, self.secondary))

    def to_document(self) -> dict[str, Any]:
        return {"type": self.type, **pair_document(self.primary, self.secondary)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> X509Attestation:
        return cls(*pair_from(document))

    def attest(self, claim: Claim, finding: Finding) -> Attested:
        """Judge the claim. Raises Unauthorized; each check that held goes into `finding`.

        The leaf is compared by thumbprint and then judged by what was read off its like at enrollment.
        """
        leaf = thumbprints(presented_chain(claim, finding)[0]).sha256
        enrolled = next((known for known in self.certificates if known.sha256 == leaf), None)
        if enrolled is None:
            raise Unauthorized(
                f"the certificate presented ({leaf}) is neither the primary nor the secondary one enrolled",
                check=MATCHES,
                remedy="Enroll this certificate, or connect with the enrolled one: "
                + " or ".join(f"{known.subject} ({known.sha256})" for known in self.certificates),
            )
        finding.hold(MATCHES)
        check_common_name(enrolled.common_name, claim.registration_id, enrolled.subject)
        finding.hold(COMMON_NAME)
        _check_dates(enrolled, claim.now)
        finding.hold(VALIDITY)
        return Attested(leaf, Authentication.self_signed(leaf))  # [dps 15]


def presented_chain(claim: Claim, finding: Finding) -> tuple[bytes, ...]:
    """What TLS brought, DER, leaf first. Raises Unauthorized when there is nothing of the kind."""
    proof = claim.proof
    if not isinstance(proof, X509Proof) or not proof.chain:
        raise Unauthorized(
            f"the enrollment asks for an X.509 client certificate, and the device presented {claim.brought}",
            check=PRESENTED,
            remedy="Connect with the certificate and key that belong to this enrollment.",
        )
    finding.hold(PRESENTED)
    return proof.chain


def check_common_name(name: str | None, registration_id: str, subject: str) -> None:
    """[dps 11.1] The registration decides by it, not the enrollment."""
    if name is None:
        raise Unauthorized(
            f"the certificate has no common name; the registration id is {registration_id[:128]!r}",
            check=COMMON_NAME,
            remedy=f"Issue a certificate with the subject CN={registration_id[:128]}. {explain_missing_name(subject)}",
        )
    if name.lower() != registration_id.lower():
        told = name[:128]
        raise Unauthorized(
            f"the certificate's common name is {told!r}, the registration id {registration_id[:128]!r}",
            check=COMMON_NAME,
            remedy=f"Issue a certificate with the subject CN={registration_id[:128]}, or register as {told!r}.",
        )


def _check_dates(certificate: EnrolledCertificate, now: int) -> None:
    if now < certificate.not_before:
        why = f"the certificate is not valid before {utc_text(certificate.not_before)}"
    elif now > certificate.not_after:
        why = f"the certificate expired at {utc_text(certificate.not_after)}"
    else:
        return
    raise Unauthorized(
        why,
        check=VALIDITY,
        remedy="Issue and enroll a new certificate, and compare the clocks of the two machines.",
    )


def x509_json(member: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The whole mechanism. One member of `x509` alone may be other than null [dps trap 29]."""
    forms = {"clientCertificates": None, "signingCertificates": None, "caReferences": None}
    return {"type": "x509", "tpm": None, "symmetricKey": None, "x509": {**forms, member: value}}


Pair = tuple[EnrolledCertificate | None, EnrolledCertificate | None]


def pair_json(primary: EnrolledCertificate | None, secondary: EnrolledCertificate | None) -> dict[str, Any]:
    named = {"primary": primary, "secondary": secondary}
    return {name: each.to_json() if each else None for name, each in named.items()}


def pair_document(
    primary: EnrolledCertificate | None, secondary: EnrolledCertificate | None
) -> dict[str, Any]:
    named = {"primary": primary, "secondary": secondary}
    return {name: each.to_document() if each else None for name, each in named.items()}


def pair_from(document: Mapping[str, Any]) -> Pair:
    primary, secondary = (
        EnrolledCertificate(**document[name]) if document[name] else None for name in ("primary", "secondary")
    )
    return primary, secondary


def read_pair(document: Document, member: str, kept: tuple[EnrolledCertificate, ...]) -> Pair:
    """The certificates under `member` of `x509`, either of which may be missing; `kept` are the stored ones."""
    pair = required_object(document, member, "attestation.x509.")
    where = f"attestation.x509.{member}"
    primary, secondary = (_read_slot(pair, slot, where, kept) for slot in ("primary", "secondary"))
    if primary is None and secondary is None:
        raise Invalid(f"{where}.primary", "a certificate is required: PEM, or base64 of PEM or DER")
    return primary, secondary


def _read_slot(
    pair: Mapping[str, Any], slot: str, where: str, kept: tuple[EnrolledCertificate, ...]
) -> EnrolledCertificate | None:
    """The certificate in `pair[slot]`; one that comes back as `info` only is one of those `kept`."""
    where = f"{where}.{slot}"
    given = pair.get(slot)
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise Invalid(where, "must be an object with the member 'certificate'")
    text, info = given.get("certificate"), given.get("info")
    if text:
        return _read_certificate(text, f"{where}.certificate")
    if not info:
        return None
    thumbprint = info.get("sha256Thumbprint") if isinstance(info, Mapping) else None
    for known in kept:
        if isinstance(thumbprint, str) and thumbprint.upper() == known.sha256:
            return known
    raise Invalid(where, "'info' alone names no certificate that this enrollment has; give 'certificate' too")


def _read_certificate(text: object, where: str) -> EnrolledCertificate:
    if not isinstance(text, str):
        raise Invalid(where, "must be text: PEM, or base64 of PEM or DER")
    try:
        return EnrolledCertificate.of(read_certificate(text))
    except Invalid as error:
        raise Invalid(where, error.why) from None
