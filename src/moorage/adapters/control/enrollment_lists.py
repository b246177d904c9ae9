"""Enrollments as lists show them: `enrollments/list` and `enrollmentGroups/list`, by the beginning of their ids.

The queries of the service API can neither search nor tell what became of a device, and asking for each of a page would
be a call a row.
"""

from __future__ import annotations

from typing import Any

from moorage.adapters import api_versions
from moorage.adapters.control.places import count_asked
from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import ENROLLMENT_READ, REGISTRATION_STATUS_READ
from moorage.errors import NotFound
from moorage.interfaces import Page
from moorage.provisioning.enrollment import IndividualEnrollment
from moorage.provisioning.enrollments import E, Enrollments
from moorage.provisioning.provisioner import Provisioner

_NEWEST = api_versions.service(api_versions.VERSIONS[-1].since)


class EnrollmentListRoutes:
    def __init__(self, provisioner: Provisioner) -> None:
        self._provisioner = provisioner
        with_states = Needs(dps=(ENROLLMENT_READ, REGISTRATION_STATUS_READ))
        self.routes = (
            Route("GET", "enrollments/list", with_states, self._individual),
            Route("GET", "enrollmentGroups/list", Needs(dps=(ENROLLMENT_READ,)), self._groups),
        )

    async def _individual(self, call: Call) -> Response:
        page = await _page(self._provisioner.enrollments, call)
        shown = [await self._with_state(enrollment) for enrollment in page.records]
        return json_response({"enrollments": shown, "next": page.next})

    async def _with_state(self, enrollment: IndividualEnrollment) -> dict[str, Any]:
        try:
            state = await self._provisioner.registration(enrollment.registration_id)
        except NotFound:
            state = None  # the device has not come yet
        return enrollment.to_json(_NEWEST, state)

    async def _groups(self, call: Call) -> Response:
        page = await _page(self._provisioner.groups, call)
        shown = [group.to_json(_NEWEST) for group in page.records]
        return json_response({"enrollmentGroups": shown, "next": page.next})


async def _page(enrollments: Enrollments[E], call: Call) -> Page[E]:
    query = call.request.query
    return await enrollments.beginning_with(
        query.get("prefix", ""), after=query.get("after"), limit=count_asked(call.request)
    )
