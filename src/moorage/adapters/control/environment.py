"""What `moorage env` prints, for those who are not on the server's machine: `environment`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from moorage.adapters.control.portal import OWNER
from moorage.adapters.control.routes import Call, Route
from moorage.adapters.http import Response, json_response

ReadEnvironment = Callable[[str | None], Awaitable[Mapping[str, str]]]
"""Of the hub of a name, None for the first. Raises NotFound."""


class EnvironmentRoutes:
    def __init__(self, read: ReadEnvironment) -> None:
        self._read = read
        self.routes = (Route("GET", "environment", OWNER, self._show),)

    async def _show(self, call: Call) -> Response:
        return json_response(await self._read(call.request.query.get("hub")))
