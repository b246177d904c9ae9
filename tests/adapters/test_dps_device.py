"""What every door of the device API answers alike: statuses, pace, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moorage.adapters.dps_device import Device, DeviceApi, Pace
from moorage.credentials.x509 import Certificate
from moorage.interfaces import Peer
from moorage.provisioning.provisioner import RegistrationRequest, X509Proof
from moorage.provisioning.registration import RegistrationState, Status
from tests.support.site import ID_SCOPE, Site, enroll_certificate, failed_checks

PYTHON = "azure-iot-device-provisioning-py/2.14.0(Linux)"


@pytest.fixture
async def leaf(site: Site) -> Certificate:
    """Enrolled as pump-7."""
    return await enroll_certificate(site, "pump-7")


def device(leaf: Certificate | None, door: str = "amqp", **differs: Any) -> Device:
    chain = (leaf.der,) if leaf is not None else ()
    pump = Device(
        id_scope=ID_SCOPE,
        registration_id="pump-7",
        api_version="2019-03-31",
        proof=X509Proof(chain) if chain else None,
        peer=Peer("192.0.2.7", door, chain),
        tracking_id="ab" * 16,
    )
    return replace(pump, **differs)


def keep_working(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every registration is one that has not ended yet."""
    verbs = site.provisioner.register, site.provisioner.operation

    def working(state: RegistrationState) -> RegistrationState:
        return replace(state, outcome=replace(state.outcome, status=Status.ASSIGNING))

    async def register(request: RegistrationRequest, proof: Any) -> RegistrationState:
        return working(await verbs[0](request, proof))

    async def operation(*asked: str) -> RegistrationState:
        return working(await verbs[1](*asked))

    monkeypatch.setattr(site.provisioner, "register", register)
    monkeypatch.setattr(site.provisioner, "operation", operation)


@pytest.mark.parametrize(("pace", "wait"), [("fast", 1), ("azure", 3)])
@pytest.mark.parametrize("agent", ["", PYTHON])
async def test_an_operation_that_goes_on_is_polled(
    site: Site, leaf: Certificate, monkeypatch: pytest.MonkeyPatch, pace: Pace, wait: int, agent: str
) -> None:
    """Also by those who otherwise have the result at once."""
    keep_working(site, monkeypatch)
    api, pump = DeviceApi(site.provisioner, pace=pace), device(leaf, agent=agent)
    first = await api.register(pump, b"")
    operation_id = first.body["operationId"]
    assert (first.status, first.retry_after) == (202, wait)
    assert first.body == {"operationId": operation_id, "status": "assigning"}
    polled = await api.poll(pump, operation_id)
    assert (polled.status, polled.retry_after) == (202, wait)
    assert polled.body == {
        "operationId": operation_id,
        "status": "assigning",
        "registrationState": {"registrationId": "pump-7", "status": "assigning"},
    }


@pytest.mark.parametrize(
    ("differs", "check"),
    [
        ({}, "known"),
        ({"api_version": ""}, "api-version"),
        ({"id_scope": "0ne00000000"}, "id scope"),
    ],
)
async def test_a_poll_that_is_refused_leaves_a_record(
    site: Site, leaf: Certificate, differs: dict[str, Any], check: str
) -> None:
    answer = await DeviceApi(site.provisioner, pace="fast").poll(device(leaf, **differs), "5.0.0")
    assert answer.status in (400, 401, 404)
    assert answer.body["trackingId"] == "ab" * 16
    decision = site.refusal()
    assert (decision.operation, decision.subject, decision.tracking_id) == ("poll", "pump-7", "ab" * 16)
    assert failed_checks(decision) == [check]


@pytest.mark.parametrize(("door", "status"), [("mqtt", 400), ("amqp-ws", 400), ("https", 501)])
async def test_only_who_does_not_ask_for_ever_is_told_501(
    site: Site, leaf: Certificate, door: str, status: int
) -> None:
    answer = await DeviceApi(site.provisioner, pace="fast").register(device(leaf, door), b'{"csr":"AAAA"}')
    assert (answer.status, answer.body["errorCode"]) == (status, status * 1000)
