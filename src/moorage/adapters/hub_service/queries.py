"""Queries over REST [hub-service 7]."""

from __future__ import annotations

from moorage.adapters.http import JSON, Request, Response, whole_number
from moorage.adapters.hub_service.routes import HubCall, Route
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.errors import Invalid

DEFAULT_PAGE, MAX_PAGE = 100, 1000


class QueryRoutes:
    def __init__(self) -> None:
        self.routes = (Route("POST", "devices/query", SERVICE_CONNECT, self._query),)

    async def _query(self, call: HubCall) -> Response:
        """A bare array. Java counts on the type in the header, Node asks again while there is a continuation."""
        request = call.request
        text = request.json_object().get("query")
        if not isinstance(text, str):
            raise Invalid("query", "must be a string")
        continuation = request.headers.get("x-ms-continuation")
        answer = await call.identities.queries().run(text, limit=_limit(request), continuation=continuation)
        headers = [("x-ms-item-type", answer.item_type)]
        if answer.continuation is not None:
            headers.append(("x-ms-continuation", answer.continuation))
        return Response(200, (("content-type", JSON), *headers), f"[{','.join(answer.items)}]".encode())


def _limit(request: Request) -> int:
    """Larger ones are clipped."""
    text = request.headers.get("x-ms-max-item-count")
    if not text:
        return DEFAULT_PAGE
    limit = whole_number(text)
    if limit is None or limit < 1:
        raise Invalid("x-ms-max-item-count", f"{text[:50]!r} is no number of items")
    return min(limit, MAX_PAGE)
