"""Every api-version that clients were seen to send, and what each knows of.

One table for the device API, the service API and the hub. Nothing else in Moorage compares versions: it is
handed an `ApiVersion`. A version past the newest one here is treated as that; one in between as its older
neighbour. For the hub the value decides nothing [hub-service 3].
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from moorage.errors import Invalid
from moorage.provisioning.service import ApiVersion


@dataclass(frozen=True, slots=True)
class _Known:
    since: str  # as clients write it
    device: bool  # spoken on the device API of DPS
    service: bool  # spoken on the service API of DPS
    hub: bool
    reprovisioning: bool = True
    precise_substatus: bool = True
    issuance: bool = False


def _dps(since: str, *, device: bool = True, service: bool = True, **knows: bool) -> _Known:
    return _Known(since, device, service, False, **knows)


def _hub(since: str) -> _Known:
    return _Known(since, False, False, True)


# Oldest first. [dps 3, hub-service 3]
VERSIONS = (
    _dps("2017-08-31-preview", reprovisioning=False, precise_substatus=False),
    _dps("2017-11-15", reprovisioning=False, precise_substatus=False),
    _dps("2018-04-01", reprovisioning=False, precise_substatus=False),
    _hub("2018-06-30"),
    _dps("2018-09-01-preview", precise_substatus=False),
    _dps("2018-11-01", precise_substatus=False),
    _dps("2019-03-31", precise_substatus=False),
    _hub("2020-05-31-preview"),
    _hub("2020-09-30"),
    _hub("2021-04-12"),
    _dps("2021-06-01"),
    _dps("2021-10-01"),
    _dps("2021-11-01-preview"),
    _hub("2024-03-31"),
    _dps("2025-07-01-preview", issuance=True),
    _dps("2026-07-01-preview", device=False, issuance=True),
    _dps("2026-11-01", issuance=True),
    _dps("2026-11-02-preview", issuance=True),
    _dps("2026-11-15-preview", service=False, issuance=True),
)

_DATE = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])(?:-[a-z0-9.-]{1,32})?", re.IGNORECASE
)


def device(text: str | None) -> ApiVersion:
    """Of the DPS device API. Raises Invalid."""
    return _resolved(text, [known for known in VERSIONS if known.device])


def service(text: str | None) -> ApiVersion:
    """Of the DPS service API. Raises Invalid."""
    return _resolved(text, [known for known in VERSIONS if known.service])


def hub(text: str | None) -> str:
    """Of the hub, in either direction: any date will do. Raises Invalid."""
    return _dated(text, next(known.since for known in reversed(VERSIONS) if known.hub))


def _resolved(text: str | None, spoken: list[_Known]) -> ApiVersion:
    dated = _dated(text, spoken[-1].since)
    # Dates compare as text; "-preview" follows its own date and precedes the next.
    known = next((known for known in reversed(spoken) if known.since[:10] <= dated[:10]), None)
    if known is None:
        raise Invalid("api-version", f"{dated} is not supported; the oldest is {spoken[0].since}")
    return ApiVersion(dated, known.reprovisioning, known.precise_substatus, known.issuance)


def _dated(text: str | None, newest: str) -> str:
    if not text:
        raise Invalid("api-version", f"is required; the newest supported is {newest}")
    if not _DATE.fullmatch(text):
        raise Invalid("api-version", f"{text[:64]!r} is not an API version; the newest supported is {newest}")
    return text.lower()
