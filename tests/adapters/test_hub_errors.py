"""Every code that a back end can be told over REST, provoked: status, name, number and both shapes of the body.

Those told over AMQP and MQTT alone are with their links and topics; `tests/hub_proofs.py` says where. [hub-service 4]
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from moorage.adapters import faults
from moorage.adapters.hub_service.handler import MAX_BODY
from moorage.errors import StorageFull, Throttled, Unavailable
from moorage.hub.module_identity import MAX_MODULES
from tests.support.asgi import TRACKING_ID, Answer, Caller
from tests.support.site import Site

DEVICE, MODULE, TWIN = "/devices/pump-7", "/devices/pump-7/modules/camera", "/twins/pump-7"
METHODS = f"{TWIN}/methods"
FEEDBACK = "/messages/serviceBound/feedback"
REBOOT = {"methodName": "reboot"}
NEW_KEYS = "/devices/keys/regenerate"
NOBODY = "/devices/nobody"


class Case(NamedTuple):
    """A request of a back end, and the code in its answer."""

    code: int
    name: str
    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = {}
    query: str = "api-version=2021-04-12"


CASES = (
    Case(400001, "InvalidProtocolVersion", "GET", DEVICE, query=""),
    Case(400001, "InvalidProtocolVersion", "POST", METHODS, REBOOT, query=""),
    Case(400004, "ArgumentInvalid", "PUT", "/devices/pump%207", {}),
    Case(400004, "ArgumentInvalid", "PUT", DEVICE, {"status": "asleep"}),
    Case(400004, "ArgumentInvalid", "PATCH", TWIN, {"tags": {"a.b": 1}}),
    Case(400004, "ArgumentInvalid", "POST", "/devices/query", {"query": "SELECT"}),
    Case(400004, "ArgumentInvalid", "POST", METHODS, {"methodName": ""}),
    Case(400004, "ArgumentInvalid", "POST", METHODS, {**REBOOT, "responseTimeoutInSeconds": 1}),
    Case(400006, "IotHubFormatError", "PUT", DEVICE, b"{"),
    Case(400006, "IotHubFormatError", "POST", "/devices", {}),
    Case(400006, "IotHubFormatError", "POST", METHODS, b"[1]"),
    Case(400028, "InvalidDeviceScope", "PUT", "/devices/leaf", {"deviceScope": "ms-azure-iot-edge://x-1"}),
    Case(400035, "InvalidPolicyKey", "POST", NEW_KEYS, {"policyKey": "third", "devices": [{"id": "a"}]}),
    Case(401002, "IotHubUnauthorizedAccess", "GET", DEVICE, headers={"authorization": "Bearer eyJ0"}),
    Case(401002, "IotHubUnauthorizedAccess", "POST", METHODS, REBOOT, {"authorization": ""}),
    Case(401100, "SystemModuleModifyUnauthorizedAccess", "PUT", f"{DEVICE}/modules/$edgeAgent", {}),
    Case(404000, "GenericNotFound", "GET", "/twins/a/b"),
    Case(404001, "DeviceNotFound", "GET", NOBODY),
    Case(404001, "DeviceNotFound", "PUT", NOBODY, {}, {"if-match": '"*"'}),
    Case(404001, "DeviceNotFound", "DELETE", NOBODY),
    Case(404001, "DeviceNotFound", "DELETE", f"{NOBODY}/commands"),
    Case(404001, "DeviceNotFound", "GET", f"{NOBODY}/modules/camera"),
    Case(404001, "DeviceNotFound", "PATCH", "/twins/nobody", {"tags": {}}),
    Case(404001, "DeviceNotFound", "POST", "/twins/nobody/methods", REBOOT),
    Case(404010, "ModuleNotFound", "GET", f"{DEVICE}/modules/nobody"),
    Case(404010, "ModuleNotFound", "DELETE", f"{DEVICE}/modules/nobody"),
    Case(404010, "ModuleNotFound", "GET", f"{TWIN}/modules/nobody"),
    Case(404010, "ModuleNotFound", "POST", f"{TWIN}/modules/nobody/methods", REBOOT),
    Case(404103, "DeviceNotOnline", "POST", METHODS, REBOOT),
    Case(405000, "MethodNotAllowed", "PATCH", DEVICE),
    Case(409001, "DeviceAlreadyExists", "PUT", DEVICE, {}),
    Case(409301, "ModuleAlreadyExistsOnDevice", "PUT", MODULE, {}),
    Case(412001, "PreconditionFailed", "PUT", DEVICE, {}, {"if-match": '"old"'}),
    Case(412001, "PreconditionFailed", "DELETE", MODULE, headers={"if-match": '"old"'}),
    Case(412001, "PreconditionFailed", "PATCH", TWIN, {"tags": {}}, {"if-match": '"old"'}),
    Case(412001, "PreconditionFailed", "POST", "/devices/query", {"query": "x" * 8193}),
    Case(412002, "DeviceMessageLockLost", "DELETE", f"{FEEDBACK}/{'ab' * 16}"),
    Case(413001, "MessageTooLarge", "POST", "/devices", b" " * (MAX_BODY + 1)),
    Case(413001, "MessageTooLarge", "POST", METHODS, {**REBOOT, "payload": "x" * 131_073}),
    Case(415000, "UnsupportedMediaType", "PUT", DEVICE, b"<a/>", {"content-type": "application/xml"}),
    Case(501000, "NotImplemented", "GET", "/configurations"),
    Case(501000, "NotImplemented", "POST", "/devices/pump-7/messages/events", b"21"),
)


@pytest.fixture
async def owner(site: Site) -> Caller:
    """Of a hub with a device pump-7 and its module camera."""
    await site.add_device("pump-7")
    await site.add_module("pump-7", "camera")
    return Caller(site.service_api(), token=site.token())


def told(answer: Answer, code: int, name: str, *, gateway: bool) -> str:
    """What it says, in shape A, or, of whoever calls methods, in shape B. [hub-service 4.1]"""
    assert answer.status == code // 1000, answer.body
    assert answer.headers["iothub-errorcode"] == name
    assert answer.headers["x-ms-request-id"] == TRACKING_ID
    body = answer.json()
    assert set(body) == {"Message", "ExceptionMessage"}
    if gateway:
        detail = json.loads(body["Message"])
        assert set(detail) - {"info"} == {"errorCode", "trackingId", "message", "timestampUtc"}
        assert (detail["errorCode"], detail["trackingId"]) == (code, TRACKING_ID)
        assert body["ExceptionMessage"] == ""
        message: str = detail["message"]
        return message
    assert re.fullmatch(
        rf"Tracking ID:{TRACKING_ID}-G:0-TimeStamp:01/15/2027 08:00:00", body["ExceptionMessage"]
    )
    prefix, _, message = body["Message"].partition(";")
    assert prefix == f"ErrorCode:{name}"
    return message


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code} {case.method} {case.path}")
async def test_each_code_over_rest(owner: Caller, case: Case) -> None:
    answer = await owner.call(case.method, case.path, case.body, case.headers, query=case.query)
    assert told(answer, case.code, case.name, gateway=case.path.endswith("/methods"))


def test_a_name_has_one_number() -> None:
    """Clients go by the one or the other."""
    numbers = {fault.name: fault.code for fault in faults.HUB.values()}
    for fault in faults.HUB.values():
        assert (numbers[fault.name], fault.status) == (fault.code, fault.code // 1000)
    for case in CASES:
        assert numbers[case.name] == case.code


async def test_a_hub_that_is_not_here(site: Site) -> None:
    elsewhere = Caller(site.service_api(), host="elsewhere", token=site.token())
    told(await elsewhere.call("GET", DEVICE), 401001, "IotHubNotFound", gateway=False)
    told(await elsewhere.call("POST", METHODS, REBOOT), 401001, "IotHubNotFound", gateway=True)


async def test_a_hub_that_is_full(site: Site, owner: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, MAX_MODULES):
        await site.add_module("pump-7", f"module-{number}")
    one_more = await owner.call("PUT", f"{DEVICE}/modules/more", {})
    told(one_more, 413003, "TooManyModulesOnDevice", gateway=False)
    monkeypatch.setattr(site.identities, "_max_identities", MAX_MODULES + 1)
    monkeypatch.setattr(site.identities, "_room", 0)
    told(await owner.call("PUT", "/devices/pump-8", {}), 413002, "TooManyDevices", gateway=False)


@pytest.mark.parametrize(
    ("error", "code", "name", "retry_after"),
    [
        (Throttled("slowly", retry_after=7), 429001, "ThrottlingException", "7"),
        (Unavailable("just starting"), 503001, "ServiceUnavailable", "2"),
        (StorageFull("the disk is full"), 503001, "ServiceUnavailable", "2"),
        (ZeroDivisionError(), 500001, "ServerError", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_what_may_pass(
    site: Site,
    owner: Caller,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    name: str,
    retry_after: str | None,
) -> None:
    """With when to try again; and what went wrong in here is not told to those outside."""

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(site.identities, "get", fail)
    monkeypatch.setattr(site.identities.twins, "get", fail)
    for path in (DEVICE, TWIN):
        answer = await owner.call("GET", path)
        assert "ZeroDivisionError" not in told(answer, code, name, gateway=False)
        assert answer.headers.get("retry-after") == retry_after
