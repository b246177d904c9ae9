"""`caCertificates`: the resource manager's nouns and shapes, on the control API."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from moorage.credentials import policy
from moorage.credentials.sas import make_token
from tests.support.asgi import Answer, Caller
from tests.support.authorities import root
from tests.support.site import DPS_SCOPE, Site

PATH = "/moorage/v1/caCertificates"
ROOT = root("plant root")


def upload(**properties: Any) -> dict[str, Any]:
    return {"properties": {"certificate": ROOT.pem, **properties}}


def refused(answer: Answer, status: int, code: int) -> str:
    assert answer.status == status, answer.body
    body = answer.json()
    assert body["errorCode"] == code
    message: str = body["message"]
    return message


async def test_from_upload_to_verified(site: Site, dps_operator: Caller) -> None:
    created = await dps_operator.call("PUT", f"{PATH}/plant", upload())
    assert created.status == 201
    shown = created.json()
    assert created.headers["etag"] == f'"{shown["etag"]}"'
    assert (shown["name"], shown["properties"]["subject"]) == ("plant", "CN=plant root")
    assert shown["properties"]["isVerified"] is False
    assert shown["properties"]["expiry"] == "Fri, 01 Jan 2027 00:00:00 GMT"
    assert base64.b64decode(shown["properties"]["certificate"]) == ROOT.der
    assert (await dps_operator.call("GET", f"{PATH}/PLANT")).json() == shown

    coded = await dps_operator.call(
        "POST", f"{PATH}/plant/generateVerificationCode", headers={"if-match": shown["etag"]}
    )
    assert coded.status == 200
    code = coded.json()["properties"]["verificationCode"]
    # The clock of the site is past the dates of an ordinary test certificate.
    proof = ROOT.issue(code, end=ROOT.certificate.parsed.not_valid_after_utc.replace(year=2030))

    verified = await dps_operator.call(
        "POST", f"{PATH}/plant/verify", {"certificate": proof.pem}, {"if-match": coded.headers["etag"]}
    )
    assert verified.status == 200
    assert verified.json()["properties"]["isVerified"] is True
    assert "verificationCode" not in verified.json()["properties"]

    assert (await dps_operator.call("GET", PATH)).json() == [verified.json()]
    gone = await dps_operator.call("DELETE", f"{PATH}/plant", headers={"if-match": verified.headers["etag"]})
    assert (gone.status, gone.body) == (204, b"")
    refused(await dps_operator.call("GET", f"{PATH}/plant"), 404, 404000)


async def test_one_may_be_declared_verified_and_written_without_the_wrapping(dps_operator: Caller) -> None:
    answer = await dps_operator.call("PUT", f"{PATH}/a", upload(isVerified=True))
    assert answer.json()["properties"]["isVerified"] is True
    flat = {"certificate": base64.b64encode(ROOT.der).decode()}
    answer = await dps_operator.call("PUT", f"{PATH}/a", flat, {"if-match": "*"})
    assert answer.status == 200
    assert answer.json()["properties"]["isVerified"] is False


async def test_writes_are_conditional(dps_operator: Caller) -> None:
    await dps_operator.call("PUT", f"{PATH}/plant", upload())
    refused(await dps_operator.call("PUT", f"{PATH}/plant", upload()), 409, 409001)
    stale = {"if-match": '"stale"'}
    for method, path, body in (
        ("PUT", "", upload()),
        ("DELETE", "", None),
        ("POST", "/generateVerificationCode", None),
        ("POST", "/verify", {"certificate": ROOT.issue("x").pem}),
    ):
        refused(await dps_operator.call(method, f"{PATH}/plant{path}", body, stale), 412, 412001)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "certificate: is required"),
        (upload(certificate="nonsense!"), "neither PEM nor DER"),
        (upload(certificate=7), "certificate: is required"),
        (upload(isVerified="yes"), "isVerified"),
        ({"properties": 7}, "properties"),
    ],
)
async def test_what_is_no_upload(dps_operator: Caller, body: dict[str, Any], why: str) -> None:
    assert why in refused(await dps_operator.call("PUT", f"{PATH}/plant", body), 400, 400000)


async def test_reading_takes_one_right_and_writing_two(site: Site, dps_operator: Caller) -> None:
    (owner,) = policy.provisioning_policies()
    for rights, reads, writes in (
        ({policy.ENROLLMENT_READ}, 200, 401),
        ({policy.ENROLLMENT_WRITE}, 401, 401),
        ({policy.ENROLLMENT_READ, policy.ENROLLMENT_WRITE, policy.SERVICE_CONFIG}, 200, 201),
    ):
        limited = policy.SharedAccessPolicy(
            name=f"p{len(rights)}{reads}",
            primary_key=owner.primary_key,
            secondary_key=owner.secondary_key,
            rights=frozenset(rights),
        )
        await site.store.records(policy.KIND, DPS_SCOPE).put(limited)
        token = policy_token(site, limited)
        assert (await dps_operator.call("GET", PATH, token=token)).status == reads
        put = await dps_operator.call("PUT", f"{PATH}/plant", upload(), token=token)
        assert put.status == writes


def policy_token(site: Site, limited: policy.SharedAccessPolicy) -> str:
    return make_token("localhost", limited.primary_key, site.seconds + 600, limited.name)


async def test_a_hub_s_policy_has_no_say(operator: Caller) -> None:
    assert (await operator.call("GET", PATH)).status == 401


# --- Of a hub -----------------------------------------------------------------------------------------------

OF_HUB = "/moorage/v1/hubs/hub/certificates"


async def test_a_hub_has_certificates_of_its_own(site: Site, operator: Caller, dps_operator: Caller) -> None:
    await dps_operator.call("PUT", f"{PATH}/of-dps", upload())
    created = await operator.call("PUT", f"{OF_HUB}/plant", upload())
    assert (created.status, created.json()["properties"]["isVerified"]) == (201, False)
    assert [each["name"] for each in (await operator.call("GET", OF_HUB)).json()] == ["plant"]
    assert [each["name"] for each in (await dps_operator.call("GET", PATH)).json()] == ["of-dps"]
    coded = await operator.call("POST", f"{OF_HUB}/plant/generateVerificationCode", headers={"if-match": "*"})
    code = coded.json()["properties"]["verificationCode"]
    proof = ROOT.issue(code, end=ROOT.certificate.parsed.not_valid_after_utc.replace(year=2030))
    verified = await operator.call("POST", f"{OF_HUB}/PLANT/verify", {"certificate": proof.pem})
    assert verified.json()["properties"]["isVerified"] is True
    refused(await operator.call("PUT", f"{OF_HUB}/plant", upload()), 409, 409001)
    refused(await operator.call("DELETE", f"{OF_HUB}/plant", headers={"if-match": "old"}), 412, 412001)
    assert (await operator.call("DELETE", f"{OF_HUB}/plant")).status == 204
    refused(await operator.call("GET", f"{OF_HUB}/plant"), 404, 404000)
    refused(await operator.call("GET", "/moorage/v1/hubs/none/certificates"), 404, 404000)


@pytest.mark.parametrize(
    ("policy_name", "reads", "writes"),
    [("iothubowner", True, True), ("registryRead", True, False), ("registryReadWrite", True, False)],
)
async def test_whose_policy_lets_in_at_a_hub(
    site: Site, operator: Caller, policy_name: str, reads: bool, writes: bool
) -> None:
    token = site.token(policy_name)
    assert (await operator.call("GET", OF_HUB, token=token)).status == (200 if reads else 401)
    answer = await operator.call("PUT", f"{OF_HUB}/plant", upload(), token=token)
    assert answer.status == (201 if writes else 401)


async def test_the_provisioning_service_s_policy_does_not_open_a_hub(dps_operator: Caller) -> None:
    assert (await dps_operator.call("GET", OF_HUB)).status == 401
