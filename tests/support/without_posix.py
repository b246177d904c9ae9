"""A stand-in for Windows, to be run as a program: what only POSIX has is gone, then Moorage is imported, or run.

    python without_posix.py import      every module of Moorage, with the platform's own name and then as "win32"
    python without_posix.py up …        `moorage up`, as on "win32"

Third-party libraries are imported under the platform's own name: theirs is not what is tried here.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
import signal
import sys
from types import ModuleType

MODULES = ("uvloop", "fcntl", "resource", "pwd", "grp", "termios")
OS_CALLS = ("fdatasync", "geteuid", "getuid", "pread", "pwrite", "fchmod", "getpgid", "killpg")
SIGNALS = ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2")


def take_posix_away() -> None:
    sys.modules["msvcrt"] = _locks_of_windows()
    for module in MODULES:
        sys.modules[module] = None  # type: ignore[assignment]  # importing it raises ModuleNotFoundError
    for name in OS_CALLS:
        delattr(os, name)
    for name in SIGNALS:
        delattr(signal, name)
    loop = asyncio.SelectorEventLoop
    for base in loop.__mro__:
        if "add_signal_handler" in vars(base) and base is not asyncio.AbstractEventLoop:
            delattr(base, "add_signal_handler")  # what is left raises NotImplementedError, as on Windows


def _locks_of_windows() -> ModuleType:
    """The one call that is used of `msvcrt`, on the locks that there are here."""
    import fcntl

    def locking(descriptor: int, mode: int, size: int) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, size, 0, os.SEEK_CUR)
        except BlockingIOError as error:
            raise PermissionError(error.errno, "locked") from error

    module = ModuleType("msvcrt")
    vars(module).update(locking=locking, LK_NBLCK=2)
    return module


def import_everything() -> int:
    """How many modules there are."""
    package = importlib.import_module("moorage")
    found = [module.name for module in pkgutil.walk_packages(package.__path__, "moorage.")]
    for name in found:
        importlib.import_module(name)
    return len(found)


def become_windows() -> None:
    """From now on; Moorage's own modules are imported anew, so that they look again where they are."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "moorage"]:
        del sys.modules[name]
    sys.platform = "win32"


def main() -> None:
    take_posix_away()
    import_everything()
    become_windows()
    print(f"{import_everything()} modules", flush=True)
    if sys.argv[1] != "import":
        from moorage.cli import main as moorage

        moorage()


if __name__ == "__main__":
    main()
