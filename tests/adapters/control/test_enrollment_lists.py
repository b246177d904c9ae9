"""`enrollments/list`, `enrollmentGroups/list` and `certificates/preview` on the control API."""

from __future__ import annotations

import base64

from tests.support.asgi import Caller
from tests.support.authorities import certify

LIST, GROUPS = "/moorage/v1/enrollments/list", "/moorage/v1/enrollmentGroups/list"
PREVIEW = "/moorage/v1/certificates/preview"


async def ids(caller: Caller, query: str) -> tuple[list[str], str | None]:
    answer = await caller.call("GET", LIST, query=query)
    assert answer.status == 200
    page = answer.json()
    return [each["registrationId"] for each in page["enrollments"]], page["next"]


async def test_by_the_beginning_of_their_ids(dps_operator: Caller) -> None:
    names = ["Pump", "pump-1", "pump-2", "pump.3", "pump_4", "pumq", "Lathe"]
    rows = [{"registrationId": each, "attestation": {"type": "symmetricKey"}} for each in names]
    await dps_operator.call("POST", "/moorage/v1/enrollments", {"enrollments": rows})
    assert await ids(dps_operator, "prefix=PUMP") == (["Pump", "pump-1", "pump-2", "pump.3", "pump_4"], None)
    assert await ids(dps_operator, "prefix=pump-") == (["pump-1", "pump-2"], None)
    assert await ids(dps_operator, "prefix=nobody") == ([], None)
    first, following = await ids(dps_operator, "prefix=pump&top=3")
    assert first == ["Pump", "pump-1", "pump-2"]
    assert await ids(dps_operator, f"prefix=pump&top=3&after={following}") == (["pump.3", "pump_4"], None)
    alone, following = await ids(dps_operator, "prefix=pump&top=1")
    assert (alone, following) == (["Pump"], "pump")
    assert (await ids(dps_operator, "top=1000"))[0] == sorted(names, key=str.lower)


async def test_without_secrets(dps_operator: Caller) -> None:
    key = {"type": "symmetricKey"}
    await dps_operator.call(
        "POST",
        "/moorage/v1/enrollments",
        {"enrollments": [{"registrationId": "lathe", "attestation": key}]},
    )
    (shown,) = (await dps_operator.call("GET", LIST)).json()["enrollments"]
    assert shown["attestation"]["symmetricKey"] == {"primaryKey": None, "secondaryKey": None}
    assert "registrationState" not in shown
    assert (await dps_operator.call("GET", GROUPS)).json() == {"enrollmentGroups": [], "next": None}


async def test_who_may(operator: Caller) -> None:
    for method, path in (("GET", LIST), ("GET", GROUPS), ("POST", PREVIEW)):
        assert (await operator.call(method, path, {} if method == "POST" else None)).status == 401


async def test_limits(dps_operator: Caller) -> None:
    for top in ("0", "1001", "many"):
        assert (await dps_operator.call("GET", LIST, query=f"top={top}")).status == 400


async def test_a_preview(dps_operator: Caller) -> None:
    issued = certify("pump-7", None)
    for text in (issued.pem, base64.b64encode(issued.der).decode()):
        answer = await dps_operator.call(
            "POST", PREVIEW, {"certificate": text, "use": "CLIENT", "registrationId": "pump-8"}
        )
        assert answer.status == 200
        found = answer.json()
        assert found["commonName"] == "pump-7"
        assert found["certificates"][0]["sha256Thumbprint"] == issued.certificate.sha256
        assert "otherCommonName" in [each["code"] for each in found["obstacles"]]
    for body in ({}, {"certificate": ""}, {"certificate": "none"}, {"certificate": text, "use": "lamp"}):
        assert (await dps_operator.call("POST", PREVIEW, body)).status == 400
