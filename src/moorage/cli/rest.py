"""The client of the public REST APIs: `http.client`, a SAS token, JSON."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from moorage.cli.target import Login, no_answer
from moorage.credentials.sas import make_token
from moorage.errors import MoorageError

DPS_API_VERSION = "2021-10-01"
HUB_API_VERSION = "2021-04-12"
TOKEN_LIFETIME = 600  # seconds
PATIENCE = 60.0  # seconds for an answer
CLOCK_STEP = 300  # seconds; clocks that differ by less than half of it agree


class Answer(NamedTuple):
    """The names of `headers` are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Refused(MoorageError):
    """The service said no; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """One service, addressed by path. Each call opens its own connection, for a command makes one or two; who makes
    thousands does so within `kept_open`."""

    def __init__(self, login: Login, api_version: str) -> None:
        self._open: http.client.HTTPSConnection | None = None
        self._login = login
        self._api_version = api_version
        self._ahead = 0  # seconds by which the service's clock is ahead, once it has refused a token

    @contextmanager
    def kept_open(self) -> Iterator[Service]:
        """All calls over one connection, which must not be made from several threads."""
        self._open = opened = _connection(self._login, PATIENCE)
        try:
            yield self
        finally:
            self._open = None
            opened.close()

    def get(self, path: str, **query: str) -> Any:
        return self.call("GET", path, query=query)[0]

    def put(self, path: str, body: object, *, if_match: str | None = None) -> Any:
        return self.call("PUT", path, body, if_match=if_match)[0]

    def patch(self, path: str, body: object, *, if_match: str | None = None) -> Any:
        return self.call("PATCH", path, body, if_match=if_match)[0]

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
        api_version: str | None = None,
        accepted: Container[int] = (),
        patience: float = PATIENCE,
    ) -> tuple[Any, dict[str, str]]:
        """The parsed answer (None when empty) and its headers. `accepted` are statuses from 400 on that are none
        the less an answer; `patience` is in seconds. Raises Refused, Unavailable."""
        version = api_version or self._api_version
        target = f"{path}?{urlencode({**(query or {}), 'api-version': version})}"
        content = None if body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        if if_match is not None:
            given["If-Match"] = if_match
        answer = self._send(method, target, content, given, patience)
        if answer.status == 401 and (ahead := ahead_of_us(answer.headers.get("date"))) != self._ahead:
            self._ahead = ahead
            answer = self._send(method, target, content, given, patience)
        if answer.status >= 400 and answer.status not in accepted:
            raise Refused(answer.status, _message(answer.status, answer.body))
        return json.loads(answer.body) if answer.body else None, answer.headers

    def _send(
        self, method: str, target: str, content: bytes | None, headers: Mapping[str, str], patience: float
    ) -> Answer:
        login = self._login
        expiry = int(time.time()) + self._ahead + TOKEN_LIFETIME
        token = make_token(login.host, login.key, expiry, login.policy)
        given = {"Authorization": token, **headers}
        if self._open is not None:
            return _answer(login, self._open, method, target, content, given)
        return send(login, method, target, content, given, patience)


def send(
    login: Login,
    method: str,
    target: str,
    content: bytes | None,
    headers: Mapping[str, str],
    patience: float = PATIENCE,
) -> Answer:
    """Any answer, of whatever status. Raises Unavailable."""
    connection = _connection(login, patience)
    try:
        return _answer(login, connection, method, target, content, headers)
    finally:
        connection.close()


def _connection(login: Login, patience: float) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(login.host, login.port or 443, context=login.trust(), timeout=patience)


def _answer(
    login: Login,
    connection: http.client.HTTPSConnection,
    method: str,
    target: str,
    content: bytes | None,
    headers: Mapping[str, str],
) -> Answer:
    try:
        connection.request(method, target, content, headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise no_answer(login.host, login.port or 443, error) from None
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def clock_ahead(login: Login) -> int:
    """Seconds by which the service's clock is ahead of ours, 0 when they agree. Raises Unavailable."""
    return ahead_of_us(send(login, "GET", "/", None, {}).headers.get("date"))


def ahead_of_us(date: str | None) -> int:
    """From the `Date` of an answer. A server started with `--clock-offset` judges tokens by its own clock."""
    try:
        ahead = parsedate_to_datetime(date or "").timestamp() - time.time()
    except ValueError:
        return 0
    return round(ahead / CLOCK_STEP) * CLOCK_STEP


def _message(status: int, text: bytes) -> str:
    """The sentence in an error body, in whichever form the service wrote it [dps 15, hub-service 4.1]."""
    return f"{_sentence(text.decode('utf-8', 'replace'))} (HTTP {status})"


def _sentence(text: str) -> str:
    try:
        document = json.loads(text)
        if said := document.get("message"):
            return str(said)
        # What a hub's gateway says is JSON within JSON.
        return _sentence(said) if (said := document.get("Message")) else text
    except (ValueError, AttributeError):
        return text
