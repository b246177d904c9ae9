"""What a group has beside its form: the registration records of its devices, and the key of one of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from moorage.credentials.sas import derive_key
from moorage.portal.api import Api, Refused, segment
from moorage.portal.device_address import assigned_device
from moorage.portal.enrollment_form import GROUP, mechanism_of
from moorage.portal.enrollments import PAGE, digest, enrollment_href
from moorage.portal.forms import Form
from moorage.portal.pages import Pages, action, done, page, session, text_of

ONE = f"{GROUP.path}/{{id}}"


class GroupPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = (
            page(f"{ONE}/registrations", self._records),
            page(f"{ONE}/registrations/rows", self._rows),
            action(f"{ONE}/registrations", self._delete),
            page(f"{ONE}/device-key", self._keys),
            action(f"{ONE}/device-key", self._compute),
        )

    # Registration records

    async def _records(self, request: Request) -> Response:
        values = await self._listed(request)
        seen = digest((values["records"], values["continuation"]))
        return await self._pages.render(request, "enrollments/records.html", seen=seen, **values)

    async def _rows(self, request: Request) -> Response:
        """The list again, where it has changed since the digest `seen`."""
        values = await self._listed(request)
        seen = digest((values["records"], values["continuation"]))
        if request.query_params.get("seen") == seen:
            return Response(status_code=204)
        query = urlencode({"after": values["after"], "seen": seen})
        address = f"{_href(request.path_params['id'])}/registrations/rows?{query}"
        return self._pages.fragment(
            request, "enrollments/records_rows.html", headers={"moorage-next": address}, **values
        )

    async def _listed(self, request: Request) -> dict[str, Any]:
        group, after = request.path_params["id"], request.query_params.get("after", "")
        found = await self._api.dps.page(f"/registrations/{segment(group)}/query", after=after, limit=PAGE)
        hubs = await self._api.hubs()
        return {
            "group": await self._group(group),
            "records": found.document,
            "continuation": found.continuation,
            "after": after,
            "devices": {each["registrationId"]: assigned_device(hubs, each) for each in found.document},
            "href": _href,
        }

    async def _group(self, name: str) -> dict[str, Any]:
        """Its document; of one that is gone, whose records outlive it, the name alone."""
        try:
            found: dict[str, Any] = await self._api.dps.get(f"{GROUP.api}/{segment(name)}")
        except Refused as error:
            if error.status != 404:
                raise
            return {GROUP.member: name}
        return found

    async def _delete(self, request: Request, form: Form) -> Response:
        ids, t, back = (
            form.all("select"),
            text_of(request),
            f"{_href(request.path_params['id'])}/registrations",
        )
        if ids and not form.flag("confirmed"):
            return await self._pages.confirm(
                request,
                form,
                title=t("enrollments.records_delete_title", count=len(ids)),
                names=ids,
                button=t("page.delete"),
                back=back,
            )
        deleted = 0
        for each in ids:
            try:
                await self._api.dps.delete(f"/registrations/{segment(each)}")
                deleted += 1
            except Refused as error:
                session(request).tell("error", error.message)
        return done(request, back, "enrollments.records_deleted", count=deleted)

    # The key of one device

    async def _keys(self, request: Request) -> Response:
        return await self._calculator(request, Form.of({}))

    async def _compute(self, request: Request, form: Form) -> Response:
        """Like `moorage dps compute-device-key`. The answer is a page of its own, so that no address holds the id."""
        registration_id, t = form.text("registration_id"), text_of(request)
        if not registration_id:
            form.problems["registration_id"] = t.plain("enrollments.individual_id_missing")
            return await self._calculator(request, form)
        path = f"{GROUP.api}/{segment(request.path_params['id'])}/attestationmechanism"
        keys = (await self._api.dps.post(path))["symmetricKey"] or {}
        derived = {name: derive_key(key, registration_id) for name, key in keys.items() if key}
        return await self._calculator(request, form, derived)

    async def _calculator(
        self, request: Request, form: Form, derived: dict[str, str] | None = None
    ) -> Response:
        group = await self._api.dps.get(f"{GROUP.api}/{segment(request.path_params['id'])}")
        return await self._pages.render(
            request,
            "enrollments/device_key.html",
            status=400 if form.problems else 200,
            group=group,
            form=form,
            derived=derived,
            possible=mechanism_of(group) == "symmetricKey",
            href=_href,
        )


def _href(name: str) -> str:
    return enrollment_href(GROUP, name)
