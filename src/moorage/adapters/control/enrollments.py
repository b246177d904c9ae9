"""Individual enrollments as a whole: `enrollments`, to take them from one service to another.

With their keys and certificates, which the service API does not show: so reading takes the right to write.
"""

from __future__ import annotations

from typing import Any

from moorage.adapters import api_versions, faults
from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response, whole_number
from moorage.credentials.policy import ENROLLMENT_READ, ENROLLMENT_WRITE
from moorage.errors import Invalid
from moorage.provisioning.enrollment import IndividualEnrollment
from moorage.provisioning.enrollments import BulkFailure, Enrollments
from moorage.provisioning.transfer import MAX_ROWS, Transfer, declared

_NEWEST = api_versions.service(api_versions.VERSIONS[-1].since)
_OPERATOR = Needs(dps=(ENROLLMENT_READ, ENROLLMENT_WRITE))


class EnrollmentRoutes:
    def __init__(self, enrollments: Enrollments[IndividualEnrollment], transfer: Transfer) -> None:
        self._enrollments = enrollments
        self._transfer = transfer
        self.routes = (
            Route("GET", "enrollments", _OPERATOR, self._page),
            Route("POST", "enrollments", _OPERATOR, self._take_in),
        )

    async def _page(self, call: Call) -> Response:
        query = call.request.query
        limit = whole_number(query.get("top", str(MAX_ROWS)))
        if limit is None or not 1 <= limit <= MAX_ROWS:
            raise Invalid("top", f"is a number from 1 to {MAX_ROWS}")
        page = await self._enrollments.page(after=query.get("after"), limit=limit)
        shown = [declared(enrollment, _NEWEST) for enrollment in page.records]
        return json_response({"enrollments": shown, "next": page.next})

    async def _take_in(self, call: Call) -> Response:
        document = call.request.json_object()
        failures = await self._transfer.take_in(document.get("enrollments"), _NEWEST)
        return json_response({"errors": [_error(failure) for failure in failures]})


def _error(failure: BulkFailure) -> dict[str, Any]:
    _, code = faults.fault(faults.DPS, failure.error)
    return {"registrationId": failure.id, "errorCode": code, "message": str(failure.error)}
