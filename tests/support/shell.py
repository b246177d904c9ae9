"""The command line as a user has it: `moorage …` in a shell of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conftest import RunningServer, own_environment

PATIENCE = 60.0  # seconds
EXAMPLE = Path(__file__).parents[2] / "examples" / "provision_x509.py"


def run(
    *command: str, env: Mapping[str, str], patience: float = PATIENCE, **options: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=dict(env), capture_output=True, text=True, timeout=patience, check=False, **options
    )


class Shell:
    """A shell in which `eval "$(moorage env)"` has been run for one server."""

    def __init__(self, server: RunningServer) -> None:
        self.env: dict[str, str] = {**server.shell, **server.env}

    def moorage(self, *arguments: str) -> str:
        """The output of a command that has to succeed."""
        done = self.attempt(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.moorage(*arguments))

    def refused(self, *arguments: str) -> str:
        """The one line that a command which has to fail says why."""
        done = self.attempt(*arguments)
        assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("moorage: "), line
        return line.removeprefix("moorage: ")

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, "-m", "moorage", *arguments, env=self.env)

    def example(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """The device program as shipped."""
        return run(sys.executable, str(EXAMPLE), *arguments, env={**self.env, **settings})


def start_in_vain(runtime: Path, *options: str) -> str:
    """What `moorage up` says when it cannot start."""
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    done = run(sys.executable, "-m", "moorage", "up", *options, env=own_environment(runtime))
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("moorage: "), done.stderr
    return last.removeprefix("moorage: ")
