"""Cloud-to-device messages: what a back end leaves for one device or module. [hub-service 11, hub-device 8]

A message is kept as two records: its head, which is also held in memory, and its body, which is read when a
connection of the device has room for it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from moorage.errors import Invalid, MoorageError, PreconditionFailed, TooLarge
from moorage.hub.session import name_of
from moorage.interfaces import Kind

MAX_QUEUE = 50
"""Messages for one device, those that are underway included. [hub-device 13]"""

MAX_MESSAGE = 64 * 1024
"""Bytes of body and properties."""

SECOND = 1_000_000  # microseconds
_MINUTE = 60 * SECOND
_MAX_LIFE = 2 * 24 * 60 * _MINUTE


class QueueFull(MoorageError):
    """As many messages wait for `name` as may."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{MAX_QUEUE} messages wait for {name!r}, more are not kept")
        self.name = name
        self.remedy = "Let the device take some, or purge its queue."


class InvalidExpiry(Invalid):
    """An expiry that is past, or too far away."""


class LockLost(PreconditionFailed):
    """Whoever settles has no lock any more, or never had one."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(kind, key)
        self.args = (f"the lock on {kind} {key!r} has ended",)


class Ack(StrEnum):
    """Of which outcomes the sender wants to hear."""

    NONE = "none"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    FULL = "full"


def read_ack(text: str | None) -> Ack:
    """`iothub-ack` in any case; nothing means none. Raises Invalid."""
    try:
        return Ack((text or Ack.NONE).lower())
    except ValueError:
        raise Invalid("iothub-ack", f"{text!r:.50} is not one of {', '.join(Ack)}") from None


@dataclass(frozen=True, kw_only=True)
class CloudToDeviceSettings:
    """How a hub keeps messages and feedback; times in seconds. [hub-service 22]"""

    default_ttl: int = 3600
    max_delivery_count: int = 10
    lock: int = 60
    feedback_lock: int = 60
    feedback_ttl: int = 3600
    feedback_max_delivery_count: int = 10

    def __post_init__(self) -> None:
        for field, value, low, high in (
            ("defaultTtlAsIso8601", self.default_ttl, 60, 172_800),
            ("maxDeliveryCount", self.max_delivery_count, 1, 100),
            ("lock", self.lock, 5, 300),
            ("feedback.lockDurationAsIso8601", self.feedback_lock, 5, 300),
            ("feedback.ttlAsIso8601", self.feedback_ttl, 60, 172_800),
            ("feedback.maxDeliveryCount", self.feedback_max_delivery_count, 1, 100),
        ):
            if not low <= value <= high:
                raise Invalid(field, f"it is {value}, and has to be from {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a sender hands in: all of a message but what the hub adds.

    `to` is kept as it was written: clients compare it. Properties keep their order. `absolute_expiry_time` is in
    microseconds, None where the hub's default counts.
    """

    to: str
    body: bytes
    ack: Ack = Ack.NONE
    message_id: str | None = None
    correlation_id: str | None = None
    user_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    absolute_expiry_time: int | None = None
    properties: tuple[tuple[str, str | None], ...] = ()

    def check(self, now: int) -> None:
        """Raises TooLarge, InvalidExpiry."""
        if self._size() > MAX_MESSAGE:
            raise TooLarge("message", f"with its properties it is over {MAX_MESSAGE} bytes")
        expiry = self.absolute_expiry_time
        if expiry is not None and not now < expiry <= now + _MAX_LIFE:
            raise InvalidExpiry("absolute-expiry-time", "it is past, or more than two days away")

    def _size(self) -> int:
        system = (
            self.to,
            self.message_id,
            self.correlation_id,
            self.user_id,
            self.content_type,
            self.content_encoding,
        )
        texts = [*system, *(text for pair in self.properties for text in pair)]
        return len(self.body) + sum(len(text.encode()) for text in texts if text)


@dataclass(frozen=True, kw_only=True)
class CloudToDeviceMessage:
    """A message in its queue, without its body. Times are in microseconds.

    `sequence_number` is unique within the hub and rises; `delivery_count` tells how often the device has had the
    message and given it back. `size` is in bytes of the body, None for what was
    kept before it was counted. `generation_id` is that of the device it was meant for.
    """

    device_id: str
    module_id: str | None = None
    generation_id: str
    sequence_number: int
    enqueued_time: int
    expires_at: int
    delivery_count: int = 0
    size: int | None = None
    ack: Ack = Ack.NONE
    to: str
    message_id: str | None = None
    correlation_id: str | None = None
    user_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    absolute_expiry_time: int | None = None
    properties: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def enqueued(
        cls,
        content: Content,
        *,
        device_id: str,
        module_id: str | None,
        generation_id: str,
        sequence_number: int,
        now: int,
        default_ttl: int,
    ) -> Self:
        """`default_ttl` is in seconds."""
        expiry = content.absolute_expiry_time
        return cls(
            device_id=device_id,
            module_id=module_id,
            generation_id=generation_id,
            sequence_number=sequence_number,
            enqueued_time=now,
            expires_at=now + default_ttl * SECOND if expiry is None else expiry,
            size=len(content.body),
            ack=content.ack,
            to=content.to,
            message_id=content.message_id,
            correlation_id=content.correlation_id,
            user_id=content.user_id,
            content_type=content.content_type,
            content_encoding=content.content_encoding,
            absolute_expiry_time=expiry,
            properties=content.properties,
        )

    @property
    def name(self) -> str:
        """Of the device or module."""
        return name_of(self.device_id, self.module_id)

    @property
    def key(self) -> str:
        """Sorts by age within a queue."""
        return f"{self.name}/{self.sequence_number:020}"

    @property
    def etag(self) -> str:
        return str(self.delivery_count)


def _to_document(message: CloudToDeviceMessage) -> dict[str, Any]:
    return {
        "deviceId": message.device_id,
        "moduleId": message.module_id,
        "generationId": message.generation_id,
        "sequenceNumber": message.sequence_number,
        "enqueuedTime": message.enqueued_time,
        "expiresAt": message.expires_at,
        "deliveryCount": message.delivery_count,
        "size": message.size,
        "ack": message.ack,
        "to": message.to,
        "messageId": message.message_id,
        "correlationId": message.correlation_id,
        "userId": message.user_id,
        "contentType": message.content_type,
        "contentEncoding": message.content_encoding,
        "absoluteExpiryTime": message.absolute_expiry_time,
        "properties": [list(pair) for pair in message.properties],
    }


def _from_document(document: dict[str, Any]) -> CloudToDeviceMessage:
    return CloudToDeviceMessage(
        device_id=document["deviceId"],
        module_id=document["moduleId"],
        generation_id=document["generationId"],
        sequence_number=document["sequenceNumber"],
        enqueued_time=document["enqueuedTime"],
        expires_at=document["expiresAt"],
        delivery_count=document["deliveryCount"],
        size=document.get("size"),
        ack=Ack(document["ack"]),
        to=document["to"],
        message_id=document["messageId"],
        correlation_id=document["correlationId"],
        user_id=document["userId"],
        content_type=document["contentType"],
        content_encoding=document["contentEncoding"],
        absolute_expiry_time=document["absoluteExpiryTime"],
        properties=tuple((name, value) for name, value in document["properties"]),
    )


KIND: Kind[CloudToDeviceMessage] = Kind(
    name="cloud_to_device_message",
    key=lambda message: message.key,
    to_document=_to_document,
    from_document=_from_document,
    index={"device": lambda message: [message.device_id], "name": lambda message: [message.name]},
)
"""Kept under the scope of the hub, by name and sequence number; by `device`, also those of its modules."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """The body of a message: written once, with it, and never changed. `base64` is how it is kept."""

    key: str
    device_id: str
    name: str
    base64: str
    etag: str = ""

    @classmethod
    def of(cls, message: CloudToDeviceMessage, payload: bytes) -> Self:
        text = base64.b64encode(payload).decode()
        return cls(key=message.key, device_id=message.device_id, name=message.name, base64=text)

    @property
    def payload(self) -> bytes:
        return base64.b64decode(self.base64)


BODY_KIND: Kind[Body] = Kind(
    name="cloud_to_device_body",
    key=lambda body: body.key,
    to_document=lambda body: {
        "key": body.key,
        "deviceId": body.device_id,
        "name": body.name,
        "body": body.base64,
    },
    from_document=lambda document: Body(
        key=document["key"],
        device_id=document["deviceId"],
        name=document["name"],
        base64=document["body"],
    ),
    index={"device": lambda body: [body.device_id], "name": lambda body: [body.name]},
)
"""By the key of its message."""
