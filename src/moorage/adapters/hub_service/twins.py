"""Twins over REST [hub-service 6]."""

from __future__ import annotations

from moorage.adapters.http import Response, json_response
from moorage.adapters.hub_service.routes import HubCall, Route
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.hub.twin import module_service_view, service_view


class TwinRoutes:
    def __init__(self) -> None:
        self.routes = (
            Route("GET", "twins/{device}", SERVICE_CONNECT, self._get),
            Route("GET", "twins/{device}/modules/{module}", SERVICE_CONNECT, self._get_of_module),
        )

    async def _get(self, call: HubCall) -> Response:
        device_id = call.named["device"]
        identity, twin = await call.identities.get(device_id), await call.identities.twin(device_id)
        view = service_view(twin, identity, call.identities.sessions.presence(device_id))
        return json_response(view, headers=[("etag", f'"{twin.etag}"')])

    async def _get_of_module(self, call: HubCall) -> Response:
        device_id, module_id = call.named["device"], call.named["module"]
        module = await call.identities.modules.get(device_id, module_id)
        device = await call.identities.get(device_id)
        twin = await call.identities.twin(device_id, module_id)
        view = module_service_view(twin, module, device, call.identities.sessions.presence(module.name))
        return json_response(view, headers=[("etag", f'"{twin.etag}"')])
