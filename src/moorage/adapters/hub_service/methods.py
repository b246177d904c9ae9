"""Direct methods over REST: a request is answered once the device has, or is known not to [hub-service 9]."""

from __future__ import annotations

from collections.abc import Sequence

from moorage.adapters.http import JSON, Response
from moorage.adapters.hub_service.routes import HubCall, Route
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.hub.method import Methods, read_call


class MethodRoutes:
    def __init__(self, methods: Methods) -> None:
        self._methods = methods
        self.routes = (
            Route("POST", "twins/{device}/methods", SERVICE_CONNECT, self._invoke),
            Route("POST", "twins/{device}/modules/{module}/methods", SERVICE_CONNECT, self._invoke),
        )

    async def _invoke(self, call: HubCall) -> Response:
        """The device's payload as it wrote it: numbers keep their form, objects their order."""
        status, payload = await self._methods.invoke(
            call.identities,
            call.named["device"],
            read_call(call.request.json_object()),
            module_id=call.named.get("module"),
        )
        return Response(200, (("content-type", JSON),), b'{"status":%d,"payload":%b}' % (status, payload))


def about_methods(segments: Sequence[str]) -> bool:
    """Whether the gateway to devices answers a request, which words errors in its own shape [hub-service 4.1]."""
    words = [segment.lower() for segment in segments]
    return len(words) in (3, 5) and (words[0], words[-1]) == ("twins", "methods")
