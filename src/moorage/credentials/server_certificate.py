"""The certificate that the server shows: the operator's own, or one of the local CA, issued again for further names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from cryptography import x509

from moorage.credentials.authority import LocalAuthority
from moorage.credentials.keys import KeyType
from moorage.errors import Invalid


class ServerCertificate(Protocol):
    """`chain_file` and `key_file` are PEM and may be one file; the other two are None where clients need no help."""

    chain_file: Path
    key_file: Path
    ca_file: Path | None  # what clients are to trust
    bundle_file: Path | None  # that and the public roots

    def cover(self, names: Iterable[str]) -> None:
        """See to it that the files cover `names` too. Blocks for a new key and a sync; raises Invalid."""
        ...


class OperatorCertificate:
    """A certificate that the operator has brought, and renews."""

    def __init__(self, chain_file: Path, key_file: Path) -> None:
        self.chain_file = chain_file
        self.key_file = key_file
        self.ca_file: Path | None = None
        self.bundle_file: Path | None = None

    def cover(self, names: Iterable[str]) -> None:
        """Nothing is issued here: raises Invalid where the certificate lacks one of `names`."""
        covered = _covered(self.chain_file)
        for name in names:
            if name not in covered and f"*.{name.partition('.')[2]}" not in covered:
                raise Invalid(
                    "hostNames",
                    f"{name} is not covered by your certificate {self.chain_file}: put one there that covers it, "
                    "which is loaded without a restart, and try again",
                )


class IssuedCertificate:
    """A certificate of the local CA. What it once covered in this server's life it keeps covering."""

    def __init__(
        self, authority: LocalAuthority, folder: Path, names: Iterable[str], key_type: KeyType
    ) -> None:
        """Kept in `folder`, and taken up again from there when it covers all `names`."""
        self.ca_file: Path | None = authority.certificate_file
        self.bundle_file: Path | None = authority.bundle((folder / "ca-bundle.pem").resolve())
        self._authority = authority
        self._folder = folder
        self._names = dict.fromkeys(names)
        self._key_type = key_type
        self.chain_file = self.key_file = self._issue()

    def cover(self, names: Iterable[str]) -> None:
        self._names |= dict.fromkeys(names)
        self._issue()

    def _issue(self) -> Path:
        return self._authority.server_file(self._folder, self._names, self._key_type)


def _covered(chain_file: Path) -> set[str]:
    """The host names, in lower case, and the addresses that the leaf is good for. Raises Invalid."""
    try:
        leaf = x509.load_pem_x509_certificates(chain_file.read_bytes())[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise Invalid(str(chain_file), f"it names no host ({error})") from None
    hosts = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    return hosts | {str(address) for address in names.get_values_for_type(x509.IPAddress)}
