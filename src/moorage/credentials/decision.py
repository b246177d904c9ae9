"""Why a caller was let in or turned away, kept so that an operator can ask later.

The code that judges fills a `Finding` as it goes; the adapter closes it into a `Decision` and adds that to
`Decisions`. A finding holds no more than references until it is closed: being let in costs next to nothing.
Never in here: keys, and the signatures of tokens.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from moorage.credentials.rings import Rings
from moorage.credentials.sas import SasToken
from moorage.credentials.tpm import StorageKey
from moorage.credentials.x509 import Certificate, thumbprints, utc_text
from moorage.errors import (
    Disabled,
    Invalid,
    MoorageError,
    NotFound,
    NotSupported,
    Throttled,
    Unauthorized,
    Unavailable,
)
from moorage.interfaces import Peer

_MAX_CHAIN = 10  # certificates of a presented chain that are described
_MAX_TEXT = 500  # characters of what a caller wrote that are kept


class Check(NamedTuple):
    """One question that was asked of the proof, and the answer."""

    name: str
    held: bool
    detail: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Exchange:
    """What somebody outside was asked before a decision could be made, and what came back.

    `status` is that of HTTP, None where there is none; `seconds` how long it took. `request`, `answer` and
    `detail`, which says what went wrong, are texts of any length: `Decisions` forgets them before the rest.
    """

    asked: str
    request: str
    status: int | None
    answer: str
    seconds: float
    failure: str = ""
    detail: str = ""

    def forget_texts(self) -> None:
        self.request = self.answer = self.detail = ""


class Decision(NamedTuple):
    """`time` is in microseconds; `tracking_id` is the one in the answer on the wire and in the log.

    `known` tells whether `subject` names a record that exists; `considered` names the records that were
    looked at, in order; `remedy` is a sentence, empty when there is nothing to mend.
    """

    time: int
    tracking_id: str
    operation: str
    scope: int
    subject: str
    known: bool
    accepted: bool
    error: str
    door: str
    address: str
    proof: Mapping[str, Any] = MappingProxyType({})
    considered: Sequence[str] = ()
    checks: Sequence[Check] = ()
    exchange: Exchange | None = None
    remedy: str = ""


class Finding:
    """What came to light while a request was judged."""

    __slots__ = (
        "_chain",
        "_checks",
        "_considered",
        "_token",
        "_tpm",
        "address",
        "door",
        "exchange",
        "known",
        "operation",
        "scope",
        "subject",
        "tracking_id",
    )

    def __init__(
        self,
        operation: str = "",
        subject: str = "",
        *,
        scope: int = 0,
        tracking_id: str = "",
        door: str = "",
        address: str = "",
    ) -> None:
        self.operation = operation
        self.scope = scope
        self.subject = subject[:_MAX_TEXT]
        self.tracking_id = tracking_id
        self.door = door
        self.address = address
        self.known = False
        self.exchange: Exchange | None = None
        self._token: SasToken | None = None
        self._chain: Sequence[bytes] = ()
        self._tpm: tuple[StorageKey, StorageKey | None] | None = None
        self._considered: list[str] = []
        self._checks: list[Check] = []

    @classmethod
    def from_peer(
        cls, peer: Peer, tracking_id: str, operation: str, subject: str = "", *, scope: int = 0
    ) -> Finding:
        """One about what `peer` asks for, its certificates presented."""
        finding = cls(
            operation, subject, scope=scope, tracking_id=tracking_id, door=peer.door, address=peer.address
        )
        finding.present_chain(peer.chain)
        return finding

    def present_token(self, token: SasToken) -> None:
        self._token = token

    def present_chain(self, chain: Sequence[bytes]) -> None:
        """`chain` is DER, leaf first."""
        self._chain = chain

    def present_tpm(self, endorsement_key: StorageKey, storage_root_key: StorageKey | None) -> None:
        self._tpm = endorsement_key, storage_root_key

    @property
    def presented(self) -> str:
        """What was presented as proof, as the attestation type of an enrollment that it could be for."""
        if self._tpm is not None:
            return "tpm"
        if self._token is not None:
            return "symmetricKey"
        return "x509" if self._chain else "none"

    def consider(self, record: str) -> None:
        """`record` in words: `individual enrollment pump-7`."""
        self._considered.append(record)

    def hold(self, name: str, detail: str = "") -> None:
        self._checks.append(Check(name, True, detail[:_MAX_TEXT]) if detail else _held(name))

    def fail(self, name: str, detail: str) -> None:
        """A check that did not hold, where that alone does not yet end the matter."""
        self._checks.append(Check(name, False, detail[:_MAX_TEXT]))

    def accepted(self, now: int) -> Decision:
        return self._close(now, accepted=True, proof=self._brief_proof())

    def refused(self, now: int, error: Exception) -> Decision:
        """The check that `error` names is added as failed, unless it was noted already."""
        name = _check_of(error)
        remedy = getattr(error, "remedy", "") or _REMEDIES.get(type(error), "")
        if not any(check.name == name and not check.held for check in self._checks):
            self.fail(name, str(error))
        return self._close(now, accepted=False, proof=self._proof(), error=str(error), remedy=remedy)

    def _close(
        self, now: int, *, accepted: bool, proof: Mapping[str, Any], error: str = "", remedy: str = ""
    ) -> Decision:
        return Decision(
            time=now,
            tracking_id=self.tracking_id,
            operation=self.operation,
            scope=self.scope,
            subject=self.subject,
            known=self.known,
            accepted=accepted,
            error=error[:_MAX_TEXT],
            door=self.door,
            address=self.address,
            proof=proof,
            considered=tuple(self._considered),
            checks=tuple(self._checks),
            exchange=self.exchange,
            remedy=remedy[:_MAX_TEXT],
        )

    def _brief_proof(self) -> dict[str, Any]:
        proof: dict[str, Any] = {}
        if self._token is not None:
            proof["token"] = describe_token(self._token)
        if self._chain:
            proof["thumbprint"] = thumbprints(self._chain[0]).sha256
        return proof if self._tpm is None else proof | self._tpm_proof()

    def _proof(self) -> dict[str, Any]:
        proof: dict[str, Any] = {}
        if self._token is not None:
            proof["token"] = describe_token(self._token)
        if self._chain:
            proof["chain"] = [describe_certificate(der) for der in self._chain[:_MAX_CHAIN]]
        return proof | self._tpm_proof()

    def _tpm_proof(self) -> dict[str, Any]:
        """The names of the keys, as tpm2_readpublic prints them."""
        if self._tpm is None:
            return {}
        endorsement_key, storage_root_key = self._tpm
        root = storage_root_key.name_text if storage_root_key else None
        return {"tpm": {"endorsementKey": endorsement_key.name_text, "storageRootKey": root}}


_REMEDIES: Mapping[type[Exception], str] = {
    Disabled: "Enable the record again.",
    NotFound: "Create the record, or correct the name.",
    Throttled: "Wait as long as the answer says; moorage up --limits none takes any rate.",
}


def _check_of(error: Exception) -> str:
    match error:
        case Unauthorized(check=str(check)) if check:
            return check
        case Invalid():
            return error.field or "request form"
        case Disabled():
            return "enabled"
        case NotFound():
            return "known"
        case NotSupported() | Unavailable():
            return "possible"
        case Throttled():
            return "rate"
        case MoorageError():
            return "allowed"
        case _:
            return "internal error"


_HELD: dict[str, Check] = {}


def _held(name: str) -> Check:
    # The names are a few constants of the code; one tuple serves each of them for ever.
    return _HELD.get(name) or _HELD.setdefault(name, Check(name, True))


def describe_token(token: SasToken) -> dict[str, Any]:
    """What may be shown of a token: never its signature."""
    return {
        "resource": token.resource[:_MAX_TEXT],
        "expiry": token.expiry,
        "keyName": (token.key_name or "")[:_MAX_TEXT] or None,
    }


def describe_certificate(der: bytes) -> dict[str, Any]:
    sha1, sha256 = thumbprints(der)
    facts: dict[str, Any] = {"sha1Thumbprint": sha1, "sha256Thumbprint": sha256}
    try:
        certificate = Certificate(der)
        facts |= {
            "subject": certificate.subject[:_MAX_TEXT],
            "issuer": certificate.issuer[:_MAX_TEXT],
            "notBefore": utc_text(certificate.not_before),
            "notAfter": utc_text(certificate.not_after),
        }
    except (Invalid, ValueError) as error:
        facts["unreadable"] = str(error)[:_MAX_TEXT]
    return facts


class Decisions:
    """The newest decisions: so many a subject, so many in all; subjects without a record share one ring.

    What was asked outside is kept in full for the newest `exchanges`, and in numbers after that.
    """

    def __init__(
        self,
        *,
        per_subject: int = 100,
        in_all: int = 100_000,
        latest: int = 1000,
        exchanges: int = 1000,
    ) -> None:
        self._exchanges: deque[Exchange] = deque()
        self._max_exchanges = exchanges
        self._rings: Rings[str, Decision] = Rings(per_subject=per_subject, in_all=in_all)
        self._unknown: deque[Decision] = deque(maxlen=per_subject)
        self._latest: deque[Decision] = deque(maxlen=latest)
        self.added = 0  # ever; the place behind the newest decision

    def add(self, decision: Decision) -> None:
        self._latest.append(decision)
        self.added += 1
        if decision.exchange is not None:
            self._exchanges.append(decision.exchange)
            if len(self._exchanges) > self._max_exchanges:
                self._exchanges.popleft().forget_texts()
        if decision.known:
            self._rings.add(decision.subject, decision)
        else:
            self._unknown.append(decision)

    def refuse(self, finding: Finding, error: MoorageError, now: int, log: logging.Logger) -> None:
        """Keep why somebody was turned away, and log a line with what finds the record again."""
        self.add(finding.refused(now, error))
        log.warning(
            "%s refused",
            finding.operation,
            extra={
                "tracking_id": finding.tracking_id,
                "subject": finding.subject,
                "address": finding.address,
                "reason": str(error),
            },
        )

    def of(self, subject: str) -> list[Decision]:
        """Decisions about `subject`, oldest first; those of a time when it had no record are among them."""
        unknown = [decision for decision in self._unknown if decision.subject == subject]
        return sorted([*unknown, *self._rings.of(subject)], key=lambda decision: decision.time)

    def latest(self, count: int) -> list[Decision]:
        """Up to `count` decisions about anybody, newest first."""
        return list(islice(reversed(self._latest), count))

    def since(self, place: int) -> tuple[Iterator[Decision], int]:
        """The decisions added after the first `place` ones, oldest first, and how many of them are forgotten."""
        first = self.added - len(self._latest)
        missed = max(first - place, 0)
        return islice(self._latest, max(place - first, 0), None), missed
