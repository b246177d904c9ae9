"""Rates: what may be asked at once, how it comes back, and who is counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Throttled
from moorage.provisioning import throttle
from moorage.provisioning.throttle import AZURE_LIMITS, NO_LIMITS, Bucket, Rate, RateLimits, Throttle
from tests.support.streams import ManualTime


def take_all(take: Callable[[], None], most: int = 5000) -> tuple[int, int]:
    """How often `take` may be called, and the seconds that are told then."""
    for count in range(most):
        try:
            take()
        except Throttled as refused:
            return count, refused.retry_after
    raise AssertionError("there is no end to it")


def test_the_rates_of_azure() -> None:
    time = ManualTime()
    limits = Throttle(AZURE_LIMITS, time)
    assert take_all(limits.registration) == (1000, 1)
    assert take_all(limits.service_operation) == (1000, 1)
    assert take_all(lambda: limits.poll("pump-7")) == (5, 2)
    assert take_all(lambda: limits.poll("pump-8")) == (5, 2), "each device has its own"


def test_the_ids_of_devices_compare_without_regard_to_case() -> None:
    limits = Throttle(AZURE_LIMITS, ManualTime())
    take_all(lambda: limits.poll("Pump-7"))
    with pytest.raises(Throttled, match="5 polls of one device in 10 seconds"):
        limits.poll("pUMP-7")


def test_whoever_waits_as_long_as_told_is_let_in() -> None:
    time = ManualTime()
    limits = Throttle(AZURE_LIMITS, time)
    for _ in range(20):
        _, wait = take_all(lambda: limits.poll("pump-7"))
        time.advance(wait)
    limits.poll("pump-7")


@given(
    rate=st.builds(Rate, st.integers(1, 50), st.integers(1, 60)),
    pauses=st.lists(st.floats(0, 100), max_size=200),
)
def test_never_more_than_the_burst_and_the_rate(rate: Rate, pauses: list[float]) -> None:
    bucket, now, taken = Bucket(rate, 0.0), 0.0, 0
    told: list[int] = []
    for pause in pauses:
        now += pause
        try:
            bucket.take(now, "questions")
        except Throttled as refused:
            told.append(refused.retry_after)
        else:
            taken += 1
    assert taken <= rate.times + now * rate.times / rate.seconds + 1e-6
    assert all(1 <= seconds <= rate.seconds for seconds in told)


def test_without_limits_anybody_may_ask_for_ever() -> None:
    limits = Throttle(NO_LIMITS, ManualTime())
    for take in (limits.registration, limits.service_operation, lambda: limits.poll("pump-7")):
        with pytest.raises(AssertionError, match="no end"):
            take_all(take)


def test_as_many_devices_are_counted_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was quiet for longest is forgotten, and may begin anew."""
    monkeypatch.setattr(throttle, "MAX_DEVICES", 2)
    limits = Throttle(RateLimits(polls=Rate(1, 60)), ManualTime())
    limits.poll("a")
    limits.poll("b")
    with pytest.raises(Throttled):
        limits.poll("a")
    limits.poll("c")
    limits.poll("b")
    with pytest.raises(Throttled):
        limits.poll("c")
