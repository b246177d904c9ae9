"""`moorage dps certificate` and `moorage hub certificate` with openssl, as an operator uses them."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.conftest import RunningServer
from tests.support.shell import Shell

pytestmark = pytest.mark.clients


def openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("owner", ["dps", "hub"])
def test_a_ca_certificate_from_upload_to_its_end(server: RunningServer, tmp_path: Path, owner: str) -> None:
    shell, name, ca = Shell(server), "Cli-Root", tmp_path / "ca.pem"
    new_ca = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=cli-root"
    openssl(tmp_path, f"{new_ca} -keyout ca.key -out ca.pem")

    created = shell.json(owner, "certificate", "create", "-n", name, "-p", str(ca))
    assert (created["name"], created["properties"]["isVerified"]) == (name, False)
    assert parsedate_to_datetime(created["properties"]["expiry"]) > datetime.now(UTC)
    refused = shell.refused(owner, "certificate", "create", "-n", name, "-p", str(ca))
    assert "exists already" in refused

    coded = shell.json(owner, "certificate", "generate-verification-code", "-n", name, "-e", created["etag"])
    code = coded["properties"]["verificationCode"]
    request = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout proof.key -out proof.csr"
    openssl(tmp_path, f"{request} -subj /CN={code}")
    openssl(tmp_path, "x509 -req -in proof.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out proof.pem")
    stale = shell.refused(
        owner, "certificate", "verify", "-n", name, "-p", str(tmp_path / "proof.pem"), "-e", created["etag"]
    )
    assert "etag" in stale
    verified = shell.json(owner, "certificate", "verify", "-n", name, "-p", str(tmp_path / "proof.pem"))
    assert verified["properties"]["isVerified"] is True

    listed = shell.json(owner, "certificate", "list")["value"]
    assert verified in listed
    assert shell.json(owner, "certificate", "show", "--name", name.lower()) == verified
    table = shell.moorage(owner, "certificate", "list", "-o", "table")
    assert "CN=cli-root" in table

    openssl(tmp_path, "crl2pkcs7 -nocrl -certfile ca.pem -outform DER -out ca.p7b")
    update = (owner, "certificate", "update", "-n", name, "-p", str(tmp_path / "ca.p7b"))
    assert shell.json(*update)["properties"]["isVerified"] is False
    assert shell.json(*update, "--verified")["properties"]["isVerified"] is True
    assert "no CA certificate named" in shell.refused(
        owner, "certificate", "update", "-n", "no-such", "-p", str(ca)
    )

    assert shell.moorage(owner, "certificate", "delete", "-n", name) == ""
    assert "no CA certificate named" in shell.refused(owner, "certificate", "show", "-n", name)
