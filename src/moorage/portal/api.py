"""What pages call: Azure's data plane and `/moorage/v1` of this server, as an operator who may do everything."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from moorage.errors import MoorageError

DPS_API_VERSION = "2021-10-01"
HUB_API_VERSION = "2021-04-12"

Ask = Callable[
    [str | None, str, str, Mapping[str, str], bytes], Awaitable[tuple[int, Mapping[str, str], bytes]]
]
"""Hub (None: the provisioning service), method, target, headers and body; status, headers and body of the answer."""


_FIELD = re.compile(r"[A-Za-z$][\w$.-]*(?=: )")
_CODE_NAME = re.compile(r"^ErrorCode:\w+;")


class Refused(MoorageError):
    """The API said no. `message` is its own sentence, `code` its error code (0 where it gave none).

    `document` is all that it answered, None where that was no JSON.
    """

    def __init__(
        self, status: int, message: str, code: int = 0, tracking_id: str = "", document: object = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.tracking_id = tracking_id
        self.document = document

    @property
    def field(self) -> str:
        """Which member of a document is wrong, where the sentence begins with its name; else empty."""
        found = _FIELD.match(self.message)
        return found[0] if found and self.status in (400, 413) else ""

    @property
    def why(self) -> str:
        """The sentence without the name of the member."""
        return self.message[len(self.field) :].removeprefix(": ")


class Answer(NamedTuple):
    """`document` is the parsed body, None when empty; names of `headers` are in lower case."""

    document: Any
    headers: Mapping[str, str]

    @property
    def continuation(self) -> str | None:
        """Where the next page of a list begins; None behind the last."""
        return self.headers.get("x-ms-continuation")


class Service:
    """One service of the server: the provisioning service, or the hub of a name."""

    def __init__(self, ask: Ask, hub: str | None) -> None:
        self._ask = ask
        self._hub = hub
        self._version = DPS_API_VERSION if hub is None else HUB_API_VERSION

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        if_match: str | None = None,
        api_version: str | None = None,
    ) -> Answer:
        """`path` is escaped already (see `segment`). Raises Refused, and NotFound for a hub there is not."""
        target = f"{path}?{urlencode({'api-version': api_version or self._version, **(query or {})})}"
        given = {"content-type": "application/json; charset=utf-8", **(headers or {})}
        if if_match is not None:
            given["if-match"] = if_match
        for name, value in given.items():  # of an address or a form that was made up
            if not (value.isascii() and value.isprintable()):
                raise Refused(400, f"{name}: holds signs that none of ours has")
        content = b"" if body is None else json.dumps(body).encode()
        status, answered, text = await self._ask(self._hub, method, target, given, content)
        if status >= 400:
            raise _refused(status, answered, text)
        return Answer(json.loads(text) if text else None, answered)

    async def get(self, path: str, **query: str) -> Any:
        return (await self.call("GET", path, query=query)).document

    async def put(self, path: str, body: object, *, if_match: str | None = None) -> Any:
        return (await self.call("PUT", path, body, if_match=if_match)).document

    async def patch(self, path: str, body: object, *, if_match: str | None = None) -> Any:
        return (await self.call("PATCH", path, body, if_match=if_match)).document

    async def post(self, path: str, body: object = None, **query: str) -> Any:
        return (await self.call("POST", path, body, query=query)).document

    async def delete(self, path: str, *, if_match: str | None = None) -> None:
        await self.call("DELETE", path, if_match=if_match)

    async def page(
        self, path: str, body: object = None, *, after: str | None, limit: int, method: str = "POST"
    ) -> Answer:
        """`limit` items at the most of a paged list, from the place that the page before gave as `continuation`."""
        headers = {"x-ms-max-item-count": str(limit)}
        if after:
            headers["x-ms-continuation"] = after
        return await self.call(method, path, body, headers=headers)


class Api:
    """All services of this server."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.dps = Service(ask, None)

    def hub(self, name: str) -> Service:
        """The hub of that name; whether there is one, its first call tells."""
        return Service(self._ask, name)

    async def hubs(self) -> list[dict[str, Any]]:
        """All hubs of this server, the first one first, as `/moorage/v1/hubs` has them."""
        found: list[dict[str, Any]] = await self.dps.get("/moorage/v1/hubs")
        return found


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")


def _refused(status: int, headers: Mapping[str, str], text: bytes) -> Refused:
    """Whichever form the service wrote its error in [dps 15, hub-service 4.1]."""
    said, code, whole = text.decode("utf-8", "replace"), 0, None
    try:
        whole = document = json.loads(said)
        while "Message" in document and document["Message"].startswith("{"):
            document = json.loads(document["Message"])
        code = document.get("errorCode", 0)
        said = document.get("message") or document.get("Message") or said
        said = _CODE_NAME.sub("", said)
    except (ValueError, TypeError, AttributeError):
        pass
    return Refused(status, said, code, headers.get("x-ms-request-id", ""), whole)
