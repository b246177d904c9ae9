from __future__ import annotations

import asyncio
import logging

import pytest

from moorage.net.background import Tasks


async def test_whoever_waits_is_held_up_no_longer_than_the_work() -> None:
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    await asyncio.wait_for(Tasks(grace=60).start(work()), 5)
    assert done == [1]


async def test_whoever_waits_is_let_go_after_the_grace_and_the_work_goes_on() -> None:
    go_on, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        done.set()

    await Tasks(grace=0.01).start(work())
    assert not done.is_set()
    go_on.set()
    await asyncio.wait_for(done.wait(), 5)


async def test_nobody_has_to_wait() -> None:
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    Tasks().start(work())
    await asyncio.wait_for(done.wait(), 5)


async def test_the_end_cuts_off_what_still_runs() -> None:
    begun, cut_off = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()

    tasks = Tasks()
    tasks.start(work())
    await asyncio.wait_for(begun.wait(), 5)
    assert len(tasks) == 1
    await tasks.stop()
    assert cut_off.is_set()
    assert len(tasks) == 0


async def test_what_fails_is_logged_and_fails_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise ValueError("a bug")

    with caplog.at_level(logging.ERROR):
        await Tasks().start(work())
        await asyncio.sleep(0)  # the task's own callbacks
    assert "a bug" in caplog.text
