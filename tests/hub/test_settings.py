"""What an operator can set of a hub: how it is read, written, and kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.credentials.etag import Condition
from moorage.errors import Invalid, NotSupported, PreconditionFailed, Unavailable
from moorage.hub.cloud_to_device import CloudToDeviceSettings
from moorage.hub.hubs import Hubs
from moorage.hub.instance import KIND, Hub
from moorage.hub.settings import HubSettings, changed, duration, read_duration, settings_view
from moorage.interfaces import Clock, Store


@given(seconds=st.integers(0, 9999 * 86_400))
def test_a_duration_is_read_as_it_was_written(seconds: int) -> None:
    assert read_duration(duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT1H", 3600), ("pt5s", 5), ("P1D", 86_400), ("P1DT1H30M5S", 91_805), ("PT0S", 0), ("PT90M", 5400)],
)
def test_durations(text: str, seconds: int) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "1H", "P1Y", "PT1.5H", "PT1H ", "P1DT", "PT١H", "PT9999999H"]
)
def test_what_is_no_duration(text: str) -> None:
    assert read_duration(text) is None


def test_what_is_not_named_stays(hub: Hub) -> None:
    assert changed(hub, {}) == hub
    assert changed(hub, settings_view(hub)) == hub
    some = changed(hub, {"cloudToDevice": {"feedback": {"maxDeliveryCount": 3}}, "disableModuleSAS": True})
    assert some.cloud_to_device == CloudToDeviceSettings(feedback_max_delivery_count=3)
    assert (some.device_sas, some.module_sas) == (True, False)
    again = changed(some, {"cloudToDevice": {"maxDeliveryCount": 1}, "disableModuleSAS": None})
    assert again.cloud_to_device == CloudToDeviceSettings(feedback_max_delivery_count=3, max_delivery_count=1)
    assert again.module_sas is False


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"name": "other"}, "name"),
        ({"cloudToDevice": []}, "cloudToDevice"),
        ({"cloudToDevice": {"ttl": 1}}, "cloudToDevice.ttl"),
        ({"cloudToDevice": {"maxDeliveryCount": "3"}}, "cloudToDevice.maxDeliveryCount"),
        ({"cloudToDevice": {"maxDeliveryCount": True}}, "cloudToDevice.maxDeliveryCount"),
        ({"cloudToDevice": {"maxDeliveryCount": 101}}, "maxDeliveryCount"),
        ({"cloudToDevice": {"defaultTtlAsIso8601": 60}}, "cloudToDevice.defaultTtlAsIso8601"),
        ({"cloudToDevice": {"defaultTtlAsIso8601": "P3D"}}, "defaultTtlAsIso8601"),
        (
            {"cloudToDevice": {"feedback": {"lockDurationAsIso8601": "PT1S"}}},
            "feedback.lockDurationAsIso8601",
        ),
        ({"cloudToDevice": {"feedback": {"x": 1}}}, "cloudToDevice.feedback.x"),
        ({"disableDeviceSAS": "yes"}, "disableDeviceSAS"),
    ],
)
def test_what_cannot_be_set(hub: Hub, document: dict[str, Any], where: str) -> None:
    with pytest.raises(Invalid) as failure:
        changed(hub, document)
    assert failure.value.field == where


def test_the_keys_of_policies_are_not_switched_off(hub: Hub) -> None:
    """Nobody could call this hub any more, for there are no Entra tokens."""
    with pytest.raises(NotSupported):
        changed(hub, {"disableLocalAuth": True})
    assert changed(hub, {"disableLocalAuth": False}) == hub


async def test_what_was_set_is_kept_and_guarded(store: Store, clock: Clock, hub: Hub) -> None:
    hubs = Hubs(store=store, clock=clock)
    await store.records(KIND, 0).put(hub)
    await hubs.open()
    settings = HubSettings(hub=hubs.of_scope, put=hubs.put)
    wanted = {"cloudToDevice": {"defaultTtlAsIso8601": "PT10M"}, "disableDeviceSAS": True}
    done = await settings.update(7, wanted, Condition(hub.etag))
    assert hubs.of_scope(7) == done == await store.records(KIND, 0).get("7")
    assert (done.cloud_to_device.default_ttl, done.device_sas) == (600, False)
    with pytest.raises(PreconditionFailed):
        await settings.update(7, {}, Condition(hub.etag))


async def test_whoever_loses_for_ever_is_told(hub: Hub) -> None:
    async def put(_: Hub) -> Hub:
        raise PreconditionFailed("hub", "7")

    with pytest.raises(Unavailable):
        await HubSettings(hub=lambda _: hub, put=put).update(7, {}, None)


async def test_a_hub_kept_by_an_older_release_takes_sas_tokens(hub: Hub) -> None:
    document = KIND.to_document(replace(hub, device_sas=False, module_sas=False))
    assert not KIND.from_document(document).device_sas
    del document["deviceSas"], document["moduleSas"]
    assert KIND.from_document(document) == hub
