from __future__ import annotations

from typing import Any

import pytest

from moorage.adapters.http import HttpAdapter
from moorage.credentials.sas import make_token, new_key
from moorage.provisioning.provisioner import RegistrationRequest, SasProof
from moorage.provisioning.service import ApiVersion
from tests.support.asgi import Caller
from tests.support.site import HOST, ID_SCOPE, Site

NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
PATH = "/moorage/v1/allocation/simulate"
KEY = new_key()


async def simulate(caller: Caller, **what_if: Any) -> Any:
    answer = await caller.call("POST", PATH, what_if, query="")
    assert answer.status == 200, answer.body
    return answer.json()


@pytest.fixture
async def devices(site: Site) -> list[str]:
    """Five enrolled devices, of which the first two have come."""
    names = [f"pump-{number}" for number in range(5)]
    keys = {"primaryKey": KEY, "secondaryKey": KEY}
    for name in names:
        document = {"registrationId": name, "attestation": {"type": "symmetricKey", "symmetricKey": keys}}
        await site.provisioner.enrollments.put(document, if_match=None, api_version=NEWEST)
    for name in names[:2]:
        token = make_token(f"{ID_SCOPE}/registrations/{name}", KEY, site.seconds + 600, "registration")
        request = RegistrationRequest(id_scope=ID_SCOPE, registration_id=name, api_version=NEWEST)
        await site.provisioner.register(request, SasProof(token))
    return names


async def test_a_summary(dps_operator: Caller, devices: list[str]) -> None:
    told = await simulate(dps_operator, addHubs={"far.example.net": 1000}, removeHubs=[HOST])
    assert told == {
        "devices": 5,
        "hubs": {"far.example.net": {"now": 0, "then": 5}, HOST: {"now": 5, "then": 0}},
        "undecided": {reason: {"now": 0, "then": 0} for reason in ("custom", "disabled", "noHub")},
        "moves": [{"from": HOST, "to": "far.example.net", "count": 2}],
        "continuation": None,
    }


async def test_a_list_in_pages(dps_operator: Caller, devices: list[str]) -> None:
    told = await simulate(dps_operator, devices=True, limit=2)
    listed = told["list"]
    while told["continuation"] is not None:
        told = await simulate(dps_operator, devices=True, limit=2, continuation=told["continuation"])
        assert len(told["list"]) <= 2
        listed += told["list"]
    assert [device["registrationId"] for device in listed] == devices
    assert listed[0] == {
        "registrationId": "pump-0",
        "enrollmentGroupId": None,
        "current": HOST,
        "then": HOST,
        "undecided": None,
        "moves": False,
    }
    assert listed[4]["current"] is None


async def test_no_body_changes_nothing(dps_operator: Caller, devices: list[str]) -> None:
    answer = await dps_operator.call("POST", PATH, query="")
    assert answer.json()["hubs"] == {HOST: {"now": 5, "then": 5}}


@pytest.mark.parametrize(
    ("what_if", "status", "named"),
    [
        ({"allocationPolicy": "custom"}, 400, "allocationPolicy"),
        ({"allocationPolicy": "nearest"}, 400, "allocationPolicy"),
        ({"addHubs": {"far.example.net": 0}}, 400, "addHubs"),
        ({"addHubs": ["far.example.net"]}, 400, "addHubs"),
        ({"addHubs": {"far:443": 1}}, 400, "hostName"),
        ({"weights": {HOST: True}}, 400, "weights"),
        ({"removeHubs": HOST}, 400, "removeHubs"),
        ({"removeHubs": ["far.example.net"]}, 404, "linked hub"),
        ({"addHubs": {HOST: 1}}, 409, "linked hub"),
        ({"limit": 10_001}, 400, "limit"),
        ({"limit": 0}, 400, "limit"),
        ({"continuation": 5}, 400, "continuation"),
        ({"devices": "all"}, 400, "devices"),
        ([], 400, "body"),
    ],
)
async def test_what_cannot_be_simulated(dps_operator: Caller, what_if: Any, status: int, named: str) -> None:
    answer = await dps_operator.call("POST", PATH, what_if, query="")
    assert answer.status == status, answer.body
    assert named in answer.json()["message"]


async def test_a_hub_s_operator_has_no_say(operator: Caller, app: HttpAdapter) -> None:
    assert (await operator.call("POST", PATH, {}, query="")).status == 401
