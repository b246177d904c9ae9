"""Certificate chains, from a device's leaf up to a certificate that is trusted: built step by step, then judged.

    ChainBuilder(sent) → wants: names of issuers → advance(stored) → chains that reached a stored certificate
    Chain.judge(now)   → a Verdict for each certificate in it

Nothing here trusts anything: who asks decides which stored certificate is an anchor, and so which ones to look
for. The nearest issuer comes first. A stored certificate counts as an issuer when it has the name and the key,
whether or not the device sent it; so a chain may leave out what is stored, and a CA may be renewed.

What TLS libraries agree on is judged as they do [RFC 5280 6.1]: signature, dates, CA flag, key usage, path length,
critical extensions. Where they differ: an authority key id is a hint and decides nothing; a basic constraint is
required of every issuer, but for a stored one of version 1, as old roots are; SHA-1 and MD5 signatures and RSA
keys of issuers below 2048 bits are refused, as OpenSSL refuses them since 3.2; name constraints are not judged,
and so refused. Extended key usage is not asked for. There is no revocation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtensionOID

from moorage.credentials.x509 import Certificate, utc_text
from moorage.errors import Invalid

E = TypeVar("E", bound=x509.ExtensionType)

MAX_SENT = 16  # certificates of a device's that are looked at, its leaf included
MAX_LENGTH = 10  # certificates in a chain, leaf and anchor included
MAX_SIGNATURES = 32  # checked for one device: cross-signed certificates multiply the ways up
MAX_CHAINS = 8  # followed side by side
MAX_TURNED_AWAY = 8  # would-be issuers that are told of
REMEMBERED = 128  # issuers that devices send, and who has signed whom of them: many devices have the same

EXPIRED, NOT_YET_VALID = "expired", "notYetValid"

_MAX_NAME = 200  # characters of a subject that are told

_WEAK_HASHES = frozenset({"md5", "sha1"})
_MIN_RSA_BITS = 2048
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.INHIBIT_ANY_POLICY,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        x509.ObjectIdentifier("2.16.840.1.113730.1.1"),  # Netscape certificate type
    }
)
"""Extensions that may be marked critical: judged here, or with nothing to say about a device's chain."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a certificate does not do at its place in a chain, and what would mend it. `code` is a word for it."""

    why: str
    remedy: str
    code: str

    @property
    def by_date(self) -> bool:
        return self.code in (EXPIRED, NOT_YET_VALID)


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one certificate of a chain; `issuer` is the next one up, None for the last."""

    certificate: Certificate
    issuer: Certificate | None
    flaws: tuple[Flaw, ...]

    @property
    def text(self) -> str:
        """What holds, or all that is wrong: `CN=pump-7, issued by CN=plant-ca: it expired at …`"""
        subject = _named(self.certificate)
        link = f"{subject}, issued by {_named(self.issuer)}" if self.issuer else f"{subject}, the anchor"
        return f"{link}: {'; '.join(flaw.why for flaw in self.flaws)}" if self.flaws else link


@dataclass(frozen=True, slots=True)
class Chain:
    """Leaf first; each certificate has the name of the issuer of the one before it, and its key signed that one."""

    certificates: tuple[Certificate, ...]

    @property
    def leaf(self) -> Certificate:
        return self.certificates[0]

    @property
    def top(self) -> Certificate:
        return self.certificates[-1]

    def __len__(self) -> int:
        return len(self.certificates)

    def extended(self, issuer: Certificate) -> Chain:
        return Chain((*self.certificates, issuer))

    def judge(self, now: int) -> list[Verdict]:
        """Leaf first, at the time `now` in microseconds; the top is taken for the anchor, to be trusted by itself."""
        return [self._verdict(place, now) for place in range(len(self))]

    def _verdict(self, place: int, now: int) -> Verdict:
        certificate, anchor = self.certificates[place], place == len(self) - 1
        flaws = leaf_flaws(certificate, now)
        if place > 0:
            flaws += _issuer_flaws(self.certificates, place, anchor=anchor)
        return Verdict(certificate, None if anchor else self.certificates[place + 1], tuple(flaws))


class ChainBuilder:
    """Finds the chains from a leaf upwards, one step at a time, so that nothing is parsed that is not needed."""

    def __init__(self, sent: Sequence[bytes]) -> None:
        """`sent` is DER, the leaf first and the rest in any order. Raises Invalid when the leaf cannot be parsed."""
        self.leaf = _readable(sent[0])
        self._unparsed = list(reversed(sent[1:MAX_SENT]))
        self._parsed: list[Certificate] = []
        self._signatures_left = MAX_SIGNATURES
        self._turned_away: list[str] = []
        self._open = [Chain((self.leaf,))]
        self._grown: list[
            tuple[Chain, list[Chain]]
        ] = []  # chains a step ago, and those that the store made of them
        self._ended: list[Chain] = []

    @property
    def wants(self) -> list[str]:
        """The issuer keys (`Certificate.issuer_key`) that the next `advance` is to be given stored ones of."""
        self._follow()
        return list(dict.fromkeys(chain.top.issuer_key for chain in self._open))

    @property
    def ended(self) -> Sequence[Chain]:
        """The chains that go no further: no certificate of their last issuer was sent or given."""
        self._follow()
        return self._ended

    @property
    def turned_away(self) -> Sequence[str]:
        """Certificates that have the name of an issuer without being it, in words."""
        self._follow()
        return self._turned_away

    def advance(self, stored: Mapping[str, Sequence[Certificate]]) -> list[Chain]:
        """One step up. `stored` has the certificates of each subject that is wanted.

        Returns the chains whose top is now a stored certificate. They are gone on with as well, until nothing
        more is wanted; what the device sent is looked at only then.
        """
        self._follow()
        reached: list[Chain] = []
        for chain in self._open:
            held = self._issuers(chain, stored.get(chain.top.issuer_key, ()))
            by_store = [chain.extended(each) for each in held]
            self._grown.append((chain, by_store))
            reached += by_store
        self._open = []
        return reached

    def _follow(self) -> None:
        """Finish the last step by what the device sent."""
        following: list[Chain] = []
        for chain, by_store in self._grown:
            held = {each.top for each in by_store}
            sent = [each for each in self._sent_with(chain.top.issuer_key) if each not in held]
            by_device = [chain.extended(each) for each in self._issuers(chain, sent)]
            following += [*by_store, *by_device]
            if not by_store and not by_device:
                self._ended.append(chain)
        self._grown = []
        self._open += [chain for chain in following if len(chain) < MAX_LENGTH][:MAX_CHAINS]
        self._ended += [chain for chain in following if len(chain) >= MAX_LENGTH]

    def was_sent(self, certificate: Certificate) -> bool:
        return certificate in self._all_sent()

    def _issuers(self, chain: Chain, candidates: Sequence[Certificate]) -> Iterator[Certificate]:
        for candidate in candidates:
            if candidate in chain.certificates:  # a loop, or a root that signed itself
                continue
            if self._signatures_left <= 0:
                return
            self._signatures_left -= 1
            if (
                signed_by(chain.top, candidate)
                if len(chain) == 1
                else _issuer_signed_by(chain.top, candidate)
            ):
                yield candidate
            elif len(self._turned_away) < MAX_TURNED_AWAY and chain.top.subject_key != candidate.subject_key:
                self._turned_away.append(_turned_away(chain.top, candidate))

    def _sent_with(self, subject_key: str) -> list[Certificate]:
        return [each for each in self._all_sent() if each.subject_key == subject_key]

    def _all_sent(self) -> list[Certificate]:
        while self._unparsed:
            try:
                certificate = _issuer(self._unparsed.pop())
            except Invalid:
                continue  # no issuer of anything
            if certificate not in self._parsed:
                self._parsed.append(certificate)
        return self._parsed


def leaf_flaws(certificate: Certificate, now: int) -> list[Flaw]:
    """What is wrong with it by itself, at the lower end of a chain."""
    return [*_date_flaws(certificate, now), *_extension_flaws(certificate)]


def anchor_flaws(certificate: Certificate, now: int) -> list[Flaw]:
    """What is wrong with it as the upper end of any chain, however short."""
    return [*leaf_flaws(certificate, now), *_issuer_flaws((certificate,), 0, anchor=True)]


def signed_by(child: Certificate, issuer: Certificate) -> bool:
    """Whether the key of `issuer` has signed `child`, over a hash that holds; names are left to the caller."""
    signed = child.parsed
    try:
        if weak_hash(child):
            return False
        key, parameters = issuer.public_key, signed.signature_algorithm_parameters
        signature, content = signed.signature, signed.tbs_certificate_bytes
        if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, content)
            return True
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(parameters, ec.ECDSA):
            key.verify(signature, content, parameters)
            return True
        if isinstance(key, rsa.RSAPublicKey) and isinstance(parameters, padding.PKCS1v15 | padding.PSS):
            digest = signed.signature_hash_algorithm
            if digest is not None:
                key.verify(signature, content, parameters, digest)
                return True
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        pass
    return False


@lru_cache(REMEMBERED)
def _issuer_signed_by(child: Certificate, issuer: Certificate) -> bool:
    """`signed_by` of two that are above a leaf. It depends on nothing but their bytes, by which they are equal."""
    return signed_by(child, issuer)


def weak_hash(certificate: Certificate) -> str:
    """The hash that the signature is over, if one that can be forged; else empty."""
    digest = certificate.parsed.signature_hash_algorithm
    return digest.name.upper() if digest is not None and digest.name in _WEAK_HASHES else ""


def _turned_away(child: Certificate, candidate: Certificate) -> str:
    told = f"{_named(candidate)} ({candidate.sha256[:16]}…) has the name of the issuer of {_named(child)}"
    try:
        weak = weak_hash(child)
    except UnsupportedAlgorithm:
        weak = "a hash that is not known here"
    if weak:
        return f"{told}, but that is signed over {weak}, which is not accepted: issue it again with -sha256"
    return f"{told}, but another key has signed that"


# --- What is judged ----------------------------------------------------------------------------------------


def _date_flaws(certificate: Certificate, now: int) -> Iterator[Flaw]:
    if now < certificate.not_before:
        why, code = f"it is not valid before {utc_text(certificate.not_before)}", NOT_YET_VALID
    elif now > certificate.not_after:
        why, code = f"it expired at {utc_text(certificate.not_after)}", EXPIRED
    else:
        return
    yield Flaw(why, f"Renew {_named(certificate)}, and compare the clocks of the two machines.", code)


def _extension_flaws(certificate: Certificate) -> Iterator[Flaw]:
    try:
        extensions = certificate.parsed.extensions
    except (ValueError, x509.DuplicateExtension, UnsupportedAlgorithm) as error:
        yield Flaw(
            f"its extensions cannot be parsed ({error})",
            f"Issue {_named(certificate)} again.",
            "unreadableExtensions",
        )
        return
    for extension in extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            yield Flaw(
                f"its critical extension {extension.oid.dotted_string} is not one that is judged here",
                f"Issue {_named(certificate)} without it, or not marked critical.",
                "criticalExtension",
            )


def _issuer_flaws(chain: Sequence[Certificate], place: int, *, anchor: bool) -> Iterator[Flaw]:
    """Why the certificate at `place` may not have issued the one below it."""
    certificate = chain[place]
    named = _named(certificate)
    if is_weak(certificate.public_key):
        yield Flaw(
            "its key is too short", f"Give {named} an RSA key of {_MIN_RSA_BITS} bits, or P-256.", "shortKey"
        )
    if certificate.version < 3 and anchor:
        return
    try:
        extensions = certificate.parsed.extensions
    except (ValueError, x509.DuplicateExtension, UnsupportedAlgorithm):
        return  # a flaw already
    constraints = _value(extensions, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        yield Flaw(
            "it is no CA certificate (basicConstraints without CA:TRUE)",
            f"Issue {named} with basicConstraints = critical,CA:TRUE.",
            "notCa",
        )
    elif constraints.path_length is not None:
        between = sum(each.issuer_key != each.subject_key for each in chain[1:place])
        if between > constraints.path_length:
            yield Flaw(
                f"its path length is {constraints.path_length}, and {between} intermediates are below it",
                f"Issue {named} with a pathlen of {between} or none.",
                "pathLength",
            )
    usage = _value(extensions, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        yield Flaw(
            "its key usage lacks keyCertSign", f"Issue {named} with keyUsage = keyCertSign.", "noCertSign"
        )
    if _value(extensions, x509.NameConstraints) is not None:
        yield Flaw(
            "it has name constraints, which are not judged here",
            f"Issue {named} without them.",
            "nameConstraints",
        )


def is_weak(key: CertificatePublicKeyTypes) -> bool:
    return isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS


def _value(extensions: x509.Extensions, kind: type[E]) -> E | None:
    return next((each.value for each in extensions if isinstance(each.value, kind)), None)


@lru_cache(REMEMBERED)
def _issuer(der: bytes) -> Certificate:
    """Like `_readable`, for what a device sends behind its leaf."""
    return _readable(der)


def _readable(der: bytes) -> Certificate:
    """A certificate of which all can be read that is asked for later on. Raises Invalid."""
    certificate = Certificate(der)
    try:
        certificate.subject_key, certificate.issuer_key, certificate.not_before, certificate.not_after  # noqa: B018
    except ValueError as error:
        raise Invalid("certificate", f"it cannot be parsed ({error})") from None
    return certificate


def _named(certificate: Certificate) -> str:
    return shortened(certificate.subject)


def shortened(name: str) -> str:
    """A subject or issuer as it is told: devices may bring names of any length."""
    return name[:_MAX_NAME] or "(no name)"
