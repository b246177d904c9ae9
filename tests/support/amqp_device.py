"""A registering device without an SDK: our AMQP engine in its client's role, over TLS with blocking sockets.

Each of Microsoft's programs differs in a few words (address, correlation id, bodies): a test says which.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from moorage.wire.amqp import (
    AmqpValue,
    ClientSasl,
    Connection,
    CreditChanged,
    Data,
    DeliveryReceived,
    Error,
    LinkAttached,
    Message,
    Opened,
    Properties,
    Rejected,
    SaslOutcome,
    Sender,
    SessionBegun,
    Source,
    Symbol,
    Target,
)
from moorage.wire.amqp.events import DispositionReceived
from tests.support.certificates import CertificateFiles

T = TypeVar("T")
PATIENCE = 10.0  # seconds
VERSION: Mapping[str, Any] = {Symbol("com.microsoft:api-version"): "2019-03-31"}


class HungUp(Exception):
    """The server has closed the connection instead of answering."""


class Line:
    """One TLS connection to a running server, and one of our engines in the client's role at this end of it."""

    def __init__(self, connection: ssl.SSLSocket, receive: Callable[[bytes], list[Any]]) -> None:
        self._connection = connection
        self._receive = receive
        self._events: list[Any] = []

    def ask(self, data: bytes, kind: type[T], output: Callable[[], bytes] = bytes) -> T:
        """Send `data`; the first event of `kind` that comes, whatever comes before it."""
        self._connection.sendall(data)
        while True:
            for at, event in enumerate(self._events):
                if isinstance(event, kind):
                    del self._events[: at + 1]
                    return event
            if not (received := self._connection.recv(65_536)):
                raise HungUp(f"closed, and no {kind.__name__} came")
            self._events += self._receive(received)
            self._connection.sendall(output())


@contextmanager
def tls(
    host: str, port: int, ca_file: str, certificate: CertificateFiles | None = None
) -> Iterator[ssl.SSLSocket]:
    trust = ssl.create_default_context(cafile=ca_file)
    if certificate is not None:
        trust.load_cert_chain(*certificate)
    with (
        socket.create_connection((host, port), timeout=PATIENCE) as plain,
        trust.wrap_socket(plain, server_hostname=host) as connection,
    ):
        yield connection


class Answer(NamedTuple):
    """What came back for a request: a message, or the error that it was rejected with."""

    message: Message | None
    error: Error | None


class RegisteringDevice:
    """Links of one address on one connection; `requests_first` as some attach them."""

    def __init__(
        self,
        connection: ssl.SSLSocket,
        address: str,
        *,
        sasl: ClientSasl | None = None,
        requests_first: bool = False,
        properties: Mapping[str, Any] | None = VERSION,
    ) -> None:
        self._wire = Connection(role="client", container_id="device", hostname="localhost", sasl=sasl)
        self._line = Line(connection, self._wire.receive)
        self._wire.open()
        self.verdict = self._await(SaslOutcome).code if sasl is not None else None
        self._await(Opened)
        session = self._wire.begin()
        self._await(SessionBegun)
        for role in ("requests", "answers") if requests_first else ("answers", "requests"):
            if role == "requests":
                self._requests = session.attach_sender("requests", Target(address), properties=properties)
            else:
                answers = session.attach_receiver("answers", Source(address), properties=properties)
                answers.keep_credit(10)
            self._await(LinkAttached)
        while not self._requests.sendable:
            self._await(CreditChanged)

    def _await(self, kind: type[T]) -> T:
        return self._line.ask(self._wire.take_output(), kind, self._wire.take_output)

    def ask(
        self,
        properties: Mapping[str, Any],
        body: Data | AmqpValue | None = None,
        *,
        correlation_id: Any = None,
    ) -> Answer:
        told = Properties(correlation_id=correlation_id) if correlation_id is not None else None
        request = Message(properties=told, application_properties=properties, body=body)
        assert isinstance(self._requests, Sender)
        self._requests.send(request.encode(), settled=False)
        outcome = self._await(DispositionReceived).state
        if isinstance(outcome, Rejected):
            return Answer(None, outcome.error)
        return Answer(Message.decode(self._await(DeliveryReceived).message), None)
