"""Waiting for what somebody else brings."""

from __future__ import annotations

import asyncio

from moorage.net.waiting import LoopWaiting
from tests.support.streams import ManualTime


async def test_what_is_brought_ends_the_wait() -> None:
    time = ManualTime()
    expected = LoopWaiting(time.call_later).expect()
    waiting = asyncio.create_task(expected.within(5))
    await asyncio.sleep(0)
    time.advance(4)
    assert expected.open
    expected.bring("first")
    expected.bring("second")
    assert not expected.open
    assert await waiting == "first"
    time.advance(9)


async def test_what_was_brought_before_anybody_waits() -> None:
    expected = LoopWaiting().expect()
    expected.bring("early")
    assert await expected.within(60) == "early"


async def test_the_time_is_over() -> None:
    time = ManualTime()
    expected = LoopWaiting(time.call_later).expect()
    waiting = asyncio.create_task(expected.within(5))
    await asyncio.sleep(0)
    time.advance(5)
    expected.bring("late")
    assert not expected.open
    assert await waiting is None


async def test_by_the_time_of_the_loop() -> None:
    assert await LoopWaiting().expect().within(0) is None


async def test_who_gives_up_leaves_no_timer() -> None:
    time = ManualTime()
    expected = LoopWaiting(time.call_later).expect()
    waiting = asyncio.create_task(expected.within(5))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not expected.open
    expected.bring("late")
    time.advance(5)
