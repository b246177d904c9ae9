"""Bad input, end to end: each gets a clear answer, the one that Azure gives where it can, and nothing is lost."""

from __future__ import annotations

import asyncio
import datetime
import socket
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub import EventHubConsumerClient
from azure.eventhub.exceptions import ConnectionLostError
from azure.iot.device.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from moorage.app import Server
from moorage.config import Config
from moorage.credentials.sas import make_token, new_key
from moorage.wire.mqtt import packets
from tests.conftest import RunningServer, StartServer, free_address
from tests.support.certificates import CertificateFiles, certificate
from tests.support.decisions import decisions, failed_checks, refusal
from tests.support.devices import SasDevice, device_client, put_device, register, sas_device
from tests.support.events import consumer_options
from tests.support.mqtt import device_token
from tests.support.services import Dps, Https, Hub
from tests.support.shell import Shell, start_in_vain
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

DAY = datetime.timedelta(days=1)
KIB = 1024


@pytest.fixture
def shell(server: RunningServer) -> Shell:
    return Shell(server)


# --- Devices that are not let in, explained ---------------------------------------------------------------


def explained(
    shell: Shell, env: Mapping[str, str], device_id: str, files: CertificateFiles, **options: Any
) -> str:
    """What `moorage explain` says of a registration that has to fail."""
    with pytest.raises(ClientError):
        register(env, device_id, files, **options)
    return shell.moorage("explain", device_id, "--top", "1")


def test_a_certificate_with_another_common_name(
    shell: Shell, env: Mapping[str, str], dps: Dps, device_id: str, tmp_path: Path
) -> None:
    files = certificate(tmp_path, "Somebody-Else")
    dps.put_enrollment(device_id, files[0])

    text = explained(shell, env, device_id, files)

    assert "REFUSED" in text
    assert "FAILED  certificate common name" in text
    assert "held    certificate enrolled" in text
    assert f"remedy      Issue a certificate with the subject CN={device_id}" in text


def test_an_unknown_registration_id(
    shell: Shell, env: Mapping[str, str], device_id: str, device_certificate: CertificateFiles
) -> None:
    text = explained(shell, env, device_id, device_certificate)

    assert "FAILED  enrollment exists" in text
    assert "remedy      Create an individual enrollment" in text


def test_a_certificate_enrolled_under_another_registration_id(
    shell: Shell, env: Mapping[str, str], dps: Dps, device_id: str, tmp_path: Path
) -> None:
    files = certificate(tmp_path, f"right-{device_id}")
    dps.put_enrollment(f"right-{device_id}", files[0])

    text = explained(shell, env, device_id, files)

    assert f"This certificate is enrolled as 'right-{device_id}': register under that id." in text


def test_an_unknown_id_scope(
    shell: Shell, env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])

    text = explained(shell, env, device_id, device_certificate, id_scope="0ne12345678")

    assert "FAILED  id scope" in text
    assert f"remedy      Use the id scope {env['PROVISIONING_IDSCOPE']}." in text


def test_a_disabled_enrollment(
    shell: Shell, env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0], provisioningStatus="disabled")

    text = explained(shell, env, device_id, device_certificate)

    assert "FAILED  enrollment enabled" in text
    assert "remedy      Set its provisioningStatus to enabled." in text


def test_an_expired_certificate(
    shell: Shell, env: Mapping[str, str], dps: Dps, device_id: str, tmp_path: Path
) -> None:
    files = certificate(tmp_path, device_id, not_before=-2 * DAY, not_after=-DAY)
    dps.put_enrollment(device_id, files[0])

    text = explained(shell, env, device_id, files)

    assert "FAILED  certificate validity: the certificate expired at" in text
    assert "remedy      Issue and enroll a new certificate" in text


@pytest.mark.parametrize("what", ["pass phrase", "key file", "missing file"])
def test_a_key_that_cannot_be_used(
    shell: Shell,
    hub: Hub,
    quickstart_certificate: CertificateFiles,
    tmp_path: Path,
    device_id: str,
    what: str,
) -> None:
    """Known before a connection is opened: the device program says so, and the server hears nothing."""
    good, key = quickstart_certificate
    other = certificate(tmp_path, device_id)[1]
    key = {"pass phrase": key, "key file": other, "missing file": tmp_path / "missing.pem"}[what]

    done = shell.example(
        DPS_X509_REGISTRATION_ID=device_id,
        X509_CERT_FILE=str(good),
        X509_KEY_FILE=str(key),
        PASS_PHRASE="wrong" if what == "pass phrase" else "1234",
    )

    assert done.returncode == 1
    assert str(key) in done.stderr.splitlines()[-1]
    assert decisions(hub, device_id) == []


# --- Enrollments that are not taken -----------------------------------------------------------------------


def create(device_id: str, file: Path) -> list[str]:
    options = ["--enrollment-id", device_id, "--attestation-type", "x509", "--certificate-path", str(file)]
    return ["dps", "enrollment", "create", *options]


@pytest.mark.parametrize("content", [b"", b"not a certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_that_is_no_certificate(
    shell: Shell, dps: Dps, device_id: str, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "device.pem"
    file.write_bytes(content)

    said = shell.refused(*create(device_id, file))

    assert str(file) in said
    assert dps.call("GET", f"/enrollments/{device_id}").status == 404


def test_a_certificate_in_der_is_as_good(
    shell: Shell, env: Mapping[str, str], device_id: str, device_certificate: CertificateFiles, tmp_path: Path
) -> None:
    file = tmp_path / "device.cer"
    made = x509.load_pem_x509_certificate(device_certificate[0].read_bytes())
    file.write_bytes(made.public_bytes(Encoding.DER))

    shell.moorage(*create(device_id, file))

    assert register(env, device_id, device_certificate).status == "assigned"


@pytest.mark.parametrize("bad", ["white space", "semi;colon", "ümlaut", "a/b", "x" * 129])
def test_an_enrollment_id_with_illegal_characters(
    shell: Shell, device_certificate: CertificateFiles, bad: str
) -> None:
    said = shell.refused(*create(bad, device_certificate[0]))

    assert "registrationId" in said
    assert "(HTTP 400)" in said


def test_a_duplicate_enrollment(
    shell: Shell, dps: Dps, device_id: str, device_certificate: CertificateFiles, tmp_path: Path
) -> None:
    etag = dps.put_enrollment(device_id, device_certificate[0])["etag"]
    other = certificate(tmp_path, device_id, name="other")

    said = shell.refused(*create(device_id, other[0]))

    assert said == f"enrollment '{device_id}' exists already (HTTP 409)"
    assert dps.get(f"/enrollments/{device_id}")["etag"] == etag


def test_a_stale_etag(
    shell: Shell, dps: Dps, hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    stale = dps.put_enrollment(device_id, device_certificate[0])["etag"]
    shell.moorage("dps", "enrollment", "update", "--enrollment-id", device_id, "--device-id", "newer")
    update = ["dps", "enrollment", "update", "--enrollment-id", device_id, "--device-id", "older"]

    assert "(HTTP 412)" in shell.refused(*update, "--etag", stale)
    delete = ["dps", "enrollment", "delete", "--enrollment-id", device_id]
    assert "(HTTP 412)" in shell.refused(*delete, "--etag", stale)

    assert dps.get(f"/enrollments/{device_id}")["deviceId"] == "newer"


# --- Callers that are not let in --------------------------------------------------------------------------


BAD_TOKENS: dict[str, tuple[Callable[[Https], str], str]] = {
    "none": (lambda service: "", "token present"),
    "not a token": (lambda service: "Bearer abc", "token form"),
    "a wrong key": (lambda service: service.token(key=new_key()), "signature"),
    "expired": (lambda service: service.token(lifetime=-86_400), "expiry"),
    "an unknown policy": (lambda service: service.token(policy="nobody"), "policy known"),
    "of another host": (
        lambda service: make_token(
            "elsewhere.example.net", service.key, int(time.time()) + 600, service.policy
        ),
        "audience",
    ),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
@pytest.mark.parametrize("service", [Dps, Hub])
def test_a_bad_token_of_a_service(
    env: Mapping[str, str],
    hub: Hub,
    device_id: str,
    kind: str,
    service: Callable[[Mapping[str, str]], Https],
) -> None:
    make, check = BAD_TOKENS[kind]
    caller = service(env)
    path = f"/enrollments/{device_id}" if isinstance(caller, Dps) else f"/devices/{device_id}"

    answer = caller.call("GET", path, headers={"Authorization": make(caller)})

    assert answer.status == 401
    subject = device_id if isinstance(caller, Dps) else f"GET {path}"
    decision = refusal(hub, subject)
    assert failed_checks(decision) == [check]
    assert answer.headers["x-ms-request-id"] == decision["trackingId"]


def policy_key(server: RunningServer, name: str) -> str:
    """A policy's key, which no API tells yet: from the records themselves."""
    assert server.data is not None
    records = f"file:{server.data / 'records.sqlite3'}?mode=ro"
    with closing(sqlite3.connect(records, uri=True)) as db:
        query = "SELECT json_extract(document, '$.primaryKey') FROM shared_access_policy WHERE key = ?"
        (key,) = db.execute(query, (name,)).fetchone()
    assert isinstance(key, str)
    return key


@pytest.mark.parametrize(
    ("policy", "method", "path"),
    [
        ("service", "GET", "/devices/{device}"),
        ("registryRead", "PUT", "/devices/{device}"),
        ("registryRead", "DELETE", "/devices/{device}"),
        ("registryReadWrite", "GET", "/twins/{device}"),
        ("device", "GET", "/statistics/devices"),
    ],
)
def test_a_policy_without_the_right(
    server: RunningServer, hub: Hub, device_id: str, policy: str, method: str, path: str
) -> None:
    etag = put_device(hub, device_id)["etag"]
    token = hub.token(policy=policy, key=policy_key(server, policy))
    path = path.format(device=device_id)

    answer = hub.call(
        method, path, {"deviceId": device_id}, headers={"Authorization": token, "If-Match": '"*"'}
    )

    assert answer.status == 401
    assert answer.headers["iothub-errorcode"] == "IotHubUnauthorizedAccess"
    assert failed_checks(refusal(hub, f"{method} {path}")) == ["right"]
    assert hub.get(f"/devices/{device_id}")["etag"] == etag


def test_a_policy_that_may_not_read_events(server: RunningServer, env: Mapping[str, str], hub: Hub) -> None:
    login = f"Endpoint=sb://{server.address}/;SharedAccessKeyName=device;EntityPath=moorage;SharedAccessKey="
    options = consumer_options(env) | {"conn_str": login + policy_key(server, "device"), "retry_total": 0}

    with (
        EventHubConsumerClient.from_connection_string(**options) as client,
        pytest.raises(ConnectionLostError),  # without the link's own error, which the SDK does not pass on
    ):
        client.get_eventhub_properties()

    decision = refusal(hub, "$management")
    assert failed_checks(decision) == ["claims"]
    assert "'device' does not have the right ServiceConnect" in decision["error"]


# --- Bad peers --------------------------------------------------------------------------------------------


@contextmanager
def raw_device(server: RunningServer, port: int = 8883, receive_buffer: int = 0) -> Iterator[ssl.SSLSocket]:
    """A TLS connection and nothing more."""
    trust = ssl.create_default_context(cafile=server.env["MOORAGE_CA_FILE"])
    with socket.socket() as plain:
        plain.settimeout(20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.connect((server.address, port))
        with trust.wrap_socket(plain, server_hostname=server.address) as connection:
            yield connection


def connect_packet(device: SasDevice, password: str | None = None) -> bytes:
    return packets.encode_connect(
        packets.Connect(
            client_id=device.device_id,
            username=f"{device.hostname}/{device.device_id}/?api-version=2021-04-12",
            password=(password or device_token(device)).encode(),
            clean_session=True,
            keep_alive=60,
            will=None,
        )
    )


def ends(connection: socket.socket) -> bool:
    """Whether the server ends the connection, in whatever way; what it sent before is read off."""
    try:
        while connection.recv(65_536):
            pass
    except (ConnectionError, ssl.SSLError):
        return True
    return True


@contextmanager
def a_good_device(hub: Hub, device_id: str) -> Iterator[Callable[[], None]]:
    """A device beside the bad one: a call sends a message, and sees it acknowledged."""
    with device_client(sas_device(hub, f"{device_id}-good")) as client:
        client.connect()
        yield lambda: client.send_message("still here")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x10\xff\xff\xff\xff\x01",  # a length that runs past four bytes
        b"\x10\xff\xff\xff\x7f",  # 256 MiB announced before CONNECT
        b"\x30\x00",  # PUBLISH before CONNECT
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(1000),
    ],
)
def test_what_is_not_mqtt(server: RunningServer, hub: Hub, device_id: str, garbage: bytes) -> None:
    with a_good_device(hub, device_id) as send, raw_device(server) as connection:
        connection.sendall(garbage)
        assert ends(connection)
        send()


def test_an_oversized_packet(server: RunningServer, hub: Hub, device_id: str) -> None:
    """Ended as soon as its length is known, before its body is sent."""
    device = sas_device(hub, device_id)
    with a_good_device(hub, device_id) as send, raw_device(server) as connection:
        connection.sendall(connect_packet(device))
        assert connection.recv(4) == packets.encode_connack(0, session_present=False)
        connection.sendall(b"\x32\xff\xff\xff\x7f")  # PUBLISH of 256 MiB
        assert ends(connection)
        send()

    assert failed_checks(refusal(hub, device_id)) != []


@pytest.mark.parametrize(("service", "path", "size"), [(Dps, "/enrollments/", 97), (Hub, "/devices/", 1025)])
def test_an_oversized_body(
    env: Mapping[str, str],
    device_id: str,
    service: Callable[[Mapping[str, str]], Https],
    path: str,
    size: int,
) -> None:
    caller = service(env)

    answer = caller.call("PUT", f"{path}{device_id}", raw=b" " * (size * KIB))

    assert answer.status in (400, 413)
    assert str(answer.body).count("limit")
    assert caller.call("GET", f"{path}{device_id}").status == 404


def test_one_bad_device_in_a_tight_loop(server: RunningServer, hub: Hub, device_id: str) -> None:
    """A hundred and twenty connections with a wrong key cost their own sender, and a bounded record of them."""
    device = sas_device(hub, device_id)
    wrong = device_token(device._replace(primary_key=new_key(32)))

    def attempt(_: int) -> bytes:
        with raw_device(server) as connection:
            connection.sendall(connect_packet(device, wrong))
            return connection.recv(4)

    with a_good_device(hub, device_id) as send, ThreadPoolExecutor(4) as pool:
        attempts = [pool.submit(attempt, number) for number in range(120)]
        for _ in range(20):
            send()
        answers = {future.result() for future in attempts}
        send()

    assert answers == {packets.encode_connack(5, session_present=False)}
    assert len(decisions(hub, device_id)) == 100
    with device_client(device) as client:
        client.connect()
        assert client.connected


def test_a_device_that_never_reads(server: RunningServer, hub: Hub, device_id: str) -> None:
    """It asks for its twin over and over; what waits for it is bounded, and then it is ended."""
    desired = {f"key{number}": "x" * 4000 for number in range(7)}
    item = {"id": device_id, "importMode": "create", "properties": {"desired": desired}}
    assert hub.call("POST", "/devices", [item]).status == 200
    keys = hub.get(f"/devices/{device_id}")["authentication"]["symmetricKey"]
    device = SasDevice(hub.host, device_id, keys["primaryKey"], keys["secondaryKey"])
    ask = packets.encode_publish("$iothub/twin/GET/?$rid=1", b"", qos=0)

    def look() -> list[str]:
        return [line for line in server.log.splitlines() if device_id in line and "wait unsent" in line]

    with a_good_device(hub, device_id) as send, raw_device(server, receive_buffer=4 * KIB) as connection:
        connection.sendall(connect_packet(device))
        connection.sendall(packets.encode_subscribe(1, [("$iothub/twin/res/#", 0)]))
        with suppress(ConnectionError):  # ended before it has asked for all
            connection.sendall(ask * 1000)  # 28 MB of answers
        assert eventually(look, what="the device is disconnected, and the log says why")
        send()

    assert hub.get(f"/devices/{device_id}")["connectionState"] == "Disconnected"


@asynccontextmanager
async def impatient_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """A server in this process with short deadlines, which are no options of `moorage up`."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    address = free_address()
    config = Config(
        data=None,
        bind=(address,),
        hub_host=address,
        https_port=8443,
        ca=tmp_path / "ca",
        portal_port=0,
        handshake_timeout=0.3,
        connect_timeout=0.3,
        drain_timeout=0.1,
    )
    server = Server(config)
    await server.start()
    try:
        yield address, ssl.create_default_context(cafile=str(server.ca_file))
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("port", "handshake"),
    [(8883, False), (8883, True), (5671, False), (5671, True), (8443, False), (8443, True)],
)
async def test_a_client_that_connects_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int, handshake: bool
) -> None:
    async with impatient_server(tmp_path, monkeypatch) as (address, trust):
        reader, writer = await asyncio.open_connection(address, port, ssl=trust if handshake else None)
        try:
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


# --- A server that cannot start ---------------------------------------------------------------------------


def up_options(folder: Path, address: str, data: Path) -> list[str]:
    options = ["--bind", address, "--hub-host", address, "--ca", str(folder / "ca"), "--portal-port", "0"]
    return [*options, "--data", str(data)]


def test_ports_that_are_taken(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()

    said = start_in_vain(tmp_path / "run", *up_options(tmp_path, server.address, tmp_path / "data"))

    assert f"cannot listen on {server.address} port 8883" in said


@pytest.mark.port443
def test_port_443_taken_moves_rest_to_8443(start_server: StartServer, device_id: str) -> None:
    address = free_address()
    with socket.create_server((address, 443)):
        server = start_server("--in-memory", address=address)

    assert server.https_port == 8443
    assert f"Port 443 could not be opened (https: cannot listen on {address} port 443" in server.log
    hub = Hub(server.env)
    assert put_device(hub, device_id)["status"] == "enabled"
    assert (
        Shell(server).json("hub", "device-identity", "show", "--device-id", device_id)["status"] == "enabled"
    )


def test_a_data_folder_in_use(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    assert server.data is not None

    said = start_in_vain(tmp_path / "run", *up_options(tmp_path, free_address(), server.data))

    assert f"in use by the server with process id {server.pid}" in said


@pytest.fixture
def stopped(start_server: StartServer, device_id: str) -> RunningServer:
    """A server that has stopped and left a device in its records."""
    server = start_server()
    put_device(Hub(server.env), device_id)
    server.stop()
    return server


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, which says who had it last."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def overwrite(records: Path) -> None:
    records.write_bytes(b"no database at all " * 1000)


def truncate(records: Path) -> None:
    content = records.read_bytes()
    records.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("damage", [overwrite, truncate])
def test_a_damaged_database(stopped: RunningServer, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    assert stopped.data is not None
    records = stopped.data / "records.sqlite3"
    damage(records)
    before = contents(stopped.data)

    said = start_in_vain(tmp_path / "run", *up_options(tmp_path, free_address(), stopped.data))

    assert str(records) in said
    assert "is damaged" in said
    assert "copy" in said
    assert contents(stopped.data) == before


def test_a_newer_database(
    stopped: RunningServer, start_server: StartServer, tmp_path: Path, device_id: str
) -> None:
    assert stopped.data is not None
    records = stopped.data / "records.sqlite3"
    with closing(sqlite3.connect(records)) as db:
        db.execute("INSERT INTO schema_migration VALUES ('9999_future', '9.9.9')")
        db.commit()
    before = contents(stopped.data)

    said = start_in_vain(tmp_path / "run", *up_options(tmp_path, free_address(), stopped.data))

    assert "was written by Moorage 9.9.9" in said
    assert "start that release or a newer one" in said
    assert contents(stopped.data) == before

    with closing(sqlite3.connect(records)) as db:
        db.execute("DELETE FROM schema_migration WHERE name = '9999_future'")
        db.commit()
    again = start_server(data=stopped.data, address=stopped.address)
    assert Hub(again.env).get(f"/devices/{device_id}")["status"] == "enabled"


def test_a_newer_data_folder(stopped: RunningServer, tmp_path: Path) -> None:
    assert stopped.data is not None
    (stopped.data / "FORMAT").write_text("moorage data folder, format 99\n")
    before = contents(stopped.data)

    said = start_in_vain(tmp_path / "run", *up_options(tmp_path, free_address(), stopped.data))

    assert "has format 99" in said
    assert contents(stopped.data) == before


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"\xff\xd8")

    said = start_in_vain(tmp_path / "run", *up_options(tmp_path, free_address(), folder))

    assert "holds other files" in said
    assert contents(folder) == {"holiday.jpg": b"\xff\xd8"}
