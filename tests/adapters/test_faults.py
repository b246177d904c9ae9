from __future__ import annotations

import json

import pytest

from moorage import errors
from moorage.adapters import faults
from moorage.adapters.http import MethodNotAllowed, UnsupportedMediaType
from moorage.errors import (
    Conflict,
    Disabled,
    InUse,
    Invalid,
    MoorageError,
    NotFound,
    NotSupported,
    PreconditionFailed,
    StorageFull,
    Throttled,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
)
from moorage.hub.bulk import DefinedTwice
from moorage.hub.device_identity import InvalidDeviceScope

NOON = 1_772_452_800_123_456  # 2026-03-02T12:00:00.123456Z

EXAMPLES = [
    Invalid("deviceId", "is too long"),
    TooLarge("body", "is too long"),
    Unauthorized("the key is wrong", check="signature", remedy="Use the right one."),
    Disabled("device", "pump-7"),
    NotFound("device", "pump-7"),
    Conflict("device", "pump-7"),
    InUse("hub", "beta", "it is linked"),
    PreconditionFailed("device", "pump-7"),
    TooMany("module_identity", "pump-7", 50),
    Throttled("slowly", retry_after=7),
    NotSupported("TPM"),
    Unavailable("not now"),
    StorageFull("the disk is full"),
    MoorageError("internal error"),
]


def test_every_error_has_an_example() -> None:
    known = {cls for cls in vars(errors).values() if isinstance(cls, type)}
    assert {type(error) for error in EXAMPLES} == known


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_is_worded_in_every_protocol(error: MoorageError) -> None:
    status, body, _ = faults.dps_error(error, "ab" * 16, NOON)
    assert body["errorCode"] // 1000 == status
    assert body["message"]
    assert body["trackingId"] == "ab" * 16
    assert not {"status", "operationId"} & set(body)

    status, name, shape_a = faults.hub_error(error, "ab" * 16, NOON)
    assert shape_a["Message"].startswith(f"ErrorCode:{name};")
    assert len(name) >= 6, "C# takes six characters of it"
    assert faults.hub_detail(error, "ab" * 16, NOON)[1]["errorCode"] // 1000 == status

    condition, description = faults.amqp_error(error, "ab" * 16, NOON)
    assert json.loads(description)["trackingId"] == "ab" * 16
    for each in (condition, faults.fault(faults.DPS_AMQP, error)):
        assert each.startswith(("amqp:", "com.microsoft:"))


@pytest.mark.parametrize(
    ("error", "dps", "hub", "condition"),
    [
        (Invalid("x", "y"), 400000, 400004, "com.microsoft:argument-error"),
        (Invalid("api-version", "y"), 400000, 400001, "com.microsoft:argument-error"),
        (TooLarge("body", "y"), 400000, 413001, "amqp:link:message-size-exceeded"),
        (Unauthorized("x"), 401000, 401002, "amqp:unauthorized-access"),
        (Unauthorized("x", check="expiry"), 401000, 401002, "amqp:unauthorized-access"),
        (Unauthorized("x", check="certificate validity"), 401002, 401002, "amqp:unauthorized-access"),
        (Unauthorized("x", check="id scope"), 401002, 401002, "amqp:unauthorized-access"),
        (NotFound("enrollment", "a"), 404201, 404000, "amqp:not-found"),
        (NotFound("registration", "a"), 404202, 404000, "amqp:not-found"),
        (NotFound("operation", "a"), 404203, 404000, "amqp:not-found"),
        (NotFound("device", "a"), 404000, 404001, "amqp:not-found"),
        (NotFound("hub", "a"), 404000, 401001, "com.microsoft:iot-hub-not-found-error"),
        (NotFound("module", "a"), 404000, 404010, "amqp:not-found"),
        (Conflict("device", "a"), 409001, 409001, "com.microsoft:device-already-exists"),
        (InvalidDeviceScope("deviceScope", "x"), 400000, 400028, "com.microsoft:argument-error"),
        (DefinedTwice("deviceId", "x"), 400000, 400011, "com.microsoft:argument-error"),
        (MethodNotAllowed("PATCH", ["GET"]), 405000, 405000, "amqp:internal-error"),
        (UnsupportedMediaType("xml"), 415000, 415000, "amqp:internal-error"),
        (StorageFull("x"), 503000, 503001, "com.microsoft:server-busy"),
    ],
)
def test_codes(error: MoorageError, dps: int, hub: int, condition: str) -> None:
    assert faults.fault(faults.DPS, error).code == dps
    assert faults.fault(faults.HUB, error).code == hub
    assert faults.fault(faults.AMQP, error) == condition


def test_the_dps_body() -> None:
    status, body, retry_after = faults.dps_error(
        Unauthorized("the key is wrong", remedy="Use the right one."), "ab" * 16, NOON
    )
    assert (status, retry_after) == (401, None)
    assert body == {
        "errorCode": 401000,
        "trackingId": "ab" * 16,
        "message": "the key is wrong. Use the right one.",
        "timestampUtc": "2026-03-02T12:00:00.1234560Z",
    }


def test_the_hub_bodies() -> None:
    status, name, shape_a = faults.hub_error(NotFound("device", "pump-7"), "ab" * 16, NOON)
    assert (status, name) == (404, "DeviceNotFound")
    assert shape_a == {
        "Message": "ErrorCode:DeviceNotFound;no device named 'pump-7'",
        "ExceptionMessage": f"Tracking ID:{'ab' * 16}-G:0-TimeStamp:03/02/2026 12:00:00",
    }
    _, _, shape_b = faults.gateway_error(NotFound("device", "pump-7"), "ab" * 16, NOON)
    assert json.loads(shape_b["Message"])["errorCode"] == 404001
    assert shape_b["ExceptionMessage"] == ""


def test_when_to_try_again() -> None:
    assert faults.retry_after(Throttled("x", retry_after=7)) == 7
    assert faults.retry_after(StorageFull("x")) is not None
    assert faults.retry_after(MoorageError("x")) is None


def test_a_table_without_an_entry_for_all_else() -> None:
    with pytest.raises(LookupError, match="NotSupported"):
        faults.fault({Invalid: "x"}, NotSupported("y"))
