"""What Azure has at these paths and this release has not: refused, and only to those who would have had the right."""

from __future__ import annotations

from moorage.adapters.http import Response
from moorage.adapters.hub_service.routes import HubCall, Route, Verb
from moorage.credentials.policy import REGISTRY_READ, REGISTRY_WRITE, SERVICE_CONNECT
from moorage.errors import NotSupported

READING = ("GET", "HEAD")
WRITING = ("POST", "PUT", "PATCH", "DELETE")

# Path, what it is about, and the right it takes; None where reading and writing the registry differ.
_PATHS = (
    ("devices/{device}/applyConfigurationContent", "configurations", REGISTRY_WRITE),
    ("configurations", "configurations", None),
    ("configurations/{id}", "configurations", None),
    ("configurations/{id}/{verb}", "configurations", None),
    ("jobs/v2", "scheduled jobs", SERVICE_CONNECT),
    ("jobs/v2/{id}", "scheduled jobs", SERVICE_CONNECT),
    ("jobs/v2/{id}/{verb}", "scheduled jobs", SERVICE_CONNECT),
    ("jobs", "import and export jobs", REGISTRY_WRITE),
    ("jobs/{id}", "import and export jobs", REGISTRY_WRITE),
    ("digitaltwins/{id}", "digital twins", SERVICE_CONNECT),
    ("digitaltwins/{id}/commands/{command}", "digital twins", SERVICE_CONNECT),
    ("digitaltwins/{id}/components/{component}/commands/{command}", "digital twins", SERVICE_CONNECT),
    ("messages/devicebound", "sending over HTTP, which takes AMQP at Azure too", SERVICE_CONNECT),
    ("messages/servicebound/filenotifications", "file upload and its notifications", SERVICE_CONNECT),
    ("messages/servicebound/filenotifications/{id}", "file upload and its notifications", SERVICE_CONNECT),
)


class AbsentRoutes:
    def __init__(self) -> None:
        self.routes = [
            Route(
                method, path, right or (REGISTRY_READ if method in READING else REGISTRY_WRITE), _absent(what)
            )
            for path, what, right in _PATHS
            for method in (*READING, *WRITING)
        ]


def _absent(what: str) -> Verb:
    async def refuse(call: HubCall) -> Response:
        raise NotSupported(what)

    return refuse
