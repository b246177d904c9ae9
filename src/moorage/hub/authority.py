"""CAs that a hub trusts, and devices that prove themselves by a certificate of one: type certificateAuthority.

Not the certificate is known then but its issuer, so that a device may renew its certificate whenever it likes. The
common name says which device it is.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from moorage.credentials.chain import Chain, ChainBuilder
from moorage.credentials.decision import Finding
from moorage.credentials.x509 import Certificate, explain_missing_name
from moorage.errors import Unauthorized
from moorage.interfaces import Kind, Records

PRESENT, TRUSTED, CHAIN, COMMON_NAME = (
    "certificate present",
    "issuer trusted",
    "certificate chain",
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


@lru_cache(maxsize=64)
def stored_certificate(der: str) -> Certificate:
    """Parsed once for the many devices that come by it."""
    return Certificate(base64.b64decode(der))


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


async def check_issued(
    authorities: Records[TrustedAuthority],
    device_id: str,
    sent: Sequence[bytes],
    now: int,
    finding: Finding,
) -> None:
    """Raises Unauthorized unless `sent` (DER, leaf first) leads to a trusted CA, holds `now` and names the device."""
    if not sent:
        raise Unauthorized(
            "the device is registered with a certificate authority and presented no certificate",
            check=PRESENT,
            remedy="Connect with the certificate that was issued to the device, and its key.",
        )
    finding.hold(PRESENT)
    builder = ChainBuilder(sent)
    chains = await _chains(builder, authorities)
    if not chains:
        raise Unauthorized(
            f"no CA that this hub trusts has issued the certificate {builder.leaf.subject!r}",
            check=TRUSTED,
            remedy="Register again with a csr and connect with the chain that comes back"
            + "".join(f". {why}" for why in builder.turned_away)
            + ".",
        )
    finding.hold(TRUSTED)
    _check_chains(chains, now)
    finding.hold(CHAIN)
    name = builder.leaf.common_name
    if name != device_id:
        raise Unauthorized(
            f"the certificate's common name is {name!r}, the device id {device_id!r}",
            check=COMMON_NAME,
            remedy="Connect under the id that the certificate names."
            if name
            else explain_missing_name(builder.leaf.subject),
        )
    finding.hold(COMMON_NAME)


async def _chains(builder: ChainBuilder, authorities: Records[TrustedAuthority]) -> list[Chain]:
    reached: list[Chain] = []
    while wanted := builder.wants:
        found: dict[str, list[Certificate]] = {}
        for subject in wanted:
            certificates = (
                stored_certificate(each)
                for authority in await authorities.find("subject", subject)
                for each in authority.certificates
            )
            found[subject] = [each for each in certificates if each.subject_key == subject]
        reached += builder.advance(found)
    return reached


def _check_chains(chains: Sequence[Chain], now: int) -> None:
    """One good chain is enough; the nearest one is what a refusal tells of."""
    for chain in chains:
        if not any(verdict.flaws for verdict in chain.judge(now)):
            return
    flawed = next(verdict for verdict in chains[0].judge(now) if verdict.flaws)
    raise Unauthorized(flawed.text, check=CHAIN, remedy=" ".join(flaw.remedy for flaw in flawed.flaws))
