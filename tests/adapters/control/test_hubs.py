"""`hubs` and `linkedHubs`: making, linking, changing and deleting, as an operator's tool does it."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.adapters.http import HttpAdapter
from moorage.credentials.decision import Finding
from moorage.errors import Unauthorized
from tests.adapters.control.test_decisions import refused
from tests.support.asgi import Caller
from tests.support.site import Site

HUBS, LINKED = "/moorage/v1/hubs", "/moorage/v1/linkedHubs"
DEFAULTS = {
    "cloudToDevice": {
        "defaultTtlAsIso8601": "PT1H",
        "maxDeliveryCount": 10,
        "feedback": {
            "lockDurationAsIso8601": "PT1M",
            "ttlAsIso8601": "PT1H",
            "maxDeliveryCount": 10,
        },
    },
    "disableLocalAuth": False,
    "disableDeviceSAS": False,
    "disableModuleSAS": False,
}


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
        **DEFAULTS,
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


async def test_settings_of_a_hub(site: Site, caller: Caller, operator: Caller) -> None:
    """By an operator of the provisioning service, or by one of the hub."""
    before = (await caller.call("GET", f"{HUBS}/hub")).json()
    assert {name: before[name] for name in DEFAULTS} == DEFAULTS
    wanted = {"cloudToDevice": {"maxDeliveryCount": 3, "feedback": {"ttlAsIso8601": "PT10M"}}}
    changed = await caller.call("PATCH", f"{HUBS}/hub", wanted, {"if-match": f'"{before["etag"]}"'})
    assert changed.status == 200
    assert changed.headers["etag"] == f'"{changed.json()["etag"]}"' != before["etag"]
    settings = site.hub.cloud_to_device
    assert (settings.max_delivery_count, settings.feedback_ttl, settings.default_ttl) == (3, 600, 3600)
    refused(await caller.call("PATCH", f"{HUBS}/hub", {}, {"if-match": before["etag"]}), 412, 412001)

    switched = await operator.call("PATCH", f"{HUBS}/hub", {"disableDeviceSAS": True})
    assert switched.json() == changed.json() | {"disableDeviceSAS": True, "etag": switched.json()["etag"]}
    key = await site.add_device("pump-7")
    token = site.device_token("pump-7", key)
    with pytest.raises(Unauthorized):
        await site.identities.authenticate("pump-7", password=token, finding=Finding())

    refused(await operator.call("PATCH", f"{HUBS}/hub", {"partitionCount": 2}), 400, 400000)
    refused(await operator.call("PATCH", f"{HUBS}/hub", {"disableLocalAuth": True}), 501, 501000)
    for name in ("service", "registryReadWrite"):
        answer = await operator.call("PATCH", f"{HUBS}/hub", {}, token=site.token(name))
        refused(answer, 401, 401000)


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
