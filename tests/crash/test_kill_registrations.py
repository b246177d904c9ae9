"""`kill -9` while devices register and their hubs change: what a device was told holds after every restart.

In one hub and in no other, as its registration says; and the operation that it was told of has the same answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import random
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import pytest

from moorage.credentials.sas import derive_key
from tests.conftest import RunningServer, StartServer
from tests.support.certificates import certificate
from tests.support.registering_device import RegisteringDevice
from tests.support.services import Dps, Hub
from tests.support.shell import Shell

KILLS = 8
OF_EACH_KIND = 3
LOAD = (0.2, 0.5)  # seconds


# A TLS handshake that the kill cuts short leaves its socket to the garbage collector of asyncio.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.timeout(180)
async def test_what_a_device_was_told_is_so_after_kill_9(start_server: StartServer, tmp_path: Path) -> None:
    chance = random.Random(2026)
    server = start_server("--log-level", "warning")
    answer = Dps(server.env).call("POST", "/moorage/v1/hubs", {"name": "beta", "link": True})
    assert answer.status == 201, answer
    hubs = [server.env["IOTHUB_HOSTNAME"], answer.body["hostName"]]
    devices = enroll(server, tmp_path)

    for _ in range(KILLS):
        running = [asyncio.create_task(device.run()) for device in devices]
        moving = asyncio.create_task(asyncio.to_thread(move_devices, Dps(server.env), hubs))
        await asyncio.sleep(chance.uniform(*LOAD))  # the load lasts a random while: the kill hits anywhere
        server.kill()
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(*running)
        await moving
        server = await asyncio.to_thread(
            start_server, "--log-level", "warning", data=server.data, address=server.address
        )
        for device in devices:
            await check_operation(device)

    beta = Shell(server).json("env", "--hub", "beta", "--format", "json")
    registries = dict(zip(hubs, (Hub(server.env), Hub(beta)), strict=True))
    for device in devices:
        check_places(server, device, registries)
        told = len(device.told)
        await device.run(times=1)
        assert len(device.told) == told + 1
        check_places(server, device, registries)
    assert {told.hub for device in devices for told in device.told} == set(hubs), "nobody has moved"
    assert sum(len(device.told) for device in devices) > KILLS * len(devices), "the load was no load"


def enroll(server: RunningServer, folder: Path) -> list[RegisteringDevice]:
    """By certificate, by key, and by the key of a group."""
    dps, devices = Dps(server.env), []
    group = dps.put_key_group("line")
    for number in range(OF_EACH_KIND):
        by_certificate, by_key, of_line = (f"{kind}-{number}" for kind in ("certificate", "key", "line"))
        files = certificate(folder, by_certificate)
        dps.put_enrollment(by_certificate, files[0])
        proofs = (
            (by_certificate, {"certificate": files}),
            (by_key, {"key": dps.put_key_enrollment(by_key)[0]}),
            (of_line, {"key": derive_key(group[0], of_line)}),
        )
        for name, proof in proofs:
            scope, ca = server.env["PROVISIONING_IDSCOPE"], Path(server.env["MOORAGE_CA_FILE"])
            devices.append(RegisteringDevice(name, server.address, scope, ca=ca, **proof))
    return devices


def move_devices(dps: Dps, hubs: list[str]) -> None:
    """Weigh the hubs anew until the server is gone: devices go from one to the other and back."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        for weights in cycle([(1, 1000), (1000, 1)]):
            for hub, weight in zip(hubs, weights, strict=True):
                answer = dps.call("PATCH", f"/moorage/v1/linkedHubs/{hub}", {"allocationWeight": weight})
                assert answer.status == 200, answer


async def check_operation(device: RegisteringDevice) -> None:
    """It has the outcome that was told, or that of the registration which was under way at the kill."""
    if not device.told:
        return
    last = device.told[-1]
    outcome = await device.ask(last.operation_id)
    assert outcome["status"] == "assigned", f"{device.registration_id} was told its hub, and then {outcome}"


def check_places(server: RunningServer, device: RegisteringDevice, hubs: Mapping[str, Hub]) -> None:
    name = device.registration_id
    record = Dps(server.env).get(f"/registrations/{name}")
    answers = {host: hub.call("GET", f"/devices/{name}").status for host, hub in hubs.items()}
    assert answers == {host: 200 if host == record["assignedHub"] else 404 for host in hubs}, name
