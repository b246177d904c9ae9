from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from moorage.adapters.amqp import AmqpServer
from moorage.adapters.cloud_to_device_amqp import DeviceboundFace
from moorage.adapters.dps_amqp import DpsAmqp
from moorage.adapters.dps_device import DeviceApi
from moorage.adapters.dps_sasl_tpm import TpmDialogue
from moorage.adapters.event_hubs import EventHubsFace
from moorage.adapters.feedback_amqp import FeedbackFace
from moorage.adapters.hub_mqtt import HubMqttDoor
from moorage.adapters.mqtt import MqttConversation
from moorage.hub.consumer_group import ConsumerGroups
from moorage.hub.instance import Hub
from moorage.interfaces import ByteStream, Conversation
from moorage.provisioning.throttle import NO_LIMITS, RateLimits
from moorage.wire.amqp.sasl_tpm import TPM
from tests.support.amqp_peer import AmqpPeer
from tests.support.mqtt_peer import MqttPeer
from tests.support.site import Site, open_site

Arrive = Callable[..., MqttPeer]
Call = Callable[..., AmqpPeer]


@pytest.fixture
def limits() -> RateLimits:
    """How often the provisioning service may be asked; a test that wants others says so by a parameter."""
    return NO_LIMITS


@pytest.fixture
async def site(limits: RateLimits) -> AsyncIterator[Site]:
    """A hub and a provisioning service in memory, at a time that stands."""
    async with open_site(limits=limits) as opened:
        yield opened


@pytest.fixture
def hub_door(site: Site) -> HubMqttDoor:
    return HubMqttDoor(
        event_log=site.log, clock=site.time, decisions=site.decisions, hub_by_host=site.find_hub
    )


@pytest.fixture
def arrive(site: Site, hub_door: HubMqttDoor) -> Arrive:
    """Opens a connection to the hub over MQTT, on which nothing has been said yet."""

    def open_conversation(stream: ByteStream) -> Conversation:
        return MqttConversation(
            stream, lambda connect: hub_door, connect_timeout=30, note_refusal=hub_door.note_refusal
        )

    return lambda **peer: MqttPeer(site.time, open_conversation, **peer)


@pytest.fixture
def consumer_groups(site: Site) -> ConsumerGroups:
    return ConsumerGroups(hub=site.hubs.of_scope, put=site.hubs.put)


@pytest.fixture
def face(site: Site, consumer_groups: ConsumerGroups) -> EventHubsFace:
    face = EventHubsFace(site.log, find_group=consumer_groups.get)
    consumer_groups.at_end(face.end_group)
    return face


@pytest.fixture
def amqp_server(site: Site, face: EventHubsFace) -> AmqpServer:
    def hub_by_host(host: str) -> Hub | None:
        found = site.find_hub(host)
        return found[0] if found is not None else None

    api = DeviceApi(site.provisioner, pace="fast")
    registration = DpsAmqp(api)
    server = AmqpServer(
        store=site.store,
        clock=site.time,
        decisions=site.decisions,
        hub_by_host=hub_by_host,
        faces=[
            face,
            DeviceboundFace(site.hubs.by_scope),
            FeedbackFace(site.hubs.by_scope),
            registration,
        ],
        gates=[registration],
        dialogues={TPM: lambda conversation: TpmDialogue(api, conversation)},
        connect_timeout=30,
    )
    site.hubs.at_end(server.end)
    return server


@pytest.fixture
def call(site: Site, amqp_server: AmqpServer) -> Call:
    """Opens a connection over AMQP, on which nothing has been said yet."""
    return lambda **peer: AmqpPeer(site.time, amqp_server.open_conversation, **peer)
