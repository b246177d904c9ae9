"""The commands as people run them, against a real server: each a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest

from moorage.cli import event_reader
from moorage.cli.event_reader import LATEST, EventReader, open_reader
from moorage.cli.target import Login
from moorage.errors import Unauthorized
from tests.conftest import RunningServer, StartServer, own_environment
from tests.support.certificates import certificate
from tests.support.commands import moorage, refusal, said
from tests.support.mqtt_device import device_token, send
from tests.support.software_tpm import SoftwareTpm

pytestmark = pytest.mark.clients

EXAMPLE = Path(__file__).parents[2] / "examples" / "provision_x509.py"


@pytest.fixture
def device(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A device identity with a symmetric key, named after the test."""
    name = f"{request.node.originalname or request.node.name}-device"
    said(moorage(server, "hub", "device-identity", "create", "-d", name))
    yield name
    moorage(server, "hub", "device-identity", "delete", "-d", name)


# --- env, wait, doctor --------------------------------------------------------------------------------------


def test_env_is_what_a_shell_can_read(server: RunningServer) -> None:
    script = f'eval "$({sys.executable} -m moorage env)" && printf "%s" "$IOTHUB_CONNECTION_STRING"'
    read = subprocess.run(["sh", "-c", script], env=server.shell, capture_output=True, text=True, check=True)
    assert read.stdout == server.env["IOTHUB_CONNECTION_STRING"]


def test_env_finds_the_server_by_its_folder(server: RunningServer, tmp_path: Path) -> None:
    assert said(moorage(server, "env", "--format", "json", "--data", str(server.data))) == dict(server.env)
    assert "no server runs on" in refusal(moorage(server, "env", "--data", str(tmp_path)))


def test_wait_returns_when_the_server_is_ready(server: RunningServer) -> None:
    assert moorage(server, "wait", "--timeout", "5").returncode == 0


def test_doctor_finds_the_server_well(server: RunningServer) -> None:
    done = moorage(server, "doctor", "--output", "json", env=dict(server.env))
    remarks = json.loads(done.stdout)
    assert done.returncode == 0, remarks
    verdicts = {(remark["area"], remark["verdict"]) for remark in remarks}
    assert ("ports", "problem") not in verdicts
    texts = [remark["text"] for remark in remarks]
    assert f"mqtt: the server with process id {server.pid} answers on {server.endpoints['mqtt']}" in texts
    assert "Python's ssl and OpenSSL: trusted by SSL_CERT_FILE" in texts


# --- enrollments and registrations --------------------------------------------------------------------------


def test_an_enrollment_by_tpm(server: RunningServer) -> None:
    tpm = SoftwareTpm()
    keys = ("--endorsement-key", tpm.keys["endorsementKey"], "--storage-root-key", tpm.keys["storageRootKey"])
    create = ("dps", "enrollment", "create", "--attestation-type", "tpm")
    assert "--endorsement-key" in refusal(moorage(server, *create))
    assert "--endorsement-key" in refusal(moorage(server, *create, "--ek", "AAAA"))
    created = said(moorage(server, *create, *keys))
    assert created["registrationId"] == tpm.registration_id, "what Azure's clients call a TPM's device"
    assert created["attestation"]["tpm"] == tpm.keys
    update = ("dps", "enrollment", "update", "--eid", tpm.registration_id)
    disabled = said(moorage(server, *update, "--provisioning-status", "disabled"))
    assert disabled["attestation"]["tpm"] == tpm.keys
    forgotten = said(moorage(server, *update, "--storage-root-key", ""))
    assert forgotten["attestation"]["tpm"] == {**tpm.keys, "storageRootKey": None}
    moorage(server, "dps", "enrollment", "delete", "--eid", tpm.registration_id)


def test_an_enrollment_from_its_creation_to_its_end(server: RunningServer, tmp_path: Path) -> None:
    file, _ = certificate(tmp_path, "cli-enrollment")
    created = said(
        moorage(
            server,
            *("dps", "enrollment", "create", "--attestation-type", "x509", "--certificate-path", str(file)),
            *("--initial-twin-tags", '{"floor": 3}', "--props", '{"interval": 10}', "--rp", "never"),
        )
    )
    assert created["registrationId"] == "cli-enrollment"  # the certificate's common name
    assert created["initialTwin"] == {"tags": {"floor": 3}, "properties": {"desired": {"interval": 10}}}
    assert created["reprovisionPolicy"]["updateHubAssignment"] is False
    eid = ("--eid", "cli-enrollment")

    updated = said(moorage(server, "dps", "enrollment", "update", *eid, "--provisioning-status", "disabled"))
    assert (updated["provisioningStatus"], updated["initialTwin"]) == ("disabled", created["initialTwin"])
    assert said(moorage(server, "dps", "enrollment", "show", *eid))["etag"] == updated["etag"]

    stale = moorage(
        server, "dps", "enrollment", "update", *eid, "--device-id", "x", "--etag", created["etag"]
    )
    assert "HTTP 412" in refusal(stale)

    listed = said(moorage(server, "dps", "enrollment", "list"))
    assert "cli-enrollment" in [each["registrationId"] for each in listed]
    table = moorage(server, "dps", "enrollment", "list", "--output", "table").stdout.splitlines()
    assert table[0].split() == [
        "REGISTRATION",
        "ID",
        "ATTESTATION",
        "STATUS",
        "DEVICE",
        "ID",
        "HUBS",
        "REGISTRATION",
    ]
    assert any(line.split()[:3] == ["cli-enrollment", "x509", "disabled"] for line in table)

    assert said(moorage(server, "dps", "enrollment", "delete", *eid)) is None
    assert "HTTP 404" in refusal(moorage(server, "dps", "enrollment", "show", *eid))


def test_an_enrollment_of_a_file_that_is_no_certificate(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "device.pem"
    file.write_text("nonsense")
    done = moorage(server, "dps", "enrollment", "create", "--at", "x509", "--cp", str(file))
    assert refusal(done).startswith(f"{file}: ")


def test_a_registration_that_never_was(server: RunningServer) -> None:
    assert "HTTP 404" in refusal(moorage(server, "dps", "registration", "show", "--rid", "nobody"))


# --- devices ------------------------------------------------------------------------------------------------


def test_a_device_from_its_creation_to_its_end(server: RunningServer) -> None:
    named = ("-d", "cli-pump")
    created = said(moorage(server, "hub", "device-identity", "create", *named))
    assert (created["status"], created["authentication"]["type"]) == ("enabled", "sas")
    assert "HTTP 409" in refusal(moorage(server, "hub", "device-identity", "create", *named))

    updated = said(
        moorage(
            server, "hub", "device-identity", "update", *named, "--status", "disabled", "--star", "stolen"
        )
    )
    assert (updated["status"], updated["statusReason"]) == ("disabled", "stolen")
    assert updated["authentication"]["symmetricKey"] == created["authentication"]["symmetricKey"]
    assert said(moorage(server, "hub", "device-twin", "show", *named))["status"] == "disabled"
    assert "cli-pump" in [
        each["deviceId"] for each in said(moorage(server, "hub", "device-identity", "list"))
    ]

    assert said(moorage(server, "hub", "device-identity", "delete", *named)) is None
    assert "HTTP 404" in refusal(moorage(server, "hub", "device-identity", "show", *named))


def test_explain_says_why_a_device_was_refused(server: RunningServer, device: str) -> None:
    assert connect(server, device, password="SharedAccessSignature sr=x&sig=AAAA&se=1") == 5
    text = moorage(server, "explain", device).stdout
    assert f"connect {device}  REFUSED" in text
    assert "remedy" in text
    assert "FAILED" in text
    (decision,) = said(moorage(server, "explain", device, "--top", "1", "--output", "json"))
    assert decision["accepted"] is False
    nobody = moorage(server, "explain", "never-seen").stdout
    assert nobody == "Nothing is known about never-seen: it has not come here since the server started.\n"


# --- whom a command talks to --------------------------------------------------------------------------------


def test_explain_leaves_out_what_is_not_asked_for(server: RunningServer, device: str) -> None:
    connect(server, device)
    connect(server, device, password="wrong")
    lines = moorage(server, "explain", device, "--brief").stdout.splitlines()
    assert [line[26:34] for line in lines] == ["accepted", "connecte", "ended   ", "REFUSED "]
    assert "  disconnect after " in lines[2]
    (line,) = moorage(server, "explain", device, "--brief", "--refused-only").stdout.splitlines()
    assert f"  REFUSED   connect {device}  from " in line
    assert "  token form: the SAS token cannot be read" in line
    nothing = moorage(server, "explain", device, "--operation", "register").stdout
    assert nothing == "Nothing of that kind was decided since the server started.\n"


@pytest.fixture
def weak(server: RunningServer) -> Iterator[dict[str, str]]:
    """Connection strings of policies that may not see decisions, and of one that may see connections."""
    made = {"dps": ("EnrollmentRead",), "hub": ("ServiceConnect",), "hub-reader": ("RegistryRead",)}
    strings = {}
    for name, rights in made.items():
        service = name.partition("-")[0]
        option = "--rights" if service == "dps" else "--permissions"
        said(moorage(server, service, "policy", "create", "-n", f"weak-{name}", option, *rights))
        shown = said(moorage(server, service, "connection-string", "show", "--pn", f"weak-{name}"))
        strings[name] = shown["connectionString"]
    yield strings
    for name in made:
        moorage(server, name.partition("-")[0], "policy", "delete", "-n", f"weak-{name}")


def test_explain_asks_as_whoever_may(server: RunningServer, device: str, weak: dict[str, str]) -> None:
    connect(server, device)
    dps, hub = "PROVISIONING_SERVICE_CONNECTION_STRING", "IOTHUB_CONNECTION_STRING"
    env = {"SSL_CERT_FILE": server.env["SSL_CERT_FILE"], dps: weak["dps"]}
    by_hub = moorage(server, "explain", device, "--brief", env=env | {hub: server.env[hub]})
    assert by_hub.stdout == moorage(server, "explain", device, "--brief").stdout != ""
    assert by_hub.stderr == ""

    half = moorage(server, "explain", device, "--brief", env=env | {hub: weak["hub-reader"]})
    assert [line[26:34] for line in half.stdout.splitlines()] == ["connecte", "ended   "]
    (line,) = half.stderr.splitlines()
    assert line.startswith("moorage: decisions are not shown: policy weak-dps of ")
    assert "policy weak-hub-reader of " in line

    other = moorage(server, "explain", device, "--brief", "--login", server.env[dps], env=env)
    assert [line[26:34] for line in other.stdout.splitlines()] == ["accepted"]
    assert other.stderr.startswith("moorage: connections are not shown: policy provisioningserviceowner of ")


def test_explain_says_that_nobody_may(server: RunningServer, weak: dict[str, str]) -> None:
    nobody = {
        "SSL_CERT_FILE": server.env["SSL_CERT_FILE"],
        "PROVISIONING_SERVICE_CONNECTION_STRING": weak["dps"],
        "IOTHUB_CONNECTION_STRING": weak["hub"],
    }
    why = refusal(moorage(server, "explain", env=nobody))
    assert why.startswith("decisions are not shown: policy weak-dps of ")
    assert "; connections are not shown: policy weak-hub of " in why


def test_explain_goes_on_with_what_comes(server: RunningServer, device: str) -> None:
    connect(server, device)
    command = [sys.executable, "-m", "moorage", "explain", device, "--follow", "--output", "json"]
    following = subprocess.Popen(
        command, env=server.shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert following.stdout is not None
    try:
        assert json.loads(following.stdout.readline())["accepted"]
        for state in ("Connected", "Disconnected"):
            assert json.loads(following.stdout.readline())["state"] == state
        connect(server, "somebody-else", password="wrong")
        connect(server, device, password="wrong")
        decision = json.loads(following.stdout.readline())
        assert (decision["subject"], decision["accepted"]) == (device, False)
        connect(server, device)
        news = [json.loads(following.stdout.readline()) for _ in range(3)]
        assert [each.get("state") for each in news] == [None, "Connected", "Disconnected"]
        assert len({each["trackingId"] for each in news}) == 1
    finally:
        following.send_signal(signal.SIGINT)
        out, err = following.communicate(timeout=30)
    assert (following.returncode, out, err) == (0, "", "")


def test_login_needs_no_running_server_to_be_found(server: RunningServer, tmp_path: Path) -> None:
    elsewhere = {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    listing = ("hub", "device-identity", "list")
    assert "no server runs here" in refusal(moorage(server, *listing, env=elsewhere))
    login = server.env["IOTHUB_CONNECTION_STRING"]
    trusting = elsewhere | {"SSL_CERT_FILE": server.env["SSL_CERT_FILE"]}
    assert isinstance(said(moorage(server, *listing, "--login", login, env=trusting)), list)
    assert isinstance(
        said(moorage(server, *listing, env=trusting | {"IOTHUB_CONNECTION_STRING": login})), list
    )


def test_a_server_that_is_not_trusted_is_said_with_what_mends_it(
    server: RunningServer, tmp_path: Path
) -> None:
    login = server.env["IOTHUB_CONNECTION_STRING"]
    for command in (("hub", "device-identity", "list"), ("hub", "monitor-events")):
        line = refusal(moorage(server, *command, "-l", login, env={"SSL_CERT_FILE": certifi.where()}))
        assert "is not trusted" in line
        assert 'eval "$(moorage env)"' in line
        line = refusal(moorage(server, *command, "-l", login, env={"SSL_CERT_FILE": os.devnull}))
        assert line.startswith(f"{os.devnull}, named by SSL_CERT_FILE")


def test_a_wrong_key_is_told_in_the_services_words(server: RunningServer) -> None:
    login = server.env["IOTHUB_CONNECTION_STRING"].partition("SharedAccessKey=")[0] + "SharedAccessKey=AAAA"
    env = {"SSL_CERT_FILE": server.env["SSL_CERT_FILE"]}
    assert "HTTP 401" in refusal(moorage(server, "hub", "device-identity", "list", "-l", login, env=env))
    assert "$cbs 401" in refusal(moorage(server, "hub", "monitor-events", "-l", login, env=env))


def test_a_server_whose_clock_was_shifted_is_followed(start_server: StartServer) -> None:
    server = start_server("--in-memory", "--clock-offset", "2h")
    assert isinstance(said(moorage(server, "hub", "device-identity", "list")), list)
    assert moorage(server, "hub", "monitor-events", "--timeout", "0.1").returncode == 0
    doctor = moorage(server, "doctor").stdout
    assert f"the clock of the server with process id {server.pid} is 7200 s ahead" in doctor


# --- monitor-events -----------------------------------------------------------------------------------------


class Monitor:
    """`moorage hub monitor-events`, told to be listening before anything is sent."""

    def __init__(self, server: RunningServer, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moorage", "hub", "monitor-events", *options],
            env=server.shell,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        assert self.process.stderr.readline().startswith("Monitoring ")

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


def connect(
    server: RunningServer, device: str, *messages: tuple[str, bytes], password: str | None = None
) -> int:
    """Connect `device` with its key, or another password, and send messages (property bag, body)."""
    if password is None:
        identity = said(moorage(server, "hub", "device-identity", "show", "-d", device))
        key = identity["authentication"]["symmetricKey"]["primaryKey"]
        password = device_token(server.address, device, key)
    return send(server.address, server.env["SSL_CERT_FILE"], device, password, messages)


def documents(text: str) -> list[Any]:
    """The JSON documents in `text`, one behind the other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document["event"])
        text = text[end:]
    return found


def test_events_are_shown_as_they_come(server: RunningServer, device: str) -> None:
    monitor = Monitor(server, "--device-id", device, "--message-count", "2")
    bag = "%24.mid=m-1&%24.ct=application%2Fjson&%24.ce=utf-8&alert=true"
    connect(server, device, (bag, b'{"speed": 12}'), ("", b"plain"))
    code, out, err = monitor.end()
    assert (code, err) == (0, "")
    first, second = documents(out)
    assert first["origin"] == device
    assert first["payload"] == {"speed": 12}
    assert first["properties"]["application"] == {"alert": "true"}
    assert first["properties"]["system"] == {
        "message_id": "m-1",
        "content_type": "application/json",
        "content_encoding": "utf-8",
    }
    assert first["annotations"]["iothub-connection-device-id"] == device
    assert first["annotations"]["iothub-message-source"] == "Telemetry"
    assert second["payload"] == "plain"
    assert second["annotations"]["x-opt-sequence-number"] > first["annotations"]["x-opt-sequence-number"]


def test_what_came_before_is_shown_from_a_time_on(server: RunningServer, device: str) -> None:
    begun = int(time.time() * 1000) - 1
    connect(server, device, ("", b"first"), ("", b"second"))
    options = ("hub", "monitor-events", "-d", device[:-3] + "*", "--mc", "2", "-p", "app", "--timeout", "10")
    done = moorage(server, *options, "--enqueued-time", str(begun))
    assert done.returncode == 0, done.stderr
    assert [event["payload"] for event in documents(done.stdout)] == ["first", "second"]
    assert [event["properties"] for event in documents(done.stdout)] == [{"application": {}}] * 2
    later = moorage(server, *options, "--timeout", "0.5", "--et", str(int(time.time() * 1000) + 60_000))
    assert (later.returncode, later.stdout) == (1, "")
    assert later.stderr.splitlines()[-1] == "moorage: 0 of 2 events came within 0.5 s"


def test_silence_ends_it_in_order(server: RunningServer) -> None:
    done = moorage(server, "hub", "monitor-events", "-d", "nobody", "--timeout", "0.2", "-o", "text")
    assert (done.returncode, done.stdout) == (0, "")


def test_ctrl_c_ends_it_quietly(server: RunningServer) -> None:
    monitor = Monitor(server, "--timeout", "0")
    monitor.process.send_signal(signal.SIGINT)
    assert monitor.end() == (0, "", "")


def test_an_unknown_consumer_group_is_told(server: RunningServer) -> None:
    line = refusal(moorage(server, "hub", "monitor-events", "--cg", "nope"))
    assert "nope" in line
    assert "amqp:not-found" in line


async def test_tokens_are_renewed_and_a_refusal_ends_it(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_reader, "RENEW_AFTER", 0.01)
    login = Login.parse(server.env["IOTHUB_CONNECTION_STRING"], server.env["SSL_CERT_FILE"])
    show, shown = EventReader.show_token, itertools.count(1)

    async def show_until_the_policy_is_gone(reader: EventReader) -> None:
        await show(reader)
        if next(shown) == 3:
            raise Unauthorized("the policy was deleted")

    monkeypatch.setattr(EventReader, "show_token", show_until_the_policy_is_gone)
    async with open_reader(login) as reader, contextlib.aclosing(reader.events(LATEST)) as events:
        with pytest.raises(Unauthorized, match="the policy was deleted"):
            await anext(events)


def test_a_server_that_stops_is_told(start_server: StartServer) -> None:
    server = start_server("--in-memory")
    monitor = Monitor(server)
    server.stop()
    code, out, err = monitor.end()
    assert (code, out) == (1, "")
    assert "the server stops" in err


def test_a_server_that_dies_is_told(start_server: StartServer) -> None:
    server = start_server("--in-memory")
    monitor = Monitor(server)
    server.kill()
    code, out, err = monitor.end()
    assert (code, out) == (1, "")
    assert server.address in err


# --- quickstart ---------------------------------------------------------------------------------------------


def test_the_quickstart_holds_on_a_running_server_and_leaves_nothing(server: RunningServer) -> None:
    done = moorage(server, "quickstart")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith(f"  1/13  Find the running server\n         process id {server.pid}")
    assert "\x1b" not in done.stdout
    for number in range(1, 11):
        assert f"message {number:>2} goes\n" in done.stdout
        assert f'message {number:>2} comes: {{"number": {number}}} from partition' in done.stdout
    for words in (
        f"assigned: hub {server.address}, device Python-device-01",
        "substatus initialAssignment",
        "Python-device-01: enabled, selfSigned, Connected",
        "remedy      Create an individual enrollment",
        "Every step held.",
    ):
        assert words in done.stdout
    assert "HTTP 404" in refusal(moorage(server, "dps", "enrollment", "show", "--eid", "Python-device-01"))
    assert "HTTP 404" in refusal(moorage(server, "hub", "device-identity", "show", "-d", "Python-device-01"))
    assert f"\n  {server.env['MOORAGE_PORTAL_URL']}/sign-in?code=" in done.stdout


def test_the_quickstart_leaves_the_device_to_be_looked_at(server: RunningServer) -> None:
    done = moorage(server, "quickstart", "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Devices                                Python-device-01, enabled" in done.stdout
    for noun in (["dps", "enrollment"], ["hub", "device-identity"]):
        wanted = ["--eid" if "dps" in noun else "--device-id", "Python-device-01"]
        assert moorage(server, *noun, "show", *wanted).returncode == 0
        assert moorage(server, *noun, "delete", *wanted).returncode == 0


@pytest.mark.usefixtures("default_address")
def test_the_quickstart_keeps_a_server_of_its_own_until_ctrl_c(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    command = [sys.executable, "-m", "moorage", "quickstart", "--keep"]
    environment = own_environment(runtime) | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        shown = []
        for line in process.stdout:
            shown.append(line)
            if "until Ctrl-C" in line:
                process.send_signal(signal.SIGINT)
                break  # a line that was interrupted while it was printed may come once more
        shown += process.stdout
        assert process.wait() == 0, "".join(shown)
    assert any("/sign-in?code=" in line for line in shown)
    assert shown[-1].startswith("  moorage quickstart --sample")


@pytest.mark.usefixtures("default_address")
def test_the_quickstart_starts_a_server_of_its_own_and_stops_it(tmp_path: Path) -> None:
    done = alone(tmp_path, "quickstart")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("  1/13  Start a server of our own\n")
    assert "moorage hub monitor-events" in done.stdout  # what to try next
    assert not [each for each in tmp_path.iterdir() if each.name.startswith("moorage-")]
    assert "no server runs here" in refusal(alone(tmp_path, "env"))


@pytest.mark.usefixtures("default_address")
def test_a_sample_runs_unchanged_against_a_fresh_server(tmp_path: Path) -> None:
    done = alone(tmp_path, "quickstart", "--sample", str(EXAMPLE))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("  1/6  Start a server of our own\n")
    assert "sent message 10\n" in done.stdout
    assert "10 messages came" in done.stdout
    assert done.stdout.endswith("provision_x509.py works with this server.\n")


KEY_SAMPLE = """\
import os
from azure.iot.device import IoTHubDeviceClient, ProvisioningDeviceClient

name, key = os.environ["PROVISIONING_REGISTRATION_ID"], os.environ["PROVISIONING_SYMMETRIC_KEY"]
host, id_scope = os.environ["PROVISIONING_HOST"], os.environ["PROVISIONING_IDSCOPE"]
result = ProvisioningDeviceClient.create_from_symmetric_key(host, name, id_scope, key).register()
hub = result.registration_state.assigned_hub
device = IoTHubDeviceClient.create_from_symmetric_key(key, hub, name)
device.send_message("one")
device.shutdown()
"""


@pytest.mark.usefixtures("default_address")
def test_a_sample_that_reads_a_symmetric_key_gets_one(tmp_path: Path) -> None:
    sample = tmp_path / "by_key.py"
    sample.write_text(KEY_SAMPLE)
    done = alone(tmp_path, "quickstart", "--sample", str(sample))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Python-device-01, by a symmetric key\n" in done.stdout
    assert "1 messages came" in done.stdout


@pytest.mark.usefixtures("default_address")
def test_a_sample_that_fails_is_a_failure(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("import os\nprint(os.environ['DPS_X509_REGISTRATION_ID'])\nraise SystemExit(3)\n")
    done = alone(tmp_path, "quickstart", "--sample", str(sample))
    assert done.returncode == 1
    assert "         Python-device-01\n         FAILED" in done.stdout
    assert "sample.py ended with exit code 3" in done.stdout
    assert done.stdout.endswith("sample.py failed against this server.\n")


def alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """On a machine where no server runs."""
    command = [sys.executable, "-m", "moorage", *arguments]
    process = subprocess.Popen(
        command,
        env=own_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.terminate()  # not kill: it has a server to stop
        out, err = process.communicate(timeout=30)
        raise AssertionError(f"moorage {' '.join(arguments)} did not end:\n{out}{err}") from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)
