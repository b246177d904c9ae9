from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Invalid
from moorage.interfaces import AllocatorAnswer
from moorage.provisioning.custom_allocation import (
    MAX_DEPTH,
    Chosen,
    CustomAllocationDefinition,
    DeviceContext,
    NotChosen,
    allocation_request,
    check_payload,
    read_answer,
    read_definition,
)

HUBS = ["hub-a.example.net", "hub-b.example.net"]
SECRET = "https://alloc.example.net/api/pick?code=s3cret&name=x"
MASKED = "https://alloc.example.net/api/pick?****"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def definition(url: str = SECRET, version: str = "2021-10-01") -> CustomAllocationDefinition:
    found = read_definition({"webhookUrl": url, "apiVersion": version}, None)
    assert found is not None
    return found


# --- The definition --------------------------------------------------------------------------------------


def test_the_query_of_the_url_is_shown_to_nobody() -> None:
    made = definition()
    assert made.to_json() == {"webhookUrl": MASKED, "apiVersion": "2021-10-01"}
    assert "s3cret" not in repr(made)
    assert CustomAllocationDefinition.from_document(made.to_document()) == made


def test_a_url_without_a_query_is_shown_as_it_is() -> None:
    assert definition("http://127.0.0.1:7071/api/pick").masked_url == "http://127.0.0.1:7071/api/pick"


def test_a_url_that_comes_back_masked_is_the_stored_one() -> None:
    document = {"webhookUrl": MASKED, "apiVersion": "2022-01-01"}
    assert read_definition(document, definition()) == CustomAllocationDefinition(SECRET, "2022-01-01")


def test_a_masked_url_that_nobody_has_stored_is_refused() -> None:
    for stored in (None, definition("https://elsewhere.example.net/?code=1")):
        with pytest.raises(Invalid, match="masked"):
            read_definition({"webhookUrl": MASKED, "apiVersion": "2021-10-01"}, stored)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://alloc.example.net/",
        "https:///pick",
        "https://",
        "alloc.example.net/pick",
        "https://user:secret@alloc.example.net/",
        "https://alloc.example.net:port/",
        "https://alloc.example.net/a b",
        "https://alloc.example.net/\r\nX-Injected: 1",
        "https://\N{SNOWMAN}.example.net/",
        "https://[::1/",
        "https://alloc.example.net/" + "a" * 2048,
        "python:",
        "python:../../pick.py",
        "",
        None,
        7,
    ],
)
def test_an_address_that_cannot_be_asked_is_refused(url: object) -> None:
    with pytest.raises(Invalid, match="webhookUrl"):
        read_definition({"webhookUrl": url, "apiVersion": "2021-10-01"}, None)


@pytest.mark.parametrize("version", ["2018-08-31", "2017-11-15", "latest", "", None, 20211001])
def test_an_old_or_unknown_version_is_refused(version: object) -> None:
    with pytest.raises(Invalid, match="apiVersion"):
        read_definition({"webhookUrl": SECRET, "apiVersion": version}, None)


@pytest.mark.parametrize("version", ["2018-09-01-preview", "2019-03-31", "2021-10-01", "2026-11-15-preview"])
def test_later_versions_are_taken(version: str) -> None:
    assert definition(version=version).api_version == version


def test_no_definition_is_none_and_another_kind_is_refused() -> None:
    assert read_definition(None, definition()) is None
    with pytest.raises(Invalid, match="JSON object"):
        read_definition("https://alloc.example.net", None)


@pytest.mark.parametrize(
    ("url", "scheme"),
    [("HTTPS://a.example.net/", "https"), ("http://[::1]:7071/", "http"), ("python:by_model", "python")],
)
def test_the_scheme_tells_who_is_asked(url: str, scheme: str) -> None:
    assert definition(url).scheme == scheme


# --- The question ----------------------------------------------------------------------------------------

ENROLLMENT = {
    "registrationId": "sample-device-1",
    "deviceId": None,
    "optionalDeviceInformation": None,
    "attestation": {
        "type": "symmetricKey",
        "symmetricKey": {"primaryKey": "c2VjcmV0", "secondaryKey": "c2VjcmV0"},
    },
    "capabilities": {"iotEdge": False},
    "iotHubHostName": None,
    "initialTwin": None,
    "etag": '"7a00c1f2-0000-0400-0000-66f1a2b30000"',
    "provisioningStatus": "enabled",
    "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True},
    "createdDateTimeUtc": "2026-03-01T10:00:00.0000000Z",
    "lastUpdatedDateTimeUtc": "2026-03-01T10:00:00.0000000Z",
    "allocationPolicy": "custom",
    "iotHubs": HUBS,
    "customAllocationDefinition": {"webhookUrl": MASKED, "apiVersion": "2021-10-01"},
}


def test_the_question_is_azure_s() -> None:
    device = DeviceContext(
        registration_id="sample-device-1",
        mechanism="symmetricKey",
        current_hub="hub-a.example.net",
        current_device_id="sample-device-1",
        payload={"model": "toaster"},
    )
    assert allocation_request(ENROLLMENT, device, HUBS) == {
        "individualEnrollment": {
            "registrationId": "sample-device-1",
            "deviceId": None,
            "attestation": {"type": "symmetricKey"},
            "capabilities": {"iotEdge": False},
            "etag": '"7a00c1f2-0000-0400-0000-66f1a2b30000"',
            "provisioningStatus": "enabled",
            "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True},
            "createdDateTimeUtc": "2026-03-01T10:00:00.0000000Z",
            "lastUpdatedDateTimeUtc": "2026-03-01T10:00:00.0000000Z",
            "allocationPolicy": "custom",
            "iotHubs": HUBS,
            "customAllocationDefinition": {"webhookUrl": MASKED, "apiVersion": "2021-10-01"},
        },
        "deviceRuntimeContext": {
            "registrationId": "sample-device-1",
            "currentIotHubHostName": "hub-a.example.net",
            "currentDeviceId": "sample-device-1",
            "symmetricKey": {},
            "payload": {"model": "toaster"},
        },
        "linkedHubs": HUBS,
    }


def test_the_question_of_a_group_and_of_a_device_that_comes_for_the_first_time() -> None:
    group = {key: value for key, value in ENROLLMENT.items() if key not in ("registrationId", "deviceId")}
    device = DeviceContext(registration_id="pump-7", mechanism="x509", certificate=b"\x30\x03der")
    asked = allocation_request({"enrollmentGroupId": "pumps", **group, "iotHubs": None}, device, HUBS)
    assert asked["enrollmentGroup"]["enrollmentGroupId"] == "pumps"
    assert asked["enrollmentGroup"]["iotHubs"] == []
    assert asked["deviceRuntimeContext"] == {
        "registrationId": "pump-7",
        "x509": {"clientCertificate": base64.b64encode(b"\x30\x03der").decode()},
    }


@given(json_values)
def test_what_the_device_sent_is_passed_on_verbatim(payload: Any) -> None:
    device = DeviceContext(registration_id="pump-7", mechanism="tpm", payload=payload)
    asked = json.loads(json.dumps(allocation_request(ENROLLMENT, device, HUBS)))["deviceRuntimeContext"]
    assert asked["tpm"] == {}
    assert asked.get("payload") == payload
    assert ("payload" in asked) == (payload is not None)


# --- The answer ------------------------------------------------------------------------------------------


def answer(document: object, status: int | None = 200) -> AllocatorAnswer:
    return AllocatorAnswer(status=status, body=json.dumps(document).encode())


@given(json_values)
def test_a_usable_answer(payload: Any) -> None:
    twin = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 30}}}
    document = {"iotHubHostName": "HUB-B.example.net", "initialTwin": twin, "payload": payload, "more": 1}
    assert read_answer(answer(document), HUBS) == Chosen("hub-b.example.net", twin, payload)


@pytest.mark.parametrize("status", [200, 201, 299, None])
def test_any_success_will_do(status: int | None) -> None:
    assert read_answer(answer({"iotHubHostName": HUBS[0]}, status), HUBS) == Chosen(HUBS[0])


@pytest.mark.parametrize("status", [199, 302, 400, 404, 500])
def test_azure_s_sentence_for_any_other_status(status: int) -> None:
    refused = read_answer(answer({"iotHubHostName": HUBS[0]}, status), HUBS)
    assert refused == NotChosen(f"Custom allocation failed with status code: {status}")


def test_no_answer_at_all() -> None:
    refused = read_answer(AllocatorAnswer(failure="no answer within 10 s", detail="traceback"), HUBS)
    assert refused == NotChosen("Custom allocation failed: no answer within 10 s")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "iotHubHostName: is missing"),
        (b'{"iotHubHostName": 5}', "iotHubHostName: is missing"),
        (b'{"iotHubHostName": "hub-c.example.net"}', "none of the hubs"),
        (b'{"iotHubHostName": "hub-a.example.net", "initialTwin": []}', "initialTwin"),
        (b'{"iotHubHostName": "hub-a.example.net", "initialTwin": {"tags": {"$a": 1}}}', "initialTwin"),
        (b'{"iotHubHostName": "hub-a.example.net", "payload": NaN}', "payload"),
        (b'{"iotHubHostName": "hub-a.example.net", "payload": 1e999}', "payload"),
        (b'{"iotHubHostName": "hub-a.example.net", "payload": ' + b"[" * 40 + b"]" * 40 + b"}", "levels"),
    ],
)
def test_an_answer_that_cannot_be_used_says_why(body: bytes, why: str) -> None:
    refused = read_answer(AllocatorAnswer(status=200, body=body), HUBS)
    assert isinstance(refused, NotChosen)
    assert refused.why.startswith("Custom allocation failed with status code: 200: ")
    assert why in refused.why


@given(st.binary(max_size=200))
def test_whatever_comes_back_is_read_or_refused(body: bytes) -> None:
    assert isinstance(read_answer(AllocatorAnswer(status=200, body=body), HUBS), NotChosen)


def test_a_payload_may_be_so_deep_and_no_deeper() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    check_payload(deep)
    with pytest.raises(Invalid, match="levels"):
        check_payload({"one": deep})
