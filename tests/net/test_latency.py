from __future__ import annotations

import asyncio

from moorage.net.latency import Latencies, Place, connect_time

FAR, FARTHER = Place(1, "far.example.net", 443), Place(2, "farther.example.net", 443)


async def test_a_connection_is_timed_and_let_go() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionError:
            pass
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        found = await connect_time("127.0.0.1", server.sockets[0].getsockname()[1])
        await asyncio.wait_for(ended.wait(), 5)
    finally:
        server.close()
    assert found is not None
    assert 0 <= found < 3000


async def test_where_nobody_listens_there_is_nothing_to_measure(unused_tcp_port: int) -> None:
    assert await connect_time("127.0.0.1", unused_tcp_port) is None
    assert await connect_time("no-such-host.invalid", 443, tries=1) is None


class Weather:
    """Tells the times that the test sets, and which places there are."""

    def __init__(self) -> None:
        self.places = [FAR, FARTHER]
        self.times: dict[str, float | None] = {FAR.host: 20.0, FARTHER.host: 80.0}
        self.latencies = Latencies(self.where, self.measure)

    async def where(self) -> list[Place]:
        return self.places

    async def measure(self, host: str, port: int) -> float | None:
        return self.times[host]


async def test_what_was_measured_is_known_from_then_on() -> None:
    weather = Weather()
    known = weather.latencies.known
    assert known == {}
    await weather.latencies.look()
    assert known == {1: 20.0, 2: 80.0}


async def test_what_is_here_is_no_way_away() -> None:
    weather = Weather()
    weather.places = [FAR, Place(3, "not measured", 443, here=True)]
    await weather.latencies.look()
    assert weather.latencies.known == {1: 20.0, 3: 0.0}


async def test_it_goes_on_looking() -> None:
    weather = Weather()
    task = asyncio.create_task(weather.latencies.keep_looking(0.001))
    try:
        for expected in (20.0, 500.0):
            weather.times[FAR.host] = expected
            for _ in range(500):
                if weather.latencies.known.get(1) == expected:
                    break
                await asyncio.sleep(0.01)
            assert weather.latencies.known[1] == expected
    finally:
        task.cancel()


async def test_small_changes_are_passed_over_so_that_devices_stay_where_they_are() -> None:
    weather = Weather()
    await weather.latencies.look()
    weather.times = {FAR.host: 23.9, FARTHER.host: 97.0}
    await weather.latencies.look()
    assert weather.latencies.known == {1: 20.0, 2: 97.0}


async def test_a_place_that_does_not_answer_keeps_what_was_known_and_one_that_is_gone_does_not() -> None:
    weather = Weather()
    await weather.latencies.look()
    weather.times[FAR.host] = None
    weather.places = [FAR]
    await weather.latencies.look()
    assert weather.latencies.known == {1: 20.0}
