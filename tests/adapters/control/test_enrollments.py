"""Individual enrollments as a whole, out and in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.asgi import Caller
from tests.support.site import Site, certificate

KEYS = {"primaryKey": "AAAA" * 16, "secondaryKey": "BBBB" * 16}


def by_key(name: str, **members: Any) -> dict[str, Any]:
    attestation = {"type": "symmetricKey", "symmetricKey": KEYS}
    return {"registrationId": name, "attestation": attestation, **members}


async def test_what_goes_out_comes_in_again_as_it_was(site: Site, dps_operator: Caller) -> None:
    leaf = certificate("pump-7")
    pair = {"primary": {"certificate": leaf.to_pem()}, "secondary": {"certificate": leaf.to_pem()}}
    by_certificate = {"type": "x509", "x509": {"clientCertificates": pair}}
    rows = [
        by_key(
            "Alpha", deviceId="line4", initialTwin={"tags": {"site": "north"}, "properties": {"desired": {}}}
        ),
        {"registrationId": "pump-7", "attestation": by_certificate, "provisioningStatus": "disabled"},
    ]
    taken = await dps_operator.call("POST", "/moorage/v1/enrollments", {"enrollments": rows})
    assert (taken.status, taken.json()) == (200, {"errors": []})
    first = await dps_operator.call("GET", "/moorage/v1/enrollments")
    assert first.json()["next"] is None
    alpha, pump = first.json()["enrollments"]
    assert alpha["attestation"] == {"type": "symmetricKey", "symmetricKey": KEYS}
    assert (alpha["deviceId"], alpha["initialTwin"]["tags"]) == ("line4", {"site": "north"})
    assert pump["provisioningStatus"] == "disabled"
    assert "etag" not in pump

    for name in ("alpha", "pump-7"):
        await site.provisioner.enrollments.delete(name)
    body = {"enrollments": first.json()["enrollments"]}
    assert (await dps_operator.call("POST", "/moorage/v1/enrollments", body)).json() == {"errors": []}
    again = await dps_operator.call("GET", "/moorage/v1/enrollments")
    assert again.json() == first.json()


async def test_page_by_page(dps_operator: Caller) -> None:
    rows = [by_key(f"d{number}") for number in range(5)]
    await dps_operator.call("POST", "/moorage/v1/enrollments", {"enrollments": rows})
    seen, after = [], ""
    while after is not None:
        query = f"top=2&after={after}" if after else "top=2"
        page = (await dps_operator.call("GET", "/moorage/v1/enrollments", query=query)).json()
        seen += [row["registrationId"] for row in page["enrollments"]]
        after = page["next"]
    assert seen == [f"d{number}" for number in range(5)]


async def test_one_bad_row_does_not_keep_out_the_others(site: Site, dps_operator: Caller) -> None:
    rows = [by_key("good"), by_key("bad", iotHubs=["nowhere"]), by_key("a b"), by_key("GOOD")]
    answer = await dps_operator.call("POST", "/moorage/v1/enrollments", {"enrollments": rows})
    told = {error["registrationId"]: error["message"] for error in answer.json()["errors"]}
    assert set(told) == {"bad", "a b", "GOOD"}
    assert "nowhere" in told["bad"]
    assert (await site.provisioner.enrollments.page(limit=10)).records[0].registration_id == "good"


@pytest.mark.parametrize(
    "body", [{"enrollments": {}}, {"enrollments": [1]}, {}, {"enrollments": [{}] * 1001}]
)
async def test_bodies_that_are_no_rows(dps_operator: Caller, body: dict[str, Any]) -> None:
    assert (await dps_operator.call("POST", "/moorage/v1/enrollments", body)).status == 400


@pytest.mark.parametrize("top", ["0", "1001", "x"])
async def test_pages_that_cannot_be(dps_operator: Caller, top: str) -> None:
    assert (await dps_operator.call("GET", "/moorage/v1/enrollments", query=f"top={top}")).status == 400


async def test_a_hub_s_operator_sees_none(operator: Caller) -> None:
    assert (await operator.call("GET", "/moorage/v1/enrollments")).status == 401
