"""Connections: when a device or module came and went, and why it was let in or turned away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, segment
from moorage.portal.device_address import Address
from moorage.portal.device_frame import DEVICE, MODULE, frame
from moorage.portal.pages import Pages, page

SHOWN = 50  # of each, the newest


class ConnectionPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = tuple(
            route
            for path in (DEVICE, MODULE)
            for route in (
                page(f"{path}/connections", self._show),
                page(f"{path}/connections/live", self._news),
            )
        )

    async def _show(self, request: Request) -> Response:
        address = Address.of(request)
        identity = await self._api.hub(address.hub).get(address.identity)
        return await self._pages.render(
            request,
            "device/connections.html",
            **await self._seen(address),
            **frame(request, address, identity, "connections"),
        )

    async def _news(self, request: Request) -> Response:
        address = Address.of(request)
        values = await self._seen(address)
        if request.query_params.get("seen") == values["seen"]:
            return Response(status_code=204)
        headers = {"moorage-next": values["live"]}
        return self._pages.fragment(
            request, "device/_connections.html", headers=headers, address=address, **values
        )

    async def _seen(self, address: Address) -> Mapping[str, Any]:
        """Newest first; `seen` names the newest of both, for they only grow."""
        subject = address.device if address.module is None else f"{address.device}/{address.module}"
        changes = (await self._api.hub(address.hub).get(f"{address.control}/timeline", top=str(SHOWN)))[::-1]
        path = f"/moorage/v1/decisions/{segment(subject)}"
        decisions = (await self._api.dps.get(path, top=str(SHOWN)))[::-1]
        newest = [f"{each['time']} {each['trackingId']}" for each in (*changes[:1], *decisions[:1])]
        seen = segment(" ".join(newest))
        return {
            "changes": changes,
            "decisions": decisions,
            "subject": subject,
            "seen": " ".join(newest),
            "live": f"{address.page}/connections/live?seen={seen}",
        }
