from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from moorage.net.http import AsgiApp, HttpServer, Message, Receive, Scope, Send
from moorage.net.listener import Address
from tests.net.credentials import Credential
from tests.net.house import SOON, House, Peer, eventually

START = 1_800_000_000_000_000  # Fri, 15 Jan 2027 08:00:00 GMT


class SetClock:
    time = START

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / 1e6


@pytest.fixture
def private_calls() -> bool:
    return True  # how OpenSSL is called makes no difference here


class App:
    """Answers every request with its body, and keeps the scopes."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.disconnects = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            body += message["body"]
            more = message["more_body"]
        await answer(send, body)


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


Open = Callable[..., Awaitable[Address]]


@pytest.fixture
def open_http(house: House) -> Open:
    async def open_door(app: AsgiApp, *, tls: bool = False, **settings: Any) -> Address:
        server = HttpServer(app, SetClock(), door="https" if tls else "http", **settings)
        (address,) = await house.listeners.open_door("web", "127.0.0.1", 0, server, tls=tls)
        return address

    return open_door


async def response(peer: Peer) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one response."""
    async with asyncio.timeout(SOON):
        head = (await peer.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.split("\r\n")[:-2]
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await peer.reader.readexactly(int(headers.get("content-length", 0)))
    return int(status.split()[1]), headers, body


async def test_a_request_is_answered(house: House, open_http: Open) -> None:
    app = App()
    peer = await house.connect_plain(await open_http(app))
    await peer.send(b"POST /a%2Fb?c=d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody")

    status, headers, body = await response(peer)

    assert (status, body) == (200, b"body")
    assert headers["date"] == "fri, 15 jan 2027 08:00:00 gmt"
    assert "server" not in headers
    (scope,) = app.scopes
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("POST", "/a/b", b"/a%2Fb")
    assert (scope["query_string"], scope["scheme"]) == (b"c=d", "http")
    assert scope["client"][0] == "127.0.0.1"


async def test_the_app_sees_the_peer_and_a_new_tracking_id_for_each_request(
    house: House, open_http: Open, device: Credential
) -> None:
    app = App()
    peer = await house.connect(await open_http(app, tls=True), device, ssl.TLSVersion.TLSv1_2)
    for _ in range(2):
        await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await response(peer))[0] == 200

    first, second = app.scopes
    seen = first["extensions"]["moorage.peer"]
    assert (seen.address, seen.door, seen.chain) == ("127.0.0.1", "https", device.chain)
    assert (seen.tls_version, first["scheme"]) == ("TLSv1.2", "https")
    ids = {scope["extensions"]["moorage.tracking_id"] for scope in (first, second)}
    assert len(ids) == 2
    assert all(len(each) == 32 and int(each, 16) for each in ids)


async def test_the_date_follows_the_clock(house: House) -> None:
    clock = SetClock()
    (address,) = await house.listeners.open_door("web", "127.0.0.1", 0, HttpServer(App(), clock), tls=False)
    peer = await house.connect_plain(address)
    dates = []
    for microseconds in (0, 999_999, 1_000_000):
        clock.time = START + microseconds
        await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        dates.append((await response(peer))[1]["date"])

    assert [each[-12:-4] for each in dates] == ["08:00:00", "08:00:00", "08:00:01"]


async def test_pipelined_requests_are_answered_in_order(house: House, open_http: Open) -> None:
    peer = await house.connect_plain(await open_http(App()))
    await peer.send(
        b"".join(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n%d" % number
            for number in range(5)
        )
    )

    assert [(await response(peer))[2] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("secure", [False, True])
async def test_five_megabytes_both_ways(house: House, open_http: Open, secure: bool) -> None:
    address = await open_http(App(), tls=secure, max_body=8 << 20)
    peer = await (house.connect(address) if secure else house.connect_plain(address))
    sent = os.urandom(5 << 20)
    await peer.send(b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(sent))
    await peer.send(sent)

    _, _, body = await response(peer)

    assert hashlib.sha256(body).digest() == hashlib.sha256(sent).digest()


async def test_head_and_body_of_an_answer_leave_as_one_record(house: House, open_http: Open) -> None:
    client = house.memory_client(None, ssl.TLSVersion.TLSv1_2)
    await asyncio.to_thread(client.connect, await open_http(App(), tls=True))
    client.tls.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody")
    client.carry()

    assert (await asyncio.to_thread(client.read)).endswith(b"\r\n\r\nbody")


# --- What is wrong with a request --------------------------------------------------------------------------


async def refused(house: House, address: Address, *sent: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to `sent`, after which the connection has to end."""
    peer = await house.connect_plain(address)
    for piece in sent:
        peer.writer.write(piece)
        await asyncio.sleep(0.01)
    status, headers, body = await response(peer)
    assert headers["connection"] == "close"
    assert await peer.rest() == b""
    return status, body


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_answered_so(house: House, open_http: Open, sent: bytes) -> None:
    app = App()
    status, _ = await refused(house, await open_http(app), sent)

    assert status == 400
    assert app.scopes == []


async def test_a_body_declared_too_large_does_not_reach_the_app(house: House, open_http: Open) -> None:
    app = App()
    status, body = await refused(
        house, await open_http(app, max_body=100), b"PUT / HTTP/1.1\r\nContent-Length: 101\r\n\r\n"
    )

    assert (status, body) == (413, b"the body may have 100 bytes")
    assert app.scopes == []


async def test_a_body_that_grows_too_large_is_cut_off(house: House, open_http: Open) -> None:
    app = App()
    head = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"32\r\n" + bytes(50) + b"\r\n"
    status, _ = await refused(house, await open_http(app, max_body=100), head, chunk, chunk, chunk)

    assert status == 413
    await eventually(lambda: app.disconnects == 1)


async def test_a_body_of_just_the_limit_is_taken(house: House, open_http: Open) -> None:
    peer = await house.connect_plain(await open_http(App(), max_body=100))
    await peer.send(b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n" + bytes(100))

    assert (await response(peer))[2] == bytes(100)


@pytest.mark.parametrize(
    "head",
    [
        [b"GET /" + b"a" * 1000 + b" HTTP/1.1\r\n\r\n"],
        [b"GET / HTTP/1.1\r\n", b"A: " + b"b" * 1000 + b"\r\n\r\n"],
        [b"GET / HTTP/1.1\r\n", *[b"A: b\r\n" * 20] * 9],
        [b"GET / HTTP/1.1\r\nA: ", *[b"b" * 100] * 11],
        [b"GET /", *[b"b" * 100] * 11],
        [b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ", *[b"b" * 100] * 11],
    ],
    ids=["path", "header", "headers", "part of a header", "part of a path", "trailer"],
)
async def test_a_head_too_large_is_refused(house: House, open_http: Open, head: list[bytes]) -> None:
    status, body = await refused(house, await open_http(App(), max_head=1000), *head)

    assert (status, body) == (431, b"the head may have 1000 bytes")


async def test_a_large_body_is_not_taken_for_a_head(house: House, open_http: Open) -> None:
    peer = await house.connect_plain(await open_http(App(), max_head=1000))
    for _ in range(3):
        await peer.send(b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n" + bytes(50_000))
        assert (await response(peer))[0] == 200


async def test_a_bad_request_behind_a_good_one_does_not_disturb_it(house: House, open_http: Open) -> None:
    go_on = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await answer(send, b"answer")

    peer = await house.connect_plain(await open_http(slow))
    await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await peer.send(b"no request\r\n\r\n")
    await asyncio.sleep(0.02)
    go_on.set()

    status, _, body = await response(peer)

    assert (status, body) == (200, b"answer")
    assert await peer.rest() == b""


async def test_another_upgrade_is_not_taken(house: House, open_http: Open) -> None:
    app = App()
    peer = await house.connect_plain(await open_http(app))
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    await peer.send(b"GET /first HTTP/1.1\r\nHost: localhost\r\n" + upgrade)
    assert (await response(peer))[0] == 200

    await peer.send(b"GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert (await response(peer))[0] == 200
    assert [scope["path"] for scope in app.scopes] == ["/first", "/second"]


# --- Time --------------------------------------------------------------------------------------------------


async def test_a_head_has_to_arrive_in_time(house: House, open_http: Open) -> None:
    address = await open_http(App(), request_timeout=0.05)
    peer = await house.connect_plain(address)
    await peer.send(b"GET / HTTP/1.1\r\nHost:")

    status, _, body = await response(peer)

    assert (status, body) == (408, b"the request did not arrive in time")
    assert await peer.rest() == b""


async def test_a_connection_that_says_nothing_is_closed(house: House, open_http: Open) -> None:
    peer = await house.connect_plain(await open_http(App(), request_timeout=0.05))

    assert await peer.rest() == b""


async def test_a_body_that_stops_arriving_is_given_up(house: House, open_http: Open) -> None:
    app = App()
    peer = await house.connect_plain(await open_http(app, request_timeout=0.05))
    await peer.send(b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbo")

    assert (await response(peer))[0] == 408
    await eventually(lambda: app.disconnects == 1)


async def test_a_slow_app_is_waited_for(house: House, open_http: Open) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.15)
        await answer(send, b"at last")

    peer = await house.connect_plain(await open_http(slow, request_timeout=0.05))
    await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert (await response(peer))[2] == b"at last"


async def test_an_app_that_takes_its_time_to_read_is_waited_for(house: House, open_http: Open) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.15)
        size = 0
        more = True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
        await answer(send, b"%d" % size)

    peer = await house.connect_plain(await open_http(slow, request_timeout=0.05))
    await peer.send(
        b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000)
    )

    assert (await response(peer))[2] == b"1000000"


async def test_an_app_that_has_not_asked_for_the_body_is_waited_for(house: House, open_http: Open) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.15)
        await answer(send, (await receive())["body"])

    peer = await house.connect_plain(await open_http(slow, request_timeout=0.05))
    head = b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    await peer.send(head)
    async with asyncio.timeout(SOON):
        assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    await peer.send(b"body")

    assert (await response(peer))[2] == b"body"


async def test_an_answer_that_nobody_takes_is_given_up(house: House, open_http: Open) -> None:
    ended = asyncio.Event()

    async def talks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        ended.set()

    peer = await house.connect_plain(await open_http(talks, request_timeout=0.05))
    peer.stop_reading()
    await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    await asyncio.wait_for(ended.wait(), SOON)
    await eventually(lambda: house.listeners.open_connections() == {"web": 0})


async def test_an_answer_that_is_taken_slowly_is_not_given_up(house: House, open_http: Open) -> None:
    size = 16 << 20

    async def talks(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, bytes(size))

    peer = await house.connect_plain(await open_http(talks, request_timeout=0.1))
    await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(SOON):
        await peer.reader.readuntil(b"\r\n\r\n")
        for _ in range(16):
            await peer.read(size // 16)
            await asyncio.sleep(0.02)


async def test_an_idle_connection_is_kept_for_a_while(house: House, open_http: Open) -> None:
    peer = await house.connect_plain(await open_http(App(), keep_alive=1, request_timeout=0.05))
    await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await response(peer)
    await asyncio.sleep(0.2)
    await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await response(peer))[0] == 200

    assert await peer.rest() == b""


# --- The app -----------------------------------------------------------------------------------------------


async def test_an_app_that_raises_answers_500_with_the_tracking_id(
    house: House, open_http: Open, caplog: pytest.LogCaptureFixture
) -> None:
    ids: list[str] = []

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        ids.append(scope["extensions"]["moorage.tracking_id"])
        raise ValueError("bug")

    peer = await house.connect_plain(await open_http(broken))
    await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    status, _, body = await response(peer)

    assert (status, body) == (500, f"internal error, tracking id {ids[0]}".encode())
    assert [record.__dict__["tracking_id"] for record in caplog.records] == ids


async def test_an_app_that_raises_in_the_middle_of_its_answer_is_cut_off(
    house: House, open_http: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("bug")

    peer = await house.connect_plain(await open_http(broken))
    await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert (await peer.rest()).endswith(b"half")
    assert "request failed" in caplog.text


async def test_a_client_that_leaves_is_told_to_the_app(house: House, open_http: Open) -> None:
    messages: list[Message] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        messages.append(await receive())
        messages.append(await receive())

    peer = await house.connect_plain(await open_http(waits))
    await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await eventually(lambda: bool(messages))
    await peer.close()

    await eventually(lambda: len(messages) == 2)
    assert messages[1] == {"type": "http.disconnect"}


async def test_a_request_at_hand_is_still_answered_when_the_server_stops(
    house: House, open_http: Open
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await go_on.wait()
        await answer(send, b"answer")

    address = await open_http(slow)
    busy, idle = await house.connect_plain(address), await house.connect_plain(address)
    await busy.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await started.wait()

    draining = asyncio.create_task(house.listeners.drain(5.0))
    assert await idle.rest() == b""
    await idle.close()
    assert not draining.done()
    go_on.set()

    status, _, body = await response(busy)
    assert (status, body) == (200, b"answer")
    assert await busy.rest() == b""
    await busy.close()
    await draining
