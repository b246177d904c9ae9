"""The other end of an AMQP conversation: our engine in its client's role, over a FakeStream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from moorage.interfaces import OpenConversation, Peer
from moorage.wire.amqp import (
    AmqpValue,
    ClientSasl,
    Connection,
    DeliveryReceived,
    Described,
    Error,
    Event,
    LinkAttached,
    LinkDetached,
    Message,
    Opened,
    Properties,
    Receiver,
    Sender,
    Session,
    SessionBegun,
    Source,
    Symbol,
    Target,
)
from tests.support.streams import FakeStream, ManualTime

E = TypeVar("E")
SELECTOR = Symbol("apache.org:selector-filter:string")


class Refused(Exception):
    """The server has detached a link."""

    def __init__(self, error: Error | None) -> None:
        super().__init__(error)
        self.condition = error.condition if error is not None else ""
        self.description = (error.description or "") if error is not None else ""
        self.info: Mapping[Any, Any] = (error.info if error is not None else None) or {}


class AmqpPeer:
    """What the server sends is answered by the engine and kept in `events` until it is asked for."""

    def __init__(
        self,
        time: ManualTime,
        open_conversation: OpenConversation,
        *,
        sasl: ClientSasl | None = None,
        hostname: str | None = "localhost",
        idle_timeout_ms: int | None = None,
        max_frame_size: int = 65_536,
        chain: Sequence[bytes] = (),
    ) -> None:
        self.time = time
        peer = Peer("192.0.2.7", "amqp", tuple(chain))
        self.stream = FakeStream(time, open_conversation, peer=peer)
        self.wire = Connection(
            role="client",
            container_id="test",
            hostname=hostname,
            sasl=sasl,
            idle_timeout_ms=idle_timeout_ms,
            max_frame_size=max_frame_size,
        )
        self.events: list[Event] = []
        self._names = itertools.count(1)
        self._nodes: dict[str, tuple[Sender, Receiver]] = {}

    def turn(self) -> None:
        """Carry bytes to and fro for as long as there are any."""
        while True:
            if output := self.wire.take_output():
                self.stream.feed(output)
            data = self.stream.take()
            if not data and not output:
                return
            self.events += self.wire.receive(data)

    async def find(self, kind: type[E], which: Callable[[E], bool] = lambda event: True) -> E:
        """The first event of this kind, taken out of those that have come or will come."""

        def look() -> list[E]:
            self.turn()
            return [each for each in self.events if isinstance(each, kind) and which(each)]

        found = (await self.time.until(look, kind.__name__))[0]
        self.events.remove(found)  # type: ignore[arg-type]
        return found

    def seen(self, kind: type[E]) -> list[E]:
        """Those of this kind that have come by now."""
        self.turn()
        return [each for each in self.events if isinstance(each, kind)]

    async def ended(self) -> str:
        """Why the connection has ended, once it has."""

        def look() -> bool:
            self.turn()
            return self.stream.over

        await self.time.until(look, "the end of the connection")
        assert self.stream.reason is not None
        return self.stream.reason

    def live(self, seconds: float) -> None:
        """Let time pass, with the signs of life that the server wants."""
        while seconds > 0:
            step = min(seconds, 30.0)
            self.time.advance(step)
            self.wire.tick(self.time.monotonic())
            self.turn()
            seconds -= step

    # --- what clients do ----------------------------------------------------------------------------------

    async def open(self) -> Session:
        self.wire.open()
        await self.find(Opened)
        return await self.begin()

    async def begin(self) -> Session:
        session = self.wire.begin()
        await self.find(SessionBegun, lambda event: event.session is session)
        return session

    async def attach_receiver(
        self,
        address: str | None,
        *,
        session: Session | None = None,
        selector: str | None = None,
        source: Source | None = None,
        target: Target | None = None,
        properties: Mapping[str, Any] | None = None,
        capabilities: Sequence[str] = (),
        credit: int = 0,
    ) -> Receiver:
        """Raises Refused."""
        chosen: dict[str, Any] | None = (
            {SELECTOR: Described(SELECTOR, selector)} if selector is not None else None
        )
        link = (session or self.wire.sessions[0]).attach_receiver(
            f"receiver-{next(self._names)}",
            source or Source(address, filter=chosen),
            target=target,
            properties=properties,
            desired_capabilities=capabilities,
        )
        if credit:
            link.flow(credit)
        await self._attached(link, refused=lambda: link.source is None)
        return link

    async def attach_sender(
        self,
        address: str,
        *,
        session: Session | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> Sender:
        """Raises Refused."""
        link = (session or self.wire.sessions[0]).attach_sender(
            f"sender-{next(self._names)}", Target(address), properties=properties
        )
        await self._attached(link, refused=lambda: link.target is None)
        return link

    async def may_send(self, link: Sender) -> None:
        """Wait for credit."""

        def look() -> int:
            self.turn()
            return link.sendable

        await self.time.until(look, "credit")

    async def _attached(self, link: Sender | Receiver, *, refused: Callable[[], bool]) -> None:
        await self.find(LinkAttached, lambda event: event.link is link)
        if refused():
            raise Refused(await self.detached(link))

    async def detached(self, link: Sender | Receiver) -> Error | None:
        """The server's reason for ending a link."""
        event = await self.find(LinkDetached, lambda event: event.link is link)
        assert event.by_peer
        return event.error

    async def messages(self, link: Receiver, count: int) -> list[Message]:
        found = [await self.find(DeliveryReceived, lambda event: event.link is link) for _ in range(count)]
        return [Message.decode(delivery.message) for delivery in found]

    def waiting(self, link: Receiver) -> list[bytes]:
        """The payloads that have come on a link and were not asked for yet."""
        return [
            Message.decode(each.message).payload for each in self.seen(DeliveryReceived) if each.link is link
        ]

    async def request(
        self,
        node: str,
        asked: Mapping[Any, Any],
        body: object = None,
        *,
        message_id: Any = "1",
        reply_to: str | None = None,
    ) -> Message:
        """Ask a node such as `$cbs`, over a pair of links opened for it; the answer."""
        if node not in self._nodes:
            receiver = await self.attach_receiver(node, credit=1000)
            self._nodes[node] = await self.attach_sender(node), receiver
        sender, receiver = self._nodes[node]
        question = Message(
            properties=Properties(message_id=message_id, reply_to=reply_to),
            application_properties=asked,
            body=AmqpValue(body),
        )
        sender.post(question.encode())
        (answer,) = await self.messages(receiver, 1)
        return answer

    async def put_token(self, token: str, *, message_id: Any = "1") -> Message:
        asked = {
            "operation": "put-token",
            "type": "servicebus.windows.net:sastoken",
            "name": "sb://localhost/moorage",
        }
        return await self.request("$cbs", asked, token, message_id=message_id)

    async def claim(self, token: str) -> None:
        """Show a token that has to hold."""
        assert status(await self.put_token(token)) == 200


def status(answer: Message) -> int:
    code: int = (answer.application_properties or {})["status-code"]
    return code
