"""A device's conversation with a hub: MQTT, by itself or in a WebSocket, with asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from moorage.cli.device import hub_packets
from moorage.cli.device.lines import PATIENCE, READ_AT_ONCE, WEBSOCKET_PATH
from moorage.cli.device.proof import expiry
from moorage.cli.target import no_answer
from moorage.credentials.sas import make_token
from moorage.errors import MoorageError, Unavailable
from moorage.wire.errors import Malformed
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import ClientConnection
from moorage.wire.mqtt.topics import parse_property_bag

PROTOCOLS = ("mqtt", "mqtt-ws")
KEEP_ALIVE = 60  # seconds

_TWIN_RESPONSE = re.compile(r"\$iothub/twin/res/(\d+)/\?\$rid=([^&]*)(?:&\$version=(\d+))?")
_METHOD = re.compile(r"\$iothub/methods/POST/(.+)/\?\$rid=(.*)", re.DOTALL)
_DESIRED = "$iothub/twin/PATCH/properties/desired/"


class NotConnected(MoorageError):
    """The hub said no, by its code."""


class TwinRefused(MoorageError):
    """The hub said no to a twin request, in its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDevice:
    """Who connects. `trust` holds its client certificate where it has one; `key` is its own, or with `policy` that
    policy's. `address` is where to connect, where that is not the host."""

    host: str
    device_id: str
    module_id: str | None = None
    trust: ssl.SSLContext
    key: str | None = field(default=None, repr=False)
    policy: str | None = None
    address: str | None = None
    model_id: str | None = None
    https_port: int = 443

    def token(self) -> str | None:
        """A fresh one; None with a certificate."""
        if self.key is None:
            return None
        device = f"{self.host}/devices/{self.device_id}"
        resource = device if self.module_id is None else f"{device}/modules/{self.module_id}"
        return make_token(resource, self.key, expiry(), self.policy)


class MethodCall(NamedTuple):
    name: str
    request_id: str
    payload: bytes


class DesiredChange(NamedTuple):
    patch: Any


class CloudMessage(NamedTuple):
    properties: list[tuple[str, str | None]]
    payload: bytes


Incoming = MethodCall | DesiredChange | CloudMessage


class Stream(Protocol):
    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        """What has come; empty at the end."""
        ...


class DeviceClient:
    """One connection. What the hub says of its own accord is in `incoming`, None when the connection is over.

    Every call raises Unavailable when the connection is lost.
    """

    def __init__(self, device: HubDevice, stream: Stream) -> None:
        self.device = device
        self.incoming: asyncio.Queue[Incoming | None] = asyncio.Queue()
        self._stream = stream
        self._mqtt = ClientConnection()
        self._packet_ids = itertools.cycle(range(1, 0x10000))
        self._request_ids = itertools.count(1)
        self._waiting: dict[object, asyncio.Future[Any]] = {}
        self._lost: MoorageError | None = None

    async def send_event(self, payload: bytes, properties: Mapping[str, str]) -> None:
        """Telemetry; on return the hub has it for good."""
        device = self.device
        topic = hub_packets.events_topic(device.device_id, device.module_id, properties)
        await self._publish(topic, payload)

    async def subscribe(self, *filters: str) -> list[str]:
        """Those that the hub refused."""
        packet_id = next(self._packet_ids)
        codes = await self._ask(
            packet_id, packets.encode_subscribe(packet_id, [(each, 1) for each in filters])
        )
        return [each for each, code in zip(filters, codes, strict=True) if code == packets.REFUSED]

    async def twin(self) -> dict[str, Any]:
        """Desired and reported properties. Raises TwinRefused."""
        document: dict[str, Any] = json.loads(await self._ask_twin("GET/", b""))
        return document

    async def report(self, properties: Mapping[str, Any]) -> None:
        """Merge into the reported properties. Raises TwinRefused."""
        await self._ask_twin("PATCH/properties/reported/", json.dumps(properties).encode())

    async def respond(self, call: MethodCall, status: int, payload: Any) -> None:
        topic = f"$iothub/methods/res/{status}/?$rid={call.request_id}"
        await self._stream.send(packets.encode_publish(topic, json.dumps(payload).encode()))

    async def _ask_twin(self, what: str, body: bytes) -> bytes:
        request_id = str(next(self._request_ids))
        packet = packets.encode_publish(f"$iothub/twin/{what}?$rid={request_id}", body)
        status, answered = await self._ask(request_id, packet)
        if status >= 300:
            raise TwinRefused(f"{_said(answered)} (status {status})")
        return bytes(answered)

    async def _publish(self, topic: str, payload: bytes) -> None:
        packet_id = next(self._packet_ids)
        await self._ask(packet_id, packets.encode_publish(topic, payload, qos=1, packet_id=packet_id))

    async def _ask(self, key: object, packet: bytes) -> Any:
        if self._lost is not None:
            raise self._lost
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        try:
            await self._stream.send(packet)
            async with asyncio.timeout(PATIENCE):
                return await future
        except TimeoutError:
            raise Unavailable(f"{self.device.host} did not answer within {PATIENCE:g} s") from None
        finally:
            self._waiting.pop(key, None)

    # --- what comes in

    async def _open(self) -> None:
        """CONNECT and CONNACK. Raises NotConnected."""
        device = self.device
        connect = hub_packets.connect_packet(
            device.host,
            device.device_id,
            device.module_id,
            token=device.token(),
            keep_alive=KEEP_ALIVE,
            clean_session=False,
            model_id=device.model_id,
        )
        answer = self._ask(packets.ConnAck, packets.encode_connect(connect))
        if code := await answer:
            raise NotConnected(hub_packets.why_refused(device.host, code))

    async def _run(self) -> None:
        """Until the connection is over; whoever waits then is told why."""
        reason: MoorageError = Unavailable(f"{self.device.host} has closed the connection")
        try:
            while data := await self._stream.receive():
                for event in self._mqtt.receive(data):
                    await self._take(event)
        except MoorageError as error:
            reason = error
        except (OSError, Malformed, ValueError) as error:
            reason = Unavailable(f"the connection to {self.device.host} was lost: {error}")
        finally:
            self._lost = reason
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(reason)
            self.incoming.put_nowait(None)

    async def _take(self, event: packets.Event) -> None:
        match event:
            case packets.Publish():
                if event.packet_id is not None:
                    await self._stream.send(packets.encode_puback(event.packet_id))
                self._published(event)
            case packets.PubAck(packet_id):
                self._resolve(packet_id, None)
            case packets.SubAck(packet_id, codes):
                self._resolve(packet_id, codes)
            case packets.ConnAck(code):
                self._resolve(packets.ConnAck, code)

    def _published(self, event: packets.Publish) -> None:
        if told := _TWIN_RESPONSE.fullmatch(event.topic):
            self._resolve(told[2], (int(told[1]), event.payload))
        elif called := _METHOD.fullmatch(event.topic):
            self.incoming.put_nowait(MethodCall(called[1], called[2], event.payload))
        elif event.topic.startswith(_DESIRED):
            self.incoming.put_nowait(DesiredChange(json.loads(event.payload)))
        else:
            _, _, bag = event.topic.partition("/messages/devicebound/")
            self.incoming.put_nowait(CloudMessage(parse_property_bag(bag), event.payload))

    def _resolve(self, key: object, value: Any) -> None:
        future = self._waiting.get(key)
        if future is not None and not future.done():
            future.set_result(value)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE / 2)
            await self._stream.send(packets.encode_pingreq())


@contextlib.asynccontextmanager
async def connect(device: HubDevice, protocol: str) -> AsyncIterator[DeviceClient]:
    """Connected and let in. Raises Unavailable, NotConnected."""
    open_stream = _websocket if protocol == "mqtt-ws" else _tls
    async with open_stream(device) as stream:
        client = DeviceClient(device, stream)
        tasks = [asyncio.create_task(client._run()), asyncio.create_task(client._keep_alive())]
        try:
            await client._open()
            try:
                yield client
            finally:  # also when it is cancelled: whoever leaves by will says so
                with contextlib.suppress(OSError, MoorageError):
                    await stream.send(packets.encode_disconnect())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # of the pings: what ends the connection is told by _run


@contextlib.asynccontextmanager
async def _tls(device: HubDevice) -> AsyncIterator[Stream]:
    address = device.address or device.host
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(address, 8883, ssl=device.trust)
    except (OSError, TimeoutError) as error:
        raise no_answer(address, 8883, error) from None

    class TlsStream:
        async def send(self, data: bytes) -> None:
            writer.write(data)
            try:
                await writer.drain()
            except OSError as error:
                raise Unavailable(f"the connection to {address} was lost: {error}") from None

        async def receive(self) -> bytes:
            return await reader.read(READ_AT_ONCE)

    try:
        yield TlsStream()
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def _websocket(device: HubDevice) -> AsyncIterator[Stream]:
    from websockets.asyncio.client import connect as open_websocket
    from websockets.exceptions import ConnectionClosed, WebSocketException
    from websockets.typing import Subprotocol

    address, port = device.address or device.host, device.https_port
    opening = open_websocket(
        f"wss://{address}:{port}{WEBSOCKET_PATH}",
        ssl=device.trust,
        subprotocols=[Subprotocol("mqtt")],
        open_timeout=PATIENCE,
        ping_interval=None,
        close_timeout=1,
        proxy=None,
    )
    try:
        connection = await opening
    except (OSError, TimeoutError, WebSocketException) as error:
        raise no_answer(address, port, error) from None

    class WebSocketStream:
        async def send(self, data: bytes) -> None:
            try:
                await connection.send(data)
            except ConnectionClosed as error:
                raise Unavailable(f"the WebSocket to {address} was lost: {error}") from None

        async def receive(self) -> bytes:
            try:
                received = await connection.recv(decode=False)
            except ConnectionClosed:
                return b""
            return received

    async with connection:
        yield WebSocketStream()


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace") or "the hub gave no reason"
