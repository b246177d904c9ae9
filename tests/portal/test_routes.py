"""What holds for every page and every action, whoever adds one."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from starlette.types import Message, Scope

from moorage.app import Server
from moorage.portal.application import portal
from moorage.portal.sessions import Sessions
from tests.support.portal_routes import nothing_done, routes
from tests.support.streams import ManualTime
from tests.support.visitor import Visitor

PAGES = [route.path for route in routes("GET")]
ACTIONS = [route.path for route in routes("POST")]
READING = re.compile(r"/(query|preview|attestationmechanism)\?")
"""Calls with POST that change nothing."""


def filled(path: str) -> str:
    """With something in place of each parameter."""
    return re.sub(r"\{\w+:int\}", "0", re.sub(r"\{\w+\}", "x", path))


class Doors:
    """A portal of whose APIs nothing may be wanted."""

    def __init__(self) -> None:
        sessions = Sessions(ManualTime())
        self._cookie = f"moorage_portal_8080={sessions.redeem(sessions.new_code())}"
        self._app = portal(
            nothing_done, sessions, now=lambda: 0, port=8080, host_names=["localhost"], secure=False
        )

    async def status(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, *, signed_in: bool = True
    ) -> int:
        sent = {
            "host": "localhost:8080",
            **(headers or {}),
            **({"cookie": self._cookie} if signed_in else {}),
        }
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "extensions": {},
        }
        statuses: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await self._app(scope, receive, send)
        return statuses[0]


@pytest.fixture(scope="module")
def doors() -> Doors:
    return Doors()


def test_routes_are_read_or_sent_to_and_nothing_else() -> None:
    everything = {route.path: set(route.methods or ()) for route in (*routes("GET"), *routes("POST"))}
    assert set(everything) == {*PAGES, *ACTIONS}
    assert all(methods in ({"GET", "HEAD"}, {"POST"}) for methods in everything.values())


async def test_every_action_wants_a_page_of_ours_and_the_sessions_token(doors: Doors) -> None:
    form = {"content-type": "application/x-www-form-urlencoded", "content-length": "0"}
    ours = {**form, "origin": "http://localhost:8080", "sec-fetch-site": "same-origin"}
    for path in map(filled, ACTIONS):
        assert await doors.status("POST", path, form) == 403, f"{path} without an origin"
        assert await doors.status("POST", path, {**ours, "origin": "http://evil.example"}) == 403, path
        assert await doors.status("POST", path, ours) == 403, f"{path} without a token"
        assert await doors.status("POST", path, ours, signed_in=False) == 401, path


async def test_no_page_is_shown_to_strangers(doors: Doors) -> None:
    for path in map(filled, PAGES):
        assert await doors.status("GET", path, signed_in=False) == 401, path


async def test_no_other_method_does_anything(doors: Doors) -> None:
    for path in dict.fromkeys(map(filled, (*PAGES, *ACTIONS))):
        for method in ("PUT", "DELETE", "OPTIONS", "BREW"):
            assert await doors.status(method, path, {"origin": "http://localhost:8080"}) == 405, path


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
    server.__dict__["_portal_pages"] = portal(
        watched,
        server._portal_sessions,
        now=server.clock.now,
        port=server._portal.port,
        host_names=["localhost"],
        secure=False,
    )
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
