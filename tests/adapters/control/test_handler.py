"""The control API's one way in: finding the route, judging the token, wording the error."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorage.adapters.control.gate import Gate
from moorage.adapters.control.handler import ControlHttp
from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import HttpAdapter, Response, json_response
from moorage.credentials import policy
from moorage.credentials.policy import ENROLLMENT_WRITE, REGISTRY_WRITE, SERVICE_CONFIG
from moorage.credentials.sas import make_token, new_key
from moorage.hub.instance import Hub
from tests.support.asgi import TRACKING_ID, Answer, Caller
from tests.support.site import DPS_SCOPE, HUB_SCOPE, Site, failed_checks

OTHER_SCOPE = 7


class Echo:
    """Routes of each sort; each answers with what it was called with."""

    def __init__(self) -> None:
        dps, hub = Needs(dps=(SERVICE_CONFIG, ENROLLMENT_WRITE)), Needs(hub=(REGISTRY_WRITE,))
        self.routes = (
            Route("GET", "things/{thing}", dps, self._echo),
            Route("GET", "things/fixed", dps, self._echo),
            Route("PUT", "things/{thing}", dps, self._echo),
            Route("GET", "hubs/{hub}/things", hub, self._echo),
            Route("GET", "anyHub", hub, self._echo),
        )

    async def _echo(self, call: Call) -> Response:
        return json_response(
            {
                "path": call.request.path,
                "named": dict(call.named),
                "caller": call.caller.name,
                "hub": call.hub.name if call.hub else None,
                "body": call.request.json() if call.request.body else None,
            }
        )


@pytest.fixture
async def app(site: Site) -> HttpAdapter:
    """With a second hub, whose owner policy has the same name and other keys."""
    (owner, *_) = policy.hub_policies()
    await site.store.records(policy.KIND, OTHER_SCOPE).put(owner)
    other = Hub(
        scope=OTHER_SCOPE,
        name="Second",
        host_names=("second.example",),
        advertised_host="second.example",
        created=0,
    )
    gate = Gate(
        store=site.store,
        clock=site.time,
        decisions=site.decisions,
        service=lambda: site.provisioner.service,
        hubs=lambda: (site.hub, other),
    )
    control = ControlHttp(gate, site.time, Echo())
    return HttpAdapter(control, otherwise=control)


async def other_owner(site: Site, resource: str = "second.example") -> str:
    found = await site.store.records(policy.KIND, OTHER_SCOPE).get("iothubowner")
    assert found is not None
    return make_token(resource, found.primary_key, site.seconds + 60, found.name)


def refused(answer: Answer, status: int, code: int) -> None:
    assert answer.status == status, answer.body
    body = answer.json()
    assert body["errorCode"] == code
    assert body["trackingId"] == answer.headers["x-ms-request-id"] == TRACKING_ID
    assert body["message"]


async def test_fixed_words_match_in_any_case_and_before_placeholders(
    site: Site, dps_operator: Caller
) -> None:
    for path, named in (
        ("/moorage/v1/things/A%2Fb", {"thing": "A/b"}),
        ("/Moorage/V1/THINGS/a", {"thing": "a"}),
        ("/moorage/v1/things/Fixed/", {}),
    ):
        answer = await dps_operator.call("GET", path)
        assert (answer.status, answer.json()["named"]) == (200, named)
        assert answer.json()["caller"] == "provisioningserviceowner"
        assert answer.headers["x-ms-request-id"] == TRACKING_ID


async def test_paths_and_methods_that_are_not_there(dps_operator: Caller) -> None:
    for path in ("/moorage/v1", "/moorage/v1/other", "/moorage/v1/things", "/moorage/v1/things/a/b"):
        refused(await dps_operator.call("GET", path), 404, 404000)
    answer = await dps_operator.call("DELETE", "/moorage/v1/things/a")
    refused(answer, 405, 405000)
    assert answer.headers["allow"] == "GET, PUT"
    answer = await dps_operator.call("POST", "/moorage/v1/openapi.json")
    refused(answer, 405, 405000)
    assert answer.headers["allow"] == "GET"


async def test_the_description_is_open_to_all(app: HttpAdapter) -> None:
    answer = await Caller(app).call("GET", "/moorage/v1/openapi.json")
    assert "/moorage/v1/decisions" in answer.json()["paths"]


async def test_all_the_rights_named_are_needed(site: Site, dps_operator: Caller) -> None:
    records = site.store.records(policy.KIND, DPS_SCOPE)
    part = replace(site.dps_owner, name="part", rights=frozenset({SERVICE_CONFIG}))
    await records.put(part)
    token = make_token("localhost", part.primary_key, site.seconds + 60, "part")
    answer = await dps_operator.call("GET", "/moorage/v1/things/a", token=token)
    refused(answer, 401, 401000)
    assert "'part' does not have the right EnrollmentWrite" in answer.json()["message"]


async def test_a_hub_is_administered_by_its_own_policies(site: Site, app: HttpAdapter) -> None:
    first, second = site.token(), await other_owner(site)
    for hub, token, status in (
        ("hub", first, 200),
        ("HUB", first, 200),
        ("second", first, 401),
        ("second", second, 200),
        ("hub", second, 401),
        ("hub", site.dps_token(), 401),
    ):
        answer = await Caller(app, token=token).call("GET", f"/moorage/v1/hubs/{hub}/things")
        assert answer.status == status, (hub, answer.body)
        if status == 200:
            assert answer.json()["hub"].lower() == hub.lower()
    refused(await Caller(app, token=first).call("GET", "/moorage/v1/hubs/third/things"), 404, 404000)


async def test_where_no_hub_is_named_a_policy_of_any_will_do(site: Site, app: HttpAdapter) -> None:
    for token in (site.token(), await other_owner(site)):
        answer = await Caller(app, token=token).call("GET", "/moorage/v1/anyHub")
        assert (answer.status, answer.json()["hub"]) == (200, None)


async def test_a_refusal_tells_of_the_policy_that_was_most_likely_meant(site: Site, app: HttpAdapter) -> None:
    cases = {
        "token present": None,
        "right": site.token("registryRead"),
        "signature": make_token("localhost", new_key(), site.seconds + 60, "service"),
        "expiry": site.token(lifetime=-300),
        "policy known": make_token("localhost", new_key(), site.seconds + 60, "nobody"),
        "audience": await other_owner(site, "elsewhere"),
    }
    for check, token in cases.items():
        before = len(site.refusals())
        refused(await Caller(app, token=token).call("GET", "/moorage/v1/anyHub"), 401, 401000)
        (decision,) = site.refusals()[before:]
        assert failed_checks(decision) == [check]
        assert (decision.operation, decision.subject) == ("operator request", "GET /moorage/v1/anyHub")
        assert decision.scope == (OTHER_SCOPE if check == "audience" else HUB_SCOPE)


async def test_bodies_have_a_limit(dps_operator: Caller) -> None:
    answer = await dps_operator.call("PUT", "/moorage/v1/things/a", {"x": "y" * 65_000})
    assert answer.status == 200
    answer = await dps_operator.call("PUT", "/moorage/v1/things/a", {"x": "y" * 1_100_000})
    refused(answer, 413, 413000)
    refused(await dps_operator.call("PUT", "/moorage/v1/things/a", b"{"), 400, 400000)
