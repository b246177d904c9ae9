"""Our own control API under `/moorage/v1`: what only Moorage has, starting with why a device was refused.

Described by `openapi.json` beside this file. Authorised by a policy with a write right: of the hub
(RegistryWrite) or of the provisioning service (EnrollmentWrite).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import resources
from typing import Any

from moorage.adapters import faults
from moorage.adapters.http import MethodNotAllowed, Request, Response, json_response, whole_number
from moorage.credentials import policy
from moorage.credentials.decision import Decision, Decisions, Finding
from moorage.credentials.policy import ENROLLMENT_WRITE, REGISTRY_WRITE
from moorage.errors import Invalid, MoorageError, NotFound, Unauthorized
from moorage.hub.twin import timestamp
from moorage.interfaces import Clock, Store

log = logging.getLogger("moorage.operator")

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
        path = request.segments[2:]
        if path == ("openapi.json",):
            _check_method(request)
            return _openapi()
        if path[:1] != ("decisions",) or len(path) > 2:
            raise NotFound("path", request.path[:200])
        _check_method(request)
        await self._authorize(request)
        count = _count(request)
        found = self._decisions.of(path[1])[-count:] if len(path) > 1 else self._decisions.latest(count)
        return json_response([decision_view(decision) for decision in found])

    async def _authorize(self, request: Request) -> None:
        """By a policy of either service. Raises Unauthorized, with a decision record of the likelier refusal."""
        refusals: list[tuple[Finding, Unauthorized]] = []
        for scope, right in self._rights.items():
            policies = (await self._store.records(policy.KIND, scope).page(limit=1000)).records
            finding = self._finding(request, scope)
            try:
                policy.authorize(
                    request.headers.get("authorization"),
                    resource=f"{request.host}{request.path}",
                    right=right,
                    policies=policies,
                    now=self._clock.now(),
                    finding=finding,
                )
                return
            except Unauthorized as error:
                refusals.append((finding, error))
        # The service that knows the policy can say more than that there is none of that name.
        finding, refusal = next((each for each in refusals if each[1].check != "policy known"), refusals[0])
        self._decisions.add(finding.refused(self._clock.now(), refusal))
        log.warning(
            "%s refused",
            finding.operation,
            extra={
                "tracking_id": finding.tracking_id,
                "subject": finding.subject,
                "address": finding.address,
                "reason": str(refusal),
            },
        )
        raise refusal

    def _finding(self, request: Request, scope: int) -> Finding:
        asked = f"{request.method} {request.path}"
        return Finding.from_peer(request.peer, request.tracking_id, "operator request", asked, scope=scope)

    def fault(self, request: Request, error: MoorageError) -> Response:
        status, body, _ = faults.dps_error(error, request.tracking_id, self._clock.now())
        headers = [("x-ms-request-id", request.tracking_id)]
        if isinstance(error, MethodNotAllowed):
            headers.append(("allow", ", ".join(error.allow)))
        return json_response(body, status, headers)


def _openapi() -> Response:
    text = resources.files("moorage.adapters").joinpath("openapi.json").read_bytes()
    return Response(200, (("content-type", "application/json; charset=utf-8"),), text)


def _check_method(request: Request) -> None:
    if request.method != "GET":
        raise MethodNotAllowed(request.method, ("GET",))


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
        "remedy": decision.remedy,
    }
