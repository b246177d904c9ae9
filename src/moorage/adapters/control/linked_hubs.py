"""The hubs that devices may be assigned to: `linkedHubs`, with the members of Azure's resource manager [dps 18]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route, record_response
from moorage.adapters.http import Response, json_response
from moorage.credentials.connection_string import ConnectionString
from moorage.credentials.policy import SERVICE_CONFIG
from moorage.errors import Invalid
from moorage.hub.hubs import Hubs
from moorage.provisioning.linked_hubs import LinkedHubs, LinkTerms
from moorage.provisioning.service import LinkedHub

_OPERATOR = Needs(dps=(SERVICE_CONFIG,))


class LinkedHubRoutes:
    def __init__(self, hubs: Hubs, linked: LinkedHubs) -> None:
        self._hubs = hubs
        self._linked = linked
        self.routes = (
            Route("GET", "linkedHubs", _OPERATOR, self._list),
            Route("POST", "linkedHubs", _OPERATOR, self._link),
            Route("GET", "linkedHubs/{hostName}", _OPERATOR, self._show),
            Route("PATCH", "linkedHubs/{hostName}", _OPERATOR, self._change),
            Route("DELETE", "linkedHubs/{hostName}", _OPERATOR, self._unlink),
        )

    async def _list(self, call: Call) -> Response:
        views = [{**self._view(linked), "etag": linked.etag} for linked in await self._linked.all()]
        return json_response(sorted(views, key=lambda view: str(view["name"])))

    async def _show(self, call: Call) -> Response:
        return self._answer(await self._linked.get(call.named["hostName"]))

    async def _link(self, call: Call) -> Response:
        wanted = call.request.json_object()
        terms = _read_terms(wanted, LinkTerms())
        name, text = wanted.get("hub"), wanted.get("connectionString")
        if isinstance(name, str) and text is None:
            linked = await self._linked.link(self._hubs.named(name).hub, terms)
        elif isinstance(text, str) and name is None:
            linked = await self._link_by(ConnectionString.parse(text), terms)
        else:
            raise Invalid("hub", "name a hub of this server, or give the connectionString of one of another")
        return self._answer(linked, 201)

    async def _link_by(self, login: ConnectionString, terms: LinkTerms) -> LinkedHub:
        """A connection string may be that of a hub of this server as well; a name of ours is never another's."""
        own = self._hubs.by_host(login.host)
        if own is not None and own[0].answers_to(login.host):
            await self._linked.check_ours(own[0], login)
            return await self._linked.link(own[0], terms)
        return await self._linked.link_distant(login, terms)

    async def _change(self, call: Call) -> Response:
        held = await self._linked.get(call.named["hostName"])
        wanted = call.request.json_object()
        terms, text = _read_terms(wanted, LinkTerms.of(held)), wanted.get("connectionString")
        if text is not None and not isinstance(text, str):
            raise Invalid("connectionString", "is a text")
        login = ConnectionString.parse(text) if text else None
        changed = await self._linked.change(held.host_name, terms, call.condition, login=login)
        return self._answer(changed)

    async def _unlink(self, call: Call) -> Response:
        await self._linked.unlink(call.named["hostName"], call.condition)
        return Response(204)

    def _answer(self, linked: LinkedHub, status: int = 200) -> Response:
        return record_response(self._view(linked), linked.etag, status)

    def _view(self, linked: LinkedHub) -> dict[str, Any]:
        """Like Azure's: `name` is the host name that devices are told."""
        local = self._hubs.by_scope.get(linked.hub)
        return {
            "name": linked.host_name,
            "hub": local.hub.name if local is not None else None,
            "connectionString": linked.login.masked if linked.login is not None else None,
            "location": linked.location,
            "latencyMs": linked.latency_ms,
            "allocationWeight": linked.weight,
            "applyAllocationPolicy": linked.eligible,
        }


def _read_terms(wanted: Mapping[str, Any], base: LinkTerms) -> LinkTerms:
    """What is left out stays as in `base`; null is the default. Raises Invalid."""
    weight, eligible = (
        wanted.get("allocationWeight", base.weight),
        wanted.get("applyAllocationPolicy", base.eligible),
    )
    location, latency = wanted.get("location", base.location), wanted.get("latencyMs", base.latency_ms)
    if eligible is not None and not isinstance(eligible, bool):
        raise Invalid("applyAllocationPolicy", "is true or false")
    if location is not None and not isinstance(location, str):
        raise Invalid("location", "is a text")
    return LinkTerms(
        weight=1 if weight is None else _whole("allocationWeight", weight),
        eligible=True if eligible is None else eligible,
        location=location or None,
        latency_ms=None if latency is None else _number("latencyMs", latency),
    )


def _number(member: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Invalid(member, "is a number")
    return value


def _whole(member: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(member, "is a whole number")
    return value
