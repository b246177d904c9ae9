"""What is counted of devices that ask to be let in."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from moorage.credentials.sas import make_token
from moorage.credentials.x509 import Certificate
from moorage.errors import Unauthorized
from moorage.interfaces import Clock
from moorage.provisioning.attestation.proof import Proof, SasProof, X509Proof
from moorage.provisioning.provisioner import Provisioner, RegistrationRequest
from moorage.provisioning.service import ApiVersion

NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
SCOPE = "0ne00ABCDEF"
KEY = base64.b64encode(bytes(range(32))).decode()
HUB = "hub-a.example.net"


async def enroll(provisioner: Provisioner, certificate: Certificate, status: str = "enabled") -> None:
    x509 = {"clientCertificates": {"primary": {"certificate": certificate.to_pem()}}}
    await provisioner.enrollments.put(
        {
            "registrationId": "pump-7",
            "attestation": {"type": "x509", "x509": x509},
            "provisioningStatus": status,
        },
        if_match="*",
        api_version=NEWEST,
    )


async def come(provisioner: Provisioner, proof: Proof | None, registration_id: str = "pump-7") -> None:
    request = RegistrationRequest(
        id_scope=SCOPE, registration_id=registration_id, api_version=NEWEST, door="mqtt"
    )
    await provisioner.register(request, proof)


async def test_by_certificate_from_the_first_registration_to_a_refusal(
    provisioner: Provisioner, certify: Callable[..., Certificate]
) -> None:
    mine, another = certify(), certify()
    await enroll(provisioner, mine)
    await come(provisioner, X509Proof((mine.der,)))
    await come(provisioner, X509Proof((mine.der,)))
    await enroll(provisioner, mine, "disabled")
    await come(provisioner, X509Proof((mine.der,)))
    with pytest.raises(Unauthorized):
        await come(provisioner, X509Proof((another.der,)))

    counts = provisioner.counts
    assert counts.attestations == {("x509", "mqtt", "accepted"): 3, ("x509", "mqtt", "refused"): 1}
    assert counts.registrations == {("x509", "assigned"): 2, ("x509", "disabled"): 1, ("x509", "refused"): 1}
    assert counts.assignments == {
        (HUB, "x509", "initialAssignment"): 1,
        (HUB, "x509", "reprovisionedToInitialAssignment"): 1,
    }


async def test_whoever_is_enrolled_nowhere_counts_by_what_he_presents(
    provisioner: Provisioner, clock: Clock
) -> None:
    token = make_token(f"{SCOPE}/registrations/nobody", KEY, clock.now() // 1_000_000 + 60)
    for proof in (SasProof(token), None):
        with pytest.raises(Unauthorized):
            await come(provisioner, proof, "nobody")

    refused = {("symmetricKey", "refused"): 1, ("none", "refused"): 1}
    assert provisioner.counts.registrations == refused
    assert sorted(by for by, _, _ in provisioner.counts.attestations) == ["none", "symmetricKey"]
    assert not provisioner.counts.assignments
