"""The verbs of back ends on one kind of enrollment: put, show, page, delete, and several at once [dps 16]."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from moorage.credentials.ca_certificates import CaCertificates
from moorage.credentials.etag import Condition, expectation
from moorage.errors import (
    Conflict,
    Invalid,
    MoorageError,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from moorage.interfaces import Change, Clock, Expect, Kind, Page, Put, Records, Store
from moorage.provisioning.attestation.issuer import CaReferences
from moorage.provisioning.enrollment import Enrollment, read_id
from moorage.provisioning.issuance import CredentialPolicies
from moorage.provisioning.reading import Document
from moorage.provisioning.service import ApiVersion, LinkedHub
from moorage.provisioning.terms import Allocation, Terms

log = logging.getLogger("moorage.provisioning")

E = TypeVar("E", bound=Enrollment)
LinkedHubs = Callable[[], Awaitable[Sequence[LinkedHub]]]
CheckAllocation = Callable[[Allocation], None]  # raises Invalid when it names somebody who cannot be asked

MAX_BULK = 10  # enrollments in one call [dps 19]
BULK_MODES = ("create", "update", "updateIfMatchETag", "delete")

ATTEMPTS = 20  # at one write; each time it is lost, somebody else's has succeeded
LOST = (Conflict, NotFound, PreconditionFailed)  # what a store says to whoever was slower


class Read(Protocol[E]):
    """From the body of a PUT to a record; `stored` is the one it replaces."""

    def __call__(self, document: Document, *, stored: E | None, api_version: ApiVersion, now: int) -> E: ...


class BulkFailure(NamedTuple):
    """Which item of a bulk call could not be done, by its id, and why."""

    id: str
    error: MoorageError


class Enrollments(Generic[E]):
    """All individual enrollments of a service, or all its groups. What a verb returns is durable.

    `noun` is what errors call one, `id_member` the member of its JSON that names it, `list_member` that of a
    bulk call which lists them.
    """

    def __init__(
        self,
        kind: Kind[E],
        read: Read[E],
        linked_hubs: LinkedHubs,
        check_allocation: CheckAllocation,
        ca_certificates: CaCertificates,
        policies: CredentialPolicies,
        *,
        noun: str,
        id_member: str,
        list_member: str,
        scope: int,
        store: Store,
        clock: Clock,
    ) -> None:
        self.noun = noun
        self.id_member = id_member
        self.list_member = list_member
        self.records: Records[E] = store.records(kind, scope)
        self._kind = kind
        self._scope = scope
        self._read = read
        self._linked_hubs = linked_hubs
        self._check_allocation = check_allocation
        self._ca_certificates = ca_certificates
        self._policies = policies
        self._clock = clock

    async def put(self, document: Document, *, if_match: str | None, api_version: ApiVersion) -> E:
        """Create the one that `document` declares, or with `if_match` replace it [dps 16.3].

        Raises Invalid, NotSupported, Conflict, PreconditionFailed.
        """
        name = read_id(document, self.id_member)
        condition = Condition.read(if_match)
        for _ in range(ATTEMPTS):
            stored = await self.records.get(name.lower())
            if condition is not None:
                condition.check(stored, self.noun, name)
            elif stored is not None:
                raise Conflict(self.noun, name)
            enrollment = await self._declared(document, stored, api_version)
            try:
                await self.records.put(enrollment, expect=stored.etag if stored else Expect.ABSENT)
            except LOST:
                continue
            log.info("%s written", self.noun, extra={"id": name})
            return enrollment
        raise Unavailable(f"too many changes to {name!r} at once; try again")

    async def change(self, document: Document, api_version: ApiVersion) -> Change:
        """What creates or replaces the one that `document` declares, for a commit of the caller's.

        The commit fails with one of LOST when somebody else was faster. Raises Invalid, NotSupported.
        """
        stored = await self.records.get(read_id(document, self.id_member).lower())
        enrollment = await self._declared(document, stored, api_version)
        return Put(self._kind, self._scope, enrollment, stored.etag if stored else Expect.ABSENT)

    async def _declared(self, document: Document, stored: E | None, api_version: ApiVersion) -> E:
        enrollment = self._read(document, stored=stored, api_version=api_version, now=self._clock.now())
        allocation = enrollment.terms.allocation
        allocation.check_hubs(await self._linked_hubs())
        self._check_allocation(allocation)
        if isinstance(enrollment.attestation, CaReferences):
            await self._ca_certificates.check_known(enrollment.attestation.names)
        await self._check_policy(enrollment.terms, stored.terms if stored else None)
        return enrollment

    async def _check_policy(self, terms: Terms, before: Terms | None) -> None:
        """One that is gone does not keep an enrollment from being changed otherwise."""
        named = terms.credential_policy_name
        if named is None or (before is not None and named == before.credential_policy_name):
            return
        try:
            await self._policies.get(named)
        except NotFound:
            raise Invalid("credentialPolicyName", f"there is no credential policy named {named!r}") from None

    async def get(self, name: str) -> E:
        """In any case. Raises NotFound."""
        stored = await self.records.get(name.lower())
        if stored is None:
            raise NotFound(self.noun, name)
        return stored

    async def delete(self, name: str, *, if_match: str | None = None) -> None:
        """What it led to stays, here and in the hub [dps 14.3]. Raises NotFound, PreconditionFailed."""
        await delete_record(self.records, self.noun, name, if_match)
        log.info("%s deleted", self.noun, extra={"id": name})

    async def page(self, *, after: str | None = None, limit: int) -> Page[E]:
        """By id in lower case, past `after`."""
        return await self.records.page(after=after, limit=limit)

    async def beginning_with(self, prefix: str, *, after: str | None = None, limit: int) -> Page[E]:
        """Those whose id begins so, in any case; by id in lower case, past `after`. No more are read than are shown."""
        prefix = prefix.lower()
        if after is None and prefix and (exact := await self.records.get(prefix)) is not None:
            # A key is past another one that it begins with, so this one alone is not past `prefix`.
            rest = await self._beginning_with(prefix, prefix, limit - 1) if limit > 1 else None
            if rest is None:
                return Page([exact], prefix)
            return Page([exact, *rest.records], rest.next)
        return await self._beginning_with(prefix, after or prefix or None, limit)

    async def _beginning_with(self, prefix: str, after: str | None, limit: int) -> Page[E]:
        page = await self.records.page(after=after, limit=limit)
        found = [each for each in page.records if self._kind.key(each).startswith(prefix)]
        return Page(found, page.next if len(found) == len(page.records) else None)

    async def bulk(self, mode: object, documents: object, api_version: ApiVersion) -> list[BulkFailure]:
        """Up to ten, each by itself; those that could not be done [dps 16.5]. Raises Invalid."""
        known = {name.lower(): name for name in BULK_MODES}
        if not isinstance(mode, str) or mode.lower() not in known:
            raise Invalid("mode", f"must be one of {', '.join(BULK_MODES)}")
        failures = []
        for document in self._bulk_documents(documents):
            try:
                await self._bulk_item(known[mode.lower()], document, api_version)
            except MoorageError as error:
                failures.append(BulkFailure(str(document.get(self.id_member) or ""), error))
        return failures

    async def _bulk_item(self, mode: str, document: Document, api_version: ApiVersion) -> None:
        if mode == "delete":
            await self.delete(read_id(document, self.id_member))
            return
        if_match = {"create": None, "update": "*"}.get(mode, str(document.get("etag") or ""))
        await self.put(document, if_match=if_match, api_version=api_version)

    def _bulk_documents(self, documents: object) -> list[Mapping[str, Any]]:
        where = self.list_member
        if not isinstance(documents, list) or not all(
            isinstance(document, Mapping) for document in documents
        ):
            raise Invalid(where, "must be a list of objects")
        if not 1 <= len(documents) <= MAX_BULK:
            raise Invalid(where, f"must hold 1 to {MAX_BULK} items, not {len(documents)}")
        ids = [str(document.get(self.id_member)).lower() for document in documents]
        if len(set(ids)) < len(ids):
            raise Invalid(where, f"name the same {self.id_member} twice")
        return documents


async def delete_record(records: Records[Any], noun: str, name: str, if_match: str | None) -> None:
    """Under the key `name` in lower case. Raises NotFound, PreconditionFailed."""
    key = name.lower()
    record = await records.get(key)
    if record is None:
        raise NotFound(noun, name)
    expect = expectation(record, Condition.read(if_match), noun, name)
    try:
        await records.delete(key, expect=expect)
    except NotFound:
        raise NotFound(noun, name) from None
    except PreconditionFailed:
        raise PreconditionFailed(noun, name) from None
