"""Two engines joined in memory, the bytes between them cut wherever a test likes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any, TypeVar

from moorage.wire.amqp import (
    ClientSasl,
    Connection,
    Event,
    LinkAttached,
    Receiver,
    SaslCode,
    SaslInit,
    Sender,
    ServerSasl,
    Session,
    Source,
    Target,
)

T = TypeVar("T")


class Joined:
    """A client and a server, and what has happened at each. The server agrees to everything unless told otherwise."""

    def __init__(
        self,
        *,
        sasl: ClientSasl | None = None,
        offer: ServerSasl | None = None,
        cuts: Iterator[int] | None = None,
        server: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
    ) -> None:
        self.server = Connection(container_id="hub", sasl=offer, **(server or {}))
        self.client = Connection(
            role="client", container_id="device", hostname="hub.local", sasl=sasl, **(client or {})
        )
        self.at_server: list[Event] = []
        self.at_client: list[Event] = []
        self.to_server: list[bytes] = []  # all that was sent, in the pieces in which it arrived
        self.to_client: list[bytes] = []
        self.accepting = True
        self._cuts = cuts or repeat(1 << 30)

    def run(self) -> Joined:
        """Carry bytes until both ends are silent."""
        while self._carry(self.client, self.server, self.at_server, self.to_server) or self._carry(
            self.server, self.client, self.at_client, self.to_client
        ):
            pass
        return self

    def open(self) -> Joined:
        self.client.open()
        return self.run()

    def sender(self, address: str = "in", credit: int = 100, **options: Any) -> tuple[Sender, Receiver]:
        """A link from client to server: its two ends."""
        session = self._session()
        ours = session.attach_sender(f"to {address}", Target(address), **options)
        self.run()
        theirs = self.end_of(self.server, Receiver, ours.name)
        if credit:
            theirs.keep_credit(credit)
        self.run()
        return ours, theirs

    def receiver(self, address: str = "out", credit: int = 100, **options: Any) -> tuple[Receiver, Sender]:
        """A link from server to client: its two ends."""
        session = self._session()
        ours = session.attach_receiver(f"from {address}", Source(address), **options)
        if credit:
            ours.keep_credit(credit)
        self.run()
        return ours, self.end_of(self.server, Sender, ours.name)

    def _session(self) -> Session:
        """One that a link can be attached in: not one that has been ended and waits for the answer."""
        live = [session for session in self.client.sessions if session.live]
        return next(iter(live or self.client.sessions), None) or self.client.begin()

    @staticmethod
    def end_of(connection: Connection, kind: type[T], name: str) -> T:
        links = [link for session in connection.sessions for link in session.links]
        return next(link for link in links if isinstance(link, kind) and link.name == name)

    def seen(self, kind: type[T], *, at: str = "server") -> list[T]:
        events = self.at_server if at == "server" else self.at_client
        return [event for event in events if isinstance(event, kind)]

    def _carry(self, one: Connection, other: Connection, events: list[Event], log: list[bytes]) -> bool:
        data = one.take_output()
        at = 0
        while at < len(data):
            piece = data[at : at + next(self._cuts)]
            at += len(piece)
            log.append(piece)
            self._deliver(other, piece, events)
        return bool(data)

    def _deliver(self, connection: Connection, piece: bytes, events: list[Event]) -> None:
        fresh = connection.receive(piece)
        while fresh:
            events += fresh
            for event in fresh:
                self._agree(connection, event)
            fresh = connection.receive(b"")

    def _agree(self, connection: Connection, event: Event) -> None:
        if not self.accepting:
            return
        if isinstance(event, SaslInit):
            connection.sasl_outcome(SaslCode.OK)
        elif isinstance(event, LinkAttached) and connection is self.server:
            event.link.accept()
