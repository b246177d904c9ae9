"""Whether a chain holds, link by link, by the services' own judgement: for people, before a device is sent out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moorage.credentials.chain import Chain, ChainBuilder, Verdict
from moorage.credentials.issuing import may_sign as is_authority
from moorage.credentials.x509 import Certificate, explain_missing_name
from moorage.errors import Invalid


@dataclass(frozen=True)
class Link:
    """One certificate of the chain and what is wrong with it, with what mends that; nothing where it holds."""

    certificate: Certificate
    issuer: Certificate | None
    flaws: tuple[str, ...]
    remedies: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.flaws


@dataclass(frozen=True)
class Report:
    """`links` are leaf first. `gap` says why the chain does not lead to a trusted certificate, empty when it does.

    `notes` are for a person to read, and change nothing.
    """

    links: tuple[Link, ...]
    gap: str = ""
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.gap and all(link.holds for link in self.links)


def verify(
    sent: Sequence[bytes], trusted: Sequence[bytes], now: int, *, common_name: str | None = None
) -> Report:
    """Judge what a device sends (DER, leaf first) at `now`, in microseconds.

    Without a `trusted` one, the roots that were sent are taken for that, and a note says so. `common_name` is what the
    leaf has to be called, in any case, for DPS compares it so. Raises Invalid when there is no certificate.
    """
    if not sent:
        raise Invalid("certificate", "there is none to verify")
    leaf = Certificate(sent[0])
    anchors = [Certificate(der) for der in trusted]
    notes: list[str] = []
    if not anchors:
        anchors = [each for each in map(Certificate, sent) if each.subject_key == each.issuer_key]
        notes.append("Nothing was given to trust: the chain is judged up to the root that is in it.")
    if is_authority(leaf.parsed):
        notes.append("The first certificate is a CA's: what a device sends begins with its own.")
    chains = _chains(sent, leaf, anchors)
    if isinstance(chains, str):
        links = [_link(verdict) for verdict in Chain((leaf,)).judge(now)]
        return Report((_named(links[0], common_name), *links[1:]), chains, tuple(notes))
    judged = [[_link(verdict) for verdict in chain.judge(now)] for chain in chains]
    best = min(judged, key=lambda links: (sum(not link.holds for link in links), len(links)))
    return Report((_named(best[0], common_name), *best[1:]), "", tuple(notes))


def _chains(sent: Sequence[bytes], leaf: Certificate, anchors: Sequence[Certificate]) -> list[Chain] | str:
    """All chains to an anchor, or why there is none."""
    if leaf in anchors:
        return [Chain((leaf,))]
    builder = ChainBuilder(sent)
    reached: list[Chain] = []
    while wanted := builder.wants:
        reached += builder.advance(
            {key: [each for each in anchors if each.subject_key == key] for key in wanted}
        )
    if reached:
        return reached
    why = [f"{each}." for each in builder.turned_away]
    tops = dict.fromkeys(chain.top.issuer for chain in builder.ended) or {leaf.issuer: None}
    missing = " or ".join(repr(name) for name in tops)
    return " ".join([f"The certificate of {missing} is neither in the chain nor among the trusted.", *why])


def _link(verdict: Verdict) -> Link:
    return Link(
        verdict.certificate,
        verdict.issuer,
        tuple(flaw.why for flaw in verdict.flaws),
        tuple(flaw.remedy for flaw in verdict.flaws),
    )


def _named(leaf: Link, common_name: str | None) -> Link:
    """The leaf's link with what its name adds."""
    name = leaf.certificate.common_name
    if not leaf.certificate.subject or (common_name is not None and name is None):
        flaw, remedy = "it names nobody", explain_missing_name(leaf.certificate.subject)
    elif common_name is not None and (name or "").lower() != common_name.lower():
        flaw = f"its common name is {name!r}, not {common_name!r}"
        remedy = f"Issue it with the subject CN={common_name}."
    else:
        return leaf
    return Link(leaf.certificate, leaf.issuer, (*leaf.flaws, flaw), (*leaf.remedies, remedy))
