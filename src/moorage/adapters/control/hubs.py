"""The hubs of this server: `hubs`. Azure makes, changes and deletes them through its resource manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route, record_response
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import HUB_RULES, REGISTRY_READ, SERVICE_CONFIG
from moorage.errors import InUse, Invalid
from moorage.hub.hubs import Hubs
from moorage.hub.instance import Hub
from moorage.hub.settings import HubSettings, settings_view
from moorage.hub.twin import timestamp
from moorage.interfaces import Change
from moorage.provisioning.linked_hubs import LinkedHubs

MAX_HOST_NAMES = 16
DEFAULT_PARTITIONS = 4

_SEE = Needs(dps=(SERVICE_CONFIG,), hub=(REGISTRY_READ,))
_CHANGE = Needs(dps=(SERVICE_CONFIG,))
_SET = Needs(dps=(SERVICE_CONFIG,), hub=HUB_RULES.administer)


class HubRoutes:
    def __init__(self, hubs: Hubs, linked: LinkedHubs) -> None:
        self._hubs = hubs
        self._linked = linked
        self._settings = HubSettings(hub=hubs.of_scope, put=hubs.put)
        self.routes = (
            Route("GET", "hubs", _SEE, self._list),
            Route("POST", "hubs", _CHANGE, self._create),
            Route("GET", "hubs/{hub}", _SEE, self._show),
            Route("PATCH", "hubs/{hub}", _SET, self._update),
            Route("DELETE", "hubs/{hub}", _CHANGE, self._delete),
        )

    async def _list(self, call: Call) -> Response:
        return json_response([await self._view(hub) for hub in self._hubs])

    async def _show(self, call: Call) -> Response:
        return await self._answer(call.the_hub)

    async def _create(self, call: Call) -> Response:
        wanted = call.request.json_object()

        async def beside(hub: Hub) -> Sequence[Change]:
            return await self._linked.linking(hub) if _flag(wanted, "link") else ()

        hub = await self._hubs.create(
            _name(wanted),
            host_names=_host_names(wanted),
            partition_count=_partition_count(wanted),
            beside=beside,
        )
        return await self._answer(hub, 201)

    async def _update(self, call: Call) -> Response:
        """Changes what is named; the rest stays."""
        document = call.request.json_object()
        return await self._answer(await self._settings.update(call.the_hub.scope, document, call.condition))

    async def _delete(self, call: Call) -> Response:
        """A linked hub goes with its link where the caller says so."""
        hub = call.the_hub
        self._hubs.check_may_go(hub)
        if await self._linked.of(hub) is not None and call.request.query.get("force", "").lower() != "true":
            raise InUse(
                "hub",
                hub.name,
                f"it is linked as {hub.advertised_host}: unlink it first, or force the deletion",
            )
        await self._hubs.delete(hub.name, await self._linked.unlinking(hub))
        return Response(204)

    async def _answer(self, hub: Hub, status: int = 200) -> Response:
        return record_response(await self._view(hub), hub.etag, status)

    async def _view(self, hub: Hub) -> dict[str, Any]:
        return {
            "name": hub.name,
            "hostName": hub.advertised_host,
            "hostNames": list(hub.host_names),
            "partitionCount": hub.partition_count,
            "eventHubName": hub.entity,
            "linked": await self._linked.of(hub) is not None,
            "created": timestamp(hub.created),
            **settings_view(hub),
        }


def _name(wanted: Mapping[str, Any]) -> str:
    name = wanted.get("name")
    if not isinstance(name, str):
        raise Invalid("name", "a hub has a name")
    return name


def _host_names(wanted: Mapping[str, Any]) -> list[str]:
    names = wanted.get("hostNames") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Invalid("hostNames", "is a list of host names")
    if len(names) > MAX_HOST_NAMES:
        raise Invalid("hostNames", f"a hub has at most {MAX_HOST_NAMES} host names")
    return names


def _partition_count(wanted: Mapping[str, Any]) -> int:
    count = wanted.get("partitionCount", DEFAULT_PARTITIONS)
    if not isinstance(count, int) or isinstance(count, bool):
        raise Invalid("partitionCount", "is a number")
    return count


def _flag(wanted: Mapping[str, Any], name: str) -> bool:
    value = wanted.get(name, False)
    if not isinstance(value, bool):
        raise Invalid(name, "is true or false")
    return value
