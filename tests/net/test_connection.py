from __future__ import annotations

import asyncio

import pytest

from moorage.net.connection import Admission, Door, PlainConnection
from tests.net.test_stream import Pipe


def opened(*, max_connections: int = 10, max_per_address: int | None = None) -> Door:
    return Door(
        "door",
        asyncio.Protocol,
        Admission(max_connections, max_per_address),
        handshake_timeout=1.0,
        close_timeout=1.0,
    )


def arrive(door: Door) -> tuple[PlainConnection, Pipe]:
    connection, pipe = PlainConnection(door), Pipe()
    connection.connection_made(pipe)
    return connection, pipe


async def test_who_comes_to_a_closed_door_is_turned_away() -> None:
    door = opened()
    door.closed = True

    connection, pipe = arrive(door)
    connection.connection_lost(None)

    assert pipe.ended == "aborted"
    assert (door.admission.counters.accepted, door.open) == (0, set())


@pytest.mark.parametrize("limits", [{"max_connections": 1}, {"max_per_address": 1}])
async def test_a_place_is_free_again_once_a_connection_is_lost(limits: dict[str, int]) -> None:
    door = opened(**limits)
    first, _ = arrive(door)
    second, pipe = arrive(door)
    assert pipe.ended == "aborted"
    second.connection_lost(None)
    assert not door.emptied.is_set()

    first.connection_lost(None)

    assert door.emptied.is_set()
    assert arrive(door)[1].ended == ""
    assert (door.admission.counters.accepted, door.admission.counters.refused) == (2, 1)


async def test_closing_ends_our_half_and_waits_for_theirs() -> None:
    connection, pipe = arrive(opened())
    connection.pause_reading()

    connection.close()
    connection.write(b"late")

    assert (pipe.ended, pipe.written, pipe.reading) == ("half", [], True)
    assert not connection.eof_received()  # the raw transport closes then
    connection.connection_lost(None)


async def test_a_connection_that_was_reset_meanwhile_is_not_waited_for() -> None:
    class Reset(Pipe):
        def write_eof(self) -> None:
            raise OSError("not connected")

    connection, pipe = PlainConnection(opened()), Reset()
    connection.connection_made(pipe)

    connection.close()

    assert pipe.ended == "aborted"
