"""The certificate that the server shows, as further names come in use."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from moorage.credentials.authority import LocalAuthority
from moorage.credentials.server_certificate import IssuedCertificate, OperatorCertificate
from moorage.errors import Invalid
from tests.credentials.test_authority import SetClock

NOW = 1_800_000_000_000_000


@pytest.fixture
def authority(tmp_path: Path) -> LocalAuthority:
    return LocalAuthority.open(tmp_path / "ca", SetClock(NOW))


def names(file: Path) -> set[str]:
    leaf = x509.load_pem_x509_certificates(file.read_bytes())[0]
    covered = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(each.value) for each in covered}


def test_what_was_covered_stays_so(authority: LocalAuthority, tmp_path: Path) -> None:
    issued = IssuedCertificate(authority, tmp_path, ["hub.local"], "ec")
    assert issued.chain_file == issued.key_file
    assert issued.bundle_file is not None
    assert issued.bundle_file.exists()

    issued.cover(["127.0.0.2"])
    issued.cover(["beta.local"])

    assert names(issued.chain_file) >= {"hub.local", "127.0.0.2", "beta.local", "localhost"}


def test_nothing_new_nothing_issued(authority: LocalAuthority, tmp_path: Path) -> None:
    issued = IssuedCertificate(authority, tmp_path, ["hub.local"], "ec")
    before = issued.chain_file.read_bytes()
    issued.cover(["hub.local"])
    assert issued.chain_file.read_bytes() == before


def test_the_operators_own_has_to_cover_it_already(authority: LocalAuthority, tmp_path: Path) -> None:
    file = authority.server_file(tmp_path, ["hub.example.net", "*.example.org", "127.0.0.2"])
    own = OperatorCertificate(file, file)
    assert own.ca_file is None
    assert own.bundle_file is None

    own.cover(["hub.example.net", "beta.example.org", "127.0.0.2"])

    for name in ("a.beta.example.org", "example.org", "127.0.0.3", "beta.example.net"):
        with pytest.raises(Invalid, match=name):
            own.cover([name])


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "own.pem"
    file.write_text("not one")
    with pytest.raises(Invalid, match="names no host"):
        OperatorCertificate(file, file).cover(["hub.local"])
