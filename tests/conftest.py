"""Real servers for tests: each a process with a data folder and a loopback address of its own, on the real ports."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest
from hypothesis import settings

from moorage.store.folder import RunInfo, find_servers

# The disk and the neighbours decide how long an example takes, not the code under test.
settings.register_profile("moorage", deadline=None)
settings.load_profile("moorage")

START_WITHIN = 30.0  # seconds
STOP_WITHIN = 20.0
PORTS = (8883, 5671, 443, 8443)

# What a shell with another server's environment would bring along.
FOREIGN = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


@dataclass
class RunningServer:
    """`env` is what `moorage env` prints; `runtime` the folder in which only this server is to be found."""

    process: subprocess.Popen[bytes] = field(repr=False)
    address: str
    data: Path | None
    runtime: Path
    log_file: Path
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    endpoints: Mapping[str, str] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def https_port(self) -> int:
        return int(self.endpoints["https"].rpartition(":")[2])

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    @property
    def shell(self) -> dict[str, str]:
        """The environment of a shell in which `moorage` finds this server and no other."""
        return own_environment(self.runtime)

    def stop(self) -> None:
        """As an operator does it, and as it has to end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop within {STOP_WITHIN:g} s:\n{self.log}") from None
        assert code == 0, f"the server ended with {code}:\n{self.log}"
        assert "Traceback" not in self.log, self.log

    def kill(self) -> None:
        """As a crash does it."""
        self.process.kill()
        self.process.wait()


class StartServer(Protocol):
    def __call__(self, *options: str, data: Path | None = ..., address: str | None = ...) -> RunningServer:
        """A server that is ready. `options` are those of `moorage up`; `data` and `address` to start one again."""
        ...


def own_environment(runtime: Path) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    folders = {"XDG_RUNTIME_DIR": runtime, "XDG_DATA_HOME": runtime / "share", "TMPDIR": runtime}
    return environment | {name: str(folder) for name, folder in folders.items()}


def free_address() -> str:
    """A loopback address of which every port of ours is free, so that tests run side by side."""
    for _ in range(1000):
        address = f"127.{random.randint(16, 250)}.{random.randint(0, 250)}.{random.randint(2, 250)}"
        if all(_is_free(address, port) for port in PORTS):
            return address
    raise AssertionError("no loopback address is free")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            return True  # an ordinary user cannot open 443: the server then takes 8443
        except OSError:
            return False
    return True


def _find(process: subprocess.Popen[bytes], runtime: Path) -> RunInfo | None:
    for found in find_servers(folder=runtime / "moorage"):
        if found.pid == process.pid and _is_ready(found.env["MOORAGE_PORTAL_URL"]):
            return found
    return None


def _is_ready(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _start(server: RunningServer) -> None:
    deadline = time.monotonic() + START_WITHIN
    while (found := _find(server.process, server.runtime)) is None:
        try:
            code = server.process.wait(0.01)
        except subprocess.TimeoutExpired:
            assert time.monotonic() < deadline, f"the server is not ready:\n{server.log}"
        else:
            raise AssertionError(f"the server ended with {code} instead of starting:\n{server.log}")
    server.env, server.endpoints = found.env, found.endpoints


@contextmanager
def servers(folder: Path) -> Iterator[StartServer]:
    """A `StartServer` whose servers are stopped, and looked at, when the block ends."""
    started: list[RunningServer] = []

    def start(*options: str, data: Path | None = None, address: str | None = None) -> RunningServer:
        home = folder / f"server-{len(started)}"
        runtime = home / "run"
        runtime.mkdir(parents=True, mode=0o700)
        address = address or free_address()
        data = data or home / "data"
        command = [sys.executable, "-m", "moorage", "up", "--bind", address, "--hub-host", address]
        command += ["--portal-port", "0", "--ca", str(folder / "ca"), *options]
        if "--in-memory" not in options:
            command += ["--data", str(data)]
        log_file = home / "log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=own_environment(runtime)
            )
        server = RunningServer(process, address, data, runtime, log_file)
        started.append(server)
        _start(server)
        return server

    try:
        yield start
        for server in started:
            if server.process.returncode is None:  # the test has neither stopped nor killed it
                server.stop()
    finally:
        for server in started:
            if server.process.poll() is None:
                server.kill()


@pytest.fixture
def default_address() -> Iterator[None]:
    """127.0.0.1 with the ports that a server takes by itself: of all test runs on a machine, one test has it."""
    import fcntl

    with Path(tempfile.gettempdir(), "moorage-test-default-address.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers that live as long as the test."""
    with servers(tmp_path / "servers") as start:
        yield start


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all tests that can share it: they name what they make after themselves."""
    with servers(tmp_path_factory.mktemp("shared")) as start:
        yield start()
