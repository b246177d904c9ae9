"""A device on our own engine's client role that keeps several messages in flight and knows what was acknowledged."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import ClientConnection


class PipeliningDevice:
    """Publishes numbered messages at QoS 1, `window` in flight; `acknowledged` has the numbers that got a PUBACK.

    Each number is sent once, whatever became of it. PUBACKs come in the order of the publishes, which is asserted.
    """

    def __init__(
        self,
        device_id: str,
        host: str,
        *,
        ca: Path,
        certificate: tuple[Path, Path],
        window: int = 10,
        padding: int = 0,
    ) -> None:
        """`padding` bytes follow the number in each message, behind a space."""
        self.device_id = device_id
        self.host = host
        self.window = window
        self.padding = b" " + bytes(padding) if padding else b""
        self.sent = 0
        self.acknowledged: list[int] = []
        self._trust = ssl.create_default_context(cafile=str(ca))
        self._trust.load_cert_chain(*certificate)

    async def run(self) -> None:
        """Connect and publish until the connection is lost."""
        reader, writer = await asyncio.open_connection(self.host, 8883, ssl=self._trust)
        try:
            await self._converse(reader, writer)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = ClientConnection()
        user_name = f"{self.host}/{self.device_id}/?api-version=2021-04-12"
        writer.write(packets.encode_connect(packets.Connect(self.device_id, user_name, keep_alive=60)))
        in_flight: list[int] = []
        while data := await reader.read(65_536):
            for event in wire.receive(data):
                match event:
                    case packets.ConnAck():
                        assert event.code == 0, event
                    case packets.PubAck():
                        number = in_flight.pop(0)
                        assert event.packet_id == number % 0xFFFF + 1
                        self.acknowledged.append(number)
            while len(in_flight) < self.window:
                in_flight.append(self.sent)
                writer.write(self._publish(self.sent))
                self.sent += 1

    def _publish(self, number: int) -> bytes:
        topic = f"devices/{self.device_id}/messages/events/"
        return packets.encode_publish(
            topic, b"%d" % number + self.padding, qos=1, packet_id=number % 0xFFFF + 1
        )


class ReportingDevice(PipeliningDevice):
    """Reports each number as its property `n`, without a request id: the PUBACK is the whole answer."""

    def _publish(self, number: int) -> bytes:
        topic = "$iothub/twin/PATCH/properties/reported/"
        return packets.encode_publish(topic, b'{"n":%d}' % number, qos=1, packet_id=number % 0xFFFF + 1)
