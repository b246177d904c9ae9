"""The service API as one `HttpHandler`: finds hub and route, lets the hub's policies judge, runs the verb."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from moorage.adapters import api_versions, faults
from moorage.adapters.http import MethodNotAllowed, Request, Response, json_response
from moorage.adapters.hub_service.methods import about_methods
from moorage.adapters.hub_service.routes import HubCall, Route, RouteGroup
from moorage.adapters.paths import find
from moorage.credentials import policy
from moorage.credentials.decision import Decisions, Finding
from moorage.errors import MoorageError, NotSupported, Unauthorized
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.interfaces import Clock, Store

log = logging.getLogger("moorage.hub")

MAX_BODY = 1 << 20  # bytes: a hundred bulk items with twins of 32 KiB do not fit at Azure either
FAMILIES = frozenset({"devices", "twins", "statistics", "jobs", "configurations", "digitaltwins", "messages"})


class HubHttp:
    """Answers back ends: an `HttpHandler`."""

    max_body = MAX_BODY

    def __init__(
        self,
        hub_by_host: Callable[[str], tuple[Hub, Identities] | None],
        *groups: RouteGroup,
        store: Store,
        clock: Clock,
        decisions: Decisions,
    ) -> None:
        self._hub_by_host = hub_by_host
        self._store = store
        self._clock = clock
        self._decisions = decisions
        # Words before placeholders, whatever the order of the groups; of two equal ones the first counts.
        self._routes: Sequence[Route] = sorted(
            (route for group in groups for route in group.routes),
            key=lambda route: route.path.fixed,
            reverse=True,
        )

    def matches(self, segments: tuple[str, ...]) -> bool:
        return bool(segments) and segments[0].lower() in FAMILIES

    async def handle(self, request: Request) -> Response:
        found = self._hub_by_host(request.host)
        if found is None:
            unknown = Unauthorized(f"there is no hub named {request.host[:300]!r}", check="hub")
            self._refused(self._finding("service request", _subject(request), request), unknown)
            raise unknown
        hub, identities = found
        api_versions.hub(request.query.get("api-version"))
        if (caller := _calling_device(request.segments)) is not None:
            error = NotSupported("devices over HTTPS", "connect over MQTT, port 8883, or its WebSocket")
            self._refused(self._finding("device request", caller, request, hub.scope), error)
            raise error
        route, named = find(self._routes, request, lambda known: known.path.match(request.segments))
        await self._authorize(request, hub, route.right)
        return await route.verb(HubCall(request=request, hub=hub, identities=identities, named=named))

    async def _authorize(self, request: Request, hub: Hub, right: str) -> None:
        """Raises Unauthorized; each refusal leaves a decision record."""
        finding = self._finding("service request", _subject(request), request, hub.scope)
        names = dict.fromkeys((request.host, *hub.host_names))
        policies = (await self._store.records(policy.KIND, hub.scope).page(limit=1000)).records
        try:
            policy.authorize(
                request.headers.get("authorization"),
                resource=[f"{name}{request.path}" for name in names],
                right=right,
                policies=policies,
                now=self._clock.now(),
                finding=finding,
            )
        except MoorageError as error:
            self._refused(finding, error)
            raise

    def _finding(self, operation: str, subject: str, request: Request, scope: int = 0) -> Finding:
        return Finding.from_peer(request.peer, request.tracking_id, operation, subject, scope=scope)

    def _refused(self, finding: Finding, error: MoorageError) -> None:
        self._decisions.refuse(finding, error, self._clock.now(), log)

    def fault(self, request: Request, error: MoorageError) -> Response:
        worded = faults.gateway_error if about_methods(request.segments) else faults.hub_error
        status, name, body = worded(error, request.tracking_id, self._clock.now())
        headers = [("iothub-errorcode", name), ("x-ms-request-id", request.tracking_id)]
        if isinstance(error, MethodNotAllowed):
            headers.append(("allow", ", ".join(error.allow)))
        if (seconds := faults.retry_after(error)) is not None:
            headers.append(("retry-after", str(seconds)))
        return json_response(body, status, headers)


def _subject(request: Request) -> str:
    return f"{request.method} {request.path}"


def _calling_device(segments: Sequence[str]) -> str | None:
    """Whose own request this is, not a back end's: a device's, or `{device}/{module}` [hub-device 5, 6]."""
    words = [segment.lower() for segment in segments]
    at = 4 if words[2:3] == ["modules"] else 2
    if words[0] != "devices" or words[at : at + 1] not in (["messages"], ["files"]):
        return None
    return "/".join(segments[1:at:2])
