"""All devices of a swarm: who starts when, who sends when, who comes back."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from moorage.cli.swarm.device import Device, Member, Registration, message_template
from moorage.cli.swarm.figures import Figures
from moorage.cli.swarm.links import Server, Tls
from moorage.errors import MoorageError

TICK = 0.002  # seconds from one look at what is due to the next
PATIENCE = 60.0  # seconds for a registration or a connection
PING_AFTER = 120.0  # seconds of silence
LONGEST_PAUSE = 60.0  # seconds before another try
LAST_ACKNOWLEDGEMENTS = 10.0  # seconds to wait for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`ramp` is in devices a second, `rate` in messages a second of the whole swarm, None as fast as they are
    acknowledged; `duration` is in seconds, None until stopped."""

    ramp: float
    rate: float | None
    duration: float | None
    message_size: int
    in_flight: int
    under_way: int
    come_back: bool = True


class Crowd:
    """`run` it once. The figures go on changing meanwhile, for whoever looks."""

    def __init__(
        self,
        members: Sequence[Member],
        pace: Pace,
        tls: Tls,
        hubs: dict[str, Server],
        registration: Registration | None,
    ) -> None:
        """`hubs` are the verified ones by host; without a registration all devices go to the first."""
        self.tls = tls
        self.figures = Figures(len(members))
        self.template = message_template(pace.message_size)
        self.in_flight = pace.in_flight
        self.registration = registration
        self._pace = pace
        self._hubs = hubs
        self.connected_at_the_end = 0
        self._stopped = asyncio.Event()
        self._devices = [Device(member, self, next(iter(hubs))) for member in members]
        self._starting = deque(self._devices)
        self._again: list[tuple[float, int, Device]] = []  # by the time of the next try
        self._due: list[tuple[float, int, Device]] = []  # by the time of the next message
        self._order = itertools.count()
        self._under_way: set[Device] = set()
        self._not_tried_yet = set(self._devices)
        self._all_there = asyncio.Event()
        self._sending = True
        self._interval = len(members) / pace.rate if pace.rate else 0.0
        self._random = random.Random(0)

    def stop(self) -> None:
        """End the run early, in order."""
        self._stopped.set()
        self._all_there.set()

    async def run(self) -> None:
        ticking = asyncio.create_task(self._tick())
        try:
            await self._or_failed(ticking, self._all_there.wait())
            self.figures.begin_hold(time.perf_counter())
            await self._or_failed(ticking, self._hold())
            self._sending = False
            self.figures.end_hold(time.perf_counter())
            await self._or_failed(ticking, self._last_acknowledgements())
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            self.connected_at_the_end = self.figures.connected
            await self._leave()

    # --- what the devices ask and tell

    def hub(self, host: str) -> Server:
        if host not in self._hubs:
            raise MoorageError(f"assigned to {host}, which is not the hub of this swarm")
        return self._hubs[host]

    def ready(self, device: Device) -> None:
        self._settled(device)
        if not self._sending:
            return
        now = time.perf_counter()
        if self._pace.rate is None:
            for _ in range(self.in_flight):
                device.send(now, now)
        elif self._interval:
            # Somewhere in its interval, or all devices would send at once.
            self._push(self._due, now + self._random.random() * self._interval, device)

    def acknowledged(self, device: Device) -> None:
        if self._pace.rate is None and self._sending:
            now = time.perf_counter()
            device.send(now, now)

    def ended(self, device: Device, *, was_ready: bool) -> None:
        if not was_ready:
            self._settled(device)
        if self._pace.come_back and not self._stopped.is_set():
            pause = min(2.0**device.attempts, LONGEST_PAUSE) * (0.5 + self._random.random() / 2)
            self._push(self._again, time.perf_counter() + pause, device)

    def _settled(self, device: Device) -> None:
        """Its try is over, well or not."""
        self._under_way.discard(device)
        self._not_tried_yet.discard(device)
        if not self._not_tried_yet:
            self._all_there.set()

    # --- what is due

    async def _tick(self) -> None:
        begun = swept = time.perf_counter()
        while True:
            now = time.perf_counter()
            self._start_who_is_due(int((now - begun) * self._pace.ramp) + 1)
            self._try_again(now)
            self._send_what_is_due(now)
            if now - swept >= 1:
                swept = now
                self._sweep(now)
            await asyncio.sleep(TICK)

    def _start_who_is_due(self, number: int) -> None:
        """So that `number` devices have been started in all; no more than may be under way."""
        while (
            self._starting
            and len(self._devices) - len(self._starting) < number
            and len(self._under_way) < self._pace.under_way
        ):
            self._start(self._starting.popleft())

    def _try_again(self, now: float) -> None:
        while self._again and self._again[0][0] <= now and len(self._under_way) < self._pace.under_way:
            self._start(heapq.heappop(self._again)[2])

    def _start(self, device: Device) -> None:
        self._under_way.add(device)
        device.start()

    def _send_what_is_due(self, now: float) -> None:
        due = self._due
        while due and due[0][0] <= now:
            moment, order, device = due[0]
            if not (device.is_ready and self._sending):
                heapq.heappop(due)  # it starts anew when it is back
                continue
            device.send(moment, now)
            heapq.heapreplace(due, (moment + self._interval, order, device))

    def _sweep(self, now: float) -> None:
        for device in [each for each in self._under_way if now - each.waits_since > PATIENCE]:
            device.give_up(f"no answer within {PATIENCE:g} s")
        for device in self._devices:
            if device.is_ready and now - device.spoke_at > PING_AFTER:
                device.ping(now)

    def _push(self, heap: list[tuple[float, int, Device]], moment: float, device: Device) -> None:
        heapq.heappush(heap, (moment, next(self._order), device))

    # --- the course of things

    async def _hold(self) -> None:
        try:
            async with asyncio.timeout(self._pace.duration):
                await self._stopped.wait()
        except TimeoutError:
            pass

    async def _last_acknowledgements(self) -> None:
        deadline = time.perf_counter() + LAST_ACKNOWLEDGEMENTS
        while any(device.unacknowledged for device in self._devices):
            if time.perf_counter() > deadline:
                left = sum(len(device.unacknowledged) for device in self._devices)
                self.figures.failures["sending", "no acknowledgement at the end"] += left
                return
            await asyncio.sleep(0.05)

    async def _leave(self) -> None:
        self._stopped.set()
        for number, device in enumerate(self._devices, 1):
            device.leave()
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.1)  # for what was written last

    @staticmethod
    async def _or_failed(ticking: asyncio.Task[None], doing: Coroutine[Any, Any, object]) -> None:
        """Wait, unless the ticking breaks first."""
        waiting = asyncio.create_task(doing)
        done, _ = await asyncio.wait((ticking, waiting), return_when=asyncio.FIRST_COMPLETED)
        if ticking in done:
            waiting.cancel()
            ticking.result()
