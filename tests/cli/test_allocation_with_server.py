"""`moorage dps allocation simulate`, custom allocation by the commands, and what `explain` says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import RunningServer, StartServer
from tests.support.certificates import certificate
from tests.support.commands import moorage, refusal, said
from tests.support.devices import register
from tests.support.webhook import WebhookServer


@pytest.fixture
def own_server(start_server: StartServer) -> RunningServer:
    return start_server("--in-memory")


def enroll(server: RunningServer, name: str, *options: str) -> None:
    command = ("dps", "enrollment", "create", "--enrollment-id", name, "--attestation-type", "symmetrickey")
    said(moorage(server, *command, *options))


def test_what_another_hub_would_take_is_told_and_not_done(own_server: RunningServer) -> None:
    server, here = own_server, own_server.env["IOTHUB_HOSTNAME"]
    for number in range(8):
        enroll(server, f"pump-{number}")
    enroll(server, "asleep", "--provisioning-status", "disabled")

    told = said(
        moorage(
            server,
            *("dps", "allocation", "simulate", "--output", "json"),
            *("--add-hub", "far.example.net:3"),
        )
    )

    assert told["devices"] == 9
    assert told["hubs"][here]["now"] == 8
    assert sum(counts["then"] for counts in told["hubs"].values()) == 8
    assert told["undecided"]["disabled"] == 1
    assert told["moves"] == []

    done = moorage(server, "dps", "allocation", "simulate", "--remove-hub", here, "--devices")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "asleep  new in (disabled)"
    assert lines[1] == "pump-0  new in (noHub)"
    assert "8 of them would get no hub." in lines
    assert said(moorage(server, "dps", "allocation", "simulate", "-o", "json"))["hubs"][here]["then"] == 8


def test_a_hub_that_is_not_linked_cannot_be_removed(own_server: RunningServer) -> None:
    done = moorage(own_server, "dps", "allocation", "simulate", "--remove-hub", "far.example.net")
    assert "far.example.net" in refusal(done)


@pytest.mark.parametrize("option", ["--weight=localhost", "--weight=localhost=heavy", "--add-hub=a:b"])
def test_a_weight_that_is_no_number_is_refused(own_server: RunningServer, option: str) -> None:
    done = moorage(own_server, "dps", "allocation", "simulate", option)
    assert done.returncode == 2
    assert "WEIGHT" in done.stderr


@pytest.mark.clients
@pytest.mark.filterwarnings(r"ignore:ssl\.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")
def test_a_webhook_is_named_asked_and_explained(
    own_server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_server
    monkeypatch.setenv("SSL_CERT_FILE", server.env["SSL_CERT_FILE"])
    files = certificate(tmp_path, "pump-7")
    webhook = WebhookServer()
    webhook.answer = {"iotHubHostName": server.env["IOTHUB_HOSTNAME"], "payload": "welcome"}
    with webhook.serving():
        made = said(
            moorage(
                server,
                *("dps", "enrollment", "create", "--attestation-type", "x509"),
                *("--certificate-path", str(files[0]), "--webhook-url", webhook.url()),
            )
        )
        assert made["allocationPolicy"] == "custom"
        assert made["customAllocationDefinition"]["webhookUrl"].endswith("?****")
        assert register(server.env, "pump-7", files).status == "assigned"

    text = moorage(server, "explain", "pump-7").stdout
    assert f"asked       {made['customAllocationDefinition']['webhookUrl']}" in text
    assert '"deviceRuntimeContext"' in text
    assert "answered    status 200 after 0." in text
    assert json.dumps(webhook.answer) in text
    assert "s3cret" not in text
