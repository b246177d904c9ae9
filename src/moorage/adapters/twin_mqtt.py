"""The twin topics of one MQTT connection: requests in, responses out [hub-device 3.10]."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from moorage.adapters import faults
from moorage.adapters.mqtt import request_id
from moorage.errors import Invalid, MoorageError, NotSupported
from moorage.hub.identity import Identities
from moorage.hub.session import Principal
from moorage.hub.twin import device_view
from moorage.interfaces import ByteStream, Clock
from moorage.wire.mqtt import packets

log = logging.getLogger("moorage.hub")

RESPONSES = "$iothub/twin/res/#"
GET = "$iothub/twin/GET/"
PATCH = "$iothub/twin/PATCH/properties/reported/"


class TwinMqtt:
    """Answers twin requests, one after the other: many at once would cost more than they bring."""

    def __init__(
        self, stream: ByteStream, identities: Identities, principal: Principal, clock: Clock
    ) -> None:
        self._stream = stream
        self._identities = identities
        self._principal = principal
        self._clock = clock
        self._granted: int | None = None  # QoS of the responses; None while they are not subscribed to
        self._packet_id = 0
        self._asked: list[tuple[str, Callable[[], None]]] = []
        self._answering: asyncio.Task[None] | None = None

    def subscribe(self, qos: int) -> int:
        """The QoS granted."""
        self._granted = min(qos, 1)
        return self._granted

    def unsubscribe(self) -> None:
        self._granted = None

    def takes(self, topic: str) -> bool:
        """Whether `topic` is that of a request. Raises MoorageError for one that could not be answered."""
        if topic.startswith(GET):
            if request_id(topic) is None:
                raise Invalid("topic", "a twin request without $rid cannot be answered")
        elif topic.startswith(PATCH):
            if request_id(topic) is None or self._granted is None:
                # Nothing could tell the device that this was not done: it would take the PUBACK for it.
                raise NotSupported("reported properties")
        else:
            return False
        return True

    def answer(self, topic: str, done: Callable[[], None]) -> None:
        """Answer a request that `takes` knows; `done()` is called behind the response."""
        self._asked.append((topic, done))
        if self._answering is None:
            self._answering = asyncio.get_running_loop().create_task(self._answer_all())

    async def _answer_all(self) -> None:
        while self._asked:
            topic, done = self._asked.pop(0)
            rid = request_id(topic) or ""
            if topic.startswith(GET):
                await self._get(rid)
            else:
                self._refuse(rid, NotSupported("reported properties"))
            done()
        self._answering = None

    async def _get(self, rid: str) -> None:
        try:
            document = device_view(
                await self._identities.twin(self._principal.device_id, self._principal.module_id)
            )
        except MoorageError as error:
            self._refuse(rid, error)
        except Exception:
            log.exception("twin request failed", extra={"tracking_id": self._stream.tracking_id})
            self._refuse(rid, MoorageError("internal error"))
        else:
            self._respond(f"$iothub/twin/res/200/?$rid={rid}", document)

    def _refuse(self, rid: str, error: MoorageError) -> None:
        """Always with a JSON error: Node tells failure from success only by `errorCode` [hub-device 16.14]."""
        log.info(
            "twin request refused",
            extra={
                "tracking_id": self._stream.tracking_id,
                "device_id": self._principal.name,
                "reason": str(error),
            },
        )
        status, body = faults.hub_detail(error, self._stream.tracking_id, self._clock.now())
        self._respond(f"$iothub/twin/res/{status}/?$rid={rid}", body)

    def _respond(self, topic: str, body: dict[str, Any]) -> None:
        if self._granted is None:
            return  # a device that does not listen gets none
        self._packet_id = self._packet_id % 0xFFFF + 1
        self._stream.write(
            packets.encode_publish(
                topic,
                json.dumps(body, separators=(",", ":")).encode(),
                qos=self._granted,
                packet_id=self._packet_id if self._granted else None,
            )
        )

    def close(self) -> None:
        """The connection is gone: nobody waits for an answer."""
        if self._answering is not None:
            self._answering.cancel()
