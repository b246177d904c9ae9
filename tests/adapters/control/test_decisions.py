"""`decisions`: why a device was refused, for those who may write."""

from __future__ import annotations

import pytest

from moorage.adapters.http import HttpAdapter
from moorage.credentials.decision import Finding
from moorage.errors import Unauthorized
from tests.support.asgi import TRACKING_ID, Answer, Caller
from tests.support.site import HUB_SCOPE, Site, certificate


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
