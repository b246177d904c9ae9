"""Back ends hear what became of cloud-to-device messages: a link from `/messages/servicebound/feedback`.

One message is one batch of records. It is gone once the receiver has accepted or rejected it and that is durable;
released, modified or not settled in time it comes again, to whoever takes it then. [hub-service 12.1]
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from moorage.adapters.amqp import AmqpConversation
from moorage.adapters.cloud_to_device_amqp import hub_of, require
from moorage.adapters.links import LinkHandler
from moorage.errors import MoorageError, NotSupported
from moorage.hub.cloud_to_device import SECOND, LockLost
from moorage.hub.feedback import CONTENT_TYPE, Batch, Feedback
from moorage.hub.identity import Identities
from moorage.interfaces import Timer
from moorage.wire.amqp import (
    SND_SETTLED,
    Accepted,
    Data,
    DispositionReceived,
    Message,
    Outcome,
    Properties,
    Receiver,
    Rejected,
    Released,
    Sender,
    Symbol,
    Timestamp,
)

log = logging.getLogger("moorage.hub")

ADDRESS = ["messages", "servicebound", "feedback"]
HOLD_BACK = 256 * 1024  # bytes waiting outward from which on a batch waits


class FeedbackFace:
    """Answers `messages/servicebound/feedback`."""

    def __init__(self, identities_of: Mapping[int, Identities]) -> None:
        """`identities_of` has the hubs by scope."""
        self._identities_of = identities_of
        self.underway: set[asyncio.Task[None]] = set()  # settlements, which outlive their connections

    def takes(self, path: Sequence[str]) -> bool:
        return [segment.lower() for segment in path] == ADDRESS

    def attach(
        self, conversation: AmqpConversation, link: Sender | Receiver, path: Sequence[str]
    ) -> LinkHandler:
        require(conversation, ADDRESS)
        if not isinstance(link, Sender):
            raise NotSupported("sending to messages/servicebound/feedback", "only the hub writes there")
        return FeedbackReceiver(conversation, link, self, hub_of(conversation, self._identities_of))


def feedback_message(batch: Batch, hub_name: str) -> Message:
    """.NET looks for user id, content type and the time of enqueueing, and throws without. [hub-service 27.17]"""
    return Message(
        message_annotations={Symbol("iothub-enqueuedtime"): Timestamp(batch.at // 1000)},
        properties=Properties(user_id=hub_name.encode(), content_type=CONTENT_TYPE),
        body=Data.of(batch.body()),
    )


class FeedbackReceiver(LinkHandler):
    """One link that receives feedback."""

    link: Sender

    def __init__(
        self, conversation: AmqpConversation, link: Sender, face: FeedbackFace, identities: Identities
    ) -> None:
        super().__init__(conversation, link)
        self._face = face
        self._hub_name = identities.hub.name
        self._feedback: Feedback = identities.feedback
        self._tokens: dict[int, bytes] = {}  # of batches delivered and not settled, by delivery id
        self._timer: Timer | None = None
        link.auto_settle = False  # that is done when the outcome is durable
        link.accept()
        self._unwatch = self._feedback.watch(self._wake)

    def credit(self) -> None:
        self._turn()

    def drained(self) -> None:
        self._turn()

    def _wake(self) -> None:
        if self.link.credit and self.link.live:
            self.conversation.send(self._turn)

    def _turn(self) -> None:
        """Send what is ready and credit allows; come again when more can be."""
        link, looked = self.link, self.conversation.server.clock.now()
        while link.sendable and self.conversation.stream.pending < HOLD_BACK:
            if (batch := self._feedback.take(self)) is None:
                link.drained()
                break
            self._send(batch)
        self._come_again(looked)

    def _send(self, batch: Batch) -> None:
        settled = self.link.remote is not None and self.link.remote.snd_settle_mode == SND_SETTLED
        message = feedback_message(batch, self._hub_name).encode()
        delivery_id = self.link.send(message, tag=batch.token, settled=settled)
        if settled:
            self._begin(self._settle(None, batch.token, Accepted()))
        else:
            self._tokens[delivery_id] = batch.token
        self.conversation.flush()

    def _come_again(self, looked: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._feedback.next_at(looked)
        if self.link.credit and at is not None:
            wait = (at - self.conversation.server.clock.now()) / SECOND
            self._timer = self.conversation.stream.call_later(max(wait, 0), self._wake)

    def outcome(self, outcome: DispositionReceived) -> None:
        token = self._tokens.pop(outcome.delivery_id, None)
        if token is not None:
            state = outcome.state
            known = state if isinstance(state, Accepted | Rejected) else Released()
            self._begin(self._settle(None if outcome.settled else outcome.delivery_id, token, known))

    async def _settle(self, delivery_id: int | None, token: bytes, outcome: Outcome) -> None:
        """`delivery_id` is that of a receiver who waits to hear that it is done."""
        try:
            if isinstance(outcome, Accepted | Rejected):
                await self._feedback.complete(token)
            else:
                self._feedback.abandon(token)
        except LockLost:
            outcome = Released()  # it was too late: somebody else has the batch, or will
        except MoorageError as error:
            outcome = Released()
            tracking_id = self.conversation.stream.tracking_id
            log.warning("feedback not settled", extra={"tracking_id": tracking_id, "reason": str(error)})
        if delivery_id is not None:
            self.conversation.send(partial(self.link.settle, delivery_id, outcome))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._face.underway.add(task)
        task.add_done_callback(self._face.underway.discard)

    def recheck(self) -> None:
        require(self.conversation, ADDRESS)

    def detached(self) -> None:
        self._unwatch()
        if self._timer is not None:
            self._timer.cancel()
        self._feedback.release(self)
