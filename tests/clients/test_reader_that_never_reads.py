"""AMQP readers that grant credit and take nothing off their sockets: the server waits, and others go on."""

from __future__ import annotations

import asyncio
import re
import select
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from moorage.cli.event_reader import open_reader
from moorage.cli.target import Login
from moorage.wire.amqp import DeliveryReceived, Message
from tests.conftest import RunningServer, StartServer
from tests.support.amqp_socket import AmqpSocket
from tests.support.commands import moorage, said
from tests.support.mqtt_device import device_token, send
from tests.support.services import Hub

pytestmark = pytest.mark.clients

MIB = 1 << 20
BODY, COUNT = 200_000, 120  # 24 MB in one partition
STUCK = 4  # readers; unbounded, they would take 96 MB
BOUND = STUCK * MIB + 16 * MIB  # what each may have waiting, and room for what serving anybody takes


def memory(server: RunningServer, what: str) -> int:
    """Bytes: VmRSS now, VmHWM at its highest."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(rf"^{what}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def reader(server: RunningServer, **options: Any) -> AmqpSocket:
    made = AmqpSocket(server.address, server.env["SSL_CERT_FILE"], **options)
    made.claim(Hub(server.env).token())
    return made


def device_with_events(server: RunningServer) -> None:
    identity = said(moorage(server, "hub", "device-identity", "create", "-d", "pump-7"))
    key = identity["authentication"]["symmetricKey"]["primaryKey"]
    events = [(f"number={number}", b"x" * BODY) for number in range(COUNT)]
    password = device_token(server.address, "pump-7", key)
    assert send(server.address, server.env["SSL_CERT_FILE"], "pump-7", password, events) == 0


def busy_partition(server: RunningServer) -> str:
    """The address of the one partition that has events."""

    async def find() -> str:
        login = Login.parse(server.env["IOTHUB_CONNECTION_STRING"], server.env["SSL_CERT_FILE"])
        async with open_reader(login) as opened:
            for partition in await opened.partitions():
                if await opened.last_sequence_number(partition) == COUNT - 1:
                    return f"moorage/ConsumerGroups/$Default/Partitions/{partition}"
        raise AssertionError("no partition has the events")

    return asyncio.run(find())


def read_all(one: AmqpSocket, count: int) -> list[int]:
    """The numbers of the next events."""
    numbers = []
    for _ in range(count):
        message = Message.decode(one.ask(DeliveryReceived).message)
        assert len(message.payload) == BODY
        numbers.append(int((message.application_properties or {})["number"]))
    return numbers


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_bounded_and_others_go_on(start_server: StartServer) -> None:
    server = start_server()
    device_with_events(server)
    address = busy_partition(server)
    with reader(server) as first:  # whatever serving a reader takes is taken now
        first.attach(address, credit=COUNT)
        assert read_all(first, COUNT) == list(range(COUNT))
    highest = memory(server, "VmHWM")

    with ExitStack() as stack:
        stuck = [stack.enter_context(reader(server, receive_buffer=16_384)) for _ in range(STUCK)]
        for each in stuck:
            each.attach(address, credit=COUNT)
        for each in stuck:  # what was sent to it has come as far as its own kernel
            assert select.select([each], [], [], 10)[0]

        with reader(server) as other:
            other.attach(address, credit=COUNT)
            assert read_all(other, COUNT) == list(range(COUNT))
        device = said(moorage(server, "hub", "device-identity", "show", "-d", "pump-7"))
        assert device["deviceId"] == "pump-7"
        assert memory(server, "VmHWM") - highest < BOUND

        # They were kept waiting, not cut off: whoever reads again gets all of it.
        assert read_all(stuck[0], COUNT) == list(range(COUNT))
    assert "wait unsent" not in server.log
