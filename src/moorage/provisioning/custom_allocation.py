"""Custom allocation: what somebody outside is asked, and how the answer is read [dps 13.2].

    enrollment, device and linked hubs → `allocation_request` → a webhook, or a function of the operator's
    its answer → `read_answer` → the hub, an initial twin and a payload for the device, or why there is none

Pure: who is asked, and how, is behind `interfaces.CustomAllocator`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from moorage.errors import Invalid
from moorage.hub.twin import read_initial_twin
from moorage.interfaces import AllocatorAnswer

MAX_URL = 2048  # characters
MAX_DEPTH = 32  # of a payload, in either direction

PYTHON = "python"  # the scheme of a function of the operator's: `python:NAME`
SCHEMES = ("https", "http", PYTHON)

_OLDEST_VERSION = "2018-09-01"
_VERSION = re.compile(r"(\d{4}-\d\d-\d\d)(-preview)?")
_FUNCTION = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_MASK = "****"
_WHERE = "customAllocationDefinition"


@dataclass(frozen=True, slots=True)
class CustomAllocationDefinition:
    """Whom to ask. The query of `webhook_url` is a secret, a function's key: nobody is shown it again."""

    webhook_url: str = field(repr=False)
    api_version: str

    @property
    def scheme(self) -> str:
        return self.webhook_url.partition(":")[0].lower()

    @property
    def masked_url(self) -> str:
        address, mark, _ = self.webhook_url.partition("?")
        return f"{address}?{_MASK}" if mark else address

    def to_json(self) -> dict[str, Any]:
        return {"webhookUrl": self.masked_url, "apiVersion": self.api_version}

    def to_document(self) -> dict[str, Any]:
        return {"webhookUrl": self.webhook_url, "apiVersion": self.api_version}

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> CustomAllocationDefinition | None:
        return cls(document["webhookUrl"], document["apiVersion"]) if document else None


def read_definition(
    document: object, stored: CustomAllocationDefinition | None
) -> CustomAllocationDefinition | None:
    """From the enrollment's member, None without one. A URL that comes back masked is the `stored` one.

    Raises Invalid.
    """
    if document is None:
        return None
    if not isinstance(document, Mapping):
        raise Invalid(_WHERE, "must be a JSON object")
    url, version = document.get("webhookUrl"), document.get("apiVersion")
    if not isinstance(url, str) or not url:
        raise Invalid(f"{_WHERE}.webhookUrl", "is required: whom to ask for the hub")
    if stored is not None and url == stored.masked_url:
        url = stored.webhook_url
    _check_url(url)
    _check_version(version)
    return CustomAllocationDefinition(url, str(version))


def _check_url(url: str) -> None:
    where = f"{_WHERE}.webhookUrl"
    if len(url) > MAX_URL or not _PRINTABLE.fullmatch(url):
        raise Invalid(where, f"must be up to {MAX_URL} printable ASCII characters; escape all others")
    if url.endswith(f"?{_MASK}"):
        raise Invalid(where, "its query is masked, and this enrollment has no such URL; give it whole")
    try:
        parts = urlsplit(url)
        scheme, host, _ = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as error:
        raise Invalid(where, f"is not a URL: {error}") from None
    if scheme not in SCHEMES:
        raise Invalid(where, f"must begin with https:// or http://, or be {PYTHON}:NAME")
    if scheme == PYTHON:
        if not _FUNCTION.fullmatch(url.partition(":")[2]):
            raise Invalid(where, f"{PYTHON}:NAME names a function in letters, digits and _ . -")
    elif not host:
        raise Invalid(where, "names no host")
    elif "@" in parts.netloc:
        raise Invalid(where, "must not hold a user or password; what is secret belongs into its query")


def _check_version(version: object) -> None:
    known = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if known is None or known[1] < _OLDEST_VERSION:
        raise Invalid(f"{_WHERE}.apiVersion", f"must be {_OLDEST_VERSION}-preview or a later version")


# --- The question ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceContext:
    """The device that asks. `mechanism` is its attestation's type; `certificate` the X.509 leaf, DER.

    The current host name and device id are those of its last assignment, None at the first.
    """

    registration_id: str
    mechanism: str
    certificate: bytes | None = None
    current_hub: str | None = None
    current_device_id: str | None = None
    payload: Any = None

    def to_json(self) -> dict[str, Any]:
        current = {"currentIotHubHostName": self.current_hub, "currentDeviceId": self.current_device_id}
        proof: dict[str, Any] = {}
        if self.certificate is not None:
            proof["clientCertificate"] = base64.b64encode(self.certificate).decode()
        shown = {"registrationId": self.registration_id}
        shown |= {name: value for name, value in current.items() if value is not None}
        # What the device sent, of whatever kind [dps trap 45]; null is no payload [dps trap 10].
        payload = {} if self.payload is None else {"payload": self.payload}
        return {**shown, self.mechanism: proof, **payload}


@dataclass(frozen=True, slots=True)
class Question:
    """Whom to ask what; `linked` are the host names to choose from."""

    definition: CustomAllocationDefinition
    document: Mapping[str, Any]
    linked: Sequence[str]


def allocation_request(
    enrollment: Mapping[str, Any], device: DeviceContext, linked: Sequence[str]
) -> dict[str, Any]:
    """The question about `device`. `enrollment` is its JSON of the service API; `linked` the hubs to choose from.

    Keys and certificates of the enrollment are left out, and so is what it does not say.
    """
    member = "enrollmentGroup" if "enrollmentGroupId" in enrollment else "individualEnrollment"
    shown = {
        name: value
        for name, value in enrollment.items()
        if (value is not None or name == "deviceId") and name != "registrationState"
    }
    shown["attestation"] = {"type": enrollment["attestation"]["type"]}
    shown.setdefault("iotHubs", [])
    return {member: shown, "deviceRuntimeContext": device.to_json(), "linkedHubs": list(linked)}


_SECRET = re.compile(
    r'("[^"\\]*(?:password|secret|token|accesskey|privatekey)"\s*:\s*)"(?:[^"\\]|\\.)*"', re.I
)


def masked_text(text: str, limit: int) -> str:
    """The first `limit` characters of a JSON text; strings under names such as `password` are masked."""
    return _SECRET.sub(rf'\1"{_MASK}"', text)[:limit]


# --- The answer ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chosen:
    """A usable answer. `host_name` is that of a linked hub, in the service's spelling.

    `initial_twin` None leaves the enrollment's in force; `payload` None is none.
    """

    host_name: str
    initial_twin: Mapping[str, Any] | None = None
    payload: Any = None


@dataclass(frozen=True, slots=True)
class NotChosen:
    """Why an answer cannot be used: the sentence that the device is told."""

    why: str


def read_answer(answer: AllocatorAnswer, linked: Sequence[str]) -> Chosen | NotChosen:
    """Where the device goes, out of the host names in `linked`. Azure's sentence wherever there is a status."""
    failed = "Custom allocation failed"
    if answer.status is not None:
        failed += f" with status code: {answer.status}"
    if answer.failure:
        return NotChosen(f"{failed}: {answer.failure}")
    if answer.status is not None and not 200 <= answer.status < 300:
        return NotChosen(failed)
    try:
        return _read_chosen(answer.body, linked)
    except Invalid as error:
        return NotChosen(f"{failed}: {error}")


def _read_chosen(body: bytes, linked: Sequence[str]) -> Chosen:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Invalid("", "the answer is not JSON") from None
    if not isinstance(document, dict):
        raise Invalid("", "the answer is not a JSON object")
    named = document.get("iotHubHostName")
    if not isinstance(named, str):
        raise Invalid("iotHubHostName", "is missing from the answer")
    host = next((host for host in linked if host.lower() == named.lower()), None)
    if host is None:
        raise Invalid("iotHubHostName", f"{named[:255]!r} is none of the hubs that were offered")
    twin = document.get("initialTwin")
    read_initial_twin("initialTwin", twin)
    check_payload(document.get("payload"))
    return Chosen(host, twin, document.get("payload"))


def check_payload(payload: Any) -> None:
    """Refuse what cannot be kept or passed on: numbers that are none, and more than 32 levels. Raises Invalid."""
    if _is_deeper(payload, MAX_DEPTH):
        raise Invalid("payload", f"is nested more than {MAX_DEPTH} levels deep")
    try:
        json.dumps(payload, allow_nan=False)
    except ValueError:
        raise Invalid("payload", "holds a number that JSON has no way to write") from None


def _is_deeper(value: Any, levels: int) -> bool:
    """By level and not by recursion, for that is what a deep value would exhaust."""
    level = [value]
    for _ in range(levels + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (list, dict))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
