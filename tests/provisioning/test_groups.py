"""Registering with keys: individual enrollments, groups, and which of them decides."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from moorage.credentials.decision import Decision, Decisions
from moorage.credentials.sas import derive_key, make_token, new_key
from moorage.credentials.x509 import Certificate
from moorage.errors import Conflict, NotFound, Unauthorized
from moorage.hub.identity import Identities
from moorage.interfaces import Clock
from moorage.provisioning.attestation.proof import Proof, SasProof, X509Proof
from moorage.provisioning.provisioner import Provisioner, RegistrationRequest
from moorage.provisioning.registration import RegistrationState, Status, Substatus
from moorage.provisioning.service import ApiVersion

NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
PRIMARY, SECONDARY = (base64.b64encode(bytes(range(length))).decode() for length in (32, 64))
SCOPE = "0ne00ABCDEF"


async def add_group(
    provisioner: Provisioner, group_id: str = "plant", *, primary: str = PRIMARY, **members: Any
) -> None:
    keys = {"primaryKey": primary, "secondaryKey": SECONDARY}
    body = {
        "enrollmentGroupId": group_id,
        "attestation": {"type": "symmetricKey", "symmetricKey": keys},
        **members,
    }
    await provisioner.groups.put(body, if_match="*", api_version=NEWEST)


async def add_individual(provisioner: Provisioner, registration_id: str, **members: Any) -> None:
    keys = {"primaryKey": PRIMARY, "secondaryKey": SECONDARY}
    body = {
        "registrationId": registration_id,
        "attestation": {"type": "symmetricKey", "symmetricKey": keys},
        **members,
    }
    await provisioner.enrollments.put(body, if_match="*", api_version=NEWEST)


Register = Callable[..., Any]


@pytest.fixture
def register(provisioner: Provisioner, clock: Clock) -> Register:
    async def by_key(
        key: str, registration_id: str = "pump-7", *, resource: str | None = None, lifetime: int = 3600
    ) -> RegistrationState:
        expiry = clock.now() // 1_000_000 + lifetime
        token = make_token(resource or f"{SCOPE}/registrations/{registration_id}", key, expiry)
        return await come(provisioner, SasProof(token), registration_id)

    return by_key


async def come(provisioner: Provisioner, proof: Proof | None, registration_id: str) -> RegistrationState:
    request = RegistrationRequest(id_scope=SCOPE, registration_id=registration_id, api_version=NEWEST)
    return await provisioner.register(request, proof)


def last(decisions: Decisions) -> Decision:
    return decisions.latest(1)[0]


def failed(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.held]


@pytest.mark.parametrize(("key", "by"), [(PRIMARY, "primary key"), (SECONDARY, "secondary key")])
async def test_an_individual_enrollment_takes_either_key_and_the_hub_gets_both(
    provisioner: Provisioner, hub_a: Identities, register: Register, key: str, by: str
) -> None:
    await add_individual(provisioner, "pump-7", deviceId="line4-robot7")
    state = await register(key)
    assert (state.status, state.device_id, state.outcome.proof) == (Status.ASSIGNED, "line4-robot7", by)
    assert (await hub_a.get("line4-robot7")).authentication.keys == (PRIMARY, SECONDARY)
    shown = state.operation_status(NEWEST)["registrationState"]
    assert "symmetricKey" not in shown
    assert "x509" not in shown


@pytest.mark.parametrize("group_key", [PRIMARY, SECONDARY])
async def test_a_group_takes_derived_keys_and_the_hub_gets_both_of_them(
    provisioner: Provisioner, hub_a: Identities, register: Register, decisions: Decisions, group_key: str
) -> None:
    await add_group(provisioner, "Plant")
    state = await register(derive_key(group_key, "pump-7"))
    assert (state.status, state.substatus) == (Status.ASSIGNED, Substatus.INITIAL_ASSIGNMENT)
    assert state.enrollment_group_id == "Plant"
    assert state.device_id == "pump-7"
    shown = state.operation_status(NEWEST)["registrationState"]
    assert shown["symmetricKey"] == {"enrollmentGroupId": "Plant"}
    keys = (await hub_a.get("pump-7")).authentication.keys
    assert keys == (derive_key(PRIMARY, "pump-7"), derive_key(SECONDARY, "pump-7"))
    decision = last(decisions)
    assert decision.accepted
    assert decision.known
    assert decision.considered == ("enrollment group Plant",)


async def test_the_group_s_own_key_lets_no_device_in(
    provisioner: Provisioner, register: Register, decisions: Decisions
) -> None:
    await add_group(provisioner)
    with pytest.raises(Unauthorized) as caught:
        await register(PRIMARY)
    assert caught.value.check == "signature"
    assert "compute-device-key" in caught.value.remedy
    assert failed(last(decisions)) == ["signature"]


async def test_the_spelling_of_the_id_counts_and_lower_case_is_tried_too(
    provisioner: Provisioner, hub_a: Identities, register: Register
) -> None:
    await add_group(provisioner)
    assert (await register(derive_key(PRIMARY, "Pump-7"), "Pump-7")).device_id == "Pump-7"
    again = await register(derive_key(PRIMARY, "pump-7"), "PUMP-7")
    assert (again.device_id, again.substatus) == ("Pump-7", Substatus.REPROVISIONED)
    with pytest.raises(NotFound):
        await hub_a.get("PUMP-7")
    with pytest.raises(Unauthorized):
        await register(derive_key(PRIMARY, "pUMP-7"), "PUMP-7")


async def test_the_group_whose_key_signed_is_found_among_many(
    provisioner: Provisioner, register: Register, decisions: Decisions
) -> None:
    keys = {f"group-{number}": new_key() for number in range(5)}
    for name, key in keys.items():
        await add_group(provisioner, name, primary=key)
    state = await register(derive_key(keys["group-3"], "pump-7"))
    assert state.enrollment_group_id == "group-3"
    assert last(decisions).considered[-1] == "enrollment group group-3"


async def test_an_individual_enrollment_decides_before_every_group(
    provisioner: Provisioner, register: Register, decisions: Decisions
) -> None:
    await add_group(provisioner)
    derived = derive_key(PRIMARY, "pump-7")
    await add_individual(provisioner, "pump-7", provisioningStatus="disabled")
    with pytest.raises(Unauthorized):
        await register(derived)
    assert (await register(PRIMARY)).status is Status.DISABLED
    assert "individual enrollment 'pump-7' is disabled" in last(decisions).error
    await provisioner.enrollments.delete("pump-7")
    state = await register(derived)
    assert (state.status, state.enrollment_group_id) == (Status.ASSIGNED, "plant")


async def test_a_group_that_is_disabled_and_one_that_is_gone(
    provisioner: Provisioner, register: Register, decisions: Decisions
) -> None:
    derived = derive_key(PRIMARY, "pump-7")
    await add_group(provisioner, provisioningStatus="disabled")
    assert (await register(derived)).status is Status.DISABLED
    assert "enrollment group 'plant' is disabled" in last(decisions).error
    await provisioner.groups.delete("PLANT")
    with pytest.raises(Unauthorized, match="no enrollment"):
        await register(derived)
    assert (await provisioner.registration("pump-7")).status is Status.DISABLED


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ({"lifetime": -400}, "expiry"),
        ({"resource": f"{SCOPE}/registrations/pump-8"}, "audience"),
        ({"resource": "hub-a.example.net/devices/pump-7"}, "audience"),
    ],
)
@pytest.mark.parametrize("grouped", [True, False])
async def test_tokens_that_are_genuine_and_refused(
    provisioner: Provisioner,
    register: Register,
    decisions: Decisions,
    grouped: bool,
    options: Any,
    check: str,
) -> None:
    if grouped:
        await add_group(provisioner)
    else:
        await add_individual(provisioner, "pump-7")
    with pytest.raises(Unauthorized) as caught:
        await register(derive_key(PRIMARY, "pump-7") if grouped else PRIMARY, **options)
    assert caught.value.check == check
    assert failed(last(decisions)) == [check]


async def test_proofs_of_the_wrong_kind(
    provisioner: Provisioner, decisions: Decisions, certify: Callable[..., Certificate]
) -> None:
    await add_individual(provisioner, "pump-7")
    for proof in (None, X509Proof((certify("pump-7").der,))):
        with pytest.raises(Unauthorized, match="asks for a SAS token"):
            await come(provisioner, proof, "pump-7")
    with pytest.raises(Unauthorized, match="cannot be read"):
        await come(provisioner, SasProof("SharedAccessSignature sr=x"), "pump-7")
    await add_group(provisioner)
    with pytest.raises(Unauthorized, match="cannot be read"):
        await come(provisioner, SasProof("nothing"), "pump-8")


async def test_new_keys_of_the_enrollment_reach_the_hub_with_the_next_registration(
    provisioner: Provisioner, hub_a: Identities, register: Register, after: Callable[[timedelta], None]
) -> None:
    await add_group(provisioner)
    await register(derive_key(PRIMARY, "pump-7"))
    renewed = new_key()
    await add_group(provisioner, primary=renewed)
    with pytest.raises(Unauthorized):
        await register(derive_key(PRIMARY, "pump-7"))
    assert (await register(derive_key(renewed, "pump-7"))).substatus is Substatus.REPROVISIONED
    assert (await hub_a.get("pump-7")).authentication.primary_key == derive_key(renewed, "pump-7")


async def test_the_records_of_a_group_page_by_page_and_after_it_is_gone(
    provisioner: Provisioner, register: Register
) -> None:
    await add_group(provisioner)
    await add_individual(provisioner, "alone")
    await register(PRIMARY, "alone")
    for number in range(5):
        await register(derive_key(PRIMARY, f"pump-{number}"), f"pump-{number}")

    async def walk() -> list[list[str]]:
        pages, after = [], None
        while True:
            page = await provisioner.query_registrations("PLANT", after=after, limit=2)
            pages.append([state.registration_id for state in page.records])
            if (after := page.next) is None:
                return pages

    assert await walk() == [["pump-0", "pump-1"], ["pump-2", "pump-3"], ["pump-4"]]
    await provisioner.groups.delete("plant")
    assert len(await walk()) == 3
    with pytest.raises(NotFound):
        await provisioner.query_registrations("no-such-group", limit=2)


async def test_a_group_is_created_once_and_keeps_its_spelling(provisioner: Provisioner) -> None:
    await add_group(provisioner, "Plant")
    body = {"enrollmentGroupId": "plant", "attestation": {"type": "symmetricKey"}}
    with pytest.raises(Conflict):
        await provisioner.groups.put(body, if_match=None, api_version=NEWEST)
    updated = await provisioner.groups.put(body, if_match="*", api_version=NEWEST)
    assert updated.enrollment_group_id == "Plant"
    shown = updated.to_json(NEWEST, secrets=True)
    assert shown["attestation"]["symmetricKey"]["primaryKey"] == PRIMARY
    assert "registrationId" not in shown
    assert "deviceId" not in shown
