"""CA certificates of the provisioning service and their verification: `caCertificates` [dps 18].

Who uploads one decides which devices may come, so it takes the right to enroll them, and that to configure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route, record_response
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import ENROLLMENT_READ, ENROLLMENT_WRITE, SERVICE_CONFIG
from moorage.errors import Invalid
from moorage.provisioning.ca_certificate import CaCertificate
from moorage.provisioning.ca_certificates import CaCertificates

_READ = Needs(dps=(ENROLLMENT_READ,))
_CONFIGURE = Needs(dps=(SERVICE_CONFIG, ENROLLMENT_WRITE))


class CaCertificateRoutes:
    def __init__(self, authorities: CaCertificates) -> None:
        self._authorities = authorities
        one = "caCertificates/{certificate}"
        self.routes = (
            Route("GET", "caCertificates", _READ, self._list),
            Route("GET", one, _READ, self._show),
            Route("PUT", one, _CONFIGURE, self._put),
            Route("DELETE", one, _CONFIGURE, self._delete),
            Route("POST", f"{one}/generateVerificationCode", _CONFIGURE, self._generate_code),
            Route("POST", f"{one}/verify", _CONFIGURE, self._verify),
        )

    async def _list(self, call: Call) -> Response:
        return json_response([{**ca.to_json(), "etag": ca.etag} for ca in await self._authorities.all()])

    async def _show(self, call: Call) -> Response:
        return _response(await self._authorities.get(_name(call)))

    async def _put(self, call: Call) -> Response:
        """Create without `If-Match`, replace with it, as the data planes of Azure do."""
        document = call.request.json_object()
        properties = document.get("properties", document)
        if not isinstance(properties, Mapping):
            raise Invalid("properties", "must be a JSON object")
        is_verified = properties.get("isVerified")
        if not isinstance(is_verified, bool | None):
            raise Invalid("isVerified", "must be true or false")
        uploaded = await self._authorities.upload(
            _name(call),
            _certificate(properties),
            is_verified=bool(is_verified),
            condition=call.condition,
        )
        return _response(uploaded, 201 if call.condition is None else 200)

    async def _delete(self, call: Call) -> Response:
        await self._authorities.delete(_name(call), condition=call.condition)
        return Response(204)

    async def _generate_code(self, call: Call) -> Response:
        return _response(
            await self._authorities.generate_verification_code(_name(call), condition=call.condition)
        )

    async def _verify(self, call: Call) -> Response:
        proof = _certificate(call.request.json_object())
        return _response(await self._authorities.verify(_name(call), proof, condition=call.condition))


def _name(call: Call) -> str:
    return call.named["certificate"]


def _certificate(document: Mapping[str, Any]) -> str:
    certificate = document.get("certificate")
    if not isinstance(certificate, str) or not certificate:
        raise Invalid("certificate", "is required: PEM text, or base64 of PEM, DER or PKCS#7")
    return certificate


def _response(ca: CaCertificate, status: int = 200) -> Response:
    return record_response(ca.to_json(), ca.etag, status)
