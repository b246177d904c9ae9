"""Message routes of a hub: `hubs/{hub}/routes`, and `hubs/{hub}/fallbackRoute`."""

from __future__ import annotations

from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import REGISTRY_WRITE, SERVICE_CONNECT
from moorage.errors import NotFound
from moorage.hub.message_route import fallback_view, read_enabled, read_route, route_view
from moorage.hub.routing import MessageRoutes

_READ = Needs(hub=(SERVICE_CONNECT,))  # whoever may read the endpoint
_WRITE = Needs(hub=(REGISTRY_WRITE, SERVICE_CONNECT))


class MessageRouteRoutes:
    def __init__(self, message_routes: MessageRoutes) -> None:
        self._routes = message_routes
        self.routes = (
            Route("GET", "hubs/{hub}/routes", _READ, self._list),
            Route("GET", "hubs/{hub}/routes/{route}", _READ, self._show),
            Route("PUT", "hubs/{hub}/routes/{route}", _WRITE, self._put),
            Route("DELETE", "hubs/{hub}/routes/{route}", _WRITE, self._delete),
            Route("GET", "hubs/{hub}/fallbackRoute", _READ, self._show_fallback),
            Route("PUT", "hubs/{hub}/fallbackRoute", _WRITE, self._put_fallback),
        )

    async def _list(self, call: Call) -> Response:
        return json_response([route_view(each) for each in self._routes.list(call.the_hub.scope)])

    async def _show(self, call: Call) -> Response:
        return json_response(route_view(self._routes.get(call.the_hub.scope, call.named["route"])))

    async def _put(self, call: Call) -> Response:
        """Replaces a route of that name, if there is one, and makes one where there is none."""
        scope, route = call.the_hub.scope, read_route(call.named["route"], call.request.json_object())
        try:
            await self._routes.replace(scope, route)
        except NotFound:
            await self._routes.create(scope, route)
            return json_response(route_view(route), 201)
        return json_response(route_view(route))

    async def _delete(self, call: Call) -> Response:
        await self._routes.delete(call.the_hub.scope, call.named["route"])
        return Response(204)

    async def _show_fallback(self, call: Call) -> Response:
        return json_response(fallback_view(self._routes.fallback(call.the_hub.scope)))

    async def _put_fallback(self, call: Call) -> Response:
        """Only `isEnabled` can be chosen."""
        enabled = read_enabled(call.request.json_object())
        await self._routes.set_fallback(call.the_hub.scope, enabled)
        return json_response(fallback_view(enabled))
