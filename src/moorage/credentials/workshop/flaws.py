"""Certificates with one flaw each, for people who test how their programs take it.

All else about them is right, so that what refuses one refuses it for its flaw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from moorage.credentials.issuing import Profile, common_name, sign
from moorage.credentials.keys import PrivateKey, new_key
from moorage.credentials.workshop import der
from moorage.credentials.workshop.credential import (
    Credential,
    Wish,
    issue,
    make_device,
    make_root,
)
from moorage.credentials.workshop.subject import name_of
from moorage.errors import NotSupported

_CLIENT = Profile(extended_usages=[ExtendedKeyUsageOID.CLIENT_AUTH])
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Broken:
    """`root` is what a service is to trust; `sent` is what the device presents; `key` is the key it has."""

    root: x509.Certificate
    sent: tuple[x509.Certificate, ...]
    certificate: x509.Certificate
    key: PrivateKey


class Flaw(NamedTuple):
    """`what` is wrong, in a sentence for whoever asks what to expect."""

    what: str
    make: Callable[[Wish], Broken]


def _authorities(wish: Wish, *, path_length: int | None = None) -> tuple[Credential, Credential]:
    """A root and an intermediate below it, named after the device."""
    name = _name(wish)[:40]
    above = wish._replace(days=max(wish.days, 2))
    root = make_root(above._replace(subject=common_name(f"{name} test root")), path_length=path_length)
    subject = common_name(f"{name} test intermediate")
    return root, issue(above._replace(subject=subject), root, Profile(ca=True))


def _name(wish: Wish) -> str:
    return name_of(wish.subject) or "device"


def _whole(device: Credential) -> Broken:
    return Broken(device.chain[-1], device.chain, device.certificate, device.key)


def _dated(wish: Wish, start: timedelta, end: timedelta) -> Broken:
    _, issuer = _authorities(wish._replace(now=wish.now - 30 * _DAY, days=400))
    key = wish.key()
    validity = wish.validity._replace(not_before=wish.now + start, not_after=wish.now + end)
    certificate = sign(
        wish.subject, key.public_key(), validity, _CLIENT, key=issuer.key, issuer=issuer.certificate
    )
    return _whole(Credential(certificate, key, issuer.chain))


def _expired(wish: Wish) -> Broken:
    return _dated(wish, -10 * _DAY, -1 * _DAY)


def _not_yet_valid(wish: Wish) -> Broken:
    return _dated(wish, 1 * _DAY, 10 * _DAY)


def _cn_mismatch(wish: Wish) -> Broken:
    other = common_name(f"not-{_name(wish)}"[:64])
    return _whole(make_device(wish._replace(subject=other), _authorities(wish)[1]))


def _empty_subject(wish: Wish) -> Broken:
    return _whole(issue(wish._replace(subject=x509.Name([])), _authorities(wish)[1], _CLIENT))


def _missing_link(wish: Wish) -> Broken:
    broken = _whole(make_device(wish, _authorities(wish)[1]))
    return replace(broken, sent=(broken.certificate, broken.root))


def _chain_order(wish: Wish) -> Broken:
    broken = _whole(make_device(wish, _authorities(wish)[1]))
    return replace(broken, sent=tuple(reversed(broken.sent)))


def _path_length(wish: Wish) -> Broken:
    return _whole(issue(wish, _authorities(wish, path_length=0)[1], _CLIENT))


def _not_a_ca(wish: Wish) -> Broken:
    root, _ = _authorities(wish)
    device = make_device(wish._replace(subject=common_name(f"{_name(wish)[:40]} as issuer")), root)
    return _whole(issue(wish, device, _CLIENT))


def _no_cert_sign(wish: Wish) -> Broken:
    root, intermediate = _authorities(wish)
    subject = wish._replace(subject=intermediate.certificate.subject)
    return _whole(issue(wish, issue(subject, root, Profile(ca=True, key_cert_sign=False)), _CLIENT))


def _wrong_usage(wish: Wish) -> Broken:
    profile = Profile(extended_usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    return _whole(issue(wish, _authorities(wish)[1], profile))


def _wrong_issuer(wish: Wish) -> Broken:
    _, issuer = _authorities(wish)
    key = wish.key()
    validity = wish.validity.within(issuer.certificate)
    certificate = sign(
        wish.subject,
        key.public_key(),
        validity,
        _CLIENT,
        key=new_key(wish.key_type),
        issuer=issuer.certificate,
    )
    return _whole(Credential(certificate, key, issuer.chain))


def _bad_signature(wish: Wish) -> Broken:
    device, issuer = _issued(wish)
    algorithm = der.signature_algorithm(device.certificate)
    certificate = der.signed_again(
        device.certificate,
        algorithm,
        lambda signed: _signature(issuer.key, signed + b"altered", hashes.SHA256()),
    )
    return _whole(replace(device, certificate=certificate))


def _sha1(wish: Wish) -> Broken:
    device, issuer = _issued(wish)
    is_ec = isinstance(issuer.key, ec.EllipticCurvePrivateKey)
    algorithm = der.ECDSA_WITH_SHA1 if is_ec else der.SHA1_WITH_RSA
    try:
        certificate = der.signed_again(
            device.certificate, algorithm, lambda signed: _signature(issuer.key, signed, hashes.SHA1())
        )
    except UnsupportedAlgorithm:
        raise NotSupported(
            "signing with SHA-1", "the OpenSSL of this Python's cryptography has it switched off"
        ) from None
    return _whole(replace(device, certificate=certificate))


def _issued(wish: Wish) -> tuple[Credential, Credential]:
    _, issuer = _authorities(wish)
    return make_device(wish, issuer), issuer


def _signature(key: PrivateKey, content: bytes, algorithm: HashAlgorithm) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(content, ec.ECDSA(algorithm))
    return key.sign(content, padding.PKCS1v15(), algorithm)


def _weak_key(wish: Wish) -> Broken:
    return _whole(make_device(wish._replace(key_type="rsa", rsa_bits=1024), _authorities(wish)[1]))


def _key_mismatch(wish: Wish) -> Broken:
    return replace(_whole(make_device(wish, _authorities(wish)[1])), key=new_key(wish.key_type))


FLAWS: dict[str, Flaw] = {
    "expired": Flaw("The device's certificate ended a day ago.", _expired),
    "not-yet-valid": Flaw("The device's certificate begins tomorrow.", _not_yet_valid),
    "cn-mismatch": Flaw(
        "The common name is 'not-' and the name asked for, not the name itself.", _cn_mismatch
    ),
    "empty-subject": Flaw(
        "The subject is empty, as openssl makes it of -subj //CN=name outside Git Bash.", _empty_subject
    ),
    "missing-link": Flaw(
        "The device presents leaf and root, and leaves out the intermediate.", _missing_link
    ),
    "chain-order": Flaw("The chain file has the root first and the leaf last.", _chain_order),
    "path-length": Flaw("The root's path length is 0, and there is an intermediate below it.", _path_length),
    "not-a-ca": Flaw("The issuer of the leaf is a device's certificate, not a CA (CA:FALSE).", _not_a_ca),
    "no-cert-sign": Flaw(
        "The intermediate's key usage does not allow it to sign certificates.", _no_cert_sign
    ),
    "wrong-usage": Flaw(
        "The leaf is for servers alone (extended key usage serverAuth). DPS does not look at that; "
        "strict verifiers do.",
        _wrong_usage,
    ),
    "wrong-issuer": Flaw(
        "The leaf was signed by an impostor: same name as the intermediate, another key.", _wrong_issuer
    ),
    "bad-signature": Flaw("The signature on the leaf is not of its content.", _bad_signature),
    "sha1": Flaw("The leaf is signed with SHA-1, which today's TLS stacks refuse.", _sha1),
    "weak-key": Flaw("The device's key is RSA of 1024 bits, which today's TLS stacks refuse.", _weak_key),
    "key-mismatch": Flaw("The key file holds another key than the certificate's.", _key_mismatch),
}
"""By name, as `moorage cert broken --flaw` takes them."""
