"""The client of the public REST APIs: `http.client`, a SAS token, JSON."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from moorage.cli.target import Login, no_answer
from moorage.credentials.sas import make_token
from moorage.errors import MoorageError

DPS_API_VERSION = "2021-10-01"
HUB_API_VERSION = "2021-04-12"
TOKEN_LIFETIME = 600  # seconds


class Refused(MoorageError):
    """The service said no; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """One service, addressed by path. Each call opens its own connection: a command makes one or two."""

    def __init__(self, login: Login, api_version: str) -> None:
        self._login = login
        self._api_version = api_version

    def get(self, path: str, **query: str) -> Any:
        return self.call("GET", path, query=query)[0]

    def put(self, path: str, body: object, *, if_match: str | None = None) -> Any:
        return self.call("PUT", path, body, if_match=if_match)[0]

    def delete(self, path: str, *, if_match: str | None = None) -> None:
        self.call("DELETE", path, if_match=if_match)

    def pages(self, path: str, body: object, *, top: int | None) -> Iterator[Any]:
        """Every item of a paged query, `top` at the most."""
        continuation: str | None = None
        left = top
        while left is None or left > 0:
            headers = {"x-ms-max-item-count": str(min(left or 100, 100))}
            if continuation is not None:
                headers["x-ms-continuation"] = continuation
            items, answered = self.call("POST", path, body, headers=headers)
            yield from items[:left]
            left = None if left is None else left - len(items)
            continuation = answered.get("x-ms-continuation")
            if continuation is None:
                return

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        if_match: str | None = None,
    ) -> tuple[Any, dict[str, str]]:
        """The parsed answer (None when empty) and its headers. Raises Refused, Unavailable."""
        login = self._login
        sent = {
            "Authorization": make_token(
                login.host, login.key, int(time.time()) + TOKEN_LIFETIME, login.policy
            ),
            "Content-Type": "application/json; charset=utf-8",
            **(headers or {}),
        }
        if if_match is not None:
            sent["If-Match"] = if_match
        target = f"{path}?{urlencode({**(query or {}), 'api-version': self._api_version})}"
        connection = http.client.HTTPSConnection(
            login.host, login.port or 443, context=login.trust(), timeout=60
        )
        try:
            connection.request(method, target, json.dumps(body) if body is not None else None, sent)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise no_answer(login.host, login.port or 443, error) from None
        finally:
            connection.close()
        if response.status >= 400:
            raise Refused(response.status, _message(response.status, text))
        answered = {name.lower(): value for name, value in response.getheaders()}
        return json.loads(text) if text else None, answered


def _message(status: int, text: bytes) -> str:
    """The sentence in an error body, whichever of the two services wrote it."""
    try:
        document = json.loads(text)
        said = document.get("message") or document.get("Message") or text.decode()
    except (ValueError, AttributeError):
        said = text.decode("utf-8", "replace")
    return f"{said} (HTTP {status})"
