"""TLS connections of a swarm, by the thousand: the server's own TLS layer with the roles exchanged.

The stdlib's `ssl` wants a context for each client certificate, which costs more memory than the connection; here all
share one. The server's certificate is verified once, by the stdlib, before the swarm starts; each connection then has
to show that very certificate, and prove its key, which saves the swarm a chain of signatures a connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Protocol, cast

from cryptography import x509
from OpenSSL import SSL

from moorage.cli.target import no_answer
from moorage.credentials.keys import PrivateKey
from moorage.net.openssl import PublicCalls, Scratch, TlsFailure, calls_for

PATIENCE = 30.0  # seconds for the first connection
MQTT_PORT = 8883

Credential = tuple[x509.Certificate, PrivateKey]
"""What a device proves itself with."""


class Server:
    """One host of the server, verified. Raises Unavailable."""

    def __init__(self, host: str, trust: ssl.SSLContext) -> None:
        self.host = host
        try:
            with (
                socket.create_connection((host, MQTT_PORT), timeout=PATIENCE) as plain,
                trust.wrap_socket(plain, server_hostname=host) as connection,
            ):
                self.address = plain_address(connection)
                self.certificate = connection.getpeercert(binary_form=True)
        except OSError as error:
            raise no_answer(host, MQTT_PORT, error) from None


def plain_address(connection: socket.socket) -> str:
    """So that no name is looked up for each device."""
    return str(connection.getpeername()[0])


class Tls:
    """What all connections share. `chain` are the certificates between the devices' and the root."""

    def __init__(
        self, chain: tuple[x509.Certificate, ...] = (), *, private_calls: bool | None = None
    ) -> None:
        self.calls = calls_for(private_calls)
        self.scratch = Scratch()
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self.context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self.context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        for certificate in chain:
            self.context.add_extra_chain_cert(certificate)

    def connection(self, host: str, credential: Credential | None) -> PublicCalls:
        def begin(connection: SSL.Connection) -> None:
            connection.set_tlsext_host_name(host.encode())
            if credential is not None:
                certificate, key = credential
                connection.use_certificate(certificate)
                connection.use_privatekey(key)
            connection.set_connect_state()

        return self.calls(self.context, self.scratch, begin)


class Conversation(Protocol):
    """Who speaks on a link."""

    def opened(self) -> None: ...

    def received(self, data: bytes) -> None: ...

    def closed(self, reason: str) -> None:
        """Once, whoever closed it."""
        ...


class Link(asyncio.BufferedProtocol):
    """One TLS connection."""

    __slots__ = (
        "_buffer",
        "_conversation",
        "_credential",
        "_open",
        "_server",
        "_shared",
        "_tls",
        "_transport",
    )

    def __init__(
        self, server: Server, tls: Tls, credential: Credential | None, conversation: Conversation
    ) -> None:
        self._server = server
        self._shared = tls
        self._credential = credential
        self._buffer = tls.scratch.received
        self._conversation: Conversation | None = conversation
        self._open = False
        self._tls: PublicCalls | None = None
        self._transport: Any = None

    def send(self, data: bytes) -> None:
        if self._tls is None or not self._open:
            return
        try:
            self._transport.write(self._tls.encrypt(data))
        except TlsFailure as failure:
            self.close(f"TLS: {failure}")

    def close(self, reason: str, last_words: bytes = b"") -> None:
        """For good; the conversation is told at once."""
        if self._transport is not None and not self._transport.is_closing():
            if last_words:
                self.send(last_words)
                self._transport.close()
            else:
                self._transport.abort()
        self._end(reason)

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._conversation is None:  # given up meanwhile
            self._transport.abort()
            return
        self._tls = self._shared.connection(self._server.host, self._credential)
        self._shake_hands(self._tls, 0)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        tls = self._tls
        if tls is None or self._conversation is None:
            return
        if not self._open:
            self._shake_hands(tls, size)
            return
        data = tls.decrypt(size)
        if data:
            self._conversation.received(data)
        if tls.ended:
            failure = tls.failure
            self.close(f"TLS: {failure}" if failure is not None else "closed by the server")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(_told(error) if error is not None else "closed by the server")

    def _shake_hands(self, tls: PublicCalls, size: int) -> None:
        try:
            finished = tls.handshake(size)
        except TlsFailure as failure:
            self.close(f"TLS: {failure}")
            return
        if waiting := tls.waiting():
            self._transport.write(waiting)
        if not finished or self._conversation is None:
            return
        if tls.peer_certificate() != self._server.certificate:
            self.close("TLS: the server shows another certificate than at first")
            return
        self._open = True
        self._conversation.opened()
        if data := tls.decrypt(0):
            self._conversation.received(data)

    def _end(self, reason: str) -> None:
        conversation, self._conversation = self._conversation, None
        self._open = False
        self._tls = None
        if conversation is not None:
            conversation.closed(reason)


def _told(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
