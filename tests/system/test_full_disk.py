"""An 8 MiB disk that fills up: writes are refused and said to be, reads go on, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from moorage.cli.event_reader import open_reader
from moorage.cli.target import Login
from moorage.credentials.x509 import read_certificate
from tests.conftest import StartServer
from tests.support.certificates import certificate
from tests.support.pipelining_device import PipeliningDevice
from tests.support.services import Dps, Hub

pytestmark = pytest.mark.system


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_refuses_writes_and_serves_reads(
    small_disk: Path, start_server: StartServer, tmp_path: Path
) -> None:
    ballast = small_disk / "ballast"  # what an operator will find to delete
    ballast.write_bytes(bytes(2 << 20))
    server = await asyncio.to_thread(start_server, data=small_disk / "data")
    proof = certificate(tmp_path, "full")
    hub, dps = Hub(server.env), Dps(server.env)
    thumbprint = read_certificate(proof[0].read_bytes()).sha256
    authentication = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}}
    made = hub.call("PUT", "/devices/full", {"deviceId": "full", "authentication": authentication})
    assert made.status == 200
    dps.put_enrollment("before", proof[0])
    device = PipeliningDevice(
        "full", server.address, ca=Path(server.env["MOORAGE_CA_FILE"]), certificate=proof, padding=8192
    )

    async with asyncio.timeout(60):
        await device.run()  # until the server closes: there is no room for the next message

    assert device.acknowledged, "the disk was full from the start"
    assert "No space left on device" in server.log
    _fill(small_disk / "filler")
    refused = dps.call(
        "PUT",
        "/enrollments/after",
        {"registrationId": "after", "attestation": _x509(proof[0])},
    )
    assert refused.status == 503, refused
    assert "disk" in refused.body["message"], refused
    dps.get("/enrollments/before")
    hub.get("/devices/full")
    assert set(device.acknowledged) <= set(await _read(server.env, len(device.acknowledged)))

    ballast.unlink()
    dps.put_enrollment("after", proof[0])
    server.stop()
    again = await asyncio.to_thread(start_server, data=small_disk / "data", address=server.address)
    assert set(device.acknowledged) <= set(await _read(again.env, len(device.acknowledged)))


def _x509(certificate_file: Path) -> dict[str, object]:
    primary = {"certificate": certificate_file.read_text()}
    return {"type": "x509", "x509": {"clientCertificates": {"primary": primary}}}


def _fill(path: Path) -> None:
    """Take what is left of the disk, to the last page."""
    with path.open("wb") as file:
        for size in (65_536, 4096):
            try:
                while True:
                    os.write(file.fileno(), bytes(size))
            except OSError:
                continue


async def _read(env: Mapping[str, str], count: int) -> list[int]:
    """The numbers of the first `count` events kept, of whatever partition."""
    login = Login.parse(env["IOTHUB_CONNECTION_STRING"], env["SSL_CERT_FILE"])
    numbers: list[int] = []
    async with open_reader(login) as reader, asyncio.timeout(30):
        async for event in reader.events("amqp.annotation.x-opt-offset > '-1'"):
            numbers.append(int(event.message.payload.split(b" ", 1)[0]))
            if len(numbers) >= count:
                break
    return numbers
