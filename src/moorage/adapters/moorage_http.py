"""Our own control API under `/moorage/v1`: what only Moorage has, starting with why a device was refused.

Described by `openapi.json` beside this file. Authorised by a policy with a write right: of the hub
(RegistryWrite) or of the provisioning service (EnrollmentWrite).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from moorage.adapters import faults
from moorage.adapters.http import MethodNotAllowed, Request, Response, json_response
from moorage.credentials import policy
from moorage.credentials.decision import Decision, Decisions
from moorage.credentials.policy import ENROLLMENT_WRITE, REGISTRY_WRITE
from moorage.errors import Invalid, MoorageError, NotFound, Unauthorized
from moorage.hub.twin import timestamp
from moorage.interfaces import Clock, Store

ROOT = ("moorage", "v1")
MAX_DECISIONS = 1000


class MoorageHttp:
    """An `HttpHandler`."""

    max_body = 64 * 1024

    def __init__(
        self, *, store: Store, clock: Clock, decisions: Decisions, dps_scope: int, hub_scope: int
    ) -> None:
        self._store = store
        self._clock = clock
        self._decisions = decisions
        self._rights: Mapping[int, str] = {dps_scope: ENROLLMENT_WRITE, hub_scope: REGISTRY_WRITE}

    def matches(self, segments: tuple[str, ...]) -> bool:
        return tuple(segment.lower() for segment in segments[:2]) == ROOT

    async def handle(self, request: Request) -> Response:
        if request.segments[2:] == ("openapi.json",):
            return _openapi()
        await self._authorize(request)
        match request.segments[2:]:
            case ("decisions",):
                return self._answer(request, self._decisions.latest(_count(request)))
            case ("decisions", subject):
                return self._answer(request, self._decisions.of(subject)[-_count(request) :])
        raise NotFound("path", request.path[:200])

    def _answer(self, request: Request, decisions: list[Decision]) -> Response:
        if request.method != "GET":
            raise MethodNotAllowed(request.method, ("GET",))
        return json_response([decision_view(decision) for decision in decisions])

    async def _authorize(self, request: Request) -> None:
        refusal: MoorageError = Unauthorized("no SAS token was presented", check="token present")
        for scope, right in self._rights.items():
            policies = (await self._store.records(policy.KIND, scope).page(limit=1000)).records
            try:
                policy.authorize(
                    request.headers.get("authorization"),
                    resource=f"{request.host}{request.path}",
                    right=right,
                    policies=policies,
                    now=self._clock.now(),
                )
                return
            except MoorageError as error:
                refusal = error
        raise refusal

    def fault(self, request: Request, error: MoorageError) -> Response:
        status, body, _ = faults.dps_error(error, request.tracking_id, self._clock.now())
        headers = [("x-ms-request-id", request.tracking_id)]
        if isinstance(error, MethodNotAllowed):
            headers.append(("allow", ", ".join(error.allow)))
        return json_response(body, status, headers)


def _openapi() -> Response:
    text = resources.files("moorage.adapters").joinpath("openapi.json").read_bytes()
    return Response(200, (("content-type", "application/json; charset=utf-8"),), text)


def _count(request: Request) -> int:
    text = request.query.get("top", "100")
    if not text.isdecimal() or not 1 <= int(text) <= MAX_DECISIONS:
        raise Invalid("top", f"is a number from 1 to {MAX_DECISIONS}")
    return int(text)


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
        "remedy": decision.remedy,
    }
