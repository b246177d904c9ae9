"""The commands as people run them: each a process of its own, in the shell of a server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.conftest import RunningServer


def moorage(
    server: RunningServer, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moorage", *arguments],
        env=server.shell | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def said(done: subprocess.CompletedProcess[str]) -> Any:
    """What a command that went well has printed, as JSON."""
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout) if done.stdout else None


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("moorage: ")
    return line.removeprefix("moorage: ")
