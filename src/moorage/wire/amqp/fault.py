"""How a broken rule finds its way to what it ends."""

from __future__ import annotations

from typing import Protocol

from moorage.wire.amqp.performatives import Error


class Scope(Protocol):
    """What an error ends: a link, a session or the connection."""

    def _fail(self, error: Error) -> None: ...


class Fault(Exception):
    """The peer broke a rule that ends `scope` with `error`; everything outside `scope` goes on."""

    def __init__(self, scope: Scope, condition: str, description: str) -> None:
        super().__init__(description)
        self._scope = scope
        self._error = Error(condition, description)

    def close_scope(self) -> None:
        self._scope._fail(self._error)
