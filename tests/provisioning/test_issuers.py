"""X.509 enrollment groups and CA references: which enrollment a device's issuer brings it under, and why not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from moorage.credentials.decision import Check, Decision, Decisions, Finding
from moorage.errors import Invalid, Unauthorized
from moorage.hub.identity import Identities
from moorage.interfaces import Store
from moorage.provisioning.attestation.proof import Claim
from moorage.provisioning.challenge import Challenges
from moorage.provisioning.enrollment import EnrollmentGroup
from moorage.provisioning.issuers import Issuers
from moorage.provisioning.provisioner import Provisioner, RegistrationRequest, X509Proof
from moorage.provisioning.registration import RegistrationState, Status
from moorage.provisioning.service import ApiVersion
from tests.provisioning.conftest import DPS
from tests.support.authorities import Issued, certify, root
from tests.support.authorities import name as subject_name

NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)

ROOT = root("root")
PLANT = ROOT.authority("plant", number=1)
LINE = PLANT.authority("line", number=2)
LEAF = LINE.issue("pump-7", number=3)


def signing(primary: Issued, secondary: Issued | None = None) -> dict[str, Any]:
    pair = {"primary": {"certificate": primary.pem}}
    if secondary is not None:
        pair["secondary"] = {"certificate": secondary.pem}
    return {"type": "x509", "x509": {"signingCertificates": pair}}


def references(*names: str) -> dict[str, Any]:
    return {
        "type": "x509",
        "x509": {"caReferences": dict(zip(("primary", "secondary"), names, strict=False))},
    }


async def group(provisioner: Provisioner, name: str, attestation: Any, **members: Any) -> EnrollmentGroup:
    document = {"enrollmentGroupId": name, "attestation": attestation, **members}
    return await provisioner.groups.put(document, if_match="*", api_version=NEWEST)


async def enroll(provisioner: Provisioner, attestation: Any, name: str = "pump-7", **members: Any) -> None:
    document = {"registrationId": name, "attestation": attestation, **members}
    await provisioner.enrollments.put(document, if_match="*", api_version=NEWEST)


async def upload(provisioner: Provisioner, name: str, authority: Issued, *, is_verified: bool = True) -> None:
    await provisioner.ca_certificates.upload(name, authority.pem, is_verified=is_verified, condition=None)


async def register(
    provisioner: Provisioner, *sent: Issued, registration_id: str = "pump-7"
) -> RegistrationState:
    request = RegistrationRequest(
        id_scope="0ne00ABCDEF", registration_id=registration_id, api_version=NEWEST, door="mqtt"
    )
    return await provisioner.register(request, X509Proof(tuple(each.der for each in sent)))


async def refused(provisioner: Provisioner, *sent: Issued, registration_id: str = "pump-7") -> Unauthorized:
    with pytest.raises(Unauthorized) as refusal:
        await register(provisioner, *sent, registration_id=registration_id)
    assert refusal.value.remedy
    return refusal.value


def last(decisions: Decisions) -> Decision:
    return decisions.latest(1)[0]


def failed(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.held]


# --- Groups by signing certificate -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "sent"),
    [
        (ROOT, [LEAF, LINE, PLANT, ROOT]),
        (ROOT, [LEAF, LINE, PLANT]),
        (ROOT, [LEAF, PLANT, LINE]),
        (PLANT, [LEAF, LINE]),
        (PLANT, [LEAF, LINE, PLANT, ROOT]),
        (LINE, [LEAF]),
    ],
    ids=["whole", "without the root", "shuffled", "below an intermediate", "and more", "leaf only"],
)
async def test_a_device_below_a_group_s_certificate_is_let_in(
    provisioner: Provisioner, hub_a: Identities, decisions: Decisions, held: Issued, sent: list[Issued]
) -> None:
    await group(provisioner, "Plant", signing(held), initialTwin={"tags": {"site": "north"}})

    state = await register(provisioner, *sent)

    assert state.status is Status.ASSIGNED
    assert state.enrollment_group_id == "Plant"
    assert state.to_json(NEWEST)["deviceId"] == "pump-7"
    identity = await hub_a.get("pump-7")
    assert identity.authentication.thumbprints == (LEAF.certificate.sha256, None)
    assert (await hub_a.twin("pump-7")).tags == {"site": "north"}
    decision = last(decisions)
    assert decision.known
    assert decision.considered == (
        f"enrollment group Plant, by its signing certificate {held.certificate.subject}",
    )
    chain = next(check for check in decision.checks if check.name == "certificate chain")
    assert chain.detail.startswith("CN=pump-7 ← CN=line")
    assert chain.detail.endswith(held.certificate.subject)
    assert [check.name for check in decision.checks] == [
        "id scope",
        "certificate presented",
        "enrollment exists",
        "certificate chain",
        "certificate common name",
        "hub assigned",
    ]


async def test_the_secondary_certificate_is_as_good(provisioner: Provisioner) -> None:
    await group(provisioner, "plant", signing(root("another", number=8), LINE))
    assert (await register(provisioner, LEAF)).status is Status.ASSIGNED


async def test_intermediates_that_the_service_holds_may_be_left_out(provisioner: Provisioner) -> None:
    await group(provisioner, "plant", signing(ROOT))
    await upload(provisioner, "line", LINE, is_verified=False)
    await upload(provisioner, "plant", PLANT, is_verified=False)
    assert (await register(provisioner, LEAF)).enrollment_group_id == "plant"


async def test_an_intermediate_left_out_that_nobody_holds_is_named(
    provisioner: Provisioner, decisions: Decisions
) -> None:
    await group(provisioner, "plant", signing(ROOT))

    refusal = await refused(provisioner, LEAF)

    assert "'CN=pump-7' is issued by 'CN=line', whose certificate was not sent and is not held here" in str(
        refusal
    )
    assert "'CN=line'" in refusal.remedy
    assert failed(last(decisions)) == ["enrollment exists"]


async def test_another_root_of_the_same_name_is_told_apart(
    provisioner: Provisioner, decisions: Decisions
) -> None:
    impostor = root("root", number=9)
    await group(provisioner, "plant", signing(ROOT))

    refusal = await refused(provisioner, impostor.issue("pump-7", number=3), impostor)

    assert "the chain ends at 'CN=root'" in str(refusal)
    chain, enrolled = (check for check in last(decisions).checks if not check.held)
    assert "another key" in chain.detail
    assert enrolled.name == "enrollment exists"


async def test_a_self_signed_certificate_of_nobody_is_said_so(provisioner: Provisioner) -> None:
    await group(provisioner, "plant", signing(ROOT))
    refusal = await refused(provisioner, certify("pump-7", None))
    assert "self-signed" in str(refusal)
    assert "Create an individual enrollment" in refusal.remedy


async def test_the_group_s_own_certificate_lets_nobody_in(provisioner: Provisioner) -> None:
    own = root("pump-7")
    await group(provisioner, "plant", signing(own))
    assert "self-signed" in str(await refused(provisioner, own))


# --- Which one decides -----------------------------------------------------------------------------------


async def test_the_nearest_issuer_decides(provisioner: Provisioner, decisions: Decisions) -> None:
    for name, held in (("root", ROOT), ("plant", PLANT), ("line", LINE)):
        await group(provisioner, name, signing(held))
    assert (await register(provisioner, LEAF, LINE, PLANT)).enrollment_group_id == "line"
    await provisioner.groups.delete("line")
    assert (await register(provisioner, LEAF, LINE, PLANT)).enrollment_group_id == "plant"
    assert last(decisions).considered == ("enrollment group plant, by its signing certificate CN=plant",)


async def test_the_nearest_decides_though_it_is_disabled(
    provisioner: Provisioner, decisions: Decisions
) -> None:
    await group(provisioner, "root", signing(ROOT))
    await group(provisioner, "line", signing(LINE), provisioningStatus="disabled")

    assert (await register(provisioner, LEAF, LINE, PLANT)).status is Status.DISABLED

    assert failed(last(decisions)) == ["enrollment enabled"]
    assert "'line' is disabled" in last(decisions).error
    other = PLANT.issue("pump-8", number=3)
    assert (await register(provisioner, other, PLANT, registration_id="pump-8")).status is Status.ASSIGNED


async def test_a_disabled_individual_enrollment_shuts_one_device_out(
    provisioner: Provisioner, decisions: Decisions
) -> None:
    await group(provisioner, "plant", signing(LINE))
    client = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": LEAF.pem}}}}
    await enroll(provisioner, client, provisioningStatus="disabled")

    assert (await register(provisioner, LEAF)).status is Status.DISABLED
    assert last(decisions).considered == ("individual enrollment pump-7",)
    other = LINE.issue("pump-8", number=3)
    assert (await register(provisioner, other, registration_id="pump-8")).status is Status.ASSIGNED

    await provisioner.enrollments.delete("pump-7")
    assert (await register(provisioner, LEAF)).enrollment_group_id == "plant"


async def test_an_individual_enrollment_of_another_mechanism_decides_too(provisioner: Provisioner) -> None:
    await group(provisioner, "plant", signing(LINE))
    await enroll(provisioner, {"type": "symmetricKey"})
    assert "asks for a SAS token" in str(await refused(provisioner, LEAF))


async def test_of_two_groups_at_one_distance_the_one_that_can_decides(
    provisioner: Provisioner, decisions: Decisions
) -> None:
    """A renewed authority: the same name and key, in one group the old certificate, in another the new."""
    old = PLANT.authority("line", number=2, end=ROOT.certificate.parsed.not_valid_before_utc + timedelta(1))
    await group(provisioner, "a-old", signing(old))
    await group(provisioner, "b-new", signing(LINE))
    assert (await register(provisioner, LEAF, old)).enrollment_group_id == "b-new"
    assert [each.split(",")[0] for each in last(decisions).considered] == [
        "enrollment group b-new",
        "enrollment group a-old",
    ]


async def test_of_two_groups_of_one_certificate_the_first_by_name_decides(provisioner: Provisioner) -> None:
    await group(provisioner, "b", signing(LINE))
    await group(provisioner, "a", signing(LINE), provisioningStatus="disabled")
    assert (await register(provisioner, LEAF)).status is Status.DISABLED


# --- What is judged --------------------------------------------------------------------------------------


async def test_an_expired_intermediate_is_named_with_every_link(
    provisioner: Provisioner, decisions: Decisions, after: Callable[[timedelta], None]
) -> None:
    brief = ROOT.authority(
        "brief", number=4, end=ROOT.certificate.parsed.not_valid_before_utc + timedelta(90)
    )
    leaf = brief.issue("pump-7", number=3)
    await group(provisioner, "plant", signing(ROOT))
    assert (await register(provisioner, leaf, brief)).status is Status.ASSIGNED
    after(timedelta(days=60))

    refusal = await refused(provisioner, leaf, brief)

    assert refusal.check == "certificate validity"
    assert "CN=brief, issued by CN=root: it expired at 2026-04-01T00:00:00Z" in str(refusal)
    assert "Renew CN=brief" in refusal.remedy
    assert [check for check in last(decisions).checks if check.name == "certificate chain"] == [
        Check("certificate chain", True, "CN=pump-7, issued by CN=brief"),
        Check(
            "certificate chain",
            False,
            "CN=brief, issued by CN=root: it expired at 2026-04-01T00:00:00Z",
        ),
        Check("certificate chain", True, "CN=root, the anchor"),
    ]


async def test_a_group_s_certificate_that_is_no_authority_lets_nobody_in(provisioner: Provisioner) -> None:
    """It may be stored: `az` does so with a certificate that has no extensions."""
    plain = certify("plain", None, extensions=[])
    await group(provisioner, "plain", signing(plain))
    refusal = await refused(provisioner, plain.issue("pump-7", number=3))
    assert refusal.check == "certificate chain"
    assert "no CA certificate" in str(refusal)


async def test_the_common_name_is_the_registration_id(provisioner: Provisioner) -> None:
    await group(provisioner, "plant", signing(LINE))
    assert (await refused(provisioner, LEAF, registration_id="pump-8")).check == "certificate common name"
    assert (await register(provisioner, LEAF, registration_id="PUMP-7")).status is Status.ASSIGNED


async def test_a_registration_id_that_is_none_is_invalid(provisioner: Provisioner) -> None:
    await group(provisioner, "plant", signing(LINE))
    with pytest.raises(Invalid):
        await register(provisioner, LINE.issue("pump 7", number=3), registration_id="pump 7")


async def test_what_cannot_be_parsed_is_refused(provisioner: Provisioner) -> None:
    request = RegistrationRequest(id_scope="0ne00ABCDEF", registration_id="pump-7", api_version=NEWEST)
    with pytest.raises(Unauthorized) as refusal:
        await provisioner.register(request, X509Proof((b"\x30\x00",)))
    assert refusal.value.check == "certificate presented"


async def test_no_records_are_walked(
    provisioner: Provisioner, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """Every issuer is found through an index, however many groups there are."""
    await group(provisioner, "plant", signing(LINE))
    await upload(provisioner, "plant", PLANT)
    groups = provisioner.groups.records

    async def page(*_: object, **__: object) -> None:
        raise AssertionError("records were walked")

    monkeypatch.setattr(type(groups), "page", page)
    claim = Claim(
        id_scope="0ne00ABCDEF",
        registration_id="pump-7",
        proof=X509Proof((LEAF.der,)),
        now=LEAF.certificate.not_before,
        challenge=Challenges(bytes(32)).to("0ne00ABCDEF", "pump-7", LEAF.certificate.not_before),
    )
    found, attested = await Issuers(store, DPS).group_of(claim, Finding())
    assert (found.enrollment_group_id, attested.by) == ("plant", LEAF.certificate.sha256)


# --- CA references ---------------------------------------------------------------------------------------


async def test_a_group_by_reference_to_a_verified_ca(provisioner: Provisioner, decisions: Decisions) -> None:
    await upload(provisioner, "Contoso-Root", ROOT)
    await group(provisioner, "plant", references("contoso-root"))

    assert (await register(provisioner, LEAF, LINE, PLANT)).enrollment_group_id == "plant"

    decision = last(decisions)
    assert decision.considered == ("enrollment group plant, by CA certificate Contoso-Root",)
    assert Check("CA certificate verified", True) in decision.checks


async def test_a_ca_that_is_not_verified_lets_nobody_in(
    provisioner: Provisioner, decisions: Decisions
) -> None:
    await upload(provisioner, "root", ROOT, is_verified=False)
    await group(provisioner, "plant", references("root"))

    refusal = await refused(provisioner, LEAF, LINE, PLANT)

    assert refusal.check == "CA certificate verified"
    assert "generate-verification-code -n root" in refusal.remedy
    code = (
        await provisioner.ca_certificates.generate_verification_code("root", condition=None)
    ).verification_code
    await provisioner.ca_certificates.verify("root", ROOT.issue(code or "").pem, condition=None)
    assert (await register(provisioner, LEAF, LINE, PLANT)).status is Status.ASSIGNED


async def test_a_ca_that_no_group_refers_to_is_mentioned(
    provisioner: Provisioner, decisions: Decisions
) -> None:
    await upload(provisioner, "plant", PLANT)
    await refused(provisioner, LEAF, LINE)
    assert last(decisions).considered == ("CA certificate plant, which no enrollment group refers to",)


async def test_the_nearest_of_a_reference_and_a_signing_certificate_decides(provisioner: Provisioner) -> None:
    await upload(provisioner, "plant", PLANT)
    await group(provisioner, "by-reference", references("plant"))
    await group(provisioner, "by-certificate", signing(ROOT))
    assert (await register(provisioner, LEAF, LINE, PLANT)).enrollment_group_id == "by-reference"


async def test_a_ca_that_is_replaced_or_deleted_is_no_longer_the_issuer(provisioner: Provisioner) -> None:
    await upload(provisioner, "root", ROOT)
    await group(provisioner, "plant", references("root"))
    await register(provisioner, LEAF, LINE, PLANT)
    await provisioner.ca_certificates.delete("root", condition=None)
    assert (await refused(provisioner, LEAF, LINE, PLANT)).check == "enrollment exists"


async def test_a_reference_to_what_is_not_there_is_refused_at_once(provisioner: Provisioner) -> None:
    await upload(provisioner, "known", ROOT, is_verified=False)
    for write in (
        group(provisioner, "g", references("known", "no-such")),
        enroll(provisioner, references("x")),
    ):
        with pytest.raises(Invalid, match="is no CA certificate of the service; it has known"):
            await write


async def test_an_individual_enrollment_by_reference(
    provisioner: Provisioner, decisions: Decisions, hub_a: Identities
) -> None:
    await upload(provisioner, "root", ROOT)
    await upload(provisioner, "other", root("other", number=8))
    await enroll(provisioner, references("other", "root"), deviceId="robot")

    state = await register(provisioner, LEAF, LINE, PLANT)

    assert (state.device_id, state.enrollment_group_id) == ("robot", None)
    assert (await hub_a.get("robot")).authentication.thumbprints == (LEAF.certificate.sha256, None)
    assert last(decisions).considered == ("individual enrollment pump-7", "CA certificate root")


async def test_an_individual_enrollment_is_not_helped_by_another_ca(
    provisioner: Provisioner, decisions: Decisions
) -> None:
    await upload(provisioner, "root", ROOT)
    await upload(provisioner, "other", root("other", number=8))
    await group(provisioner, "plant", signing(LINE))
    await enroll(provisioner, references("other"))

    refusal = await refused(provisioner, LEAF, LINE, PLANT)

    assert refusal.check == "certificate chain"
    assert "does not lead to CA certificate other (CN=other)" in str(refusal)
    assert "the chain ends at 'CN=root'" in str(refusal)
    await provisioner.ca_certificates.delete("other", condition=None)
    assert "which does not exist" in str(await refused(provisioner, LEAF, LINE, PLANT))


async def test_an_individual_enrollment_by_an_unverified_ca(provisioner: Provisioner) -> None:
    await upload(provisioner, "root", ROOT, is_verified=False)
    await enroll(provisioner, references("root"))
    assert (await refused(provisioner, LEAF, LINE, PLANT)).check == "CA certificate verified"


# --- As the service API shows and takes it ---------------------------------------------------------------


async def test_a_group_is_shown_without_its_certificate_and_taken_back(provisioner: Provisioner) -> None:
    made = await group(provisioner, "plant", signing(ROOT, PLANT))
    shown = made.to_json(NEWEST)["attestation"]
    x509 = shown["x509"]
    assert (x509["clientCertificates"], x509["caReferences"]) == (None, None)
    pair = x509["signingCertificates"]
    assert [pair[slot]["info"]["subjectName"] for slot in ("primary", "secondary")] == ["CN=root", "CN=plant"]
    assert all(pair[slot]["certificate"] is None for slot in pair)

    again = await group(provisioner, "plant", shown, provisioningStatus="disabled")
    assert again.attestation == made.attestation
    pair["primary"] = None
    (kept,) = (await group(provisioner, "plant", shown)).attestation.certificates  # type: ignore[union-attr]
    assert kept == PLANT.certificate
    assert (await register(provisioner, LEAF, LINE)).status is Status.ASSIGNED


async def test_a_group_may_change_from_certificates_to_references(provisioner: Provisioner) -> None:
    await upload(provisioner, "root", ROOT)
    await group(provisioner, "plant", signing(LINE))
    made = await group(provisioner, "plant", references("root"))
    assert made.to_json(NEWEST)["attestation"] == {
        "type": "x509",
        "tpm": None,
        "symmetricKey": None,
        "x509": {
            "clientCertificates": None,
            "signingCertificates": None,
            "caReferences": {"primary": "root", "secondary": None},
        },
    }
    assert await provisioner.groups.get("plant") == made
    assert (await register(provisioner, LEAF, LINE, PLANT)).enrollment_group_id == "plant"
    assert (await refused(provisioner, LEAF)).check == "enrollment exists"


@pytest.mark.parametrize(
    ("x509", "field"),
    [
        ({}, "attestation.x509"),
        ({"signingCertificates": None}, "attestation.x509"),
        ({"signingCertificates": {}}, "attestation.x509.signingCertificates.primary"),
        (
            {"signingCertificates": {"primary": {"certificate": "no"}}},
            "attestation.x509.signingCertificates.primary.certificate",
        ),
        ({"caReferences": {}}, "attestation.x509.caReferences.primary"),
        ({"caReferences": {"primary": 7}}, "attestation.x509.caReferences.primary"),
        ({"caReferences": {"primary": "a"}, "signingCertificates": {}}, "attestation.x509"),
        ({"clientCertificates": {}}, "attestation.x509.clientCertificates"),
    ],
)
async def test_a_group_s_attestation_that_breaks_a_rule(
    provisioner: Provisioner, x509: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        await group(provisioner, "plant", {"type": "x509", "x509": x509})
    assert refusal.value.field == field


async def test_signing_certificates_are_not_for_an_individual_enrollment(provisioner: Provisioner) -> None:
    with pytest.raises(Invalid, match="not for an individual enrollment"):
        await enroll(provisioner, signing(ROOT))


async def test_an_individual_enrollment_may_be_left_with_its_secondary_certificate(
    provisioner: Provisioner,
) -> None:
    """As `az iot dps enrollment update --remove-certificate` does it."""
    pair = {"primary": None, "secondary": {"certificate": LEAF.pem}}
    await enroll(provisioner, {"type": "x509", "x509": {"clientCertificates": pair}})
    stored = await provisioner.enrollments.get("pump-7")
    shown = stored.to_json(NEWEST)["attestation"]["x509"]["clientCertificates"]
    assert shown["primary"] is None
    assert (await register(provisioner, LEAF)).status is Status.ASSIGNED


async def test_names_of_any_length_make_short_answers(provisioner: Provisioner) -> None:
    endless = certify("x" * 60, root(subject_name(*["y" * 60] * 20, "z"), number=5), number=6)
    refusal = await refused(provisioner, endless)
    assert len(str(refusal)) + len(refusal.remedy) < 1500
