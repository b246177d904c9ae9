"""Identities by Microsoft's `azure-iot-hub`: `IoTHubRegistryManager` and the managers beside it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.iot.hub import (  # type: ignore[import-untyped]
    DigitalTwinClient,
    IoTHubConfigurationManager,
    IoTHubJobManager,
    IoTHubRegistryManager,
)
from azure.iot.hub.models import (  # type: ignore[import-untyped]
    AuthenticationMechanism,
    Configuration,
    ConfigurationContent,
    DeviceCapabilities,
    ExportImportDevice,
    JobProperties,
    JobRequest,
    PropertyContainer,
    SymmetricKey,
)
from msrest.exceptions import HttpOperationError

from moorage.credentials.sas import new_key
from moorage.credentials.x509 import read_certificate
from tests.support.certificates import CertificateFiles
from tests.support.devices import SasDevice, device_client, register, x509_device_client
from tests.support.services import Dps, Hub, with_key

pytestmark = pytest.mark.clients


@pytest.fixture
def registry(env: Mapping[str, str]) -> IoTHubRegistryManager:
    return IoTHubRegistryManager.from_connection_string(env["IOTHUB_CONNECTION_STRING"])


def refusal_of(call: Callable[..., Any], *arguments: Any) -> tuple[int, str]:
    """Status and error name of a call that has to be refused."""
    with pytest.raises(HttpOperationError) as raised:
        call(*arguments)
    response = raised.value.response
    return response.status_code, response.headers["iothub-errorcode"]


# --- Create, read, change, delete ------------------------------------------------------------------------


def test_a_device_with_given_keys(
    registry: IoTHubRegistryManager, env: Mapping[str, str], device_id: str
) -> None:
    primary, secondary = new_key(32), new_key(32)

    made = registry.create_device_with_sas(device_id, primary, secondary, "enabled", status_reason="new")

    assert (made.device_id, made.status, made.status_reason) == (device_id, "enabled", "new")
    assert made.authentication.type == "sas"
    assert made.authentication.symmetric_key.primary_key == primary
    assert made.authentication.symmetric_key.secondary_key == secondary
    assert made.connection_state == "Disconnected"
    assert registry.get_device(device_id).as_dict() == made.as_dict()
    with device_client(SasDevice(env["IOTHUB_HOSTNAME"], device_id, primary, secondary)) as client:
        client.connect()
        assert registry.get_device(device_id).connection_state == "Connected"
        assert registry.get_service_statistics().connected_device_count >= 1


def test_the_hub_makes_keys_that_are_left_out(registry: IoTHubRegistryManager, device_id: str) -> None:
    made = registry.create_device_with_sas(device_id, "", "", "enabled")

    keys = made.authentication.symmetric_key
    assert len(keys.primary_key) == len(keys.secondary_key) == 44
    assert keys.primary_key != keys.secondary_key


def test_a_device_with_a_thumbprint(
    registry: IoTHubRegistryManager,
    env: Mapping[str, str],
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    thumbprint = read_certificate(device_certificate[0].read_bytes()).sha256

    made = registry.create_device_with_x509(device_id, thumbprint.lower(), "ab" * 20, "enabled")

    assert made.authentication.type == "selfSigned"
    assert made.authentication.x509_thumbprint.primary_thumbprint == thumbprint
    assert made.authentication.x509_thumbprint.secondary_thumbprint == "AB" * 20
    with x509_device_client(env, device_id, device_certificate) as client:
        client.connect()
        assert client.connected


def test_a_device_of_a_certificate_authority_and_an_edge_device(
    registry: IoTHubRegistryManager, device_id: str
) -> None:
    made = registry.create_device_with_certificate_authority(device_id, "disabled")
    edge = registry.create_device_with_sas(f"{device_id}-edge", "", "", "enabled", iot_edge=True)
    child = registry.create_device_with_sas(
        f"{device_id}-leaf", "", "", "enabled", device_scope=edge.device_scope
    )

    assert (made.authentication.type, made.status) == ("certificateAuthority", "disabled")
    assert edge.capabilities.iot_edge
    assert edge.device_scope.startswith(f"ms-azure-iot-edge://{device_id}-edge-")
    assert child.parent_scopes == [edge.device_scope]


def test_an_update_and_its_etag(
    registry: IoTHubRegistryManager, device_id: str, device_certificate: CertificateFiles
) -> None:
    made = registry.create_device_with_sas(device_id, "", "", "enabled")
    thumbprint = read_certificate(device_certificate[0].read_bytes()).sha256

    changed = registry.update_device_with_x509(
        device_id, made.etag, thumbprint, None, "disabled", False, "why"
    )

    assert (changed.status, changed.status_reason) == ("disabled", "why")
    assert changed.authentication.type == "selfSigned"
    assert changed.generation_id == made.generation_id
    assert changed.etag != made.etag
    stale = refusal_of(registry.update_device_with_sas, device_id, made.etag, "", "", "enabled")
    assert stale == (412, "PreconditionFailed")
    assert refusal_of(registry.delete_device, device_id, made.etag) == (412, "PreconditionFailed")
    assert registry.get_device(device_id).as_dict() == changed.as_dict()
    registry.delete_device(device_id, changed.etag)


def test_a_device_comes_to_be_trusted_by_its_authority(
    registry: IoTHubRegistryManager, device_id: str
) -> None:
    made = registry.create_device_with_sas(device_id, "", "", "enabled")
    changed = registry.update_device_with_certificate_authority(device_id, made.etag, "enabled")
    assert changed.authentication.type == "certificateAuthority"
    assert changed.authentication.symmetric_key.primary_key is None
    assert changed.generation_id == made.generation_id
    assert registry.get_device(device_id).as_dict() == changed.as_dict()
    stale = refusal_of(registry.update_device_with_certificate_authority, device_id, made.etag, "enabled")
    assert stale == (412, "PreconditionFailed")


class Somebody:
    """Signed in at Microsoft Entra."""

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        return AccessToken("eyJ0eXAiOiJKV1QifQ", 4_102_444_800)


def test_who_is_signed_in_at_microsoft_entra_is_refused(env: Mapping[str, str], device_id: str) -> None:
    host = env["IOTHUB_CONNECTION_STRING"].partition("HostName=")[2].partition(";")[0]
    registry = IoTHubRegistryManager.from_token_credential(host, Somebody())
    assert refusal_of(registry.get_device, device_id) == (401, "IotHubUnauthorizedAccess")


def test_every_method_of_the_client_is_called_here_or_beside() -> None:
    tests = [ast.parse(file.read_bytes()) for file in Path(__file__).parent.glob("test_*.py")]
    called = {node.attr for tree in tests for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in vars(IoTHubRegistryManager) if not name.startswith("_")} <= called


def test_a_device_made_again_is_another_one(registry: IoTHubRegistryManager, device_id: str) -> None:
    first = registry.create_device_with_sas(device_id, "", "", "enabled")
    registry.delete_device(device_id)
    assert refusal_of(registry.get_device, device_id) == (404, "DeviceNotFound")
    assert refusal_of(registry.delete_device, device_id) == (404, "DeviceNotFound")

    second = registry.create_device_with_sas(device_id, "", "", "enabled")

    assert second.generation_id != first.generation_id


def test_what_provisioning_made_is_seen_here(
    registry: IoTHubRegistryManager,
    env: Mapping[str, str],
    dps: Dps,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])
    register(env, device_id, device_certificate)

    device = registry.get_device(device_id)

    leaf = read_certificate(device_certificate[0].read_bytes())
    assert device.status == "enabled"
    assert device.authentication.x509_thumbprint.primary_thumbprint == leaf.sha256


# --- Many ------------------------------------------------------------------------------------------------


def test_lists_and_statistics(registry: IoTHubRegistryManager, device_id: str) -> None:
    before = registry.get_device_registry_statistics()
    registry.create_device_with_sas(device_id, "", "", "disabled")

    after = registry.get_device_registry_statistics()

    assert after.total_device_count == before.total_device_count + 1
    assert after.disabled_device_count == before.disabled_device_count + 1
    assert after.enabled_device_count == before.enabled_device_count
    assert device_id in [device.device_id for device in registry.get_devices()]
    assert len(registry.get_devices(1)) == 1


def test_bulk(registry: IoTHubRegistryManager, device_id: str) -> None:
    keys = AuthenticationMechanism(type="sas", symmetric_key=SymmetricKey(primary_key="", secondary_key=""))

    def item(number: int, mode: str, **members: Any) -> ExportImportDevice:
        name = f"{device_id}-{number}"
        return ExportImportDevice(id=name, import_mode=mode, status="enabled", authentication=keys, **members)

    made = registry.bulk_create_or_update_devices(
        [
            item(0, "create", tags={"site": "A"}, properties=PropertyContainer(desired={"period": 5})),
            item(1, "create", capabilities=DeviceCapabilities(iot_edge=False)),
        ]
    )
    assert made.is_successful
    assert registry.get_twin(f"{device_id}-0").properties.desired["period"] == 5

    partly = registry.bulk_create_or_update_devices([item(0, "create"), item(2, "create")])
    assert not partly.is_successful
    assert [error.device_id for error in partly.errors] == [f"{device_id}-0"]
    assert registry.get_device(f"{device_id}-2").status == "enabled"

    gone = registry.bulk_create_or_update_devices([item(number, "delete") for number in range(3)])
    assert gone.is_successful
    assert refusal_of(registry.get_device, f"{device_id}-1")[0] == 404


def test_a_twin_is_read(
    registry: IoTHubRegistryManager,
    env: Mapping[str, str],
    dps: Dps,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    twin = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 30}}}
    dps.put_enrollment(device_id, device_certificate[0], initialTwin=twin)
    register(env, device_id, device_certificate)

    seen = registry.get_twin(device_id)

    assert seen.device_id == device_id
    assert seen.tags == {"site": "north"}
    assert seen.properties.desired["interval"] == 30
    assert seen.properties.desired["$version"] == 1
    assert "$metadata" in seen.properties.desired
    assert seen.properties.reported["$version"] == 1
    assert seen.authentication_type == "selfSigned"
    assert refusal_of(registry.get_twin, f"no-{device_id}") == (404, "DeviceNotFound")


# --- Refusals --------------------------------------------------------------------------------------------


def test_bad_devices(registry: IoTHubRegistryManager, hub: Hub, device_id: str) -> None:
    registry.create_device_with_sas(device_id, "", "", "enabled")

    duplicate = refusal_of(registry.create_device_with_sas, device_id, "", "", "enabled")
    assert duplicate == (409, "DeviceAlreadyExists")
    for bad in (
        ("a b", "", "", "enabled"),
        (f"{device_id}-2", "not base64!", "", "enabled"),
        (f"{device_id}-2", "", "", "asleep"),
    ):
        assert refusal_of(registry.create_device_with_sas, *bad) == (400, "ArgumentInvalid")
    bad_thumbprint = refusal_of(registry.create_device_with_x509, f"{device_id}-2", "12", None, "enabled")
    assert bad_thumbprint == (400, "ArgumentInvalid")
    assert hub.call("GET", f"/devices/{device_id}-2").status == 404


def test_a_wrong_key_of_the_hub(env: Mapping[str, str]) -> None:
    login = with_key(env["IOTHUB_CONNECTION_STRING"], new_key())
    impostor = IoTHubRegistryManager.from_connection_string(login)

    assert refusal_of(impostor.get_device, "anything") == (401, "IotHubUnauthorizedAccess")


def test_what_comes_with_later_releases_is_refused_with_501(
    registry: IoTHubRegistryManager, env: Mapping[str, str], device_id: str
) -> None:
    """Honestly: never a success that did nothing, never an unknown path."""
    login = env["IOTHUB_CONNECTION_STRING"]
    configurations = IoTHubConfigurationManager.from_connection_string(login)
    jobs = IoTHubJobManager.from_connection_string(login)
    digital_twins = DigitalTwinClient.from_connection_string(login)
    made = registry.create_device_with_sas(device_id, "", "", "enabled")
    content = ConfigurationContent(device_content={})

    later: dict[str, Callable[[], Any]] = {
        "get_configurations": lambda: configurations.get_configurations(),
        "create_configuration": lambda: configurations.create_configuration(
            Configuration(id="c", content=content)
        ),
        "apply_configuration": lambda: configurations.apply_configuration_on_edge_device(device_id, content),
        "import_export_job": lambda: jobs.create_import_export_job(JobProperties(type="export")),
        "get_jobs": lambda: jobs.get_import_export_jobs(),
        "scheduled_job": lambda: jobs.create_scheduled_job("job", JobRequest(job_id="job")),
        "query_jobs": lambda: jobs.query_scheduled_jobs(None, None),
        "digital_twin": lambda: digital_twins.get_digital_twin(device_id),
        "command": lambda: digital_twins.invoke_command(device_id, "reboot", "{}"),
    }

    answers = {name: refusal_of(call) for name, call in later.items()}

    assert answers == dict.fromkeys(later, (501, "NotImplemented"))
    assert registry.get_device(device_id).etag == made.etag
