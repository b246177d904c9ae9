"""`kill -9` while twins change and devices come: what was answered has its event, in order, after every restart."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
from collections import defaultdict

from moorage.cli.event_reader import EventReceived, open_reader
from moorage.cli.target import Login
from tests.conftest import RunningServer, StartServer
from tests.support.commands import moorage, said
from tests.support.mqtt_device import device_token, send
from tests.support.services import Hub

KILLS = 8
LOAD = (0.05, 0.25)  # seconds
FROM_THE_START = "amqp.annotation.x-opt-offset > '-1'"
DEVICE = "pump-7"


class Changes:
    """Makes devices and changes one twin until the server is gone; keeps what was answered."""

    def __init__(self) -> None:
        self.devices: list[str] = []
        self.versions: list[int] = []
        self._count = 0

    def run(self, hub: Hub) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                self._count += 1
                name = f"made-{self._count}"
                assert hub.call("PUT", f"/devices/{name}", {"deviceId": name}).status == 200
                self.devices.append(name)
                answer = hub.call("PATCH", f"/twins/{DEVICE}", {"tags": {"n": self._count}})
                assert answer.status == 200, answer
                self.versions.append(answer.body["version"])


async def test_what_was_answered_has_its_event(start_server: StartServer) -> None:
    chance = random.Random(2026)
    server = start_server("--log-level", "warning")
    for source in ("TwinChangeEvents", "DeviceLifecycleEvents", "DeviceConnectionStateEvents"):
        said(moorage(server, "hub", "message-route", "create", "--route-name", source, "-t", source))
    made = said(moorage(server, "hub", "device-identity", "create", "-d", DEVICE))
    key = made["authentication"]["symmetricKey"]["primaryKey"]
    changes = Changes()
    for _ in range(KILLS):
        token = device_token(server.address, DEVICE, key)
        await asyncio.to_thread(send, server.address, server.env["SSL_CERT_FILE"], DEVICE, token, ())
        running = asyncio.create_task(asyncio.to_thread(changes.run, Hub(server.env)))
        await asyncio.sleep(chance.uniform(*LOAD))  # the kill hits anywhere
        server.kill()
        await running
        server = await asyncio.to_thread(
            start_server, "--log-level", "warning", data=server.data, address=server.address
        )

    created, versions, sequences = set(), [], []
    for event in await read_everything(server):
        properties = {
            str(name): value for name, value in (event.message.application_properties or {}).items()
        }
        body = json.loads(event.message.payload)
        match properties["opType"]:
            case "createDeviceIdentity":
                created.add(properties["deviceId"])
            case "updateTwin":
                versions.append(body["version"])
            case "deviceConnected" | "deviceDisconnected":
                sequences.append(body["sequenceNumber"])
    assert not set(changes.devices) - created, "a device was answered for, and its event is lost"
    assert not set(changes.versions) - set(versions), "a change was answered for, and its event is lost"
    assert versions == sorted(set(versions))
    assert len(sequences) >= KILLS
    assert sequences == sorted(set(sequences)), "numbers grow over a restart"
    assert len(changes.versions) > KILLS, "the load was no load"


async def read_everything(server: RunningServer) -> list[EventReceived]:
    """By partition, in the order of the log."""
    login = Login.parse(server.env["IOTHUB_CONNECTION_STRING"], server.env["SSL_CERT_FILE"])
    kept: defaultdict[str, list[EventReceived]] = defaultdict(list)
    async with open_reader(login) as reader:
        left = {each: await reader.last_sequence_number(each) + 1 for each in await reader.partitions()}
        async with contextlib.aclosing(reader.events(FROM_THE_START)) as events:
            async for event in events:
                kept[event.partition].append(event)
                left[event.partition] -= 1
                if not any(left.values()):
                    return [event for partition in sorted(kept) for event in kept[partition]]
    raise AssertionError("the reader ended early")
