"""Registrations: each attempt as it happens, and why it ended as it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from moorage.errors import NotFound
from moorage.portal.api import Api, segment
from moorage.portal.pages import Pages, page

ROOT = "/registrations"
DECISIONS = "/moorage/v1/decisions"
SHOWN = 100  # attempts on the page
OPERATIONS = ("register", "connect")
"""What can be looked at alone: how devices come to a hub, and to the services. Without a choice everything is."""


class RegistrationPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = (
            page(ROOT, self._list),
            page(f"{ROOT}/live", self._live),
            page(f"{ROOT}/attempt", self._explain),
        )

    async def _list(self, request: Request) -> Response:
        filters = _filters(request)
        found = await self._api.dps.call("GET", DECISIONS, query={**_wish(filters), "top": str(SHOWN)})
        live = f"{ROOT}/live?{urlencode({**filters, 'since': found.continuation or ''})}"
        return await self._pages.render(
            request,
            "registrations/list.html",
            attempts=found.document,
            filters=filters,
            operations=OPERATIONS,
            live=live,
            keep=SHOWN,
        )

    async def _live(self, request: Request) -> Response:
        """The rows of what came since the place that the page before named, newest first."""
        filters = _filters(request)
        query = {**_wish(filters), "top": str(SHOWN), "since": request.query_params.get("since", "")}
        found = await self._api.dps.call("GET", DECISIONS, query=query)
        following = f"{ROOT}/live?{urlencode({**filters, 'since': found.continuation or ''})}"
        headers = {"moorage-next": following}
        if not found.document:
            return Response(status_code=204, headers=headers)
        return self._pages.fragment(
            request, "registrations/_rows.html", headers=headers, attempts=found.document[::-1]
        )

    async def _explain(self, request: Request) -> Response:
        """One attempt, found by its tracking id among those of its subject."""
        subject = request.query_params.get("subject", "")
        tracking_id = request.query_params.get("tracking_id", "")
        path = f"{DECISIONS}/{segment(subject)}" if subject else DECISIONS
        found = await self._api.dps.get(path, trackingId=tracking_id)
        if not found:
            raise NotFound("attempt", tracking_id)
        return await self._pages.render(request, "registrations/show.html", attempt=found[-1], steps=found)


def _filters(request: Request) -> dict[str, str]:
    """What the reader wants to see, as it stands in the address."""
    wanted = {
        name: request.query_params.get(name, "").strip() for name in ("subject", "operation", "refused")
    }
    wanted["operation"] = request.query_params.get("operation", "register")
    return wanted


def _wish(filters: Mapping[str, str]) -> dict[str, Any]:
    """The same for the API."""
    wish = {name: filters[name] for name in ("subject", "operation") if filters[name]}
    return {**wish, "refused": "true"} if filters["refused"] else wish
