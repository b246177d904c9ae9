"""What is above every page of a device or module: where it stands, how it is connected, the way to its other pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, Refused, segment
from moorage.portal.device_address import Address, devices_path
from moorage.portal.pages import Pages, page, text_of

DEVICE = "/hubs/{hub}/devices/{device}"
MODULE = f"{DEVICE}/modules/{{module}}"

GONE = "gone"

TABS = (
    ("", "device.title", "modules.identity"),
    ("twin", "twin.title", "modules.twin"),
    ("method", "method.title", "method.title"),
    ("messages", "messages.title", ""),
    ("modules", "modules.title", ""),
    ("connections", "connections.title", "connections.title"),
)
"""Below which word, and what it is called for a device and for a module; empty where modules have none."""


def frame(request: Request, address: Address, identity: Mapping[str, Any], here: str) -> dict[str, Any]:
    """The values for `device/_frame.html`; `here` is the word of the page's own tab."""
    t = text_of(request)
    trail = [(str(t("devices.title")), devices_path(address.hub))]
    if address.module is not None:
        device = address.of_device.page
        trail += [(address.device, device), (str(t("modules.title")), f"{device}/modules")]
    tabs = [
        (
            t(of_device if address.module is None else of_module),
            f"{address.page}/{word}".rstrip("/"),
            word == here,
        )
        for word, of_device, of_module in TABS
        if address.module is None or of_module
    ]
    if address.module is None:
        href = f"/hubs/{segment(address.hub)}/telemetry?device={segment(address.device)}"
        tabs.append((t("telemetry.title"), href, False))
    return {
        "address": address,
        "identity": identity,
        "trail": trail,
        "tabs": tabs,
        "live_state": f"{address.page}/state?seen={segment(_state(identity))}",
    }


class DeviceStatePages:
    """How a device is connected, for a script that keeps it up to date."""

    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = (page(f"{DEVICE}/state", self._show), page(f"{MODULE}/state", self._show))

    async def _show(self, request: Request) -> Response:
        """204 where the page shows it already."""
        address = Address.of(request)
        try:
            identity = await self._api.hub(address.hub).get(address.identity)
        except Refused as refused:
            if refused.status != 404:
                raise
            return self._gone(request, address)
        if request.query_params.get("seen") == _state(identity):
            return Response(status_code=204)
        values = frame(request, address, identity, "")
        headers = {"moorage-next": values["live_state"]}
        return self._pages.fragment(request, "device/_state.html", headers=headers, **values)

    def _gone(self, request: Request, address: Address) -> Response:
        """Deleted while somebody looks at its page."""
        if request.query_params.get("seen") == GONE:
            return Response(status_code=204)
        headers = {"moorage-next": f"{address.page}/state?seen={GONE}"}
        return self._pages.fragment(request, "device/_gone.html", headers=headers)


def _state(identity: Mapping[str, Any]) -> str:
    return f"{identity.get('status')} {identity['connectionState']} {identity['connectionStateUpdatedTime']}"
