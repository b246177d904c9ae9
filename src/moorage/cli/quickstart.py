"""`moorage quickstart`: the whole way of a device, from certificate to telemetry, with Microsoft's own Python SDKs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from moorage.cli.progress import Progress
from moorage.cli.server_process import free_address, own_server
from moorage.cli.target import running_server
from moorage.errors import Unavailable
from moorage.store.folder import RunInfo, find_servers

if TYPE_CHECKING:
    from moorage.cli.quickstart_steps import Walk

KITS = {"azure.iot.device": "azure-iot-device", "azure.eventhub": "azure-eventhub"}

NEXT = """
Next:
  moorage up                             a server to keep, with its data in ./moorage-data
  eval "$(moorage env)"                  in another terminal: Microsoft's samples then run unchanged
  moorage hub monitor-events             telemetry as it comes in
  moorage explain                        why a device was refused, or let in
  moorage doctor                         whether other runtimes on this machine would trust the server
  moorage quickstart --keep              the same, and the device stays, to be looked at in the portal
  moorage quickstart --sample FILE.py    the same way with a device program of your own"""

IN_PORTAL = """
In the portal, signed in by this link once, within an hour:
  {link}
  Registrations                          each attempt of {name}, and why it ended as it did
  Telemetry                              its {messages} messages, as they came in"""

KEPT = """\
  Devices                                {name}, enabled
  Manage enrollments                     {name}; delete both here when you have seen them"""


@click.command()
@click.option(
    "--sample",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Run this Python file instead, unchanged, against a fresh server: Microsoft's provision_x509.py, say.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the running server to use, where several run.",
)
@click.option(
    "--keep", is_flag=True, help="Leave the device and its enrollment there, to look at in the portal."
)
def quickstart(sample: Path | None, data: Path | None, keep: bool) -> None:
    """Walk the whole quickstart with Microsoft's Python SDKs, each step with its time.

    Uses the server that runs here; without one it starts its own, and stops it at the end, with --keep at Ctrl-C.
    What it makes on the server it deletes again. Exit 0 only if every step held.
    """
    needed = ["azure.iot.device"] if sample is not None else list(KITS)
    if missing := [KITS[name] for name in needed if not _is_here(name)]:
        raise Unavailable(f"{' and '.join(missing)} is not installed: pip install 'moorage[quickstart]'")
    if sample is not None and data is not None:
        raise click.UsageError("--sample has a fresh server of its own: leave out --data")
    if sample is not None and keep:
        raise click.UsageError("--sample leaves nothing to look at: leave out --keep")
    with _sigterm_ends_in_order():
        held = _sample(sample) if sample is not None else _walk(data, keep=keep)
    if not held:
        sys.exit(1)


@contextlib.contextmanager
def _sigterm_ends_in_order() -> Iterator[None]:
    """As Ctrl-C does: a server of our own is stopped on the way out."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of what it is in
        return False


def _walk(data: Path | None, *, keep: bool) -> bool:
    from moorage.cli.quickstart_steps import PARTING, STEPS, Walk

    steps = STEPS if keep else STEPS + PARTING
    is_own = data is None and not find_servers()
    progress = Progress(1 + len(steps))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_fresh_server(progress) if is_own else _running_server(progress, data))
        folder = stack.enter_context(TemporaryDirectory(prefix="moorage-quickstart-"))
        walk = Walk(server, Path(folder), progress)
        held = asyncio.run(walk.run(steps, keep=keep))
        progress.line()
        progress.line(
            "Every step held." if held else "The quickstart failed.", "bold green" if held else "bold red"
        )
        if held and (keep or not is_own):
            _show_portal(progress, walk, keep=keep)
        if held and keep and is_own:
            _until_ctrl_c(progress)
    if held:
        progress.line(NEXT)
    return held


def _show_portal(progress: Progress, walk: Walk, *, keep: bool) -> None:
    from moorage.cli.quickstart_steps import MESSAGES

    link = walk.operator.portal_link()
    progress.line(IN_PORTAL.format(link=link, name=walk.name, messages=MESSAGES))
    if keep:
        progress.line(KEPT.format(name=walk.name))


def _until_ctrl_c(progress: Progress) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        progress.line("The server runs until Ctrl-C.", "bold")
        while True:
            time.sleep(3600)


def _sample(file: Path) -> bool:
    from moorage.cli.quickstart_sample import STEPS, SampleRun

    progress = Progress(1 + len(STEPS))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_fresh_server(progress))
        folder = stack.enter_context(TemporaryDirectory(prefix="moorage-quickstart-"))
        held = SampleRun(server, file, Path(folder), progress).run()
    progress.line()
    verdict = f"{file.name} {'works with' if held else 'failed against'} this server."
    progress.line(verdict, "bold green" if held else "bold red")
    return held


@contextlib.contextmanager
def _running_server(progress: Progress, data: Path | None) -> Iterator[RunInfo]:
    with progress.step("Find the running server"):
        server = running_server(data)
        describe(server, progress)
    yield server


@contextlib.contextmanager
def _fresh_server(progress: Progress) -> Iterator[RunInfo]:
    with contextlib.ExitStack() as stack:
        with progress.step("Start a server of our own"):
            address, in_the_way = free_address()
            for each in in_the_way:
                progress.note(f"{each[0].upper()}{each[1:]}.")
            if address is not None:
                progress.note(f"So this server listens on {address}.")
            server = stack.enter_context(own_server(address))
            describe(server, progress)
        yield server


def describe(server: RunInfo, progress: Progress) -> None:
    doors = ", ".join(f"{name} {endpoint}" for name, endpoint in server.endpoints.items())
    progress.note(f"process id {server.pid}, ID scope {server.env['PROVISIONING_IDSCOPE']}")
    progress.note(doors)
