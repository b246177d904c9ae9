"""Message to device: leaving a message for a device, and the queue of those that wait for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, Refused, segment
from moorage.portal.device_address import Address
from moorage.portal.device_frame import DEVICE, frame
from moorage.portal.forms import Form
from moorage.portal.pages import Pages, action, done, page, text_of
from moorage.portal.texts import Texts

PAGE = f"{DEVICE}/messages"
TEXTS = {
    "messageId": "message_id",
    "correlationId": "correlation_id",
    "contentType": "content_type",
    "contentEncoding": "content_encoding",
    "expiryTimeUtc": "expiry",
    "ack": "ack",
}
"""Members of a message whose fields hold them as they are."""
FIELDS = {
    **TEXTS,
    "absolute-expiry-time": "expiry",
    "message": "body",
    "properties": "properties",
}


class MessagePages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes = (
            page(PAGE, self._form),
            action(PAGE, self._send),
            page(f"{PAGE}/queue", self._queue),
            action(f"{PAGE}/purge", self._purge),
            page(f"{PAGE}/{{sequence}}", self._message),
        )

    async def _form(self, request: Request) -> Response:
        form = Form.of({"content_type": "application/json", "content_encoding": "utf-8", "ack": "none"})
        return await self._show(request, form)

    async def _send(self, request: Request, form: Form) -> Response:
        address, t = Address.of(request), text_of(request)
        message: dict[str, Any] = {member: form.text(field) or None for member, field in TEXTS.items()}
        message["properties"] = read_properties(form, t)
        message["body"] = base64.b64encode(form.text("body").encode()).decode()
        if not form.problems:
            try:
                await self._api.hub(address.hub).post(f"{address.control}/messages", message)
                return done(request, f"{address.page}/messages", "messages.sent", device=address.device)
            except Refused as refused:
                if refused.status == 403:  # no room
                    form.problems["body"] = refused.message
                elif refused.field in FIELDS:
                    form.problems[FIELDS[refused.field]] = refused.why
                else:
                    raise
        return await self._show(request, form, status=400)

    async def _show(self, request: Request, form: Form, *, status: int = 200) -> Response:
        address = Address.of(request)
        identity = await self._api.hub(address.hub).get(address.identity)
        return await self._pages.render(
            request,
            "device/messages.html",
            status=status,
            form=form,
            **await self._waiting(address),
            **frame(request, address, identity, "messages"),
        )

    async def _queue(self, request: Request) -> Response:
        """What waits, where that is not what the page shows already."""
        address = Address.of(request)
        values = await self._waiting(address)
        if request.query_params.get("seen") == values["seen"]:
            return Response(status_code=204)
        headers = {"moorage-next": values["live_queue"]}
        return self._pages.fragment(request, "device/_queue.html", headers=headers, address=address, **values)

    async def _waiting(self, address: Address) -> dict[str, Any]:
        queue: Sequence[Mapping[str, Any]] = await self._api.hub(address.hub).get(
            f"{address.control}/messages"
        )
        seen = sha256(json.dumps(queue).encode()).hexdigest()[:16]
        live = f"{address.page}/messages/queue?seen={seen}"
        return {"queue": queue, "seen": seen, "live_queue": live}

    async def _purge(self, request: Request, form: Form) -> Response:
        address, t = Address.of(request), text_of(request)
        back = f"{address.page}/messages"
        if not form.flag("confirmed"):
            return await self._pages.confirm(
                request,
                form,
                title=t("messages.purge_title"),
                names=[address.device],
                button=t("messages.purge"),
                back=back,
            )
        answer = await self._api.hub(address.hub).call("DELETE", f"{address.identity}/commands")
        return done(request, back, "messages.purged", count=answer.document["totalMessagesPurged"])

    async def _message(self, request: Request) -> Response:
        """One message with its body, which stays in the queue."""
        address, sequence = Address.of(request), request.path_params["sequence"]
        message = await self._api.hub(address.hub).get(f"{address.control}/messages/{segment(sequence)}")
        body = base64.b64decode(message["body"])
        return await self._pages.render(
            request,
            "device/message.html",
            address=address,
            message=message,
            body=readable(body, message["contentType"]),
        )


def read_properties(form: Form, t: Texts) -> dict[str, str]:
    """A line for each, its name before the first equals sign."""
    properties = {}
    for number, line in enumerate(form.text("properties").splitlines(), 1):
        name, sign, value = line.partition("=")
        if not line.strip():
            continue
        if not sign or not name.strip():
            form.problems["properties"] = t.plain("messages.no_property", line=number)
            break
        properties[name.strip()] = value.strip()
    return properties


def readable(body: bytes, content_type: str | None) -> str:
    """As text, JSON with its lines; what is no text in hexadecimal digits."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body.hex(" ")
    if content_type and "json" in content_type.lower():
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass
    return text
