"""One AMQP connection as a client: our own engine over asyncio streams and the standard library's TLS.

A task of its own reads, so that heartbeats go on and deliveries come in while a caller waits for something else.
Whoever waits when the connection is lost gets the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from moorage.cli.target import no_answer
from moorage.errors import MoorageError, Unavailable
from moorage.wire.amqp import (
    Accepted,
    AmqpValue,
    ClientSasl,
    Closed,
    Connection,
    CreditChanged,
    DeliveryReceived,
    DispositionReceived,
    Error,
    Event,
    LinkAttached,
    LinkDetached,
    Message,
    Opened,
    Properties,
    Receiver,
    Rejected,
    Sender,
    Session,
    SessionBegun,
    SessionEnded,
    Source,
    Target,
)
from moorage.wire.errors import Malformed

PORT = 5671
PATIENCE = 30.0  # seconds for the peer to answer
READ_AT_ONCE = 65_536  # bytes

T = TypeVar("T")
Deliver = Callable[[DeliveryReceived], None]


class AmqpRefused(MoorageError):
    """The peer said no, in its own words. `condition` is AMQP's name for it, `info` what came along."""

    def __init__(self, error: Error | None, otherwise: str) -> None:
        super().__init__(_sentence(error) if error is not None else otherwise)
        self.condition = error.condition if error is not None else ""
        self.info: Mapping[Any, Any] = (error.info if error is not None else None) or {}


def _sentence(error: Error) -> str:
    """What a person can read of an error: a hub's description may be a JSON document. [hub-service 4.1]"""
    described = error.description or ""
    with contextlib.suppress(ValueError, AttributeError):
        described = json.loads(described).get("message") or described
    return f"{described} ({error.condition})" if described else error.condition


@dataclass(eq=False, slots=True)
class _Hold:
    """What we keep of a link of ours: `link.context`."""

    attached: asyncio.Future[None]
    detached: asyncio.Future[None]  # never has a result: the reason comes as an exception
    deliver: Deliver
    accepts: bool = True  # what is delivered is accepted by itself
    credited: asyncio.Future[None] | None = None
    outcome: asyncio.Future[None] | None = None


class AmqpClient:
    """Opened by `connect`. Its methods raise AmqpRefused for a no, Unavailable when the connection is lost."""

    def __init__(
        self, host: str, wire: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.host = host
        self._wire = wire
        self._reader = reader
        self._writer = writer
        self._session: Session | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost: MoorageError | None = None
        self._waiting: set[asyncio.Future[Any]] = {self._ready}
        self._nodes: dict[str, Sender] = {}
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._numbers = itertools.count(1)

    # --- what callers do ----------------------------------------------------------------------------------

    async def request(self, node: str, properties: Mapping[str, Any], body: object = None) -> Message:
        """Ask a request-response node such as `$cbs` or `$management`. Raises AmqpRefused for a status of 400 on."""
        sender = self._nodes.get(node)
        if sender is None:
            sender = await self._open_node(node)
        message_id = str(next(self._numbers))
        question = Message(
            properties=Properties(message_id=message_id, to=node, reply_to=f"{node}-answers"),
            application_properties=properties,
            body=AmqpValue(body),
        )
        self._answers[message_id] = self._future()
        try:
            sender.post(question.encode())
            answer = await self._answer(self._answers[message_id], f"{node} to answer")
        finally:
            del self._answers[message_id]
        said = answer.application_properties or {}
        if (status := said.get("status-code")) is None or int(status) >= 400:
            raise AmqpRefused(
                None, f"{said.get('status-description') or 'no reason given'} ({node} {status})"
            )
        return answer

    async def put_token(self, audience: str, token: str) -> None:
        """Show a shared access signature to the connection. [hub-service 10.4]"""
        properties = {
            "operation": "put-token",
            "type": "servicebus.windows.net:sastoken",
            "name": audience,
        }
        await self.request("$cbs", properties, token)

    async def send(self, address: str, message: bytes) -> None:
        """Send one encoded message over a link of its own, and return when the peer has accepted it."""
        hold = self._hold(lambda _: None)
        hold.credited, hold.outcome = self._future(), self._future()
        link = self._begun.attach_sender(self._name(address), Target(address))
        link.context = hold
        await self._answer(hold.attached, f"the link to {address}")
        await self._answer(hold.credited, f"credit for {address}")
        link.send(message, settled=False)
        await self._answer(hold.outcome, f"the outcome of a message to {address}")
        link.detach()

    async def accept(self, delivery: DeliveryReceived) -> None:
        """Of a link that was opened without `accepts`."""
        delivery.link.settle(delivery.delivery_id)
        await self._flush()

    async def receive(
        self, source: Source, deliver: Deliver, *, credit: int, accepts: bool = True
    ) -> asyncio.Future[None]:
        """Open a link from `source`; `deliver` gets each message. The future fails, with the reason, when it ends.

        Without `accepts`, what is delivered waits for `accept`, or for the peer to take it back.
        """
        hold = self._hold(deliver)
        hold.accepts = accepts
        link = self._begun.attach_receiver(self._name(str(source.address)), source)
        link.context = hold
        link.keep_credit(credit)
        await self._answer(hold.attached, f"the link from {source.address}")
        return hold.detached

    # --- the connection -----------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._wire.open()
        await self._answer(self._ready, "the AMQP connection")

    @property
    def _begun(self) -> Session:
        if self._session is None:
            raise self._lost or Unavailable(f"the AMQP session with {self.host} is over")
        return self._session

    async def _run(self) -> None:
        """Read until the connection is over, whatever ends it, and tell those who wait."""
        try:
            while not self._wire.closed:
                await self._turn()
            await self._flush()
        except OSError as error:
            self._lose(Unavailable(f"the connection to {self.host} was lost: {error}"))
        finally:
            self._lose(Unavailable(f"the connection to {self.host} is closed"))

    async def _turn(self) -> None:
        """One read, or the time for a heartbeat if that comes first."""
        now = asyncio.get_running_loop().time()
        due = self._wire.tick(now)
        await self._flush()
        if self._wire.closed:
            return
        data: bytes | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                data = await self._reader.read(READ_AT_ONCE)
        if data is None:
            return
        for event in self._wire.receive(data) if data else self._wire.eof():
            self._on(event)

    async def _flush(self) -> None:
        if output := self._wire.take_output():
            self._writer.write(output)
            await self._writer.drain()

    def _on(self, event: Event) -> None:
        match event:
            case DeliveryReceived():
                event.link.context.deliver(event)
                if event.link.context.accepts and not event.settled:
                    event.link.settle(event.delivery_id)
            case CreditChanged(link=Sender() as link) if link.sendable:
                if link.context is not None and link.context.credited is not None:
                    self._resolve(link.context.credited)
            case DispositionReceived(link=Sender() as link):
                self._conclude(link.context, event)
            case Opened():
                self._session = self._wire.begin()
            case SessionBegun():
                self._resolve(self._ready)
            case LinkAttached():
                # A refusal looks like an answer without the peer's terminus; its reason follows. [AMQP 2.6.3]
                refused = (
                    event.link.source if isinstance(event.link, Receiver) else event.link.target
                ) is None
                if not refused:
                    self._resolve(event.link.context.attached)
            case LinkDetached():
                reason = AmqpRefused(event.error, f"{self.host} closed the link")
                self._fail(event.link.context.attached, reason)
                self._fail(event.link.context.detached, reason)
                for waited in (event.link.context.credited, event.link.context.outcome):
                    if waited is not None:
                        self._fail(waited, reason)
            case SessionEnded():
                self._lose(AmqpRefused(event.error, f"{self.host} ended the AMQP session"))
            case Closed():
                if event.error is not None:
                    self._lose(AmqpRefused(event.error, ""))

    def _conclude(self, hold: _Hold | None, said: DispositionReceived) -> None:
        """The peer's verdict on what was sent."""
        if hold is None or hold.outcome is None:
            return
        if isinstance(said.state, Accepted):
            self._resolve(hold.outcome)
        else:
            error = said.state.error if isinstance(said.state, Rejected) else None
            self._fail(hold.outcome, AmqpRefused(error, f"{self.host} did not take the message"))

    # --- request and response -----------------------------------------------------------------------------

    async def _open_node(self, node: str) -> Sender:
        """Two links, one each way."""
        back = self._hold(self._answered)
        forth = self._hold(self._answered)
        receiver = self._begun.attach_receiver(
            self._name(node), Source(node), target=Target(f"{node}-answers")
        )
        sender = self._begun.attach_sender(self._name(node), Target(node))
        receiver.context, sender.context = back, forth
        receiver.keep_credit(10)
        await self._answer(back.attached, f"the link from {node}")
        await self._answer(forth.attached, f"the link to {node}")
        self._nodes[node] = sender
        return sender

    def _answered(self, delivery: DeliveryReceived) -> None:
        with contextlib.suppress(Malformed):
            answer = Message.decode(delivery.message)
            asked = answer.properties.correlation_id if answer.properties is not None else None
            if (future := self._answers.get(str(asked))) is not None and not future.done():
                future.set_result(answer)

    def _name(self, address: str) -> str:
        return f"{address}-{next(self._numbers)}"

    # --- waiting ------------------------------------------------------------------------------------------

    def _future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Looked at even when nobody asks any more: what ends a connection may end several waits at once.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        future.add_done_callback(self._waiting.discard)
        self._waiting.add(future)
        if self._lost is not None:
            future.set_exception(self._lost)
        return future

    def _hold(self, deliver: Deliver) -> _Hold:
        return _Hold(self._future(), self._future(), deliver)

    async def _answer(self, future: asyncio.Future[T], what: str) -> T:
        await self._flush()
        try:
            async with asyncio.timeout(PATIENCE):
                return await future
        except TimeoutError:
            raise Unavailable(f"{self.host} did not answer within {PATIENCE:g} s: {what}") from None

    def _lose(self, reason: MoorageError) -> None:
        """The first reason is the true one."""
        if self._lost is None:
            self._lost = reason
        for future in list(self._waiting):
            self._fail(future, self._lost)

    @staticmethod
    def _resolve(future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)

    @staticmethod
    def _fail(future: asyncio.Future[Any], reason: MoorageError) -> None:
        if not future.done():
            future.set_exception(reason)

    async def _close(self) -> None:
        self._wire.close()
        with contextlib.suppress(OSError):
            await self._flush()


@contextlib.asynccontextmanager
async def connect(host: str, trust: ssl.SSLContext | None, *, port: int = PORT) -> AsyncIterator[AmqpClient]:
    """A connection with one session, SASL ANONYMOUS: the proof follows by `put_token`. Raises Unavailable."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, port, ssl=trust)
    except (OSError, TimeoutError) as error:
        raise no_answer(host, port, error) from None
    wire = Connection(
        role="client",
        container_id=f"moorage-{uuid.uuid4()}",
        hostname=host,
        sasl=ClientSasl.anonymous(hostname=host),
    )
    client = AmqpClient(host, wire, reader, writer)
    running = asyncio.create_task(client._run())
    try:
        await client._start()
        yield client
        await client._close()
        await asyncio.wait({running}, timeout=1)  # for the peer's own close
    finally:
        running.cancel()
        await asyncio.wait({running})
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
