"""Module identities over REST [hub-service 5.1, 5.4]."""

from __future__ import annotations

from moorage.adapters.http import Response, json_response
from moorage.adapters.hub_service.routes import ANY, HubCall, Route
from moorage.credentials.policy import REGISTRY_READ, REGISTRY_WRITE
from moorage.hub.module_identity import ModuleIdentity, module_view, read_module_settings


class ModuleRoutes:
    def __init__(self) -> None:
        self.routes = (
            Route("GET", "devices/{device}/modules", REGISTRY_READ, self._list),
            Route("GET", "devices/{device}/modules/{module}", REGISTRY_READ, self._get),
            Route("PUT", "devices/{device}/modules/{module}", REGISTRY_WRITE, self._put),
            Route("DELETE", "devices/{device}/modules/{module}", REGISTRY_WRITE, self._delete),
        )

    async def _list(self, call: HubCall) -> Response:
        modules = await call.identities.modules.of_device(call.named["device"])
        return json_response([await _view(call, module) for module in modules])

    async def _get(self, call: HubCall) -> Response:
        return await _answer(
            call, await call.identities.modules.get(call.named["device"], call.named["module"])
        )

    async def _put(self, call: HubCall) -> Response:
        """201 when created, without `If-Match`, 200 when updated with it."""
        modules = call.identities.modules
        document = call.request.json_object()
        settings = read_module_settings(call.named["device"], call.named["module"], document)
        if call.condition is None:
            return await _answer(call, await modules.create(settings), status=201)
        return await _answer(call, await modules.update(settings, call.condition))

    async def _delete(self, call: HubCall) -> Response:
        if_match = ANY if call.condition is None else call.condition
        await call.identities.modules.delete(call.named["device"], call.named["module"], if_match)
        return Response(204)


async def _view(call: HubCall, module: ModuleIdentity) -> dict[str, object]:
    return module_view(module, await call.identities.presences.of(module.name))


async def _answer(call: HubCall, module: ModuleIdentity, *, status: int = 200) -> Response:
    return json_response(await _view(call, module), status, headers=[("etag", f'"{module.etag}"')])
