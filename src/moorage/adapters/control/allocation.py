"""What would become of allocation: `allocation/simulate`, which changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import ENROLLMENT_READ, REGISTRATION_STATUS_READ
from moorage.errors import Invalid
from moorage.provisioning.reading import boolean, choice, text
from moorage.provisioning.service import MAX_LINKED_HUBS, MAX_WEIGHT, AllocationPolicy
from moorage.provisioning.simulation import MAX_PAGE, Projection, Simulation, Undecided, WhatIf

DEFAULT_PAGE = 1000  # devices

_READER = Needs(dps=(ENROLLMENT_READ, REGISTRATION_STATUS_READ))


class AllocationRoutes:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.routes = (Route("POST", "allocation/simulate", _READER, self._simulate),)

    async def _simulate(self, call: Call) -> Response:
        """One page of devices, summed up: whoever asks adds the pages together, and holds no more than one."""
        wanted = call.request.json_object() if call.request.body else {}
        projected = await self._simulation.page(
            _read_what_if(wanted), after=text(wanted, "continuation"), limit=_limit(wanted)
        )
        shown = _summary(projected.devices)
        if boolean(wanted, "devices", default=False):
            shown["list"] = [_view(device) for device in projected.devices]
        return json_response({**shown, "continuation": projected.next})


def _summary(devices: Sequence[Projection]) -> dict[str, Any]:
    now, then = Counter(each.now for each in devices), Counter(each.then for each in devices)
    hubs = sorted({name for name in (*now, *then) if not isinstance(name, Undecided)})
    moves = Counter((each.current, each.then) for each in devices if each.moves)
    return {
        "devices": len(devices),
        "hubs": {name: {"now": now[name], "then": then[name]} for name in hubs},
        "undecided": {reason.value: {"now": now[reason], "then": then[reason]} for reason in Undecided},
        "moves": [
            {"from": here, "to": there, "count": count} for (here, there), count in sorted(moves.items())
        ],
    }


def _view(device: Projection) -> dict[str, Any]:
    """A hub is named, or null; then `undecided` says why nobody knows it."""
    undecided = isinstance(device.then, Undecided)
    return {
        "registrationId": device.registration_id,
        "enrollmentGroupId": device.enrollment_group_id,
        "current": device.current,
        "then": None if undecided else device.then,
        "undecided": device.then if undecided else None,
        "moves": device.moves,
    }


def _read_what_if(wanted: Mapping[str, Any]) -> WhatIf:
    removed = wanted.get("removeHubs") or []
    if not isinstance(removed, list) or not all(isinstance(name, str) for name in removed):
        raise Invalid("removeHubs", "must be a list of host names")
    return WhatIf(
        policy=choice(wanted, "allocationPolicy", AllocationPolicy),
        added=_weights(wanted, "addHubs"),
        removed=removed,
        weights=_weights(wanted, "weights"),
    )


def _weights(wanted: Mapping[str, Any], member: str) -> dict[str, int]:
    given = wanted.get(member) or {}
    if not isinstance(given, dict) or len(given) > MAX_LINKED_HUBS:
        raise Invalid(member, f"must be an object of up to {MAX_LINKED_HUBS} host names and their weights")
    for name, weight in given.items():
        if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= MAX_WEIGHT:
            raise Invalid(member, f"the weight of {name[:255]!r} must be a number from 1 to {MAX_WEIGHT}")
    return given


def _limit(wanted: Mapping[str, Any]) -> int:
    limit = wanted.get("limit", DEFAULT_PAGE)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_PAGE:
        raise Invalid("limit", f"must be a number from 1 to {MAX_PAGE}")
    return limit
