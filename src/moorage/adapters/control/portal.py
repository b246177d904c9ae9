"""Links into the portal: `portal/links`."""

from __future__ import annotations

from collections.abc import Callable

from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import (
    ENROLLMENT_WRITE,
    REGISTRATION_STATUS_WRITE,
    SERVICE_CONFIG,
)

# Who is signed in may do whatever the owners of all services may.
OWNER = Needs(dps=(SERVICE_CONFIG, ENROLLMENT_WRITE, REGISTRATION_STATUS_WRITE))


class PortalRoutes:
    def __init__(self, new_link: Callable[[], str]) -> None:
        self._new_link = new_link
        self.routes = (Route("POST", "portal/links", OWNER, self._create),)

    async def _create(self, call: Call) -> Response:
        return json_response({"url": self._new_link()}, 201)
