"""Manage enrollments, without a browser: lists, the form for one, what is refused, and two who save at once."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
    pkcs12,
)

from moorage.app import Server
from moorage.credentials.sas import new_key
from moorage.credentials.workshop.inspection import holds_private_key
from moorage.portal.api import Refused, Service
from tests.support.authorities import Issued, certify, key, name, root
from tests.support.software_tpm import SoftwareTpm
from tests.support.visitor import PageSeen, Visitor

NEW, LIST = "/enrollments/new", "/enrollments"
DATES: Any = {"start": datetime(2020, 1, 1, tzinfo=UTC), "end": datetime(2100, 1, 1, tzinfo=UTC)}
PUMP = certify("pump-7", None, **DATES)
OTHER = certify("pump-8", None, number=1, **DATES)


def private_key(issued: Issued, encoding: Encoding = Encoding.PEM, *, password: bytes = b"") -> bytes:
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    return issued.key.private_bytes(encoding, PrivateFormat.PKCS8, lock)


def chosen(issued: Issued, name: str = "device.pem") -> dict[str, tuple[str, bytes]]:
    return {"primary_file": (name, issued.pem.encode())}


async def enroll(dps: Service, name: str, **members: Any) -> dict[str, Any]:
    document = {"registrationId": name, "attestation": {"type": "symmetricKey"}, **members}
    made: dict[str, Any] = await dps.put(f"/enrollments/{name}", document)
    return made


async def test_a_certificate_is_uploaded_and_found_and_deleted(visitor: Visitor, dps: Service) -> None:
    form = await visitor.get(NEW)
    seen = await visitor.send(
        form, NEW, {"device_id": "line4-robot7", "hubs": [], "iot_edge": "on"}, files=chosen(PUMP)
    )
    assert (seen.path, seen.title) == ("/enrollments/pump-7", "pump-7")
    assert "has been created" in seen.text
    assert PUMP.certificate.sha256 in seen.text
    made = await dps.get("/enrollments/pump-7")
    assert made["deviceId"] == "line4-robot7"
    assert made["capabilities"] == {"iotEdge": True}
    assert made["initialTwin"] is None  # what the editor begins with is not written
    assert made["allocationPolicy"] is None

    listed = await visitor.get(LIST)
    assert "not registered yet" in listed.text
    asked = await visitor.send(listed, "/enrollments/delete", {"select": ["pump-7"]})
    assert asked.title == "Delete individual enrollments: 1"
    gone = await visitor.send(asked, "/enrollments/delete")
    assert "Individual enrollments deleted: 1" in gone.text
    assert "No device may register on its own yet" in gone.text


async def test_der_by_its_file_name_of_windows(visitor: Visitor) -> None:
    form = await visitor.get(NEW)
    seen = await visitor.send(form, NEW, {}, files={"primary_file": ("pump.cer", PUMP.der)})
    assert seen.title == "pump-7"
    assert PUMP.certificate.sha1 in seen.text


async def test_with_all_that_can_be_said(visitor: Visitor, dps: Service) -> None:
    hub = (await dps.get("/moorage/v1/linkedHubs"))[0]["name"]
    twin = {"tags": {"site": "<b>north</b>"}, "properties": {"desired": {"interval": 30}}}
    fields = {
        "id": "Pump-7",
        "enabled": None,
        "reprovision": "reset",
        "hubs": [hub],
        "allocation": "static",
        "initial_twin": json.dumps(twin),
        "device_information": '{"serial": "A-17"}',
    }
    files = {**chosen(PUMP), "secondary_file": ("second.pem", OTHER.pem.encode())}
    seen = await visitor.send(await visitor.get(NEW), NEW, fields, files=files)
    assert seen.title == "Pump-7"
    assert "<b>north" not in seen.html
    made = await dps.get("/enrollments/pump-7")
    assert made["provisioningStatus"] == "disabled"
    assert made["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": False}
    assert (made["iotHubs"], made["allocationPolicy"]) == ([hub], "static")
    assert made["initialTwin"] == twin
    assert made["optionalDeviceInformation"] == {"serial": "A-17"}
    certificates = made["attestation"]["x509"]["clientCertificates"]
    assert certificates["secondary"]["info"]["sha256Thumbprint"] == OTHER.certificate.sha256


async def test_what_the_form_does_not_know_stays(visitor: Visitor, dps: Service) -> None:
    await dps.call("PUT", "/moorage/v1/credentialPolicies/short", {})
    before = await enroll(
        dps,
        "lathe",
        initialTwin={"tags": {"b": 1, "a": [1, 2]}, "properties": {"desired": {}}},
        reprovisionPolicy={"updateHubAssignment": False, "migrateDeviceData": False},
        customAllocationDefinition={"webhookUrl": "https://x.example/?code=1", "apiVersion": "2019-03-31"},
        credentialPolicyName="short",
    )
    keys = (await dps.post("/enrollments/lathe/attestationmechanism"))["symmetricKey"]
    seen = await visitor.send(await visitor.get("/enrollments/lathe"), "/enrollments/lathe", files={})
    assert "has been saved" in seen.text
    after = await dps.get("/enrollments/lathe")
    for document in (before, after):
        for member in ("etag", "lastUpdatedDateTimeUtc", "attestation"):
            document.pop(member)
    assert after == before
    assert (await dps.post("/enrollments/lathe/attestationmechanism"))["symmetricKey"] == keys


async def test_keys_are_shown_when_asked_for(visitor: Visitor, dps: Service) -> None:
    seen = await visitor.send(
        await visitor.get(NEW), NEW, {"mechanism": "symmetricKey", "id": "lathe"}, files={}
    )
    keys = (await dps.post("/enrollments/lathe/attestationmechanism"))["symmetricKey"]
    assert keys["primaryKey"] not in seen.html
    shown = await visitor.get("/enrollments/lathe?keys=shown")
    assert keys["primaryKey"] in shown.html
    assert keys["secondaryKey"] in shown.html


async def test_keys_of_ones_own(visitor: Visitor, dps: Service) -> None:
    key = new_key()
    fields = {"mechanism": "symmetricKey", "id": "lathe", "generate_keys": None, "primary_key": key}
    await visitor.send(await visitor.get(NEW), NEW, fields, files={})
    assert (await dps.post("/enrollments/lathe/attestationmechanism"))["symmetricKey"]["primaryKey"] == key
    fields["id"], fields["primary_key"] = "other", "not base64!"
    refused = await visitor.send(await visitor.get(NEW), NEW, fields, files={})
    assert refused.status == 400
    assert 'id="problem-primary_key"' in refused.html


WRONG: list[tuple[dict[str, str], str, str]] = [
    ({"mechanism": "symmetricKey", "id": ""}, "id", "Give the registration ID"),
    ({"mechanism": "symmetricKey", "id": "a b"}, "id", "must be 1 to 128 letters"),
    ({"mechanism": "symmetricKey", "id": "<script>alert(1)</script>"}, "id", "must be 1 to 128 letters"),
    ({"mechanism": "symmetricKey", "id": "taken"}, "id", "taken is taken"),
    ({"mechanism": "symmetricKey", "id": "x", "device_id": "a b"}, "device_id", "letters"),
    ({"mechanism": "symmetricKey", "id": "x", "initial_twin": '{\n "a": }'}, "initial_twin", "line 2"),
    ({"mechanism": "symmetricKey", "id": "x", "initial_twin": '{"tags": 1}'}, "initial_twin", "object"),
    (
        {"mechanism": "symmetricKey", "id": "x", "device_information": "[]"},
        "device_information",
        "object",
    ),
    ({"mechanism": "symmetricKey", "id": "x", "allocation": "static"}, "hubs", "exactly one"),
    ({"mechanism": "symmetricKey", "id": "x", "hubs": "evil.example"}, "hubs", "not a linked hub"),
    ({"mechanism": "symmetricKey", "id": "x", "allocation": "custom"}, "webhook_url", "required"),
    ({"mechanism": "x509"}, "primary_file", "Choose a certificate file"),
    ({"mechanism": "x509ca", "id": "x"}, "primary_ca", "Choose a CA certificate"),
    ({"mechanism": "tpm", "id": "x"}, "endorsement_key", "Give the endorsement key"),
    ({"mechanism": "tpm", "endorsement_key": "AAAA"}, "endorsement_key", "TPM"),
]


async def test_what_is_wrong_stands_at_its_field(visitor: Visitor, dps: Service) -> None:
    await enroll(dps, "taken")
    for fields, problem, said in WRONG:
        seen = await visitor.send(await visitor.get(NEW), NEW, fields, files={})
        assert seen.status == 400, fields
        assert f'id="problem-{problem}"' in seen.html, seen.text
        assert said in seen.text
        for field, value in fields.items():
            assert value in dict(seen.form(NEW).fields).get(field, "")  # nothing that was written is lost
        assert "<script>alert" not in seen.html
    assert [each["registrationId"] for each in await dps.post("/enrollments/query")] == ["taken"]


AUTHORITY = root("plant-ca", **DATES)
LEAF = AUTHORITY.issue("pump-7", number=3, **DATES)
BUNDLE = pkcs7.serialize_certificates([PUMP.certificate.parsed, AUTHORITY.certificate.parsed], Encoding.DER)
PFX = pkcs12.serialize_key_and_certificates(
    b"pump-7", PUMP.key, PUMP.certificate.parsed, None, BestAvailableEncryption(b"secret")
)


REQUEST = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(name("pump-7"))
    .sign(key(), hashes.SHA256())
    .public_bytes(Encoding.PEM)
)
KEYS = {
    "alone": private_key(PUMP),
    "behind its certificate": PUMP.pem.encode() + private_key(PUMP),
    "locked": private_key(PUMP, password=b"secret"),
    "DER": private_key(PUMP, Encoding.DER),
    "DER, locked": private_key(PUMP, Encoding.DER, password=b"secret"),
    "base64 of DER": base64.b64encode(private_key(PUMP, Encoding.DER)),
    "broken": b"-----BEGIN RSA PRIVATE KEY-----\nbroken\n",
    "PFX": PFX,
}


@pytest.mark.parametrize("form", KEYS)
async def test_what_holds_a_private_key_is_known(form: str) -> None:
    assert holds_private_key(KEYS[form])


async def test_a_private_key_is_refused_and_not_sent_back(visitor: Visitor, dps: Service) -> None:
    for content in KEYS.values():
        files = {"primary_file": ("device.pem", content), "secondary_file": ("b.pem", OTHER.pem.encode())}
        seen = await visitor.send(await visitor.get(NEW), NEW, {"id": "pump-7"}, files=files)
        assert seen.status == 400
        assert "There is a private key in this file" in seen.text
        assert "PRIVATE KEY--" not in seen.html
        assert "primary_certificate" not in dict(seen.form(NEW).fields)
        assert "data-forget-file" in (await preview_of(visitor, content)).html
        encoded = base64.b64encode(content).decode()
        with pytest.raises(Refused, match="private key"):
            await dps.post("/moorage/v1/certificates/preview", {"certificate": encoded})
    assert await dps.post("/enrollments/query") == []


NO_CERTIFICATES = [
    (b"", "This file is empty"),
    (b" \n", "This file is empty"),
    (b"This is a letter.", "no certificate that can be enrolled"),
    (b"\x00\xff" * 500, "no certificate that can be enrolled"),
    (b"x" * 70_000, "larger than 64 KiB"),
    (BUNDLE, "PKCS#7 file, with 2 certificates"),
    (REQUEST, "it is a certificate request, not a certificate"),
]


async def test_a_file_that_is_no_certificate(visitor: Visitor, dps: Service) -> None:
    for content, said in NO_CERTIFICATES:
        files = {"primary_file": ("a.pem", content)}
        seen = await visitor.send(await visitor.get(NEW), NEW, {}, files=files)
        assert seen.status == 400
        assert 'id="problem-primary_file"' in seen.html
        assert said in seen.text
        assert said in (await preview_of(visitor, content)).text
    assert await dps.post("/enrollments/query") == []


async def test_a_file_of_many_megabytes_is_answered(visitor: Visitor) -> None:
    files = {"primary_file": ("film.pem", b"x" * (50 << 20))}
    seen = await visitor.send(await visitor.get(NEW), NEW, {}, files=files)
    assert seen.status == 413
    assert "1,024 KiB" in seen.text


async def preview_of(
    visitor: Visitor, content: bytes, *, use: str = "client", registration_id: str = ""
) -> PageSeen:
    csrf = dict((await visitor.get(NEW)).form(NEW).fields)["csrf"]
    return await visitor.post(
        f"/certificates/preview?use={use}",
        {"csrf": csrf, "id": registration_id},
        files={"file": ("a.pem", content)},
    )


async def test_a_certificate_is_shown_before_it_is_saved(visitor: Visitor) -> None:
    seen = await preview_of(visitor, PUMP.pem.encode(), registration_id="PUMP-7")
    for said in (
        PUMP.certificate.sha256,
        PUMP.certificate.sha1,
        "CN=pump-7",
        "2100-01-01",
        "EC secp256r1",
        "(self-signed)",
    ):
        assert said in seen.text
    assert "notice warning" not in seen.html


WARNINGS = [
    (
        certify("pump-7", None, start=DATES["start"], end=datetime(2021, 1, 1, tzinfo=UTC)),
        "expired at 2021-01-01",
    ),
    (
        certify("pump-7", None, start=datetime(2099, 1, 1, tzinfo=UTC), end=DATES["end"]),
        "not valid before 2099-01-01",
    ),
    (OTHER, "Its common name is pump-8, the registration ID pump-7"),
    (certify("pump 7", None, **DATES), "cannot be a registration ID"),
    (certify("<b>pump</b>", None, **DATES), "cannot be a registration ID"),
    (certify("pump-7", None, algorithm="rsa1024", **DATES), "too short"),
    (certify(x509.Name([]), None, **DATES), "It has no common name"),
]


async def test_a_warning_where_registering_will_fail(visitor: Visitor) -> None:
    for issued, said in WARNINGS:
        seen = await preview_of(visitor, issued.pem.encode(), registration_id="pump-7")
        assert said in seen.text
        assert "notice warning" in seen.html
        assert "<b>pump" not in seen.html


async def test_two_certificates_in_one_file(visitor: Visitor) -> None:
    seen = await preview_of(visitor, (LEAF.pem + AUTHORITY.pem).encode(), registration_id="pump-7")
    assert "There are 2 certificates in this file. The first one is enrolled" in seen.text
    assert "notice warning" not in seen.html
    turned = await preview_of(visitor, (AUTHORITY.pem + LEAF.pem).encode())
    assert "It has issued CN=pump-7, which comes after it" in turned.text


async def test_an_authority_that_is_none(visitor: Visitor) -> None:
    assert "It is no CA certificate" in (await preview_of(visitor, PUMP.pem.encode(), use="signing")).text
    assert "notice warning" not in (await preview_of(visitor, AUTHORITY.pem.encode(), use="signing")).html


async def test_a_certificate_that_was_chosen_is_kept_while_the_form_is_mended(visitor: Visitor) -> None:
    refused = await visitor.send(await visitor.get(NEW), NEW, {"initial_twin": "{"}, files=chosen(PUMP))
    assert refused.status == 400
    assert PUMP.certificate.sha256 in refused.text
    seen = await visitor.send(refused, NEW, {"initial_twin": "{}"}, files={})
    assert seen.title == "pump-7"


async def test_a_certificate_is_replaced_and_deleted(visitor: Visitor, dps: Service) -> None:
    files = {**chosen(PUMP), "secondary_file": ("second.pem", OTHER.pem.encode())}
    made = await visitor.send(await visitor.get(NEW), NEW, {"id": "pump-7"}, files=files)
    third = certify("pump-7", None, number=4, **DATES)
    seen = await visitor.send(made, "/enrollments/pump-7", {"secondary_remove": "on"}, files=chosen(third))
    assert "has been saved" in seen.text
    held = (await dps.get("/enrollments/pump-7"))["attestation"]["x509"]["clientCertificates"]
    assert held["primary"]["info"]["sha256Thumbprint"] == third.certificate.sha256
    assert held["secondary"] is None


async def test_who_is_overtaken_loses_nothing(visitor: Visitor, dps: Service) -> None:
    await enroll(dps, "lathe", deviceId="before")
    mine = await visitor.get("/enrollments/lathe")
    current = await dps.get("/enrollments/lathe")
    theirs = {**current, "deviceId": "theirs", "initialTwin": {"tags": {"by": "<i>them</i>"}}}
    await dps.put("/enrollments/lathe", theirs, if_match=current["etag"])

    told = await visitor.send(mine, "/enrollments/lathe", {"device_id": "mine"}, files={})
    assert told.status == 412
    assert "Somebody else has saved this enrollment meanwhile" in told.text
    for each in ("deviceId", "theirs", "mine", "<i>them</i>"):
        assert each in told.text
    assert "<i>them" not in told.html
    assert (await dps.get("/enrollments/lathe"))["deviceId"] == "theirs"
    assert dict(told.form("/enrollments/lathe").fields)["device_id"] == "mine"

    saved = await visitor.send(told, "/enrollments/lathe", files={})
    assert "has been saved" in saved.text
    assert (await dps.get("/enrollments/lathe"))["deviceId"] == "mine"


async def test_one_that_was_deleted_meanwhile_can_be_made_anew(visitor: Visitor, dps: Service) -> None:
    await enroll(dps, "lathe")
    page = await visitor.get("/enrollments/lathe")
    await dps.delete("/enrollments/lathe")
    told = await visitor.send(page, "/enrollments/lathe", {"device_id": "mine"}, files={})
    assert told.status == 404
    assert "was deleted meanwhile" in told.text
    seen = await visitor.send(told, NEW, files={})
    assert seen.title == "lathe"
    assert (await dps.get("/enrollments/lathe"))["deviceId"] == "mine"


@pytest.mark.parametrize("name", ["new", "delete", "rows", "NEW", "a:b", "-._:-", "x" * 128])
async def test_ids_with_odd_signs(visitor: Visitor, dps: Service, name: str) -> None:
    await dps.put(f"/enrollments/{name}", {"registrationId": name, "attestation": {"type": "symmetricKey"}})
    listed = await visitor.get(LIST)
    (link,) = [part.split('"')[0] for part in listed.html.split('<td class="id"><a href="')[1:]]
    seen = await visitor.get(link)
    assert seen.title == name
    saved = await visitor.send(seen, link, {"device_id": "d"}, files={})
    assert "has been saved" in saved.text
    asked = await visitor.send(saved, "/enrollments/delete")
    assert "deleted: 1" in (await visitor.send(asked, "/enrollments/delete")).text


async def test_lists_page_and_search_on_the_server(visitor: Visitor, dps: Service) -> None:
    rows = [
        {"registrationId": f"{kind}-{number:03}", "attestation": {"type": "symmetricKey"}}
        for kind in ("Lathe", "pump")
        for number in range(60)
    ]
    await dps.post("/moorage/v1/enrollments", {"enrollments": [*rows, {**rows[0], "registrationId": "pump"}]})
    first = await visitor.get(LIST)
    assert first.text.count("Lathe-") == 50
    (following,) = [part.split('"')[0] for part in first.html.split('rel="next" href="')[1:]]
    second = await visitor.get(following)
    assert "Lathe-059" in second.text
    assert "pump-000" in second.text
    found = await visitor.get(f"{LIST}?search=LATHE-05")
    assert found.text.count("Lathe-") == 10
    assert "pump" not in found.text
    exact = await visitor.get(f"{LIST}?search=pump")
    assert exact.html.index(">pump<") < exact.html.index(">pump-000<")
    assert "Nothing begins with" in (await visitor.get(f"{LIST}?search=<b>")).text


async def test_the_list_is_told_again_where_it_has_changed(visitor: Visitor, dps: Service) -> None:
    page = await visitor.get(LIST)
    assert "moorage dps enrollment create" in page.text
    (live,) = [part.split('"')[0].replace("&amp;", "&") for part in page.html.split('data-live="')[1:]]
    assert (await visitor.fragment(live)).status == 204
    await enroll(dps, "lathe")
    changed = await visitor.fragment(live)
    assert (changed.status, "lathe" in changed.text) == (200, True)
    assert (await visitor.fragment(changed.headers["moorage-next"])).status == 204


async def test_in_korean(visitor: Visitor) -> None:
    page = await visitor.get(NEW)
    seen = await visitor.send(page, "/preferences", {"language": "ko", "next": NEW})
    assert seen.title == "개별 등록 추가"
    assert "기본 인증서 파일(.pem 또는 .cer)" in seen.text


async def test_nothing_there(visitor: Visitor, server: Server) -> None:
    seen = await visitor.get("/enrollments/nobody")
    assert seen.status == 404
    assert seen.title == "This could not be done"


async def test_by_tpm(visitor: Visitor, dps: Service) -> None:
    tpm = SoftwareTpm()
    key = tpm.keys["endorsementKey"]
    seen = await visitor.send(
        await visitor.get(NEW), NEW, {"mechanism": "tpm", "endorsement_key": key}, files={}
    )
    assert seen.title == tpm.registration_id  # what clients call themselves
    attestation = (await dps.get(f"/enrollments/{seen.title}"))["attestation"]
    assert attestation["tpm"] == {"endorsementKey": key, "storageRootKey": None}
    saved = await visitor.send(seen, seen.path, {"device_id": "press"}, files={})
    assert "has been saved" in saved.text
    assert (await dps.get(f"/enrollments/{seen.title}"))["attestation"] == attestation


async def test_by_reference_to_an_authority(visitor: Visitor, dps: Service) -> None:
    await dps.put("/moorage/v1/caCertificates/Plant", {"certificate": AUTHORITY.pem, "isVerified": True})
    fields = {"mechanism": "x509ca", "id": "lathe", "primary_ca": "Plant"}
    await visitor.send(await visitor.get(NEW), NEW, fields, files={})
    x509 = (await dps.get("/enrollments/lathe"))["attestation"]["x509"]
    assert x509["caReferences"] == {"primary": "Plant", "secondary": None}


async def test_names_stay_in_the_spelling_that_they_are_written_in(visitor: Visitor, dps: Service) -> None:
    await dps.put("/moorage/v1/caCertificates/Plant", {"certificate": AUTHORITY.pem, "isVerified": True})
    attestation = {"type": "x509", "x509": {"caReferences": {"primary": "pLANT"}}}
    before = await enroll(dps, "lathe", attestation=attestation)
    await visitor.send(await visitor.get("/enrollments/lathe"), "/enrollments/lathe", files={})
    assert (await dps.get("/enrollments/lathe"))["attestation"] == before["attestation"]


async def test_custom_allocation(visitor: Visitor, dps: Service) -> None:
    fields = {
        "mechanism": "symmetricKey",
        "id": "lathe",
        "allocation": "custom",
        "webhook_url": "https://alloc.example/api/pick?code=secret",
    }
    seen = await visitor.send(await visitor.get(NEW), NEW, fields, files={})
    assert "code=secret" not in seen.html
    assert dict(seen.form("/enrollments/lathe").fields)["webhook_url"].endswith("?****")
    await visitor.send(seen, "/enrollments/lathe", {"allocation": "hashed"}, files={})
    made = await dps.get("/enrollments/lathe")
    assert made["allocationPolicy"] == "hashed"
    assert made["customAllocationDefinition"]["webhookUrl"] == "https://alloc.example/api/pick?****"
