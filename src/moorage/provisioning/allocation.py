"""Which linked hub a device is assigned to: a pure choice over what is linked now [dps 13].

Custom allocation, which asks somebody outside, is a choice of another kind: `custom_allocation`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from moorage.provisioning.service import AllocationPolicy, LinkedHub


def eligible(linked: Sequence[LinkedHub], named: Collection[str]) -> list[LinkedHub]:
    """The hubs that may be chosen: those named, in any case; with none named, all that take part."""
    if not named:
        return [hub for hub in linked if hub.eligible]
    wanted = {name.lower() for name in named}
    return [hub for hub in linked if hub.host_name.lower() in wanted]


def choose(
    registration_id: str, policy: AllocationPolicy, linked: Sequence[LinkedHub], named: Collection[str]
) -> LinkedHub | None:
    """The hub for this registration id, or None when there is none to choose.

    `static` needs exactly one hub to be left. `geoLatency` is `hashed` among the nearest hubs. `custom` is
    nothing that could be chosen here: None.
    """
    candidates = eligible(linked, named)
    if policy is AllocationPolicy.CUSTOM or (policy is AllocationPolicy.STATIC and len(candidates) != 1):
        return None
    if policy is AllocationPolicy.GEO_LATENCY:
        candidates = nearest(candidates)
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    return max(candidates, key=lambda hub: (_score(registration_id, hub), hub.hub))


def with_latencies(linked: Sequence[LinkedHub], measured: Mapping[int, float]) -> Sequence[LinkedHub]:
    """Each hub with the latency in `measured`, by its id, unless the operator has said one."""
    if not measured:
        return linked
    return [
        hub if hub.latency_ms is not None else replace(hub, latency_ms=measured.get(hub.hub))
        for hub in linked
    ]


def nearest(candidates: Sequence[LinkedHub]) -> list[LinkedHub]:
    """The hubs of the lowest latency, to the millisecond: what differs by less is equally near.

    A hub whose latency nobody knows comes after all others; where none is known, all are equally near.
    """
    distances = [math.inf if hub.latency_ms is None else round(hub.latency_ms) for hub in candidates]
    return [hub for hub, distance in zip(candidates, distances, strict=True) if distance == min(distances)]


def _score(registration_id: str, hub: LinkedHub) -> float:
    """Weighted rendezvous hashing over SHA-256, version 1.

    A hub that joins or leaves moves only the devices it takes or had, and the choice depends on the hub's
    id alone, so that renaming a host moves nobody. Changing this moves devices: give it a new version then.
    """
    digest = hashlib.sha256(f"{registration_id.lower()}\0{hub.hub}".encode()).digest()
    share = (int.from_bytes(digest[:6], "big") + 0.5) / 2**48  # exact, strictly between 0 and 1
    return -hub.weight / math.log(share)
