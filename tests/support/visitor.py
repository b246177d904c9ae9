"""A browser without a window: it keeps cookies, follows redirects, and sends forms with what is hidden in them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from moorage.app import Server
from moorage.config import Config
from moorage.portal.pages import FRAGMENT
from tests.conftest import free_address

ORIGIN = "http://localhost:8080"


@dataclass(frozen=True)
class PageSeen:
    status: int
    headers: Mapping[str, str]
    content: bytes
    path: str
    """Where it was found, after all redirects."""

    @property
    def html(self) -> str:
        return self.content.decode()

    @property
    def text(self) -> str:
        """What can be read on it, blanks run together."""
        return " ".join(
            unescape(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", self.html, flags=re.S)).split()
        )

    @property
    def title(self) -> str:
        (heading,) = re.findall(r"<h1[^>]*>(.*?)</h1>", self.html, re.S)
        return unescape(str(heading)).strip()

    def forms(self) -> list[FormSeen]:
        reader = _FormReader()
        reader.feed(self.html)
        return reader.forms

    def form(self, action: str) -> FormSeen:
        """The one form that is sent to `action`."""
        (found,) = [form for form in self.forms() if form.action == action]
        return found


@dataclass
class FormSeen:
    """Fields with the values that the page gave them; a box or a choice that is not checked has none."""

    action: str
    fields: list[tuple[str, str]]


class _FormReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[FormSeen] = []
        self._select = self._area = ""
        self._first_option = ""
        self._chosen: str | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.forms.append(FormSeen(given.get("action") or "", []))
        elif not self.forms:
            return
        elif tag == "input" and (name := given.get("name")) and given.get("type") not in ("file", "submit"):
            if given.get("type") in ("checkbox", "radio") and "checked" not in given:
                return
            self.forms[-1].fields.append((name, given.get("value", "on") or ""))
        elif tag == "select":
            self._select, self._chosen, self._first_option = given.get("name") or "", None, ""
        elif tag == "option":
            value = given.get("value") or ""
            self._first_option = self._first_option or value
            if "selected" in given:
                self._chosen = value
        elif tag == "textarea":
            self._area, self._text = given.get("name") or "", ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "select" and self._select and self.forms:
            chosen = self._first_option if self._chosen is None else self._chosen
            self.forms[-1].fields.append((self._select, chosen))
            self._select = ""
        elif tag == "textarea" and self._area and self.forms:
            self.forms[-1].fields.append((self._area, self._text))
            self._area = ""


class Visitor:
    """Somebody with a browser before the portal of `server`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._cookies: dict[str, str] = {}

    async def sign_in(self) -> PageSeen:
        return await self.get(self.server.portal_link())

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> PageSeen:
        return await self._go("GET", target, headers or {}, b"")

    async def fragment(self, target: str) -> PageSeen:
        """As a script of the portal asks."""
        return await self.get(target, {FRAGMENT: "live"})

    async def post(
        self,
        target: str,
        fields: Sequence[tuple[str, str]] | Mapping[str, str],
        *,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> PageSeen:
        pairs = list(fields.items()) if isinstance(fields, Mapping) else list(fields)
        if files is None:
            content, media_type = urlencode(pairs).encode(), "application/x-www-form-urlencoded"
        else:
            content, media_type = _multipart(pairs, files)
        sent = {
            "origin": ORIGIN,
            "sec-fetch-site": "same-origin",
            "content-type": media_type,
            **(headers or {}),
        }
        return await self._go("POST", target, sent, content)

    async def send(
        self,
        page: PageSeen,
        action: str,
        fields: Mapping[str, str | list[str] | None] | None = None,
        *,
        files: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> PageSeen:
        """The form of `page` that goes to `action`, with `fields` filled in; None leaves one out."""
        pairs = [(name, value) for name, value in page.form(action).fields if name not in (fields or {})]
        for name, value in (fields or {}).items():
            if value is not None:
                pairs += [(name, each) for each in ([value] if isinstance(value, str) else value)]
        return await self.post(action, pairs, files=files)

    async def _go(self, method: str, target: str, headers: Mapping[str, str], content: bytes) -> PageSeen:
        for _ in range(10):
            seen = await self._ask(method, target, headers, content)
            if seen.status != 303:
                return seen
            method, content = "GET", b""
            target = urljoin(target, seen.headers["location"])
            headers = {name: value for name, value in headers.items() if name != "content-type"}
        raise AssertionError(f"redirected in a circle at {target}")

    async def _ask(self, method: str, target: str, headers: Mapping[str, str], content: bytes) -> PageSeen:
        parts = urlsplit(target)
        sent = {"host": urlsplit(ORIGIN).netloc, **headers}
        if self._cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        if method == "POST":
            sent.setdefault("content-length", str(len(content)))
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": _decoded(parts.path),
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
            "extensions": {},
        }
        pieces = [content[at : at + 60_000] for at in range(0, len(content), 60_000)] or [b""]
        answered: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            answered.append(message)

        await self.server._at_portal(scope, receive, send)
        start = answered[0]
        for name, value in start["headers"]:
            if name == b"set-cookie":
                for morsel in SimpleCookie(value.decode("latin-1")).values():
                    self._cookies[morsel.key] = morsel.value
                    if morsel["max-age"] == "0":
                        del self._cookies[morsel.key]
        answered_headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]
        }
        body = b"".join(message.get("body", b"") for message in answered[1:])
        return PageSeen(start["status"], answered_headers, body, parts.path)


def _decoded(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path)


def _multipart(pairs: Sequence[tuple[str, str]], files: Mapping[str, tuple[str, bytes]]) -> tuple[bytes, str]:
    boundary = "visitor-boundary"
    content = bytearray()
    for name, value in pairs:
        content += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        )
    for name, (file, body) in files.items():
        content += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        content += body + b"\r\n"
    content += f"--{boundary}--\r\n".encode()
    return bytes(content), f"multipart/form-data; boundary={boundary}"


@asynccontextmanager
async def open_server(ca: Path, **settings: Any) -> AsyncIterator[Server]:
    """A whole server that keeps nothing, at an address of its own; `ca` is the folder of its local CA."""
    address = free_address()
    config = Config(data=None, bind=(address,), hub_host=address, portal_port=0, ca=ca, **settings)
    server = Server(config)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
