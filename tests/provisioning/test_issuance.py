"""Certificates on request: a device registers with a signing request, and connects with what it was given."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from moorage.app import KINDS
from moorage.credentials.decision import Decisions
from moorage.credentials.etag import Condition
from moorage.credentials.issuing import moment
from moorage.credentials.issuing_ca import IssuingCa
from moorage.credentials.keys import PrivateKey, public_bytes
from moorage.credentials.sas import make_token
from moorage.credentials.workshop.request import make_request
from moorage.credentials.workshop.subject import name_of, read_subject
from moorage.credentials.x509 import Certificate
from moorage.errors import Conflict, Invalid, NotFound, PreconditionFailed, TooLarge, Unauthorized
from moorage.hub.identity import Identities
from moorage.interfaces import Clock, Store
from moorage.provisioning.issuance import MAX_POLICIES
from moorage.provisioning.provisioner import Provisioner, RegistrationRequest, SasProof, X509Proof
from moorage.provisioning.registration import KIND, RegistrationState
from moorage.provisioning.service import ApiVersion, ProvisioningService
from moorage.store.sqlite import SqliteStore

PREVIEW = ApiVersion("2025-07-01-preview", reprovisioning=True, precise_substatus=True, issuance=True)
OLDER = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
SCOPE = "0ne00ABCDEF"
KEY = base64.b64encode(bytes(range(32))).decode()


def document(**members: Any) -> dict[str, Any]:
    keys = {"primaryKey": KEY, "secondaryKey": KEY}
    return {
        "registrationId": "pump-7",
        "attestation": {"type": "symmetricKey", "symmetricKey": keys},
        "credentialPolicyName": "short",
        **members,
    }


async def enroll(provisioner: Provisioner, api_version: ApiVersion = PREVIEW, **members: Any) -> Any:
    return await provisioner.enrollments.put(document(**members), if_match="*", api_version=api_version)


def csr(name: str = "pump-7") -> tuple[bytes, PrivateKey]:
    """A request in DER, and its key."""
    request, key = make_request(read_subject(name))
    return request.public_bytes(Encoding.DER), key


@pytest.fixture
async def policy(provisioner: Provisioner) -> None:
    await provisioner.credential_policies.put("short", {"validityPeriodInDays": 3}, condition=None)


Register = Callable[..., Any]


@pytest.fixture
def register(provisioner: Provisioner, clock: Clock) -> Register:
    async def by_key(request: bytes | None, registration_id: str = "pump-7") -> RegistrationState:
        token = make_token(f"{SCOPE}/registrations/{registration_id}", KEY, clock.now() // 1_000_000 + 3600)
        asked = RegistrationRequest(
            id_scope=SCOPE, registration_id=registration_id, api_version=PREVIEW, csr=request
        )
        return await provisioner.register(asked, SasProof(token))

    return by_key


def chain(state: RegistrationState, api_version: ApiVersion = PREVIEW) -> list[x509.Certificate]:
    """What the device is told, leaf first."""
    told = state.operation_status(api_version)["registrationState"]["issuedCertificateChain"]
    return [x509.load_der_x509_certificate(base64.b64decode(each, validate=True)) for each in told]


def ders(certificates: list[x509.Certificate]) -> list[bytes]:
    return [each.public_bytes(Encoding.DER) for each in certificates]


# --- What is issued --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("policy")
async def test_a_device_is_given_a_chain_for_its_key(
    provisioner: Provisioner, register: Register, clock: Clock
) -> None:
    await enroll(provisioner)
    request, key = csr()
    leaf, intermediate, root = chain(await register(request))
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert public_bytes(leaf.public_key()) == public_bytes(key.public_key())
    assert name_of(leaf.subject) == "pump-7"
    assert leaf.not_valid_after_utc == moment(clock.now()) + timedelta(days=3)
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.usefixtures("policy")
async def test_the_hub_lets_it_in_with_that_and_with_what_it_is_given_next(
    provisioner: Provisioner, register: Register, hub_a: Identities
) -> None:
    await enroll(provisioner)
    for _ in range(2):
        state = await register(csr()[0])
        assert (await hub_a.get("pump-7")).authentication.type == "certificateAuthority"
        await hub_a.authenticate("pump-7", password=None, chain=ders(chain(state)))


@pytest.mark.usefixtures("policy")
async def test_the_certificate_ends_when_the_policy_says(
    provisioner: Provisioner, register: Register, hub_a: Identities, after: Callable[[timedelta], None]
) -> None:
    await enroll(provisioner)
    issued = ders(chain(await register(csr()[0])))
    after(timedelta(days=2, hours=23))
    await hub_a.authenticate("pump-7", password=None, chain=issued)
    after(timedelta(hours=2))
    with pytest.raises(Unauthorized, match="expired") as raised:
        await hub_a.authenticate("pump-7", password=None, chain=issued)
    assert raised.value.check == "certificate chain"


@pytest.mark.usefixtures("policy")
async def test_the_certificate_names_the_device_as_the_hub_does(
    provisioner: Provisioner, register: Register, hub_a: Identities
) -> None:
    await enroll(provisioner, deviceId="line4-robot7")
    issued = chain(await register(csr("PUMP-7")[0]))
    assert name_of(issued[0].subject) == "line4-robot7"
    await hub_a.authenticate("line4-robot7", password=None, chain=ders(issued))


@pytest.mark.usefixtures("policy")
async def test_who_asks_for_none_is_given_none(
    provisioner: Provisioner, register: Register, hub_a: Identities
) -> None:
    await enroll(provisioner)
    state = await register(csr()[0])
    assert "issuedCertificateChain" not in state.to_json(PREVIEW)
    assert "issuedCertificateChain" not in state.operation_status(OLDER)["registrationState"]
    state = await register(None)
    assert "issuedCertificateChain" not in state.operation_status(PREVIEW)["registrationState"]
    assert (await hub_a.get("pump-7")).authentication.type == "sas"


@pytest.mark.usefixtures("policy")
async def test_devices_that_ask_at_once_are_each_given_theirs(
    provisioner: Provisioner, register: Register, hub_a: Identities
) -> None:
    """One CA is made, however many come first; and one device asking twice is answered for the key it asked with."""
    await enroll(provisioner)
    asked = [csr() for _ in range(6)]
    states = await asyncio.gather(*(register(request) for request, _ in asked))
    for (_, key), state in zip(asked, states, strict=True):
        issued = chain(state)
        assert public_bytes(issued[0].public_key()) == public_bytes(key.public_key())
        await hub_a.authenticate("pump-7", password=None, chain=ders(issued))
    assert len({ders(chain(state))[2] for state in states}) == 1


# --- What is kept ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("policy")
async def test_after_a_restart_the_operation_has_the_same_chain_and_the_ca_is_the_same(
    tmp_path: Path, service: ProvisioningService, clock: Clock
) -> None:
    ca_roots = []
    first: dict[str, Any] = {}
    for _ in range(2):
        store = SqliteStore.open(tmp_path / "records.sqlite3", kinds=KINDS)
        try:
            provisioner = await served(service, store, clock)
            if not first:
                await provisioner.credential_policies.put("short", {}, condition=None)
                await enroll(provisioner)
                state = await ask(provisioner, clock)
                first = state.operation_status(PREVIEW)
            kept = await provisioner.operation(SCOPE, "pump-7", first["operationId"])
            assert kept.operation_status(PREVIEW) == first
            ca_roots.append(ders(chain(await ask(provisioner, clock)))[1:])
            first = (await provisioner.registration("pump-7")).operation_status(PREVIEW)
        finally:
            await store.close()
    assert ca_roots[0] == ca_roots[1]


async def served(service: ProvisioningService, store: Store, clock: Clock) -> Provisioner:
    from moorage.credentials.etag import new_etag
    from moorage.provisioning.service import LinkedHub
    from tests.provisioning.conftest import HUB_A, _hub

    hubs = {HUB_A: _hub(HUB_A, "hub-a", store, clock)}
    made = Provisioner(service, store=store, clock=clock, hubs=hubs, decisions=Decisions())
    await made.link_hub(LinkedHub(hub=HUB_A, host_name="hub-a.example.net", etag=new_etag()))
    return made


async def ask(provisioner: Provisioner, clock: Clock) -> RegistrationState:
    token = make_token(f"{SCOPE}/registrations/pump-7", KEY, clock.now() // 1_000_000 + 3600)
    request = RegistrationRequest(id_scope=SCOPE, registration_id="pump-7", api_version=PREVIEW, csr=csr()[0])
    return await provisioner.register(request, SasProof(token))


def test_the_intermediate_is_renewed_before_a_leaf_could_outlive_it(clock: Clock) -> None:
    now = moment(clock.now())
    ca = IssuingCa.make("Moorage", now)
    assert ca.renewed("Moorage", now + timedelta(days=1000)) is ca
    later = now + timedelta(days=1800)
    renewed = ca.renewed("Moorage", later)
    assert renewed.root == ca.root
    renewed.intermediate.verify_directly_issued_by(ca.root)
    assert renewed.intermediate.not_valid_after_utc > later + timedelta(days=90)
    again = IssuingCa.from_document(renewed.to_document())
    assert (again.root, again.intermediate) == (ca.root, renewed.intermediate)
    assert "PRIVATE" not in repr(again)


@pytest.mark.usefixtures("policy")
async def test_a_registration_with_a_chain_is_kept_whole(
    provisioner: Provisioner, register: Register
) -> None:
    await enroll(provisioner)
    state = await register(csr()[0])
    assert KIND.from_document(KIND.to_document(state)) == state


# --- What is refused -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("request_der", "why"),
    [
        (csr("pump-8")[0], "its common name is 'pump-8'"),
        (b"\x30\x03\x02\x01\x00", "no PKCS#10 request"),
        (b"", "no PKCS#10 request"),
    ],
    ids=["another name", "no request", "nothing"],
)
async def test_a_request_that_will_not_do(
    provisioner: Provisioner,
    register: Register,
    decisions: Decisions,
    hub_a: Identities,
    request_der: bytes,
    why: str,
) -> None:
    await enroll(provisioner)
    with pytest.raises(Invalid, match=why) as raised:
        await register(request_der)
    assert raised.value.field == "csr"
    decision = decisions.latest(1)[0]
    assert [check.name for check in decision.checks if not check.held] == ["csr"]
    with pytest.raises(NotFound):
        await hub_a.get("pump-7")


@pytest.mark.usefixtures("policy")
async def test_without_a_policy_no_certificate_and_no_silence(
    provisioner: Provisioner, register: Register
) -> None:
    await enroll(provisioner, credentialPolicyName=None)
    with pytest.raises(Invalid, match="names no credential policy"):
        await register(csr()[0])
    await enroll(provisioner)
    await provisioner.credential_policies.delete("SHORT", condition=None)
    with pytest.raises(Invalid, match="'short' does not exist"):
        await register(csr()[0])


async def test_a_wrong_proof_gets_no_certificate(provisioner: Provisioner, clock: Clock) -> None:
    await provisioner.credential_policies.put("short", {}, condition=None)
    await enroll(provisioner)
    asked = RegistrationRequest(id_scope=SCOPE, registration_id="pump-7", api_version=PREVIEW, csr=csr()[0])
    with pytest.raises(Unauthorized):
        await provisioner.register(asked, None)


@pytest.mark.usefixtures("policy")
async def test_a_device_s_name_that_is_too_long_for_a_certificate(
    provisioner: Provisioner, register: Register
) -> None:
    await enroll(provisioner, deviceId="d" * 65)
    with pytest.raises(Invalid, match="too long for a certificate"):
        await register(csr()[0])


@pytest.mark.usefixtures("policy")
async def test_onboarding_by_certificate_leads_to_an_issued_one_too(
    provisioner: Provisioner, certify: Callable[..., Certificate], hub_a: Identities
) -> None:
    onboarding = certify("pump-7")
    x509_attestation = {"clientCertificates": {"primary": {"certificate": onboarding.to_pem()}}}
    await enroll(provisioner, attestation={"type": "x509", "x509": x509_attestation})
    asked = RegistrationRequest(id_scope=SCOPE, registration_id="pump-7", api_version=PREVIEW, csr=csr()[0])
    state = await provisioner.register(asked, X509Proof((onboarding.der,)))
    await hub_a.authenticate("pump-7", password=None, chain=ders(chain(state)))
    with pytest.raises(Unauthorized):
        await hub_a.authenticate("pump-7", password=None, chain=[onboarding.der])


# --- Policies and enrollments ----------------------------------------------------------------------------


async def test_a_policy_that_is_not_there_cannot_be_named(provisioner: Provisioner) -> None:
    with pytest.raises(Invalid, match="no credential policy named 'short'"):
        await enroll(provisioner)


@pytest.mark.usefixtures("policy")
async def test_an_enrollment_whose_policy_is_gone_can_still_be_changed(provisioner: Provisioner) -> None:
    await enroll(provisioner)
    await provisioner.credential_policies.delete("short", condition=None)
    changed = await enroll(provisioner, provisioningStatus="disabled")
    assert not changed.terms.enabled


@pytest.mark.usefixtures("policy")
async def test_who_has_no_word_for_policies_keeps_them(provisioner: Provisioner) -> None:
    await enroll(provisioner)
    silent = document()
    del silent["credentialPolicyName"]
    kept = await provisioner.enrollments.put(silent, if_match="*", api_version=OLDER)
    assert kept.terms.credential_policy_name == "short"
    assert kept.to_json(OLDER)["credentialPolicyName"] == "short"
    cleared = await provisioner.enrollments.put(
        {**silent, "credentialPolicyName": ""}, if_match="*", api_version=OLDER
    )
    assert cleared.terms.credential_policy_name is None
    assert "credentialPolicyName" not in cleared.to_json(OLDER)
    assert cleared.to_json(PREVIEW)["credentialPolicyName"] is None


async def test_policies_from_their_making_to_their_end(provisioner: Provisioner) -> None:
    policies = provisioner.credential_policies
    made = await policies.put("Short", {}, condition=None)
    assert (made.days, [usage.value for usage in made.usages]) == (30, ["clientAuth"])
    with pytest.raises(Conflict):
        await policies.put("short", {}, condition=None)
    with pytest.raises(PreconditionFailed):
        await policies.put("short", {}, condition=Condition("stale"))
    both = {"validityPeriodInDays": 90, "extendedKeyUsages": ["serverauth", "clientAuth", "clientAuth"]}
    changed = await policies.put("short", both, condition=Condition(made.etag))
    assert (changed.name, changed.days, changed.created) == ("Short", 90, made.created)
    assert [usage.value for usage in changed.usages] == ["serverAuth", "clientAuth"]
    assert await policies.get("SHORT") == changed
    assert list(await policies.all()) == [changed]
    with pytest.raises(PreconditionFailed):
        await policies.delete("short", condition=Condition(made.etag))
    await policies.delete("short", condition=Condition(changed.etag))
    with pytest.raises(NotFound):
        await policies.delete("short", condition=None)


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("a b", {}, "name"),
        ("a" * 65, {}, "name"),
        ("a", {"validityPeriodInDays": 0}, "validityPeriodInDays"),
        ("a", {"validityPeriodInDays": 91}, "validityPeriodInDays"),
        ("a", {"validityPeriodInDays": "30"}, "validityPeriodInDays"),
        ("a", {"validityPeriodInDays": True}, "validityPeriodInDays"),
        ("a", {"extendedKeyUsages": []}, "extendedKeyUsages"),
        ("a", {"extendedKeyUsages": ["codeSigning"]}, "extendedKeyUsages"),
        ("a", {"extendedKeyUsages": "clientAuth"}, "extendedKeyUsages"),
    ],
)
async def test_policies_that_break_a_rule(
    provisioner: Provisioner, name: str, body: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as raised:
        await provisioner.credential_policies.put(name, body, condition=None)
    assert raised.value.field == field


async def test_there_are_only_so_many_policies(provisioner: Provisioner) -> None:
    for number in range(MAX_POLICIES):
        await provisioner.credential_policies.put(f"p{number}", {}, condition=None)
    with pytest.raises(TooLarge):
        await provisioner.credential_policies.put("one-more", {}, condition=None)
