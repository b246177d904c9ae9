"""What a file holds that is to be enrolled, and what will come of it: `certificates/preview`. Nothing is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import ENROLLMENT_READ
from moorage.credentials.workshop.inspection import holds_private_key, inspect
from moorage.credentials.x509 import Certificate, read_certificates
from moorage.errors import Invalid
from moorage.interfaces import Clock
from moorage.provisioning.foresight import Use, foresee
from moorage.provisioning.reading import choice, text

_READER = Needs(dps=(ENROLLMENT_READ,))


class CertificatePreviewRoutes:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.routes = (Route("POST", "certificates/preview", _READER, self._preview),)

    async def _preview(self, call: Call) -> Response:
        wanted = call.request.json_object()
        source, use = text(wanted, "certificate"), choice(wanted, "use", Use) or Use.CLIENT
        if source is None:
            raise Invalid("certificate", "is required: PEM, or base64 of PEM or DER")
        now = self._clock.now()
        moment = datetime.fromtimestamp(now / 1_000_000, UTC)
        held = _read(source.encode("utf-8", "replace"), moment)
        obstacles = foresee(
            held[0], use, registration_id=text(wanted, "registrationId"), others=held[1:], now=now
        )
        return json_response(
            {
                "commonName": held[0].common_name,
                "certificates": [inspect(each.der, moment)[0] for each in held],
                "obstacles": [
                    {**obstacle._asdict(), "values": dict(obstacle.values)} for obstacle in obstacles
                ],
            }
        )


def _read(content: bytes, now: datetime) -> list[Certificate]:
    """As an enrollment reads it, for the first one. Raises Invalid, which says what there is instead."""
    if holds_private_key(content):
        raise Invalid("certificate", "there is a private key in it, which belongs to the device alone")
    try:
        return read_certificates(content)
    except Invalid as error:
        raise Invalid("certificate", _what_else(content, now) or error.why) from None


def _what_else(content: bytes, now: datetime) -> str:
    try:
        found: list[dict[str, Any]] = inspect(content, now)
    except Invalid:
        return ""
    if found[0].get("within") == "PKCS#7":
        return (
            f"it is a PKCS#7 file, with {len(found)} certificates; take out the one that is meant: "
            "openssl pkcs7 -print_certs"
        )
    if found[0]["kind"] != "certificate":
        return f"it is a {found[0]['kind']}, not a certificate"
    return ""
