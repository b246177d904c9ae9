"""Figures: medians of runs, ratios between two sides, and how they are shown."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Basis = Literal["ratio", "CPU ratio", "value"]

HEADINGS = (
    "figure",
    "peer",
    "Moorage",
    "ratio",
    "CPU peer",
    "CPU Moorage",
    "CPU ratio",
    "load's core",
    "wanted",
    "held",
)


@dataclass(frozen=True)
class Side:
    """One server's medians. `value` in the row's unit; processor time in µs an operation; shares of one core."""

    value: float
    cpu_us: float | None = None
    server_share: float | None = None
    load_share: float | None = None


@dataclass(frozen=True)
class Wanted:
    """A bound: on the ratio of the values, on that of the CPU times (the peer's by ours), or on Moorage's own value."""

    bound: float
    at_least: bool
    basis: Basis


@dataclass(frozen=True)
class Row:
    figure: str
    unit: str
    moorage: Side | None
    peer: Side | None = None
    peer_name: str = "Mosquitto"
    wanted: Wanted | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.moorage.value / self.peer.value if self.moorage and self.peer else None

    @property
    def cpu_ratio(self) -> float | None:
        if self.moorage and self.peer and self.moorage.cpu_us and self.peer.cpu_us:
            return self.peer.cpu_us / self.moorage.cpu_us
        return None

    @property
    def held(self) -> bool | None:
        """None while there is nothing to judge, or nothing to judge it by."""
        if self.wanted is None or self.moorage is None:
            return None
        by: dict[Basis, float | None] = {
            "ratio": self.ratio,
            "CPU ratio": self.cpu_ratio,
            "value": self.moorage.value,
        }
        judged = by[self.wanted.basis]
        if judged is None:
            return None
        return judged >= self.wanted.bound if self.wanted.at_least else judged <= self.wanted.bound


def side(results: Sequence[Mapping[str, Any]], value: str = "per_second") -> Side | None:
    """The medians of several runs; `value` is a field of the load's result, with slashes into nested ones."""
    if not results:
        return None

    def median(field: str) -> float | None:
        found = [_field(result, field) for result in results]
        known = [number for number in found if number is not None]
        return statistics.median(known) if known else None

    middle = median(value)
    if middle is None:
        raise ValueError(f"no result has {value!r}")
    if value != "per_second":
        return Side(middle)
    return Side(middle, median("server_cpu_us"), median("server_cpu_share"), median("load_cpu_share"))


def text_table(rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join(
        [
            lines[0],
            "-" * len(lines[0]),
            *lines[1:],
            *_notes(rows, ""),
            "",
            *(f"{name}: {value}" for name, value in facts.items()),
        ]
    )


def markdown_table(rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    lines = [" · ".join(f"{name} {value}" for name, value in facts.items()), ""]
    lines.append("| " + " | ".join(HEADINGS) + " |")
    lines.append("|" + "---|" * len(HEADINGS))
    lines.extend("| " + " | ".join(_cells(row)) + " |" for row in rows)
    return "\n".join([*lines, *_notes(rows, "* ")])


def as_json(
    rows: Sequence[Row], facts: Mapping[str, str], raw: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    judged = [
        asdict(row) | {"ratio": row.ratio, "cpu_ratio": row.cpu_ratio, "held": row.held} for row in rows
    ]
    return {"facts": dict(facts), "figures": judged, "runs": list(raw)}


def facts(data: Path, runs: int) -> dict[str, str]:
    """Where the figures were taken: without it they mean little."""
    return {
        "taken": datetime.now(UTC).strftime("%Y-%m-%d"),
        "runs": str(runs),
        "processor": _processor(),
        "kernel": platform.release(),
        "file system of the log": _file_system(data),
        "Python": platform.python_version(),
        "cryptography": _cryptography(),
        "mosquitto": _mosquitto(),
    }


def disturbance(raw: Sequence[Mapping[str, Any]]) -> str:
    """How much processor time went to neither server nor load while they were measured: what the figures suffered."""
    shares = [float(run["others_cpu_share"]) for run in raw if "others_cpu_share" in run]
    if not shares:
        return "unknown"
    return f"{statistics.median(shares):.0%} of a core in the median run, {max(shares):.0%} in the worst"


def _field(result: Mapping[str, Any], field: str) -> float | None:
    found: Any = result
    for name in field.split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return None if found is None else float(found)


def _cells(row: Row) -> tuple[str, ...]:
    peer, moorage = row.peer, row.moorage
    return (
        row.figure,
        _amount(peer.value if peer else None, row.unit),
        _amount(moorage.value if moorage else None, row.unit),
        _amount(row.ratio),
        _amount(peer.cpu_us if peer else None, "µs"),
        _amount(moorage.cpu_us if moorage else None, "µs"),
        _amount(row.cpu_ratio),
        _shares(peer, moorage),
        _wanted(row),
        {None: "", True: "yes", False: "no"}[row.held],
    )


def _amount(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
    return f"{value:,.{digits}f}" + (f" {unit}" if unit else "")


def _shares(peer: Side | None, moorage: Side | None) -> str:
    shares = [f"{s.load_share:.0%}" for s in (peer, moorage) if s is not None and s.load_share is not None]
    return " / ".join(shares)


def _wanted(row: Row) -> str:
    if row.wanted is None:
        return ""
    sign = "≥" if row.wanted.at_least else "≤"
    if row.wanted.basis == "value":
        return f"{sign} {row.wanted.bound:,g} {row.unit}"
    return f"{row.wanted.basis} {sign} {row.wanted.bound:g}"


def _notes(rows: Sequence[Row], mark: str) -> list[str]:
    notes = [f"{mark}{row.figure}: {row.note}" for row in rows if row.note]
    return ["", *notes] if notes else []


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()} × {os.cpu_count()}"
    return platform.machine()


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`: on tmpfs a durable write costs nothing and means nothing."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, mounted_kind, *_ = line.split()
        inside = mount == "/" or str(path.resolve()).startswith(mount.rstrip("/") + "/")
        if inside and len(mount) > len(best):
            best, kind = mount, mounted_kind
    return kind


def _cryptography() -> str:
    import cryptography
    from cryptography.hazmat.backends.openssl import backend

    return f"{cryptography.__version__} ({backend.openssl_version_text()})"


def _mosquitto() -> str:
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    try:
        told = subprocess.run([binary, "-h"], stdout=subprocess.PIPE, text=True).stdout
    except OSError:
        return "not installed"
    return told.split("\n", 1)[0].removeprefix("mosquitto version ")
