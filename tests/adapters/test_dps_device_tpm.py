"""The TPM challenge as each door puts it, to a TPM in software."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from moorage.adapters.dps_device import DeviceApi
from moorage.adapters.dps_device_http import DpsDeviceHttp
from moorage.adapters.dps_http import DpsHttp
from moorage.adapters.http import HttpAdapter
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
