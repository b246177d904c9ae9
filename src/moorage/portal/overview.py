"""The first page: how devices and back ends reach this server, and how it fares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, Refused
from moorage.portal.counts import cards, hub_rows
from moorage.portal.pages import Pages, page
from moorage.shells import FORMATS

STYLES = {
    "shell": "Bash",
    "powershell": "PowerShell",
    "cmd": "cmd",
    "dotenv": ".env",
    "python": "Python",
    "node": "Node.js",
    "csharp": "C#",
}
"""Formats of an environment, and what their tabs say."""

CONNECTION_STRINGS = {
    "overview.dps_login": "PROVISIONING_SERVICE_CONNECTION_STRING",
    "overview.hub_login": "IOTHUB_CONNECTION_STRING",
    "overview.event_hub_login": "EVENTHUB_CONNECTION_STRING",
}

HIDDEN = "••••••••"
_KEY = re.compile(r"(?<=SharedAccessKey=)[^;]+")


class OverviewPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = (
            page("/", self._show),
            page("/overview/counts", self._counts),
            page("/overview/ca.pem", self._ca),
        )

    async def _show(self, request: Request) -> Response:
        dps, asked = self._api.dps, request.query_params
        hubs = await self._api.hubs()
        names = [hub["name"] for hub in hubs]
        chosen = asked.get("hub") if asked.get("hub") in names else names[0] if names else None
        environment = await dps.get("/moorage/v1/environment", **({"hub": chosen} if chosen else {}))
        style = asked.get("env", "") if asked.get("env") in STYLES else "shell"
        are_shown = asked.get("keys") == "shown"
        return await self._pages.render(
            request,
            "overview/show.html",
            service=await dps.get("/moorage/v1/service"),
            all_hubs=hubs,
            chosen=chosen,
            ca=await self._authority(),
            logins={
                key: environment[name] for key, name in CONNECTION_STRINGS.items() if name in environment
            },
            styles=STYLES,
            style=style,
            environment=FORMATS[style](environment if are_shown else hidden(environment)),
            are_shown=are_shown,
            nothing_enrolled=await self._nothing_enrolled(),
            **await self._figures(),
        )

    async def _counts(self, request: Request) -> Response:
        return self._pages.fragment(request, "overview/_counts.html", **await self._figures())

    async def _figures(self) -> dict[str, Any]:
        statistics = await self._api.dps.get("/moorage/v1/statistics")
        return {"cards": cards(statistics), "hub_rows": hub_rows(statistics)}

    async def _authority(self) -> Mapping[str, Any] | None:
        """None where the operator brought a certificate of his own."""
        try:
            found: dict[str, Any] = await self._api.dps.get("/moorage/v1/certificateAuthority")
        except Refused as refused:
            if refused.status != 404:
                raise
            return None
        return found

    async def _ca(self, request: Request) -> Response:
        found = await self._api.dps.get("/moorage/v1/certificateAuthority")
        return Response(
            found["certificate"],
            media_type="application/x-pem-file",
            headers={"content-disposition": 'attachment; filename="moorage-ca.pem"'},
        )

    async def _nothing_enrolled(self) -> bool:
        for noun in ("enrollments", "enrollmentGroups"):
            query = {"query": f"SELECT * FROM {noun}"}
            if (await self._api.dps.page(f"/{noun}/query", query, after=None, limit=1)).document:
                return False
        return True


def hidden(environment: Mapping[str, str]) -> dict[str, str]:
    """The same without the keys in it."""
    return {name: _KEY.sub(HIDDEN, value) for name, value in environment.items()}
