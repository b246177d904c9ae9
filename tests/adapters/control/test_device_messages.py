"""`messages`: what waits for a device, and sending without AMQP."""

from __future__ import annotations

import base64

import pytest

from moorage.hub.authentication import Authentication
from moorage.hub.cloud_to_device import Ack
from moorage.hub.device_identity import IdentitySettings
from moorage.hub.module_identity import ModuleSettings
from tests.support.asgi import Caller
from tests.support.site import Site

MESSAGES = "/moorage/v1/hubs/hub/devices/pump-7/messages"


@pytest.fixture(autouse=True)
async def pump(site: Site) -> None:
    keys = Authentication.symmetric()
    await site.identities.create(IdentitySettings(device_id="pump-7", authentication=keys))
    module = ModuleSettings(device_id="pump-7", module_id="cam", authentication=keys)
    await site.identities.modules.create(module)


async def test_a_message_whole(site: Site, operator: Caller) -> None:
    sent = {
        "body": base64.b64encode(b"\x00\xff").decode(),
        "messageId": "m-1",
        "correlationId": "c-1",
        "userId": "u-1",
        "contentType": "application/octet-stream",
        "contentEncoding": "utf-8",
        "ack": "Full",
        "expiryTimeUtc": "2027-01-15T09:00:00Z",
        "properties": {"a": "1", "b": None},
    }
    answer = await operator.call("POST", MESSAGES, sent)
    assert answer.status == 201
    seen = answer.json()
    number = seen.pop("sequenceNumber")
    assert seen == {
        **{name: value for name, value in sent.items() if name != "body"},
        "state": "Enqueued",
        "to": "/devices/pump-7/messages/devicebound",
        "ack": "full",
        "enqueuedTimeUtc": "2027-01-15T08:00:00.0000000Z",
        "expiryTimeUtc": "2027-01-15T09:00:00.0000000Z",
        "deliveryCount": 0,
        "size": 2,
    }
    assert (await operator.call("GET", MESSAGES)).json() == [{**seen, "sequenceNumber": number}]
    one = (await operator.call("GET", f"{MESSAGES}/{number}")).json()
    assert one["body"] == sent["body"]
    lock = site.identities.queues.take("pump-7", holder=None)
    assert lock is not None
    assert lock.message.ack is Ack.FULL
    assert [each["state"] for each in (await operator.call("GET", MESSAGES)).json()] == ["Underway"]
    await site.identities.queues.abandon(lock)
    (again,) = (await operator.call("GET", MESSAGES)).json()
    assert (again["state"], again["deliveryCount"]) == ("Enqueued", 1)


async def test_what_has_expired_does_not_wait(site: Site, operator: Caller) -> None:
    await operator.call("POST", MESSAGES, {})
    site.time.advance(3600)
    assert (await operator.call("GET", MESSAGES)).json() == []


async def test_a_modules_messages_are_its_own(operator: Caller) -> None:
    of_module = "/moorage/v1/hubs/hub/devices/pump-7/modules/cam/messages"
    sent = (await operator.call("POST", of_module, {"body": "aGk="})).json()
    assert sent["to"] == "/devices/pump-7/modules/cam/messages/devicebound"
    assert (await operator.call("GET", MESSAGES)).json() == []
    assert len((await operator.call("GET", of_module)).json()) == 1


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"body": "no base64"}, "base64"),
        ({"body": 1}, "body"),
        ({"ack": "maybe"}, "iothub-ack"),
        ({"messageId": 7}, "messageId"),
        ({"contentType": "\ud800"}, "surrogate"),
        ({"properties": []}, None),
        ({"properties": [1]}, "properties"),
        ({"properties": {"a": 1}}, "properties"),
        ({"expiryTimeUtc": "soon"}, "expiryTimeUtc"),
        ({"expiryTimeUtc": "2001-01-01T00:00:00Z"}, "absolute-expiry-time"),
    ],
)
async def test_what_cannot_be_sent(operator: Caller, document: dict[str, object], says: str | None) -> None:
    answer = await operator.call("POST", MESSAGES, document)
    if says is None:
        assert answer.status == 201
        return
    assert answer.status == 400
    assert says in answer.json()["message"]


async def test_too_large_and_too_many(operator: Caller) -> None:
    large = base64.b64encode(bytes(64 * 1024)).decode()
    assert (await operator.call("POST", MESSAGES, {"body": large})).status == 413
    for _ in range(50):
        assert (await operator.call("POST", MESSAGES, {})).status == 201
    full = await operator.call("POST", MESSAGES, {})
    assert (full.status, full.json()["errorCode"]) == (403, 403004)


@pytest.mark.parametrize(
    "path", ["devices/nobody/messages", "devices/pump-7/modules/nobody/messages", "devices/pump-7/messages/1"]
)
async def test_what_is_not_there(operator: Caller, path: str) -> None:
    assert (await operator.call("GET", f"/moorage/v1/hubs/hub/{path}")).status == 404


async def test_without_the_right_nothing_is_shown(site: Site, operator: Caller) -> None:
    token = site.token("registryRead")
    assert (await operator.call("GET", MESSAGES, token=token)).status == 401
