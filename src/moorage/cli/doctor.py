"""`moorage doctor`: what is wrong on this machine, and the command that mends it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import click

import moorage
from moorage.cli.ports import Port, holder, probe
from moorage.cli.trust import find_ca_file
from moorage.config import Config
from moorage.credentials.x509 import read_certificate
from moorage.errors import MoorageError
from moorage.store.folder import RunInfo, find_servers

OK, WARNING, PROBLEM = "ok", "warning", "problem"
COLOURS = {OK: "green", WARNING: "yellow", PROBLEM: "red"}

ENV = 'eval "$(moorage env)"'
UNPRIVILEGED_443 = "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443"
GLOBAL_ENDPOINT = "global.azure-devices-provisioning.net"
OLDEST_TIME = 1_735_689_600  # 2025-01-01: a clock before that was never set
MIB = 1 << 20
LOW_SPACE, NO_SPACE = 1024 * MIB, 100 * MIB
SLOW_SYNC = 0.02  # seconds; every acknowledged message waits for one
PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that are tested


@dataclass(frozen=True, slots=True)
class Remark:
    """One line of the report. `mend` is a command, or what to do in words."""

    area: str
    verdict: str
    text: str
    mend: str = ""


# --- ports -------------------------------------------------------------------------------------------------


def ports(servers: Sequence[RunInfo]) -> Iterator[Remark]:
    """The doors of the servers that run; else whether a server could open its own."""
    for server in servers:
        yield from _open_doors(server)
    if not servers:
        yield from _free_ports(Config())


def _open_doors(server: RunInfo) -> Iterator[Remark]:
    for name, endpoint in server.endpoints.items():
        host, _, port = endpoint.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            mend = f"look at the log of the server with process id {server.pid}"
            yield Remark("ports", PROBLEM, f"{name}: the server's {endpoint} does not answer: {error}", mend)
            continue
        if name.startswith("https") and int(port) != 443:
            text = f"{name}: REST is on {endpoint}; WebSocket clients, and SDKs that cannot be told a port, need 443"
            yield Remark("ports", WARNING, text, f"{UNPRIVILEGED_443}, then restart the server")
        else:
            yield Remark(
                "ports", OK, f"{name}: the server with process id {server.pid} answers on {endpoint}"
            )


def _free_ports(config: Config) -> Iterator[Remark]:
    doors = (("MQTT", config.mqtt_port), ("AMQP", config.amqp_port), ("HTTPS", config.https_port))
    for name, port in doors:
        yield _free_port(name, port, config)
    portal = config.portal_port
    taken = probe("127.0.0.1", portal) is Port.TAKEN
    text = f"{portal} is {_taken_by('127.0.0.1', portal)}, the portal takes the next free one"
    yield Remark("ports", OK, f"portal: {text}" if taken else f"portal: {portal} is free")


def _free_port(name: str, port: int, config: Config) -> Remark:
    for address in config.addresses:
        state = probe(address, port)
        if state is Port.FREE or (state is Port.NO_ADDRESS and address == "::1"):
            continue
        if state is Port.NO_ADDRESS:
            mend = "ip link set lo up" if sys.platform == "linux" else "bring the loopback interface up"
            return Remark("ports", PROBLEM, f"{name}: this machine has no address {address}", mend)
        instead = f"REST goes to {config.https_fallback_port}, WebSocket clients cannot connect"
        if state is Port.NOT_PERMITTED:
            return Remark(
                "ports", WARNING, f"{name}: this user may not open {port}: {instead}", UNPRIVILEGED_443
            )
        text, mend = (
            f"{name}: {port} is {_taken_by(address, port)}",
            f"stop what holds it{_another_address()}",
        )
        if port == config.https_port:
            return Remark("ports", WARNING, f"{text}: {instead}", mend)
        return Remark("ports", PROBLEM, f"{text}; device clients cannot use another port", mend)
    return Remark("ports", OK, f"{name}: {port} is free")


def _taken_by(address: str, port: int) -> str:
    who = holder(address, port)
    return f"taken by {who}" if who is not None else "taken by another program"


def _another_address() -> str:
    """Elsewhere than on Linux only 127.0.0.1 is there without setting up more."""
    return ", or: moorage up --bind 127.0.0.2 --hub-host 127.0.0.2" if sys.platform == "linux" else ""


# --- names -------------------------------------------------------------------------------------------------


def names(servers: Sequence[RunInfo]) -> Iterator[Remark]:
    hosts = [server.env[name] for server in servers for name in ("IOTHUB_HOSTNAME", "PROVISIONING_HOST")]
    hosts += [hub["IOTHUB_HOSTNAME"] for server in servers for hub in server.hubs.values()]
    for host in dict.fromkeys(("localhost", *hosts)):
        yield _resolves(host)
    hubs = [server.env["IOTHUB_HOSTNAME"] for server in servers] or [Config().hub_host]
    for hub in dict.fromkeys(hubs):
        if "." not in hub:
            text = f"{hub} has no dot: the C and Java device SDKs need a hub name with one"
            yield Remark(
                "names", OK, text, "for those: moorage up --hub-host NAME, with NAME in the hosts file"
            )
    yield _alias()


def _resolves(host: str) -> Remark:
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        return Remark("names", PROBLEM, f"{host} cannot be resolved: {error}", _hosts_line(host))
    if host == "localhost" and "127.0.0.1" not in found:
        text = f"localhost is {', '.join(sorted(found))}, without 127.0.0.1"
        return Remark("names", PROBLEM, text, _hosts_line(host))
    return Remark("names", OK, f"{host} is {', '.join(sorted(found))}")


def _alias() -> Remark:
    """Only the hosts file is read: asking a name server would tell the world of it."""
    with contextlib.suppress(OSError):
        for line in hosts_file().read_text("utf-8", "replace").splitlines():
            words = line.partition("#")[0].split()
            if GLOBAL_ENDPOINT in words[1:]:
                return Remark("names", OK, f"{GLOBAL_ENDPOINT} is {words[0]} by {hosts_file()}")
    text = f"{GLOBAL_ENDPOINT} is Azure's own; only devices that cannot be given another host need an alias"
    return Remark("names", OK, text, f"for those: {_hosts_line(GLOBAL_ENDPOINT)}")


def hosts_file() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32/drivers/etc/hosts"
    return Path("/etc/hosts")


def _hosts_line(host: str) -> str:
    if sys.platform == "win32":
        return f"add the line '127.0.0.1 {host}' to {hosts_file()}"
    return f"echo '127.0.0.1 {host}' | sudo tee -a {hosts_file()}"


# --- trust -------------------------------------------------------------------------------------------------


def trust(data: Path | None) -> Iterator[Remark]:
    """Whether what runs in this shell would trust the server, runtime by runtime."""
    try:
        ca_file = find_ca_file(data)
        ca = ca_file.read_bytes()
        certificate = read_certificate(ca)
    except (MoorageError, OSError) as error:
        yield Remark("trust", OK, f"nothing to trust yet: {error}")
        return
    until = time.strftime("%Y-%m-%d", time.gmtime(certificate.not_after / 1_000_000))
    if certificate.not_after < time.time() * 1_000_000:
        yield Remark(
            "trust",
            PROBLEM,
            f"the CA {ca_file} expired on {until}",
            f"rm -r {shlex.quote(str(ca_file.parent))}",
        )
        return
    yield Remark("trust", OK, f"the CA is {ca_file}, until {until}")
    system = system_trusts(ca_file)
    if system is not None:
        text = f"the system's store {'trusts' if system else 'does not trust'} it"
        yield Remark("trust", OK if system else WARNING, text, "" if system else "moorage trust")
    yield _by_variable("Python's ssl and OpenSSL", "SSL_CERT_FILE", ca, otherwise=system)
    yield _by_variable("requests", "REQUESTS_CA_BUNDLE", ca, otherwise=holds(Path(certifi.where()), ca))
    if shutil.which("node"):
        yield _by_variable("Node", "NODE_EXTRA_CA_CERTS", ca, otherwise=False)
    yield _certifi(ca)


def _by_variable(runtime: str, variable: str, ca: bytes, *, otherwise: bool | None) -> Remark:
    """`otherwise`: whether the runtime trusts the CA when the variable is not set; None is not known."""
    named = os.environ.get(variable)
    if not named:
        if otherwise:
            return Remark("trust", OK, f"{runtime}: trusted without {variable}")
        return Remark("trust", WARNING, f"{runtime}: {variable} is not set in this shell", ENV)
    if not Path(named).is_file():
        text = f"{runtime}: {variable} names {named}, which is not there: every TLS connection fails"
        return Remark("trust", PROBLEM, text, f"{ENV}, or: unset {variable}")
    if not holds(Path(named), ca):
        return Remark("trust", WARNING, f"{runtime}: {variable} names {named}, which lacks the CA", ENV)
    return Remark("trust", OK, f"{runtime}: trusted by {variable}")


def _certifi(ca: bytes) -> Remark:
    bundle = certifi.where()
    if holds(Path(bundle), ca):
        return Remark("trust", OK, f"certifi: {bundle} holds the CA")
    text = (
        f"certifi: {bundle} lacks the CA; azure-eventhub reads only that unless it is given connection_verify"
    )
    return Remark("trust", WARNING, text, f"moorage trust --python {shlex.quote(sys.executable)}")


def holds(bundle: Path, ca: bytes) -> bool:
    """Whether a PEM file has the first certificate in `ca`, however the lines are broken."""
    body = ca.partition(b"-----BEGIN CERTIFICATE-----")[2].partition(b"-----END")[0]
    try:
        return b"".join(body.split()) in b"".join(bundle.read_bytes().split())
    except OSError:
        return False


def system_trusts(ca_file: Path) -> bool | None:
    """None where nobody can be asked."""
    command = ["openssl", "verify", str(ca_file)]
    if sys.platform == "darwin":
        command = ["security", "verify-cert", "-c", str(ca_file)]
    elif sys.platform == "win32":
        command = ["certutil", "-verifystore", "Root", read_certificate(ca_file.read_bytes()).sha1]
    environment = {k: v for k, v in os.environ.items() if k not in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    try:
        return subprocess.run(command, capture_output=True, env=environment, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return None


# --- clock -------------------------------------------------------------------------------------------------


def clock(servers: Sequence[RunInfo]) -> Iterator[Remark]:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < OLDEST_TIME:
        mend = "sudo timedatectl set-ntp true" if sys.platform == "linux" else "set the clock"
        yield Remark(
            "clock", PROBLEM, f"this machine thinks it is {shown}: no certificate is valid yet", mend
        )
    else:
        yield Remark("clock", OK, f"it is {shown}")
    for server in servers:
        if (ahead := _ahead(server)) is None:
            continue
        text = f"the clock of the server with process id {server.pid} is {abs(ahead):.0f} s "
        text += "ahead" if ahead > 0 else "behind"
        if abs(ahead) > 60:
            mend = "meant so when it was started with --clock-offset; SDKs on this machine make tokens by its own clock"
            yield Remark("clock", WARNING, text, mend)
        else:
            yield Remark("clock", OK, f"the clock of the server with process id {server.pid} agrees")


def _ahead(server: RunInfo) -> float | None:
    """Seconds by which the server's clock is ahead of ours, to a second; None when it does not say."""
    connection = http.client.HTTPConnection(urlsplit(server.env["MOORAGE_PORTAL_URL"]).netloc, timeout=5)
    try:
        connection.request("GET", "/healthz")
        date = connection.getresponse().getheader("date")
        return parsedate_to_datetime(date).timestamp() + 0.5 - time.time() if date else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


# --- disk --------------------------------------------------------------------------------------------------


def disk(folder: Path) -> Iterator[Remark]:
    """Whether a server could keep its data there, and how fast."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not place.is_dir():
        yield Remark("disk", PROBLEM, f"{place} is not a folder", "choose another with --data")
        return
    free = shutil.disk_usage(place).free
    verdict = PROBLEM if free < NO_SPACE else WARNING if free < LOW_SPACE else OK
    mend = "" if verdict == OK else "free some, or choose another folder with --data"
    yield Remark("disk", verdict, f"{folder}: {free // MIB:,} MiB free", mend)
    try:
        took = sync_time(place)
    except OSError as error:
        text = f"{place} cannot be written: {error.strerror}"
        yield Remark("disk", PROBLEM, text, "choose another folder with --data")
        return
    text = f"a synced write takes {took * 1000:.2f} ms"
    if took > SLOW_SYNC:
        yield Remark("disk", WARNING, f"{text}: every acknowledgement waits for one", "use a faster disk")
    else:
        yield Remark("disk", OK, text)


def sync_time(folder: Path, rounds: int = 5) -> float:
    """Seconds that a small write and its sync take, the middle one of several."""
    file = folder / f".moorage-doctor-{os.getpid()}"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        times = []
        for _ in range(rounds):
            begun = time.perf_counter()
            os.write(descriptor, bytes(4096))
            os.fsync(descriptor)
            times.append(time.perf_counter() - begun)
        return sorted(times)[rounds // 2]
    finally:
        os.close(descriptor)
        file.unlink()


# --- versions ----------------------------------------------------------------------------------------------


def versions() -> Iterator[Remark]:
    oldest, newest = (".".join(map(str, version)) for version in PYTHONS)
    python = f"Python {platform.python_version()}"
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        yield Remark("versions", OK, f"Moorage {moorage.__version__} on {python}, {platform.system()}")
    else:
        yield Remark("versions", WARNING, f"{python} is not tested", f"use Python {oldest} to {newest}")
    libraries = ("cryptography", "pyOpenSSL", "uvicorn", "websockets", "uvloop")
    found = [f"{name} {version}" for name in libraries if (version := _version(name))]
    yield Remark("versions", OK, ", ".join([ssl.OPENSSL_VERSION, *found]))
    kits = {name: _version(name) for name in ("azure-iot-device", "azure-eventhub")}
    if all(kits.values()):
        yield Remark("versions", OK, ", ".join(f"{name} {version}" for name, version in kits.items()))
    else:
        missing = " and ".join(name for name, version in kits.items() if not version)
        text = f"the quickstart needs {missing}, which this environment lacks"
        yield Remark("versions", OK, text, "pip install 'moorage[quickstart]'")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


# --- the command -------------------------------------------------------------------------------------------


def examine(data: Path | None) -> Iterator[Remark]:
    servers = find_servers(data)
    kept = [server.data for server in servers if server.data is not None]
    if servers:
        for server in servers:
            where = server.data or "in memory"
            yield Remark("server", OK, f"a server runs, process id {server.pid}, data {where}")
    else:
        yield Remark("server", OK, "no server runs here", "moorage up")
    parts: tuple[Callable[[], Iterator[Remark]], ...] = (
        lambda: ports(servers),
        lambda: names(servers),
        lambda: trust(data),
        lambda: clock(servers),
        *(lambda folder=folder: disk(folder) for folder in kept or [data or Config().data or Path()]),
        versions,
    )
    for part in parts:
        yield from part()


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Look at the server on this folder, or at the folder for one.",
)
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def doctor(data: Path | None, output: str) -> None:
    """Look at ports, names, trust, clock, disk and versions; say what is wrong and the command that mends it.

    Exit 1 when there is a problem; a warning is none.
    """
    remarks = []
    for remark in examine(data):
        remarks.append(remark)
        if output == "text":
            click.echo("\n".join(_lines(remark)))
    if output == "json":
        click.echo(json.dumps([asdict(remark) for remark in remarks], indent=2))
    if any(remark.verdict == PROBLEM for remark in remarks):
        sys.exit(1)


def _lines(remark: Remark) -> Iterator[str]:
    verdict = click.style(f"{remark.verdict:<7}", fg=COLOURS[remark.verdict])
    yield f"{verdict}  {remark.area:<8}  {remark.text}"
    if remark.mend:
        yield f"{'':<19}-> {remark.mend}"
