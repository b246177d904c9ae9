"""`hubs` and `linkedHubs`: making, linking, changing and deleting, as an operator's tool does it."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.adapters.http import HttpAdapter
from tests.adapters.control.test_decisions import refused
from tests.support.asgi import Caller
from tests.support.site import Site

HUBS, LINKED = "/moorage/v1/hubs", "/moorage/v1/linkedHubs"


@pytest.fixture
def caller(dps_operator: Caller) -> Caller:
    return dps_operator


async def made(caller: Caller, **wanted: Any) -> dict[str, Any]:
    answer = await caller.call("POST", HUBS, {"name": "beta", **wanted})
    assert answer.status == 201, answer.body
    body: dict[str, Any] = answer.json()
    assert answer.headers["etag"] == f'"{body["etag"]}"'
    return body


async def test_a_hub_from_its_making_to_its_end(caller: Caller) -> None:
    body = await made(caller, partitionCount=2)
    body.pop("etag")
    assert body == {
        "name": "beta",
        "hostName": "127.0.0.2",
        "hostNames": ["127.0.0.2"],
        "partitionCount": 2,
        "eventHubName": "moorage",
        "linked": False,
        "created": "2027-01-15T08:00:00.0000000Z",
    }
    assert (await caller.call("GET", f"{HUBS}/BETA")).json()["hostName"] == "127.0.0.2"
    listed = (await caller.call("GET", HUBS)).json()
    assert [(hub["name"], hub["linked"]) for hub in listed] == [("hub", True), ("beta", False)]

    assert (await caller.call("DELETE", f"{HUBS}/beta")).status == 204

    refused(await caller.call("GET", f"{HUBS}/beta"), 404, 404000)
    refused(await caller.call("DELETE", f"{HUBS}/beta"), 404, 404000)


async def test_a_hub_linked_at_its_making_goes_only_by_force(caller: Caller) -> None:
    assert (await made(caller, link=True))["linked"] is True
    assert [each["name"] for each in (await caller.call("GET", LINKED)).json()] == ["127.0.0.2", "localhost"]

    refused(await caller.call("DELETE", f"{HUBS}/beta"), 409, 409000)
    assert (await caller.call("DELETE", f"{HUBS}/beta", query="force=true")).status == 204

    assert [each["name"] for each in (await caller.call("GET", LINKED)).json()] == ["localhost"]


async def test_the_first_hub_stays_even_by_force(caller: Caller) -> None:
    refused(await caller.call("DELETE", f"{HUBS}/hub", query="force=true"), 409, 409000)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"name": 7},
        {"name": "x"},
        {"name": "beta", "hostNames": "beta.local"},
        {"name": "beta", "hostNames": [7]},
        {"name": "beta", "hostNames": ["a b"]},
        {"name": "beta", "hostNames": ["localhost"]},
        {"name": "beta", "hostNames": [f"h{n}" for n in range(17)]},
        {"name": "beta", "partitionCount": "4"},
        {"name": "beta", "partitionCount": True},
        {"name": "beta", "partitionCount": 0},
        {"name": "beta", "partitionCount": 33},
        {"name": "beta", "link": "yes"},
    ],
)
async def test_a_hub_that_cannot_be(caller: Caller, wanted: dict[str, Any]) -> None:
    refused(await caller.call("POST", HUBS, wanted), 400, 400000)
    assert len((await caller.call("GET", HUBS)).json()) == 1


async def test_a_name_that_is_taken(caller: Caller) -> None:
    refused(await caller.call("POST", HUBS, {"name": "HUB"}), 409, 409001)


async def test_who_may(site: Site, app: HttpAdapter) -> None:
    for token, sees in (
        (site.dps_token(), 200),
        (site.token("registryRead"), 200),
        (site.token("service"), 401),
    ):
        assert (await Caller(app, token=token).call("GET", HUBS)).status == sees
    for path in (HUBS, LINKED):
        refused(await Caller(app, token=site.token()).call("POST", path, {"name": "beta"}), 401, 401000)
    assert site.refusals()[-1].operation == "operator request"


async def test_linking_changing_and_unlinking(caller: Caller) -> None:
    await made(caller)

    answer = await caller.call("POST", LINKED, {"hub": "Beta", "allocationWeight": 7, "latencyMs": 12})

    assert answer.status == 201
    body = answer.json()
    etag = body.pop("etag")
    assert body == {
        "name": "127.0.0.2",
        "hub": "beta",
        "connectionString": None,
        "location": None,
        "latencyMs": 12,
        "allocationWeight": 7,
        "applyAllocationPolicy": True,
    }
    changed = await caller.call(
        "PATCH",
        f"{LINKED}/127.0.0.2",
        {"applyAllocationPolicy": False, "latencyMs": None, "location": "north"},
    )
    assert changed.json() == {
        **body,
        "applyAllocationPolicy": False,
        "latencyMs": None,
        "location": "north",
        "etag": changed.json()["etag"],
    }
    assert (await caller.call("GET", f"{LINKED}/127.0.0.2")).json() == changed.json()
    for method in ("PATCH", "DELETE"):
        stale = await caller.call(method, f"{LINKED}/127.0.0.2", {}, {"if-match": f'"{etag}"'})
        refused(stale, 412, 412001)
    assert (await caller.call("DELETE", f"{LINKED}/127.0.0.2", headers={"if-match": "*"})).status == 204
    refused(await caller.call("DELETE", f"{LINKED}/127.0.0.2"), 404, 404000)


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ({}, 400, 400000),
        ({"hub": "nobody"}, 404, 404000),
        ({"hub": "hub"}, 409, 409001),
        ({"hub": "beta", "allocationWeight": 0}, 400, 400000),
        ({"hub": "beta", "allocationWeight": 1001}, 400, 400000),
        ({"hub": "beta", "allocationWeight": "3"}, 400, 400000),
        ({"hub": "beta", "latencyMs": -1}, 400, 400000),
        ({"hub": "beta", "latencyMs": True}, 400, 400000),
        ({"hub": "beta", "location": 7}, 400, 400000),
        ({"hub": "beta", "applyAllocationPolicy": 1}, 400, 400000),
    ],
)
async def test_a_link_that_cannot_be(caller: Caller, wanted: dict[str, Any], status: int, code: int) -> None:
    await made(caller)
    refused(await caller.call("POST", LINKED, wanted), status, code)
    assert len((await caller.call("GET", LINKED)).json()) == 1
