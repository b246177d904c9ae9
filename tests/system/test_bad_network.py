"""A device whose network goes bad: packets are lost, then refused, by firewall rules in its own network namespace."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import own_environment
from tests.support.waiting import eventually
from tests.system.conftest import Namespace, moorage, wait_ready

pytestmark = pytest.mark.system

PROGRAM = Path(__file__).with_name("steady_device.py")
HUB_ADDRESS, DEVICE_ADDRESS = "10.0.0.1", "10.0.0.2"
AT_ONCE = 5  # messages that the device has under way
PATIENCE = 60.0  # seconds


class DeviceNetwork(Namespace):
    """A namespace with a firewall, and one cable to that of the hub."""

    def lose_answers(self) -> None:
        """What the device sends arrives; it hears nothing."""
        self._rule("input", f"ip saddr {HUB_ADDRESS} counter drop")

    def lose_everything(self) -> None:
        self._rule("output", f"ip daddr {HUB_ADDRESS} counter drop", f"ip saddr {HUB_ADDRESS} drop")

    def refuse(self) -> None:
        """Whoever connects is told no at once."""
        self._rule("output", f"ip daddr {HUB_ADDRESS} counter reject with tcp reset")

    def restore(self) -> None:
        self._nft("flush ruleset")

    @property
    def stopped(self) -> int:
        """Packets that the rule in force has stopped."""
        shown = subprocess.run(
            self.command("nft", "-j", "list", "ruleset"), check=True, capture_output=True, text=True
        )
        rules = [entry["rule"]["expr"] for entry in json.loads(shown.stdout)["nftables"] if "rule" in entry]
        return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)

    def _rule(self, hook: str, rule: str, inward: str | None = None) -> None:
        chains = {hook: rule} | ({"input": inward} if inward else {})
        lines = [
            f"chain {hook} {{ type filter hook {hook} priority 0; {rule}; }}" for hook, rule in chains.items()
        ]
        self._nft("flush ruleset", "table inet network {", *lines, "}")

    def _nft(self, *lines: str) -> None:
        subprocess.run(self.command("nft", "-f", "-"), input="\n".join(lines), text=True, check=True)


@pytest.fixture
def network(namespace: Namespace) -> Iterator[DeviceNetwork]:
    inside = DeviceNetwork(f"{namespace.name}-device")
    subprocess.run(["ip", "netns", "add", inside.name], check=True)
    try:
        for command in (
            [
                "ip",
                "link",
                "add",
                "hub",
                "netns",
                inside.name,
                "type",
                "veth",
                "peer",
                "device",
                "netns",
                namespace.name,
            ],
            namespace.command("ip", "address", "add", f"{HUB_ADDRESS}/30", "dev", "device"),
            namespace.command("ip", "link", "set", "device", "up"),
            inside.command("ip", "address", "add", f"{DEVICE_ADDRESS}/30", "dev", "hub"),
            inside.command("ip", "link", "set", "hub", "up"),
            inside.command("ip", "link", "set", "lo", "up"),  # paho wakes its thread through it
        ):
            subprocess.run(command, check=True)
        yield inside
    finally:
        subprocess.run(["ip", "netns", "del", inside.name], check=True)  # and the cable with it


class Site:
    """A server in the hub's namespace, and the commands of an operator beside it."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._namespace = namespace
        self.environment = own_environment(folder)
        here = "--data", str(folder / "data")
        command = namespace.command(*moorage("up", "--bind", HUB_ADDRESS, "--hub-host", HUB_ADDRESS, *here))
        self._server = subprocess.Popen(command, env=self.environment)
        wait_ready(self._server, namespace.command(*moorage("wait", *here)), self.environment)
        self.environment |= json.loads(self._run("env", "--format", "json"))  # of the one that runs there

    def add_device(self, device_id: str) -> str:
        """Its connection string."""
        self._run("hub", "device-identity", "create", "-d", device_id)
        shown = self._run("hub", "device-identity", "connection-string", "show", "-d", device_id)
        login: str = json.loads(shown)["connectionString"]
        return login

    def is_connected(self, device_id: str) -> bool:
        shown = json.loads(self._run("hub", "device-identity", "show", "-d", device_id))
        return bool(shown["connectionState"] == "Connected")

    def telemetry(self, device_id: str) -> list[int]:
        """The numbers that have arrived, in the order of the log, all of them: until nothing more comes."""
        shown = self._run(
            "hub", "monitor-events", "-d", device_id, "--et", "0", "--timeout", "1", "-p", "sys"
        )
        return [int(number) for number in re.findall(r'"payload": "(\d+)"', shown)]

    def send(self, device_id: str, body: str) -> None:
        """Leave a message for the device."""
        self._run("device", "c2d-message", "send", "-d", device_id, "--data", body)

    def stop(self) -> None:
        self._server.send_signal(signal.SIGTERM)
        assert self._server.wait(20) == 0

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            self._namespace.command(*moorage(*arguments)),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class SteadyDevice:
    """The program, running; what it has said so far, by kind."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.sent: list[int] = []
        self.received: list[str] = []
        self.losses = 0
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def wait_sent(self, more: int) -> None:
        wanted = len(self.sent) + more
        self._wait(lambda: len(self.sent) >= wanted, f"{more} messages are sent")

    def wait_received(self, count: int) -> None:
        self._wait(lambda: len(set(self.received)) >= count, f"{count} different messages are received")

    def wait_lost(self, before: int) -> None:
        """`before` is what `losses` was while the network was whole."""
        self._wait(lambda: self.losses > before, "the device loses its connection")

    def _wait(self, look: Callable[[], bool], what: str) -> None:
        eventually(lambda: look() or not self._reading.is_alive(), what=what, within=PATIENCE)
        assert look(), "the device has ended, or has said what nobody understands"

    def finish(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(PATIENCE) == 0
        self.join()

    def join(self) -> None:
        self._reading.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, *rest = line.split()
            if word == "sent":
                self.sent.append(int(rest[0]))
            elif word == "received":
                self.received.append(rest[0])
            elif word == "disconnected":
                self.losses += 1


@contextmanager
def steady_device(network: DeviceNetwork, site: Site, login: str, *options: str) -> Iterator[SteadyDevice]:
    with subprocess.Popen(
        network.command(sys.executable, "-W", "ignore", str(PROGRAM), *options),
        env=site.environment | {"DEVICE_CONNECTION_STRING": login, "DEVICE_SENDS_AT_ONCE": str(AT_ONCE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        device = SteadyDevice(process)
        try:
            yield device
        finally:
            process.kill()
            device.join()


@pytest.fixture
def site(namespace: Namespace, network: DeviceNetwork, tmp_path: Path) -> Iterator[Site]:
    made = Site(namespace, tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize("transport", [[], ["--websockets"]], ids=["mqtt", "websockets"])
def test_no_acknowledged_message_is_lost(network: DeviceNetwork, site: Site, transport: list[str]) -> None:
    with steady_device(network, site, site.add_device("buoy"), *transport) as device:
        device.wait_sent(100)

        losses = device.losses
        network.lose_answers()
        device.wait_lost(losses)
        network.restore()
        device.wait_sent(100)

        losses = device.losses
        network.lose_everything()
        device.wait_lost(losses)
        eventually(lambda: not site.is_connected("buoy"), what="the hub notices that the device is silent")
        network.refuse()
        eventually(lambda: network.stopped >= 3, what="the device is refused three times", within=PATIENCE)
        network.restore()
        device.wait_sent(100)
        device.finish()

    arrived, count = site.telemetry("buoy"), len(device.sent)
    assert sorted(device.sent) == list(range(count))
    first_of_each = list(dict.fromkeys(arrived))
    assert sorted(first_of_each) == list(range(count))
    # Those under way at once have no order among themselves: the SDK hands each to a thread.
    assert [number // AT_ONCE for number in first_of_each] == [number // AT_ONCE for number in range(count)]
    assert len(arrived) > count, (
        "no answer was lost: the network was never as bad as this test means it to be"
    )


def test_queued_messages_arrive_once_the_network_is_back(network: DeviceNetwork, site: Site) -> None:
    """Those too that the hub has sent into a connection of which it does not know yet that it is dead."""
    with steady_device(network, site, site.add_device("buoy"), "--receive") as device:
        device.wait_sent(10)
        site.send("buoy", "0")
        device.wait_received(1)

        losses = device.losses
        network.lose_everything()
        site.send("buoy", "1")
        site.send("buoy", "2")
        device.wait_lost(losses)
        network.refuse()
        site.send("buoy", "3")
        network.restore()
        device.wait_received(4)
        device.finish()

    assert list(dict.fromkeys(device.received)) == ["0", "1", "2", "3"]
