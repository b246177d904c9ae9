"""Readers that write down how far they are, and share the partitions: `azure-eventhub` with a checkpoint store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import pytest
from azure.eventhub import EventData, LoadBalancingStrategy
from azure.eventhub._eventprocessor import in_memory_checkpoint_store as in_memory
from azure.eventhub.aio import CheckpointStore, EventHubConsumerClient, PartitionContext
from azure.eventhub.aio._eventprocessor.in_memory_checkpoint_store import InMemoryCheckpointStore

from tests.support.devices import device_client, sas_device
from tests.support.events import consumer_options, origin, payload, reading
from tests.support.services import Hub
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.clients,
    # azure-eventhub's asynchronous client forgets its transport when its link is stolen while it is being made.
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

PARTITIONS = 4
SENT = 10
BALANCING: dict[str, Any] = {
    "load_balancing_interval": 0.3,  # seconds
    "load_balancing_strategy": LoadBalancingStrategy.GREEDY,
}
BODIES = [str(number).encode() for number in range(SENT)]


def send(hub: Hub, device_id: str) -> None:
    with device_client(sas_device(hub, device_id)) as client:
        for body in BODIES:
            client.send_message(body.decode())


def bodies(events: list[EventData]) -> list[bytes]:
    return [payload(event) for event in events]


def test_a_reader_goes_on_where_it_stopped(
    env: Mapping[str, str], hub: Hub, device_id: str, own_groups: tuple[str, str]
) -> None:
    """By the offset of the last event that it has written down."""
    send(hub, device_id)
    store = in_memory.InMemoryCheckpointStore()  # type: ignore[no-untyped-call]
    client = {"consumer_group": own_groups[0], "checkpoint_store": store}
    partition = str(crc32(device_id.encode()) % PARTITIONS)

    with reading(env, client=client, partition_id=partition, starting_position="-1") as reader:
        seen = reader.take(6, of=device_id)
        reader.contexts[partition].update_checkpoint(seen[3])
    with reading(env, client=client, partition_id=partition, starting_position="-1") as reader:
        again = reader.take(SENT - 4, of=device_id)

    assert bodies(seen) == BODIES[:6]
    assert bodies(again) == BODIES[4:]


class Sharer:
    """One of several readers with a common store: writes down each event as soon as it has it."""

    def __init__(self, env: Mapping[str, str], store: CheckpointStore, group: str) -> None:
        options = consumer_options(env) | {"consumer_group": group, "checkpoint_store": store}
        self._client = EventHubConsumerClient.from_connection_string(**options, **BALANCING)
        self.partitions: set[str] = set()
        self.seen: list[tuple[str, bytes]] = []

    async def __aenter__(self) -> Sharer:
        self._receiving = asyncio.create_task(
            self._client.receive(
                self._event,
                on_partition_initialize=self._got,
                on_partition_close=self._lost,
                starting_position="-1",
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await self._receiving

    async def _event(self, context: PartitionContext, event: EventData | None) -> None:
        assert event is not None
        self.seen.append((origin(event), payload(event)))
        await context.update_checkpoint(event)

    async def _got(self, context: PartitionContext) -> None:
        self.partitions.add(context.partition_id)

    async def _lost(self, context: PartitionContext, _: object) -> None:
        self.partitions.discard(context.partition_id)


async def test_two_readers_share_the_partitions(
    env: Mapping[str, str], hub: Hub, device_id: str, own_groups: tuple[str, str]
) -> None:
    """Each event goes to one of them, and when one leaves, the other goes on where it had come to."""
    store = InMemoryCheckpointStore()  # type: ignore[no-untyped-call]
    devices = [f"{device_id}-{letter}" for letter in "abcdef"]
    expected = sorted((device, body) for device in devices for body in BODIES)

    def came() -> list[tuple[str, bytes]]:
        return sorted(event for event in (*stays.seen, *leaves.seen) if event[0] in devices)

    async def until(look: Callable[[], object], what: str) -> None:
        await asyncio.to_thread(eventually, look, what=what)

    async with Sharer(env, store, own_groups[0]) as stays:
        async with Sharer(env, store, own_groups[0]) as leaves:
            await until(
                lambda: len(stays.partitions) == len(leaves.partitions) == 2, "each has two partitions"
            )
            for device in devices[:3]:
                await asyncio.to_thread(send, hub, device)
            await until(lambda: came() == expected[: 3 * SENT], "what was sent to both")
        await until(lambda: len(stays.partitions) == PARTITIONS, "one has all partitions")
        for device in devices[3:]:
            await asyncio.to_thread(send, hub, device)
        await until(lambda: came() == expected, "the rest, and nothing twice")
