from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Invalid
from moorage.hub.instance import KIND, Hub, partition_of
from moorage.interfaces import Store

HUB = Hub(scope=7, name="hub", host_names=("localhost", "::1"), advertised_host="localhost", created=1)


@pytest.mark.parametrize(
    ("device_id", "partition"), [("d1", 2), ("pump-7", 3), ("sample-device-1", 2), ("пример", 3)]
)
def test_the_partition_of_a_device_is_fixed_for_ever(device_id: str, partition: int) -> None:
    assert partition_of(HUB, device_id) == partition


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 32))
def test_every_device_has_a_partition(device_id: str, count: int) -> None:
    assert partition_of(replace(HUB, partition_count=count), device_id) in range(count)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8443", "[::1]:443", "::1"])
def test_a_hub_answers_to_its_names(host: str) -> None:
    assert HUB.answers_to(host)


@pytest.mark.parametrize("host", ["", "localhost.example", "127.0.0.1", "localhost:x"])
def test_a_hub_answers_to_no_other_name(host: str) -> None:
    assert not HUB.answers_to(host)


def test_consumer_groups_compare_without_case() -> None:
    assert HUB.consumer_group("$default") == "$Default"
    assert HUB.consumer_group("other") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"partition_count": 0},
        {"partition_count": 33},
        {"partition_hash": "sip-v2"},
        {"host_names": ("Localhost",)},
        {"host_names": ("localhost:443",)},
        {"host_names": ()},
        {"advertised_host": "elsewhere"},
        {"consumer_groups": ("other",)},
    ],
)
def test_a_hub_refuses_to_be_built_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        replace(HUB, **wrong)


async def test_a_hub_is_kept(store: Store) -> None:
    hubs = store.records(KIND, 0)
    await hubs.put(HUB)
    assert await hubs.get("7") == HUB
