"""Direct methods by Microsoft's clients: `IoTHubRegistryManager` calls, `azure-iot-device` answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, MethodRequest, MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient as AsynchronousClient
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.models import CloudToDeviceMethod  # type: ignore[import-untyped]
from msrest.exceptions import HttpOperationError

from tests.support.devices import device_client, sas_device
from tests.support.mqtt import hub_client
from tests.support.services import Hub

pytestmark = pytest.mark.clients

transports = pytest.mark.parametrize(
    "websockets",
    [pytest.param(False, id="mqtt"), pytest.param(True, id="websockets", marks=pytest.mark.port443)],
)
CALLS = "$iothub/methods/POST/#"


@pytest.fixture
def registry(env: Mapping[str, str]) -> IoTHubRegistryManager:
    return IoTHubRegistryManager.from_connection_string(env["IOTHUB_CONNECTION_STRING"])


def method(name: str, payload: Any = None, *, respond: int = 15, connect: int = 0) -> CloudToDeviceMethod:
    return CloudToDeviceMethod(
        method_name=name,
        payload=payload,
        response_timeout_in_seconds=respond,
        connect_timeout_in_seconds=connect,
    )


def echo(client: IoTHubDeviceClient | IoTHubModuleClient, status: int = 200) -> None:
    """Answer each call with its name and payload. The handler makes the client subscribe."""

    def answer(request: MethodRequest) -> None:
        payload = {"name": request.name, "payload": request.payload}
        client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    client.on_method_request_received = answer


def refusal_of(call: Callable[..., Any], *arguments: Any) -> tuple[int, int, str]:
    """Status, code and message of a call that has to be refused, in the gateway's shape."""
    with pytest.raises(HttpOperationError) as raised:
        call(*arguments)
    response = raised.value.response
    error = json.loads(json.loads(response.text)["Message"])
    return response.status_code, error["errorCode"], error["message"]


@transports
def test_a_call_and_its_answer(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str, websockets: bool
) -> None:
    with device_client(sas_device(hub, device_id), websockets=websockets) as client:
        echo(client, 299)
        for payload in ({"delay": 3}, "text", [1, None, "ü"], 7, True, {}):
            answer = registry.invoke_device_method(device_id, method("reboot", payload, connect=30))
            assert (answer.status, answer.payload) == (299, {"name": "reboot", "payload": payload})
        answer = registry.invoke_device_method(device_id, method("nothing"))
        assert answer.payload["payload"] in ("", None), "the service's client sends an empty text"


def test_a_device_that_connects_while_it_is_called(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str
) -> None:
    device = sas_device(hub, device_id)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(registry.invoke_device_method, device_id, method("hello", "x", connect=30))
        with device_client(device) as client:
            echo(client)
            assert call.result(timeout=20).payload == {"name": "hello", "payload": "x"}


def test_those_who_cannot_be_reached(registry: IoTHubRegistryManager, hub: Hub, device_id: str) -> None:
    sas_device(hub, device_id)
    status, code, message = refusal_of(registry.invoke_device_method, device_id, method("a"))
    assert (status, code, message) == (404, 404103, "Timed out waiting for device to connect.")
    assert refusal_of(registry.invoke_device_method, "nobody", method("a"))[:2] == (404, 404001)
    assert refusal_of(registry.invoke_device_module_method, device_id, "m", method("a"))[:2] == (404, 404010)
    assert refusal_of(registry.invoke_device_method, device_id, method("a", respond=4))[:2] == (400, 400004)


def test_a_device_that_does_not_answer_in_time(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str
) -> None:
    """It works on, and what it answers too late is passed over [hub-device 15.74]."""
    late: list[MethodRequest] = []
    asked = threading.Event()
    with device_client(sas_device(hub, device_id)) as client:

        def keep(request: MethodRequest) -> None:
            late.append(request)
            asked.set()

        client.on_method_request_received = keep
        status, code, message = refusal_of(
            registry.invoke_device_method, device_id, method("slow", respond=5)
        )
        assert (status, code) == (504, 504101)
        assert message == "Timed out waiting for the response from device."
        assert asked.wait(1)
        client.send_method_response(MethodResponse.create_from_method_request(late[0], 200, "late"))
        echo(client)
        assert registry.invoke_device_method(device_id, method("again")).status == 200


def test_a_device_that_drops_in_between(
    registry: IoTHubRegistryManager, env: Mapping[str, str], hub: Hub, device_id: str
) -> None:
    with hub_client(env, sas_device(hub, device_id)) as client, ThreadPoolExecutor(1) as pool:
        client.connect()
        client.subscribe(CALLS, 0)
        call = pool.submit(refusal_of, registry.invoke_device_method, device_id, method("a"))
        assert client.message().topic.startswith("$iothub/methods/POST/a/?$rid=")
        client.drop()
        assert call.result()[:2] == (404, 404104)


def test_many_at_once(registry: IoTHubRegistryManager, hub: Hub, device_id: str) -> None:
    """Of a client that answers in another order, with what it has been asked."""

    async def serve(calls: Callable[[], list[Any]]) -> list[Any]:
        client = AsynchronousClient.create_from_connection_string(
            sas_device(hub, device_id).connection_string()
        )

        async def answer(request: MethodRequest) -> None:
            await asyncio.sleep(0)
            response = MethodResponse.create_from_method_request(request, 200, request.payload)
            await client.send_method_response(response)

        try:
            client.on_method_request_received = answer
            await client.connect()
            return await asyncio.to_thread(calls)
        finally:
            await client.shutdown()

    def calls() -> list[Any]:
        with ThreadPoolExecutor(10) as pool:
            asked = [method("echo", {"n": number}, connect=30) for number in range(40)]
            answers = pool.map(lambda each: registry.invoke_device_method(device_id, each), asked)
            return [answer.payload["n"] for answer in answers]

    assert asyncio.run(serve(calls)) == list(range(40))


@transports
def test_a_method_of_a_module(
    registry: IoTHubRegistryManager, env: Mapping[str, str], hub: Hub, device_id: str, websockets: bool
) -> None:
    sas_device(hub, device_id)
    module = registry.create_module_with_sas(device_id, "camera", "", "", "")
    key = module.authentication.symmetric_key.primary_key
    login = f"HostName={env['IOTHUB_HOSTNAME']};DeviceId={device_id};ModuleId=camera;SharedAccessKey={key}"
    client = IoTHubModuleClient.create_from_connection_string(login, websockets=websockets)
    try:
        echo(client, 201)
        answer = registry.invoke_device_module_method(device_id, "camera", method("snap", [1], connect=30))
        assert (answer.status, answer.payload) == (201, {"name": "snap", "payload": [1]})
        assert refusal_of(registry.invoke_device_method, device_id, method("snap"))[1] == 404103
    finally:
        client.shutdown()


def test_by_the_documented_topics(env: Mapping[str, str], hub: Hub, device_id: str) -> None:
    call = {"methodName": "reboot", "responseTimeoutInSeconds": 10}
    with hub_client(env, sas_device(hub, device_id)) as client, ThreadPoolExecutor(1) as pool:
        client.connect()
        assert client.subscribe(CALLS, 1) == 1
        called = pool.submit(hub.call, "POST", f"/twins/{device_id}/methods", call)
        topic, payload = client.message()
        assert payload == b"null"
        rid = topic.removeprefix("$iothub/methods/POST/reboot/?$rid=")
        client.telemetry(f"$iothub/methods/res/200/?$rid={rid}", b"")
        answer = called.result()
    assert (answer.status, answer.body) == (200, {"status": 200, "payload": None})
