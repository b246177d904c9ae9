"""Registrations by each attestation, beside few enrollments and beside a million; and a group of 100,000 devices."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from figures import Row, Wanted, side
from fleet import Authority, Device, KeyDevice, derived_key, make_devices, make_key_devices, write_device_list
from measurements import (
    PYTHON_SDK,
    Bench,
    Result,
    Target,
    data_folder,
    keep,
    load,
    moorage,
    registry,
    say,
    sum_of,
)
from registry import parse_connection_string
from servers import LOAD_CORE, BenchError, on_core
from servers import moorage as moorage_command

Fleet = Sequence[Device] | Sequence[KeyDevice]
Proofs = Callable[[str, int], Fleet]
"""New devices, by prefix and count, enrolled or about to come under their group."""

KEY = base64.b64encode(bytes(range(64))).decode()  # of the group, and of whoever has a key of his own
FLAT = Wanted(0.9, at_least=True, basis="CPU ratio")


class Way(NamedTuple):
    """One way in: its name, what makes devices that the service has never seen, and the load's word for it."""

    name: str
    devices: Proofs
    command: str = "register"


@dataclass
class Plant:
    """A server whose enrollments grow; `enrolled` is how many there are."""

    bench: Bench
    target: Target
    folder: Path
    enrolled: int = 0

    @property
    def id_scope(self) -> str:
        return self.target.environment["PROVISIONING_IDSCOPE"]

    def ways(self) -> list[Way]:
        """Two kinds of groups are made here, and stay."""
        root = Authority("bench root")
        intermediate = Authority("bench line", root)
        registry(self.target).put_group("plant", _signed_by(root))
        registry(self.target).put_group("line", _keyed(KEY))

        def x509(prefix: str, count: int) -> Fleet:
            devices = make_devices(prefix, count)
            self.take_in(
                {"registrationId": each.device_id, "attestation": _certificate(each)} for each in devices
            )
            return devices

        def x509_group(prefix: str, count: int) -> Fleet:
            return make_devices(prefix, count, intermediate, send_issuer=True)

        def key(prefix: str, count: int) -> Fleet:
            names = [f"{prefix}-{number}" for number in range(count)]
            self.take_in({"registrationId": name, "attestation": _keyed(KEY)} for name in names)
            return make_key_devices(self.id_scope, ((name, KEY) for name in names))

        return [
            Way("X.509", x509),
            Way("X.509 group, chain with an intermediate", x509_group),
            Way("symmetric key", key),
            Way("symmetric key group", self.of_line),
            Way("X.509 over HTTPS", x509, "register-https"),
            Way("symmetric key over HTTPS", key, "register-https"),
            Way("X.509 over AMQP", x509, "register-amqp"),
            Way("symmetric key over AMQP", key, "register-amqp"),
            Way("symmetric key group over AMQP", self.of_line, "register-amqp"),
        ]

    def of_line(self, prefix: str, count: int) -> Fleet:
        """Devices of the group by key."""
        names = [f"{prefix}-{number}" for number in range(count)]
        return make_key_devices(self.id_scope, ((name, derived_key(KEY, name)) for name in names))

    def take_in(self, rows: Iterable[dict[str, Any]]) -> float:
        """Through `moorage dps enrollment import`; how many a second."""
        file, count = self.folder / "enrollments.jsonl", 0
        with file.open("w", encoding="ascii") as lines:
            for row in rows:
                lines.write(json.dumps(row, separators=(",", ":")) + "\n")
                count += 1
        command = moorage_command("dps", "enrollment", "import", file, "--data", self.folder)
        began = time.monotonic()
        done = subprocess.run(on_core(LOAD_CORE, command), capture_output=True, text=True)
        if done.returncode != 0:
            raise BenchError(f"enrollment import: {done.stderr.strip()[-500:]}")
        file.unlink()
        self.enrolled += count
        return count / (time.monotonic() - began)

    def grow(self, count: int) -> float | None:
        """To `count` enrollments, of which those that nobody comes for have keys; how many a second were taken in."""
        missing, keys = count - self.enrolled, _keyed(KEY)
        if missing <= 0:
            return None
        first = self.enrolled
        return self.take_in(
            {"registrationId": f"other-{number}", "attestation": keys}
            for number in range(first, first + missing)
        )

    def register(self, figure: str, devices: Fleet, command: str = "register") -> Result:
        write_device_list(self.target.devices, devices)
        options: dict[str, object] = {
            "messages": len(devices),
            "connections": min(len(devices), 100),
            "user_agent": PYTHON_SDK,
            "id_scope": self.id_scope,
        }
        if command == "register-https":
            options["port"] = self.https_port
        return load(self.bench, figure, command, self.target, **options)

    @property
    def https_port(self) -> int:
        login = parse_connection_string(self.target.environment["PROVISIONING_SERVICE_CONNECTION_STRING"])
        return int(login["HostName"].partition(":")[2] or 443)


def attestations(bench: Bench) -> list[Row]:
    """Each way in, at three numbers of enrollments on one server that grows."""
    if "moorage" not in bench.sides:
        return []
    sizes = bench.either(1_000_000, 10_000)
    count = bench.either(1000, 200)
    rows: list[Row] = []
    with data_folder(bench) as folder:
        with plant(bench, folder) as grown:
            ways = grown.ways()
            few: dict[str, list[Result]] = {}
            for size in (100, 10_000, 1_000_000):
                if size > sizes:
                    break
                say(f"registrations by attestation: enrolling up to {size:,}")
                pace = grown.grow(size)
                if pace is not None and size == sizes:
                    figure = f"enrollments imported, {size:,}"
                    keep(bench, figure, "Moorage", {"per_second": pace})
                    rows.append(Row(figure, "/s", side([{"per_second": pace}])))
                results = in_turn(grown, ways, size, count)
                few = few or results
                rows += [_row(way.name, size, results[way.name], few[way.name]) for way in ways]
            rows += large_group(grown, bench.either(100_000, 2_000))
            keep(bench, "memory", "Moorage", {"resident_mib": grown.target.server.resident_kib() / 1024})
        rows += started_again(bench, folder, sizes)
    return rows


def in_turn(grown: Plant, ways: Sequence[Way], size: int, count: int) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {way.name: [] for way in ways}
    for number in range(grown.bench.runs):
        say(f"registrations beside {size:,} enrollments: run {number + 1} of {grown.bench.runs}")
        for at, way in enumerate(ways):
            devices = way.devices(f"new-{size}-{at}-{number}", count)
            results[way.name].append(
                grown.register(f"registrations, {way.name}, {size:,}", devices, way.command)
            )
    return results


def _row(way: str, size: int, results: list[Result], few: list[Result]) -> Row:
    figure = f"registrations, {way}, {size:,} enrollments"
    if results is few:
        wanted = Wanted(1000, at_least=True, basis="value") if way == "X.509" else None
        return Row(figure, "/s", side(results), wanted=wanted)
    return Row(figure, "/s", side(results), peer=side(few), wanted=FLAT)


def large_group(grown: Plant, count: int) -> list[Row]:
    """All devices of one group by derived keys, the last tenth beside the first."""
    lot = count // 10
    figure = f"registrations, one group of {count:,} devices by key"
    told = []
    for number in range(10):
        say(f"{figure}: {number * lot:,} are in")
        told.append(grown.register(figure, grown.of_line(f"line-{number}", lot)))
    whole = sum_of(told)
    return [
        Row(figure, "/s", side([whole])),
        Row(f"{figure}, last tenth", "/s", side(told[-1:]), peer=side(told[:1]), wanted=FLAT),
    ]


def started_again(bench: Bench, folder: Path, size: int) -> list[Row]:
    """What a server holds that has just been started with so many enrollments."""
    with moorage(folder) as target:
        resident = target.server.resident_kib() / 1024
    figure = f"resident after a start with {size:,} enrollments"
    keep(bench, figure, "Moorage", {"resident_mib": resident})
    return [Row(figure, "MiB", side([{"resident_mib": resident}], "resident_mib"))]


@contextmanager
def plant(bench: Bench, folder: Path) -> Iterator[Plant]:
    with moorage(folder) as target:
        yield Plant(bench, target, folder)


def _certificate(device: Device) -> dict[str, Any]:
    return {
        "type": "x509",
        "x509": {"clientCertificates": {"primary": {"certificate": device.base64_certificate}}},
    }


def _signed_by(authority: Authority) -> dict[str, Any]:
    return {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": authority.pem}}}}


def _keyed(key: str) -> dict[str, Any]:
    return {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}
