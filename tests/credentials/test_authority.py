"""The local authority: what it issues is trusted by a strict client, and its files survive whatever comes."""

from __future__ import annotations

import os
import ssl
import stat
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from moorage.credentials.authority import STANDARD_NAMES, LocalAuthority
from moorage.credentials.keys import KeyType
from moorage.errors import Invalid

AnyKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
DAY = 86_400_000_000


@dataclass
class SetClock:
    """A clock that stands where it was set, in microseconds."""

    time: int

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / 1e6


@pytest.fixture
def clock() -> SetClock:
    # Near the system's time, which is what the handshakes below go by.
    return SetClock(int(datetime.now(UTC).timestamp()) * 1_000_000)


@pytest.fixture
def authority(tmp_path: Path, clock: SetClock) -> LocalAuthority:
    return LocalAuthority.open(tmp_path / "ca", clock)


def certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def names(certificate: x509.Certificate) -> set[str]:
    covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {
        *covered.get_values_for_type(x509.DNSName),
        *map(str, covered.get_values_for_type(x509.IPAddress)),
    }


def handshake(server_file: Path, trusted: Path, name: str) -> None:
    """A client that trusts `trusted` and nothing else meets a server over memory. Raises ssl.SSLError."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(server_file)
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.load_verify_locations(trusted)
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "127.0.0.1",
        "::1",
        "my.azure-devices.net",
        "global.azure-devices-provisioning.net",
        "hub.test",
    ],
)
def test_a_strict_client_trusts_the_server(
    authority: LocalAuthority, tmp_path: Path, key_type: KeyType, name: str
) -> None:
    file = authority.server_file(tmp_path, ["hub.test"], key_type)
    handshake(file, authority.certificate_file, name)


def test_a_client_with_another_authority_does_not(
    authority: LocalAuthority, tmp_path: Path, clock: SetClock
) -> None:
    other = LocalAuthority.open(tmp_path / "other", clock)
    file = authority.server_file(tmp_path, [])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(file, other.certificate_file, "localhost")


def test_the_certificate_of_the_authority(authority: LocalAuthority, clock: SetClock) -> None:
    (certificate,) = certificates(authority.certificate_file.read_bytes())
    assert certificate.subject.rfc4514_string().startswith("CN=Moorage local CA ")
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    ends = certificate.not_valid_after_utc - datetime.fromtimestamp(clock.time / 1e6, UTC)
    assert timedelta(days=3650) < ends < timedelta(days=3660)


@pytest.mark.parametrize(
    ("key_type", "key_class"), [("ec", ec.EllipticCurvePublicKey), ("rsa", rsa.RSAPublicKey)]
)
def test_a_server_certificate(authority: LocalAuthority, key_type: KeyType, key_class: type) -> None:
    issued = authority.issue_server(["Hub.Example.Org", "192.0.2.7", "*.example.org"], key_type)
    (certificate,) = certificates(issued.chain)
    assert isinstance(certificate.public_key(), key_class)
    assert names(certificate) == {*STANDARD_NAMES, "hub.example.org", "192.0.2.7", "*.example.org"}
    (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common_name.value == "hub.example.org"
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=398)


def test_a_long_name_is_covered_and_not_the_common_name(authority: LocalAuthority) -> None:
    long_name = "a" * 60 + ".example.org"
    (certificate,) = certificates(authority.issue_server([long_name]).chain)
    assert long_name in names(certificate)
    assert certificate.subject.rfc4514_string() == "CN=localhost"


def test_an_international_name_is_covered_in_ascii(authority: LocalAuthority) -> None:
    (certificate,) = certificates(authority.issue_server(["bücher.example"]).chain)
    assert "xn--bcher-kva.example" in names(certificate)
    with pytest.raises(Invalid):
        authority.issue_server(["ü" * 300])


def test_the_authority_is_made_once(authority: LocalAuthority, clock: SetClock) -> None:
    again = LocalAuthority.open(authority.certificate_file.parent, clock)
    assert again.certificate_pem == authority.certificate_pem


def test_first_starts_at_the_same_time_agree(tmp_path: Path, clock: SetClock) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: LocalAuthority.open(tmp_path / "ca", clock), range(16)))
    assert len({each.certificate_pem for each in opened}) == 1
    assert sorted(os.listdir(tmp_path / "ca")) == ["ca-key.pem", "ca.pem"]


def test_a_start_that_was_cut_short_after_the_key_is_finished(tmp_path: Path, clock: SetClock) -> None:
    first = LocalAuthority.open(tmp_path, clock)
    key = (tmp_path / "ca-key.pem").read_bytes()
    first.certificate_file.unlink()
    second = LocalAuthority.open(tmp_path, clock)
    assert (tmp_path / "ca-key.pem").read_bytes() == key
    assert second.certificate_pem != first.certificate_pem


def test_without_hard_links_the_files_are_made_too(
    tmp_path: Path, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    LocalAuthority.open(tmp_path, clock)
    assert sorted(os.listdir(tmp_path)) == ["ca-key.pem", "ca.pem"]


@pytest.mark.parametrize("kept", ["ca/ca-key.pem", "server.pem"])
def test_only_the_owner_reads_keys(authority: LocalAuthority, tmp_path: Path, kept: str) -> None:
    authority.server_file(tmp_path, [])
    mode = stat.S_IMODE((tmp_path / kept).stat().st_mode)
    assert mode == (0o666 if sys.platform == "win32" else 0o600)


def test_a_server_certificate_is_kept_while_it_serves(
    authority: LocalAuthority, tmp_path: Path, clock: SetClock
) -> None:
    first = authority.server_file(tmp_path, ["hub.test"]).read_bytes()
    clock.time += 360 * DAY
    assert authority.server_file(tmp_path, []).read_bytes() == first
    assert authority.server_file(tmp_path, ["HUB.test", "localhost"]).read_bytes() == first


@pytest.mark.parametrize(
    ("wanted", "key_type", "days", "left"),
    [
        (["hub.test", "other.test"], "ec", 0, b""),
        (["hub.test"], "rsa", 0, b""),
        (["hub.test"], "ec", 368, b""),
        (["hub.test"], "ec", -3, b""),
        (["hub.test"], "ec", 0, b"-----BEGIN CERTIFICATE-----"),
        (["hub.test"], "ec", 0, b"garbage"),
    ],
)
def test_a_server_certificate_is_issued_anew(
    authority: LocalAuthority,
    tmp_path: Path,
    clock: SetClock,
    wanted: Sequence[str],
    key_type: KeyType,
    days: int,
    left: bytes,
) -> None:
    file = authority.server_file(tmp_path, ["hub.test"])
    first = file.read_bytes()
    if left:
        file.write_bytes(left)
    clock.time += days * DAY
    again = authority.server_file(tmp_path, wanted, key_type)
    assert again.read_bytes() not in (first, left)
    assert authority.server_file(tmp_path, wanted, key_type).read_bytes() == again.read_bytes()


def test_a_new_authority_issues_anew(authority: LocalAuthority, tmp_path: Path, clock: SetClock) -> None:
    first = authority.server_file(tmp_path, []).read_bytes()
    other = LocalAuthority.open(tmp_path / "other", clock)
    assert other.server_file(tmp_path, []).read_bytes() != first


def test_a_certificate_beside_a_foreign_key_is_issued_anew(authority: LocalAuthority, tmp_path: Path) -> None:
    file = authority.server_file(tmp_path, [])
    mixed = authority.issue_server([]).chain + authority.issue_server([]).key
    file.write_bytes(mixed)
    assert authority.server_file(tmp_path, []).read_bytes() != mixed


def test_no_server_certificate_outlives_the_authority(authority: LocalAuthority, clock: SetClock) -> None:
    clock.time += 3600 * DAY
    (certificate,) = certificates(authority.issue_server([]).chain)
    (root,) = certificates(authority.certificate_pem)
    assert certificate.not_valid_after_utc == root.not_valid_after_utc
    clock.time += 100 * DAY
    with pytest.raises(Invalid, match="expired"):
        authority.issue_server([])


def test_an_operators_authority_is_taken(authority: LocalAuthority, tmp_path: Path, clock: SetClock) -> None:
    (tmp_path / "ca" / "ca.pem").rename(tmp_path / "own.crt")
    (tmp_path / "ca" / "ca-key.pem").rename(tmp_path / "own.key")
    own = LocalAuthority.load(tmp_path / "own.crt", tmp_path / "own.key", clock)
    handshake(own.server_file(tmp_path, []), tmp_path / "own.crt", "localhost")


def test_an_operators_files_may_have_the_line_ends_of_windows(
    authority: LocalAuthority, tmp_path: Path, clock: SetClock
) -> None:
    for name in ("ca.pem", "ca-key.pem"):
        content = (tmp_path / "ca" / name).read_bytes()
        (tmp_path / name).write_bytes(content.replace(b"\n", b"\r\n"))
    own = LocalAuthority.load(tmp_path / "ca.pem", tmp_path / "ca-key.pem", clock)
    handshake(own.server_file(tmp_path, []), tmp_path / "ca.pem", "localhost")


def own_authority(folder: Path, key: AnyKey, *extensions: x509.ExtensionType) -> tuple[Path, Path]:
    """A self-signed certificate and its key, as an operator may bring them."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Contoso CA")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 7, now - timedelta(days=1), now + timedelta(days=9)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(key, algorithm)
    (folder / "own.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "own.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "own.crt", folder / "own.key"


def test_an_operators_authority_may_be_rsa_and_name_no_key_id(tmp_path: Path, clock: SetClock) -> None:
    key = rsa.generate_private_key(65537, 2048)
    files = own_authority(tmp_path, key, x509.BasicConstraints(ca=True, path_length=None))
    own = LocalAuthority.load(*files, clock)
    (certificate,) = certificates(own.issue_server([]).chain)
    identifier = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert identifier.key_identifier == x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    certificate.verify_directly_issued_by(certificates(own.certificate_pem)[0])


def test_an_intermediate_is_sent_with_what_it_issues(tmp_path: Path, clock: SetClock) -> None:
    root = LocalAuthority.open(tmp_path / "root", clock)
    (root_certificate,) = certificates(root.certificate_pem)
    files = own_authority(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    key = load_pem_private_key(files[1].read_bytes(), None)
    root_key = load_pem_private_key((tmp_path / "root" / "ca-key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    intermediate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Contoso issuing")]))
        .issuer_name(root_certificate.subject)
        .public_key(key.public_key())
        .serial_number(8)
        .not_valid_before(root_certificate.not_valid_before_utc)
        .not_valid_after(root_certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root_key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    files[0].write_bytes(intermediate + root.certificate_pem)
    issued = LocalAuthority.load(*files, clock).issue_server([])
    assert [certificate.subject.rfc4514_string() for certificate in certificates(issued.chain)] == [
        "CN=localhost",
        "CN=Contoso issuing",
    ]


@pytest.mark.parametrize(
    ("key", "extensions", "why"),
    [
        (ec.generate_private_key(ec.SECP256R1()), [], "CA:TRUE"),
        (ed25519.Ed25519PrivateKey.generate(), [x509.BasicConstraints(True, None)], "neither EC nor RSA"),
    ],
)
def test_an_operators_authority_must_be_able_to_sign(
    tmp_path: Path, clock: SetClock, key: Any, extensions: list[x509.ExtensionType], why: str
) -> None:
    with pytest.raises(Invalid, match=why):
        LocalAuthority.load(*own_authority(tmp_path, key, *extensions), clock)


def test_files_that_make_no_authority_are_refused(
    authority: LocalAuthority, tmp_path: Path, clock: SetClock
) -> None:
    other = LocalAuthority.open(tmp_path / "other", clock)
    key_file = authority.certificate_file.parent / "ca-key.pem"
    with pytest.raises(Invalid, match="not the key of"):
        LocalAuthority.load(other.certificate_file, key_file, clock)
    issued = authority.issue_server([])
    (tmp_path / "leaf.crt").write_bytes(issued.chain)
    (tmp_path / "leaf.key").write_bytes(issued.key)
    with pytest.raises(Invalid, match="CA:TRUE"):
        LocalAuthority.load(tmp_path / "leaf.crt", tmp_path / "leaf.key", clock)
    with pytest.raises(Invalid, match="no private key"):
        LocalAuthority.load(authority.certificate_file, authority.certificate_file, clock)
    with pytest.raises(Invalid, match="no certificate"):
        LocalAuthority.load(tmp_path / "leaf.key", tmp_path / "leaf.key", clock)


def test_the_bundle_holds_the_public_roots_and_the_authority(
    authority: LocalAuthority, tmp_path: Path
) -> None:
    bundle = authority.bundle(tmp_path / "deep" / "bundle.pem")
    content = bundle.read_bytes()
    assert content.startswith(Path(certifi.where()).read_bytes())
    assert content.endswith(authority.certificate_pem)
    handshake(authority.server_file(tmp_path, []), bundle, "localhost")
    written = bundle.stat().st_mtime_ns
    assert authority.bundle(bundle).stat().st_mtime_ns == written
    bundle.write_bytes(b"older")
    assert authority.bundle(bundle).read_bytes() == content
