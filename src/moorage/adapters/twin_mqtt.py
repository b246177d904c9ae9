"""The twin topics of one MQTT connection: requests in, responses and changes out [hub-device 3.10]."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from moorage.adapters import faults
from moorage.adapters.http import read_json, whole_number
from moorage.adapters.mqtt import request_id
from moorage.adapters.publishing import Publisher, Request
from moorage.errors import Invalid, MoorageError
from moorage.hub.session import Principal
from moorage.hub.twin import Twin, device_view
from moorage.hub.twins import Report, Twins
from moorage.interfaces import Clock

log = logging.getLogger("moorage.hub")

RESPONSES = "$iothub/twin/res/#"
DESIRED = "$iothub/twin/PATCH/properties/desired/#"
GET = "$iothub/twin/GET/"
PATCH = "$iothub/twin/PATCH/properties/reported/"

Refused = Callable[[str, MoorageError], object]


class TwinMqtt:
    """Answers twin requests in their order; patches that wait together are one commit. Tells of desired properties."""

    def __init__(
        self,
        publisher: Publisher,
        twins: Twins,
        principal: Principal,
        clock: Clock,
        tracking_id: str,
        refused: Refused,
        lost: Callable[[MoorageError], object],
    ) -> None:
        """`refused` is told of each refusal, `lost` of one that the device cannot be told: it has to be closed."""
        self._publisher = publisher
        self._twins = twins
        self._device_id, self._module_id = principal.device_id, principal.module_id
        self._clock = clock
        self._tracking_id = tracking_id
        self._refused = refused
        self._lost = lost
        self._granted: dict[str, int] = {}  # QoS by topic filter
        self._asked: list[Request] = []
        self._answering: asyncio.Task[None] | None = None
        self._closed = False

    # --- subscriptions

    def subscribe(self, topic_filter: str, qos: int) -> int | None:
        """The QoS granted; None for a filter that is not about twins."""
        if topic_filter not in (RESPONSES, DESIRED):
            return None
        self._granted[topic_filter] = min(qos, 1)
        return self._granted[topic_filter]

    def unsubscribe(self, topic_filter: str) -> None:
        self._granted.pop(topic_filter, None)

    # --- desired properties

    def desired_changed(self, change: Mapping[str, Any], version: int) -> None:
        """The body says the version too: Python and Node look for it there [hub-device 16.15]."""
        qos = self._granted.get(DESIRED)
        if qos is not None:
            topic = f"$iothub/twin/PATCH/properties/desired/?$version={version}"
            self._publisher.publish(topic, _json({**change, "$version": version}), qos)

    # --- requests

    def takes(self, topic: str) -> bool:
        """Whether `topic` is that of a request. Raises Invalid for one that could not be answered."""
        if topic.startswith(GET):
            if request_id(topic) is None:
                raise Invalid("topic", "a twin request without $rid cannot be answered")
        elif topic.startswith(PATCH):
            request_id(topic)  # without one it is done without a response
        else:
            return False
        return True

    def answer(self, request: Request) -> None:
        """Answer a request that `takes` knows."""
        self._asked.append(request)
        if self._answering is None:
            self._answering = asyncio.get_running_loop().create_task(self._answer_all())

    def close(self) -> None:
        """The connection is gone: nobody waits for a response. What it reported before that is kept all the same."""
        self._closed = True
        self._asked = [request for request in self._asked if _is_patch(request)]

    async def _answer_all(self) -> None:
        try:
            while self._asked:
                if patches := list(takewhile(_is_patch, self._asked)):
                    del self._asked[: len(patches)]
                    await self._report(patches)
                else:
                    await self._get(self._asked.pop(0))
        finally:
            self._answering = None

    async def _get(self, request: Request) -> None:
        try:
            body = device_view(await self._twins.get(self._device_id, self._module_id))
        except Exception as error:
            self._refuse(request, self._known(error))
        else:
            request.acknowledge()
            self._respond(f"$iothub/twin/res/200/?$rid={request_id(request.topic)}", _json(body))
            request.done()

    async def _report(self, requests: Sequence[Request]) -> None:
        """Acknowledged only now, when it is durable: without a `$rid` nothing else tells the device."""
        reports, outcomes = [], dict[int, Twin | MoorageError]()
        for number, request in enumerate(requests):
            try:
                reports.append((number, _read_report(request)))
            except MoorageError as error:
                outcomes[number] = error
        numbers = [number for number, _ in reports]
        try:
            kept = await self._twins.report(
                self._device_id, [report for _, report in reports], module_id=self._module_id
            )
            outcomes |= zip(numbers, kept, strict=True)
        except Exception as error:
            outcomes |= dict.fromkeys(numbers, self._known(error))
        for number, request in enumerate(requests):
            outcome = outcomes[number]
            if isinstance(outcome, MoorageError):
                self._refuse(request, outcome)
            else:
                self._confirm(request, outcome.reported.version)

    def _confirm(self, request: Request, version: int) -> None:
        request.acknowledge()
        if (rid := request_id(request.topic)) is not None:
            self._respond(f"$iothub/twin/res/204/?$rid={rid}&$version={version}", b"")
        request.done()

    def _known(self, error: Exception) -> MoorageError:
        if isinstance(error, MoorageError):
            return error
        log.error("twin request failed", exc_info=error, extra={"tracking_id": self._tracking_id})
        return MoorageError("internal error")

    def _refuse(self, request: Request, error: MoorageError) -> None:
        """Always with a JSON error: Node tells failure from success only by `errorCode` [hub-device 16.14].

        A patch that was not done and whose device hears no response must not be acknowledged: it would be taken
        for done.
        """
        rid = request_id(request.topic)
        if _is_patch(request) and (rid is None or RESPONSES not in self._granted):
            self._lost(error)
            return
        self._refused("twin request", error)
        request.acknowledge()
        status, body = faults.hub_detail(error, self._tracking_id, self._clock.now())
        self._respond(f"$iothub/twin/res/{status}/?$rid={rid}", _json(body))
        request.done()

    def _respond(self, topic: str, body: bytes) -> None:
        """A device that does not listen gets no response."""
        qos = self._granted.get(RESPONSES)
        if qos is not None and not self._closed:
            self._publisher.publish(topic, body, qos)


def _is_patch(request: Request) -> bool:
    return request.topic.startswith(PATCH)


def _read_report(request: Request) -> Report:
    """Raises Invalid."""
    version = None
    for pair in request.topic.partition("?")[2].split("&"):
        name, _, text = pair.partition("=")
        if name == "$version" and (version := whole_number(text)) is None:
            raise Invalid("$version", f"{text[:50]!r} is not a number")
    try:
        return Report(read_json(request.payload), version)
    except Invalid as error:
        raise Invalid("properties.reported", error.why) from None


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
