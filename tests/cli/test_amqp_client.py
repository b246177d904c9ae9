"""The driver against our engine's other role, over plain TCP: what goes wrong between them is told, and in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from moorage.cli import amqp_client
from moorage.cli.amqp_client import AmqpClient, AmqpRefused, connect
from moorage.errors import Unavailable
from moorage.wire.amqp import (
    AmqpValue,
    Connection,
    CreditChanged,
    Data,
    DeliveryReceived,
    Error,
    Event,
    Int,
    LinkAttached,
    Message,
    Properties,
    Receiver,
    SaslCode,
    SaslInit,
    Sender,
    Source,
    conditions,
)

HOST = "127.0.0.1"
Behave = Callable[[Connection, Event], None]


@contextlib.asynccontextmanager
async def peer(behave: Behave) -> AsyncIterator[AmqpClient]:
    """A client whose server takes everybody in, and does with all further events what `behave` does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Connection(container_id="peer")
        try:
            while not wire.closed and (data := await reader.read(65_536)):
                for event in wire.receive(data):
                    if isinstance(event, SaslInit):
                        wire.sasl_outcome(SaslCode.OK)
                    behave(wire, event)
                for event in wire.receive(b""):
                    behave(wire, event)
                writer.write(wire.take_output())
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server, connect(HOST, None, port=server.sockets[0].getsockname()[1]) as client:
        yield client


def accept(wire: Connection, event: Event) -> None:
    if isinstance(event, LinkAttached):
        event.link.accept()
        if isinstance(event.link, Receiver):
            event.link.keep_credit(10)


def answering(status: int, description: str) -> Behave:
    """A node that gives one answer to all."""

    def behave(wire: Connection, event: Event) -> None:
        accept(wire, event)
        if isinstance(event, DeliveryReceived):
            asked = Message.decode(event.message).properties
            answer = Message(
                properties=Properties(correlation_id=asked.message_id if asked else None),
                application_properties={"status-code": Int(status), "status-description": description},
                body=AmqpValue("done"),
            )
            back = next(link for link in event.link.session.links if isinstance(link, Sender))
            back.post(answer.encode())

    return behave


async def test_a_node_answers_each_request() -> None:
    async with peer(answering(200, "OK")) as client:
        answers = await asyncio.gather(
            *(client.request("$management", {"operation": "READ"}) for _ in range(3))
        )
    assert [answer.body for answer in answers] == [AmqpValue("done")] * 3


async def test_a_refused_request_is_told_in_the_peers_words() -> None:
    async with peer(answering(401, "the signature does not fit")) as client:
        with pytest.raises(AmqpRefused, match=r"the signature does not fit \(\$cbs 401\)"):
            await client.put_token("localhost", "SharedAccessSignature …")


async def test_messages_are_handed_over_as_they_come() -> None:
    waiting = [b"one", b"two", b"three"]

    def behave(wire: Connection, event: Event) -> None:
        accept(wire, event)
        if isinstance(event, LinkAttached | CreditChanged) and isinstance(event.link, Sender):
            while waiting and event.link.sendable:
                event.link.send(Message(body=Data.of(waiting.pop(0))).encode(), settled=False)

    came: asyncio.Queue[bytes] = asyncio.Queue()
    async with peer(behave) as client:
        await client.receive(
            Source("events"),
            lambda delivery: came.put_nowait(Message.decode(delivery.message).payload),
            credit=2,
        )
        assert [await came.get() for _ in range(3)] == [b"one", b"two", b"three"]


async def test_a_refused_link_is_told_with_condition_and_sentence() -> None:
    def behave(wire: Connection, event: Event) -> None:
        if isinstance(event, LinkAttached):
            event.link.refuse(
                Error(conditions.NOT_FOUND, '{"errorCode": 404, "message": "no such partition"}')
            )

    async with peer(behave) as client:
        with pytest.raises(AmqpRefused, match=r"no such partition \(amqp:not-found\)") as refused:
            await client.receive(Source("events"), lambda delivery: None, credit=1)
    assert refused.value.condition == conditions.NOT_FOUND


async def test_a_link_that_ends_later_tells_why() -> None:
    def behave(wire: Connection, event: Event) -> None:
        accept(wire, event)
        if isinstance(event, LinkAttached):
            event.link.detach(Error(conditions.LINK_STOLEN, "another receiver", {"epoch": "2"}))

    async with peer(behave) as client:
        ended = await client.receive(Source("events"), lambda delivery: None, credit=1)
        with pytest.raises(AmqpRefused, match="another receiver") as refused:
            await ended
    assert refused.value.info == {"epoch": "2"}


async def test_a_connection_that_the_peer_closes_tells_why_to_all_who_wait() -> None:
    def behave(wire: Connection, event: Event) -> None:
        accept(wire, event)
        if isinstance(event, DeliveryReceived):
            wire.close(Error(conditions.CONNECTION_FORCED, "the server stops"))

    async with peer(behave) as client:
        ended = await client.receive(Source("events"), lambda delivery: None, credit=1)
        with pytest.raises(AmqpRefused, match="the server stops"):
            await client.request("$management", {})
        with pytest.raises(AmqpRefused, match="the server stops"):
            await ended
        with pytest.raises(AmqpRefused, match="the server stops"):
            await client.receive(Source("events"), lambda delivery: None, credit=1)


async def test_a_connection_that_breaks_is_told() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, HOST, 0) as server:
        with pytest.raises(Unavailable, match=f"connection to {HOST}"):
            async with connect(HOST, None, port=server.sockets[0].getsockname()[1]):
                pass


async def test_a_peer_that_does_not_speak_amqp_is_told() -> None:
    async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(speak_http, HOST, 0) as server:
        with pytest.raises(AmqpRefused):
            async with connect(HOST, None, port=server.sockets[0].getsockname()[1]):
                pass


async def test_a_peer_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amqp_client, "PATIENCE", 0.05)
    async with peer(lambda wire, event: None) as client:
        with pytest.raises(Unavailable, match=r"did not answer within 0\.05 s"):
            await client.receive(Source("events"), lambda delivery: None, credit=1)


async def test_nobody_listens() -> None:
    async with await asyncio.start_server(lambda reader, writer: None, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unavailable, match=f"{HOST}:{port} does not answer"):
        async with connect(HOST, None, port=port):
            pass
