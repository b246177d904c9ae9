"""Requests to an ASGI application, as the server in `net` would bring them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorage.adapters.http import HttpAdapter
from moorage.interfaces import Peer

TRACKING_ID = "5d1f0c6a8e7b4c34a0b1c2d3e4f50617"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        return json.loads(self.body)


class Caller:
    """Calls one application, by default as `token` on `host`."""

    def __init__(self, app: HttpAdapter, *, host: str = "localhost", token: str | None = None) -> None:
        self._app = app
        self._host = host
        self._token = token

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        query: str = "api-version=2021-04-12",
        token: str | None = "",
        chain: Sequence[bytes] = (),
    ) -> Answer:
        """`body` is sent as JSON unless it is bytes; `token` None leaves the header out."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = {"host": self._host, "content-length": str(len(content))} | dict(headers or {})
        shown = self._token if token == "" else token
        if shown is not None:
            sent.setdefault("authorization", shown)
        scope = {
            "type": "http",
            "method": method,
            "path": "not looked at",
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()],
            "extensions": {
                "moorage.tracking_id": TRACKING_ID,
                "moorage.peer": Peer("192.0.2.7", "https", tuple(chain)),
            },
        }
        return await self._ask(scope, content)

    async def _ask(self, scope: dict[str, Any], content: bytes) -> Answer:
        pieces = [content[at : at + 30_000] for at in range(0, len(content), 30_000)] or [b""]
        answered: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            answered.append(message)

        await self._app(scope, receive, send)
        start, end = answered
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        if start["status"] != 204:
            assert int(headers.pop("content-length")) == len(end["body"])
        return Answer(start["status"], headers, end["body"])
