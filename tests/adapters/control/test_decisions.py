"""`decisions`: why a device was refused, for those who may write."""

from __future__ import annotations

import pytest

from moorage.adapters.http import HttpAdapter
from moorage.credentials import policy
from moorage.credentials.decision import Finding
from moorage.credentials.policy import SharedAccessPolicy
from moorage.credentials.sas import make_token, new_key
from moorage.errors import Unauthorized
from tests.support.asgi import TRACKING_ID, Answer, Caller
from tests.support.site import DPS_SCOPE, HOST, HUB_SCOPE, Site, certificate


def judge(site: Site, subject: str, *, known: bool = True, why: str = "") -> None:
    """Leave a decision, a second after the one before."""
    site.time.advance(1)
    finding = Finding(
        "connect", subject, scope=HUB_SCOPE, tracking_id="ab" * 16, door="mqtt", address="192.0.2.9"
    )
    finding.known = known
    finding.consider(f"device identity {subject}")
    finding.present_chain([certificate(subject).der])
    finding.hold("kind of proof")
    error = Unauthorized(why, check="thumbprint", remedy="Register it.")
    site.decisions.add(finding.refused(site.time.now(), error) if why else finding.accepted(site.time.now()))


def refused(answer: Answer, status: int, code: int) -> None:
    assert answer.status == status, answer.body
    body = answer.json()
    assert body["errorCode"] == code
    assert body["trackingId"] == answer.headers["x-ms-request-id"] == TRACKING_ID
    assert body["message"]


async def test_a_decision_whole(site: Site, operator: Caller) -> None:
    judge(site, "pump-7", why="it is not registered")
    (decision,) = (await operator.call("GET", "/moorage/v1/decisions/pump-7", query="")).json()
    (proof,) = decision.pop("proof")["chain"]
    assert proof["subject"] == "CN=pump-7"
    assert decision == {
        "time": "2027-01-15T08:00:01.0000000Z",
        "trackingId": "ab" * 16,
        "operation": "connect",
        "subject": "pump-7",
        "known": True,
        "accepted": False,
        "error": "it is not registered",
        "door": "mqtt",
        "address": "192.0.2.9",
        "considered": ["device identity pump-7"],
        "checks": [
            {"name": "kind of proof", "held": True, "detail": ""},
            {"name": "thumbprint", "held": False, "detail": "it is not registered"},
        ],
        "exchange": None,
        "remedy": "Register it.",
    }


async def test_of_one_the_oldest_first_of_all_the_newest(site: Site, operator: Caller) -> None:
    for subject, known in (("a", True), ("b", True), ("a", False), ("a", True)):
        judge(site, subject, known=known)
    own = (await operator.call("GET", "/moorage/v1/decisions/a")).json()
    assert [each["time"][17:19] for each in own] == ["01", "03", "04"]
    latest = (await operator.call("GET", "/Moorage/V1/decisions/")).json()
    assert [each["time"][17:19] for each in latest] == ["04", "03", "02", "01"]
    newest = (await operator.call("GET", "/moorage/v1/decisions/a", query="top=2")).json()
    assert [each["time"][17:19] for each in newest] == ["03", "04"]
    assert (await operator.call("GET", "/moorage/v1/decisions/nobody")).json() == []


async def test_subjects_with_escapes(site: Site, operator: Caller) -> None:
    judge(site, "gw/module")
    assert len((await operator.call("GET", "/moorage/v1/decisions/gw%2Fmodule")).json()) == 1


@pytest.mark.parametrize("top", ["0", "-1", "1001", "x", "", "²", "9" * 5000])
async def test_how_many_is_a_number(operator: Caller, top: str) -> None:
    refused(await operator.call("GET", "/moorage/v1/decisions", query=f"top={top}"), 400, 400000)


async def test_the_write_right_of_either_service(site: Site, app: HttpAdapter) -> None:
    for token, may in (
        (site.dps_token(), True),
        (site.token("registryReadWrite"), True),
        (site.token("registryRead"), False),
        (site.token("service"), False),
    ):
        answer = await Caller(app, token=token).call("GET", "/moorage/v1/decisions")
        assert answer.status == (200 if may else 401)


async def test_the_description_has_every_member(site: Site, operator: Caller) -> None:
    judge(site, "a", why="no")
    (decision,) = (await operator.call("GET", "/moorage/v1/decisions")).json()
    described = (await operator.call("GET", "/moorage/v1/openapi.json")).json()["components"]["schemas"]
    assert set(decision) == set(described["decision"]["properties"])


async def test_only_those_that_are_wanted(site: Site, operator: Caller) -> None:
    judge(site, "a")
    judge(site, "a", why="no")
    judge(site, "b", why="no")
    site.decisions.add(Finding("register", "b", scope=HUB_SCOPE).accepted(site.time.now()))

    async def subjects(query: str, path: str = "") -> list[tuple[str, bool]]:
        found = (await operator.call("GET", f"/moorage/v1/decisions{path}", query=query)).json()
        return [(each["subject"], each["accepted"]) for each in found]

    assert await subjects("refused=true") == [("b", False), ("a", False)]
    assert await subjects("refused=true&top=1") == [("b", False)]
    assert await subjects("subject=a") == [("a", False), ("a", True)]
    assert await subjects("operation=REGISTER") == [("b", True)]
    assert await subjects("operation=connect&subject=b") == [("b", False)]
    assert await subjects("refused=TRUE", "/a") == [("a", False)]
    assert await subjects("operation=register", "/b") == [("b", True)]
    refused(await operator.call("GET", "/moorage/v1/decisions", query="refused=maybe"), 400, 400000)


async def test_what_concerns_whom(site: Site, app: HttpAdapter) -> None:
    """A hub's policy sees its hub, the provisioning service's owner everything, and all what concerns nobody."""
    of_enrollments = await add_policy(site, DPS_SCOPE, "enrolls", "EnrollmentWrite")
    for subject, scope in (("of-dps", DPS_SCOPE), ("of-hub", HUB_SCOPE), ("of-other", 77), ("nobodys", 0)):
        site.decisions.add(Finding("connect", subject, scope=scope).accepted(site.time.now()))
    for token, seen in (
        (site.dps_token(), ["nobodys", "of-other", "of-hub", "of-dps"]),
        (of_enrollments, ["nobodys", "of-dps"]),
        (site.token(), ["nobodys", "of-hub"]),
    ):
        caller = Caller(app, token=token)
        latest = (await caller.call("GET", "/moorage/v1/decisions")).json()
        assert [each["subject"] for each in latest] == seen
        since = await caller.call("GET", "/moorage/v1/decisions", query="since=00000000-1")
        assert [each["subject"] for each in since.json()] == seen[::-1]
        for subject in ("of-dps", "of-hub", "of-other", "nobodys"):
            found = (await caller.call("GET", f"/moorage/v1/decisions/{subject}")).json()
            assert len(found) == (1 if subject in seen else 0)


async def add_policy(site: Site, scope: int, name: str, *rights: str) -> str:
    """A token of a policy that is made for it."""
    made = SharedAccessPolicy(
        name=name, primary_key=new_key(), secondary_key=new_key(), rights=frozenset(rights)
    )
    await site.store.records(policy.KIND, scope).put(made)
    return make_token(HOST, made.primary_key, site.seconds + 60, name)


async def test_what_came_since_the_last_look(site: Site, operator: Caller) -> None:
    async def look(query: str) -> tuple[list[str], Answer]:
        answer = await operator.call("GET", "/moorage/v1/decisions", query=query)
        return [each["subject"] for each in answer.json()], answer

    judge(site, "a")
    _, answer = await look("top=1")
    place = answer.headers["x-ms-continuation"]
    found, answer = await look(f"since={place}")
    assert (found, answer.headers["x-ms-continuation"]) == ([], place)

    for number in range(5):
        judge(site, f"d{number}", why="" if number % 2 else "no")
    found, answer = await look(f"since={place}&refused=true&top=2")
    assert found == ["d0", "d2"]
    found, answer = await look(f"since={answer.headers['x-ms-continuation']}")
    assert found == ["d3", "d4"]
    assert "moorage-missed" not in answer.headers

    for number in range(1002):
        judge(site, f"e{number}")
    found, answer = await look(f"since={answer.headers['x-ms-continuation']}&top=1")
    assert found == ["e2"]
    assert answer.headers["moorage-missed"] == "2"


async def test_a_place_of_an_earlier_run_stands_before_everything(site: Site, operator: Caller) -> None:
    judge(site, "a")
    answer = await operator.call("GET", "/moorage/v1/decisions", query="since=00000000-12345")
    assert [each["subject"] for each in answer.json()] == ["a"]
    own = answer.headers["x-ms-continuation"].replace("-1", "-999999")
    assert (await operator.call("GET", "/moorage/v1/decisions", query=f"since={own}")).json() == []
    for place in ("", "7", "00000000-", "00000000--1", "0000000g-1"):
        refused(await operator.call("GET", "/moorage/v1/decisions", query=f"since={place}"), 400, 400000)


async def test_by_the_tracking_id_that_a_device_was_told(site: Site, operator: Caller) -> None:
    judge(site, "a", why="it is not registered")
    for query, count in (
        (f"trackingId={'ab' * 16}", 1),
        (f"trackingId={'AB' * 16}", 1),
        ("trackingId=ab", 0),
    ):
        assert len((await operator.call("GET", "/moorage/v1/decisions", query=query)).json()) == count
        assert len((await operator.call("GET", "/moorage/v1/decisions/a", query=query)).json()) == count
