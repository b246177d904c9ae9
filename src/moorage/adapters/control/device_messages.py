"""Cloud-to-device messages of one device or module: what waits, and sending without AMQP.

`hubs/{hub}/devices/{device}/messages` and the same below its modules. Azure shows a queue to nobody, and takes
messages over AMQP alone; what is sent here is the same message in the same queue. [hub-service 11]
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response, whole_number
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.errors import Invalid, NotFound
from moorage.hub.cloud_to_device import CloudToDeviceMessage, Content, read_ack
from moorage.hub.device_queues import Waiting
from moorage.hub.identity import Identities
from moorage.hub.twin import timestamp

_NEEDS = Needs(hub=(SERVICE_CONNECT,))
_TEXTS = ("messageId", "correlationId", "userId", "contentType", "contentEncoding")


class DeviceMessageRoutes:
    def __init__(self, identities_of: Callable[[int], Identities]) -> None:
        """`identities_of` has the identities of the hub of a scope."""
        self._identities_of = identities_of
        device = "hubs/{hub}/devices/{device}"
        self.routes = tuple(
            Route(method, f"{path}{below}", _NEEDS, verb)
            for path in (device, f"{device}/modules/{{module}}")
            for method, below, verb in (
                ("GET", "/messages", self._list),
                ("POST", "/messages", self._send),
                ("GET", "/messages/{sequenceNumber}", self._show),
            )
        )

    async def _list(self, call: Call) -> Response:
        return json_response([message_view(each) for each in await self._waiting(call)])

    async def _show(self, call: Call) -> Response:
        """One of them, with its body."""
        number = whole_number(call.named["sequenceNumber"])
        for each in await self._waiting(call):
            if each.message.sequence_number == number:
                body = await self._identities(call).queues.body(each.message)
                if body is not None:
                    return json_response({**message_view(each), "body": base64.b64encode(body).decode()})
        raise NotFound("message", call.named["sequenceNumber"][:50])

    async def _send(self, call: Call) -> Response:
        """201 once the message is durable."""
        device_id, module_id = call.named["device"], call.named.get("module")
        to = f"/devices/{device_id}{f'/modules/{module_id}' if module_id else ''}/messages/devicebound"
        content = read_content(to, call.request.json_object())
        message = await self._identities(call).queues.send(device_id, module_id, content)
        return json_response(message_view(Waiting(message, underway=False)), 201)

    async def _waiting(self, call: Call) -> list[Waiting]:
        """Raises NotFound for who does not exist."""
        identities, module_id = self._identities(call), call.named.get("module")
        if module_id is None:
            name = (await identities.get(call.named["device"])).name
        else:
            name = (await identities.modules.get(call.named["device"], module_id)).name
        return identities.queues.waiting(name)

    def _identities(self, call: Call) -> Identities:
        return self._identities_of(call.the_hub.scope)


def read_content(to: str, document: Mapping[str, Any]) -> Content:
    """A message as JSON has it, its body in base64. Raises Invalid."""
    texts = {name: _text(name, document.get(name)) for name in _TEXTS}
    properties = document.get("properties") or {}
    if not isinstance(properties, Mapping):
        raise Invalid("properties", "is an object of names and texts")
    return Content(
        to=to,
        body=_body(document.get("body")),
        ack=read_ack(_text("ack", document.get("ack"))),
        message_id=texts["messageId"],
        correlation_id=texts["correlationId"],
        user_id=texts["userId"],
        content_type=texts["contentType"],
        content_encoding=texts["contentEncoding"],
        absolute_expiry_time=_time(document.get("expiryTimeUtc")),
        properties=tuple((name, _text("properties", value)) for name, value in properties.items()),
    )


def message_view(waiting: Waiting) -> dict[str, Any]:
    """As clients of this API read it."""
    message: CloudToDeviceMessage = waiting.message
    return {
        "sequenceNumber": message.sequence_number,
        "state": "Underway" if waiting.underway else "Enqueued",
        "messageId": message.message_id,
        "correlationId": message.correlation_id,
        "userId": message.user_id,
        "contentType": message.content_type,
        "contentEncoding": message.content_encoding,
        "to": message.to,
        "ack": message.ack.value,
        "enqueuedTimeUtc": timestamp(message.enqueued_time),
        "expiryTimeUtc": timestamp(message.expires_at),
        "deliveryCount": message.delivery_count,
        "size": message.size,
        "properties": dict(message.properties),
    }


def _text(field: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Invalid(field, "is a text")
    if value and any("\ud800" <= character <= "\udfff" for character in value):
        raise Invalid(field, "holds half of a surrogate pair")
    return value or None


def _body(value: object) -> bytes:
    try:
        return base64.b64decode(_text("body", value) or "", validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("content", "the body is to be in base64") from None


def _time(value: object) -> int | None:
    """Microseconds. A time without a zone is taken for UTC."""
    text = _text("expiryTimeUtc", value)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        raise Invalid("expiryTimeUtc", "is a time such as 2027-01-15T08:00:00Z") from None
