"""Events in a log, as if a device had sent them."""

from __future__ import annotations

from typing import Any

from moorage.hub.instance import Hub, partition_of
from moorage.hub.telemetry import DEVICE_ID, MESSAGE_SOURCE, MODULE_ID
from moorage.interfaces import EventHead, EventLog


async def keep(
    log: EventLog,
    hub: Hub,
    device: str,
    *bodies: bytes,
    module: str | None = None,
    source: str = "Telemetry",
    **head: Any,
) -> None:
    """Durable on return, in order, with one enqueued time. `head` are fields of `EventHead`."""
    annotations = [(DEVICE_ID, device), *([(MODULE_ID, module)] if module else []), (MESSAGE_SOURCE, source)]
    prepared = log.prepare(
        EventHead(
            scope=hub.scope,
            partition=partition_of(hub, device),
            partition_key=device,
            annotations=tuple(annotations),
            **head,
        )
    )
    kept: list[Exception | None] = []
    log.append([(prepared, body) for body in bodies], kept.append)
    await log.settled()
    assert kept == [None]
