from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from moorage.interfaces import ByteStream, Conversation
from moorage.net.stream import Stream, new_tracking_id
from tests.net.house import Conversations, Recorder


class Pipe(asyncio.Transport):
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(
            {"peername": ("192.0.2.1", 40000), "peer_chain": (b"leaf",), "tls_version": "TLSv1.3"}
        )
        self.written: list[bytes] = []
        self.waiting = 0
        self.ended = ""
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def write_eof(self) -> None:
        self.ended = "half"

    def is_closing(self) -> bool:
        return self.ended in ("closed", "aborted")

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def made(
    kind: Callable[[ByteStream], Recorder] = Recorder, *, outward_limit: int = 1000
) -> tuple[Stream, Pipe, Recorder]:
    conversations = Conversations(kind)
    stream, pipe = Stream("mqtt", conversations.open, outward_limit=outward_limit), Pipe()
    stream.connection_made(pipe)
    return stream, pipe, conversations[0]


def test_tracking_ids_are_32_hexadecimal_digits_and_never_the_same() -> None:
    ids = {new_tracking_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(len(each) == 32 and set(each) <= set("0123456789abcdef") for each in ids)


async def test_a_stream_knows_its_peer() -> None:
    stream, _, _ = await made()

    assert (stream.peer.address, stream.peer.door) == ("192.0.2.1", "mqtt")
    assert (stream.peer.chain, stream.peer.tls_version) == ((b"leaf",), "TLSv1.3")


async def test_the_time_of_the_last_read_is_kept() -> None:
    stream, _, _ = await made()
    before = stream.time()
    assert stream.last_received <= before

    stream.data_received(b"data")

    assert before <= stream.last_received <= stream.time()


async def test_the_first_reason_is_the_one_that_counts_and_comes_once() -> None:
    stream, pipe, conversation = await made()

    stream.close("first")
    stream.close("second")
    stream.abort("third")
    stream.connection_lost(ConnectionResetError("fourth"))

    assert pipe.ended == "aborted"
    assert conversation.reasons == ["first"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(None, "closed by peer"), (ConnectionResetError("reset"), "connection lost: reset")],
)
async def test_an_end_that_nobody_asked_for_has_a_reason_too(error: Exception | None, reason: str) -> None:
    stream, _, conversation = await made()

    stream.connection_lost(error)

    assert conversation.reasons == [reason]


async def test_after_the_end_nothing_is_received_sent_or_drained() -> None:
    stream, pipe, conversation = await made()
    stream.close("enough")

    stream.data_received(b"late")
    stream.write(b"late")
    stream.resume_writing()
    stream.stopping()
    stream.pause_reading()

    assert (conversation.reads, conversation.drains, conversation.stops) == ([], 0, 0)
    assert (pipe.written, pipe.reading) == ([], True)


async def test_the_outward_limit_counts_what_waits() -> None:
    stream, pipe, conversation = await made(outward_limit=1000)
    pipe.waiting = 1001
    stream.write(b"before the transport complains")
    assert pipe.ended == ""

    stream.pause_writing()
    pipe.waiting = 1000
    stream.write(b"up to the limit")
    assert pipe.ended == ""
    pipe.waiting = 1001
    stream.write(b"over it")
    stream.connection_lost(None)

    assert pipe.ended == "aborted"
    assert conversation.reasons == ["over 1000 bytes wait unsent"]


async def test_draining_is_told() -> None:
    stream, _, conversation = await made()
    stream.pause_writing()
    stream.resume_writing()

    assert conversation.drains == 1


async def test_a_timer_calls_once() -> None:
    stream, _, _ = await made()
    called = asyncio.Event()

    timer = stream.call_later(0, called.set)

    await asyncio.wait_for(called.wait(), 1)
    timer.cancel()  # too late, and harmless


@pytest.mark.parametrize("end", ["timer", "close", "abort", "lost"])
async def test_a_timer_ends_with_the_stream_or_when_cancelled(end: str) -> None:
    stream, _, _ = await made()
    calls: list[int] = []
    timer = stream.call_later(0.01, lambda: calls.append(1))

    if end == "timer":
        timer.cancel()
    elif end == "close":
        stream.close("enough")
    elif end == "abort":
        stream.abort("enough")
    else:
        stream.connection_lost(None)
    stream.call_later(0, lambda: calls.append(2)) if end != "timer" else None
    await asyncio.sleep(0.03)

    assert calls == []


class Broken(Recorder):
    def received(self, data: bytes) -> None:
        raise ValueError("in received")

    def drained(self) -> None:
        raise ValueError("in drained")

    def stopping(self) -> None:
        raise ValueError("in stopping")


@pytest.mark.parametrize("where", ["received", "drained", "stopping", "timer"])
async def test_a_conversation_that_raises_costs_its_own_connection(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream, pipe, conversation = await made(Broken)

    if where == "received":
        stream.data_received(b"data")
    elif where == "drained":
        stream.resume_writing()
    elif where == "stopping":
        stream.stopping()
    else:
        stream.call_later(0, lambda: conversation.received(b""))
        await asyncio.sleep(0.01)
    stream.connection_lost(None)

    assert pipe.ended == "aborted"
    assert conversation.reasons == ["internal error: ValueError"]
    (record,) = caplog.records
    assert (record.levelno, record.__dict__["tracking_id"]) == (logging.ERROR, stream.tracking_id)


async def test_a_conversation_that_cannot_be_opened_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(stream: ByteStream) -> Conversation:
        raise ValueError("in opening")

    stream, pipe = Stream("mqtt", fails), Pipe()
    stream.connection_made(pipe)
    stream.data_received(b"data")
    stream.connection_lost(None)

    assert pipe.ended == "aborted"
    assert [record.__dict__["tracking_id"] for record in caplog.records] == [stream.tracking_id]


async def test_raising_at_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Sulks(Recorder):
        def closed(self, reason: str) -> None:
            raise ValueError("in closed")

    stream, _, _ = await made(Sulks)
    stream.connection_lost(None)

    assert [record.__dict__["tracking_id"] for record in caplog.records] == [stream.tracking_id]
