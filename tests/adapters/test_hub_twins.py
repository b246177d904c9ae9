"""Twins over REST [hub-service 6]."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from moorage.hub.session import Principal, Session
from moorage.hub.twins import Report
from tests.support.asgi import Answer, Caller
from tests.support.sessions import ClosingLink
from tests.support.site import Site

TWIN = "/twins/pump-7"
KIB = 1024


@pytest.fixture
async def owner(site: Site) -> Caller:
    await site.add_device("pump-7")
    return Caller(site.service_api(), token=site.token())


@pytest.fixture
def link(site: Site, owner: Caller) -> ClosingLink:
    """pump-7 is connected by it."""
    link = ClosingLink()
    site.sessions.open(
        Session(Principal("pump-7", "1", "device", "sas"), site.time.now(), link, "dtmi:com:x;1")
    )
    return link


def refused(answer: Answer, status: int, name: str, *words: str) -> None:
    assert (answer.status, answer.headers["iothub-errorcode"]) == (status, name), answer.body
    for word in words:
        assert word in answer.json()["Message"]


def desired(document: object) -> dict[str, Any]:
    return {"properties": {"desired": document}}


async def test_a_twin_whole(site: Site, owner: Caller, link: ClosingLink) -> None:
    answer = await owner.call("GET", TWIN)
    twin = answer.json()
    assert answer.headers["etag"] == f'"{twin["etag"]}"' == '"AAAAAAAAAAE="'
    assert twin.pop("deviceEtag") == (await owner.call("GET", "/devices/pump-7")).json()["etag"]
    assert twin == {
        "deviceId": "pump-7",
        "etag": "AAAAAAAAAAE=",
        "status": "enabled",
        "statusReason": None,
        "statusUpdateTime": "0001-01-01T00:00:00Z",
        "connectionState": "Connected",
        "lastActivityTime": "2027-01-15T08:00:00.0000000Z",
        "cloudToDeviceMessageCount": 0,
        "authenticationType": "sas",
        "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
        "modelId": "dtmi:com:x;1",
        "version": 2,
        "properties": {
            "desired": {"$metadata": {"$lastUpdated": "0001-01-01T00:00:00Z"}, "$version": 1},
            "reported": {"$metadata": {"$lastUpdated": "0001-01-01T00:00:00Z"}, "$version": 1},
        },
        "capabilities": {"iotEdge": False},
        "parentScopes": [],
    }


async def test_a_patch_merges_and_a_replacement_does_not(
    site: Site, owner: Caller, link: ClosingLink
) -> None:
    patch = {"tags": {"site": "A", "floor": 1}, **desired({"a": {"b": 1, "c": 2}, "d": 3})}
    answer = await owner.call("PATCH", TWIN, patch)
    twin = answer.json()
    assert (answer.status, answer.headers["etag"]) == (200, '"AAAAAAAAAAI="')
    assert (twin["etag"], twin["version"]) == ("AAAAAAAAAAI=", 3)
    assert twin["properties"]["desired"]["$version"] == 2
    site.time.advance(1)
    patch = {"tags": {"floor": None}, **desired({"a": {"b": None}, "d": [1]})}
    twin = (await owner.call("PATCH", TWIN, patch)).json()
    assert twin["tags"] == {"site": "A"}
    old = {"$lastUpdated": "2027-01-15T08:00:00.0000000Z", "$lastUpdatedVersion": 2}
    new = {"$lastUpdated": "2027-01-15T08:00:01.0000000Z", "$lastUpdatedVersion": 3}
    assert twin["properties"]["desired"] == {
        "a": {"c": 2},
        "d": [1],
        "$metadata": {**new, "a": {**new, "c": old}, "d": new},
        "$version": 3,
    }
    newest = {**new, "$lastUpdatedVersion": 4}
    twin = (await owner.call("PUT", TWIN, {"tags": {"x": 1}, **desired({"e": None, "f": 1})})).json()
    assert twin["tags"] == {"x": 1}
    assert twin["properties"]["desired"] == {
        "f": 1,
        "$metadata": {**newest, "f": newest},
        "$version": 4,
    }
    assert twin["version"] == 5
    assert link.desired == [
        ({"a": {"b": 1, "c": 2}, "d": 3}, 2),
        ({"a": {"b": None}, "d": [1]}, 3),
        ({"f": 1}, 4),
    ]


async def test_what_a_request_says_of_other_members_is_passed_over(site: Site, owner: Caller) -> None:
    """Services send back what they read: nothing but tags and desired properties is theirs."""
    before = (await owner.call("PATCH", TWIN, {"tags": {"a": 1}, **desired({"b": 2})})).json()
    before["properties"]["reported"] = {"forged": 1}
    before["status"] = "disabled"
    for method in ("PATCH", "PUT"):
        after = (await owner.call(method, TWIN, before)).json()
        assert (after["tags"], after["status"]) == ({"a": 1}, "enabled")
        assert "forged" not in after["properties"]["reported"]
        assert after["properties"]["desired"]["b"] == 2
    assert after["properties"]["desired"]["$version"] == 4


async def test_tags_alone_leave_the_properties(owner: Caller, link: ClosingLink) -> None:
    twin = (await owner.call("PATCH", TWIN, {"tags": {"site": "A"}})).json()
    assert (twin["version"], twin["properties"]["desired"]["$version"]) == (3, 1)
    twin = (await owner.call("PUT", TWIN, {"tags": {"site": "B"}})).json()
    assert (twin["version"], twin["properties"]["desired"]["$version"]) == (4, 1)
    assert link.desired == []
    twin = (await owner.call("PATCH", TWIN, {"tags": {"site": None}})).json()
    assert "tags" not in twin, "left out once the last one is gone"


async def test_a_replacement_without_properties_empties_them(owner: Caller, link: ClosingLink) -> None:
    await owner.call("PATCH", TWIN, desired({"a": 1}))
    twin = (await owner.call("PUT", TWIN, {})).json()
    assert set(twin["properties"]["desired"]) == {"$metadata", "$version"}
    assert link.desired[-1] == ({}, 3)


async def test_null_clears_desired_properties_and_the_device_is_told(
    owner: Caller, link: ClosingLink
) -> None:
    await owner.call("PATCH", TWIN, desired({"a": 1, "b": {"c": 1}}))
    twin = (await owner.call("PATCH", TWIN, desired(None))).json()
    assert set(twin["properties"]["desired"]) == {"$metadata", "$version"}
    assert link.desired[-1] == ({"a": None, "b": None}, 3)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_condition(site: Site, owner: Caller, method: str) -> None:
    first = (await owner.call("GET", TWIN)).json()["etag"]
    for form in ("*", '"*"', 'W/"*"'):
        answer = await owner.call(method, TWIN, {"tags": {"n": 1}}, {"if-match": form})
        assert answer.status == 200
    answer = await owner.call(method, TWIN, {"tags": {"n": 2}}, {"if-match": f'"{first}"'})
    refused(answer, 412, "PreconditionFailed")
    for form in ("{}", '"{}"', 'W/"{}"'):
        now = (await owner.call("GET", TWIN)).json()
        assert now["tags"] == {"n": 1}
        answer = await owner.call(method, TWIN, {"tags": {"n": 1}}, {"if-match": form.format(now["etag"])})
        assert answer.status == 200, form


async def test_what_the_device_reports_leaves_the_etag(site: Site, owner: Caller) -> None:
    before = (await owner.call("GET", TWIN)).json()
    await site.identities.twins.report("pump-7", [Report({"a": 1})])
    after = (await owner.call("GET", TWIN)).json()
    assert (after["etag"], after["version"]) == (before["etag"], before["version"] + 1)
    assert after["properties"]["reported"]["$version"] == 2
    assert after["properties"]["reported"]["$metadata"] == {
        "$lastUpdated": "2027-01-15T08:00:00.0000000Z",
        "a": {"$lastUpdated": "2027-01-15T08:00:00.0000000Z"},
    }
    answer = await owner.call("PATCH", TWIN, {"tags": {"n": 1}}, {"if-match": f'"{before["etag"]}"'})
    assert answer.status == 200


async def test_twins_of_nobody(owner: Caller) -> None:
    for method in ("GET", "PATCH", "PUT"):
        body: object = None if method == "GET" else {}
        refused(await owner.call(method, "/twins/nobody", body), 404, "DeviceNotFound", "nobody")
        answer = await owner.call(method, "/twins/nobody", body, {"if-match": "*"})
        refused(answer, 404, "DeviceNotFound")


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"tags": []}, "tags"),
        ({"properties": []}, "properties"),
        (desired(3), "properties.desired"),
        (desired({"a": [None]}), "null"),
        (desired({"a.b": 1}), "'.'"),
        (desired({"a b": 1}), "space"),
        (desired({"$a": 1}), "'$'"),
        (desired({"a\x07": 1}), "control"),
        (desired({"k" * 1025: 1}), "1024"),
        (desired({"a": "x" * 4097}), "4096"),
        (desired({"a": 4503599627370496}), "4503599627370495"),
        (desired({f"k{n}": "x" * 4000 for n in range(9)}), "32768"),
        ({"tags": {f"k{n}": "x" * 4000 for n in range(3)}}, "8192"),
    ],
)
async def test_limits(owner: Caller, method: str, document: object, words: str) -> None:
    refused(await owner.call(method, TWIN, document), 400, "ArgumentInvalid", words)
    assert (await owner.call("GET", TWIN)).json()["version"] == 2, "nothing of it was done"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"tags":{"a":NaN}}'])
async def test_a_body_that_is_no_twin(owner: Caller, body: bytes) -> None:
    for method in ("PATCH", "PUT"):
        refused(await owner.call(method, TWIN, body), 400, "IotHubFormatError")


async def test_values_keep_their_form(owner: Caller) -> None:
    """[hub-device 7.2]: texts that look like dates, numbers with and without a point, and up to the limits."""
    values = {
        "date": "2026-01-02T03:04:05.678+01:00",
        "whole": 1,
        "point": 1.0,
        "most": 4503599627370495,
        "least": -4503599627370496,
        "deep": [[{"a": []}], True, "", {}],
        "azureiot*com^dtracing^1": {"sampling": 1.5e3},
    }
    answer = await owner.call("PATCH", TWIN, desired(values))
    section = answer.json()["properties"]["desired"]
    assert {name: section[name] for name in values} == values
    assert b'"whole":1,"point":1.0' in answer.body


async def test_many_at_once_are_all_done(owner: Caller, link: ClosingLink) -> None:
    calls = (owner.call("PATCH", TWIN, desired({f"k{n}": n})) for n in range(30))
    answers = await asyncio.gather(*calls)
    assert sorted(each.json()["properties"]["desired"]["$version"] for each in answers) == list(range(2, 32))
    assert [version for _, version in link.desired] == list(range(2, 32))
    twin = (await owner.call("GET", TWIN)).json()
    assert {name: twin["properties"]["desired"][name] for name in (f"k{n}" for n in range(30))}


async def test_bulk_updates_tell_the_device_too(owner: Caller, link: ClosingLink) -> None:
    item = {"id": "pump-7", "importMode": "updateTwin", **desired({"a": 1})}
    assert (await owner.call("POST", "/devices", [item])).status == 200
    assert link.desired == [({"a": 1}, 2)]
    item |= {"importMode": "updateTwinIfMatchETag", "twinETag": "AAAAAAAAAAE="}
    answer = await owner.call("POST", "/devices", [item])
    assert answer.status == 400
    assert json.loads(answer.body)["errors"][0]["errorCode"] == 412001
