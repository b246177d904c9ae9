"""Identities over REST: one, several at once, lists, statistics [hub-service 5]."""

from __future__ import annotations

from collections.abc import Sequence

from moorage.adapters import faults
from moorage.adapters.http import Response, json_response, whole_number
from moorage.adapters.hub_service.routes import ANY, HubCall, Route
from moorage.credentials.policy import REGISTRY_READ, REGISTRY_WRITE, SERVICE_CONNECT
from moorage.errors import Invalid
from moorage.hub.bulk import BulkError
from moorage.hub.device_identity import DeviceIdentity, identity_view, read_settings
from moorage.hub.key_regeneration import RegenerationError


class RegistryRoutes:
    def __init__(self) -> None:
        self.routes = (
            Route("GET", "devices", REGISTRY_READ, self._list),
            Route("POST", "devices", REGISTRY_WRITE, self._bulk),
            Route("POST", "devices/keys/regenerate", REGISTRY_WRITE, self._regenerate),
            Route("GET", "devices/{device}", REGISTRY_READ, self._get),
            Route("PUT", "devices/{device}", REGISTRY_WRITE, self._put),
            Route("DELETE", "devices/{device}", REGISTRY_WRITE, self._delete),
            Route("GET", "statistics/devices", REGISTRY_READ, self._statistics),
            Route("GET", "statistics/service", SERVICE_CONNECT, self._connections),
        )

    async def _list(self, call: HubCall) -> Response:
        text = call.request.query.get("top", "1000")
        if (top := whole_number(text)) is None:
            raise Invalid("top", f"{text[:50]!r} is not a number")
        return json_response([await _view(call, identity) for identity in await call.identities.list(top)])

    async def _get(self, call: HubCall) -> Response:
        return await _answer(call, await call.identities.get(call.named["device"]))

    async def _put(self, call: HubCall) -> Response:
        """Create without `If-Match`, update with it [hub-service 3]."""
        settings = read_settings(call.named["device"], call.request.json_object())
        if call.condition is None:
            return await _answer(call, await call.identities.create(settings))
        return await _answer(call, await call.identities.update(settings, call.condition))

    async def _delete(self, call: HubCall) -> Response:
        await call.identities.delete(call.named["device"], ANY if call.condition is None else call.condition)
        return Response(204)

    async def _bulk(self, call: HubCall) -> Response:
        """200 when all items were done, else 400 with a body of the same shape [hub-service 5.5]."""
        items = call.request.json()
        if not isinstance(items, Sequence) or isinstance(items, str):
            raise Invalid("body", "must be a JSON array")
        result = await call.identities.bulk(items)
        body = {
            "isSuccessful": result.is_successful,
            "errors": [_bulk_error(error) for error in result.errors],
            "warnings": [],
        }
        return json_response(body, 200 if result.is_successful else 400)

    async def _regenerate(self, call: HubCall) -> Response:
        """200 when all keys were renewed, 207 when some were, 400 when none [hub-service 5.6]."""
        done = await call.identities.regenerate_keys(call.request.json_object())
        body = {
            "policyKey": done.policy_key,
            "errors": [_regeneration_error(error) for error in done.errors],
            "rotatedKeys": [
                {
                    "id": keys.device_id,
                    "moduleId": keys.module_id,
                    "primaryKey": keys.primary or "",
                    "secondaryKey": keys.secondary or "",
                }
                for keys in done.rotated
            ],
        }
        return json_response(body, 200 if not done.errors else 207 if done.rotated else 400)

    async def _statistics(self, call: HubCall) -> Response:
        counted = await call.identities.statistics()
        return json_response(
            {
                "totalDeviceCount": counted.total,
                "enabledDeviceCount": counted.enabled,
                "disabledDeviceCount": counted.disabled,
            }
        )

    async def _connections(self, call: HubCall) -> Response:
        return json_response({"connectedDeviceCount": len(call.identities.sessions)})


async def _view(call: HubCall, identity: DeviceIdentity) -> dict[str, object]:
    return identity_view(identity, await call.identities.presences.of(identity.device_id))


async def _answer(call: HubCall, identity: DeviceIdentity) -> Response:
    return json_response(await _view(call, identity), headers=[("etag", f'"{identity.etag}"')])


def _regeneration_error(error: RegenerationError) -> dict[str, object]:
    known = faults.fault(faults.HUB, error.error)
    return {
        "id": error.device_id,
        "moduleId": error.module_id,
        "errorCode": known.name,
        "errorStatus": str(error.error),
    }


def _bulk_error(error: BulkError) -> dict[str, object]:
    known = faults.fault(faults.HUB, error.error)
    return {
        "deviceId": error.device_id,
        "moduleId": error.module_id,
        "errorCode": known.code,
        "errorStatus": f"{known.name}: {error.error}",
        "operation": error.operation,
    }
