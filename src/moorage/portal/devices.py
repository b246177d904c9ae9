"""Devices: the device explorer of a hub, with what is done to several devices at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from moorage.portal.api import Api, Refused, Service
from moorage.portal.bulk import bulk
from moorage.portal.device_address import Address, devices_path
from moorage.portal.device_search import (
    AUTHENTICATION_TYPES,
    CONNECTION_STATES,
    STATUSES,
    DeviceSearch,
    Listed,
    place_of,
)
from moorage.portal.forms import Form
from moorage.portal.pages import FRAGMENT, Pages, action, page, session, text_of

SHOWN = 50  # devices on a page
LIVE = "live"
EVERY, EVERY_OF_FOUND = 2000, 5000  # milliseconds; some filters have the hub look at all of its devices


class DevicesPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = (
            page("/hubs/{hub}/devices", self._list),
            action("/hubs/{hub}/devices", self._change),
        )

    async def _list(self, request: Request) -> Response:
        """The page, or for its script the list alone if it is another one than the page has."""
        name, after = request.path_params["hub"], request.query_params.get("after")
        search = DeviceSearch.read(request.query_params)
        try:
            answer = await self._api.hub(name).page(
                "/devices/query", {"query": search.text}, after=after, limit=SHOWN
            )
        except Refused as refused:
            if not search.query or refused.status not in (400, 412, 501):
                raise
            return await self._show(request, search, Listed.nothing(name, search), refused)
        listed = Listed.of(name, search, answer)
        if request.headers.get(FRAGMENT) != LIVE:
            return await self._show(request, search, listed)
        if request.query_params.get("seen") == listed.seen:
            return Response(status_code=204)
        return self._pages.fragment(
            request, "devices/_list.html", headers={"moorage-next": listed.live}, list=listed
        )

    async def _show(
        self, request: Request, search: DeviceSearch, listed: Listed, refused: Refused | None = None
    ) -> Response:
        return await self._pages.render(
            request,
            "devices/list.html",
            status=refused.status if refused else 200,
            list=listed,
            form=search.form(),
            after=request.query_params.get("after"),
            every=EVERY_OF_FOUND if search.wanted else EVERY,
            problem=refused.message if refused else "",
            place=place_of(refused.message, search.query) if refused else None,
            statuses=STATUSES,
            connection_states=CONNECTION_STATES,
            authentication_types=AUTHENTICATION_TYPES,
        )

    # Several at once

    async def _change(self, request: Request, form: Form) -> Response:
        """What one of the buttons above the list does with the devices that are selected."""
        hub, chosen = request.path_params["hub"], form.all("select")
        back = f"{devices_path(hub)}?{form.text('back')}"
        t, service, done = text_of(request), self._api.hub(hub), 0
        match form.text("do"):
            case _ if not chosen:
                session(request).tell("warning", t.plain("devices.none_selected"))
                return RedirectResponse(back, 303)
            case "delete" if not form.flag("confirmed"):
                title = t("devices.delete_title", count=len(chosen))
                button = t("page.delete")
                return await self._pages.confirm(
                    request, form, title=title, names=chosen, button=button, back=back
                )
            case "delete":
                said = "devices.deleted"
                failed = await bulk(service, [{"id": each, "importMode": "delete"} for each in chosen])
            case "enable" | "disable" as do:
                said = "devices.enabled" if do == "enable" else "devices.disabled"
                items, failed = await _with_status(service, hub, chosen, f"{do}d")
                failed |= await bulk(service, items)
            case other:
                raise Refused(400, f"{other!r:.50} is nothing that can be done with devices")
        done = len(chosen) - len(failed)
        if done:
            session(request).tell("success", t.plain(said, count=done))
        for device_id, why in failed.items():
            session(request).tell("error", t.plain("devices.failed", device=device_id, why=why))
        return RedirectResponse(back, 303)


async def _with_status(
    service: Service, hub: str, device_ids: Sequence[str], status: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """An item for each device whose status is another one, and why it cannot be for those of which there is none.

    An update replaces all of an identity, so each has to be read first.
    """
    items, failed = [], {}
    for device_id in device_ids:
        try:
            identity = await service.get(Address(hub, device_id).identity)
        except Refused as refused:
            failed[device_id] = refused.message
            continue
        if identity["status"] != status:
            mode = {"id": device_id, "eTag": identity["etag"], "importMode": "updateIfMatchETag"}
            items.append({**identity, **mode, "status": status})
    return items, failed
