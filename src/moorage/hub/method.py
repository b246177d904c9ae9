"""Direct methods: a back end calls a device or module that is connected, and waits for its answer. [hub-device 9]

    reach    at once, or within the connect timeout, once the device listens
    answer   within the response timeout, counted from the moment at which the call was sent

Nothing is kept: a call that was not answered in time is over, and what the device answers then is passed over.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from moorage.errors import Invalid, MoorageError, TooLarge
from moorage.hub.identity import Identities
from moorage.hub.session import MethodAnswer, PendingCall, Session, Sessions, name_of
from moorage.interfaces import Expected, Waiting

MAX_PAYLOAD = 128 * 1024  # bytes of JSON, each way [hub-service 9]
MAX_CALLS = 100  # under way to one device or module, and as many that wait for it
MAX_UNANSWERED = 512 * 1024  # bytes of payloads under way to it: what a connection may have unsent is bounded

RESPONSE_TIMEOUT = range(5, 301)  # seconds
CONNECT_TIMEOUT = range(301)
_DEFAULT_RESPONSE_TIMEOUT = 30

# ASCII letters, digits and punctuation but `$()<>@,;:\"/[]?={}`, and `#` and `+`, which no MQTT topic of a message
# can hold. Commands of Plug and Play components have a `*`.
_NAME = re.compile(r"[A-Za-z0-9!%&'*\-.^_`|~]{1,100}")
_NULL = b"null"


class NotOnline(MoorageError):
    """Not connected, or not listening to the method, for `seconds` [hub-service 9]."""

    def __init__(self, seconds: int) -> None:
        super().__init__("Timed out waiting for device to connect.")
        self.seconds = seconds


class ConnectionLost(MoorageError):
    """The device went away with the call. Nobody knows whether it was done."""

    def __init__(self) -> None:
        super().__init__("The device closed its connection before it answered.")


class NoAnswer(MoorageError):
    """The device has the call, and has not answered for `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__("Timed out waiting for the response from device.")
        self.seconds = seconds


class BadAnswer(MoorageError):
    """What the device answered cannot be handed on."""


class TooManyCalls(MoorageError):
    """The device has as many calls to answer as it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCall:
    """`payload` is a JSON text; timeouts are in seconds."""

    method: str
    payload: bytes = _NULL
    response_timeout: int = _DEFAULT_RESPONSE_TIMEOUT
    connect_timeout: int = 0


def read_call(document: Mapping[str, Any]) -> MethodCall:
    """From the JSON of a back end. Raises Invalid, TooLarge. [hub-service 9]

    A payload that is left out is null: devices parse what they get.
    """
    method = document.get("methodName")
    if not isinstance(method, str) or not _NAME.fullmatch(method):
        raise Invalid("methodName", "it is 1 to 100 ASCII letters, digits and characters of !%&'*-.^_`|~")
    payload = json.dumps(document.get("payload"), ensure_ascii=False, separators=(",", ":")).encode()
    if len(payload) > MAX_PAYLOAD:
        raise TooLarge("payload", f"it has {len(payload)} bytes, the limit is {MAX_PAYLOAD}")
    return MethodCall(
        method=method,
        payload=payload,
        response_timeout=_seconds(
            document, "responseTimeoutInSeconds", RESPONSE_TIMEOUT, _DEFAULT_RESPONSE_TIMEOUT
        ),
        connect_timeout=_seconds(document, "connectTimeoutInSeconds", CONNECT_TIMEOUT, 0),
    )


def _seconds(document: Mapping[str, Any], field: str, allowed: range, default: int) -> int:
    value = document.get(field)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise Invalid(field, f"it is a whole number from {allowed.start} to {allowed.stop - 1}")
    return value


class Methods:
    """Calls of direct methods, of every hub."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._request_ids = itertools.count(1)

    async def invoke(
        self, identities: Identities, device_id: str, call: MethodCall, *, module_id: str | None = None
    ) -> MethodAnswer:
        """What the device answers, its payload a JSON text, whatever its status says.

        Raises NotFound, TooManyCalls, NotOnline, ConnectionLost, NoAnswer, BadAnswer.
        """
        await identities.twins.get(device_id, module_id)  # who has none does not exist
        name = name_of(device_id, module_id)
        under_way = _UnderWay(name, call, f"{next(self._request_ids):x}", self._waiting.expect())
        try:
            if not under_way.send(identities.sessions):
                await self._reach(under_way, identities.sessions)
            return await under_way.end()
        finally:
            under_way.forget()

    async def _reach(self, under_way: _UnderWay, sessions: Sessions) -> None:
        """Send the call as soon as the device listens. Raises NotOnline, TooManyCalls."""
        name, seconds = under_way.name, under_way.call.connect_timeout
        if sessions.awaited(name) >= MAX_CALLS:
            raise TooManyCalls(f"{MAX_CALLS} calls wait already for {name!r} to connect")
        reached: Expected[bool] = self._waiting.expect()

        def try_again() -> None:
            if reached.open and under_way.send(sessions):
                reached.bring(True)

        forget = sessions.await_listening(name, try_again)
        try:
            if not seconds or not await reached.within(seconds):
                raise NotOnline(seconds)
        finally:
            forget()


class _UnderWay:
    """One call of one device."""

    def __init__(
        self, name: str, call: MethodCall, request_id: str, outcome: Expected[MethodAnswer | MoorageError]
    ) -> None:
        self.name = name
        self.call = call
        self._request_id = request_id
        self._outcome = outcome
        self._session: Session | None = None

    def send(self, sessions: Sessions) -> bool:
        """False when the device does not listen. What keeps a call from one that does, `end` will tell."""
        session, call = sessions.connected(self.name), self.call
        if session is None:
            return False
        unanswered = sum(pending.size for pending in session.calls.values())
        if len(session.calls) >= MAX_CALLS or unanswered + len(call.payload) > MAX_UNANSWERED:
            self._outcome.bring(
                TooManyCalls(f"{self.name!r} has {len(session.calls)} calls to answer already")
            )
            return True
        session.calls[self._request_id] = PendingCall(len(call.payload), self._ended)
        if not session.link.invoke(self._request_id, call.method, call.payload):
            del session.calls[self._request_id]
            return False
        self._session = session
        return True

    def _ended(self, answer: MethodAnswer | None) -> None:
        self._outcome.bring(ConnectionLost() if answer is None else answer)

    async def end(self) -> MethodAnswer:
        seconds = self.call.response_timeout
        outcome = await self._outcome.within(seconds)
        if outcome is None:
            raise NoAnswer(seconds)
        if isinstance(outcome, MoorageError):
            raise outcome
        return _checked(outcome)

    def forget(self) -> None:
        """Nobody waits for the answer any more: it takes up none of the device's room."""
        if self._session is not None:
            self._session.calls.pop(self._request_id, None)


def _checked(answer: MethodAnswer) -> MethodAnswer:
    """Raises BadAnswer for a payload that is not JSON, or too large. None at all is null."""
    payload = answer.payload.strip()
    if len(payload) > MAX_PAYLOAD:
        raise BadAnswer(f"The device answered {len(payload)} bytes, the limit is {MAX_PAYLOAD}.")
    try:
        json.loads((payload or _NULL).decode(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadAnswer("The device answered what is not JSON.") from None
    return MethodAnswer(answer.status, payload or _NULL)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
