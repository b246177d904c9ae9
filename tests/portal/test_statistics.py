"""What the overview asks: `/moorage/v1/statistics` and `/moorage/v1/certificateAuthority`."""

from __future__ import annotations

import pytest

from moorage.adapters.samples import KEPT, Counted, HubCounted, Samples
from moorage.app import Server
from moorage.credentials.x509 import read_certificate
from moorage.portal.api import Api, Refused, Service
from tests.support.kept_events import keep


@pytest.fixture
def dps(server: Server) -> Service:
    return Api(server.inside_api()).dps


async def test_counts_of_now_end_the_recent_ones(server: Server, dps: Service) -> None:
    server._samples.take()
    hub = server.hubs.first.hub
    await keep(server.event_log, hub, "pump-7", b"1", b"2")
    server.provisioner.counts.registrations["x509", "assigned"] += 3
    server.provisioner.counts.registrations["x509", "refused"] += 1
    server.provisioner.counts.registrations["tpm", "failed"] += 1
    shown = await dps.get("/moorage/v1/statistics")
    assert (shown["registrationsAssigned"], shown["registrationsFailed"], shown["messages"]) == (3, 2, 2)
    recent = shown["recent"]
    assert recent["registrationsAssigned"][-2:] == [0, 3]
    assert recent["messages"][-2:] == [0, 2]
    assert recent["secondsAgo"][-1] == 0
    assert len({len(values) for values in recent.values()}) == 1
    (of_hub,) = shown["hubs"]
    assert (of_hub["name"], of_hub["messages"], of_hub["devicesConnected"]) == (hub.name, 2, 0)
    assert of_hub["recent"]["messages"] == recent["messages"]


async def test_a_younger_hub_has_zeros_before(server: Server, dps: Service) -> None:
    server._samples.take()
    await dps.post("/moorage/v1/hubs", {"name": "second"})
    second = server.hubs.named("second").hub
    await keep(server.event_log, second, "pump-7", b"1")
    shown = await dps.get("/moorage/v1/statistics")
    assert shown["hubs"][1]["recent"]["messages"][-2:] == [0, 1]
    assert shown["messages"] == 1


async def test_the_portals_own_connections_do_not_count(dps: Service) -> None:
    assert (await dps.get("/moorage/v1/statistics"))["connections"] == 0


def test_only_so_many_samples_are_kept() -> None:
    moments = iter(range(1000))
    samples = Samples(lambda: Counted(0, 0, 0, {1: HubCounted(0, 0)}), lambda: float(next(moments)))
    for _ in range(2 * KEPT):
        samples.take()
    kept = samples.all()
    assert len(kept) == KEPT + 1
    assert [each.at for each in kept] == [float(at) for at in range(KEPT, 2 * KEPT + 1)]


async def test_the_ca_that_clients_have_to_trust(server: Server, dps: Service) -> None:
    shown = await dps.get("/moorage/v1/certificateAuthority")
    assert shown["file"] == str(server.ca_file)
    assert read_certificate(shown["certificate"]).sha1 == shown["sha1Thumbprint"]
    assert read_certificate(shown["certificate"]).sha256 == shown["sha256Thumbprint"]


async def test_no_ca_where_the_operator_brought_a_certificate(server: Server, dps: Service) -> None:
    server.ca_file = None
    with pytest.raises(Refused) as refused:
        await dps.get("/moorage/v1/certificateAuthority")
    assert refused.value.status == 404
