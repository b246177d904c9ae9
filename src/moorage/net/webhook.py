"""A custom allocation webhook is asked over HTTP or HTTPS [dps 13.2].

One POST a connection, on the event loop: a webhook that is slow holds a socket and no thread, and giving up ends
everything that belongs to the request, name resolution included. The parser is httptools, as on the server's side.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import httptools

from moorage.interfaces import AllocatorAnswer

TIME_LIMIT = 10.0  # seconds from the first byte to the last, connecting included; asked once, never again
MAX_BODY = 128 * 1024  # bytes of an answer
MAX_HEAD = 32 * 1024
AT_ONCE = 200  # questions under way; more of them wait, which does not count against the time limit


class _Failed(Exception):
    """`why` is for the device, `detail` for the operator; `status` where one had come by then."""

    def __init__(self, why: str, detail: str = "", status: int | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.detail = detail
        self.status = status


class _Response:
    """Collects one response: callbacks for the parser."""

    def __init__(self, max_body: int) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.status: int | None = None
        self.body = bytearray()
        self.complete = False
        self._max_body = max_body
        self._ends_with_connection = True
        self._received = 0

    def feed(self, data: bytes) -> None:
        """Raises _Failed."""
        self._received += len(data)
        if self._received > self._max_body + MAX_HEAD:
            raise _Failed("the answer is too large", f"more than {self._max_body} bytes", self.status)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise _Failed("the answer is not HTTP", str(error), self.status) from None
        if len(self.body) > self._max_body:
            raise _Failed("the answer is too large", f"more than {self._max_body} bytes", self.status)

    def end(self) -> None:
        """The other side sends no more. Raises _Failed."""
        if self.status is None or not self._ends_with_connection:
            raise _Failed("the connection ended before the answer did", status=self.status)
        self.complete = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._ends_with_connection = False

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        self.status = status if status >= 200 else None  # 100 Continue announces the one that counts

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = self.status is not None


class Webhook:
    """A `CustomAllocator`. Trusts the system's roots, OpenSSL's SSL_CERT_FILE, and those in `ca_file`."""

    def __init__(
        self, *, ca_file: Path | None = None, time_limit: float = TIME_LIMIT, max_body: int = MAX_BODY
    ) -> None:
        self._ca_file = ca_file
        self._time_limit = time_limit
        self._max_body = max_body
        self._trust: ssl.SSLContext | None = None
        self._turn = asyncio.Semaphore(AT_ONCE)

    def check(self, webhook_url: str) -> None:
        """Nothing is known of a URL before it is asked."""

    async def ask(self, webhook_url: str, request: bytes) -> AllocatorAnswer:
        time = asyncio.get_running_loop().time
        async with self._turn:
            started = time()
            try:
                async with asyncio.timeout(self._time_limit):
                    response = await self._exchange(urlsplit(webhook_url), request)
            except TimeoutError:
                return self._failed(f"no answer within {self._time_limit:g} s", seconds=time() - started)
            except _Failed as error:
                return self._failed(error.why, error.detail, error.status, seconds=time() - started)
            return AllocatorAnswer(
                status=response.status, body=bytes(response.body), seconds=time() - started
            )

    @staticmethod
    def _failed(why: str, detail: str = "", status: int | None = None, *, seconds: float) -> AllocatorAnswer:
        return AllocatorAnswer(status=status, seconds=seconds, failure=why, detail=detail)

    async def _exchange(self, url: SplitResult, request: bytes) -> _Response:
        response = _Response(self._max_body)
        try:
            reader, writer = await self._connect(url)
        except ssl.SSLCertVerificationError as error:
            detail = f"{error.verify_message}; name its CA with --webhook-ca FILE"
            raise _Failed("the webhook's certificate is not trusted", detail) from None
        except (OSError, UnicodeError) as error:
            raise _Failed("the webhook could not be reached", str(error)) from None
        try:
            writer.write(_head(url, len(request)) + request)
            while not response.complete:
                if data := await reader.read(65_536):
                    response.feed(data)
                else:
                    response.end()
        except OSError as error:
            raise _Failed("the connection ended before the answer did", str(error), response.status) from None
        finally:
            # No goodbye: the answer is here, or nobody waits for it any more.
            writer.transport.abort()
        return response

    async def _connect(self, url: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if url.scheme.lower() == "http":
            return await asyncio.open_connection(url.hostname, url.port or 80)
        trust = await self._trusted()
        return await asyncio.open_connection(
            url.hostname, url.port or 443, ssl=trust, server_hostname=url.hostname
        )

    async def _trusted(self) -> ssl.SSLContext:
        """Made with the first question, and not on the event loop: loading the roots takes a while."""
        if self._trust is None:
            self._trust = await asyncio.to_thread(_trust, self._ca_file)
        return self._trust


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def _head(url: SplitResult, length: int) -> bytes:
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = (
        f"POST {target} HTTP/1.1",
        f"Host: {url.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "Accept: application/json",
        "User-Agent: moorage",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")
