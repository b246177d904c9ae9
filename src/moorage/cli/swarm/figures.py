"""What a swarm has seen: counts, times, and why things failed."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from typing import Any

_BITS = 5  # of precision: a time is off by 1/64 at the most
_SIZE = 40 << _BITS  # up to 2^40 microseconds

PERCENTILES = (50, 90, 99, 99.9)


class Histogram:
    """Times in microseconds, kept in buckets that grow with the time, so that memory does not."""

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * _SIZE))
        self.count = 0
        self.longest = 0

    def add(self, microseconds: int) -> None:
        shift = microseconds.bit_length() - _BITS - 1
        if shift > 0:
            self._counts[(shift << _BITS) + (microseconds >> shift)] += 1
        else:
            self._counts[microseconds if microseconds > 0 else 0] += 1
        self.count += 1
        if microseconds > self.longest:
            self.longest = microseconds

    def percentile(self, percent: float) -> int | None:
        """Microseconds below which so many are, None without any."""
        if not self.count:
            return None
        left = self.count * percent / 100
        for bucket, count in enumerate(self._counts):
            left -= count
            if left <= 0 and count:
                return min(_middle(bucket), self.longest)
        raise AssertionError("the buckets hold fewer than were counted")

    def summary(self) -> dict[str, float | int | None]:
        """Milliseconds."""
        told: dict[str, float | int | None] = {"count": self.count}
        for percent in PERCENTILES:
            told[f"p{percent:g}"] = _milliseconds(self.percentile(percent))
        told["max"] = _milliseconds(self.longest if self.count else None)
        return told


def _middle(bucket: int) -> int:
    """Of the times in a bucket."""
    if bucket < 2 << _BITS:
        return bucket
    shift = (bucket >> _BITS) - 1
    return ((bucket - (shift << _BITS)) << shift) + (1 << shift >> 1)


def _milliseconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else round(microseconds / 1000, 3)


class Figures:
    """Counted since the start, but what stands in `sent`, `acknowledged` and `acknowledging`: those begin again with
    the hold, when all devices are there."""

    def __init__(self, devices: int) -> None:
        self.devices = devices
        self.begun = time.perf_counter()
        self.registering = Histogram()
        self.connecting = Histogram()
        self.acknowledging = Histogram()
        self.registered = 0
        self.connected = 0  # now
        self.connections = 0  # ever
        self.under_way = 0
        self.lost = 0
        self.sent = 0
        self.acknowledged = 0
        self.failures: Counter[tuple[str, str]] = Counter()
        self.hold_begun: float | None = None
        self.ramp_seconds: float | None = None
        self.hold_seconds: float | None = None
        self._cpu = time.process_time()
        self._cpu_of_ramp: float | None = None
        self._cpu_of_hold: float | None = None

    def failed(self, stage: str, reason: str) -> None:
        self.failures[stage, reason] += 1

    def begin_hold(self, now: float) -> None:
        self.hold_begun, self.ramp_seconds = now, now - self.begun
        self._cpu_of_ramp, self._cpu = time.process_time() - self._cpu, time.process_time()
        self.sent = self.acknowledged = 0
        self.acknowledging = Histogram()

    def end_hold(self, now: float) -> None:
        if self.hold_begun is None:
            self.begin_hold(now)
        assert self.hold_begun is not None
        self.hold_seconds = now - self.hold_begun
        self._cpu_of_hold = time.process_time() - self._cpu

    def summary(self) -> dict[str, Any]:
        """Seconds, milliseconds where a time is measured, and shares of one processor core."""
        ramp, hold = self.ramp_seconds, self.hold_seconds
        return {
            "devices": self.devices,
            "connected": self.connected,
            "registered": self.registered,
            "connections": self.connections,
            "lost": self.lost,
            "rampSeconds": _rounded(ramp),
            "connectionsPerSecond": _per_second(self.connecting.count, ramp),
            "holdSeconds": _rounded(hold),
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "acknowledgedPerSecond": _per_second(self.acknowledged, hold),
            "registrationMilliseconds": self.registering.summary(),
            "connectionMilliseconds": self.connecting.summary(),
            "acknowledgementMilliseconds": self.acknowledging.summary(),
            "failures": [
                {"stage": stage, "reason": reason, "count": count}
                for (stage, reason), count in self.failures.most_common()
            ],
            "ownCoreWhileRamping": _share(self._cpu_of_ramp, ramp),
            "ownCoreWhileHolding": _share(self._cpu_of_hold, hold),
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _per_second(count: int, seconds: float | None) -> float | None:
    return round(count / seconds, 1) if seconds else None


def _share(cpu: float | None, seconds: float | None) -> float | None:
    return round(cpu / seconds, 2) if cpu is not None and seconds else None
