"""The TPM challenge as HTTPS and AMQP put it, to a TPM in software."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from moorage.adapters.dps_device import DeviceApi
from moorage.adapters.dps_device_http import DpsDeviceHttp
from moorage.adapters.dps_http import DpsHttp
from moorage.adapters.http import HttpAdapter
from moorage.wire.amqp import (
    ClientSasl,
    Data,
    Opened,
    SaslChallenge,
    SaslCode,
    SaslOutcome,
)
from moorage.wire.amqp.sasl_tpm import TpmClient, token_response
from tests.adapters.test_dps_amqp import REGISTER, Call, Links, attached, content
from tests.support.asgi import Answer, Caller
from tests.support.site import ID_SCOPE, NEWEST, Site, failed_checks
from tests.support.software_tpm import SoftwareTpm

PRESS = f"{ID_SCOPE}/registrations/press-1"
VERSION = "api-version=2019-03-31"


async def enroll(site: Site, tpm: SoftwareTpm, **members: Any) -> None:
    document = {"registrationId": "press-1", "attestation": {"type": "tpm", "tpm": tpm.keys}, **members}
    await site.provisioner.enrollments.put(document, if_match=None, api_version=NEWEST)


def token(site: Site, tpm: SoftwareTpm, *, seconds: int = 3600) -> str:
    return tpm.token(PRESS, site.time.now() // 1_000_000 + seconds)


class HttpDevice:
    """A device over HTTPS; `tpm` is what it signs with."""

    def __init__(self, site: Site, tpm: SoftwareTpm) -> None:
        service = DpsHttp(site.provisioner)
        device = DpsDeviceHttp(DeviceApi(site.provisioner, pace="fast"))
        self._caller = Caller(HttpAdapter(service, device, otherwise=service))
        self._tpm = tpm

    async def register(self, token: str | None = None, *, keys: bool = True) -> Answer:
        body: dict[str, Any] = {"registrationId": "press-1"}
        if keys:
            body["tpm"] = self._tpm.keys
        return await self._caller.call("PUT", f"/{PRESS}/register", body, query=VERSION, token=token)

    async def poll(self, operation_id: str, token: str) -> Any:
        path = f"/{PRESS}/operations/{operation_id}"
        return (await self._caller.call("GET", path, {}, query=VERSION, token=token)).json()


class AmqpDevice:
    """A device over AMQP that goes through the SASL mechanism TPM."""

    def __init__(self, call: Call, tpm: SoftwareTpm, registration_id: str = "press-1") -> None:
        self.sasl = TpmClient(ID_SCOPE, registration_id, tpm.endorsement_key, tpm.storage_root_key)
        self.peer = call(sasl=self.sasl.credentials)
        self.peer.wire.open()

    async def challenged(self) -> bytes:
        """The blob, once it is whole."""
        while self.sasl.blob is None:
            challenge = await self.peer.find(SaslChallenge)
            response = self.sasl.receive(challenge.challenge)
            if response is not None:
                self.peer.wire.sasl_response(response)
        return self.sasl.blob

    async def answer(self, token: str) -> SaslCode:
        self.peer.wire.sasl_response(token_response(token))
        return (await self.peer.find(SaslOutcome)).code

    async def links(self, address: str = PRESS) -> Links:
        await self.peer.find(Opened)
        await self.peer.begin()
        return await attached(self.peer, address)


@pytest.fixture
def tpm() -> SoftwareTpm:
    return SoftwareTpm()


@pytest.fixture
def device(site: Site, tpm: SoftwareTpm) -> HttpDevice:
    return HttpDevice(site, tpm)


def open_challenge(answer: Answer, tpm: SoftwareTpm) -> None:
    body = answer.json()
    assert answer.status == 401
    assert "status" not in body, "C takes the body for an operation then [dps 12.2]"
    assert body["keyName"] == "registration"
    assert body["message"]
    tpm.activate(base64.b64decode(body["authenticationKey"]))


@pytest.mark.parametrize("keys_again", [True, False], ids=["all others", "IoT Edge"])
async def test_a_device_is_challenged_and_takes_its_hub_s_key_home(
    site: Site, device: HttpDevice, tpm: SoftwareTpm, keys_again: bool
) -> None:
    await enroll(site, tpm)
    open_challenge(await device.register(), tpm)
    assert site.decisions.latest(1) == []
    proof = token(site, tpm)
    accepted = await device.register(proof, keys=keys_again)
    assert accepted.status == 202
    polled = await device.poll(accepted.json()["operationId"], proof)
    assert polled["status"] == "assigned"
    state = polled["registrationState"]
    assert (state["assignedHub"], state["deviceId"]) == ("localhost", "press-1")
    assert "x509" not in state

    tpm.activate(base64.b64decode(state["tpm"]["authenticationKey"]))
    assert tpm.key is not None
    identity = await site.identities.get("press-1")
    assert identity.authentication.primary_key == base64.b64encode(tpm.key).decode()


async def test_a_stale_token_is_recorded_and_brings_a_new_challenge(
    site: Site, device: HttpDevice, tpm: SoftwareTpm
) -> None:
    await enroll(site, tpm)
    tpm.key = bytes(32)
    open_challenge(await device.register(token(site, tpm)), tpm)
    assert failed_checks(site.refusal()) == ["TPM challenge answered"]
    assert (await device.register(token(site, tpm))).status == 202


async def test_an_expired_token_is_refused_without_a_challenge(
    site: Site, device: HttpDevice, tpm: SoftwareTpm
) -> None:
    await enroll(site, tpm)
    open_challenge(await device.register(), tpm)
    answer = await device.register(token(site, tpm, seconds=-3600))
    assert answer.status == 401
    assert "authenticationKey" not in answer.json()
    assert failed_checks(site.refusal()) == ["expiry"]


async def test_a_device_that_is_not_enrolled(site: Site, device: HttpDevice) -> None:
    answer = await device.register()
    assert (answer.status, answer.json()["errorCode"]) == (404, 404201)
    assert "endorsement key" in site.refusal().remedy


async def test_another_device_s_tpm(site: Site, device: HttpDevice) -> None:
    await enroll(site, SoftwareTpm(index=1))
    answer = await device.register()
    assert (answer.status, answer.json()["errorCode"]) == (401, 401000)
    assert "authenticationKey" not in answer.json()
    assert failed_checks(site.refusal()) == ["endorsement key"]


@pytest.mark.parametrize("told", [7, {"endorsementKey": "AAAA"}, {"endorsementKey": ["x"]}])
async def test_keys_that_cannot_be_read(site: Site, told: object) -> None:
    service = DpsHttp(site.provisioner)
    device = DpsDeviceHttp(DeviceApi(site.provisioner, pace="fast"))
    caller = Caller(HttpAdapter(service, device, otherwise=service))
    answer = await caller.call("PUT", f"/{PRESS}/register", {"tpm": told}, query=VERSION)
    assert answer.status == 400
    assert "tpm" in answer.json()["message"]
    assert json.loads(answer.body)["errorCode"] == 400000


# --- AMQP ------------------------------------------------------------------------------------------------


async def test_a_device_proves_itself_in_sasl_and_registers(site: Site, call: Call, tpm: SoftwareTpm) -> None:
    await enroll(site, tpm)
    device = AmqpDevice(call, tpm)
    tpm.activate(await device.challenged())
    assert await device.answer(token(site, tpm)) is SaslCode.OK
    links = await device.links()
    body = Data.of(json.dumps({"registrationId": "press-1", "tpm": tpm.keys}).encode())
    accepted = content(await links.ask(REGISTER, body))
    assert accepted["status"] == "assigning"
    state = content(await links.poll(accepted["operationId"]))["registrationState"]
    assert (state["status"], state["deviceId"]) == ("assigned", "press-1")
    tpm.activate(base64.b64decode(state["tpm"]["authenticationKey"]))
    assert tpm.key is not None
    identity = await site.identities.get("press-1")
    assert identity.authentication.primary_key == base64.b64encode(tpm.key).decode()
    [decision] = site.decisions.of("press-1")
    assert decision.accepted
    assert decision.door == "amqp"


async def test_sasl_refuses_a_token_that_another_key_has_signed(
    site: Site, call: Call, tpm: SoftwareTpm
) -> None:
    await enroll(site, tpm)
    device = AmqpDevice(call, tpm)
    await device.challenged()
    tpm.key = bytes(32)
    assert await device.answer(token(site, tpm)) is SaslCode.AUTH
    decision = site.refusal()
    assert (decision.operation, failed_checks(decision)) == ("connect", ["TPM challenge answered"])
    assert decision.proof["tpm"]


async def test_sasl_refuses_an_expired_token(site: Site, call: Call, tpm: SoftwareTpm) -> None:
    device = AmqpDevice(call, tpm)
    tpm.activate(await device.challenged())
    assert await device.answer(token(site, tpm, seconds=-3600)) is SaslCode.AUTH
    assert failed_checks(site.refusal()) == ["expiry"]


async def test_who_is_not_enrolled_is_told_so_when_he_registers(
    site: Site, call: Call, tpm: SoftwareTpm
) -> None:
    device = AmqpDevice(call, tpm)
    tpm.activate(await device.challenged())
    assert await device.answer(token(site, tpm)) is SaslCode.OK
    refusal = await (await device.links()).refused(REGISTER)
    assert refusal.condition == "amqp:not-found"
    assert json.loads(refusal.description)["errorCode"] == 404201


async def test_another_tpm_is_told_so_when_it_registers(site: Site, call: Call, tpm: SoftwareTpm) -> None:
    await enroll(site, SoftwareTpm(index=1))
    device = AmqpDevice(call, tpm)
    tpm.activate(await device.challenged())
    assert await device.answer(token(site, tpm)) is SaslCode.OK
    refusal = await (await device.links()).refused(REGISTER)
    assert refusal.condition == "amqp:unauthorized-access"
    assert failed_checks(site.refusal()) == ["endorsement key"]


async def test_a_tpm_speaks_for_its_own_registration_id_only(
    site: Site, call: Call, tpm: SoftwareTpm
) -> None:
    await enroll(site, tpm, registrationId="press-2")
    device = AmqpDevice(call, tpm)
    tpm.activate(await device.challenged())
    await device.answer(token(site, tpm))
    refusal = await (await device.links(f"{ID_SCOPE}/registrations/press-2")).refused(REGISTER)
    assert refusal.condition == "amqp:unauthorized-access"
    assert "authenticationKey" not in refusal.description


@pytest.mark.parametrize(
    ("init", "why"),
    [
        (b"", "TPM init"),
        (b"\0scope\0id\0no key", "endorsement key"),
        (b"\0scope\0" + b"x" * 129 + b"\0key", "at most 128"),
    ],
    ids=["empty", "no key", "long id"],
)
async def test_what_no_tpm_would_say_is_refused(site: Site, call: Call, init: bytes, why: str) -> None:
    peer = call(sasl=ClientSasl("TPM", init))
    peer.wire.open()
    if why == "endorsement key":
        await peer.find(SaslChallenge)
        peer.wire.sasl_response(b"\0no key either")
    assert (await peer.find(SaslOutcome)).code is SaslCode.AUTH
    decision = site.refusal()
    assert decision.operation == "connect"
    assert why in decision.error
