"""Certificates on request: the credential policies of a service, its issuing CA, and what that gives a device.

The CA is made when a device first asks for a certificate, and is a record like any other: it comes back after a
restart, and is gone with the data folder. Its keys are in the records, as the keys of devices and policies are.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from moorage.credentials.etag import Condition, expectation, new_etag
from moorage.credentials.issuing import MAX_COMMON_NAME, moment
from moorage.credentials.issuing_ca import IssuingCa
from moorage.credentials.signing_request import SigningRequest, read_request
from moorage.errors import Conflict, Invalid, NotFound, PreconditionFailed, TooLarge, Unavailable
from moorage.interfaces import Clock, Expect, Kind, Records, Store
from moorage.provisioning.credential_policy import (
    KIND,
    NOUN,
    CredentialPolicy,
    check_policy_name,
    read_policy,
)
from moorage.provisioning.reading import Document
from moorage.provisioning.registration import IssuedChain

log = logging.getLogger("moorage.provisioning")

MAX_POLICIES = 100

_ATTEMPTS = 20
_LOST = (Conflict, NotFound, PreconditionFailed)


@dataclass(frozen=True, slots=True)
class CaRecord:
    """The issuing CA of one service. There is one."""

    ca: IssuingCa
    etag: str


def _ca_document(record: CaRecord) -> dict[str, Any]:
    return {**record.ca.to_document(), "etag": record.etag}


def _ca_from(document: Mapping[str, Any]) -> CaRecord:
    return CaRecord(IssuingCa.from_document(dict(document)), document["etag"])


_CA_KEY = "ca"
CA_KIND = Kind[CaRecord](
    name="issuing_ca", key=lambda _: _CA_KEY, to_document=_ca_document, from_document=_ca_from, index={}
)


def request_digest(csr: bytes) -> str:
    """By which a registration is known to answer a signing request."""
    return hashlib.sha256(csr).hexdigest()


class CredentialPolicies:
    """The verbs of operators. What they return is durable."""

    def __init__(self, store: Store, scope: int, clock: Clock) -> None:
        self._records: Records[CredentialPolicy] = store.records(KIND, scope)
        self._clock = clock

    async def put(self, name: str, document: Document, *, condition: Condition | None) -> CredentialPolicy:
        """Create it, or with a `condition` replace it. Raises Invalid, Conflict, PreconditionFailed, TooLarge."""
        check_policy_name("name", name)
        for _ in range(_ATTEMPTS):
            stored = await self._records.get(name.lower())
            if condition is not None:
                condition.check(stored, NOUN, name)
            elif stored is not None:
                raise Conflict(NOUN, stored.name)
            if stored is None and await self._records.count() >= MAX_POLICIES:
                raise TooLarge("name", f"a service has at most {MAX_POLICIES} credential policies")
            policy = read_policy(name, document, stored, self._clock.now())
            try:
                await self._records.put(policy, expect=stored.etag if stored else Expect.ABSENT)
            except _LOST:
                continue
            log.info("credential policy written", extra={"policy": policy.name})
            return policy
        raise Unavailable(f"too many changes to {name!r} at once; try again")

    async def get(self, name: str) -> CredentialPolicy:
        """In any case. Raises NotFound."""
        stored = await self._records.get(name.lower())
        if stored is None:
            raise NotFound(NOUN, name)
        return stored

    async def all(self) -> Sequence[CredentialPolicy]:
        """By name in lower case."""
        return (await self._records.page(limit=MAX_POLICIES)).records

    async def delete(self, name: str, *, condition: Condition | None) -> None:
        """Devices of enrollments that name it are given no certificate from then on; those they have stay good.

        Raises NotFound, PreconditionFailed.
        """
        stored = await self.get(name)
        try:
            await self._records.delete(name.lower(), expect=expectation(stored, condition, NOUN, name))
        except NotFound:
            raise NotFound(NOUN, name) from None
        except PreconditionFailed:
            raise PreconditionFailed(NOUN, name) from None
        log.info("credential policy deleted", extra={"policy": name})


class Issuance:
    """Answers signing requests, under the policy that an enrollment names."""

    def __init__(
        self, store: Store, scope: int, clock: Clock, *, name: str, policies: CredentialPolicies
    ) -> None:
        """`name` begins the names of the CA's certificates."""
        self._records: Records[CaRecord] = store.records(CA_KIND, scope)
        self._clock = clock
        self._name = name
        self._policies = policies

    async def issue(
        self, csr: bytes, *, policy_name: str | None, registration_id: str, device_id: str
    ) -> IssuedChain:
        """The chain for the key in `csr` (DER), in the name that the device has in the hub.

        Base64 of DER, leaf first, root last: the encoding that the newest C client names [dps 20.1].

        Raises Invalid: the request breaks a rule, or the enrollment gives no certificates.
        """
        request, policy = await self.check(csr, policy_name=policy_name, registration_id=registration_id)
        if len(device_id.encode()) > MAX_COMMON_NAME:
            raise Invalid("csr", f"the device's name in the hub is too long for a certificate: {device_id!r}")
        ca = await self._ca()
        now = moment(self._clock.now())
        chain = ca.issue(device_id, request.public_key, life=policy.life, usages=policy.oids, now=now)
        return IssuedChain(request_digest(csr), tuple(base64.b64encode(der).decode() for der in chain))

    async def check(
        self, csr: bytes, *, policy_name: str | None, registration_id: str
    ) -> tuple[SigningRequest, CredentialPolicy]:
        """What is to be certified, and how. Raises Invalid as `issue` does, and for less, as no hub is known yet."""
        request = read_request(csr)
        if request.common_name.lower() != registration_id.lower():
            raise Invalid(
                "csr",
                f"its common name is {request.common_name[:128]!r}, the registration id {registration_id!r}",
            )
        if policy_name is None:
            raise Invalid(
                "csr",
                "the enrollment names no credential policy, so no certificate is issued: set its "
                "credentialPolicyName, or register without a csr",
            )
        try:
            policy = await self._policies.get(policy_name)
        except NotFound:
            raise Invalid(
                "csr", f"the enrollment's credential policy {policy_name!r} does not exist"
            ) from None
        return request, policy

    async def authority(self) -> tuple[str, list[bytes]]:
        """The CA as a hub is to trust it: its name, and its certificates in DER."""
        ca = await self._ca()
        return self._name, [each.public_bytes(Encoding.DER) for each in (ca.intermediate, ca.root)]

    async def _ca(self) -> IssuingCa:
        """The CA as it is to issue now: made, or its intermediate renewed, where that is due."""
        now = moment(self._clock.now())
        for _ in range(_ATTEMPTS):
            kept = await self._records.get(_CA_KEY)
            ca = kept.ca.renewed(self._name, now) if kept else IssuingCa.make(self._name, now)
            if kept and ca is kept.ca:
                return ca
            try:
                await self._records.put(CaRecord(ca, new_etag()), expect=kept.etag if kept else Expect.ABSENT)
            except _LOST:
                continue
            log.info("issuing CA made" if kept is None else "intermediate of the issuing CA renewed")
            return ca
        raise Unavailable("the issuing CA could not be made; try again")
