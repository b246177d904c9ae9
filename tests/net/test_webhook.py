"""The webhook client against servers that answer well, badly, slowly and not at all."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moorage.interfaces import AllocatorAnswer
from moorage.net.webhook import Webhook
from tests.net.credentials import Credential

Handle = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
QUESTION = b'{"linkedHubs":[]}'


@asynccontextmanager
async def serving(handle: Handle, trust: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that reads one request whole, and does with it what `handle` does; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await handle(head + await reader.readexactly(length), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=trust)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(raw: bytes) -> Handle:
    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return handle


async def ask(raw: bytes, **settings: float) -> AllocatorAnswer:
    async with serving(answering(raw)) as port:
        return await Webhook(**settings).ask(f"http://127.0.0.1:{port}/pick", QUESTION)  # type: ignore[arg-type]


async def test_the_question_is_posted_with_path_query_and_type() -> None:
    seen: list[bytes] = []

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with serving(handle) as port:
        answer = await Webhook().ask(f"http://127.0.0.1:{port}/api/pick?code=s3cret", QUESTION)
    assert (answer.status, answer.body, answer.failure) == (200, b"{}", "")
    assert 0 <= answer.seconds < 10
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /api/pick?code=s3cret HTTP/1.1"
    assert b"Host: 127.0.0.1:%d" % port in lines
    assert b"Content-Type: application/json" in lines
    assert body == QUESTION


@pytest.mark.parametrize(
    "raw",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a":1} ',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n4\r\n:1} \r\n0\r\n\r\n',
        b'HTTP/1.0 200 OK\r\n\r\n{"a":1} ',
        b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a":1} ',
    ],
    ids=["length", "chunked", "until the end", "after a continue"],
)
async def test_a_body_is_read_however_it_is_framed(raw: bytes) -> None:
    answer = await ask(raw)
    assert (answer.status, answer.body, answer.failure) == (200, b'{"a":1} ', "")


@pytest.mark.parametrize("status", [204, 302, 404, 500])
async def test_any_status_is_handed_on(status: int) -> None:
    answer = await ask(b"HTTP/1.1 %d Whatever\r\nLocation: /\r\nContent-Length: 0\r\n\r\n" % status)
    assert (answer.status, answer.failure) == (status, "")


@pytest.mark.parametrize(
    ("raw", "status", "why"),
    [
        (b"", None, "ended before"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", 200, "ended before"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", None, "ended before"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b" " * 2_000_000, 200, "too large"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000, None, "too large"),
    ],
    ids=["nothing", "half a body", "half a head", "another protocol", "a long body", "a long head"],
)
async def test_an_answer_that_is_none(raw: bytes, status: int | None, why: str) -> None:
    answer = await ask(raw)
    assert answer.status == status
    assert why in answer.failure


async def test_time_is_up_however_steadily_bytes_trickle() -> None:
    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Still: here\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(handle) as port:
        answer = await Webhook(time_limit=0.2).ask(f"http://127.0.0.1:{port}/", QUESTION)
    assert answer.failure == "no answer within 0.2 s"
    assert answer.status is None


async def test_nobody_listens(unused_tcp_port: int) -> None:
    answer = await Webhook().ask(f"http://127.0.0.1:{unused_tcp_port}/", QUESTION)
    assert answer.failure == "the webhook could not be reached"
    assert answer.detail


async def test_a_name_that_is_none() -> None:
    answer = await Webhook(time_limit=5).ask("http://no-such-host.invalid/", QUESTION)
    assert answer.failure


async def test_https_is_judged_by_the_roots_and_by_the_operator_s_file(
    server: Credential, tmp_path: Path
) -> None:
    files = server.write(tmp_path, "server")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(*files)
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), trust) as port:
        url = f"https://localhost:{port}/pick"
        stranger = await Webhook().ask(url, QUESTION)
        known = await Webhook(ca_file=files[0]).ask(url, QUESTION)
    assert stranger.failure == "the webhook's certificate is not trusted"
    assert "--webhook-ca" in stranger.detail
    assert (known.status, known.failure) == (200, "")


async def test_a_question_that_is_given_up_lets_go_of_its_connection() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        asked.set()
        writer.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                writer.write(b"X-Still: here\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    async with serving(handle) as port:
        task = asyncio.create_task(Webhook().ask(f"http://127.0.0.1:{port}/", QUESTION))
        await asyncio.wait_for(asked.wait(), 5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await asyncio.wait_for(gone.wait(), 5)


async def test_many_are_asked_at_once_and_none_is_mixed_up() -> None:
    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        body = request.partition(b"\r\n\r\n")[2]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async with serving(handle) as port:
        webhook = Webhook()
        questions = [json.dumps({"device": number}).encode() for number in range(200)]
        answers = await asyncio.gather(
            *(webhook.ask(f"http://127.0.0.1:{port}/", each) for each in questions)
        )
    assert [answer.body for answer in answers] == questions
