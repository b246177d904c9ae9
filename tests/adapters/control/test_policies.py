"""Shared access policies of the provisioning service and of a hub, as an operator changes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from moorage.adapters.http import HttpAdapter
from moorage.credentials.sas import make_token, new_key
from moorage.wire.amqp import LinkDetached, conditions
from tests.support.amqp_peer import AmqpPeer, Refused
from tests.support.asgi import Answer, Caller
from tests.support.site import HOST, Site, failed_checks

DPS, HUB = "/moorage/v1/service/policies", "/moorage/v1/hubs/hub/policies"
READER = "moorage/ConsumerGroups/$Default/Partitions/0"


def refused(answer: Answer, status: int, code: int) -> str:
    assert answer.status == status, answer.body
    assert answer.json()["errorCode"] == code
    message: str = answer.json()["message"]
    return message


def token(site: Site, policy: dict[str, Any], *, key: str = "primaryKey") -> str:
    return make_token(HOST, policy[key], site.seconds + 60, policy["keyName"])


async def may_read(app: HttpAdapter, path: str, shown: str) -> bool:
    answer = await Caller(app, token=shown).call("GET", path)
    assert answer.status in (200, 401)
    return answer.status == 200


async def test_a_policy_from_its_making_to_its_end(site: Site, dps_operator: Caller) -> None:
    answer = await dps_operator.call("PUT", f"{DPS}/back-end", {"rights": ["EnrollmentRead"]})
    assert answer.status == 201
    made = answer.json()
    assert (made["keyName"], made["rights"]) == ("back-end", ["EnrollmentRead"])
    assert answer.headers["etag"] == f'"{made["etag"]}"'
    assert made["primaryKey"] != made["secondaryKey"]

    assert (await dps_operator.call("GET", f"{DPS}/back-end")).json() == made
    listed = (await dps_operator.call("GET", DPS)).json()
    assert [each["keyName"] for each in listed] == ["back-end", "provisioningserviceowner"]

    answer = await dps_operator.call(
        "PUT", f"{DPS}/back-end", {"rights": "EnrollmentRead, enrollmentwrite"}, {"if-match": made["etag"]}
    )
    changed = answer.json()
    assert (answer.status, changed["rights"]) == (200, ["EnrollmentRead", "EnrollmentWrite"])
    assert changed == made | {"rights": changed["rights"], "etag": changed["etag"]}
    assert changed["etag"] != made["etag"]

    assert (await dps_operator.call("DELETE", f"{DPS}/back-end")).status == 204
    refused(await dps_operator.call("GET", f"{DPS}/back-end"), 404, 404000)
    refused(await dps_operator.call("DELETE", f"{DPS}/back-end"), 404, 404000)


async def test_a_policy_under_keys_that_are_given(operator: Caller) -> None:
    keys = {"primaryKey": new_key(32), "secondaryKey": new_key(64)}
    made = (await operator.call("PUT", f"{HUB}/reader", {"rights": ["ServiceConnect"], **keys})).json()
    assert {name: made[name] for name in keys} == keys
    other = {"secondaryKey": new_key(32)}
    changed = (await operator.call("PUT", f"{HUB}/reader", other, {"if-match": "*"})).json()
    assert changed == made | other | {"etag": changed["etag"]}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (f"{HUB}/x", {}, "rights"),
        (f"{HUB}/x", {"rights": []}, "rights"),
        (f"{HUB}/x", {"rights": ["EnrollmentRead"]}, "rights"),
        (f"{HUB}/x", {"rights": ["ServiceConnect", "Fly"]}, "rights"),
        (f"{HUB}/x", {"rights": [7]}, "rights"),
        (f"{HUB}/x", {"rights": {"ServiceConnect": True}}, "rights"),
        (f"{HUB}/x", {"rights": ["ServiceConnect"], "primaryKey": "not base64!"}, "primaryKey"),
        (f"{HUB}/x", {"rights": ["ServiceConnect"], "secondaryKey": "c2hvcnQ="}, "secondaryKey"),
        (f"{HUB}/x", {"rights": ["ServiceConnect"], "primaryKey": 7}, "primaryKey"),
        (f"{HUB}/x", {"rights": ["ServiceConnect"], "keyName": "y"}, "keyName"),
        (f"{HUB}/x", {"rights": ["ServiceConnect"], "permissions": []}, "permissions"),
        (f"{HUB}/x%20y", {"rights": ["ServiceConnect"]}, "keyName"),
        (f"{HUB}/{'x' * 65}", {"rights": ["ServiceConnect"]}, "keyName"),
        (f"{HUB}/x", ["ServiceConnect"], "body"),
    ],
)
async def test_what_is_no_policy(site: Site, operator: Caller, path: str, body: object, field: str) -> None:
    message = refused(await operator.call("PUT", path, body), 400, 400000)
    assert message.startswith(f"{field}: ")
    assert len((await operator.call("GET", HUB)).json()) == len(site.policies)


async def test_rights_of_the_other_kind_of_service(dps_operator: Caller) -> None:
    message = refused(await dps_operator.call("PUT", f"{DPS}/x", {"rights": ["ServiceConnect"]}), 400, 400000)
    assert "'ServiceConnect' is not one of DeviceConnect, EnrollmentRead" in message


async def test_etags(operator: Caller) -> None:
    path, body = f"{HUB}/reader", {"rights": ["ServiceConnect"]}
    refused(await operator.call("PUT", path, body, {"if-match": "*"}), 404, 404000)
    etag = (await operator.call("PUT", path, body)).headers["etag"]
    refused(await operator.call("PUT", path, body), 409, 409001)
    stale = {"if-match": '"stale"'}
    refused(await operator.call("PUT", path, body, stale), 412, 412001)
    refused(await operator.call("POST", f"{path}/renewKey", {"key": "primary"}, stale), 412, 412001)
    refused(await operator.call("DELETE", path, headers=stale), 412, 412001)
    renewed = await operator.call("POST", f"{path}/renewKey", {"key": "primary"}, {"if-match": etag})
    assert renewed.status == 200
    refused(await operator.call("DELETE", path, headers={"if-match": etag}), 412, 412001)
    assert (await operator.call("DELETE", path, headers={"if-match": renewed.headers["etag"]})).status == 204


async def test_a_new_key_ends_the_old_one_at_once(site: Site, app: HttpAdapter, operator: Caller) -> None:
    owner_rights = {"rights": ["RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"]}
    made = (await operator.call("PUT", f"{HUB}/second", owner_rights)).json()
    by_primary, by_secondary = token(site, made), token(site, made, key="secondaryKey")
    assert await may_read(app, HUB, by_primary)
    assert await may_read(app, HUB, by_secondary)

    swapped = (await operator.call("POST", f"{HUB}/second/renewKey", {"key": "swap"})).json()
    assert (swapped["primaryKey"], swapped["secondaryKey"]) == (made["secondaryKey"], made["primaryKey"])
    assert await may_read(app, HUB, by_primary)

    renewed = (await operator.call("POST", f"{HUB}/second/renewKey", {"key": "secondary"})).json()
    assert renewed["primaryKey"] == swapped["primaryKey"]
    assert not await may_read(app, HUB, by_primary)
    assert await may_read(app, HUB, by_secondary)
    renewed = (await operator.call("POST", f"{HUB}/second/renewKey", {"key": "primary"})).json()
    assert not await may_read(app, HUB, by_secondary)
    assert await may_read(app, HUB, token(site, renewed))
    refused(await operator.call("POST", f"{HUB}/second/renewKey", {"key": "both"}), 400, 400000)
    refused(await operator.call("POST", f"{HUB}/second/renewKey", {"key": []}), 400, 400000)


async def test_the_owner_stays_and_stays_an_owner(site: Site, dps_operator: Caller, operator: Caller) -> None:
    for caller, path, right in (
        (dps_operator, f"{DPS}/provisioningserviceowner", "EnrollmentRead"),
        (operator, f"{HUB}/iothubowner", "ServiceConnect"),
    ):
        assert "cannot be deleted" in refused(await caller.call("DELETE", path), 400, 400000)
        answer = await caller.call("PUT", path, {"rights": [right]}, {"if-match": "*"})
        assert "keeps all its rights" in refused(answer, 400, 400000)
        assert (await caller.call("POST", f"{path}/renewKey", {"key": "secondary"})).status == 200
    for name in ("service", "device", "registryRead", "registryReadWrite"):
        assert (await operator.call("DELETE", f"{HUB}/{name}")).status == 204


async def test_reading_and_changing_take_an_administrator(site: Site, app: HttpAdapter) -> None:
    for name in ("registryReadWrite", "service", "device"):
        for method, path in (("GET", HUB), ("GET", f"{HUB}/iothubowner"), ("PUT", f"{HUB}/mine")):
            answer = await Caller(app, token=site.token(name)).call(
                method, path, {"rights": ["ServiceConnect"]}
            )
            refused(answer, 401, 401000)
            assert failed_checks(site.refusals()[-1]) == ["right"]
    refused(await Caller(app, token=site.token()).call("GET", DPS), 401, 401000)
    refused(await Caller(app, token=site.dps_token()).call("GET", HUB), 401, 401000)


async def test_there_is_a_limit_to_their_number(operator: Caller) -> None:
    there = len((await operator.call("GET", HUB)).json())
    for number in range(there, 100):
        assert (await operator.call("PUT", f"{HUB}/p{number}", {"rights": ["ServiceConnect"]})).status == 201
    answer = await operator.call("PUT", f"{HUB}/more", {"rights": ["ServiceConnect"]})
    assert "at most 100" in refused(answer, 400, 400000)


async def reader(site: Site, call: Callable[..., AmqpPeer], shown: str) -> AmqpPeer:
    peer = call()
    await peer.open()
    await peer.claim(shown)
    return peer


async def test_a_reader_loses_its_link_with_its_policy(
    site: Site, call: Callable[..., AmqpPeer], operator: Caller
) -> None:
    """AMQP connections live for hours: what they were granted is looked at again when the policy changes."""
    made = (await operator.call("PUT", f"{HUB}/reader", {"rights": ["ServiceConnect"]})).json()
    losing, staying = (
        await reader(site, call, token(site, made)),
        await reader(site, call, token(site, made, key="secondaryKey")),
    )
    other = await reader(site, call, site.token("service"))
    links = [await peer.attach_receiver(READER) for peer in (losing, staying, other)]

    await operator.call("POST", f"{HUB}/reader/renewKey", {"key": "primary"})
    error = await losing.detached(links[0])
    assert error is not None
    assert error.condition == conditions.UNAUTHORIZED_ACCESS
    assert site.refusals()[-1].operation == "link"
    assert not [*staying.seen(LinkDetached), *other.seen(LinkDetached)]

    await operator.call("PUT", f"{HUB}/reader", {"rights": ["RegistryRead"]}, {"if-match": "*"})
    error = await staying.detached(links[1])
    assert error is not None
    assert "does not have the right ServiceConnect" in (error.description or "")
    with pytest.raises(Refused) as raised:
        await staying.attach_receiver(READER)
    assert raised.value.condition == conditions.UNAUTHORIZED_ACCESS

    assert not other.seen(LinkDetached)
    await operator.call("DELETE", f"{HUB}/service")
    assert await other.detached(links[2]) is not None
