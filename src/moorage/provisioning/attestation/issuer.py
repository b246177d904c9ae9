"""X.509 by issuer: whose certificate comes from one of these authorities may register.

An enrollment group has the signing certificates itself, or refers to CA certificates of the service by name; an
individual enrollment may do the latter. Which chain leads there is found by `provisioning.issuers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.credentials.ca_certificate import stored_certificate
from moorage.credentials.x509 import Certificate
from moorage.errors import Invalid
from moorage.provisioning.attestation.x509 import (
    EnrolledCertificate,
    X509Attestation,
    pair_document,
    pair_from,
    pair_json,
    read_pair,
    x509_json,
)
from moorage.provisioning.reading import Document, required_object, text


@dataclass(frozen=True, slots=True)
class SigningCertificates:
    """One or two certificates of authorities, a root or an intermediate; who issued by either may register.

    The group itself is what trusts them: whoever may write it may let devices in, so no further proof that the
    writer holds the authority's key is asked for [dps 11.2].
    """

    primary: EnrolledCertificate | None
    secondary: EnrolledCertificate | None = None

    type = "x509"
    member = "signingCertificates"

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        held = (self.primary, self.secondary)
        return tuple(stored_certificate(each.der) for each in held if each is not None)

    @classmethod
    def read(cls, document: Document, stored: object) -> SigningCertificates:
        """From the `x509` member. Certificates that come back as `info` only are those of `stored`."""
        held = (stored.primary, stored.secondary) if isinstance(stored, cls) else ()
        return cls(*read_pair(document, cls.member, tuple(each for each in held if each is not None)))

    def to_json(self, *, secrets: bool) -> dict[str, Any]:
        return x509_json(self.member, pair_json(self.primary, self.secondary))

    def to_document(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "form": self.member,
            **pair_document(self.primary, self.secondary),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> SigningCertificates:
        return cls(*pair_from(document))


@dataclass(frozen=True, slots=True)
class CaReferences:
    """Names of one or two CA certificates of the service, which have to be verified when a device comes.

    They need not be when the enrollment is written: `az iot dps enrollment-group update` is tested that way.
    """

    primary: str | None
    secondary: str | None = None

    type = "x509"
    member = "caReferences"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each for each in (self.primary, self.secondary) if each is not None)

    @classmethod
    def read(cls, document: Document, stored: object) -> CaReferences:
        """From the `x509` member."""
        where = f"attestation.x509.{cls.member}."
        pair = required_object(document, cls.member, "attestation.x509.")
        references = cls(text(pair, "primary", where), text(pair, "secondary", where))
        if not references.names:
            raise Invalid(f"{where}primary", "the name of a CA certificate is required")
        return references

    def to_json(self, *, secrets: bool) -> dict[str, Any]:
        return x509_json(self.member, {"primary": self.primary, "secondary": self.secondary})

    def to_document(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "form": self.member,
            "primary": self.primary,
            "secondary": self.secondary,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> CaReferences:
        return cls(document["primary"], document["secondary"])


X509 = X509Attestation | SigningCertificates | CaReferences
X509Form = type[X509Attestation] | type[SigningCertificates] | type[CaReferences]
_FORMS: tuple[X509Form, ...] = (X509Attestation, SigningCertificates, CaReferences)


class X509Forms:
    """The mechanism named `x509`, of which an enrollment takes one form out of those that its kind may."""

    type = "x509"

    def __init__(self, kind: str, *allowed: X509Form) -> None:
        """`kind` is whose forms these are, in words."""
        self._kind = kind
        self._allowed = allowed

    def read(self, document: Document, stored: object) -> X509:
        """From the `x509` member. Raises Invalid unless exactly one form is given, and of those allowed."""
        given = [form for form in _FORMS if document.get(form.member) is not None]
        allowed = " or ".join(form.member for form in self._allowed)
        for form in given:
            if form not in self._allowed:
                raise Invalid(f"attestation.x509.{form.member}", f"is not for {self._kind}; give {allowed}")
        if len(given) != 1:
            raise Invalid("attestation.x509", f"give {allowed}" + (", not both" if given else ""))
        return given[0].read(document, stored)

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> X509:
        member = document.get("form", X509Attestation.member)
        return next(form for form in _FORMS if form.member == member).from_document(document)


INDIVIDUAL = X509Forms("an individual enrollment", X509Attestation, CaReferences)
GROUP = X509Forms("an enrollment group", SigningCertificates, CaReferences)
