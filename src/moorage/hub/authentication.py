"""How a device identity proves itself: what is registered of it, and the judgement of what is presented."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage.credentials.decision import Finding
from moorage.credentials.policy import DEVICE_CONNECT, SharedAccessPolicy
from moorage.credentials.sas import SasToken, check_key, covers, new_key, verify
from moorage.credentials.x509 import thumbprints
from moorage.errors import Invalid, Unauthorized
from moorage.hub.twin import json_object

SAS = "sas"
SELF_SIGNED = "selfSigned"
CERTIFICATE_AUTHORITY = "certificateAuthority"
NONE = "none"

_TYPES = {name.lower(): name for name in (SAS, SELF_SIGNED, CERTIFICATE_AUTHORITY, NONE)}
_THUMBPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_GENERATED_KEY = 32  # bytes [hub-service 5.2]


@dataclass(frozen=True)
class Authentication:
    """What a hub keeps of a device's credentials: keys in base64 for `sas`, thumbprints for `selfSigned`.

    Thumbprints are SHA-1 or SHA-256 of the certificate's DER, hexadecimal in upper case.
    """

    type: str
    primary_key: str | None = field(default=None, repr=False)
    secondary_key: str | None = field(default=None, repr=False)
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None

    def __post_init__(self) -> None:
        if self.type not in _TYPES.values():
            raise Invalid("authentication.type", f"unknown type {self.type!r:.40}")
        if self.type == SAS and None in self.keys:
            raise Invalid("authentication.symmetricKey", "both keys are needed")
        if self.type != SAS and any(self.keys):
            raise Invalid("authentication.symmetricKey", f"type {self.type} has no keys")
        if self.type == SELF_SIGNED and not any(self.thumbprints):
            raise Invalid("authentication.x509Thumbprint", f"type {SELF_SIGNED} needs a thumbprint")
        if self.type != SELF_SIGNED and any(self.thumbprints):
            raise Invalid("authentication.x509Thumbprint", f"type {self.type} has no thumbprints")
        for name, key in zip(("primaryKey", "secondaryKey"), self.keys, strict=True):
            if key is not None:
                check_key(f"authentication.symmetricKey.{name}", key)
        for thumbprint in self.thumbprints:
            if thumbprint is not None and not _THUMBPRINT.fullmatch(thumbprint):
                raise Invalid("authentication.x509Thumbprint", "a thumbprint has 40 or 64 hexadecimal digits")

    @property
    def keys(self) -> tuple[str | None, str | None]:
        return self.primary_key, self.secondary_key

    @property
    def thumbprints(self) -> tuple[str | None, str | None]:
        return self.primary_thumbprint, self.secondary_thumbprint

    @classmethod
    def symmetric(cls, primary_key: str | None = None, secondary_key: str | None = None) -> Authentication:
        """By keys; the hub makes those that are missing or empty. [hub-service 5.2]"""
        return cls(SAS, primary_key or new_key(_GENERATED_KEY), secondary_key or new_key(_GENERATED_KEY))

    @classmethod
    def self_signed(cls, primary: str | None, secondary: str | None = None) -> Authentication:
        """By thumbprints, hexadecimal in any case."""
        return cls(
            SELF_SIGNED,
            primary_thumbprint=primary.upper() if primary else None,
            secondary_thumbprint=secondary.upper() if secondary else None,
        )

    @classmethod
    def from_view(cls, view: Mapping[str, Any]) -> Authentication:
        """Back from what `view` gave, which is also how it is kept."""
        keys, prints = view["symmetricKey"], view["x509Thumbprint"]
        return cls(
            view["type"],
            keys["primaryKey"],
            keys["secondaryKey"],
            prints["primaryThumbprint"],
            prints["secondaryThumbprint"],
        )

    def view(self) -> dict[str, Any]:
        """As clients read it, keys included. [hub-service 5.2]"""
        return {
            "symmetricKey": {"primaryKey": self.primary_key, "secondaryKey": self.secondary_key},
            "x509Thumbprint": self.thumbprint_view(),
            "type": self.type,
        }

    def thumbprint_view(self) -> dict[str, str | None]:
        return {
            "primaryThumbprint": self.primary_thumbprint,
            "secondaryThumbprint": self.secondary_thumbprint,
        }


def read_authentication(document: object) -> Authentication:
    """From JSON; what is absent, null or empty falls back to new keys. Raises Invalid. [hub-service 5.2]"""
    members = json_object("authentication", document)
    keys = json_object("authentication.symmetricKey", members.get("symmetricKey"))
    prints = json_object("authentication.x509Thumbprint", members.get("x509Thumbprint"))
    primary = _text("authentication.x509Thumbprint.primaryThumbprint", prints.get("primaryThumbprint"))
    secondary = _text("authentication.x509Thumbprint.secondaryThumbprint", prints.get("secondaryThumbprint"))
    match _type(members.get("type"), has_thumbprint=bool(primary or secondary)):
        case "sas":
            return Authentication.symmetric(
                _text("authentication.symmetricKey.primaryKey", keys.get("primaryKey")),
                _text("authentication.symmetricKey.secondaryKey", keys.get("secondaryKey")),
            )
        case "selfSigned":
            return Authentication.self_signed(primary, secondary)
        case other:
            return Authentication(other)


def _type(name: object, *, has_thumbprint: bool) -> str:
    if not name:
        return SELF_SIGNED if has_thumbprint else SAS
    if not isinstance(name, str) or name.lower() not in _TYPES:
        raise Invalid("authentication.type", f"it is one of {', '.join(_TYPES.values())}")
    return _TYPES[name.lower()]


def _text(field_name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Invalid(field_name, "it is not a string")
    return value or None


# --- Judgement -------------------------------------------------------------------------------------------


def check_certificate(authentication: Authentication, chain: Sequence[bytes], finding: Finding) -> None:
    """Raises Unauthorized unless the leaf of `chain` has a registered thumbprint.

    Its dates and issuer do not matter: the thumbprint is the basis of trust. [hub-device 2.4]
    """
    if not chain:
        raise Unauthorized(
            "the device is registered with a certificate and presented none",
            check="certificate present",
            remedy="Connect with the device's certificate and key.",
        )
    finding.hold("certificate present")
    presented = thumbprints(chain[0])
    for registered in filter(None, authentication.thumbprints):
        own = presented.sha1 if len(registered) == len(presented.sha1) else presented.sha256
        if hmac.compare_digest(own, registered):
            finding.hold("thumbprint")
            return
    raise Unauthorized(
        f"the certificate presented (SHA-256 {presented.sha256}) is not registered for the device",
        check="thumbprint",
        remedy="Present the registered certificate, or register this one's thumbprint.",
    )


def check_token(
    authentication: Authentication,
    policy: SharedAccessPolicy | None,
    token: SasToken,
    resources: Sequence[str],
    now: int,
    skew_seconds: int,
    finding: Finding,
) -> None:
    """Raises Unauthorized unless `token` holds for one of `resources` and gives the right to connect.

    It is signed by `policy` when it names one, else by a key of the device. [hub-device 2.2]
    """
    keys = policy.keys if policy else tuple(filter(None, authentication.keys))
    verify(token, keys, now, skew_seconds=skew_seconds)
    finding.hold("signature")
    finding.hold("expiry")
    if not any(covers(token.resource, resource) for resource in resources):
        raise Unauthorized(
            f"the SAS token is for '{token.resource[:300]}', which does not cover '{resources[0]}'",
            check="audience",
            remedy=f"Make the token for '{resources[0]}'.",
        )
    finding.hold("audience")
    if policy is None:
        return
    if not policy.allows(DEVICE_CONNECT):
        raise Unauthorized(
            f"shared access policy '{policy.name}' does not have the right {DEVICE_CONNECT}",
            check="right",
            remedy=f"Use the device's own key, or a policy that has {DEVICE_CONNECT}.",
        )
    finding.hold("right")


def check_kind_of_proof(authentication: Authentication, token: SasToken | None) -> None:
    """Raises Unauthorized unless what is presented is of the registered type."""
    if authentication.type == NONE:
        raise Unauthorized(
            "the device is registered with no way to authenticate",
            check="kind of proof",
            remedy="Register the device with keys or thumbprints.",
        )
    if authentication.type in (SELF_SIGNED, CERTIFICATE_AUTHORITY) and token is not None:
        raise Unauthorized(
            "the device is registered with a certificate and presented a SAS token",
            check="kind of proof",
            remedy="Connect with the certificate and without a password, or register the device with keys.",
        )
    if authentication.type == SAS and token is None:
        raise Unauthorized(
            "the device is registered with keys and presented no SAS token",
            check="kind of proof",
            remedy="Send a SAS token as the password, or register the certificate's thumbprint.",
        )
