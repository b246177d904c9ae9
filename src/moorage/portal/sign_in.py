"""The way in and out: a one-time link, a cookie, and how a browser likes to see the portal."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from moorage.portal.forms import Form
from moorage.portal.pages import (
    LANGUAGE_COOKIE,
    THEME_COOKIE,
    THEMES,
    Pages,
    action,
    page,
)
from moorage.portal.sessions import Sessions
from moorage.portal.texts import LANGUAGES

YEAR = 365 * 24 * 3600  # seconds


class SignInPages:
    """`cookie` is the session's; `secure` says that the portal is reached over TLS alone."""

    def __init__(self, pages: Pages, sessions: Sessions, *, cookie: str, secure: bool) -> None:
        self._pages = pages
        self._sessions = sessions
        self._cookie = cookie
        self._flags: dict[str, Any] = {"samesite": "strict", "secure": secure, "path": "/"}
        self.routes = (
            page("/sign-in", self._enter),
            action("/sign-out", self._leave),
            action("/preferences", self._prefer),
        )

    async def stranger(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whoever is not signed in is told how to be."""
        request = Request(scope, receive)
        response = await self._pages.render(request, "sign_in.html", status=401, used=False)
        await response(scope, receive, send)

    async def _enter(self, request: Request) -> Response:
        """A page, not a redirect: a cookie that is `SameSite=Strict` comes along from a page of ours alone.

        HEAD does not use the link up: programs that show links ask so whether there is anything behind them.
        """
        if request.method == "HEAD":
            return Response()
        cookie = await self._sessions.redeem(request.query_params.get("code", ""))
        if cookie is None:
            if request.state.session is not None:
                return RedirectResponse("/", 303)
            return await self._pages.render(
                request, "sign_in.html", status=401, used="code" in request.query_params
            )
        response = await self._pages.render(request, "signed_in.html")
        response.set_cookie(self._cookie, cookie, httponly=True, **self._flags)
        return response

    async def _leave(self, request: Request, form: Form) -> Response:
        await self._sessions.end(request.cookies.get(self._cookie, ""))
        response = RedirectResponse("/", 303)
        response.delete_cookie(self._cookie, httponly=True, **self._flags)
        return response

    async def _prefer(self, request: Request, form: Form) -> Response:
        response = RedirectResponse(_local(form.text("next")), 303)
        for cookie, value, known in (
            (LANGUAGE_COOKIE, form.text("language"), LANGUAGES),
            (THEME_COOKIE, form.text("theme"), THEMES),
        ):
            if value in known:
                response.set_cookie(cookie, value, max_age=YEAR, httponly=True, **self._flags)
        return response


def _local(path: str) -> str:
    """`path` where it is one of this portal, else the first page."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
