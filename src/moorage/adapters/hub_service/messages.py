"""Cloud-to-device messages over REST: purge, and feedback. Sending takes AMQP, at Azure too. [hub-service 5.1, 12.1]"""

from __future__ import annotations

import uuid

from moorage.adapters.http import Response, json_response
from moorage.adapters.hub_service.routes import HubCall, Route
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.hub.cloud_to_device import LockLost
from moorage.hub.feedback import CONTENT_TYPE

FEEDBACK = "messages/servicebound/feedback"


class MessageRoutes:
    def __init__(self) -> None:
        self.routes = (
            Route("DELETE", "devices/{device}/commands", SERVICE_CONNECT, self._purge),
            Route("GET", FEEDBACK, SERVICE_CONNECT, self._receive),
            Route("DELETE", f"{FEEDBACK}/{{lock}}", SERVICE_CONNECT, self._complete),
            Route("POST", f"{FEEDBACK}/{{lock}}/abandon", SERVICE_CONNECT, self._abandon),
        )

    async def _purge(self, call: HubCall) -> Response:
        """JSON in a 200, unlike all other deletes. [hub-service 27.35]"""
        identity = await call.identities.get(call.named["device"])
        purged = await call.identities.queues.purge(identity.device_id)
        return json_response(
            {"totalMessagesPurged": purged, "deviceId": identity.device_id, "moduleId": None}
        )

    async def _receive(self, call: HubCall) -> Response:
        """The next batch, locked; 204 when none is ready."""
        batch = call.identities.feedback.take(holder=None)
        if batch is None:
            return Response(204)
        headers = (("content-type", CONTENT_TYPE), ("etag", f'"{uuid.UUID(bytes_le=batch.token)}"'))
        return Response(200, headers, batch.body())

    async def _complete(self, call: HubCall) -> Response:
        await call.identities.feedback.complete(_token(call))
        return Response(204)

    async def _abandon(self, call: HubCall) -> Response:
        call.identities.feedback.abandon(_token(call))
        return Response(204)


def _token(call: HubCall) -> bytes:
    """Of the GUID that `etag` had: to .NET the delivery tag is the same one. Raises LockLost for what never was one."""
    text = call.named["lock"].strip('"')
    try:
        return uuid.UUID(text).bytes_le
    except ValueError:
        raise LockLost("feedback", text[:50]) from None
