"""One device: its identity, keys and status; and of a module the same. Its other pages have modules of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, Refused, segment
from moorage.portal.certificate_upload import CertificateUploads
from moorage.portal.device_address import Address, devices_path
from moorage.portal.device_certificates import read_thumbprints
from moorage.portal.device_frame import DEVICE, MODULE, frame
from moorage.portal.device_search import DeviceSearch, quoted
from moorage.portal.forms import Form
from moorage.portal.new_device import place_problem
from moorage.portal.pages import Pages, action, done, page, text_of

KEYS_VERSION = "2024-03-31"  # since when the registry renews keys [hub-service 5.6]
_SCOPE = re.compile(r"ms-azure-iot-edge://(.+)-[^-]+")
RENEWED = {"primary": "primaryKey", "secondary": "secondaryKey"}


class DevicePages:
    def __init__(self, api: Api, pages: Pages, uploads: CertificateUploads) -> None:
        self._api = api
        self._uploads = uploads
        self._pages = pages
        self.routes = (
            page(DEVICE, self._details),
            page(MODULE, self._details),
            action(f"{DEVICE}/identity", self._save),
            action(f"{DEVICE}/thumbprints", self._save_thumbprints),
            action(f"{MODULE}/thumbprints", self._save_thumbprints),
            action(f"{DEVICE}/keys", self._renew),
            action(f"{MODULE}/keys", self._renew),
            action(f"{DEVICE}/delete", self._delete),
            action(f"{MODULE}/delete", self._delete),
        )

    async def _details(self, request: Request) -> Response:
        address = Address.of(request)
        identity = await self._api.hub(address.hub).get(address.identity)
        return await self._show(request, address, identity, _form_of(identity))

    async def _show(
        self,
        request: Request,
        address: Address,
        identity: Mapping[str, Any],
        form: Form,
        *,
        status: int = 200,
        overtaken: bool = False,
    ) -> Response:
        hub = await self._api.dps.get(f"/moorage/v1/hubs/{segment(address.hub)}")
        return await self._pages.render(
            request,
            "device/details.html",
            status=status,
            form=form,
            strings=connection_strings(hub["hostName"], identity),
            parents=parents(address, identity),
            children=children(address, identity),
            overtaken=overtaken,
            **frame(request, address, identity, ""),
        )

    # What can be changed

    async def _save(self, request: Request, form: Form) -> Response:
        """Whether it may connect, and why not."""
        changes = {"status": form.text("status"), "statusReason": form.text("status_reason") or None}
        return await self._update(request, form, changes)

    async def _save_thumbprints(self, request: Request, form: Form) -> Response:
        t = text_of(request)
        thumbprints = await read_thumbprints(form, self._uploads, t)
        changes = {"authentication": {"type": "selfSigned", "x509Thumbprint": thumbprints}}
        return await self._update(request, form, changes)

    async def _update(self, request: Request, form: Form, changes: Mapping[str, Any]) -> Response:
        """An update replaces all of an identity: what the form has not is taken as it stands.

        What somebody else has changed since the page was made comes with what the form says, to choose.
        """
        address, t = Address.of(request), text_of(request)
        service = self._api.hub(address.hub)
        identity = await service.get(address.identity)
        if not form.problems:
            try:
                await service.put(address.identity, {**identity, **changes}, if_match=form.text("etag"))
                return done(request, address.page, "device.saved", device=address.name)
            except Refused as refused:
                overtaken = refused.status == 412
                if not overtaken and not place_problem(form, refused, t):
                    raise
        else:
            overtaken = False
        fields = {**_form_of(identity).fields, **form.fields, "etag": [identity["etag"]]}
        form = Form(fields, form.uploads, form.problems)
        status = 412 if overtaken else 400
        return await self._show(request, address, identity, form, status=status, overtaken=overtaken)

    async def _renew(self, request: Request, form: Form) -> Response:
        """New keys in place of one or the other, or both in each other's place."""
        address, t, what = Address.of(request), text_of(request), form.text("do")
        if not form.flag("confirmed"):
            return await self._pages.confirm(
                request,
                form,
                title=t("device.keys_title"),
                names=[address.name],
                button=t("device.swap") if what == "swap" else t("device.renew"),
                back=address.page,
            )
        service = self._api.hub(address.hub)
        if what == "swap":
            identity = await service.get(address.identity)
            keys = identity["authentication"]["symmetricKey"]
            swapped = {"primaryKey": keys["secondaryKey"], "secondaryKey": keys["primaryKey"]}
            identity["authentication"]["symmetricKey"] = swapped
            await service.put(address.identity, identity, if_match=identity["etag"])
            return done(request, address.page, "device.swapped", device=address.name)
        wanted = {"id": address.device, **({"moduleId": address.module} if address.module else {})}
        body = {"policyKey": RENEWED.get(what, ""), "devices": [wanted]}
        await service.call("POST", "/devices/keys/regenerate", body, api_version=KEYS_VERSION)
        return done(request, address.page, "device.renewed", device=address.name)

    async def _delete(self, request: Request, form: Form) -> Response:
        address, t = Address.of(request), text_of(request)
        if not form.flag("confirmed"):
            title = t("device.delete_title") if address.module is None else t("modules.delete_title")
            return await self._pages.confirm(
                request,
                form,
                title=title,
                names=[address.name],
                button=t("page.delete"),
                back=address.page,
            )
        await self._api.hub(address.hub).delete(address.identity)
        if address.module is None:
            return done(request, devices_path(address.hub), "devices.deleted", count=1)
        return done(request, f"{address.of_device.page}/modules", "modules.deleted", count=1)


def connection_strings(host: str, identity: Mapping[str, Any]) -> dict[str, str]:
    """What a device or module is configured with [hub-device 2.1], by the key that is in it; `x509` has none."""
    place = f"HostName={host};DeviceId={identity['deviceId']}"
    if identity.get("moduleId"):
        place += f";ModuleId={identity['moduleId']}"
    match identity["authentication"]["type"]:
        case "sas":
            keys = identity["authentication"]["symmetricKey"]
            return {which: f"{place};SharedAccessKey={keys[member]}" for which, member in RENEWED.items()}
        case "selfSigned" | "certificateAuthority":
            return {"x509": f"{place};x509=true"}
        case _:
            return {}


def parents(address: Address, identity: Mapping[str, Any]) -> list[Address]:
    """The edge devices that it connects through, by their scopes [hub-service 5.3]."""
    found = map(_SCOPE.fullmatch, identity.get("parentScopes", ()))
    return [Address(address.hub, scope[1]) for scope in found if scope]


def children(address: Address, identity: Mapping[str, Any]) -> str:
    """Where the list shows the devices that connect through an edge device; empty for any other."""
    if not identity.get("capabilities", {}).get("iotEdge"):
        return ""
    wanted = f"SELECT * FROM devices WHERE ARRAY_CONTAINS(parentScopes, {quoted(identity['deviceScope'])})"
    return f"{devices_path(address.hub)}?{DeviceSearch(query=wanted).address}"


def _form_of(identity: Mapping[str, Any]) -> Form:
    thumbprints = identity["authentication"]["x509Thumbprint"]
    return Form.of(
        {
            "etag": identity["etag"],
            "status": identity.get("status"),
            "status_reason": identity.get("statusReason"),
            "primary_thumbprint": thumbprints["primaryThumbprint"],
            "secondary_thumbprint": thumbprints["secondaryThumbprint"],
        }
    )
