"""Microsoft's device clients, made as a device program makes them, and always shut down."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

from azure.iot.device import X509, IoTHubDeviceClient, ProvisioningDeviceClient, RegistrationResult
from azure.iot.device.common.evented_callback import EventedCallback
from azure.iot.device.exceptions import ClientError, NoConnectionError

from tests.support.certificates import CertificateFiles
from tests.support.services import Hub


def x509(files: CertificateFiles, pass_phrase: str | None = None) -> X509:
    return X509(cert_file=str(files[0]), key_file=str(files[1]), pass_phrase=pass_phrase)


# --- Provisioning ----------------------------------------------------------------------------------------


@contextmanager
def provisioning_client(
    env: Mapping[str, str],
    registration_id: str,
    certificate: CertificateFiles,
    *,
    id_scope: str | None = None,
    websockets: bool = False,
) -> Iterator[ProvisioningDeviceClient]:
    client = ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=env["PROVISIONING_HOST"],
        registration_id=registration_id,
        id_scope=id_scope or env["PROVISIONING_IDSCOPE"],
        x509=x509(certificate),
        websockets=websockets,
    )
    with shut_down(client):
        yield client


@contextmanager
def shut_down(client: Any) -> Iterator[None]:
    """A provisioning client shuts itself down once assigned, and has no verb for it after a refusal."""
    try:
        yield
    finally:
        if client._pipeline._running:
            done = EventedCallback()
            client._pipeline.shutdown(callback=done)
            done.wait_for_completion()


def register(
    env: Mapping[str, str], registration_id: str, certificate: CertificateFiles, **options: Any
) -> RegistrationResult:
    with provisioning_client(env, registration_id, certificate, **options) as client:
        return client.register()


def register_by_key(
    env: Mapping[str, str], registration_id: str, key: str, *, websockets: bool = False, payload: Any = None
) -> RegistrationResult:
    client = ProvisioningDeviceClient.create_from_symmetric_key(
        provisioning_host=env["PROVISIONING_HOST"],
        registration_id=registration_id,
        id_scope=env["PROVISIONING_IDSCOPE"],
        symmetric_key=key,
        websockets=websockets,
    )
    client.provisioning_payload = payload
    with shut_down(client):
        return client.register()


def service_error(error: ClientError) -> str:
    """What the service answered: the SDK hides it behind "Unexpected failure"."""
    assert error.__cause__ is not None
    return str(error.__cause__)


# --- The hub ---------------------------------------------------------------------------------------------


class SasDevice(NamedTuple):
    """A device identity with its keys."""

    hostname: str
    device_id: str
    primary_key: str
    secondary_key: str

    def connection_string(self, key: str | None = None) -> str:
        key = key or self.primary_key
        return f"HostName={self.hostname};DeviceId={self.device_id};SharedAccessKey={key}"


def sas_device(hub: Hub, device_id: str) -> SasDevice:
    """A new identity whose keys the hub has made."""
    keys = put_device(hub, device_id)["authentication"]["symmetricKey"]
    return SasDevice(hub.host, device_id, keys["primaryKey"], keys["secondaryKey"])


def put_device(hub: Hub, device_id: str, *, if_match: str | None = None, **members: object) -> dict[str, Any]:
    """Create an identity, or with `if_match` replace it."""
    headers = {"If-Match": if_match} if if_match is not None else {}
    document = {"deviceId": device_id, **members}
    answer = hub.call("PUT", f"/devices/{quote(device_id, safe='')}", document, headers=headers)
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.body
    return body


@contextmanager
def device_client(device: SasDevice, key: str | None = None, **options: Any) -> Iterator[IoTHubDeviceClient]:
    client = IoTHubDeviceClient.create_from_connection_string(device.connection_string(key), **options)
    with closing(client):
        yield client


@contextmanager
def x509_device_client(
    env: Mapping[str, str], device_id: str, certificate: CertificateFiles, **options: Any
) -> Iterator[IoTHubDeviceClient]:
    client = IoTHubDeviceClient.create_from_x509_certificate(
        x509=x509(certificate), hostname=env["IOTHUB_HOSTNAME"], device_id=device_id, **options
    )
    with closing(client):
        yield client


@contextmanager
def closing(client: IoTHubDeviceClient) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            client.shutdown()
        except NoConnectionError:  # lost just while it was being closed: it is not closed yet
            client.shutdown()


class Connection:
    """Follows whether a client is connected, as its handler is told."""

    def __init__(self, client: IoTHubDeviceClient) -> None:
        self._client = client
        self.lost = threading.Event()
        client.on_connection_state_change = self._changed  # type: ignore[assignment]  # it is called without

    def _changed(self) -> None:
        if not self._client.connected:
            self.lost.set()
