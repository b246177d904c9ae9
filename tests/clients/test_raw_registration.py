"""Registration as C, C#, Java, IoT Edge and people without an SDK do it, for whom there is no package to run here."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from moorage.credentials.sas import make_token
from moorage.wire.amqp import AmqpValue, ClientSasl, Data, Message
from tests.conftest import StartServer
from tests.support.amqp_device import RegisteringDevice, tls
from tests.support.certificates import CertificateFiles
from tests.support.decisions import decisions, failed_checks, refusal
from tests.support.services import Dps, Hub

pytestmark = pytest.mark.clients

FAR = 4_102_444_800  # seconds: the year 2100, for tokens


class Style(NamedTuple):
    """In what the AMQP of one of Microsoft's programs differs from another's [dps 9.2, 9.3]."""

    address: str
    correlation_id: str | None
    register_body: Data | AmqpValue | None
    poll_body: Data | AmqpValue | None
    requests_first: bool = False


STYLES = {
    "C": Style("amqps://{host}/{path}", None, Data.of(b'{"registrationId":"{id}"}'), Data.of(b"{}"), True),
    "C#": Style("{path}", "8e52e5dc-90a7-44c1-a99c-9f715b96c850", Data.of(b""), AmqpValue("")),
    "Java": Style("/{path}", None, Data.of(b'{"registrationId":"{id}"}'), None, True),
}


def device(
    env: Mapping[str, str], registration_id: str, style: Style, connection: ssl.SSLSocket, **options: Any
) -> RegisteringDevice:
    path = f"{env['PROVISIONING_IDSCOPE']}/registrations/{registration_id}"
    address = style.address.format(host=env["PROVISIONING_HOST"], path=path)
    return RegisteringDevice(connection, address, requests_first=style.requests_first, **options)


def content(message: Message | None) -> Any:
    assert message is not None
    assert isinstance(message.body, Data), "C takes nothing else"
    assert len(message.body.sections) == 1
    return json.loads(message.payload)


@pytest.mark.parametrize("program", STYLES)
@pytest.mark.parametrize("proof", ["certificate", "key"])
def test_registration_over_amqp(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
    program: str,
    proof: str,
) -> None:
    style, shown, sasl = STYLES[program], None, None
    if proof == "certificate":
        dps.put_enrollment(device_id, device_certificate[0])
        shown = device_certificate
    else:
        resource = f"{env['PROVISIONING_IDSCOPE']}/registrations/{device_id}"
        token = make_token(resource, dps.put_key_enrollment(device_id)[0], FAR, "registration")
        sasl = ClientSasl.plain(resource, token)
    register = {"iotdps-operation-type": "iotdps-register", "iotdps-forceRegistration": False}
    body = style.register_body
    if isinstance(body, Data):
        body = Data.of(body.sections[0].replace(b"{id}", device_id.encode()))

    with tls(env["PROVISIONING_HOST"], 5671, env["SSL_CERT_FILE"], shown) as connection:
        pump = device(env, device_id, style, connection, sasl=sasl)
        first = pump.ask(register, body, correlation_id=style.correlation_id).message
        accepted = content(first)
        poll = {
            "iotdps-operation-type": "iotdps-get-operationstatus",
            "iotdps-operation-id": accepted["operationId"],
        }
        second = pump.ask(poll, style.poll_body, correlation_id=style.correlation_id).message

    assert accepted == {"operationId": accepted["operationId"], "status": "assigning"}
    outcome = content(second)
    assert outcome["status"] == "assigned"
    assert outcome["registrationState"]["assignedHub"] == env["IOTHUB_HOSTNAME"]
    for message in (first, second):
        assert message is not None
        assert message.properties is not None
        assert message.properties.correlation_id == style.correlation_id
    assert decisions(hub, device_id)[-1]["door"] == "amqp"


def test_a_key_that_does_not_hold_is_told_to_the_request(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str
) -> None:
    dps.put_key_enrollment(device_id)
    resource = f"{env['PROVISIONING_IDSCOPE']}/registrations/{device_id}"
    token = make_token(resource, "c2VjcmV0IG9mIGEgZGV2aWNl", FAR, "registration")

    with tls(env["PROVISIONING_HOST"], 5671, env["SSL_CERT_FILE"]) as connection:
        pump = device(env, device_id, STYLES["Java"], connection, sasl=ClientSasl.plain(resource, token))
        error = pump.ask({"iotdps-operation-type": "iotdps-register"}, Data.of(b"")).error

    assert error is not None
    assert (error.condition, json.loads(error.description or "")["errorCode"]) == (
        "amqp:unauthorized-access",
        401000,
    )
    decision = refusal(hub, device_id)
    assert (decision["operation"], failed_checks(decision)) == ("register", ["signature"])


def test_a_rejection_says_in_json_why(env: Mapping[str, str], hub: Hub, device_id: str) -> None:
    """C# takes the status from the code in it."""
    with tls(env["PROVISIONING_HOST"], 5671, env["SSL_CERT_FILE"]) as connection:
        pump = device(env, device_id, STYLES["C#"], connection)
        error = pump.ask({"iotdps-operation-type": "iotdps-register"}, Data.of(b"")).error

    assert error is not None
    assert error.condition == "amqp:unauthorized-access"
    detail = json.loads(error.description or "")
    assert detail["errorCode"] == 401002
    assert refusal(hub, device_id)["trackingId"] == detail["trackingId"]


# --- HTTPS --------------------------------------------------------------------------------------------------


class Https:
    """A device on one connection, with a certificate or a token."""

    def __init__(
        self,
        env: Mapping[str, str],
        registration_id: str,
        certificate: CertificateFiles | None = None,
        *,
        name: str | None = None,
    ) -> None:
        """`name` is what the device calls the server, whose address it knows."""
        trust = ssl.create_default_context(cafile=env["SSL_CERT_FILE"])
        if certificate is not None:
            trust.load_cert_chain(*certificate)
        _, _, port = _login(env)["HostName"].partition(":")
        host, door = env["PROVISIONING_HOST"], int(port or 443)
        self.connection = http.client.HTTPSConnection(name or host, 443 if name else door, context=trust)
        raw = socket.create_connection((host, door), timeout=30)
        self.connection.sock = trust.wrap_socket(raw, server_hostname=name or host)
        self.path = f"/{env['PROVISIONING_IDSCOPE']}/registrations/{registration_id}"

    def call(
        self, method: str, rest: str, body: str | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, Any]:
        headers = {"Content-Type": "application/json", "User-Agent": "iotedge/1.5", **headers}
        self.connection.request(method, f"{self.path}{rest}?api-version=2021-06-01", body, headers)
        response = self.connection.getresponse()
        return response, json.loads(response.read())


def _login(env: Mapping[str, str]) -> dict[str, str]:
    text = env["PROVISIONING_SERVICE_CONNECTION_STRING"]
    return dict(part.split("=", 1) for part in text.split(";"))


@contextmanager
def https(
    env: Mapping[str, str],
    registration_id: str,
    certificate: CertificateFiles | None = None,
    *,
    name: str | None = None,
) -> Iterator[Https]:
    device = Https(env, registration_id, certificate, name=name)
    try:
        yield device
    finally:
        device.connection.close()


def test_iot_edge_registers_over_https(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    """It takes 202 alone for the request, and needs `registrationState` and its id in every poll [dps 8]."""
    dps.put_enrollment(device_id, device_certificate[0])

    with https(env, device_id, device_certificate) as edge:
        response, accepted = edge.call("PUT", "/register", json.dumps({"registrationId": device_id}))
        polled, outcome = edge.call("GET", f"/operations/{accepted['operationId']}")

    assert (response.status, accepted["status"]) == (202, "assigning")
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Location"].endswith(f"{edge.path}/register")
    assert polled.status == 200
    state = outcome["registrationState"]
    assert (state["status"], state["registrationId"], state["deviceId"]) == ("assigned", device_id, device_id)
    assert not {"tpm", "symmetricKey"} & set(state), "an empty object is a parse error there"
    assert decisions(hub, device_id)[-1]["door"] == "https"


def test_a_device_registers_under_the_global_name_and_the_service_s_own(
    env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles
) -> None:
    """The certificate is good for both, and no name keeps the device API away [dps 2.1]."""
    dps.put_enrollment(device_id, device_certificate[0])

    for name in ("global.azure-devices-provisioning.net", "localhost", env["PROVISIONING_HOST"]):
        with https(env, device_id, device_certificate, name=name) as device:
            response, accepted = device.call("PUT", "/register", "{}")
            _, outcome = device.call("GET", f"/operations/{accepted['operationId']}")
        assert (response.status, outcome["status"]) == (202, "assigned"), name
        assert response.headers["Location"] == f"https://{name}{device.path}/register"


def test_a_device_registers_and_looks_itself_up_by_its_key(
    env: Mapping[str, str], dps: Dps, device_id: str
) -> None:
    """As the helper of `az iot central` asks."""
    key = dps.put_key_enrollment(device_id)[1]
    token = make_token(f"{env['PROVISIONING_IDSCOPE']}/registrations/{device_id}", key, FAR, "registration")

    with https(env, device_id) as device:
        never, _ = device.call("POST", "", "{}", Authorization=token)
        device.call("PUT", "/register", "", Authorization=token)
        found, state = device.call("POST", "", "{}", Authorization=token)
        stranger, body = device.call("POST", "", "{}")

    assert (never.status, found.status, stranger.status) == (404, 200, 401)
    assert state == dps.get(f"/registrations/{device_id}")
    assert body["trackingId"] == stranger.headers["x-ms-request-id"]


def test_a_content_encoding_that_is_none(
    env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles
) -> None:
    """The calls of curl in Azure's documentation send it [dps 8]."""
    dps.put_enrollment(device_id, device_certificate[0])
    body = json.dumps({"registrationId": device_id})

    with https(env, device_id, device_certificate) as device:
        response, accepted = device.call("PUT", "/register", body, **{"Content-Encoding": "utf-8"})

    assert (response.status, accepted["status"]) == (202, "assigning")


def test_a_device_that_polls_too_often_is_told_to_wait(
    start_server: StartServer, device_id: str, device_certificate: CertificateFiles
) -> None:
    env = start_server("--in-memory", "--limits", "azure").env
    Dps(env).put_enrollment(device_id, device_certificate[0])

    with https(env, device_id, device_certificate) as device:
        _, accepted = device.call("PUT", "/register")
        polls = [device.call("GET", f"/operations/{accepted['operationId']}") for _ in range(20)]

    statuses = [response.status for response, _ in polls]
    assert statuses[:5] == [200] * 5
    assert statuses[-1] == 429, "twenty polls take less than the thirty seconds that they would need"
    response, body = polls[-1]
    assert response.headers["Retry-After"] in ("1", "2")
    assert body["errorCode"] == 429001
