"""`events`: what the built-in endpoint keeps, over HTTP."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from moorage.adapters.control import event_walk
from moorage.adapters.control.event_view import read_body
from moorage.adapters.http import HttpAdapter
from moorage.hub.instance import partition_of
from moorage.hub.telemetry import DEVICE_ID, MESSAGE_SOURCE, MODULE_ID
from moorage.wire.amqp import Message
from tests.support import kept_events
from tests.support.asgi import Answer, Caller
from tests.support.site import Site

EVENTS = "/moorage/v1/hubs/hub/events"


async def keep(site: Site, device: str, *bodies: bytes, **head: Any) -> None:
    """Events of one device, a millisecond after what was before."""
    site.time.advance(0.001)
    await kept_events.keep(site.log, site.hub, device, *bodies, **head)


async def ask(operator: Caller, **query: object) -> Any:
    answer = await operator.call("GET", EVENTS, query=urlencode(query))
    assert answer.status == 200, answer.body
    return answer.json()


async def refused(operator: Caller, **query: object) -> Answer:
    answer = await operator.call("GET", EVENTS, query=urlencode(query))
    assert answer.status == 400
    return answer


def bodies(page: Any) -> list[Any]:
    return [event["body"] for event in page["events"]]


DEVICES = ["pump-1", "pump-2", "pump-3", "pump-4", "pump-5"]
"""In several partitions."""


async def keep_in_turn(site: Site, count: int) -> list[str]:
    for number in range(count):
        await keep(site, DEVICES[number % len(DEVICES)], b"%d" % number)
    return [str(number) for number in range(count)]


def test_the_devices_are_in_several_partitions(site: Site) -> None:
    assert len({partition_of(site.hub, device) for device in DEVICES}) > 1


async def test_an_event_whole(site: Site, operator: Caller) -> None:
    await keep(
        site,
        "pump-7",
        b'{"level":1}',
        module="camera",
        application_properties=(("alert", "high"), ("note", None)),
        message_id="m-1",
        user_id="u",
        content_type="application/json",
        content_encoding="utf-8",
        absolute_expiry_time=site.time.now() + 60_000_000,
    )
    (event,) = (await ask(operator))["events"]
    partition = partition_of(site.hub, "pump-7")
    annotations = event.pop("annotations")
    assert event == {
        "partition": str(partition),
        "sequenceNumber": 0,
        "offset": event["offset"],
        "enqueuedTime": "2027-01-15T08:00:00.0010000Z",
        "deviceId": "pump-7",
        "moduleId": "camera",
        "messageSource": "Telemetry",
        "contentType": "application/json",
        "contentEncoding": "utf-8",
        "systemProperties": {
            "message-id": "m-1",
            "user-id": "u",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "absolute-expiry-time": "2027-01-15T08:01:00.0000000Z",
        },
        "applicationProperties": {"alert": "high", "note": None},
        "bodySize": 11,
        "bodyFormat": "json",
        "body": {"level": 1},
        "bodyTruncated": False,
    }
    assert annotations == {
        "x-opt-sequence-number": 0,
        "x-opt-enqueued-time": "2027-01-15T08:00:00.0010000Z",
        "iothub-enqueuedtime": "2027-01-15T08:00:00.0010000Z",
        "x-opt-offset": event["offset"],
        "x-opt-partition-key": "pump-7",
        DEVICE_ID: "pump-7",
        MODULE_ID: "camera",
        MESSAGE_SOURCE: "Telemetry",
    }


async def test_the_description_has_every_member(site: Site, operator: Caller) -> None:
    await keep(site, "pump-7", b"1")
    page = await ask(operator)
    schemas = (await operator.call("GET", "/moorage/v1/openapi.json")).json()["components"]["schemas"]
    assert set(page) == set(schemas["eventPage"]["properties"]) == set(schemas["eventPage"]["required"])
    (event,) = page["events"]
    assert set(event) == set(schemas["event"]["properties"]) == set(schemas["event"]["required"])


async def test_one_event_with_the_message_that_readers_get(site: Site, operator: Caller) -> None:
    await keep(site, "pump-7", b"first", b"second")
    partition = partition_of(site.hub, "pump-7")
    event = (await operator.call("GET", f"{EVENTS}/{partition}/1")).json()
    assert event["body"] == "second"
    assert Message.decode(base64.b64decode(event["frame"])).payload == b"second"


@pytest.mark.parametrize("place", ["0/7", "99/0", "x/0", "0/x", "-1/0", "0/-1", "0/9999999999999999999"])
async def test_one_that_is_not_there(operator: Caller, place: str) -> None:
    assert (await operator.call("GET", f"{EVENTS}/{place}")).status == 404


async def test_the_newest_first_over_all_partitions(site: Site, operator: Caller) -> None:
    sent = await keep_in_turn(site, 23)
    page = await ask(operator, top=10)
    assert bodies(page) == sent[:-11:-1]
    assert page["remaining"] == 13
    older = await ask(operator, top=100, before=page["before"])
    assert bodies(older) == sent[12::-1]
    assert older["remaining"] == 0
    assert bodies(await ask(operator, before=older["before"])) == []


async def test_the_oldest_first_over_all_partitions(site: Site, operator: Caller) -> None:
    sent = await keep_in_turn(site, 23)
    page = await ask(operator, after="first", top=10)
    assert bodies(page) == sent[:10]
    assert page["remaining"] == 13
    rest = await ask(operator, after=page["after"])
    assert bodies(rest) == sent[10:]
    assert rest["remaining"] == 0
    await keep(site, "pump-9", b"later")
    assert bodies(await ask(operator, after=rest["after"])) == ["later"]


async def test_from_now_on(site: Site, operator: Caller) -> None:
    await keep_in_turn(site, 3)
    page = await ask(operator, after="now")
    assert (page["events"], page["remaining"]) == ([], 0)
    await keep(site, "pump-1", b"new")
    assert bodies(await ask(operator, after=page["after"])) == ["new"]


async def test_a_tail_that_is_overtaken_hears_how_much_it_has_missed(site: Site, operator: Caller) -> None:
    place = (await ask(operator))["after"]
    sent = await keep_in_turn(site, 30)
    page = await ask(operator, after=place, before="now", top=5)
    assert bodies(page) == sent[:-6:-1]
    assert page["remaining"] == 25
    assert (await ask(operator, after=page["after"], before="now"))["events"] == []


async def test_blocks_end_anywhere(site: Site, operator: Caller) -> None:
    """More of one device than is read at once, in both directions."""
    await keep(site, "pump-1", *(b"%d" % number for number in range(700)))
    await keep(site, "pump-2", *(b"x%d" % number for number in range(10)))
    onwards: list[Any] = []
    place = "first"
    for _ in range(8):
        page = await ask(operator, after=place, top=99)
        onwards += bodies(page)
        place = page["after"]
    backwards = bodies(await ask(operator, top=1000))
    assert onwards == backwards[::-1]
    assert len(onwards) == 710


async def test_of_one_device(site: Site, operator: Caller) -> None:
    await keep_in_turn(site, 20)
    page = await ask(operator, device="pump-3")
    assert bodies(page) == ["17", "12", "7", "2"]
    assert {event["deviceId"] for event in page["events"]} == {"pump-3"}
    assert page["remaining"] == 0
    assert bodies(await ask(operator, device="pump-3", after="first", top=2)) == ["2", "7"]


async def test_a_body_that_speaks_of_a_device_is_not_of_it(site: Site, operator: Caller) -> None:
    named = next(f"pump-{n}" for n in range(100) if partition_of(site.hub, f"pump-{n}") == 0)
    other = next(f"fan-{n}" for n in range(100) if partition_of(site.hub, f"fan-{n}") == 0)
    await keep(site, other, named.encode())
    assert (await ask(operator, device=named))["events"] == []


async def test_of_one_module(site: Site, operator: Caller) -> None:
    await keep(site, "pump-7", b"device")
    await keep(site, "pump-7", b"module", module="camera")
    assert bodies(await ask(operator, module="camera")) == ["module"]
    assert bodies(await ask(operator, module="cam")) == []


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ("level=storm", ["storm"]),
        ("level=calm", ["calm"]),
        ("level=cal", []),
        ("level", ["empty", "calm", "storm"]),
        ("level=", ["empty"]),
        ("message-id=m-1", ["storm"]),
        ("message-id", ["storm"]),
        ("content-type=text/plain", ["calm"]),
        ("iothub-message-source=Telemetry", ["empty", "calm", "storm"]),
        ("a=b=c", ["calm"]),
        ("nothing", []),
    ],
)
async def test_by_a_property(site: Site, operator: Caller, wish: str, found: list[str]) -> None:
    await keep(site, "pump-1", b"storm", application_properties=(("level", "storm"),), message_id="m-1")
    calm = (("level", "calm"), ("a", "b=c"))
    await keep(site, "pump-2", b"calm", application_properties=calm, content_type="text/plain")
    await keep(site, "pump-1", b"empty", application_properties=(("level", None),))
    assert bodies(await ask(operator, property=wish)) == found


async def test_one_request_looks_at_so_many_and_the_next_goes_on(
    site: Site, operator: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_walk, "LOOK_AT", 10)
    await keep(site, "pump-1", b"wanted", application_properties=(("level", "storm"),))
    await keep_in_turn(site, 25)
    page = await ask(operator, property="level=storm")
    assert (page["events"], page["lookedAt"], page["remaining"]) == ([], 10, 16)
    page = await ask(operator, property="level=storm", before=page["before"])
    page = await ask(operator, property="level=storm", before=page["before"])
    assert bodies(page) == ["wanted"]
    assert (page["lookedAt"], page["remaining"]) == (6, 0)


async def test_an_answer_grows_no_larger_than_can_be_read_at_once(
    site: Site, operator: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_walk, "FOUND_SIZE", 100_000)
    await keep(site, "pump-1", *[b"x" * 60_000] * 5)
    page = await ask(operator)
    assert len(page["events"]) == 2
    assert page["remaining"] == 3


async def test_large_events_are_read_in_smaller_blocks(site: Site, operator: Caller) -> None:
    for number in range(24):
        await keep(site, "pump-1", b"%03d" % number + b" " * 200_000)
    assert (await ask(operator, maxBody=3))["remaining"] == 3  # of 24, for 21 make 4 MiB
    assert bodies(await ask(operator, after="first", top=2, maxBody=3)) == ["000", "001"]


async def test_of_a_long_body_the_beginning(site: Site, operator: Caller) -> None:
    await keep(site, "pump-1", '{"text": "Länge"}'.encode())
    (event,) = (await ask(operator, maxBody=12))["events"]
    assert (event["bodyFormat"], event["body"]) == ("text", '{"text": "L')  # not half of the ä
    assert (event["bodySize"], event["bodyTruncated"]) == (18, True)


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "format", "value"),
    [
        (b'{"a": 1}', "application/json", "utf-8", "json", {"a": 1}),
        (b'{"a": 1}', None, None, "json", {"a": 1}),
        (b" [1]", None, None, "json", [1]),
        (b"17", None, None, "text", "17"),
        (b"17", "application/json; charset=utf-8", None, "json", 17),
        (b'{"a": 1}', "application/cloudevents+json", None, "json", {"a": 1}),
        (b'{"a": 1}', "text/plain", None, "text", '{"a": 1}'),
        (b'{"a": ', "application/json", None, "text", '{"a": '),
        (b'{"a": NaN}', "application/json", None, "text", '{"a": NaN}'),
        (b'{"a": 1e999}', "application/json", None, "text", '{"a": 1e999}'),
        (b'{"a": [[-1e999]]}', "application/json", None, "text", '{"a": [[-1e999]]}'),
        (b'"\\ud800"', "application/json", None, "text", '"\\ud800"'),
        (b"[" * 100_000, "application/json", None, "text", "[" * 100_000),
        ('{"a": "ä"}'.encode("utf-16"), "application/json", "utf-16", "json", {"a": "ä"}),
        ('{"a": "ä"}'.encode("utf-32"), "application/json", "UTF-32", "json", {"a": "ä"}),
        (b"\xff\xfe\x00", None, None, "base64", "//4A"),
        (b"\x1f\x8b", "application/json", "gzip", "base64", "H4s="),
        (b"text", "application/octet-stream", None, "base64", "dGV4dA=="),
        (b"a\x00b", "text/plain", None, "base64", "YQBi"),
        ("Grüße 👩‍🔧\t\r\n".encode(), "text/plain", None, "text", "Grüße 👩‍🔧\t\r\n"),
        (b"", None, None, "text", ""),
        (b"", "application/json", None, "text", ""),
    ],
)
def test_a_body_is_shown_as_what_it_is(
    body: bytes, content_type: str | None, encoding: str | None, format: str, value: object
) -> None:
    read = read_body(body, content_type, encoding)
    assert json.loads(json.dumps(read.value, allow_nan=False)) == value
    assert read == (format, value)


@pytest.mark.parametrize(
    "query",
    [
        {"after": "x"},
        {"before": "x"},
        {"after": "2-0"},
        {"after": "2-0.0.0.0.0"},
        {"after": "2-0.0.0.1"},  # past the newest
        {"after": "3-0.0.0.0"},  # of another hub
        {"before": "2-0.0.0.-1"},
        {"before": "2-" + ".".join(["1"] * 1000)},
        {"top": "0"},
        {"top": "x"},
        {"maxBody": "-1"},
        {"maxBody": "262145"},
        {"property": "=x"},
        {"device": "x" * 1025},
    ],
)
async def test_what_cannot_be_asked(operator: Caller, query: dict[str, str]) -> None:
    await refused(operator, **query)


async def test_a_place_from_the_beginning(operator: Caller) -> None:
    assert (await ask(operator, after="2-0.0.0.0"))["events"] == []


async def test_a_hub_does_not_show_the_events_of_another(site: Site, operator: Caller) -> None:
    await keep(site, "pump-1", b"1")
    await site.hubs.create("other", host_names=["other.test"])
    answer = await operator.call("GET", "/moorage/v1/hubs/other/events")
    assert answer.status == 401  # this hub's policies are not the other's


@pytest.mark.parametrize(
    ("policy", "status"), [("service", 200), ("iothubowner", 200), ("registryRead", 401), ("device", 401)]
)
async def test_the_right_to_read_events(site: Site, app: HttpAdapter, policy: str, status: int) -> None:
    caller = Caller(app, token=site.token(policy))
    assert (await caller.call("GET", EVENTS)).status == status
    if status == 401:
        assert (await caller.call("GET", f"{EVENTS}/0/0")).status == status


async def test_a_log_that_cannot_be_read(site: Site, operator: Caller) -> None:
    await keep(site, "pump-1", b"1")
    site.disk.reads_fail = True
    assert (await operator.call("GET", EVENTS)).status == 503
