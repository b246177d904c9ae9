"""One ASGI application for every HTTP face: a request in, the handler that knows its path, a response out.

Paths are split before they are decoded, so that an id may hold an escaped slash. Handlers raise errors of the
domain; `fault` words them in the handler's own shape. Who is at the other end, and the tracking id, come from
the server in the scope's extensions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote_to_bytes

from moorage.credentials.sas import host_name
from moorage.errors import Invalid, MoorageError, NotFound, TooLarge
from moorage.interfaces import Peer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger("moorage.http")

JSON = "application/json; charset=utf-8"
_NOBODY = Peer(address="", door="https")


class MethodNotAllowed(MoorageError):
    """The path exists, and not for this method; `allow` names those there are, if any."""

    def __init__(self, method: str, allow: Iterable[str]) -> None:
        self.allow = tuple(sorted(allow))
        instead = f"; use {' or '.join(self.allow)}" if self.allow else ""
        super().__init__(f"{method} is not defined for this path{instead}")


class UnsupportedMediaType(MoorageError):
    """The body is of a type that nothing here reads."""


class Disconnected(Exception):
    """The caller went away before its request was whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`method` is in upper case, names of headers and of query parameters are in lower case.

    `segments` are the parts of the path, each percent-decoded once, without what a trailing slash leaves.
    `host` is in lower case, without a port.
    """

    method: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    host: str
    tracking_id: str
    peer: Peer

    @property
    def path(self) -> str:
        return "/" + "/".join(self.segments)

    def json(self) -> Any:
        """The body's JSON; None for an empty body. Raises Invalid, UnsupportedMediaType.

        Content-Encoding is passed over: samples send `utf-8` there [dps 8].
        """
        if not self.body.strip():
            return None
        media_type = self.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if media_type not in ("", "application/json", "text/json") and not media_type.endswith("+json"):
            raise UnsupportedMediaType(f"the body is sent as {media_type}; send it as application/json")
        return read_json(self.body)

    def json_object(self) -> dict[str, Any]:
        """The same where nothing but an object will do."""
        document = self.json()
        if not isinstance(document, dict):
            raise Invalid("body", "must be a JSON object")
        return document


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class HttpHandler(Protocol):
    """A family of paths."""

    @property
    def max_body(self) -> int:
        """Bytes; a longer body is refused before it has been read."""
        ...

    def matches(self, segments: tuple[str, ...]) -> bool: ...

    async def handle(self, request: Request) -> Response:
        """Raises any MoorageError."""
        ...

    def fault(self, request: Request, error: MoorageError) -> Response:
        """`error` as this family writes errors."""
        ...


class Deferred:
    """A handler that is made with the first request for it, so that a start need not wait for all that it imports."""

    def __init__(self, matches: Callable[[tuple[str, ...]], bool], make: Callable[[], HttpHandler]) -> None:
        self.matches = matches
        self._make = make

    @cached_property
    def _made(self) -> HttpHandler:
        return self._make()

    @property
    def max_body(self) -> int:
        return self._made.max_body

    async def handle(self, request: Request) -> Response:
        return await self._made.handle(request)

    def fault(self, request: Request, error: MoorageError) -> Response:
        return self._made.fault(request, error)


def read_json(body: bytes) -> Any:
    """The value of a JSON text in UTF-8, a byte order mark allowed. Raises Invalid.

    Refused beside what is malformed: NaN and infinities, and lone surrogates, which no text can hold again.
    """
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_not_json)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Invalid("body", "a string holds half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        raise Invalid("body", f"is not JSON: {str(error)[:200]}") from None
    return value


def whole_number(text: str) -> int | None:
    """The number that `text` writes in up to eighteen ASCII digits, a minus allowed; None for anything else."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) <= 18 else None


def _not_json(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def json_response(document: object, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Response:
    body = json.dumps(document, separators=(",", ":")).encode()
    return Response(status, (("content-type", JSON), *headers), body)


class HttpAdapter:
    """The ASGI application: the first handler that matches a path has it, `otherwise` refuses the rest."""

    def __init__(self, *handlers: HttpHandler, otherwise: HttpHandler) -> None:
        self._handlers = handlers
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            response = await self._respond(scope, receive)
        except Disconnected:
            return
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        if response.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(response.body)))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        handler, request = self._otherwise, _head(scope)
        try:
            request = replace(request, segments=_segments(scope))
            handler = self._handler(request)
            request = replace(request, body=await _read(request, receive, handler.max_body))
            return await handler.handle(request)
        except TooLarge as error:
            # What is left of the body is not worth reading: the connection goes with it.
            response = handler.fault(request, error)
            return replace(response, headers=(*response.headers, ("connection", "close")))
        except MoorageError as error:
            return handler.fault(request, error)
        except Disconnected:
            raise
        except Exception:
            log.exception("request failed", extra={"tracking_id": request.tracking_id, "path": request.path})
            return handler.fault(request, MoorageError("internal error; the server's log has the details"))

    def _handler(self, request: Request) -> HttpHandler:
        for handler in self._handlers:
            if handler.matches(request.segments):
                return handler
        raise NotFound("path", request.path[:200])


def _head(scope: Scope) -> Request:
    """All of the request but its path and its body."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    extensions = scope.get("extensions") or {}
    return Request(
        method=scope["method"].upper(),
        segments=(),
        query={name.lower(): value for name, value in query},
        headers=headers,
        body=b"",
        host=host_name(headers.get("host", "")),
        tracking_id=extensions.get("moorage.tracking_id", ""),
        peer=extensions.get("moorage.peer") or _NOBODY,
    )


def _segments(scope: Scope) -> tuple[str, ...]:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    parts = raw.partition(b"?")[0].removeprefix(b"/").rstrip(b"/").split(b"/")
    try:
        return tuple(unquote_to_bytes(part).decode() for part in parts) if parts != [b""] else ()
    except UnicodeDecodeError:
        raise Invalid("path", "its escapes are not UTF-8") from None


async def _read(request: Request, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is known to pass `limit`, Disconnected."""
    declared = request.headers.get("content-length", "")
    if (length := whole_number(declared)) is not None and length > limit:
        raise TooLarge("body", f"is {length} bytes long, the limit is {limit}")
    chunks = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunks += message.get("body", b"")
        if len(chunks) > limit:
            raise TooLarge("body", f"is longer than the limit of {limit} bytes")
        if not message.get("more_body"):
            return bytes(chunks)
