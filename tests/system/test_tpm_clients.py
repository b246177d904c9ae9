"""Microsoft's TPM client for Node, on a TPM that others have written, registers over each of its transports."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from moorage.credentials.tpm import StorageKey, default_registration_id
from tests.conftest import RunningServer, free_address
from tests.support.decisions import decisions, refusal
from tests.support.node import Tpm, register
from tests.support.services import Dps, Hub
from tests.support.software_tpm import SoftwareTpm
from tests.support.swtpm import Swtpm, simulator, swtpm

pytestmark = [pytest.mark.system, pytest.mark.node]

TRANSPORTS = {"Http": "https", "Amqp": "amqp", "AmqpWs": "amqp-ws"}  # and the names of their doors


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with swtpm(tmp_path_factory.mktemp("tpm") / "swtpm", free_address()) as running:
        running.create_keys()
        yield running


@pytest.fixture(scope="module")
def device_tpm(tpm: Swtpm) -> Iterator[Tpm]:
    with simulator(tpm) as port:
        yield Tpm(tpm.address, port)


@pytest.fixture
def env(server: RunningServer) -> Mapping[str, str]:
    return server.env


@pytest.fixture
def dps(env: Mapping[str, str]) -> Dps:
    return Dps(env)


@pytest.fixture
def hub(env: Mapping[str, str]) -> Hub:
    return Hub(env)


def enroll(dps: Dps, registration_id: str, **keys: str) -> None:
    attestation: dict[str, Any] = {"type": "tpm", "tpm": keys}
    document = {"registrationId": registration_id, "attestation": attestation}
    answer = dps.call("PUT", f"/enrollments/{registration_id}", document)
    assert answer.status == 200, answer


def ek(tpm: Swtpm) -> str:
    return base64.b64encode(tpm.endorsement_key).decode()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_registers_by_its_tpm_and_signs_with_the_key_of_its_hub(
    env: Mapping[str, str], dps: Dps, hub: Hub, tpm: Swtpm, device_tpm: Tpm, transport: str
) -> None:
    device_id = f"node-tpm-{transport.lower()}"
    enroll(dps, device_id, endorsementKey=ek(tpm))

    done = register(env, transport, device_id, tpm=device_tpm, payload={"model": "press"}, sign="for the hub")

    state = done.state["registrationState"]  # this client gives the whole answer where others give the state
    assert (state["status"], state["assignedHub"], state["deviceId"]) == (
        "assigned",
        env["IOTHUB_HOSTNAME"],
        device_id,
    )
    authentication = hub.get(f"/devices/{device_id}")["authentication"]
    assert authentication["type"] == "sas"
    key = base64.b64decode(authentication["symmetricKey"]["primaryKey"])
    assert done.signature == hmac.digest(key, b"for the hub", "sha256")
    pinned = dps.get(f"/enrollments/{device_id}")["attestation"]["tpm"]
    assert base64.b64decode(pinned["storageRootKey"]) == tpm.storage_root_key
    assert [decision["door"] for decision in decisions(hub, device_id)] == [TRANSPORTS[transport]]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_another_tpm_is_refused(
    env: Mapping[str, str], dps: Dps, hub: Hub, tpm: Swtpm, device_tpm: Tpm, transport: str
) -> None:
    device_id = f"node-other-tpm-{transport.lower()}"
    enroll(dps, device_id, **SoftwareTpm().keys)

    done = register(env, transport, device_id, tpm=device_tpm)

    assert done.error
    told = refusal(hub, device_id)
    names = [
        StorageKey.read("ek", key).name_text for key in (tpm.endorsement_key, SoftwareTpm().endorsement_key)
    ]
    assert all(name in told["error"] for name in names)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_that_calls_itself_by_its_key_and_is_not_enrolled(
    env: Mapping[str, str], hub: Hub, tpm: Swtpm, device_tpm: Tpm, transport: str
) -> None:
    name = default_registration_id(StorageKey.read("ek", tpm.endorsement_key))

    done = register(env, transport, "", tpm=device_tpm)

    assert done.error
    assert refusal(hub, name)["checks"][-1]["name"] == "known"
