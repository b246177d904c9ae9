"""By whom a device's certificate was issued, and which enrollment that brings it under [dps 11.2].

The chain is followed upwards from the leaf, over what the device sent and what the service holds: CA certificates
and groups' signing certificates, each found by the name of its subject. The nearest issuer that an enrollment names
decides, whatever comes of it: a group that is disabled shuts its devices out though a group further up is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from moorage.credentials import ca_certificate
from moorage.credentials.ca_certificate import CaCertificate
from moorage.credentials.chain import Chain, ChainBuilder, Flaw, shortened
from moorage.credentials.decision import Finding
from moorage.credentials.x509 import Certificate
from moorage.errors import Invalid, Unauthorized
from moorage.hub.authentication import Authentication
from moorage.interfaces import Records, Store
from moorage.provisioning import enrollment
from moorage.provisioning.attestation.issuer import CaReferences, SigningCertificates
from moorage.provisioning.attestation.proof import (
    CA_VERIFIED,
    CHAIN,
    COMMON_NAME,
    ENROLLED,
    PRESENTED,
    VALIDITY,
    Attested,
    Claim,
)
from moorage.provisioning.attestation.x509 import check_common_name, presented_chain
from moorage.provisioning.enrollment import EnrollmentGroup


@dataclass(frozen=True, slots=True)
class Reached:
    """A chain whose top is held by the service: by `group` as a signing certificate, or as a CA certificate."""

    chain: Chain
    group: EnrollmentGroup | None = None
    ca: CaCertificate | None = None

    def flaws(self, now: int) -> list[Flaw]:
        return [flaw for verdict in self.chain.judge(now) for flaw in verdict.flaws]

    def order(self, builder: ChainBuilder, now: int) -> tuple[bool, bool, bool, str]:
        """Of issuers at the same distance: first who may let the device in, then whom it sent itself."""
        unverified = self.ca is not None and not self.ca.is_verified
        name = self.group.enrollment_group_id.lower() if self.group else ""
        return bool(self.flaws(now)), unverified, not builder.was_sent(self.chain.top), name


class NoGroup(Unauthorized):
    """No enrollment group has issued, or refers to who has issued, the certificate presented."""


class Issuers:
    """The chains of one service. Every certificate is found through an index; none are walked."""

    def __init__(self, store: Store, scope: int) -> None:
        self._groups: Records[EnrollmentGroup] = store.records(enrollment.GROUP_KIND, scope)
        self._authorities: Records[CaCertificate] = store.records(ca_certificate.KIND, scope)

    async def group_of(self, claim: Claim, finding: Finding) -> tuple[EnrollmentGroup, Attested]:
        """The group of the nearest issuer, and the proof judged by it. Raises Unauthorized."""
        builder = _builder(presented_chain(claim, finding))
        async for level in self._levels(builder):
            named = [each for reached in level for each in await self._groups_by(reached)]
            if named:
                nearest = _ordered(named, builder, claim.now)
                for each in nearest:
                    finding.consider(f"{each.group}, by {_holder(each)}")
                decides = nearest[0]
                if decides.group is None:
                    raise LookupError("an issuer was taken for a group's that no group names")
                finding.known = True
                finding.hold(ENROLLED)
                return decides.group, _attested(decides, claim, finding)
            for reached in level:
                if reached.ca is not None:
                    finding.consider(f"{reached.ca}, which no enrollment group refers to")
        raise _no_group(builder, claim, finding)

    async def attest(self, references: CaReferences, claim: Claim, finding: Finding) -> Attested:
        """Judge the proof by the CA certificates that an individual enrollment refers to. Raises Unauthorized."""
        builder = _builder(presented_chain(claim, finding))
        names = {name.lower() for name in references.names}
        async for level in self._levels(builder):
            wanted = [each for each in level if each.ca is not None and each.ca.name.lower() in names]
            if wanted:
                decides = _ordered(wanted, builder, claim.now)[0]
                finding.consider(str(decides.ca))
                return _attested(decides, claim, finding)
        raise await self._not_below(references, builder, finding)

    async def _levels(self, builder: ChainBuilder) -> AsyncIterator[list[Reached]]:
        """The held certificates that a chain leads to, the nearest first."""
        while wants := builder.wants:
            held = {key: await self._held(key) for key in wants}
            certificates = {
                key: list(dict.fromkeys(each.certificate for each in found)) for key, found in held.items()
            }
            reached = []
            for chain in builder.advance(certificates):
                for each in held[chain.top.subject_key]:
                    if each.certificate == chain.top:
                        reached.append(Reached(chain, each.group, each.ca))
            yield reached

    async def _held(self, subject_key: str) -> list[_Held]:
        """The certificates of that subject, each with who holds it."""
        found: list[_Held] = []
        for group in await self._groups.find("signing_subject", subject_key):
            if isinstance(group.attestation, SigningCertificates):
                certificates = dict.fromkeys(group.attestation.certificates)
                found += [
                    _Held(each, group=group) for each in certificates if each.subject_key == subject_key
                ]
        for ca in await self._authorities.find("subject", subject_key):
            found.append(_Held(ca.certificate, ca=ca))
        return found

    async def _groups_by(self, reached: Reached) -> list[Reached]:
        """The groups that name the certificate reached: the one that holds it, or all that refer to it."""
        if reached.ca is None:
            return [reached]
        groups = await self._groups.find("ca_reference", reached.ca.name.lower())
        return [Reached(reached.chain, group, reached.ca) for group in groups]

    async def _not_below(
        self, references: CaReferences, builder: ChainBuilder, finding: Finding
    ) -> Unauthorized:
        _note_turned_away(builder, finding)
        known = []
        for name in references.names:
            ca = await self._authorities.get(name.lower())
            known.append(f"{ca} ({ca.subject})" if ca else f"CA certificate {name}, which does not exist")
            finding.consider(known[-1])
        return Unauthorized(
            f"the certificate's chain does not lead to {' or '.join(known)}: {_where_it_ends(builder)}",
            check=CHAIN,
            remedy="Issue the device's certificate below that CA, and let the device send what lies in between.",
        )


@dataclass(frozen=True, slots=True)
class _Held:
    certificate: Certificate
    group: EnrollmentGroup | None = None
    ca: CaCertificate | None = None


def _builder(sent: Sequence[bytes]) -> ChainBuilder:
    try:
        return ChainBuilder(sent)
    except Invalid as error:
        raise Unauthorized(
            f"the certificate presented is not one: {error.why}",
            check=PRESENTED,
            remedy="Issue the device's certificate again.",
        ) from None


def _ordered(reached: list[Reached], builder: ChainBuilder, now: int) -> list[Reached]:
    return reached if len(reached) == 1 else sorted(reached, key=lambda each: each.order(builder, now))


def _attested(reached: Reached, claim: Claim, finding: Finding) -> Attested:
    """Raises Unauthorized; each link that does not hold is in `finding`, and all of them when one does not."""
    verdicts = reached.chain.judge(claim.now)
    flaws = [flaw for verdict in verdicts for flaw in verdict.flaws]
    if flaws:
        for verdict in verdicts:
            if verdict.flaws:
                finding.fail(CHAIN, verdict.text)
            else:
                finding.hold(CHAIN, verdict.text)
        first = flaws[0]
        raise Unauthorized(
            f"the certificate's chain does not hold: {next(each.text for each in verdicts if each.flaws)}",
            check=VALIDITY if first.by_date else CHAIN,
            remedy=first.remedy,
        )
    finding.hold(CHAIN, " ← ".join(shortened(each.subject) for each in reached.chain.certificates))
    ca = reached.ca
    if ca is not None:
        if not ca.is_verified:
            raise Unauthorized(
                f"the {ca} is not verified: nobody has proven to hold its key",
                check=CA_VERIFIED,
                remedy=f"Verify it: moorage dps certificate generate-verification-code -n {ca.name}, sign a "
                "certificate with that common name by the CA, then moorage dps certificate verify.",
            )
        finding.hold(CA_VERIFIED)
    leaf = reached.chain.leaf
    check_common_name(leaf.common_name, claim.registration_id, leaf.subject)
    finding.hold(COMMON_NAME)
    return Attested(leaf.sha256, Authentication.self_signed(leaf.sha256))  # [dps 15]


def _no_group(builder: ChainBuilder, claim: Claim, finding: Finding) -> NoGroup:
    _note_turned_away(builder, finding)
    leaf = builder.leaf
    remedy = "Create an individual enrollment with this registration id and the device's certificate"
    if leaf.issuer == leaf.subject:
        why = "the certificate is self-signed"
    else:
        why = _where_it_ends(builder)
        remedy += (
            f", or an enrollment group with the certificate of {shortened(_last(builder).issuer)!r}; "
            "intermediates below that are for the device to send"
        )
    return NoGroup(
        f"there is no enrollment for the registration id {claim.registration_id[:128]!r}, and no enrollment group "
        f"for whoever issued the certificate: {why}",
        check=ENROLLED,
        remedy=f"{remedy}.",
    )


def _note_turned_away(builder: ChainBuilder, finding: Finding) -> None:
    for told in builder.turned_away:
        finding.fail(CHAIN, told)


def _last(builder: ChainBuilder) -> Certificate:
    """The furthest that the longest chain got."""
    return max(builder.ended, key=len).top if builder.ended else builder.leaf


def _where_it_ends(builder: ChainBuilder) -> str:
    last = _last(builder)
    subject, issuer = shortened(last.subject), shortened(last.issuer)
    if issuer == subject:
        return f"the chain ends at {subject!r}"
    return f"{subject!r} is issued by {issuer!r}, whose certificate was not sent and is not held here"


def _holder(reached: Reached) -> str:
    return (
        str(reached.ca) if reached.ca else f"its signing certificate {shortened(reached.chain.top.subject)}"
    )
