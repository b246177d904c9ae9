"""Errors of the domain as numbers and names of each protocol: one table a protocol, and the bodies.

An entry is found by the error's class or its nearest parent. Where one class has several codes, an entry may
also name what the error is about: its `kind`, or the `check` that failed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from moorage.adapters.consumer_groups import GroupDeleted, ReaderDisplaced, TooManyReaders
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
    Throttled,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
)
from moorage.hub.bulk import DefinedTwice
from moorage.hub.cloud_to_device import InvalidExpiry, LockLost, QueueFull
from moorage.hub.device_identity import InvalidDeviceScope
from moorage.hub.key_regeneration import NoKeys, UnknownPolicyKey
from moorage.hub.method import BadAnswer, ConnectionLost, NoAnswer, NotOnline, TooManyCalls
from moorage.hub.modules import SystemModule
from moorage.hub.query.refusals import QueryTooLong
from moorage.hub.twin import timestamp
from moorage.provisioning.attestation.proof import CERTIFICATE_CHECKS

T = TypeVar("T")
Table = Mapping[type[MoorageError] | tuple[type[MoorageError], str], T]


class DpsFault(NamedTuple):
    status: int
    code: int


class HubFault(NamedTuple):
    status: int
    code: int
    name: str  # behind `ErrorCode:` and in the header iothub-errorcode


# [dps 17.2]. Detail digits that nobody has seen on the wire are 000 or follow the hub's.
DPS: Table[DpsFault] = {
    Invalid: DpsFault(400, 400000),
    Unauthorized: DpsFault(401, 401000),
    **{(Unauthorized, check): DpsFault(401, 401002) for check in CERTIFICATE_CHECKS},
    Disabled: DpsFault(403, 403000),
    NotFound: DpsFault(404, 404000),
    (NotFound, "enrollment"): DpsFault(404, 404201),
    (NotFound, "enrollment group"): DpsFault(404, 404201),
    (NotFound, "registration"): DpsFault(404, 404202),
    (NotFound, "operation"): DpsFault(404, 404203),
    MethodNotAllowed: DpsFault(405, 405000),
    Conflict: DpsFault(409, 409001),
    TooMany: DpsFault(403, 403000),
    InUse: DpsFault(409, 409000),
    PreconditionFailed: DpsFault(412, 412001),
    UnsupportedMediaType: DpsFault(415, 415000),
    Throttled: DpsFault(429, 429001),
    MoorageError: DpsFault(500, 500000),
    NotSupported: DpsFault(501, 501000),
    Unavailable: DpsFault(503, 503000),
}

# Our own control API writes errors as DPS does.
CONTROL: Table[DpsFault] = {
    **DPS,
    TooLarge: DpsFault(413, 413000),
    QueueFull: DpsFault(403, 403004),  # as at the hub
}

# [hub-service 4.2]
HUB: Table[HubFault] = {
    Invalid: HubFault(400, 400004, "ArgumentInvalid"),
    (Invalid, "api-version"): HubFault(400, 400001, "InvalidProtocolVersion"),
    (Invalid, "body"): HubFault(400, 400006, "IotHubFormatError"),
    (Invalid, "to"): HubFault(400, 400003, "InvalidOperation"),
    InvalidExpiry: HubFault(403, 403009, "InvalidMessageExpiryTime"),
    QueueFull: HubFault(403, 403004, "DeviceMaximumQueueDepthExceeded"),
    InvalidDeviceScope: HubFault(400, 400028, "InvalidDeviceScope"),
    DefinedTwice: HubFault(400, 400011, "DeviceDefinedMultipleTimes"),
    UnknownPolicyKey: HubFault(400, 400035, "InvalidPolicyKey"),
    NoKeys: HubFault(400, 400003, "InvalidOperation"),
    Unauthorized: HubFault(401, 401002, "IotHubUnauthorizedAccess"),
    SystemModule: HubFault(401, 401100, "SystemModuleModifyUnauthorizedAccess"),
    (Unauthorized, "hub"): HubFault(401, 401001, "IotHubNotFound"),
    Disabled: HubFault(403, 403012, "DeviceDisabled"),
    NotFound: HubFault(404, 404000, "GenericNotFound"),
    (NotFound, "hub"): HubFault(401, 401001, "IotHubNotFound"),
    (NotFound, "AMQP address"): HubFault(404, 404006, "AmqpAddressNotFound"),
    (NotFound, "device"): HubFault(404, 404001, "DeviceNotFound"),
    (NotFound, "device_identity"): HubFault(404, 404001, "DeviceNotFound"),
    (NotFound, "twin"): HubFault(404, 404001, "DeviceNotFound"),
    (NotFound, "module"): HubFault(404, 404010, "ModuleNotFound"),
    (NotFound, "module_identity"): HubFault(404, 404010, "ModuleNotFound"),
    (NotFound, "module_twin"): HubFault(404, 404010, "ModuleNotFound"),
    (NotFound, "job"): HubFault(404, 404002, "JobNotFound"),
    (NotFound, "configuration"): HubFault(404, 404301, "ConfigurationNotFound"),
    NotOnline: HubFault(404, 404103, "DeviceNotOnline"),
    ConnectionLost: HubFault(404, 404104, "DeviceConnectionClosedRemotely"),
    MethodNotAllowed: HubFault(405, 405000, "MethodNotAllowed"),
    Conflict: HubFault(409, 409001, "DeviceAlreadyExists"),
    InUse: HubFault(409, 409000, "GenericConflict"),
    ReaderDisplaced: HubFault(409, 409002, "LinkCreationConflict"),
    (Conflict, "module"): HubFault(409, 409301, "ModuleAlreadyExistsOnDevice"),
    (Conflict, "configuration"): HubFault(409, 409401, "ConfigurationAlreadyExists"),
    PreconditionFailed: HubFault(412, 412001, "PreconditionFailed"),
    LockLost: HubFault(412, 412002, "DeviceMessageLockLost"),
    QueryTooLong: HubFault(412, 412001, "PreconditionFailed"),
    TooLarge: HubFault(413, 413001, "MessageTooLarge"),
    TooMany: HubFault(413, 413002, "TooManyDevices"),
    (TooMany, "module_identity"): HubFault(413, 413003, "TooManyModulesOnDevice"),
    UnsupportedMediaType: HubFault(415, 415000, "UnsupportedMediaType"),
    Throttled: HubFault(429, 429001, "ThrottlingException"),
    TooManyReaders: HubFault(403, 403002, "IotHubQuotaExceeded"),
    TooManyCalls: HubFault(403, 403800, "MaximumInflightMethodExceeded"),
    MoorageError: HubFault(500, 500001, "ServerError"),
    NotSupported: HubFault(501, 501000, "NotImplemented"),
    BadAnswer: HubFault(502, 502000, "BadDeviceResponse"),
    Unavailable: HubFault(503, 503001, "ServiceUnavailable"),
    NoAnswer: HubFault(504, 504101, "GatewayTimeout"),
}

# [hub-service 4.3]. Conditions that clients retry are kept for what may pass.
AMQP: Table[str] = {
    Invalid: "com.microsoft:argument-error",
    (Invalid, "partition"): "com.microsoft:argument-out-of-range",
    Unauthorized: "amqp:unauthorized-access",
    Disabled: "amqp:unauthorized-access",
    NotFound: "amqp:not-found",
    (NotFound, "hub"): "com.microsoft:iot-hub-not-found-error",
    Conflict: "com.microsoft:device-already-exists",
    InUse: "amqp:not-allowed",
    PreconditionFailed: "com.microsoft:precondition-failed",
    LockLost: "com.microsoft:message-lock-lost",
    QueueFull: "amqp:resource-limit-exceeded",
    TooLarge: "amqp:link:message-size-exceeded",
    TooMany: "amqp:resource-limit-exceeded",
    Throttled: "com.microsoft:device-container-throttled",
    GroupDeleted: "amqp:resource-deleted",
    ReaderDisplaced: "amqp:link:stolen",
    TooManyReaders: "amqp:resource-limit-exceeded",
    MoorageError: "amqp:internal-error",
    NotSupported: "amqp:not-implemented",
    Unavailable: "com.microsoft:server-busy",
}

# What DPS rejects a device's request with [dps 9.5]. Node tries again for ever on the last two.
DPS_AMQP: Table[str] = {
    Invalid: "com.microsoft:argument-error",
    Unauthorized: "amqp:unauthorized-access",
    NotFound: "amqp:not-found",
    Throttled: "com.microsoft:device-container-throttled",
    MoorageError: "amqp:internal-error",
}


def fault(table: Table[T], error: MoorageError) -> T:
    """The entry for the error's own class and what it is about, or for its class, or its nearest parent's."""
    topic = getattr(error, "check", "") or getattr(error, "kind", "") or getattr(error, "field", "")
    for cls in type(error).__mro__:
        if issubclass(cls, MoorageError):
            for key in ((cls, topic), cls):
                if key in table:
                    return table[key]
    raise LookupError(f"the table has no entry for MoorageError, so none for {type(error).__name__}")


def retry_after(error: MoorageError) -> int | None:
    """Seconds after which trying again may help; None where it will not."""
    if isinstance(error, Throttled):
        return error.retry_after
    return 2 if isinstance(error, Unavailable) else None


def dps_error(error: MoorageError, tracking_id: str, now: int) -> tuple[int, dict[str, Any], int | None]:
    """Status, body [dps 17.1] and retry-after in seconds. `now` is in microseconds."""
    status, code = fault(DPS, error)
    return status, _detail(code, error, tracking_id, now), retry_after(error)


def control_error(error: MoorageError, tracking_id: str, now: int) -> tuple[int, dict[str, Any], int | None]:
    """The same for the control API."""
    status, code = fault(CONTROL, error)
    return status, _detail(code, error, tracking_id, now), retry_after(error)


def hub_error(error: MoorageError, tracking_id: str, now: int) -> tuple[int, str, dict[str, Any]]:
    """Status, name for the header `iothub-errorcode`, and body in shape A [hub-service 4.1]."""
    status, _, name = fault(HUB, error)
    moment = datetime.fromtimestamp(now // 1_000_000, UTC)
    trace = f"Tracking ID:{tracking_id}-G:0-TimeStamp:{moment:%m/%d/%Y %H:%M:%S}"
    return status, name, {"Message": f"ErrorCode:{name};{_sentence(error)}", "ExceptionMessage": trace}


def gateway_error(error: MoorageError, tracking_id: str, now: int) -> tuple[int, str, dict[str, Any]]:
    """The same in shape B, whose `Message` is a JSON text of its own."""
    status, code, name = fault(HUB, error)
    detail = _detail(code, error, tracking_id, now)
    if isinstance(error, NotOnline | NoAnswer):
        minutes, seconds = divmod(error.seconds, 60)
        moment = detail.pop("timestampUtc")
        detail |= {"info": {"timeout": f"00:{minutes:02}:{seconds:02}"}, "timestampUtc": moment}
    inner = json.dumps(detail, separators=(",", ":"))
    return status, name, {"Message": inner, "ExceptionMessage": ""}


def hub_detail(error: MoorageError, tracking_id: str, now: int) -> tuple[int, dict[str, Any]]:
    """Status and the JSON that devices are told on a response topic."""
    status, code, _ = fault(HUB, error)
    return status, _detail(code, error, tracking_id, now)


def amqp_error(error: MoorageError, tracking_id: str, now: int) -> tuple[str, str]:
    """Condition and description (shape C) of an AMQP error."""
    detail = _detail(fault(HUB, error).code, error, tracking_id, now)
    return fault(AMQP, error), json.dumps({**detail, "info": None})


def _detail(code: int, error: MoorageError, tracking_id: str, now: int) -> dict[str, Any]:
    # Never `status` or `operationId` in here: C takes the body for an operation then [dps 17.1].
    return {
        "errorCode": code,
        "trackingId": tracking_id,
        "message": _sentence(error),
        "timestampUtc": timestamp(now),
    }


def _sentence(error: MoorageError) -> str:
    """What went wrong, and what to do about it where that is known."""
    text = str(error) or type(error).__name__
    remedy = getattr(error, "remedy", "")
    return f"{text}. {remedy}" if remedy else text
