"""The DPS device API over HTTPS: paths and headers ⇄ `DeviceApi` [dps 8].

    PUT  /{id scope}/registrations/{registration id}/register                    202, and then
    GET  /{id scope}/registrations/{registration id}/operations/{operation id}   202 or 200
    POST /{id scope}/registrations/{registration id}                             200

A device proves itself anew with every request: by the certificate of the connection, or by a SAS token. Media types
and encodings are passed over, and a GET may have a body: Node sends `{}`, curl's samples say `utf-8` [dps trap 35].
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from moorage.adapters.dps_device import Answer, Device, DeviceApi
from moorage.adapters.http import MethodNotAllowed, Request, Response, json_response
from moorage.errors import MoorageError, NotFound
from moorage.provisioning.provisioner import Proof, SasProof, X509Proof

MAX_BODY = 96 * 1024  # [dps 19]

# As the service was seen to send it, but for `includeSubDomains`: the names below this one are others' here.
TRANSPORT_SECURITY = "max-age=31536000"

Verb = Callable[[Device, Request], Awaitable[Answer]]


class DpsDeviceHttp:
    """Answers on every host name, as `DpsHttp` does; the second segment of a path tells the two apart [dps 2.1]."""

    max_body = MAX_BODY

    def __init__(self, api: DeviceApi) -> None:
        self._api = api

    def matches(self, segments: tuple[str, ...]) -> bool:
        """`/{id scope}/registrations/…`: wide, so this handler comes after those that know their first words."""
        return len(segments) > 1 and segments[1].lower() == "registrations"

    async def handle(self, request: Request) -> Response:
        verb = self._verb(request)
        answer = await verb(_device(request), request)
        return self._respond(request, answer)

    def fault(self, request: Request, error: MoorageError) -> Response:
        """For what no verb of the device API was reached by: a verb's own refusals are answers."""
        self._api.note_refusal(
            "register", _registration_id(request), error, request.peer, request.tracking_id
        )
        return self._respond(request, self._api.refusal(error, request.peer, request.tracking_id))

    def _verb(self, request: Request) -> Verb:
        """Raises MethodNotAllowed, also without a registration id, and NotFound."""
        if not _registration_id(request):
            raise MethodNotAllowed(request.method, ())
        match [segment.lower() for segment in request.segments[3:]]:
            case ["register"]:
                allowed, verb = "PUT", self._register
            case ["operations", _]:
                allowed, verb = "GET", self._poll
            case []:
                allowed, verb = "POST", self._look_up
            case _:
                raise NotFound("path", request.path[:200])
        if request.method != allowed:
            raise MethodNotAllowed(request.method, (allowed,))
        return verb

    async def _register(self, device: Device, request: Request) -> Answer:
        return await self._api.register(device, request.body)

    async def _poll(self, device: Device, request: Request) -> Answer:
        return await self._api.poll(device, request.segments[4])

    async def _look_up(self, device: Device, request: Request) -> Answer:
        return await self._api.look_up(device, request.body)

    def _respond(self, request: Request, answer: Answer) -> Response:
        headers = [
            ("x-ms-request-id", request.tracking_id),
            ("strict-transport-security", TRANSPORT_SECURITY),
        ]
        if answer.status == 202:
            headers.append(("location", _location(request)))
        if answer.retry_after is not None:
            headers.append(("retry-after", str(answer.retry_after)))
        if answer.error is not None:
            headers.append(("x-ms-error-code", str(answer.body["errorCode"])))
        if isinstance(answer.error, MethodNotAllowed):
            headers.append(("allow", ", ".join(answer.error.allow)))
        return json_response(answer.body, answer.status, headers)


def _registration_id(request: Request) -> str:
    return request.segments[2] if len(request.segments) > 2 else ""


def _device(request: Request) -> Device:
    return Device(
        id_scope=request.segments[0],
        registration_id=_registration_id(request),
        api_version=request.query.get("api-version", ""),
        agent=request.headers.get("user-agent", ""),
        proof=_proof(request),
        peer=request.peer,
        tracking_id=request.tracking_id,
    )


def _proof(request: Request) -> Proof | None:
    if token := request.headers.get("authorization"):
        return SasProof(token)
    return X509Proof(request.peer.chain) if request.peer.chain else None


def _location(request: Request) -> str:
    """Where the registration was asked for, as the service was seen to say it to polls too."""
    id_scope, _, registration_id = request.segments[:3]
    path = "/".join(quote(segment, safe=":") for segment in (id_scope, "registrations", registration_id))
    return f"https://{request.headers.get('host', request.host)}/{path}/register"
