"""`kill -9` while back ends send and devices take: no acknowledged message is lost, none taken for good comes again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]

from tests.clients.conftest import EnterShell
from tests.conftest import StartServer
from tests.support.devices import SasDevice, sas_device
from tests.support.mqtt import hub_client
from tests.support.services import Hub
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

KILLS = 4
LOAD = (0.3, 0.9)  # seconds between the first request and the kill
DEVICES, IN_QUEUE = 3, 40  # a queue holds fifty


@dataclass
class Queue:
    """What one device was sent: `kept` was acknowledged, `sent` was at least tried."""

    device: SasDevice
    sent: int = 0
    kept: list[int] = field(default_factory=list)

    def fill(self, registry: IoTHubRegistryManager) -> None:
        """Until it is full enough, or the server is gone."""
        while self.sent < IN_QUEUE:
            number = self.sent
            self.sent += 1
            try:
                registry.send_c2d_message(self.device.device_id, str(number))
            except Exception:  # uamqp has a class for each way in which a connection can go
                return
            self.kept.append(number)


def waiting(hub: Hub, device: SasDevice) -> int:
    count: int = hub.get(f"/devices/{device.device_id}")["cloudToDeviceMessageCount"]
    return count


def take(env: Mapping[str, str], hub: Hub, device: SasDevice) -> list[int]:
    """Everything that waits, acknowledged for good."""
    taken: list[int] = []
    count = waiting(hub, device)
    with hub_client(env, device, clean_session=False) as client:
        assert client.connect() == 0
        client.subscribe(f"devices/{device.device_id}/messages/devicebound/#", 1)
        while len(taken) < count:
            taken.append(int(client.message().payload))
        eventually(lambda: waiting(hub, device) == 0, what="the last PUBACK to be durable")
    return taken


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.timeout(240)
async def test_what_waits_for_a_device_outlives_the_server(
    start_server: StartServer, enter_shell: EnterShell
) -> None:
    chance = random.Random(2026)
    server = start_server("--log-level", "warning")
    env = enter_shell(server)
    hub, settled = Hub(env), 0
    for life in range(KILLS):
        queues = [Queue(sas_device(hub, f"pump-{life}-{number}")) for number in range(DEVICES)]
        registry = IoTHubRegistryManager.from_connection_string(env["IOTHUB_CONNECTION_STRING"])
        filling: list[Any] = [
            asyncio.create_task(asyncio.to_thread(queue.fill, registry)) for queue in queues
        ]
        await asyncio.sleep(chance.uniform(*LOAD))  # the load lasts a random while: the kill hits anywhere
        server.kill()
        await asyncio.gather(*filling)
        server = await asyncio.to_thread(
            start_server, "--log-level", "warning", data=server.data, address=server.address
        )
        for queue in queues:
            taken = await asyncio.to_thread(take, env, hub, queue.device)
            assert taken == sorted(set(taken)), "in order, each once"
            assert set(queue.kept) <= set(taken), "an acknowledged message is lost"
            settled += len(taken)
        server.kill()  # what was taken for good does not come again
        server = await asyncio.to_thread(
            start_server, "--log-level", "warning", data=server.data, address=server.address
        )
        assert [waiting(hub, queue.device) for queue in queues] == [0] * DEVICES
    assert settled > KILLS * DEVICES, "the load was no load"
