"""The hub's service REST API: identity registry, bulk, statistics, and reading twins [hub-service 3 to 6].

What Azure has and this release has not is known by its path and refused with 501; only paths that Azure does not
have either are unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from moorage.adapters import api_versions, faults
from moorage.adapters.http import MethodNotAllowed, Request, Response, json_response, whole_number
from moorage.credentials import policy
from moorage.credentials.decision import Decisions, Finding
from moorage.credentials.policy import REGISTRY_READ, REGISTRY_WRITE, SERVICE_CONNECT
from moorage.errors import Invalid, MoorageError, NotFound, NotSupported, Unauthorized
from moorage.hub.identity import BulkError, DeviceIdentity, Identities, identity_view, read_settings
from moorage.hub.instance import Hub
from moorage.hub.twin import service_view
from moorage.interfaces import Clock, Store

log = logging.getLogger("moorage.hub")

MAX_BODY = 1 << 20  # bytes: a hundred bulk items with twins of 32 KiB do not fit at Azure either
FAMILIES = frozenset({"devices", "twins", "statistics", "jobs", "configurations", "digitaltwins", "messages"})
ANY = "*"

Call = tuple[Callable[[], Awaitable[Response]], str]  # what answers a request, and the right that it takes


def etag_condition(header: str | None) -> str | None:
    """What `If-Match` asks: None without one, `*` for any, else the bare etag [hub-service 3].

    Seen are `*`, `"*"`, `W/"*"`, `"etag"` and `etag`. An empty one in quotes is that of no identity.
    """
    if header is None or not header.strip():
        return None
    return header.strip().removeprefix("W/").strip().strip('"')


class HubHttp:
    """Answers back ends: an `HttpHandler`."""

    max_body = MAX_BODY

    def __init__(
        self,
        hub_by_host: Callable[[str], tuple[Hub, Identities] | None],
        *,
        store: Store,
        clock: Clock,
        decisions: Decisions,
    ) -> None:
        self._hub_by_host = hub_by_host
        self._store = store
        self._clock = clock
        self._decisions = decisions

    def matches(self, segments: tuple[str, ...]) -> bool:
        return bool(segments) and segments[0].lower() in FAMILIES

    async def handle(self, request: Request) -> Response:
        found = self._hub_by_host(request.host)
        if found is None:
            unknown = Unauthorized(f"there is no hub named {request.host[:300]!r}", check="hub")
            self._refused(self._finding("service request", _subject(request), request), unknown)
            raise unknown
        hub, identities = found
        api_versions.hub(request.query.get("api-version"))
        if (caller := _calling_device(request.segments)) is not None:
            error = NotSupported("devices over HTTPS", "connect over MQTT, port 8883, or its WebSocket")
            self._refused(self._finding("device request", caller, request, hub.scope), error)
            raise error
        call, right = self._find(request, identities)
        await self._authorize(request, hub, right)
        return await call()

    def _find(self, request: Request, identities: Identities) -> Call:
        """The verb that the request asks for and the right it takes [hub-service 2.3]."""
        registry = _Registry(request, identities)
        device_id = request.segments[1] if len(request.segments) > 1 else ""
        match [segment.lower() for segment in request.segments]:
            case ["devices"]:
                return _by_method(
                    request, GET=(registry.list, REGISTRY_READ), POST=(registry.bulk, REGISTRY_WRITE)
                )
            case ["devices", "query"] if request.method == "POST":
                return _absent("queries"), SERVICE_CONNECT
            case ["devices", _]:
                return _by_method(
                    request,
                    GET=(lambda: registry.get(device_id), REGISTRY_READ),
                    PUT=(lambda: registry.put(device_id), REGISTRY_WRITE),
                    DELETE=(lambda: registry.delete(device_id), REGISTRY_WRITE),
                )
            case ["statistics", "devices"]:
                return _by_method(request, GET=(registry.statistics, REGISTRY_READ))
            case ["statistics", "service"]:
                return _by_method(request, GET=(registry.connections, SERVICE_CONNECT))
            case ["twins", _]:
                return _by_method(
                    request,
                    GET=(lambda: registry.twin(device_id), SERVICE_CONNECT),
                    PATCH=(_absent("changing twins"), SERVICE_CONNECT),
                    PUT=(_absent("changing twins"), SERVICE_CONNECT),
                )
        return _find_absent(request)

    async def _authorize(self, request: Request, hub: Hub, right: str) -> None:
        """Raises Unauthorized; each refusal leaves a decision record."""
        finding = self._finding("service request", _subject(request), request, hub.scope)
        names = dict.fromkeys((request.host, *hub.host_names))
        policies = (await self._store.records(policy.KIND, hub.scope).page(limit=1000)).records
        try:
            policy.authorize(
                request.headers.get("authorization"),
                resource=[f"{name}{request.path}" for name in names],
                right=right,
                policies=policies,
                now=self._clock.now(),
                finding=finding,
            )
        except MoorageError as error:
            self._refused(finding, error)
            raise

    def _finding(self, operation: str, subject: str, request: Request, scope: int = 0) -> Finding:
        return Finding.from_peer(request.peer, request.tracking_id, operation, subject, scope=scope)

    def _refused(self, finding: Finding, error: MoorageError) -> None:
        self._decisions.add(finding.refused(self._clock.now(), error))
        log.warning(
            "%s refused",
            finding.operation,
            extra={
                "tracking_id": finding.tracking_id,
                "subject": finding.subject,
                "address": finding.address,
                "reason": str(error),
            },
        )

    def fault(self, request: Request, error: MoorageError) -> Response:
        status, name, body = faults.hub_error(error, request.tracking_id, self._clock.now())
        headers = [("iothub-errorcode", name), ("x-ms-request-id", request.tracking_id)]
        if isinstance(error, MethodNotAllowed):
            headers.append(("allow", ", ".join(error.allow)))
        if (seconds := faults.retry_after(error)) is not None:
            headers.append(("retry-after", str(seconds)))
        return json_response(body, status, headers)


def _subject(request: Request) -> str:
    return f"{request.method} {request.path}"


def _calling_device(segments: Sequence[str]) -> str | None:
    """Whose own request this is, not a back end's: a device's, or `{device}/{module}` [hub-device 5, 6]."""
    words = [segment.lower() for segment in segments]
    at = 4 if words[2:3] == ["modules"] else 2
    if words[0] != "devices" or words[at : at + 1] not in (["messages"], ["files"]):
        return None
    return "/".join(segments[1:at:2])


def _find_absent(request: Request) -> Call:
    """What Azure has at this path and this release has not. Raises NotFound where Azure has nothing either."""
    registry = REGISTRY_READ if request.method in ("GET", "HEAD") else REGISTRY_WRITE
    match [segment.lower() for segment in request.segments]:
        case ["devices", "keys", "regenerate"]:
            return _absent("key regeneration"), REGISTRY_WRITE
        case ["devices", _, "modules", *_]:
            return _absent("module identities"), registry
        case ["devices", _, "commands"]:
            return _absent("cloud-to-device messages"), SERVICE_CONNECT
        case ["devices", _, "applyconfigurationcontent"]:
            return _absent("configurations"), REGISTRY_WRITE
        case ["twins", _, "methods"] | ["twins", _, "modules", _, "methods"]:
            return _absent("direct methods"), SERVICE_CONNECT
        case ["twins", _, "modules", *_]:
            return _absent("module twins"), SERVICE_CONNECT
        case ["configurations", *_]:
            return _absent("configurations"), registry
        case ["jobs", "v2", *_]:
            return _absent("scheduled jobs"), SERVICE_CONNECT
        case ["jobs", *_]:
            return _absent("import and export jobs"), REGISTRY_WRITE
        case ["digitaltwins", *_]:
            return _absent("digital twins"), SERVICE_CONNECT
        case ["messages", *_]:
            return _absent("cloud-to-device messages and their feedback"), SERVICE_CONNECT
    raise NotFound("path", request.path[:200])


def _by_method(request: Request, **verbs: Call) -> Call:
    if request.method not in verbs:
        raise MethodNotAllowed(request.method, verbs)
    return verbs[request.method]


def _absent(what: str) -> Callable[[], Awaitable[Response]]:
    """Refused, and only to those who would have had the right."""

    async def refuse() -> Response:
        raise NotSupported(what)

    return refuse


class _Registry:
    """The verbs of one request on the registry."""

    def __init__(self, request: Request, identities: Identities) -> None:
        self._request = request
        self._identities = identities

    async def list(self) -> Response:
        text = self._request.query.get("top", "1000")
        if (top := whole_number(text)) is None:
            raise Invalid("top", f"{text[:50]!r} is not a number")
        return json_response([self._view(identity) for identity in await self._identities.list(top)])

    async def get(self, device_id: str) -> Response:
        return self._answer(await self._identities.get(device_id))

    async def put(self, device_id: str) -> Response:
        """Create without `If-Match`, update with it [hub-service 3]."""
        settings = read_settings(device_id, self._request.json_object())
        condition = etag_condition(self._request.headers.get("if-match"))
        if condition is None:
            return self._answer(await self._identities.create(settings))
        return self._answer(await self._identities.update(settings, condition))

    async def delete(self, device_id: str) -> Response:
        condition = etag_condition(self._request.headers.get("if-match"))
        await self._identities.delete(device_id, ANY if condition is None else condition)
        return Response(204)

    async def bulk(self) -> Response:
        """200 when all items were done, else 400 with a body of the same shape [hub-service 5.5]."""
        items = self._request.json()
        if not isinstance(items, Sequence) or isinstance(items, str):
            raise Invalid("body", "must be a JSON array")
        result = await self._identities.bulk(items)
        body = {
            "isSuccessful": result.is_successful,
            "errors": [_bulk_error(error) for error in result.errors],
            "warnings": [],
        }
        return json_response(body, 200 if result.is_successful else 400)

    async def statistics(self) -> Response:
        counted = await self._identities.statistics()
        return json_response(
            {
                "totalDeviceCount": counted.total,
                "enabledDeviceCount": counted.enabled,
                "disabledDeviceCount": counted.disabled,
            }
        )

    async def connections(self) -> Response:
        return json_response({"connectedDeviceCount": len(self._identities.sessions)})

    async def twin(self, device_id: str) -> Response:
        identity, twin = await self._identities.get(device_id), await self._identities.twin(device_id)
        view = service_view(twin, identity, self._identities.sessions.presence(device_id))
        return json_response(view, headers=[("etag", f'"{twin.etag}"')])

    def _view(self, identity: DeviceIdentity) -> dict[str, object]:
        return identity_view(identity, self._identities.sessions.presence(identity.device_id))

    def _answer(self, identity: DeviceIdentity) -> Response:
        return json_response(self._view(identity), headers=[("etag", f'"{identity.etag}"')])


def _bulk_error(error: BulkError) -> dict[str, object]:
    known = faults.fault(faults.HUB, error.error)
    return {
        "deviceId": error.device_id,
        "moduleId": error.module_id,
        "errorCode": known.code,
        "errorStatus": f"{known.name}: {error.error}",
        "operation": error.operation,
    }
