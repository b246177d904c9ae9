"""The hub's service REST API through the whole ASGI application."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from moorage.adapters.http import HttpAdapter, whole_number
from moorage.adapters.hub_service.handler import MAX_BODY
from moorage.adapters.hub_service.routes import etag_condition
from moorage.credentials.sas import make_token, new_key
from moorage.hub.session import Principal, Session
from tests.support.asgi import TRACKING_ID, Answer, Caller
from tests.support.sessions import ClosingLink
from tests.support.site import Site, certificate, failed_checks


@pytest.fixture
def app(site: Site) -> HttpAdapter:
    return site.service_api()


@pytest.fixture
def owner(site: Site, app: HttpAdapter) -> Caller:
    return Caller(app, token=site.token())


def refused(answer: Answer, status: int, name: str, *words: str) -> None:
    """The error in shape A, whole [hub-service 4.1]."""
    assert answer.status == status, answer.body
    assert answer.headers["iothub-errorcode"] == name
    assert answer.headers["x-ms-request-id"] == TRACKING_ID
    body = answer.json()
    assert set(body) == {"Message", "ExceptionMessage"}
    assert body["Message"].startswith(f"ErrorCode:{name};")
    assert re.fullmatch(
        rf"Tracking ID:{TRACKING_ID}-G:0-TimeStamp:01/15/2027 08:00:00", body["ExceptionMessage"]
    )
    for word in words:
        assert word in body["Message"]


# --- Identities ---------------------------------------------------------------------------------------------


async def test_create_read_update_delete(site: Site, owner: Caller) -> None:
    created = await owner.call("PUT", "/devices/pump-7", {"deviceId": "pump-7"})
    assert created.status == 200, "a client that sees 201 fails"
    device = created.json()
    assert created.headers["etag"] == f'"{device["etag"]}"'
    assert device["authentication"]["symmetricKey"]["primaryKey"], "the hub makes keys"
    shown = await owner.call("GET", "/devices/pump-7")
    assert shown.json() == device
    device["status"] = "disabled"
    headers = {"if-match": f'"{device["etag"]}"'}
    updated = await owner.call("PUT", "/devices/pump-7", device, headers)
    assert (updated.status, updated.json()["status"]) == (200, "disabled")
    refused(await owner.call("PUT", "/devices/pump-7", device, headers), 412, "PreconditionFailed")
    refused(await owner.call("DELETE", "/devices/pump-7", None, headers), 412, "PreconditionFailed")
    gone = await owner.call("DELETE", "/devices/pump-7", None, {"if-match": '"*"'})
    assert (gone.status, gone.body) == (204, b"")
    assert "content-type" not in gone.headers
    for method in ("GET", "DELETE"):
        refused(await owner.call(method, "/devices/pump-7"), 404, "DeviceNotFound", "pump-7")
    refused(await owner.call("PUT", "/devices/pump-7", {}, {"if-match": "*"}), 404, "DeviceNotFound")


@pytest.mark.parametrize(
    "authentication",
    [None, {}, {"type": "sas"}, {"type": "sas", "symmetricKey": {}}, {"symmetricKey": {"primaryKey": ""}}],
    ids=["absent", "empty", "type alone", "no keys", "empty key"],
)
async def test_the_hub_makes_the_keys_that_are_missing(owner: Caller, authentication: Any) -> None:
    """The Python suite creates every device so [hub-service 27.26]."""
    device = (await owner.call("PUT", "/devices/a", {"authentication": authentication})).json()
    assert device["authentication"]["type"] == "sas"
    assert all(device["authentication"]["symmetricKey"].values())


async def test_put_without_a_condition_does_not_overwrite(owner: Caller) -> None:
    await owner.call("PUT", "/devices/pump-7", {})
    refused(await owner.call("PUT", "/devices/pump-7", {}), 409, "DeviceAlreadyExists")
    refused(await owner.call("PUT", "/devices/pump-7", {}, {"if-match": " "}), 409, "DeviceAlreadyExists")


@pytest.mark.parametrize("any_etag", ["*", '"*"', 'W/"*"', " * "])
async def test_any_etag_in_all_forms(owner: Caller, any_etag: str) -> None:
    await owner.call("PUT", "/devices/pump-7", {})
    for method in ("PUT", "DELETE"):
        answer = await owner.call(
            method, "/devices/pump-7", {} if method == "PUT" else None, {"if-match": any_etag}
        )
        assert answer.status in (200, 204)


@pytest.mark.parametrize("form", ["{}", '"{}"', 'W/"{}"', ' "{}" '])
async def test_an_etag_in_all_forms(owner: Caller, form: str) -> None:
    etag = (await owner.call("PUT", "/devices/pump-7", {})).json()["etag"]
    answer = await owner.call("PUT", "/devices/pump-7", {}, {"if-match": form.format(etag)})
    assert answer.status == 200


async def test_an_empty_etag_is_nobodys(owner: Caller) -> None:
    """It may not mean any: a program that has lost the etag would overwrite what it never saw."""
    await owner.call("PUT", "/devices/pump-7", {})
    refused(await owner.call("PUT", "/devices/pump-7", {}, {"if-match": '""'}), 412, "PreconditionFailed")
    refused(
        await owner.call("DELETE", "/devices/pump-7", None, {"if-match": '""'}), 412, "PreconditionFailed"
    )
    assert (await owner.call("GET", "/devices/pump-7")).status == 200


@pytest.mark.parametrize(
    ("header", "condition"), [(None, None), ("", None), ("*", "*"), ('"a"', "a"), ("a", "a"), ('W/"a"', "a")]
)
def test_conditions(header: str | None, condition: str | None) -> None:
    assert etag_condition(header) == condition


async def test_ids_with_escapes_are_decoded_once_and_behind_the_split(owner: Caller) -> None:
    created = await owner.call("PUT", "/devices/dev%2B1%2541%23x", {})
    assert created.json()["deviceId"] == "dev+1%41#x"
    refused(await owner.call("GET", "/devices/a%2Fb"), 404, "DeviceNotFound", "a/b")
    refused(await owner.call("PUT", "/devices/a%2Fb", {}), 400, "ArgumentInvalid", "deviceId")
    refused(await owner.call("GET", "/devices/%FF"), 400, "ArgumentInvalid", "UTF-8")


async def test_path_and_body_agree_and_words_match_in_any_case(owner: Caller) -> None:
    refused(await owner.call("PUT", "/devices/pump-7", {"deviceId": "Pump-7"}), 400, "ArgumentInvalid")
    assert (await owner.call("PUT", "/Devices/Pump-7/", {})).json()["deviceId"] == "Pump-7"
    refused(await owner.call("GET", "/devices/pump-7"), 404, "DeviceNotFound")


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        (b"", 400, "IotHubFormatError"),
        (b"[]", 400, "IotHubFormatError"),
        (b"{", 400, "IotHubFormatError"),
        (b'{"a":NaN}', 400, "IotHubFormatError"),
        (b'{"status":"\\ud800"}', 400, "IotHubFormatError"),
        (b"{" + b" " * MAX_BODY + b"}", 413, "MessageTooLarge"),
        (b'{"status":"on"}', 400, "ArgumentInvalid"),
        (b'{"authentication":{"type":"sas","symmetricKey":{"primaryKey":"x"}}}', 400, "ArgumentInvalid"),
        (b'{"deviceScope":"ms-azure-iot-edge://gw-1"}', 400, "InvalidDeviceScope"),
    ],
    ids=["none", "list", "no JSON", "NaN", "surrogate", "too large", "status", "key", "scope"],
)
async def test_bodies_that_are_refused(owner: Caller, body: bytes, status: int, name: str) -> None:
    answer = await owner.call("PUT", "/devices/pump-7", body)
    refused(answer, status, name)
    assert (answer.headers.get("connection") == "close") == (status == 413)


async def test_a_body_of_another_type(owner: Caller) -> None:
    answer = await owner.call("PUT", "/devices/a", {}, {"content-type": "text/xml"})
    refused(answer, 415, "UnsupportedMediaType")
    odd = {"content-type": "Application/JSON; charset=utf-8", "content-encoding": "utf-8"}
    assert (await owner.call("PUT", "/devices/a", {}, odd)).status == 200


async def test_lists(owner: Caller) -> None:
    for number in range(3):
        await owner.call("PUT", f"/devices/d{number}", {})
    for path in ("/devices", "/devices/"):
        ids = [device["deviceId"] for device in (await owner.call("GET", path)).json()]
        assert sorted(ids) == ["d0", "d1", "d2"]
    for top, count in (("2", 2), ("0", 3), ("-1", 3), ("5000", 3)):
        answer = await owner.call("GET", "/devices", query=f"top={top}&api-version=2021-04-12")
        assert len(answer.json()) == count
    for top in ("x", "", "--5", "1.5", "²", "9" * 5000):
        answer = await owner.call("GET", "/devices", query=f"top={top}&api-version=2021-04-12")
        refused(answer, 400, "ArgumentInvalid", "top")


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("-7", -7), ("0", 0), ("", None), ("-", None), ("--7", None), ("٣", None), ("9" * 19, None)],
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole_number(text) == number


async def test_a_length_that_is_no_number_is_not_trusted(owner: Caller) -> None:
    answer = await owner.call("PUT", "/devices/a", {}, {"content-length": "²"})
    assert answer.status == 200


async def test_statistics_count_devices_and_connections(site: Site, owner: Caller) -> None:
    await site.add_device("a")
    await site.add_device("b", status="disabled")
    principal = Principal("a", "1", "device", "sas")
    site.sessions.open(Session(principal, site.time.now(), ClosingLink()))
    counted = await owner.call("GET", "/statistics/devices")
    assert counted.json() == {"totalDeviceCount": 2, "enabledDeviceCount": 1, "disabledDeviceCount": 1}
    assert (await owner.call("GET", "/Statistics/Service")).json() == {"connectedDeviceCount": 1}
    assert (await owner.call("GET", "/devices/a")).json()["connectionState"] == "Connected"


# --- Bulk ---------------------------------------------------------------------------------------------------


async def test_bulk_answers_in_one_shape_whether_done_or_not(owner: Caller) -> None:
    done = await owner.call("POST", "/devices", [{"id": "a", "importMode": "create"}, {"id": "b"}])
    assert (done.status, done.json()) == (200, {"isSuccessful": True, "errors": [], "warnings": []})
    items = [
        {"id": "a", "importMode": "Create"},
        {"id": "c", "importMode": "create"},
        {"id": "c"},
        {"id": "a/b"},
        {"id": "x", "moduleId": "m"},
        {"id": "none", "importMode": "Delete"},
    ]
    failed = await owner.call("POST", "/devices", items)
    assert failed.status == 400
    body = failed.json()
    assert body["isSuccessful"] is False
    assert "Message" not in body
    seen = [(each["deviceId"], each["errorCode"], each["operation"]) for each in body["errors"]]
    assert seen == [
        ("a", 409001, "create"),
        ("c", 400011, "createOrUpdate"),
        ("a/b", 400004, "createOrUpdate"),
        ("x", 404001, "createOrUpdate"),
        ("none", 404001, "delete"),
    ]
    assert (await owner.call("GET", "/devices/c")).status == 200, "items are independent"


@pytest.mark.parametrize("body", [{}, "text", [1], [{"id": f"d{number}"} for number in range(101)]])
async def test_bulk_that_cannot_be_read(owner: Caller, body: Any) -> None:
    answer = await owner.call("POST", "/devices", body)
    assert answer.status == 400
    assert answer.json()["Message"].startswith("ErrorCode:")


# --- Versions, rights, tokens -------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "api-version=", "api-version=latest", "apiversion=2021-04-12"])
async def test_the_api_version_is_required(owner: Caller, query: str) -> None:
    refused(await owner.call("GET", "/devices/a", query=query), 400, "InvalidProtocolVersion")


@pytest.mark.parametrize(
    "query", ["api-version=2018-06-30", "API-Version=2030-01-01", "top=1&api-version=2020-05-31-preview"]
)
async def test_any_date_is_a_version(owner: Caller, query: str) -> None:
    assert (await owner.call("GET", "/devices", query=query)).status == 200


RIGHTS = [
    ("GET", "/devices", "RegistryRead"),
    ("GET", "/devices/a", "RegistryRead"),
    ("GET", "/statistics/devices", "RegistryRead"),
    ("GET", "/devices/a/modules", "RegistryRead"),
    ("GET", "/configurations/c", "RegistryRead"),
    ("PUT", "/devices/a", "RegistryWrite"),
    ("DELETE", "/devices/a", "RegistryWrite"),
    ("POST", "/devices", "RegistryWrite"),
    ("PUT", "/devices/a/modules/m", "RegistryWrite"),
    ("POST", "/devices/keys/regenerate", "RegistryWrite"),
    ("PUT", "/configurations/c", "RegistryWrite"),
    ("POST", "/devices/a/applyConfigurationContent", "RegistryWrite"),
    ("POST", "/jobs/create", "RegistryWrite"),
    ("GET", "/twins/a", "ServiceConnect"),
    ("PATCH", "/twins/a", "ServiceConnect"),
    ("PUT", "/twins/a", "ServiceConnect"),
    ("POST", "/devices/query", "ServiceConnect"),
    ("GET", "/statistics/service", "ServiceConnect"),
    ("DELETE", "/devices/a/commands", "ServiceConnect"),
    ("PUT", "/jobs/v2/j", "ServiceConnect"),
    ("GET", "/digitaltwins/a", "ServiceConnect"),
    ("GET", "/messages/serviceBound/feedback", "ServiceConnect"),
]
HOLDERS = {
    "RegistryRead": {"iothubowner", "registryRead", "registryReadWrite"},
    "RegistryWrite": {"iothubowner", "registryReadWrite"},
    "ServiceConnect": {"iothubowner", "service"},
}


@pytest.mark.parametrize(("method", "path", "right"), RIGHTS, ids=lambda value: value.strip("/"))
async def test_the_right_of_each_operation(
    site: Site, app: HttpAdapter, method: str, path: str, right: str
) -> None:
    for name in site.policies:
        answer = await Caller(app).call(method, path, {} if method == "PUT" else None, token=site.token(name))
        if name in HOLDERS[right]:
            assert answer.status != 401, name
        else:
            refused(answer, 401, "IotHubUnauthorizedAccess", f"'{name}' does not have the right {right}")


async def test_a_refusal_leaves_a_record(site: Site, owner: Caller) -> None:
    good = site.token()
    cases: dict[str, str | None] = {
        "token present": None,
        "token form": "Bearer eyJ0",
        "policy known": make_token("localhost", new_key(), site.seconds + 60, "nobody"),
        "signature": make_token("localhost", new_key(), site.seconds + 60, "iothubowner"),
        "expiry": site.token(lifetime=-300),
        "audience": site.token(resource="elsewhere"),
        "right": site.token("device"),
    }
    for check, token in cases.items():
        before = len(site.refusals())
        refused(await owner.call("GET", "/devices/a", token=token), 401, "IotHubUnauthorizedAccess")
        (decision,) = site.refusals()[before:]
        assert failed_checks(decision) == [check]
        assert (decision.operation, decision.subject) == ("service request", "GET /devices/a")
        assert (decision.tracking_id, decision.address) == (TRACKING_ID, "192.0.2.7")
        assert good.partition("&sig=")[2][:20] not in repr(decision)


async def test_clocks_may_differ_by_minutes(site: Site, owner: Caller) -> None:
    """[hub-service 27.34]"""
    assert (await owner.call("GET", "/devices", token=site.token(lifetime=-299))).status == 200


async def test_a_record_keeps_only_so_much_of_what_a_stranger_writes(site: Site, owner: Caller) -> None:
    await owner.call("GET", "/devices/" + "x" * 50_000, token=None)
    assert len(repr(site.refusal())) < 3000


@pytest.mark.parametrize(
    "resource",
    ["localhost", "LOCALHOST", "localhost:8443", "localhost/devices", "127.0.0.1", "localhost/devices/a"],
)
async def test_a_token_covers_what_lies_below_it(site: Site, app: HttpAdapter, resource: str) -> None:
    await site.add_device("a")
    caller = Caller(app, host="LocalHost:8443", token=site.token(resource=resource))
    assert (await caller.call("GET", "/devices/a")).status == 200
    outside = await caller.call("GET", "/statistics/devices")
    assert outside.status == (401 if "/" in resource else 200)


async def test_a_hub_that_is_not_here(site: Site, app: HttpAdapter) -> None:
    answer = await Caller(app, host="elsewhere", token=site.token()).call("GET", "/devices")
    refused(answer, 401, "IotHubNotFound", "elsewhere")
    assert failed_checks(site.refusal()) == ["hub"]


# --- What is not here ---------------------------------------------------------------------------------------

ABSENT = [
    ("POST", "/Devices/A/ApplyConfigurationContent/", "configurations"),
    ("POST", "/devices/a/applyConfigurationContent", "configurations"),
    ("GET", "/jobs/v2/query", "scheduled jobs"),
    ("PUT", "/jobs/v2/j", "scheduled jobs"),
    ("POST", "/jobs/create", "import and export jobs"),
    ("GET", "/jobs", "import and export jobs"),
    ("GET", "/configurations", "configurations"),
    ("PATCH", "/digitaltwins/a", "digital twins"),
    ("POST", "/digitaltwins/a/commands/c", "digital twins"),
    ("GET", "/messages/serviceBound/filenotifications", "file upload"),
]


@pytest.mark.parametrize(("method", "path", "what"), ABSENT, ids=lambda value: value.strip("/"))
async def test_what_azure_has_and_this_release_has_not(
    owner: Caller, method: str, path: str, what: str
) -> None:
    refused(await owner.call(method, path), 501, "NotImplemented", what)
    refused(await owner.call(method, path, token=None), 401, "IotHubUnauthorizedAccess")


@pytest.mark.parametrize(
    ("method", "path", "subject"),
    [
        ("POST", "/devices/pump-7/messages/events", "pump-7"),
        ("GET", "/devices/pump-7/messages/deviceBound", "pump-7"),
        ("DELETE", "/devices/pump-7/messages/deviceBound/lock-token", "pump-7"),
        ("POST", "/devices/pump-7/files", "pump-7"),
        ("POST", "/devices/pump-7/files/notifications", "pump-7"),
        ("POST", "/devices/pump-7/modules/m/messages/events", "pump-7/m"),
    ],
)
async def test_a_device_over_https_is_refused_in_words(
    site: Site, owner: Caller, method: str, path: str, subject: str
) -> None:
    leaf = certificate("pump-7")
    token = site.device_token("pump-7", new_key())
    answer = await owner.call(method, path, {}, token=token, chain=[leaf.der])
    refused(answer, 501, "NotImplemented", "MQTT")
    decision = site.refusal()
    assert (decision.operation, decision.subject) == ("device request", subject)
    assert decision.proof["chain"][0]["sha256Thumbprint"] == leaf.sha256


async def test_methods_that_a_path_does_not_have(owner: Caller) -> None:
    for method, path, allow in (
        ("PATCH", "/devices/a", "DELETE, GET, PUT"),
        ("DELETE", "/devices", "GET, POST"),
        ("POST", "/statistics/devices", "GET"),
        ("DELETE", "/twins/a", "GET, PATCH, PUT"),
        ("POST", "/devices/a", "DELETE, GET, PUT"),
    ):
        answer = await owner.call(method, path)
        refused(answer, 405, "MethodNotAllowed")
        assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/devices/a/b", "/twins", "/twins/a/b", "/statistics", "/statistics/other"])
async def test_paths_that_azure_does_not_have_either(owner: Caller, path: str) -> None:
    refused(await owner.call("GET", path), 404, "GenericNotFound")


async def test_a_failure_of_ours(
    site: Site, owner: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(device_id: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(site.identities, "get", fail)
    answer = await owner.call("GET", "/devices/a")
    refused(answer, 500, "ServerError")
    assert "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" not in json.dumps(answer.json())
