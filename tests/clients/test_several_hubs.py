"""Several hubs in one server, and devices that move between them, by Microsoft's own clients."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]

from moorage.credentials.sas import make_token, new_key
from moorage.wire.mqtt import packets
from tests.clients.conftest import EnterShell
from tests.conftest import RunningServer, StartServer
from tests.support.certificates import CertificateFiles
from tests.support.decisions import decisions
from tests.support.devices import (
    Connection,
    SasDevice,
    device_client,
    put_device,
    register,
    x509_device_client,
)
from tests.support.events import Telemetry, payload
from tests.support.services import Dps, Hub
from tests.support.shell import Shell
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

NEVER = {"updateHubAssignment": False, "migrateDeviceData": False}
RESET = {"updateHubAssignment": True, "migrateDeviceData": False}


class Site:
    """A server of two hubs: the first, and `beta`, which is not linked yet."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.shell = Shell(server)
        self.made = self.shell.json("hub", "create", "--name", "beta", "--partition-count", "2")
        self.env: Mapping[str, str] = server.env
        self.beta_env: Mapping[str, str] = self.shell.json("env", "--hub", "beta", "--format", "json")
        self.dps, self.first, self.beta = Dps(self.env), Hub(self.env), Hub(self.beta_env)

    def link_only(self, name: str) -> None:
        """Of the two hubs."""
        linked = {each["hub"]: each["name"] for each in self.shell.json("dps", "linked-hub", "list")}
        if name not in linked:
            self.shell.json("dps", "linked-hub", "create", "--hub-name", name)
        for other in linked.keys() - {name}:
            self.shell.moorage("dps", "linked-hub", "delete", "--linked-hub", linked[other])


@pytest.fixture
def site(start_server: StartServer, enter_shell: EnterShell) -> Site:
    server = start_server()
    enter_shell(server)
    return Site(server)


def registered(env: Mapping[str, str], device_id: str, files: CertificateFiles) -> Any:
    """The registration state that the device is told."""
    return register(env, device_id, files).registration_state


def tag(hub: Hub, device_id: str, **tags: Any) -> None:
    item = {"id": device_id, "importMode": "updateTwin", "tags": tags}
    assert hub.call("POST", "/devices", [item]).status == 200


def test_a_second_hub_takes_devices_and_readers_of_its_own(site: Site, device_id: str) -> None:
    registry = IoTHubRegistryManager.from_connection_string(site.beta_env["IOTHUB_CONNECTION_STRING"])
    key = new_key()
    registry.create_device_with_sas(device_id, key, new_key(), "enabled")
    device = SasDevice(site.beta_env["IOTHUB_HOSTNAME"], device_id, key, key)
    readers = {name: Telemetry(env) for name, env in (("first", site.env), ("beta", site.beta_env))}
    try:
        with device_client(device) as client:
            client.connect()
            client.send_message("to beta")
            assert registry.get_device(device_id).connection_state == "Connected"
        (event,) = readers["beta"].of(device_id, 1)
        assert payload(event) == b"to beta"
        at_first = SasDevice(site.first.host, device_id, key, key)
        put_device(
            site.first,
            device_id,
            authentication={"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}},
        )
        with device_client(at_first) as client:
            client.connect()
            client.send_message("to the first")
        assert [payload(event) for event in readers["first"].of(device_id, 1)] == [b"to the first"]
        assert len(readers["beta"].of(device_id, 1)) == 1
    finally:
        for reader in readers.values():
            reader.stop()
    assert site.made["partitionCount"] == 2


def test_it_is_found_by_the_commands(site: Site, device_id: str) -> None:
    names = [hub["name"] for hub in site.shell.json("hub", "list")]
    assert names == ["hub", "beta"]
    shown = site.shell.json("hub", "show", "--name", "beta")
    assert (shown["hostName"], shown["linked"]) == (site.beta_env["IOTHUB_HOSTNAME"], False)
    shell = site.shell
    shell.json("hub", "device-identity", "create", "--device-id", device_id, "--hub-name", "beta")
    assert site.beta.get(f"/devices/{device_id}")["status"] == "enabled"
    assert site.first.call("GET", f"/devices/{device_id}").status == 404
    assert "has no hub 'gamma'; it has hub, beta" in shell.refused("env", "--hub", "gamma")


def test_a_host_that_is_nobodys(site: Site, device_id: str) -> None:
    """While there was one hub it would have been that one's."""
    put_device(site.first, device_id)
    answer = site.first.call("GET", f"/devices/{device_id}", headers={"Host": "nobody.example.net"})
    assert (answer.status, answer.headers["iothub-errorcode"]) == (401, "IotHubNotFound")
    keys = site.first.get(f"/devices/{device_id}")["authentication"]["symmetricKey"]
    device = SasDevice(site.first.host, device_id, keys["primaryKey"], keys["secondaryKey"])
    name = f"nobody.example.net/{device_id}/?api-version=2021-04-12"
    assert mqtt_code(site, device, name) == 5
    assert "no hub named 'nobody.example.net'" in decisions(site.first, device_id)[-1]["error"]


def mqtt_code(site: Site, device: SasDevice, user_name: str) -> int:
    token = make_token(f"{device.hostname}/devices/{device.device_id}", device.primary_key, 2_000_000_000)
    connect = packets.Connect(
        client_id=device.device_id,
        username=user_name,
        password=token.encode(),
        clean_session=True,
        keep_alive=60,
    )
    trust = ssl.create_default_context(cafile=site.env["SSL_CERT_FILE"])
    with (
        socket.create_connection((site.server.address, 8883), timeout=10) as raw,
        trust.wrap_socket(raw, server_hostname=site.server.address) as tls,
    ):
        tls.sendall(packets.encode_connect(connect))
        return tls.recv(4)[3]


Enroll = Callable[..., CertificateFiles]


@pytest.fixture
def device(site: Site, device_id: str, device_certificate: CertificateFiles) -> Enroll:
    """Enrolls the device, with what it is to have when its hub changes."""

    def enroll(**members: Any) -> CertificateFiles:
        twin = {"tags": {"site": "dock"}, "properties": {"desired": {"interval": 30}}}
        site.dps.put_enrollment(device_id, device_certificate[0], initialTwin=twin, **members)
        return device_certificate

    return enroll


def test_a_device_moves_with_its_twin(site: Site, device: Enroll, device_id: str) -> None:
    files = device()
    assert registered(site.env, device_id, files).assigned_hub == site.first.host
    tag(site.first, device_id, painted="red")
    with x509_device_client(site.env, device_id, files) as client:
        client.connect()
        connection = Connection(client)
        site.link_only("beta")

        again = registered(site.env, device_id, files)

        assert (again.assigned_hub, again.sub_status) == (site.beta.host, "deviceDataMigrated")
        assert connection.lost.wait(10), "the connection at the old hub has ended"
    twin = site.beta.get(f"/twins/{device_id}")
    assert twin["tags"] == {"site": "dock", "painted": "red"}
    assert twin["properties"]["desired"]["interval"] == 30
    assert site.first.call("GET", f"/devices/{device_id}").status == 404
    with x509_device_client(site.beta_env, device_id, files) as client:
        client.connect()
        client.send_message("from beta")
        assert site.beta.get(f"/devices/{device_id}")["connectionState"] == "Connected"

    site.link_only("hub")
    back = registered(site.env, device_id, files)
    assert (back.assigned_hub, back.sub_status) == (site.first.host, "deviceDataMigrated")
    assert site.first.get(f"/twins/{device_id}")["tags"]["painted"] == "red"


def test_a_device_moves_and_begins_anew(site: Site, device: Enroll, device_id: str) -> None:
    files = device(reprovisionPolicy=RESET)
    registered(site.env, device_id, files)
    tag(site.first, device_id, painted="red")
    site.link_only("beta")

    again = registered(site.env, device_id, files)

    assert (again.assigned_hub, again.sub_status) == (site.beta.host, "deviceDataReset")
    assert site.beta.get(f"/twins/{device_id}")["tags"] == {"site": "dock"}
    assert site.first.call("GET", f"/devices/{device_id}").status == 404


def test_a_device_that_never_moves(site: Site, device: Enroll, device_id: str) -> None:
    files = device(reprovisionPolicy=NEVER)
    registered(site.env, device_id, files)
    site.shell.json("dps", "linked-hub", "create", "--hub-name", "beta", "--allocation-weight", "1000")
    site.shell.json(
        "dps", "linked-hub", "update", "--linked-hub", site.first.host, "--apply-allocation-policy", "false"
    )

    again = registered(site.env, device_id, files)

    assert (again.assigned_hub, again.sub_status) == (site.first.host, "initialAssignment")
    site.shell.moorage("dps", "linked-hub", "delete", "--linked-hub", site.first.host)
    assert registered(site.env, device_id, files).assigned_hub == site.beta.host


def test_weights_and_latencies_hold_for_the_next_registration(
    site: Site, device: Enroll, device_id: str
) -> None:
    files = device(allocationPolicy="geoLatency")
    linked = ("dps", "linked-hub")
    site.shell.json(*linked, "create", "--hub-name", "beta", "--latency", "5", "--location", "north")
    for latency, hub in (("40", site.beta), ("1", site.first)):
        changed = site.shell.json(*linked, "update", "--linked-hub", site.first.host, "--latency", latency)
        assert changed["latencyMs"] == float(latency)
        assert registered(site.env, device_id, files).assigned_hub == hub.host


def test_all_is_there_after_a_kill(
    site: Site, start_server: StartServer, device: Enroll, device_id: str
) -> None:
    files = device()
    site.link_only("beta")
    registered(site.env, device_id, files)
    site.server.kill()

    again = start_server(data=site.server.data, address=site.server.address)

    assert Hub(site.beta_env).get(f"/devices/{device_id}")["status"] == "enabled"
    assert registered(again.env, device_id, files).assigned_hub == site.beta.host
    with x509_device_client(site.beta_env, device_id, files) as client:
        client.connect()


def test_a_hub_ends_with_all_that_is_in_it(site: Site, device: Enroll, device_id: str) -> None:
    files = device()
    site.link_only("beta")
    registered(site.env, device_id, files)
    with x509_device_client(site.beta_env, device_id, files, connection_retry=False) as client:
        client.connect()
        connection = Connection(client)
        said = site.shell.refused("hub", "delete", "--name", "beta")
        assert "it is linked as" in said
        assert client.connected

        site.shell.moorage("hub", "delete", "--name", "beta", "--force")

        assert connection.lost.wait(10)
    assert [hub["name"] for hub in site.shell.json("hub", "list")] == ["hub"]
    assert site.shell.json("dps", "linked-hub", "list") == []
    eventually(lambda: not answers(site.beta.host), what="the doors at its address are closed")
    assert "first" in site.shell.refused("hub", "delete", "--name", "hub", "--force")
    failed = site.dps.get(f"/registrations/{device_id}")
    assert failed["assignedHub"] == site.beta.host, "what was assigned is known until the device comes again"
    site.shell.json("dps", "linked-hub", "create", "--hub-name", "hub")
    assert registered(site.env, device_id, files).assigned_hub == site.first.host
    assert site.first.get(f"/twins/{device_id}")["tags"] == {"site": "dock"}


def answers(host: str) -> bool:
    try:
        socket.create_connection((host, 8883), timeout=5).close()
    except OSError:
        return False
    return True
