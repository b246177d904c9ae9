from __future__ import annotations

import asyncio
import io
import re
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from moorage.cli import quickstart as command
from moorage.cli import quickstart_steps, server_process
from moorage.cli.ports import Port
from moorage.cli.progress import Progress
from moorage.cli.quickstart_device import Operator, make_certificate
from moorage.cli.quickstart_steps import DoesNotHold, Walk
from moorage.errors import Unavailable
from moorage.store.folder import RunInfo

LOGIN = "HostName=127.0.0.1:1;SharedAccessKeyName=owner;SharedAccessKey=AAAA"
SERVER = RunInfo(
    pid=1,
    data=None,
    endpoints={},
    env={"IOTHUB_CONNECTION_STRING": LOGIN, "PROVISIONING_SERVICE_CONNECTION_STRING": LOGIN},
)

Step = tuple[str, Callable[[Walk], Awaitable[None]]]


# --- what is shown ------------------------------------------------------------------------------------------


def shown(progress_output: io.StringIO) -> list[str]:
    """The lines, with times left out."""
    return re.sub(r"\d+\.\d{3} s", "TIME", progress_output.getvalue()).splitlines()


def test_piped_steps_are_plain_lines_each_with_its_time() -> None:
    file = io.StringIO()
    progress = Progress(2, file)
    with progress.step("Make [a] certificate"):
        progress.note("common name pump-7\nRSA 2048")
    with pytest.raises(ValueError, match="no"), progress.step("Enroll"):
        raise ValueError("no")
    assert shown(file) == [
        "  1/2  Make [a] certificate",
        "         common name pump-7",
        "         RSA 2048",
        "         ok, TIME",
        "  2/2  Enroll",
        "         FAILED, TIME",
    ]


def test_long_lines_are_not_broken() -> None:
    file = io.StringIO()
    Progress(1, file).note("x" * 500)
    assert len(shown(file)) == 1


# --- the walk -----------------------------------------------------------------------------------------------


async def walk(tmp_path: Path, *steps: Step) -> tuple[bool, list[str]]:
    file = io.StringIO()
    held = await Walk(SERVER, tmp_path, Progress(len(steps), file)).run(steps)
    return held, shown(file)


async def hold(walk: Walk) -> None:
    walk.name = "Python-device-01"


async def fail(walk: Walk) -> None:
    try:
        raise OSError("the socket is closed")
    except OSError as error:
        raise RuntimeError("Unexpected failure") from error


async def test_every_step_holds(tmp_path: Path) -> None:
    held, lines = await walk(tmp_path, ("One", hold), ("Two", hold))
    assert held
    assert lines == ["  1/2  One", "         ok, TIME", "  2/2  Two", "         ok, TIME"]


async def test_the_first_step_that_fails_ends_it_with_what_explain_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Operator, "explain", lambda self, name: f"{name} REFUSED\n  why  no enrollment")
    held, lines = await walk(tmp_path, ("One", hold), ("Two", fail), ("Three", hold))
    assert not held
    assert lines[2:] == [
        "  2/3  Two",
        "         FAILED, TIME",
        "         RuntimeError: Unexpected failure (the socket is closed)",
        "         moorage explain says:",
        "         Python-device-01 REFUSED",
        "           why  no enrollment",
    ]


async def test_a_server_that_explains_nothing_does_no_harm(tmp_path: Path) -> None:
    """Here it does not even answer."""
    held, lines = await walk(tmp_path, ("One", hold), ("Two", fail))
    assert not held
    assert lines[-1] == "         RuntimeError: Unexpected failure (the socket is closed)"


async def test_a_step_has_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def hang(walk: Walk) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(quickstart_steps, "PATIENCE", 0.01)
    held, lines = await walk(tmp_path, ("One", hang))
    assert not held
    assert lines[-1] == "         not done within 0.01 s"


async def test_what_was_made_is_undone_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(Operator, "enroll", lambda self, certificate: None)
    monkeypatch.setattr(Operator, "delete_enrollment", lambda self, name: deleted.append(name))
    monkeypatch.setattr(Operator, "explain", lambda self, name: "")

    async def enroll(walk: Walk) -> None:
        walk.certificate = make_certificate(tmp_path, walk.name)
        await walk.enroll()

    held, _ = await walk(tmp_path, ("One", hold), ("Two", enroll), ("Three", fail))
    assert (held, deleted) == (False, ["Python-device-01"])


async def test_what_is_to_be_looked_at_stays_where_every_step_held(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(Operator, "delete_enrollment", lambda self, name: deleted.append(name))
    monkeypatch.setattr(Operator, "explain", lambda self, name: "")

    async def enroll(walk: Walk) -> None:
        walk._undo.push_async_callback(walk._delete_enrollment_again)

    steps = (("One", hold), ("Two", enroll))
    assert await Walk(SERVER, tmp_path, Progress(2, io.StringIO())).run(steps, keep=True)
    assert deleted == []
    failing = (*steps, ("Three", fail))
    assert not await Walk(SERVER, tmp_path, Progress(3, io.StringIO())).run(failing, keep=True)
    assert deleted == ["Python-device-01"]


class Event:
    """As `azure-eventhub` hands it out."""

    def __init__(self, message_id: str, body: str = '{"number": 3}', device: bytes = b"pump-7") -> None:
        self.message_id = message_id
        self.system_properties = {b"iothub-connection-device-id": device}
        self._body = body

    def body_as_str(self) -> str:
        return self._body


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (Event("mine", body='{"number": 4}'), 'message 3 came as {"number": 4}'),
        (Event("mine", device=b"pump-8"), "message 3 says that it comes from b'pump-8'"),
    ],
)
def test_a_message_that_comes_otherwise_than_it_went_does_not_hold(
    event: Any, why: str, tmp_path: Path
) -> None:
    walker = Walk(SERVER, tmp_path, Progress(1, io.StringIO()))
    walker.sent, walker.device_id = {"mine": 3}, "pump-7"
    assert walker._is_ours(event=Event("mine")) == "mine"  # type: ignore[arg-type]
    assert walker._is_ours(event=Event("another's")) is None  # type: ignore[arg-type]
    with pytest.raises(DoesNotHold, match=re.escape(why)):
        walker._is_ours(event)


# --- what it takes ------------------------------------------------------------------------------------------


def test_the_certificate_is_self_signed_and_its_key_encrypted(tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "Python-device-01")
    certificate = x509.load_pem_x509_certificate(made.certificate_file.read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=Python-device-01"
    certificate.verify_directly_issued_by(certificate)
    assert b"ENCRYPTED PRIVATE KEY" in made.key_file.read_bytes()
    key = load_pem_private_key(made.key_file.read_bytes(), made.pass_phrase.encode())
    assert key.public_key() == certificate.public_key()
    assert stat.S_IMODE(made.key_file.stat().st_mode) == 0o600


def test_names_that_are_taken_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Operator, "enrollment", lambda self, name: {} if name.endswith("01") else None)
    monkeypatch.setattr(Operator, "device", lambda self, name: {} if name.endswith("02") else None)
    assert Operator(SERVER).free_name() == "Python-device-03"


def test_missing_kits_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_is_here", lambda name: name != "azure.eventhub")
    result = CliRunner().invoke(command.quickstart)
    assert isinstance(result.exception, Unavailable)
    assert str(result.exception) == "azure-eventhub is not installed: pip install 'moorage[quickstart]'"


def test_a_module_within_nothing_is_not_here() -> None:
    assert not command._is_here("no.such.module")


def probing(monkeypatch: pytest.MonkeyPatch, taken: Callable[[str, int], bool]) -> None:
    monkeypatch.setattr(server_process, "holder", lambda address, port: None)
    monkeypatch.setattr(
        server_process, "probe", lambda address, port: Port.TAKEN if taken(address, port) else Port.FREE
    )


def test_a_server_of_our_own_goes_where_its_ports_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    probing(monkeypatch, lambda address, port: False)
    assert server_process.free_address() == (None, [])
    probing(monkeypatch, lambda address, port: address in ("127.0.0.1", "127.0.0.2") and port == 8883)
    assert server_process.free_address() == (
        "127.0.0.3",
        ["port 8883 of 127.0.0.1 is taken by another program"],
    )


def test_ports_that_are_taken_everywhere_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    probing(monkeypatch, lambda address, port: port == 5671)
    with pytest.raises(
        Unavailable, match=r"port 5671 of 127\.0\.0\.1 is taken by another program; port 5671 of ::1"
    ):
        server_process.free_address()


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    refused = pytest.raises(Unavailable, match=r"the server did not start: .*8883")
    with socket.create_server(("127.44.1.1", 8883)), refused, server_process.own_server("127.44.1.1"):
        pass
