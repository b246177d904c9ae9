"""Devices that are assigned to hubs of other servers: told what the record says already, and never twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from moorage.credentials import policy
from moorage.credentials.connection_string import ConnectionString
from moorage.credentials.decision import Decisions
from moorage.credentials.x509 import Certificate
from moorage.errors import Invalid
from moorage.hub import instance
from moorage.hub.authentication import Authentication
from moorage.hub.identity import Identities
from moorage.hub.twin import InitialTwin, Twin, new_twin
from moorage.interfaces import AllocatorAnswer, Change, Clock, Store
from moorage.net.background import Tasks
from moorage.provisioning import registration as registrations
from moorage.provisioning.hub_registry import DeviceData, HubRefused
from moorage.provisioning.linked_hubs import LinkedHubs, LinkTerms
from moorage.provisioning.operations import Outside
from moorage.provisioning.provisioner import Provisioner
from moorage.provisioning.registration import RegistrationState, Status, Substatus
from moorage.provisioning.service import ProvisioningService
from tests.provisioning.conftest import DPS, HUB_A
from tests.provisioning.test_operations import NEWEST, Oracle, register

Certify = Callable[..., Certificate]
LOGIN = ConnectionString("far.example.net", 443, "iothubowner", "MDEyMzQ1Njc4OWFiY2RlZg==")
RESET = {"updateHubAssignment": True, "migrateDeviceData": False}


class Far:
    """Another server's hub. `records` is what the registration record said whenever it was told something."""

    distant = True

    def __init__(self, store: Store) -> None:
        self._store = store
        self.devices: dict[str, DeviceData] = {}
        self.keys: dict[str, Authentication] = {}
        self.told: list[str] = []
        self.records: list[RegistrationState | None] = []
        self.refusal: HubRefused | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def _tell(self, verb: str) -> None:
        self.told.append(verb)
        self.records.append(await self._store.records(registrations.KIND, DPS).get("pump-7"))
        await self.open.wait()
        if self.refusal is not None:
            raise self.refusal

    async def read(self, device_id: str) -> DeviceData | None:
        await self._tell("read")
        return self.devices.get(device_id)

    async def provision(
        self,
        device_id: str,
        authentication: Authentication,
        *,
        iot_edge: bool,
        initial_twin: InitialTwin,
        carried: Twin | None,
        reset: bool,
    ) -> Sequence[Change]:
        await self._tell("provision")
        fresh = carried or new_twin(device_id, 0, initial_twin.tags, initial_twin.desired)
        if reset or carried or device_id not in self.devices:
            self.devices[device_id] = DeviceData(iot_edge=iot_edge, twin=fresh)
        self.keys[device_id] = authentication
        return ()

    async def delete(self, device_id: str) -> Sequence[Change]:
        await self._tell("delete")
        self.devices.pop(device_id, None)
        return ()


@pytest.fixture
def far(store: Store) -> Far:
    return Far(store)


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks(grace=0.05)
    yield made
    await made.stop()


@pytest.fixture
def leaf(certify: Certify) -> Certificate:
    """The device's certificate."""
    return certify()


Build = Callable[[Tasks], Provisioner]


@pytest.fixture
def build(
    service: ProvisioningService,
    store: Store,
    clock: Clock,
    decisions: Decisions,
    hub_a: Identities,
    far: Far,
) -> Build:
    """A process: another one finds what the first has left in the store."""

    def make(tasks: Tasks) -> Provisioner:
        oracle = Oracle()
        oracle.answer = AllocatorAnswer(
            status=200,
            body=b'{"iotHubHostName":"far.example.net","payload":{"a":1},"initialTwin":{"tags":{"by":"oracle"}}}',
        )
        outside = Outside(allocators={"https": oracle}, background=tasks, reach=lambda login: far)
        return Provisioner(
            service, store=store, clock=clock, hubs={HUB_A: hub_a}, decisions=decisions, outside=outside
        )

    return make


@pytest.fixture
async def linked(store: Store, hub_a: Identities, hub_b: Identities) -> LinkedHubs:
    for each in (hub_a, hub_b):  # ids go on from there
        await store.records(instance.KIND, 0).put(each.hub)
    return LinkedHubs(store, DPS)


@pytest.fixture
async def dps(provisioner: Provisioner, build: Build, tasks: Tasks, linked: LinkedHubs) -> Provisioner:
    """The far hub is linked, and takes part in no allocation that does not name it."""
    await linked.link_distant(LOGIN, LinkTerms(eligible=False))
    return build(tasks)


async def enroll(dps: Provisioner, leaf: Certificate, hub: str = "far", **members: Any) -> None:
    document = {
        "registrationId": "pump-7",
        "attestation": {
            "type": "x509",
            "x509": {"clientCertificates": {"primary": {"certificate": leaf.to_pem()}}},
        },
        "iotHubs": [f"{hub}.example.net"],
        "initialTwin": {"tags": {"site": "dock"}, "properties": {"desired": {"interval": 30}}},
        **members,
    }
    await dps.enrollments.put(document, if_match="*", api_version=NEWEST)


async def ended(dps: Provisioner, state: RegistrationState) -> RegistrationState:
    """What a device is told that polls until its operation has ended."""
    for _ in range(200):
        state = await dps.operation("0ne00ABCDEF", "pump-7", state.operation_id)
        if state.status is not Status.ASSIGNING:
            return state
        await asyncio.sleep(0)
    raise AssertionError("the operation has not ended")


async def test_the_record_says_where_before_the_hub_is_told(
    dps: Provisioner, far: Far, leaf: Certificate, decisions: Decisions
) -> None:
    await enroll(dps, leaf)
    state = await register(dps, leaf)

    assert (state.status, state.assigned_hub, state.substatus) == (
        Status.ASSIGNED,
        "far.example.net",
        Substatus.INITIAL_ASSIGNMENT,
    )
    assert far.told == ["provision"]
    (then,) = far.records
    assert then is not None
    assert then.status is Status.ASSIGNING
    assert then.pending is not None
    assert then.pending.target == state.assignment
    assert far.devices["pump-7"].twin.tags == {"site": "dock"}
    assert far.keys["pump-7"] == Authentication.self_signed(leaf.sha256)
    assert decisions.of("pump-7")[-1].accepted


async def test_a_slow_hub_makes_the_device_poll(dps: Provisioner, far: Far, leaf: Certificate) -> None:
    await enroll(dps, leaf)
    far.open.clear()
    state = await register(dps, leaf)
    assert state.status is Status.ASSIGNING
    assert (await register(dps, leaf)).operation_id == state.operation_id, "asked again, it is the same one"
    far.open.set()
    assert (await ended(dps, state)).assigned_hub == "far.example.net"
    assert far.told == ["provision"]


async def test_the_same_answer_after_a_crash(
    dps: Provisioner, build: Build, tasks: Tasks, far: Far, leaf: Certificate, linked: LinkedHubs
) -> None:
    await enroll(dps, leaf)
    far.open.clear()
    state = await register(dps, leaf)
    await tasks.stop()
    far.open.set()
    await linked.change("hub-a.example.net", LinkTerms(weight=1000))
    await enroll(dps, leaf, hub="hub-a")

    other = Tasks(grace=0.05)
    again = build(other)
    assert await again.resume() == 1
    assert (await ended(again, state)).assigned_hub == "far.example.net", "what was promised holds"
    assert list(far.devices) == ["pump-7"]
    await other.stop()


async def test_a_refusal_is_the_outcome_in_the_hubs_words(
    dps: Provisioner, far: Far, leaf: Certificate, decisions: Decisions, hub_a: Identities
) -> None:
    await enroll(dps, leaf)
    far.refusal = HubRefused('{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized"}')
    state = await register(dps, leaf)

    assert (state.status, state.error_code) == (Status.FAILED, 400209)
    assert state.error_message == '{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized"}'
    decision = decisions.of("pump-7")[-1]
    assert [check.name for check in decision.checks if not check.held] == ["hub accepts"]
    assert "connection string" in decision.remedy
    far.refusal = None
    assert (await register(dps, leaf)).assigned_hub == "far.example.net"


async def test_a_device_goes_there_and_back_with_its_twin(
    dps: Provisioner, far: Far, leaf: Certificate, hub_a: Identities
) -> None:
    await enroll(dps, leaf, hub="hub-a")
    await register(dps, leaf)
    await hub_a.patch_twin("pump-7", {"tags": {"painted": "red"}})

    await enroll(dps, leaf)
    there = await register(dps, leaf)

    assert (there.assigned_hub, there.substatus) == ("far.example.net", Substatus.DEVICE_DATA_MIGRATED)
    assert far.devices["pump-7"].twin.tags == {"site": "dock", "painted": "red"}
    assert (await hub_a.statistics()).total == 0

    await enroll(dps, leaf, hub="hub-a")
    back = await register(dps, leaf)

    assert (back.assigned_hub, back.substatus) == ("hub-a.example.net", Substatus.DEVICE_DATA_MIGRATED)
    assert (await hub_a.twin("pump-7")).tags == {"site": "dock", "painted": "red"}
    assert far.devices == {}


async def test_what_goes_along_is_not_lost_in_a_crash(
    dps: Provisioner, build: Build, tasks: Tasks, far: Far, leaf: Certificate, hub_a: Identities
) -> None:
    """The far hub has deleted the device already when the process ends, and nothing else is on disk yet."""
    await enroll(dps, leaf)
    await register(dps, leaf)
    far.devices["pump-7"] = DeviceData(iot_edge=True, twin=new_twin("pump-7", 0, {"painted": "red"}))
    await enroll(dps, leaf, hub="hub-a")

    async def delete_and_die(device_id: str) -> Sequence[Change]:
        far.devices.pop(device_id, None)
        await asyncio.Event().wait()
        return ()

    far.delete = delete_and_die  # type: ignore[method-assign]
    state = await register(dps, leaf)
    assert (state.status, far.devices) == (Status.ASSIGNING, {})
    await tasks.stop()
    del far.delete

    other = Tasks(grace=0.05)
    again = build(other)
    await again.resume()
    assert (await ended(again, state)).assigned_hub == "hub-a.example.net"
    assert (await hub_a.twin("pump-7")).tags == {"painted": "red"}
    assert (await hub_a.get("pump-7")).iot_edge
    await other.stop()


async def test_a_device_goes_there_and_begins_anew(
    dps: Provisioner, far: Far, leaf: Certificate, hub_a: Identities
) -> None:
    await enroll(dps, leaf, hub="hub-a", reprovisionPolicy=RESET)
    await register(dps, leaf)
    await hub_a.patch_twin("pump-7", {"tags": {"painted": "red"}})
    await enroll(dps, leaf, reprovisionPolicy=RESET)
    state = await register(dps, leaf)
    assert state.substatus is Substatus.DEVICE_DATA_RESET
    assert far.devices["pump-7"].twin.tags == {"site": "dock"}


async def test_the_same_place_again_renews_the_credentials(
    dps: Provisioner, far: Far, leaf: Certificate
) -> None:
    await enroll(dps, leaf)
    await register(dps, leaf)
    far.devices["pump-7"] = DeviceData(iot_edge=False, twin=new_twin("pump-7", 0, {"painted": "red"}))
    state = await register(dps, leaf)
    assert state.substatus is Substatus.REPROVISIONED
    assert far.devices["pump-7"].twin.tags == {"painted": "red"}


async def test_who_was_asked_for_the_hub_is_asked_once(
    dps: Provisioner, build: Build, tasks: Tasks, far: Far, leaf: Certificate
) -> None:
    """What came back is on disk with where the device goes."""
    webhook = {"webhookUrl": "https://alloc.example.net/pick", "apiVersion": "2021-10-01"}
    await enroll(dps, leaf, allocationPolicy="custom", customAllocationDefinition=webhook)
    far.open.clear()
    state = await register(dps, leaf)
    assert far.told == ["provision"]
    await tasks.stop()
    far.open.set()
    other = Tasks(grace=0.05)
    again = build(other)
    await again.resume()
    done = await ended(again, state)
    assert (done.assigned_hub, done.outcome.payload) == ("far.example.net", {"a": 1})
    assert far.devices["pump-7"].twin.tags == {"by": "oracle"}
    assert again._outside.allocators["https"].asked == []  # type: ignore[attr-defined]
    await other.stop()


async def test_a_hub_unlinked_is_out_of_reach(
    dps: Provisioner, far: Far, leaf: Certificate, linked: LinkedHubs, hub_a: Identities
) -> None:
    await enroll(dps, leaf)
    await register(dps, leaf)
    await linked.unlink("far.example.net")
    await enroll(dps, leaf, hub="hub-a")
    state = await register(dps, leaf)
    assert (state.assigned_hub, state.substatus) == ("hub-a.example.net", Substatus.DEVICE_DATA_MIGRATED)
    assert (await hub_a.twin("pump-7")).tags == {"site": "dock"}


@pytest.mark.parametrize("reprovisioning", [None, {"updateHubAssignment": False, "migrateDeviceData": False}])
async def test_a_hub_linked_again_is_the_same_place(
    dps: Provisioner, far: Far, leaf: Certificate, linked: LinkedHubs, reprovisioning: dict[str, bool] | None
) -> None:
    await enroll(dps, leaf, reprovisionPolicy=reprovisioning)
    await register(dps, leaf)
    far.devices["pump-7"] = DeviceData(iot_edge=False, twin=new_twin("pump-7", 0, {"painted": "red"}))
    await linked.unlink("far.example.net")
    await linked.link_distant(LOGIN, LinkTerms())
    state = await register(dps, leaf)
    assert (state.assigned_hub, state.substatus) == ("far.example.net", Substatus.REPROVISIONED)
    assert far.devices["pump-7"].twin.tags == {"painted": "red"}


async def test_a_key_made_anew_keeps_the_link(linked: LinkedHubs, provisioner: Provisioner) -> None:
    made = await linked.link_distant(LOGIN, LinkTerms(weight=3))
    renewed = ConnectionString(LOGIN.host, 443, "registryReadWrite", "ZmVkY2JhOTg3NjU0MzIxMA==")
    changed = await linked.change(LOGIN.host, LinkTerms.of(made), login=renewed)
    assert (changed.hub, changed.weight, changed.login) == (made.hub, 3, renewed)
    for host, login in (("hub-a.example.net", LOGIN), (LOGIN.host, replace(LOGIN, host="b.example.net"))):
        with pytest.raises(Invalid):
            await linked.change(host, LinkTerms(), login=login)


async def test_a_name_of_ours_is_never_another_servers(
    linked: LinkedHubs, store: Store, hub_a: Identities
) -> None:
    owner, *_ = policy.hub_policies()
    await store.records(policy.KIND, HUB_A).put(owner)
    await linked.check_ours(
        hub_a.hub, ConnectionString("hub-a.example.net", 443, owner.name, owner.secondary_key)
    )
    for name, key in ((owner.name, LOGIN.key), ("nobody", owner.primary_key)):
        with pytest.raises(Invalid, match="a name of the hub 'hub-a'"):
            await linked.check_ours(hub_a.hub, ConnectionString("hub-a.example.net", 443, name, key))


async def test_without_anybody_who_reaches_them_distant_hubs_are_refused(
    provisioner: Provisioner, linked: LinkedHubs, leaf: Certificate
) -> None:
    await linked.link_distant(LOGIN, LinkTerms(eligible=False))
    await enroll(provisioner, leaf)
    state = await register(provisioner, leaf)
    assert (state.status, state.error_code) == (Status.FAILED, 400209)


async def test_a_distant_link_has_an_id_of_its_own(linked: LinkedHubs, provisioner: Provisioner) -> None:
    one = await linked.link_distant(LOGIN, LinkTerms())
    other = await linked.link_distant(ConnectionString("b.example.net", 443, "p", LOGIN.key), LinkTerms())
    assert len({HUB_A, one.hub, other.hub, DPS}) == 4
    assert (await linked.get("far.example.net")).login == LOGIN
    assert LOGIN.key not in repr(one)
