"""Devices assigned to the hub of another server, which is told over IoT Hub's registry API."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

import pytest
from azure.iot.device.exceptions import ClientError

from moorage.credentials.sas import new_key
from tests.clients.conftest import EnterShell
from tests.conftest import RunningServer, StartServer
from tests.support.certificates import CertificateFiles
from tests.support.decisions import decisions, failed_checks
from tests.support.devices import put_device, register, service_error, x509_device_client
from tests.support.services import Dps, Hub, with_key
from tests.support.shell import Shell
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

RESET = {"updateHubAssignment": True, "migrateDeviceData": False}


class Sites:
    """`near` has the provisioning service, `far` the hub that is linked to it beside its own."""

    def __init__(self, near: RunningServer, far: RunningServer) -> None:
        self.near, self.far = near, far
        self.shell = Shell(near)
        self.dps, self.near_hub, self.far_hub = Dps(near.env), Hub(near.env), Hub(far.env)

    def link_far(self, connection_string: str | None = None, **options: str) -> dict[str, Any]:
        login = connection_string or self.far.env["IOTHUB_CONNECTION_STRING"]
        made: dict[str, Any] = self.shell.json("dps", "linked-hub", "create", "--connection-string", login)
        return made

    def unlink_near(self) -> None:
        self.shell.moorage("dps", "linked-hub", "delete", "--linked-hub", self.near_hub.host)

    def register(self, device_id: str, files: CertificateFiles) -> Any:
        return register(self.near.env, device_id, files).registration_state


@pytest.fixture
def sites(start_server: StartServer, enter_shell: EnterShell) -> Sites:
    near, far = start_server(), start_server()
    enter_shell(near)
    return Sites(near, far)


@pytest.fixture
def enrolled(sites: Sites, device_id: str, device_certificate: CertificateFiles) -> CertificateFiles:
    twin = {"tags": {"site": "dock"}, "properties": {"desired": {"interval": 30}}}
    sites.dps.put_enrollment(device_id, device_certificate[0], initialTwin=twin)
    return device_certificate


def test_a_device_is_assigned_there_and_connects(
    sites: Sites, device_id: str, enrolled: CertificateFiles
) -> None:
    made = sites.link_far()
    assert made["hub"] is None
    assert made["connectionString"].endswith("SharedAccessKey=****")
    sites.unlink_near()

    state = sites.register(device_id, enrolled)

    assert (state.assigned_hub, state.sub_status) == (sites.far_hub.host, "initialAssignment")
    twin = sites.far_hub.get(f"/twins/{device_id}")
    assert (twin["tags"], twin["properties"]["desired"]["interval"]) == ({"site": "dock"}, 30)
    with x509_device_client(sites.far.env, device_id, enrolled) as client:
        client.connect()
        assert sites.far_hub.get(f"/devices/{device_id}")["connectionState"] == "Connected"
    again = sites.register(device_id, enrolled)
    assert (again.assigned_hub, again.sub_status) == (sites.far_hub.host, "initialAssignment")
    key = sites.far.env["IOTHUB_CONNECTION_STRING"].partition("SharedAccessKey=")[2]
    assert key not in json.dumps(sites.shell.json("dps", "linked-hub", "list"))


def test_a_device_goes_there_and_back_with_its_twin(
    sites: Sites, device_id: str, enrolled: CertificateFiles
) -> None:
    sites.register(device_id, enrolled)
    item = {"id": device_id, "importMode": "updateTwin", "tags": {"painted": "red"}}
    assert sites.near_hub.call("POST", "/devices", [item]).status == 200
    sites.link_far()
    sites.unlink_near()

    there = sites.register(device_id, enrolled)

    assert (there.assigned_hub, there.sub_status) == (sites.far_hub.host, "deviceDataMigrated")
    assert sites.far_hub.get(f"/twins/{device_id}")["tags"] == {"site": "dock", "painted": "red"}
    assert sites.near_hub.call("GET", f"/devices/{device_id}").status == 404

    sites.shell.json("dps", "linked-hub", "create", "--hub-name", "hub")
    off = ("--linked-hub", sites.far_hub.host, "--apply-allocation-policy", "false")
    sites.shell.json("dps", "linked-hub", "update", *off)
    back = sites.register(device_id, enrolled)
    assert (back.assigned_hub, back.sub_status) == (sites.near_hub.host, "deviceDataMigrated")
    assert sites.near_hub.get(f"/twins/{device_id}")["tags"] == {"site": "dock", "painted": "red"}
    assert sites.far_hub.call("GET", f"/devices/{device_id}").status == 404


def test_a_device_begins_anew_there(
    sites: Sites, device_id: str, device_certificate: CertificateFiles
) -> None:
    put_device(sites.far_hub, device_id)
    tags = {"id": device_id, "importMode": "updateTwin", "tags": {"old": True}}
    assert sites.far_hub.call("POST", "/devices", [tags]).status == 200
    sites.dps.put_enrollment(device_id, device_certificate[0], reprovisionPolicy=RESET)
    sites.register(device_id, device_certificate)
    sites.link_far()
    sites.unlink_near()
    assert sites.register(device_id, device_certificate).sub_status == "deviceDataReset"
    assert sites.far_hub.get(f"/twins/{device_id}").get("tags", {}) == {}


def test_what_the_hub_says_when_it_refuses(sites: Sites, device_id: str, enrolled: CertificateFiles) -> None:
    sites.link_far(with_key(sites.far.env["IOTHUB_CONNECTION_STRING"], new_key(32)))
    sites.unlink_near()

    state = failed(sites, device_id, enrolled)

    assert state["errorCode"] == 400209
    assert json.loads(state["errorMessage"])["Message"].startswith("ErrorCode:IotHubUnauthorizedAccess;")
    assert failed_checks(decisions(sites.near_hub, device_id)[-1]) == ["hub accepts"]


def test_a_hub_that_is_not_there(sites: Sites, device_id: str, enrolled: CertificateFiles) -> None:
    sites.link_far()
    sites.unlink_near()
    sites.far.stop()
    state = failed(sites, device_id, enrolled)
    assert state["errorCode"] == 400209
    assert f"The linked hub {sites.far_hub.host}:" in state["errorMessage"]
    assert "cannot be reached" in state["errorMessage"]


def failed(sites: Sites, device_id: str, files: CertificateFiles) -> dict[str, Any]:
    """The registration record after the device was told that it failed."""
    with pytest.raises(ClientError) as told:
        sites.register(device_id, files)
    assert "failed" in service_error(told.value)
    record: dict[str, Any] = sites.dps.get(f"/registrations/{device_id}")
    assert record["status"] == "failed"
    return record


def test_the_same_answer_after_a_kill_and_one_identity(
    sites: Sites, start_server: StartServer, device_id: str, enrolled: CertificateFiles
) -> None:
    """The far server hears of the device and cannot answer; meanwhile the near one is killed."""
    sites.link_far()
    sites.unlink_near()
    sites.far.process.send_signal(signal.SIGSTOP)
    lost: list[Exception] = []

    def come() -> None:
        try:
            sites.register(device_id, enrolled)
        except ClientError as error:
            lost.append(error)

    waiting = threading.Thread(target=come)
    waiting.start()
    try:
        eventually(lambda: status_of(sites, device_id) == "assigning", what="the record says so")
        sites.near.kill()
        waiting.join()
    finally:
        sites.far.process.send_signal(signal.SIGCONT)
    assert lost, "the device has no answer"

    start_server(data=sites.near.data, address=sites.near.address)

    eventually(lambda: status_of(sites, device_id) == "assigned", what="the operation has ended by itself")
    assert sites.dps.get(f"/registrations/{device_id}")["assignedHub"] == sites.far_hub.host
    assert sites.register(device_id, enrolled).assigned_hub == sites.far_hub.host
    assert [device["deviceId"] for device in sites.far_hub.get("/devices")] == [device_id]


def status_of(sites: Sites, device_id: str) -> str | None:
    answer = sites.dps.call("GET", f"/registrations/{device_id}")
    return answer.body["status"] if answer.status == 200 else None


def test_a_connection_string_of_our_own_hub_links_it_as_such(sites: Sites) -> None:
    sites.unlink_near()
    made = sites.link_far(sites.near.env["IOTHUB_CONNECTION_STRING"])
    assert (made["hub"], made["connectionString"]) == ("hub", None)
    said = sites.shell.refused("dps", "linked-hub", "create", "--connection-string", "HostName=h")
    assert "has no SharedAccessKeyName and no SharedAccessKey" in said
    assert "name a hub of this server" in sites.shell.refused("dps", "linked-hub", "create")
