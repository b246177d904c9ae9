"""`credentialPolicies` on the control API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.asgi import Caller

PATH = "/moorage/v1/credentialPolicies"


async def test_from_its_making_to_its_end(dps_operator: Caller) -> None:
    made = await dps_operator.call("PUT", f"{PATH}/Short", {"validityPeriodInDays": 7})
    assert made.status == 201
    shown = made.json()
    assert made.headers["etag"] == f'"{shown["etag"]}"'
    assert (shown["name"], shown["validityPeriodInDays"], shown["extendedKeyUsages"]) == (
        "Short",
        7,
        ["clientAuth"],
    )
    assert (await dps_operator.call("GET", f"{PATH}/SHORT")).json() == shown
    assert (await dps_operator.call("GET", PATH)).json() == [shown]

    changed = await dps_operator.call("PUT", f"{PATH}/short", shown, {"if-match": shown["etag"]})
    assert changed.status == 200
    assert changed.json()["createdDateTimeUtc"] == shown["createdDateTimeUtc"]
    stale = await dps_operator.call("DELETE", f"{PATH}/short", headers={"if-match": shown["etag"]})
    assert stale.status == 412
    gone = await dps_operator.call("DELETE", f"{PATH}/short", headers={"if-match": "*"})
    assert (gone.status, gone.body) == (204, b"")
    assert (await dps_operator.call("GET", f"{PATH}/short")).status == 404


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [("short", {}, 409), ("a%20b", {}, 400), ("other", {"validityPeriodInDays": 91}, 400)],
)
async def test_what_is_refused(dps_operator: Caller, name: str, body: dict[str, Any], status: int) -> None:
    await dps_operator.call("PUT", f"{PATH}/short", {})
    assert (await dps_operator.call("PUT", f"{PATH}/{name}", body)).status == status


async def test_the_hub_s_owner_may_not(operator: Caller) -> None:
    assert (await operator.call("PUT", f"{PATH}/short", {})).status == 401
