"""A server of its own for a command that needs one: another process, stopped when the command ends."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from moorage.cli.ports import Port, holder, probe
from moorage.cli.target import is_ready
from moorage.config import Config
from moorage.errors import Unavailable
from moorage.store.folder import RunInfo, find_servers

START_WITHIN = 30.0  # seconds
STOP_WITHIN = 15.0
LOOK_EVERY = 0.02


def free_address() -> tuple[str | None, list[str]]:
    """A loopback address where device clients find their ports free: None is the default one.

    Beside it what is in the way of the default. Raises Unavailable when there is no such address.
    """
    config = Config()
    ports = (config.mqtt_port, config.amqp_port)
    in_the_way = [
        f"port {port} of {address} is taken by {holder(address, port) or 'another program'}"
        for address in config.addresses
        for port in ports
        if probe(address, port) is Port.TAKEN
    ]
    if not in_the_way:
        return None, []
    for last in range(2, 10):
        address = f"127.0.0.{last}"
        if all(probe(address, port) is Port.FREE for port in ports):
            return address, in_the_way
    raise Unavailable(
        f"{'; '.join(in_the_way)}. Device clients cannot use other ports: stop what holds them."
    )


@contextlib.contextmanager
def own_server(address: str | None = None) -> Iterator[RunInfo]:
    """A fresh server on `address` that keeps nothing for longer than this block. Raises Unavailable."""
    with TemporaryDirectory(prefix="moorage-") as folder:
        data, log = Path(folder, "data"), Path(folder, "log")
        options = ["--data", str(data), "--log-level", "warning"]
        if address is not None:
            options += ["--bind", address, "--hub-host", address]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "moorage", "up", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the command, which then stops the server in order
            )
        try:
            yield _wait(process, data, log)
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], data: Path, log: Path) -> RunInfo:
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            why = log.read_text("utf-8", "replace").strip() or f"exit code {process.returncode}"
            raise Unavailable(f"the server did not start: {why}")
        for server in find_servers(data):
            if is_ready(server):
                return server
        time.sleep(LOOK_EVERY)
    raise Unavailable(
        f"the server was not ready within {START_WITHIN:g} s: {log.read_text('utf-8', 'replace')}"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
