"""A device that is connected to its hub over MQTT, the test being the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from moorage.wire.mqtt import packets
from moorage.wire.mqtt.packets import ConnAck, SubAck
from tests.support.mqtt_peer import MqttPeer, connect
from tests.support.site import Site

Arrive = Callable[..., MqttPeer]

TWIN_RESPONSES = "$iothub/twin/res/#"
DESIRED = "$iothub/twin/PATCH/properties/desired/#"
METHODS = "$iothub/methods/POST/#"


async def connected(site: Site, arrive: Arrive, device_id: str, key: str, **fields: object) -> MqttPeer:
    peer = arrive()
    peer.send(connect(device_id, site.device_token(device_id, key), **fields))
    assert (await peer.expect(ConnAck)).code == 0
    return peer


async def subscribe(peer: MqttPeer, *filters: str, qos: int = 0) -> None:
    peer.send(packets.encode_subscribe(1, ((each, qos) for each in filters)))
    assert await peer.expect(SubAck) == SubAck(1, (qos,) * len(filters))


def unsubscribe(filters: Iterable[str]) -> bytes:
    return packets.encode_unsubscribe(2, filters)
