"""The verbs on module identities [hub-service 5.1, 5.4, 5.5]."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moorage.errors import Conflict, MoorageError, NotFound, PreconditionFailed, TooMany
from moorage.hub import module_identity, twin
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import DeviceIdentity, read_settings
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.module_identity import MAX_MODULES, ModuleIdentity, read_module_settings
from moorage.hub.modules import SYSTEM_MODULES, SystemModule
from moorage.hub.session import Principal, Session, Sessions
from moorage.hub.twin import InitialTwin
from moorage.interfaces import Clock, Kind, Store
from tests.support.sessions import ClosingLink

Both = tuple[DeviceIdentity | ModuleIdentity, DeviceIdentity | ModuleIdentity]
KINDS: tuple[Kind[Any], ...] = (module_identity.KIND, twin.MODULE_KIND)


@pytest.fixture
async def device(identities: Identities) -> str:
    await identities.create(read_settings("pump-7", {}))
    return "pump-7"


async def create(
    identities: Identities, module_id: str, device_id: str = "pump-7", **members: Any
) -> ModuleIdentity:
    return await identities.modules.create(read_module_settings(device_id, module_id, members))


def connect(sessions: Sessions, device_id: str, module_id: str | None = None) -> ClosingLink:
    link = ClosingLink()
    principal = Principal(device_id, "1", "device", "sas", module_id=module_id)
    sessions.open(Session(principal, 1, link))
    return link


async def ids(identities: Identities, device_id: str = "pump-7") -> list[str]:
    return [module.module_id for module in await identities.modules.of_device(device_id)]


async def test_a_module_is_made_with_keys_and_a_twin(identities: Identities, device: str) -> None:
    settings = read_module_settings(device, "logger", {"managedBy": "me"})
    made = await identities.modules.create(settings, InitialTwin(tags={"a": 1}, desired={"b": 2}))
    assert await identities.modules.get(device, "logger") == made
    assert (made.name, made.managed_by, made.authentication.type) == ("pump-7/logger", "me", "sas")
    own = await identities.twin(device, "logger")
    assert (own.module_id, own.tags, own.desired.values) == ("logger", {"a": 1}, {"b": 2})
    assert made.generation_id != (await identities.get(device)).generation_id
    assert (await identities.twin(device)).tags == {}


async def test_a_module_exists_once_a_device(identities: Identities, device: str) -> None:
    await identities.create(read_settings("pump-8", {}))
    await create(identities, "logger")
    await create(identities, "logger", "pump-8")
    with pytest.raises(Conflict) as refused:
        await create(identities, "logger")
    assert (refused.value.kind, refused.value.key) == ("module", "pump-7/logger")
    assert [await ids(identities, each) for each in (device, "pump-8")] == [["logger"], ["logger"]]
    assert [each.device_id for each in await identities.list()] == ["pump-7", "pump-8"]


async def test_a_module_wants_a_device(identities: Identities) -> None:
    async def refused(call: Any) -> tuple[str, str]:
        with pytest.raises(NotFound) as caught:
            await call
        return caught.value.kind, caught.value.key

    modules = identities.modules
    assert await refused(create(identities, "m", "nobody")) == ("device", "nobody")
    assert await refused(modules.get("nobody", "m")) == ("device", "nobody")
    assert await refused(modules.of_device("nobody")) == ("device", "nobody")
    assert await refused(modules.delete("nobody", "m")) == ("device", "nobody")
    await identities.create(read_settings("d", {}))
    assert await refused(modules.get("d", "m")) == ("module", "d/m")
    assert await refused(modules.delete("d", "m")) == ("module", "d/m")
    assert await refused(modules.update(read_module_settings("d", "m", {}))) == ("module", "d/m")
    assert await refused(identities.twin("d", "m")) == ("module", "d/m")


async def test_an_update_replaces_all_that_a_caller_decides(identities: Identities, device: str) -> None:
    made = await create(identities, "m", managedBy="me")
    thumbprints = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "ab" * 32}}
    settings = read_module_settings(device, "m", {"authentication": thumbprints})
    changed = await identities.modules.update(settings, made.etag)
    assert (changed.managed_by, changed.authentication.type) == ("", "selfSigned")
    assert changed.generation_id == made.generation_id
    assert changed.etag != made.etag
    with pytest.raises(PreconditionFailed):
        await identities.modules.update(settings, made.etag)
    assert await identities.modules.get(device, "m") == changed
    await identities.modules.update(settings, "*")


async def test_a_module_goes_with_its_twin_and_its_connection(
    identities: Identities, sessions: Sessions, device: str
) -> None:
    made = await create(identities, "m")
    module, own = connect(sessions, device, "m"), connect(sessions, device)
    with pytest.raises(PreconditionFailed):
        await identities.modules.delete(device, "m", "bm9uZQ==")
    await identities.modules.delete(device, "m", made.etag)
    assert (module.reasons, own.reasons) == (["the module was deleted"], [])
    with pytest.raises(NotFound):
        await identities.twin(device, "m")
    again = await create(identities, "m")
    assert again.generation_id != made.generation_id
    assert (await identities.twin(device, "m")).version == 2
    assert sessions.presence("pump-7/m").changed_at is None


async def test_a_device_goes_with_all_its_modules(
    identities: Identities, sessions: Sessions, store: Store, hub: Hub, device: str
) -> None:
    await identities.create(read_settings("pump-70", {}))
    for module_id in ("a", "b"):
        await create(identities, module_id)
    await create(identities, "a", "pump-70")
    links = [connect(sessions, device, "a"), connect(sessions, device, "b"), connect(sessions, device)]
    other = connect(sessions, "pump-70", "a")
    await identities.delete(device)
    assert [link.reasons for link in links] == [["the device was deleted"]] * 3
    assert other.reasons == []
    for kind in KINDS:
        assert await store.records(kind, hub.scope).count() == 1
    await identities.create(read_settings(device, {}))
    assert await ids(identities) == []
    assert sessions.presence("pump-7/a").changed_at is None


async def test_a_disabled_device_loses_the_connections_of_its_modules(
    identities: Identities, sessions: Sessions, device: str
) -> None:
    await create(identities, "a")
    link = connect(sessions, device, "a")
    await identities.update(read_settings(device, {"status": "disabled"}))
    assert link.reasons == ["the device was disabled"]


async def test_a_device_has_fifty_modules_at_the_most_whoever_comes_at_once(
    identities: Identities, device: str
) -> None:
    async def one(number: int) -> bool:
        try:
            await create(identities, f"m{number}")
        except TooMany:
            return False
        return True

    made = await asyncio.gather(*map(one, range(MAX_MODULES + 10)))
    assert sum(made) == MAX_MODULES == len(await ids(identities))
    taken = [number for number, done in enumerate(made) if done]
    await identities.modules.delete(device, f"m{taken[0]}")
    assert await one(1000)


async def test_no_module_is_left_of_a_device_that_goes_while_they_are_made(
    identities: Identities, store: Store, hub: Hub, device: str
) -> None:
    for number in range(5):
        await create(identities, f"m{number}")
    results = await asyncio.gather(
        identities.delete(device), *(create(identities, f"m{n}") for n in range(5, 9)), return_exceptions=True
    )
    assert all(result is None or isinstance(result, ModuleIdentity | NotFound) for result in results)
    for kind in KINDS:
        assert await store.records(kind, hub.scope).count() == 0


# --- IoT Edge ----------------------------------------------------------------------------------------------

EDGE = {"capabilities": {"iotEdge": True}}


async def test_an_edge_device_has_the_modules_of_the_runtime(identities: Identities) -> None:
    await identities.create(read_settings("gw", EDGE))
    for module in await identities.modules.of_device("gw"):
        assert (module.managed_by, module.authentication) == ("iotEdge", Authentication("none"))
        assert (await identities.twin("gw", module.module_id)).version == 2
    assert await ids(identities, "gw") == sorted(SYSTEM_MODULES)


async def test_they_come_and_go_with_the_capability(
    identities: Identities, sessions: Sessions, device: str
) -> None:
    await identities.update(read_settings(device, EDGE))
    assert await ids(identities) == sorted(SYSTEM_MODULES)
    await create(identities, "own")
    before = await identities.modules.of_device(device)
    await identities.update(read_settings(device, EDGE | {"status": "disabled"}))
    assert await identities.modules.of_device(device) == before, "an update leaves them alone"
    link = connect(sessions, device, "$edgeHub")
    await identities.update(read_settings(device, {}))
    assert await ids(identities) == ["own"]
    assert link.reasons == ["the device is no IoT Edge device any more"]


async def test_the_runtime_modules_are_made_and_deleted_by_nobody_else(
    identities: Identities, device: str
) -> None:
    await identities.create(read_settings("gw", EDGE))
    for module_id in SYSTEM_MODULES:
        with pytest.raises(SystemModule, match="no edge device"):
            await create(identities, module_id)
        with pytest.raises(Conflict):
            await create(identities, module_id, "gw")
        with pytest.raises(SystemModule, match="not deleted by itself"):
            await identities.modules.delete("gw", module_id)
        keys = await identities.modules.update(read_module_settings("gw", module_id, {}))
        assert keys.authentication.type == "sas", "the runtime gives them keys when it starts"
    assert await ids(identities) == []


async def test_a_device_is_provisioned_as_edge_device_with_them(identities: Identities, store: Store) -> None:
    """[dps 14]"""
    keys = Authentication.symmetric()
    await store.apply(await identities.provision("gw", keys, iot_edge=True))
    assert await ids(identities, "gw") == sorted(SYSTEM_MODULES)
    before = await identities.modules.of_device("gw")
    await store.apply(await identities.provision("gw", keys, iot_edge=True, reset=True))
    assert await identities.modules.of_device("gw") == before
    await store.apply(identities.removal("gw"))
    await identities.create(read_settings("gw", {}))
    assert await ids(identities, "gw") == []


# --- Bulk --------------------------------------------------------------------------------------------------


async def test_bulk_requests_do_modules_too(identities: Identities) -> None:
    result = await identities.bulk(
        [
            {"id": "d", "importMode": "create"},
            {"id": "d", "moduleId": "m", "importMode": "create", "managedBy": "me", "tags": {"a": 1}},
            {"id": "d", "moduleId": "n"},
            {"id": "d", "moduleId": ""},
            {"id": "d", "moduleId": "m"},
            {"id": "d", "moduleId": "x", "importMode": "update"},
            {"id": "d", "moduleId": "y", "importMode": "delete"},
            {"id": "d", "moduleId": "a/b", "importMode": "create"},
            {"id": "e", "moduleId": "m", "importMode": "create"},
        ]
    )
    assert [(each.device_id, each.module_id, type(each.error).__name__) for each in result.errors] == [
        ("d", "", "DefinedTwice"),
        ("d", "m", "DefinedTwice"),
        ("d", "x", "NotFound"),
        ("d", "y", "NotFound"),
        ("d", "a/b", "Invalid"),
        ("e", "m", "NotFound"),
    ]
    assert await ids(identities, "d") == ["m", "n"]
    assert (await identities.twin("d", "m")).tags == {"a": 1}

    m = await identities.modules.get("d", "m")
    stale = {"eTag": "bm9uZQ=="}
    result = await identities.bulk(
        [
            {"id": "d", "moduleId": "m", "importMode": "UpdateIfMatchETag", "eTag": m.etag},
            {"id": "d", "moduleId": "n", "importMode": "deleteIfMatchETag", **stale},
        ]
    )
    assert [type(each.error) for each in result.errors] == [PreconditionFailed]
    assert (await identities.modules.get("d", "m")).managed_by == ""
    result = await identities.bulk(
        [
            {"id": "d", "moduleId": "m", "importMode": "updateTwin", "tags": {"a": None, "b": 2}},
            {"id": "d", "moduleId": "n", "importMode": "delete"},
            {"id": "d", "importMode": "updateTwin", "tags": {"c": 3}},
        ]
    )
    assert result.is_successful
    assert (await identities.twin("d", "m")).tags == {"b": 2}
    assert (await identities.twin("d")).tags == {"c": 3}
    assert await ids(identities, "d") == ["m"]


# --- How many there may be ----------------------------------------------------------------------------------


async def test_a_hub_has_so_many_identities_devices_and_modules_together(
    hub: Hub, store: Store, clock: Clock, sessions: Sessions
) -> None:
    identities = Identities(hub, store, clock, sessions, max_identities=10)

    async def made() -> int:
        number = 0
        while number < 20:
            try:
                await identities.create(read_settings(f"d{number}", {}))
            except TooMany as full:
                assert full.limit == 10  # noqa: PT017
                return number
            number += 1
        return number

    await identities.create(read_settings("gw", EDGE))
    assert await made() == 7
    with pytest.raises(TooMany):
        await store.apply(await identities.provision("d9", Authentication.symmetric()))
    await identities.delete("gw")
    for device_id in ("e1", "e2", "e3"):
        await identities.create(read_settings(device_id, {}))
    with pytest.raises(TooMany):
        await identities.create(read_settings("e4", {}))


# --- New keys ----------------------------------------------------------------------------------------------


async def test_keys_are_renewed_one_both_or_neither(identities: Identities, device: str) -> None:
    """[hub-service 5.6]"""
    await create(identities, "m")
    thumbprint = {"authentication": {"x509Thumbprint": {"primaryThumbprint": "ab" * 32}}}
    await identities.create(read_settings("x5", thumbprint | {"status": "disabled"}))
    before: Both = await identities.get(device), await identities.modules.get(device, "m")
    items = [
        {"id": device},
        {"id": device, "moduleId": "m"},
        {"id": "x5"},
        {"id": "nobody"},
        {"id": device, "moduleId": "none"},
        {"id": device},
        {"id": 7},
    ]
    done = await identities.regenerate_keys({"policyKey": "PrimaryKey", "devices": items})
    after: Both = await identities.get(device), await identities.modules.get(device, "m")
    assert done.policy_key == "PrimaryKey"
    assert [tuple(each) for each in done.rotated] == [
        (device, None, after[0].authentication.primary_key, None),
        (device, "m", after[1].authentication.primary_key, None),
    ]
    assert [(each.device_id, each.module_id, type(each.error).__name__) for each in done.errors] == [
        ("x5", None, "NoKeys"),
        ("nobody", None, "NotFound"),
        (device, "none", "NotFound"),
        (device, None, "DefinedTwice"),
        ("", None, "Invalid"),
    ]
    for old, new in zip(before, after, strict=True):
        assert new.authentication.primary_key != old.authentication.primary_key
        assert new.authentication.secondary_key == old.authentication.secondary_key
        assert (new.etag != old.etag, new.generation_id) == (True, old.generation_id)

    done = await identities.regenerate_keys({"policyKey": "both", "devices": [{"id": device}]})
    renewed = (await identities.get(device)).authentication
    assert done.rotated[0][2:] == renewed.keys
    assert not set(renewed.keys) & set(after[0].authentication.keys)
    done = await identities.regenerate_keys({"policyKey": "secondaryKey", "devices": [{"id": device}]})
    assert done.rotated[0].primary is None
    assert (await identities.get(device)).authentication.primary_key == renewed.primary_key


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"policyKey": "third", "devices": [{"id": "d"}]}, "policyKey"),
        ({"devices": [{"id": "d"}]}, "policyKey"),
        ({"policyKey": "both"}, "devices"),
        ({"policyKey": "both", "devices": []}, "devices"),
        ({"policyKey": "both", "devices": "d"}, "devices"),
        ({"policyKey": "both", "devices": ["d"]}, ""),
        ({"policyKey": "both", "devices": [{"id": "d"}] * 101}, ""),
    ],
)
async def test_a_request_for_keys_that_cannot_be_read(
    identities: Identities, document: dict[str, Any], field: str
) -> None:
    await identities.create(read_settings("d", {}))
    before = await identities.get("d")
    with pytest.raises(MoorageError) as refused:
        await identities.regenerate_keys(document)
    assert getattr(refused.value, "field", None) == field
    assert await identities.get("d") == before


async def test_whoever_changes_a_module_meanwhile_is_not_overwritten(
    identities: Identities, store: Store, hub: Hub, device: str, clock: Clock
) -> None:
    await create(identities, "m")
    other = Authentication.symmetric()
    calls = 0

    def renewed(known: Authentication) -> Authentication:
        nonlocal calls
        calls += 1
        return Authentication.symmetric(other.primary_key, known.secondary_key)

    rotations = [identities.modules.renew(device, "m", renewed) for _ in range(3)]
    await asyncio.gather(*rotations)
    assert calls > 3, "some had to look again"
    assert (await identities.modules.get(device, "m")).authentication.primary_key == other.primary_key
