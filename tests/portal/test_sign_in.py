"""Who gets in, on which name, and from where."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from moorage.app import KINDS, Server
from moorage.interfaces import Records
from moorage.portal.sessions import (
    IDLE_LIFETIME,
    KIND,
    LINK_LIFETIME,
    MAX_SESSIONS,
    KeptSession,
    Sessions,
)
from moorage.store.sqlite import SqliteStore
from tests.support.streams import ManualTime
from tests.support.visitor import Visitor


async def test_a_link_signs_in_once(server: Server) -> None:
    link = server.portal_link()
    first, second = Visitor(server), Visitor(server)
    assert (await first.get(link)).title == "You are signed in"
    assert (await first.get("/")).title == "Overview"
    refused = await second.get(link)
    assert refused.status == 401
    assert "This link has been used" in refused.text
    assert (await second.get("/")).status == 401


async def test_the_cookie_stays_with_the_portal(server: Server) -> None:
    seen = await Visitor(server).get(server.portal_link())
    cookie = seen.headers["set-cookie"]
    assert cookie.startswith(f"moorage_portal_{server._portal.port}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


async def test_a_link_that_is_opened_again_by_who_is_signed_in_leads_on(visitor: Visitor) -> None:
    assert (await visitor.get("/sign-in?code=used")).title == "Overview"


async def test_who_is_not_signed_in_is_told_how(server: Server) -> None:
    seen = await Visitor(server).get("/enrollments")
    assert seen.status == 401
    assert "moorage portal" in seen.text


async def test_signing_out_ends_the_session(visitor: Visitor) -> None:
    page = await visitor.get("/")
    copied = Visitor(visitor.server)
    copied._cookies = dict(visitor._cookies)
    assert (await copied.get("/")).status == 200
    await visitor.send(page, "/sign-out")
    assert (await visitor.get("/")).status == 401
    assert (await copied.get("/")).status == 401  # not in the browser alone


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example", ""])
async def test_a_name_that_is_not_ours_is_refused(visitor: Visitor, host: str) -> None:
    seen = await visitor.get("/", {"host": host})
    assert seen.status == 421
    assert "--portal-host" in seen.html


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080"])
async def test_the_names_of_loopback_are_ours(visitor: Visitor, host: str) -> None:
    assert (await visitor.get("/", {"host": host})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://localhost:8081"},
    ],
)
async def test_a_form_of_another_site_is_refused(visitor: Visitor, headers: dict[str, str]) -> None:
    page = await visitor.get("/")
    seen = await visitor.post("/sign-out", page.form("/sign-out").fields, headers=headers)
    assert seen.status == 403
    assert (await visitor.get("/")).status == 200


async def test_a_form_without_the_sessions_token_is_refused(visitor: Visitor) -> None:
    for fields in ({}, {"csrf": "guessed"}, {"csrf": "é"}):
        assert (await visitor.post("/sign-out", fields)).status == 403
    assert (await visitor.get("/")).status == 200


async def test_nothing_is_loaded_from_elsewhere_or_kept(visitor: Visitor) -> None:
    headers = (await visitor.get("/")).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"


async def test_scripts_and_styles_are_kept_and_asked_for_anew(visitor: Visitor) -> None:
    seen = await visitor.get("/static/portal.css")
    assert seen.headers["cache-control"] == "no-cache"
    assert (await visitor.get("/static/portal.css", {"if-none-match": seen.headers["etag"]})).status == 304


async def test_a_form_that_is_too_long_is_answered_once_it_was_taken(visitor: Visitor) -> None:
    seen = await visitor.post("/preferences", {"csrf": "x" * (2 << 20)})
    assert seen.status == 413
    assert "1,024 KiB" in seen.text


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", ""])
async def test_preferences_lead_back_to_a_page_of_ours(visitor: Visitor, target: str) -> None:
    page = await visitor.get("/")
    seen = await visitor.send(page, "/preferences", {"language": "ko", "theme": "dark", "next": target})
    assert (seen.path, seen.title) == ("/", "개요")
    assert 'data-theme="dark"' in seen.html


async def test_what_is_not_there_is_said(visitor: Visitor) -> None:
    seen = await visitor.get("/nowhere")
    assert seen.status == 404
    assert seen.title == "This could not be done"


@pytest.fixture
async def records() -> AsyncIterator[Records[KeptSession]]:
    store = SqliteStore.open(None, kinds=KINDS)
    yield store.records(KIND, 0)
    await store.close()


@pytest.fixture
def time() -> ManualTime:
    return ManualTime()


@pytest.fixture
def sessions(time: ManualTime, records: Records[KeptSession]) -> Sessions:
    return Sessions(time, records)


async def signed_in(sessions: Sessions) -> str:
    cookie = await sessions.redeem(sessions.new_code())
    assert cookie is not None
    return cookie


async def test_a_link_grows_old(time: ManualTime, sessions: Sessions) -> None:
    code = sessions.new_code()
    time.advance(LINK_LIFETIME + 1)
    assert await sessions.redeem(code) is None


async def test_a_session_ends_when_nobody_comes(
    time: ManualTime, sessions: Sessions, records: Records[KeptSession]
) -> None:
    cookie = await signed_in(sessions)
    for _ in range(3):
        time.advance(IDLE_LIFETIME - 1)
        assert await sessions.find(cookie) is not None
    time.advance(IDLE_LIFETIME + 1)
    assert await sessions.find(cookie) is None
    assert await records.count() == 0


async def test_a_session_outlives_a_restart(
    time: ManualTime, sessions: Sessions, records: Records[KeptSession]
) -> None:
    cookie = await signed_in(sessions)
    before = await sessions.find(cookie)
    after = await Sessions(time, records).find(cookie)
    assert before is not None
    assert after is not None
    assert after.owns(before.csrf)  # a form that is open can still be sent


async def test_a_session_that_was_ended_is_so_for_ever(
    time: ManualTime, sessions: Sessions, records: Records[KeptSession]
) -> None:
    cookie = await signed_in(sessions)
    await sessions.end(cookie)
    assert await sessions.find(cookie) is None
    assert await Sessions(time, records).find(cookie) is None


async def test_there_are_only_so_many_sessions(
    time: ManualTime, sessions: Sessions, records: Records[KeptSession]
) -> None:
    cookies = []
    for _ in range(MAX_SESSIONS + 1):
        cookies.append(await signed_in(sessions))
        time.advance(1)
    assert await records.count() == MAX_SESSIONS
    assert await sessions.find(cookies[0]) is None
    assert await sessions.find(cookies[-1]) is not None


async def test_the_cookie_itself_is_kept_nowhere(sessions: Sessions, records: Records[KeptSession]) -> None:
    cookie = await signed_in(sessions)
    (kept,) = (await records.page(limit=10)).records
    assert cookie not in str(kept)


async def test_a_form_of_an_earlier_session_can_be_sent_again(server: Server) -> None:
    earlier, visitor = Visitor(server), Visitor(server)
    await earlier.sign_in()
    await visitor.sign_in()
    fields = {**dict((await earlier.get("/hubs/hub/devices/~new")).form("/hubs/hub/devices/~new").fields)}
    seen = await visitor.post("/hubs/hub/devices/~new", {**fields, "device_id": "pump-7"})
    assert seen.status == 403
    assert (await visitor.get("/hubs/hub/devices/pump-7")).status == 404
    seen = await visitor.send(seen, "/hubs/hub/devices/~new")
    assert seen.title == "pump-7"
