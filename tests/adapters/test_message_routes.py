"""Cloud-to-device messages over REST: purge, counts and feedback."""

from __future__ import annotations

import json
import uuid

import pytest

from moorage.hub.cloud_to_device import Ack, Content
from moorage.hub.feedback import KIND
from tests.support.asgi import Caller
from tests.support.site import HUB_SCOPE, Site

FEEDBACK = "/messages/serviceBound/feedback"


@pytest.fixture
async def owner(site: Site) -> Caller:
    """Of a hub with a device pump-7."""
    await site.add_device("pump-7")
    return Caller(site.service_api(), token=site.token("service"))


async def send(site: Site, count: int) -> None:
    content = Content(to="/devices/pump-7/messages/devicebound", body=b"x", ack=Ack.FULL, message_id="m")
    for _ in range(count):
        await site.identities.queues.send("pump-7", None, content)


async def test_purge_says_how_many(site: Site, owner: Caller) -> None:
    """JSON in a 200, unlike all other deletes [hub-service 27.35]."""
    await send(site, 2)
    for count in (2, 0):
        answer = await owner.call("DELETE", "/devices/pump-7/commands")
        assert (answer.status, answer.json()) == (
            200,
            {"totalMessagesPurged": count, "deviceId": "pump-7", "moduleId": None},
        )
    missing = await owner.call("DELETE", "/devices/pump-8/commands")
    assert (missing.status, missing.headers["iothub-errorcode"]) == (404, "DeviceNotFound")


async def test_identity_and_twin_count_what_waits(site: Site, owner: Caller) -> None:
    await send(site, 2)
    registry = site.token()
    identity = await owner.call("GET", "/devices/pump-7", token=registry)
    listed = await owner.call("GET", "/devices", token=registry)
    twin = await owner.call("GET", "/twins/pump-7")
    for document in (identity.json(), listed.json()[0], twin.json()):
        assert document["cloudToDeviceMessageCount"] == 2


async def test_purge_takes_the_right_to_send(site: Site, owner: Caller) -> None:
    answer = await owner.call("DELETE", "/devices/pump-7/commands", token=site.token("registryReadWrite"))
    assert answer.status == 401


async def test_feedback_is_received_completed_and_abandoned(site: Site, owner: Caller) -> None:
    assert (await owner.call("GET", FEEDBACK)).status == 204
    await send(site, 2)
    await site.identities.queues.purge("pump-7")
    assert (await owner.call("GET", FEEDBACK)).status == 204, "a batch is ready after 15 seconds"
    site.time.advance(15)
    first = await owner.call("GET", FEEDBACK)
    assert first.status == 200
    assert first.headers["content-type"] == "application/vnd.microsoft.iothub.feedback.json"
    assert [record["statusCode"] for record in json.loads(first.body)] == ["Purged", "Purged"]
    assert (await owner.call("GET", FEEDBACK)).status == 204, "it is locked"
    etag = first.headers["etag"]
    lock = str(uuid.UUID(etag.strip('"')))
    assert etag == f'"{lock}"', "a GUID in quotes, as devices get theirs [hub-device 5.3]"
    assert (await owner.call("POST", f"{FEEDBACK}/{lock}/abandon")).status == 204
    second = await owner.call("GET", FEEDBACK)
    assert second.body == first.body
    newer = second.headers["etag"].strip('"')
    lost = await owner.call("DELETE", f"{FEEDBACK}/{lock}")
    assert (lost.status, lost.headers["iothub-errorcode"]) == (412, "DeviceMessageLockLost")
    assert (await owner.call("DELETE", f"{FEEDBACK}/{newer}")).status == 204
    assert await site.store.records(KIND, HUB_SCOPE).count() == 0


@pytest.mark.parametrize("lock", ["", "x", "ab" * 16])
async def test_a_lock_that_nobody_has(owner: Caller, lock: str) -> None:
    answer = await owner.call("POST", f"{FEEDBACK}/{lock or '%22%22'}/abandon")
    assert (answer.status, answer.headers["iothub-errorcode"]) == (412, "DeviceMessageLockLost")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/messages/devicebound"),
        ("GET", "/messages/serviceBound/filenotifications"),
        ("DELETE", "/messages/serviceBound/filenotifications/1"),
    ],
)
async def test_what_is_not_there_is_refused(owner: Caller, method: str, path: str) -> None:
    answer = await owner.call(method, path)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (501, "NotImplemented")
