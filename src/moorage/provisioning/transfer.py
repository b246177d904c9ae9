"""Individual enrollments as they leave one service and enter another: whole, secrets and certificates included.

The service API shows neither a certificate nor, but once, a key; so what it shows cannot be taken elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moorage.errors import Invalid, MoorageError, Unavailable
from moorage.interfaces import Change, Store
from moorage.provisioning.attestation.mechanism import Attestation
from moorage.provisioning.attestation.x509 import X509Attestation
from moorage.provisioning.enrollment import IndividualEnrollment, read_id
from moorage.provisioning.enrollments import ATTEMPTS, LOST, BulkFailure, Enrollments
from moorage.provisioning.service import ApiVersion

MAX_ROWS = 1000  # of one import, which is one commit
_READ_ONLY = ("etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc")


def declared(enrollment: IndividualEnrollment, api_version: ApiVersion) -> dict[str, Any]:
    """As a PUT would declare it anew; what is null there is left out."""
    shown = enrollment.to_json(api_version)
    attestation = {name: value for name, value in _whole(enrollment.attestation).items() if value is not None}
    members = {**shown, "attestation": attestation}
    if custom := enrollment.terms.allocation.custom:
        members["customAllocationDefinition"] = custom.to_document()  # with the key in its query
    return {name: value for name, value in members.items() if value is not None and name not in _READ_ONLY}


def _whole(attestation: Attestation) -> dict[str, Any]:
    shown = attestation.to_json(secrets=True)
    if isinstance(attestation, X509Attestation):
        slots = zip(("primary", "secondary"), attestation.certificates, strict=False)
        shown["x509"] = {"clientCertificates": {slot: {"certificate": known.der} for slot, known in slots}}
    return shown


class Transfer:
    """Taking in many enrollments at once."""

    def __init__(self, enrollments: Enrollments[IndividualEnrollment], store: Store) -> None:
        self._enrollments = enrollments
        self._store = store

    async def take_in(self, documents: object, api_version: ApiVersion) -> list[BulkFailure]:
        """Create or replace up to 1000, those that can be in one commit; the others, and why. Raises Invalid."""
        if not isinstance(documents, list) or not all(isinstance(each, Mapping) for each in documents):
            raise Invalid("", "the body must be a list of enrollments")
        if len(documents) > MAX_ROWS:
            raise Invalid("", f"at most {MAX_ROWS} enrollments at once, not {len(documents)}")
        for _ in range(ATTEMPTS):
            changes, failures = await self._changes(documents, api_version)
            try:
                await self._store.apply(changes)
            except LOST:
                continue
            return failures
        raise Unavailable("too many changes to these enrollments at once; try again")

    async def _changes(
        self, documents: Sequence[Mapping[str, Any]], api_version: ApiVersion
    ) -> tuple[list[Change], list[BulkFailure]]:
        changes: dict[str, Change] = {}
        failures: list[BulkFailure] = []
        for document in documents:
            try:
                name = read_id(document, self._enrollments.id_member)
                if name.lower() in changes:
                    raise Invalid("registrationId", "stands in this request twice")
                changes[name.lower()] = await self._enrollments.change(document, api_version)
            except MoorageError as error:
                failures.append(BulkFailure(str(document.get(self._enrollments.id_member) or ""), error))
        return list(changes.values()), failures
