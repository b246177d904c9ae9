"""Enrollment groups, without a browser: their form, the records of their devices, and the key of one device."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from moorage.app import Server
from moorage.credentials.sas import derive_key, make_token
from moorage.portal.api import Service
from moorage.provisioning.attestation.proof import SasProof
from moorage.provisioning.provisioner import RegistrationRequest
from tests.support.authorities import root
from tests.support.site import NEWEST
from tests.support.visitor import Visitor

NEW, LIST = "/enrollment-groups/new", "/enrollment-groups"
AUTHORITY = root("plant-ca", start=datetime(2020, 1, 1, tzinfo=UTC), end=datetime(2100, 1, 1, tzinfo=UTC))


async def make_group(dps: Service, name: str = "line-4") -> str:
    """A group by symmetric key; the primary one."""
    document = {"enrollmentGroupId": name, "attestation": {"type": "symmetricKey"}}
    made = await dps.put(f"/enrollmentGroups/{name}", document)
    return str(made["attestation"]["symmetricKey"]["primaryKey"])


async def register(server: Server, key: str, registration_id: str) -> None:
    """A device of the group comes."""
    scope = server.service.id_scope
    device_key = derive_key(key, registration_id)
    expiry = server.clock.now() // 1_000_000 + 600
    token = make_token(f"{scope}/registrations/{registration_id}", device_key, expiry, "registration")
    request = RegistrationRequest(id_scope=scope, registration_id=registration_id, api_version=NEWEST)
    await server.provisioner.register(request, SasProof(token))


async def test_by_certificate(visitor: Visitor, dps: Service) -> None:
    assert "moorage dps enrollment-group create" in (await visitor.get(LIST)).text
    files = {"primary_file": ("ca.pem", AUTHORITY.pem.encode())}
    missing = await visitor.send(await visitor.get(NEW), NEW, {}, files=files)
    assert 'id="problem-id"' in missing.html  # a group is not named after its authority
    seen = await visitor.send(missing, NEW, {"id": "line-4", "iot_edge": "on"}, files={})
    assert (seen.path, seen.title) == ("/enrollment-groups/line-4", "line-4")
    made = await dps.get("/enrollmentGroups/line-4")
    assert made["capabilities"] == {"iotEdge": True}
    certificates = made["attestation"]["x509"]["signingCertificates"]
    assert certificates["primary"]["info"]["sha256Thumbprint"] == AUTHORITY.certificate.sha256
    assert "Compute device key" not in seen.text
    assert "there is no key to compute" in (await visitor.get(f"{seen.path}/device-key")).text
    listed = await visitor.get(LIST)
    assert 'aria-current="page">Manage enrollments' in listed.html
    asked = await visitor.send(listed, f"{LIST}/delete", {"select": "line-4"})
    assert "Enrollment groups deleted: 1" in (await visitor.send(asked, f"{LIST}/delete")).text


async def test_by_reference_to_an_authority(visitor: Visitor, dps: Service) -> None:
    assert "no CA certificates yet" in (await visitor.get(NEW)).text
    for name, is_verified in (("plant", True), ("office", False)):
        body = {"certificate": AUTHORITY.pem, "isVerified": is_verified}
        await dps.put(f"/moorage/v1/caCertificates/{name}", body)
    page = await visitor.get(NEW)
    assert "not verified: no device is let in" in page.text
    fields = {"mechanism": "x509ca", "id": "line-4", "primary_ca": "plant", "secondary_ca": "office"}
    seen = await visitor.send(page, NEW, fields, files={})
    assert seen.title == "line-4"
    references = (await dps.get("/enrollmentGroups/line-4"))["attestation"]["x509"]["caReferences"]
    assert references == {"primary": "plant", "secondary": "office"}
    await visitor.send(seen, "/enrollment-groups/line-4", {"secondary_ca": ""}, files={})
    references = (await dps.get("/enrollmentGroups/line-4"))["attestation"]["x509"]["caReferences"]
    assert references == {"primary": "plant", "secondary": None}


async def test_the_key_of_a_device(visitor: Visitor, dps: Service) -> None:
    key, path = await make_group(dps), "/enrollment-groups/line-4/device-key"
    page = await visitor.get(path)
    seen = await visitor.send(page, path, {"registration_id": "Robot <7>"})
    assert derive_key(key, "Robot <7>") in seen.text
    assert "Robot <7>" in seen.text
    assert "Robot <7>" not in seen.html
    assert key not in seen.html
    refused = await visitor.send(page, path, {"registration_id": ""})
    assert (refused.status, "Give the registration ID" in refused.text) == (400, True)


async def test_the_records_of_its_devices(visitor: Visitor, dps: Service, server: Server) -> None:
    key, path = await make_group(dps), "/enrollment-groups/line-4/registrations"
    empty = await visitor.get(path)
    assert "No device of this group has registered yet" in empty.text
    (live,) = [part.split('"')[0].replace("&amp;", "&") for part in empty.html.split('data-live="')[1:]]
    assert (await visitor.fragment(live)).status == 204
    for number in range(52):
        await register(server, key, f"robot-{number:02}")
    told = await visitor.fragment(live)
    assert "robot-00" in told.text
    assert (await visitor.fragment(told.headers["moorage-next"])).status == 204
    first = await visitor.get(path)
    assert first.text.count("assigned") >= 50
    assert "/hubs/hub/devices/robot-00" in first.html
    (following,) = [part.split('"')[0] for part in first.html.split('rel="next" href="')[1:]]
    second = await visitor.get(following)
    assert "robot-51" in second.text
    asked = await visitor.send(second, path, {"select": ["robot-50", "robot-51", "nobody"]})
    assert asked.title == "Delete registration records: 3"
    seen = await visitor.send(asked, path)
    assert "Registration records deleted: 2" in seen.text
    assert "no registration named 'nobody'" in seen.text
    records: list[dict[str, Any]] = await dps.post("/registrations/line-4/query")
    assert len(records) == 50
    await dps.delete("/enrollmentGroups/line-4")
    assert "robot-00" in (await visitor.get(path)).text  # records outlive their group


async def test_what_became_of_a_device_is_told(visitor: Visitor, dps: Service, server: Server) -> None:
    """On the list and the page of an individual enrollment, without their being loaded again."""
    document = {"registrationId": "lathe", "attestation": {"type": "symmetricKey"}}
    made = await dps.put("/enrollments/lathe", document)
    page = await visitor.get("/enrollments/lathe")
    (live,) = [part.split('"')[0].replace("&amp;", "&") for part in page.html.split('data-live="')[1:]]
    assert (await visitor.fragment(live)).status == 204
    scope, expiry = server.service.id_scope, server.clock.now() // 1_000_000 + 600
    key = made["attestation"]["symmetricKey"]["primaryKey"]
    token = make_token(f"{scope}/registrations/lathe", key, expiry, "registration")
    request = RegistrationRequest(id_scope=scope, registration_id="lathe", api_version=NEWEST)
    await server.provisioner.register(request, SasProof(token))
    told = await visitor.fragment(live)
    assert "assigned" in told.text
    assert "/hubs/hub/devices/lathe" in told.html
    assert (await visitor.fragment(told.headers["moorage-next"])).status == 204
    assert "assigned" in (await visitor.get("/enrollments")).text
