"""When devices and modules connected, and why their connections ended: `hubs/{hub}/timeline` and below devices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moorage.adapters.control.places import Places, count_asked
from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import REGISTRY_READ
from moorage.hub.session import name_of
from moorage.hub.timeline import ConnectionChange, Timeline
from moorage.hub.twin import timestamp

_READ = Needs(hub=(REGISTRY_READ,))


class TimelineRoutes:
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._places = Places()
        of_device = "hubs/{hub}/devices/{device}"
        self.routes = (
            Route("GET", "hubs/{hub}/timeline", _READ, self._latest),
            Route("GET", f"{of_device}/timeline", _READ, self._of),
            Route("GET", f"{of_device}/modules/{{module}}/timeline", _READ, self._of),
        )

    async def _latest(self, call: Call) -> Response:
        scope, count = call.the_hub.scope, count_asked(call.request)
        if (since := call.request.query.get("since")) is not None:
            return self._since(self._places.read(since, self._timeline.added), scope, count)
        return self._response(self._timeline.latest(scope, count), self._timeline.added)

    def _since(self, place: int, scope: int, count: int) -> Response:
        """The next `count` of the hub, oldest first, and the place behind the last one looked at."""
        changes = list(self._timeline.since(place))
        place = self._timeline.added - len(changes)
        wanted: list[ConnectionChange] = []
        for change in changes:
            if len(wanted) == count:
                break
            place += 1
            if change.scope == scope:
                wanted.append(change)
        return self._response(wanted, place)

    async def _of(self, call: Call) -> Response:
        name = name_of(call.named["device"], call.named.get("module"))
        found = self._timeline.of(call.the_hub.scope, name)
        return self._response(found[-count_asked(call.request) :], self._timeline.added)

    def _response(self, changes: Iterable[ConnectionChange], place: int) -> Response:
        headers = [("x-ms-continuation", self._places.write(place))]
        return json_response([change_view(each) for each in changes], headers=headers)


def change_view(change: ConnectionChange) -> dict[str, Any]:
    """As clients of this API read it."""
    device_id, _, module_id = change.name.partition("/")
    ending = change.ending
    return {
        "time": timestamp(change.time),
        "deviceId": device_id,
        "moduleId": module_id or None,
        "state": "Connected" if ending is None else "Disconnected",
        "cause": ending.cause.value if ending is not None else None,
        "detail": ending.detail if ending is not None else "",
        "seconds": None if change.seconds is None else round(change.seconds, 3),
        "trackingId": change.tracking_id,
        "door": change.door,
        "address": change.address,
    }
