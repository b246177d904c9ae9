"""Who gets in: the portal's pages are for a browser that is signed in, on a name that we know, from our own pages.

- A `Host` that is not one of ours is refused: another site's name may have been pointed at this machine, which is
  called DNS rebinding.
- Whatever changes something must come from a page of ours: the browser says so (`Sec-Fetch-Site`, `Origin`), and the
  form holds a token of the session, which `pages.action` checks.
- Nothing is loaded from elsewhere, no page is framed, none is kept by a cache, none tells where it was left for.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage.credentials.sas import host_name
from moorage.portal.sessions import Sessions

log = logging.getLogger("moorage.portal")

STATIC = "/static/"  # kept by browsers, which ask whether it is still the same
OPEN_TO_ALL = (STATIC, "/sign-in")  # the way in, and what it looks like
SAFE = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Doorkeeper:
    """Stands before `pages`; who is not signed in is sent to `stranger`. `cookie` names the session's cookie."""

    def __init__(
        self,
        pages: ASGIApp,
        stranger: ASGIApp,
        *,
        sessions: Sessions,
        cookie: str,
        host_names: Collection[str],
    ) -> None:
        self._pages = pages
        self._stranger = stranger
        self._sessions = sessions
        self._cookie = cookie
        self._host_names = frozenset(name.lower() for name in host_names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        started, is_static = False, scope["path"].startswith(STATIC)

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answered = MutableHeaders(scope=message)
                answered.update(HEADERS)
                answered.setdefault("cache-control", "no-cache" if is_static else "no-store")
            await send(message)

        app = await self._app(scope, headers)
        try:
            await app(scope, receive, guarded)
        except Exception:
            if not started:
                raise
            log.exception(
                "page failed", extra={"path": scope["path"]}
            )  # it has been said on the page already

    async def _app(self, scope: Scope, headers: Headers) -> ASGIApp:
        if host_name(headers.get("host", "")) not in self._host_names:
            return PlainTextResponse(
                "This name is not one of the portal's. If it should be: moorage up --portal-host NAME\n", 421
            )
        if scope["method"] not in SAFE and not _from_here(headers):
            return PlainTextResponse("This request does not come from a page of the portal.\n", 403)
        cookie = HTTPConnection(scope).cookies.get(self._cookie, "")
        session = await self._sessions.find(cookie)
        scope.setdefault("state", {})["session"] = session
        if session is None and not scope["path"].startswith(OPEN_TO_ALL):
            return self._stranger
        return self._pages


def _from_here(headers: Headers) -> bool:
    """A browser says which site asks, all but very old ones by both of these headers."""
    if (site := headers.get("sec-fetch-site")) is not None and site != "same-origin":
        return False
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == headers.get("host")
