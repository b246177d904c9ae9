"""How often a service may be asked: Azure's rates, kept where the operator wants them [dps 19].

A rate is a bucket of tokens that fills again at that rate: whoever was quiet may ask many times at once. Counted is
only what was let in, so that nobody uses up what is somebody else's.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from moorage.errors import Throttled
from moorage.interfaces import Clock

MAX_DEVICES = 100_000  # whose polls are counted; the one that has been quiet for longest is forgotten first


class Rate(NamedTuple):
    """So many times in so many seconds."""

    times: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """None: as often as anybody likes. `polls` is a rate for each device, the others are for the whole service."""

    registrations: Rate | None = None
    service_operations: Rate | None = None
    polls: Rate | None = None


NO_LIMITS = RateLimits()
AZURE_LIMITS = RateLimits(registrations=Rate(1000, 60), service_operations=Rate(1000, 60), polls=Rate(5, 10))


class Bucket:
    """What may still be asked under one rate."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate.times)
        self._at = now

    def take(self, now: float, what: str) -> None:
        """Take a token; `now` is in seconds. Raises Throttled with the time until there is one."""
        per_second = self._rate.times / self._rate.seconds
        self._tokens = min(self._rate.times, self._tokens + (now - self._at) * per_second)
        self._at = now
        if self._tokens < 1:
            raise Throttled(
                f"more than {self._rate.times} {what} in {self._rate.seconds} seconds",
                retry_after=math.ceil((1 - self._tokens) / per_second),
            )
        self._tokens -= 1


class Throttle:
    """The rates of one service. Every verb raises Throttled when it is asked for too often."""

    def __init__(self, limits: RateLimits, clock: Clock) -> None:
        self._clock = clock
        now = clock.monotonic()
        self._registrations = Bucket(limits.registrations, now) if limits.registrations else None
        self._service_operations = (
            Bucket(limits.service_operations, now) if limits.service_operations else None
        )
        self._poll_rate = limits.polls
        self._polls: OrderedDict[str, Bucket] = OrderedDict()  # the device that polled last comes last

    def registration(self) -> None:
        if self._registrations is not None:
            self._registrations.take(self._clock.monotonic(), "registrations")

    def service_operation(self) -> None:
        if self._service_operations is not None:
            self._service_operations.take(self._clock.monotonic(), "service operations")

    def poll(self, registration_id: str) -> None:
        if self._poll_rate is None:
            return
        key, now = registration_id.lower(), self._clock.monotonic()
        bucket = self._polls.get(key)
        if bucket is None:
            bucket = self._polls[key] = Bucket(self._poll_rate, now)
            if len(self._polls) > MAX_DEVICES:
                self._polls.popitem(last=False)
        self._polls.move_to_end(key)
        bucket.take(now, "polls of one device")
