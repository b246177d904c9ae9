"""TLS over memory, and the only module that knows how OpenSSL is called.

Two classes do the same. `PublicCalls` keeps to pyOpenSSL's public API. `PrivateCalls` takes the steady state (decrypt,
encrypt), the word on each certificate and what was presented straight to the C functions inside `cryptography`, which
is cheaper; these are private names, looked up once here, and `calls_for` falls back to the public class, and says so in
the log, when one of them is gone.

Ciphertext comes in through `Scratch.received`, one buffer for all connections of an event loop, and leaves as `bytes`.
Neither class ever waits, and neither lets an exception of OpenSSL out: what goes wrong is a `TlsFailure`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

log = logging.getLogger("moorage.net.tls")

RECEIVE_SIZE = 65_536  # bytes taken from a socket in one read
RECORD = 16_384  # the largest plaintext of one TLS record [RFC 8446 5.1]

# Large inputs and outputs pass OpenSSL's memory in pieces of this size: that memory is kept per connection and never
# shrinks, so one big message would otherwise cost its size for as long as the connection lives.
PIECE = RECORD

# The plaintext of one read: its ciphertext, and a record of which all but the end had come before.
PLAIN_SIZE = RECEIVE_SIZE + 2 * RECORD

MISSING = ""  # the private name that was not found, if any

try:
    from cryptography.hazmat.bindings.openssl.binding import Binding

    _lib: Any = Binding().lib
    _ffi: Any = Binding.ffi
    BIO_free: Any = _lib.BIO_free
    BIO_get_mem_data: Any = _lib.BIO_get_mem_data
    BIO_new: Any = _lib.BIO_new
    BIO_read: Any = _lib.BIO_read
    BIO_s_mem: Any = _lib.BIO_s_mem
    BIO_write: Any = _lib.BIO_write
    ERR_clear_error: Any = _lib.ERR_clear_error
    ERR_get_error: Any = _lib.ERR_get_error
    ERR_lib_error_string: Any = _lib.ERR_lib_error_string
    ERR_reason_error_string: Any = _lib.ERR_reason_error_string
    SSL_CTX_set_verify: Any = _lib.SSL_CTX_set_verify
    SSL_do_handshake: Any = _lib.SSL_do_handshake
    SSL_get_error: Any = _lib.SSL_get_error
    SSL_get_peer_cert_chain: Any = _lib.SSL_get_peer_cert_chain
    SSL_get_peer_certificate: Any = _lib.SSL_get_peer_certificate
    SSL_read: Any = _lib.SSL_read
    SSL_set_bio: Any = _lib.SSL_set_bio
    SSL_write: Any = _lib.SSL_write
    X509_free: Any = _lib.X509_free
    i2d_X509_bio: Any = _lib.i2d_X509_bio
    sk_X509_num: Any = _lib.sk_X509_num
    sk_X509_value: Any = _lib.sk_X509_value
    SSL_ERROR_WANT_READ: int = _lib.SSL_ERROR_WANT_READ
    SSL_ERROR_ZERO_RETURN: int = _lib.SSL_ERROR_ZERO_RETURN
    from_buffer: Any = _ffi.from_buffer
    gc: Any = _ffi.gc
    new: Any = _ffi.new
    string: Any = _ffi.string
    unpack: Any = _ffi.unpack
    accept_certificate: Any = _ffi.callback("int(int, X509_STORE_CTX *)", lambda verified, store: 1)
except (ImportError, AttributeError) as _error:
    MISSING = str(_error)


class TlsFailure(ConnectionError):
    """TLS cannot go on; the text is OpenSSL's reason."""


class Scratch:
    """What all connections of one event loop share; nothing stays in it from one call to the next."""

    __slots__ = ("encoded", "held", "plain", "received", "received_pointer")

    def __init__(self) -> None:
        self.received = bytearray(RECEIVE_SIZE)
        if not MISSING:
            self.held: Any = new("char **")
            self.received_pointer: Any = from_buffer(self.received)
            self.plain: Any = new("char[]", PLAIN_SIZE)
            self.encoded: Any = gc(BIO_new(BIO_s_mem()), BIO_free)


class PublicCalls:
    """One side of one TLS connection: the server's, unless `begin` makes it the client's."""

    __slots__ = ("_connection", "_scratch", "ended", "failure")

    def __init__(
        self,
        context: SSL.Context,
        scratch: Scratch,
        begin: Callable[[SSL.Connection], None] = SSL.Connection.set_accept_state,
    ) -> None:
        self._scratch = scratch
        self._connection = SSL.Connection(context, None)
        begin(self._connection)
        self.ended = False  # nothing more will be read: the peer's close_notify, or a failure
        self.failure: TlsFailure | None = None

    @staticmethod
    def accept_certificates(context: SSL.Context) -> None:
        """Ask every client for a certificate and accept whatever it is; that the client has its key is still proven."""
        context.set_verify(SSL.VERIFY_PEER, lambda connection, certificate, error, depth, verified: True)

    def handshake(self, received: int) -> bool:
        """Go on with the `received` bytes at the front of the scratch buffer; True once finished.

        There may be ciphertext `waiting` whatever the outcome. Raises TlsFailure.
        """
        self._take_in(received)
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise TlsFailure(reason(error)) from None
        return True

    def decrypt(self, received: int) -> bytes:
        """All plaintext there is after the `received` bytes at the front of the scratch buffer.

        A peer's goodbye and a failure leave `ended` set, with the plaintext before it returned.
        """
        self._take_in(received)
        pieces = []
        try:
            while True:
                pieces.append(self._connection.recv(RECORD))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            self._fail(reason(error))
        return b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        """The ciphertext of `data`, behind whatever was `waiting`. Raises TlsFailure."""
        pieces = []
        view = memoryview(data)
        try:
            for start in range(0, len(data), PIECE):
                self._connection.sendall(view[start : start + PIECE])
                pieces.append(self.waiting())
        except SSL.Error as error:
            raise TlsFailure(reason(error)) from None
        return b"".join(pieces)

    def waiting(self) -> bytes:
        """Ciphertext that OpenSSL wants sent: a flight of the handshake, an alert, a key update."""
        pieces = []
        try:
            while True:
                pieces.append(self._connection.bio_read(PLAIN_SIZE))
        except SSL.WantReadError:
            return b"".join(pieces)

    def close_notify(self) -> bytes:
        """Our goodbye, as ciphertext. [RFC 8446 6.1]"""
        try:
            self._connection.shutdown()
        except SSL.Error:
            pass  # a handshake was never finished, or TLS has failed: there is nothing to say
        return self.waiting()

    def peer_chain(self) -> tuple[bytes, ...]:
        """The certificates presented, DER, leaf first; empty when there were none."""
        leaf = self._connection.get_peer_certificate()
        if leaf is None:
            return ()
        # On the server's side OpenSSL leaves the leaf out of the chain.
        chain = [leaf, *(self._connection.get_peer_cert_chain() or ())]
        return tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain)

    def peer_certificate(self) -> bytes:
        """That of a server, DER."""
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        return b"" if certificate is None else certificate.public_bytes(Encoding.DER)

    def version(self) -> str:
        """ "TLSv1.2" or "TLSv1.3"."""
        return self._connection.get_protocol_version_name()

    def _take_in(self, received: int) -> None:
        if received:
            self._connection.bio_write(memoryview(self._scratch.received)[:received])

    def _fail(self, why: str) -> None:
        self.ended = True
        self.failure = TlsFailure(why)


class PrivateCalls(PublicCalls):
    """The same with the C functions called directly, on the pointers that pyOpenSSL keeps."""

    __slots__ = ("_from_ssl", "_into_ssl", "_plain", "_received", "_ssl", "_swollen")

    def __init__(
        self,
        context: SSL.Context,
        scratch: Scratch,
        begin: Callable[[SSL.Connection], None] = SSL.Connection.set_accept_state,
    ) -> None:
        super().__init__(context, scratch, begin)
        self._ssl: Any
        self._into_ssl: Any
        self._from_ssl: Any
        self._ssl, self._into_ssl, self._from_ssl = pointers(self._connection)
        self._received = scratch.received_pointer
        self._plain = scratch.plain
        self._swollen = True  # by the certificates of the handshake

    @staticmethod
    def accept_certificates(context: SSL.Context) -> None:
        """Asked up to three times a handshake: making Python objects of the certificates takes 13 µs."""
        SSL_CTX_set_verify(pointer(context), SSL.VERIFY_PEER, accept_certificate)

    def handshake(self, received: int) -> bool:
        ERR_clear_error()  # what somebody else left behind would be taken for ours
        self._take_in(received)
        if (result := SSL_do_handshake(self._ssl)) == 1:
            return True
        if SSL_get_error(self._ssl, result) != SSL_ERROR_WANT_READ:
            raise TlsFailure(_drain_errors())
        return False

    def decrypt(self, received: int) -> bytes:
        ssl, plain = self._ssl, self._plain
        ERR_clear_error()
        filled = taken = 0
        while True:
            if received:
                piece = received - taken if received - taken < PIECE else PIECE
                if BIO_write(self._into_ssl, self._received + taken, piece) != piece:
                    raise MemoryError
                taken += piece
            while (size := SSL_read(ssl, plain + filled, PLAIN_SIZE - filled)) > 0:
                filled += size
            if (error := SSL_get_error(ssl, size)) != SSL_ERROR_WANT_READ:
                self._end(error)
                break
            if taken == received:
                break
        data: bytes = unpack(plain, filled)
        return data

    def encrypt(self, data: bytes) -> bytes:
        if len(data) <= PIECE:
            return self._encrypt_piece(data)
        return b"".join(
            [self._encrypt_piece(data[start : start + PIECE]) for start in range(0, len(data), PIECE)]
        )

    def waiting(self) -> bytes:
        return self._taken_out(self._from_ssl)

    def peer_chain(self) -> tuple[bytes, ...]:
        leaf = SSL_get_peer_certificate(self._ssl)
        if not leaf:
            return ()
        try:
            issuers = SSL_get_peer_cert_chain(self._ssl)
            count = sk_X509_num(issuers) if issuers else 0
            return self._der(leaf), *(self._der(sk_X509_value(issuers, index)) for index in range(count))
        finally:
            X509_free(leaf)

    def _der(self, certificate: Any) -> bytes:
        if i2d_X509_bio(self._scratch.encoded, certificate) != 1:
            raise MemoryError
        return self._taken_out(self._scratch.encoded)

    def _taken_out(self, bio: Any) -> bytes:
        pieces = []
        while (size := BIO_read(bio, self._plain, PLAIN_SIZE)) > 0:
            pieces.append(unpack(self._plain, size))
        return b"".join(pieces)

    def _take_in(self, received: int) -> None:
        if received and BIO_write(self._into_ssl, self._received, received) != received:
            raise MemoryError

    def _encrypt_piece(self, data: bytes) -> bytes:
        if SSL_write(self._ssl, data, len(data)) != len(data):
            raise TlsFailure(_drain_errors())
        ciphertext: bytes = unpack(self._plain, BIO_read(self._from_ssl, self._plain, PLAIN_SIZE))
        if self._swollen:
            self._shrink()
        return ciphertext

    def _shrink(self) -> None:
        """Exchange the BIOs for new ones: their memory never shrinks, and most connections are idle most of the time.

        Not while one of them holds bytes, part of a record for instance; the next write tries again.
        """
        held = self._scratch.held
        if BIO_get_mem_data(self._into_ssl, held) or BIO_get_mem_data(self._from_ssl, held):
            return
        into_ssl, from_ssl = BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem())
        if not into_ssl or not from_ssl:
            raise MemoryError
        SSL_set_bio(self._ssl, into_ssl, from_ssl)  # it owns them, and frees those it had
        behind: Any = self._connection
        behind._into_ssl, behind._from_ssl = self._into_ssl, self._from_ssl = into_ssl, from_ssl
        self._swollen = False

    def _end(self, error: int) -> None:
        if error == SSL_ERROR_ZERO_RETURN:
            self.ended = True
        else:
            self._fail(_drain_errors())


def reason(error: SSL.Error) -> str:
    """What went wrong, in OpenSSL's words."""
    if isinstance(error, SSL.SysCallError):
        return str(error.args[-1]).lower()
    return _telling((entry[0], entry[-1]) for entry in (error.args[0] if error.args else ()))


def _telling(errors: Iterable[tuple[str, str]]) -> str:
    """Of (library, reason), innermost first: what TLS itself said first, rather than its tools or its summary."""
    last = ""
    for library, why in errors:
        if library == "SSL routines" and why:
            return why.lower()
        last = why or last
    return last.lower() or "unknown reason"


def pointers(connection: SSL.Connection) -> tuple[Any, Any, Any]:
    """The C objects behind `connection`: SSL, the BIO into it and the BIO out of it. AttributeError when hidden."""
    behind: Any = connection
    return behind._ssl, behind._into_ssl, behind._from_ssl


def pointer(context: SSL.Context) -> Any:
    """The C object behind `context`. AttributeError when hidden."""
    behind: Any = context
    return behind._context


def calls_for(private_calls: bool | None) -> type[PublicCalls]:
    """The class to use: as asked for, or (None) the quicker one where its names are found, which is logged if not."""
    if private_calls is False:
        return PublicCalls
    missing = MISSING or _hidden()
    if not missing:
        return PrivateCalls
    if private_calls:
        raise RuntimeError(f"this cryptography and pyOpenSSL hide {missing}")
    log.warning("TLS falls back to pyOpenSSL's public calls", extra={"missing": missing})
    return PublicCalls


def _hidden() -> str:
    try:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        pointer(context)
        pointers(SSL.Connection(context, None))
    except AttributeError as error:
        return str(error)
    return ""


def _drain_errors() -> str:
    """Empty OpenSSL's error queue; the reason in it."""
    errors = []
    while code := ERR_get_error():
        errors.append((_text(ERR_lib_error_string(code)), _text(ERR_reason_error_string(code))))
    return _telling(errors)


def _text(characters: Any) -> str:
    return string(characters).decode("ascii", "replace") if characters else ""
