"""What the server has to do, as figures with small plots that are drawn here, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

WIDTH, HEIGHT = 160, 36  # units of a plot; it is shown as wide as there is room
SPAN = 300.0  # seconds that a plot shows
RATE_OVER = 10.0  # seconds that a rate of now is taken over


@dataclass(frozen=True, slots=True)
class Plot:
    """`line` are the points of the plot; `most` and `now` say the same in words."""

    line: str
    area: str
    most: float
    now: float


@dataclass(frozen=True, slots=True)
class Card:
    """One figure: the key of its name, how much, and of what grows how much that is now, for each second."""

    key: str
    figure: int
    plot: Plot
    lately: int | None = None  # since SPAN seconds
    rate: float | None = None
    href: str = ""


@dataclass(frozen=True, slots=True)
class HubRow:
    name: str
    devices: Card
    messages: Card


def cards(statistics: Mapping[str, Any]) -> list[Card]:
    recent = statistics["recent"]
    ago = recent["secondsAgo"]
    return [
        _growing("overview.assigned", recent["registrationsAssigned"], ago, "/registrations"),
        _growing("overview.failed", recent["registrationsFailed"], ago, "/registrations"),
        _standing("overview.devices_connected", recent["devicesConnected"], ago),
        _standing("overview.connections", recent["connections"], ago),
        _growing("overview.messages", recent["messages"], ago, rated=True),
    ]


def hub_rows(statistics: Mapping[str, Any]) -> list[HubRow]:
    ago = statistics["recent"]["secondsAgo"]
    return [
        HubRow(
            hub["name"],
            _standing("overview.devices_connected", hub["recent"]["devicesConnected"], ago),
            _growing("overview.messages", hub["recent"]["messages"], ago, rated=True),
        )
        for hub in statistics["hubs"]
    ]


def _standing(key: str, values: Sequence[int], ago: Sequence[float]) -> Card:
    return Card(key, values[-1], plot(values, ago))


def _growing(
    key: str, values: Sequence[int], ago: Sequence[float], href: str = "", *, rated: bool = False
) -> Card:
    """Of what only grows, the plot is of how fast."""
    return Card(
        key,
        values[-1],
        plot(rates(values, ago), ago),
        lately=values[-1] - values[0],
        rate=rate_now(values, ago) if rated else None,
        href=href,
    )


def rates(values: Sequence[int], ago: Sequence[float]) -> list[float]:
    """How many came for each second, up to each of the moments; none before the first."""
    moments = zip(pairwise(values), pairwise(ago), strict=True)
    found = [
        max(now - before, 0) / (earlier - later) if earlier > later else 0.0
        for (before, now), (earlier, later) in moments
    ]
    # The last stretch, up to this very moment, may be too short to say much.
    if len(found) > 1 and ago[-2] - ago[-1] < 1:
        found[-1] = found[-2]
    return [0.0, *found]


def rate_now(values: Sequence[int], ago: Sequence[float]) -> float:
    """For each second, over the last seconds."""
    start = next(index for index, seconds in enumerate(ago) if seconds <= RATE_OVER)
    start = max(min(start, len(ago) - 2), 0)
    seconds = ago[start] - ago[-1]
    return max(values[-1] - values[start], 0) / seconds if seconds > 0 else 0.0


def plot(values: Sequence[float], ago: Sequence[float]) -> Plot:
    """The newest at the right edge, the highest at the top, nothing at the bottom."""
    most = max(values)
    scale = (HEIGHT - 3) / max(most, 1)
    points = [
        (WIDTH * (1 - min(seconds, SPAN) / SPAN), HEIGHT - 1.5 - value * scale)
        for value, seconds in zip(values, ago, strict=True)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{points[0][0]:.1f},{HEIGHT} {line} {points[-1][0]:.1f},{HEIGHT}"
    return Plot(line, area, most, values[-1])
