"""`service`: what an operator sees and sets of the provisioning service as a whole."""

from __future__ import annotations

import pytest

from moorage.adapters.http import HttpAdapter
from tests.support.asgi import Caller
from tests.support.site import HOST, ID_SCOPE, Site

SERVICE = "/moorage/v1/service"


async def test_the_service_whole(dps_operator: Caller) -> None:
    answer = await dps_operator.call("GET", SERVICE)
    shown = answer.json()
    assert answer.headers["etag"] == f'"{shown.pop("etag")}"'
    assert shown == {
        "idScope": ID_SCOPE,
        "deviceProvisioningHostName": HOST,
        "serviceOperationsHostName": HOST,
        "allocationPolicy": "hashed",
        "created": "2027-01-15T08:00:00.0000000Z",
    }


async def test_the_policy_is_changed_for_the_next_registration(site: Site, dps_operator: Caller) -> None:
    before = (await dps_operator.call("GET", SERVICE)).json()
    answer = await dps_operator.call("PATCH", SERVICE, {"allocationPolicy": "GeoLatency"})
    changed = answer.json()
    assert (answer.status, changed["allocationPolicy"]) == (200, "geoLatency")
    assert changed == before | {"allocationPolicy": "geoLatency", "etag": changed["etag"]}
    assert changed["etag"] != before["etag"]
    assert await site.provisioner._default_policy() == "geoLatency"
    assert (await dps_operator.call("PATCH", SERVICE, {})).json()["allocationPolicy"] == "geoLatency"


async def test_an_etag_that_is_not_the_current_one(dps_operator: Caller) -> None:
    etag = (await dps_operator.call("GET", SERVICE)).headers["etag"]
    body = {"allocationPolicy": "static"}
    first = await dps_operator.call("PATCH", SERVICE, body, {"if-match": etag})
    assert first.status == 200
    second = await dps_operator.call("PATCH", SERVICE, body, {"if-match": etag})
    assert (second.status, second.json()["errorCode"]) == (412, 412001)
    assert (await dps_operator.call("PATCH", SERVICE, body, {"if-match": "*"})).status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"allocationPolicy": "custom"}, "allocationPolicy"),
        ({"allocationPolicy": "nearest"}, "allocationPolicy"),
        ({"allocationPolicy": 7}, "allocationPolicy"),
        ({"idScope": "0ne00000000"}, "idScope"),
        ([], "body"),
    ],
)
async def test_what_cannot_be_set(dps_operator: Caller, body: object, field: str) -> None:
    answer = await dps_operator.call("PATCH", SERVICE, body)
    assert answer.status == 400
    assert answer.json()["message"].startswith(f"{field}: ")


async def test_a_hubs_policy_has_no_say(site: Site, app: HttpAdapter) -> None:
    for method in ("GET", "PATCH"):
        answer = await Caller(app, token=site.token()).call(method, SERVICE, {})
        assert answer.status == 401
