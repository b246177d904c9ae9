"""Module identities of a device: the list, adding and deleting. Pages of one module are those of a device."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from moorage.portal.api import Api, Refused
from moorage.portal.bulk import bulk
from moorage.portal.certificate_upload import CertificateUploads
from moorage.portal.device_address import Address
from moorage.portal.device_frame import DEVICE, frame
from moorage.portal.forms import Form
from moorage.portal.new_device import FIELDS, read_authentication
from moorage.portal.pages import Pages, action, done, page, session, text_of

PAGE = f"{DEVICE}/modules"
NEW = f"{DEVICE}/modules/~new"
MODULE_FIELDS = {**FIELDS, "moduleId": "module_id", "managedBy": "managed_by"}


class ModulesPages:
    def __init__(self, api: Api, pages: Pages, uploads: CertificateUploads) -> None:
        self._api = api
        self._uploads = uploads
        self._pages = pages
        self.routes = (
            page(PAGE, self._list),
            action(PAGE, self._delete),
            page(NEW, self._new),
            action(NEW, self._create),
        )

    async def _list(self, request: Request) -> Response:
        address = Address.of(request)
        hub = self._api.hub(address.hub)
        identity, modules = await hub.get(address.identity), await hub.get(f"{address.identity}/modules")
        rows = [(address.of_module(each["moduleId"]), each) for each in modules]
        return await self._pages.render(
            request, "modules/list.html", rows=rows, **frame(request, address, identity, "modules")
        )

    async def _new(self, request: Request) -> Response:
        return await self._show(request, Form.of({"authentication": "sas", "auto_keys": True}))

    async def _create(self, request: Request, form: Form) -> Response:
        address, t = Address.of(request), text_of(request)
        module = form.text("module_id")
        if not module:
            form.problems["module_id"] = t.plain("modules.needs_id")
        document = {
            "managedBy": form.text("managed_by"),
            "authentication": await read_authentication(form, self._uploads, t),
        }
        if form.problems:
            return await self._show(request, form, status=400)
        added = address.of_module(module)
        try:
            await self._api.hub(address.hub).put(added.identity, document)
        except Refused as refused:
            if refused.status == 409:
                form.problems["module_id"] = t.plain("modules.taken")
            elif refused.field in MODULE_FIELDS:
                form.problems[MODULE_FIELDS[refused.field]] = refused.why
            else:
                raise
            return await self._show(request, form, status=refused.status)
        return done(request, added.page, "device.created", device=module)

    async def _show(self, request: Request, form: Form, *, status: int = 200) -> Response:
        address = Address.of(request)
        identity = await self._api.hub(address.hub).get(address.identity)
        return await self._pages.render(
            request,
            "modules/new.html",
            status=status,
            form=form,
            **frame(request, address, identity, "modules"),
        )

    async def _delete(self, request: Request, form: Form) -> Response:
        address, t, chosen = Address.of(request), text_of(request), form.all("select")
        back = f"{address.page}/modules"
        if not chosen:
            session(request).tell("warning", t.plain("modules.none_selected"))
            return RedirectResponse(back, 303)
        if not form.flag("confirmed"):
            title = t("modules.delete_several", count=len(chosen))
            return await self._pages.confirm(
                request, form, title=title, names=chosen, button=t("page.delete"), back=back
            )
        wanted = {"id": address.device, "importMode": "delete"}
        failed = await bulk(self._api.hub(address.hub), [{**wanted, "moduleId": each} for each in chosen])
        if len(failed) < len(chosen):
            said = t.plain("modules.deleted", count=len(chosen) - len(failed))
            session(request).tell("success", said)
        for module, why in failed.items():
            session(request).tell("error", t.plain("devices.failed", device=module, why=why))
        return RedirectResponse(back, 303)
