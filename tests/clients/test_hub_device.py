"""A device at its hub by Microsoft's `azure-iot-device`, `IoTHubDeviceClient`."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, Message
from azure.iot.device.aio import IoTHubDeviceClient as AsynchronousClient
from azure.iot.device.exceptions import ConnectionFailedError, CredentialError

from moorage.credentials.sas import make_token, new_key
from moorage.credentials.x509 import read_certificate
from tests.clients.conftest import EnterShell
from tests.conftest import StartServer
from tests.support.certificates import CertificateFiles, certificate
from tests.support.decisions import decisions, failed_checks, refusal
from tests.support.devices import (
    Connection,
    closing,
    device_client,
    put_device,
    register,
    sas_device,
    x509_device_client,
)
from tests.support.events import Telemetry, application_properties, payload, system_properties
from tests.support.services import Dps, Hub
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

transports = pytest.mark.parametrize(
    "websockets",
    [pytest.param(False, id="mqtt"), pytest.param(True, id="websockets", marks=pytest.mark.port443)],
)

KIB = 1024
HOUR = 3600  # seconds
SECURITY_AGENT = "urn:azureiot:Security:SecurityAgent:1"


def thumbprint(files: CertificateFiles) -> str:
    return read_certificate(files[0].read_bytes()).sha256


def self_signed(primary: str, secondary: str | None = None) -> dict[str, Any]:
    prints = {"primaryThumbprint": primary, "secondaryThumbprint": secondary}
    return {"type": "selfSigned", "x509Thumbprint": prints}


# --- Proof -----------------------------------------------------------------------------------------------


@transports
def test_a_device_with_a_certificate(
    env: Mapping[str, str],
    hub: Hub,
    telemetry: Telemetry,
    device_id: str,
    device_certificate: CertificateFiles,
    websockets: bool,
) -> None:
    put_device(hub, device_id, authentication=self_signed(thumbprint(device_certificate)))

    with x509_device_client(env, device_id, device_certificate, websockets=websockets) as client:
        client.connect()
        assert hub.get(f"/devices/{device_id}")["connectionState"] == "Connected"
        client.send_message("hello")

    (event,) = telemetry.of(device_id, 1)
    assert event.body_as_str() == "hello"
    method = json.loads(system_properties(event)["iothub-connection-auth-method"])
    assert (method["scope"], method["type"]) == ("device", "x509")
    assert decisions(hub, device_id)[-1]["door"] == ("mqtt-ws" if websockets else "mqtt")
    assert hub.get(f"/devices/{device_id}")["connectionState"] == "Disconnected"


def test_the_second_certificate_of_a_device_by_its_sha1(
    env: Mapping[str, str], hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    sha1 = read_certificate(device_certificate[0].read_bytes()).sha1
    put_device(hub, device_id, authentication=self_signed("00" * 32, sha1.lower()))

    with x509_device_client(env, device_id, device_certificate) as client:
        client.connect()
        assert client.connected


@transports
def test_a_device_with_its_primary_and_its_secondary_key(
    hub: Hub, telemetry: Telemetry, device_id: str, websockets: bool
) -> None:
    device = sas_device(hub, device_id)

    for key in (device.primary_key, device.secondary_key):
        with device_client(device, key, websockets=websockets) as client:
            client.send_message("hello")

    first, second = telemetry.of(device_id, 2)
    for event in (first, second):
        method = json.loads(system_properties(event)["iothub-connection-auth-method"])
        assert (method["scope"], method["type"]) == ("device", "sas")


def test_a_device_with_a_key_and_no_connection_string(hub: Hub, device_id: str) -> None:
    device = sas_device(hub, device_id)
    client = IoTHubDeviceClient.create_from_symmetric_key(
        symmetric_key=device.primary_key, hostname=device.hostname, device_id=device_id
    )

    with closing(client):
        client.connect()
        assert client.connected


def test_a_token_of_a_hub_policy_speaks_for_a_device(hub: Hub, telemetry: Telemetry, device_id: str) -> None:
    put_device(hub, device_id)
    expiry = int(time.time()) + HOUR
    token = make_token(f"{hub.host}/devices/{device_id}", hub.key, expiry, hub.policy)
    client = IoTHubDeviceClient.create_from_sastoken(token)

    with closing(client):
        client.send_message("for a device")

    (event,) = telemetry.of(device_id, 1)
    assert json.loads(system_properties(event)["iothub-connection-auth-method"])["scope"] == "hub"


def test_a_device_whose_name_holds_all_that_a_topic_can(
    hub: Hub, telemetry: Telemetry, device_id: str
) -> None:
    name = f"{device_id}:.%_*?!(),=@$'%2F"

    with device_client(sas_device(hub, name)) as client:
        client.send_message("hello")
        assert client.get_twin()["desired"] == {"$version": 1}

    (event,) = telemetry.of(name, 1)
    assert event.partition_key == name.encode()


def test_a_wrong_key(hub: Hub, device_id: str) -> None:
    device = sas_device(hub, device_id)

    with device_client(device, new_key(32)) as client, pytest.raises(CredentialError):
        client.connect()

    assert failed_checks(refusal(hub, device_id)) == ["signature"]


def test_a_wrong_certificate(
    env: Mapping[str, str],
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
    tmp_path: Path,
) -> None:
    put_device(hub, device_id, authentication=self_signed(thumbprint(device_certificate)))
    impostor = certificate(tmp_path, device_id, name="impostor")

    with x509_device_client(env, device_id, impostor) as client, pytest.raises(CredentialError):
        client.connect()

    assert failed_checks(refusal(hub, device_id)) == ["thumbprint"]


def test_an_unknown_device(
    env: Mapping[str, str], hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    with x509_device_client(env, device_id, device_certificate) as client, pytest.raises(CredentialError):
        client.connect()

    assert failed_checks(refusal(hub, device_id)) == ["known"]


def test_an_expired_token(start_server: StartServer, enter_shell: EnterShell, device_id: str) -> None:
    """The client's tokens are good for an hour, and the server's clock is two hours ahead."""
    env = enter_shell(start_server("--in-memory", "--clock-offset", "2h"))
    hub = Hub(env, lifetime=3 * HOUR)
    device = sas_device(hub, device_id)

    with device_client(device) as client, pytest.raises(CredentialError):
        client.connect()

    assert failed_checks(refusal(hub, device_id)) == ["expiry"]
    with device_client(device, sastoken_ttl=3 * HOUR) as client:
        client.connect()
        assert client.connected


# --- One connection a device -----------------------------------------------------------------------------


def test_a_newer_connection_takes_over_and_keeps_it(hub: Hub, telemetry: Telemetry, device_id: str) -> None:
    device = sas_device(hub, device_id)

    with (
        device_client(device, connection_retry=False) as older,
        device_client(device, connection_retry=False) as newer,
    ):
        older.connect()
        connection = Connection(older)
        newer.connect()
        assert connection.lost.wait(10), "the older connection was not closed"
        for number in range(3):
            newer.send_message(str(number))

        assert newer.connected
        assert not older.connected
        assert hub.get(f"/devices/{device_id}")["connectionState"] == "Connected"

    assert [event.body_as_str() for event in telemetry.of(device_id, 3)] == ["0", "1", "2"]
    assert len(decisions(hub, device_id)) == 2  # nobody came back


def change_status(hub: Hub, device_id: str, status: str) -> None:
    document = hub.get(f"/devices/{device_id}") | {"status": status}
    put_device(hub, device_id, if_match='"*"', **{k: v for k, v in document.items() if k != "deviceId"})


def test_a_disabled_device_is_dropped_and_refused_until_it_is_enabled(hub: Hub, device_id: str) -> None:
    with device_client(sas_device(hub, device_id), connection_retry=False) as client:
        client.connect()
        connection = Connection(client)

        change_status(hub, device_id, "disabled")

        assert connection.lost.wait(10), "the device was not dropped"
        # The code that means "try again later", as at Azure [hub-device 2.5].
        with pytest.raises(ConnectionFailedError):
            client.connect()
        assert failed_checks(refusal(hub, device_id)) == ["enabled"]

        change_status(hub, device_id, "enabled")
        client.connect()
        assert client.connected


def test_a_deleted_device_is_dropped_and_refused(hub: Hub, device_id: str) -> None:
    with device_client(sas_device(hub, device_id), connection_retry=False) as client:
        client.connect()
        connection = Connection(client)

        assert hub.call("DELETE", f"/devices/{device_id}", headers={"If-Match": '"*"'}).status == 204

        assert connection.lost.wait(10), "the device was not dropped"
        with pytest.raises(CredentialError):
            client.connect()
        assert failed_checks(refusal(hub, device_id)) == ["known"]


def test_a_device_comes_back_by_itself_after_a_crash_of_the_server(
    start_server: StartServer, enter_shell: EnterShell, device_id: str
) -> None:
    server = start_server()
    hub = Hub(enter_shell(server))

    with device_client(sas_device(hub, device_id), connection_retry_interval=1) as client:
        client.connect()
        connection = Connection(client)
        server.kill()
        assert connection.lost.wait(10), "the client did not notice"
        start_server(data=server.data, address=server.address)

        eventually(lambda: client.connected, what="the device connects again")
        client.send_message("back")


# --- Twin ------------------------------------------------------------------------------------------------


@transports
def test_the_device_reads_its_initial_twin(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
    websockets: bool,
) -> None:
    desired = {
        "interval": 30,
        "nested": {"on": True, "list": [1, "two", {"deep": False}]},
        "text": "Grüße \N{SNOWMAN}",
    }
    twin = {"tags": {"site": "north"}, "properties": {"desired": desired}}
    dps.put_enrollment(device_id, device_certificate[0], initialTwin=twin)
    register(env, device_id, device_certificate, websockets=websockets)

    with x509_device_client(env, device_id, device_certificate, websockets=websockets) as client:
        seen = client.get_twin()

    assert seen["desired"] == {**desired, "$version": 1}
    assert seen["reported"] == {"$version": 1}
    assert hub.get(f"/twins/{device_id}")["tags"] == {"site": "north"}


# --- Telemetry -------------------------------------------------------------------------------------------


def test_every_kind_of_property_arrives(hub: Hub, telemetry: Telemetry, device_id: str) -> None:
    message = Message(
        '{"wind": 12}', message_id="m-1", content_encoding="utf-8", content_type="application/json"
    )
    message.correlation_id = "c-1"
    message.user_id = "u-1"
    message.expiry_time_utc = datetime.datetime(2035, 1, 2, 3, 4, 5)
    message.custom_properties = {"tornado-warning": "yes", "level": 3, "empty": ""}
    message.set_as_security_message()
    before = int(time.time() * 1000)

    with device_client(sas_device(hub, device_id), product_info="dtmi:com:example:Vane;1") as client:
        client.send_message(message)
        assert hub.get(f"/twins/{device_id}")["modelId"] == "dtmi:com:example:Vane;1"

    (event,) = telemetry.of(device_id, 1)
    system = system_properties(event)
    assert event.body_as_json() == {"wind": 12}
    assert application_properties(event) == {"tornado-warning": "yes", "level": "3", "empty": ""}
    assert {name: system[name] for name in ("message-id", "correlation-id", "user-id")} == {
        "message-id": "m-1",
        "correlation-id": "c-1",
        "user-id": "u-1",
    }
    assert (system["content-type"], system["content-encoding"]) == ("application/json", "utf-8")
    assert system["absolute-expiry-time"] == 2_051_319_845_000
    assert system["iothub-interface-id"] == SECURITY_AGENT
    assert system["dt-dataschema"] == "dtmi:com:example:Vane;1"
    assert system["iothub-message-source"] == "Telemetry"
    assert system["iothub-connection-device-id"] == device_id
    generation = hub.get(f"/devices/{device_id}")["generationId"]
    assert system["iothub-connection-auth-generation-id"] == generation
    assert before <= system["iothub-enqueuedtime"] <= int(time.time() * 1000)
    assert event.partition_key == device_id.encode()


def test_unusual_characters_in_properties_arrive_as_they_were(
    hub: Hub, telemetry: Telemetry, device_id: str
) -> None:
    # The set of Microsoft's Java end-to-end tests, and beyond ASCII [hub-device 3.6].
    message = Message("x")
    message.custom_properties = {
        "!#$%&'*+-^_`|~": "!#$%&'*+-^_`|~()<>@,;:\\\"[]?={} \t",
        "a=b&c/d": "1=2&3/4?5",
        "schlüssel \N{SNOWMAN}": "wert \N{GRINNING FACE}",
        "%41": "%2B+",
    }

    with device_client(sas_device(hub, device_id)) as client:
        client.send_message(message)

    (event,) = telemetry.of(device_id, 1)
    assert application_properties(event) == message.custom_properties


def test_payloads_of_every_size_arrive_byte_for_byte(hub: Hub, telemetry: Telemetry, device_id: str) -> None:
    sent = [b"", b"\x00", bytes(range(256)), b"\xff" * (255 * KIB), "Grüße".encode("utf-16")]

    with device_client(sas_device(hub, device_id)) as client:
        for content in sent:
            client.send_message(Message(content))

    assert [payload(event) for event in telemetry.of(device_id, len(sent))] == sent


async def test_messages_in_flight_at_once_are_all_kept_in_order(
    hub: Hub, telemetry: Telemetry, device_id: str
) -> None:
    client = AsynchronousClient.create_from_connection_string(sas_device(hub, device_id).connection_string())
    await client.connect()
    try:
        for sending in [client.send_message(str(number)) for number in range(100)]:
            await sending
    finally:
        await client.shutdown()

    assert [event.body_as_str() for event in telemetry.of(device_id, 100)] == [str(n) for n in range(100)]
