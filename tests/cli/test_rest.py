from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest

from moorage.cli import rest
from moorage.cli.rest import Answer, Refused, Service, ahead_of_us
from moorage.cli.target import Login
from moorage.credentials.sas import parse_token

LOGIN = Login("hub.example.org", None, "owner", "AAAA", None)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """What the service answers, in turn."""
    waiting: list[Answer] = []
    monkeypatch.setattr(rest, "send", lambda *_: waiting.pop(0))
    return waiting


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What it was asked, and answered with nothing."""
    asked: list[tuple[Any, ...]] = []

    def send(*arguments: Any) -> Answer:
        asked.append(arguments)
        return Answer(401 if len(asked) == 1 else 200, {"date": formatdate(time.time() + 7200)}, b"")

    monkeypatch.setattr(rest, "send", send)
    return asked


def test_a_refusal_by_another_clock_is_followed_once(sent: list[tuple[Any, ...]]) -> None:
    Service(LOGIN, "v").get("/devices")
    first, second = (parse_token(arguments[4]["Authorization"]).expiry for arguments in sent)
    assert second - first == 7200


def test_a_refusal_by_the_same_clock_is_one(answers: list[Answer]) -> None:
    answers.append(Answer(401, {"date": formatdate()}, b'{"Message": "ErrorCode:IotHubUnauthorizedAccess"}'))
    with pytest.raises(Refused, match=r"ErrorCode:IotHubUnauthorizedAccess \(HTTP 401\)") as refused:
        Service(LOGIN, "v").get("/devices")
    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"errorCode": 404201, "message": "Enrollment not found."}', "Enrollment not found."),
        (b'{"Message": "ErrorCode:DeviceNotFound"}', "ErrorCode:DeviceNotFound"),
        (b"<html>", "<html>"),
        (b'["x"]', '["x"]'),
        (b"", ""),
    ],
)
def test_either_services_errors_are_read(answers: list[Answer], body: bytes, said: str) -> None:
    answers.append(Answer(404, {}, body))
    with pytest.raises(Refused) as refused:
        Service(LOGIN, "v").get("/x")
    assert str(refused.value) == f"{said} (HTTP 404)"


def test_a_query_goes_on_page_by_page(answers: list[Answer]) -> None:
    def page(*items: int, more: bool) -> Answer:
        text = "[" + ", ".join(map(str, items)) + "]"
        return Answer(200, {"x-ms-continuation": "token"} if more else {}, text.encode())

    answers += [page(1, 2, more=True), page(3, more=False)]
    assert list(Service(LOGIN, "v").pages("/query", {}, top=None)) == [1, 2, 3]
    answers += [page(1, 2, more=True), page(3, 4, more=True)]
    assert list(Service(LOGIN, "v").pages("/query", {}, top=3)) == [1, 2, 3]


@pytest.mark.parametrize(("offset", "ahead"), [(7200, 7200), (-86_400, -86_400), (60, 0)])
def test_how_far_ahead_a_service_is(offset: int, ahead: int) -> None:
    assert ahead_of_us(formatdate(time.time() + offset)) == ahead


@pytest.mark.parametrize("date", ["soon", "", None])
def test_a_date_that_says_nothing_puts_a_service_nowhere(date: str | None) -> None:
    assert ahead_of_us(date) == 0
