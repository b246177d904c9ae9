"""The hub's registry by Microsoft's `azure-iothub` for Node, class `Registry`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from moorage.credentials.sas import new_key
from tests.support.node_worker import BackEnd, NodeError, NodeWorker
from tests.support.services import with_key

# Its REST calls know no port but 443.
pytestmark = [pytest.mark.clients, pytest.mark.node, pytest.mark.port443]

BAD_ETAG = "badetag"


@pytest.fixture
def registry(worker: NodeWorker, env: Mapping[str, str]) -> BackEnd:
    return BackEnd(worker, "registry", env["IOTHUB_CONNECTION_STRING"])


def refusal_of(registry: BackEnd, method: str, *args: Any) -> str | None:
    """The client's name for a refusal, which goes by the status: a module that exists already is a device to it."""
    with pytest.raises(NodeError) as raised:
        registry(method, *args)
    return raised.value.name


# --- Device identities -----------------------------------------------------------------------------------


def test_a_device_from_its_creation_to_its_end(registry: BackEnd, device_id: str) -> None:
    made = registry("create", {"deviceId": device_id, "status": "disabled", "statusReason": "on the shelf"})
    assert (made["status"], made["statusReason"]) == ("disabled", "on the shelf")
    assert registry("get", device_id) == made
    assert refusal_of(registry, "create", {"deviceId": device_id}) == "DeviceAlreadyExistsError"

    keys = {"primaryKey": new_key(), "secondaryKey": new_key()}
    authentication = {"type": "sas", "symmetricKey": keys}
    changed = registry("update", {**made, "status": "enabled", "authentication": authentication})
    assert (changed["status"], changed["authentication"]["symmetricKey"]) == ("enabled", keys)
    assert changed["generationId"] == made["generationId"]
    assert changed in registry("list")

    registry("delete", device_id)
    assert refusal_of(registry, "get", device_id) == "DeviceNotFoundError"
    assert refusal_of(registry, "delete", device_id) == "DeviceNotFoundError"
    assert refusal_of(registry, "update", {"deviceId": device_id}) == "DeviceNotFoundError"


def test_every_kind_of_proof(registry: BackEnd, device_id: str) -> None:
    thumbprint = {"primaryThumbprint": "0a" * 20, "secondaryThumbprint": "0b" * 32}

    def made(name: str, authentication: dict[str, Any]) -> dict[str, Any]:
        created = registry("create", {"deviceId": f"{device_id}-{name}", "authentication": authentication})
        kept: dict[str, Any] = created["authentication"]
        return kept

    # Without a type: the client finds it by what there is.
    assert made("found", {"x509Thumbprint": thumbprint})["type"] == "selfSigned"
    assert made("signed", {"type": "certificateAuthority"})["type"] == "certificateAuthority"
    assert made("sas", {"type": "sas"})["symmetricKey"]["primaryKey"]
    assert made("key", {"symmetricKey": {"primaryKey": "", "secondaryKey": ""}})["symmetricKey"]["primaryKey"]
    assert (
        refusal_of(
            registry,
            "create",
            {"deviceId": f"{device_id}-bad", "authentication": {"symmetricKey": {"primaryKey": "no key"}}},
        )
        == "ArgumentError"
    )


def test_keys_are_made_anew(registry: BackEnd, device_id: str) -> None:
    """An update with an empty key asks for a new one."""
    made = registry("create", {"deviceId": device_id})
    old = made["authentication"]["symmetricKey"]

    made["authentication"]["symmetricKey"] = {**old, "primaryKey": ""}
    new = registry("update", made)["authentication"]["symmetricKey"]

    assert new["primaryKey"] not in ("", old["primaryKey"])
    assert new["secondaryKey"] == old["secondaryKey"]


def test_many_devices_at_once(registry: BackEnd, device_id: str) -> None:
    names = [f"{device_id}-{number}" for number in range(3)]
    devices = [{"deviceId": name, "status": "disabled"} for name in names]

    assert registry("addDevices", devices[:2])["isSuccessful"] is True
    assert errors_of(registry, "addDevices", devices[1:]) == [names[1]]
    assert {registry("get", name)["status"] for name in names} == {"disabled"}

    enabled = [{**device, "status": "enabled", "etag": BAD_ETAG} for device in devices]
    assert errors_of(registry, "updateDevices", enabled, False) == names
    assert registry("updateDevices", enabled, True)["isSuccessful"] is True
    assert {registry("get", name)["status"] for name in names} == {"enabled"}

    assert (
        errors_of(registry, "removeDevices", [{"deviceId": names[0], "etag": BAD_ETAG}], False) == names[:1]
    )
    assert registry("removeDevices", devices, True)["isSuccessful"] is True
    assert refusal_of(registry, "get", names[0]) == "DeviceNotFoundError"


def errors_of(registry: BackEnd, method: str, *args: Any) -> list[str]:
    """The devices that a bulk request of some failures names: it comes with status 400, and the client raises."""
    with pytest.raises(NodeError) as raised:
        registry(method, *args)
    assert raised.value.status == 400
    assert raised.value.body is not None
    result = json.loads(raised.value.body)
    assert result["isSuccessful"] is False
    return [error["deviceId"] for error in result["errors"]]


def test_statistics(registry: BackEnd, device_id: str) -> None:
    before = registry("getRegistryStatistics")

    registry("addDevices", [{"deviceId": device_id}, {"deviceId": f"{device_id}-2", "status": "disabled"}])

    after = registry("getRegistryStatistics")
    assert {name: after[name] - before[name] for name in before} == {
        "totalDeviceCount": 2,
        "enabledDeviceCount": 1,
        "disabledDeviceCount": 1,
    }


# --- Queries ---------------------------------------------------------------------------------------------


def test_twins_are_queried_in_pages(registry: BackEnd, device_id: str) -> None:
    names = [f"{device_id}-{number}" for number in range(5)]
    registry("addDevices", [{"deviceId": name} for name in names])
    for name in names:
        registry("updateTwin", name, {"tags": {"of": device_id}}, "*")

    which = f"FROM devices WHERE tags.of = '{device_id}'"
    pages = registry.pages("createQuery", f"SELECT * {which}", 2)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(twin["deviceId"] for page in pages for twin in page) == names
    assert pages[0][0]["tags"] == {"of": device_id}
    assert registry.pages("createQuery", f"SELECT deviceId AS id {which} AND deviceId = '{names[3]}'") == [
        [{"id": names[3]}]
    ]
    assert registry.pages("createQuery", f"SELECT COUNT() AS total {which}") == [[{"total": 5}]]
    assert refusal_of_query(registry, "SELECT FROM devices") == ("ArgumentError", 400)


def refusal_of_query(registry: BackEnd, query: str) -> tuple[str | None, int | None]:
    with pytest.raises(NodeError) as raised:
        registry.pages("createQuery", query)
    return raised.value.name, raised.value.status


# --- Modules ---------------------------------------------------------------------------------------------


def test_a_module_from_its_creation_to_its_end(registry: BackEnd, device_id: str) -> None:
    module = {"deviceId": device_id, "moduleId": "camera"}
    assert refusal_of(registry, "addModule", module) == "DeviceNotFoundError"
    registry("create", {"deviceId": device_id})

    made = registry("addModule", module)
    assert made["authentication"]["symmetricKey"]["primaryKey"]
    registry("addModule", {**module, "moduleId": "lamp"})
    assert registry("getModule", device_id, "camera") == made
    assert sorted(m["moduleId"] for m in registry("getModulesOnDevice", device_id)) == ["camera", "lamp"]
    assert refusal_of(registry, "addModule", module) == "DeviceAlreadyExistsError"

    changed = registry("updateModule", {**made, "managedBy": "an operator"})
    assert changed["managedBy"] == "an operator"
    assert refusal_of(registry, "updateModule", {**made, "etag": BAD_ETAG}) == "InvalidEtagError"
    registry("updateModule", {**made, "etag": BAD_ETAG}, True)
    assert refusal_of(registry, "removeModule", {**made, "etag": BAD_ETAG}) == "InvalidEtagError"

    registry("removeModule", registry("getModule", device_id, "camera"))
    assert (
        refusal_of(registry, "getModule", device_id, "camera") == "Error"
    )  # it knows no more than "Not found"


# --- Refusals --------------------------------------------------------------------------------------------


def test_who_may_not(worker: NodeWorker, env: Mapping[str, str], device_id: str) -> None:
    impostor = BackEnd(worker, "registry", with_key(env["IOTHUB_CONNECTION_STRING"], new_key()))

    for method, *args in (("get", device_id), ("list",), ("create", {"deviceId": device_id})):
        assert refusal_of(impostor, method, *args) == "UnauthorizedError"
