"""Linked IoT hubs: where devices may be assigned to, how the service chooses, and hubs of this server to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, Refused, segment
from moorage.portal.forms import Form
from moorage.portal.pages import Pages, action, done, page, text_of

ROOT = "/linked-hubs"
LINKED = "/moorage/v1/linkedHubs"
HUBS = "/moorage/v1/hubs"
SERVICE = "/moorage/v1/service"
POLICIES = ("hashed", "geoLatency", "static")
"""Custom allocation needs a webhook, which an enrollment names, not the service. [dps 12]"""

FIELDS = ("allocationWeight", "applyAllocationPolicy", "location", "latencyMs", "newConnectionString")


class LinkedHubPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = (
            page(ROOT, self._list),
            action(ROOT, self._link),
            action(f"{ROOT}/allocation", self._set_allocation),
            action(f"{ROOT}/hubs", self._create_hub),
            action(f"{ROOT}/hubs/{{hub}}/delete", self._delete_hub),
            page(f"{ROOT}/{{name}}", self._show),
            action(f"{ROOT}/{{name}}", self._change),
            action(f"{ROOT}/{{name}}/delete", self._unlink),
        )

    async def _list(self, request: Request) -> Response:
        return await self._render_list(request, Form.of({}))

    async def _render_list(self, request: Request, form: Form, status: int = 200) -> Response:
        dps = self._api.dps
        hubs = await self._api.hubs()
        return await self._pages.render(
            request,
            "linked_hubs/list.html",
            status=status,
            form=form,
            linked=await dps.get(LINKED),
            not_linked=[hub for hub in hubs if not hub["linked"]],
            own=hubs,
            service=await dps.get(SERVICE),
            policies=POLICIES,
        )

    async def _link(self, request: Request, form: Form) -> Response:
        """A hub of this server by its name, or one of another by its connection string."""
        chosen = form.text("hub")
        wanted = {"hub": chosen} if chosen else {"connectionString": form.text("connectionString")}
        try:
            linked = await self._api.dps.post(LINKED, wanted)
        except Refused as refused:
            form.problems["hub" if chosen else "connectionString"] = refused.message
            return await self._render_list(request, form, refused.status)
        return done(request, ROOT, "linked_hubs.linked", name=linked["name"])

    async def _set_allocation(self, request: Request, form: Form) -> Response:
        await self._api.dps.patch(SERVICE, {"allocationPolicy": form.text("allocationPolicy")})
        return done(request, ROOT, "linked_hubs.allocation_set")

    async def _create_hub(self, request: Request, form: Form) -> Response:
        try:
            made = await self._api.dps.post(HUBS, {"name": form.text("name"), "link": form.flag("link")})
        except Refused as refused:
            form.problems["name"] = refused.message
            return await self._render_list(request, form, refused.status)
        return done(request, ROOT, "linked_hubs.hub_made", name=made["name"])

    async def _delete_hub(self, request: Request, form: Form) -> Response:
        name = str(request.path_params["hub"])
        if not form.flag("confirmed"):
            t = text_of(request)
            return await self._pages.confirm(
                request,
                form,
                title=t("linked_hubs.delete_hub_title"),
                names=[name],
                button=t("linked_hubs.delete_hub"),
                back=ROOT,
            )
        await self._api.dps.call("DELETE", f"{HUBS}/{segment(name)}", query={"force": "true"})
        return done(request, ROOT, "linked_hubs.hub_deleted", name=name)

    async def _show(self, request: Request) -> Response:
        found = await self._api.dps.get(_path(request))
        return await self._render_one(request, found, Form.of(found))

    async def _render_one(
        self, request: Request, found: Mapping[str, Any], form: Form, status: int = 200
    ) -> Response:
        return await self._pages.render(
            request, "linked_hubs/show.html", status=status, linked=found, form=form
        )

    async def _change(self, request: Request, form: Form) -> Response:
        """The terms. What somebody else has changed meanwhile stands beside what was wanted."""
        try:
            wanted = {
                "allocationWeight": _number(form, "allocationWeight"),
                "latencyMs": _number(form, "latencyMs"),
                "location": form.text("location") or None,
                "applyAllocationPolicy": form.flag("applyAllocationPolicy"),
            }
            if login := form.text("newConnectionString"):
                wanted["connectionString"] = login
            changed = await self._api.dps.patch(_path(request), wanted, if_match=f'"{form.text("etag")}"')
        except Refused as refused:
            if refused.status not in (400, 412):
                raise
            found = await self._api.dps.get(_path(request))
            if refused.status == 412:
                form.problems["form"] = text_of(request).plain("page.overtaken")
            else:
                field = refused.message.partition(":")[0]
                field = {"connectionString": "newConnectionString"}.get(field, field)
                form.problems[field if field in FIELDS else "form"] = refused.message
            return await self._render_one(request, found, form, refused.status)
        return done(
            request, f"{ROOT}/{segment(changed['name'])}", "linked_hubs.changed", name=changed["name"]
        )

    async def _unlink(self, request: Request, form: Form) -> Response:
        name = str(request.path_params["name"])
        if not form.flag("confirmed"):
            t = text_of(request)
            return await self._pages.confirm(
                request,
                form,
                title=t("linked_hubs.unlink_title"),
                names=[name],
                button=t("linked_hubs.unlink"),
                back=f"{ROOT}/{segment(name)}",
            )
        await self._api.dps.delete(_path(request))
        return done(request, ROOT, "linked_hubs.unlinked", name=name)


def _path(request: Request) -> str:
    return f"{LINKED}/{segment(str(request.path_params['name']))}"


def _number(form: Form, name: str) -> float | int | str | None:
    """As the API is to judge it: what is no number goes there as it was written."""
    text = form.text(name)
    if not text:
        return None
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return text
