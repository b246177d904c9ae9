"""Work that goes on behind its caller: tasks that are kept, watched, and cut off when the server stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any

log = logging.getLogger("moorage.net.background")

GRACE = 0.2  # seconds that a caller may wait for the end of what it began


class _Grace(Awaitable[None]):
    """The end of a task, or of the grace; nothing happens when nobody waits for it."""

    def __init__(self, task: asyncio.Task[None], seconds: float) -> None:
        self._task = task
        self._seconds = seconds

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        await asyncio.wait([self._task], timeout=self._seconds)


class Tasks:
    """A `Background`."""

    def __init__(self, *, grace: float = GRACE) -> None:
        self._grace = grace
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return _Grace(task, self._grace)

    def __len__(self) -> int:
        """How many still run."""
        return len(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work in the background failed", exc_info=error)

    async def stop(self) -> None:
        """Cut off what still runs, and wait until it has let go."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
