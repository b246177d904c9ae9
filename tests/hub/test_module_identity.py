"""Module identities and module twins as they are kept and shown [hub-service 5.4, 6.1]."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.errors import Invalid
from moorage.hub import module_identity
from moorage.hub import twin as twins
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import DeviceIdentity
from moorage.hub.module_identity import ModuleIdentity, module_view, read_module_settings
from moorage.hub.session import Presence
from moorage.hub.twin import module_service_view, new_twin, service_view

NEVER = "0001-01-01T00:00:00Z"

DEVICE = DeviceIdentity(
    device_id="pump-7",
    generation_id="1",
    etag="ZDE=",
    status="disabled",
    status_reason="away",
    status_updated_time=1_800_000_000_000_000,
    authentication=Authentication.symmetric(),
)
MODULE = ModuleIdentity(
    device_id="pump-7",
    module_id="logger",
    generation_id="638812345678999999",
    etag="MTIzNDU=",
    managed_by="IotEdge",
    authentication=Authentication.self_signed("ab" * 20, "CD" * 32),
)


def test_a_module_comes_back_as_it_was_kept() -> None:
    kind = module_identity.KIND
    assert kind.from_document(kind.to_document(MODULE)) == MODULE
    assert kind.key(MODULE) == "pump-7/logger"
    assert kind.index["device"](MODULE) == ["pump-7"]


def test_what_clients_read() -> None:
    assert module_view(MODULE, Presence(True, 1_800_000_000_000_000, 1_800_000_001_500_000)) == {
        "moduleId": "logger",
        "managedBy": "IotEdge",
        "deviceId": "pump-7",
        "generationId": "638812345678999999",
        "etag": "MTIzNDU=",
        "connectionState": "Connected",
        "connectionStateUpdatedTime": "2027-01-15T08:00:00.0000000Z",
        "lastActivityTime": "2027-01-15T08:00:01.5000000Z",
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "symmetricKey": {"primaryKey": None, "secondaryKey": None},
            "x509Thumbprint": {"primaryThumbprint": "AB" * 20, "secondaryThumbprint": "CD" * 32},
            "type": "selfSigned",
        },
    }


def test_a_module_twin_says_whose_it_is_and_the_status_of_its_device() -> None:
    twin = new_twin("pump-7", 0, {"a": 1}, module_id="logger")
    view = module_service_view(twin, MODULE, DEVICE)
    assert (view["deviceId"], view["moduleId"], view["deviceEtag"]) == ("pump-7", "logger", "MTIzNDU=")
    assert (view["status"], view["statusReason"], view["authenticationType"]) == (
        "disabled",
        "away",
        "selfSigned",
    )
    assert view["tags"] == {"a": 1}
    assert not {"capabilities", "deviceScope", "parentScopes"} & set(view)
    assert "moduleId" not in service_view(new_twin("pump-7", 0), DEVICE)


def test_a_module_twin_comes_back_as_it_was_kept() -> None:
    twin = new_twin("pump-7", 0, {"a": 1}, {"b": 2}, module_id="logger")
    kind = twins.MODULE_KIND
    assert kind.from_document(kind.to_document(twin)) == twin
    assert kind.key(twin) == "pump-7/logger"
    of_device = new_twin("pump-7", 0)
    assert twins.KIND.from_document(twins.KIND.to_document(of_device)) == of_device
    assert "moduleId" not in twins.KIND.to_document(of_device)


def test_what_a_caller_may_decide() -> None:
    settings = read_module_settings(
        "d", "m", {"deviceId": "d", "moduleId": "m", "managedBy": "me", "etag": "passed over"}
    )
    assert (settings.name, settings.managed_by, settings.authentication.type) == ("d/m", "me", "sas")
    assert read_module_settings("d", "m", {"managedBy": None}).managed_by == ""


@pytest.mark.parametrize(
    ("device_id", "module_id", "document", "field"),
    [
        ("d", "m", [], ""),
        ("d", "m", {"deviceId": "D"}, "deviceId"),
        ("d", "m", {"moduleId": "M"}, "moduleId"),
        ("d", "a/b", {}, "moduleId"),
        ("d", "", {}, "moduleId"),
        ("d", "m" * 129, {}, "moduleId"),
        ("a b", "m", {}, "deviceId"),
        ("d", "m", {"managedBy": 1}, "managedBy"),
        ("d", "m", {"managedBy": "x" * 257}, "managedBy"),
        ("d", "m", {"managedBy": "\ud800"}, "managedBy"),
        ("d", "m", {"authentication": {"type": "magic"}}, "authentication.type"),
    ],
)
def test_what_is_refused(device_id: str, module_id: str, document: Any, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_module_settings(device_id, module_id, document)
    assert caught.value.field == field
