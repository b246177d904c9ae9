"""The verbs of operators on the CA certificates of a provisioning service or a hub [dps 18, hub-service 22].

What they return is durable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from moorage.credentials.ca_certificate import KIND, NOUN, CaCertificate, check_ca_name
from moorage.credentials.etag import Condition, expectation
from moorage.credentials.x509 import read_from_collection
from moorage.errors import Conflict, Invalid, NotFound, PreconditionFailed, TooLarge, Unavailable
from moorage.interfaces import Clock, Expect, Records, Store

log = logging.getLogger("moorage.credentials")

MAX_CA_CERTIFICATES = 25  # of one service, and of one hub [dps 11.3]

_ATTEMPTS = 20
_LOST = (Conflict, NotFound, PreconditionFailed)


class CaCertificates:
    def __init__(self, store: Store, scope: int, clock: Clock) -> None:
        self._records: Records[CaCertificate] = store.records(KIND, scope)
        self._clock = clock

    async def upload(
        self, name: str, source: str | bytes, *, is_verified: bool = False, condition: Condition | None
    ) -> CaCertificate:
        """Add a CA certificate, or with a `condition` replace one; its verification starts over then.

        `source` is PEM, DER, PKCS#7, or the base64 of these. Raises Invalid, Conflict, PreconditionFailed, TooLarge.
        """
        check_ca_name(name)
        certificate = read_from_collection(source)
        for _ in range(_ATTEMPTS):
            stored = await self._records.get(name.lower())
            if condition is not None and not (condition.any and stored is None):
                condition.check(stored, NOUN, name)
            elif stored is not None:
                raise Conflict(NOUN, name)
            elif await self._records.count() >= MAX_CA_CERTIFICATES:
                raise TooLarge("name", f"there are at most {MAX_CA_CERTIFICATES} CA certificates")
            now = self._clock.now()
            uploaded = CaCertificate.of(
                stored.name if stored else name,
                certificate,
                is_verified=is_verified,
                created=stored.created if stored else now,
                now=now,
            )
            try:
                await self._records.put(uploaded, expect=stored.etag if stored else Expect.ABSENT)
            except _LOST:
                continue
            log.info("CA certificate uploaded", extra={"ca_name": name, "verified": is_verified})
            return uploaded
        raise _too_busy(name)

    async def get(self, name: str) -> CaCertificate:
        """In any case. Raises NotFound."""
        stored = await self._records.get(name.lower())
        if stored is None:
            raise NotFound(NOUN, name)
        return stored

    async def all(self) -> Sequence[CaCertificate]:
        """By name in lower case."""
        return (await self._records.page(limit=MAX_CA_CERTIFICATES)).records

    async def check_known(self, names: Sequence[str]) -> None:
        """Raises Invalid when an enrollment refers to one that is not there [dps 16.6]."""
        for name in names:
            if await self._records.get(name.lower()) is None:
                held = ", ".join(each.name for each in await self.all()) or "none"
                raise Invalid(
                    "attestation.x509.caReferences",
                    f"{name!r} is no CA certificate of the service; it has {held}",
                )

    async def delete(self, name: str, *, condition: Condition | None) -> None:
        """Who counts on it lets no further device in. Raises NotFound, PreconditionFailed."""
        stored = await self.get(name)
        try:
            await self._records.delete(name.lower(), expect=expectation(stored, condition, NOUN, name))
        except NotFound:
            raise NotFound(NOUN, name) from None
        except PreconditionFailed:
            raise PreconditionFailed(NOUN, name) from None
        log.info("CA certificate deleted", extra={"ca_name": name})

    async def generate_verification_code(self, name: str, *, condition: Condition | None) -> CaCertificate:
        """The code replaces the one before. Raises NotFound, PreconditionFailed."""
        return await self._change(name, condition, lambda ca, now: ca.with_code(now))

    async def verify(self, name: str, proof: str | bytes, *, condition: Condition | None) -> CaCertificate:
        """Raises Invalid when `proof`, in the forms of an upload, is none; NotFound, PreconditionFailed."""
        presented = read_from_collection(proof)
        verified = await self._change(name, condition, lambda ca, now: ca.verified_by(presented, now))
        log.info("CA certificate verified", extra={"ca_name": name})
        return verified

    async def _change(
        self,
        name: str,
        condition: Condition | None,
        change: Callable[[CaCertificate, int], CaCertificate],
    ) -> CaCertificate:
        for _ in range(_ATTEMPTS):
            stored = await self.get(name)
            if condition is not None:
                condition.check(stored, NOUN, name)
            changed = change(stored, self._clock.now())
            try:
                return await self._records.put(changed, expect=stored.etag)
            except _LOST:
                continue
        raise _too_busy(name)


def _too_busy(name: str) -> Unavailable:
    return Unavailable(f"too many changes to {name!r} at once; try again")
