"""The provisioning service itself: `service`."""

from __future__ import annotations

from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route, record_response
from moorage.adapters.http import Response
from moorage.credentials.policy import ENROLLMENT_READ, SERVICE_CONFIG
from moorage.hub.twin import timestamp
from moorage.provisioning.service import ProvisioningService
from moorage.provisioning.settings import ServiceSettings


class ServiceRoutes:
    def __init__(self, settings: ServiceSettings, host_name: str) -> None:
        """`host_name` is the one that the service is advertised under."""
        self._settings = settings
        self._host_name = host_name
        self.routes = (
            Route("GET", "service", Needs(dps=(ENROLLMENT_READ,)), self._show),
            Route("PATCH", "service", Needs(dps=(SERVICE_CONFIG,)), self._update),
        )

    async def _show(self, call: Call) -> Response:
        return self._response(await self._settings.get())

    async def _update(self, call: Call) -> Response:
        return self._response(await self._settings.update(call.request.json_object(), call.condition))

    def _response(self, service: ProvisioningService) -> Response:
        return record_response(self._view(service), service.etag)

    def _view(self, service: ProvisioningService) -> dict[str, Any]:
        """With the members that Azure's resource manager gives it [dps 18]."""
        return {
            "idScope": service.id_scope,
            "deviceProvisioningHostName": self._host_name,
            "serviceOperationsHostName": self._host_name,
            "allocationPolicy": service.allocation_policy.value,
            "created": timestamp(service.created),
        }
