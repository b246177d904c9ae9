"""`moorage device simulate` and `send-d2c-message`: devices without an SDK, against a real server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunningServer
from tests.support.certificates import certificate
from tests.support.commands import moorage, refusal, said

pytestmark = pytest.mark.clients

SIMULATE = ("device", "simulate", "--output", "json", "--mi", "0")


@pytest.fixture
def device(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "sim-" + request.node.name.replace("[", "-").rstrip("]")
    said(moorage(server, "hub", "device-identity", "create", "-d", name))
    yield name
    moorage(server, "hub", "device-identity", "delete", "-d", name)


def events(server: RunningServer, *arguments: str) -> list[dict[str, Any]]:
    done = moorage(server, *SIMULATE, *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def received(server: RunningServer, device: str) -> list[dict[str, Any]]:
    """What a back end reads of the device."""
    command = ("hub", "monitor-events", "-d", device, "--enqueued-time", "0", "--timeout", "2", "-o", "json")
    text = moorage(server, *command).stdout
    decoder, found, at = json.JSONDecoder(), [], text.find("{")
    while at >= 0:
        event, at = decoder.raw_decode(text, at)
        found.append(event["event"])
        at = text.find("{", at)
    return found


@pytest.mark.parametrize("protocol", ["mqtt", pytest.param("mqtt-ws", marks=pytest.mark.port443)])
def test_a_device_sends_what_a_back_end_reads(server: RunningServer, device: str, protocol: str) -> None:
    happened = events(
        server, "-d", device, "--mc", "2", "--data", "hello", "-p", "site=a", "--protocol", protocol
    )
    sent = [each for each in happened if each["event"] == "sent"]
    assert [each["payload"]["data"] for each in sent] == ["hello #1", "hello #2"]
    assert happened[0]["event"] == "connected"
    read = received(server, device)
    assert [each["payload"] for each in read] == [each["payload"] for each in sent]
    assert read[0]["properties"]["application"] == {"site": "a"}
    assert read[0]["properties"]["system"]["content_type"] == "application/json"


def test_a_device_by_its_connection_string_sends_a_file(
    server: RunningServer, device: str, tmp_path: Path
) -> None:
    shown = moorage(server, "hub", "device-identity", "connection-string", "show", "-d", device)
    text = said(shown)["connectionString"]
    file = tmp_path / "reading.json"
    file.write_text('{"level": 7}')
    command = ("device", "send-d2c-message", "--cs", text, "--dfp", str(file), "--mc", "3")
    done = moorage(server, *command, "-p", "$.ct=application/json;$.ce=utf-8")
    assert done.returncode == 0, done.stderr
    assert [each["payload"] for each in received(server, device)] == [{"level": 7}] * 3


def test_a_device_registers_by_certificate_and_sends(server: RunningServer, tmp_path: Path) -> None:
    file, key = certificate(tmp_path, "sim-registers")
    moorage(server, "dps", "enrollment", "create", "--at", "x509", "--cp", str(file))
    files = ("--cp", str(file), "--kp", str(key))
    happened = events(server, "--register", *files, "--mc", "1")
    assert happened[0] | {"time": ""} == {
        "time": "",
        "event": "connected",
        "host": server.address,
        "device": "sim-registers",
    }
    again = events(server, *files, "--mc", "1")
    assert again[-1]["event"] == "sent", "the hub knows the certificate from then on"


def test_a_device_registers_by_a_group_of_keys(server: RunningServer) -> None:
    group = said(moorage(server, "dps", "enrollment-group", "create", "--eid", "sim-group"))
    key = group["attestation"]["symmetricKey"]["primaryKey"]
    by_name = events(server, "--register", "--rid", "sim-one", "--gid", "sim-group", "--mc", "1")
    by_key = events(server, "--register", "--rid", "sim-two", "--key", key, "--compute-key", "--mc", "1")
    assert by_name[-1]["event"] == by_key[-1]["event"] == "sent"


def test_who_may_not_connect_is_told_why(server: RunningServer, device: str) -> None:
    wrong = moorage(server, *SIMULATE, "-d", device, "--key", "AAAA")
    assert refusal(wrong).endswith("refused the connection with code 5: not authorized")
    assert "HTTP 404" in refusal(moorage(server, *SIMULATE, "-d", "sim-nobody"))
    moorage(server, "hub", "device-identity", "update", "-d", device, "--status", "disabled")
    assert "disabled" in refusal(moorage(server, *SIMULATE, "-d", device))


def test_a_device_says_what_nobody_can_look_up(server: RunningServer) -> None:
    named = ("-d", "sim-by-ca", "--am", "x509_ca")
    said(moorage(server, "hub", "device-identity", "create", *named))
    assert "--certificate-file-path" in refusal(moorage(server, *SIMULATE, "-d", "sim-by-ca"))
    moorage(server, "hub", "device-identity", "delete", "-d", "sim-by-ca")
    assert "--device-id" in refusal(moorage(server, *SIMULATE))


@contextmanager
def simulated(server: RunningServer, *arguments: str) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A device that goes on until the block ends; call what is given to wait for an event of that name."""
    command = [sys.executable, "-m", "moorage", *SIMULATE, "--mc", "0", "--mi", "600", *arguments]
    process = subprocess.Popen(command, env=server.shell, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout

    def next_one(name: str) -> dict[str, Any]:
        for line in lines:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"it ended without {name}")

    try:
        yield next_one
    finally:
        process.send_signal(signal.SIGINT)
        lines.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize("module", [None, "camera"])
def test_a_back_end_and_a_device_talk(server: RunningServer, device: str, module: str | None) -> None:
    named: tuple[str, ...] = ("-d", device)
    noun = "device"
    if module is not None:
        noun, named = "module", (*named, "-m", module)
        said(moorage(server, "hub", "module-identity", "create", *named))
    twin = ("hub", f"{noun}-twin")
    with simulated(server, *named, "--irp", '{"firmware": "1.0"}', "--mrc", "201") as wait_for:
        assert wait_for("reported")["properties"] == {"firmware": "1.0"}
        wait_for("sent")
        call = (
            "hub",
            f"invoke-{noun}-method",
            *named,
            "--mn",
            "reboot",
            "--mp",
            '{"delay": 3}',
            "--to",
            "10",
        )
        assert said(moorage(server, *call)) == {
            "status": 201,
            "payload": {"methodName": "reboot", "methodRequestPayload": {"delay": 3}},
        }
        called = wait_for("method")
        assert (called["name"], called["payload"]) == ("reboot", {"delay": 3})
        said(moorage(server, *twin, "update", *named, "--desired", '{"interval": 5}'))
        assert wait_for("desired")["patch"]["interval"] == 5
        assert wait_for("reported")["properties"] == {"interval": 5}
        reported = said(moorage(server, *twin, "show", *named))["properties"]["reported"]
        assert (reported["firmware"], reported["interval"]) == ("1.0", 5)
    away = moorage(server, "hub", f"invoke-{noun}-method", *named, "--mn", "x", "--to", "5", "--mct", "0")
    assert "Timed out waiting for device to connect" in refusal(away)
