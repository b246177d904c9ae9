"""How every page is made: `page` and `action` are its routes, `Pages` renders it with what all pages show."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

import moorage
from moorage.portal.api import Api, segment
from moorage.portal.forms import Form, read_form
from moorage.portal.sessions import Session
from moorage.portal.texts import LANGUAGES, Texts, choose

THEMES = ("auto", "light", "dark")
LANGUAGE_COOKIE = "moorage_language"
THEME_COOKIE = "moorage_theme"
FRAGMENT = "moorage-fragment"
"""A script of ours sends this header for a page without what is around it: to show it in a drawer."""

TABS = {"/enrollments": ("/enrollment-groups",)}
"""Pages that share a link of the navigation with the one that it leads to."""

Show = Callable[[Request], Awaitable[Response]]
Act = Callable[[Request, Form], Awaitable[Response]]

texts = cache(Texts)


def page(path: str, show: Show) -> Route:
    """What a GET of `path` shows; it changes nothing."""
    return Route(path, show, methods=["GET"])


class OldForm(Exception):
    """A form of a page of ours that was shown in another session, as before a restart: it holds another token."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form


def action(path: str, act: Act) -> Route:
    """What a form sent to `path` does. The form has been read, and holds the session's token."""

    async def checked(request: Request) -> Response:
        form = await read_form(request)
        if not session(request).owns(form.text("csrf")):
            raise OldForm(form)
        return await act(request, form)

    return Route(path, checked, methods=["POST"])


def session(request: Request) -> Session:
    """Raises HTTPException where nobody is signed in, which only the way in lets happen."""
    found: Session | None = request.state.session
    if found is None:
        raise HTTPException(403, "Sign in first.")
    return found


def language(request: Request) -> str:
    wanted = request.cookies.get(LANGUAGE_COOKIE, "")
    return wanted if wanted in LANGUAGES else choose(request.headers.get("accept-language", ""))


def text_of(request: Request) -> Texts:
    """The texts in the reader's language."""
    return texts(language(request))


def done(request: Request, location: str, key: str, /, **values: object) -> Response:
    """Go on to `location`, where the text `key` tells what was done."""
    session(request).tell("success", text_of(request).plain(key, **values))
    return RedirectResponse(location, 303)


def here(request: Request) -> str:
    """The path of the page as it was asked for: ids in it may hold what only stands there escaped."""
    raw: bytes = request.scope["raw_path"]
    return raw.decode("latin-1")


@dataclass(frozen=True, slots=True)
class NavLink:
    text: str
    href: str
    here: bool


class Pages:
    """Renders templates. Every one gets, beside its own values:

    `t` (the texts), `request`, `here` (its path), `session`, `nav`, `hubs`, `theme`, `language`, and the filters below.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("moorage.portal"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {
            "languages": LANGUAGES,
            "themes": THEMES,
            "version": moorage.__version__,
        }
        self._templates.filters |= {
            "segment": segment,
            "query_value": lambda text: quote(str(text), safe=""),
            "twice": lambda value: (value, value),  # a choice whose value is its label
            "shell": lambda text: shlex.quote(str(text)),
        }

    async def render(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        **values: Any,
    ) -> Response:
        """The whole page, or what is in it where a script asks for that alone."""
        whole = FRAGMENT not in request.headers
        signed_in: Session | None = request.state.session
        hubs = await self._api.hubs() if whole and signed_in else []
        t = text_of(request)
        content = self._templates.get_template(template).render(
            layout="page.html" if whole else "fragment.html",
            t=t,
            request=request,
            here=here(request),
            session=signed_in,
            notices=signed_in.take_notices() if signed_in and whole else [],
            nav=navigation(t, [hub["name"] for hub in hubs], request.url.path),
            hubs=hubs,
            theme=request.cookies.get(THEME_COOKIE, "auto"),
            language=t.language,
            **values,
        )
        return HTMLResponse(content, status)

    def fragment(
        self, request: Request, template: str, *, headers: Mapping[str, str] | None = None, **values: Any
    ) -> Response:
        """A piece of a page, for a script of ours to put in its place."""
        content = self._templates.get_template(template).render(
            t=text_of(request),
            request=request,
            here=here(request),
            session=session(request),
            language=language(request),
            **values,
        )
        return HTMLResponse(content, headers=dict(headers or {}))

    async def confirm(
        self, request: Request, form: Form, *, title: Markup, names: Sequence[str], button: Markup, back: str
    ) -> Response:
        """Ask before what cannot be undone: the same form comes again, with the flag `confirmed`."""
        return await self.render(
            request, "confirm.html", form=form, title=title, names=names, button=button, back=back
        )


def navigation(t: Texts, hubs: Sequence[str], path: str) -> list[tuple[str, list[NavLink]]]:
    """Groups of links, in the order and with the words of Azure's portal; the one that `path` is below is marked."""
    groups = [
        ("", [("overview.title", "/")]),
        (
            str(t("nav.dps")),
            [
                ("enrollments.title", "/enrollments"),
                ("registrations.title", "/registrations"),
                ("linked_hubs.title", "/linked-hubs"),
                ("certificates.title", "/certificates"),
                ("policies.title", "/policies"),
            ],
        ),
    ]
    for hub in hubs:
        root = f"/hubs/{segment(hub)}"
        groups.append(
            (
                str(t("nav.hub", name=hub)),
                [
                    ("devices.title", f"{root}/devices"),
                    ("telemetry.title", f"{root}/telemetry"),
                    ("certificates.title", f"{root}/certificates"),
                    ("policies.title", f"{root}/policies"),
                ],
            )
        )
    return [
        (heading, [NavLink(str(t(key)), href, _is_here(path, href)) for key, href in links])
        for heading, links in groups
    ]


def _is_here(path: str, href: str) -> bool:
    return _is_below(path, href) or any(_is_below(path, tab) for tab in TABS.get(href, ()))


def _is_below(path: str, href: str) -> bool:
    return path == href or (href != "/" and path.startswith(f"{href}/"))
