"""The telemetry of a hub: the list, what comes later, and each event whole."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest

from moorage.app import Server
from moorage.hub.routing import MessageRoutes
from moorage.portal import telemetry
from moorage.portal.bodies import body_of, hex_dump
from tests.support import kept_events
from tests.support.visitor import PageSeen, Visitor


async def keep(server: Server, device: str, *bodies: bytes, **head: Any) -> None:
    await kept_events.keep(server.event_log, server.hubs.first.hub, device, *bodies, **head)


def root(server: Server) -> str:
    return f"/hubs/{server.hubs.first.hub.name}/telemetry"


def bodies(page: PageSeen) -> list[str]:
    return [
        unescape(body) for body in re.findall(r"<pre>(.*?)</pre>", page.html.split("until-events")[0], re.S)
    ]


def live_address(page: PageSeen) -> str:
    (found,) = re.findall(r'data-live="([^"]*)"', page.html)
    return unescape(found)


def link(page: PageSeen, text: str) -> str:
    (found,) = re.findall(rf'<a [^>]*href="([^"]*)"[^>]*>{re.escape(text)}</a>', page.html)
    return unescape(found)


async def test_nothing_yet_teaches_how_to_send(visitor: Visitor, server: Server) -> None:
    page = await visitor.get(root(server))
    assert page.title == "Telemetry"
    assert "Nothing has come in yet" in page.text
    for command in (
        "moorage hub device-identity create --device-id pump-7",
        "moorage device simulate --device-id pump-7",
        "moorage device send-d2c-message --device-id pump-7",
        "IoTHubDeviceClient.create_from_connection_string",
    ):
        assert command in page.text
    assert "drops telemetry" not in page.text


async def test_a_hub_that_drops_telemetry_says_so(visitor: Visitor, server: Server) -> None:
    hub = server.hubs.first.hub
    await MessageRoutes(hub=server.hubs.of_scope, put=server.hubs.put).set_fallback(hub.scope, False)
    assert "This hub drops telemetry" in (await visitor.get(root(server))).text


async def test_the_newest_first_with_older_ones_behind(visitor: Visitor, server: Server) -> None:
    for number in range(telemetry.ROWS + 5):
        await keep(server, "pump-7", b"body %d" % number)
    page = await visitor.get(root(server))
    assert bodies(page)[0] == f"body {telemetry.ROWS + 4}"
    assert len(bodies(page)) == telemetry.ROWS
    older = await visitor.get(link(page, "Older events"))
    assert bodies(older) == [f"body {number}" for number in range(4, -1, -1)]
    assert "data-live=" not in older.html
    assert bodies(await visitor.get(link(older, "Back to the newest"))) == bodies(page)


async def test_from_the_start(visitor: Visitor, server: Server) -> None:
    for number in range(telemetry.ROWS + 2):
        await keep(server, "pump-7", b"body %d" % number)
    page = await visitor.get(f"{root(server)}?from=start")
    assert bodies(page)[:2] == ["body 0", "body 1"]
    assert "data-live=" not in page.html
    rest = await visitor.get(link(page, "Newer events"))
    assert bodies(rest) == [f"body {telemetry.ROWS}", f"body {telemetry.ROWS + 1}"]
    await keep(server, "pump-7", b"a", b"b")
    assert bodies(await visitor.fragment(live_address(rest))) == ["a", "b"]


async def test_from_now(visitor: Visitor, server: Server) -> None:
    await keep(server, "pump-7", b"before")
    page = await visitor.get(f"{root(server)}?from=now")
    assert bodies(page) == []
    assert "Waiting" in page.text
    await keep(server, "pump-7", b"after")
    assert bodies(await visitor.fragment(live_address(page))) == ["after"]
    assert bodies(await visitor.get(link(page, "Refresh"))) == ["after"]  # without a script


async def test_what_comes_later_comes_once(visitor: Visitor, server: Server) -> None:
    await keep(server, "pump-7", b"before")
    page = await visitor.get(root(server))
    quiet = await visitor.fragment(live_address(page))
    assert quiet.status == 204
    await keep(server, "pump-7", b"one", b"two")
    news = await visitor.fragment(quiet.headers["moorage-next"])
    assert bodies(news) == ["two", "one"]
    assert (await visitor.fragment(news.headers["moorage-next"])).status == 204


async def test_what_comes_too_fast_is_passed_over_and_counted(visitor: Visitor, server: Server) -> None:
    page = await visitor.get(root(server))
    await keep(server, "pump-7", *(b"%d" % number for number in range(2_000)))
    news = await visitor.fragment(live_address(page))
    assert bodies(news)[0] == "1999"
    assert len(bodies(news)) == telemetry.ROWS
    assert "1,950 events came too fast" in news.text
    assert (await visitor.fragment(news.headers["moorage-next"])).status == 204


async def test_a_place_of_a_log_that_has_begun_anew(visitor: Visitor, server: Server) -> None:
    await keep(server, "pump-7", b"before")
    scope = server.hubs.first.hub.scope
    seen = await visitor.fragment(f"{root(server)}/live?after={scope:x}-99.99.99.99")
    assert seen.status == 204
    await keep(server, "pump-7", b"after")
    assert bodies(await visitor.fragment(seen.headers["moorage-next"])) == ["after"]


async def test_filters_are_in_the_address(visitor: Visitor, server: Server) -> None:
    await keep(server, "pump-7", b"of the device")
    await keep(server, "pump-7", b"of the module", module="camera")
    await keep(server, "pump-8", b"storm", application_properties=(("level", "storm"),))
    assert bodies(await visitor.get(f"{root(server)}?device=pump-8")) == ["storm"]
    assert bodies(await visitor.get(f"{root(server)}?module=camera")) == ["of the module"]
    page = await visitor.get(f"{root(server)}?property=level%3Dstorm")
    assert bodies(page) == ["storm"]
    await keep(server, "pump-7", b"calm", application_properties=(("level", "calm"),))
    assert (await visitor.fragment(live_address(page))).status == 204
    assert bodies(await visitor.get(link(page, "level=storm"))) == ["storm"]
    assert len(bodies(await visitor.get(link(page, "Show all")))) == 4


async def test_a_filter_that_cannot_be_is_told_at_its_field(visitor: Visitor, server: Server) -> None:
    page = await visitor.get(f"{root(server)}?property=%3Dx")
    assert page.status == 400
    assert "is written as name=value" in page.text
    assert 'value="=x"' in page.html


async def test_a_place_that_means_nothing(visitor: Visitor, server: Server) -> None:
    assert (await visitor.get(f"{root(server)}?before=x")).status == 400


async def test_a_hub_that_is_not_there(visitor: Visitor) -> None:
    assert (await visitor.get("/hubs/nowhere/telemetry")).status == 404


ODD = "a:b#c%d+e'f$g(h)i@j*k?l!m=n,o;p"


async def test_odd_signs_and_markup_do_no_harm(visitor: Visitor, server: Server) -> None:
    script = "<script>alert(1)</script>"
    await keep(
        server,
        ODD,
        script.encode(),
        application_properties=((script, '"onload=x '), ("&", script)),
        content_type=script,
    )
    page = await visitor.get(root(server))
    assert script not in page.html
    assert bodies(page) == [script]
    assert bodies(await visitor.get(link(page, "&amp;=&lt;script&gt;alert(1)&lt;/script&gt;"))) == [script]
    of_device = re.search(r'event-origin"><a href="([^"]*)"', page.html)
    assert of_device is not None
    assert bodies(await visitor.get(unescape(of_device[1]))) == [script]
    event = await visitor.get(link(page, "Open"))
    assert script not in event.html
    assert script in event.text
    assert f"/devices/{quote(ODD, safe='')}" in event.html
    taught = await visitor.get(f"{root(server)}?device={quote(chr(39) + '; rm -rf')}")
    assert "--device-id ''\"'\"'; rm -rf'" in taught.text


async def test_an_event_whole(visitor: Visitor, server: Server) -> None:
    await keep(
        server,
        "pump-7",
        b'{"level":{"now":1}}',
        content_type="application/json",
        content_encoding="utf-8",
        message_id="m-1",
        application_properties=(("alert", "high"), ("note", None)),
    )
    page = await visitor.get(link(await visitor.get(root(server)), "Open"))
    assert page.title.startswith("Event 0 of partition ")
    assert '{\n  "level": {\n    "now": 1\n  }\n}' in unescape(page.html)
    for said in (
        "pump-7",
        "application/json, utf-8",
        "message-id m-1",
        "alert high",
        "note null",
        "x-opt-offset",
    ):
        assert said in page.text
    assert "000000  00 53 72" in page.html


async def test_the_frame_to_keep(visitor: Visitor, server: Server) -> None:
    await keep(server, "pump-7", b"body")
    page = await visitor.get(link(await visitor.get(root(server)), "Open"))
    frame = await visitor.get(page.path + "/frame")
    assert frame.headers["content-disposition"].startswith('attachment; filename="event-')
    assert frame.content.startswith(b"\x00\x53\x72")
    assert frame.content.endswith(b"body")


async def test_one_that_is_not_kept(visitor: Visitor, server: Server) -> None:
    assert (await visitor.get(f"{root(server)}/0/99")).status == 404
    assert (await visitor.get(f"{root(server)}/x/0")).status == 404


@pytest.mark.parametrize("source", ["twinChangeEvents", "deviceLifecycleEvents", "somethingNew"])
async def test_other_sources_have_their_badge(visitor: Visitor, server: Server, source: str) -> None:
    await keep(server, "pump-7", b"{}", source=source)
    shown = {"twinChangeEvents": "Twin change", "deviceLifecycleEvents": "Lifecycle"}.get(source, source)
    assert shown in (await visitor.get(root(server))).text


async def test_what_is_long_is_cut_with_a_note(visitor: Visitor, server: Server) -> None:
    await keep(server, "pump-7", b"x" * 200_000)
    page = await visitor.get(root(server))
    assert len(bodies(page)[0]) == telemetry.LIST_CHARACTERS
    assert "the body has 200,000 bytes" in page.text
    whole = await visitor.get(link(page, "Open"))
    assert "x" * 200_000 in whole.html
    assert "Cut here" in whole.text  # the frame


async def test_long_and_many_properties_are_cut_too(visitor: Visitor, server: Server) -> None:
    many = tuple((f"name-{number}", "x" * 40 * number) for number in range(12))
    await keep(server, "pump-7", b"body", application_properties=many)
    page = await visitor.get(root(server))
    assert "and 4 more" in page.text
    assert link(page, "name-1=" + "x" * 40).endswith("property=name-1%3D" + "x" * 40)
    assert link(page, "name-3=" + "x" * 53 + "…").endswith("property=name-3%3D" + "x" * 120)
    assert f"<span>name-7={'x' * 53}…</span>" in page.html
    assert len(page.content) < 20_000


def event(format: str, body: object, *, truncated: bool = False) -> dict[str, object]:
    return {"bodyFormat": format, "body": body, "bodyTruncated": truncated}


def test_bodies_as_people_read_them() -> None:
    def shown(format: str, body: object, lines: int = 5) -> tuple[str, bool]:
        return body_of(event(format, body), max_lines=lines, max_characters=100)

    assert shown("json", {"a": "ä"}) == ('{\n  "a": "ä"\n}', False)
    assert shown("json", {"a": 1, "b": 2}, 2) == ('{\n  "a": 1,', True)
    assert shown("text", "one\ntwo") == ("one\ntwo", False)
    assert shown("text", "x" * 101) == ("x" * 100, True)
    assert shown("base64", "AAEC", 1) == (
        "000000  00 01 02                                          ...",
        False,
    )
    assert body_of(event("text", "x", truncated=True), max_lines=5, max_characters=5).cut


def test_a_body_nested_as_deep_as_can_be_is_shown() -> None:
    nested: Any = 1
    for _ in range(800):
        nested = [nested]
    assert body_of(event("json", nested), max_lines=5000, max_characters=10**7).text


def test_a_hex_dump() -> None:
    assert hex_dump(bytes(range(0x41, 0x52))) == (
        "000000  41 42 43 44 45 46 47 48  49 4a 4b 4c 4d 4e 4f 50  ABCDEFGHIJKLMNOP\n"
        "000010  51                                                Q"
    )
    assert hex_dump(b"") == ""
