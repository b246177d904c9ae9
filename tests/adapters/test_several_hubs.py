"""Hub from hub: by the host in the user name, the header `Host`, `open.hostname`; and a host that is nobody's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from moorage.adapters.http import HttpAdapter
from moorage.adapters.hub_service.groups import groups
from moorage.adapters.hub_service.handler import HubHttp
from moorage.credentials import policy
from moorage.credentials.sas import make_token
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import IdentitySettings
from moorage.wire.amqp import Closed
from moorage.wire.mqtt.packets import ConnAck
from tests.support.amqp_peer import AmqpPeer, Refused
from tests.support.asgi import Caller
from tests.support.mqtt_peer import MqttPeer, connect, user_name
from tests.support.site import Site, failed_checks

Arrive = Callable[..., MqttPeer]
Call = Callable[..., AmqpPeer]
BETA, NOBODY = "127.0.0.2", "nobody.example.net"
READER = "moorage/ConsumerGroups/$Default/Partitions/0"
KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="


@pytest.fixture(autouse=True)
async def beta(site: Site) -> None:
    """A second hub, with the device pump-7, which the first does not know."""
    await site.hubs.create("beta")
    keys = Authentication.symmetric(KEY)
    await site.hubs.named("beta").create(IdentitySettings(device_id="pump-7", authentication=keys))


async def token_of(site: Site, hub: str, host: str) -> str:
    owner = await site.store.records(policy.KIND, site.hubs.named(hub).hub.scope).get("iothubowner")
    assert owner is not None
    return make_token(host, owner.primary_key, site.seconds + 3600, owner.name)


async def mqtt_code(site: Site, arrive: Arrive, host: str, audience: str) -> int:
    peer = arrive()
    token = make_token(f"{audience}/devices/pump-7", KEY, site.seconds + 3600)
    peer.send(connect("pump-7", token, username=user_name("pump-7", host)))
    return (await peer.expect(ConnAck)).code


async def test_over_mqtt(site: Site, arrive: Arrive) -> None:
    assert await mqtt_code(site, arrive, BETA, BETA) == 0
    assert await mqtt_code(site, arrive, "localhost", BETA) == 5
    assert await mqtt_code(site, arrive, BETA, "localhost") == 5, "the token has to be for the same hub"
    assert site.hubs.named("beta").sessions.connected("pump-7") is not None
    assert site.sessions.connected("pump-7") is None


async def test_an_unknown_host_over_mqtt(site: Site, arrive: Arrive) -> None:
    assert await mqtt_code(site, arrive, NOBODY, BETA) == 5
    decision = site.refusal()
    assert (decision.operation, decision.subject, failed_checks(decision)) == ("connect", "pump-7", ["known"])
    assert NOBODY in decision.error


async def test_over_http(site: Site) -> None:
    hubs = HubHttp(
        site.hubs.by_host,
        *groups(methods=site.methods),
        store=site.store,
        clock=site.time,
        decisions=site.decisions,
    )
    app = HttpAdapter(hubs, otherwise=hubs)
    token = await token_of(site, "beta", BETA)
    for host, status in ((BETA, 200), (f"{BETA}:8443", 200), ("localhost", 401)):
        assert (await Caller(app, host=host, token=token).call("GET", "/devices/pump-7")).status == status

    answer = await Caller(app, host=NOBODY, token=token).call("GET", "/devices/pump-7")

    assert (answer.status, answer.headers["iothub-errorcode"]) == (401, "IotHubNotFound")
    assert NOBODY in site.refusals()[-1].error


async def test_over_amqp(site: Site, call: Call) -> None:
    peer = call(hostname=BETA)
    await peer.open()
    await peer.claim(await token_of(site, "beta", BETA))
    await peer.attach_receiver(READER)

    stranger = call(hostname="localhost")
    await stranger.open()
    answer = await stranger.put_token(await token_of(site, "beta", BETA))
    assert (answer.application_properties or {})["status-code"] == 401


async def test_an_unknown_host_over_amqp(site: Site, call: Call) -> None:
    peer = call(hostname=NOBODY)
    await peer.open()

    with pytest.raises(Refused) as error:
        await peer.attach_receiver(READER)

    assert error.value.condition == "com.microsoft:iot-hub-not-found-error"
    assert '"errorCode": 401001' in error.value.description
    assert NOBODY in site.refusal().error


async def test_connections_end_with_their_hub(site: Site, arrive: Arrive, call: Call) -> None:
    device, reader, other = arrive(), call(hostname=BETA), call(hostname="localhost")
    token = make_token(f"{BETA}/devices/pump-7", KEY, site.seconds + 3600)
    device.send(connect("pump-7", token, username=user_name("pump-7", BETA)))
    assert (await device.expect(ConnAck)).code == 0
    for peer in (reader, other):
        await peer.open()

    await site.hubs.delete("beta")

    assert await device.ended() == "the hub was deleted"
    closed = await reader.find(Closed)
    assert closed.error is not None
    assert closed.error.condition == "com.microsoft:iot-hub-not-found-error"
    assert await reader.ended()
    await other.claim(site.token())
    await other.attach_receiver(READER)
