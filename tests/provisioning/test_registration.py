from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Invalid
from moorage.provisioning.registration import (
    KEPT_OPERATIONS,
    KIND,
    Assignment,
    Outcome,
    RegistrationState,
    Status,
    Substatus,
    attempted,
    new_operation_id,
    new_registration_etag,
    read_register_body,
)
from moorage.provisioning.service import ApiVersion

NEWEST = ApiVersion("2021-06-01", reprovisioning=True, precise_substatus=True)
COMMON = ApiVersion("2019-03-31", reprovisioning=True, precise_substatus=False)
OLDEST = ApiVersion("2018-04-01", reprovisioning=False, precise_substatus=False)
BY: dict[str, Any] = {"mechanism": "x509", "enrollment_group_id": None}
NOON = 1_772_452_800_000_000  # 2026-03-02T12:00:00Z

ASSIGNED = RegistrationState(
    registration_id="sample-device-1",
    outcome=Outcome(Status.ASSIGNED, "A9" * 32, Substatus.INITIAL_ASSIGNMENT),
    assignment=Assignment(7, "hub-a.example.net", "line4-robot7"),
    operations=("5.0000000000000001.a", "5.0000000000000002.b"),
    created=NOON + 123_456,
    updated=NOON + 418_290,
    etag="IjdhMDBjMWYyLTAwMDAtMDQwMC0wMDAwLTY2ZjFhMmIzMDAwMCI=",
)


def test_the_answer_to_a_device_that_is_assigned() -> None:
    assert ASSIGNED.operation_status(NEWEST) == {
        "operationId": "5.0000000000000002.b",
        "status": "assigned",
        "registrationState": {
            "x509": {},
            "registrationId": "sample-device-1",
            "createdDateTimeUtc": "2026-03-02T12:00:00.1234560Z",
            "assignedHub": "hub-a.example.net",
            "deviceId": "line4-robot7",
            "status": "assigned",
            "substatus": "initialAssignment",
            "lastUpdatedDateTimeUtc": "2026-03-02T12:00:00.4182900Z",
            "etag": "IjdhMDBjMWYyLTAwMDAtMDQwMC0wMDAwLTY2ZjFhMmIzMDAwMCI=",
        },
    }


def test_the_first_answer() -> None:
    assert ASSIGNED.accepted() == {"operationId": "5.0000000000000002.b", "status": "assigning"}


def test_no_device_is_ever_told_that_it_is_unassigned() -> None:
    """C takes the word for a TPM's challenge, Python for an error, C# and Java ask on for ever [dps 6.4]."""
    assert {status.value for status in Status} == {"assigning", "assigned", "failed", "disabled"}


def test_a_failed_or_disabled_device_is_told_no_hub_and_comes_back_to_it_later() -> None:
    failed = attempted(
        ASSIGNED,
        "sample-device-1",
        outcome=Outcome(Status.FAILED, "A9" * 32, error_code=400208, error_message="No hub"),
        assignment=None,
        now=NOON,
        **BY,
    )
    answer = failed.operation_status(NEWEST)
    assert answer["status"] == answer["registrationState"]["status"] == "failed"
    assert answer["registrationState"]["errorCode"] == 400208
    assert answer["registrationState"]["errorMessage"] == "No hub"
    assert not {"assignedHub", "deviceId", "substatus", "x509", "payload"} & set(answer["registrationState"])
    assert failed.assignment == ASSIGNED.assignment

    disabled = attempted(failed, "x", outcome=Outcome(Status.DISABLED, ""), assignment=None, now=NOON, **BY)
    assert disabled.to_json(NEWEST).keys() == {
        "registrationId",
        "createdDateTimeUtc",
        "status",
        "lastUpdatedDateTimeUtc",
        "etag",
    }
    assert disabled.assignment == ASSIGNED.assignment


@pytest.mark.parametrize(
    ("api_version", "substatus", "told"),
    [
        (NEWEST, Substatus.REPROVISIONED, "reprovisionedToInitialAssignment"),
        (COMMON, Substatus.REPROVISIONED, "initialAssignment"),
        (COMMON, Substatus.DEVICE_DATA_RESET, "deviceDataReset"),
        (OLDEST, Substatus.REPROVISIONED, None),
        (OLDEST, Substatus.INITIAL_ASSIGNMENT, None),
    ],
)
def test_substatus_by_version(api_version: ApiVersion, substatus: Substatus, told: str | None) -> None:
    state = attempted(
        None,
        "a",
        outcome=Outcome(Status.ASSIGNED, "", substatus),
        assignment=ASSIGNED.assignment,
        now=NOON,
        **BY,
    )
    assert state.to_json(api_version).get("substatus") == told


def test_etags_are_base64_of_a_quoted_text() -> None:
    assert re.fullmatch(r'"[0-9a-f-]{36}"', base64.b64decode(new_registration_etag()).decode())


def test_operation_ids_are_safe_in_topics_and_paths() -> None:
    assert re.fullmatch(r"5\.[0-9a-f]{16}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", new_operation_id())


def test_the_latest_operations_are_kept_and_the_first_time() -> None:
    state = ASSIGNED
    for attempt in range(KEPT_OPERATIONS + 3):
        last = state
        state = attempted(state, "x", outcome=state.outcome, assignment=None, now=NOON + attempt, **BY)
        assert state.operation_id not in last.operations
        assert last.operation_id in state.operations
        assert state.etag != last.etag
    assert len(state.operations) == KEPT_OPERATIONS
    assert state.created == ASSIGNED.created
    assert state.updated == NOON + KEPT_OPERATIONS + 2


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"", None),
        (b" ", None),
        (b"{}", None),
        (b'{"payload":null,"registrationId":"SAMPLE-device-1"}', None),
        (b'{"payload":"a string"}', "a string"),
        (b'{"payload":{"model":"toaster"},"unknown":1,"tpm":null}', {"model": "toaster"}),
    ],
)
def test_register_bodies(body: bytes, payload: object) -> None:
    assert read_register_body(body, "sample-device-1").payload == payload


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"7", b"\xff{}", b'{"registrationId":"other"}', b'{"registrationId":7}', b"[" * 90_000],
)
def test_register_bodies_that_are_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        read_register_body(body, "sample-device-1")


@given(
    st.builds(
        RegistrationState,
        registration_id=st.text(min_size=1),
        outcome=st.builds(
            Outcome,
            st.sampled_from(Status),
            st.text(),
            st.none() | st.sampled_from(Substatus),
            st.none() | st.integers(),
            st.none() | st.text(),
        ),
        assignment=st.none() | st.builds(Assignment, st.integers(), st.text(), st.text()),
        operations=st.lists(st.text(), min_size=1).map(tuple),
        created=st.integers(0, 2**53),
        updated=st.integers(0, 2**53),
        etag=st.text(),
    )
)
def test_a_record_survives_its_document(state: RegistrationState) -> None:
    document: dict[str, Any] = json.loads(json.dumps(KIND.to_document(state)))
    assert KIND.from_document(document) == state
