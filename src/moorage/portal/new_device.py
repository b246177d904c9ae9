"""Adding a device to a hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, Refused, Service, segment
from moorage.portal.certificate_upload import CertificateUploads
from moorage.portal.device_address import Address, devices_path
from moorage.portal.device_certificates import read_thumbprints
from moorage.portal.forms import Form
from moorage.portal.pages import Pages, action, done, page, text_of
from moorage.portal.texts import Texts

NEW = "/hubs/{hub}/devices/~new"
"""No id holds a tilde, so that this is the page of no device."""

FIELDS = {
    "deviceId": "device_id",
    "authentication.symmetricKey.primaryKey": "primary_key",
    "authentication.symmetricKey.secondaryKey": "secondary_key",
    "authentication.x509Thumbprint": "primary_thumbprint",
    "authentication.x509Thumbprint.primaryThumbprint": "primary_thumbprint",
    "authentication.x509Thumbprint.secondaryThumbprint": "secondary_thumbprint",
    "statusReason": "status_reason",
    "deviceScope": "parent",
    "parentScopes": "parent",
}
"""The field of a form for each member of an identity that may be found wrong."""


class NewDevicePages:
    def __init__(self, api: Api, pages: Pages, uploads: CertificateUploads) -> None:
        self._api = api
        self._uploads = uploads
        self._pages = pages
        self.routes = (page(NEW, self._new), action(NEW, self._create))

    async def _new(self, request: Request) -> Response:
        return await self._show(
            request, Form.of({"authentication": "sas", "auto_keys": True, "status": "enabled"})
        )

    async def _create(self, request: Request, form: Form) -> Response:
        hub, t = request.path_params["hub"], text_of(request)
        service, device_id = self._api.hub(hub), form.text("device_id")
        if not device_id:
            form.problems["device_id"] = t.plain("device.needs_id")
        document = {
            "deviceId": device_id,
            "status": form.text("status") or "enabled",
            "capabilities": {"iotEdge": form.flag("edge")},
            "authentication": await read_authentication(form, self._uploads, t),
            **await parent_scope(service, form, t),
        }
        if form.problems:
            return await self._show(request, form, 400)
        address = Address(hub, device_id)
        try:
            await service.put(address.identity, document)
        except Refused as refused:
            if not place_problem(form, refused, t):
                raise
            return await self._show(request, form, refused.status)
        return done(request, address.page, "device.created", device=device_id)

    async def _show(self, request: Request, form: Form, status: int = 200) -> Response:
        hub = request.path_params["hub"]
        await self._api.dps.get(f"/moorage/v1/hubs/{segment(hub)}")  # whether there is such a hub
        path = devices_path(hub)
        return await self._pages.render(request, "devices/new.html", status=status, form=form, path=path)


async def read_authentication(form: Form, uploads: CertificateUploads, t: Texts) -> dict[str, Any]:
    """As the registry takes it. Keys that are left empty are the hub's to make."""
    match form.text("authentication"):
        case "selfSigned":
            return {"type": "selfSigned", "x509Thumbprint": await read_thumbprints(form, uploads, t)}
        case "certificateAuthority":
            return {"type": "certificateAuthority"}
        case _:
            auto = form.flag("auto_keys")
            keys = {
                "primaryKey": "" if auto else form.text("primary_key"),
                "secondaryKey": "" if auto else form.text("secondary_key"),
            }
            return {"type": "sas", "symmetricKey": keys}


async def parent_scope(service: Service, form: Form, t: Texts) -> Mapping[str, Any]:
    """The parent that the form names by its id, as a child's identity has it [hub-service 5.3]."""
    parent = form.text("parent")
    if not parent:
        return {}
    try:
        scope = (await service.get(Address("", parent).identity)).get("deviceScope")
    except Refused:
        scope = None
    if not scope:
        form.problems["parent"] = t.plain("device.no_parent", parent=parent)
        return {}
    return {"parentScopes": [scope]} if form.flag("edge") else {"deviceScope": scope}


def place_problem(form: Form, refused: Refused, t: Texts) -> bool:
    """Make what the registry refused the problem of its field; whether there is one."""
    if refused.status == 409:
        form.problems["device_id"] = t.plain("device.taken")
        return True
    field = FIELDS.get(refused.field, "")
    if field:
        form.problems[field] = refused.why
    return bool(field)
