"""Queries as back ends ask them: Microsoft's `azure-iot-hub`, `azure-iothub` for Node, and `moorage hub query`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.models import QuerySpecification  # type: ignore[import-untyped]
from msrest.exceptions import HttpOperationError

from tests.conftest import RunningServer
from tests.support.commands import moorage, refusal, said
from tests.support.node_worker import BackEnd, NodeError, NodeWorker
from tests.support.services import Hub

pytestmark = pytest.mark.clients


@pytest.fixture
def registry(env: Mapping[str, str]) -> IoTHubRegistryManager:
    return IoTHubRegistryManager.from_connection_string(env["IOTHUB_CONNECTION_STRING"])


@pytest.fixture
def fleet(hub: Hub, device_id: str) -> list[str]:
    """Five devices, one in three at the south, that share the tag `fleet`."""
    items = [
        {
            "id": f"{device_id}-{number}",
            "importMode": "create",
            "tags": {"fleet": device_id, "site": "north" if number % 3 else "south"},
            "properties": {"desired": {"period": number}},
        }
        for number in range(5)
    ]
    answer = hub.call("POST", "/devices", items)
    assert answer.status == 200, answer
    return [str(item["id"]) for item in items]


def of_fleet(device_id: str, select: str = "*") -> str:
    return f"SELECT {select} FROM devices WHERE tags.fleet = '{device_id}'"


def test_the_python_client_walks_through_the_pages(
    registry: IoTHubRegistryManager, device_id: str, fleet: list[str]
) -> None:
    seen: list[str] = []
    sizes: list[int] = []
    continuation = None
    while True:
        page = registry.query_iot_hub(QuerySpecification(query=of_fleet(device_id)), continuation, 2)
        sizes.append(len(page.items))
        seen += [twin.device_id for twin in page.items]
        continuation = page.continuation_token
        if not continuation:
            break
    assert (seen, sizes) == (fleet, [2, 2, 1])


def test_the_python_client_sees_what_was_just_written(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str, fleet: list[str]
) -> None:
    for number in range(10):
        item = {"id": fleet[0], "importMode": "updateTwin", "tags": {"round": number}}
        assert hub.call("POST", "/devices", [item]).status == 200
        text = f"SELECT * FROM devices WHERE tags.fleet = '{device_id}' AND tags.round = {number}"
        page = registry.query_iot_hub(QuerySpecification(query=text))
        assert [twin.device_id for twin in page.items] == [fleet[0]]
        assert page.items[0].tags["round"] == number


def test_the_python_client_is_told_what_is_wrong(registry: IoTHubRegistryManager) -> None:
    with pytest.raises(HttpOperationError) as raised:
        registry.query_iot_hub(QuerySpecification(query="SELECT * FROM devices WHERE"))
    assert raised.value.response.status_code == 400
    assert raised.value.response.headers["iothub-errorcode"] == "ArgumentInvalid"
    assert "Line 1:28 expected a property" in raised.value.response.text


@pytest.mark.node
@pytest.mark.port443
def test_the_node_client_walks_through_the_pages(
    worker: NodeWorker, env: Mapping[str, str], device_id: str, fleet: list[str]
) -> None:
    client = BackEnd(worker, "registry", env["IOTHUB_CONNECTION_STRING"])
    pages = client.pages("createQuery", of_fleet(device_id), 2)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [twin["deviceId"] for page in pages for twin in page] == fleet
    assert client.pages("createQuery", "SELECT * FROM devices WHERE deviceId = 'nobody'", 2) == [[]]
    grouped = f"{of_fleet(device_id, 'tags.site, COUNT() AS n')} GROUP BY tags.site"
    assert client.pages("createQuery", grouped, 10) == [
        [{"site": "north", "n": 3}, {"site": "south", "n": 2}]
    ]
    with pytest.raises(NodeError) as raised:
        client.pages("createQuery", "SELECT FROM devices", 10)
    assert raised.value.status == 400


def test_a_query_on_the_command_line(server: RunningServer, device_id: str, fleet: list[str]) -> None:
    def ask(text: str, *options: str) -> Any:
        return said(moorage(server, "hub", "query", "--query-command", text, *options))

    assert [twin["deviceId"] for twin in ask(of_fleet(device_id))] == fleet
    assert ask(of_fleet(device_id, "deviceId"), "--top", "2") == [{"deviceId": name} for name in fleet[:2]]
    assert ask("select count() as n from devices where deviceId = 'nobody'") == [{"n": 0}]


def test_a_table_of_a_query(server: RunningServer, device_id: str, fleet: list[str]) -> None:
    grouped = f"{of_fleet(device_id, 'tags.site, COUNT() AS n')} GROUP BY tags.site"
    done = moorage(server, "hub", "query", "-q", grouped, "-o", "table")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["site", "n"],
        ["north", "3"],
        ["south", "2"],
    ]
    done = moorage(server, "hub", "query", "-q", of_fleet(device_id), "-o", "table", "--top", "1")
    heading, row = done.stdout.splitlines()
    assert heading.split()[:2] == ["DEVICE", "ID"]
    assert row.split()[:2] == [fleet[0], "enabled"]


def test_a_wrong_query_on_the_command_line(server: RunningServer) -> None:
    told = refusal(moorage(server, "hub", "query", "-q", "select * from devices where tags.a = "))
    assert "Line 1:38 expected a property, a constant or a function, found the end of the query" in told
