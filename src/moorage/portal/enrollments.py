"""Manage enrollments: individual enrollments and enrollment groups, their lists, and a form for one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from moorage.credentials.tpm import default_registration_id, read_storage_key
from moorage.errors import Invalid
from moorage.portal.api import Api, Refused, segment
from moorage.portal.certificate_upload import BadUpload, CertificateUploads
from moorage.portal.device_address import assigned_device
from moorage.portal.enrollment_changes import changes
from moorage.portal.enrollment_form import (
    SLOTS,
    Document,
    Noun,
    document_of,
    form_of,
    held_certificates,
    keep_uploads,
    mechanism_of,
    new_form,
    place_of,
    register_command,
)
from moorage.portal.enrollment_options import Options
from moorage.portal.forms import Form
from moorage.portal.pages import Pages, action, done, page, session, text_of
from moorage.portal.texts import Texts

PAGE = 50  # enrollments
BULK = 10  # deleted in one call
RESERVED = ("new", "delete", "rows")
"""Pages beside those of single enrollments. Ids are the same in any case, and these words are not."""


class EnrollmentPages:
    """Of one noun, individual enrollments or groups."""

    def __init__(self, api: Api, pages: Pages, uploads: CertificateUploads, noun: Noun) -> None:
        self._api = api
        self._pages = pages
        self._uploads = uploads
        self._noun = noun
        one = f"{noun.path}/{{id}}"
        self.routes = (
            page(noun.path, self._list),
            page(f"{noun.path}/rows", self._rows),
            action(f"{noun.path}/delete", self._delete),
            page(f"{noun.path}/new", self._new),
            action(f"{noun.path}/new", self._create),
            page(one, self._show),
            action(one, self._save),
            *(() if noun.is_group else (page(f"{one}/state", self._state),)),
        )

    # The list

    async def _list(self, request: Request) -> Response:
        values = await self._listed(request)
        service = await self._api.dps.get("/moorage/v1/service")
        return await self._pages.render(
            request, "enrollments/list.html", service=service, seen=digest(_shown(values)), **values
        )

    async def _rows(self, request: Request) -> Response:
        """The list again, where it has changed since the digest `seen`."""
        values = await self._listed(request)
        seen = digest(_shown(values))
        if request.query_params.get("seen") == seen:
            return Response(status_code=204)
        query = urlencode({"search": values["search"], "after": values["after"], "seen": seen})
        return self._pages.fragment(
            request,
            "enrollments/rows.html",
            headers={"moorage-next": f"{self._noun.path}/rows?{query}"},
            **values,
        )

    async def _listed(self, request: Request) -> dict[str, Any]:
        search, after = request.query_params.get("search", "").strip(), request.query_params.get("after", "")
        query = {
            "top": str(PAGE),
            **({"prefix": search} if search else {}),
            **({"after": after} if after else {}),
        }
        found = await self._api.dps.get(f"/moorage/v1{self._noun.api}/list", **query)
        hubs, enrollments = await self._api.hubs(), found[self._noun.list_member]
        return {
            "noun": self._noun,
            "enrollments": enrollments,
            "devices": [assigned_device(hubs, each.get("registrationState")) for each in enrollments],
            "continuation": found["next"],
            "search": search,
            "after": after,
            "href": self._href,
        }

    async def _delete(self, request: Request, form: Form) -> Response:
        ids, t = form.all("select"), text_of(request)
        if not ids:
            return done(request, self._noun.path, "enrollments.nothing_selected")
        if not form.flag("confirmed"):
            return await self._pages.confirm(
                request,
                form,
                title=t(f"{self._noun.texts}delete_title", count=len(ids)),
                names=ids,
                button=t("page.delete"),
                back=self._href(ids[0]) if form.flag("single") else self._noun.path,
            )
        failures = await self._delete_all(ids)
        for failure in failures[:5]:
            session(request).tell("error", f"{failure[self._noun.member]}: {failure['errorStatus']}")
        return done(request, self._noun.path, f"{self._noun.texts}deleted", count=len(ids) - len(failures))

    async def _delete_all(self, ids: Sequence[str]) -> list[Document]:
        failures: list[Document] = []
        for at in range(0, len(ids), BULK):
            wanted = [{self._noun.member: each} for each in dict.fromkeys(ids[at : at + BULK])]
            body = {"mode": "delete", self._noun.list_member: wanted}
            failures += (await self._api.dps.post(self._noun.api, body))["errors"]
        return failures

    # A new one

    async def _new(self, request: Request) -> Response:
        return await self._form(request, new_form())

    async def _create(self, request: Request, form: Form) -> Response:
        t = text_of(request)
        form = await self._with_uploads(form, t)
        document = document_of(form, self._noun, None, t)
        document[self._noun.member] = document[self._noun.member] or await self._name_of(form)
        name = document[self._noun.member]
        if not name and not form.problems:
            form.problems["id"] = t.plain(f"{self._noun.texts}id_missing")
        if not form.problems:
            try:
                await self._api.dps.put(self._path(name), document)
                return done(request, self._href(name), f"{self._noun.texts}created", id=name)
            except Refused as error:
                if error.status == 409:
                    form.problems["id"] = t.plain("enrollments.taken", id=name)
                elif not self._note(form, error):
                    raise
        return await self._form(request, form)

    async def _name_of(self, form: Form) -> str:
        """What clients without a name of their own register as: the common name, or a digest of the endorsement key."""
        if form.text("mechanism") == "x509" and not self._noun.is_group:
            text = form.text("primary_certificate") or form.text("secondary_certificate")
            return (await self._uploads.decoded(text, "client"))["commonName"] or "" if text else ""
        if form.text("mechanism") == "tpm" and (key := form.text("endorsement_key")):
            try:
                return default_registration_id(read_storage_key("endorsementKey", key))
            except Invalid as error:
                form.problems["endorsement_key"] = error.why
        return ""

    # One that there is

    async def _show(self, request: Request) -> Response:
        document = await self._document(request)
        return await self._form(request, form_of(document, self._noun), document=document)

    async def _state(self, request: Request) -> Response:
        """What became of the device's registration, where that has changed."""
        document = await self._document(request)
        seen = digest(document.get("registrationState"))
        if request.query_params.get("seen") == seen:
            return Response(status_code=204)
        address = f"{self._href(document[self._noun.member])}/state?seen={seen}"
        return self._pages.fragment(
            request,
            "enrollments/state.html",
            headers={"moorage-next": address},
            **await self._stated(document),
        )

    async def _stated(self, document: Document | None) -> Document:
        """A document, and the device that it has led to."""
        state = (document or {}).get("registrationState")
        device = assigned_device(await self._api.hubs(), state)
        return {"document": document, "device": device, "register_command": register_command}

    async def _save(self, request: Request, form: Form) -> Response:
        t, name = text_of(request), request.path_params["id"]
        form = await self._with_uploads(form, t)
        try:
            document = await self._document(request)
        except Refused as error:
            if error.status != 404:
                raise
            return await self._gone(request, form)
        wanted = document_of(form, self._noun, document, t)
        if not form.problems:
            try:
                await self._api.dps.put(self._path(name), wanted, if_match=form.text("etag"))
                return done(request, self._href(name), "enrollments.saved")
            except Refused as error:
                if error.status == 412:
                    return await self._overtaken(request, form, wanted)
                if not self._note(form, error):
                    raise
        return await self._form(request, form, document=document)

    async def _overtaken(self, request: Request, form: Form, wanted: Document) -> Response:
        """Somebody else was faster: both are shown, and the next save is over theirs."""
        current = await self._document(request)
        wanted = document_of(form, self._noun, current, text_of(request))
        form = form.with_fields(etag=current["etag"])
        differences = changes(wanted, current, text_of(request))
        return await self._form(
            request, form, document=current, status=412, differences=differences, overtaken=True
        )

    async def _gone(self, request: Request, form: Form) -> Response:
        return await self._form(request, form, status=404, gone=True)

    async def _document(self, request: Request) -> Document:
        document: Document = await self._api.dps.get(self._path(request.path_params["id"]))
        return document

    # Both

    async def _form(
        self,
        request: Request,
        form: Form,
        *,
        document: Document | None = None,
        status: int = 200,
        differences: Sequence[Any] = (),
        gone: bool = False,
        overtaken: bool = False,
    ) -> Response:
        dps, noun = self._api.dps, self._noun
        keys = None
        if (
            document
            and mechanism_of(document) == "symmetricKey"
            and request.query_params.get("keys") == "shown"
        ):
            name = document[noun.member]
            keys = (await dps.post(f"{self._path(name)}/attestationmechanism"))["symmetricKey"]
        return await self._pages.render(
            request,
            "enrollments/form.html",
            status=400 if form.problems and status == 200 else status,
            noun=noun,
            form=form,
            **await self._stated(document),
            differences=differences,
            gone=gone,
            overtaken=overtaken,
            keys=keys,
            held=held_certificates(document, noun) if document else dict.fromkeys(SLOTS),
            chosen={slot: await self._chosen(form, slot) for slot in SLOTS},
            service=await dps.get("/moorage/v1/service"),
            options=Options(
                noun,
                form,
                text_of(request),
                linked=await dps.get("/moorage/v1/linkedHubs"),
                authorities=await dps.get("/moorage/v1/caCertificates"),
                policies=await dps.get("/moorage/v1/credentialPolicies"),
            ),
            href=self._href,
            seen=digest((document or {}).get("registrationState")),
        )

    async def _with_uploads(self, form: Form, t: Texts) -> Form:
        """`form` with the certificates that were chosen in hidden fields; what is none is a problem of its field."""
        form = keep_uploads(form, t)
        for slot in SLOTS:
            try:
                await self._chosen(form, slot)
            except BadUpload as error:
                form.problems[f"{slot}_file"] = t.plain(error.key, **error.values)
                form = form.with_fields(**{f"{slot}_certificate": None})
        return form

    async def _chosen(self, form: Form, slot: str) -> Document | None:
        """What is in a certificate that was chosen, and is kept in the form."""
        text = form.text(f"{slot}_certificate")
        return await self._uploads.decoded(text, self._noun.use, form.text("id")) if text else None

    def _note(self, form: Form, error: Refused) -> bool:
        """Put what the API says to the field that it is about, or above the form; False where it is not the form's."""
        if error.status != 400 and error.status != 501:
            return False
        field, why = place_of(error.message)
        form.problems[field or "form"] = why
        return True

    def _path(self, name: str) -> str:
        return f"{self._noun.api}/{segment(name)}"

    def _href(self, name: str) -> str:
        return enrollment_href(self._noun, name)


def enrollment_href(noun: Noun, name: str) -> str:
    """The page of the one with that id."""
    return f"{noun.path}/{segment(name.upper() if name in RESERVED else name)}"


def _shown(listed: Document) -> object:
    return listed["enrollments"], listed["continuation"]


def digest(shown: object) -> str:
    """Tells whether what is shown has changed."""
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]
