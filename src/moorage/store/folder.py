"""The data folder of a server, and the run files by which the servers of this user are found."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moorage.errors import StorageFull, Unavailable

FORMAT = 1  # of the data folder as a whole; the files in it have versions of their own

_FORMAT_LINE = re.compile(r"moorage data folder, format (\d+)\n")


class DataFolder:
    """Where one server keeps everything. Held until `close`, or until the process ends in whatever way.

    FORMAT            what this folder is; written first, so that a folder with records has it
    lock              locked by the server at work, with its process id
    records.sqlite3   the records
    journal/          the durable log
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        self.path = path
        self.records = path / "records.sqlite3"
        self.journal = path / "journal"
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> DataFolder:
        """Create the folder if needed, check that it is ours and take it.

        Raises Unavailable, nothing changed, when another server has it (naming its process id), when it holds
        something else, or when a newer release wrote it.
        """
        path = path.absolute()
        try:
            _make_folders(path)
            _check_format(path)  # before the lock: another program's folder gets no file from us
            lock = Lock.take(path / "lock")
        except OSError as error:
            raise _refusal(path, error) from error
        if lock is None:
            raise Unavailable(
                f"{path} is in use by the server with process id {_holder(path / 'lock')}: "
                f"stop that one, or choose another data folder"
            )
        folder = cls(path, lock)
        try:
            folder._fill()
        except OSError as error:
            lock.release()
            raise _refusal(path, error) from error
        return folder

    def close(self) -> None:
        self._lock.release()

    def _fill(self) -> None:
        if not (self.path / "FORMAT").exists():
            _write_format(self.path)
        _make_folders(self.journal)


class Lock:
    """An exclusive lock on a file, for as long as this process has it open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Lock | None:
        """None when somebody else holds it. The file says who does."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if not _try_lock(descriptor):
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return cls(descriptor)

    @staticmethod
    def is_held(path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            return False
        try:
            return not _try_lock(descriptor, shared=True)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """The file stays: whoever removed it could remove one that the next server has locked already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """A running server. `data` is None for one in memory; `env` is what `moorage env` prints.

    `hubs` has for each hub, by its name, those of the variables that differ for it.
    """

    pid: int
    data: Path | None
    endpoints: Mapping[str, str]
    env: Mapping[str, str]
    hubs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class RunFile:
    """Tells this user's other processes that a server runs, until `remove`.

    Two files of one name: the facts (.json), and a lock held for as long as they are true. A process id alone
    would be believed after it has gone to another program.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Without `folder` in the user's runtime folder."""
        self._folder = folder
        self._facts: Path | None = None
        self._lock: Lock | None = None

    def write(self, info: RunInfo) -> None:
        """Whole or not at all; once more to replace what it said before. Raises Unavailable."""
        try:
            if self._facts is None:
                self._facts = self._claim_name(info.pid)
            document = {
                "pid": info.pid,
                "data": None if info.data is None else str(info.data),
                "endpoints": dict(info.endpoints),
                "env": dict(info.env),
                "hubs": {name: dict(env) for name, env in info.hubs.items()},
            }
            _replace(self._facts, json.dumps(document, indent=1))
        except OSError as error:
            raise Unavailable(f"the run file cannot be written: {error}") from error

    def remove(self) -> None:
        if self._facts is not None and self._lock is not None:
            self._facts.unlink(missing_ok=True)  # first, so that no facts are left without their lock
            self._lock.release()
            self._facts.with_suffix(".lock").unlink(missing_ok=True)
            self._facts = self._lock = None

    def _claim_name(self, pid: int) -> Path:
        """A name used once only: nobody who cleans up can mistake it for a stale one."""
        folder = self._folder or _own_runtime_folder()
        facts = folder / f"{pid}-{secrets.token_hex(4)}.json"
        self._lock = Lock.take(facts.with_suffix(".lock"))
        return facts


def find_servers(data: Path | None = None, *, folder: Path | None = None) -> list[RunInfo]:
    """The servers that run now for this user, or only those on `data`; cleans up after dead ones."""
    folders = [folder] if folder is not None else list(filter(_is_private, _runtime_folders()))
    servers = []
    for facts in sorted(facts for known in folders for facts in known.glob("*.json")):
        if Lock.is_held(facts.with_suffix(".lock")):
            with contextlib.suppress(
                OSError, ValueError, KeyError, TypeError
            ):  # removed meanwhile, or not ours
                servers.append(_read_run_file(facts))
        else:
            facts.unlink(missing_ok=True)
            facts.with_suffix(".lock").unlink(missing_ok=True)
    if data is None:
        return servers
    return [server for server in servers if server.data and _same_place(server.data, data)]


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Windows has no such call and needs none."""
    if sys.platform != "win32":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)


def _sync(descriptor: int) -> None:
    """To the disk itself: on macOS a plain fsync ends in the drive's cache."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """`shared` is for those who only look, so that two of them do not take each other for the holder."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(
                descriptor, 1 << 30, os.SEEK_SET
            )  # past the process id, as nobody can read what is locked
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _holder(lock: Path) -> str:
    """Empty for the moment between taking the lock and writing the id."""
    return lock.read_text("utf-8").strip() or "unknown"


def _refusal(path: Path, error: OSError) -> Unavailable:
    kind = StorageFull if error.errno == errno.ENOSPC else Unavailable
    return kind(f"{path} cannot be used as data folder: {error.strerror}")


def _make_folders(path: Path) -> None:
    """Create `path` and what is missing above it, durably."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def _check_format(path: Path) -> None:
    names = set(os.listdir(path))
    if "FORMAT" in names:
        line = _FORMAT_LINE.fullmatch((path / "FORMAT").read_text("utf-8", errors="replace"))
        if line is None:
            raise Unavailable(f"{path} is not a data folder of Moorage: its FORMAT says something else")
        if int(line[1]) > FORMAT:
            raise Unavailable(
                f"{path} has format {line[1]}, this release knows {FORMAT}: start the newer one that wrote it"
            )
    elif any(name not in ("lock", "lost+found") and not name.startswith(".") for name in names):
        raise Unavailable(f"{path} holds other files: choose an empty data folder or a new one")


def _write_format(path: Path) -> None:
    _replace(path / "FORMAT", f"moorage data folder, format {FORMAT}\n", durable=True)
    sync_folder(path)


def _replace(path: Path, text: str, *, durable: bool = False) -> None:
    """Whoever reads `path` finds the old text or the new one, never a part."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        if durable:
            _sync(descriptor)
    unfinished.replace(path)


def _runtime_folders() -> list[Path]:
    """Where run files can be, the best place first. Not every session of a user has it: search all."""
    import tempfile

    folders = []
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        folders.append(Path(runtime) / "moorage")
    if sys.platform == "win32":
        folders.append(Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir())) / "Moorage" / "run")
    else:
        folders.append(Path(tempfile.gettempdir()) / f"moorage-{os.getuid()}")
    return folders


def _own_runtime_folder() -> Path:
    """The first that is there or can be made, and that nobody else can read or write: run files hold keys."""
    folders = _runtime_folders()
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=sys.platform == "win32", exist_ok=True)
            if _is_private(folder):
                return folder
    raise Unavailable(f"no folder for the run file: make {folders[-1]} one of your own with mode 0700")


def _is_private(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    if sys.platform == "win32":  # there the user's own profile keeps others out
        return stat.S_ISDIR(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _read_run_file(facts: Path) -> RunInfo:
    document = json.loads(facts.read_text("utf-8"))
    data = document["data"]
    return RunInfo(
        pid=document["pid"],
        data=None if data is None else Path(data),
        endpoints=document["endpoints"],
        env=document["env"],
        hubs=document.get("hubs", {}),  # a server of an older release has one only
    )


def _same_place(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
