"""CA certificates and their verification: `caCertificates` of the provisioning service [dps 18], and
`hubs/{hub}/certificates` of a hub [hub-service 22].

Who uploads one decides which devices may come, so it takes the right to enroll or register them, and one to configure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route, record_response
from moorage.adapters.http import Response, json_response
from moorage.credentials.ca_certificate import CaCertificate
from moorage.credentials.ca_certificates import CaCertificates
from moorage.credentials.policy import (
    ENROLLMENT_READ,
    ENROLLMENT_WRITE,
    REGISTRY_READ,
    REGISTRY_WRITE,
    SERVICE_CONFIG,
    SERVICE_CONNECT,
)
from moorage.errors import Invalid
from moorage.hub.instance import Hub
from moorage.hub.twin import timestamp

_DPS_READ = Needs(dps=(ENROLLMENT_READ,))
_DPS_CONFIGURE = Needs(dps=(SERVICE_CONFIG, ENROLLMENT_WRITE))
_HUB_READ = Needs(hub=(REGISTRY_READ,))
_HUB_CONFIGURE = Needs(hub=(REGISTRY_WRITE, SERVICE_CONNECT))


class CaCertificateRoutes:
    def __init__(self, of_service: CaCertificates, of_hub: Callable[[Hub], CaCertificates]) -> None:
        self._of_service = of_service
        self._of_hub = of_hub
        self.routes = (
            *self._below("caCertificates", _DPS_READ, _DPS_CONFIGURE),
            *self._below("hubs/{hub}/certificates", _HUB_READ, _HUB_CONFIGURE),
        )

    def _below(self, root: str, read: Needs, configure: Needs) -> Iterator[Route]:
        one = f"{root}/{{certificate}}"
        yield Route("GET", root, read, self._list)
        yield Route("GET", one, read, self._show)
        yield Route("PUT", one, configure, self._put)
        yield Route("DELETE", one, configure, self._delete)
        yield Route("POST", f"{one}/generateVerificationCode", configure, self._generate_code)
        yield Route("POST", f"{one}/verify", configure, self._verify)

    def _authorities(self, call: Call) -> CaCertificates:
        return self._of_service if call.hub is None else self._of_hub(call.hub)

    async def _list(self, call: Call) -> Response:
        return json_response([{**_view(ca), "etag": ca.etag} for ca in await self._authorities(call).all()])

    async def _show(self, call: Call) -> Response:
        return _response(await self._authorities(call).get(_name(call)))

    async def _put(self, call: Call) -> Response:
        """Create without `If-Match`, replace with it, as the data planes of Azure do."""
        document = call.request.json_object()
        properties = document.get("properties", document)
        if not isinstance(properties, Mapping):
            raise Invalid("properties", "must be a JSON object")
        is_verified = properties.get("isVerified")
        if not isinstance(is_verified, bool | None):
            raise Invalid("isVerified", "must be true or false")
        uploaded = await self._authorities(call).upload(
            _name(call),
            _certificate(properties),
            is_verified=bool(is_verified),
            condition=call.condition,
        )
        return _response(uploaded, 201 if call.condition is None else 200)

    async def _delete(self, call: Call) -> Response:
        await self._authorities(call).delete(_name(call), condition=call.condition)
        return Response(204)

    async def _generate_code(self, call: Call) -> Response:
        return _response(
            await self._authorities(call).generate_verification_code(_name(call), condition=call.condition)
        )

    async def _verify(self, call: Call) -> Response:
        proof = _certificate(call.request.json_object())
        return _response(await self._authorities(call).verify(_name(call), proof, condition=call.condition))


def _name(call: Call) -> str:
    return call.named["certificate"]


def _certificate(document: Mapping[str, Any]) -> str:
    certificate = document.get("certificate")
    if not isinstance(certificate, str) or not certificate:
        raise Invalid("certificate", "is required: PEM text, or base64 of PEM, DER or PKCS#7")
    return certificate


def _response(ca: CaCertificate, status: int = 200) -> Response:
    return record_response(_view(ca), ca.etag, status)


def _view(ca: CaCertificate) -> dict[str, Any]:
    """As Azure's resource manager shows it, the certificate as base64 of its DER."""
    properties: dict[str, Any] = {
        "subject": ca.subject,
        "expiry": formatdate(ca.not_after // 1_000_000, usegmt=True),
        "thumbprint": ca.sha1,
        "isVerified": ca.is_verified,
        "created": timestamp(ca.created),
        "updated": timestamp(ca.updated),
        "certificate": ca.der,
    }
    if ca.verification_code is not None:
        properties["verificationCode"] = ca.verification_code
    return {"name": ca.name, "properties": properties}
