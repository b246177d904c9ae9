"""Registrations that have to ask somebody: begun, polled, taken up again, and ended once."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from moorage.credentials.decision import Decisions
from moorage.credentials.keys import public_bytes
from moorage.credentials.sas import derive_key, make_token, new_key
from moorage.credentials.workshop.request import make_request
from moorage.credentials.workshop.subject import read_subject
from moorage.credentials.x509 import Certificate
from moorage.errors import Invalid, NotFound
from moorage.hub.identity import Identities
from moorage.interfaces import AllocatorAnswer, Clock, Store
from moorage.net.background import Tasks
from moorage.provisioning.challenge import TpmChallenge
from moorage.provisioning.operations import Outside
from moorage.provisioning.provisioner import Provisioner, RegistrationRequest, SasProof, X509Proof
from moorage.provisioning.registration import RegistrationState, Status, Substatus, read_register_body
from moorage.provisioning.service import ApiVersion, LinkedHub, ProvisioningService
from tests.support.software_tpm import SoftwareTpm

NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
OLDEST = ApiVersion("2018-04-01", reprovisioning=False, precise_substatus=False)
SCOPE = "0ne00ABCDEF"
HUB_B = LinkedHub(hub=8, host_name="hub-b.example.net", etag="1")
URL = "https://alloc.example.net/pick?code=s3cret"
WEBHOOK = {"webhookUrl": URL, "apiVersion": "2021-10-01"}
TWIN = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 30}}}

Certify = Callable[..., Certificate]


class Oracle:
    """Answers when the test says so; what it was asked is in `asked`."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.urls: list[str] = []
        self.answer = AllocatorAnswer(status=200, body=b'{"iotHubHostName": "hub-b.example.net"}')
        self.open = asyncio.Event()
        self.open.set()

    def says(self, status: int = 200, **members: Any) -> None:
        document = {"iotHubHostName": "hub-b.example.net", **members}
        self.answer = AllocatorAnswer(status=status, body=json.dumps(document).encode(), seconds=0.25)

    def check(self, webhook_url: str) -> None:
        if "nobody" in webhook_url:
            raise Invalid("customAllocationDefinition.webhookUrl", "nobody is there")

    async def ask(self, webhook_url: str, request: bytes) -> AllocatorAnswer:
        self.urls.append(webhook_url)
        self.asked.append(json.loads(request))
        await self.open.wait()
        return self.answer


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks(grace=0.05)
    yield made
    await made.stop()


Build = Callable[[Tasks], Provisioner]


@pytest.fixture
def build(
    service: ProvisioningService,
    store: Store,
    clock: Clock,
    decisions: Decisions,
    hub_a: Identities,
    hub_b: Identities,
    oracle: Oracle,
) -> Build:
    """A process: another one finds what the first has left in the store."""

    def make(tasks: Tasks) -> Provisioner:
        outside = Outside(allocators={"https": oracle}, background=tasks)
        hubs = {7: hub_a, 8: hub_b}
        return Provisioner(service, store=store, clock=clock, hubs=hubs, decisions=decisions, outside=outside)

    return make


@pytest.fixture
async def asking(provisioner: Provisioner, build: Build, tasks: Tasks) -> Provisioner:
    """A service with two linked hubs that can ask the oracle."""
    await provisioner.link_hub(HUB_B)
    return build(tasks)


async def enroll(
    provisioner: Provisioner, *leaves: Certificate, if_match: str | None = None, **members: Any
) -> None:
    names = ("primary", "secondary")
    pair = {name: {"certificate": leaf.to_pem()} for name, leaf in zip(names, leaves, strict=False)}
    document = {
        "registrationId": "pump-7",
        "attestation": {"type": "x509", "x509": {"clientCertificates": pair}},
        "allocationPolicy": "custom",
        "customAllocationDefinition": WEBHOOK,
        **members,
    }
    await provisioner.enrollments.put(document, if_match=if_match, api_version=NEWEST)


async def register(
    provisioner: Provisioner, leaf: Certificate, payload: Any = None, api_version: ApiVersion = NEWEST
) -> RegistrationState:
    request = RegistrationRequest(
        id_scope=SCOPE,
        registration_id="pump-7",
        api_version=api_version,
        payload=payload,
        tracking_id="0f" * 16,
        door="mqtt",
        address="192.0.2.7",
    )
    return await provisioner.register(request, X509Proof((leaf.der,)))


async def poll(provisioner: Provisioner, state: RegistrationState) -> RegistrationState:
    return await provisioner.operation(SCOPE, "pump-7", state.operation_id)


async def until_ended(provisioner: Provisioner, state: RegistrationState) -> RegistrationState:
    for _ in range(500):
        found = await poll(provisioner, state)
        if found.status is not Status.ASSIGNING:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("the operation has not ended")


async def until_asked(oracle: Oracle, times: int) -> None:
    for _ in range(500):
        if len(oracle.asked) == times:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"asked {len(oracle.asked)} times, not {times}")


async def until_idle(tasks: Tasks) -> None:
    for _ in range(500):
        if not len(tasks):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("somebody still works")


# --- Asking and answering --------------------------------------------------------------------------------


async def test_a_quick_answer_is_the_answer_to_the_register_request(
    asking: Provisioner, oracle: Oracle, hub_b: Identities, certify: Certify
) -> None:
    oracle.says(initialTwin=TWIN, payload={"welcome": True})
    leaf = certify("pump-7")
    await enroll(asking, leaf, deviceId="line4", initialTwin={"tags": {"site": "south"}})
    state = await register(asking, leaf, {"model": "toaster"})
    assert state.status is Status.ASSIGNED
    assert state.substatus is Substatus.INITIAL_ASSIGNMENT
    assert (state.assigned_hub, state.device_id) == ("hub-b.example.net", "line4")
    assert state.operation_status(NEWEST)["registrationState"]["payload"] == {"welcome": True}
    assert (await asking.registration("pump-7")).to_json(NEWEST)["payload"] == {"welcome": True}
    assert (await hub_b.twin("line4")).tags == {"site": "north"}
    assert oracle.urls == [URL]
    [asked] = oracle.asked
    assert asked["individualEnrollment"]["customAllocationDefinition"]["webhookUrl"].endswith("?****")
    assert asked["individualEnrollment"]["attestation"] == {"type": "x509"}
    assert asked["linkedHubs"] == ["hub-a.example.net", "hub-b.example.net"]
    context = asked["deviceRuntimeContext"]
    assert (context["registrationId"], context["payload"]) == ("pump-7", {"model": "toaster"})
    assert list(context["x509"]) == ["clientCertificate"]
    assert "currentIotHubHostName" not in context


async def test_without_a_twin_of_the_webhook_s_the_enrollment_s_holds(
    asking: Provisioner, oracle: Oracle, hub_b: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    oracle.says(initialTwin=None, payload=None)
    await enroll(asking, leaf, initialTwin=TWIN)
    state = await register(asking, leaf)
    assert "payload" not in state.to_json(NEWEST)
    assert (await hub_b.twin("pump-7")).tags == {"site": "north"}


@pytest.mark.parametrize("payload", ["a text", 0, False, [], [1, None], {}])
async def test_a_payload_of_any_kind_goes_up_and_down(
    asking: Provisioner, oracle: Oracle, certify: Certify, payload: Any
) -> None:
    leaf = certify("pump-7")
    oracle.says(payload=payload)
    await enroll(asking, leaf)
    state = await register(asking, leaf, payload)
    assert oracle.asked[0]["deviceRuntimeContext"]["payload"] == payload
    assert state.operation_status(NEWEST)["registrationState"]["payload"] == payload


async def test_a_payload_that_cannot_be_passed_on_is_refused(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    with pytest.raises(Invalid, match="payload"):
        await register(asking, leaf, {"a": float("inf")})
    with pytest.raises(NotFound):
        await asking.registration("pump-7")
    assert not oracle.asked


async def test_on_a_later_registration_the_place_it_has_is_told(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf, deviceId="line4")
    await register(asking, leaf)
    again = await register(asking, leaf)
    assert again.substatus is Substatus.REPROVISIONED
    context = oracle.asked[1]["deviceRuntimeContext"]
    assert (context["currentIotHubHostName"], context["currentDeviceId"]) == ("hub-b.example.net", "line4")


@pytest.mark.parametrize(("given", "site"), [(None, "changed"), (TWIN, "north")])
async def test_a_twin_of_the_webhook_s_goes_before_the_one_that_migrates(
    asking: Provisioner,
    oracle: Oracle,
    hub_a: Identities,
    hub_b: Identities,
    certify: Certify,
    given: Any,
    site: str,
) -> None:
    leaf = certify("pump-7")
    oracle.says(iotHubHostName="hub-a.example.net")
    await enroll(asking, leaf)
    await register(asking, leaf)
    await hub_a.patch_twin("pump-7", {"tags": {"site": "changed"}})
    oracle.says(initialTwin=given)
    state = await register(asking, leaf)
    assert state.substatus is Substatus.DEVICE_DATA_MIGRATED
    assert (await hub_b.twin("pump-7")).tags == {"site": site}


async def test_on_the_same_hub_the_twin_is_left_alone(
    asking: Provisioner, oracle: Oracle, hub_b: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    oracle.says(initialTwin=TWIN)
    await enroll(asking, leaf)
    await register(asking, leaf)
    await hub_b.patch_twin("pump-7", {"tags": {"site": "changed"}})
    await register(asking, leaf)
    assert (await hub_b.twin("pump-7")).tags == {"site": "changed"}


async def test_nobody_is_asked_where_the_device_stays_whatever_the_answer(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf, reprovisionPolicy={"updateHubAssignment": False})
    await register(asking, leaf)
    assert (await register(asking, leaf)).status is Status.ASSIGNED
    assert len(oracle.asked) == 1


async def test_an_old_device_s_enrollment_is_told_in_full(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    await register(asking, leaf, api_version=OLDEST)
    assert oracle.asked[0]["individualEnrollment"]["allocationPolicy"] == "custom"


async def test_only_the_hubs_that_the_enrollment_names_are_offered(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf, iotHubs=["hub-a.example.net"])
    state = await register(asking, leaf)
    assert oracle.asked[0]["linkedHubs"] == ["hub-a.example.net"]
    assert (state.status, state.error_code) == (Status.FAILED, 400207)


async def test_with_no_hub_to_offer_nobody_is_asked(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    await asking.unlink_hub(7)
    await asking.unlink_hub(8)
    assert (await register(asking, leaf)).error_code == 400208
    assert not oracle.asked


async def test_somebody_who_can_never_be_asked_is_refused_in_the_enrollment(
    asking: Provisioner, certify: Certify
) -> None:
    leaf = certify("pump-7")
    for url in ("https://nobody.example.net/", "python:by_model"):
        with pytest.raises(Invalid, match="webhookUrl"):
            await enroll(
                asking, leaf, customAllocationDefinition={"webhookUrl": url, "apiVersion": "2021-10-01"}
            )


# --- Failing ---------------------------------------------------------------------------------------------


async def test_a_failed_webhook_fails_the_operation_in_azure_s_words_and_is_explained(
    asking: Provisioner, oracle: Oracle, decisions: Decisions, hub_b: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    oracle.answer = AllocatorAnswer(status=500, body=b'{"why": "tired", "apiToken": "t0ken"}', seconds=0.5)
    await enroll(asking, leaf)
    state = await register(asking, leaf, {"password": "hunter2"})
    told = state.operation_status(NEWEST)
    assert told["status"] == "failed"
    assert told["registrationState"]["errorCode"] == 400207
    assert told["registrationState"]["errorMessage"] == "Custom allocation failed with status code: 500"
    with pytest.raises(NotFound):
        await hub_b.get("pump-7")
    [decision] = decisions.of("pump-7")
    assert not decision.accepted
    assert [check.name for check in decision.checks if not check.held] == ["custom allocation"]
    exchange = decision.exchange
    assert exchange is not None
    assert (exchange.asked, exchange.status, exchange.seconds) == (
        "https://alloc.example.net/pick?****",
        500,
        0.5,
    )
    assert '"registrationId": "pump-7"' in exchange.request
    assert '"why": "tired"' in exchange.answer
    for secret in ("hunter2", "t0ken", "s3cret"):
        assert secret not in exchange.request + exchange.answer


async def test_a_traceback_is_for_the_operator_alone(
    asking: Provisioner, oracle: Oracle, decisions: Decisions, certify: Certify
) -> None:
    leaf = certify("pump-7")
    oracle.answer = AllocatorAnswer(failure="the allocation function failed", detail="Traceback: KeyError")
    await enroll(asking, leaf)
    state = await register(asking, leaf)
    assert state.error_message == "Custom allocation failed: the allocation function failed"
    [decision] = decisions.of("pump-7")
    assert decision.exchange is not None
    assert decision.exchange.detail == "Traceback: KeyError"
    assert "Traceback" not in json.dumps(state.to_json(NEWEST))


async def test_after_a_failure_the_device_may_come_again(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    oracle.says(500)
    await enroll(asking, leaf)
    await register(asking, leaf)
    oracle.says()
    assert (await register(asking, leaf)).substatus is Substatus.INITIAL_ASSIGNMENT


# --- Under way -------------------------------------------------------------------------------------------


async def test_a_slow_answer_is_polled_for(
    asking: Provisioner, oracle: Oracle, decisions: Decisions, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    oracle.open.clear()
    begun = await register(asking, leaf)
    assert begun.status is Status.ASSIGNING
    assert (begun.assigned_hub, begun.device_id) == (None, None)
    assert (await poll(asking, begun)).status is Status.ASSIGNING
    assert not decisions.of("pump-7"), "nothing is decided yet"
    assert (await asking.registration("pump-7")).to_json(NEWEST)["status"] == "assigning"
    oracle.open.set()
    ended = await until_ended(asking, begun)
    assert (ended.status, ended.operation_id) == (Status.ASSIGNED, begun.operation_id)
    [decision] = decisions.of("pump-7")
    assert (decision.accepted, decision.door, decision.address) == (True, "mqtt", "192.0.2.7")
    assert decision.exchange is not None
    assert len(oracle.asked) == 1


async def test_a_device_that_registers_again_meanwhile_joins_the_running_operation(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    oracle.open.clear()
    begun = await register(asking, leaf)
    others = await asyncio.gather(*(register(asking, leaf) for _ in range(5)))
    assert {other.operation_id for other in others} == {begun.operation_id}
    oracle.open.set()
    assert (await until_ended(asking, begun)).status is Status.ASSIGNED
    assert len(oracle.asked) == 1


async def test_devices_that_register_at_once_are_asked_about_once(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    oracle.open.clear()
    begun = await asyncio.gather(*(register(asking, leaf) for _ in range(10)))
    assert len({state.operation_id for state in begun}) == 1
    assert len(oracle.asked) == 1


async def test_another_proof_takes_the_place_of_the_running_operation(
    asking: Provisioner, oracle: Oracle, hub_b: Identities, certify: Certify
) -> None:
    first, second = certify("pump-7"), certify("pump-7")
    await enroll(asking, first, second)
    oracle.open.clear()
    begun = await register(asking, first)
    later = await register(asking, second)
    assert later.operation_id != begun.operation_id
    oracle.open.set()
    ended = await until_ended(asking, later)
    assert ended.status is Status.ASSIGNED
    assert (await poll(asking, begun)).status is Status.ASSIGNED
    assert (await hub_b.get("pump-7")).authentication.thumbprints[0] == second.sha256
    assert len(oracle.asked) == 2


async def test_an_enrollment_disabled_meanwhile_ends_the_operation_as_disabled(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    oracle.open.clear()
    begun = await register(asking, leaf)
    await enroll(asking, leaf, if_match="*", provisioningStatus="disabled")
    oracle.open.set()
    assert (await until_ended(asking, begun)).status is Status.DISABLED


async def test_a_device_disabled_meanwhile_that_comes_again_is_told_so(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    oracle.open.clear()
    await register(asking, leaf)
    await enroll(asking, leaf, if_match="*", provisioningStatus="disabled")
    assert (await register(asking, leaf)).status is Status.DISABLED


async def test_an_enrollment_deleted_meanwhile_fails_the_operation(
    asking: Provisioner, oracle: Oracle, hub_b: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    oracle.open.clear()
    begun = await register(asking, leaf)
    await asking.enrollments.delete("pump-7")
    oracle.open.set()
    ended = await until_ended(asking, begun)
    assert (ended.status, ended.error_code) == (Status.FAILED, 404201)
    with pytest.raises(NotFound):
        await hub_b.get("pump-7")


async def test_a_record_deleted_meanwhile_stays_deleted(
    asking: Provisioner, oracle: Oracle, tasks: Tasks, hub_b: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    oracle.open.clear()
    begun = await register(asking, leaf)
    await asking.delete_registration("pump-7")
    oracle.open.set()
    await until_idle(tasks)
    with pytest.raises(NotFound):
        await poll(asking, begun)
    with pytest.raises(NotFound):
        await hub_b.get("pump-7")


async def test_an_enrollment_that_is_hashed_by_the_time_of_the_answer_is_hashed(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    oracle.open.clear()
    oracle.says(iotHubHostName="hub-b.example.net", payload=1)
    begun = await register(asking, leaf)
    await enroll(asking, leaf, if_match="*", allocationPolicy="static", iotHubs=["hub-a.example.net"])
    oracle.open.set()
    assert (await until_ended(asking, begun)).assigned_hub == "hub-a.example.net"


async def test_a_hub_unlinked_meanwhile_is_no_choice_any_more(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    oracle.open.clear()
    begun = await register(asking, leaf)
    await asking.unlink_hub(8)
    oracle.open.set()
    assert (await until_ended(asking, begun)).error_code == 400208


async def test_while_a_later_operation_runs_the_device_keeps_its_place(
    asking: Provisioner, oracle: Oracle, hub_b: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(asking, leaf)
    first = await register(asking, leaf)
    oracle.open.clear()
    again = await register(asking, leaf)
    assert again.status is Status.ASSIGNING
    assert again.assignment == first.assignment
    await hub_b.get("pump-7")


# --- Stop and start --------------------------------------------------------------------------------------


@pytest.fixture
async def restarted(asking: Provisioner, build: Build, tasks: Tasks) -> AsyncIterator[Callable[[], Any]]:
    """Ends the process that works on everything, and begins another one."""
    later: list[Tasks] = []

    async def restart() -> Provisioner:
        await tasks.stop()
        later.append(Tasks(grace=0.05))
        return build(later[-1])

    yield restart
    for each in later:
        await each.stop()


async def left_assigning(asking: Provisioner, oracle: Oracle, leaf: Certificate) -> RegistrationState:
    await enroll(asking, leaf)
    oracle.open.clear()
    return await register(asking, leaf, {"model": "toaster"})


async def test_a_start_takes_up_what_was_under_way(
    asking: Provisioner,
    restarted: Callable[[], Any],
    oracle: Oracle,
    decisions: Decisions,
    hub_b: Identities,
    certify: Certify,
) -> None:
    leaf = certify("pump-7")
    begun = await left_assigning(asking, oracle, leaf)
    after = await restarted()
    oracle.open.set()
    assert await after.resume() == 1
    await until_asked(oracle, 2)
    assert oracle.asked[1] == oracle.asked[0], "the same question, payload and certificate included"
    ended = await until_ended(after, begun)
    assert (ended.status, ended.operation_id) == (Status.ASSIGNED, begun.operation_id)
    assert (await hub_b.get("pump-7")).authentication.thumbprints[0] == leaf.sha256
    [decision] = decisions.of("pump-7")
    assert (decision.tracking_id, decision.door, decision.address) == ("0f" * 16, "mqtt", "192.0.2.7")
    assert await after.resume() == 0


async def test_a_device_of_a_group_is_taken_up_with_its_derived_key(
    asking: Provisioner,
    restarted: Callable[[], Any],
    oracle: Oracle,
    hub_b: Identities,
) -> None:
    key = new_key()
    group = {
        "enrollmentGroupId": "pumps",
        "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}},
        "allocationPolicy": "custom",
        "customAllocationDefinition": WEBHOOK,
    }
    await asking.groups.put(group, if_match=None, api_version=NEWEST)
    own = derive_key(key, "Pump-7")
    token = make_token(f"{SCOPE}/registrations/Pump-7", own, 2_000_000_000, "registration")
    request = RegistrationRequest(id_scope=SCOPE, registration_id="Pump-7", api_version=NEWEST)
    oracle.open.clear()
    begun = await asking.register(request, SasProof(token))
    assert begun.status is Status.ASSIGNING
    after = await restarted()
    oracle.open.set()
    assert await after.resume() == 1
    ended = await until_ended(after, begun)
    assert (ended.status, ended.enrollment_group_id) == (Status.ASSIGNED, "pumps")
    assert [asked["enrollmentGroup"]["enrollmentGroupId"] for asked in oracle.asked] == ["pumps", "pumps"]
    assert oracle.asked[0]["deviceRuntimeContext"] == {"registrationId": "Pump-7", "symmetricKey": {}}
    assert (await hub_b.get("Pump-7")).authentication.primary_key == own
    assert key not in str(oracle.asked)


async def test_a_poll_takes_up_what_nobody_works_on(
    asking: Provisioner, restarted: Callable[[], Any], oracle: Oracle, certify: Certify
) -> None:
    begun = await left_assigning(asking, oracle, certify("pump-7"))
    after = await restarted()
    oracle.open.set()
    assert (await poll(after, begun)).status is Status.ASSIGNED


async def test_a_device_that_registers_again_takes_up_its_own_operation(
    asking: Provisioner, restarted: Callable[[], Any], oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    begun = await left_assigning(asking, oracle, leaf)
    after = await restarted()
    oracle.open.set()
    again = await register(after, leaf)
    assert (again.status, again.operation_id) == (Status.ASSIGNED, begun.operation_id)


async def test_two_processes_that_work_on_one_operation_end_it_once(
    asking: Provisioner, build: Build, oracle: Oracle, decisions: Decisions, certify: Certify
) -> None:
    begun = await left_assigning(asking, oracle, certify("pump-7"))
    tasks = Tasks(grace=0.05)
    other = build(tasks)
    assert (await poll(other, begun)).status is Status.ASSIGNING
    await until_asked(oracle, 2)
    oracle.open.set()
    await until_ended(other, begun)
    await until_ended(asking, begun)
    await tasks.stop()
    assert len(decisions.of("pump-7")) == 1


async def test_a_record_survives_its_document(
    asking: Provisioner, oracle: Oracle, certify: Certify, store: Store
) -> None:
    from moorage.provisioning.registration import KIND

    state = await left_assigning(asking, oracle, certify("pump-7"))
    kept = await store.records(KIND, 1).get("pump-7")
    assert kept == state
    assert kept is not None
    assert KIND.from_document(json.loads(json.dumps(KIND.to_document(kept)))) == kept
    assert KIND.index["status"](kept) == ("assigning",)
    assert KIND.index["status"](replace(kept, outcome=replace(kept.outcome, status=Status.FAILED))) == ()


# --- Certificates on request -----------------------------------------------------------------------------

PREVIEW = ApiVersion("2025-07-01-preview", reprovisioning=True, precise_substatus=True, issuance=True)


async def ask_for_certificate(provisioner: Provisioner, leaf: Certificate, csr: bytes) -> RegistrationState:
    request = RegistrationRequest(id_scope=SCOPE, registration_id="pump-7", api_version=PREVIEW, csr=csr)
    return await provisioner.register(request, X509Proof((leaf.der,)))


def signing_request(name: str = "pump-7") -> tuple[bytes, bytes]:
    """DER, and the public key in it."""
    made, key = make_request(read_subject(name))
    return made.public_bytes(Encoding.DER), public_bytes(key.public_key())


async def test_a_certificate_is_issued_when_the_hub_is_known_over_a_restart_too(
    asking: Provisioner, build: Build, tasks: Tasks, oracle: Oracle, hub_b: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await asking.credential_policies.put("short", {}, condition=None)
    await enroll(asking, leaf, credentialPolicyName="short")
    oracle.open.clear()
    csr, key = signing_request()
    begun = await ask_for_certificate(asking, leaf, csr)
    assert begun.status is Status.ASSIGNING
    await tasks.stop()

    oracle.open.set()
    later = Tasks(grace=0.05)
    restarted = build(later)
    await restarted.resume()
    ended = await until_ended(restarted, begun)
    await later.stop()

    assert ended.status is Status.ASSIGNED
    assert ended.issued is not None
    chain = [base64.b64decode(each) for each in ended.issued.chain]
    assert public_bytes(Certificate(chain[0]).public_key) == key
    await hub_b.authenticate("pump-7", password=None, chain=chain)


async def test_another_request_takes_the_place_of_the_one_under_way(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await asking.credential_policies.put("short", {}, condition=None)
    await enroll(asking, leaf, credentialPolicyName="short")
    oracle.open.clear()
    csr, _ = signing_request()
    first = await ask_for_certificate(asking, leaf, csr)
    again = await ask_for_certificate(asking, leaf, csr)
    other_csr, other_key = signing_request()
    other = await ask_for_certificate(asking, leaf, other_csr)
    assert again.operation_id == first.operation_id != other.operation_id
    oracle.open.set()
    ended = await until_ended(asking, other)
    assert ended.issued is not None
    assert public_bytes(Certificate(base64.b64decode(ended.issued.chain[0])).public_key) == other_key


async def test_a_request_that_will_not_do_is_told_before_anybody_is_asked(
    asking: Provisioner, oracle: Oracle, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await asking.credential_policies.put("short", {}, condition=None)
    await enroll(asking, leaf, credentialPolicyName="short")
    with pytest.raises(Invalid, match="common name"):
        await ask_for_certificate(asking, leaf, signing_request("pump-8")[0])
    assert oracle.asked == []


# --- A TPM takes its hub's key home, however long the hub was chosen -------------------------------------


async def test_a_tpm_s_key_outlives_the_process_that_made_it(
    asking: Provisioner, build: Build, tasks: Tasks, oracle: Oracle, hub_b: Identities, clock: Clock
) -> None:
    tpm = SoftwareTpm()
    await enroll(asking, attestation={"type": "tpm", "tpm": tpm.keys})
    told = read_register_body(json.dumps({"tpm": tpm.keys}).encode(), "pump-7").tpm
    request = RegistrationRequest(
        id_scope=SCOPE, registration_id="pump-7", api_version=NEWEST, tpm=told, door="https"
    )
    with pytest.raises(TpmChallenge) as challenge:
        await asking.register(request, None)
    tpm.activate(base64.b64decode(challenge.value.authentication_key))
    proof = SasProof(tpm.token(f"{SCOPE}/registrations/pump-7", clock.now() // 1_000_000 + 600))
    oracle.open.clear()
    begun = await asking.register(request, proof)
    assert begun.status is Status.ASSIGNING
    assert oracle.asked[0]["deviceRuntimeContext"]["tpm"] == {}
    await tasks.stop()

    later = Tasks(grace=0.05)
    try:
        oracle.open.set()
        restarted = build(later)
        await restarted.resume()
        ended = await until_ended(restarted, begun)
    finally:
        await later.stop()
    told_back = ended.operation_status(NEWEST)["registrationState"]["tpm"]["authenticationKey"]
    tpm.activate(base64.b64decode(told_back))
    assert tpm.key is not None
    identity = await hub_b.get("pump-7")
    assert identity.authentication.primary_key == base64.b64encode(tpm.key).decode()
