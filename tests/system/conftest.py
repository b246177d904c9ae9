"""Network namespaces and an ordinary user, for tests that need root to set them up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

NOBODY = 65_534
START_WITHIN = 30.0  # seconds


@dataclass(frozen=True)
class Namespace:
    """A network of its own with nothing but loopback, and its own /etc/hosts."""

    name: str

    def command(self, *arguments: str, user: int | None = None) -> list[str]:
        """`arguments` as run in here, as `user` where one is given.

        That user may read everything, for the checkout may lie below root's closed home; no more than that.
        """
        reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
        as_user = (
            []
            if user is None
            else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *reading]
        )
        return ["ip", "netns", "exec", self.name, *as_user, *arguments]


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Port 443 is for root in there, and `global.azure-devices-provisioning.net` is this machine."""
    if os.geteuid() != 0:
        pytest.fail("the system tests make network namespaces: run them as root, with make test-system")
    name = f"moorage-{os.getpid()}"
    hosts = Path("/etc/netns") / name / "hosts"
    hosts.parent.mkdir(parents=True)
    hosts.write_text("127.0.0.1 localhost global.azure-devices-provisioning.net\n::1 localhost\n")
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inside = Namespace(name)
        subprocess.run(inside.command("ip", "link", "set", "lo", "up"), check=True)
        subprocess.run(
            inside.command("sh", "-c", "echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start"),
            check=True,
        )
        yield inside
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
        hosts.unlink()
        hosts.parent.rmdir()


def moorage(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "moorage", *arguments]


def wait_ready(process: subprocess.Popen[bytes], command: list[str], environment: Mapping[str, str]) -> None:
    """Ask `moorage wait` until it says that the server is ready; a server that ended is a failure at once."""
    deadline = time.monotonic() + START_WITHIN
    while subprocess.run(command, env=environment, capture_output=True).returncode != 0:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        assert time.monotonic() < deadline, "the server is not ready"
