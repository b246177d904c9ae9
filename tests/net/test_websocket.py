from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.typing import Subprotocol

from moorage.net.http import HttpServer, WebSocketDoor
from moorage.net.listener import Address
from tests.net.credentials import Credential
from tests.net.house import SOON, Conversations, Echo, House, Peer, Recorder
from tests.net.test_http import App, SetClock, response

PATHS = ("/$iothub/websocket", "/$servicebus/websocket")


@pytest.fixture
def private_calls() -> bool:
    return True  # how OpenSSL is called makes no difference here


class Site:
    """A server whose `mqtt` and `AMQPWSB10` conversations echo, unless told otherwise."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.app = App()
        self.mqtt = Conversations(Echo)
        self.amqp = Conversations(Echo)

    async def open(self, *, tls: bool = False, **limits: Any) -> Address:
        server = HttpServer(
            self.app,
            SetClock(),
            websocket_paths=PATHS,
            websockets={
                "mqtt": WebSocketDoor("mqtt-ws", self.mqtt.open),
                "AMQPWSB10": WebSocketDoor("amqp-ws", self.amqp.open),
            },
            **limits,
        )
        (address,) = await self.house.listeners.open_door("https", "127.0.0.1", 0, server, tls=tls)
        return address


@pytest.fixture
def site(house: House) -> Site:
    return Site(house)


def client(address: Address, *names: str, path: str = PATHS[0], **options: Any) -> connect:
    options.setdefault("compression", None)
    scheme = "wss" if "ssl" in options else "ws"
    return connect(
        f"{scheme}://localhost:{address.port}{path}",
        host=address.host,
        port=address.port,
        subprotocols=[Subprotocol(name) for name in names] or None,
        open_timeout=SOON,
        close_timeout=SOON,
        proxy=None,
        **options,
    )


async def echoed(websocket: ClientConnection, data: bytes) -> bytes:
    await websocket.send(data)
    received = b""
    async with asyncio.timeout(SOON):
        while len(received) < len(data):
            message = await websocket.recv()
            assert isinstance(message, bytes)
            received += message
    return received


# --- Opening -----------------------------------------------------------------------------------------------


async def test_a_websocket_is_a_byte_stream_with_the_same_peer(site: Site, device: Credential) -> None:
    address = await site.open(tls=True)
    context = site.house.client_context(device, ssl.TLSVersion.TLSv1_2)

    async with client(address, "mqtt", ssl=context) as websocket:
        assert await echoed(websocket, b"hello") == b"hello"

        seen = site.mqtt[0].stream.peer
        assert (seen.address, seen.door) == ("127.0.0.1", "mqtt-ws")
        assert (seen.chain, seen.tls_version) == (device.chain, "TLSv1.2")
    assert await site.mqtt[0].closing() == "closed by peer"
    assert site.house.listeners.open_connections() == {"https": 0}


@pytest.mark.parametrize(
    ("offered", "taken", "door"),
    [
        (["mqtt"], "mqtt", "mqtt-ws"),
        (["MQTT"], "MQTT", "mqtt-ws"),
        (["AMQPWSB10"], "AMQPWSB10", "amqp-ws"),
        (["amqpwsb10"], "amqpwsb10", "amqp-ws"),
        (["chat", "AMQPWSB10", "mqtt"], "AMQPWSB10", "amqp-ws"),
    ],
)
async def test_the_sub_protocol_chooses_and_keeps_its_spelling(
    site: Site, offered: list[str], taken: str, door: str
) -> None:
    async with client(await site.open(), *offered) as websocket:
        assert await echoed(websocket, b"hello") == b"hello"

        assert websocket.subprotocol == taken
        assert [each.stream.peer.door for each in (*site.mqtt, *site.amqp)] == [door]


@pytest.mark.parametrize(
    "path",
    [
        *("/$iothub/websocket", "/%24iothub/websocket", "/$iothub/websocket/", "/%24servicebus/websocket/"),
        *("/$servicebus/websocket", "/$iothub/websocket?iothub-no-client-cert=true"),
    ],
)
async def test_the_paths_as_clients_write_them(site: Site, path: str) -> None:
    async with client(await site.open(), "mqtt", path=path) as websocket:
        assert await echoed(websocket, b"hello") == b"hello"


@pytest.mark.parametrize(
    ("path", "offered", "status", "why"),
    [
        ("/$iothub/websocket", [], 400, b"offer one of the sub-protocols"),
        ("/$iothub/websocket", ["chat"], 400, b"offer one of the sub-protocols"),
        ("/elsewhere", ["mqtt"], 404, b"no WebSocket is offered at this path"),
    ],
)
async def test_a_refusal_says_why(site: Site, path: str, offered: list[str], status: int, why: bytes) -> None:
    with pytest.raises(InvalidStatus) as error:
        await client(await site.open(), *offered, path=path)

    assert error.value.response.status_code == status
    assert why in (error.value.response.body or b"")
    assert site.mqtt == []


async def test_a_request_without_an_upgrade_is_told_what_the_path_is_for(site: Site) -> None:
    peer = await site.house.connect_plain(await site.open())
    await peer.send(b"GET /%24iothub/websocket HTTP/1.1\r\nHost: localhost\r\n\r\n")

    status, _, body = await response(peer)

    assert (status, body) == (400, b"this path takes WebSocket upgrades only")
    await peer.send(b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await response(peer))[0] == 200
    assert len(site.app.scopes) == 1


async def test_compression_is_not_agreed_to(site: Site) -> None:
    extensions = [ClientPerMessageDeflateFactory()]
    async with client(await site.open(), "mqtt", extensions=extensions) as websocket:
        assert await echoed(websocket, b"a" * 1000) == b"a" * 1000
        assert websocket.protocol.extensions == []


# --- Frame by frame ----------------------------------------------------------------------------------------


def frame(opcode: Opcode, data: bytes, *, fin: bool = True, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    """A client's frame. [RFC 6455 5.2]"""
    head = bytes([opcode | (0x80 if fin else 0)])
    if len(data) < 126:
        head += bytes([0x80 | len(data)])
    elif len(data) < 1 << 16:
        head += b"\xfe" + struct.pack("!H", len(data))
    else:
        head += b"\xff" + struct.pack("!Q", len(data))
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


async def read_frame(peer: Peer) -> tuple[int, bytes]:
    """The server's next frame, which is never a fragment: its opcode and payload."""
    first, size = await peer.read(2)
    assert first & 0x80
    if size == 126:
        (size,) = struct.unpack("!H", await peer.read(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await peer.read(8))
    return first & 0x0F, await peer.read(size)


REQUEST = (
    b"GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n"
    b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)

Raw = Callable[..., Awaitable[Peer]]


@pytest.fixture
def raw(site: Site) -> Raw:
    """Opens a WebSocket by hand; `behind` is sent along with the request."""

    async def begin(behind: bytes = b"", **limits: Any) -> Peer:
        peer = await site.house.connect_plain(await site.open(**limits))
        await peer.send(REQUEST + behind)
        async with asyncio.timeout(SOON):
            head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n" in head
        return peer

    return begin


async def test_frames_that_come_with_the_request_are_not_lost(site: Site, raw: Raw) -> None:
    peer = await raw(frame(Opcode.BINARY, b"early"))

    assert await read_frame(peer) == (Opcode.BINARY, b"early")


async def test_frames_of_one_packet_are_received_in_one_call(site: Site, raw: Raw) -> None:
    peer = await raw()
    await peer.send(
        frame(Opcode.BINARY, b"one,")
        + frame(Opcode.BINARY, b"t", fin=False)
        + frame(Opcode.PING, b"alive?")
        + frame(Opcode.CONT, b"w", fin=False)
        + frame(Opcode.CONT, b"o,")
        + frame(Opcode.BINARY, b"")
        + frame(Opcode.BINARY, b"three")
    )

    frames = [await read_frame(peer), await read_frame(peer)]

    assert site.mqtt[0].reads == [b"one,two,three"]
    assert sorted(frames) == [(Opcode.BINARY, b"one,two,three"), (Opcode.PONG, b"alive?")]


async def test_what_is_written_in_one_turn_leaves_as_one_frame(site: Site, raw: Raw) -> None:
    class Answers(Recorder):
        def received(self, data: bytes) -> None:
            for number in range(10):
                self.stream.write(b"%d," % number)
            self.stream.call_later(0, self.later)

        def later(self) -> None:
            for number in range(10):
                self.stream.write(b"%d;" % number)

    site.mqtt = Conversations(Answers)
    peer = await raw()
    await peer.send(frame(Opcode.BINARY, b"go"))

    assert await read_frame(peer) == (Opcode.BINARY, b"0,1,2,3,4,5,6,7,8,9,")
    assert await read_frame(peer) == (Opcode.BINARY, b"0;1;2;3;4;5;6;7;8;9;")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 400), max_size=8),
    whole=st.booleans(),
)
async def test_bytes_arrive_whatever_the_frames_and_the_packets(
    house: House, pieces: list[bytes], cuts: list[int], whole: bool
) -> None:
    site = Site(house)
    peer = await house.connect_plain(await site.open())
    last = len(pieces) - 1
    sent = REQUEST + b"".join(
        frame(Opcode.BINARY, piece)
        if whole
        else frame(Opcode.CONT if index else Opcode.BINARY, piece, fin=index == last)
        for index, piece in enumerate(pieces)
    )
    start = 0
    for cut in [*cuts, len(sent)]:
        await peer.send(sent[start : start + cut])
        start += cut
        await asyncio.sleep(0)

    conversation = await site.mqtt.first()

    await conversation.until(lambda: conversation.bytes_read == b"".join(pieces))
    await peer.close()


async def test_a_packet_larger_than_a_frame_may_be(site: Site, raw: Raw) -> None:
    packet = os.urandom(700_000)
    peer = await raw(max_websocket_message=400_000)
    await peer.send(frame(Opcode.BINARY, packet[:350_000]) + frame(Opcode.BINARY, packet[350_000:]))
    received = b""
    while len(received) < len(packet):
        received += (await read_frame(peer))[1]

    assert received == packet


# --- Ends --------------------------------------------------------------------------------------------------


async def test_text_is_not_taken(site: Site, raw: Raw) -> None:
    peer = await raw()
    await peer.send(
        frame(Opcode.BINARY, b"fine") + frame(Opcode.TEXT, b"text") + frame(Opcode.BINARY, b"late")
    )

    opcode, payload = await read_frame(peer)

    assert (opcode, payload) == (Opcode.CLOSE, struct.pack("!H", 1003) + b"binary frames only")
    assert await peer.rest() == b""
    await peer.close()
    assert await site.mqtt[0].closing() == "connection lost: text frame"
    assert site.mqtt[0].reads == [b"fine"]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(Opcode.BINARY, bytes(1001)), 1009),
        (frame(Opcode.BINARY, bytes(600), fin=False) + frame(Opcode.CONT, bytes(600)), 1009),
        (b"\xff" + frame(Opcode.BINARY, b"")[1:], 1002),  # reserved bits [RFC 6455 5.2]
        (b"\x82\x05plain", 1002),  # not masked [RFC 6455 5.1]
        (frame(Opcode.CONT, b"nothing before"), 1002),
        (frame(Opcode.PING, bytes(126)), 1002),
    ],
    ids=["frame", "message", "reserved", "mask", "continuation", "ping"],
)
async def test_what_breaks_the_rules_ends_the_connection(
    site: Site, raw: Raw, sent: bytes, code: int
) -> None:
    peer = await raw(max_websocket_message=1000)
    await peer.send(sent)
    frames = [await read_frame(peer)]
    while frames[-1][0] != Opcode.CLOSE:
        frames.append(await read_frame(peer))

    assert struct.unpack("!H", frames[-1][1][:2]) == (code,)
    assert await peer.rest() == b""
    await peer.close()
    assert (await site.mqtt[0].closing()).startswith("connection lost: ")


async def test_the_server_says_goodbye_and_waits_for_the_answer(site: Site) -> None:
    class Leaves(Recorder):
        def received(self, data: bytes) -> None:
            self.stream.write(b"last words")
            self.stream.close("had enough")

    site.mqtt = Conversations(Leaves)
    async with client(await site.open(), "mqtt") as websocket:
        await websocket.send(b"go")

        assert await websocket.recv() == b"last words"
        with pytest.raises(ConnectionClosed) as error:
            await websocket.recv()

    assert error.value.rcvd is not None
    assert error.value.rcvd.code == 1000
    assert await site.mqtt[0].closing() == "had enough"


async def test_a_peer_that_never_says_goodbye_is_not_waited_for(
    site: Site, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.net.websocket.CLOSE_TIMEOUT", 0.05)
    peer = await raw()
    site.mqtt[0].stream.close("had enough")

    assert (await read_frame(peer))[0] == Opcode.CLOSE
    assert await peer.rest() == b""
    await peer.close()
    assert await site.mqtt[0].closing() == "had enough"


async def test_an_abort_is_at_once(site: Site) -> None:
    async with client(await site.open(), "mqtt") as websocket:
        assert await echoed(websocket, b"hello") == b"hello"
        site.mqtt[0].stream.abort("enough")

        with pytest.raises(ConnectionClosedError):
            await asyncio.wait_for(websocket.recv(), SOON)
    assert site.mqtt[0].reasons == ["enough"]


async def test_a_peer_that_just_leaves_has_closed(site: Site, raw: Raw) -> None:
    peer = await raw()
    await peer.send(frame(Opcode.BINARY, b"bye"))
    peer.writer.write_eof()

    assert await site.mqtt[0].closing() == "closed by peer"
    assert site.mqtt[0].reads == [b"bye"]
    assert await read_frame(peer) == (Opcode.BINARY, b"bye")


async def test_a_peer_that_does_not_read_is_cut_off(site: Site, raw: Raw) -> None:
    class Talker(Recorder):
        def received(self, data: bytes) -> None:
            self.talk()

        def talk(self) -> None:
            if not self.reasons:
                self.stream.write(bytes(100_000))
                self.stream.call_later(0, self.talk)

    site.mqtt = Conversations(Talker)
    peer = await raw()
    peer.stop_reading()
    await peer.send(frame(Opcode.BINARY, b"go"))

    assert await site.mqtt[0].closing() == "over 1048576 bytes wait unsent"


async def test_a_peer_that_only_pings_is_cut_off_too(site: Site, raw: Raw) -> None:
    peer = await raw(outward_limit=100_000)
    peer.stop_reading()
    pings = frame(Opcode.PING, bytes(125)) * 1000

    with contextlib.suppress(ConnectionError):
        for _ in range(1000):
            await peer.send(pings)
            await asyncio.sleep(0)

    assert "wait unsent" in await site.mqtt[0].closing()


async def test_stopping_reaches_the_conversation(site: Site) -> None:
    async with client(await site.open(), "mqtt") as websocket:
        assert await echoed(websocket, b"hello") == b"hello"
        draining = asyncio.create_task(site.house.listeners.drain(5.0))

        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(websocket.recv(), SOON)
    await draining
    assert site.mqtt[0].reasons == ["server stops"]
