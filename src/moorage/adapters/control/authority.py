"""The CA whose certificate clients have to trust: `certificateAuthority`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import ENROLLMENT_READ
from moorage.credentials.x509 import Certificate, read_certificate
from moorage.errors import NotFound
from moorage.hub.twin import timestamp


class AuthorityRoutes:
    def __init__(self, ca_file: Callable[[], Path | None]) -> None:
        """`ca_file` is where the certificate of the local CA is; None where the operator brought a certificate."""
        self._ca_file = ca_file
        self.routes = (Route("GET", "certificateAuthority", Needs(dps=(ENROLLMENT_READ,)), self._show),)

    async def _show(self, call: Call) -> Response:
        file = self._ca_file()
        if file is None:
            raise NotFound(
                "CA",
                "of this server",
                remedy="its certificate is the operator's own, and so is who signed it",
            )
        return json_response({"file": str(file), **_view(read_certificate(file.read_bytes()))})


def _view(certificate: Certificate) -> dict[str, Any]:
    return {
        "subject": certificate.subject,
        "sha1Thumbprint": certificate.sha1,
        "sha256Thumbprint": certificate.sha256,
        "notBefore": timestamp(certificate.not_before),
        "notAfter": timestamp(certificate.not_after),
        "certificate": certificate.to_pem(),
    }
