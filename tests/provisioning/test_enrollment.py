from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.credentials.x509 import Certificate
from moorage.errors import Invalid, NotSupported
from moorage.provisioning.attestation.x509 import EnrolledCertificate, X509Attestation
from moorage.provisioning.enrollment import KIND, IndividualEnrollment, read_enrollment
from moorage.provisioning.registration import Assignment, Outcome, RegistrationState, Status, Substatus
from moorage.provisioning.service import AllocationPolicy, ApiVersion, LinkedHub
from moorage.provisioning.transfer import declared

NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
OLDEST = ApiVersion("2018-04-01", reprovisioning=False, precise_substatus=False)
NOON = 1_772_452_800_000_000  # 2026-03-02T12:00:00Z

CERTIFICATE = EnrolledCertificate(
    der=base64.b64encode(b"not looked at").decode(),
    common_name="pump-7",
    subject="CN=pump-7, O=Contoso",
    issuer="CN=Contoso CA",
    serial="0A1B2C",
    not_before=1_767_225_600_000_000,
    not_after=1_798_761_600_000_000,
    sha1="5D" * 20,
    sha256="A9" * 32,
    version=3,
)
INFO = {
    "subjectName": "CN=pump-7, O=Contoso",
    "sha1Thumbprint": "5D" * 20,
    "sha256Thumbprint": "A9" * 32,
    "issuerName": "CN=Contoso CA",
    "notBeforeUtc": "2026-01-01T00:00:00Z",
    "notAfterUtc": "2027-01-01T00:00:00Z",
    "serialNumber": "0A1B2C",
    "version": 3,
}


def enrollment(**members: Any) -> IndividualEnrollment:
    given: dict[str, Any] = {
        "registration_id": "pump-7",
        "attestation": X509Attestation(CERTIFICATE),
        "created": NOON,
        "updated": NOON + 1,
        "etag": "7a00c1f2-0000-0400-0000-66f1a2b30000",
    }
    return IndividualEnrollment(**{**given, **members})


def document(**members: Any) -> dict[str, Any]:
    """What a client puts, its certificate known from before by `info`."""
    return {
        "registrationId": "pump-7",
        "attestation": {"type": "x509", "x509": {"clientCertificates": {"primary": {"info": INFO}}}},
        **members,
    }


def read(body: dict[str, Any], api_version: ApiVersion = NEWEST) -> IndividualEnrollment:
    return read_enrollment(body, stored=enrollment(), api_version=api_version, now=NOON + 5)


def test_the_json_of_the_service_api() -> None:
    full = read(
        document(
            deviceId="line4-robot7",
            optionalDeviceInformation={"serial": "A-17"},
            capabilities={"iotEdge": True},
            initialTwin={"tags": {"site": "north"}, "properties": {"desired": {"interval": 30}}},
            provisioningStatus="Disabled",
            reprovisionPolicy={"updateHubAssignment": True, "migrateDeviceData": False},
            allocationPolicy="GEOLATENCY",
            iotHubs=["hub-a.example.net"],
        )
    )
    shown = full.to_json(NEWEST)
    etag = shown.pop("etag")
    assert etag == f'"{full.etag}"'
    assert shown == {
        "registrationId": "pump-7",
        "deviceId": "line4-robot7",
        "optionalDeviceInformation": {"serial": "A-17"},
        "attestation": {
            "type": "x509",
            "tpm": None,
            "symmetricKey": None,
            "x509": {
                "clientCertificates": {"primary": {"certificate": None, "info": INFO}, "secondary": None},
                "signingCertificates": None,
                "caReferences": None,
            },
        },
        "capabilities": {"iotEdge": True},
        "iotHubHostName": None,
        "initialTwin": {"tags": {"site": "north"}, "properties": {"desired": {"interval": 30}}},
        "provisioningStatus": "disabled",
        "createdDateTimeUtc": "2026-03-02T12:00:00.0000000Z",
        "lastUpdatedDateTimeUtc": "2026-03-02T12:00:00.0000050Z",
        "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": False},
        "allocationPolicy": "geoLatency",
        "iotHubs": ["hub-a.example.net"],
        "customAllocationDefinition": None,
    }


def test_defaults() -> None:
    shown = read(document()).to_json(NEWEST)
    assert shown["provisioningStatus"] == "enabled"
    assert shown["capabilities"] == {"iotEdge": False}
    assert shown["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": True}
    for absent in ("deviceId", "allocationPolicy", "iotHubs", "initialTwin", "optionalDeviceInformation"):
        assert shown[absent] is None
    assert "registrationState" not in shown


def test_a_single_enrollment_shows_its_registration() -> None:
    state = RegistrationState(
        registration_id="pump-7",
        outcome=Outcome(Status.ASSIGNED, "A9" * 32, Substatus.REPROVISIONED),
        assignment=Assignment(7, "hub-a.example.net", "pump-7"),
        operations=("5.1.2",),
        created=NOON,
        updated=NOON,
        etag="Ij",
    )
    shown = enrollment().to_json(NEWEST, state)["registrationState"]
    assert shown == state.to_json(NEWEST)
    assert shown["assignedHub"] == "hub-a.example.net"


def test_an_old_caller_neither_sees_nor_wipes_what_its_version_has_no_words_for() -> None:
    stored = read(document(allocationPolicy="hashed", reprovisionPolicy={"updateHubAssignment": False}))
    assert "reprovisionPolicy" not in stored.to_json(OLDEST)
    assert "iotHubs" not in stored.to_json(OLDEST)
    written = read_enrollment(document(deviceId="d"), stored=stored, api_version=OLDEST, now=NOON)
    assert written.terms.reprovision_policy == stored.terms.reprovision_policy
    assert written.terms.allocation.policy == "hashed"
    assert written.device_id == "d"


def test_a_hub_named_the_old_way_is_static() -> None:
    named = read(document(iotHubHostName="hub-a.example.net")).terms.allocation
    assert named.named == ("hub-a.example.net",)
    assert named.policy is None
    assert named.policy_or(AllocationPolicy.HASHED) is AllocationPolicy.STATIC
    assert read(document()).terms.allocation.policy_or(AllocationPolicy.HASHED) is AllocationPolicy.HASHED


def test_spelling_creation_time_and_certificate_of_the_stored_record_are_kept() -> None:
    stored = enrollment(registration_id="Pump-7")
    again = read_enrollment(document(), stored=stored, api_version=NEWEST, now=NOON + 9)
    assert again.registration_id == "Pump-7"
    assert again.created == stored.created
    assert again.updated == NOON + 9
    assert again.etag != stored.etag
    assert again.attestation == stored.attestation


def test_unknown_and_read_only_members_are_ignored() -> None:
    body = document(deviceID="as a sample writes it", etag='"x"', createdDateTimeUtc="yesterday")
    assert read({**body, "registrationState": {"status": "assigned"}}).device_id is None


@pytest.mark.parametrize(
    "encode",
    [
        lambda certificate: certificate.to_pem(),
        lambda certificate: certificate.to_pem().rstrip(),
        lambda certificate: certificate.to_pem().replace("\n", "\r\n"),
        lambda certificate: base64.b64encode(certificate.to_pem().encode()).decode(),
        lambda certificate: base64.b64encode(certificate.der).decode(),
    ],
    ids=["PEM", "PEM stripped", "PEM CRLF", "base64 of PEM", "base64 of DER"],
)
def test_encodings_of_a_certificate(
    encode: Callable[[Certificate], str], certify: Callable[..., Certificate]
) -> None:
    certificate = certify("pump-7")
    x509 = {"clientCertificates": {"primary": {"certificate": encode(certificate)}}}
    made = read_enrollment(
        document(attestation={"type": "x509", "x509": x509}), stored=None, api_version=NEWEST, now=NOON
    )
    assert isinstance(made.attestation, X509Attestation)
    assert made.attestation.primary == EnrolledCertificate.of(certificate)
    assert made.attestation.primary.sha256 == certificate.sha256
    assert base64.b64decode(made.attestation.primary.der) == certificate.der


def test_both_certificates_come_back_by_info_and_may_change_places(
    certify: Callable[..., Certificate],
) -> None:
    def both(primary: object, secondary: object) -> dict[str, Any]:
        x509 = {"clientCertificates": {"primary": primary, "secondary": secondary}, "caReferences": None}
        return document(attestation={"type": "x509", "x509": x509})

    first, second = certify("pump-7"), certify("pump-7")
    body = both({"certificate": first.to_pem()}, {"certificate": second.to_pem()})
    stored = read_enrollment(body, stored=None, api_version=NEWEST, now=NOON)
    shown = stored.to_json(NEWEST)["attestation"]["x509"]["clientCertificates"]
    swapped = both(shown["secondary"], shown["primary"])
    again = read_enrollment(swapped, stored=stored, api_version=NEWEST, now=NOON)
    assert isinstance(stored.attestation, X509Attestation)
    assert isinstance(again.attestation, X509Attestation)
    assert again.attestation.certificates == tuple(reversed(stored.attestation.certificates))


def x509(**members: Any) -> dict[str, Any]:
    return {"attestation": {"type": "x509", "x509": members}}


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"registrationId": None}, "registrationId"),
        ({"registrationId": 7}, "registrationId"),
        ({"attestation": None}, "attestation"),
        ({"attestation": "x509"}, "attestation"),
        ({"attestation": {}}, "attestation.type"),
        ({"attestation": {"type": "x508"}}, "attestation.type"),
        ({"attestation": {"type": "x509"}}, "attestation.x509"),
        (x509(), "attestation.x509"),
        (x509(clientCertificates={}), "attestation.x509.clientCertificates.primary"),
        (x509(clientCertificates={"primary": {}}), "attestation.x509.clientCertificates.primary"),
        (x509(clientCertificates={"primary": "PEM"}), "attestation.x509.clientCertificates.primary"),
        (
            x509(clientCertificates={"primary": {"certificate": 1}}),
            "attestation.x509.clientCertificates.primary.certificate",
        ),
        (
            x509(clientCertificates={"primary": {"certificate": "-----BEGIN RUBBISH-----"}}),
            "attestation.x509.clientCertificates.primary.certificate",
        ),
        (
            x509(clientCertificates={"primary": {"certificate": "bm90IGEgY2VydGlmaWNhdGU="}}),
            "attestation.x509.clientCertificates.primary.certificate",
        ),
        (
            x509(clientCertificates={"primary": {"info": {"sha256Thumbprint": "00" * 32}}}),
            "attestation.x509.clientCertificates.primary",
        ),
        (x509(signingCertificates={"primary": {}}), "attestation.x509.signingCertificates"),
        ({"deviceId": "a/b"}, "deviceId"),
        ({"deviceId": "d" * 129}, "deviceId"),
        ({"deviceId": 7}, "deviceId"),
        ({"capabilities": {"iotEdge": "yes"}}, "capabilities.iotEdge"),
        ({"capabilities": []}, "capabilities"),
        ({"provisioningStatus": "paused"}, "provisioningStatus"),
        ({"allocationPolicy": "nearest"}, "allocationPolicy"),
        ({"allocationPolicy": "static"}, "iotHubs"),
        ({"allocationPolicy": "custom"}, "customAllocationDefinition"),
        (
            {"customAllocationDefinition": {"apiVersion": "2021-10-01"}},
            "customAllocationDefinition.webhookUrl",
        ),
        (
            {"customAllocationDefinition": {"webhookUrl": "https://a.example"}},
            "customAllocationDefinition.apiV",
        ),
        ({"allocationPolicy": "static", "iotHubs": ["a", "b"]}, "iotHubs"),
        ({"iotHubs": "hub-a"}, "iotHubs"),
        ({"iotHubs": [7]}, "iotHubs"),
        ({"reprovisionPolicy": {"updateHubAssignment": "never"}}, "reprovisionPolicy.updateHubAssignment"),
        ({"initialTwin": "north"}, "initialTwin"),
        ({"initialTwin": {"tags": []}}, "initialTwin.tags"),
        ({"initialTwin": {"properties": {"desired": 7}}}, "initialTwin.properties.desired"),
        ({"initialTwin": {"tags": {"site": "x" * 9000}}}, "initialTwin.tags"),
        ({"optionalDeviceInformation": "A-17"}, "optionalDeviceInformation"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(members: dict[str, Any], field: str) -> None:
    body = document(**members)
    with pytest.raises(Invalid) as caught:
        read_enrollment(
            body,
            stored=enrollment() if "registrationId" not in members else None,
            api_version=NEWEST,
            now=NOON,
        )
    assert caught.value.field.startswith(field)
    assert caught.value.why


@pytest.mark.parametrize(
    "members",
    [
        {"attestation": {"type": "none"}},
        {"clientCertificateIssuancePolicy": {"certificateAuthorityName": "ca"}},
    ],
)
def test_what_this_release_does_not_do_is_refused_with_a_reason(members: dict[str, Any]) -> None:
    with pytest.raises(NotSupported) as caught:
        read(document(**members))
    assert caught.value.why


WEBHOOK = {"webhookUrl": "https://alloc.example.net/pick?code=s3cret", "apiVersion": "2021-10-01"}


def test_a_webhook_s_key_is_kept_and_never_shown() -> None:
    made = read(document(allocationPolicy="Custom", customAllocationDefinition=WEBHOOK))
    shown = made.to_json(NEWEST)
    assert shown["allocationPolicy"] == "custom"
    assert shown["customAllocationDefinition"] == {
        "webhookUrl": "https://alloc.example.net/pick?****",
        "apiVersion": "2021-10-01",
    }
    assert "s3cret" not in repr(made) + str(made.to_json(NEWEST, secrets=True))
    again = read_enrollment(document(**shown), stored=made, api_version=NEWEST, now=NOON)
    assert again.terms.allocation.definition.webhook_url == WEBHOOK["webhookUrl"]


def test_what_is_taken_elsewhere_has_the_webhook_s_key_with_it() -> None:
    made = read(document(allocationPolicy="custom", customAllocationDefinition=WEBHOOK))
    assert declared(made, NEWEST)["customAllocationDefinition"] == WEBHOOK


def test_a_definition_may_wait_for_its_policy() -> None:
    waiting = read(document(customAllocationDefinition=WEBHOOK))
    assert waiting.terms.allocation.policy is None
    assert waiting.terms.allocation.definition.masked_url.endswith("?****")


@pytest.mark.parametrize("registration_id", ["a", "A.b_c:d-", "x" * 128, "-", "7", ":a"])
def test_registration_ids(registration_id: str) -> None:
    assert enrollment(registration_id=registration_id).registration_id == registration_id


@pytest.mark.parametrize("registration_id", ["", "x" * 129, "a.", "a:", "a b", "a/b", "a\n", "ä", "a%41"])
def test_registration_ids_that_break_the_rules(registration_id: str) -> None:
    with pytest.raises(Invalid, match="registrationId"):
        enrollment(registration_id=registration_id)


def test_a_hub_that_is_not_linked_is_refused_and_the_linked_ones_are_named() -> None:
    linked = [LinkedHub(hub=7, host_name="hub-a.example.net", etag="1")]
    read(document(iotHubs=["HUB-A.example.net"])).terms.allocation.check_hubs(linked)
    with pytest.raises(Invalid, match=r"hub-a\.example\.net"):
        read(document(iotHubs=["hub-z.example.net"])).terms.allocation.check_hubs(linked)


words = st.text(max_size=12).filter(lambda text: text.isprintable())
json_objects = st.dictionaries(
    words,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)
plain_keys = st.text("abcdefghij", min_size=1, max_size=8)
twin_sections = st.dictionaries(plain_keys, st.booleans() | st.integers(0, 99) | plain_keys, max_size=3)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "deviceId": st.none() | st.from_regex(r"[A-Za-z0-9:.+%_#*?!(),=@$'-]{1,128}", fullmatch=True),
        "optionalDeviceInformation": st.none() | json_objects,
        "capabilities": st.none() | st.fixed_dictionaries({"iotEdge": st.booleans()}),
        "initialTwin": st.none()
        | st.fixed_dictionaries(
            {},
            optional={"tags": twin_sections, "properties": st.fixed_dictionaries({"desired": twin_sections})},
        ),
        "provisioningStatus": st.sampled_from([None, "enabled", "disabled"]),
        "reprovisionPolicy": st.none()
        | st.fixed_dictionaries({"updateHubAssignment": st.booleans(), "migrateDeviceData": st.booleans()}),
        "allocationPolicy": st.sampled_from([None, "hashed", "geoLatency"]),
        "iotHubs": st.none() | st.lists(plain_keys, min_size=1, max_size=3),
        "iotHubHostName": st.none() | plain_keys,
    },
)


@given(bodies)
def test_what_is_shown_can_be_put_back_and_means_the_same(body: dict[str, Any]) -> None:
    """The get-modify-put of every client, over the JSON text, with the certificate as `info` only."""
    first = read(document(**body))
    shown = json.loads(json.dumps(first.to_json(NEWEST)))
    again = read_enrollment(shown, stored=first, api_version=NEWEST, now=first.updated)
    assert {**again.to_json(NEWEST), "etag": ""} == {**first.to_json(NEWEST), "etag": ""}
    for name, value in body.items():
        if value is not None:
            assert shown[name] == value


@given(bodies)
def test_a_record_survives_its_document(body: dict[str, Any]) -> None:
    record = read(document(**body))
    assert KIND.from_document(json.loads(json.dumps(KIND.to_document(record)))) == record
    assert KIND.key(record) == "pump-7"
    assert KIND.index["thumbprint"](record) == ["A9" * 32]
