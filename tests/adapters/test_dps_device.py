"""What every door of the device API answers alike: statuses, pace, refusals."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from moorage.adapters.dps_device import Answer, Device, DeviceApi, Pace
from moorage.credentials.workshop.request import make_request, registration_text
from moorage.credentials.workshop.subject import read_subject
from moorage.credentials.x509 import Certificate
from moorage.errors import NotSupported
from moorage.interfaces import Peer
from moorage.provisioning.provisioner import RegistrationRequest, SasProof, X509Proof
from moorage.provisioning.registration import RegistrationState, Status
from tests.support.site import ID_SCOPE, NEWEST, Site, enroll_certificate, failed_checks

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


@pytest.mark.parametrize("door", ["mqtt", "https", "amqp"])
async def test_nobody_else_is_told_what_became_of_an_operation(
    site: Site, leaf: Certificate, door: str
) -> None:
    """Who knows its id may have read a log."""
    api = DeviceApi(site.provisioner, pace="azure")
    operation_id = (await api.register(device(leaf, door), b"")).body["operationId"]
    for proof in (None, SasProof("SharedAccessSignature sr=x&sig=eA==&se=4000000000"), X509Proof((b"no",))):
        answer = await api.poll(device(leaf, door, proof=proof), operation_id)
        assert answer.status == 401
        assert "registrationState" not in answer.body
    assert (await api.poll(device(leaf, door), operation_id)).status == 200


@pytest.mark.parametrize(("door", "status"), [("mqtt", 400), ("amqp-ws", 400), ("https", 501)])
def test_only_who_does_not_ask_for_ever_is_told_501(site: Site, door: str, status: int) -> None:
    api = DeviceApi(site.provisioner, pace="fast")
    answer = api.refusal(NotSupported("this and that"), Peer("192.0.2.7", door, ()), "ab" * 16)
    assert (answer.status, answer.body["errorCode"]) == (status, status * 1000)


# --- Certificates on request -----------------------------------------------------------------------------

PREVIEW = "2025-07-01-preview"


def csr(name: str = "pump-7") -> str:
    return registration_text(make_request(read_subject(name))[0])


@pytest.fixture
async def policy(site: Site, leaf: Certificate) -> None:
    """The enrollment of pump-7 names one."""
    await site.provisioner.credential_policies.put("short", {}, condition=None)
    kept = await site.provisioner.enrollments.get("pump-7")
    document = kept.to_json(NEWEST) | {"credentialPolicyName": "short"}
    await site.provisioner.enrollments.put(document, if_match="*", api_version=NEWEST)


async def poll_for_chain(api: DeviceApi, pump: Device, answer: Answer) -> Any:
    polled = await api.poll(pump, answer.body["operationId"])
    return polled.body["registrationState"].get("issuedCertificateChain")


@pytest.mark.usefixtures("policy")
async def test_who_asks_for_a_certificate_finds_it_at_the_poll(site: Site, leaf: Certificate) -> None:
    api, pump = DeviceApi(site.provisioner, pace="fast"), device(leaf, api_version=PREVIEW)
    answer = await api.register(pump, json.dumps({"csr": csr()}).encode())
    assert answer.status == 202
    chain = [Certificate(base64.b64decode(each)) for each in await poll_for_chain(api, pump, answer)]
    assert chain[0].common_name == "pump-7"
    assert [each.issuer for each in chain] == [each.subject for each in [*chain[1:], chain[-1]]]
    assert "issuedCertificateChain" not in (await api.look_up(pump, b"")).body


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize("body", [b"", b'{"csr":null}', b'{"clientCertificateCsr":"AAAA"}'])
async def test_the_older_preview_s_request_and_none_at_all_are_answered_without(
    site: Site, leaf: Certificate, body: bytes
) -> None:
    api, pump = DeviceApi(site.provisioner, pace="fast"), device(leaf, api_version=PREVIEW)
    answer = await api.register(pump, body)
    assert answer.status == 202
    assert await poll_for_chain(api, pump, answer) is None


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("verb", "version", "why"),
    [("register", "2021-06-01", "needs the api-version"), ("look_up", PREVIEW, "no place in a lookup")],
)
async def test_where_a_request_has_no_place(
    site: Site, leaf: Certificate, verb: str, version: str, why: str
) -> None:
    api = DeviceApi(site.provisioner, pace="fast")
    body = json.dumps({"csr": csr()}).encode()
    answer = await getattr(api, verb)(device(leaf, "https", api_version=version), body)
    assert answer.status == 400
    assert why in answer.body["message"]
    assert failed_checks(site.refusal()) == ["csr"]
