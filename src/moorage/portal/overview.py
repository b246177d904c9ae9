"""The first page: how devices and back ends reach this server, and how it fares."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api
from moorage.portal.pages import Pages, page


class OverviewPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = (page("/", self._show),)

    async def _show(self, request: Request) -> Response:
        service = await self._api.dps.get("/moorage/v1/service")
        return await self._pages.render(request, "overview/show.html", service=service)
