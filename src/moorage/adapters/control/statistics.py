"""How much the server has to do: `statistics`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response
from moorage.adapters.samples import HubCounted, Sample, Samples
from moorage.credentials.policy import REGISTRATION_STATUS_READ
from moorage.hub.instance import Hub


class StatisticsRoutes:
    def __init__(self, samples: Samples, hubs: Callable[[], Sequence[Hub]]) -> None:
        self._samples = samples
        self._hubs = hubs
        read = Needs(dps=(REGISTRATION_STATUS_READ,))
        self.routes = (Route("GET", "statistics", read, self._show),)

    async def _show(self, call: Call) -> Response:
        samples = self._samples.all()
        now = samples[-1]
        columns = _columns(samples)
        seconds_ago = [round(now.at - each.at, 1) for each in samples]
        return json_response(
            {
                **{name: values[-1] for name, values in columns.items()},
                "recent": {"secondsAgo": seconds_ago, **columns},
                "hubs": [_of_hub(hub, samples) for hub in self._hubs()],
            }
        )


def _columns(samples: Sequence[Sample]) -> dict[str, list[int]]:
    counted = [each.counted for each in samples]
    return {
        "registrationsAssigned": [each.assigned for each in counted],
        "registrationsFailed": [each.failed for each in counted],
        "connections": [each.connections for each in counted],
        "devicesConnected": [sum(hub.devices for hub in each.hubs.values()) for each in counted],
        "messages": [sum(hub.events for hub in each.hubs.values()) for each in counted],
    }


def _of_hub(hub: Hub, samples: Sequence[Sample]) -> dict[str, Any]:
    """Of a hub that is younger than the oldest sample, zeros before."""
    counted = [each.counted.hubs.get(hub.scope, HubCounted(0, 0)) for each in samples]
    recent = {
        "devicesConnected": [each.devices for each in counted],
        "messages": [each.events for each in counted],
    }
    return {"name": hub.name, **{name: values[-1] for name, values in recent.items()}, "recent": recent}
