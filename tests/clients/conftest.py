"""What tests with Microsoft's clients share: the shell of a user who has run `eval "$(moorage env)"`."""

from __future__ import annotations

import gc
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from moorage.cli.ports import Port, probe
from tests.conftest import RunningServer, free_address
from tests.support import node
from tests.support.certificates import CertificateFiles, certificate, openssl_certificate
from tests.support.events import Telemetry
from tests.support.node_worker import NodeClient, NodeWorker
from tests.support.services import Dps, Hub

# Warnings are errors here as everywhere, but for what the SDKs cannot help.
OF_THE_SDKS = (
    # azure-iot-device offers exactly TLS 1.2, by the constant that Python has deprecated.
    r"ignore:ssl\.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning",
    # paho forgets the pair of sockets that wakes its thread whenever a client connects again.
    r"ignore:unclosed <socket.*laddr=\('127\.0\.0\.1', \d+\)(, raddr=\('127\.0\.0\.1', \d+\))?>:ResourceWarning",
)

EnterShell = Callable[[RunningServer], Mapping[str, str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in OF_THE_SDKS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture
def enter_shell(monkeypatch: pytest.MonkeyPatch) -> EnterShell:
    """Sets a server's environment for the clients in this process; they find the CA there."""

    def enter(server: RunningServer) -> Mapping[str, str]:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        return server.env

    return enter


@pytest.fixture
def env(server: RunningServer, enter_shell: EnterShell) -> Mapping[str, str]:
    """The shared server's environment, entered."""
    return enter_shell(server)


@pytest.fixture
def dps(env: Mapping[str, str]) -> Dps:
    return Dps(env)


@pytest.fixture
def hub(env: Mapping[str, str]) -> Hub:
    return Hub(env)


@pytest.fixture
def device_id(request: pytest.FixtureRequest) -> str:
    """A name for what the test makes, told from that of every other test; room is left in a common name."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.originalname.lower().removeprefix("test_"))
    return f"{name[:43].strip('-')}-{secrets.token_hex(3)}"


@pytest.fixture
def device_certificate(tmp_path: Path, device_id: str) -> CertificateFiles:
    """A self-signed certificate whose common name is `device_id`."""
    return certificate(tmp_path, device_id)


@pytest.fixture(scope="session")
def quickstart_certificate(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    """The quickstart's own: RSA-4096, `usr_cert`, common name Python-device-01, pass phrase 1234."""
    return openssl_certificate(tmp_path_factory.mktemp("openssl"), "Python-device-01", pass_phrase="1234")


@pytest.fixture(autouse=True)
def _port443(request: pytest.FixtureRequest) -> None:
    """Clients over WebSockets cannot leave port 443: where it is not to be had, say so and what to do."""
    marked = request.node.get_closest_marker("port443")
    if marked is not None and probe(free_address(), 443) is Port.NOT_PERMITTED:
        pytest.fail(
            "port 443 may not be bound here, and clients over WebSockets cannot use another one: "
            "allow it (sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443), "
            "or leave these tests out with -m 'not port443'"
        )


@pytest.fixture(autouse=True)
def _node(request: pytest.FixtureRequest) -> None:
    """Clients for Node come from npm: where one is missing, say so and what to do."""
    if request.node.get_closest_marker("node") is not None and (missing := node.missing()):
        pytest.fail(
            f"{', '.join(missing)} not found: install Node 20 with npm and run make venv, "
            "or leave these tests out with -m 'not node'"
        )


@pytest.fixture(scope="module", autouse=True)
def _forgotten_sockets() -> Iterator[None]:
    """The collector finds here, where their warnings are allowed, the sockets that paho forgets; not in another room's
    test, nor after the last one, where a warning is an error whatever a test may have allowed."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def telemetry(server: RunningServer) -> Iterator[Telemetry]:
    """What comes in at the shared server."""
    reader = Telemetry(server.env)
    yield reader
    reader.stop()


@pytest.fixture(scope="session")
def worker(server: RunningServer) -> Iterator[NodeWorker]:
    """Clients for Node at the shared server, in one process."""
    process = NodeWorker(server.env)
    yield process
    process.stop()


@pytest.fixture
def own_groups(hub: Hub, device_id: str) -> Iterator[tuple[str, str]]:
    """Two consumer groups of the test's own: an owner would drive all other readers out of a shared one."""
    names = f"a-{device_id[-40:]}", f"b-{device_id[-40:]}"
    paths = [f"/moorage/v1/hubs/{hub.host}/consumerGroups/{name}" for name in names]
    for path in paths:
        assert hub.call("PUT", path).status == 201
    yield names
    for path in paths:
        hub.call("DELETE", path)


class ConnectNode(Protocol):
    def __call__(self, login: str, transport: str = ..., **asked: Any) -> NodeClient:
        """A connected device or module by its connection string; `transport` is Mqtt or MqttWs."""
        ...


@pytest.fixture
def connect_node(worker: NodeWorker, device_id: str) -> Iterator[ConnectNode]:
    """Devices at the shared server, closed when the test ends."""
    opened: list[NodeClient] = []

    def connect(login: str, transport: str = "Mqtt", **asked: Any) -> NodeClient:
        device = NodeClient(worker, "device", f"{device_id}-{len(opened)}")
        device("open", login=login, transport=transport, **asked)
        opened.append(device)
        return device

    yield connect
    for device in opened:
        device("close")


OpenService = Callable[[str], NodeClient]


@pytest.fixture
def open_service(worker: NodeWorker, env: Mapping[str, str], device_id: str) -> Iterator[OpenService]:
    """Back ends at the shared server that talk to devices, by Amqp or AmqpWs; closed when the test ends."""
    opened: list[NodeClient] = []

    def open(transport: str) -> NodeClient:
        service = NodeClient(worker, "service", f"service-{device_id}-{len(opened)}")
        service("open", login=env["IOTHUB_CONNECTION_STRING"], transport=transport)
        opened.append(service)
        return service

    yield open
    for service in opened:
        service("close")
