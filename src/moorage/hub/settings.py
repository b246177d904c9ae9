"""What an operator can set of a hub as a whole, under the names of Azure's resource manager. [hub-service 22]"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from moorage.credentials.etag import Condition
from moorage.errors import Invalid, NotSupported, PreconditionFailed, Unavailable
from moorage.hub.cloud_to_device import CloudToDeviceSettings
from moorage.hub.instance import Hub

_ATTEMPTS = 20  # at one write; each time it is lost, somebody else has changed the hub
_DURATION = re.compile(r"P(?:(\d{1,4})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,6})S)?)?", re.ASCII)
_UNITS = (("D", 86_400), ("H", 3600), ("M", 60), ("S", 1))

_C2D, _FEEDBACK = "cloudToDevice", "cloudToDevice.feedback"
_LOCAL_AUTH, _DEVICE_SAS, _MODULE_SAS = "disableLocalAuth", "disableDeviceSAS", "disableModuleSAS"


class HubSettings:
    """Of all hubs. What `update` returns is durable, and holds from then on.

    `hub` is the current record of a scope. `put` replaces a record read from there; it raises PreconditionFailed
    when that one is no longer the current.
    """

    def __init__(self, *, hub: Callable[[int], Hub], put: Callable[[Hub], Awaitable[Hub]]) -> None:
        self._hub = hub
        self._put = put

    async def update(self, scope: int, document: Mapping[str, Any], condition: Condition | None) -> Hub:
        """Change what `document` names; the rest stays.

        Raises Invalid, NotSupported, Unavailable, and PreconditionFailed where there is a condition.
        """
        for _ in range(_ATTEMPTS):
            hub = self._hub(scope)
            if condition is not None:
                condition.check(hub, "hub", hub.name)
            try:
                return await self._put(changed(hub, document))
            except PreconditionFailed:
                continue  # somebody else was faster
        raise Unavailable("the hub is being changed by others; try again")


def settings_view(hub: Hub) -> dict[str, Any]:
    """As Azure's resource manager writes them."""
    settings = hub.cloud_to_device
    return {
        _C2D: {
            "defaultTtlAsIso8601": duration(settings.default_ttl),
            "maxDeliveryCount": settings.max_delivery_count,
            "feedback": {
                "lockDurationAsIso8601": duration(settings.feedback_lock),
                "ttlAsIso8601": duration(settings.feedback_ttl),
                "maxDeliveryCount": settings.feedback_max_delivery_count,
            },
        },
        _LOCAL_AUTH: False,
        _DEVICE_SAS: not hub.device_sas,
        _MODULE_SAS: not hub.module_sas,
    }


def changed(hub: Hub, document: Mapping[str, Any]) -> Hub:
    """With what `document` names. Raises Invalid, NotSupported."""
    members = _members("", document, _C2D, _LOCAL_AUTH, _DEVICE_SAS, _MODULE_SAS, "etag")
    if _switch(members, _LOCAL_AUTH, otherwise=False):
        raise NotSupported(
            _LOCAL_AUTH,
            "without the keys of its policies no back end could call this hub: Microsoft Entra tokens are refused",
        )
    return replace(
        hub,
        cloud_to_device=_cloud_to_device(hub.cloud_to_device, members.get(_C2D)),
        device_sas=not _switch(members, _DEVICE_SAS, otherwise=not hub.device_sas),
        module_sas=not _switch(members, _MODULE_SAS, otherwise=not hub.module_sas),
    )


def _cloud_to_device(old: CloudToDeviceSettings, document: object) -> CloudToDeviceSettings:
    if document is None:
        return old
    members = _members(_C2D, document, "defaultTtlAsIso8601", "maxDeliveryCount", "feedback")
    feedback = _members(
        _FEEDBACK, members.get("feedback") or {}, "lockDurationAsIso8601", "ttlAsIso8601", "maxDeliveryCount"
    )
    return replace(
        old,
        default_ttl=_seconds(_C2D, members, "defaultTtlAsIso8601", old.default_ttl),
        max_delivery_count=_number(_C2D, members, "maxDeliveryCount", old.max_delivery_count),
        feedback_lock=_seconds(_FEEDBACK, feedback, "lockDurationAsIso8601", old.feedback_lock),
        feedback_ttl=_seconds(_FEEDBACK, feedback, "ttlAsIso8601", old.feedback_ttl),
        feedback_max_delivery_count=_number(
            _FEEDBACK, feedback, "maxDeliveryCount", old.feedback_max_delivery_count
        ),
    )


def _members(where: str, document: object, *known: str) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        raise Invalid(where, "is a JSON object")
    if unknown := document.keys() - set(known):
        raise Invalid(
            f"{where}.{min(unknown)}".strip(".")[:200],
            f"cannot be changed; what can is {', '.join(name for name in known if name != 'etag')}",
        )
    return document


def _switch(members: Mapping[str, Any], name: str, *, otherwise: bool) -> bool:
    value = members.get(name)
    if value is None:
        return otherwise
    if not isinstance(value, bool):
        raise Invalid(name, "is true or false")
    return value


def _number(where: str, members: Mapping[str, Any], name: str, otherwise: int) -> int:
    value = members.get(name)
    if value is None:
        return otherwise
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(f"{where}.{name}", "is a number")
    return value


def _seconds(where: str, members: Mapping[str, Any], name: str, otherwise: int) -> int:
    value = members.get(name)
    if value is None:
        return otherwise
    seconds = read_duration(value) if isinstance(value, str) else None
    if seconds is None:
        raise Invalid(f"{where}.{name}", "is a duration of days, hours, minutes and seconds, such as PT1H30M")
    return seconds


def read_duration(text: str) -> int | None:
    """Seconds of an ISO 8601 duration without years, months, weeks and fractions; None for what is none."""
    found = _DURATION.fullmatch(text.upper())
    if found is None or not any(found.groups()) or text.upper().endswith("T"):
        return None
    return sum(int(number or 0) * unit for number, (_, unit) in zip(found.groups(), _UNITS, strict=True))


def duration(seconds: int) -> str:
    """As ISO 8601 has it, `PT0S` for none."""
    days, left = divmod(seconds, 86_400)
    parts = []
    for letter, unit in _UNITS[1:]:
        count, left = divmod(left, unit)
        parts.append(f"{count}{letter}" if count else "")
    time = "".join(parts)
    date = f"{days}D" if days else ""
    return f"P{date}T{time}" if time else f"P{date}" if date else "PT0S"
