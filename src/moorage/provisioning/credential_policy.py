"""Credential policies: what certificates a device that asks for one when it registers is given [dps 20.1]."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from moorage.credentials.etag import new_etag
from moorage.errors import Invalid
from moorage.hub.twin import timestamp
from moorage.interfaces import Kind
from moorage.provisioning.reading import Document

NOUN = "credential policy"
MIN_DAYS, MAX_DAYS, DEFAULT_DAYS = 1, 90, 30  # [dps 20.1]

_NAME = re.compile(r"[A-Za-z0-9\-._]{1,64}")


class Usage(StrEnum):
    """What an issued certificate may be used for, besides the signature of the handshake."""

    CLIENT_AUTH = "clientAuth"
    SERVER_AUTH = "serverAuth"


_OIDS = {
    Usage.CLIENT_AUTH: ExtendedKeyUsageOID.CLIENT_AUTH,
    Usage.SERVER_AUTH: ExtendedKeyUsageOID.SERVER_AUTH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialPolicy:
    """`days` is how long a certificate is valid. Times are in microseconds."""

    name: str
    days: int = DEFAULT_DAYS
    usages: tuple[Usage, ...] = (Usage.CLIENT_AUTH,)
    created: int
    updated: int
    etag: str

    def __post_init__(self) -> None:
        check_policy_name("name", self.name)
        if not MIN_DAYS <= self.days <= MAX_DAYS:
            raise Invalid("validityPeriodInDays", f"is {MIN_DAYS} to {MAX_DAYS}, not {self.days}")
        if not self.usages:
            raise Invalid("extendedKeyUsages", f"takes at least one of {', '.join(Usage)}")

    @property
    def life(self) -> timedelta:
        return timedelta(days=self.days)

    @property
    def oids(self) -> list[ObjectIdentifier]:
        return [_OIDS[usage] for usage in self.usages]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "validityPeriodInDays": self.days,
            "extendedKeyUsages": [usage.value for usage in self.usages],
            "createdDateTimeUtc": timestamp(self.created),
            "lastUpdatedDateTimeUtc": timestamp(self.updated),
        }


def check_policy_name(member: str, name: str) -> None:
    """Raises Invalid."""
    if not _NAME.fullmatch(name):
        raise Invalid(member, "must be 1 to 64 letters, digits and - . _")


def read_policy(name: str, document: Document, stored: CredentialPolicy | None, now: int) -> CredentialPolicy:
    """The policy that `document`, the body of a PUT, declares; what is left out has its default. Raises Invalid."""
    return CredentialPolicy(
        name=stored.name if stored else name,
        days=_days(document),
        usages=_usages(document),
        created=stored.created if stored else now,
        updated=now,
        etag=new_etag(),
    )


def _days(document: Document) -> int:
    days = document.get("validityPeriodInDays", DEFAULT_DAYS)
    if not isinstance(days, int) or isinstance(days, bool):
        raise Invalid("validityPeriodInDays", "must be a whole number")
    return days


def _usages(document: Document) -> tuple[Usage, ...]:
    given = document.get("extendedKeyUsages")
    if given is None:
        return (Usage.CLIENT_AUTH,)
    known = {usage.value.lower(): usage for usage in Usage}
    if not isinstance(given, list) or not all(
        isinstance(each, str) and each.lower() in known for each in given
    ):
        raise Invalid("extendedKeyUsages", f"must be a list of {' and '.join(Usage)}")
    return tuple(dict.fromkeys(known[each.lower()] for each in given))


def _to_document(policy: CredentialPolicy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "days": policy.days,
        "usages": [usage.value for usage in policy.usages],
        "created": policy.created,
        "updated": policy.updated,
        "etag": policy.etag,
    }


def _from_document(document: Mapping[str, Any]) -> CredentialPolicy:
    return CredentialPolicy(
        name=document["name"],
        days=document["days"],
        usages=tuple(Usage(each) for each in document["usages"]),
        created=document["created"],
        updated=document["updated"],
        etag=document["etag"],
    )


KIND = Kind[CredentialPolicy](
    name="credential_policy",
    key=lambda policy: policy.name.lower(),
    to_document=_to_document,
    from_document=_from_document,
    index={},
)
"""By name in any case."""
