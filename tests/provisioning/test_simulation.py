"""What if: every device is met once, whatever the page size, and goes where a registration would take it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from moorage.credentials.decision import Decisions
from moorage.credentials.sas import derive_key, make_token, new_key
from moorage.errors import Conflict, Invalid, NotFound
from moorage.hub import instance
from moorage.hub.identity import Identities
from moorage.interfaces import Clock, Store
from moorage.provisioning.provisioner import Provisioner, RegistrationRequest, SasProof
from moorage.provisioning.service import AllocationPolicy, ApiVersion, LinkedHub, ProvisioningService
from moorage.provisioning.simulation import Projection, Simulation, Undecided, WhatIf

NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
SCOPE = "0ne00ABCDEF"
A, B = "hub-a.example.net", "hub-b.example.net"
KEY = new_key()
LATER = 2_000_000_000  # seconds


@pytest.fixture
def simulation(store: Store) -> Simulation:
    return Simulation(store, 1)


async def put(provisioner: Provisioner, name: str, **members: Any) -> None:
    keys = {"primaryKey": KEY, "secondaryKey": KEY}
    document = {
        "registrationId": name,
        "attestation": {"type": "symmetricKey", "symmetricKey": keys},
        **members,
    }
    await provisioner.enrollments.put(document, if_match=None, api_version=NEWEST)


async def put_group(provisioner: Provisioner, name: str, **members: Any) -> None:
    keys = {"primaryKey": KEY, "secondaryKey": KEY}
    document = {
        "enrollmentGroupId": name,
        "attestation": {"type": "symmetricKey", "symmetricKey": keys},
        **members,
    }
    await provisioner.groups.put(document, if_match=None, api_version=NEWEST)


async def register(provisioner: Provisioner, name: str, *, derived: bool = False) -> str | None:
    key = derive_key(KEY, name) if derived else KEY
    token = make_token(f"{SCOPE}/registrations/{name}", key, LATER, "registration")
    request = RegistrationRequest(id_scope=SCOPE, registration_id=name, api_version=NEWEST)
    return (await provisioner.register(request, SasProof(token))).assigned_hub


async def walk(simulation: Simulation, what_if: WhatIf | None = None, limit: int = 7) -> list[Projection]:
    found: list[Projection] = []
    after: str | None = None
    while True:
        page = await simulation.page(what_if or WhatIf(), after=after, limit=limit)
        found += page.devices
        if page.next is None:
            return found
        after = page.next


async def link_b(provisioner: Provisioner, **terms: Any) -> None:
    await provisioner.link_hub(LinkedHub(hub=8, host_name=B, etag="1", **terms))


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_every_device_is_met_once(provisioner: Provisioner, simulation: Simulation, limit: int) -> None:
    await put_group(provisioner, "pumps")
    for number in range(6):
        await put(provisioner, f"Enrolled-{number}")
        await register(provisioner, f"member-{number}", derived=True)
    await register(provisioner, "Enrolled-3")
    # Their records are left, and nobody may come under them any more.
    await put(provisioner, "gone")
    await register(provisioner, "gone")
    await provisioner.enrollments.delete("gone")
    found = await walk(simulation, limit=limit)
    assert [device.registration_id for device in found] == [
        *(f"Enrolled-{number}" for number in range(6)),
        *(f"member-{number}" for number in range(6)),
    ]
    assert {device.enrollment_group_id for device in found} == {None, "pumps"}
    came = {device.registration_id for device in found if device.current == A}
    assert came == {"Enrolled-3", *(f"member-{number}" for number in range(6))}
    assert {device.then for device in found} == {A}


async def test_nothing_is_changed_and_the_next_registrations_do_as_was_told(
    provisioner: Provisioner, simulation: Simulation, store: Store, hub_b: Identities
) -> None:
    await store.records(instance.KIND, 0).put(hub_b.hub)
    names = [f"pump-{number}" for number in range(30)]
    for name in names:
        await put(provisioner, name)
        await register(provisioner, name)
    told = {device.registration_id: device for device in await walk(simulation, WhatIf(added={B: 2}))}
    assert [hub.host_name for hub in await provisioner.linked_hubs()] == [A]
    moving = {name for name, device in told.items() if device.moves}
    assert 0 < len(moving) < 30
    await link_b(provisioner, weight=2)
    for name in names:
        assert await register(provisioner, name) == told[name].then
        assert (told[name].then == B) == (name in moving)


async def test_hubs_that_go_and_hubs_that_weigh_more(
    provisioner: Provisioner, simulation: Simulation
) -> None:
    await link_b(provisioner)
    for number in range(40):
        await put(provisioner, f"pump-{number}")
    gone = Counter(device.then for device in await walk(simulation, WhatIf(removed=[A.upper()])))
    assert gone == {B: 40}
    light = Counter(device.then for device in await walk(simulation))
    heavy = Counter(device.then for device in await walk(simulation, WhatIf(weights={B: 1000})))
    assert heavy[B] > light[B]


async def test_the_service_s_policy_is_tried_and_enrollments_keep_theirs(
    provisioner: Provisioner, simulation: Simulation
) -> None:
    await link_b(provisioner, latency_ms=5)
    for number in range(20):
        await put(provisioner, f"pump-{number}")
    await put(provisioner, "static", allocationPolicy="static", iotHubs=[A])
    found = await walk(simulation, WhatIf(policy=AllocationPolicy.GEO_LATENCY))
    assert {device.registration_id for device in found if device.then == A} == {"static"}
    with pytest.raises(Invalid):
        WhatIf(policy=AllocationPolicy.CUSTOM)


async def test_devices_without_a_hub_say_why(provisioner: Provisioner, simulation: Simulation) -> None:
    await put(provisioner, "asleep", provisioningStatus="disabled")
    await put(provisioner, "named", iotHubs=[A])
    await link_b(provisioner)
    found = {device.registration_id: device for device in await walk(simulation, WhatIf(removed=[A]))}
    assert (found["asleep"].then, found["asleep"].moves) == (Undecided.DISABLED, False)
    assert (found["named"].now, found["named"].then) == (A, Undecided.NO_HUB)


async def test_who_never_moves_stays_unless_the_hub_goes(
    provisioner: Provisioner, simulation: Simulation
) -> None:
    await put(provisioner, "settled", reprovisionPolicy={"updateHubAssignment": False})
    await register(provisioner, "settled")
    await link_b(provisioner, weight=1000)
    [stays] = await walk(simulation, WhatIf(weights={B: 999}))
    assert (stays.then, stays.moves) == (A, False)
    [leaves] = await walk(simulation, WhatIf(removed=[A]))
    assert (leaves.then, leaves.moves) == (B, True)


async def test_hubs_that_cannot_be_meant(provisioner: Provisioner, simulation: Simulation) -> None:
    with pytest.raises(NotFound):
        await simulation.page(WhatIf(removed=[B]), limit=1)
    with pytest.raises(NotFound):
        await simulation.page(WhatIf(weights={B: 2}), limit=1)
    with pytest.raises(Conflict):
        await simulation.page(WhatIf(added={A: 2}), limit=1)


async def test_latencies_that_were_measured_count_in_both(
    service: ProvisioningService,
    store: Store,
    clock: Clock,
    provisioner: Provisioner,
    hub_a: Identities,
    hub_b: Identities,
) -> None:
    measured = {7: 40.0, 8: 5.0}
    await link_b(provisioner)
    measuring = Provisioner(
        service,
        store=store,
        clock=clock,
        hubs={7: hub_a, 8: hub_b},
        decisions=Decisions(),
        latencies=measured,
    )
    await put(measuring, "pump-7", allocationPolicy="geoLatency")
    for nearest in (B, A):
        [told] = await walk(Simulation(store, 1, measured))
        assert await register(measuring, "pump-7") == told.then == nearest
        measured[7] = 1.0
