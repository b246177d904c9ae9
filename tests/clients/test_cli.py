"""The original's own steps, by hand: the command line, openssl and Microsoft's device program, each a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pytest
from azure.iot.device.exceptions import ClientError, CredentialError

from moorage.credentials.sas import new_key
from moorage.credentials.x509 import read_certificate
from tests.clients.conftest import EnterShell
from tests.conftest import RunningServer, StartServer
from tests.support.certificates import CertificateFiles
from tests.support.devices import Connection, register, register_by_key, x509_device_client
from tests.support.shell import EXAMPLE, Shell, run

pytestmark = pytest.mark.clients

DEVICE = "Python-device-01"  # the common name of the quickstart's certificate
PASS_PHRASE = "1234"


@contextmanager
def monitoring(shell: Shell, *options: str) -> Iterator[Queue[str]]:
    """`moorage hub monitor-events` while the block runs: its output line by line, from its readiness on."""
    command = [sys.executable, "-m", "moorage", "hub", "monitor-events", *options]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    lines: Queue[str] = Queue()
    with subprocess.Popen(command, env=shell.env | {"PYTHONUNBUFFERED": "1"}, **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        reading = Thread(target=drain, args=(process.stdout, lines), name="monitor-events")
        reading.start()
        try:
            assert process.stderr.readline().startswith("Monitoring ")
            yield lines
        finally:
            process.terminate()
            reading.join()


def drain(output: Iterable[str], lines: Queue[str]) -> None:
    for line in output:
        lines.put(line)


def next_event(lines: Queue[str]) -> dict[str, Any]:
    """The next JSON object, which comes over several lines."""
    text = ""
    while True:
        try:
            text += lines.get(timeout=15)
        except Empty:
            raise AssertionError(f"no event within 15 s; so far: {text!r}") from None
        if text.endswith("\n}\n"):
            event: dict[str, Any] = json.loads(text)["event"]
            return event


def test_the_steps_of_the_original(
    start_server: StartServer, enter_shell: EnterShell, quickstart_certificate: CertificateFiles
) -> None:
    server = start_server("--in-memory")
    env, shell = enter_shell(server), Shell(server)
    certificate, key = quickstart_certificate

    # The service side: the registration id is the certificate's common name.
    options = ["--attestation-type", "x509", "--certificate-path", str(certificate)]
    twin = ["--initial-twin-tags", '{"site": "north"}', "--initial-twin-properties", '{"interval": 30}']
    made = shell.json("dps", "enrollment", "create", *options, "--iot-hubs", env["IOTHUB_HOSTNAME"], *twin)
    assert made["registrationId"] == DEVICE
    assert (made["allocationPolicy"], made["iotHubs"]) == ("static", [env["IOTHUB_HOSTNAME"]])

    # The device side, while somebody watches.
    with monitoring(shell, "--properties", "all", "--timeout", "60") as lines:
        settings = {
            "DPS_X509_REGISTRATION_ID": DEVICE,
            "X509_CERT_FILE": str(certificate),
            "X509_KEY_FILE": str(key),
            "PASS_PHRASE": PASS_PHRASE,
        }
        steps = f'eval "$({sys.executable} -m moorage env)" && exec {sys.executable} {EXAMPLE}'
        done = run("sh", "-c", steps, env=server.shell | settings)
        assert done.returncode == 0, done.stderr
        events = [next_event(lines) for _ in range(10)]
    assert {event["payload"]["number"] for event in events} == set(range(1, 11))
    for event in events:
        assert event["origin"] == DEVICE
        assert event["properties"]["system"]["content_type"] == "application/json"
        warning = "yes" if event["payload"]["number"] % 2 else "no"
        assert event["properties"]["application"] == {"tornado-warning": warning}
        assert event["annotations"]["iothub-message-source"] == "Telemetry"

    # What became of it.
    (device,) = shell.json("hub", "device-identity", "list")
    assert (device["deviceId"], device["status"]) == (DEVICE, "enabled")
    leaf = read_certificate(certificate.read_bytes())
    assert device["authentication"]["x509Thumbprint"]["primaryThumbprint"] == leaf.sha256
    kept = shell.json("hub", "device-twin", "show", "--device-id", DEVICE)
    assert kept["tags"] == {"site": "north"}
    assert kept["properties"]["desired"]["interval"] == 30
    record = shell.json("dps", "registration", "show", "--registration-id", DEVICE)
    assert (record["status"], record["deviceId"]) == ("assigned", DEVICE)
    assert "accepted" in shell.moorage("explain", DEVICE)

    # Without its enrollment the device still connects, and can not register anew.
    open_key = key.with_name("open.key.pem")
    run(
        "openssl",
        "pkey",
        "-in",
        str(key),
        "-passin",
        f"pass:{PASS_PHRASE}",
        "-out",
        str(open_key),
        env=os.environ,
    )
    files = (certificate, open_key)
    assert shell.moorage("dps", "enrollment", "delete", "--enrollment-id", DEVICE) == ""
    with pytest.raises(ClientError):
        register(env, DEVICE, files)
    with x509_device_client(env, DEVICE, files, connection_retry=False) as client:
        client.connect()
        assert client.get_twin()["desired"] == {"interval": 30, "$version": 1}

        # Without its identity it is dropped, and refused.
        connection = Connection(client)
        assert shell.moorage("hub", "device-identity", "delete", "--device-id", DEVICE) == ""
        assert connection.lost.wait(10), "the device was not dropped"
        with pytest.raises(CredentialError):
            client.connect()
    assert shell.json("hub", "device-identity", "list") == []


def test_an_enrollment_whose_operator_decides_everything(
    server: RunningServer,
    env: Mapping[str, str],
    device_id: str,
    device_certificate: CertificateFiles,
    tmp_path: Path,
) -> None:
    shell, named = Shell(server), ["--enrollment-id", device_id]
    information = tmp_path / "information.json"
    information.write_text('{"serial": "A-17"}')

    made = shell.json(
        *("dps", "enrollment", "create", *named, "--attestation-type", "x509"),
        *(
            "--certificate-path",
            str(device_certificate[0]),
            "--secondary-certificate-path",
            str(device_certificate[0]),
        ),
        *("--device-id", f"Line4-{device_id}", "--iot-hubs", env["IOTHUB_HOSTNAME"]),
        *("--allocation-policy", "hashed", "--device-information", str(information)),
    )
    assert (made["registrationId"], made["deviceId"]) == (device_id, f"Line4-{device_id}")
    assert (made["allocationPolicy"], made["iotHubs"]) == ("hashed", [env["IOTHUB_HOSTNAME"]])
    assert made["optionalDeviceInformation"] == {"serial": "A-17"}

    changed = shell.json(
        *("dps", "enrollment", "update", *named, "--etag", made["etag"], "--remove-secondary-certificate"),
        *("--initial-twin-properties", '{"interval": 5}'),
    )
    assert changed["attestation"]["x509"]["clientCertificates"]["secondary"] is None
    assert changed["deviceId"] == f"Line4-{device_id}"

    register(env, device_id, device_certificate)
    shown = shell.json("dps", "enrollment", "show", *named)
    assert shown["registrationState"]["deviceId"] == f"Line4-{device_id}"
    twin = shell.json("hub", "device-twin", "show", "--device-id", f"Line4-{device_id}")
    assert twin["properties"]["desired"]["interval"] == 5


def test_a_group_by_key_and_the_keys_of_its_devices(
    server: RunningServer, env: Mapping[str, str], device_id: str
) -> None:
    shell, named = Shell(server), ["--enrollment-id", f"group-of-{device_id}"]
    made = shell.json(
        *("dps", "enrollment-group", "create", *named, "--initial-twin-tags", '{"site": "north"}'),
        *("--reprovision-policy", "never"),
    )
    keys = made["attestation"]["symmetricKey"]
    assert len(keys["primaryKey"]) == len(keys["secondaryKey"]) == 88
    shown = shell.json("dps", "enrollment-group", "show", *named)
    assert keys["primaryKey"] not in json.dumps(shown)
    told = shell.json("dps", "enrollment-group", "show", *named, "--show-keys")
    assert told["attestation"] == made["attestation"]

    derived = shell.moorage("dps", "compute-device-key", *named, "--registration-id", device_id).strip()
    offline = ["--key", keys["primaryKey"], "--registration-id", device_id]
    assert shell.moorage("dps", "compute-device-key", *offline).strip() == derived
    register_by_key(env, device_id, derived)
    (record,) = shell.json("dps", "registration", "list", *named)
    assert (record["registrationId"], record["status"]) == (device_id, "assigned")
    assert shell.json("hub", "device-twin", "show", "--device-id", device_id)["tags"] == {"site": "north"}

    changed = shell.json(
        *("dps", "enrollment-group", "update", *named, "--etag", made["etag"]),
        *("--provisioning-status", "disabled"),
    )
    assert changed["attestation"] == made["attestation"]
    assert changed["reprovisionPolicy"]["updateHubAssignment"] is False
    listed = shell.json("dps", "enrollment-group", "list")
    assert changed["etag"] in {each["etag"] for each in listed}
    assert "412" in shell.refused("dps", "enrollment-group", "delete", *named, "--etag", made["etag"])
    shell.moorage("dps", "enrollment-group", "delete", *named)
    assert "404" in shell.refused("dps", "enrollment-group", "show", *named)


def test_an_individual_enrollment_by_key(server: RunningServer, device_id: str) -> None:
    shell, named = Shell(server), ["--enrollment-id", device_id]
    key, other = new_key(), new_key()
    made = shell.json(
        *("dps", "enrollment", "create", *named, "--attestation-type", "symmetricKey"),
        *("--primary-key", key),
    )
    kept = made["attestation"]["symmetricKey"]["secondaryKey"]
    assert made["attestation"]["symmetricKey"]["primaryKey"] == key
    shell.moorage("dps", "enrollment", "update", *named, "--primary-key", other)
    shown = shell.json("dps", "enrollment", "show", *named, "--show-keys")
    assert shown["attestation"]["symmetricKey"] == {"primaryKey": other, "secondaryKey": kept}
    assert "base64" in shell.refused("dps", "enrollment", "update", *named, "--primary-key", "short")


def test_enrollments_leave_one_server_and_enter_another(
    start_server: StartServer,
    enter_shell: EnterShell,
    device_certificate: CertificateFiles,
    device_id: str,
    tmp_path: Path,
) -> None:
    servers = [start_server("--in-memory") for _ in range(2)]
    first, second = map(Shell, servers)
    first.moorage(
        *("dps", "enrollment", "create", "--attestation-type", "x509"),
        *("--certificate-path", str(device_certificate[0])),
    )
    first.moorage(
        "dps", "enrollment", "create", "--attestation-type", "symmetricKey", "--enrollment-id", "b-7"
    )
    file, again = tmp_path / "enrollments.jsonl", tmp_path / "again.jsonl"
    first.moorage("dps", "enrollment", "export", str(file))
    assert len(file.read_text("utf-8").splitlines()) == 2

    second.moorage("dps", "enrollment", "import", str(file))
    second.moorage("dps", "enrollment", "export", str(again))
    assert again.read_bytes() == file.read_bytes()
    register(enter_shell(servers[1]), device_id, device_certificate)

    with file.open("a") as rows:
        rows.write('\n{"registrationId": "x y"}\n{"registrationId"\n{"registrationId": "B-7"}\n')
    done = second.attempt("dps", "enrollment", "import", str(file))
    assert done.returncode == 1
    told = [line.removeprefix(f"{file}:").partition(":")[0] for line in done.stderr.splitlines()]
    assert told[:3] == ["4", "5", "6"]
    assert "2 enrollments taken in, 3 refused" in done.stderr
