"""`moorage device registration create`: a device without an SDK, by every protocol."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from moorage.cli.device.registering import PROTOCOLS
from moorage.credentials.sas import derive_key, new_key
from tests.conftest import RunningServer
from tests.support.certificates import CertificateFiles
from tests.support.decisions import decisions
from tests.support.services import Dps, Hub
from tests.support.shell import Shell

pytestmark = [pytest.mark.clients, pytest.mark.port443]

CREATE = ("device", "registration", "create")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_by_certificate(
    server: RunningServer,
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
    protocol: str,
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])
    files = ["--certificate-file-path", device_certificate[0], "--key-file-path", device_certificate[1]]
    told = Shell(server).json(*CREATE, *map(str, files), "--protocol", protocol)
    assert told["status"] == "assigned"
    state = told["registrationState"]
    assert (state["deviceId"], state["assignedHub"]) == (device_id, env["IOTHUB_HOSTNAME"])
    assert decisions(hub, device_id)[-1]["door"] == protocol


@pytest.mark.parametrize(("protocol", "proof"), list(zip(PROTOCOLS, [0, 1, 2, 0, 1], strict=True)))
def test_by_key(server: RunningServer, dps: Dps, hub: Hub, device_id: str, protocol: str, proof: int) -> None:
    shell, group, key = Shell(server), f"group-of-{device_id}", new_key()
    shell.moorage("dps", "enrollment-group", "create", "--enrollment-id", group, "--primary-key", key)
    named = ["--registration-id", device_id, "--protocol", protocol, "--payload", '{"model": "toaster"}']
    given = (
        ["--enrollment-group-id", group],
        ["--symmetric-key", key, "--compute-key"],
        ["--symmetric-key", derive_key(key, device_id)],
    )[proof]
    assert shell.json(*CREATE, *named, *given)["status"] == "assigned"
    assert decisions(hub, device_id)[-1]["door"] == protocol


def test_the_key_of_a_group_itself_is_refused(server: RunningServer, hub: Hub, device_id: str) -> None:
    shell, key = Shell(server), new_key()
    shell.moorage(
        "dps", "enrollment-group", "create", "--enrollment-id", f"of-{device_id}", "--primary-key", key
    )
    said = shell.refused(
        *CREATE, "--registration-id", device_id, "--symmetric-key", key, "--protocol", "https"
    )
    assert "status 401" in said
    assert "derived key" in said


def test_a_device_that_is_disabled_and_one_that_is_nobody(server: RunningServer, device_id: str) -> None:
    shell, named = Shell(server), ["--registration-id", device_id]
    shell.moorage(
        *("dps", "enrollment", "create", "--attestation-type", "symmetricKey", "--enrollment-id", device_id),
        *("--provisioning-status", "disabled"),
    )
    assert shell.json(*CREATE, *named)["status"] == "disabled"
    shell.moorage("dps", "enrollment", "delete", "--enrollment-id", device_id)
    assert "404" in shell.refused(*CREATE, *named)
    assert "401" in shell.refused(*CREATE, *named, "--symmetric-key", new_key())
