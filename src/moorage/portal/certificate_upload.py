"""Certificates as they are uploaded: what must not be kept is refused, the rest is shown decoded before it is saved."""

from __future__ import annotations

import base64
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from moorage.credentials.workshop.inspection import MAX_SIZE, holds_private_key
from moorage.portal.api import Api, Refused
from moorage.portal.forms import Form, Upload
from moorage.portal.pages import Pages, action

MAX_CERTIFICATE = 64 * 1024  # bytes of a file
ACCEPT = ".pem,.cer,.crt,.der"

Use = Literal["client", "signing"]


class BadUpload(Exception):
    """The text `key` says why a file will not do. `secret` is one that must not be sent again."""

    def __init__(self, key: str, *, secret: bool = False, **values: object) -> None:
        super().__init__(key)
        self.key = key
        self.secret = secret
        self.values = values


def certificate_text(upload: Upload) -> str:
    """What the APIs take for a certificate. Raises BadUpload."""
    if not upload.content.strip():
        raise BadUpload("certificate_upload.empty")
    if len(upload.content) <= MAX_SIZE and holds_private_key(upload.content):
        raise BadUpload("certificate_upload.private_key", secret=True)
    if len(upload.content) > MAX_CERTIFICATE:
        raise BadUpload("certificate_upload.too_large", limit=MAX_CERTIFICATE // 1024)
    if upload.content.isascii():
        return upload.content.decode()
    return base64.b64encode(upload.content).decode()


class CertificateUploads:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = (action("/certificates/preview", self._preview),)

    async def decoded(self, text: str, use: Use, registration_id: str = "") -> dict[str, Any]:
        """`certificates`, `commonName` and `obstacles`, as `/moorage/v1/certificates/preview` has them.

        Raises BadUpload.
        """
        wanted = {"certificate": text, "use": use, "registrationId": registration_id}
        try:
            found: dict[str, Any] = await self._api.dps.post("/moorage/v1/certificates/preview", wanted)
        except Refused as error:
            if error.status != 400:
                raise
            raise BadUpload("certificate_upload.none", why=error.message.partition(": ")[2]) from None
        return found

    async def _preview(self, request: Request, form: Form) -> Response:
        """A piece of a page, for the script of `parts.file`."""
        use: Use = "signing" if request.query_params.get("use") == "signing" else "client"
        decoded = problem = None
        upload = form.upload("file")
        try:
            if upload is None:
                raise BadUpload("certificate_upload.empty")
            decoded = await self.decoded(certificate_text(upload), use, form.text("id"))
        except BadUpload as error:
            problem = error
        return self._pages.fragment(request, "enrollments/preview.html", decoded=decoded, problem=problem)
