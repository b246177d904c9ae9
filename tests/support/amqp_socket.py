"""An AMQP client on a blocking socket, for tests of peers that stop reading: nothing is read but what is asked for."""

from __future__ import annotations

import socket
import ssl
from typing import TypeVar

from moorage.wire.amqp import (
    AmqpValue,
    Connection,
    DeliveryReceived,
    Event,
    LinkAttached,
    Message,
    Opened,
    Properties,
    Receiver,
    SessionBegun,
    Source,
    Target,
)

E = TypeVar("E", bound=Event)


class AmqpSocket:
    """Connected and with a session, once made. `receive_buffer` is what the kernel takes in unread, in bytes."""

    def __init__(self, host: str, ca_file: str, *, receive_buffer: int | None = None) -> None:
        plain = socket.socket()
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.settimeout(20)
        plain.connect((host, 5671))
        self._stream = ssl.create_default_context(cafile=ca_file).wrap_socket(plain, server_hostname=host)
        self._wire = Connection(role="client", container_id="test", hostname=host)
        self._events: list[Event] = []
        self._wire.open()
        self.ask(Opened)
        self._session = self._wire.begin()
        self.ask(SessionBegun)

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> AmqpSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self) -> None:
        """Put on the wire what the engine has to say."""
        if output := self._wire.take_output():
            self._stream.sendall(output)

    def ask(self, kind: type[E]) -> E:
        """Send, and read until an event of this kind comes."""
        while True:
            self.send()
            for event in self._events:
                if isinstance(event, kind):
                    self._events.remove(event)
                    return event
            data = self._stream.recv(65_536)
            assert data, f"the server has closed the connection; {kind.__name__} was awaited"
            self._events += self._wire.receive(data)

    def claim(self, token: str) -> None:
        """Show a token that has to hold."""
        answers = self._session.attach_receiver("answers", Source("$cbs"), target=Target("answers"))
        questions = self._session.attach_sender("questions", Target("$cbs"))
        answers.keep_credit(1)
        asked = {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": "test"}
        question = Message(
            properties=Properties(message_id="1"), application_properties=asked, body=AmqpValue(token)
        )
        questions.post(question.encode())
        answer = Message.decode(self.ask(DeliveryReceived).message)
        assert answer.application_properties is not None
        assert answer.application_properties["status-code"] == 200

    def attach(self, address: str, *, credit: int) -> Receiver:
        """A link from `address`; it is not waited for what comes on it."""
        link = self._session.attach_receiver("reader", Source(address))
        while self.ask(LinkAttached).link is not link:
            pass
        link.flow(credit)
        self.send()
        return link
