"""`timeline`: when devices and modules connected, and why their connections ended."""

from __future__ import annotations

import pytest

from moorage.adapters.http import HttpAdapter
from moorage.hub.session import Cause, Ending, Principal, Session
from moorage.interfaces import Peer
from tests.support.asgi import Caller
from tests.support.sessions import ClosingLink
from tests.support.site import Site

HUB = "/moorage/v1/hubs/hub"


def come_and_go(site: Site, device_id: str, module_id: str | None = None) -> None:
    """A connection of two seconds."""
    principal = Principal(device_id, "1", "device", "sas", module_id=module_id)
    peer = Peer("192.0.2.7", "mqtt")
    session = Session(principal, site.time.now(), ClosingLink(), tracking_id="ab" * 16, peer=peer)
    site.sessions.open(session)
    site.time.advance(2)
    site.sessions.close(session, Ending(Cause.NETWORK_LOST, "closed by peer"))


async def test_a_connection_whole(site: Site, operator: Caller) -> None:
    come_and_go(site, "pump-7")
    began, ended = (await operator.call("GET", f"{HUB}/devices/pump-7/timeline")).json()
    common = {
        "deviceId": "pump-7",
        "moduleId": None,
        "trackingId": "ab" * 16,
        "door": "mqtt",
        "address": "192.0.2.7",
    }
    assert began == common | {
        "time": "2027-01-15T08:00:00.0000000Z",
        "state": "Connected",
        "cause": None,
        "detail": "",
        "seconds": None,
    }
    assert ended == common | {
        "time": "2027-01-15T08:00:02.0000000Z",
        "state": "Disconnected",
        "cause": "networkLost",
        "detail": "closed by peer",
        "seconds": 2,
    }


async def test_modules_have_timelines_of_their_own(site: Site, operator: Caller) -> None:
    come_and_go(site, "pump-7", "camera")
    assert (await operator.call("GET", f"{HUB}/devices/pump-7/timeline")).json() == []
    found = (
        await operator.call("GET", f"{HUB}/devices/pump-7/modules/camera/timeline", query="top=1")
    ).json()
    assert [(each["moduleId"], each["state"]) for each in found] == [("camera", "Disconnected")]


async def test_of_the_hub_the_newest_first_and_what_comes_after_a_place(site: Site, operator: Caller) -> None:
    come_and_go(site, "a")
    answer = await operator.call("GET", f"{HUB}/timeline")
    assert [each["state"] for each in answer.json()] == ["Disconnected", "Connected"]
    come_and_go(site, "b")
    place = answer.headers["x-ms-continuation"]
    more = await operator.call("GET", f"{HUB}/timeline", query=f"since={place}&top=1")
    assert [(each["deviceId"], each["state"]) for each in more.json()] == [("b", "Connected")]
    place = more.headers["x-ms-continuation"]
    rest = await operator.call("GET", f"{HUB}/timeline", query=f"since={place}")
    assert [(each["deviceId"], each["state"]) for each in rest.json()] == [("b", "Disconnected")]
    assert (await operator.call("GET", f"{HUB}/timeline", query="since=x")).status == 400


async def test_a_hub_does_not_tell_of_another(site: Site, operator: Caller) -> None:
    other = await site.hubs.create("other", host_names=["other.test"])
    principal = Principal("pump-7", "1", "device", "sas")
    sessions = site.hubs.by_scope[other.scope].sessions
    sessions.open(Session(principal, site.time.now(), ClosingLink()))
    assert (await operator.call("GET", f"{HUB}/timeline")).json() == []
    assert (await operator.call("GET", f"{HUB}/timeline", query="since=00000000-0")).json() == []


@pytest.mark.parametrize(
    ("policy", "status"), [("registryRead", 200), ("iothubowner", 200), ("service", 401), ("device", 401)]
)
async def test_the_right_to_read_the_registry(site: Site, app: HttpAdapter, policy: str, status: int) -> None:
    caller = Caller(app, token=site.token(policy))
    assert (await caller.call("GET", f"{HUB}/devices/pump-7/timeline")).status == status
