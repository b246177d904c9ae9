"""HTTP/1.1: a library's server protocol on our transports, calling a plain ASGI app.

The parser is httptools and the request cycle is uvicorn's; what is added here are the limits that neither has, the peer
and the tracking id in the scope, and the way out to a WebSocket. uvicorn's own server, its configuration of
logging and its WebSocket code stay unused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from moorage.interfaces import Clock, OpenConversation, Peer
from moorage.net.stream import OUTWARD_LIMIT, new_tracking_id, peer_of

log = logging.getLogger("moorage.net.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WebSocketDoor:
    """What serves a WebSocket of one sub-protocol; `name` is the door its peers are said to have come through."""

    name: str
    open_conversation: OpenConversation


class HttpServer:
    """What all HTTP connections of a door share. Calling it makes the protocol of one connection.

    Scopes carry `extensions["moorage.peer"]` (a Peer) and `extensions["moorage.tracking_id"]`, new for every request.
    """

    def __init__(
        self,
        app: AsgiApp,
        clock: Clock,
        *,
        door: str = "https",
        websocket_paths: Collection[str] = (),
        websockets: Mapping[str, WebSocketDoor] | None = None,
        max_head: int = 32_768,
        max_body: int = 4 << 20,
        keep_alive: int = 60,
        request_timeout: float = 30.0,
        max_websocket_message: int = 1 << 20,
        outward_limit: int = OUTWARD_LIMIT,
    ) -> None:
        """`websocket_paths`: decoded, without a trailing slash; `websockets`: by sub-protocol, in any case of letters.

        Sizes are in bytes, durations in seconds. A peer has `request_timeout` for the head of a request, for any pause
        in its body, and to take some of the answer; between two requests it may idle for `keep_alive`.
        """
        self.app = app
        self.door = door
        self.max_head = max_head
        self.max_body = max_body
        self.request_timeout = request_timeout
        self.max_websocket_message = max_websocket_message
        self.outward_limit = outward_limit
        self.websockets = {name.lower(): target for name, target in (websockets or {}).items()}
        self._websocket_paths = frozenset(path.encode() for path in websocket_paths)
        self._clock = clock
        self._date_second = -1
        self._date_header: list[tuple[bytes, bytes]] = []
        self.state = ServerState()
        self.config = Config(
            self._respond,
            http=HttpConnection,
            ws=asyncio.Protocol,  # never made: it has an upgrade leave the request cycle, to us
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=keep_alive,
        )
        self.config.load()

    def __call__(self) -> asyncio.Protocol:
        return HttpConnection(self)

    def is_websocket_path(self, raw_path: bytes) -> bool:
        """Whether `raw_path`, as it came and without its query, is one that WebSockets are offered at."""
        path = unquote_to_bytes(raw_path)
        return (path.rstrip(b"/") or path) in self._websocket_paths

    def date_header(self) -> list[tuple[bytes, bytes]]:
        """[RFC 9110 6.6.1]"""
        second = self._clock.now() // 1_000_000
        if second != self._date_second:
            self._date_second = second
            self._date_header = [(b"date", formatdate(second, usegmt=True).encode())]
        return self._date_header

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, with what it raises turned into a 500 and a line in the log that carry the tracking id."""
        if self.is_websocket_path(scope["raw_path"]):
            await _send_text(send, 400, "this path takes WebSocket upgrades only")
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception:
            tracking_id = scope["extensions"]["moorage.tracking_id"]
            log.exception("request failed", extra={"tracking_id": tracking_id, "path": scope["path"]})
            if started:
                raise
            await _send_text(send, 500, f"internal error, tracking id {tracking_id}")


async def _send_text(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


class _Refused(Exception):
    """The request is not taken: the HTTP status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class HttpConnection(HttpToolsProtocol):
    """One connection: uvicorn's protocol within limits of size and time."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server.config, server.state, {})
        self.logger = log
        self._server = server
        self._peer: Peer
        self._refused = False
        self._raw_path = b""
        self._in_head = False  # between the first byte of a request and the end of its head
        self._head_size = 0
        self._body_size = 0
        self._unread = 0  # bytes received since the parser last had something to tell
        self._deadline: float | None = None  # loop time at which the peer must have gone on
        self._watch: asyncio.TimerHandle | None = None
        self._unsent = 0  # what waited to be sent when it was last looked at
        self._send_watch: asyncio.TimerHandle | None = None

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._peer = peer_of(transport, self._server.door)
        self._expect_within(self._server.request_timeout)

    def connection_lost(self, error: Exception | None) -> None:
        self._expect_nothing()
        self.resume_writing()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._unread += len(data)
        try:
            self._parse(data)
        except _Refused as refused:
            self._refuse(refused)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._send_watch = self.loop.call_later(self._server.request_timeout, self._look_at_sending)

    def resume_writing(self) -> None:
        if self._send_watch is not None:
            self._send_watch.cancel()
            self._send_watch = None
        super().resume_writing()

    def stopping(self) -> None:
        """The server stops: the request at hand is still answered."""
        self.shutdown()

    # --- httptools

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_size = self._body_size = self._unread = 0
        self._expect_within(self._server.request_timeout)
        cast(Scope, self.scope)["extensions"] = {
            "moorage.peer": self._peer,
            "moorage.tracking_id": new_tracking_id(),
        }

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unread = 0
        self._raw_path = self._path_asked_for()
        if self._declared_length() > self._server.max_body:
            raise _Refused(413, f"the body may have {self._server.max_body} bytes")
        self._in_head = False
        self.server_state.default_headers = self._server.date_header()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        self._body_size += len(body)
        if self._body_size > self._server.max_body:
            raise _Refused(413, f"the body may have {self._server.max_body} bytes")
        self._expect_within(self._server.request_timeout)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        self._deadline = None
        super().on_message_complete()

    # --- steps

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if self._should_upgrade():
                    self._upgrade(data)
                    return
                # Any other upgrade is not taken, and the connection goes on as it was. [RFC 9110 7.8]
            except httptools.HttpParserError as error:
                raise _cause(error) from None
        if self._unread > self._server.max_head:
            raise _Refused(431, f"the head may have {self._server.max_head} bytes")

    def _count_head(self, size: int) -> None:
        self._unread = 0
        self._head_size += size
        if self._head_size > self._server.max_head:
            raise _Refused(431, f"the head may have {self._server.max_head} bytes")

    def _path_asked_for(self) -> bytes:
        try:
            path = httptools.parse_url(self.url).path
        except httptools.HttpParserInvalidURLError:
            path = b""
        if not path or not path.isascii():
            raise _Refused(400, "the request names no path")
        return path

    def _declared_length(self) -> int:
        for name, value in self.headers:
            if name == b"content-length" and value.isdigit():
                return int(value)
        return 0

    def _upgrade(self, rest: bytes) -> None:
        """Leave HTTP: the transport goes over to a WebSocket, with the bytes that came behind the request."""
        # Imported by the first WebSocket, for it takes 10 ms that a start need not wait for.
        from moorage.net.websocket import accept

        if self.cycle is not None and not self.cycle.response_complete:
            raise _Refused(400, "an upgrade cannot be pipelined")
        if not self._server.is_websocket_path(self._raw_path):
            raise _Refused(404, "no WebSocket is offered at this path")
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode()]
        for name, value in self.headers:
            head += [b"\r\n", name, b": ", value]
        head.append(b"\r\n\r\n")
        self._refused = True  # nothing more is for HTTP
        self._expect_nothing()
        self.connections.discard(self)
        del self.parser  # it holds us, and we it
        accept(self.transport, b"".join(head), rest, self._server)

    def _refuse(self, refused: _Refused) -> None:
        """Answer what cannot be taken, where an answer still has its place, and close."""
        self._refused = True
        log.debug("request refused", extra={"address": self._peer.address, "reason": refused.why})
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.scope is not self.scope:
                cycle.keep_alive = False  # an earlier request is being answered still, and is not disturbed
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        self.transport.write(self._answer(refused))
        self.transport.close()

    def _answer(self, refused: _Refused) -> bytes:
        body = refused.why.encode()
        head = [f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}".encode()]
        head += [b"%s: %s" % header for header in self._server.date_header()]
        head += [
            b"content-type: text/plain; charset=utf-8",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        return b"\r\n".join([*head, b"", body])

    def _expect_within(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds
        if self._watch is None:
            self._watch = self.loop.call_at(self._deadline, self._look)

    def _expect_nothing(self) -> None:
        self._deadline = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self) -> None:
        self._watch = None
        if self._deadline is None or self._refused:
            return
        if self._keeps_peer_waiting():
            self._expect_within(self._server.request_timeout)
        elif self.loop.time() < self._deadline:
            self._watch = self.loop.call_at(self._deadline, self._look)
        elif self._in_head or (self.cycle is not None and not self.cycle.response_complete):
            self._refuse(_Refused(408, "the request did not arrive in time"))
        else:
            self.transport.close()  # it never said a word

    def _keeps_peer_waiting(self) -> bool:
        return self.flow.read_paused or (self.cycle is not None and self.cycle.waiting_for_100_continue)

    def _look_at_sending(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent = unsent
            self._send_watch = self.loop.call_later(self._server.request_timeout, self._look_at_sending)
        else:
            log.debug("answer not taken", extra={"address": self._peer.address})
            self.transport.abort()


def _cause(error: httptools.HttpParserError) -> Exception:
    """What really went wrong in the parser, which wraps what its callbacks raise."""
    cause = error.__context__
    return cause if isinstance(cause, Exception) else _Refused(400, f"not HTTP/1.1: {error}")
