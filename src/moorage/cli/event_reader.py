"""Reading a hub's built-in endpoint: where it is, which partitions it has, and what comes in."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from moorage.cli.amqp_client import AmqpClient, AmqpRefused, connect
from moorage.cli.rest import clock_ahead
from moorage.cli.target import Login
from moorage.credentials.sas import make_token
from moorage.errors import MoorageError, Unavailable
from moorage.wire.amqp import (
    AmqpValue,
    Array,
    DeliveryReceived,
    Described,
    Message,
    Source,
    Symbol,
    conditions,
)
from moorage.wire.errors import Malformed

SELECTOR = Symbol("apache.org:selector-filter:string")
LATEST = "amqp.annotation.x-opt-offset > '@latest'"
CREDIT = 300  # events of one partition underway, as other readers have it [hub-service 13.2]
TOKEN_LIFETIME = 3600  # seconds
RENEW_AFTER = 2700.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A built-in endpoint: its host and the name of the event hub there."""

    host: str
    entity: str


@dataclass(frozen=True, slots=True)
class EventReceived:
    """One event, and the partition it came from."""

    partition: str
    message: Message


def enqueued_after(milliseconds: int) -> str:
    """The selector for events enqueued after a time, in milliseconds since 1970."""
    return f"amqp.annotation.x-opt-enqueued-time > '{milliseconds}'"


async def find_endpoint(login: Login, trust: ssl.SSLContext) -> Endpoint:
    """Ask the hub where its built-in endpoint is: the answer to this link is a redirect. [hub-service 14]"""
    async with connect(login.host, trust) as client:
        await show_token(client, login, login.host)
        address = f"amqps://{login.host}/messages/events/$management"
        try:
            await (await client.receive(Source(address), lambda _: None, credit=1))
        except AmqpRefused as refusal:
            if refusal.condition != conditions.LINK_REDIRECT:
                raise
            place = urlsplit(str(refusal.info.get("address") or ""))
            host = str(refusal.info.get("hostname") or place.hostname or login.host)
            return Endpoint(host, place.path.strip("/").partition("/")[0])
    raise Unavailable(f"{login.host} did not say where its built-in endpoint is")


@contextlib.asynccontextmanager
async def open_reader(login: Login) -> AsyncIterator[EventReader]:
    """A connection to the built-in endpoint of the hub that `login` names, its proof shown."""
    trust = login.trust()
    endpoint = await find_endpoint(login, trust)
    async with connect(endpoint.host, trust) as client:
        reader = EventReader(client, endpoint, login)
        await reader.show_token()
        yield reader


class EventReader:
    """Made by `open_reader`."""

    def __init__(self, client: AmqpClient, endpoint: Endpoint, login: Login) -> None:
        self.endpoint = endpoint
        self._client = client
        self._login = login

    async def show_token(self) -> None:
        audience = f"sb://{self.endpoint.host}/{self.endpoint.entity}"
        # Event Hubs clients sign with the text of the key. [hub-service 2.2]
        await show_token(self._client, self._login, audience, text_key=True)

    async def partitions(self) -> tuple[str, ...]:
        found = (await self._read("com.microsoft:eventhub"))["partition_ids"]
        return tuple(str(each) for each in (found.values if isinstance(found, Array) else found))

    async def last_sequence_number(self, partition: str) -> int:
        """-1 while the partition is empty."""
        state = await self._read("com.microsoft:partition", partition=partition)
        return int(state["last_enqueued_sequence_number"])

    async def _read(self, kind: str, **which: str) -> dict[str, Any]:
        asked = {"operation": "READ", "name": self.endpoint.entity, "type": kind, **which}
        answer = await self._client.request("$management", asked)
        if not isinstance(answer.body, AmqpValue) or not isinstance(answer.body.value, dict):
            raise Unavailable(f"{self.endpoint.host} answered {kind} with something else")
        return answer.body.value

    async def events(
        self, selector: str, *, group: str = "$Default", ready: Callable[[], object] = lambda: None
    ) -> AsyncGenerator[EventReceived, None]:
        """Everything that comes in, in order within a partition; without end. `ready` is called once all links are up.

        Raises AmqpRefused or Unavailable when a partition can be read no more.
        """
        incoming: asyncio.Queue[EventReceived | MoorageError] = asyncio.Queue()
        for partition in await self.partitions():
            await self._open(partition, group, selector, incoming)
        renewing = asyncio.create_task(self._renew(incoming))
        ready()
        try:
            while True:
                item = await incoming.get()
                if isinstance(item, MoorageError):
                    raise item
                yield item
        finally:
            renewing.cancel()

    async def _open(
        self, partition: str, group: str, selector: str, incoming: asyncio.Queue[EventReceived | MoorageError]
    ) -> None:
        address = f"amqps://{self.endpoint.host}/{self.endpoint.entity}/ConsumerGroups/{group}/Partitions/{partition}"

        def deliver(delivery: DeliveryReceived) -> None:
            try:
                incoming.put_nowait(EventReceived(partition, Message.decode(delivery.message)))
            except Malformed as error:
                incoming.put_nowait(Unavailable(f"an event of partition {partition} cannot be read: {error}"))

        def ended(link: asyncio.Future[None]) -> None:
            reason = None if link.cancelled() else link.exception()
            if isinstance(reason, MoorageError):
                incoming.put_nowait(reason)

        source = Source(address, filter={SELECTOR: Described(SELECTOR, selector)})
        (await self._client.receive(source, deliver, credit=CREDIT)).add_done_callback(ended)

    async def _renew(self, incoming: asyncio.Queue[EventReceived | MoorageError]) -> None:
        """The server ends the links of a token that has expired."""
        while True:
            await asyncio.sleep(RENEW_AFTER)
            try:
                await self.show_token()
            except MoorageError as error:
                incoming.put_nowait(error)
                return


async def show_token(client: AmqpClient, login: Login, audience: str, *, text_key: bool = False) -> None:
    """Once more by the service's own clock, when that is why it refuses."""

    def token(ahead: int) -> str:
        expiry = int(time.time()) + ahead + TOKEN_LIFETIME
        return make_token(audience, login.key, expiry, login.policy, text_key=text_key)

    try:
        await client.put_token(audience, token(0))
    except AmqpRefused:
        ahead = await asyncio.to_thread(clock_ahead, login)
        if not ahead:
            raise
        await client.put_token(audience, token(ahead))
