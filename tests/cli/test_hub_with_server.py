"""`moorage hub` as people run it, against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunningServer
from tests.support.commands import moorage, refusal, said
from tests.support.mqtt_device import send

pytestmark = pytest.mark.clients

IDENTITY = ("hub", "device-identity")


def test_a_device_by_a_certificate_made_for_it(server: RunningServer, tmp_path: Path) -> None:
    named = ("-d", "cli-by-certificate")
    created = said(
        moorage(server, *IDENTITY, "create", *named, "--am", "x509_thumbprint", "--od", str(tmp_path))
    )
    assert created["authentication"]["type"] == "selfSigned"
    shown = moorage(server, "cert", "inspect", str(tmp_path / "cli-by-certificate.pem")).stdout
    assert created["authentication"]["x509Thumbprint"]["primaryThumbprint"] in shown
    text = said(moorage(server, *IDENTITY, "connection-string", "show", *named))["connectionString"]
    assert text == f"HostName={server.address};DeviceId=cli-by-certificate;x509=true"
    moorage(server, *IDENTITY, "delete", *named)


def test_keys_of_a_device_are_made_anew_and_exchanged(server: RunningServer) -> None:
    named = ("-d", "cli-keys")
    first = said(moorage(server, *IDENTITY, "create", *named))["authentication"]["symmetricKey"]
    swapped = said(moorage(server, *IDENTITY, "renew-key", *named, "--kt", "swap"))
    assert swapped["authentication"]["symmetricKey"] == {
        "primaryKey": first["secondaryKey"],
        "secondaryKey": first["primaryKey"],
    }
    emptied = said(moorage(server, *IDENTITY, "update", *named, "--primary-key", ""))
    assert emptied["authentication"]["symmetricKey"]["primaryKey"] not in ("", *first.values())
    assert emptied["authentication"]["symmetricKey"]["secondaryKey"] == first["primaryKey"]
    moorage(server, *IDENTITY, "delete", *named)


def test_single_members_are_set(server: RunningServer) -> None:
    named = ("-d", "cli-set")
    said(moorage(server, *IDENTITY, "create", *named))
    changed = said(
        moorage(
            server, *IDENTITY, "update", *named, "--set", "status=disabled", "--set", "statusReason=stolen"
        )
    )
    assert (changed["status"], changed["statusReason"]) == ("disabled", "stolen")
    moorage(server, *IDENTITY, "delete", *named)


def test_a_token_lets_a_device_in(server: RunningServer) -> None:
    named = ("-d", "cli-token")
    said(moorage(server, *IDENTITY, "create", *named))
    text = said(moorage(server, *IDENTITY, "connection-string", "show", *named))["connectionString"]
    for arguments in (named, (*named, "--kt", "secondary"), ("--cs", text)):
        token = said(moorage(server, "hub", "generate-sas-token", *arguments))["sas"]
        assert send(server.address, server.env["SSL_CERT_FILE"], "cli-token", token) == 0, arguments
    policy = said(moorage(server, "hub", "generate-sas-token", "--pn", "device", "--du", "60"))["sas"]
    assert "&skn=device" in policy
    assert send(server.address, server.env["SSL_CERT_FILE"], "cli-token", policy) == 0
    moorage(server, *IDENTITY, "delete", *named)


def test_a_child_needs_a_parent_that_is_an_edge_device(server: RunningServer) -> None:
    named = ("-d", "cli-leaf")
    said(moorage(server, *IDENTITY, "create", *named))
    assert "has no parent" in refusal(moorage(server, *IDENTITY, "parent", "show", *named))
    refused = refusal(moorage(server, *IDENTITY, "parent", "set", *named, "--pd", "cli-leaf"))
    assert "not an IoT Edge device" in refused
    moorage(server, *IDENTITY, "delete", *named)


def test_a_method_of_a_device_that_is_not_there(server: RunningServer) -> None:
    call = ("hub", "invoke-device-method", "-d", "cli-nobody", "--mn", "reboot", "--to", "5", "--mct", "0")
    told = refusal(moorage(server, *call))
    assert "HTTP 404" in told or "HTTP 501" in told
    assert '"Message"' not in told, "a sentence, not the error's JSON"


def test_what_is_no_json_is_refused_before_anybody_is_asked(server: RunningServer) -> None:
    done = moorage(server, "hub", "device-twin", "update", "-d", "x", "--desired", "{bad")
    assert done.returncode == 2
    assert "neither a JSON object nor a file of it" in done.stderr
    nothing = moorage(server, "hub", "device-twin", "update", "-d", "x")
    assert nothing.returncode == 2
