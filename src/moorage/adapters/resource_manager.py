"""Azure's resource manager, which is not here: whoever sends its commands to us is told so, in its own shape.

Its own address is another host; a client comes here when somebody has set its endpoint to ours.
"""

from __future__ import annotations

from moorage.adapters import faults
from moorage.adapters.http import Request, Response, json_response
from moorage.errors import MoorageError, NotSupported

ROOTS = ("subscriptions", "providers", "tenants")


class ResourceManagerHttp:
    """Refuses each path of it, whoever asks: there is nothing behind them that would take a right."""

    max_body = 1_048_576  # it is read to its end, so that the caller reads the answer

    def matches(self, segments: tuple[str, ...]) -> bool:
        return bool(segments) and segments[0].lower() in ROOTS

    async def handle(self, request: Request) -> Response:
        raise NotSupported(
            "Azure's resource manager",
            "hubs, linked hubs, policies and CA certificates are made by moorage hub and moorage dps, or at "
            "/moorage/v1; IP filters, routes and diagnostic settings are not there",
        )

    def fault(self, request: Request, error: MoorageError) -> Response:
        fault = faults.fault(faults.HUB, error)
        document = {"error": {"code": fault.name, "message": str(error)}}
        return json_response(document, fault.status, [("x-ms-request-id", request.tracking_id)])
