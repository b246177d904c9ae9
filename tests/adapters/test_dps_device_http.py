"""Registration over HTTPS, request by request, as each of Microsoft's device programs does it."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.adapters.dps_device import DeviceApi, Pace
from moorage.adapters.dps_device_http import MAX_BODY, DpsDeviceHttp
from moorage.adapters.dps_http import DpsHttp
from moorage.adapters.http import HttpAdapter
from moorage.credentials.sas import make_token, new_key
from moorage.credentials.x509 import Certificate
from moorage.provisioning.attestation import proof
from moorage.provisioning.throttle import Rate, RateLimits
from tests.support.asgi import TRACKING_ID, Answer, Caller
from tests.support.site import (
    ID_SCOPE,
    POLLED_OUT,
    REGISTERED_OUT,
    Site,
    certificate,
    enroll_certificate,
    failed_checks,
)

PUMP = f"/{ID_SCOPE}/registrations/pump-7"
VERSION = "api-version=2019-03-31"


class Pump:
    """A device with a client certificate, or without, that calls the device API."""

    def __init__(self, site: Site, leaf: Certificate | None, *, pace: Pace = "fast") -> None:
        service = DpsHttp(site.provisioner)
        device = DpsDeviceHttp(DeviceApi(site.provisioner, pace=pace))
        self._caller = Caller(HttpAdapter(service, device, otherwise=service), host="Dps.Example:8443")
        self._chain = (leaf.der,) if leaf is not None else ()

    async def call(self, method: str, path: str, body: object = None, **options: Any) -> Answer:
        options.setdefault("query", VERSION)
        answer = await self._caller.call(method, path, body, chain=self._chain, **options)
        assert answer.headers["x-ms-request-id"] == TRACKING_ID
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        return answer

    async def register(self, body: object = None, **options: Any) -> Answer:
        return await self.call("PUT", f"{PUMP}/register", body, **options)

    async def operation(self) -> str:
        answer = await self.register()
        operation_id: str = answer.json()["operationId"]
        return operation_id


@pytest.fixture
async def leaf(site: Site) -> Certificate:
    """Enrolled as pump-7."""
    return await enroll_certificate(site, "pump-7")


@pytest.fixture
def pump(site: Site, leaf: Certificate) -> Pump:
    return Pump(site, leaf)


def refused(answer: Answer, status: int, code: int) -> str:
    """The reason."""
    body = answer.json()
    assert (answer.status, body["errorCode"]) == (status, code)
    assert answer.headers["x-ms-error-code"] == str(code)
    assert body["trackingId"] == TRACKING_ID
    assert not {"status", "operationId"} & set(body), "C takes the body for an operation then"
    message: str = body["message"]
    return message


async def test_register_and_poll(site: Site, pump: Pump, leaf: Certificate) -> None:
    first = await pump.register({"registrationId": "pump-7"})
    operation_id = first.json()["operationId"]
    assert first.status == 202, "IoT Edge takes nothing else [dps trap 11]"
    assert first.json() == {"operationId": operation_id, "status": "assigning"}
    assert first.headers["retry-after"] == "1"
    assert first.headers["location"] == f"https://Dps.Example:8443{PUMP}/register"

    polled = await pump.call("GET", f"{PUMP}/operations/{operation_id}", {})

    assert polled.status == 200
    assert "retry-after" not in polled.headers
    assert "location" not in polled.headers
    state = polled.json()["registrationState"]
    assert (polled.json()["status"], state["assignedHub"], state["deviceId"]) == (
        "assigned",
        "localhost",
        "pump-7",
    )
    assert (await site.identities.get("pump-7")).authentication.primary_thumbprint == leaf.sha256


async def test_azure_s_pace(site: Site, leaf: Certificate) -> None:
    answer = await Pump(site, leaf, pace="azure").register()
    assert (answer.status, answer.headers["retry-after"]) == (202, "3")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b" ", b'{"payload":null}', b'{"tpm":null,"registrationId":"PUMP-7"}']
)
@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "application/json", "content-encoding": "utf-8"},
        {"content-type": "application/x-www-form-urlencoded"},
        {},
    ],
    ids=["SDKs", "curl in the docs", "curl -d", "none"],
)
async def test_bodies_and_headers_of_all_clients(pump: Pump, body: bytes, headers: dict[str, str]) -> None:
    answer = await pump.register(body, headers=headers, query=f"{VERSION}&forceRegistration=true")
    assert answer.status == 202


async def test_ids_and_words_in_any_case(site: Site, pump: Pump) -> None:
    path = f"/{ID_SCOPE.lower()}/Registrations/PUMP%2D7"
    answer = await pump.call("PUT", f"{path}/Register/")
    assert answer.status == 202
    polled = await pump.call("GET", f"{path}/OPERATIONS/{answer.json()['operationId']}")
    assert polled.json()["registrationState"]["registrationId"] == "pump-7"


async def test_a_location_is_one_header_whatever_the_path_holds(pump: Pump) -> None:
    """An id that would break out of it is refused before, and would be escaped."""
    answer = await pump.call("PUT", f"/{ID_SCOPE}/registrations/a%0D%0Ab:c/register")
    refused(answer, 401, 401002)


# --- Looking up ---------------------------------------------------------------------------------------------


async def test_a_device_looks_itself_up(site: Site, pump: Pump) -> None:
    message = refused(await pump.call("POST", PUMP, {"registrationId": "pump-7"}), 404, 404202)
    assert "pump-7" in message
    assert failed_checks(site.refusal()) == ["known"]
    await pump.register()

    answer = await pump.call("POST", PUMP.upper().replace("REGISTRATIONS", "registrations"))

    assert answer.status == 200
    assert answer.json()["assignedHub"] == "localhost"
    assert answer.json()["etag"] == (await site.provisioner.registration("pump-7")).etag


async def test_looking_up_takes_the_same_proof_as_registering(
    site: Site, leaf: Certificate, pump: Pump
) -> None:
    await pump.register()
    for stranger in (None, certificate("pump-7")):
        refused(await Pump(site, stranger).call("POST", PUMP), 401, 401002)
    assert [decision.operation for decision in site.refusals()] == ["look up", "look up"]


# --- Refusals -----------------------------------------------------------------------------------------------


async def test_bad_proof(site: Site, leaf: Certificate) -> None:
    token = make_token(f"{ID_SCOPE}/registrations/pump-7", new_key(), site.seconds + 600)
    cases: list[tuple[Certificate | None, dict[str, Any], str]] = [
        (None, {}, proof.PRESENTED),
        (certificate("pump-7"), {}, proof.MATCHES),
        (leaf, {"token": token}, proof.PRESENTED),
    ]
    for shown, options, check in cases:
        before = len(site.refusals())
        refused(await Pump(site, shown).register(**options), 401, 401002)
        (decision,) = site.refusals()[before:]
        assert (decision.operation, decision.door, decision.tracking_id) == ("register", "https", TRACKING_ID)
        assert failed_checks(decision) == [check]


async def test_an_unknown_scope_or_id(site: Site, pump: Pump) -> None:
    refused(await pump.call("PUT", "/0ne00000000/registrations/pump-7/register"), 401, 401002)
    refused(await pump.call("PUT", f"/{ID_SCOPE}/registrations/nobody/register"), 401, 401002)
    refused(
        await pump.call("GET", f"/0ne00000000/registrations/pump-7/operations/{await pump.operation()}"),
        401,
        401002,
    )


async def test_an_unknown_operation(site: Site, pump: Pump) -> None:
    await pump.register()
    refused(await pump.call("GET", f"{PUMP}/operations/5.0.0"), 404, 404203)
    assert site.refusal().operation == "poll"


async def test_a_disabled_enrollment_is_an_outcome(site: Site) -> None:
    leaf = await enroll_certificate(site, "pump-7", provisioningStatus="disabled")
    pump = Pump(site, leaf)
    answer = await pump.call("GET", f"{PUMP}/operations/{await pump.operation()}")
    assert (answer.status, answer.json()["status"]) == (200, "disabled")


@pytest.mark.parametrize(
    ("body", "query", "status"),
    [
        (b"{", VERSION, 400),
        (b"[]", VERSION, 400),
        ({"registrationId": "pump-8"}, VERSION, 400),
        ({"csr": "AAAA"}, VERSION, 400),
        (b"", "", 400),
        (b"", "api-version=latest", 400),
    ],
)
async def test_what_cannot_be_read(site: Site, pump: Pump, body: object, query: str, status: int) -> None:
    refused(await pump.register(body, query=query), status, status * 1000)
    decision = site.refusal()
    assert (decision.operation, decision.subject) == ("register", "pump-7")


async def test_a_body_over_the_limit(site: Site, pump: Pump) -> None:
    assert (await pump.register(b" " * MAX_BODY)).status == 202
    answer = await pump.register(b" " * (MAX_BODY + 1))
    assert str(MAX_BODY) in refused(answer, 400, 400000)
    assert answer.headers["connection"] == "close"
    assert site.refusal().subject == "pump-7"


async def test_an_id_that_is_too_long(site: Site, pump: Pump) -> None:
    answer = await pump.call("PUT", f"/{ID_SCOPE}/registrations/{'a' * 129}/register")
    assert "128" in refused(answer, 400, 400000)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", f"/{ID_SCOPE}/registrations", ""),
        ("PUT", f"/{ID_SCOPE}/registrations/", ""),
        ("PUT", f"/{ID_SCOPE}/registrations//register", ""),
        ("GET", f"/{ID_SCOPE}/registrations//operations/5.0.0", ""),
        ("GET", f"{PUMP}/register", "PUT"),
        ("PUT", f"{PUMP}/operations/5.0.0", "GET"),
        ("GET", PUMP, "POST"),
        ("PUT", f"/{ID_SCOPE}/registrations/register", "POST"),
    ],
)
async def test_methods_that_a_path_does_not_have(
    site: Site, pump: Pump, method: str, path: str, allow: str
) -> None:
    """Also what is left of a path when the registration id is empty [dps 8]."""
    answer = await pump.call(method, path)
    refused(answer, 405, 405000)
    assert answer.headers["allow"] == allow
    assert failed_checks(site.refusal()) == ["allowed"]


@pytest.mark.parametrize("rest", ["onboarding/getDeviceUpdate", "operations", "register/now", "other"])
async def test_paths_that_are_not_there(site: Site, pump: Pump, rest: str) -> None:
    refused(await pump.call("POST", f"{PUMP}/{rest}"), 404, 404000)


async def test_the_service_api_keeps_its_own_paths(site: Site, leaf: Certificate) -> None:
    """`registrations` is its first word, and may be an id there too."""
    service = DpsHttp(site.provisioner)
    device = DpsDeviceHttp(DeviceApi(site.provisioner, pace="fast"))
    caller = Caller(HttpAdapter(service, device, otherwise=service))
    for path in ("/registrations/registrations", "/enrollments/registrations"):
        answer = await caller.call("GET", path, query="api-version=2021-10-01")
        assert answer.status == 401
        assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize("limits", [POLLED_OUT])
async def test_too_many_polls(site: Site, pump: Pump, limits: RateLimits) -> None:
    path = f"{PUMP}/operations/{await pump.operation()}"
    assert (await pump.call("GET", path)).status == 200
    answer = await pump.call("GET", path)
    refused(answer, 429, 429001)
    assert answer.headers["retry-after"] == "10"
    assert failed_checks(site.refusal()) == ["rate"]


@pytest.mark.parametrize("limits", [REGISTERED_OUT])
async def test_who_is_not_let_in_uses_up_nothing(
    site: Site, leaf: Certificate, pump: Pump, limits: RateLimits
) -> None:
    for _ in range(3):
        refused(await Pump(site, certificate("pump-7")).register(), 401, 401002)
    assert (await pump.register()).status == 202
    refused(await pump.register(), 429, 429001)


@pytest.mark.parametrize("limits", [RateLimits(service_operations=Rate(1, 60))])
async def test_too_many_calls_of_the_service_api(site: Site, limits: RateLimits) -> None:
    service = DpsHttp(site.provisioner)
    token = make_token("localhost", site.dps_owner.primary_key, site.seconds + 60, site.dps_owner.name)
    caller = Caller(HttpAdapter(service, otherwise=service), token=token)
    statuses = []
    for _ in range(2):
        answer = await caller.call("GET", "/registrations/pump-7", query="api-version=2021-10-01")
        statuses.append(answer.status)
    assert statuses == [404, 429]
    assert answer.headers["retry-after"] == "60"
    assert failed_checks(site.refusal()) == ["rate"]
