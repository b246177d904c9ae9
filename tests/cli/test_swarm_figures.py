"""How a swarm counts and times."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.cli.swarm.device import message_template
from moorage.cli.swarm.display import summary_lines
from moorage.cli.swarm.figures import Figures, Histogram

times = st.integers(0, 1 << 36)


@given(st.lists(times, min_size=1), st.sampled_from([1, 50, 90, 99, 99.9, 100]))
def test_a_percentile_is_within_a_thirtieth_of_the_truth(measured: list[int], percent: float) -> None:
    histogram = Histogram()
    for each in measured:
        histogram.add(each)
    ordered = sorted(measured)
    rank = next(number for number in range(1, len(ordered) + 1) if number >= len(ordered) * percent / 100)
    found = histogram.percentile(percent)
    assert found is not None
    assert abs(found - ordered[rank - 1]) <= ordered[rank - 1] / 30
    assert found <= histogram.longest == ordered[-1]


@pytest.mark.parametrize("size", [64, 256, 262_144])
def test_a_message_is_json_of_the_size_asked_for(size: int) -> None:
    for sequence in (1, 2_000_000_000):
        message = message_template(size) % (sequence, 1_800_000_000_000)
        assert len(message) == size
        assert json.loads(message)["sequence"] == sequence


def test_without_times_there_is_no_percentile() -> None:
    assert Histogram().percentile(50) is None
    assert Histogram().summary() == {
        "count": 0,
        "p50": None,
        "p90": None,
        "p99": None,
        "p99.9": None,
        "max": None,
    }


def figures(**counts: int) -> Figures:
    made = Figures(3)
    for name, count in counts.items():
        setattr(made, name, count)
    return made


def test_messages_count_from_when_all_are_there() -> None:
    seen = figures(sent=7, acknowledged=7, connected=3)
    seen.acknowledging.add(900_000)
    seen.begin_hold(seen.begun + 2)
    seen.sent = seen.acknowledged = 50
    seen.acknowledging.add(2_000)
    seen.end_hold(seen.begun + 12)
    told = seen.summary()
    assert (told["rampSeconds"], told["holdSeconds"]) == (2, 10)
    assert (told["acknowledged"], told["acknowledgedPerSecond"]) == (50, 5)
    assert told["acknowledgementMilliseconds"]["max"] == 2


def test_failures_are_told_by_reason_the_most_frequent_first() -> None:
    seen = figures(connected=1)
    for reason in ("CONNACK 5", "TLS: bad record", "CONNACK 5"):
        seen.failed("connecting", reason)
    seen.end_hold(seen.begun + 1)
    told = seen.summary()
    assert told["failures"] == [
        {"stage": "connecting", "reason": "CONNACK 5", "count": 2},
        {"stage": "connecting", "reason": "TLS: bad record", "count": 1},
    ]
    text = "\n".join(summary_lines(told))
    assert "FAILED        2  connecting: CONNACK 5" in text
    assert "1 of 3 at the end" in text


@pytest.mark.parametrize(("share", "warned"), [(0.5, False), (0.97, True)])
def test_a_swarm_that_is_busy_itself_says_so(share: float, warned: bool) -> None:
    seen = figures(connected=3)
    seen.end_hold(seen.begun + 1)
    told = seen.summary() | {"ownCoreWhileHolding": share, "ownCoreWhileRamping": 0.1}
    assert any("may be the limit" in line for line in summary_lines(told)) is warned
