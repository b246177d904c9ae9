"""A module's twin and methods: as those of a device, and apart from them [hub-device 7, 9; hub-service 6, 9]."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from moorage.credentials.sas import make_token
from moorage.wire.mqtt.packets import ConnAck, PubAck, Publish
from tests.support.asgi import Caller
from tests.support.hub_peer import DESIRED, METHODS, TWIN_RESPONSES, Arrive, connected, subscribe
from tests.support.mqtt_peer import MqttPeer, connect, publish
from tests.support.site import HOST, Site

CAMERA = "/twins/pump-7/modules/camera"


@pytest.fixture
async def owner(site: Site) -> Caller:
    return Caller(site.service_api(), token=site.token())


@pytest.fixture
async def device(site: Site, arrive: Arrive) -> MqttPeer:
    """pump-7, which listens to everything about itself."""
    peer = await connected(site, arrive, "pump-7", await site.add_device("pump-7"))
    await subscribe(peer, TWIN_RESPONSES, DESIRED, METHODS)
    return peer


@pytest.fixture
async def camera(site: Site, arrive: Arrive, device: MqttPeer) -> MqttPeer:
    """Its module, which does the same."""
    key = await site.add_module("pump-7", "camera")
    token = make_token(f"{HOST}/devices/pump-7/modules/camera", key, site.seconds + 60)
    peer = arrive()
    user_name = f"{HOST}/pump-7/camera/?api-version=2021-04-12"
    peer.send(connect("pump-7/camera", token, username=user_name))
    assert (await peer.expect(ConnAck)).code == 0
    await subscribe(peer, TWIN_RESPONSES, DESIRED, METHODS)
    return peer


def desired(document: object) -> dict[str, Any]:
    return {"properties": {"desired": document}}


async def test_a_twin_of_its_own(site: Site, owner: Caller, device: MqttPeer, camera: MqttPeer) -> None:
    twin = (await owner.call("PATCH", CAMERA, {"tags": {"lens": 50}, **desired({"zoom": 2})})).json()
    assert (twin["deviceId"], twin["moduleId"], twin["connectionState"]) == ("pump-7", "camera", "Connected")
    told = await camera.expect(Publish)
    assert told.topic == "$iothub/twin/PATCH/properties/desired/?$version=2"
    assert json.loads(told.payload) == {"zoom": 2, "$version": 2}
    camera.send(publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"zoom":2}', 4))
    assert await camera.expect(PubAck) == PubAck(4)
    assert (await camera.expect(Publish)).topic == "$iothub/twin/res/204/?$rid=1&$version=2"
    camera.send(publish("$iothub/twin/GET/?$rid=2", b""))
    document = json.loads((await camera.expect(Publish)).payload)
    assert document == {"desired": {"zoom": 2, "$version": 2}, "reported": {"zoom": 2, "$version": 2}}
    shown = await owner.call("GET", CAMERA)
    twin = shown.json()
    assert shown.headers["etag"] == f'"{twin["etag"]}"' == '"AAAAAAAAAAI="'
    assert (twin["version"], twin["tags"], twin["properties"]["reported"]["zoom"]) == (4, {"lens": 50}, 2)
    assert (await owner.call("GET", "/twins/pump-7")).json()["version"] == 2
    await owner.call("PUT", "/twins/pump-7", desired({"period": 1}))
    assert json.loads((await device.expect(Publish)).payload) == {"period": 1, "$version": 2}
    assert camera.received == []


async def test_replacing_under_a_condition(owner: Caller, camera: MqttPeer) -> None:
    answer = await owner.call("PUT", CAMERA, desired({"a": 1}), {"if-match": '"AAAAAAAAAAI="'})
    assert (answer.status, answer.headers["iothub-errorcode"]) == (412, "PreconditionFailed")
    answer = await owner.call("PUT", CAMERA, desired({"a": 1}), {"if-match": '"AAAAAAAAAAE="'})
    assert (answer.status, answer.headers["etag"]) == (200, '"AAAAAAAAAAI="')
    assert json.loads((await camera.expect(Publish)).payload) == {"a": 1, "$version": 2}


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT"])
async def test_who_is_missing(owner: Caller, camera: MqttPeer, method: str) -> None:
    body: object = None if method == "GET" else {}
    answer = await owner.call(method, "/twins/pump-7/modules/nobody", body)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (404, "ModuleNotFound")
    answer = await owner.call(method, "/twins/nobody/modules/camera", body)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (404, "DeviceNotFound")


async def test_bulk_updates(owner: Caller, camera: MqttPeer) -> None:
    item = {"id": "pump-7", "moduleId": "camera", "importMode": "updateTwin", **desired({"a": 1})}
    assert (await owner.call("POST", "/devices", [item])).status == 200
    assert json.loads((await camera.expect(Publish)).payload) == {"a": 1, "$version": 2}


async def test_methods_of_its_own(owner: Caller, device: MqttPeer, camera: MqttPeer) -> None:
    call = asyncio.create_task(
        owner.call("POST", f"{CAMERA}/methods", {"methodName": "snap", "payload": [1]})
    )
    message = await camera.expect(Publish)
    topic, _, rid = message.topic.partition("?$rid=")
    assert (topic, message.payload) == ("$iothub/methods/POST/snap/", b"[1]")
    device.send(publish(f"$iothub/methods/res/200/?$rid={rid}", b'"not yours"', 3))
    assert await device.expect(PubAck) == PubAck(3)
    camera.send(publish(f"$iothub/methods/res/201/?$rid={rid}", b'"done"'))
    assert (await call).json() == {"status": 201, "payload": "done"}


async def test_a_module_that_is_away(owner: Caller, camera: MqttPeer) -> None:
    camera.stream.lose()
    await camera.ended()
    answer = await owner.call("POST", f"{CAMERA}/methods", {"methodName": "snap"})
    assert json.loads(answer.json()["Message"])["errorCode"] == 404103
    answer = await owner.call("POST", "/twins/pump-7/modules/nobody/methods", {"methodName": "snap"})
    assert json.loads(answer.json()["Message"])["errorCode"] == 404010
