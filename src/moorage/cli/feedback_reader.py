"""Receiving feedback on cloud-to-device messages, over AMQP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from moorage.cli.amqp_client import AmqpClient, connect
from moorage.cli.event_reader import show_token
from moorage.cli.target import Login
from moorage.errors import MoorageError, Unavailable
from moorage.wire.amqp import DeliveryReceived, Message, Source
from moorage.wire.errors import Malformed

FEEDBACK = "/messages/serviceBound/feedback"
CREDIT = 20  # batches


@contextlib.asynccontextmanager
async def service_connection(login: Login) -> AsyncIterator[AmqpClient]:
    """A connection to the hub as a back end, its proof shown."""
    async with connect(login.host, login.trust()) as client:
        await show_token(client, login, login.host)
        yield client


@dataclass(frozen=True, slots=True)
class FeedbackBatch:
    """Records as JSON has them. Unless it is accepted it comes again, to whoever receives then."""

    records: list[dict[str, Any]]
    delivery: DeliveryReceived


async def feedback(client: AmqpClient) -> AsyncGenerator[FeedbackBatch, None]:
    """All that comes in, without end. Raises AmqpRefused or Unavailable when nothing can any more."""
    incoming: asyncio.Queue[FeedbackBatch | MoorageError] = asyncio.Queue()

    def deliver(delivery: DeliveryReceived) -> None:
        try:
            records = json.loads(Message.decode(delivery.message).payload)
            incoming.put_nowait(FeedbackBatch(records, delivery))
        except (Malformed, ValueError) as error:
            incoming.put_nowait(Unavailable(f"a batch of feedback cannot be read: {error}"))

    def ended(link: asyncio.Future[None]) -> None:
        reason = None if link.cancelled() else link.exception()
        if isinstance(reason, MoorageError):
            incoming.put_nowait(reason)

    link = await client.receive(Source(FEEDBACK), deliver, credit=CREDIT, accepts=False)
    link.add_done_callback(ended)
    while True:
        item = await incoming.get()
        if isinstance(item, MoorageError):
            raise item
        yield item
