from __future__ import annotations

import pkgutil
import subprocess
import sys

from click.testing import CliRunner

import moorage.cli
from moorage.cli import LazyGroup, moorage_command
from moorage.cli.cert import cert
from moorage.cli.dps import dps
from moorage.cli.hub import hub

ABSENT_ON_WINDOWS = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop")

IMPORT_WITHOUT = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {absent!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
for module in {modules!r}:
    importlib.import_module(module)
"""


def modules() -> list[str]:
    found = pkgutil.walk_packages(moorage.cli.__path__, "moorage.cli.")
    return ["moorage.cli", *(module.name for module in found)]


def test_no_module_needs_what_windows_lacks() -> None:
    script = IMPORT_WITHOUT.format(absent=ABSENT_ON_WINDOWS, modules=modules())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_imports_no_command() -> None:
    script = "import sys; from moorage.cli import main\ntry: main()\nfinally: print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True
    )
    imported = done.stdout.splitlines()[-1].split()
    assert [name for name in imported if name.startswith("moorage.cli.")] == []
    assert "asyncio" not in imported


def test_each_command_is_where_its_group_says_and_has_help() -> None:
    for group in (moorage_command, cert, dps, hub):
        assert isinstance(group, LazyGroup)
        listed = CliRunner().invoke(group, ["--help"]).output
        for name in group.lazy:
            assert f"  {name} " in listed
            shown = CliRunner().invoke(group, [name, "--help"])
            assert shown.exit_code == 0
            assert "Usage:" in shown.output


def test_an_unknown_command_is_an_error() -> None:
    result = CliRunner().invoke(moorage_command, ["dps", "nonsense"])
    assert result.exit_code == 2
    assert "No such command 'nonsense'" in result.output
