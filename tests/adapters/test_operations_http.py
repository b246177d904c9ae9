"""Alive, ready, and counted."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from moorage.adapters.http import HttpAdapter
from moorage.adapters.operations_http import Measure, OperationsHttp
from tests.support.asgi import Caller


class Server:
    """What the operations face asks."""

    def __init__(self) -> None:
        self.ready = False
        self.measures: list[Measure] = []
        operations = OperationsHttp(ready=lambda: self.ready, measures=lambda: self.measures)
        self.caller = Caller(HttpAdapter(operations, otherwise=operations))


@pytest.fixture
def server() -> Server:
    return Server()


async def test_alive_and_ready_are_two_things(server: Server) -> None:
    alive = await server.caller.call("GET", "/healthz", query="")
    ready = await server.caller.call("GET", "/readyz", query="")
    assert (alive.status, alive.body) == (200, b"alive\n")
    assert (ready.status, ready.body) == (503, b"not ready\n")
    server.ready = True
    assert (await server.caller.call("GET", "/readyz/")).status == 200
    assert (await server.caller.call("HEAD", "/readyz")).status == 200


async def test_measures_as_prometheus_reads_them(server: Server) -> None:
    server.measures = [
        Measure("connections", "Open now", 3, {"door": "mqtt"}),
        Measure("log_events_total", "Made durable", 17),
        Measure("connections", "Open now", 2, {"door": 'a"b\\c\n'}),
    ]
    answer = await server.caller.call("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    connections, events = families["moorage_connections"], families["moorage_log_events"]
    assert (connections.type, connections.documentation) == ("gauge", "Open now")
    assert {each.labels["door"]: each.value for each in connections.samples} == {"mqtt": 3, 'a"b\\c\n': 2}
    assert events.type == "counter"
    assert [(each.name, each.value) for each in events.samples] == [("moorage_log_events_total", 17)]


async def test_measures_are_taken_when_they_are_asked_for(server: Server) -> None:
    assert (await server.caller.call("GET", "/metrics")).body == b""
    server.measures = [Measure("devices_connected", "Now", 1)]
    assert b"moorage_devices_connected 1.0" in (await server.caller.call("GET", "/metrics")).body


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("GET", "/devices", None, 404),
        ("GET", "/healthz/more", None, 404),
        ("GET", "/%FF", None, 400),
        ("POST", "/healthz", None, 405),
        ("DELETE", "/metrics", None, 405),
        ("GET", "/healthz", {"a": 1}, 413),
    ],
)
async def test_everything_else(server: Server, method: str, path: str, body: object, status: int) -> None:
    answer = await server.caller.call(method, path, body)
    assert answer.status == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers.get("allow") == ("GET, HEAD" if status == 405 else None)
    assert answer.body.endswith(b"\n")


async def test_a_measure_that_fails(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.measures = [Measure("a", "A", 1, {"x": "1"}), Measure("a", "A", 1, {"y": "1"})]
    assert (await server.caller.call("GET", "/metrics")).status == 500
    assert "request failed" in caplog.text
