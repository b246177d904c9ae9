"""What is sent to a device from its pages: direct methods, and messages with their queue; and when it was connected."""

from __future__ import annotations

import asyncio
import re
from html import unescape

import pytest

from moorage.hub.session import Cause, Ending, MethodAnswer, Principal, Session
from moorage.interfaces import Peer
from moorage.portal.api import Api, Service
from tests.support.sessions import ClosingLink
from tests.support.visitor import PageSeen, Visitor

DEVICE = "/hubs/hub/devices/pump-7"
METHOD = f"{DEVICE}/method"
MESSAGES = f"{DEVICE}/messages"
CONNECTIONS = f"{DEVICE}/connections"
SCRIPT = "<img src=x onerror=alert(1)>"


@pytest.fixture
async def hub(visitor: Visitor) -> Service:
    """With a device pump-7 and a module of it."""
    hub = Api(visitor.server.inside_api()).hub("hub")
    await hub.put("/devices/pump-7", {})
    await hub.put("/devices/pump-7/modules/cam", {})
    return hub


def connect(visitor: Visitor, *methods: str, module: str | None = None) -> tuple[Session, ClosingLink]:
    link = ClosingLink(listens=set(methods))
    principal = Principal("pump-7", "1", "device", "sas", module_id=module)
    session = Session(
        principal,
        visitor.server.clock.now(),
        link,
        tracking_id="ab" * 16,
        peer=Peer("192.0.2.7", "mqtt"),
    )
    visitor.server.hubs.named("hub").sessions.open(session)
    return session, link


# Direct methods


async def answered(
    visitor: Visitor, status: int, payload: bytes, path: str = METHOD, module: str | None = None
) -> tuple[PageSeen, tuple[str, bytes]]:
    """What the page shows of such an answer, and what the device was asked."""
    session, link = connect(visitor, "reboot", module=module)
    page = await visitor.get(path)
    waiting = asyncio.create_task(
        visitor.send(page, path, {"name": "reboot", "payload": '{"delay": [1, null]}'})
    )
    while not link.calls:
        assert not waiting.done(), waiting.result().text
        await asyncio.sleep(0)
    ((request_id, name, asked),) = link.calls
    session.answered(request_id, MethodAnswer(status, payload))
    return await waiting, (name, asked)


async def test_a_method_and_its_answer(visitor: Visitor, hub: Service) -> None:
    page, asked = await answered(visitor, 200, b'{"done":"' + SCRIPT.encode() + b'"}')
    assert asked == ("reboot", b'{"delay":[1,null]}')
    assert "Status that the device gave 200" in page.text
    assert f'"done": "{SCRIPT}"' in page.text
    assert "<img src=x" not in page.html
    assert ("name", "reboot") in page.form(METHOD).fields


async def test_a_method_of_a_module(visitor: Visitor, hub: Service) -> None:
    path = f"{DEVICE}/modules/cam/method"
    page, _ = await answered(visitor, 404, b"", path, "cam")
    assert "Status that the device gave 404" in page.text


async def test_an_answer_that_is_no_json(visitor: Visitor, hub: Service) -> None:
    page, _ = await answered(visitor, 200, b"nonsense")
    assert "The device has answered what cannot be passed on." in page.text
    assert "502000" in page.text


async def test_a_device_that_is_away(visitor: Visitor, hub: Service) -> None:
    page = await visitor.send(await visitor.get(METHOD), METHOD, {"name": "reboot"})
    assert page.status == 200
    assert "The device is not connected, or does not listen to methods. It was not called." in page.text
    assert "404103" in page.text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"payload": '{"a": '}, "payload"),
        ({"connect_timeout": "301"}, "connect_timeout"),
        ({"connect_timeout": "-1"}, "connect_timeout"),
        ({"response_timeout": "4"}, "response_timeout"),
        ({"response_timeout": SCRIPT}, "response_timeout"),
    ],
)
async def test_a_call_that_cannot_be(
    visitor: Visitor, hub: Service, fields: dict[str, str], field: str
) -> None:
    page = await visitor.send(await visitor.get(METHOD), METHOD, {"name": "reboot", **fields})
    assert page.status == 400
    assert f'id="problem-{field}"' in page.html
    assert "<img src=x" not in page.html


# Messages


async def test_a_message_waits_and_is_shown(visitor: Visitor, hub: Service) -> None:
    page = await visitor.get(MESSAGES)
    (live,) = (each for each in re.findall(r'data-live="([^"]+)"', page.html) if "/queue" in each)
    assert (await visitor.fragment(unescape(live))).status == 204
    sent = await visitor.send(
        page,
        MESSAGES,
        {
            "body": '{"a": "' + SCRIPT + '"}',
            "properties": f"x=1\n\ny = {SCRIPT}=2",
            "message_id": "order-1",
            "ack": "full",
        },
    )
    assert "The message waits for pump-7." in sent.text
    assert "order-1 Waiting" in sent.text
    assert "x=1 y=" in sent.text
    assert (await hub.get("/devices/pump-7"))["cloudToDeviceMessageCount"] == 1
    assert "order-1" in (await visitor.fragment(unescape(live))).text
    (path,) = re.findall(rf'href="({MESSAGES}/\d+)"', sent.html)
    shown = await visitor.get(path)
    assert f'{{ "a": "{SCRIPT}" }}' in shown.text
    assert f"y {SCRIPT}=2" in shown.text
    assert "<img src=x" not in sent.html + shown.html


async def test_a_message_that_is_no_text(visitor: Visitor, hub: Service) -> None:
    sent = await hub.post("/moorage/v1/hubs/hub/devices/pump-7/messages", {"body": "AAH/"})
    assert "00 01 ff" in (await visitor.get(f"{MESSAGES}/{sent['sequenceNumber']}")).text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"properties": "no sign"}, "properties"),
        ({"properties": "=value"}, "properties"),
        ({"expiry": "2001-01-01T00:00"}, "expiry"),
        ({"expiry": "tomorrow"}, "expiry"),
        ({"body": "x" * 70_000}, "body"),
    ],
)
async def test_a_message_that_cannot_be(
    visitor: Visitor, hub: Service, fields: dict[str, str], field: str
) -> None:
    page = await visitor.send(await visitor.get(MESSAGES), MESSAGES, fields)
    assert page.status == 400
    assert f'id="problem-{field}"' in page.html
    assert (await hub.get("/devices/pump-7"))["cloudToDeviceMessageCount"] == 0


async def test_a_queue_that_is_full_and_is_purged(visitor: Visitor, hub: Service) -> None:
    for _ in range(50):
        await hub.post("/moorage/v1/hubs/hub/devices/pump-7/messages", {})
    page = await visitor.send(await visitor.get(MESSAGES), MESSAGES, {"body": "one more"})
    assert page.status == 400
    assert "50 messages wait for 'pump-7', more are not kept" in page.text
    assert "one more" in dict(page.form(MESSAGES).fields)["body"]
    asked = await visitor.send(page, f"{MESSAGES}/purge")
    assert asked.title == "Delete all messages that wait for this device"
    assert "Messages deleted: 50" in (await visitor.send(asked, f"{MESSAGES}/purge")).text


# Connections


async def test_when_it_came_and_went_and_why(visitor: Visitor, hub: Service) -> None:
    page = await visitor.get(CONNECTIONS)
    assert "It has not been connected since the server was started." in page.text
    live = next(unescape(each) for each in re.findall(r'data-live="([^"]+)"', page.html) if "/live" in each)
    assert (await visitor.fragment(live)).status == 204
    session, _ = connect(visitor)
    news = await visitor.fragment(live)
    assert "Connected –" in news.text
    ending = Ending(Cause.RULE_BROKEN, SCRIPT)
    visitor.server.hubs.named("hub").sessions.close(session, ending)
    news = await visitor.fragment(news.headers["moorage-next"])
    assert f"Disconnected It broke a rule {SCRIPT}" in news.text
    assert "<img src=x" not in news.html
    assert "Disconnected" in (await visitor.get(DEVICE)).text


@pytest.mark.parametrize("cause", list(Cause))
async def test_each_cause_has_a_text(visitor: Visitor, hub: Service, cause: Cause) -> None:
    session, _ = connect(visitor)
    visitor.server.hubs.named("hub").sessions.close(session, Ending(cause, ""))
    assert (await visitor.get(CONNECTIONS)).status == 200


async def test_of_a_module(visitor: Visitor, hub: Service) -> None:
    session, _ = connect(visitor, module="cam")
    visitor.server.hubs.named("hub").sessions.close(session, Ending(Cause.DISCONNECT, ""))
    page = await visitor.get(f"{DEVICE}/modules/cam/connections")
    assert "It said goodbye" in page.text
    assert "It said goodbye" not in (await visitor.get(CONNECTIONS)).text
