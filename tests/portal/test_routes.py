"""What holds for every page and every action, whoever adds one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import moorage.portal
from moorage.app import Server
from moorage.portal.api import Ask
from moorage.portal.application import portal
from tests.support.portal_routes import nothing_done, routes
from tests.support.visitor import ORIGIN, Visitor

PAGES = [route.path for route in routes("GET")]
ACTIONS = [route.path for route in routes("POST")]
FIELDS = sorted(
    {
        name
        for template in Path(moorage.portal.__file__).parent.rglob("*.html")
        for name in re.findall(
            r"""(?:name=|(?:text|area|select|radios|checkboxes|checkbox)\()"([a-zA-Z_]+)\"""",
            template.read_text("utf-8"),
        )
    }
)
READING = re.compile(r"/(query|preview|attestationmechanism)\?")
"""Calls with POST that change nothing."""


def filled(path: str) -> str:
    """With something in place of each parameter."""
    return re.sub(r"\{\w+:int\}", "0", re.sub(r"\{\w+\}", "x", path))


def put_before(server: Server, ask: Ask, *, secure: bool = False) -> None:
    """Another portal in place of the server's own, with other APIs behind it, or as it is beyond loopback."""
    server.__dict__["_portal_pages"] = portal(
        ask,
        server._portal_sessions,
        now=server.clock.now,
        port=server._portal.port,
        host_names=["localhost"],
        secure=secure,
    )


@pytest.fixture
async def visitor(server: Server) -> Visitor:
    """Signed in before a portal of whose APIs nothing may be wanted."""
    visitor = Visitor(server)
    await visitor.sign_in()
    put_before(server, nothing_done)
    return visitor


async def status(visitor: Visitor, method: str, path: str, headers: Mapping[str, str] | None = None) -> int:
    return (await visitor._ask(method, path, headers or {}, b"")).status


def test_routes_are_read_or_sent_to_and_nothing_else() -> None:
    everything = {route.path: set(route.methods or ()) for route in (*routes("GET"), *routes("POST"))}
    assert set(everything) == {*PAGES, *ACTIONS}
    assert all(methods in ({"GET", "HEAD"}, {"POST"}) for methods in everything.values())


async def test_every_action_wants_a_page_of_ours_and_the_sessions_token(visitor: Visitor) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    ours = {**form, "origin": ORIGIN, "sec-fetch-site": "same-origin"}
    stranger = Visitor(visitor.server)
    for path in map(filled, ACTIONS):
        assert await status(visitor, "POST", path, form) == 403, f"{path} without an origin"
        assert await status(visitor, "POST", path, {**ours, "origin": "http://evil.example"}) == 403, path
        assert await status(visitor, "POST", path, ours) == 403, f"{path} without a token"
        assert await status(stranger, "POST", path, ours) == 401, path


async def test_no_page_is_shown_to_strangers(visitor: Visitor) -> None:
    for path in map(filled, PAGES):
        assert await status(Visitor(visitor.server), "GET", path) == 401, path


async def test_no_other_method_does_anything(visitor: Visitor) -> None:
    for path in dict.fromkeys(map(filled, (*PAGES, *ACTIONS))):
        for method in ("PUT", "DELETE", "OPTIONS", "BREW"):
            assert await status(visitor, method, path, {"origin": ORIGIN}) == 405, path


class Watched:
    """The APIs of a server, with a note of what is asked of them."""

    def __init__(self, server: Server) -> None:
        self._ask = server.inside_api()
        self.changing: list[str] = []

    async def __call__(
        self, hub: str | None, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        if method != "GET" and not READING.search(target):
            self.changing.append(f"{method} {target}")
        return await self._ask(hub, method, target, headers, body)


async def test_looking_changes_nothing(server: Server) -> None:
    watched = Watched(server)
    put_before(server, watched)
    visitor = Visitor(server)
    await visitor.sign_in()
    statuses: dict[str, int] = {}
    for path in PAGES:
        for query in ("", "?keys=shown"):
            statuses[path] = (await visitor.get(filled(path.replace("{hub}", "hub")) + query)).status
    assert not watched.changing
    assert {status for status in statuses.values() if status >= 500} == set(), statuses


async def test_a_link_is_not_used_up_by_who_only_looks_whether_it_is_there(server: Server) -> None:
    link = server.portal_link()
    assert "set-cookie" not in (await Visitor(server)._go("HEAD", link, {}, b"")).headers
    assert (await Visitor(server).get(link)).title == "You are signed in"


ODD = ("%00", "%0D%0Ax%3A%20y", "..", "%FF", "%F0%9F%92%A5", "x" * 3_000, "%2F..%2F")
ASKED = "after before since subject tracking_id search query device_id device module property hub env seen etag from"


async def test_odd_names_and_values_are_answered(server: Server) -> None:
    """Not as a failure of the server, and without a header of theirs."""
    visitor = Visitor(server)
    await visitor.sign_in()
    for odd in ODD:
        values = "&".join(f"{name}={odd}" for name in ASKED.split())
        for path in PAGES:
            names = re.sub(r"\{\w+:int\}", "99999999999999999999", re.sub(r"\{(?!hub)\w+\}", odd, path))
            for target in (
                re.sub(r"\{hub\}", odd, names),
                names.replace("{hub}", "hub"),
                f"{filled(path.replace('{hub}', 'hub'))}?{values}",
            ):
                seen = await visitor._ask("GET", target, {}, b"")
                assert seen.status < 500 or seen.status == 501, f"{target}: {seen.status} {seen.text[-300:]}"
                assert "x" not in seen.headers, target


async def test_odd_forms_are_answered(server: Server) -> None:
    """With the fields of all forms; those that one does not know it passes over."""
    visitor = Visitor(server)
    await visitor.sign_in()
    token = dict((await visitor.get("/")).form("/preferences").fields)["csrf"]
    choices = (
        {"mechanism": "x509", "authentication": "selfSigned"},
        {"mechanism": "symmetricKey", "kind": "device", "do": "swap", "confirmed": "on"},
    )
    for odd in ("\0", "é💥\r\nx: y", "9" * 5_000):
        for path in ACTIONS:
            if path == "/sign-out":
                continue
            target = filled(path.replace("{hub}", "hub"))
            for chosen in choices:
                form = {**dict.fromkeys(FIELDS, odd), "csrf": token, **chosen}
                seen = await visitor.post(target, form)
                assert seen.status < 500 or seen.status == 501, f"{target} {odd[:9]!r}: {seen.text[-300:]}"


async def test_beyond_loopback_cookies_go_over_tls_alone(server: Server) -> None:
    put_before(server, server.inside_api(), secure=True)
    seen = await Visitor(server).get(server.portal_link())
    assert seen.headers["set-cookie"].endswith("; Secure")
