from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Invalid
from moorage.provisioning.allocation import choose, eligible
from moorage.provisioning.service import AllocationPolicy, LinkedHub

HASHED, STATIC = AllocationPolicy.HASHED, AllocationPolicy.STATIC


def hub(number: int, *, weight: int = 1, eligible: bool = True) -> LinkedHub:
    return LinkedHub(
        hub=number, host_name=f"hub-{number}.example.net", weight=weight, eligible=eligible, etag="1"
    )


def test_nothing_linked_means_no_choice() -> None:
    assert choose("pump-7", HASHED, [], ()) is None


def test_the_only_hub_is_chosen_whatever_the_policy() -> None:
    for policy in (HASHED, STATIC, AllocationPolicy.GEO_LATENCY):
        assert choose("pump-7", policy, [hub(1)], ()) == hub(1)


def test_static_takes_the_hub_that_is_named_in_any_case() -> None:
    assert choose("pump-7", STATIC, [hub(1), hub(2)], ["HUB-2.example.net"]) == hub(2)


def test_static_between_two_hubs_is_no_choice() -> None:
    assert choose("pump-7", STATIC, [hub(1), hub(2)], ()) is None


def test_a_named_hub_that_is_linked_no_more_is_no_choice() -> None:
    assert choose("pump-7", HASHED, [hub(1)], ["hub-9.example.net"]) is None


def test_a_hub_out_of_allocation_is_chosen_only_by_name() -> None:
    hubs = [hub(1, eligible=False), hub(2)]
    assert eligible(hubs, ()) == [hub(2)]
    assert choose("pump-7", HASHED, hubs, ["hub-1.example.net"]) == hub(1, eligible=False)


def test_geo_latency_between_equally_near_hubs_is_hashed() -> None:
    hubs = [hub(1), hub(2), hub(3)]
    for device in range(20):
        assert choose(f"d{device}", AllocationPolicy.GEO_LATENCY, hubs, ()) == choose(
            f"d{device}", HASHED, hubs, ()
        )


def test_where_devices_land_is_fixed() -> None:
    """These choices are on disks: another answer here moves devices between hubs."""
    hubs = [hub(1), hub(2), hub(3)]
    chosen = [choose(f"device-{n}", HASHED, hubs, ()) for n in range(12)]
    assert [found.hub for found in chosen if found] == [2, 2, 3, 2, 1, 3, 1, 2, 2, 3, 1, 3]


def test_weights_are_kept_to() -> None:
    hubs = [hub(1, weight=1), hub(2, weight=3)]
    count = Counter(found.hub for n in range(4000) if (found := choose(f"device-{n}", HASHED, hubs, ())))
    assert 2800 < count[2] < 3200


@given(st.text(min_size=1), st.sets(st.integers(1, 50), min_size=2))
def test_order_and_case_do_not_matter_and_a_hub_that_leaves_moves_only_its_own(
    registration_id: str, numbers: set[int]
) -> None:
    hubs = [hub(number) for number in sorted(numbers)]
    chosen = choose(registration_id, HASHED, hubs, ())
    assert chosen is not None
    assert choose(registration_id.lower(), HASHED, hubs[::-1], ()) == chosen
    other = next(found for found in hubs if found != chosen)
    assert choose(registration_id, HASHED, [found for found in hubs if found != other], ()) == chosen


@pytest.mark.parametrize("weight", [0, 1001, -1])
def test_a_weight_out_of_range_is_refused(weight: int) -> None:
    with pytest.raises(Invalid, match="1 to 1000"):
        hub(1, weight=weight)


@pytest.mark.parametrize("host", ["", "https://hub", "hub:443", "a b"])
def test_what_is_not_a_bare_host_name_is_refused(host: str) -> None:
    with pytest.raises(Invalid, match="bare host name"):
        LinkedHub(hub=1, host_name=host, etag="1")
