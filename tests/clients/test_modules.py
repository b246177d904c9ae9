"""Modules by Microsoft's clients: `IoTHubRegistryManager` makes them, `IoTHubModuleClient` is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from azure.iot.device import IoTHubModuleClient, Message
from azure.iot.device.exceptions import CredentialError
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.models import AuthenticationMechanism, ExportImportDevice, SymmetricKey  # type: ignore[import-untyped]
from msrest.exceptions import HttpOperationError

from moorage.credentials.sas import new_key
from moorage.credentials.x509 import read_certificate
from tests.support.certificates import CertificateFiles
from tests.support.devices import x509
from tests.support.events import Telemetry, application_properties, payload, system_properties
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

transports = pytest.mark.parametrize(
    "websockets",
    [pytest.param(False, id="mqtt"), pytest.param(True, id="websockets", marks=pytest.mark.port443)],
)


@pytest.fixture
def registry(env: Mapping[str, str]) -> IoTHubRegistryManager:
    return IoTHubRegistryManager.from_connection_string(env["IOTHUB_CONNECTION_STRING"])


@pytest.fixture
def device(registry: IoTHubRegistryManager, device_id: str) -> str:
    registry.create_device_with_sas(device_id, "", "", "enabled")
    return device_id


def refusal_of(call: Callable[..., Any], *arguments: Any) -> tuple[int, str]:
    """Status and error name of a call that has to be refused."""
    with pytest.raises(HttpOperationError) as raised:
        call(*arguments)
    response = raised.value.response
    return response.status_code, response.headers["iothub-errorcode"]


@contextmanager
def module_client(
    env: Mapping[str, str], device_id: str, module_id: str, key: str, **options: Any
) -> Iterator[IoTHubModuleClient]:
    client = IoTHubModuleClient.create_from_connection_string(
        f"HostName={env['IOTHUB_HOSTNAME']};DeviceId={device_id};ModuleId={module_id};SharedAccessKey={key}",
        **options,
    )
    try:
        yield client
    finally:
        client.shutdown()


def test_create_read_update_and_delete(registry: IoTHubRegistryManager, device: str) -> None:
    primary, secondary = new_key(32), new_key(32)

    made = registry.create_module_with_sas(device, "logger", "me", primary, secondary)

    assert (made.device_id, made.module_id, made.managed_by) == (device, "logger", "me")
    assert made.authentication.symmetric_key.primary_key == primary
    assert made.generation_id != registry.get_device(device).generation_id
    assert registry.get_module(device, "logger").as_dict() == made.as_dict()
    assert [module.as_dict() for module in registry.get_modules(device)] == [made.as_dict()]
    changed = registry.update_module_with_sas(device, "logger", "you", made.etag, "", secondary)
    assert changed.managed_by == "you"
    assert changed.authentication.symmetric_key.primary_key not in ("", primary)
    assert changed.authentication.symmetric_key.secondary_key == secondary
    assert changed.generation_id == made.generation_id
    stale = refusal_of(registry.update_module_with_sas, device, "logger", "x", made.etag, "", "")
    assert stale == (412, "PreconditionFailed")
    again = refusal_of(registry.create_module_with_sas, device, "logger", "", "", "")
    assert again == (409, "ModuleAlreadyExistsOnDevice")
    assert refusal_of(registry.delete_module, device, "logger", made.etag) == (412, "PreconditionFailed")
    registry.delete_module(device, "logger", changed.etag)
    assert refusal_of(registry.get_module, device, "logger") == (404, "ModuleNotFound")
    assert registry.get_modules(device) == []
    anew = registry.create_module_with_sas(device, "logger", "", "", "")
    assert anew.generation_id != made.generation_id


def test_certificates_of_modules(registry: IoTHubRegistryManager, device: str) -> None:
    made = registry.create_module_with_x509(device, "camera", "", "AB" * 32, "cd" * 20)
    issued = registry.create_module_with_certificate_authority(device, "issued", "")

    assert made.authentication.type == "selfSigned"
    assert made.authentication.x509_thumbprint.secondary_thumbprint == "CD" * 20
    assert issued.authentication.type == "certificateAuthority"
    changed = registry.update_module_with_x509(device, "issued", "", None, "EF" * 32, None)
    assert changed.authentication.type == "selfSigned"
    back = registry.update_module_with_certificate_authority(device, "issued", "", changed.etag)
    assert back.authentication.type == "certificateAuthority"


def test_a_module_twin_is_read(registry: IoTHubRegistryManager, device: str) -> None:
    module = registry.create_module_with_sas(device, "logger", "", "", "")

    twin = registry.get_module_twin(device, "logger")

    assert (twin.device_id, twin.module_id, twin.device_etag) == (device, "logger", module.etag)
    assert twin.properties.desired["$version"] == twin.properties.reported["$version"] == 1


def test_modules_in_bulk_and_with_their_device(registry: IoTHubRegistryManager, device: str) -> None:
    keys = AuthenticationMechanism(type="sas", symmetric_key=SymmetricKey(primary_key="", secondary_key=""))

    def item(number: int, mode: str) -> ExportImportDevice:
        return ExportImportDevice(id=device, module_id=f"m{number}", import_mode=mode, authentication=keys)

    assert registry.bulk_create_or_update_devices(
        [item(number, "create") for number in range(3)]
    ).is_successful
    partly = registry.bulk_create_or_update_devices([item(0, "delete"), item(1, "create"), item(2, "update")])
    assert [(error.device_id, error.module_id) for error in partly.errors] == [(device, "m1")]
    assert [module.module_id for module in registry.get_modules(device)] == ["m1", "m2"]
    registry.delete_device(device)
    assert refusal_of(registry.get_modules, device) == (404, "DeviceNotFound")
    registry.create_device_with_sas(device, "", "", "enabled")
    assert registry.get_modules(device) == []


def test_an_edge_device_has_its_runtime_modules(registry: IoTHubRegistryManager, device_id: str) -> None:
    registry.create_device_with_sas(device_id, "", "", "enabled", iot_edge=True)

    assert [module.module_id for module in registry.get_modules(device_id)] == ["$edgeAgent", "$edgeHub"]
    refused = refusal_of(registry.delete_module, device_id, "$edgeHub")
    assert refused == (401, "SystemModuleModifyUnauthorizedAccess")


@transports
def test_a_module_connects_and_sends(
    registry: IoTHubRegistryManager,
    env: Mapping[str, str],
    device: str,
    telemetry: Telemetry,
    websockets: bool,
) -> None:
    made = registry.create_module_with_sas(device, "logger", "", "", "")
    keys = made.authentication.symmetric_key

    for number, key in enumerate((keys.primary_key, keys.secondary_key)):
        with module_client(env, device, "logger", key, websockets=websockets) as client:
            client.connect()
            assert registry.get_module(device, "logger").connection_state == "Connected"
            assert registry.get_device(device).connection_state == "Disconnected"
            client.send_message(f"plain {number}")
            client.send_message_to_output(Message(f"named {number}"), "alerts")
            assert client.get_twin()["desired"]["$version"] == 1

    events = telemetry.of(device, 4)
    assert [payload(event) for event in events] == [b"plain 0", b"named 0", b"plain 1", b"named 1"]
    for event in events:
        stamped = system_properties(event)
        assert stamped["iothub-connection-module-id"] == "logger"
        assert stamped["iothub-connection-auth-generation-id"] == made.generation_id
    assert application_properties(events[1])["iothub-outputname"] == "alerts"
    eventually(
        lambda: registry.get_module(device, "logger").connection_state == "Disconnected",
        what="the module is away",
    )


def test_a_module_by_its_certificate_and_the_wrong_keys(
    registry: IoTHubRegistryManager,
    env: Mapping[str, str],
    device: str,
    device_certificate: CertificateFiles,
) -> None:
    thumbprint = read_certificate(device_certificate[0].read_bytes()).sha256
    registry.create_module_with_x509(device, "camera", "", thumbprint, None)
    client = IoTHubModuleClient.create_from_x509_certificate(
        x509=x509(device_certificate), hostname=env["IOTHUB_HOSTNAME"], device_id=device, module_id="camera"
    )
    try:
        client.connect()
        client.send_message("seen")
    finally:
        client.shutdown()
    registry.create_module_with_sas(device, "logger", "", "", "")
    device_key = registry.get_device(device).authentication.symmetric_key.primary_key
    with module_client(env, device, "logger", device_key) as impostor, pytest.raises(CredentialError):
        impostor.connect()
