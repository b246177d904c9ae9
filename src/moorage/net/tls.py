"""TLS that accepts every client certificate, shown to a protocol as an ordinary transport.

Whether a certificate is good is for an enrollment or an identity to say, and the answer has to be a code of the
protocol spoken, not a TLS alert. So the handshake asks for a certificate, proves that the peer holds its key, and
accepts whatever it is: self-signed, expired, of an unknown issuer. A resumed session would carry no chain, so none
can be resumed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from moorage.errors import Invalid
from moorage.net.connection import Connection, Door
from moorage.net.openssl import PublicCalls, Scratch, TlsFailure, calls_for, reason

log = logging.getLogger("moorage.net.tls")

CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
)

KEYS = EllipticCurvePrivateKey, RSAPrivateKey, Ed25519PrivateKey, Ed448PrivateKey

# Above this, what a protocol writes within one turn is sent before the turn ends, so that it hears of back-pressure.
SEND_AT = 65_536

# A peer that makes TLS itself answer (key updates), and reads none of it, is cut off here.
UNREAD_LIMIT = 1 << 20


class TlsContext:
    """The server's certificate and the settings of TLS; `reload` changes the certificate for new connections.

    `private_calls` chooses how OpenSSL is called (see `openssl.py`); None takes the quicker way that works.
    """

    def __init__(self, chain_file: Path, key_file: Path, *, private_calls: bool | None = None) -> None:
        """`chain_file`: PEM, leaf first; `key_file`: PEM, not encrypted. Raises Invalid when they cannot be used."""
        self._chain_file = chain_file
        self._key_file = key_file
        self._seen = self._stamp()
        self.calls = calls_for(private_calls)
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again. Raises Invalid when they cannot be used; then the certificate in use stays."""
        self._seen = self._stamp()
        self.context = self._load()
        log.info("server certificate loaded", extra={"chain_file": str(self._chain_file)})

    def reload_if_changed(self) -> bool:
        """Reload when the files look different from when they were last looked at. Raises as `reload` does."""
        if self._stamp() == self._seen:
            return False
        self.reload()
        return True

    def connection(self, scratch: Scratch) -> PublicCalls:
        return self.calls(self.context, scratch)

    def _load(self) -> SSL.Context:
        context = _settings()
        self.calls.accept_certificates(context)
        try:
            context.use_certificate_chain_file(os.fspath(self._chain_file))
        except SSL.Error as error:
            raise Invalid(str(self._chain_file), f"not a usable certificate chain: {reason(error)}") from None
        try:
            key = load_pem_private_key(self._key_file.read_bytes(), None)
            if not isinstance(key, KEYS):
                raise ValueError("TLS has no use for its kind")
            context.use_privatekey(key)
        except (OSError, TypeError, ValueError, UnsupportedAlgorithm) as error:
            raise Invalid(str(self._key_file), f"not a usable private key: {error}") from None
        except SSL.Error as error:
            raise Invalid(
                str(self._key_file), f"not the certificate's private key: {reason(error)}"
            ) from None
        return context

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_file_stamp(path) for path in (self._chain_file, self._key_file))


def _settings() -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 57 → 30 KB per idle connection
    return context


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class Turn:
    """What all TLS connections of one event loop share: the buffers, and who has something to send when a turn ends.

    One callback sends for every connection that was written to, however many and however often.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.scratch = Scratch()
        self._loop = loop
        self._senders: list[TlsConnection] = []

    def send_at_end(self, connection: TlsConnection) -> None:
        if not self._senders:
            self._loop.call_soon(self._send)
        self._senders.append(connection)

    def _send(self) -> None:
        senders, self._senders = self._senders, []
        for connection in senders:
            connection.send()


class TlsConnection(Connection, asyncio.BufferedProtocol):
    """The server's side of TLS on a raw transport.

    The protocol is made and told of the connection once the handshake is finished. Extra information beyond the raw
    transport's: `peer_chain` (tuple of DER, leaf first), `tls_version`, `sslcontext`.
    """

    __slots__ = ("_buffer", "_chain", "_context", "_in_turn", "_tls", "_turn", "_unsent", "_unsent_size")

    def __init__(self, door: Door, context: TlsContext, turn: Turn) -> None:
        super().__init__(door)
        self._context = context
        self._turn = turn
        self._buffer = turn.scratch.received
        self._tls: PublicCalls | None = None
        self._chain: tuple[bytes, ...] | None = None
        self._in_turn = False  # within buffer_updated, which sends what was written when it ends
        self._unsent: list[bytes] = []
        self._unsent_size = 0

    # --- towards the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._enter(transport):
            self._set_timer(self._door.loop.call_later(self._door.handshake_timeout, self._handshake_late))
            try:
                self._tls = self._context.connection(self._turn.scratch)
            except Exception:
                self._upper_failed()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, received: int) -> None:
        tls = self._tls
        if self._closing or self._peer_ended or tls is None:
            return
        self._in_turn = True
        try:
            if self._protocol is None:
                self._shake_hands(tls, received)
            else:
                self._decrypt(tls, received)
        except Exception:
            self._upper_failed()
        finally:
            self._in_turn = False
            self.send()

    def eof_received(self) -> bool:
        if self._protocol is None:
            self._peer_ended = True
            self._handshake_failed("closed by peer")
        elif not self._peer_ended:  # a polite peer has said so before, by its close_notify
            try:
                self._end_of_peer()
            except Exception:
                self._upper_failed()
        return not self._closing

    def connection_lost(self, error: Exception | None) -> None:
        if self._protocol is None:
            self._handshake_failed("connection lost")
        tls, self._tls = self._tls, None
        super().connection_lost(error or (tls.failure if tls is not None else None))

    # --- towards the protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peer_chain":
            return self._peer_chain()
        if name == "tls_version":
            return self._tls.version() if self._tls is not None else default
        if name == "sslcontext":
            return self._context.context
        return super().get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._unsent_size + self._raw.get_write_buffer_size()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        if not self._unsent and not self._in_turn:
            self._turn.send_at_end(self)
        self._unsent.append(data if type(data) is bytes else bytes(data))
        self._unsent_size += len(data)
        if self._unsent_size >= SEND_AT:
            self.send()

    def send(self) -> None:
        """Encrypt all that was written since the last time, and hand it to the raw transport in one piece."""
        unsent = self._unsent
        if not unsent:
            return
        data = unsent[0] if len(unsent) == 1 else b"".join(unsent)
        unsent.clear()
        self._unsent_size = 0
        if self._closing or self._tls is None:
            return
        try:
            ciphertext = self._tls.encrypt(data)
        except TlsFailure as failure:
            self._tls_failed(self._tls, failure)
        else:
            self._raw.write(ciphertext)

    # --- steps

    def _shake_hands(self, tls: PublicCalls, received: int) -> None:
        try:
            finished = tls.handshake(received)
        except TlsFailure as failure:
            self._send_waiting(tls)
            self._handshake_failed(str(failure))
            return
        # The last word of the server in TLS 1.3 is a pair of tickets that nobody can redeem. OpenSSL cannot be told to
        # leave them out; they go with the first answer, and need no packet of their own.
        if not (finished and tls.version() == "TLSv1.3"):
            self._send_waiting(tls)
        if finished:
            self._set_timer(None)
            self._serve()
            if not self._closing:
                self._took(tls, tls.decrypt(0))  # what came along with the end of the handshake

    def _decrypt(self, tls: PublicCalls, received: int) -> None:
        data = tls.decrypt(received)
        self._took(tls, data)
        if not data and not tls.ended:
            self._send_waiting(tls)  # an answer to what was not data

    def _took(self, tls: PublicCalls, data: bytes) -> None:
        if data and self._protocol is not None:
            self._protocol.data_received(data)
        if tls.failure is not None:
            self._tls_failed(tls, tls.failure)
        elif tls.ended:
            self._end_of_peer()

    def _send_waiting(self, tls: PublicCalls) -> None:
        waiting = tls.waiting()
        if waiting:
            self._raw.write(waiting)
            if self._raw.get_write_buffer_size() > UNREAD_LIMIT:
                self.abort()

    def _handshake_late(self) -> None:
        self._handshake_failed("timeout")
        self.abort()

    def _handshake_failed(self, why: str) -> None:
        if not self._closing:
            self._door.admission.counters.handshake_failures[why] += 1
            self._log_failure("TLS handshake failed", why)
            self._leave()

    def _tls_failed(self, tls: PublicCalls, failure: TlsFailure) -> None:
        if not self._closing:
            tls.failure = failure  # what the protocol is told
            self._log_failure("TLS failed", str(failure))
            self._send_waiting(tls)
            self._leave()

    def _log_failure(self, what: str, why: str) -> None:
        log.debug(what, extra={"door": self._door.name, "address": self.address, "reason": why})

    def _say_goodbye(self) -> None:
        self.send()
        # A peer that ended the connection below TLS has closed its socket, and would answer ours with a reset.
        if self._tls is not None and (self._tls.ended or not self._peer_ended):
            self._raw.write(self._tls.close_notify())

    def _peer_chain(self) -> tuple[bytes, ...]:
        if self._chain is None:
            if self._tls is None:
                return ()
            self._chain = self._tls.peer_chain()
        return self._chain
