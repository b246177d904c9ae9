"""A device on our own engine's client role that registers over MQTT, as often as it can, and knows what it was told."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from moorage.credentials.sas import make_token
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import ClientConnection

REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid=1"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId="
FAR = 4_102_444_800  # seconds: the year 2100, for tokens

T = TypeVar("T")


class Told(NamedTuple):
    operation_id: str
    hub: str


class RegisteringDevice:
    """`told` has the outcome of each of its registrations."""

    def __init__(
        self,
        registration_id: str,
        host: str,
        id_scope: str,
        *,
        ca: Path,
        certificate: tuple[Path, Path] | None = None,
        key: str | None = None,
    ) -> None:
        self.registration_id = registration_id
        self.told: list[Told] = []
        resource = f"{id_scope}/registrations/{registration_id}"
        self._connect = packets.Connect(
            registration_id,
            f"{resource}/api-version=2019-03-31",
            password=make_token(resource, key, FAR, "registration").encode() if key else None,
            keep_alive=60,
        )
        self._host = host
        self._trust = ssl.create_default_context(cafile=str(ca))
        if certificate is not None:
            self._trust.load_cert_chain(*certificate)

    async def run(self, times: int | None = None) -> None:
        """Register until the connection is lost, or so many times."""
        reader, writer = await asyncio.open_connection(self._host, 8883, ssl=self._trust)
        try:
            await self._converse(_Line(reader, writer), times)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def ask(self, operation_id: str) -> dict[str, Any]:
        """What became of an operation, on a connection of its own."""
        reader, writer = await asyncio.open_connection(self._host, 8883, ssl=self._trust)
        try:
            line = _Line(reader, writer)
            await self._listen(line)
            return await line.ask(POLL + operation_id, b"")
        finally:
            writer.transport.abort()

    async def _converse(self, line: _Line, times: int | None) -> None:
        await self._listen(line)
        while times is None or times > 0:
            accepted = await line.ask(REGISTER, b"{}")
            outcome = await line.ask(POLL + accepted["operationId"], b"")
            assert outcome["status"] == "assigned", outcome
            self.told.append(Told(outcome["operationId"], outcome["registrationState"]["assignedHub"]))
            times = None if times is None else times - 1

    async def _listen(self, line: _Line) -> None:
        line.send(packets.encode_connect(self._connect))
        connected = await line.expect(packets.ConnAck)
        assert connected.code == 0, connected
        line.send(packets.encode_subscribe(1, [("$dps/registrations/res/#", 0)]))
        await line.expect(packets.SubAck)


class _Line:
    """Packets in turn. Raises ConnectionError when the peer is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._wire = ClientConnection()
        self._events: list[Any] = []

    def send(self, packet: bytes) -> None:
        self._writer.write(packet)

    async def expect(self, kind: type[T]) -> T:
        while not self._events:
            data = await self._reader.read(65_536)
            if not data:
                raise ConnectionError("the server is gone")
            self._events += self._wire.receive(data)
        event = self._events.pop(0)
        assert isinstance(event, kind), event
        return event

    async def ask(self, topic: str, payload: bytes) -> dict[str, Any]:
        self.send(packets.encode_publish(topic, payload))
        answer = await self.expect(packets.Publish)
        document: dict[str, Any] = json.loads(answer.payload)
        return document
