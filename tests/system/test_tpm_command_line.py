"""`moorage device registration create --tpm` and `moorage device tpm`, on a TPM that others have written."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.cli.device.registering import TPM_PROTOCOLS
from moorage.credentials.tpm import StorageKey
from tests.conftest import RunningServer, free_address
from tests.support.decisions import decisions, failed_checks
from tests.support.services import Dps, Hub
from tests.support.shell import Shell
from tests.support.software_tpm import SoftwareTpm
from tests.support.swtpm import EK, IDENTITY, SRK, Swtpm, swtpm

pytestmark = pytest.mark.system

CREATE = ("device", "registration", "create", "--tpm")
SHOW = ("device", "tpm", "show")


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with swtpm(tmp_path_factory.mktemp("tpm") / "swtpm", free_address()) as running:
        running.create_keys()
        yield running


@pytest.fixture
def shell(server: RunningServer, tpm: Swtpm) -> Shell:
    """One in which the TPM is known to tpm2-tools."""
    shell = Shell(server)
    shell.env["TPM2TOOLS_TCTI"] = tpm.environment["TPM2TOOLS_TCTI"]
    return shell


@pytest.fixture
def dps(server: RunningServer) -> Dps:
    return Dps(server.env)


@pytest.fixture
def hub(server: RunningServer) -> Hub:
    return Hub(server.env)


def enroll(shell: Shell, device_id: str, endorsement_key: str) -> None:
    shell.moorage(
        *("dps", "enrollment", "create", "--attestation-type", "tpm"),
        *("--enrollment-id", device_id, "--endorsement-key", endorsement_key),
    )


def kept_signature(tpm: Swtpm, content: bytes) -> bytes:
    """By the key that the TPM keeps for the hub."""
    (tpm.folder / "told").write_bytes(content)
    signature = tpm.tool("tpm2_hmac", "-c", IDENTITY, "-g", "sha256", "told")
    tpm.flush()
    return signature


def hub_key(hub: Hub, device_id: str) -> bytes:
    return base64.b64decode(hub.get(f"/devices/{device_id}")["authentication"]["symmetricKey"]["primaryKey"])


@pytest.mark.parametrize("protocol", TPM_PROTOCOLS)
def test_a_device_registers_and_its_tpm_keeps_the_key_for_the_hub(
    shell: Shell, dps: Dps, hub: Hub, tpm: Swtpm, protocol: str
) -> None:
    device_id = f"cli-tpm-{protocol}"
    enroll(shell, device_id, shell.moorage(*SHOW, "--key", "endorsement").strip())

    told = shell.json(*CREATE, "--registration-id", device_id, "--protocol", protocol)

    state = told["registrationState"]
    assert (told["status"], state["deviceId"], state["assignedHub"]) == (
        "assigned",
        device_id,
        shell.env["IOTHUB_HOSTNAME"],
    )
    assert kept_signature(tpm, b"for the hub") == hmac.digest(
        hub_key(hub, device_id), b"for the hub", "sha256"
    )
    pinned = dps.get(f"/enrollments/{device_id}")["attestation"]["tpm"]["storageRootKey"]
    assert base64.b64decode(pinned) == tpm.storage_root_key
    assert [decision["door"] for decision in decisions(hub, device_id)] == [protocol]


def test_without_a_name_and_a_protocol(shell: Shell, hub: Hub, tpm: Swtpm) -> None:
    """The name is the one of Azure's clients, the protocol one that has the challenge; the way to the TPM is given."""
    tcti = ("--tcti", shell.env.pop("TPM2TOOLS_TCTI"))
    shown = shell.json(*SHOW, *tcti)
    assert base64.b64decode(shown["endorsementKey"]) == tpm.endorsement_key
    shell.moorage(
        *("dps", "enrollment", "create", "--attestation-type", "tpm"),
        *("--endorsement-key", shown["endorsementKey"], "--storage-root-key", shown["storageRootKey"]),
    )
    told = shell.json(*CREATE, *tcti)
    assert told["registrationState"]["registrationId"] == shown["registrationId"]
    assert decisions(hub, shown["registrationId"])[-1]["door"] == "https"


@pytest.mark.parametrize("protocol", TPM_PROTOCOLS)
def test_another_tpm_is_refused_and_what_this_one_keeps_stays(
    shell: Shell, hub: Hub, tpm: Swtpm, protocol: str
) -> None:
    device_id, kept = f"cli-other-tpm-{protocol}", f"cli-kept-{protocol}"
    enroll(shell, kept, base64.b64encode(tpm.endorsement_key).decode())
    enroll(shell, device_id, SoftwareTpm().keys["endorsementKey"])
    shell.json(*CREATE, "--registration-id", kept)

    said = shell.refused(*CREATE, "--registration-id", device_id, "--protocol", protocol)

    presented = StorageKey.read("ek", tpm.endorsement_key).name_text
    assert presented in said, said
    refused = decisions(hub, device_id)[-1]
    assert presented in refused["error"]
    assert failed_checks(refused) == ["endorsement key"]
    assert kept_signature(tpm, b"still") == hmac.digest(hub_key(hub, kept), b"still", "sha256")


def test_a_device_that_is_not_enrolled(shell: Shell) -> None:
    for protocol in TPM_PROTOCOLS:
        said = shell.refused(*CREATE, "--registration-id", "cli-tpm-nobody", "--protocol", protocol)
        assert "no enrollment named 'cli-tpm-nobody'" in said, said


def test_a_tpm_without_keys_is_given_them(shell: Shell, tmp_path: Path) -> None:
    with swtpm(tmp_path / "swtpm", free_address()) as fresh:
        shell.env["TPM2TOOLS_TCTI"] = fresh.environment["TPM2TOOLS_TCTI"]
        assert "moorage device tpm create" in shell.refused(*CREATE)
        made = shell.json("device", "tpm", "create")
        assert shell.json("device", "tpm", "create") == shell.json(*SHOW) == made
        for handle, name in ((EK, "endorsementKey"), (SRK, "storageRootKey")):
            fresh.tool("tpm2_readpublic", "-c", handle, "-o", "read")
            assert (fresh.folder / "read").read_bytes() == base64.b64decode(made[name])
        enroll(shell, "cli-fresh-tpm", made["endorsementKey"])
        assert shell.json(*CREATE, "--registration-id", "cli-fresh-tpm")["status"] == "assigned"


def test_no_tpm_there_and_no_tools(shell: Shell, tmp_path: Path) -> None:
    shell.env["TPM2TOOLS_TCTI"] = f"swtpm:host={free_address()},port=2321"
    assert shell.refused(*SHOW).startswith("tpm2_getcap: ")
    shell.env["PATH"] = str(tmp_path)
    assert "Debian's package tpm2-tools" in shell.refused(*CREATE)
