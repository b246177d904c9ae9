"""Make a certificate for me: what `moorage cert` makes, as a file to download. Keys are in it and nowhere else."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import get_args

from starlette.requests import Request
from starlette.responses import Response

from moorage.credentials.issuing import common_name
from moorage.credentials.keys import KeyType
from moorage.credentials.workshop.credential import (
    Credential,
    Wish,
    file_stem,
    forms,
    make_device,
    make_root,
)
from moorage.credentials.workshop.subject import check_common_name
from moorage.errors import Invalid
from moorage.portal.api import segment
from moorage.portal.forms import Form
from moorage.portal.pages import Pages, action, page, text_of

ROOT = "/make-certificate"
MAX_DEVICES = 100  # certificates below one root
CA_DAYS = 3650
KINDS = ("device", "root", "group")
KEY_TYPES: tuple[KeyType, ...] = get_args(KeyType)


class WorkshopPages:
    """`now` is the server's time, in microseconds."""

    def __init__(self, pages: Pages, now: Callable[[], int]) -> None:
        self._pages = pages
        self._now = now
        self.routes = (page(ROOT, self._show), action(ROOT, self._make))

    async def _show(self, request: Request) -> Response:
        kind = request.query_params.get("kind", "device")
        return await self._render(request, Form.of({"kind": kind, "days": "365", "keyType": "ec"}))

    async def _render(self, request: Request, form: Form, status: int = 200) -> Response:
        return await self._pages.render(
            request, "certificates/make.html", status=status, form=form, kinds=KINDS, key_types=KEY_TYPES
        )

    async def _make(self, request: Request, form: Form) -> Response:
        try:
            made = await asyncio.to_thread(self._credentials, form)
        except Invalid as error:
            field = {"--days": "days"}.get(error.field, error.field)
            form.problems[field if field in ("days", "devices", "kind") else "name"] = error.why
            return await self._render(request, form, 400)
        t = text_of(request)
        files = [("README.txt", t.plain("workshop.readme", name=made[0].common_name).encode())]
        for credential in made:
            stem = file_stem(credential.common_name)
            files += [(f"{stem}{form.suffix}", form.content) for form in forms(credential)]
        name = f"{file_stem(made[0].common_name)}.zip"
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{segment(name)}"}
        return Response(_zip(files), media_type="application/zip", headers=headers)

    def _credentials(self, form: Form) -> list[Credential]:
        """Raises Invalid."""
        kind, name = form.text("kind"), form.text("name")
        if kind not in KINDS:
            raise Invalid("kind", f"is one of {', '.join(KINDS)}")
        if kind == "device":
            return [make_device(self._wish(form, name))]
        root = make_root(self._wish(form, name, days=CA_DAYS))
        if kind == "root":
            return [root]
        devices = form.text("devices").split()
        if not 1 <= len(devices) <= MAX_DEVICES:
            raise Invalid("devices", f"name 1 to {MAX_DEVICES} devices, a line for each")
        return [root, *(make_device(self._wish(form, device, field="devices"), root) for device in devices)]

    def _wish(self, form: Form, name: str, *, days: int | None = None, field: str = "name") -> Wish:
        try:
            check_common_name(name)
        except Invalid as error:
            raise Invalid(field, error.why) from None
        if days is None:
            text = form.text("days")
            if not text.isdecimal() or len(text) > 6:
                raise Invalid("days", "is a number of days")
            days = int(text)
        key_type = next((each for each in KEY_TYPES if each == form.text("keyType")), KEY_TYPES[0])
        now = datetime.fromtimestamp(self._now() // 1_000_000, UTC)
        return Wish(common_name(name), now, days, key_type)


def _zip(files: list[tuple[str, bytes]]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o600 << 16
            archive.writestr(info, data)
    return content.getvalue()
