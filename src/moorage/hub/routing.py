"""The message routes of all hubs, and their fallback routes: what is kept of each in the hub's own record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from moorage.errors import Conflict, Invalid, NotFound, PreconditionFailed, Unavailable
from moorage.hub.instance import Hub
from moorage.hub.message_route import MAX_ROUTES, Route

_KIND = "message route"
_ATTEMPTS = 20  # at one write; each time it is lost, somebody else has changed the hub


class MessageRoutes:
    """What a verb returns is durable, and holds for the next message and event, on connections there are too.

    `hub` is the current record of a scope. `put` replaces a record read from there; it raises PreconditionFailed
    when that one is no longer the current.
    """

    def __init__(self, *, hub: Callable[[int], Hub], put: Callable[[Hub], Awaitable[Hub]]) -> None:
        self._hub = hub
        self._put = put

    def list(self, scope: int) -> tuple[Route, ...]:
        """In the order in which they were made."""
        return self._hub(scope).routes

    def get(self, scope: int, name: str) -> Route:
        """Names compare without regard to case. Raises NotFound."""
        found = _named(self._hub(scope).routes, name)
        if found is None:
            raise NotFound(_KIND, name[:300])
        return found

    async def create(self, scope: int, route: Route) -> None:
        """Raises Conflict, Invalid, Unavailable."""

        def added(hub: Hub) -> Hub:
            if _named(hub.routes, route.name) is not None:
                raise Conflict(_KIND, route.name)
            if len(hub.routes) >= MAX_ROUTES:
                raise Invalid("name", f"a hub has at most {MAX_ROUTES} message routes")
            return replace(hub, routes=(*hub.routes, route))

        await self._change(scope, added)

    async def replace(self, scope: int, route: Route) -> None:
        """Raises NotFound, Unavailable."""

        def replaced(hub: Hub) -> Hub:
            self.get(scope, route.name)
            same = route.name.lower()
            routes = tuple(route if each.name.lower() == same else each for each in hub.routes)
            return replace(hub, routes=routes)

        await self._change(scope, replaced)

    async def delete(self, scope: int, name: str) -> None:
        """Raises NotFound, Unavailable."""

        def without(hub: Hub) -> Hub:
            gone = self.get(scope, name)
            return replace(hub, routes=tuple(each for each in hub.routes if each != gone))

        await self._change(scope, without)

    def fallback(self, scope: int) -> bool:
        """Whether telemetry that no route takes goes to the built-in endpoint; else it is dropped."""
        return self._hub(scope).fallback_route

    async def set_fallback(self, scope: int, enabled: bool) -> None:
        """Raises Unavailable."""
        await self._change(scope, lambda hub: replace(hub, fallback_route=enabled))

    async def _change(self, scope: int, change: Callable[[Hub], Hub]) -> None:
        for _ in range(_ATTEMPTS):
            try:
                await self._put(change(self._hub(scope)))
            except PreconditionFailed:
                continue  # somebody else was faster
            return
        raise Unavailable("the hub is being changed by others; try again")


def _named(routes: Iterable[Route], name: str) -> Route | None:
    return next((route for route in routes if route.name.lower() == name.lower()), None)
