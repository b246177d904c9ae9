"""Nodes that answer requests over AMQP: a link to the node brings them, a link from it takes the answers back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, TypeGuard

from moorage.adapters.links import LinkHandler, link_path
from moorage.errors import Invalid, MoorageError, NotSupported
from moorage.wire.amqp import (
    ACCEPTED,
    AmqpValue,
    DeliveryReceived,
    Error,
    Int,
    Message,
    Outcome,
    Properties,
    Receiver,
    Rejected,
    Sender,
    conditions,
)
from moorage.wire.errors import Malformed

if TYPE_CHECKING:
    from moorage.adapters.amqp import AmqpConversation

CBS = "$cbs"
CREDIT = 100  # requests underway on one link
MAX_REQUEST = 64 * 1024  # bytes
MAX_TOKEN_REQUEST = 16 * 1024  # bytes; a SAS token stays below 4 KiB


def text(value: object) -> str:
    """A value from a map, whether the client wrote it as string, symbol, binary or number."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def response(request: Message, status: int, description: str, body: AmqpValue | None = None) -> Message:
    """An answer of `$cbs` or `$management`: the request's message-id comes back with its AMQP type."""
    asked = request.properties.message_id if request.properties is not None else None
    return Message(
        properties=Properties(correlation_id=asked),
        application_properties={"status-code": Int(status), "status-description": description},
        body=body or AmqpValue(None),
    )


class RequestNode(LinkHandler, ABC):
    """One link to or from such a node. Requests are answered one after the other, in their order."""

    in_flight = CREDIT
    max_request = MAX_REQUEST

    def __init__(self, conversation: AmqpConversation, link: Sender | Receiver) -> None:
        super().__init__(conversation, link)
        self._node = [segment.lower() for segment in link_path(link)]
        self._asked: deque[DeliveryReceived] = deque()
        self._answering = False
        link.accept(max_message_size=self.max_request)
        if isinstance(link, Receiver):
            link.keep_credit(self.in_flight)

    @abstractmethod
    async def answer(self, request: Message) -> Message | Rejected:
        """What is sent back, or the outcome instead of that. Never raises for what the request says."""

    def delivery(self, delivery: DeliveryReceived) -> None:
        self._asked.append(delivery)
        if len(self._asked) > self.in_flight:
            # Credit comes back as requests are answered, except for those that were sent settled.
            error = Error(conditions.RESOURCE_LIMIT_EXCEEDED, f"more than {self.in_flight} requests wait")
            self.conversation.detach(self.link, error)
        elif not self._answering:
            self._answering = True
            self.conversation.spawn(self._answer_all())

    async def _answer_all(self) -> None:
        while self._asked:
            delivery = self._asked.popleft()
            try:
                request = Message.decode(delivery.message)
            except Malformed as fault:
                self._reject(delivery, fault)
                continue
            answer = await self.answer(request)
            if isinstance(answer, Rejected):
                self.conversation.send(partial(self._settle, delivery, answer))
            else:
                self.conversation.send(partial(self._post, delivery, request, answer))
        self._answering = False

    def _reject(self, delivery: DeliveryReceived, fault: Malformed) -> None:
        finding = self.conversation.finding("request", "/".join(self._node))
        self.conversation.refuse(finding, Invalid("request", fault.reason))
        rejected = Rejected(Error(conditions.DECODE_ERROR, fault.reason))
        self.conversation.send(lambda: self._settle(delivery, rejected))

    def _settle(self, delivery: DeliveryReceived, outcome: Outcome) -> None:
        if not delivery.settled:
            delivery.link.settle(delivery.delivery_id, outcome)

    def _post(self, delivery: DeliveryReceived, request: Message, answer: Message) -> None:
        """To the link from this node that `reply-to` names by link name or target, else to the only or first one."""
        self._settle(delivery, ACCEPTED)
        wanted = request.properties.reply_to if request.properties is not None else None
        links = [link for link in self.link.session.links if self._takes_answers(link)]
        chosen = next((link for link in links if wanted and wanted in (link.name, _target(link))), None)
        for link in [chosen] if chosen is not None else links[:1]:
            link.post(answer.encode())

    def _takes_answers(self, link: Sender | Receiver) -> TypeGuard[Sender]:
        return (
            isinstance(link, Sender)
            and link.live
            and [segment.lower() for segment in link_path(link)] == self._node
        )

    def detached(self) -> None:
        self._asked.clear()


def _target(link: Sender) -> object:
    return link.target.address if link.target is not None else None


class CbsNode(RequestNode):
    """`$cbs`: takes tokens, answers 200 or 401 and leaves the links open [hub-service 10.4]."""

    max_request = MAX_TOKEN_REQUEST  # of peers that have not shown who they are

    async def answer(self, request: Message) -> Message:
        operation = text((request.application_properties or {}).get("operation"))
        if operation != "put-token":
            return response(request, 400, f"operation '{operation[:100]}' is not put-token")
        token = request.body.value if isinstance(request.body, AmqpValue) else None
        try:
            await self.conversation.put_token(text(token))
        except NotSupported as error:
            return response(request, 501, self._described(error))
        except MoorageError as error:
            return response(request, 401, self._described(error))
        return response(request, 200, "OK")

    def _described(self, error: MoorageError) -> str:
        return f"{error} TrackingId:{self.conversation.stream.tracking_id}"
