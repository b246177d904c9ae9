"""The control API of a site, and an operator who may do everything with the hub."""

from __future__ import annotations

import pytest

from moorage.adapters.amqp import AmqpServer
from moorage.adapters.control.allocation import AllocationRoutes
from moorage.adapters.control.ca_certificates import CaCertificateRoutes
from moorage.adapters.control.certificate_preview import CertificatePreviewRoutes
from moorage.adapters.control.consumer_groups import ConsumerGroupRoutes
from moorage.adapters.control.credential_policies import CredentialPolicyRoutes
from moorage.adapters.control.decisions import DecisionRoutes
from moorage.adapters.control.device_messages import DeviceMessageRoutes
from moorage.adapters.control.enrollment_lists import EnrollmentListRoutes
from moorage.adapters.control.enrollments import EnrollmentRoutes
from moorage.adapters.control.events import EventRoutes
from moorage.adapters.control.gate import Gate
from moorage.adapters.control.handler import ControlHttp
from moorage.adapters.control.hubs import HubRoutes
from moorage.adapters.control.linked_hubs import LinkedHubRoutes
from moorage.adapters.control.message_routes import MessageRouteRoutes
from moorage.adapters.control.policies import PolicyRoutes
from moorage.adapters.control.service import ServiceRoutes
from moorage.adapters.control.timelines import TimelineRoutes
from moorage.adapters.http import HttpAdapter
from moorage.credentials.ca_certificates import CaCertificates
from moorage.credentials.policy import SharedAccessPolicy
from moorage.hub.consumer_group import ConsumerGroups
from moorage.hub.routing import MessageRoutes
from moorage.provisioning.linked_hubs import LinkedHubs
from moorage.provisioning.settings import ServiceSettings
from moorage.provisioning.simulation import Simulation
from tests.support.asgi import Caller
from tests.support.site import DPS_SCOPE, HOST, Site


@pytest.fixture
def app(site: Site, amqp_server: AmqpServer, consumer_groups: ConsumerGroups) -> HttpAdapter:
    gate = Gate(
        store=site.store,
        clock=site.time,
        decisions=site.decisions,
        service=lambda: site.provisioner.service,
        hubs=lambda: tuple(site.hubs),
    )

    async def policy_changed(scope: int, name: str, changed: SharedAccessPolicy | None) -> None:
        amqp_server.policy_changed(scope, name, changed)

    linked = LinkedHubs(site.store, DPS_SCOPE)
    control = ControlHttp(
        gate,
        site.time,
        CredentialPolicyRoutes(site.provisioner.credential_policies),
        DecisionRoutes(site.decisions),
        TimelineRoutes(site.timeline),
        EventRoutes(site.log),
        DeviceMessageRoutes(site.hubs.by_scope.__getitem__),
        PolicyRoutes(store=site.store, dps_scope=DPS_SCOPE, changed=policy_changed),
        CaCertificateRoutes(
            site.provisioner.ca_certificates, lambda hub: CaCertificates(site.store, hub.scope, site.time)
        ),
        HubRoutes(site.hubs, linked),
        LinkedHubRoutes(site.hubs, linked),
        EnrollmentRoutes(site.provisioner.enrollments, site.provisioner.transfer),
        EnrollmentListRoutes(site.provisioner),
        CertificatePreviewRoutes(site.time),
        ServiceRoutes(ServiceSettings(DPS_SCOPE, site.store), HOST),
        ConsumerGroupRoutes(consumer_groups),
        MessageRouteRoutes(MessageRoutes(hub=site.hubs.of_scope, put=site.hubs.put)),
        AllocationRoutes(Simulation(site.store, DPS_SCOPE)),
    )
    return HttpAdapter(control, otherwise=control)


@pytest.fixture
def operator(site: Site, app: HttpAdapter) -> Caller:
    """By the hub's owner policy."""
    return Caller(app, token=site.token())


@pytest.fixture
def dps_operator(site: Site, app: HttpAdapter) -> Caller:
    """By the provisioning service's owner policy."""
    return Caller(app, token=site.dps_token())
