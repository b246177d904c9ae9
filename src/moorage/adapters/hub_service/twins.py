"""Twins over REST [hub-service 6]."""

from __future__ import annotations

from moorage.adapters.http import Response, json_response
from moorage.adapters.hub_service.routes import ANY, HubCall, Route
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.hub.twin import Twin, module_service_view, service_view


class TwinRoutes:
    def __init__(self) -> None:
        verbs = {"GET": self._get, "PATCH": self._patch, "PUT": self._replace}
        self.routes = tuple(
            Route(method, path, SERVICE_CONNECT, verb)
            for path in ("twins/{device}", "twins/{device}/modules/{module}")
            for method, verb in verbs.items()
        )

    async def _get(self, call: HubCall) -> Response:
        return await _answer(call, await call.identities.twins.get(*_address(call)))

    async def _patch(self, call: HubCall) -> Response:
        """Merges; what is not named stays [hub-service 6.2]."""
        device_id, module_id = _address(call)
        patch = call.request.json_object()
        twin = await call.identities.twins.patch(device_id, patch, call.condition or ANY, module_id=module_id)
        return await _answer(call, twin)

    async def _replace(self, call: HubCall) -> Response:
        """What is not named is gone; and unlike identities a twin is never made by PUT."""
        device_id, module_id = _address(call)
        document = call.request.json_object()
        twin = await call.identities.twins.replace(
            device_id, document, call.condition or ANY, module_id=module_id
        )
        return await _answer(call, twin)


def _address(call: HubCall) -> tuple[str, str | None]:
    return call.named["device"], call.named.get("module")


async def _answer(call: HubCall, twin: Twin) -> Response:
    """The whole twin, whatever was done with it."""
    presence = await call.identities.presences.of(twin.name)
    device = await call.identities.get(twin.device_id)
    if twin.module_id is None:
        view = service_view(twin, device, presence)
    else:
        module = await call.identities.modules.get(twin.device_id, twin.module_id)
        view = module_service_view(twin, module, device, presence)
    return json_response(view, headers=[("etag", f'"{twin.service_etag}"')])
