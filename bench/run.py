"""Measures Moorage beside Debian's mosquitto on this machine: see README.md in this folder.

.venv/bin/python bench/run.py [--only connects,publishes] [--runs 5] [--quick] [--markdown]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from figures import Row, as_json, disturbance, facts, markdown_table, text_table
from measurements import BESIDE, LOAD, ROOM, Bench, say
from provisioning import attestations
from servers import LOAD_CORE, SERVER_CORE, BenchError

MEASUREMENTS = {**BESIDE, "attestations": attestations}
SIDES = ("mosquitto", "moorage")
BUSY = 0.5  # load average from which the machine has other things to do


def main() -> int:
    options = read_options()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # by way of every `finally`: no server is left behind
    try:
        prepare_machine()
    except (BenchError, subprocess.CalledProcessError) as error:
        say(f"bench: {error}")
        return 1
    with tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=options.folder) as folder:
        runs = 1 if options.quick else options.runs
        bench = Bench(Path(folder), runs, options.quick, frozenset(options.sides))
        told = facts(bench.folder, runs)
        rows, failed = measure(bench, options.only)
    told["other processes"] = disturbance(bench.raw)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(rows, told, bench.raw), indent=1, ensure_ascii=False) + "\n")
    print(markdown_table(rows, told) if options.markdown else text_table(rows, told))
    return 1 if failed else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        type=names_of(MEASUREMENTS),
        default=list(MEASUREMENTS),
        help=f"some of {', '.join(MEASUREMENTS)}; all without it",
    )
    parser.add_argument(
        "--sides", type=names_of(SIDES), default=list(SIDES), help="mosquitto, moorage or both"
    )
    parser.add_argument("--runs", type=int, default=5, help="of each side; the median counts (default 5)")
    parser.add_argument(
        "--quick", action="store_true", help="one short run each: does it work, not how fast is it"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the figures as they stand in the README"
    )
    parser.add_argument("--json", type=Path, default=ROOM / "bin" / "last.json", help="every run and figure")
    parser.add_argument(
        "--folder", type=Path, help="where the servers keep their data while it lasts; a real disk"
    )
    return parser.parse_args()


def names_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """An option's type: some of the known names between commas."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def prepare_machine() -> None:
    """A core for the server and one for the load, files enough for the connections, and the load built."""
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchError("two processor cores are needed: one for the server, one for the load")
    os.sched_setaffinity(0, {LOAD_CORE})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    subprocess.run(["make", "--silent", "-C", ROOM], check=True, stdout=sys.stderr)
    if not LOAD.exists():
        raise BenchError(f"{LOAD} was not built")
    busy = os.getloadavg()[0]
    if busy > BUSY:
        say(f"this machine is busy (load average {busy:.1f}): the figures will be disturbed")


def measure(bench: Bench, names: Sequence[str]) -> tuple[list[Row], bool]:
    """The rows of all measurements that went through, and whether one did not: it does not cost the others."""
    rows: list[Row] = []
    failed = False
    for name in names:
        try:
            rows += MEASUREMENTS[name](bench)
        except (BenchError, OSError, subprocess.SubprocessError) as error:
            say(f"bench: {name}: {error}")
            failed = True
    return rows, failed


if __name__ == "__main__":
    sys.exit(main())
