"""Queries over REST, page by page, through the whole ASGI application. [hub-service 7, 8]"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from moorage.hub.query import search
from moorage.hub.session import Principal, Session
from moorage.store import twin_search
from tests.support.asgi import Answer, Caller
from tests.support.sessions import ClosingLink
from tests.support.site import Site

Items = list[dict[str, Any]]


@pytest.fixture
def owner(site: Site) -> Caller:
    return Caller(site.service_api(), token=site.token())


async def ask(owner: Caller, text: object, headers: Mapping[str, str] | None = None) -> Answer:
    return await owner.call("POST", "/devices/query", {"query": text}, headers)


async def rows(owner: Caller, text: str) -> Items:
    answer = await ask(owner, text)
    assert answer.status == 200, answer.body
    items: Items = answer.json()
    return items


async def walk(owner: Caller, text: str, size: int) -> list[Items]:
    """Every page. As Node does, asks again while there is a continuation, an empty one too."""
    pages, headers = [], {"x-ms-max-item-count": str(size)}
    while True:
        answer = await ask(owner, text, headers)
        assert answer.status == 200, answer.body
        pages.append(answer.json())
        if "x-ms-continuation" not in answer.headers:
            return pages
        headers["x-ms-continuation"] = answer.headers["x-ms-continuation"]


async def add(site: Site, device_id: str, tags: Any = None, desired: Any = None, **settings: Any) -> None:
    await site.add_device(device_id, **settings)
    patch = {"tags": tags or {}, "properties": {"desired": desired or {}}}
    await site.identities.patch_twin(device_id, patch)


async def fleet(site: Site, count: int) -> None:
    for number in range(count):
        await add(site, f"d{number:03}", {"site": "north" if number % 3 else "south", "n": number})


async def test_whole_twins_are_as_the_twin_routes_show_them(site: Site, owner: Caller) -> None:
    await add(site, "pump-7", {"site": "north"}, {"period": 5})
    answer = await ask(owner, "SELECT * FROM devices")
    twin = await owner.call("GET", "/twins/pump-7")
    assert answer.json() == [twin.json()]
    assert answer.headers["x-ms-item-type"] == "Twin"
    assert "x-ms-continuation" not in answer.headers, "one would make Node ask for ever"


async def test_an_empty_answer_is_an_empty_array(owner: Caller) -> None:
    answer = await ask(owner, "select * from devices where deviceId = 'nobody'")
    assert (answer.status, answer.json()) == (200, [])
    assert answer.headers["x-ms-item-type"] == "Twin"
    assert "x-ms-continuation" not in answer.headers


async def test_projections(site: Site, owner: Caller) -> None:
    await add(site, "pump-7", {"site": "north", "at": {"floor": 2}}, {"period": 5})
    answer = await ask(
        owner,
        "SELECT DEVICEID, Status, tags.site, tags.at.floor AS level, tags.none, properties.desired.$version, "
        "properties.desired.period / 2, lower('A') AS small, capabilities.iotEdge, statusReason FROM devices",
    )
    assert answer.headers["x-ms-item-type"] == "Raw"
    assert answer.json() == [
        {
            "deviceId": "pump-7",
            "status": "enabled",
            "site": "north",
            "level": 2,
            "$version": 2,
            "$1": 2.5,
            "small": "a",
            "iotEdge": False,
            "statusReason": None,
        }
    ]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("tags.n >= 2", "cd"),
        ("tags.n = 2.0", "c"),
        ("tags.n = '2'", ""),
        ("tags.n != '2'", ""),
        ("NOT tags.n = '2'", ""),
        ("tags.site != 'north'", "bd"),
        ("tags.none != 'x'", ""),
        ("NOT tags.none = 'x'", ""),
        ("is_defined(tags.none)", ""),
        ("NOT is_defined(tags.site)", ""),
        ("tags.up", "a"),
        ("tags.up = false", "b"),
        ("tags.up = 1", ""),
        ("tags.SITE = 'north'", ""),
        ("TAGS.site = 'NORTH'", ""),
        ("tags.site in ['north'] AND deviceId NIN ['a']", "c"),
        ("tags.n IN [0, 1, '2']", "ab"),
        ("tags.n < 1 OR tags.n > 2", "ad"),
        ("(tags.n + 1) * 2 = 8", "d"),
        ("tags.n % 2 = 1", "bd"),
        ("tags.n / 0 = 1", ""),
        ("statusReason = null", "abcd"),
        ("deviceScope = null", ""),
        ("tags.list = tags.list", ""),
        ("array_contains(tags.list, 2)", "a"),
        ("tags.n IN tags.list", "b"),
        ("tags.list[0] = 1", "ab"),
        ("startswith(tags.site, 'so') or endswith(tags.site, 'xx') or contains(deviceId, 'a')", "abd"),
        ("properties.desired.$metadata.$lastUpdated > '2020'", "abcd"),
        ("tags.[[odd key-1]] = 1", ""),
        ("deviceId > 'b'", "cd"),
        ("length(deviceId) = 1 and upper(tags.site) = 'NORTH'", "ac"),
    ],
)
async def test_conditions(site: Site, owner: Caller, condition: str, found: str) -> None:
    await add(site, "a", {"site": "north", "n": 0, "up": True, "list": [1, 2]})
    await add(site, "b", {"site": "south", "n": 1, "up": False, "list": [1, "2"]})
    await add(site, "c", {"site": "north", "n": 2})
    await add(site, "d", {"site": "south", "n": 3})
    answer = await rows(owner, f"SELECT deviceId FROM devices WHERE {condition}")
    assert "".join(row["deviceId"] for row in answer) == found


async def test_children_are_found_by_the_scope_of_their_parent(site: Site, owner: Caller) -> None:
    """[hub-service 5.3]"""
    gateway = await owner.call("PUT", "/devices/gw", {"deviceId": "gw", "capabilities": {"iotEdge": True}})
    scope = gateway.json()["deviceScope"]
    await owner.call("PUT", "/devices/leaf", {"deviceId": "leaf", "deviceScope": scope})
    condition = f"array_contains(parentScopes, '{scope}')"
    assert await rows(owner, f"select deviceId from devices where {condition}") == [{"deviceId": "leaf"}]
    edge = await rows(owner, "select deviceId from devices where capabilities.iotEdge = true")
    assert edge == [{"deviceId": "gw"}]
    agents = "select deviceId, moduleId from devices.modules where moduleId = '$edgeAgent'"
    assert await rows(owner, agents) == [{"deviceId": "gw", "moduleId": "$edgeAgent"}]
    of_one = await rows(owner, "select * from devices.modules where devices.deviceId = 'gw'")
    assert [twin["moduleId"] for twin in of_one] == ["$edgeAgent", "$edgeHub"]
    assert of_one[0] == (await owner.call("GET", "/twins/gw/modules/$edgeAgent")).json()
    assert await rows(owner, "select * from devices.modules where devices.deviceId = 'leaf'") == []


async def test_who_is_connected_can_be_asked(site: Site, owner: Caller) -> None:
    await fleet(site, 3)
    site.sessions.open(
        Session(Principal("d001", "1", "device", "sas"), site.time.now(), ClosingLink(), model_id="dtmi:x;1")
    )
    connected = "SELECT deviceId FROM devices WHERE connectionState = 'Connected'"
    assert await rows(owner, connected) == [{"deviceId": "d001"}]
    by_model = "SELECT deviceId FROM devices WHERE modelId = 'dtmi:x;1' AND lastActivityTime > '2000'"
    assert await rows(owner, by_model) == [{"deviceId": "d001"}]
    by_state = "SELECT connectionState, COUNT() AS n FROM devices GROUP BY connectionState"
    assert await rows(owner, by_state) == [
        {"connectionState": "Connected", "n": 1},
        {"connectionState": "Disconnected", "n": 2},
    ]
    by_model = "SELECT modelId, COUNT() AS n FROM devices GROUP BY modelId"
    assert await rows(owner, by_model) == [{"modelId": "", "n": 2}, {"modelId": "dtmi:x;1", "n": 1}]


# --- Counting and grouping -------------------------------------------------------------------------------


async def test_counting_and_grouping(site: Site, owner: Caller) -> None:
    await fleet(site, 6)
    await add(site, "z", {"n": "no number"})
    answer = await ask(owner, "SELECT COUNT() AS n FROM devices")
    assert (answer.headers["x-ms-item-type"], answer.json()) == ("Raw", [{"n": 7}])
    assert await rows(owner, "SELECT COUNT() FROM devices WHERE tags.n > 100") == [{"$1": 0}]
    grouped = await rows(
        owner,
        "SELECT tags.site, COUNT() AS n, AVG(tags.n) AS mean, SUM(tags.n) AS total, MIN(tags.n) AS least, "
        "MAX(tags.n) AS most FROM devices GROUP BY tags.site",
    )
    assert grouped == [
        {"n": 1, "least": "no number", "most": "no number"},
        {"site": "north", "n": 4, "mean": 3, "total": 12, "least": 1, "most": 5},
        {"site": "south", "n": 2, "mean": 1.5, "total": 3, "least": 0, "most": 3},
    ]
    assert await rows(owner, "SELECT AVG(tags.none) AS a FROM devices") == [{}]


async def test_values_that_look_alike_are_groups_of_their_own(site: Site, owner: Caller) -> None:
    for name, value in (("a", 1), ("b", 1.0), ("c", True), ("d", "1"), ("e", [1]), ("f", {"x": 1})):
        await add(site, name, {"v": value})
    grouped = await rows(owner, "SELECT tags.v, COUNT() AS n FROM devices GROUP BY tags.v")
    assert [json.dumps(row) for row in grouped] == [
        '{"v": true, "n": 1}',
        '{"v": 1, "n": 2}',
        '{"v": "1", "n": 1}',
        '{"v": [1], "n": 1}',
        '{"v": {"x": 1}, "n": 1}',
    ]


async def test_more_than_one_bit_is_counted_together(
    site: Site, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin_search, "BIT", 60)  # in memory a twentieth of it
    await fleet(site, 10)
    assert await rows(owner, "SELECT COUNT() AS n FROM devices WHERE tags.site = 'north'") == [{"n": 6}]
    assert len(await rows(owner, "SELECT * FROM devices WHERE tags.site = 'north'")) == 6
    assert len(await rows(owner, "SELECT * FROM devices WHERE lower(tags.site) = 'north'")) == 6


# --- Pages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (0, 2, [0]), (3, 9, [3])]
)
async def test_pages(site: Site, owner: Caller, count: int, size: int, sizes: list[int]) -> None:
    """The last one has no continuation, and no empty one follows it."""
    await fleet(site, count)
    pages = await walk(owner, "SELECT * FROM devices", size)
    assert [len(page) for page in pages] == sizes
    assert [twin["deviceId"] for page in pages for twin in page] == [f"d{n:03}" for n in range(count)]


async def test_pages_that_sql_cannot_judge_alone(site: Site, owner: Caller) -> None:
    await fleet(site, 9)
    pages = await walk(owner, "SELECT deviceId FROM devices WHERE upper(tags.site) = 'NORTH'", 2)
    assert [len(page) for page in pages] == [2, 2, 2]


async def test_a_page_has_a_hundred_unless_told_otherwise(site: Site, owner: Caller) -> None:
    await fleet(site, 103)
    assert len(await rows(owner, "SELECT deviceId FROM devices")) == 100
    assert (
        len((await ask(owner, "SELECT deviceId FROM devices", {"x-ms-max-item-count": "5000"})).json()) == 103
    )


async def test_top_is_counted_over_all_pages(site: Site, owner: Caller) -> None:
    await fleet(site, 9)
    pages = await walk(owner, "SELECT TOP 5 deviceId FROM devices", 2)
    assert [len(page) for page in pages] == [2, 2, 1]
    pages = await walk(owner, "SELECT TOP 4 deviceId FROM devices", 2)
    assert [len(page) for page in pages] == [2, 2]


async def test_groups_come_in_pages_too(site: Site, owner: Caller) -> None:
    for number in range(7):
        await add(site, f"d{number}", {"room": f"{'long ' * 20}{number}"})
    pages = await walk(owner, "SELECT tags.room, COUNT() AS n FROM devices GROUP BY tags.room", 3)
    assert [len(page) for page in pages] == [3, 3, 1]
    assert len({row["room"] for page in pages for row in page}) == 7


async def test_what_changes_between_pages_moves_nothing_else(site: Site, owner: Caller) -> None:
    await fleet(site, 6)
    text = "SELECT deviceId FROM devices"
    first = await ask(owner, text, {"x-ms-max-item-count": "3"})
    await site.identities.delete("d000")
    await site.identities.delete("d002")  # the last one of the page
    await add(site, "a", {})
    await add(site, "d0035", {})
    token = first.headers["x-ms-continuation"]
    second = await ask(owner, text, {"x-ms-max-item-count": "9", "x-ms-continuation": token})
    assert [row["deviceId"] for row in second.json()] == ["d003", "d0035", "d004", "d005"]
    grouped = "SELECT tags.n, COUNT() AS c FROM devices GROUP BY tags.n"
    first = await ask(owner, grouped, {"x-ms-max-item-count": "2"})
    assert first.json() == [{"c": 2}, {"n": 1, "c": 1}]
    await site.identities.patch_twin("d001", {"tags": {"n": 0}})
    token = first.headers["x-ms-continuation"]
    second = await ask(owner, grouped, {"x-ms-continuation": token})
    assert second.json() == [{"n": 3, "c": 1}, {"n": 4, "c": 1}, {"n": 5, "c": 1}]


@pytest.mark.parametrize("token", ["x", "e30=", "bnVsbA==", "\u00e9", "A" * 20_000, "eyJxIjoxfQ=="])
async def test_a_continuation_that_no_query_has_returned(owner: Caller, token: str) -> None:
    answer = await ask(owner, "SELECT * FROM devices", {"x-ms-continuation": token})
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")


async def test_a_continuation_of_another_query(site: Site, owner: Caller) -> None:
    await fleet(site, 3)
    first = await ask(owner, "SELECT * FROM devices", {"x-ms-max-item-count": "1"})
    token = {"x-ms-continuation": first.headers["x-ms-continuation"]}
    answer = await ask(owner, "SELECT deviceId FROM devices", token)
    assert answer.status == 400
    assert "another query" in answer.json()["Message"]


@pytest.mark.parametrize("size", ["0", "-1", "many", "1.5"])
async def test_a_size_of_pages_that_is_none(owner: Caller, size: str) -> None:
    answer = await ask(owner, "SELECT * FROM devices", {"x-ms-max-item-count": size})
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")


# --- Refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELECT FROM", "Line 1:8 expected a property, found FROM"),
        ("SELECT * FROM devices WHERE tags.a = ", "Line 1:38 expected a property, a constant or a function"),
        ("SELECT * FROM devices GROUP BY tags.a", "name what is wanted instead of *"),
        ("SELECT tags.b, COUNT() FROM devices GROUP BY tags.a", "tags.b stands neither in GROUP BY"),
        ("SELECT COUNT() FROM devices.modules", "only FROM devices"),
        ("SELECT tags.a, properties.desired.a FROM devices", "two columns are called 'a'"),
        (None, "must be a string"),
    ],
)
async def test_a_query_that_makes_no_sense(owner: Caller, text: object, words: str) -> None:
    answer = await ask(owner, text)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")
    message = answer.json()["Message"]
    assert message.startswith("ErrorCode:ArgumentInvalid;")
    assert words in message


async def test_a_query_that_is_too_long(owner: Caller) -> None:
    answer = await ask(owner, "SELECT * FROM devices".ljust(8193))
    assert (answer.status, answer.headers["iothub-errorcode"]) == (412, "PreconditionFailed")


@pytest.mark.parametrize(
    "condition",
    [
        "",
        " WHERE devices.jobs.jobId = 'j'",
        " WHERE deviceId = 'd' AND jobType = 'scheduleDeviceMethod' AND Status != 'completed'",
        " WHERE is_defined(outcome.deviceMethodResponse.payload) OR startTimeUtc > '2026'",
    ],
)
async def test_of_jobs_there_are_none_as_none_can_be_scheduled(owner: Caller, condition: str) -> None:
    answer = await ask(owner, f"SELECT * FROM devices.jobs{condition}")
    assert (answer.status, answer.json(), answer.headers["x-ms-item-type"]) == (200, [], "DeviceJob")
    assert "x-ms-continuation" not in answer.headers
    scheduled = await owner.call("PUT", "/jobs/v2/j", {"jobId": "j", "type": "scheduleUpdateTwin"})
    assert scheduled.status == 501


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("SELECT jobId FROM devices.jobs", "SELECT * alone"),
        ("SELECT COUNT() AS n FROM devices.jobs", "SELECT * alone"),
        ("SELECT * FROM devices.jobs GROUP BY status", "SELECT * alone"),
        ("SELECT * FROM devices.jobs WHERE tags.site = 'a'", "a job has no tags.site"),
        ("SELECT * FROM devices.jobs WHERE jobId =", "expected"),
    ],
)
async def test_what_cannot_be_asked_of_jobs_is_refused(owner: Caller, text: str, why: str) -> None:
    answer = await ask(owner, text)
    assert answer.status == 400
    assert why in answer.body.decode()


async def test_a_query_takes_the_right_of_services(site: Site, owner: Caller) -> None:
    for name, status in (("service", 200), ("registryRead", 401), ("device", 401)):
        query = {"query": "SELECT * FROM devices"}
        answer = await owner.call("POST", "/devices/query", query, token=site.token(name))
        assert answer.status == status, name


async def test_a_query_that_takes_too_long_is_given_up(
    site: Site, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SECONDS", -1.0)
    await fleet(site, 1)
    answer = await ask(owner, "SELECT * FROM devices")
    assert (answer.status, answer.headers["iothub-errorcode"]) == (503, "ServiceUnavailable")


async def test_too_many_groups_are_refused(
    site: Site, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.hub.query.groups.MAX_GROUPS", 3)
    await fleet(site, 5)
    answer = await ask(owner, "SELECT deviceId, COUNT() FROM devices GROUP BY deviceId")
    assert answer.status == 400
    assert "more than 3 groups" in answer.json()["Message"]
