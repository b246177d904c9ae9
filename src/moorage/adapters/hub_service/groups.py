"""Every group of routes of the service API: what is there, and behind it what is known to be absent."""

from __future__ import annotations

from moorage.adapters.hub_service.absent import AbsentRoutes
from moorage.adapters.hub_service.messages import MessageRoutes
from moorage.adapters.hub_service.methods import MethodRoutes
from moorage.adapters.hub_service.modules import ModuleRoutes
from moorage.adapters.hub_service.queries import QueryRoutes
from moorage.adapters.hub_service.registry import RegistryRoutes
from moorage.adapters.hub_service.routes import RouteGroup
from moorage.adapters.hub_service.twins import TwinRoutes
from moorage.hub.method import Methods


def groups(*, methods: Methods) -> tuple[RouteGroup, ...]:
    return (
        RegistryRoutes(),
        ModuleRoutes(),
        TwinRoutes(),
        MethodRoutes(methods),
        MessageRoutes(),
        QueryRoutes(),
        AbsentRoutes(),
    )
