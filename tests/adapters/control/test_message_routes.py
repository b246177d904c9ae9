"""`hubs/{hub}/routes` and `hubs/{hub}/fallbackRoute`: what readers of the built-in endpoint get."""

from __future__ import annotations

import pytest

from moorage.adapters.http import HttpAdapter
from moorage.hub.message_route import Source
from tests.support.asgi import Caller
from tests.support.site import Site

HUB = "/moorage/v1/hubs/hub"
ROUTES = f"{HUB}/routes"
TWINS = {
    "name": "twins",
    "source": "TwinChangeEvents",
    "condition": "true",
    "endpointNames": ["events"],
    "isEnabled": True,
}


async def test_a_route_from_its_making_to_its_end(site: Site, operator: Caller) -> None:
    assert (await operator.call("GET", ROUTES)).json() == []
    answer = await operator.call("PUT", f"{ROUTES}/twins", {"source": "twinChangeEvents"})
    assert (answer.status, answer.json()) == (201, TWINS)
    assert Source.TWIN_CHANGE in site.hub.takes
    assert (await operator.call("GET", f"{ROUTES}/TWINS")).json() == TWINS
    answer = await operator.call("PUT", f"{ROUTES}/twins", TWINS | {"isEnabled": False})
    assert (answer.status, answer.json()["isEnabled"]) == (200, False)
    assert Source.TWIN_CHANGE not in site.hub.takes
    assert (await operator.call("GET", ROUTES)).json() == [TWINS | {"isEnabled": False}]
    assert (await operator.call("DELETE", f"{ROUTES}/Twins")).status == 204
    for method in ("GET", "DELETE"):
        answer = await operator.call(method, f"{ROUTES}/twins")
        assert (answer.status, answer.json()["errorCode"]) == (404, 404000)


async def test_the_fallback_route_is_there_and_can_be_switched_off(site: Site, operator: Caller) -> None:
    for enabled in (True, False, True):
        if enabled != site.hub.fallback_route:
            await operator.call("PUT", f"{HUB}/fallbackRoute", {"isEnabled": enabled})
        answer = (await operator.call("GET", f"{HUB}/fallbackRoute")).json()
        assert (answer["name"], answer["source"], answer["isEnabled"]) == (
            "$fallback",
            "DeviceMessages",
            enabled,
        )
        assert site.hub.takes_telemetry is enabled


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"source": "DeviceMessages", "endpointNames": ["storage"]}, 501),
        ({"source": "DeviceMessages", "condition": "x = 1"}, 501),
        ({"source": "DigitalTwinChangeEvents"}, 501),
        ({"source": "nothing"}, 400),
        ({}, 400),
    ],
)
async def test_what_cannot_be(operator: Caller, document: dict[str, object], status: int) -> None:
    assert (await operator.call("PUT", f"{ROUTES}/a", document)).status == status
    assert (await operator.call("GET", ROUTES)).json() == []


async def test_no_more_than_a_hundred(operator: Caller) -> None:
    for number in range(100):
        answer = await operator.call("PUT", f"{ROUTES}/r{number}", {"source": "DeviceMessages"})
        assert answer.status == 201
    assert (await operator.call("PUT", f"{ROUTES}/more", {"source": "DeviceMessages"})).status == 400


async def test_who_may(site: Site, app: HttpAdapter) -> None:
    for policy, method, path, status in (
        ("service", "GET", ROUTES, 200),
        ("service", "GET", f"{HUB}/fallbackRoute", 200),
        ("service", "PUT", f"{ROUTES}/x", 401),
        ("registryReadWrite", "PUT", f"{HUB}/fallbackRoute", 401),
        ("iothubowner", "PUT", f"{HUB}/fallbackRoute", 200),
    ):
        caller = Caller(app, token=site.token(policy))
        body = {"source": "DeviceMessages"} if method == "PUT" else None
        assert (await caller.call(method, path, body)).status == status, (policy, method, path)
