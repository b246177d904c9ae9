"""`moorage swarm` against a real server: small ones, to see that they do and undo what they say."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from moorage.cli.rest import HUB_API_VERSION, Service
from moorage.cli.swarm.crowd import Crowd, Pace
from moorage.cli.swarm.device import Member
from moorage.cli.swarm.figures import Figures
from moorage.cli.swarm.links import Server, Tls
from moorage.cli.target import Login
from moorage.credentials.sas import new_key
from tests.conftest import RunningServer, StartServer, servers
from tests.support.commands import moorage, said

pytestmark = pytest.mark.clients

PACE = Pace(ramp=1000, rate=100, duration=0.5, message_size=128, in_flight=2, under_way=50, come_back=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One of its own: what a swarm sends is not for the readers of other tests to wade through."""
    with servers(tmp_path_factory.mktemp("swarm")) as start:
        yield start()


def swarm(server: RunningServer, *options: str) -> dict[str, Any]:
    summary = said(moorage(server, "swarm", "--output", "json", *options))
    assert isinstance(summary, dict)
    return summary


def devices(server: RunningServer, prefix: str) -> list[str]:
    listed = said(moorage(server, "hub", "device-identity", "list"))
    return [each["deviceId"] for each in listed if each["deviceId"].startswith(prefix)]


@pytest.mark.parametrize("attestation", ["x509-group", "symmetric-key", "none"])
def test_all_devices_come_send_and_leave_nothing_behind(server: RunningServer, attestation: str) -> None:
    prefix = f"many-{attestation}"
    told = swarm(
        server,
        *("--devices", "20", "--rate", "100", "--duration", "1", "--prefix", prefix),
        *("--attestation", attestation),
    )
    assert told["connected"] == told["connections"] == 20
    assert told["registered"] == (0 if attestation == "none" else 20)
    assert told["failures"] == []
    assert 80 <= told["acknowledged"] <= 130
    assert told["acknowledgementMilliseconds"]["p50"] > 0
    assert devices(server, prefix) == []
    groups = said(moorage(server, "dps", "enrollment-group", "list"))
    assert prefix not in [each["enrollmentGroupId"] for each in groups]
    shown = moorage(server, "dps", "registration", "show", "--rid", f"{prefix}-00001")
    assert "HTTP 404" in shown.stderr


def test_what_a_swarm_sends_can_be_read_and_its_devices_kept(server: RunningServer) -> None:
    options = (
        "--devices",
        "3",
        "--rate",
        "max",
        "--duration",
        "1",
        "--in-flight",
        "1",
        "--message-size",
        "200",
    )
    told = swarm(server, *options, "--prefix", "kept", "--keep", "--attestation", "none")
    assert devices(server, "kept") == ["kept-00001", "kept-00002", "kept-00003"]
    command = (
        "hub",
        "monitor-events",
        "-d",
        "kept-00002",
        "--enqueued-time",
        "0",
        "--timeout",
        "2",
        "-o",
        "json",
    )
    text = moorage(server, *command).stdout
    event, _ = json.JSONDecoder().raw_decode(text)
    assert event["event"]["payload"]["sequence"] == 1
    assert told["acknowledged"] >= text.count('"sequence"') / 3
    for name in devices(server, "kept"):
        moorage(server, "hub", "device-identity", "delete", "-d", name)


def test_a_swarm_goes_on_after_its_server_was_killed(start_server: StartServer) -> None:
    server = start_server()
    command = (
        *("swarm", "--devices", "5", "--rate", "50", "--duration", "15", "--attestation", "none"),
        *("--output", "json", "--keep"),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "moorage", *command],
        env=server.shell,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:  # one comes every five seconds
        if "connected 5 of 5" in line:
            break
    server.kill()
    assert server.data is not None
    again = start_server(data=server.data, address=server.address)
    output, _ = process.communicate(timeout=60)
    told = json.loads(output)
    assert told["connected"] == 5, "all came back"
    assert told["lost"] == 5
    assert {each["stage"] for each in told["failures"]} >= {"holding"}
    again.stop()


async def test_failures_are_counted_by_their_reason(server: RunningServer) -> None:
    login = Login.parse(server.env["IOTHUB_CONNECTION_STRING"], server.env["SSL_CERT_FILE"])
    right, service = new_key(32), Service(login, HUB_API_VERSION)
    keys = {"primaryKey": right, "secondaryKey": new_key(32)}
    document = {"deviceId": "let-in", "authentication": {"type": "sas", "symmetricKey": keys}}
    await asyncio.to_thread(service.put, "/devices/let-in", document)
    members = [
        Member(name="let-in", key=right),
        Member(name="let-in", key=new_key(32)),
        Member(name="unheard-of", key=new_key(32)),
    ]
    seen = await run(login, members)
    assert seen.failures == {("connecting", "CONNACK 5, not authorized"): 2}
    assert seen.acknowledged > 0
    await asyncio.to_thread(service.delete, "/devices/let-in", if_match='"*"')


async def test_a_server_that_is_not_the_verified_one_gets_nothing(server: RunningServer) -> None:
    login = Login.parse(server.env["IOTHUB_CONNECTION_STRING"], server.env["SSL_CERT_FILE"])
    seen = await run(login, [Member(name="x", key=new_key(32))], other_certificate=True)
    assert list(seen.failures) == [("connecting", "TLS: the server shows another certificate than at first")]


@pytest.mark.parametrize("private_calls", [True, False])
async def test_both_ways_to_call_openssl_connect(server: RunningServer, private_calls: bool) -> None:
    login = Login.parse(server.env["IOTHUB_CONNECTION_STRING"], server.env["SSL_CERT_FILE"])
    seen = await run(login, [Member(name="x", key=new_key(32))], private_calls=private_calls)
    assert list(seen.failures) == [("connecting", "CONNACK 5, not authorized")]


async def run(
    login: Login,
    members: list[Member],
    *,
    other_certificate: bool = False,
    private_calls: bool | None = None,
) -> Figures:
    host = await asyncio.to_thread(Server, login.host, login.trust())
    if other_certificate:
        host.certificate = b"another"
    crowd = Crowd(members, PACE, Tls(private_calls=private_calls), {login.host: host}, None)
    await crowd.run()
    return crowd.figures
