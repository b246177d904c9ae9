"""What if: where every device would go if other hubs were linked, or others than now weighed more. Changes nothing.

    WhatIf + the hubs that are linked → the hubs that would be
    every device, a page at a time → Projection: where it is, and where its next registration would bring it

A device is one with an individual enrollment, or one that has come through an enrollment group. Both kinds of
record are kept by registration id, so one walk over the ids meets each device once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from moorage.errors import Conflict, Invalid, NotFound
from moorage.hub import instance
from moorage.hub.scopes import next_scope
from moorage.interfaces import Records, Store
from moorage.provisioning import enrollment as enrollments
from moorage.provisioning import registration as registrations
from moorage.provisioning.allocation import choose, with_latencies
from moorage.provisioning.enrollment import Enrollment, EnrollmentGroup, IndividualEnrollment
from moorage.provisioning.registration import RegistrationState
from moorage.provisioning.service import (
    LINKED_HUB_KIND,
    MAX_LINKED_HUBS,
    SERVICE_KIND,
    AllocationPolicy,
    LinkedHub,
)

MAX_PAGE = 10_000  # devices


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """Host names are in any case. `policy` takes the place of the service's own; enrollments keep theirs."""

    policy: AllocationPolicy | None = None
    added: Mapping[str, int] = field(default_factory=dict)  # host name → weight
    removed: Sequence[str] = ()
    weights: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.policy is AllocationPolicy.CUSTOM:
            raise Invalid("allocationPolicy", "the service's own policy is never 'custom'")


class Undecided(StrEnum):
    """Why a device would get no hub, or why nobody knows which."""

    CUSTOM = "custom"  # somebody outside would be asked, which a simulation does not
    DISABLED = "disabled"
    NO_HUB = "noHub"


@dataclass(frozen=True, slots=True)
class Projection:
    """`current` is where the device is, None when it has never come; `now` and `then` are where its next
    registration brings it as things are, and as they would be: a host name, or why there is none.
    """

    registration_id: str
    enrollment_group_id: str | None
    current: str | None
    now: str | Undecided
    then: str | Undecided

    @property
    def moves(self) -> bool:
        """Whether the device, which is somewhere, would be somewhere else."""
        return self.current is not None and not isinstance(self.then, Undecided) and self.then != self.current


class Projected(NamedTuple):
    """`next` is what to go on after, None when these were the last devices."""

    devices: Sequence[Projection]
    next: str | None


class Simulation:
    def __init__(self, store: Store, scope: int, latencies: Mapping[int, float] | None = None) -> None:
        """`latencies` as for a `Provisioner`."""
        self._latencies = {} if latencies is None else latencies
        self._store = store
        self._scope = scope
        self._linked = store.records(LINKED_HUB_KIND, scope)
        self._individual: Records[IndividualEnrollment] = store.records(enrollments.KIND, scope)
        self._groups: Records[EnrollmentGroup] = store.records(enrollments.GROUP_KIND, scope)
        self._registrations: Records[RegistrationState] = store.records(registrations.KIND, scope)

    async def page(self, what_if: WhatIf, *, after: str | None = None, limit: int) -> Projected:
        """Of about `limit` devices past the registration id `after`. Raises Invalid, NotFound, Conflict."""
        linked = with_latencies((await self._linked.page(limit=MAX_LINKED_HUBS)).records, self._latencies)
        service = await self._store.records(SERVICE_KIND, 0).get(str(self._scope))
        policy = service.allocation_policy if service else AllocationPolicy.HASHED
        now = _Scene(linked, policy)
        then = _Scene(await self._hubs(linked, what_if), what_if.policy or policy)
        enrolled = await self._individual.page(after=after, limit=limit)
        came = await self._registrations.page(after=after, limit=limit)
        # Past the end of the shorter page, the other one says nothing of who is missing.
        last = min((page.next for page in (enrolled, came) if page.next is not None), default=None)
        by_id = {each.registration_id.lower(): each for each in enrolled.records}
        states = {each.registration_id.lower(): each for each in came.records}
        groups: dict[str, EnrollmentGroup | None] = {}
        devices = []
        for key in sorted(by_id.keys() | states.keys()):
            if last is not None and key > last:
                break
            state = states.get(key)
            found: Enrollment | None = by_id.get(key)
            if found is None and state is not None and state.enrollment_group_id is not None:
                found = await self._group(state.enrollment_group_id.lower(), groups)
            if found is not None:  # else nobody may register under this id any more
                devices.append(_project(key, found, state, now, then))
        return Projected(devices, last)

    async def _group(self, key: str, known: dict[str, EnrollmentGroup | None]) -> EnrollmentGroup | None:
        if key not in known:
            known[key] = await self._groups.get(key)
        return known[key]

    async def _hubs(self, linked: Sequence[LinkedHub], what_if: WhatIf) -> list[LinkedHub]:
        """The hubs that would be linked."""
        by_name = {hub.host_name.lower(): hub for hub in linked}
        for name in what_if.removed:
            if by_name.pop(name.lower(), None) is None:
                raise NotFound("linked hub", name[:255])
        for name, weight in what_if.weights.items():
            if name.lower() not in by_name:
                raise NotFound("linked hub", name[:255])
            by_name[name.lower()] = replace(by_name[name.lower()], weight=weight)
        ids = await self._ids(what_if.added) if what_if.added else {}
        for name, weight in what_if.added.items():
            if name.lower() in by_name:
                raise Conflict("linked hub", name[:255])
            by_name[name.lower()] = LinkedHub(
                hub=ids[name.lower()], host_name=name.lower(), weight=weight, etag=""
            )
        return list(by_name.values())

    async def _ids(self, names: Mapping[str, int]) -> dict[str, int]:
        """The ids by which devices are spread: of a hub that is not there yet, the one it would be given."""
        hubs = (await self._store.records(instance.KIND, 0).page(limit=1000)).records
        known = {name.lower(): hub.scope for hub in hubs for name in hub.host_names}
        scope, _ = await next_scope(self._store)
        ids = {}
        for name in names:
            ids[name.lower()] = known.get(name.lower(), scope)
            scope += name.lower() not in known
        return ids


class _Scene(NamedTuple):
    """What is linked, and the service's policy."""

    linked: Sequence[LinkedHub]
    policy: AllocationPolicy


def _project(
    key: str, enrollment: Enrollment, state: RegistrationState | None, now: _Scene, then: _Scene
) -> Projection:
    place = state.assignment if state is not None else None
    here = place.hub if place is not None else None
    own = isinstance(enrollment, IndividualEnrollment)
    registration_id = enrollment.registration_id if isinstance(enrollment, IndividualEnrollment) else key
    if state is not None and not own:
        registration_id = state.registration_id
    return Projection(
        registration_id,
        None if isinstance(enrollment, IndividualEnrollment) else enrollment.enrollment_group_id,
        place.host_name if place is not None else None,
        _place(registration_id, enrollment, here, now),
        _place(registration_id, enrollment, here, then),
    )


def _place(registration_id: str, enrollment: Enrollment, here: int | None, scene: _Scene) -> str | Undecided:
    terms = enrollment.terms
    if not terms.enabled:
        return Undecided.DISABLED
    policy = terms.reprovision_policy
    if here is not None and policy is not None and not policy.update_hub_assignment:
        for hub in scene.linked:
            if hub.hub == here:
                return hub.host_name
    by = terms.allocation.policy_or(scene.policy)
    if by is AllocationPolicy.CUSTOM:
        return Undecided.CUSTOM
    chosen = choose(registration_id, by, scene.linked, terms.allocation.named)
    return chosen.host_name if chosen is not None else Undecided.NO_HUB
