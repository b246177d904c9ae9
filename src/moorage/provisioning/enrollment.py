"""Individual enrollments and enrollment groups: who may register, by what proof, and what they are then given.

Three forms of one record: the dataclass, the JSON of the service API [dps 16.2], and the stored document. The
first two differ by more than spelling: JSON is read leniently and shown by api-version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moorage.credentials.etag import new_etag
from moorage.errors import Invalid
from moorage.hub.ids import check_id
from moorage.hub.twin import timestamp
from moorage.interfaces import Kind
from moorage.provisioning.attestation.issuer import CaReferences, SigningCertificates
from moorage.provisioning.attestation.mechanism import (
    Attestation,
    attestation_from,
    read_attestation,
    read_group_attestation,
)
from moorage.provisioning.attestation.tpm import TpmAttestation
from moorage.provisioning.attestation.x509 import X509Attestation
from moorage.provisioning.reading import Document, optional_object, required_object, text
from moorage.provisioning.registration import RegistrationState
from moorage.provisioning.service import ApiVersion
from moorage.provisioning.terms import Terms, read_terms

_ID = re.compile(r"[A-Za-z0-9\-._:]{0,127}[A-Za-z0-9\-]")  # [dps 4]


@dataclass(frozen=True, kw_only=True, slots=True)
class IndividualEnrollment:
    """One device that may register. `registration_id` keeps the spelling it was created with.

    Times are in microseconds.
    """

    registration_id: str
    attestation: Attestation
    device_id: str | None = None
    optional_device_information: Mapping[str, Any] | None = None
    terms: Terms = field(default_factory=Terms)
    created: int
    updated: int
    etag: str

    def __post_init__(self) -> None:
        check_registration_id(self.registration_id)
        if self.device_id is not None:
            check_id(self.device_id, "deviceId")

    def __str__(self) -> str:
        return f"individual enrollment {self.registration_id}"

    @property
    def hub_device_id(self) -> str:
        """The device's name in the hub."""
        return self.device_id or self.registration_id

    def to_json(
        self,
        api_version: ApiVersion,
        registration: RegistrationState | None = None,
        *,
        secrets: bool = False,
    ) -> dict[str, Any]:
        """As the service API shows it; `registration` is for a single one, not in queries [dps trap 46]."""
        shown: dict[str, Any] = {"registrationId": self.registration_id, "deviceId": self.device_id}
        if registration is not None:
            shown["registrationState"] = registration.to_json(api_version)
        shown["optionalDeviceInformation"] = self.optional_device_information
        return shown | _shared_json(self, api_version, secrets=secrets)


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrollmentGroup:
    """Many devices that may register, by one key or one issuer. Times are in microseconds."""

    enrollment_group_id: str
    attestation: Attestation
    terms: Terms = field(default_factory=Terms)
    created: int
    updated: int
    etag: str

    def __post_init__(self) -> None:
        _check_id("enrollmentGroupId", self.enrollment_group_id)

    def __str__(self) -> str:
        return f"enrollment group {self.enrollment_group_id}"

    def to_json(self, api_version: ApiVersion, *, secrets: bool = False) -> dict[str, Any]:
        """As the service API shows it."""
        own = {"enrollmentGroupId": self.enrollment_group_id}
        return own | _shared_json(self, api_version, secrets=secrets)


Enrollment = IndividualEnrollment | EnrollmentGroup


def _shared_json(enrollment: Enrollment, api_version: ApiVersion, *, secrets: bool) -> dict[str, Any]:
    return {
        "attestation": enrollment.attestation.to_json(secrets=secrets),
        "etag": f'"{enrollment.etag}"',
        "createdDateTimeUtc": timestamp(enrollment.created),
        "lastUpdatedDateTimeUtc": timestamp(enrollment.updated),
        **enrollment.terms.to_json(api_version),
    }


def check_registration_id(registration_id: str) -> None:
    """[dps 4]"""
    _check_id("registrationId", registration_id)


def _check_id(member: str, value: str) -> None:
    if not _ID.fullmatch(value):
        raise Invalid(
            member, "must be 1 to 128 letters, digits and - . _ : and end in a letter, a digit or a dash"
        )


def read_id(document: Document, member: str) -> str:
    """The id that `document`, the body of a PUT, is about. Raises Invalid."""
    value = text(document, member)
    if value is None:
        raise Invalid(member, "is required")
    _check_id(member, value)
    return value


def read_enrollment(
    document: Document, *, stored: IndividualEnrollment | None, api_version: ApiVersion, now: int
) -> IndividualEnrollment:
    """The enrollment that `document`, the body of a PUT, declares. Unknown and read-only members are ignored.

    `stored` is the record it replaces: its spelling of the id, its creation time, and the secrets and
    certificates that do not come back are kept. Raises Invalid, NotSupported.
    """
    return IndividualEnrollment(
        registration_id=stored.registration_id if stored else read_id(document, "registrationId"),
        attestation=read_attestation(
            required_object(document, "attestation"), stored.attestation if stored else None
        ),
        device_id=text(document, "deviceId"),
        optional_device_information=optional_object(document, "optionalDeviceInformation"),
        terms=read_terms(document, stored=stored.terms if stored else None, api_version=api_version),
        created=stored.created if stored else now,
        updated=now,
        etag=new_etag(),
    )


def read_group(
    document: Document, *, stored: EnrollmentGroup | None, api_version: ApiVersion, now: int
) -> EnrollmentGroup:
    """The group that `document`, the body of a PUT, declares, as `read_enrollment` does."""
    return EnrollmentGroup(
        enrollment_group_id=stored.enrollment_group_id if stored else read_id(document, "enrollmentGroupId"),
        attestation=read_group_attestation(
            required_object(document, "attestation"), stored.attestation if stored else None
        ),
        terms=read_terms(document, stored=stored.terms if stored else None, api_version=api_version),
        created=stored.created if stored else now,
        updated=now,
        etag=new_etag(),
    )


def _to_document(enrollment: IndividualEnrollment) -> dict[str, Any]:
    return {
        "registrationId": enrollment.registration_id,
        "deviceId": enrollment.device_id,
        "optionalDeviceInformation": enrollment.optional_device_information,
        **_shared_document(enrollment),
    }


def _from_document(document: Mapping[str, Any]) -> IndividualEnrollment:
    return IndividualEnrollment(
        registration_id=document["registrationId"],
        attestation=attestation_from(document["attestation"]),
        device_id=document["deviceId"],
        optional_device_information=document["optionalDeviceInformation"],
        terms=Terms.from_document(document),
        created=document["created"],
        updated=document["updated"],
        etag=document["etag"],
    )


def _group_to_document(group: EnrollmentGroup) -> dict[str, Any]:
    return {"enrollmentGroupId": group.enrollment_group_id, **_shared_document(group)}


def _group_from_document(document: Mapping[str, Any]) -> EnrollmentGroup:
    return EnrollmentGroup(
        enrollment_group_id=document["enrollmentGroupId"],
        attestation=attestation_from(document["attestation"]),
        terms=Terms.from_document(document),
        created=document["created"],
        updated=document["updated"],
        etag=document["etag"],
    )


def _shared_document(enrollment: Enrollment) -> dict[str, Any]:
    return {
        "attestation": enrollment.attestation.to_document(),
        "created": enrollment.created,
        "updated": enrollment.updated,
        "etag": enrollment.etag,
        **enrollment.terms.to_document(),
    }


def _signing_subjects(group: EnrollmentGroup) -> list[str]:
    attestation = group.attestation
    if isinstance(attestation, SigningCertificates):
        return [each.subject_key for each in attestation.certificates]
    return []


def _ca_references(group: EnrollmentGroup) -> list[str]:
    attestation = group.attestation
    return [name.lower() for name in attestation.names] if isinstance(attestation, CaReferences) else []


def _thumbprints(enrollment: Enrollment) -> list[str]:
    attestation = enrollment.attestation
    if isinstance(attestation, X509Attestation):
        return [known.sha256 for known in attestation.certificates]
    return []


def _endorsement_key(enrollment: IndividualEnrollment) -> list[str]:
    attestation = enrollment.attestation
    return [attestation.endorsement_key.name_text] if isinstance(attestation, TpmAttestation) else []


KIND = Kind[IndividualEnrollment](
    name="individual_enrollment",
    key=lambda enrollment: enrollment.registration_id.lower(),
    to_document=_to_document,
    from_document=_from_document,
    index={"thumbprint": _thumbprints, "endorsement_key": _endorsement_key},
)
"""By registration id in any case; by `thumbprint`, SHA-256, and by the name of the `endorsement_key`, to tell an
operator whose certificate or TPM came."""

GROUP_KIND = Kind[EnrollmentGroup](
    name="enrollment_group",
    key=lambda group: group.enrollment_group_id.lower(),
    to_document=_group_to_document,
    from_document=_group_from_document,
    index={
        "mechanism": lambda group: [group.attestation.type],
        "signing_subject": _signing_subjects,
        "ca_reference": _ca_references,
    },
    few=True,
)
"""By group id in any case; by `mechanism`, for a SAS token does not say which group it comes under; by the issuers
that it knows, as a chain is followed: the subject of its own certificates, the name of a CA certificate."""
