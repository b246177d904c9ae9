"""Waiting for what another part of the program brings, with a limit in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from moorage.interfaces import Timer

V = TypeVar("V")

CallLater = Callable[[float, Callable[[], None]], Timer]


class _Expected(Generic[V]):
    def __init__(self, call_later: CallLater) -> None:
        self._call_later = call_later
        self._brought: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()

    @property
    def open(self) -> bool:
        return not self._brought.done()

    def bring(self, value: V) -> None:
        self._end(value)

    async def within(self, seconds: float) -> V | None:
        timer = self._call_later(seconds, lambda: self._end(None))
        try:
            return await self._brought
        finally:
            timer.cancel()

    def _end(self, value: V | None) -> None:
        if not self._brought.done():
            self._brought.set_result(value)


class LoopWaiting:
    """A `Waiting` by the event loop's own time, which no offset of the clock shifts."""

    def __init__(self, call_later: CallLater | None = None) -> None:
        self._call_later = call_later or asyncio.get_running_loop().call_later

    def expect(self) -> _Expected[object]:
        return _Expected(self._call_later)
