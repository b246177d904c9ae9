"""`moorage device c2d-message` and `moorage hub monitor-feedback` as people run them, against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunningServer
from tests.support.commands import moorage, refusal, said

pytestmark = pytest.mark.clients

SEND, PURGE = ("device", "c2d-message", "send"), ("device", "c2d-message", "purge")


def test_messages_are_left_for_a_device_and_purged(server: RunningServer, tmp_path: Path) -> None:
    named = ("-d", "cli-c2d")
    said(moorage(server, "hub", "device-identity", "create", *named))
    file = tmp_path / "payload"
    file.write_bytes(bytes(range(256)))
    for options in (("--data", "hello", "-p", "a=1;b=2"), ("--dfp", str(file), "--ack", "full")):
        assert said(moorage(server, *SEND, *named, *options)) is None
    shown = said(moorage(server, "hub", "device-identity", "show", *named))
    assert shown["cloudToDeviceMessageCount"] == 2
    assert said(moorage(server, *PURGE, *named))["totalMessagesPurged"] == 2
    moorage(server, "hub", "device-identity", "delete", *named)


def test_a_device_that_is_not_there(server: RunningServer) -> None:
    assert "no device named 'nobody'" in refusal(moorage(server, *SEND, "-d", "nobody"))
    assert "no device named 'nobody'" in refusal(moorage(server, *PURGE, "-d", "nobody"))


def test_an_expiry_that_has_passed(server: RunningServer) -> None:
    named = ("-d", "cli-c2d-late")
    said(moorage(server, "hub", "device-identity", "create", *named))
    assert "past" in refusal(moorage(server, *SEND, *named, "--expiry", "1"))
    moorage(server, "hub", "device-identity", "delete", *named)


def test_feedback_on_a_message(server: RunningServer) -> None:
    """The batch comes within fifteen seconds of the purge."""
    named = ("-d", "cli-c2d-feedback")
    said(moorage(server, "hub", "device-identity", "create", *named))
    moorage(server, *SEND, *named, "--ack", "negative", "--mid", "m-1")
    said(moorage(server, *PURGE, *named))
    shown = said(moorage(server, "hub", "monitor-feedback", "-w", "m-1", *named))
    assert (shown["feedback"]["originalMessageId"], shown["feedback"]["statusCode"]) == ("m-1", "Purged")
    moorage(server, "hub", "device-identity", "delete", *named)


def test_waiting_takes_an_ack(server: RunningServer) -> None:
    done = moorage(server, *SEND, "-d", "nobody", "--wait")
    assert done.returncode == 2
    assert "--wait needs --ack" in done.stderr
