"""Why callers were let in or turned away: `decisions`.

A policy of a hub sees what concerns that hub; one of the provisioning service what concerns that, or, with
ServiceConfig, which makes and deletes hubs too, everything. What concerns nobody, a host that is not here for one, is
seen by all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from moorage.adapters.control.places import MAX_ITEMS, Places, count_asked
from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response
from moorage.credentials.decision import Decision, Decisions, Exchange
from moorage.credentials.policy import ENROLLMENT_WRITE, REGISTRY_WRITE, SERVICE_CONFIG
from moorage.errors import Invalid
from moorage.hub.twin import timestamp

NOBODY = 0  # the scope of a decision before it was known what it is about
_OPERATOR = Needs(dps=(ENROLLMENT_WRITE,), hub=(REGISTRY_WRITE,))


@dataclass(frozen=True, slots=True)
class _Wish:
    """Which decisions a caller wants to see, of those that it may; None and False for any."""

    scopes: tuple[int, ...] | None
    subject: str | None
    operation: str | None
    refused: bool
    tracking_id: str | None

    @classmethod
    def read(cls, call: Call) -> _Wish:
        request = call.request
        refused = request.query.get("refused", "false").lower()
        if refused not in ("true", "false"):
            raise Invalid("refused", "is true or false")
        return cls(
            None if call.caller.allows(SERVICE_CONFIG) else (call.scope, NOBODY),
            request.query.get("subject"),
            request.query.get("operation"),
            refused == "true",
            request.query.get("trackingid"),
        )

    def holds(self, decision: Decision) -> bool:
        return (
            (self.scopes is None or decision.scope in self.scopes)
            and (self.subject is None or decision.subject == self.subject)
            and (self.operation is None or decision.operation.lower() == self.operation.lower())
            and not (self.refused and decision.accepted)
            and (self.tracking_id is None or decision.tracking_id == self.tracking_id.lower())
        )


class DecisionRoutes:
    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._places = Places()
        self.routes = (
            Route("GET", "decisions", _OPERATOR, self._latest),
            Route("GET", "decisions/{subject}", _OPERATOR, self._of),
        )

    async def _latest(self, call: Call) -> Response:
        wish, count = _Wish.read(call), count_asked(call.request)
        if (since := call.request.query.get("since")) is not None:
            return self._since(self._places.read(since, self._decisions.added), wish, count)
        found = filter(wish.holds, self._decisions.latest(MAX_ITEMS))
        return self._response(islice(found, count), self._decisions.added)

    def _since(self, place: int, wish: _Wish, count: int) -> Response:
        """The next `count` wanted ones, oldest first, and the place behind the last one looked at."""
        decisions, missed = self._decisions.since(place)
        place += missed
        wanted: list[Decision] = []
        for decision in decisions:
            if len(wanted) == count:
                break
            place += 1
            if wish.holds(decision):
                wanted.append(decision)
        return self._response(wanted, place, missed)

    async def _of(self, call: Call) -> Response:
        wish, count = _Wish.read(call), count_asked(call.request)
        found = [each for each in self._decisions.of(call.named["subject"]) if wish.holds(each)]
        return self._response(found[-count:], self._decisions.added)

    def _response(self, decisions: Iterable[Decision], place: int, missed: int = 0) -> Response:
        headers: Sequence[tuple[str, str]] = [("x-ms-continuation", self._places.write(place))]
        if missed:
            headers = [*headers, ("moorage-missed", str(missed))]
        return json_response([decision_view(each) for each in decisions], headers=headers)


def decision_view(decision: Decision) -> dict[str, Any]:
    """A decision as clients of this API read it."""
    return {
        "time": timestamp(decision.time),
        "trackingId": decision.tracking_id,
        "operation": decision.operation,
        "subject": decision.subject,
        "known": decision.known,
        "accepted": decision.accepted,
        "error": decision.error,
        "door": decision.door,
        "address": decision.address,
        "proof": dict(decision.proof),
        "considered": list(decision.considered),
        "checks": [
            {"name": check.name, "held": check.held, "detail": check.detail} for check in decision.checks
        ],
        "exchange": _exchange_view(decision.exchange) if decision.exchange else None,
        "remedy": decision.remedy,
    }


def _exchange_view(exchange: Exchange) -> dict[str, Any]:
    """What was asked outside, a custom allocation webhook for one, and what came back."""
    return {
        "asked": exchange.asked,
        "request": exchange.request,
        "status": exchange.status,
        "answer": exchange.answer,
        "seconds": round(exchange.seconds, 3),
        "failure": exchange.failure,
        "detail": exchange.detail,
    }
