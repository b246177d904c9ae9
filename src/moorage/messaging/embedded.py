"""The promise `EventLog` kept by one process, in one folder.

Everything that waits is written at once: the first append schedules a commit a few turns of the event loop
later, the loop's thread numbers and encodes all that has come by then, a thread of its own writes and syncs,
and whoever arrives meanwhile joins the next commit. So a lone message costs one sync, and under load a sync
serves hundreds.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from math import inf
from queue import SimpleQueue

from moorage.errors import StorageFull, Unavailable
from moorage.interfaces import Clock, Done, EventHead, PartitionState, Start, StoredEvent
from moorage.messaging.event_format import EventTemplate
from moorage.messaging.files import Files
from moorage.messaging.journal import Append, Commit, Journal, PreparedEvent
from moorage.messaging.segment import Segment, write_index
from moorage.messaging.segment_format import LogUnusable, PartitionKey

COMMIT_BOUNDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, inf)  # seconds

# A commit costs some 200 µs of processor time, whether for ten messages or a hundred. So on a quick disk it waits
# for some turns of the event loop: no time when the loop is idle, and under load time for the devices that were just
# acknowledged to join with their next messages. On a slow disk nobody waits: the disk works while the loop does.
GATHER = 4  # turns
QUICK = 0.001  # seconds that a commit takes at most, the wait for the interpreter included

log = logging.getLogger("moorage.messaging")


@dataclass(slots=True)
class LogMetrics:
    """Counts since the start; `commit_buckets[i]` those of commits that took up to `COMMIT_BOUNDS[i]`."""

    events: int = 0
    bytes: int = 0
    commits: int = 0
    failed_commits: int = 0
    expired_segments: int = 0
    commit_seconds: float = 0.0
    commit_buckets: list[int] = field(default_factory=lambda: [0] * len(COMMIT_BOUNDS))

    def add(self, commit: Commit, seconds: float) -> None:
        self.events += commit.events
        self.bytes += len(commit.data)
        self.commits += 1
        self.commit_seconds += seconds
        self.commit_buckets[bisect_left(COMMIT_BOUNDS, seconds)] += 1


class EmbeddedEventLog:
    """Opened with `start`, on the thread of the event loop, where all calls belong; ended with `close`.

    `retention` and `max_size` (bytes) drop whole segments, the oldest first, whenever `expire` is called. A
    segment is closed when it has `segment_size` bytes or is `segment_age` old.
    """

    def __init__(
        self,
        files: Files,
        clock: Clock,
        *,
        retention: timedelta = timedelta(days=1),
        max_size: int | None = None,
        segment_size: int = 64 * 1024 * 1024,
        segment_age: timedelta = timedelta(hours=1),
    ) -> None:
        self.metrics = LogMetrics()
        self._files = files
        self._clock = clock
        self._retention = retention // timedelta(microseconds=1)
        self._max_size = max_size
        # A log that may be no larger than a segment could drop nothing but all.
        self._segment_size = segment_size if max_size is None else min(segment_size, max_size // 4)
        self._segment_age = min(segment_age, retention) // timedelta(microseconds=1)
        self._appends: deque[Append] = deque()
        self._watchers: dict[PartitionKey, list[Callable[[], None]]] = {}
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_open = False
        self._begin_due = False  # the next commit is made even without events, for a new segment
        self._is_failing = False  # the last commit failed
        self._idle = asyncio.Event()  # no commit is scheduled or on its way
        self._idle.set()

    def start(self) -> None:
        """Open the folder, or make it. Raises LogUnusable; str() of it says what to do."""
        self._loop = asyncio.get_running_loop()
        try:
            self._files.lock()
        except BlockingIOError as error:
            raise LogUnusable(f"the log in {self._files} is in use by another process") from error
        except OSError as error:
            raise self._unusable(error) from error
        try:
            self._journal = Journal(
                self._files,
                self._clock.now(),
                segment_size=self._segment_size,
                segment_age=self._segment_age,
            )
        except Exception as error:
            self._files.unlock()
            if isinstance(error, OSError):
                raise self._unusable(error) from error
            raise
        self._thread = threading.Thread(target=self._work, name="moorage-log", daemon=True)
        self._thread.start()
        self._is_open = True

    def _unusable(self, error: OSError) -> LogUnusable:
        return LogUnusable(f"the log in {self._files} cannot be opened: {error}")

    async def close(self) -> None:
        """Write what is waiting, then give the folder back. Without effect when not open."""
        while not self._idle.is_set():
            await self._idle.wait()
        if not self._is_open:
            return
        self._is_open = False
        self._jobs.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        self._journal.close()
        self._files.unlock()

    # --- Appending ---

    @property
    def waiting(self) -> int:
        """Appends that are in no commit yet."""
        return len(self._appends)

    def prepare(self, head: EventHead) -> PreparedEvent:
        return self._journal.partition((head.scope, head.partition)), EventTemplate(head)

    def append(self, events: Sequence[tuple[PreparedEvent, bytes]], done: Done) -> None:
        if not self._is_open:
            self._loop.call_soon(self._call, done, Unavailable("the log is closed"))
            return
        self._appends.append((events, done))
        self._schedule()

    async def settled(self) -> None:
        told = asyncio.Event()
        self.append((), lambda _error: told.set())
        await told.wait()

    def _schedule(self) -> None:
        if self._idle.is_set():
            self._idle.clear()
            self._gather(GATHER)

    def _gather(self, turns: int) -> None:
        """Commit when so many turns have passed."""
        if turns:
            self._loop.call_soon(self._gather, turns - 1)
        else:
            self._commit()

    def _commit(self) -> None:
        """Give the writer all that waits."""
        self._begin_due = False
        commit = self._journal.commit(self._clock.now())
        started = self._clock.monotonic()
        try:
            commit.fill(self._appends)
        except Exception as error:  # what a caller got wrong must not stop the log
            self._loop.call_soon(self._written, commit, started, error)
            return
        if commit.is_empty:
            self._loop.call_soon(self._written, commit, started, None)
        else:
            self._jobs.put(partial(self._write, commit, started))

    def _write(self, commit: Commit, started: float) -> None:
        """On the writer's thread."""
        failure: Exception | None = None
        try:
            self._journal.writer.write(commit)
        except Exception as error:
            failure = error
        self._loop.call_soon_threadsafe(self._written, commit, started, failure)

    def _written(self, commit: Commit, started: float, error: Exception | None) -> None:
        """Back on the loop's thread: tell who waited. A slow disk has the next commit before, a quick one after."""
        is_quick = self._clock.monotonic() - started < QUICK
        if error is None:
            self._publish(commit, started)
        else:
            error = self._discard(commit, error)  # from here on what to tell the callers
        if not is_quick:
            self._go_on(after=0)
        for done in commit.dones:
            self._call(done, error)
        if is_quick:
            self._go_on(after=GATHER)
        if error is None:
            for partition in commit.touched:
                for wake in tuple(self._watchers.get(partition.key, ())):
                    self._call(wake)

    def _go_on(self, *, after: int) -> None:
        """With the next commit so many turns later, if there is anything to commit."""
        if self._appends or self._begin_due:
            self._gather(after)
        else:
            self._idle.set()

    def _publish(self, commit: Commit, started: float) -> None:
        closed = self._journal.publish(commit)
        if closed is not None:
            self._jobs.put(partial(write_index, self._files, closed, closed.runs))
        if commit.is_empty:
            return
        self.metrics.add(commit, self._clock.monotonic() - started)
        if self._is_failing:
            self._is_failing = False
            log.info("log can be written again")

    def _discard(self, commit: Commit, error: Exception) -> Unavailable:
        self._journal.discard(commit)
        self.metrics.failed_commits += 1
        if not isinstance(error, OSError):
            log.error("commit failed", exc_info=error)
            return Unavailable(f"the events cannot be encoded: {error}")
        if not self._is_failing:
            self._is_failing = True
            log.error("log cannot be written", extra={"reason": str(error), "folder": str(self._files)})
        if error.errno in _NO_SPACE:
            return StorageFull("the disk takes no more events")
        return Unavailable(f"the log cannot be written: {error.strerror or error}")

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "callback of the event log failed", "exception": error}
            )

    def _work(self) -> None:
        """The writer's thread."""
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # the next commit needs this thread
                log.exception("job of the log failed")

    # --- Reading ---

    def find(self, scope: int, partition: int, start: Start) -> int:
        try:
            return self._journal.seek((scope, partition), start)
        except OSError as error:
            raise _unreadable(error) from error

    def read(self, scope: int, partition: int, cursor: int, *, limit: int) -> tuple[list[StoredEvent], int]:
        try:
            return self._journal.read((scope, partition), cursor, limit)
        except OSError as error:
            raise _unreadable(error) from error

    def watch(self, scope: int, partition: int, wake: Callable[[], None]) -> Callable[[], None]:
        watchers = self._watchers.setdefault((scope, partition), [])
        watchers.append(wake)

        def unwatch() -> None:
            if wake in watchers:
                watchers.remove(wake)

        return unwatch

    def state(self, scope: int, partition: int) -> PartitionState:
        return self._journal.state((scope, partition))

    # --- Retention ---

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return self._journal.size

    def expire(self) -> None:
        """Drop what is past retention. To be called about once a minute; a quiet log needs two calls."""
        now = self._clock.now()
        if self._journal.is_aged(now):
            self._begin_due = True
            self._schedule()
        dropped = self._journal.expire(now, retention=self._retention, max_size=self._max_size)
        if dropped:
            self.metrics.expired_segments += len(dropped)
            self._jobs.put(partial(self._remove, dropped))

    def _remove(self, segments: list[Segment]) -> None:
        """On the writer's thread."""
        try:
            self._journal.writer.remove(segments)
        except OSError as error:
            log.warning(
                "expired segment not removed", extra={"segment": segments[0].name, "reason": str(error)}
            )


_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def _unreadable(error: OSError) -> Unavailable:
    return Unavailable(f"the log cannot be read: {error.strerror or error}")
