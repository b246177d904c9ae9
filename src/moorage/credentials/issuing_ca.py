"""The CA that issues certificates to devices on request: a root, and an intermediate that is renewed below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from moorage.credentials.issuing import Profile, Validity, common_name, sign
from moorage.credentials.keys import PrivateKey, key_pem, new_key, read_key

ROOT_LIFE = timedelta(days=7305)
INTERMEDIATE_LIFE = timedelta(days=1826)
LONGEST_LEAF = timedelta(days=90)  # [dps 20.1]


@dataclass(frozen=True, slots=True)
class IssuingCa:
    """`root` is what hubs trust; `intermediate` signs. Both are kept with their keys."""

    root: x509.Certificate
    root_key: PrivateKey = field(repr=False)
    intermediate: x509.Certificate
    intermediate_key: PrivateKey = field(repr=False)

    @classmethod
    def make(cls, name: str, now: datetime) -> IssuingCa:
        """Named after the service, so that a person sees where a certificate comes from."""
        key = new_key("ec")
        subject = common_name(f"{name} credential root")
        validity = Validity.starting(now, ROOT_LIFE)
        root = sign(subject, key.public_key(), validity, Profile(ca=True, path_length=1), key=key)
        return cls(root, key, root, key)._with_new_intermediate(name, now)

    def renewed(self, name: str, now: datetime) -> IssuingCa:
        """The CA to issue with at `now`: this one, unless its intermediate could not outlive a leaf."""
        if self.intermediate.not_valid_after_utc - now > LONGEST_LEAF:
            return self
        return self._with_new_intermediate(name, now)

    def _with_new_intermediate(self, name: str, now: datetime) -> IssuingCa:
        key = new_key("ec")
        intermediate = sign(
            common_name(f"{name} credential issuer {now:%Y-%m}"),
            key.public_key(),
            Validity.starting(now, INTERMEDIATE_LIFE).within(self.root),
            Profile(ca=True, path_length=0),
            key=self.root_key,
            issuer=self.root,
        )
        return replace(self, intermediate=intermediate, intermediate_key=key)

    def issue(
        self,
        name: str,
        public_key: CertificatePublicKeyTypes,
        *,
        life: timedelta,
        usages: Sequence[ObjectIdentifier],
        now: datetime,
    ) -> list[bytes]:
        """A certificate with `name` as its common name, and the chain above it: DER, leaf first, root last."""
        leaf = sign(
            common_name(name),
            public_key,
            Validity.starting(now, life).within(self.intermediate),
            Profile(extended_usages=usages),
            key=self.intermediate_key,
            issuer=self.intermediate,
        )
        return [each.public_bytes(Encoding.DER) for each in (leaf, self.intermediate, self.root)]

    def to_document(self) -> dict[str, str]:
        """PEM. The keys are not encrypted: whoever reads the records may read them."""
        return {
            "root": self.root.public_bytes(Encoding.PEM).decode(),
            "rootKey": key_pem(self.root_key).decode(),
            "intermediate": self.intermediate.public_bytes(Encoding.PEM).decode(),
            "intermediateKey": key_pem(self.intermediate_key).decode(),
        }

    @classmethod
    def from_document(cls, document: dict[str, str]) -> IssuingCa:
        return cls(
            root=x509.load_pem_x509_certificate(document["root"].encode()),
            root_key=read_key(document["rootKey"].encode()),
            intermediate=x509.load_pem_x509_certificate(document["intermediate"].encode()),
            intermediate_key=read_key(document["intermediateKey"].encode()),
        )
