"""Where what a query names stands: in the view that services see, and in the records at rest. [hub-service 8.2]

Names at the root match in any case, and so does what is fixed below them; names that a user chose do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from moorage.hub.query.tree import UNDEFINED, Path, Source

Parts = tuple[str | int, ...]

_ROOT = (
    "deviceId",
    "moduleId",
    "etag",
    "deviceEtag",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "modelId",
    "version",
    "tags",
    "properties",
    "capabilities",
    "deviceScope",
    "parentScopes",
    "configurations",
)
NAMES = {name.lower(): name for name in _ROOT}
"""Of the root, in lower case → as they are written."""

_BELOW = {
    "properties": ("desired", "reported"),
    "capabilities": ("iotEdge",),
    "x509Thumbprint": ("primaryThumbprint", "secondaryThumbprint"),
}


def canonical(parts: Parts) -> Parts:
    """`parts` as names are written, without the `devices.` or `devices.modules.` that may stand before them."""
    for collection in ("devices", "modules"):
        if len(parts) == 1 or str(parts[0]).lower() != collection:
            break
        parts = parts[1:]
    root = NAMES.get(str(parts[0]).lower(), parts[0])
    below = parts[1:]
    if below and isinstance(below[0], str):
        written = {name.lower(): name for name in _BELOW.get(str(root), ())}
        below = (written.get(below[0].lower(), below[0]), *below[1:])
    return (root, *below)


JOB_NAMES = frozenset(
    (
        *(
            "deviceid",
            "moduleid",
            "jobid",
            "jobtype",
            "status",
            "starttimeutc",
            "endtimeutc",
            "createddatetimeutc",
        ),
        *("lastupdateddatetimeutc", "outcome", "error"),
    )
)
"""Of the root of a device's part in a job, in lower case. [hub-service 8.4]"""


def of_job(parts: Parts) -> Parts:
    """`parts` without the `devices.jobs.` that may stand before them."""
    prefixed = len(parts) > 2 and [str(part).lower() for part in parts[:2]] == ["devices", "jobs"]
    return parts[2:] if prefixed else parts


def member_of(view: Mapping[str, Any], parts: Parts) -> Any:
    """The value at `parts` of a view, UNDEFINED where there is none."""
    value: Any = view
    for part in canonical(parts):
        if isinstance(part, int):
            if not isinstance(value, Sequence) or isinstance(value, str) or part >= len(value):
                return UNDEFINED
            value = value[part]
        elif not isinstance(value, Mapping) or part not in value:
            return UNDEFINED
        else:
            value = value[part]
    return value


# --- At rest ---------------------------------------------------------------------------------------------


class Record(Enum):
    """Whose record it is."""

    TWIN = "twin"
    DEVICE = "device identity"
    OWN = "own identity"  # that of the device or module whose twin it is


class Form(Enum):
    """How the view shows what is kept."""

    AS_KEPT = "as kept"
    TIME = "time"  # microseconds or null, shown as text
    UNLESS_NULL = "unless null"  # left out when it is null
    UNLESS_EMPTY = "unless empty"  # left out when there is nothing in it


@dataclass(frozen=True, slots=True)
class InDocument:
    """Below `parts` of a record's document."""

    record: Record
    parts: Parts
    form: Form = Form.AS_KEPT


class Apart(Enum):
    """What stands in no document."""

    NOWHERE = "nowhere"  # undefined in every twin
    NAME = "name"  # the key of a device's twin
    OBJECT = "object"  # an object in every twin, of other things named here
    CONNECTED = "connected"  # told by the sessions
    VIEW = "view"  # only the view has it


Place = InDocument | Apart

_OF_IDENTITY = {
    "status": InDocument(Record.DEVICE, ("status",)),
    "statusReason": InDocument(Record.DEVICE, ("statusReason",)),
    "statusUpdateTime": InDocument(Record.DEVICE, ("statusUpdatedTime",), Form.TIME),
    "deviceEtag": InDocument(Record.OWN, ("etag",)),
    "authenticationType": InDocument(Record.OWN, ("authentication", "type")),
    "x509Thumbprint": InDocument(Record.OWN, ("authentication", "x509Thumbprint")),
}
_OF_DEVICES = {
    "deviceScope": InDocument(Record.DEVICE, ("deviceScope",), Form.UNLESS_NULL),
    "parentScopes": InDocument(Record.DEVICE, ("parentScopes",)),
}


def place(path: Path, source: Source) -> Place:
    """Where the value of `path` stands, in the records of a device or, of a module, in its own and its device's."""
    root, *below = canonical(path.parts)
    if root == "tags":
        form = Form.AS_KEPT if below else Form.UNLESS_EMPTY
        return InDocument(Record.TWIN, ("tags", *below), form)
    if root == "properties":
        return _properties(tuple(below))
    known = _OF_IDENTITY | (_OF_DEVICES if source is Source.DEVICES else {})
    if isinstance(root, str) and root in known:
        kept = known[root]
        if below and root != "parentScopes" and (len(below) > 1 or below[0] not in _BELOW.get(root, ())):
            return Apart.NOWHERE
        return InDocument(kept.record, (*kept.parts, *below), kept.form)
    if root == "capabilities" and source is Source.DEVICES:
        if not below:
            return Apart.OBJECT
        return InDocument(Record.DEVICE, ("iotEdge",)) if below == ["iotEdge"] else Apart.NOWHERE
    if below:  # none of the others has anything below it, but for what a later release may
        return Apart.VIEW
    if root == "deviceId":
        return Apart.NAME if source is Source.DEVICES else InDocument(Record.TWIN, ("deviceId",))
    if root in ("moduleId", "version"):
        return InDocument(Record.TWIN, (root,))
    return Apart.CONNECTED if root == "connectionState" else Apart.VIEW


def _properties(below: Parts) -> Place:
    if not below:
        return Apart.OBJECT
    section, *rest = below
    if section not in ("desired", "reported"):
        return Apart.NOWHERE
    if not rest:
        return Apart.OBJECT
    member = {"$version": "version", "$metadata": "metadata"}.get(str(rest[0]))
    if member is not None:
        return InDocument(Record.TWIN, (section, member, *rest[1:]))
    return InDocument(Record.TWIN, (section, "values", *rest))
