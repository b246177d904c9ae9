"""A device's connection, bytes in the clear on both ends: TLS by itself, or a WebSocket on it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from moorage.cli.target import no_answer
from moorage.errors import Unavailable

PATIENCE = 30.0  # seconds for the peer to answer
READ_AT_ONCE = 65_536  # bytes
WEBSOCKET_PATH = "/$iothub/websocket"


class Line(Protocol):
    def send(self, data: bytes) -> None: ...

    def receive(self) -> bytes:
        """What has come, at least a byte. Raises Unavailable when the connection is over."""
        ...


class _Tls:
    def __init__(self, host: str, connection: ssl.SSLSocket) -> None:
        self._host = host
        self._connection = connection

    def send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise Unavailable(f"the connection to {self._host} was lost: {error}") from None

    def receive(self) -> bytes:
        try:
            data = self._connection.recv(READ_AT_ONCE)
        except OSError as error:
            raise Unavailable(f"the connection to {self._host} was lost: {error or 'no answer'}") from None
        if not data:
            raise Unavailable(f"{self._host} has closed the connection")
        return data


@contextmanager
def tls_line(host: str, port: int, trust: ssl.SSLContext) -> Iterator[Line]:
    """Raises Unavailable."""
    try:
        plain = socket.create_connection((host, port), timeout=PATIENCE)
    except OSError as error:
        raise no_answer(host, port, error) from None
    try:
        connection = trust.wrap_socket(plain, server_hostname=host)
    except OSError as error:
        plain.close()
        raise no_answer(host, port, error) from None
    with connection:
        yield _Tls(host, connection)


@contextmanager
def websocket_line(host: str, port: int, trust: ssl.SSLContext, subprotocol: str) -> Iterator[Line]:
    """Raises Unavailable."""
    try:
        connection = connect(
            f"wss://{host}:{port}{WEBSOCKET_PATH}",
            ssl=trust,
            subprotocols=[Subprotocol(subprotocol)],
            open_timeout=PATIENCE,
            proxy=None,
        )
    except (OSError, TimeoutError, WebSocketException) as error:
        raise no_answer(host, port, error) from None

    class WebSocketLine:
        def send(self, data: bytes) -> None:
            try:
                connection.send(data)
            except ConnectionClosed as error:
                raise Unavailable(f"the WebSocket to {host} was lost: {error}") from None

        def receive(self) -> bytes:
            try:
                received = connection.recv(PATIENCE)
            except (ConnectionClosed, TimeoutError) as error:
                raise Unavailable(f"the WebSocket to {host} was lost: {error or 'no answer'}") from None
            return received if isinstance(received, bytes) else received.encode()

    with connection:
        yield WebSocketLine()
