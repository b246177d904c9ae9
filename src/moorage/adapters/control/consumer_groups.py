"""Consumer groups of a hub's built-in endpoint: `hubs/{hub}/consumerGroups`."""

from __future__ import annotations

from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import REGISTRY_WRITE, SERVICE_CONNECT
from moorage.errors import Invalid
from moorage.hub.consumer_group import ConsumerGroups

_READ = Needs(hub=(SERVICE_CONNECT,))  # whoever may read the endpoint
_WRITE = Needs(hub=(REGISTRY_WRITE, SERVICE_CONNECT))


class ConsumerGroupRoutes:
    def __init__(self, groups: ConsumerGroups) -> None:
        self._groups = groups
        self.routes = (
            Route("GET", "hubs/{hub}/consumerGroups", _READ, self._list),
            Route("GET", "hubs/{hub}/consumerGroups/{group}", _READ, self._show),
            Route("PUT", "hubs/{hub}/consumerGroups/{group}", _WRITE, self._create),
            Route("DELETE", "hubs/{hub}/consumerGroups/{group}", _WRITE, self._delete),
        )

    async def _list(self, call: Call) -> Response:
        return json_response([_view(name) for name in self._groups.list(call.the_hub.scope)])

    async def _show(self, call: Call) -> Response:
        return json_response(_view(self._groups.get(call.the_hub.scope, call.named["group"])))

    async def _create(self, call: Call) -> Response:
        if call.request.json() not in (None, {}, _view(call.named["group"])):
            raise Invalid("body", "a consumer group has nothing but its name")
        name, new = await self._groups.create(call.the_hub.scope, call.named["group"])
        return json_response(_view(name), 201 if new else 200)

    async def _delete(self, call: Call) -> Response:
        await self._groups.delete(call.the_hub.scope, call.named["group"])
        return Response(204)


def _view(name: str) -> dict[str, str]:
    return {"name": name}
