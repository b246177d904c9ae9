"""What we count on of the event loops that there are."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from moorage.adapters.mqtt import TURNS


class Reader(asyncio.Protocol):
    """Acts on whatever comes."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def data_received(self, data: bytes) -> None:
        self._act()


async def test_after_a_stall_what_waits_is_read_within_so_many_turns() -> None:
    """The loop is held up within a read: behind that uvloop has timers first, and one round of callbacks."""
    loop = asyncio.get_running_loop()
    happened: list[str] = []
    judged = asyncio.Event()

    def judge(turns: int) -> None:
        if turns:
            loop.call_later(0, judge, turns - 1)
        else:
            happened.append("judged")
            judged.set()

    def hold_up() -> None:
        loop.call_later(0.001, judge, TURNS)
        device.send(b"PINGREQ")
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass

    device, its_end = socket.socketpair()
    other, other_end = socket.socketpair()
    with device, other:
        served = [
            await loop.connect_accepted_socket(lambda: Reader(lambda: happened.append("read")), its_end),
            await loop.connect_accepted_socket(lambda: Reader(hold_up), other_end),
        ]
        other.send(b"x")
        async with asyncio.timeout(10):
            await judged.wait()
        for transport, _ in served:
            transport.close()
        await asyncio.sleep(0)
    assert happened == ["read", "judged"]
