"""Twins of devices and modules: tags, desired and reported properties, each value with its time of change.

    desired, reported   values, metadata, and a version that grows by one with each accepted write
    metadata            the tree of the values again, each node an object with `$lastUpdated`

Only `desired` metadata carries `$lastUpdatedVersion`. [hub-device 7, hub-service 6]
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from moorage.errors import Invalid
from moorage.hub.session import ABSENT, Presence, name_of
from moorage.interfaces import Kind

if TYPE_CHECKING:
    from moorage.hub.device_identity import DeviceIdentity
    from moorage.hub.module_identity import ModuleIdentity

NEVER = "0001-01-01T00:00:00Z"

MAX_TAGS = 8 * 1024
MAX_PROPERTIES = 32 * 1024  # desired, and reported
_MAX_DEPTH = 10
_MAX_KEY = 1024  # bytes of UTF-8
_MAX_STRING = 4096  # bytes of UTF-8
_INTEGERS = range(-4503599627370496, 4503599627370496)
SYSTEM_MEMBERS = frozenset({"$metadata", "$version"})
_COLLECTION_MEMBERS = SYSTEM_MEMBERS | {"version", "count", "metadata"}  # of a TwinCollection. [dps 15]


def timestamp(microseconds: int | None) -> str:
    """`2026-05-02T10:20:30.1234560Z`: seven decimals; None is the beginning of time. [hub-service 3]"""
    if microseconds is None:
        return NEVER
    return f"{_second(microseconds // 1_000_000)}.{microseconds % 1_000_000:06}0Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Much is written in one second, and putting it into words takes 4 µs."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@dataclass(frozen=True, kw_only=True)
class Section:
    """Desired or reported properties."""

    values: Mapping[str, Any]
    metadata: Mapping[str, Any]
    version: int = 1

    def view(self) -> dict[str, Any]:
        """As services see it."""
        return {**self.values, "$metadata": dict(self.metadata), "$version": self.version}

    def device_view(self) -> dict[str, Any]:
        """As the device sees it, without metadata. [hub-device 3.10]"""
        return {**self.values, "$version": self.version}


@dataclass(frozen=True, kw_only=True)
class Twin:
    """The twin of one device or module. `version` grows by one with any write, `revision` with those of services."""

    device_id: str
    module_id: str | None = None
    version: int
    revision: int = 1
    tags: Mapping[str, Any]
    desired: Section
    reported: Section

    @property
    def name(self) -> str:
        return name_of(self.device_id, self.module_id)

    @property
    def etag(self) -> str:
        """Of this very version, for the store; services see another one."""
        return base64.b64encode((self.version - 1).to_bytes(8)).decode()

    @property
    def service_etag(self) -> str:
        """A counter of eight bytes in base64, `AAAAAAAAAAE=` where a twin starts. [hub-service 6.1]

        What a device reports leaves it as it is: twins seen at Azure have version 333 and etag 76.
        """
        return base64.b64encode(self.revision.to_bytes(8)).decode()


@dataclass(frozen=True, kw_only=True)
class InitialTwin:
    """What a twin is created with; checked."""

    tags: Mapping[str, Any]
    desired: Mapping[str, Any]


EMPTY = InitialTwin(tags={}, desired={})


# --- Changes ---------------------------------------------------------------------------------------------


def new_twin(
    device_id: str,
    now: int,
    tags: Mapping[str, Any] | None = None,
    desired: Mapping[str, Any] | None = None,
    *,
    module_id: str | None = None,
) -> Twin:
    """The twin of a new device or module, `tags` and `desired` as `read_initial_twin` returns them."""
    desired = desired or {}
    at = timestamp(now)
    stamp = {"$lastUpdated": at, "$lastUpdatedVersion": 1} if desired else {"$lastUpdated": NEVER}
    return Twin(
        device_id=device_id,
        module_id=module_id,
        version=2,
        tags=dict(tags or {}),
        desired=Section(values=dict(desired), metadata=metadata_of(desired, stamp)),
        reported=Section(values={}, metadata={"$lastUpdated": NEVER}),
    )


def reset_twin(twin: Twin, now: int, initial: InitialTwin) -> Twin:
    """`twin` as if new, but with versions that go on: nobody takes its content for one already seen."""
    desired_stamp = {"$lastUpdated": timestamp(now), "$lastUpdatedVersion": twin.desired.version + 1}
    return replace(
        twin,
        version=twin.version + 1,
        revision=twin.revision + 1,
        tags=dict(initial.tags),
        desired=Section(
            values=dict(initial.desired),
            metadata=metadata_of(initial.desired, desired_stamp),
            version=twin.desired.version + 1,
        ),
        reported=Section(
            values={}, metadata={"$lastUpdated": timestamp(now)}, version=twin.reported.version + 1
        ),
    )


def merge(
    values: Mapping[str, Any], metadata: Mapping[str, Any], patch: Mapping[str, Any], stamp: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Objects merge, null deletes, everything else replaces; `stamp` marks what changed. [hub-device 7.2]"""
    merged, marked = dict(values), {**metadata, **stamp}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
            marked.pop(key, None)
        elif isinstance(value, Mapping):
            older = merged.get(key)
            known = marked.get(key, {}) if isinstance(older, Mapping) else {}
            below = older if isinstance(older, Mapping) else {}
            merged[key], marked[key] = merge(below, known, value, stamp)
        else:
            merged[key], marked[key] = value, dict(stamp)
    return merged, marked


def metadata_of(value: object, stamp: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of `value` again, with `stamp` at every node."""
    below = value.items() if isinstance(value, Mapping) else ()
    return {**stamp, **{key: metadata_of(part, stamp) for key, part in below}}


# --- Rules -----------------------------------------------------------------------------------------------


def read_initial_twin(field: str, document: object) -> InitialTwin:
    """`{"tags": …, "properties": {"desired": …}}`, both optional; `field` names the document in errors.

    A null deletes what is not there and is left out. Raises Invalid. [dps 15, hub-device 7.3]
    """
    members = json_object(field, document)
    properties = json_object(f"{field}.properties", members.get("properties"))
    return InitialTwin(
        tags=_initial_section(f"{field}.tags", members.get("tags"), MAX_TAGS),
        desired=_initial_section(f"{field}.properties.desired", properties.get("desired"), MAX_PROPERTIES),
    )


def _initial_section(field: str, document: object, limit: int) -> dict[str, Any]:
    members = without(json_object(field, document), _COLLECTION_MEMBERS)
    return initial_values(field, members, limit)


def initial_values(field: str, members: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Of a section that starts with `members`: a null deletes what is not there. Raises Invalid."""
    check_members(field, members)
    values, _ = merge({}, {}, members, {})
    check_size(field, values, limit)
    return values


def json_object(field: str, value: object) -> Mapping[str, Any]:
    """`value`, or nothing in place of null. Raises Invalid when it is no object."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(field, "it is not a JSON object")
    return value


def without(members: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key not in names}


def check_members(field: str, members: Mapping[str, Any], depth: int = 0, *, in_array: bool = False) -> None:
    """Raises Invalid for what breaks a rule of [hub-device 7.3], however deep; `depth` is that of `members`."""
    if depth > _MAX_DEPTH:
        raise Invalid(field, f"it is nested more than {_MAX_DEPTH} levels deep")
    for key, value in members.items():
        _check_key(field, key)
        _check_value(field, value, depth, in_array=in_array)


def _check_value(field: str, value: object, depth: int, *, in_array: bool = False) -> None:
    """`depth` is that of the container. Numbers keep their integer or floating form."""
    if isinstance(value, str):
        if _utf8_length(field, value) > _MAX_STRING:
            raise Invalid(field, f"a string is longer than {_MAX_STRING} bytes")
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int):
        if value not in _INTEGERS:
            raise Invalid(field, f"an integer is not within {_INTEGERS.start} … {_INTEGERS.stop - 1}")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid(field, "a number is not finite")
    elif isinstance(value, Mapping):
        check_members(field, value, depth + 1, in_array=in_array)
    elif isinstance(value, list):
        _check_array(field, value, depth + 1)
    elif value is not None:
        raise Invalid(field, f"{type(value).__name__} is no JSON value")
    elif in_array:
        raise Invalid(field, "an array cannot hold null")


def _check_array(field: str, values: list[object], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise Invalid(field, f"it is nested more than {_MAX_DEPTH} levels deep")
    for value in values:
        _check_value(field, value, depth, in_array=True)


def _check_key(field: str, key: str) -> None:
    if not 1 <= _utf8_length(field, key) <= _MAX_KEY:
        raise Invalid(field, f"a key is empty or longer than {_MAX_KEY} bytes")
    if any(character in ".$ " or _is_control(character) for character in key):
        raise Invalid(field, f"the key {key!r:.80} holds a control character, '.', '$' or a space")


def _is_control(character: str) -> bool:
    """C0 and C1, with DEL between them."""
    return character <= "\x1f" or "\x7f" <= character <= "\x9f"


def _utf8_length(field: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise Invalid(field, "a string holds half of a surrogate pair") from None


def check_size(field: str, values: Mapping[str, Any], limit: int) -> None:
    if (size := size_of(values)) > limit:
        raise Invalid(field, f"it has {size} bytes, the limit is {limit}")


def size_of(value: object) -> int:
    """As limits count it: keys and values; a string its characters but controls, a number 8, a boolean 4."""
    if isinstance(value, Mapping):
        return sum(len(key.encode()) + size_of(below) for key, below in value.items())
    if isinstance(value, list):
        return sum(map(size_of, value))
    if isinstance(value, str):
        return len(value) - sum(map(_is_control, value))
    if isinstance(value, bool):
        return 4
    return 0 if value is None else 8


# --- Views -----------------------------------------------------------------------------------------------


def device_view(twin: Twin) -> dict[str, Any]:
    """What a device may see: both sections, no tags, no metadata. [hub-device 3.10]"""
    return {"desired": twin.desired.device_view(), "reported": twin.reported.device_view()}


def service_view(twin: Twin, identity: DeviceIdentity, presence: Presence = ABSENT) -> dict[str, Any]:
    """What a service sees; `statusUpdateTime` is `statusUpdatedTime` in an identity. [hub-service 6.1]"""
    return {
        **_service_view(twin, identity, identity, presence),
        "capabilities": {"iotEdge": identity.iot_edge},
        **identity.scope_view(),
    }


def module_service_view(
    twin: Twin, module: ModuleIdentity, device: DeviceIdentity, presence: Presence = ABSENT
) -> dict[str, Any]:
    """What a service sees of a module's twin, the status being that of its device. [hub-service 6.1]"""
    return _service_view(twin, module, device, presence)


def _service_view(
    twin: Twin, identity: DeviceIdentity | ModuleIdentity, device: DeviceIdentity, presence: Presence
) -> dict[str, Any]:
    view: dict[str, Any] = {
        "deviceId": twin.device_id,
        **({"moduleId": twin.module_id} if twin.module_id is not None else {}),
        "etag": twin.service_etag,
        "deviceEtag": identity.etag,
        "status": device.status,
        "statusReason": device.status_reason,
        "statusUpdateTime": timestamp(device.status_updated_time),
        "connectionState": presence.state,
        "lastActivityTime": timestamp(presence.last_activity),
        "cloudToDeviceMessageCount": presence.queued,
        "authenticationType": identity.authentication.type,
        "x509Thumbprint": identity.authentication.thumbprint_view(),
        "modelId": presence.model_id,
        "version": twin.version,
        "properties": {"desired": twin.desired.view(), "reported": twin.reported.view()},
    }
    if twin.tags:  # left out once the last one is gone [hub-service 6.2]
        view["tags"] = dict(twin.tags)
    return view


# --- At rest ---------------------------------------------------------------------------------------------


def _to_document(twin: Twin) -> dict[str, Any]:
    return {
        "deviceId": twin.device_id,
        **({"moduleId": twin.module_id} if twin.module_id is not None else {}),
        "version": twin.version,
        "revision": twin.revision,
        "tags": dict(twin.tags),
        "desired": _section_document(twin.desired),
        "reported": _section_document(twin.reported),
    }


def _section_document(section: Section) -> dict[str, Any]:
    return {"values": dict(section.values), "metadata": dict(section.metadata), "version": section.version}


def _from_document(document: dict[str, Any]) -> Twin:
    return Twin(
        device_id=document["deviceId"],
        module_id=document.get("moduleId"),
        version=document["version"],
        revision=document.get("revision", document["version"] - 1),  # one for both, before devices reported
        tags=document["tags"],
        desired=Section(**document["desired"]),
        reported=Section(**document["reported"]),
    )


KIND: Kind[Twin] = Kind(
    name="twin",
    key=lambda twin: twin.name,
    to_document=_to_document,
    from_document=_from_document,
    index={},
)
"""Of devices, kept under the scope of the hub, by device id."""

MODULE_KIND: Kind[Twin] = Kind(
    name="module_twin",
    key=lambda twin: twin.name,
    to_document=_to_document,
    from_document=_from_document,
    index={"device": lambda twin: [twin.device_id]},
)
"""Of modules, apart from those of devices, so that a query over these does not walk those; by `device/module`."""
