"""Direct methods: call one of a device or module, and see what it answers."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, Refused
from moorage.portal.device_address import Address
from moorage.portal.device_frame import DEVICE, MODULE, frame
from moorage.portal.forms import Form
from moorage.portal.pages import Pages, action, page, text_of
from moorage.portal.texts import Texts

FIELDS = {
    "methodName": "name",
    "payload": "payload",
    "responseTimeoutInSeconds": "response_timeout",
    "connectTimeoutInSeconds": "connect_timeout",
}
IN_WORDS = {
    404103: "method.not_online",
    404104: "method.lost",
    504101: "method.no_answer",
    502000: "method.bad_answer",
    403800: "method.too_many",
}
"""What it means that a call came to nothing, by the hub's code [hub-service 9]."""


class MethodPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = tuple(
            route
            for path in (DEVICE, MODULE)
            for route in (page(f"{path}/method", self._form), action(f"{path}/method", self._invoke))
        )

    async def _form(self, request: Request) -> Response:
        return await self._show(request, Form.of({"connect_timeout": 0, "response_timeout": 30}))

    async def _invoke(self, request: Request, form: Form) -> Response:
        """Shows what came of it below the form, which stays as it is: calls are often made again."""
        address, t = Address.of(request), text_of(request)
        call = {
            "methodName": form.text("name"),
            "payload": form.json_value("payload", t),
            "connectTimeoutInSeconds": _seconds(form, "connect_timeout", t),
            "responseTimeoutInSeconds": _seconds(form, "response_timeout", t),
        }
        if form.problems:
            return await self._show(request, form, status=400)
        try:
            answer = await self._api.hub(address.hub).post(f"{address.twin}/methods", call)
        except Refused as refused:
            if refused.code not in IN_WORDS and refused.field not in FIELDS:
                raise
            if refused.field in FIELDS:
                form.problems[FIELDS[refused.field]] = refused.why
                return await self._show(request, form, status=refused.status)
            return await self._show(request, form, refused=refused)
        return await self._show(request, form, answer=answer)

    async def _show(
        self,
        request: Request,
        form: Form,
        *,
        status: int = 200,
        answer: dict[str, Any] | None = None,
        refused: Refused | None = None,
    ) -> Response:
        address = Address.of(request)
        identity = await self._api.hub(address.hub).get(address.identity)
        return await self._pages.render(
            request,
            "device/method.html",
            status=status,
            form=form,
            answer=answer,
            payload=json.dumps(answer["payload"], indent=2, ensure_ascii=False) if answer else "",
            refused=refused,
            in_words=IN_WORDS[refused.code] if refused else "",
            **frame(request, address, identity, "method"),
        )


def _seconds(form: Form, name: str, t: Texts) -> int | None:
    """None, for the default, where it is empty."""
    text = form.text(name)
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        form.problems[name] = t.plain("method.no_seconds")
        return None
    return int(text)
