"""Back ends send cloud-to-device messages over AMQP: a link to `/messages/devicebound`. [hub-service 11]

Each message has its outcome once its commit is durable. Many are underway at once, on one link and on many: what
arrives together is committed together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from moorage.adapters.amqp import AmqpConversation
from moorage.adapters.links import LinkHandler, address_path
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.errors import Invalid, MoorageError, NotFound, NotSupported
from moorage.hub.cloud_to_device import Content, read_ack
from moorage.hub.device_queues import DeviceQueues
from moorage.hub.identity import Identities
from moorage.wire.amqp import (
    ACCEPTED,
    AmqpValue,
    DeliveryReceived,
    Error,
    Message,
    Outcome,
    Properties,
    Receiver,
    Rejected,
    Sender,
    conditions,
)
from moorage.wire.errors import Malformed

log = logging.getLogger("moorage.hub")

ADDRESS = ["messages", "devicebound"]
CREDIT = 200  # messages underway on one link
MAX_TRANSFER = 256 * 1024  # bytes; a message over 64 KiB is rejected by itself, one over this ends its link
ACK = "iothub-ack"


class DeviceboundFace:
    """Answers `messages/devicebound`."""

    def __init__(self, identities_of: Mapping[int, Identities]) -> None:
        """`identities_of` has the hubs by scope."""
        self._identities_of = identities_of
        # Not those of a connection: a message whose sender has gone is kept, or not, all the same.
        self.underway: set[asyncio.Task[None]] = set()

    def takes(self, path: Sequence[str]) -> bool:
        return [segment.lower() for segment in path] == ADDRESS

    def attach(
        self, conversation: AmqpConversation, link: Sender | Receiver, path: Sequence[str]
    ) -> LinkHandler:
        require(conversation, ADDRESS)
        if not isinstance(link, Receiver):
            raise NotSupported("receiving from messages/devicebound", "only devices receive there")
        return Devicebound(conversation, link, self, hub_of(conversation, self._identities_of).queues)


def require(conversation: AmqpConversation, path: Sequence[str]) -> None:
    """The right to send, or to hear of it. Raises Unauthorized."""
    resources = ["/".join([host, *path]) for host in conversation.hosts]
    conversation.grants.require(resources, SERVICE_CONNECT, conversation.server.clock.now())


def hub_of(conversation: AmqpConversation, identities_of: Mapping[int, Identities]) -> Identities:
    """Raises NotFound when the hub has just been deleted."""
    identities = identities_of.get(conversation.hub.scope)
    if identities is None:
        raise NotFound("hub", conversation.hub.name)
    return identities


class Devicebound(LinkHandler):
    """One link that sends."""

    link: Receiver

    def __init__(
        self, conversation: AmqpConversation, link: Receiver, face: DeviceboundFace, queues: DeviceQueues
    ) -> None:
        super().__init__(conversation, link)
        self._face = face
        self._queues = queues
        self._unanswered = 0
        link.accept(max_message_size=MAX_TRANSFER)
        link.keep_credit(CREDIT)

    def delivery(self, delivery: DeliveryReceived) -> None:
        if (
            self._unanswered >= CREDIT
        ):  # credit comes back with the outcomes, except for what was sent settled
            error = Error(conditions.RESOURCE_LIMIT_EXCEEDED, f"more than {CREDIT} messages wait")
            self.conversation.detach(self.link, error)
            return
        self._unanswered += 1
        task = asyncio.get_running_loop().create_task(self._take(delivery))
        self._face.underway.add(task)
        task.add_done_callback(self._face.underway.discard)

    async def _take(self, delivery: DeliveryReceived) -> None:
        outcome: Outcome = ACCEPTED
        address = ""
        try:
            message = Message.decode(delivery.message)
            address, content = read_message(message)
            await self._send(address, content)
        except Malformed as fault:
            self._refuse(address, Invalid("message", fault.reason))
            outcome = Rejected(Error(conditions.DECODE_ERROR, fault.reason))
        except MoorageError as error:
            self._refuse(address, error)
            outcome = Rejected(self.conversation.error(error))
        except Exception:
            log.exception("message not kept", extra={"tracking_id": self.conversation.stream.tracking_id})
            outcome = Rejected(self.conversation.error(MoorageError("internal error")))
        self._unanswered -= 1
        self.conversation.send(partial(self._settle, delivery, outcome))

    async def _send(self, address: str, content: Content) -> None:
        """To the device of that id, else to the one whose id, encoded, it is. [hub-service 11]"""
        raw, *decoded = recipients(address)
        try:
            await self._queues.send(*raw, content)
        except NotFound:
            if not decoded:
                raise
            await self._queues.send(*decoded[0], content)

    def _settle(self, delivery: DeliveryReceived, outcome: Outcome) -> None:
        if not delivery.settled:
            self.link.settle(delivery.delivery_id, outcome)

    def _refuse(self, address: str, error: MoorageError) -> None:
        path = address_path(address)
        subject = path[1:4:2] if [word.lower() for word in path[2:3]] == ["modules"] else path[1:2]
        finding = self.conversation.finding("cloud-to-device message", "/".join(subject)[:300])
        self.conversation.refuse(finding, error)

    def recheck(self) -> None:
        require(self.conversation, ADDRESS)


def recipients(address: str) -> list[tuple[str, str | None]]:
    """Whom `to` may mean, the likeliest first: clients write ids raw, percent-encoded or form-encoded.

    Raises Invalid. [hub-service 27.16]
    """
    path = address_path(address)
    ids: tuple[str, str | None]
    match [segment.lower() for segment in path]:
        case ["devices", _, "messages", "devicebound"]:
            ids = path[1], None
        case ["devices", _, "modules", _, "messages", "devicebound"]:
            ids = path[1], path[3]
        case _:
            raise Invalid("to", "Amqp Message.Properties.To must contain the device identifier")
    # No id holds a space, for which a form's encoding has its plus: one way of decoding does for all.
    decoded = unquote(ids[0]), None if ids[1] is None else unquote(ids[1])
    return [ids] if decoded == ids else [ids, decoded]


def read_message(message: Message) -> tuple[str, Content]:
    """`to`, and what is to be kept. Raises Invalid."""
    properties = message.properties or Properties()
    to = properties.to
    if not isinstance(to, str) or not to:
        raise Invalid("to", "Amqp Message.Properties.To must contain the device identifier")
    named = {plain("name", key) or "": value for key, value in (message.application_properties or {}).items()}
    ack = read_ack(plain(ACK, named.pop(ACK, None)))
    expiry = properties.absolute_expiry_time
    content = Content(
        to=to,
        body=read_body(message),
        ack=ack,
        message_id=plain("message-id", properties.message_id),
        correlation_id=plain("correlation-id", properties.correlation_id),
        user_id=plain("user-id", properties.user_id),
        content_type=plain("content-type", properties.content_type),
        content_encoding=plain("content-encoding", properties.content_encoding),
        absolute_expiry_time=int(expiry) * 1000 if expiry is not None else None,
        properties=tuple((name, plain(name, value)) for name, value in named.items()),
    )
    return to, content


def read_body(message: Message) -> bytes:
    """Data sections joined, or a value that is text or binary; empty without a body. Raises Invalid."""
    match message.body:
        case None | AmqpValue(None):
            return b""
        case AmqpValue(bytes() as value):
            return value
        case AmqpValue(str() as value):
            return value.encode()
        case AmqpValue():
            raise Invalid("body", "it is an AMQP value that is neither text nor binary")
    return message.payload


def plain(name: str, value: Any) -> str | None:
    """A property as text, whatever AMQP type it was sent as. Raises Invalid for maps and lists."""
    if value is None or isinstance(value, str):
        return value if value is None else str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | UUID):
        return str(int(value)) if isinstance(value, int) else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    raise Invalid(name[:100], "its value is neither text nor a number")
