"""Every route of the portal, so that a test can go to all of them and a new one is not forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from starlette.applications import Starlette
from starlette.routing import Route

from moorage.portal.application import portal
from moorage.portal.doorkeeper import Doorkeeper
from moorage.portal.sessions import Sessions
from tests.support.streams import ManualTime


async def nothing_done(
    hub: str | None, method: str, target: str, *rest: Any
) -> tuple[int, Mapping[str, str], bytes]:
    """APIs that are only to be asked for what stands in the menu."""
    assert (method, target.partition("?")[0]) == ("GET", "/moorage/v1/hubs"), f"{method} {target}"
    return 200, {}, b"[]"


def routes(method: str) -> Sequence[Route]:
    made = portal(
        nothing_done,
        Sessions(ManualTime(), cast(Any, None)),  # nobody comes
        now=lambda: 0,
        port=8080,
        host_names=["localhost"],
        secure=False,
    )
    assert isinstance(made, Doorkeeper)
    assert isinstance(made._pages, Starlette)
    return [
        route for route in made._pages.routes if isinstance(route, Route) and method in (route.methods or ())
    ]
