"""Module identities, their twins, and new keys through the whole ASGI application."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.adapters.http import HttpAdapter
from moorage.hub.session import Principal, Session
from tests.support.asgi import Answer, Caller
from tests.support.sessions import ClosingLink
from tests.support.site import Site

LOGGER = "/devices/pump-7/modules/logger"


@pytest.fixture
def app(site: Site) -> HttpAdapter:
    return site.service_api()


@pytest.fixture
async def owner(site: Site, app: HttpAdapter) -> Caller:
    await site.add_device("pump-7")
    return Caller(app, token=site.token())


def refused(answer: Answer, status: int, name: str, *words: str) -> None:
    assert (answer.status, answer.headers["iothub-errorcode"]) == (status, name), answer.body
    message = answer.json()["Message"]
    assert message.startswith(f"ErrorCode:{name};")
    for word in words:
        assert word in message


async def test_create_read_update_delete(owner: Caller) -> None:
    created = await owner.call("PUT", LOGGER, {"moduleId": "logger", "deviceId": "pump-7", "managedBy": "me"})
    assert created.status == 201
    module = created.json()
    assert created.headers["etag"] == f'"{module["etag"]}"'
    assert set(module) == {
        "moduleId",
        "managedBy",
        "deviceId",
        "generationId",
        "etag",
        "connectionState",
        "connectionStateUpdatedTime",
        "lastActivityTime",
        "cloudToDeviceMessageCount",
        "authentication",
    }
    shown = await owner.call("GET", LOGGER)
    assert (shown.status, shown.json()) == (200, module)
    assert shown.headers["etag"] == created.headers["etag"]
    assert (await owner.call("GET", "/devices/pump-7/modules")).json() == [module]
    condition = {"if-match": f'"{module["etag"]}"'}
    updated = await owner.call("PUT", LOGGER, module | {"managedBy": ""}, condition)
    assert (updated.status, updated.json()["managedBy"]) == (200, "")
    assert updated.json()["authentication"] == module["authentication"]
    refused(await owner.call("PUT", LOGGER, module, condition), 412, "PreconditionFailed")
    refused(await owner.call("DELETE", LOGGER, None, condition), 412, "PreconditionFailed")
    refused(await owner.call("PUT", LOGGER, {}), 409, "ModuleAlreadyExistsOnDevice", "pump-7/logger")
    assert (await owner.call("PUT", LOGGER, {}, {"if-match": '"*"'})).status == 200
    gone = await owner.call("DELETE", LOGGER, None, {"if-match": '"*"'})
    assert (gone.status, gone.body) == (204, b"")
    for method in ("GET", "DELETE"):
        refused(await owner.call(method, LOGGER), 404, "ModuleNotFound", "pump-7/logger")
    refused(await owner.call("PUT", LOGGER, {}, {"if-match": "*"}), 404, "ModuleNotFound")
    assert (await owner.call("GET", "/devices/pump-7/modules/")).json() == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_module_of_no_device(owner: Caller, method: str) -> None:
    refused(await owner.call(method, "/devices/nobody/modules/m", {}), 404, "DeviceNotFound")


@pytest.mark.parametrize(
    ("path", "body", "status", "name"),
    [
        (LOGGER, {"moduleId": "Logger"}, 400, "ArgumentInvalid"),
        (LOGGER, {"deviceId": "pump-8"}, 400, "ArgumentInvalid"),
        (LOGGER, {"managedBy": 7}, 400, "ArgumentInvalid"),
        (LOGGER, {"authentication": {"type": "magic"}}, 400, "ArgumentInvalid"),
        (LOGGER, b"[]", 400, "IotHubFormatError"),
        ("/devices/pump-7/modules/a%20b", {}, 400, "ArgumentInvalid"),
        ("/devices/pump-7/modules/$edgeHub", {}, 401, "SystemModuleModifyUnauthorizedAccess"),
    ],
)
async def test_what_is_refused(owner: Caller, path: str, body: Any, status: int, name: str) -> None:
    refused(await owner.call("PUT", path, body), status, name)


async def test_ids_are_decoded_once(owner: Caller) -> None:
    created = await owner.call("PUT", "/devices/pump-7/modules/m%2B1%2541%23x", {})
    assert created.json()["moduleId"] == "m+1%41#x"


async def test_the_fifty_first_module(owner: Caller) -> None:
    items = [{"id": "pump-7", "moduleId": f"m{number}", "importMode": "create"} for number in range(50)]
    assert (await owner.call("POST", "/devices", items)).status == 200
    refused(await owner.call("PUT", LOGGER, {}), 413, "TooManyModulesOnDevice", "50")
    more = await owner.call("POST", "/devices", [{"id": "pump-7", "moduleId": "x", "importMode": "create"}])
    assert more.json()["errors"][0]["errorCode"] == 413003
    assert len((await owner.call("GET", "/devices/pump-7/modules")).json()) == 50


async def test_a_module_twin_has_an_etag_of_its_own(owner: Caller) -> None:
    module = (await owner.call("PUT", LOGGER, {})).json()
    answer = await owner.call("GET", "/twins/pump-7/modules/logger")
    twin = answer.json()
    assert answer.headers["etag"] == f'"{twin["etag"]}"'
    assert (twin["deviceId"], twin["moduleId"], twin["deviceEtag"]) == ("pump-7", "logger", module["etag"])
    assert twin["status"] == "enabled"
    refused(await owner.call("GET", "/twins/pump-7/modules/none"), 404, "ModuleNotFound")
    refused(await owner.call("GET", "/twins/nobody/modules/none"), 404, "DeviceNotFound")


async def test_an_edge_device_shows_its_modules_and_a_leaf_its_parent(owner: Caller) -> None:
    gateway = (await owner.call("PUT", "/devices/gw-1", {"capabilities": {"iotEdge": True}})).json()
    assert gateway["deviceScope"].startswith("ms-azure-iot-edge://gw-1-")
    modules = (await owner.call("GET", "/devices/gw-1/modules")).json()
    assert [module["moduleId"] for module in modules] == ["$edgeAgent", "$edgeHub"]
    refused(
        await owner.call("DELETE", "/devices/gw-1/modules/$edgeAgent"),
        401,
        "SystemModuleModifyUnauthorizedAccess",
    )
    leaf = (await owner.call("PUT", "/devices/leaf", {"deviceScope": gateway["deviceScope"]})).json()
    assert leaf["deviceScope"] == gateway["deviceScope"]
    assert leaf["parentScopes"] == [gateway["deviceScope"]]


async def test_a_module_that_is_connected_shows_it(site: Site, owner: Caller) -> None:
    await owner.call("PUT", LOGGER, {})
    principal = Principal("pump-7", "1", "module", "sas", module_id="logger")
    site.sessions.open(Session(principal, site.time.now(), ClosingLink()))
    assert (await owner.call("GET", LOGGER)).json()["connectionState"] == "Connected"
    assert (await owner.call("GET", "/devices/pump-7")).json()["connectionState"] == "Disconnected"
    assert (await owner.call("GET", "/twins/pump-7/modules/logger")).json()["connectionState"] == "Connected"


async def test_new_keys_for_many(owner: Caller) -> None:
    """200 for all, 207 for some, 400 for none [hub-service 5.6]."""
    await owner.call("PUT", LOGGER, {})
    await owner.call("PUT", "/devices/x5", {"authentication": {"type": "certificateAuthority"}})

    async def renew(policy_key: str, *devices: dict[str, str]) -> Answer:
        body = {"policyKey": policy_key, "devices": list(devices)}
        return await owner.call("POST", "/devices/keys/regenerate", body, query="api-version=2024-03-31")

    pump, logger, x5 = {"id": "pump-7"}, {"id": "pump-7", "moduleId": "logger"}, {"id": "x5"}
    done = await renew("primaryKey", pump, logger)
    assert done.status == 200
    keys = [
        (await owner.call("GET", path)).json()["authentication"]["symmetricKey"]
        for path in ("/devices/pump-7", LOGGER)
    ]
    assert done.json() == {
        "policyKey": "primaryKey",
        "errors": [],
        "rotatedKeys": [
            {"id": "pump-7", "moduleId": None, "primaryKey": keys[0]["primaryKey"], "secondaryKey": ""},
            {"id": "pump-7", "moduleId": "logger", "primaryKey": keys[1]["primaryKey"], "secondaryKey": ""},
        ],
    }
    some = await renew("both", pump, x5)
    assert (some.status, len(some.json()["rotatedKeys"])) == (207, 1)
    error = some.json()["errors"][0]
    assert (error["id"], error["moduleId"], error["errorCode"]) == ("x5", None, "InvalidOperation")
    none = await renew("secondaryKey", x5, {"id": "nobody"})
    assert (none.status, none.json()["rotatedKeys"]) == (400, [])
    assert [each["errorCode"] for each in none.json()["errors"]] == ["InvalidOperation", "DeviceNotFound"]
    refused(await renew("third", pump), 400, "InvalidPolicyKey")
    refused(await renew("both"), 400, "ArgumentInvalid", "devices")
