"""The judgement of a device's SAS token, whatever keys may have made it [dps 5.2]."""

from __future__ import annotations

from collections.abc import Sequence

from moorage.credentials.decision import Finding
from moorage.credentials.sas import SasToken, covers, verify
from moorage.errors import Unauthorized
from moorage.provisioning.attestation.proof import Claim

TOKEN = "SAS token presented"


def check_token(token: SasToken, keys: Sequence[str], claim: Claim, finding: Finding) -> None:
    """Raises Unauthorized unless one of `keys` (base64) made `token`, for this device and for now."""
    verify(token, keys, claim.now)
    finding.hold("signature")
    finding.hold("expiry")
    if not covers(token.resource, claim.resource, ignore_case=True):
        raise Unauthorized(
            f"the SAS token is for {token.resource[:300]!r}, not for {claim.resource!r}",
            check="audience",
            remedy=f"Make the token for {claim.resource!r}.",
        )
    finding.hold("audience")
