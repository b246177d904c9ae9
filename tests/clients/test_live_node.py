"""Devices and back ends that talk to each other, both by Microsoft's clients for Node: twins and methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.clients.conftest import ConnectNode, OpenService
from tests.support.devices import SasDevice, sas_device
from tests.support.node_worker import BackEnd, NodeClient, NodeError, NodeWorker
from tests.support.services import Hub

# The REST calls of a back end know no port but 443.
pytestmark = [pytest.mark.clients, pytest.mark.node, pytest.mark.port443]

BATCH = 64  # records of feedback
WAITING = 10  # messages, before the device connects

transports = pytest.mark.parametrize("transport", ["Mqtt", "MqttWs"])


@pytest.fixture
def registry(worker: NodeWorker, env: Mapping[str, str]) -> BackEnd:
    return BackEnd(worker, "registry", env["IOTHUB_CONNECTION_STRING"])


@pytest.fixture
def identity(hub: Hub, device_id: str) -> SasDevice:
    return sas_device(hub, device_id)


def properties(twin: Mapping[str, Any], which: str) -> dict[str, Any]:
    """Desired or reported ones, without what the hub adds."""
    return {name: value for name, value in twin["properties"][which].items() if not name.startswith("$")}


# --- Twins -----------------------------------------------------------------------------------------------


@transports
def test_desired_properties_reach_the_device(
    registry: BackEnd, connect_node: ConnectNode, identity: SasDevice, transport: str
) -> None:
    name = identity.device_id
    device = connect_node(identity.connection_string(), transport)
    device("twin")
    device("follow")
    assert device.told("desired") == {"$version": 1}  # a new listener is handed what there is

    etag = registry("getTwin", name)["etag"]
    desired = {"interval": 30, "nested": {"on": True, "list": [1, {"two": "drei"}]}}
    changed = registry("updateTwin", name, {"tags": {"site": "A"}, "properties": {"desired": desired}}, etag)
    assert changed["etag"] != etag
    assert changed["tags"] == {"site": "A"}
    told = device.told("desired")
    assert (told["interval"], told["nested"]["on"], told["$version"]) == (30, True, 2)

    registry("updateTwin", name, {"properties": {"desired": {"interval": None}}}, "*")
    assert device.told("desired")["interval"] is None
    seen = device("twin")["desired"]
    assert (seen.keys(), seen["$version"]) == ({"nested", "$version"}, 3)
    assert properties(registry("getTwin", name), "desired").keys() == {"nested"}

    with pytest.raises(NodeError) as refused:
        registry("updateTwin", name, {"tags": {"site": "B"}}, etag)
    assert refused.value.name == "InvalidEtagError"
    assert registry("getTwin", name)["tags"] == {"site": "A"}


@transports
def test_reported_properties_reach_the_back_end(
    registry: BackEnd, connect_node: ConnectNode, identity: SasDevice, transport: str
) -> None:
    name = identity.device_id
    device = connect_node(identity.connection_string(), transport)
    device("twin")

    device("report", patch={"firmware": {"version": "1.2", "slots": ["a", "b"]}, "uptime": 7})
    device("report", patch={"uptime": None, "note": "ü"})

    twin = registry("getTwin", name)
    assert properties(twin, "reported") == {"firmware": {"version": "1.2", "slots": ["a", "b"]}, "note": "ü"}
    assert twin["properties"]["reported"]["$version"] == 3
    assert device("twin")["reported"]["firmware"]["version"] == "1.2"
    with pytest.raises(NodeError):
        device("report", patch={"a key": "with a space"})
    assert registry("getTwin", name)["properties"]["reported"]["$version"] == 3


def test_what_changed_while_the_device_was_away(
    registry: BackEnd, connect_node: ConnectNode, identity: SasDevice
) -> None:
    registry("updateTwin", identity.device_id, {"properties": {"desired": {"a": 1}}}, "*")
    registry("updateTwin", identity.device_id, {"properties": {"desired": {"b": 2}}}, "*")

    assert connect_node(identity.connection_string())("twin")["desired"] == {"a": 1, "b": 2, "$version": 3}


# --- Methods ---------------------------------------------------------------------------------------------


@pytest.fixture
def service(open_service: OpenService) -> NodeClient:
    return open_service("Amqp")


@transports
def test_a_method_is_called_and_answers(
    service: NodeClient, connect_node: ConnectNode, identity: SasDevice, transport: str
) -> None:
    device = connect_node(identity.connection_string(), transport)
    device("answer", method="reboot", status=202, payload={"in": "5 s"})
    device("answer", method="nothing", status=200)

    for payload in ({"delay": 5}, "text", 7, [1, 2], True):
        answer = service(
            "invoke", device=identity.device_id, call={"methodName": "reboot", "payload": payload}
        )
        assert answer == {"status": 202, "payload": {"in": "5 s"}}
        assert device.told("method") == {"method": "reboot", "payload": payload}
    assert service("invoke", device=identity.device_id, call={"methodName": "nothing"})["status"] == 200
    assert device.told("method")["payload"] is None


def test_a_method_of_a_device_that_is_away(
    service: NodeClient, connect_node: ConnectNode, identity: SasDevice
) -> None:
    """It is told so at once, unless the caller waits for the device to connect."""
    call = {"methodName": "reboot", "connectTimeoutInSeconds": 0}
    for device_id in (identity.device_id, f"{identity.device_id}-nobody"):
        with pytest.raises(NodeError) as refused:
            service("invoke", device=device_id, call=call)
        assert refused.value.status == 404

    answer = service.begin("invoke", device=identity.device_id, call=call | {"connectTimeoutInSeconds": 30})
    device = connect_node(identity.connection_string())
    device("answer", method="reboot", status=200, payload="done")

    assert answer.result(30) == {"status": 200, "payload": "done"}


# --- Messages --------------------------------------------------------------------------------------------


@transports
def test_messages_reach_the_device_and_their_sender_is_told(
    service: NodeClient, connect_node: ConnectNode, identity: SasDevice, transport: str
) -> None:
    """As many as fill a batch of feedback, which goes out at once then; the first wait for the device."""
    numbers = [str(number) for number in range(BATCH)]
    service("feedback")

    def send(number: str) -> None:
        message = {"body": f"body {number}", "messageId": f"{identity.device_id}-{number}", "ack": "full"}
        service("send", device=identity.device_id, message=message | {"properties": {"a": "ü & b"}})

    for number in numbers[:WAITING]:
        send(number)
    device = connect_node(identity.connection_string(), transport)
    device("receive")
    for number in numbers[WAITING:]:
        send(number)

    messages = [device.told("message") for _ in numbers]
    assert [message["body"] for message in messages] == [f"body {number}" for number in numbers]
    assert messages[0]["messageId"] == f"{identity.device_id}-0"
    assert messages[0]["to"] == f"/devices/{identity.device_id}/messages/devicebound"
    assert {"key": "a", "value": "ü & b"} in messages[0]["properties"]
    records = [service.told("feedback") for _ in numbers]
    assert {record["originalMessageId"] for record in records} == {m["messageId"] for m in messages}
    assert {(record["deviceId"], record["statusCode"]) for record in records} == {
        (identity.device_id, "Success")
    }


# --- Modules ---------------------------------------------------------------------------------------------


@transports
def test_a_module_has_a_twin_and_methods_of_its_own(
    registry: BackEnd,
    service: NodeClient,
    connect_node: ConnectNode,
    identity: SasDevice,
    transport: str,
) -> None:
    name = identity.device_id
    made = registry("addModule", {"deviceId": name, "moduleId": "camera"})
    key = made["authentication"]["symmetricKey"]["primaryKey"]
    login = f"HostName={identity.hostname};DeviceId={name};ModuleId=camera;SharedAccessKey={key}"

    module = connect_node(login, transport, module=True)
    module("twin")
    module("follow")
    module.told("desired")
    registry("updateModuleTwin", name, "camera", {"properties": {"desired": {"zoom": 3}}}, "*")
    assert module.told("desired")["zoom"] == 3
    module("report", patch={"lens": "wide"})
    module("answer", method="shoot", status=200, payload="click")
    answer = service("invoke", device=name, module="camera", call={"methodName": "shoot"})

    assert answer == {"status": 200, "payload": "click"}
    twin = registry("getModuleTwin", name, "camera")
    assert (twin["moduleId"], properties(twin, "reported")) == ("camera", {"lens": "wide"})
    assert properties(registry("getTwin", name), "reported") == {}
    assert registry("getModule", name, "camera")["connectionState"] == "Connected"
