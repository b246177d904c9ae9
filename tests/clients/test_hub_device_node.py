"""A device at its hub by Microsoft's `azure-iot-device` for Node, over MQTT and MQTT over WebSockets."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from moorage.credentials.sas import new_key
from moorage.credentials.x509 import read_certificate
from tests.clients.conftest import ConnectNode
from tests.support.certificates import CertificateFiles
from tests.support.decisions import decisions, failed_checks, refusal
from tests.support.devices import put_device, sas_device
from tests.support.events import Telemetry, application_properties, payload, system_properties
from tests.support.node_worker import NodeError
from tests.support.services import Hub

pytestmark = [pytest.mark.clients, pytest.mark.node]

transports = pytest.mark.parametrize(
    ("transport", "door"),
    [
        pytest.param("Mqtt", "mqtt", id="mqtt"),
        pytest.param("MqttWs", "mqtt-ws", id="mqtt-ws", marks=pytest.mark.port443),
    ],
)


@transports
def test_telemetry_and_the_twin_by_key(
    hub: Hub, telemetry: Telemetry, connect_node: ConnectNode, device_id: str, transport: str, door: str
) -> None:
    identity = sas_device(hub, device_id)
    properties = {"level": "high", "room & floor": "a=b", "$.ours": "ü"}

    device = connect_node(identity.connection_string(), transport)
    device(
        "send",
        messages=[
            {
                "body": "first",
                "messageId": "m-1",
                "contentType": "application/json",
                "contentEncoding": "utf-8",
            },
            {"body": "second", "properties": properties, "correlationId": "c-1"},
            {"body": ""},
        ],
    )
    twin = device("twin")

    first, second, third = telemetry.of(device_id, 3)
    assert [payload(event) for event in (first, second, third)] == [b"first", b"second", b""]
    assert (first.message_id, first.content_type) == ("m-1", "application/json")
    assert application_properties(second) == properties
    assert second.correlation_id == "c-1"
    assert system_properties(third)["iothub-connection-device-id"] == device_id
    assert twin == {"desired": {"$version": 1}, "reported": {"$version": 1}}
    assert hub.get(f"/devices/{device_id}")["connectionState"] == "Connected"
    assert [decision["door"] for decision in decisions(hub, device_id)] == [door]


@transports
def test_telemetry_by_certificate(
    env: Mapping[str, str],
    hub: Hub,
    telemetry: Telemetry,
    connect_node: ConnectNode,
    device_id: str,
    device_certificate: CertificateFiles,
    transport: str,
    door: str,
) -> None:
    pem, key = (file.read_text() for file in device_certificate)
    thumbprint = {"primaryThumbprint": read_certificate(pem.encode()).sha256}
    put_device(hub, device_id, authentication={"type": "selfSigned", "x509Thumbprint": thumbprint})
    login = f"HostName={env['IOTHUB_HOSTNAME']};DeviceId={device_id};x509=true"

    connect_node(login, transport, certificate={"cert": pem, "key": key})(
        "send", messages=[{"body": "hello"}]
    )

    (event,) = telemetry.of(device_id, 1)
    assert payload(event) == b"hello"
    assert decisions(hub, device_id)[-1]["door"] == door


@transports
def test_many_messages_arrive_in_order(
    hub: Hub, telemetry: Telemetry, connect_node: ConnectNode, device_id: str, transport: str, door: str
) -> None:
    bodies = [f"{number}" for number in range(200)]

    device = connect_node(sas_device(hub, device_id).connection_string(), transport)
    device("send", messages=[{"body": body} for body in bodies])

    assert [event.body_as_str() for event in telemetry.of(device_id, len(bodies))] == bodies


@transports
def test_a_wrong_key(hub: Hub, connect_node: ConnectNode, device_id: str, transport: str, door: str) -> None:
    identity = sas_device(hub, device_id)

    with pytest.raises(NodeError) as refused:
        connect_node(identity.connection_string(new_key()), transport)

    assert refused.value.name == "UnauthorizedError"
    assert (refusal(hub, device_id)["door"], failed_checks(refusal(hub, device_id))) == (door, ["signature"])


def test_a_device_that_was_deleted_may_not_come_back(
    hub: Hub, connect_node: ConnectNode, device_id: str
) -> None:
    device = connect_node(sas_device(hub, device_id).connection_string())

    assert hub.call("DELETE", f"/devices/{device_id}", headers={"If-Match": "*"}).status == 204

    with pytest.raises(NodeError) as refused:
        device("send", messages=[{"body": "am I still here?"}])
    assert refused.value.name == "UnauthorizedError"
    assert failed_checks(refusal(hub, device_id)) == ["known"]
