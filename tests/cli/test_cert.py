"""`moorage cert`, as a person calls it in a folder of their own."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from moorage.cli import moorage_command
from moorage.credentials.workshop.flaws import FLAWS
from moorage.errors import Invalid

Cert = Callable[..., Any]


@pytest.fixture
def cert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cert:
    """Runs `moorage cert …` in `tmp_path`; what it printed, of JSON. Raises what the command raises."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environment: str) -> Any:
        result = CliRunner().invoke(
            moorage_command, ["cert", *arguments], env=environment, catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


def certificates(file: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(file.read_bytes())


def subjects(file: Path) -> list[str]:
    return [certificate.subject.rfc4514_string() for certificate in certificates(file)]


def test_a_hierarchy_in_three_commands(cert: Cert, tmp_path: Path) -> None:
    cert("root", "--subject", "plant-ca")
    cert("intermediate", "--subject", "line-4", "--issuer", "plant-ca")
    made = cert("device", "--subject", "pump-7", "--issuer", "line-4.pem", "--days", "30")
    assert made["files"] == {
        "certificate": "pump-7.pem",
        "key": "pump-7.key.pem",
        "fullChain": "pump-7.fullchain.pem",
        "pfx": "pump-7.pfx",
    }
    assert subjects(tmp_path / "pump-7.fullchain.pem") == ["CN=pump-7", "CN=line-4", "CN=plant-ca"]
    assert (made["subject"], made["issuer"]) == ("CN=pump-7", "CN=line-4")


@pytest.mark.parametrize("subject", ["//CN=Python-device-01", "/CN=Python-device-01", "Python-device-01"])
def test_a_subject_in_every_spelling(cert: Cert, subject: str) -> None:
    made = cert("device", "--subject", subject)
    assert made["subject"] == "CN=Python-device-01"
    assert made["files"]["certificate"] == "Python-device-01.pem"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_the_owner_reads_what_holds_a_key(cert: Cert) -> None:
    umask = os.umask(0)
    try:
        files = cert("device", "--subject", "pump-7", "--out", "deep/down")["files"]
        cert("device", "--subject", "pump-7", "--out", "deep/down", "--force")
    finally:
        os.umask(umask)
    modes = {role: stat.S_IMODE(Path(file).stat().st_mode) for role, file in files.items()}
    assert modes == {"certificate": 0o644, "key": 0o600, "fullChain": 0o644, "pfx": 0o600}


@pytest.mark.parametrize("left", ["pump-7.pem", "pump-7.key.pem", "pump-7.pfx"])
def test_nothing_is_replaced_without_force(cert: Cert, tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("mine")
    with pytest.raises(Invalid, match="nothing was written") as raised:
        cert("device", "--subject", "pump-7")
    assert left in str(raised.value)
    assert [file.name for file in tmp_path.iterdir()] == [left]
    cert("device", "--subject", "pump-7", "--force")
    assert (tmp_path / left).read_bytes() != b"mine"


def test_a_pass_phrase_closes_the_key(cert: Cert, tmp_path: Path) -> None:
    cert("device", "--subject", "pump-7", "--pass-phrase", "1234")
    content = (tmp_path / "pump-7.key.pem").read_bytes()
    assert content.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    load_pem_private_key(content, b"1234")


def test_pass_phrases_may_come_by_the_environment(cert: Cert) -> None:
    cert("root", "--subject", "plant-ca", MOORAGE_PASS_PHRASE="of the root")
    made = cert(
        *("device", "--subject", "pump-7", "--issuer", "plant-ca"),
        MOORAGE_ISSUER_PASS_PHRASE="of the root",
        MOORAGE_PASS_PHRASE="1234",
    )
    assert b"ENCRYPTED" in Path(made["files"]["key"]).read_bytes()
    with pytest.raises(Invalid, match=r"plant-ca\.key\.pem: it is encrypted"):
        cert("device", "--subject", "pump-8", "--issuer", "plant-ca")


def test_a_ca_from_elsewhere_by_its_two_files_with_windows_line_ends(cert: Cert, tmp_path: Path) -> None:
    cert("root", "--subject", "plant-ca")
    for name, moved in (("plant-ca.pem", "ca.crt"), ("plant-ca.key.pem", "ca.key")):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        (tmp_path / moved).write_bytes(content.replace(b"\n", b"\r\n"))
    cert("device", "--subject", "pump-7", "--issuer", "ca.crt", "--issuer-key", "ca.key")
    assert subjects(tmp_path / "pump-7.fullchain.pem") == ["CN=pump-7", "CN=plant-ca"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("device", "--subject", "a", "--issuer", "nobody"), "nobody: No such file"),
        (("device", "--subject", "a", "--name", "../a"), "no name for a file"),
        (("device", "--subject", "a", "--name", ".a"), "no name for a file"),
        (("device", "--subject", "a", "--days", "0"), "--days"),
        (("inspect", "nothing.pem"), "nothing.pem: No such file"),
    ],
)
def test_what_cannot_be_made_is_told(
    cert: Cert, tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    with pytest.raises(Invalid) as raised:
        cert(*arguments)
    assert why in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_becomes_a_file_name_whatever_is_in_it(cert: Cert) -> None:
    assert cert("device", "--subject", "line 4:pump/7")["files"]["certificate"] == "line_4_pump_7.pem"
    assert cert("device", "--subject", "..hidden")["files"]["certificate"] == "hidden.pem"
    assert cert("device", "--subject", "...")["files"]["certificate"] == "certificate.pem"


def test_the_proof_of_possession(cert: Cert, tmp_path: Path) -> None:
    cert("root", "--subject", "plant-ca")
    made = cert("proof", "--code", "0123ABCD", "--issuer", "plant-ca", "--name", "proof")
    assert (made["subject"], made["issuer"]) == ("CN=0123ABCD", "CN=plant-ca")
    assert made["files"]["certificate"] == "proof.pem"


def test_a_signing_request_as_a_device_sends_it(cert: Cert, tmp_path: Path) -> None:
    files = cert("request", "--subject", "//CN=pump-7")["files"]
    text = Path(files["registrationText"]).read_text()
    request = x509.load_der_x509_csr(base64.b64decode(text, validate=True))
    assert request.is_signature_valid
    assert request == x509.load_pem_x509_csr(Path(files["request"]).read_bytes())
    assert request.subject.rfc4514_string() == "CN=pump-7"


@pytest.mark.parametrize("flaw", list(FLAWS))
def test_a_broken_one_with_what_it_takes_to_try_it(cert: Cert, flaw: str) -> None:
    made = cert("broken", "--flaw", flaw, "--subject", "pump-7")
    assert made["what"] == FLAWS[flaw].what
    assert made["files"]["certificate"] == f"pump-7-{flaw}.pem"
    assert all(Path(file).exists() for file in made["files"].values())


def test_the_flaws_are_listed() -> None:
    listed = CliRunner().invoke(moorage_command, ["cert", "broken", "--list"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in FLAWS)


def test_inspect_shows_several_files_and_no_secret(cert: Cert) -> None:
    cert("device", "--subject", "pump-7", "--pass-phrase", "closed-1234")
    found = cert("inspect", "pump-7.pem", "pump-7.pfx", "--pass-phrase", "closed-1234", "--output", "json")
    assert [each["kind"] for each in found] == ["certificate", "private key", "certificate"]
    assert found[0]["sha256Thumbprint"] == found[2]["sha256Thumbprint"]
    assert found[1]["belongsTo"] == ["CN=pump-7"]
    text = (
        CliRunner()
        .invoke(moorage_command, ["cert", "inspect", "pump-7.pfx", "--pass-phrase", "closed-1234"])
        .output
    )
    assert "closed-1234" not in text
    assert "  belongsTo         CN=pump-7" in text.splitlines()


def verdict(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(moorage_command, ["cert", "verify", *arguments], catch_exceptions=False)
    return result.exit_code, result.output


def test_verify_lets_a_good_chain_pass_and_tells_each_link(cert: Cert) -> None:
    cert("root", "--subject", "plant-ca")
    cert("intermediate", "--subject", "line-4", "--issuer", "plant-ca")
    cert("device", "--subject", "pump-7", "--issuer", "line-4")
    checks = ("--trust", "plant-ca.pem", "--common-name", "pump-7", "--key", "pump-7.key.pem")
    code, said = verdict("pump-7.fullchain.pem", *checks)
    assert (code, said.splitlines()) == (
        0,
        [
            "ok      CN=pump-7, issued by CN=line-4",
            "ok      CN=line-4, issued by CN=plant-ca",
            "ok      CN=plant-ca",
            "ok      the key is that of the first certificate",
            "The chain holds.",
        ],
    )
    assert verdict("pump-7.pem", "line-4.pem", *checks)[0] == 0
    assert json.loads(verdict("pump-7.fullchain.pem", "--output", "json")[1])["holds"] is True
    code, said = verdict("pump-7.fullchain.pem", "--at", "2100-01-01")
    assert code == 1
    assert "why     it expired at" in said


def test_verify_says_what_is_wrong_and_what_mends_it(cert: Cert) -> None:
    for flaw in ("expired", "key-mismatch", "empty-subject", "missing-link", "chain-order"):
        cert("broken", "--flaw", flaw, "--subject", "p", "--name", flaw)

    def wrong(flaw: str, *more: str) -> str:
        code, said = verdict(f"{flaw}.fullchain.pem", "--trust", f"{flaw}.root.pem", *more)
        assert code == 1
        assert said.endswith("The chain does not hold.\n")
        return said

    assert "remedy  Renew CN=p" in wrong("expired")
    assert "the key is not that of" in wrong("key-mismatch", "--key", "key-mismatch.key.pem")
    assert "//CN=name" in wrong("empty-subject")
    assert "neither in the chain nor among the trusted" in wrong("missing-link")
    assert "its own" in verdict("chain-order.fullchain.pem")[1]
    document = json.loads(
        verdict("key-mismatch.fullchain.pem", "--key", "key-mismatch.key.pem", "-o", "json")[1]
    )
    assert (document["holds"], document["keyFits"]) == (False, False)
