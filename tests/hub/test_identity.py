"""The identity registry: what a caller may decide, what the hub does, and what is left when it fails."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest

from moorage.errors import (
    Conflict,
    Invalid,
    MoorageError,
    NotFound,
    PreconditionFailed,
)
from moorage.hub import device_identity
from moorage.hub import twin as twin_module
from moorage.hub.authentication import Authentication, read_authentication
from moorage.hub.bulk import BulkResult, DefinedTwice
from moorage.hub.device_identity import KIND, DeviceIdentity, InvalidDeviceScope, identity_view, read_settings
from moorage.hub.identity import Identities
from moorage.hub.ids import check_id
from moorage.hub.instance import Hub
from moorage.hub.session import Presence, Principal, Session, Sessions
from moorage.hub.twin import InitialTwin
from moorage.interfaces import Clock, Store
from tests.support.sessions import ClosingLink

NEVER = "0001-01-01T00:00:00Z"
KEY_1 = base64.b64encode(bytes(range(32))).decode()
KEY_2 = base64.b64encode(bytes(range(16))).decode()
SHA_1 = "0123456789abcdefABCD0123456789ABCDEF0123"
SHA_256 = "0123456789abcdef" * 4


async def create(identities: Identities, device_id: str = "d1", **members: Any) -> DeviceIdentity:
    return await identities.create(read_settings(device_id, {"deviceId": device_id, **members}))


async def update(
    identities: Identities, identity: DeviceIdentity, if_match: str = "*", **members: Any
) -> DeviceIdentity:
    """As clients do it: the whole object that was read, and what is to change."""
    document = identity_view(identity) | members
    return await identities.update(read_settings(identity.device_id, document), if_match)


def connect(sessions: Sessions, clock: Clock, identity: DeviceIdentity) -> list[str]:
    """A session of the device; the reasons it is closed for."""
    reasons: list[str] = []
    principal = Principal(identity.device_id, identity.generation_id, "device", "sas")
    sessions.open(Session(principal, clock.now(), ClosingLink(reasons)))
    return reasons


# --- Authentication --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"type": "sas"},
        {"type": "SAS", "symmetricKey": None},
        {"symmetricKey": {}},
        {"symmetricKey": {"primaryKey": "", "secondaryKey": None}},
        {"type": None, "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": ""}},
    ],
)
def test_keys_that_are_left_out_are_made(document: object) -> None:
    made = read_authentication(document)
    assert made.type == "sas"
    first, second = (base64.b64decode(key or "") for key in made.keys)
    assert len(first) == len(second) == 32
    assert first != second
    assert made.thumbprints == (None, None)


def test_keys_that_are_given_are_kept() -> None:
    both = read_authentication({"symmetricKey": {"primaryKey": KEY_1, "secondaryKey": KEY_2}})
    assert both.keys == (KEY_1, KEY_2)
    one = read_authentication({"type": "sas", "symmetricKey": {"primaryKey": KEY_1}})
    assert one.primary_key == KEY_1
    assert one.secondary_key not in (None, KEY_1)


@pytest.mark.parametrize(
    ("thumbprint", "given_type"), [(SHA_1, "selfSigned"), (SHA_256, None), (SHA_1, "SELFSIGNED")]
)
def test_thumbprints_are_kept_in_upper_case(thumbprint: str, given_type: str | None) -> None:
    document = {"type": given_type, "x509Thumbprint": {"primaryThumbprint": thumbprint}, "symmetricKey": {}}
    assert read_authentication(document).view() == {
        "symmetricKey": {"primaryKey": None, "secondaryKey": None},
        "x509Thumbprint": {"primaryThumbprint": thumbprint.upper(), "secondaryThumbprint": None},
        "type": "selfSigned",
    }


@pytest.mark.parametrize("given_type", ["certificateAuthority", "none", "CertificateAuthority"])
def test_other_types_keep_no_credentials(given_type: str) -> None:
    document = {
        "type": given_type,
        "symmetricKey": {"primaryKey": KEY_1, "secondaryKey": KEY_2},
        "x509Thumbprint": {"primaryThumbprint": SHA_1},
    }
    kept = read_authentication(document)
    assert kept.type.lower() == given_type.lower()
    assert {*kept.keys, *kept.thumbprints} == {None}


@pytest.mark.parametrize(
    "document",
    [
        "sas",
        [],
        {"type": "password"},
        {"type": 1},
        {"type": "selfSigned"},
        {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": SHA_1[:-1]}},
        {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "G" * 40}},
        {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": 7}},
        {"type": "selfSigned", "x509Thumbprint": "x"},
        {"symmetricKey": {"primaryKey": "not base64"}},
        {"symmetricKey": {"primaryKey": base64.b64encode(bytes(15)).decode()}},
        {"symmetricKey": {"secondaryKey": base64.b64encode(bytes(65)).decode()}},
        {"symmetricKey": {"primaryKey": ["x"]}},
        {"symmetricKey": "x"},
    ],
)
def test_credentials_that_break_a_rule_are_invalid(document: object) -> None:
    with pytest.raises(Invalid) as fault:
        read_authentication(document)
    assert fault.value.field.startswith("authentication")


@pytest.mark.parametrize(
    "members",
    [
        ("sas",),
        ("sas", KEY_1),
        ("sas", KEY_1, KEY_2, SHA_256.upper()),
        ("selfSigned",),
        ("selfSigned", KEY_1, None, SHA_256.upper()),
        ("selfSigned", None, None, SHA_256),
        ("none", KEY_1, KEY_2),
        ("tpm",),
    ],
)
def test_credentials_refuse_to_be_built_wrong(members: tuple[Any, ...]) -> None:
    with pytest.raises(Invalid):
        Authentication(*members)


def test_keys_are_not_shown() -> None:
    assert KEY_1 not in repr(Authentication.symmetric(KEY_1, KEY_2))


# --- One identity ----------------------------------------------------------------------------------------


async def test_a_device_is_created_with_defaults(identities: Identities) -> None:
    identity = await create(identities)
    view = identity_view(identity)
    keys = view["authentication"].pop("symmetricKey")
    assert view == {
        "deviceId": "d1",
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": "Disconnected",
        "status": "enabled",
        "statusReason": None,
        "connectionStateUpdatedTime": NEVER,
        "statusUpdatedTime": NEVER,
        "lastActivityTime": NEVER,
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
            "type": "sas",
        },
        "capabilities": {"iotEdge": False},
        "parentScopes": [],
    }
    assert len(base64.b64decode(keys["primaryKey"])) == 32
    assert identity.generation_id.isdigit()
    assert len(identity.generation_id) == 18
    assert base64.b64decode(identity.etag).isdigit()
    assert await identities.get("d1") == identity


async def test_what_is_created_is_created_as_told(identities: Identities) -> None:
    identity = await create(
        identities,
        "Dev-1:.+%_#*?!(),=@$';",
        status="Disabled",
        statusReason="not yet",
        authentication={"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": SHA_256}},
        generationId="1",
        etag="forged",
        unknown={"member": True},
    )
    assert (identity.status, identity.status_reason) == ("disabled", "not yet")
    assert identity.authentication.primary_thumbprint == SHA_256.upper()
    assert identity.generation_id != "1"
    assert identity.etag != "forged"


async def test_a_twin_comes_with_the_identity(identities: Identities) -> None:
    settings = read_settings("d1", {})
    await identities.create(settings, InitialTwin(tags={"site": "A"}, desired={"period": 5}))
    twin = await identities.twin("d1")
    assert (twin.tags, twin.desired.values, twin.version) == ({"site": "A"}, {"period": 5}, 2)


async def test_a_second_device_of_that_name_is_a_conflict(identities: Identities) -> None:
    first = await create(identities)
    with pytest.raises(Conflict) as fault:
        await create(identities)
    assert (fault.value.kind, fault.value.key) == ("device", "d1")
    assert await identities.get("d1") == first
    await create(identities, "D1")  # ids are case-sensitive


@pytest.mark.parametrize("device_id", ["", "a b", "a/b", 'a"b', "é", "a\n", "x" * 129, "a\x00"])
def test_ids_that_break_the_rules(device_id: str) -> None:
    with pytest.raises(Invalid) as fault:
        read_settings(device_id, {})
    assert fault.value.field == "deviceId"


def test_the_longest_id() -> None:
    assert check_id("x" * 128, "deviceId") == "x" * 128


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], ""),
        (None, ""),
        ({"deviceId": "other"}, "deviceId"),
        ({"deviceId": 1}, "deviceId"),
        ({"status": "on"}, "status"),
        ({"status": 1}, "status"),
        ({"statusReason": "x" * 129}, "statusReason"),
        ({"statusReason": 1}, "statusReason"),
        ({"statusReason": "\ud800"}, "statusReason"),
        ({"capabilities": {"iotEdge": "yes"}}, "capabilities.iotEdge"),
        ({"capabilities": True}, "capabilities"),
        ({"deviceScope": 1}, "parentScopes"),
        ({"parentScopes": "x"}, "parentScopes"),
        ({"parentScopes": [1]}, "parentScopes"),
        ({"parentScopes": ["x"] * 101}, "parentScopes"),
        ({"authentication": 1}, "authentication"),
    ],
)
def test_a_device_that_breaks_a_rule_is_invalid(document: object, field: str) -> None:
    with pytest.raises(Invalid) as fault:
        read_settings("d1", document)
    assert fault.value.field == field


async def test_an_update_replaces_all_but_what_the_hub_decides(
    identities: Identities, advance: Callable[[float], None]
) -> None:
    first = await create(identities, status="disabled", statusReason="new", authentication={"type": "none"})
    advance(10)
    second = await identities.update(read_settings("d1", {"generationId": "1"}), first.etag)
    assert second.generation_id == first.generation_id
    assert second.etag != first.etag
    assert (second.status, second.status_reason) == ("enabled", None)
    assert second.authentication.type == "sas"
    assert identity_view(second)["statusUpdatedTime"] == "2027-01-15T08:00:10.0000000Z"
    assert await identities.get("d1") == second


async def test_the_status_time_moves_with_the_status_alone(
    identities: Identities, advance: Callable[[float], None]
) -> None:
    identity = await create(identities)
    advance(1)
    identity = await update(identities, identity, statusReason="still on")
    assert identity.status_updated_time is None
    identity = await update(identities, identity, status="disabled")
    changed = identity.status_updated_time
    assert changed is not None
    advance(1)
    assert (await update(identities, identity, statusReason="")).status_updated_time == changed


async def test_an_empty_key_is_made_anew(identities: Identities) -> None:
    first = await create(
        identities, authentication={"symmetricKey": {"primaryKey": KEY_1, "secondaryKey": KEY_2}}
    )
    second = await update(
        identities,
        first,
        authentication={"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": KEY_2}},
    )
    assert second.authentication.primary_key not in (KEY_1, "", None)
    assert second.authentication.secondary_key == KEY_2


async def test_an_update_needs_the_device_and_its_etag(identities: Identities) -> None:
    with pytest.raises(NotFound) as missing:
        await identities.update(read_settings("d1", {}))
    assert (missing.value.kind, missing.value.key) == ("device", "d1")
    identity = await create(identities)
    with pytest.raises(PreconditionFailed):
        await update(identities, identity, "MQ==")
    await update(identities, identity, identity.etag)
    with pytest.raises(PreconditionFailed):
        await update(identities, identity, identity.etag)


async def test_updates_of_any_version_at_the_same_time_all_succeed(identities: Identities) -> None:
    identity = await create(identities)
    updated = await asyncio.gather(*(update(identities, identity, statusReason=f"r{n}") for n in range(5)))
    assert await identities.get("d1") in updated


async def test_twin_patches_at_the_same_time_all_count(identities: Identities) -> None:
    await create(identities)
    await asyncio.gather(*(identities.patch_twin("d1", {"tags": {f"t{n}": n}}) for n in range(5)))
    twin = await identities.twin("d1")
    assert twin.tags == {f"t{n}": n for n in range(5)}
    assert twin.version == 2 + 5


async def test_of_updates_of_one_version_one_succeeds(identities: Identities) -> None:
    identity = await create(identities)
    results = await asyncio.gather(
        *(update(identities, identity, identity.etag) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, DeviceIdentity) for result in results) == 1
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 4


async def test_deleting_removes_identity_twin_and_connection(
    identities: Identities, sessions: Sessions, clock: Clock
) -> None:
    identity = await create(identities)
    reasons = connect(sessions, clock, identity)
    await identities.delete("d1", identity.etag)
    for read in (identities.get, identities.twin):
        with pytest.raises(NotFound):
            await read("d1")
    assert reasons == ["the device was deleted"]
    assert sessions.presence("d1") == Presence()


async def test_deleting_needs_the_device_and_its_etag(identities: Identities) -> None:
    with pytest.raises(NotFound) as missing:
        await identities.delete("d1")
    assert missing.value.kind == "device"
    await create(identities)
    with pytest.raises(PreconditionFailed):
        await identities.delete("d1", "MQ==")
    await identities.delete("d1")


async def test_a_device_made_again_is_another_generation(identities: Identities) -> None:
    first = await create(identities)
    await identities.delete("d1")
    second = await create(identities)
    assert second.generation_id != first.generation_id


async def test_disabling_ends_the_connection_at_once(
    identities: Identities, sessions: Sessions, clock: Clock
) -> None:
    identity = await create(identities)
    reasons = connect(sessions, clock, identity)
    identity = await update(identities, identity, statusReason="nothing yet")
    assert reasons == []
    await update(identities, identity, status="disabled")
    assert reasons == ["the device was disabled"]
    assert sessions.connected("d1") is None


async def test_a_refused_update_leaves_the_connection(
    identities: Identities, sessions: Sessions, clock: Clock
) -> None:
    identity = await create(identities)
    reasons = connect(sessions, clock, identity)
    with pytest.raises(PreconditionFailed):
        await update(identities, identity, "MQ==", status="disabled")
    with pytest.raises(PreconditionFailed):
        await identities.delete("d1", "MQ==")
    assert reasons == []


async def test_a_view_tells_the_connection(identities: Identities, sessions: Sessions, clock: Clock) -> None:
    identity = await create(identities)
    connect(sessions, clock, identity)
    view = identity_view(identity, sessions.presence("d1"))
    assert view["connectionState"] == "Connected"
    assert view["connectionStateUpdatedTime"] == view["lastActivityTime"] == "2027-01-15T08:00:00.0000000Z"


async def test_an_identity_is_kept_as_a_document(identities: Identities) -> None:
    edge = await create(identities, "gw", capabilities={"iotEdge": True})
    leaf = await create(
        identities, "leaf", deviceScope=edge.device_scope, status="disabled", statusReason="x"
    )
    for identity in (edge, leaf):
        assert KIND.from_document(KIND.to_document(identity)) == identity


# --- Parents ---------------------------------------------------------------------------------------------


async def test_an_edge_device_gets_a_scope_of_its_own(identities: Identities) -> None:
    edge = await create(identities, "gw-1", capabilities={"iotEdge": True})
    assert edge.device_scope is not None
    prefix, _, ticks = edge.device_scope.rpartition("-")
    assert prefix == "ms-azure-iot-edge://gw-1"
    assert len(ticks) == 18
    again = await update(identities, edge, statusReason="same")
    assert again.device_scope == edge.device_scope


async def test_a_leaf_is_put_below_an_edge_device_and_taken_away(identities: Identities) -> None:
    edge = await create(identities, "gw-1", capabilities={"iotEdge": True})
    leaf = await update(identities, await create(identities, "leaf"), deviceScope=edge.device_scope)
    view = identity_view(leaf)
    assert view["deviceScope"] == edge.device_scope
    assert view["parentScopes"] == [edge.device_scope]
    assert "deviceScope" not in identity_view(await update(identities, leaf, deviceScope=""))


async def test_edge_devices_nest(identities: Identities) -> None:
    upper = await create(identities, "upper", capabilities={"iotEdge": True})
    lower = await create(
        identities, "lower", capabilities={"iotEdge": True}, parentScopes=[upper.device_scope]
    )
    assert lower.device_scope is not None
    assert lower.device_scope.startswith("ms-azure-iot-edge://lower-")
    assert lower.parent_scopes == (upper.device_scope,)
    assert (await update(identities, lower, parentScopes=[])).parent_scopes == ()


@pytest.mark.parametrize(
    "scope",
    [
        "ms-azure-iot-edge://nobody-1",
        "ms-azure-iot-edge://gw-1",
        "ms-azure-iot-edge://plain-1",
        "gw",
        "x" * 400,
    ],
)
async def test_a_scope_of_no_edge_device_is_invalid(identities: Identities, scope: str) -> None:
    await create(identities, "gw", capabilities={"iotEdge": True})
    await create(identities, "plain")
    with pytest.raises(InvalidDeviceScope):
        await create(identities, "leaf", deviceScope=scope)


async def test_a_leaf_has_one_parent(identities: Identities) -> None:
    scopes = [
        (await create(identities, f"gw{n}", capabilities={"iotEdge": True})).device_scope for n in (1, 2)
    ]
    with pytest.raises(Invalid, match="more than one parent"):
        await create(identities, "leaf", parentScopes=scopes)


async def test_a_device_keeps_a_parent_that_is_gone_until_it_is_changed(identities: Identities) -> None:
    edge = await create(identities, "gw", capabilities={"iotEdge": True})
    leaf = await create(identities, "leaf", deviceScope=edge.device_scope)
    await identities.delete("gw")
    assert (await update(identities, leaf, statusReason="x")).device_scope == edge.device_scope


async def test_an_edge_device_may_become_a_leaf(identities: Identities) -> None:
    edge = await create(identities, "gw", capabilities={"iotEdge": True})
    leaf = await update(identities, edge, capabilities={"iotEdge": False})
    assert (leaf.device_scope, leaf.parent_scopes) == (None, ())


# --- Many ------------------------------------------------------------------------------------------------


async def test_lists_and_statistics(identities: Identities) -> None:
    for number in range(5):
        await create(identities, f"d{number}", status="disabled" if number < 2 else "enabled")
    assert len(await identities.list(3)) == 3
    for out_of_range in (0, -1, 1001):
        assert len(await identities.list(out_of_range)) == 5
    assert await identities.statistics() == (5, 3, 2)


def told(result: BulkResult) -> list[tuple[str, str, type[MoorageError]]]:
    return [(error.device_id, error.operation, type(error.error)) for error in result.errors]


async def test_bulk_creates_with_twins(identities: Identities) -> None:
    result = await identities.bulk(
        [
            {
                "id": "d1",
                "importMode": "create",
                "status": "disabled",
                "authentication": {"type": "sas", "symmetricKey": {}},
                "tags": {"site": "A"},
                "properties": {"desired": {"period": 5}},
                "capabilities": {"iotEdge": False},
            },
            {"id": "d2", "importMode": "Create"},
        ]
    )
    assert result.is_successful
    assert (await identities.get("d1")).status == "disabled"
    twin = await identities.twin("d1")
    assert (twin.tags, twin.desired.values) == ({"site": "A"}, {"period": 5})
    assert (await identities.get("d2")).status == "enabled"


@pytest.mark.parametrize("mode", ["update", "Update", "createOrUpdate", "CREATEORUPDATE", None])
async def test_bulk_updates(identities: Identities, mode: str | None) -> None:
    first = await create(identities)
    result = await identities.bulk([{"id": "d1", "importMode": mode, "statusReason": "bulk"}])
    assert result.is_successful
    second = await identities.get("d1")
    assert second.status_reason == "bulk"
    assert second.generation_id == first.generation_id


@pytest.mark.parametrize("mode", ["updateIfMatchETag", "UpdateIfMatchETag", "createOrUpdateIfMatchETag"])
async def test_bulk_updates_by_etag(identities: Identities, mode: str) -> None:
    first = await create(identities)
    item = {"id": "d1", "importMode": mode, "statusReason": "bulk"}
    assert told(await identities.bulk([{**item, "eTag": "MQ=="}]))[0][2] is PreconditionFailed
    assert told(await identities.bulk([item]))[0][2] is Invalid
    assert (await identities.bulk([{**item, "eTag": f'"{first.etag}"'}])).is_successful
    assert (await identities.get("d1")).status_reason == "bulk"


@pytest.mark.parametrize("mode", ["delete", "Delete", "deleteIfMatchETag", "DeleteIfMatchETag"])
async def test_bulk_deletes(identities: Identities, mode: str) -> None:
    identity = await create(identities)
    assert (await identities.bulk([{"id": "d1", "importMode": mode, "etag": identity.etag}])).is_successful
    with pytest.raises(NotFound):
        await identities.get("d1")


async def test_bulk_merges_twins(identities: Identities) -> None:
    await identities.create(
        read_settings("d1", {}), InitialTwin(tags={"site": "A", "b": 1}, desired={"x": 1})
    )
    item = {"id": "d1", "tags": {"site": None}, "properties": {"desired": {"period": 5}}}
    wrong = {**item, "importMode": "updateTwinIfMatchETag", "twinETag": "MQ=="}
    assert told(await identities.bulk([wrong])) == [("d1", "updateTwinIfMatchETag", PreconditionFailed)]
    etag = (await identities.twin("d1")).etag
    assert (await identities.bulk([{**wrong, "twinETag": etag}])).is_successful
    twin = await identities.twin("d1")
    assert (twin.tags, twin.desired.values, twin.version) == ({"b": 1}, {"x": 1, "period": 5}, 3)
    assert (await identities.bulk([{**item, "importMode": "updateTwin"}])).is_successful
    assert (await identities.twin("d1")).desired.version == 3


async def test_bulk_items_are_independent_and_in_order(identities: Identities) -> None:
    await create(identities, "there")
    result = await identities.bulk(
        [
            {"id": "d1", "importMode": "create"},
            {"id": "there", "importMode": "create"},
            {"id": "missing", "importMode": "update"},
            {"id": "gone", "importMode": "delete"},
            {"id": "lost", "importMode": "updateTwin", "tags": {}},
            {"id": "d1", "importMode": "delete"},
            {"id": "bad id", "importMode": "create"},
            {"importMode": "create"},
            {"id": "d3", "importMode": "replace"},
            {"id": "d4", "importMode": 7},
            {"id": "d5", "importMode": "create", "moduleId": "m"},
            {"id": "d6", "importMode": "create", "tags": {"a.b": 1}},
            {"id": "d7", "importMode": "create", "status": "on"},
            {"id": "d8", "importMode": "create"},
        ]
    )
    assert not result.is_successful
    assert told(result) == [
        ("there", "create", Conflict),
        ("missing", "update", NotFound),
        ("gone", "delete", NotFound),
        ("lost", "updateTwin", NotFound),
        ("d1", "delete", DefinedTwice),
        ("bad id", "create", Invalid),
        ("", "create", Invalid),
        ("d3", "replace", Invalid),
        ("d4", "createOrUpdate", Invalid),
        ("d5", "create", NotFound),
        ("d6", "create", Invalid),
        ("d7", "create", Invalid),
    ]
    assert result.errors[9].module_id == "m"
    assert sorted(identity.device_id for identity in await identities.list()) == ["d1", "d8", "there"]


async def test_a_bulk_request_that_cannot_be_read_does_nothing(identities: Identities) -> None:
    with pytest.raises(Invalid, match="up to 100"):
        await identities.bulk([{"id": f"d{n}", "importMode": "create"} for n in range(101)])
    with pytest.raises(Invalid, match="not a JSON object"):
        await identities.bulk([{"id": "d1", "importMode": "create"}, 7])
    assert await identities.list() == []
    assert (await identities.bulk([])).is_successful


# --- Provisioning ----------------------------------------------------------------------------------------


async def test_provisioning_makes_identity_and_twin(identities: Identities, store: Store) -> None:
    authentication = Authentication.self_signed(SHA_256)
    changes = await identities.provision(
        "d1", authentication, iot_edge=True, initial_twin=InitialTwin(tags={"a": 1}, desired={"b": 2})
    )
    with pytest.raises(NotFound):
        await identities.get("d1")  # nothing is done before the caller commits
    await store.apply(changes)
    identity, twin = await identities.get("d1"), await identities.twin("d1")
    assert (identity.authentication, identity.iot_edge, identity.status) == (authentication, True, "enabled")
    assert (twin.tags, twin.desired.values) == ({"a": 1}, {"b": 2})


@pytest.mark.parametrize("reset", [False, True])
async def test_provisioning_takes_an_identity_over(identities: Identities, store: Store, reset: bool) -> None:
    edge = await create(identities, "gw", capabilities={"iotEdge": True})
    first = await create(identities, deviceScope=edge.device_scope, status="disabled", statusReason="x")
    await identities.patch_twin("d1", {"tags": {"mine": 1}})
    changes = await identities.provision(
        "d1",
        Authentication.symmetric(KEY_1, KEY_2),
        initial_twin=InitialTwin(tags={"new": 1}, desired={}),
        reset=reset,
    )
    await store.apply(changes)
    second = await identities.get("d1")
    assert second.generation_id == first.generation_id
    assert second.authentication.keys == (KEY_1, KEY_2)
    assert (second.status, second.status_reason, second.device_scope) == ("enabled", None, edge.device_scope)
    assert second.etag != first.etag
    assert (await identities.twin("d1")).tags == ({"new": 1} if reset else {"mine": 1})


async def test_provisioning_gives_way_to_a_faster_change(identities: Identities, store: Store) -> None:
    first = await identities.provision("d1", Authentication.symmetric())
    identity = await create(identities)
    with pytest.raises(Conflict):
        await store.apply(first)
    second = await identities.provision("d1", Authentication.symmetric())
    await update(identities, identity, statusReason="faster")
    with pytest.raises(PreconditionFailed):
        await store.apply(second)


async def test_provisioning_mends_what_is_half_there(identities: Identities, store: Store, hub: Hub) -> None:
    await create(identities)
    await store.records(twin_module.KIND, hub.scope).delete("d1")
    await store.apply(await identities.provision("d1", Authentication.symmetric()))
    assert (await identities.twin("d1")).version == 2
    await store.records(device_identity.KIND, hub.scope).delete("d1")
    await store.apply(await identities.provision("d1", Authentication.symmetric()))
    assert (await identities.get("d1")).status == "enabled"


async def test_provisioning_keeps_to_the_rules_of_ids(identities: Identities) -> None:
    with pytest.raises(Invalid):
        await identities.provision("a b", Authentication.symmetric())


async def test_hubs_do_not_see_each_others_devices(
    identities: Identities, hub: Hub, store: Store, clock: Clock
) -> None:
    other = Hub(scope=8, name="b", host_names=("b",), advertised_host="b", created=1)
    elsewhere = Identities(other, store, clock, Sessions(clock))
    await create(identities)
    with pytest.raises(NotFound):
        await elsewhere.get("d1")
    await create(elsewhere)
    await elsewhere.delete("d1")
    assert (await identities.get("d1")).device_id == "d1"
