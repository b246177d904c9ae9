"""The twin of a device or module: tags and desired properties to be edited, reported ones to be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, Refused, segment
from moorage.portal.device_address import Address
from moorage.portal.device_frame import DEVICE, MODULE, frame
from moorage.portal.forms import Form
from moorage.portal.pages import Pages, action, done, page, text_of
from moorage.portal.texts import Texts

WHOLE = "whole"
"""`?view=whole` shows the twin as one document, as Azure's portal does."""


class TwinPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = tuple(
            route
            for path in (DEVICE, MODULE)
            for route in (
                page(f"{path}/twin", self._edit),
                action(f"{path}/twin", self._save),
                page(f"{path}/twin/reported", self._reported),
            )
        )

    async def _edit(self, request: Request) -> Response:
        address = Address.of(request)
        twin = await self._api.hub(address.hub).get(address.twin)
        return await self._show(request, address, twin, form_of(twin))

    async def _save(self, request: Request, form: Form) -> Response:
        """Put what the form says in place of tags and desired properties, or merge it into them.

        Where somebody else was faster, what there is now comes beside what the form says; saving again is meant then.
        """
        address = Address.of(request)
        service = self._api.hub(address.hub)
        document = read_twin(form, text_of(request))
        status, overtaken = 400, False
        if not form.problems:
            try:
                write = service.patch if form.text("how") == "patch" else service.put
                await write(address.twin, document, if_match=form.text("etag"))
                view = f"?view={WHOLE}" if "twin" in form.fields else ""
                return done(request, f"{address.page}/twin{view}", "twin.saved", device=address.name)
            except Refused as refused:
                status, overtaken = refused.status, refused.status == 412
                if not overtaken and refused.status not in (400, 413):
                    raise
                if not overtaken:
                    form.problems[field_of(refused, form)] = refused.message
        twin = await service.get(address.twin)
        if overtaken:
            form = Form({**form.fields, "etag": [twin["etag"]]}, problems=form.problems)
        return await self._show(request, address, twin, form, status=status, overtaken=overtaken)

    async def _show(
        self,
        request: Request,
        address: Address,
        twin: Mapping[str, Any],
        form: Form,
        *,
        status: int = 200,
        overtaken: bool = False,
    ) -> Response:
        identity = await self._api.hub(address.hub).get(address.identity)
        sent_whole = "twin" in form.fields and "tags" not in form.fields
        return await self._pages.render(
            request,
            "device/twin.html",
            status=status,
            form=form,
            whole=sent_whole or request.query_params.get("view") == WHOLE,
            overtaken=overtaken,
            now=form_of(twin),
            **_reported_values(address, twin, form.text("etag")),
            **frame(request, address, identity, "twin"),
        )

    async def _reported(self, request: Request) -> Response:
        """What the device reports, for a script that keeps it up to date; `etag` is what the reader began with."""
        address = Address.of(request)
        twin = await self._api.hub(address.hub).get(address.twin)
        values = _reported_values(address, twin, request.query_params.get("etag", ""))
        if request.query_params.get("seen") == str(twin["version"]):
            return Response(status_code=204)
        headers = {"moorage-next": values["live_reported"]}
        return self._pages.fragment(
            request, "device/_reported.html", headers=headers, address=address, **values
        )


def form_of(twin: Mapping[str, Any]) -> Form:
    """What can be edited: in two parts, and as a whole."""
    tags, desired = dict(twin.get("tags") or {}), values_of(twin["properties"]["desired"])
    return Form.of(
        {
            "etag": twin["etag"],
            "how": "replace",
            "tags": pretty(tags),
            "desired": pretty(desired),
            "twin": pretty(twin),
        }
    )


def read_twin(form: Form, t: Texts) -> dict[str, Any]:
    """Tags and desired properties as the form has them; what is wrong becomes the problem of its field."""
    if "tags" not in form.fields:
        twin = form.json_object("twin", t)
        if twin is None:
            form.problems.setdefault("twin", t.plain("page.json_no_object"))
            return {}
        properties = twin.get("properties", {})
        if isinstance(properties, dict):  # anything else the hub will refuse
            properties = {"desired": properties.get("desired", {})}
        return {"tags": twin.get("tags", {}), "properties": properties}
    tags, desired = form.json_object("tags", t), form.json_object("desired", t)
    return {"tags": tags or {}, "properties": {"desired": desired or {}}}


def field_of(refused: Refused, form: Form) -> str:
    """Where in the form stands what the hub refused."""
    if "tags" not in form.fields:
        return "twin"
    return "tags" if refused.message.startswith("tags") else "desired"


def values_of(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of a twin without what the hub says of it."""
    return {name: value for name, value in section.items() if name not in ("$metadata", "$version")}


def pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _reported_values(address: Address, twin: Mapping[str, Any], etag: str) -> dict[str, Any]:
    desired, reported = twin["properties"]["desired"], twin["properties"]["reported"]
    return {
        "twin": twin,
        "reported": pretty(values_of(reported)),
        "metadata": [
            ("twin.desired", pretty(desired["$metadata"])),
            ("twin.reported", pretty(reported["$metadata"])),
        ],
        "changed": bool(etag) and etag != twin["etag"],
        "live_reported": f"{address.page}/twin/reported?seen={twin['version']}&etag={segment(etag)}",
    }
