"""What holds for every page and every action, whoever adds one."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from moorage.app import Server
from moorage.portal.api import Ask
from moorage.portal.application import portal
from tests.support.portal_routes import nothing_done, routes
from tests.support.visitor import ORIGIN, Visitor

PAGES = [route.path for route in routes("GET")]
ACTIONS = [route.path for route in routes("POST")]
READING = re.compile(r"/(query|preview|attestationmechanism)\?")
"""Calls with POST that change nothing."""


def filled(path: str) -> str:
    """With something in place of each parameter."""
    return re.sub(r"\{\w+:int\}", "0", re.sub(r"\{\w+\}", "x", path))


def put_before(server: Server, ask: Ask) -> None:
    """Another portal in place of the server's own, with other APIs behind it."""
    server.__dict__["_portal_pages"] = portal(
        ask,
        server._portal_sessions,
        now=server.clock.now,
        port=server._portal.port,
        host_names=["localhost"],
        secure=False,
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
