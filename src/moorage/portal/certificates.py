"""CA certificates of the provisioning service and of each hub: upload, proof of possession, download, delete."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from moorage.portal.api import Api, Refused, segment
from moorage.portal.certificate_upload import BadUpload, certificate_text
from moorage.portal.forms import Form
from moorage.portal.owners import Owner
from moorage.portal.pages import Pages, action, done, page, text_of


class CertificatePages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes: tuple[Route, ...] = (
            *self._below("/certificates"),
            *self._below("/hubs/{hub}/certificates"),
        )

    def _below(self, root: str) -> Iterator[Route]:
        one = f"{root}/{{certificate}}"
        yield page(root, self._list)
        yield action(root, self._upload)
        yield page(one, self._show)
        yield page(f"{one}/download", self._download)
        yield action(f"{one}/code", self._generate_code)
        yield action(f"{one}/verify", self._verify)
        yield action(f"{one}/delete", self._delete)

    async def _list(self, request: Request) -> Response:
        return await self._render_list(request, Form.of({}))

    async def _render_list(self, request: Request, form: Form, status: int = 200) -> Response:
        owner = _owner(self._api, request)
        found = await owner.service.get(owner.path)
        return await self._pages.render(
            request, "certificates/list.html", status=status, owner=owner, certificates=found, form=form
        )

    async def _upload(self, request: Request, form: Form) -> Response:
        owner, name, t = _owner(self._api, request), form.text("name"), text_of(request)
        if not name:
            form.problems["name"] = t.plain("certificates.name_missing")
        text = _uploaded(request, form)
        if text is None or form.problems:
            return await self._render_list(request, form, 400)
        wanted = {"properties": {"certificate": text, "isVerified": form.flag("isVerified")}}
        try:
            await owner.service.put(owner.api_path(name), wanted)
        except Refused as refused:
            form.problems["name" if refused.status == 409 else "file"] = refused.message
            return await self._render_list(request, form, refused.status)
        return done(request, owner.page(name), "certificates.uploaded", name=name)

    async def _show(self, request: Request) -> Response:
        owner = _owner(self._api, request)
        return await self._render_one(request, owner, Form.of({}))

    async def _render_one(self, request: Request, owner: Owner, form: Form, status: int = 200) -> Response:
        found: Mapping[str, Any] = await owner.service.get(owner.api_path(_name(request)))
        return await self._pages.render(
            request, "certificates/show.html", status=status, owner=owner, certificate=found, form=form
        )

    async def _download(self, request: Request) -> Response:
        owner, name = _owner(self._api, request), _name(request)
        found = await owner.service.get(owner.api_path(name))
        pem = ssl.DER_cert_to_PEM_cert(base64.b64decode(found["properties"]["certificate"]))
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{segment(name)}.pem"}
        return Response(pem, media_type="application/x-pem-file", headers=headers)

    async def _generate_code(self, request: Request, form: Form) -> Response:
        owner, name = _owner(self._api, request), _name(request)
        await owner.service.post(f"{owner.api_path(name)}/generateVerificationCode")
        return done(request, owner.page(name), "certificates.code_made")

    async def _verify(self, request: Request, form: Form) -> Response:
        owner, name = _owner(self._api, request), _name(request)
        text = _uploaded(request, form)
        if text is None:
            return await self._render_one(request, owner, form, 400)
        try:
            await owner.service.post(f"{owner.api_path(name)}/verify", {"certificate": text})
        except Refused as refused:
            form.problems["file"] = refused.message
            return await self._render_one(request, owner, form, refused.status)
        return done(request, owner.page(name), "certificates.was_verified", name=name)

    async def _delete(self, request: Request, form: Form) -> Response:
        return await _owner(self._api, request).delete(
            self._pages,
            request,
            form,
            _name(request),
            title="certificates.delete_title",
            said="certificates.deleted",
        )


def _uploaded(request: Request, form: Form) -> str | None:
    """The file of the form as the API takes it; what is wrong with it becomes the field's problem."""
    upload, t = form.upload("file"), text_of(request)
    if upload is None:
        form.problems["file"] = t.plain("certificates.file_missing")
        return None
    try:
        return certificate_text(upload)
    except BadUpload as error:
        form.problems["file"] = t.plain(error.key, **error.values)
        return None


def _owner(api: Api, request: Request) -> Owner:
    return Owner(api, request, "certificates", of_service="caCertificates")


def _name(request: Request) -> str:
    return str(request.path_params["certificate"])
