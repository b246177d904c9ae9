"""The DPS service API over HTTP: enrollments and registration records, for back ends and `az` [dps 16].

    segments → route (right, verb) → SAS token has that right → verb of the Provisioner → JSON

What this release does not do has its route too, and says so with 501.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from moorage.adapters import api_versions, faults
from moorage.adapters.http import MethodNotAllowed, Request, Response, json_response
from moorage.credentials.decision import Finding
from moorage.credentials.policy import (
    ENROLLMENT_READ,
    ENROLLMENT_WRITE,
    REGISTRATION_STATUS_READ,
    REGISTRATION_STATUS_WRITE,
)
from moorage.errors import Invalid, MoorageError, NotFound
from moorage.interfaces import Page, T
from moorage.provisioning.enrollment import Enrollment, IndividualEnrollment
from moorage.provisioning.enrollments import BulkFailure, E, Enrollments
from moorage.provisioning.provisioner import Provisioner
from moorage.provisioning.service import ApiVersion

MAX_BODY = 96 * 1024  # [dps 19]
DEFAULT_PAGE, MAX_PAGE = 100, 1000  # [dps 16.4]

Verb = Callable[[Request, ApiVersion], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """What one method does on one path. `{id}` stands for any segment; the others match in any case."""

    method: str
    path: tuple[str, ...]
    right: str
    verb: Verb

    def matches(self, segments: tuple[str, ...]) -> bool:
        return len(segments) == len(self.path) and all(
            part == "{id}" or part == segment.lower()
            for part, segment in zip(self.path, segments, strict=True)
        )


class DpsHttp:
    """Answers on every host name, for host routing does not tell the two APIs apart [dps 2.1]."""

    max_body = MAX_BODY

    def __init__(self, provisioner: Provisioner) -> None:
        self._provisioner = provisioner
        self._routes = [
            Route(method, tuple(path.split("/")), right, verb)
            for method, path, right, verb in (
                *_routes_of("enrollments", _Individual(provisioner.enrollments, provisioner)),
                *_routes_of("enrollmentgroups", _Faces(provisioner.groups)),
                ("GET", "registrations/{id}", REGISTRATION_STATUS_READ, self._get_registration),
                ("DELETE", "registrations/{id}", REGISTRATION_STATUS_WRITE, self._delete_registration),
                ("POST", "registrations/{id}/query", REGISTRATION_STATUS_READ, self._query_registrations),
            )
        ]
        self._roots = {route.path[0] for route in self._routes}

    def matches(self, segments: tuple[str, ...]) -> bool:
        return bool(segments) and segments[0].lower() in self._roots

    async def handle(self, request: Request) -> Response:
        route = self._route(request)
        api_version = api_versions.service(request.query.get("api-version"))
        await self._provisioner.authorize(
            request.headers.get("authorization"),
            resource=[
                f"{host}{request.path}" for host in (request.host, *self._provisioner.service.host_names)
            ],
            right=route.right,
            finding=Finding.from_peer(
                request.peer,
                request.tracking_id,
                f"{request.method} {request.segments[0]}",
                request.segments[1] if len(request.segments) > 1 else "",
                scope=self._provisioner.service.scope,
            ),
        )
        response = await route.verb(request, api_version)
        return Response(response.status, (*response.headers, _request_id(request)), response.body)

    def fault(self, request: Request, error: MoorageError) -> Response:
        status, body, retry_after = faults.dps_error(
            error, request.tracking_id, self._provisioner.clock.now()
        )
        headers = [_request_id(request), ("x-ms-error-code", str(body["errorCode"]))]
        if retry_after is not None:
            headers.append(("retry-after", str(retry_after)))
        if isinstance(error, MethodNotAllowed):
            headers.append(("allow", ", ".join(error.allow)))
        return json_response(body, status, headers)

    def _route(self, request: Request) -> Route:
        matching = [route for route in self._routes if route.matches(request.segments)]
        if not matching:
            raise NotFound("path", request.path[:200])
        for route in matching:
            if route.method == request.method:
                return route
        raise MethodNotAllowed(request.method, {route.method for route in matching})

    # Registration records

    async def _get_registration(self, request: Request, api_version: ApiVersion) -> Response:
        state = await self._provisioner.registration(request.segments[1])
        return json_response(state.to_json(api_version))

    async def _delete_registration(self, request: Request, api_version: ApiVersion) -> Response:
        await self._provisioner.delete_registration(
            request.segments[1], if_match=request.headers.get("if-match")
        )
        return Response(204)

    async def _query_registrations(self, request: Request, api_version: ApiVersion) -> Response:
        """Of the devices of a group; the body, empty or a specification, asks for all of them [dps 16.1]."""
        _check_query(request.json())
        limit, after = _paging(request)
        page = await self._provisioner.query_registrations(request.segments[1], after=after, limit=limit)
        shown = [state.to_json(api_version) for state in page.records]
        return _page_response(page, shown, limit, "deviceRegistration")


class _Faces(Generic[E]):
    """The service API on one kind of enrollment."""

    item_type = "enrollmentGroup"

    def __init__(self, enrollments: Enrollments[E]) -> None:
        self._enrollments = enrollments

    async def get(self, request: Request, api_version: ApiVersion) -> Response:
        enrollment = await self._enrollments.get(request.segments[1])
        return _enrollment_response(enrollment, enrollment.to_json(api_version))

    async def put(self, request: Request, api_version: ApiVersion) -> Response:
        document, member = request.json_object(), self._enrollments.id_member
        named, asked = document.get(member), request.segments[1]
        if isinstance(named, str) and named.lower() != asked.lower():
            raise Invalid(member, f"the body says {named!r}, the path {asked!r}")
        enrollment = await self._enrollments.put(
            document, if_match=request.headers.get("if-match"), api_version=api_version
        )
        # Who wrote them is told the keys, those made for it among them; others are not [dps 16.2].
        return _enrollment_response(enrollment, enrollment.to_json(api_version, secrets=True))

    async def delete(self, request: Request, api_version: ApiVersion) -> Response:
        await self._enrollments.delete(request.segments[1], if_match=request.headers.get("if-match"))
        return Response(204)

    async def mechanism(self, request: Request, api_version: ApiVersion) -> Response:
        enrollment = await self._enrollments.get(request.segments[1])
        return json_response(enrollment.attestation.to_json(secrets=True))

    async def query(self, request: Request, api_version: ApiVersion) -> Response:
        _check_query(request.json())
        limit, after = _paging(request)
        page = await self._enrollments.page(after=after, limit=limit)
        shown = [found.to_json(api_version) for found in page.records]
        return _page_response(page, shown, limit, self.item_type)

    async def bulk(self, request: Request, api_version: ApiVersion) -> Response:
        document = request.json_object()
        failures = await self._enrollments.bulk(
            document.get("mode"), document.get(self._enrollments.list_member), api_version
        )
        errors = [_bulk_error(failure, self._enrollments.id_member) for failure in failures]
        return json_response({"isSuccessful": not failures, "errors": errors})


class _Individual(_Faces[IndividualEnrollment]):
    item_type = "enrollment"

    def __init__(self, enrollments: Enrollments[IndividualEnrollment], provisioner: Provisioner) -> None:
        super().__init__(enrollments)
        self._provisioner = provisioner

    async def get(self, request: Request, api_version: ApiVersion) -> Response:
        """With the state of its device's registration, which queries leave out [dps trap 46]."""
        enrollment = await self._enrollments.get(request.segments[1])
        try:
            registration = await self._provisioner.registration(request.segments[1])
        except NotFound:
            registration = None  # the device has not come yet
        return _enrollment_response(enrollment, enrollment.to_json(api_version, registration))


def _routes_of(root: str, faces: _Faces[Any]) -> tuple[tuple[str, str, str, Verb], ...]:
    return (
        # Fixed words before `{id}`: `query` is reserved, for POST alone.
        ("POST", root, ENROLLMENT_WRITE, faces.bulk),
        ("POST", f"{root}/query", ENROLLMENT_READ, faces.query),
        ("GET", f"{root}/{{id}}", ENROLLMENT_READ, faces.get),
        ("PUT", f"{root}/{{id}}", ENROLLMENT_WRITE, faces.put),
        ("DELETE", f"{root}/{{id}}", ENROLLMENT_WRITE, faces.delete),
        ("POST", f"{root}/{{id}}/attestationmechanism", ENROLLMENT_READ, faces.mechanism),
    )


def _request_id(request: Request) -> tuple[str, str]:
    return "x-ms-request-id", request.tracking_id


def _enrollment_response(enrollment: Enrollment, document: Mapping[str, Any]) -> Response:
    return json_response(document, headers=[("etag", f'"{enrollment.etag}"')])


def _bulk_error(failure: BulkFailure, id_member: str) -> dict[str, Any]:
    _, code = faults.fault(faults.DPS, failure.error)
    return {
        id_member: failure.id,
        "errorCode": code,
        "errorStatus": f"{type(failure.error).__name__}: {failure.error}",
    }


_SELECT_ALL = re.compile(r"\s*(?:(?:select\s+)?\*\s*(?:from\s+\w+\s*)?)?", re.IGNORECASE)


def _check_query(specification: object) -> None:
    """Only "everything" is asked for by the tools, in several spellings [dps 16.4]."""
    query = specification.get("query") if isinstance(specification, dict) else specification
    if query is not None and not (isinstance(query, str) and _SELECT_ALL.fullmatch(query)):
        raise Invalid("query", "only 'SELECT *' with or without a FROM is understood; select by other means")


def _paging(request: Request) -> tuple[int, str | None]:
    """How many items, and after which key. Raises Invalid."""
    limit = _page_size(request.headers.get("x-ms-max-item-count"))
    return limit, _read_continuation(request.headers.get("x-ms-continuation"))


def _page_response(page: Page[T], shown: Sequence[Mapping[str, Any]], limit: int, item_type: str) -> Response:
    headers = [("x-ms-max-item-count", str(limit)), ("x-ms-item-type", item_type)]
    if page.next is not None:
        # Left out on the last page: C# takes an empty one for "there is more" [dps trap 27].
        headers.append(("x-ms-continuation", _continuation(page.next)))
    return json_response(shown, headers=headers)


def _page_size(text: str | None) -> int:
    if text is None:
        return DEFAULT_PAGE
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
        raise Invalid("x-ms-max-item-count", f"must be a whole number from 1 on, not {text[:32]!r}")
    return min(int(text), MAX_PAGE)


def _continuation(last: str) -> str:
    """The last id of a page, so that what is deleted meanwhile does not break the walk."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def _read_continuation(token: str | None) -> str | None:
    if not token:
        return None
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise Invalid("x-ms-continuation", "is not a token that a query has returned") from None
