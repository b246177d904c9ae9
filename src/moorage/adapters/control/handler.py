"""The control API as one `HttpHandler`: finds the route, lets the gate judge, runs the verb."""

from __future__ import annotations

from collections.abc import Sequence

from moorage.adapters import faults
from moorage.adapters.control import description, is_control
from moorage.adapters.control.gate import Gate
from moorage.adapters.control.routes import Call, Route, RouteGroup
from moorage.adapters.http import MethodNotAllowed, Request, Response, json_response
from moorage.adapters.paths import find
from moorage.errors import MoorageError
from moorage.interfaces import Clock

DESCRIPTION = ("openapi.json",)


class ControlHttp:
    """Every route of every group, on every host name."""

    max_body = 1024 * 1024

    def __init__(self, gate: Gate, clock: Clock, *groups: RouteGroup) -> None:
        self._gate = gate
        self._clock = clock
        # Fixed words before placeholders, whatever the order of the groups.
        self.routes: Sequence[Route] = sorted(
            (route for group in groups for route in group.routes),
            key=lambda route: [part.startswith("{") for part in route.path.split("/")],
        )

    def matches(self, segments: tuple[str, ...]) -> bool:
        return is_control(segments)

    async def handle(self, request: Request) -> Response:
        path = request.segments[2:]
        if path == DESCRIPTION:
            if request.method != "GET":
                raise MethodNotAllowed(request.method, ("GET",))
            return json_response(description.whole())
        route, named = find(self.routes, request, lambda known: known.match(path))
        hub = self._gate.hub(named["hub"]) if "hub" in named else None
        scope, caller = await self._gate.authorize(request, route.needs, hub)
        response = await route.verb(Call(request=request, named=named, caller=caller, scope=scope, hub=hub))
        return Response(response.status, (*response.headers, _request_id(request)), response.body)

    def fault(self, request: Request, error: MoorageError) -> Response:
        status, body, retry_after = faults.control_error(error, request.tracking_id, self._clock.now())
        headers = [_request_id(request)]
        if retry_after is not None:
            headers.append(("retry-after", str(retry_after)))
        if isinstance(error, MethodNotAllowed):
            headers.append(("allow", ", ".join(error.allow)))
        return json_response(body, status, headers)


def _request_id(request: Request) -> tuple[str, str]:
    return "x-ms-request-id", request.tracking_id
