"""Why callers were let in or turned away: `decisions`."""

from __future__ import annotations

from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Request, Response, json_response, whole_number
from moorage.credentials.decision import Decision, Decisions, Exchange
from moorage.credentials.policy import ENROLLMENT_WRITE, REGISTRY_WRITE
from moorage.errors import Invalid
from moorage.hub.twin import timestamp

MAX_DECISIONS = 1000

_OPERATOR = Needs(dps=(ENROLLMENT_WRITE,), hub=(REGISTRY_WRITE,))


class DecisionRoutes:
    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self.routes = (
            Route("GET", "decisions", _OPERATOR, self._latest),
            Route("GET", "decisions/{subject}", _OPERATOR, self._of),
        )

    async def _latest(self, call: Call) -> Response:
        return _response(self._decisions.latest(_count(call.request)))

    async def _of(self, call: Call) -> Response:
        return _response(self._decisions.of(call.named["subject"])[-_count(call.request) :])


def _response(decisions: list[Decision]) -> Response:
    return json_response([decision_view(decision) for decision in decisions])


def _count(request: Request) -> int:
    count = whole_number(request.query.get("top", "100"))
    if count is None or not 1 <= count <= MAX_DECISIONS:
        raise Invalid("top", f"is a number from 1 to {MAX_DECISIONS}")
    return count


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
