"""The two servers side by side, each a process of its own on the server's core."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fleet import Authority

SERVER_CORE, LOAD_CORE = 0, 1
MOSQUITTO_ADDRESS, MOORAGE_ADDRESSES = "127.9.0.1", ("127.9.0.2", "127.9.0.3")
STOP_SECONDS = 20.0
START_SECONDS = 60.0


class BenchError(Exception):
    """A run that cannot be made or did not go well; the message is for the person at the terminal."""


def on_core(core: int, command: Sequence[str | Path]) -> list[str]:
    """`command` bound to one core. taskset becomes the command itself, so the process id is the command's."""
    return ["taskset", "--cpu-list", str(core), *map(str, command)]


@dataclass
class Server:
    """A running process. `address` is its own loopback address, so that all ports are the real ones."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def resident_kib(self) -> int:
        """What the process holds of memory now, VmRSS."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise BenchError(f"{self.name} has ended; see {self.log}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise BenchError(f"{self.name} did not stop within {STOP_SECONDS:.0f} s of SIGTERM") from None


def start_mosquitto(folder: Path, authority: Authority) -> Server:
    """Debian's mosquitto, storing nothing: mutual TLS, no limits that a load would meet, nothing written."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if binary is None:
        raise BenchError("mosquitto is not installed (Debian: apt install mosquitto)")
    folder.mkdir(parents=True, exist_ok=True)
    authority.issue_server(MOSQUITTO_ADDRESS, folder)
    config = folder / "mosquitto.conf"
    config.write_text(
        f"""\
listener 8883 {MOSQUITTO_ADDRESS}
cafile {folder}/ca.pem
certfile {folder}/server.pem
keyfile {folder}/server.key
require_certificate true
allow_anonymous true
set_tcp_nodelay true
persistence false
log_dest none
max_inflight_messages 0
max_queued_messages 0
"""
        + ("user root\n" if os.geteuid() == 0 else ""),
        encoding="ascii",
    )
    server = _launch("Mosquitto", MOSQUITTO_ADDRESS, [binary, "-c", config], folder / "mosquitto.log")
    _wait_for_port(server, 8883)
    return server


def start_moorage(data: Path, address: str) -> Server:
    """Moorage on a data folder that is new or was used before; not necessarily ready yet."""
    data.mkdir(parents=True, exist_ok=True)
    place = ("--data", data, "--ca", data.parent / "ca", "--bind", address, "--hub-host", address)
    command = moorage("up", "--log-level", "warning", *place)  # Mosquitto's log is switched off
    return _launch("Moorage", address, command, data.parent / f"{data.name}.log")


def moorage(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "moorage", *map(str, arguments)]


def moorage_environment(data: Path) -> dict[str, str]:
    """Waits until the server of this data folder is ready; what `moorage env` then says."""
    subprocess.run(
        moorage("wait", "--data", data, "--timeout", str(int(START_SECONDS))), check=True, stdout=sys.stderr
    )
    told = subprocess.run(
        moorage("env", "--data", data, "--format", "json"), check=True, stdout=subprocess.PIPE
    ).stdout
    return {str(name): str(value) for name, value in json.loads(told).items()}


def wait_until_ready(server: Server, portal_url: str) -> float:
    """Asks /readyz until it answers 200; the monotonic time of that answer."""
    place = urlsplit(portal_url)
    address = (place.hostname or "127.0.0.1", place.port or 80)
    request = f"GET /readyz HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n".encode()
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with socket.create_connection(address, timeout=1) as connection:
                connection.sendall(request)
                answer = connection.recv(64)
        except OSError:
            answer = b""
        if answer.startswith(b"HTTP/1.1 200"):
            return time.monotonic()
        time.sleep(0.001)
    raise BenchError(f"{server.name} was not ready within {START_SECONDS:.0f} s; see {server.log}")


def _launch(name: str, address: str, command: Sequence[str | Path], log: Path) -> Server:
    with log.open("wb") as output:
        process = subprocess.Popen(
            on_core(SERVER_CORE, command), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    return Server(name, address, process, log)


def _wait_for_port(server: Server, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            socket.create_connection((server.address, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise BenchError(f"{server.name} does not listen on {server.address}:{port}; see {server.log}")
