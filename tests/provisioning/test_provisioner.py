from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from moorage.credentials.decision import Decisions
from moorage.credentials.etag import new_etag
from moorage.credentials.issuing import moment
from moorage.credentials.workshop.credential import Wish
from moorage.credentials.workshop.flaws import FLAWS
from moorage.credentials.workshop.subject import read_subject
from moorage.credentials.x509 import Certificate
from moorage.errors import Conflict, Invalid, MoorageError, NotFound, PreconditionFailed, Unauthorized
from moorage.hub.identity import Identities
from moorage.interfaces import Clock, Peer, Store
from moorage.provisioning.enrollment import IndividualEnrollment
from moorage.provisioning.provisioner import Proof, Provisioner, RegistrationRequest, SasProof, X509Proof
from moorage.provisioning.registration import RegistrationState, Status, Substatus
from moorage.provisioning.service import (
    SERVICE_KIND,
    AllocationPolicy,
    ApiVersion,
    LinkedHub,
    ProvisioningService,
)

NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
OLDEST = ApiVersion("2018-04-01", reprovisioning=False, precise_substatus=False)

Certify = Callable[..., Certificate]
HUB_B = LinkedHub(hub=8, host_name="hub-b.example.net", weight=1000, etag=new_etag())


def document(primary: Certificate, secondary: Certificate | None = None, **members: Any) -> dict[str, Any]:
    pair: dict[str, Any] = {"primary": {"certificate": primary.to_pem()}}
    if secondary:
        pair["secondary"] = {"certificate": secondary.to_pem()}
    attestation = {"type": "x509", "x509": {"clientCertificates": pair}}
    return {"registrationId": "pump-7", "attestation": attestation, **members}


async def enroll(
    provisioner: Provisioner, *certificates: Certificate, if_match: str | None = None, **members: Any
) -> IndividualEnrollment:
    return await provisioner.enrollments.put(
        document(*certificates, **members), if_match=if_match, api_version=NEWEST
    )


async def register(
    provisioner: Provisioner,
    proof: Proof | Certificate | None,
    registration_id: str = "pump-7",
    *,
    id_scope: str = "0ne00ABCDEF",
    api_version: ApiVersion = NEWEST,
) -> RegistrationState:
    request = RegistrationRequest(
        id_scope=id_scope,
        registration_id=registration_id,
        api_version=api_version,
        tracking_id="0f" * 16,
        door="mqtt",
        address="192.0.2.7",
    )
    return await provisioner.register(
        request, X509Proof((proof.der,)) if isinstance(proof, Certificate) else proof
    )


# --- Registering -----------------------------------------------------------------------------------------


async def test_an_enrolled_device_gets_its_hub_identity_and_twin(
    provisioner: Provisioner, hub_a: Identities, decisions: Decisions, certify: Certify, clock: Clock
) -> None:
    leaf = certify("pump-7")
    twin = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 30, "count": 2}}}
    await enroll(provisioner, leaf, deviceId="line4-robot7", capabilities={"iotEdge": True}, initialTwin=twin)
    state = await register(provisioner, leaf)
    assert state.status is Status.ASSIGNED
    assert state.substatus is Substatus.INITIAL_ASSIGNMENT
    assert (state.assigned_hub, state.device_id) == ("hub-a.example.net", "line4-robot7")
    assert state.created == state.updated == clock.now()

    identity = await hub_a.get("line4-robot7")
    assert identity.authentication.type == "selfSigned"
    assert identity.authentication.thumbprints == (leaf.sha256, None)
    assert identity.iot_edge
    kept = await hub_a.twin("line4-robot7")
    assert kept.tags == {"site": "north"}
    assert kept.desired.values == {"interval": 30}

    [decision] = decisions.of("pump-7")
    assert decision.accepted
    assert decision.tracking_id == "0f" * 16
    assert (decision.door, decision.address, decision.scope) == ("mqtt", "192.0.2.7", 1)
    assert decision.considered == ("individual enrollment pump-7",)
    assert [check.name for check in decision.checks] == [
        "id scope",
        "enrollment exists",
        "certificate presented",
        "certificate enrolled",
        "certificate common name",
        "certificate validity",
        "hub assigned",
    ]
    assert all(check.held for check in decision.checks)


async def test_ids_are_found_in_any_case_and_keep_the_operators_spelling(
    provisioner: Provisioner, hub_a: Identities, certify: Certify
) -> None:
    leaf = certify("PUMP-7")
    await provisioner.enrollments.put(
        document(leaf, registrationId="Pump-7"), if_match=None, api_version=NEWEST
    )
    state = await register(provisioner, leaf, "pump-7", id_scope="0NE00abcdef")
    assert state.registration_id == state.device_id == "Pump-7"
    assert (await provisioner.registration("pUMP-7")).etag == state.etag
    assert (await provisioner.enrollments.get("PUMP-7")).registration_id == "Pump-7"
    await hub_a.get("Pump-7")


async def test_the_secondary_certificate_is_as_good_and_becomes_the_credential(
    provisioner: Provisioner, hub_a: Identities, certify: Certify
) -> None:
    first, second = certify("pump-7"), certify("pump-7")
    await enroll(provisioner, first, second)
    await register(provisioner, first)
    again = await register(provisioner, second)
    assert again.substatus is Substatus.REPROVISIONED
    assert (await hub_a.get("pump-7")).authentication.thumbprints == (second.sha256, None)


async def test_a_device_that_comes_again_keeps_identity_and_twin(
    provisioner: Provisioner, hub_a: Identities, certify: Certify, after: Callable[[timedelta], None]
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf, initialTwin={"tags": {"site": "north"}})
    first = await register(provisioner, leaf)
    before = await hub_a.get("pump-7")
    await hub_a.patch_twin("pump-7", {"tags": {"site": "south"}})
    after(timedelta(hours=1))
    again = await register(provisioner, leaf)
    assert again.created == first.created
    assert again.updated == first.updated + 3_600_000_000
    assert again.operation_id != first.operation_id
    assert (await hub_a.get("pump-7")).generation_id == before.generation_id
    assert (await hub_a.twin("pump-7")).tags == {"site": "south"}


async def test_an_identity_deleted_in_the_hub_is_made_again(
    provisioner: Provisioner, hub_a: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf, initialTwin={"tags": {"site": "north"}})
    await register(provisioner, leaf)
    await hub_a.delete("pump-7")
    assert (await register(provisioner, leaf)).status is Status.ASSIGNED
    assert (await hub_a.twin("pump-7")).tags == {"site": "north"}


async def test_a_disabled_enrollment_ends_in_disabled_and_touches_no_hub(
    provisioner: Provisioner, hub_a: Identities, decisions: Decisions, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf, provisioningStatus="disabled")
    state = await register(provisioner, leaf)
    assert state.status is Status.DISABLED
    assert state.assigned_hub is state.device_id is None
    assert (await provisioner.registration("pump-7")).status is Status.DISABLED
    with pytest.raises(NotFound):
        await hub_a.get("pump-7")
    [decision] = decisions.of("pump-7")
    assert not decision.accepted
    assert [check.name for check in decision.checks if not check.held] == ["enrollment enabled"]
    assert "provisioningStatus" in decision.remedy


async def test_a_device_that_was_disabled_for_a_while_comes_back_to_its_hub(
    provisioner: Provisioner, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    await register(provisioner, leaf)
    await enroll(provisioner, leaf, if_match="*", provisioningStatus="disabled")
    assert (await register(provisioner, leaf)).status is Status.DISABLED
    await enroll(provisioner, leaf, if_match="*")
    assert (await register(provisioner, leaf)).substatus is Substatus.REPROVISIONED


async def test_without_a_linked_hub_the_operation_fails(
    provisioner: Provisioner, decisions: Decisions, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    await provisioner.unlink_hub(7)
    state = await register(provisioner, leaf)
    assert (state.status, state.error_code) == (Status.FAILED, 400208)
    assert state.error_message == "No hub is linked to the service"
    assert decisions.of("pump-7")[0].checks[-1] == ("hub assigned", False, state.error_message)


async def test_a_linked_hub_that_is_not_served_here_fails_the_operation(
    provisioner: Provisioner, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await provisioner.link_hub(LinkedHub(hub=99, host_name="far.example.net", etag=new_etag()))
    await enroll(provisioner, leaf, iotHubs=["far.example.net"])
    assert (await register(provisioner, leaf)).error_code == 400209


async def test_the_service_s_policy_counts_where_the_enrollment_has_none(
    provisioner: Provisioner, service: ProvisioningService, store: Store, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await provisioner.link_hub(HUB_B)
    await enroll(provisioner, leaf)
    static = ProvisioningService(
        scope=service.scope,
        id_scope=service.id_scope,
        host_names=service.host_names,
        allocation_policy=AllocationPolicy.STATIC,
        created=service.created,
        etag=new_etag(),
    )
    await store.records(SERVICE_KIND, 0).put(static, expect=service.etag)
    assert (await register(provisioner, leaf)).error_code == 400208
    await enroll(provisioner, leaf, if_match="*", iotHubHostName="hub-b.example.net")
    assert (await register(provisioner, leaf)).assigned_hub == "hub-b.example.net"


# --- Moving between hubs ---------------------------------------------------------------------------------


async def moved(
    provisioner: Provisioner, hub_a: Identities, leaf: Certificate, **policy: bool
) -> RegistrationState:
    """Register in hub A, let the operator touch the twin, name hub B and register again."""
    twin = {"tags": {"site": "north"}}
    await enroll(provisioner, leaf, initialTwin=twin)
    await register(provisioner, leaf)
    await hub_a.patch_twin("pump-7", {"tags": {"site": "south"}})
    await provisioner.link_hub(HUB_B)
    await enroll(
        provisioner,
        leaf,
        if_match="*",
        initialTwin=twin,
        iotHubs=["hub-b.example.net"],
        reprovisionPolicy=policy,
    )
    return await register(provisioner, leaf)


async def test_migrate_takes_the_twin_along(
    provisioner: Provisioner, hub_a: Identities, hub_b: Identities, certify: Certify
) -> None:
    state = await moved(
        provisioner, hub_a, certify("pump-7"), updateHubAssignment=True, migrateDeviceData=True
    )
    assert state.assigned_hub == "hub-b.example.net"
    assert state.substatus is Substatus.DEVICE_DATA_MIGRATED
    assert (await hub_b.twin("pump-7")).tags == {"site": "south"}
    assert (await hub_b.get("pump-7")).authentication.type == "selfSigned"
    with pytest.raises(NotFound):
        await hub_a.get("pump-7")
    with pytest.raises(NotFound):
        await hub_a.twin("pump-7")


async def test_reset_starts_from_the_enrollment(
    provisioner: Provisioner, hub_a: Identities, hub_b: Identities, certify: Certify
) -> None:
    state = await moved(
        provisioner, hub_a, certify("pump-7"), updateHubAssignment=True, migrateDeviceData=False
    )
    assert state.substatus is Substatus.DEVICE_DATA_RESET
    assert (await hub_b.twin("pump-7")).tags == {"site": "north"}
    with pytest.raises(NotFound):
        await hub_a.get("pump-7")


async def test_never_stays(provisioner: Provisioner, hub_a: Identities, certify: Certify) -> None:
    state = await moved(provisioner, hub_a, certify("pump-7"), updateHubAssignment=False)
    assert state.assigned_hub == "hub-a.example.net"
    assert state.substatus is Substatus.REPROVISIONED
    assert (await hub_a.twin("pump-7")).tags == {"site": "south"}


async def test_never_keeps_the_device_id_too(
    provisioner: Provisioner, hub_a: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    never = {"updateHubAssignment": False, "migrateDeviceData": True}
    await enroll(provisioner, leaf, reprovisionPolicy=never)
    await register(provisioner, leaf)
    await enroll(provisioner, leaf, if_match="*", deviceId="renamed", reprovisionPolicy=never)
    assert (await register(provisioner, leaf)).device_id == "pump-7"


async def test_never_moves_when_its_hub_is_unlinked(
    provisioner: Provisioner, hub_b: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf, reprovisionPolicy={"updateHubAssignment": False})
    await register(provisioner, leaf)
    await provisioner.link_hub(HUB_B)
    await provisioner.unlink_hub(7)
    assert (await register(provisioner, leaf)).assigned_hub == "hub-b.example.net"
    await hub_b.get("pump-7")


async def test_an_old_device_stays_unless_the_enrollment_says_otherwise(
    provisioner: Provisioner, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    await register(provisioner, leaf, api_version=OLDEST)
    await provisioner.link_hub(HUB_B)
    named = ["hub-b.example.net"]
    await enroll(provisioner, leaf, if_match="*", iotHubs=named)
    assert (await register(provisioner, leaf, api_version=OLDEST)).assigned_hub == "hub-a.example.net"
    policy = {"updateHubAssignment": True}
    await enroll(provisioner, leaf, if_match="*", iotHubs=named, reprovisionPolicy=policy)
    assert (await register(provisioner, leaf, api_version=OLDEST)).assigned_hub == "hub-b.example.net"


async def test_a_changed_device_id_moves_like_a_changed_hub(
    provisioner: Provisioner, hub_a: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf, initialTwin={"tags": {"site": "north"}})
    await register(provisioner, leaf)
    await enroll(provisioner, leaf, if_match="*", deviceId="line4-robot7")
    state = await register(provisioner, leaf)
    assert state.device_id == "line4-robot7"
    assert state.substatus is Substatus.DEVICE_DATA_MIGRATED
    assert (await hub_a.twin("line4-robot7")).tags == {"site": "north"}
    with pytest.raises(NotFound):
        await hub_a.get("pump-7")


async def test_after_its_record_is_deleted_a_device_comes_for_the_first_time(
    provisioner: Provisioner, hub_a: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    await register(provisioner, leaf)
    await provisioner.delete_registration("PUMP-7")
    await enroll(provisioner, leaf, if_match="*", deviceId="renamed")
    state = await register(provisioner, leaf)
    assert state.substatus is Substatus.INITIAL_ASSIGNMENT
    assert state.device_id == "renamed"
    await hub_a.get("pump-7")  # left behind, as in Azure


# --- Refusals --------------------------------------------------------------------------------------------


async def refusal(
    provisioner: Provisioner, proof: Proof | Certificate | None, registration_id: str = "pump-7", **how: Any
) -> Unauthorized:
    with pytest.raises(Unauthorized) as caught:
        await register(provisioner, proof, registration_id, **how)
    with pytest.raises(NotFound):
        await provisioner.registration(registration_id)
    assert caught.value.remedy
    return caught.value


async def test_an_unknown_id_scope(provisioner: Provisioner, certify: Certify) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    error = await refusal(provisioner, leaf, id_scope="0ne00999999")
    assert error.check == "id scope"
    assert "0ne00ABCDEF" in error.remedy


async def test_an_unknown_registration_id(
    provisioner: Provisioner, decisions: Decisions, certify: Certify
) -> None:
    error = await refusal(provisioner, certify("pump-8"), "pump-8")
    assert error.check == "enrollment exists"
    [decision] = decisions.of("pump-8")
    assert not decision.known
    assert decision.proof["chain"][0]["subject"] == "CN=pump-8, O=Contoso"


async def test_a_certificate_that_is_enrolled_under_another_id_is_told_which(
    provisioner: Provisioner, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    assert "'pump-7'" in (await refusal(provisioner, leaf, "pump-8")).remedy


async def test_unknown_registration_ids_share_one_ring(
    provisioner: Provisioner, decisions: Decisions, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    await register(provisioner, leaf)
    for number in range(150):
        with pytest.raises(Unauthorized):
            await register(provisioner, None, f"unknown-{number}")
    assert decisions.of("unknown-0") == []
    assert len(decisions.of("unknown-149")) == 1
    assert len(decisions.of("pump-7")) == 1


async def test_another_certificate(provisioner: Provisioner, decisions: Decisions, certify: Certify) -> None:
    enrolled, presented = certify("pump-7"), certify("pump-7")
    await enroll(provisioner, enrolled)
    error = await refusal(provisioner, presented)
    assert error.check == "certificate enrolled"
    assert enrolled.sha256 in error.remedy
    assert presented.sha256 in error.why
    [decision] = decisions.of("pump-7")
    assert decision.proof["chain"][0]["sha256Thumbprint"] == presented.sha256
    assert decision.remedy == error.remedy


@pytest.mark.parametrize("common_name", ["pump-8", None])
async def test_a_common_name_that_is_not_the_registration_id(
    provisioner: Provisioner, certify: Certify, common_name: str | None
) -> None:
    leaf = certify(common_name)
    await enroll(provisioner, leaf)
    assert (await refusal(provisioner, leaf)).check == "certificate common name"


async def test_a_certificate_with_an_empty_subject_is_refused_with_the_likely_mistake(
    provisioner: Provisioner, clock: Clock
) -> None:
    wish = Wish(read_subject("pump-7"), moment(clock.now()), 30)
    made = FLAWS["empty-subject"].make(wish).certificate
    leaf = Certificate(made.public_bytes(Encoding.DER))
    await enroll(provisioner, leaf)
    refused = await refusal(provisioner, leaf)
    assert refused.check == "certificate common name"
    assert "'//CN=name' outside Git Bash" in refused.remedy


async def test_an_expired_certificate(
    provisioner: Provisioner, certify: Certify, after: Callable[[timedelta], None]
) -> None:
    leaf = certify("pump-7", end=timedelta(hours=1))
    await enroll(provisioner, leaf)
    after(timedelta(hours=2))
    assert "expired at 2026-03-02T09:15:30Z" in (await refusal(provisioner, leaf)).why


async def test_a_certificate_of_tomorrow(provisioner: Provisioner, certify: Certify) -> None:
    leaf = certify("pump-7", start=timedelta(days=1))
    await enroll(provisioner, leaf)
    assert "not valid before 2026-03-03T08:15:30Z" in (await refusal(provisioner, leaf)).why


@pytest.mark.parametrize(
    ("proof", "word"),
    [(None, "nothing"), (X509Proof(()), "nothing"), (SasProof("SharedAccess"), "SAS token")],
)
async def test_no_certificate(
    provisioner: Provisioner, certify: Certify, proof: Proof | None, word: str
) -> None:
    await enroll(provisioner, certify("pump-7"))
    error = await refusal(provisioner, proof)
    assert error.check == "certificate presented"
    assert word in error.why


async def test_a_leaf_that_is_no_certificate_is_refused_and_described(
    provisioner: Provisioner, decisions: Decisions, certify: Certify
) -> None:
    await enroll(provisioner, certify("pump-7"))
    await refusal(provisioner, X509Proof((b"\x30\x00",)))
    assert "unreadable" in decisions.of("pump-7")[0].proof["chain"][0]


async def test_a_wrong_certificate_for_a_disabled_enrollment_is_unauthorized(
    provisioner: Provisioner, certify: Certify
) -> None:
    await enroll(provisioner, certify("pump-7"), provisioningStatus="disabled")
    assert (await refusal(provisioner, certify("pump-7"))).check == "certificate enrolled"


def test_a_connection_turned_away_leaves_a_decision(provisioner: Provisioner, decisions: Decisions) -> None:
    malformed = Invalid("user name", "is malformed")
    provisioner.note_refusal("connect", "pump-7", malformed, "ab" * 16, Peer("192.0.2.7", "mqtt"))
    [decision] = decisions.latest(5)
    assert (decision.operation, decision.tracking_id, decision.accepted) == ("connect", "ab" * 16, False)
    assert "malformed" in decision.error


# --- Operations ------------------------------------------------------------------------------------------


async def test_each_of_the_latest_operations_can_be_polled(
    provisioner: Provisioner, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    first = await register(provisioner, leaf)
    second = await register(provisioner, leaf)
    for operation_id in (first.operation_id, second.operation_id):
        state = await provisioner.operation("0ne00ABCDEF", "PUMP-7", operation_id)
        assert state.operation_status(NEWEST)["operationId"] == operation_id
        assert state.to_json(NEWEST) == second.to_json(NEWEST)


async def test_operations_survive_a_restart(
    provisioner: Provisioner, store: Store, service: ProvisioningService, clock: Clock, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    state = await register(provisioner, leaf)
    restarted = Provisioner(service, store=store, clock=clock, hubs={}, decisions=Decisions())
    again = await restarted.operation("0ne00ABCDEF", "pump-7", state.operation_id)
    assert again.operation_status(NEWEST) == state.operation_status(NEWEST)


async def test_unknown_operations(provisioner: Provisioner, certify: Certify) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    state = await register(provisioner, leaf)
    for registration_id, operation_id in (
        ("pump-7", "5.0.0"),
        ("pump-8", state.operation_id),
        ("pump-7", ""),
    ):
        with pytest.raises(NotFound) as caught:
            await provisioner.operation("0ne00ABCDEF", registration_id, operation_id)
        assert caught.value.kind == "operation"
    with pytest.raises(Unauthorized):
        await provisioner.operation("0ne00999999", "pump-7", state.operation_id)


# --- At the same time ------------------------------------------------------------------------------------


async def test_registering_many_times_at_once_makes_one_device_and_every_answer_can_be_polled(
    provisioner: Provisioner, hub_a: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    states = await asyncio.gather(*(register(provisioner, leaf) for _ in range(60)))
    assert {state.status for state in states} == {Status.ASSIGNED}
    assert (await hub_a.statistics()).total == 1
    for state in states:
        polled = await provisioner.operation("0ne00ABCDEF", "pump-7", state.operation_id)
        assert polled.assigned_hub == "hub-a.example.net"


async def test_both_certificates_of_a_device_at_once(
    provisioner: Provisioner, hub_a: Identities, certify: Certify
) -> None:
    first, second = certify("pump-7"), certify("pump-7")
    await enroll(provisioner, first, second)
    states = await asyncio.gather(*(register(provisioner, leaf) for leaf in (first, second) * 3))
    assert {state.status for state in states} == {Status.ASSIGNED}
    last = (await provisioner.registration("pump-7")).outcome.proof
    assert (await hub_a.get("pump-7")).authentication.thumbprints == (last, None)


async def test_an_operator_changing_the_twin_meanwhile_does_not_stop_a_registration(
    provisioner: Provisioner, hub_a: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    await register(provisioner, leaf)
    results = await asyncio.gather(
        *(register(provisioner, leaf) for _ in range(5)),
        *(hub_a.patch_twin("pump-7", {"tags": {"n": n}}) for n in range(5)),
        hub_a.delete("pump-7"),
        return_exceptions=True,
    )
    assert all(isinstance(result, RegistrationState) for result in results[:5])


async def test_one_of_two_operators_creates_the_enrollment(
    provisioner: Provisioner, certify: Certify
) -> None:
    leaf = certify("pump-7")
    results = await asyncio.gather(
        *(enroll(provisioner, leaf, deviceId=f"d{n}") for n in range(4)), return_exceptions=True
    )
    assert sum(isinstance(result, IndividualEnrollment) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 3


async def test_unconditional_updates_at_once_all_succeed(provisioner: Provisioner, certify: Certify) -> None:
    leaf = certify("pump-7")
    await asyncio.gather(*(enroll(provisioner, leaf, if_match="*", deviceId=f"d{n}") for n in range(4)))
    assert (await provisioner.enrollments.get("pump-7")).device_id in {"d0", "d1", "d2", "d3"}


async def test_of_two_updates_from_the_same_etag_one_fails(
    provisioner: Provisioner, certify: Certify
) -> None:
    leaf = certify("pump-7")
    etag = (await enroll(provisioner, leaf)).etag
    results = await asyncio.gather(
        *(enroll(provisioner, leaf, if_match=etag, deviceId=f"d{n}") for n in range(2)),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == [
        "IndividualEnrollment",
        "PreconditionFailed",
    ]


# --- Conditional writes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", '"{}"', 'W/"{}"', '""{}""', ' "{}" ', "*", '"*"', 'W/"*"'])
async def test_forms_of_an_etag_that_matches(provisioner: Provisioner, certify: Certify, form: str) -> None:
    leaf = certify("pump-7")
    first = await enroll(provisioner, leaf)
    second = await enroll(provisioner, leaf, if_match=form.format(first.etag))
    assert second.etag != first.etag
    await provisioner.enrollments.delete("PUMP-7", if_match=form.format(second.etag))
    with pytest.raises(NotFound):
        await provisioner.enrollments.get("pump-7")


@pytest.mark.parametrize("stale", ["badetag", '"00000000-0000-0000-0000-000000000000"', "", '""'])
async def test_stale_etags(provisioner: Provisioner, certify: Certify, stale: str) -> None:
    leaf = certify("pump-7")
    with pytest.raises(PreconditionFailed):
        await enroll(provisioner, leaf, if_match=stale)
    await enroll(provisioner, leaf)
    with pytest.raises(PreconditionFailed):
        await enroll(provisioner, leaf, if_match=stale)
    with pytest.raises(PreconditionFailed):
        await provisioner.enrollments.delete("pump-7", if_match=stale)
    await register(provisioner, leaf)
    with pytest.raises(PreconditionFailed):
        await provisioner.delete_registration("pump-7", if_match=stale)


async def test_creating_what_exists_is_a_conflict_in_any_case(
    provisioner: Provisioner, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    with pytest.raises(Conflict):
        await enroll(provisioner, leaf, registrationId="PUMP-7")


async def test_any_etag_creates_what_is_absent(provisioner: Provisioner, certify: Certify) -> None:
    assert (await enroll(provisioner, certify("pump-7"), if_match="*")).registration_id == "pump-7"


async def test_deleting_what_is_absent(provisioner: Provisioner) -> None:
    for delete in (provisioner.enrollments.delete, provisioner.delete_registration):
        with pytest.raises(NotFound):
            await delete("pump-7")
        with pytest.raises(NotFound):
            await delete("pump-7", if_match='"x"')


async def test_a_registration_is_deleted_by_the_etag_on_the_wire(
    provisioner: Provisioner, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    state = await register(provisioner, leaf)
    await provisioner.delete_registration("pump-7", if_match=f'"{state.to_json(NEWEST)["etag"]}"')
    with pytest.raises(NotFound):
        await provisioner.registration("pump-7")


async def test_deleting_the_enrollment_leaves_record_and_identity(
    provisioner: Provisioner, hub_a: Identities, certify: Certify
) -> None:
    leaf = certify("pump-7")
    await enroll(provisioner, leaf)
    await register(provisioner, leaf)
    await provisioner.enrollments.delete("pump-7")
    assert (await provisioner.registration("pump-7")).status is Status.ASSIGNED
    await hub_a.get("pump-7")


async def test_a_hub_that_is_not_linked_cannot_be_named(provisioner: Provisioner, certify: Certify) -> None:
    with pytest.raises(Invalid, match="not a linked hub"):
        await enroll(provisioner, certify("pump-7"), iotHubs=["hub-z.example.net"])


# --- Bulk and linked hubs --------------------------------------------------------------------------------


def items(certificate: Certificate, *ids: str, **members: Any) -> list[dict[str, Any]]:
    return [document(certificate, registrationId=registration_id, **members) for registration_id in ids]


async def test_bulk_create_update_and_delete(provisioner: Provisioner, certify: Certify) -> None:
    leaf = certify("pump-7")
    assert await provisioner.enrollments.bulk("create", items(leaf, "a", "b"), NEWEST) == []
    [failure] = await provisioner.enrollments.bulk("create", items(leaf, "B", "c"), NEWEST)
    assert failure.id == "B"
    assert isinstance(failure.error, Conflict)
    assert await provisioner.enrollments.bulk("Update", items(leaf, "a", "d", deviceId="x"), NEWEST) == []
    assert (await provisioner.enrollments.get("a")).device_id == "x"
    deleted = await provisioner.enrollments.bulk(
        "delete", [{"registrationId": "a"}, {"registrationId": "z"}], NEWEST
    )
    assert [(failure.id, type(failure.error)) for failure in deleted] == [("z", NotFound)]
    page = await provisioner.enrollments.page(limit=10)
    assert [found.registration_id for found in page.records] == ["b", "c", "d"]
    assert page.next is None


async def test_bulk_update_by_etag(provisioner: Provisioner, certify: Certify) -> None:
    leaf = certify("pump-7")
    etag = (await enroll(provisioner, leaf)).to_json(NEWEST)["etag"]
    for etags, failed in (([etag], 0), ([etag], 1), ([None], 1)):
        body = [document(leaf, etag=given) for given in etags]
        failures = await provisioner.enrollments.bulk("updateIfMatchETag", body, NEWEST)
        assert [type(failure.error) for failure in failures] == [PreconditionFailed] * failed


async def test_an_item_that_is_invalid_fails_alone(provisioner: Provisioner, certify: Certify) -> None:
    body = [*items(certify("pump-7"), "a"), {"registrationId": "b"}, {"registrationId": "c."}]
    failures = await provisioner.enrollments.bulk("create", body, NEWEST)
    assert [(failure.id, type(failure.error)) for failure in failures] == [
        ("b", Invalid),
        ("c.", Invalid),
    ]
    await provisioner.enrollments.get("a")


@pytest.mark.parametrize(
    ("mode", "documents"),
    [
        ("upsert", []),
        (None, []),
        ("create", None),
        ("create", {}),
        ("create", []),
        ("create", ["a"]),
        ("create", [{"registrationId": f"d{n}"} for n in range(11)]),
        ("delete", [{"registrationId": "a"}, {"registrationId": "A"}]),
    ],
)
async def test_a_bulk_call_that_is_refused_as_a_whole(
    provisioner: Provisioner, mode: object, documents: object
) -> None:
    with pytest.raises(Invalid):
        await provisioner.enrollments.bulk(mode, documents, NEWEST)


async def test_linking_hubs(provisioner: Provisioner) -> None:
    await provisioner.link_hub(HUB_B)
    assert [hub.host_name for hub in await provisioner.linked_hubs()] == [
        "hub-a.example.net",
        "hub-b.example.net",
    ]
    with pytest.raises(Invalid, match="another linked hub"):
        await provisioner.link_hub(LinkedHub(hub=9, host_name="HUB-A.example.net", etag=new_etag()))
    for number in range(100, 148):
        await provisioner.link_hub(LinkedHub(hub=number, host_name=f"h{number}", etag=new_etag()))
    with pytest.raises(MoorageError, match="at most 50"):
        await provisioner.link_hub(LinkedHub(hub=200, host_name="h200", etag=new_etag()))
    await provisioner.unlink_hub(8)
    with pytest.raises(NotFound):
        await provisioner.unlink_hub(8)
