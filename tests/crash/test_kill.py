"""`kill -9` under load, again and again: what was acknowledged is there, in order, after every restart.

This proves recovery after a crash. That a sync happens before an acknowledgement it cannot prove, for the page
cache outlives the process: the power-cut tests do.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage.cli.event_reader import open_reader
from moorage.cli.target import Login
from moorage.credentials.x509 import read_certificate
from tests.conftest import RunningServer, StartServer
from tests.support.certificates import certificate
from tests.support.pipelining_device import PipeliningDevice, ReportingDevice
from tests.support.services import Dps, Hub

KILLS = 50
DEVICES = 6
REPORTERS = 2
LOAD = (0.05, 0.30)  # seconds between the first bytes of load and the kill

FROM_THE_START = "amqp.annotation.x-opt-offset > '-1'"


class Writer:
    """Makes records of one kind over REST until the server is gone; `acknowledged` has the names that got a 200.

    `unanswered` is the one of the last kill.
    """

    def __init__(self, make: Callable[[str], None], prefix: str) -> None:
        self._make = make
        self._prefix = prefix
        self._count = 0
        self.acknowledged: list[str] = []
        self.unanswered = ""

    def run(self) -> None:
        while True:
            name = self.unanswered = f"{self._prefix}-{self._count}"
            self._count += 1
            try:
                self._make(name)
            except (OSError, http.client.HTTPException):
                return
            self.acknowledged.append(name)


# A TLS handshake that the kill cuts short leaves its socket to the garbage collector of asyncio.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.timeout(240)
async def test_nothing_acknowledged_is_lost_by_kill_9(start_server: StartServer, tmp_path: Path) -> None:
    chance = random.Random(2026)
    server = start_server("--log-level", "warning")
    proof = certificate(tmp_path, "crash")
    thumbprint = _register_devices(server, proof[0])
    ca = Path(server.env["MOORAGE_CA_FILE"])
    devices = [
        PipeliningDevice(f"device-{n}", server.address, ca=ca, certificate=proof) for n in range(DEVICES)
    ]
    reporters = [
        ReportingDevice(f"device-{n}", server.address, ca=ca, certificate=proof)
        for n in range(DEVICES, DEVICES + REPORTERS)
    ]
    enrollments = Writer(lambda name: _enroll(Dps(server.env), name, proof[0]), "enrollment")
    identities = Writer(lambda name: _identify(Hub(server.env), name, thumbprint), "identity")
    tags = Writer(lambda name: _tag(Hub(server.env), name), "tag")

    for _ in range(KILLS):
        running = [asyncio.create_task(device.run()) for device in (*devices, *reporters)]
        running += [
            asyncio.create_task(asyncio.to_thread(writer.run)) for writer in (enrollments, identities, tags)
        ]
        await asyncio.sleep(chance.uniform(*LOAD))  # the load lasts a random while: the kill hits anywhere
        server.kill()
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(*running)
        server = await asyncio.to_thread(
            start_server, "--log-level", "warning", data=server.data, address=server.address
        )

    kept = await _read_everything(server)
    for device in devices:
        numbers = kept[device.device_id]
        assert numbers == sorted(set(numbers)), f"{device.device_id}: out of order, or twice"
        assert not set(device.acknowledged) - set(numbers), f"{device.device_id}: acknowledged and lost"
    assert sum(len(device.acknowledged) for device in devices) > KILLS * DEVICES, "the load was no load"
    for name in enrollments.acknowledged:
        Dps(server.env).get(f"/enrollments/{name}")
    for name in identities.acknowledged:
        Hub(server.env).get(f"/devices/{name}")
    for reporter in reporters:
        twin = Hub(server.env).get(f"/twins/{reporter.device_id}")
        assert twin["properties"]["reported"]["n"] >= reporter.acknowledged[-1], "set back"
        assert len(reporter.acknowledged) > KILLS
    tagged = Hub(server.env).get("/twins/device-0")["tags"]["name"]
    assert tagged in (tags.acknowledged[-1], tags.unanswered), "set back"
    assert len(enrollments.acknowledged) > KILLS // 5
    assert len(identities.acknowledged) > KILLS // 5


def _register_devices(server: RunningServer, certificate_file: Path) -> str:
    thumbprint = read_certificate(certificate_file.read_bytes()).sha256
    for number in range(DEVICES + REPORTERS):
        _identify(Hub(server.env), f"device-{number}", thumbprint)
    return thumbprint


def _identify(hub: Hub, name: str, thumbprint: str) -> None:
    authentication = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}}
    answer = hub.call("PUT", f"/devices/{name}", {"deviceId": name, "authentication": authentication})
    assert answer.status == 200, answer


def _tag(hub: Hub, name: str) -> None:
    answer = hub.call("PATCH", "/twins/device-0", {"tags": {"name": name}})
    assert answer.status == 200, answer


def _enroll(dps: Dps, name: str, certificate_file: Path) -> None:
    dps.put_enrollment(name, certificate_file)


async def _read_everything(server: RunningServer) -> dict[str, list[int]]:
    """The numbers kept of each device, in the order of the log, through the Event Hubs-compatible endpoint."""
    login = Login.parse(server.env["IOTHUB_CONNECTION_STRING"], server.env["SSL_CERT_FILE"])
    kept: defaultdict[str, list[int]] = defaultdict(list)
    async with open_reader(login) as reader:
        left = {
            partition: await reader.last_sequence_number(partition) + 1
            for partition in await reader.partitions()
        }
        async with contextlib.aclosing(reader.events(FROM_THE_START)) as events:
            async for event in events:
                annotations = event.message.message_annotations or {}
                device_id = next(str(v) for k, v in annotations.items() if k == "iothub-connection-device-id")
                kept[device_id].append(int(event.message.payload))
                left[event.partition] -= 1
                if not any(left.values()):
                    return dict(kept)
    raise AssertionError("the reader ended early")
