"""Shared access signatures.

    SharedAccessSignature sr={resource}&sig={signature}&se={expiry}[&skn={key name}]

The signature covers `sr` as the caller wrote it, escapes and all, so the raw text is kept and decoded only to
compare resources. [dps 5.1, hub-device 2.2, hub-service 2.2]
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from moorage.errors import Invalid, Unauthorized

CONNECT_SKEW = 300
"""Seconds after its expiry during which a token still opens a connection. [hub-device 2.3]"""

_SCHEME = "sharedaccesssignature "
_MAX_TOKEN = 4096  # characters; a token with every part at its longest stays below 2,000
_MAX_EXPIRY_DIGITS = 15
_TRANSPORT_SCHEMES = ("sb://", "amqps://", "amqp://", "https://", "wss://")


@dataclass(frozen=True, slots=True)
class SasToken:
    """A token taken apart. `expiry` is in seconds since 1970; `key_name` is None when absent or empty."""

    resource_raw: str
    resource: str
    signature: bytes = field(repr=False)
    expiry: int
    key_name: str | None
    expiry_raw: str = field(repr=False)


def parse_token(text: str) -> SasToken:
    """Take a token apart; its parts may come in any order. Raises Unauthorized."""
    if len(text) > _MAX_TOKEN:
        raise _malformed(f"it is over {_MAX_TOKEN} characters long")
    if text[: len(_SCHEME)].lower() != _SCHEME:
        raise _malformed("it does not start with 'SharedAccessSignature '")
    parts = _parts(text[len(_SCHEME) :].strip())
    expiry = parts["se"]
    if not (expiry.isascii() and expiry.isdigit() and len(expiry) <= _MAX_EXPIRY_DIGITS):
        raise _malformed("'se' is not a whole number of seconds since 1970")
    return SasToken(
        resource_raw=parts["sr"],
        resource=unquote(parts["sr"]),
        signature=_signature_bytes(parts["sig"]),
        expiry=int(expiry),
        key_name=unquote(parts.get("skn", "")) or None,
        expiry_raw=expiry,
    )


def _parts(text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for pair in text.split("&"):
        # At the first '=' only: a signature whose padding was not escaped has more of them.
        name, _, value = pair.partition("=")
        if name in parts:
            raise _malformed(f"'{name}' stands in it twice")
        parts[name] = value
    for name in ("sr", "sig", "se"):
        if not parts.get(name):
            raise _malformed(f"'{name}' is missing")
    return parts


def _signature_bytes(text: str) -> bytes:
    # '+' stays '+': it is a digit of base64 that some clients forget to escape. [dps 5.1]
    try:
        return base64.b64decode(unquote(text), validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("'sig' is not base64") from None


def _malformed(why: str) -> Unauthorized:
    return Unauthorized(
        f"the SAS token cannot be read: {why}",
        check="token form",
        remedy="Send 'SharedAccessSignature sr={resource}&sig={signature}&se={expiry}'.",
    )


def signed_by(token: SasToken, keys: Iterable[str], *, text_keys: bool = False) -> bool:
    """Whether one of `keys` (base64) made the signature.

    With `text_keys` a key also counts by its text as it stands, undecoded, as Event Hubs clients use it.
    """
    message = f"{token.resource_raw}\n{token.expiry_raw}".encode()
    return any(
        hmac.compare_digest(hmac.digest(secret, message, "sha256"), token.signature)
        for key in keys
        for secret in _secrets(key, text_keys)
    )


def _secrets(key: str, text_keys: bool) -> Iterable[bytes]:
    try:
        yield base64.b64decode(key, validate=True)
    except ValueError:
        pass
    if text_keys:
        yield key.encode()


def verify(
    token: SasToken,
    keys: Iterable[str],
    now: int,
    *,
    skew_seconds: int = CONNECT_SKEW,
    text_keys: bool = False,
) -> None:
    """Raises Unauthorized unless one of `keys` signed the token and it has not expired.

    `now` is in microseconds. Expiry is judged last, so that only a genuine token is told that it is too old.
    """
    if not signed_by(token, keys, text_keys=text_keys):
        raise Unauthorized(
            "the signature of the SAS token fits neither the primary nor the secondary key",
            check="signature",
            remedy="Sign the token with a current key, over 'sr' as it is sent, a line feed, and 'se'.",
        )
    late = now // 1_000_000 - token.expiry
    if late >= skew_seconds:
        raise Unauthorized(
            f"the SAS token expired {late} seconds ago",
            check="expiry",
            remedy="Make a new token, and compare the clocks of the two machines.",
        )


def covers(resource: str, wanted: str, *, ignore_case: bool = False) -> bool:
    """Whether a token for `resource` is good for `wanted`: the same, or a parent of it, segment by segment.

    Both are decoded. A scheme and a port are passed over and the host compares without regard to case; with
    `ignore_case` so does the path.
    """
    have, want = _segments(resource, ignore_case), _segments(wanted, ignore_case)
    return bool(have[0]) and want[: len(have)] == have


def _segments(resource: str, ignore_case: bool) -> list[str]:
    lowered = resource.lower()
    for scheme in _TRANSPORT_SCHEMES:
        if lowered.startswith(scheme):
            resource = resource[len(scheme) :]
            break
    host, *path = resource.strip("/").split("/")
    return [host_name(host), *(part.lower() if ignore_case else part for part in path)]


def host_name(host: str) -> str:
    """`host` in lower case without a port: `Hub.local:8443` → `hub.local`, `[::1]:443` → `::1`."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    # Two colons and no brackets: an IPv6 address, which has no port to take off.
    return name if colon and ":" not in name and (port.isdigit() or not port) else host


def make_token(
    resource: str,
    key: str,
    expiry: int,
    key_name: str | None = None,
    *,
    encode: bool = True,
    text_key: bool = False,
) -> str:
    """A token for `resource` (decoded) until `expiry` (seconds since 1970), signed with `key` (base64).

    `encode=False` leaves `sr` as it is, as some clients do; `text_key` signs with the text of the key.
    """
    secret = key.encode() if text_key else base64.b64decode(key)
    return sign_token(
        quote(resource, safe="") if encode else resource,
        expiry,
        lambda content: hmac.digest(secret, content, "sha256"),
        key_name,
    )


def sign_token(written: str, expiry: int, sign: Callable[[bytes], bytes], key_name: str | None = None) -> str:
    """The token of a resource as it is `written`, by whoever holds the key: `sign` is HMAC-SHA256 with it."""
    signature = base64.b64encode(sign(f"{written}\n{expiry}".encode()))
    name = f"&skn={quote(key_name, safe='')}" if key_name else ""
    return f"SharedAccessSignature sr={written}&sig={quote(signature, safe='')}&se={expiry}{name}"


def new_key(length: int = 64) -> str:
    """A random key of `length` bytes, base64."""
    return base64.b64encode(secrets.token_bytes(length)).decode()


def derive_key(group_key: str, registration_id: str) -> str:
    """The key of one device of a symmetric-key group, base64. [dps 10]"""
    return base64.b64encode(
        hmac.digest(base64.b64decode(group_key), registration_id.encode(), "sha256")
    ).decode()


def check_key(field_name: str, key: str) -> None:
    """Raises Invalid unless `key` is base64 of 16 to 64 bytes. [hub-service 5.2, dps 10]"""
    try:
        length = len(base64.b64decode(key, validate=True))
    except ValueError:
        raise Invalid(field_name, "a key is base64 text") from None
    if not 16 <= length <= 64:
        raise Invalid(field_name, f"a key has 16 to 64 bytes, this one {length}")
