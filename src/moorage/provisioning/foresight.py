"""What will keep devices from registering with a certificate, told while it is being enrolled.

By the rules that a registration is judged by (`attestation.x509`, `issuers`): those that depend on the certificate
alone, and on the registration id it is enrolled for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm

from moorage.credentials.chain import Flaw, anchor_flaws, is_weak, leaf_flaws, shortened, signed_by, weak_hash
from moorage.credentials.x509 import Certificate, explain_missing_name, utc_text
from moorage.errors import Invalid, Unauthorized
from moorage.provisioning.attestation.x509 import check_common_name
from moorage.provisioning.enrollment import check_registration_id


class Use(StrEnum):
    """What a certificate is enrolled for: to be presented by a device, or to have issued those of many devices."""

    CLIENT = "client"
    SIGNING = "signing"


class Obstacle(NamedTuple):
    """`code` is a word for it, and `values` are what a sentence about it has to name; `why` and `remedy` are such."""

    code: str
    why: str
    remedy: str
    values: Mapping[str, str] = {}


def foresee(
    certificate: Certificate,
    use: Use,
    *,
    registration_id: str | None = None,
    others: Sequence[Certificate] = (),
    now: int,
) -> list[Obstacle]:
    """`others` came in the same file, and are not enrolled. `now` is in microseconds."""
    if use is Use.SIGNING:
        return [_of_flaw(certificate, flaw) for flaw in anchor_flaws(certificate, now)]
    # Its thumbprint is what lets it in: of its extensions nobody asks then.
    return [
        *(_of_flaw(certificate, flaw) for flaw in leaf_flaws(certificate, now) if flaw.by_date),
        *_of_name(certificate, registration_id),
        *_of_tls(certificate),
        *_of_order(certificate, others),
    ]


def _of_flaw(certificate: Certificate, flaw: Flaw) -> Obstacle:
    dates = {"notBefore": utc_text(certificate.not_before), "notAfter": utc_text(certificate.not_after)}
    return Obstacle(flaw.code, flaw.why, flaw.remedy, dates)


def _of_name(certificate: Certificate, registration_id: str | None) -> Iterator[Obstacle]:
    name = certificate.common_name
    if name is None:
        remedy = f"Issue a certificate with the subject CN=. {explain_missing_name(certificate.subject)}"
        yield Obstacle("noCommonName", "it has no common name, which has to be the registration id", remedy)
        return
    values = {"commonName": shortened(name), "registrationId": registration_id or ""}
    try:
        check_common_name(name, registration_id or name, certificate.subject)
    except Unauthorized as error:
        yield Obstacle("otherCommonName", error.why, error.remedy, values)
    try:
        check_registration_id(name)
    except Invalid as error:
        why = f"its common name {shortened(name)!r} cannot be a registration id, which {error.why}"
        yield Obstacle("unfitCommonName", why, "Issue a certificate with another common name.", values)


def _of_tls(certificate: Certificate) -> Iterator[Obstacle]:
    """What the device's own TLS library refuses to present."""
    try:
        if is_weak(certificate.public_key):
            yield Obstacle(
                "shortKey",
                "its key is too short for today's TLS stacks",
                "Make an RSA key of 2048 bits, or P-256.",
            )
        weak = weak_hash(certificate)
    except (ValueError, UnsupportedAlgorithm):
        yield Obstacle("unknownKey", "its key or signature is of an unknown kind", "Make an RSA or EC key.")
        return
    if weak and certificate.subject_key != certificate.issuer_key:
        why = f"it is signed over {weak}, which today's TLS stacks refuse"
        yield Obstacle("weakHash", why, "Issue it again with -sha256.", {"hash": weak})


def _of_order(certificate: Certificate, others: Sequence[Certificate]) -> Iterator[Obstacle]:
    for other in others:
        if other.issuer_key == certificate.subject_key and signed_by(other, certificate):
            subject = shortened(other.subject)
            why = f"it has issued {subject!r}, which comes after it in the file; the first one is enrolled"
            yield Obstacle(
                "issuerFirst", why, "Put the device's own certificate first.", {"subject": subject}
            )
            return
