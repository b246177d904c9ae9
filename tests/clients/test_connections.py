"""What a device program sees of its connection by Microsoft's `azure-iot-device`: states, renewal, coming back."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient
from azure.iot.device.aio import IoTHubDeviceClient as AsynchronousClient
from azure.iot.device.exceptions import ConnectionFailedError

from moorage.credentials.sas import make_token
from moorage.credentials.x509 import read_certificate
from tests.clients.conftest import EnterShell
from tests.conftest import StartServer
from tests.support.certificates import CertificateFiles
from tests.support.decisions import decisions
from tests.support.devices import SasDevice, closing, device_client, put_device, sas_device, x509
from tests.support.events import Telemetry
from tests.support.services import Hub
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

transports = pytest.mark.parametrize(
    "websockets",
    [pytest.param(False, id="mqtt"), pytest.param(True, id="websockets", marks=pytest.mark.port443)],
)

# The client renews a token two minutes before its end: this one after a second.
SHORT_LIVED = 121  # seconds
RENEWALS = 2


@asynccontextmanager
async def asynchronous_client(device: SasDevice, **options: Any) -> AsyncIterator[AsynchronousClient]:
    client = AsynchronousClient.create_from_connection_string(device.connection_string(), **options)
    try:
        yield client
    finally:
        await client.shutdown()


# --- States ----------------------------------------------------------------------------------------------


@transports
def test_each_change_of_state_is_told(hub: Hub, device_id: str, websockets: bool) -> None:
    states: queue.Queue[bool] = queue.Queue()
    with device_client(sas_device(hub, device_id), websockets=websockets) as client:
        client.on_connection_state_change = lambda: states.put(client.connected)  # type: ignore[assignment]
        for _ in range(2):
            client.connect()
            assert states.get(timeout=10) is True
            assert hub.get(f"/devices/{device_id}")["connectionState"] == "Connected"
            client.disconnect()
            assert states.get(timeout=10) is False
            assert hub.get(f"/devices/{device_id}")["connectionState"] == "Disconnected"

    assert states.empty()


@transports
async def test_each_change_of_state_is_told_to_the_asynchronous_client(
    hub: Hub, device_id: str, websockets: bool
) -> None:
    states: queue.Queue[bool] = queue.Queue()  # the handler runs in a thread of the SDK
    device = await asyncio.to_thread(sas_device, hub, device_id)
    async with asynchronous_client(device, websockets=websockets) as client:

        async def changed() -> None:
            states.put(client.connected)

        client.on_connection_state_change = changed  # type: ignore[assignment]
        for _ in range(2):
            await client.connect()
            assert await asyncio.to_thread(states.get, timeout=10) is True
            await client.disconnect()
            assert await asyncio.to_thread(states.get, timeout=10) is False

    assert states.empty()


# --- Renewal ---------------------------------------------------------------------------------------------


@transports
def test_a_token_is_renewed_before_its_end_and_no_message_is_lost(
    hub: Hub, telemetry: Telemetry, device_id: str, websockets: bool
) -> None:
    """Over MQTT by connecting anew, while the device goes on sending."""
    device = sas_device(hub, device_id)
    sent = 0

    with device_client(device, websockets=websockets, sastoken_ttl=SHORT_LIVED) as client:
        while len(accepted(hub, device_id)) < 1 + RENEWALS:
            client.send_message(str(sent))
            sent += 1
        client.send_message(str(sent))

    assert first_of_each(telemetry, device_id, sent + 1) == list(range(sent + 1))


def first_of_each(telemetry: Telemetry, device_id: str, count: int) -> list[int]:
    """The numbers that have arrived, `count` different ones: what was under way at a loss may come twice."""

    def numbers() -> list[int]:
        return list(dict.fromkeys(int(event.body_as_str()) for event in telemetry.of(device_id, 1)))

    eventually(lambda: len(numbers()) >= count, what=f"{count} messages arrive")
    return numbers()


def accepted(hub: Hub, device_id: str) -> list[Any]:
    found = decisions(hub, device_id)
    assert all(decision["accepted"] for decision in found), found
    return found


def test_a_program_that_makes_its_own_tokens_is_asked_for_a_new_one(hub: Hub, device_id: str) -> None:
    device = sas_device(hub, device_id)

    def token(lifetime: int) -> str:
        name = f"{device.hostname}/devices/{device_id}"
        return make_token(name, device.primary_key, int(time.time()) + lifetime, None)

    asked = threading.Event()
    client = IoTHubDeviceClient.create_from_sastoken(token(SHORT_LIVED))

    def renew() -> None:
        client.update_sastoken(token(3600))
        asked.set()

    with closing(client):
        client.on_new_sastoken_required = renew  # type: ignore[assignment]
        client.connect()
        assert asked.wait(10), "the program is not asked"
        client.send_message("with the new one")

    assert len(accepted(hub, device_id)) == 2


# --- Coming back -----------------------------------------------------------------------------------------


@transports
async def test_a_device_with_a_certificate_goes_on_after_a_crash_of_the_server(
    start_server: StartServer,
    enter_shell: EnterShell,
    device_id: str,
    device_certificate: CertificateFiles,
    websockets: bool,
) -> None:
    """It sends all the time; whatever the SDK has reported as sent is there afterwards."""
    server = await asyncio.to_thread(start_server)
    env = enter_shell(server)
    await asyncio.to_thread(add_by_certificate, Hub(env), device_id, device_certificate)
    client = AsynchronousClient.create_from_x509_certificate(
        x509=x509(device_certificate),
        hostname=env["IOTHUB_HOSTNAME"],
        device_id=device_id,
        websockets=websockets,
        connection_retry_interval=1,
    )
    sent = 0
    stop = asyncio.Event()

    async def send() -> None:
        nonlocal sent
        while not stop.is_set():
            try:
                await client.send_message(str(sent))
            except ConnectionFailedError:  # by a new message's own try to connect: for the program to repeat
                continue
            sent += 1

    async def until_sent(count: int) -> None:
        await asyncio.to_thread(
            eventually, lambda: sent >= count, what=f"{count} messages are sent", within=30
        )

    sending = asyncio.create_task(send())
    try:
        await until_sent(20)
        server.kill()
        await asyncio.to_thread(eventually, lambda: not client.connected, what="the client notices")
        await asyncio.to_thread(start_server, data=server.data, address=server.address)
        await until_sent(sent + 20)
    finally:
        stop.set()
        await sending
        await client.shutdown()

    telemetry = await asyncio.to_thread(Telemetry, env)
    try:
        seen = await asyncio.to_thread(first_of_each, telemetry, device_id, sent)
    finally:
        await asyncio.to_thread(telemetry.stop)
    assert seen == list(range(sent))


def add_by_certificate(hub: Hub, device_id: str, files: CertificateFiles) -> None:
    thumbprint = {"primaryThumbprint": read_certificate(files[0].read_bytes()).sha256}
    put_device(hub, device_id, authentication={"type": "selfSigned", "x509Thumbprint": thumbprint})
