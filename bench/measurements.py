"""The measurements, one function a figure: set up, run the two sides in turn, give the rows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from figures import Row, Wanted, side
from fleet import Authority, Device, make_devices, write_device_list
from registry import Registry, parse_connection_string, sas_token
from servers import (
    LOAD_CORE,
    MOORAGE_ADDRESSES,
    BenchError,
    Server,
    moorage_environment,
    on_core,
    start_moorage,
    start_mosquitto,
    wait_until_ready,
)

ROOM = Path(__file__).resolve().parent
LOAD = ROOM / "bin" / "load"
PYTHON_SDK = "azure-iot-device-provisioning-py/2.14.0"  # a client that is told the result at once
QUIET_SECONDS = 0.3  # between runs, so that what one side leaves behind does not meet the other

Result = dict[str, Any]  # one run: the load's own line
Results = dict[str, list[Result]]  # by the server's name


@dataclass
class Bench:
    """What all measurements share. `folder` is emptied as they go; `quick` trades precision for time."""

    folder: Path
    runs: int
    quick: bool
    sides: frozenset[str]  # "mosquitto", "moorage"
    authority: Authority = field(default_factory=lambda: Authority("bench CA"))
    raw: list[Result] = field(default_factory=list)

    def either(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Target:
    """A server that runs, the device list that it knows, and for Moorage its environment."""

    server: Server
    devices: Path
    environment: Mapping[str, str] = field(default_factory=dict)


# --- running ---------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def load_command(command: str, target: Target, **options: object) -> list[str]:
    arguments: list[str | Path] = [LOAD, command, "--address", target.server.address]
    arguments += ["--server-pid", str(target.server.pid), "--devices", target.devices]
    for name, value in options.items():
        arguments += ["--" + name.replace("_", "-"), str(value)]
    return on_core(LOAD_CORE, arguments)


def load(bench: Bench, figure: str, command: str, target: Target, **options: object) -> Result:
    """One run of the load generator; also kept with the raw results."""
    done = subprocess.run(load_command(command, target, **options), capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(f"{figure}, {target.server.name}: {done.stderr.strip()} (log: {target.server.log})")
    result: Result = json.loads(done.stdout)
    keep(bench, figure, target.server.name, result)
    time.sleep(QUIET_SECONDS)
    return result


def keep(bench: Bench, figure: str, server: str, result: Result) -> None:
    bench.raw.append({"figure": figure, "server": server, **result})


def in_turn(bench: Bench, figure: str, command: str, targets: Sequence[Target], **options: object) -> Results:
    """A B A B …: the runs of each server by its name, so that a drifting machine drifts for both."""
    results: Results = {"Mosquitto": [], "Moorage": []}
    for number in range(bench.runs):
        say(f"{figure}: run {number + 1} of {bench.runs}")
        for target in targets:
            results[target.server.name].append(load(bench, figure, command, target, **options))
    return results


def compared(
    figure: str,
    unit: str,
    results: Mapping[str, list[Result]],
    wanted: Wanted | None,
    value: str = "per_second",
) -> Row:
    return Row(
        figure,
        unit,
        moorage=side(results["Moorage"], value),
        peer=side(results["Mosquitto"], value),
        wanted=wanted,
    )


@contextmanager
def mosquitto(bench: Bench, devices: Sequence[Device]) -> Iterator[Target]:
    folder = bench.folder / "mosquitto"
    server = start_mosquitto(folder, bench.authority)
    try:
        yield Target(server, device_list(folder / "devices.tsv", devices, server.address))
    finally:
        server.stop()


@contextmanager
def data_folder(bench: Bench, name: str = "data") -> Iterator[Path]:
    """Where one Moorage keeps everything, for one measurement."""
    folder = bench.folder / name
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def moorage(
    folder: Path, devices: Sequence[Device] = (), address: str = MOORAGE_ADDRESSES[0]
) -> Iterator[Target]:
    """A Moorage on a data folder; `devices` are those of its device list, see `create_identities`."""
    server = start_moorage(folder, address)
    try:
        environment = moorage_environment(folder)
        path = device_list(folder.with_suffix(".tsv"), devices, environment["IOTHUB_HOSTNAME"])
        yield Target(server, path, environment)
    finally:
        server.stop()


@contextmanager
def both(bench: Bench, devices: Sequence[Device]) -> Iterator[list[Target]]:
    """The sides asked for, Mosquitto first, both new and knowing `devices`."""
    with ExitStack() as running:
        targets = []
        if "mosquitto" in bench.sides:
            targets.append(running.enter_context(mosquitto(bench, devices)))
        if "moorage" in bench.sides:
            folder = running.enter_context(data_folder(bench))
            targets.append(running.enter_context(moorage(folder, devices)))
            registry(targets[-1]).create_identities(devices)
        yield targets


def registry(target: Target) -> Registry:
    return Registry(target.environment, target.server.address)


def device_list(path: Path, devices: Sequence[Device], host: str) -> Path:
    user_name = f"{host}/{{id}}/?api-version=2021-04-12&DeviceClientType=bench"
    return write_device_list(path, devices, user_name=user_name)


# --- beside Mosquitto ------------------------------------------------------------------------------------


def connects(bench: Bench) -> list[Row]:
    devices = make_devices("connect", 500, bench.authority)
    rows = []
    with both(bench, devices) as targets:
        for version, bound in (("1.2", 1.2), ("1.3", 1.5)):
            figure = f"connects, TLS {version}"
            count = bench.either(6000, 1000)
            results = in_turn(bench, figure, "connect", targets, tls=version, messages=count, connections=50)
            rows.append(compared(figure, "/s", results, Wanted(bound, at_least=True, basis="CPU ratio")))
    return rows


def publishes(bench: Bench) -> list[Row]:
    devices = make_devices("publish", 100, bench.authority)
    rows = []
    for in_flight, bound in ((10, 1.1), (1, 0.7)):
        figure = f"QoS 1 publishes, 100 × {in_flight} in flight"
        options = {"connections": 100, "in_flight": in_flight, "seconds": bench.either(4, 2)}
        with both(bench, devices) as targets:  # new for each, so that neither begins with a long log
            results = in_turn(bench, figure, "publish", targets, **options)
        rows.append(compared(figure, "/s", results, Wanted(bound, at_least=True, basis="ratio")))
    return rows


def idle(bench: Bench) -> list[Row]:
    """Both processes are new in each run: memory once used and kept would make the next run look cheap."""
    count = bench.either(5000, 1000)
    devices = make_devices("idle", count, bench.authority)
    figure = f"memory per idle connection, {count:,} open"
    results: Results = {"Mosquitto": [], "Moorage": []}
    with data_folder(bench) as folder:
        if "moorage" in bench.sides:
            with moorage(folder) as target:
                registry(target).create_identities(devices)
        for number in range(bench.runs):
            say(f"{figure}: run {number + 1} of {bench.runs}")
            if "mosquitto" in bench.sides:
                with mosquitto(bench, devices) as target:
                    results["Mosquitto"].append(hold(bench, figure, target, count))
            if "moorage" in bench.sides:
                with moorage(folder, devices) as target:
                    results["Moorage"].append(hold(bench, figure, target, count))
    wanted = Wanted(1.8, at_least=False, basis="ratio")
    return [compared(figure, "KiB", results, wanted, "kib_per_connection")]


def hold(bench: Bench, figure: str, target: Target, count: int) -> Result:
    """Opens `count` connections, lets the server settle, and looks at what it holds more than before."""
    before = target.server.resident_kib()
    holding = subprocess.Popen(
        load_command("idle", target, connections=count),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told = holding.stdout.readline() if holding.stdout else ""
    if told:
        time.sleep(1)
        after = target.server.resident_kib()
    _, complaint = holding.communicate()
    if not told or holding.returncode != 0:
        raise BenchError(f"{figure}, {target.server.name}: {complaint.strip()} (log: {target.server.log})")
    result: Result = json.loads(told) | {"kib_before": before, "kib_after": after}
    result["kib_per_connection"] = (after - before) / count
    keep(bench, figure, target.server.name, result)
    return result


def latency(bench: Bench) -> list[Row]:
    devices = make_devices("latency", 100, bench.authority)
    figure = "acknowledged after, at 4,000 /s"
    options = {"connections": 100, "rate": 4000, "seconds": bench.either(15, 4), "warmup": 1}
    with both(bench, devices) as targets:
        results = in_turn(bench, figure, "rate", targets, **options)
    rows = []
    for share in ("p50", "p99", "p99.9"):
        wanted = Wanted(5, at_least=False, basis="value") if share == "p99" else None
        rows.append(compared(f"{figure}, {share}", "ms", results, wanted, f"acknowledged_ms/{share}"))
    late = [result["sent_late_ms"]["p99"] for runs in results.values() for result in runs]
    note = f"the load itself sent up to {max(late):.2f} ms late (p99), which is part of these times"
    return [*rows[:-1], replace(rows[-1], note=note)]


# --- Moorage alone ---------------------------------------------------------------------------------------


def registrations(bench: Bench) -> list[Row]:
    """New devices all the time; then the same in small lots, beside few and beside many other enrollments."""
    if "moorage" not in bench.sides:
        return []
    figure, count = "registrations", bench.either(3000, 500)
    results = []
    with data_folder(bench) as folder, moorage(folder) as target:
        for number in range(bench.runs):
            say(f"{figure}: run {number + 1} of {bench.runs}")
            results.append(register_new(bench, figure, target, f"new-{number}", count))
    wanted = Wanted(800, at_least=True, basis="value")
    return [Row(figure, "/s", side(results), wanted=wanted), registrations_beside_many(bench)]


def registrations_beside_many(bench: Bench) -> Row:
    """Lots of 100 new devices, enrolled before and struck off after, so that at any time few or many are enrolled."""
    lot, lots, many = 100, bench.either(10, 3), bench.either(100_000, 10_000)
    figure = f"registrations, {many:,} enrollments beside {lot}"
    results: dict[str, list[Result]] = {"few": [], "many": []}
    with ExitStack() as running:
        servers = {
            name: running.enter_context(
                moorage(running.enter_context(data_folder(bench, name)), address=address)
            )
            for name, address in zip(results, MOORAGE_ADDRESSES, strict=True)
        }
        say(f"{figure}: enrolling {many - lot:,}")
        registry(servers["many"]).enroll(make_devices("other", many - lot))
        for number in range(bench.runs):
            say(f"{figure}: run {number + 1} of {bench.runs}")
            for name, target in servers.items():
                told = [
                    register_new(
                        bench, f"{figure} ({name})", target, f"lot-{number}-{each}", lot, strike_off=True
                    )
                    for each in range(lots)
                ]
                results[name].append(sum_of(told))
    return Row(
        figure,
        "/s",
        side(results["many"]),
        peer=side(results["few"]),
        wanted=Wanted(0.95, at_least=True, basis="CPU ratio"),
        note=f"both are Moorage, the peer is the one with {lot}; 0.95 is “no slower” within the noise",
    )


def register_new(
    bench: Bench, figure: str, target: Target, prefix: str, count: int, *, strike_off: bool = False
) -> Result:
    """Enrolls `count` devices that the service has never seen, each with a self-signed certificate; registers them."""
    devices = make_devices(prefix, count)
    write_device_list(target.devices, devices)
    registry(target).enroll(devices)
    options = {"messages": count, "connections": min(count, 100), "user_agent": PYTHON_SDK}
    result = load(
        bench, figure, "register", target, id_scope=target.environment["PROVISIONING_IDSCOPE"], **options
    )
    if strike_off:
        registry(target).delete_enrollments(devices)
    return result


def sum_of(results: Sequence[Result]) -> Result:
    """Several short runs as one."""
    operations = sum(result["operations"] for result in results)
    seconds = sum(result["seconds"] for result in results)
    shares = ("server_cpu_us", "operations"), ("server_cpu_share", "seconds"), ("load_cpu_share", "seconds")
    whole = {"operations": operations, "seconds": seconds}
    means = {name: sum(r[name] * r[weight] for r in results) / whole[weight] for name, weight in shares}
    return {**whole, "per_second": operations / seconds, **means}


REPORTED = "$iothub/twin/PATCH/properties/reported/?$rid=1"
PATCH = {"temperature": 21.5, "battery": 87, "net": {"ip": "10.0.0.7", "rssi": -61}}


def reported(bench: Bench) -> list[Row]:
    """Patches of reported properties: each is in the twin and on disk before it is acknowledged."""
    if "moorage" not in bench.sides:
        return []
    devices = make_devices("reported", 100, bench.authority)
    patch = {"topic": REPORTED, "body": json.dumps(PATCH, separators=(",", ":"))}
    rows = []
    with data_folder(bench) as folder, moorage(folder, devices) as target:
        registry(target).create_identities(devices)
        for in_flight in (1, 10):
            figure = f"reported properties, 100 devices × {in_flight} in flight"
            options = {"connections": 100, "in_flight": in_flight, "seconds": bench.either(4, 2), **patch}
            results = []
            for number in range(bench.runs):
                say(f"{figure}: run {number + 1} of {bench.runs}")
                results.append(load(bench, figure, "publish", target, **options))
            rows.append(Row(figure, "/s", side(results)))
            rows.append(Row(f"{figure}, acknowledged after, p99", "ms", side(results, "acknowledged_ms/p99")))
    return rows


def reading(bench: Bench) -> list[Row]:
    """All that was published is read from the start, by a reader that only counts and by azure-eventhub."""
    if "moorage" not in bench.sides:
        return []
    devices = make_devices("reading", 100, bench.authority)
    count, theirs = bench.either(400_000, 50_000), bench.either(40_000, 10_000)
    fast, sdk = [], []
    with data_folder(bench) as folder, moorage(folder, devices) as target:
        registry(target).create_identities(devices)
        say(f"reading: publishing {count:,} messages")
        load(bench, "reading (publish)", "publish", target, connections=100, in_flight=10, messages=count)
        for number in range(bench.runs):
            say(f"reading: run {number + 1} of {bench.runs}")
            fast.append(load(bench, "reading", "read", target, **reader_options(target, count)))
            sdk.append(read_with_sdk(bench, target, theirs))
    wanted = Wanted(100_000, at_least=True, basis="value")
    return [
        Row("Event Hubs reading, counting reader", "/s", side(fast), wanted=wanted),
        Row("Event Hubs reading, azure-eventhub", "/s", side(sdk), note="what that library itself can take"),
    ]


def reader_options(target: Target, count: int) -> dict[str, object]:
    parts = parse_connection_string(target.environment["EVENTHUB_CONNECTION_STRING"])
    host, entity = parts["Endpoint"].removeprefix("sb://").rstrip("/"), parts["EntityPath"]
    audience = f"sb://{host}/{entity}"
    # Event Hubs producers sign with the key's text as it stands, not with what it encodes.
    token = sas_token(audience, parts["SharedAccessKeyName"], parts["SharedAccessKey"].encode())
    return {
        "messages": count,
        "partitions": 4,
        "connections": 1,
        "server_name": host,
        "entity": entity,
        "audience": audience,
        "token": token,
    }


def read_with_sdk(bench: Bench, target: Target, count: int) -> Result:
    figure = "reading (azure-eventhub)"
    command: list[str | Path] = [
        sys.executable,
        ROOM / "azure_reader.py",
        "--connection-string",
        target.environment["EVENTHUB_CONNECTION_STRING"],
        "--ca",
        target.environment["MOORAGE_CA_FILE"],
        "--messages",
        str(count),
    ]
    done = subprocess.run(on_core(LOAD_CORE, command), capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise BenchError(f"{figure}: {done.stderr.strip()[-1000:]} (log: {target.server.log})")
    result: Result = json.loads(done.stdout)
    keep(bench, figure, target.server.name, result)
    return result


def start(bench: Bench) -> list[Row]:
    """From the command to /readyz on data that exists, byte code warm."""
    if "moorage" not in bench.sides:
        return []
    results = []
    with data_folder(bench) as folder:
        with moorage(folder) as target:  # makes the data, the certificates and the byte code
            portal = target.environment["MOORAGE_PORTAL_URL"]
        for number in range(bench.either(9, 3)):
            say(f"start: run {number + 1} of {bench.either(9, 3)}")
            began = time.monotonic()
            server = start_moorage(folder, MOORAGE_ADDRESSES[0])
            try:
                seconds = wait_until_ready(server, portal) - began
                resident = server.resident_kib() / 1024
            finally:
                server.stop()
            results.append({"seconds": seconds, "resident_mib": resident})
            keep(bench, "start", "Moorage", results[-1])
    return [
        Row(
            "start, to /readyz",
            "s",
            side(results, "seconds"),
            wanted=Wanted(0.3, at_least=False, basis="value"),
        ),
        Row(
            "start, resident",
            "MiB",
            side(results, "resident_mib"),
            wanted=Wanted(60, at_least=False, basis="value"),
        ),
    ]


BESIDE: Mapping[str, Callable[[Bench], list[Row]]] = {
    "connects": connects,
    "publishes": publishes,
    "idle": idle,
    "latency": latency,
    "registrations": registrations,
    "reported": reported,
    "reading": reading,
    "start": start,
}
