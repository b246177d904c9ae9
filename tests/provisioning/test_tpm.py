"""A TPM enrolled by its keys registers by answering a challenge, and takes the key for its hub home."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from moorage.credentials.decision import Decisions
from moorage.credentials.sas import new_key
from moorage.credentials.tpm import StorageKey
from moorage.errors import Invalid, MoorageError, NotFound, NotSupported, Unauthorized
from moorage.hub.identity import Identities
from moorage.interfaces import Clock, Peer
from moorage.provisioning.attestation.mechanism import attestation_from, read_attestation
from moorage.provisioning.attestation.proof import Proof, SasProof, X509Proof
from moorage.provisioning.attestation.tpm import TpmAttestation
from moorage.provisioning.challenge import REMEMBERED, Challenges, TpmChallenge, TpmKeys
from moorage.provisioning.enrollment import IndividualEnrollment
from moorage.provisioning.provisioner import Provisioner, RegistrationRequest
from moorage.provisioning.registration import RegistrationState, Status, Substatus, read_register_body
from moorage.provisioning.service import ApiVersion
from tests.support.software_tpm import SoftwareTpm

NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
SCOPE = "0ne00ABCDEF"
RESOURCE = f"{SCOPE}/registrations/press-1"
HOUR = 3600


@pytest.fixture
def tpm() -> SoftwareTpm:
    return SoftwareTpm()


def keys_of(tpm: SoftwareTpm, *, root: bool = True) -> TpmKeys:
    root_key = StorageKey.read("srk", tpm.storage_root_key) if root else None
    return TpmKeys(StorageKey.read("ek", tpm.endorsement_key), root_key)


async def enroll(
    provisioner: Provisioner,
    tpm: SoftwareTpm,
    *,
    root: bool = True,
    if_match: str | None = None,
    **members: Any,
) -> IndividualEnrollment:
    told = dict(tpm.keys)
    if not root:
        del told["storageRootKey"]
    document = {"registrationId": "press-1", "attestation": {"type": "tpm", "tpm": told}, **members}
    return await provisioner.enrollments.put(document, if_match=if_match, api_version=NEWEST)


async def ask(
    provisioner: Provisioner,
    keys: TpmKeys | None,
    proof: Proof | None = None,
    registration_id: str = "press-1",
    *,
    door: str = "https",
) -> RegistrationState:
    request = RegistrationRequest(
        id_scope=SCOPE,
        registration_id=registration_id,
        api_version=NEWEST,
        tpm=keys,
        door=door,
        address="192.0.2.7",
    )
    return await provisioner.register(request, proof)


async def challenge(provisioner: Provisioner, tpm: SoftwareTpm, keys: TpmKeys | None = None) -> None:
    """Ask without a proof, and open what comes back."""
    with pytest.raises(TpmChallenge) as asked:
        await ask(provisioner, keys or keys_of(tpm))
    assert asked.value.refused is None
    tpm.activate(base64.b64decode(asked.value.authentication_key))


def answer(tpm: SoftwareTpm, clock: Clock, resource: str = RESOURCE, *, seconds: int = HOUR) -> SasProof:
    return SasProof(tpm.token(resource, clock.now() // 1_000_000 + seconds))


async def register(provisioner: Provisioner, tpm: SoftwareTpm, clock: Clock) -> RegistrationState:
    await challenge(provisioner, tpm)
    return await ask(provisioner, keys_of(tpm), answer(tpm, clock))


# --- What is enrolled ------------------------------------------------------------------------------------


def test_both_keys_are_kept_and_shown_to_everybody(tpm: SoftwareTpm) -> None:
    read = read_attestation({"type": "TPM", "tpm": tpm.keys}, None)
    assert read.to_json(secrets=False) == {"type": "tpm", "tpm": tpm.keys, "x509": None, "symmetricKey": None}
    assert attestation_from(read.to_document()) == read


def test_the_storage_root_key_may_be_left_out(tpm: SoftwareTpm) -> None:
    for absent in ({}, {"storageRootKey": None}, {"storageRootKey": ""}):
        told = {"endorsementKey": tpm.keys["endorsementKey"], **absent}
        read = read_attestation({"type": "tpm", "tpm": told}, None)
        assert read.to_json(secrets=False)["tpm"] == {**told, "storageRootKey": None}
        assert attestation_from(read.to_document()) == read


@pytest.mark.parametrize(
    ("told", "field"),
    [
        (None, "attestation.tpm"),
        ({}, "attestation.tpm.endorsementKey"),
        ({"endorsementKey": 7}, "attestation.tpm.endorsementKey"),
        ({"endorsementKey": "AAAA"}, "attestation.tpm.endorsementKey"),
        ({**SoftwareTpm().keys, "storageRootKey": "x"}, "attestation.tpm.storageRootKey"),
    ],
    ids=["no tpm", "no key", "number", "no TPM2B_PUBLIC", "bad root key"],
)
def test_what_is_no_key_names_its_member(told: object, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_attestation({"type": "tpm", "tpm": told}, None)
    assert refused.value.field == field


def test_a_register_body_tells_the_keys(tpm: SoftwareTpm) -> None:
    body = b'{"tpm":{"endorsementKey":"%s"}}' % tpm.keys["endorsementKey"].encode()
    assert read_register_body(body, "press-1").tpm == keys_of(tpm, root=False)
    for nothing in (b"{}", b'{"tpm":null}', b'{"tpm":{}}'):
        assert read_register_body(nothing, "press-1").tpm is None
    for bad in (b'{"tpm":7}', b'{"tpm":{"endorsementKey":"AAAA"}}', b'{"tpm":{"storageRootKey":"AAAA"}}'):
        with pytest.raises(Invalid, match="tpm"):
            read_register_body(bad, "press-1")


# --- Registering -----------------------------------------------------------------------------------------


async def test_a_tpm_that_answers_gets_the_key_by_which_its_hub_knows_it(
    provisioner: Provisioner, hub_a: Identities, decisions: Decisions, clock: Clock, tpm: SoftwareTpm
) -> None:
    await enroll(provisioner, tpm, deviceId="line4-press")
    await challenge(provisioner, tpm)
    assert decisions.latest(9) == [], "a question is no refusal"

    state = await ask(provisioner, keys_of(tpm), answer(tpm, clock))
    assert (state.status, state.device_id) == (Status.ASSIGNED, "line4-press")
    told = state.operation_status(NEWEST)["registrationState"]
    assert set(told["tpm"]) == {"authenticationKey"}
    assert "tpm" not in state.to_json(NEWEST), "the service API does not have it"

    tpm.activate(base64.b64decode(told["tpm"]["authenticationKey"]))
    identity = await hub_a.get("line4-press")
    assert identity.authentication.type == "sas"
    assert tpm.key is not None
    assert identity.authentication.primary_key == base64.b64encode(tpm.key).decode()

    [decision] = decisions.of("press-1")
    assert decision.accepted
    assert decision.proof["tpm"] == {
        "endorsementKey": keys_of(tpm).endorsement_key.name_text,
        "storageRootKey": (keys_of(tpm).storage_root_key or keys_of(tpm).endorsement_key).name_text,
    }
    assert [check.name for check in decision.checks] == [
        "id scope",
        "enrollment exists",
        "endorsement key",
        "storage root key",
        "SAS token presented",
        "TPM challenge answered",
        "signature",
        "expiry",
        "audience",
        "hub assigned",
    ]


async def test_a_device_that_comes_again_gets_another_key(
    provisioner: Provisioner, hub_a: Identities, clock: Clock, tpm: SoftwareTpm
) -> None:
    await enroll(provisioner, tpm)
    await register(provisioner, tpm, clock)
    before = (await hub_a.get("press-1")).authentication.primary_key
    state = await register(provisioner, tpm, clock)
    assert state.substatus is Substatus.REPROVISIONED
    tpm.activate(base64.b64decode(state.outcome.authentication_key or ""))
    assert tpm.key is not None
    after = (await hub_a.get("press-1")).authentication.primary_key
    assert base64.b64encode(tpm.key).decode() == after != before


async def test_the_record_hands_the_key_out_after_a_restart(
    provisioner: Provisioner, clock: Clock, tpm: SoftwareTpm
) -> None:
    await enroll(provisioner, tpm)
    state = await register(provisioner, tpm, clock)
    again = await provisioner.operation(SCOPE, "press-1", state.operation_id)
    assert again.operation_status(NEWEST) == state.operation_status(NEWEST)
    assert again.outcome.authentication_key is not None


async def test_a_disabled_enrollment_hands_out_no_key(
    provisioner: Provisioner, clock: Clock, tpm: SoftwareTpm
) -> None:
    await enroll(provisioner, tpm, provisioningStatus="disabled")
    state = await register(provisioner, tpm, clock)
    assert state.status is Status.DISABLED
    assert state.outcome.authentication_key is None
    assert "tpm" not in state.operation_status(NEWEST)["registrationState"]


# --- The storage root key --------------------------------------------------------------------------------


async def test_the_first_registration_pins_the_storage_root_key(
    provisioner: Provisioner, clock: Clock, tpm: SoftwareTpm
) -> None:
    enrolled = await enroll(provisioner, tpm, root=False)
    await challenge(provisioner, tpm)
    assert await provisioner.enrollments.get("press-1") == enrolled, "nothing is proven yet"
    await ask(provisioner, keys_of(tpm), answer(tpm, clock))
    pinned = await provisioner.enrollments.get("press-1")
    assert pinned.attestation.to_json(secrets=False)["tpm"] == tpm.keys
    assert pinned.etag != enrolled.etag


async def test_another_storage_root_key_is_refused_until_the_operator_lets_go_of_the_first(
    provisioner: Provisioner, clock: Clock, tpm: SoftwareTpm
) -> None:
    await enroll(provisioner, tpm, root=False)
    await register(provisioner, tpm, clock)
    cleared = SoftwareTpm(storage_root_of=1)
    with pytest.raises(Unauthorized) as refused:
        await ask(provisioner, keys_of(cleared))
    assert refused.value.check == "storage root key"
    for keys in (tpm, cleared):
        assert (keys_of(keys).storage_root_key or keys_of(keys).endorsement_key).name_text in str(
            refused.value
        )
    await enroll(provisioner, tpm, root=False, if_match="*")
    state = await register(provisioner, cleared, clock)
    assert state.status is Status.ASSIGNED


async def test_a_device_that_tells_its_keys_only_once_is_known_by_them(
    provisioner: Provisioner, clock: Clock, tpm: SoftwareTpm
) -> None:
    """IoT Edge leaves `tpm` out of the request with the answer [dps 12.2]."""
    await enroll(provisioner, tpm, root=False)
    await challenge(provisioner, tpm)
    state = await ask(provisioner, None, answer(tpm, clock))
    assert state.status is Status.ASSIGNED
    with pytest.raises(TpmChallenge):
        await ask(provisioner, None)


async def test_without_any_storage_root_key_there_is_nothing_to_ask(
    provisioner: Provisioner, tpm: SoftwareTpm
) -> None:
    await enroll(provisioner, tpm, root=False)
    for keys in (None, keys_of(tpm, root=False)):
        with pytest.raises(Unauthorized) as refused:
            await ask(provisioner, keys)
        assert refused.value.check == "storage root key"


def test_no_more_storage_root_keys_are_remembered_than_a_few(tpm: SoftwareTpm) -> None:
    challenges, keys = Challenges(bytes(32)), keys_of(tpm)
    assert keys.storage_root_key is not None
    for number in range(REMEMBERED + 1):
        challenges.remember(f"device-{number}", keys.storage_root_key)
    assert challenges.to(SCOPE, "Device-0", 0).storage_root_key is None
    assert challenges.to(SCOPE, "Device-1", 0).storage_root_key == keys.storage_root_key


# --- Refusals --------------------------------------------------------------------------------------------


async def refusal(
    provisioner: Provisioner, decisions: Decisions, *arguments: Any, **options: Any
) -> MoorageError:
    """The error, which the newest decision tells too, with what would mend it."""
    with pytest.raises(MoorageError) as refused:
        await ask(provisioner, *arguments, **options)
    [decision] = decisions.latest(1)
    assert not decision.accepted
    assert decision.error == str(refused.value)
    assert decision.remedy
    return refused.value


async def test_another_tpm_is_not_even_asked(
    provisioner: Provisioner, decisions: Decisions, tpm: SoftwareTpm
) -> None:
    await enroll(provisioner, tpm)
    other = SoftwareTpm(index=1)
    error = await refusal(provisioner, decisions, keys_of(other))
    assert not isinstance(error, TpmChallenge)
    assert keys_of(other).endorsement_key.name_text in str(error)
    assert keys_of(tpm).endorsement_key.name_text in str(error)


async def test_a_tpm_that_nobody_has_enrolled(
    provisioner: Provisioner, decisions: Decisions, tpm: SoftwareTpm
) -> None:
    name = keys_of(tpm).endorsement_key.name_text
    assert isinstance(await refusal(provisioner, decisions, keys_of(tpm)), NotFound)
    assert name in decisions.latest(1)[0].remedy
    await enroll(provisioner, tpm)
    assert isinstance(await refusal(provisioner, decisions, keys_of(tpm), None, "press-2"), NotFound)
    assert "'press-1'" in decisions.latest(1)[0].remedy


async def test_a_token_by_another_key_is_refused_and_asked_for_again(
    provisioner: Provisioner, decisions: Decisions, clock: Clock, tpm: SoftwareTpm
) -> None:
    await enroll(provisioner, tpm)
    tpm.key = base64.b64decode(new_key())
    error = await refusal(provisioner, decisions, keys_of(tpm), answer(tpm, clock))
    assert isinstance(error, TpmChallenge)
    tpm.activate(base64.b64decode(error.authentication_key))
    assert (await ask(provisioner, keys_of(tpm), answer(tpm, clock))).status is Status.ASSIGNED


async def test_the_answer_to_another_device_s_challenge_is_none(
    provisioner: Provisioner, decisions: Decisions, clock: Clock, tpm: SoftwareTpm
) -> None:
    await enroll(provisioner, tpm)
    await enroll(provisioner, tpm, registrationId="press-2")
    await challenge(provisioner, tpm)
    proof = answer(tpm, clock, f"{SCOPE}/registrations/press-2")
    error = await refusal(provisioner, decisions, keys_of(tpm), proof, "press-2")
    assert isinstance(error, TpmChallenge)


@pytest.mark.parametrize(
    ("resource", "seconds", "check"),
    [(RESOURCE, -HOUR, "expiry"), (f"{SCOPE}/registrations/press-2", HOUR, "audience")],
)
async def test_a_token_for_another_time_or_device_is_refused_for_good(
    provisioner: Provisioner,
    decisions: Decisions,
    clock: Clock,
    tpm: SoftwareTpm,
    resource: str,
    seconds: int,
    check: str,
) -> None:
    """Asked again, a device whose clock is wrong would answer for ever."""
    await enroll(provisioner, tpm)
    await challenge(provisioner, tpm)
    error = await refusal(provisioner, decisions, keys_of(tpm), answer(tpm, clock, resource, seconds=seconds))
    assert isinstance(error, Unauthorized)
    assert not isinstance(error, TpmChallenge)
    assert error.check == check


async def test_an_answer_holds_for_ten_minutes_and_not_for_twenty(
    provisioner: Provisioner, clock: Clock, tpm: SoftwareTpm, after: Callable[[timedelta], None]
) -> None:
    await enroll(provisioner, tpm)
    await challenge(provisioner, tpm)
    after(timedelta(minutes=10))
    assert (await ask(provisioner, keys_of(tpm), answer(tpm, clock))).status is Status.ASSIGNED
    after(timedelta(minutes=10))
    with pytest.raises(TpmChallenge):
        await ask(provisioner, keys_of(tpm), answer(tpm, clock))


async def test_what_is_no_answer_is_told_so_where_a_challenge_cannot_be_sent(
    provisioner: Provisioner, decisions: Decisions, tpm: SoftwareTpm
) -> None:
    await enroll(provisioner, tpm)
    for proof in (None, X509Proof((b"a certificate",))):
        error = await refusal(provisioner, decisions, None, proof, door="amqp")
        assert isinstance(error, Unauthorized)
        assert not isinstance(error, TpmChallenge)
        assert "SASL mechanism TPM" in error.remedy


@pytest.mark.parametrize("door", ["mqtt", "mqtt-ws"])
async def test_there_is_no_tpm_over_mqtt(
    provisioner: Provisioner, decisions: Decisions, clock: Clock, tpm: SoftwareTpm, door: str
) -> None:
    await enroll(provisioner, tpm)
    tpm.key = bytes(32)
    with pytest.raises(NotSupported, match="HTTPS or AMQP"):
        await ask(provisioner, None, answer(tpm, clock), door=door)
    assert not decisions.latest(1)[0].accepted


async def test_the_keys_of_a_tpm_prove_nothing_to_other_mechanisms(
    provisioner: Provisioner, decisions: Decisions, tpm: SoftwareTpm
) -> None:
    document = {"registrationId": "press-1", "attestation": {"type": "symmetricKey"}}
    await provisioner.enrollments.put(document, if_match=None, api_version=NEWEST)
    error = await refusal(provisioner, decisions, keys_of(tpm))
    assert "the keys of a TPM" in str(error)


# --- Before a request is known, as over AMQP -------------------------------------------------------------


async def test_a_tpm_answers_before_it_says_what_it_wants(
    provisioner: Provisioner, decisions: Decisions, clock: Clock, tpm: SoftwareTpm
) -> None:
    keys, peer = keys_of(tpm), Peer("192.0.2.7", "amqp")
    tpm.activate(provisioner.challenge(SCOPE, "press-1", keys))
    proof = answer(tpm, clock)
    provisioner.check_answer(SCOPE, "press-1", keys, proof, "0f" * 16, peer)
    assert decisions.latest(1) == []
    with pytest.raises(NotFound):
        await ask(provisioner, keys, proof, door="amqp")
    await enroll(provisioner, tpm)
    assert (await ask(provisioner, keys, proof, door="amqp")).status is Status.ASSIGNED

    tpm.key = bytes(32)
    with pytest.raises(Unauthorized):
        provisioner.check_answer(SCOPE, "press-1", keys, answer(tpm, clock), "0f" * 16, peer)
    [decision] = decisions.latest(1)
    assert (decision.operation, decision.tracking_id) == ("connect", "0f" * 16)
    assert decision.proof["tpm"]["endorsementKey"] == keys.endorsement_key.name_text
    with pytest.raises(Invalid, match="storageRootKey"):
        provisioner.challenge(SCOPE, "press-1", keys_of(tpm, root=False))


def test_the_attestation_of_a_tpm_is_one_of_the_table(tpm: SoftwareTpm) -> None:
    assert isinstance(read_attestation({"type": "tpm", "tpm": tpm.keys}, None), TpmAttestation)
