"""CAs that a hub trusts, and who proves itself by a certificate of one: type certificateAuthority. [hub-device 2.4]

Not the certificate is known then but its issuer, so that a device may renew its certificate whenever it likes. The
common name says which device or module it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moorage.credentials import ca_certificate
from moorage.credentials.ca_certificate import CaCertificate, stored_certificate
from moorage.credentials.chain import Chain, ChainBuilder, shortened
from moorage.credentials.decision import Finding
from moorage.credentials.x509 import Certificate, explain_missing_name
from moorage.errors import Invalid, Unauthorized
from moorage.interfaces import Kind, Store

PRESENT, TRUSTED, CHAIN, CA_VERIFIED, COMMON_NAME = (
    "certificate present",
    "issuer trusted",
    "certificate chain",
    "CA certificate verified",
    "certificate common name",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedAuthority:
    """A CA by its certificates, each base64 of DER: root, intermediates, and those of before a renewal."""

    name: str
    certificates: tuple[str, ...]
    etag: str

    def with_certificates(self, certificates: Sequence[str], now: int, etag: str) -> TrustedAuthority:
        """`certificates` join those that it has; what has expired is dropped."""
        kept = [each for each in self.certificates if stored_certificate(each).not_after > now]
        return replace(self, certificates=tuple(dict.fromkeys([*certificates, *kept])), etag=etag)


def _from_document(document: Mapping[str, Any]) -> TrustedAuthority:
    return TrustedAuthority(
        name=document["name"], certificates=tuple(document["certificates"]), etag=document["etag"]
    )


KIND = Kind[TrustedAuthority](
    name="trusted_authority",
    key=lambda authority: authority.name.lower(),
    to_document=lambda authority: {
        "name": authority.name,
        "certificates": list(authority.certificates),
        "etag": authority.etag,
    },
    from_document=_from_document,
    index={
        "subject": lambda authority: [stored_certificate(each).subject_key for each in authority.certificates]
    },
)
"""Kept under a hub's scope; by `subject`, as issuers are looked for."""


# --- Judgement -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Held:
    """A certificate that the hub has; `ca` is the operator's upload, None for a CA that DPS makes certificates by."""

    certificate: Certificate
    ca: CaCertificate | None = None

    @property
    def trusted(self) -> bool:
        return self.ca is None or self.ca.is_verified


@dataclass(frozen=True, slots=True)
class _Reached:
    chain: Chain
    held: _Held


class Authorities:
    """The CAs of one hub: those that its DPS issues by, and the CA certificates that operators have uploaded."""

    def __init__(self, store: Store, scope: int) -> None:
        self._issuing = store.records(KIND, scope)
        self._uploaded = store.records(ca_certificate.KIND, scope)

    async def check_issued(self, name: str, sent: Sequence[bytes], now: int, finding: Finding) -> None:
        """Raises Unauthorized unless `sent` (DER, leaf first) leads to a trusted CA, holds `now` and is for `name`.

        `name` is that of the device, or `device/module`. [hub-device 2.4]
        """
        if not sent:
            raise Unauthorized(
                "the device is registered with a certificate authority and presented no certificate",
                check=PRESENT,
                remedy="Connect with the certificate that was issued to the device, and its key.",
            )
        finding.hold(PRESENT)
        builder = _builder(sent)
        reached = await self._reached(builder)
        if not reached:
            raise _not_issued(builder, finding)
        trusted = [each for each in reached if each.held.trusted]
        if not trusted:
            raise _not_verified(reached[0], finding)
        finding.hold(TRUSTED)
        decides = _check_chains(trusted, now, finding)
        if decides.held.ca is not None:
            finding.hold(CA_VERIFIED)
        _check_common_name(builder.leaf, name)
        finding.hold(COMMON_NAME)

    async def _reached(self, builder: ChainBuilder) -> list[_Reached]:
        """The held certificates that a chain leads to, the nearest first."""
        reached: list[_Reached] = []
        while wanted := builder.wants:
            held = {subject: await self._held(subject) for subject in wanted}
            certificates = {
                subject: list(dict.fromkeys(each.certificate for each in found))
                for subject, found in held.items()
            }
            for chain in builder.advance(certificates):
                reached += [
                    _Reached(chain, each)
                    for each in held[chain.top.subject_key]
                    if each.certificate == chain.top
                ]
        return reached

    async def _held(self, subject: str) -> list[_Held]:
        issuing = (
            stored_certificate(each)
            for authority in await self._issuing.find("subject", subject)
            for each in authority.certificates
        )
        found = [_Held(each) for each in issuing if each.subject_key == subject]
        return found + [_Held(ca.certificate, ca) for ca in await self._uploaded.find("subject", subject)]


def _builder(sent: Sequence[bytes]) -> ChainBuilder:
    try:
        return ChainBuilder(sent)
    except Invalid as error:
        raise Unauthorized(
            f"the certificate presented is not one: {error.why}",
            check=PRESENT,
            remedy="Issue the device's certificate again.",
        ) from None


def _check_chains(reached: Sequence[_Reached], now: int, finding: Finding) -> _Reached:
    """The one that lets the device in: one good chain is enough, the nearest is what a refusal tells of."""
    for each in reached:
        if not any(verdict.flaws for verdict in each.chain.judge(now)):
            _consider(each, finding)
            finding.hold(CHAIN, " ← ".join(shortened(link.subject) for link in each.chain.certificates))
            return each
    _consider(reached[0], finding)
    verdicts = reached[0].chain.judge(now)
    for verdict in verdicts:
        if verdict.flaws:
            finding.fail(CHAIN, verdict.text)
        else:
            finding.hold(CHAIN, verdict.text)
    flawed = next(verdict for verdict in verdicts if verdict.flaws)
    raise Unauthorized(
        f"the certificate's chain does not hold: {flawed.text}",
        check=CHAIN,
        remedy=" ".join(flaw.remedy for flaw in flawed.flaws),
    )


def _consider(reached: _Reached, finding: Finding) -> None:
    ca = reached.held.ca
    finding.consider(str(ca) if ca else f"issuing CA {shortened(reached.chain.top.subject)}")


def _not_verified(reached: _Reached, finding: Finding) -> Unauthorized:
    _consider(reached, finding)
    ca = reached.held.ca
    name = ca.name if ca else ""
    return Unauthorized(
        f"the {ca} is not verified: nobody has proven to hold its key",
        check=CA_VERIFIED,
        remedy=f"Verify it: moorage hub certificate generate-verification-code -n {name}, sign a certificate with "
        "that common name by the CA, then moorage hub certificate verify.",
    )


def _not_issued(builder: ChainBuilder, finding: Finding) -> Unauthorized:
    for told in builder.turned_away:
        finding.fail(CHAIN, told)
    last = max(builder.ended, key=len).top if builder.ended else builder.leaf
    return Unauthorized(
        f"no CA that this hub trusts has issued the certificate {shortened(builder.leaf.subject)!r}",
        check=TRUSTED,
        remedy=f"Upload and verify the CA certificate of {shortened(last.issuer)!r} (moorage hub certificate create), "
        "and let the device send the intermediates below it; or, where DPS issues the certificates, register again "
        "with a csr and connect with the chain that comes back.",
    )


def _check_common_name(leaf: Certificate, name: str) -> None:
    if leaf.common_name != name:
        raise Unauthorized(
            f"the certificate's common name is {leaf.common_name!r:.300}, and {name!r} connects",
            check=COMMON_NAME,
            remedy="Connect under the id that the certificate names: a device's id, or device/module."
            if leaf.common_name
            else explain_missing_name(leaf.subject),
        )
