"""Changes of twins: what a service patches or replaces, and what a device reports.

Each takes a twin and gives a `TwinChange`, with the twin as it is then; nothing is kept here. Every accepted write of a
section raises its version by exactly one, whether or not a value differs. [hub-device 7.2, hub-service 6.2]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from moorage.errors import Invalid
from moorage.hub.twin import (
    MAX_PROPERTIES,
    MAX_TAGS,
    SYSTEM_MEMBERS,
    Section,
    Twin,
    check_members,
    check_size,
    initial_values,
    json_object,
    merge,
    metadata_of,
    timestamp,
    without,
)

TAGS = "tags"
DESIRED = "properties.desired"
REPORTED = "properties.reported"


class Operation(Enum):
    UPDATE = "update"
    REPLACE = "replace"


@dataclass(frozen=True, kw_only=True)
class TwinChange:
    """One write. The sections it is about have what was written, the others None.

    Of an update that is the patch, null for each key to be deleted; of a replacement, all there is from now on.
    """

    operation: Operation
    before: Twin
    after: Twin
    tags: Mapping[str, Any] | None = None
    desired: Mapping[str, Any] | None = None
    reported: Mapping[str, Any] | None = None


def patch_twin(twin: Twin, now: int, document: Mapping[str, Any]) -> TwinChange:
    """A service's merge patch, `{"tags": …, "properties": {"desired": …}}`.

    A member left out changes nothing; one that is null loses all its keys. Raises Invalid. [hub-service 6.2]
    """
    tags = _patch_of(TAGS, document, twin.tags)
    desired = _patch_of("desired", _properties(document), twin.desired.values, DESIRED)
    after = replace(twin, version=twin.version + 1, revision=twin.revision + 1)
    if tags is not None:
        after = replace(after, tags=_merged_tags(twin.tags, tags))
    if desired is not None:
        after = replace(after, desired=_patched(DESIRED, twin.desired, desired, _desired_stamp(twin, now)))
    return TwinChange(operation=Operation.UPDATE, before=twin, after=after, tags=tags, desired=desired)


def replace_twin(twin: Twin, now: int, document: Mapping[str, Any]) -> TwinChange:
    """Tags and desired properties are those of `document` from now on, none where it has none. Raises Invalid.

    Desired properties that it does not name, and that there were none of, are left as they are.
    """
    properties = _properties(document)
    tags = _initial(TAGS, document.get("tags"), MAX_TAGS)
    desired = _initial(DESIRED, properties.get("desired"), MAX_PROPERTIES)
    after = replace(twin, version=twin.version + 1, revision=twin.revision + 1, tags=tags)
    named = "desired" in properties or bool(twin.desired.values)
    if named:
        stamp = _desired_stamp(twin, now)
        section = Section(
            values=desired, metadata=metadata_of(desired, stamp), version=twin.desired.version + 1
        )
        after = replace(after, desired=section)
    return TwinChange(
        operation=Operation.REPLACE,
        before=twin,
        after=after,
        tags=tags,
        desired=desired if named else None,
    )


def report(twin: Twin, now: int, patch: object) -> TwinChange:
    """A device's merge patch of its reported properties. Raises Invalid.

    What the hub decides has no place in it, unlike in what services send: a `$version` refuses it all. [hub-device 7.2]
    """
    if not isinstance(patch, Mapping):
        raise Invalid(REPORTED, "it is not a JSON object")
    check_members(REPORTED, patch)
    reported = _patched(REPORTED, twin.reported, patch, {"$lastUpdated": timestamp(now)})
    after = replace(twin, version=twin.version + 1, reported=reported)
    return TwinChange(operation=Operation.UPDATE, before=twin, after=after, reported=patch)


def _properties(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return json_object("properties", document.get("properties"))


def _patch_of(
    name: str, members: Mapping[str, Any], values: Mapping[str, Any], field: str = ""
) -> Mapping[str, Any] | None:
    """The patch of the section `name`, None where there is none. Null is short for deleting every key."""
    if name not in members:
        return None
    if members[name] is None:
        return dict.fromkeys(values)
    patch = without(json_object(field or name, members[name]), SYSTEM_MEMBERS)
    check_members(field or name, patch)
    return patch


def _initial(field: str, document: object, limit: int) -> dict[str, Any]:
    return initial_values(field, without(json_object(field, document), SYSTEM_MEMBERS), limit)


def _merged_tags(tags: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    merged, _ = merge(tags, {}, patch, {})
    check_size(TAGS, merged, MAX_TAGS)
    return merged


def _desired_stamp(twin: Twin, now: int) -> dict[str, Any]:
    return {"$lastUpdated": timestamp(now), "$lastUpdatedVersion": twin.desired.version + 1}


def _patched(field: str, section: Section, patch: Mapping[str, Any], stamp: Mapping[str, Any]) -> Section:
    values, metadata = merge(section.values, section.metadata, patch, stamp)
    check_size(field, values, MAX_PROPERTIES)
    return Section(values=values, metadata=metadata, version=section.version + 1)
