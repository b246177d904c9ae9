"""The SQLite file under the records: whose it is, whether this release may use it, and its migrations.

Everything that refuses a file does so before the first change to it.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from moorage import __version__
from moorage.errors import StorageFull, Unavailable
from moorage.store.folder import sync_folder

APPLICATION_ID = 0x4D6F6F72  # "Moor" in the file's header, so that our databases are told from others'
SYNCHRONOUS = "FULL"  # a commit returns after its fsync; with less than that an acknowledgement is no promise
OLDEST_SQLITE = (3, 37)  # the first with STRICT tables

# A private file in memory, at most 1 GiB. Not ":memory:", where every commit walks all pages: a put beside
# 80,000 records took 160 µs there, 30 µs here.
_IN_MEMORY = "file:records?vfs=memdb"
_NO_MORE_WRITES = {"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"}
_MIGRATION_NAME = re.compile(r"\d{4}_[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file: `name` without its ending, and the statements in it."""

    name: str
    sql: str


def known_migrations() -> list[Migration]:
    """The migrations of this release, in order."""
    folder = resources.files("moorage.store") / "migrations" / "sqlite"
    files = {file.name.removesuffix(".sql"): file for file in folder.iterdir() if file.name.endswith(".sql")}
    return [Migration(name, files[name].read_text("utf-8")) for name in sorted(files)]


def open_database(path: Path | None) -> sqlite3.Connection:
    """A connection to the migrated records in `path`, created when absent; in memory without a path.

    Raises Unavailable, the file unchanged, when it is damaged, somebody else's, or of a newer release.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise Unavailable(f"Python has SQLite {sqlite3.sqlite_version}, Moorage needs {needed} or newer")
    if path is not None:
        _create(path)
    db = connect(path)
    try:
        migrate(db, path, known_migrations())
    except BaseException:
        db.close()
        raise
    return db


def connect(path: Path | None, *, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """A connection without transactions of its own making, to be used by one thread at a time."""
    try:
        db = sqlite3.connect(
            path if path is not None else _IN_MEMORY,
            uri=path is None,
            timeout=busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,  # every statement of every kind
        )
    except sqlite3.Error as error:
        raise fault(error, path) from error
    try:
        db.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        db.execute("PRAGMA fullfsync = 1")  # macOS: a plain fsync leaves the data in the drive's cache
        db.execute("PRAGMA checkpoint_fullfsync = 1")
    except sqlite3.Error as error:
        db.close()
        raise fault(error, path) from error
    return db


def fault(error: sqlite3.Error, path: Path | None) -> Unavailable:
    """What `error` means to who asked, with the file it is about and what to do."""
    place = str(path) if path is not None else "the records in memory"
    name = getattr(error, "sqlite_errorname", "")
    if name in _NO_MORE_WRITES:
        return StorageFull(f"{place}: no more room to write ({error}): free space there; reading goes on")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Unavailable(f"{place} is damaged ({error}): stop the server and put a copy in its place")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Unavailable(f"{place} is held by another program ({error}): close that program and try again")
    return Unavailable(f"{place} cannot be used: {error} ({name or type(error).__name__})")


def migrate(db: sqlite3.Connection, path: Path | None, migrations: Sequence[Migration]) -> None:
    """Apply those of `migrations` that are not recorded yet, each in a transaction of its own.

    The database is copied first when it holds records: what a release does to them can be undone by hand.
    """
    try:
        applied = _applied(db, path)
        _refuse_newer(applied, path, migrations)
        journal = "WAL" if path is not None else "MEMORY"
        if _scalar(db, f"PRAGMA journal_mode = {journal}") != journal.lower():
            raise Unavailable(f"{path} is on a file system without shared memory: use a local disk for it")
        pending = [migration for migration in migrations if migration.name not in applied]
        if path is not None and pending and _holds_records(db):
            _copy(db, path, before=pending[0])
        for position, migration in enumerate(pending, start=len(applied) + 1):
            _apply(db, migration, position)
    except sqlite3.Error as error:
        raise fault(error, path) from error


def _create(path: Path) -> None:
    """An empty file for its owner's eyes, its name durable; SQLite gives the companions the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        sync_folder(path.parent)
    except FileExistsError:
        pass
    except OSError as error:
        kind = StorageFull if error.errno == errno.ENOSPC else Unavailable
        raise kind(f"{path} cannot be created: {error.strerror}") from error


def _applied(db: sqlite3.Connection, path: Path | None) -> dict[str, str]:
    """Name of each migration recorded → the release that applied it; empty for an empty database."""
    application_id = _scalar(db, "PRAGMA application_id")
    empty = _scalar(db, "SELECT count(*) FROM sqlite_schema") == 0
    if application_id == 0 and empty:
        return {}
    if application_id != APPLICATION_ID:
        raise Unavailable(f"{path} is a database of another program: choose another data folder")
    return dict(db.execute("SELECT name, moorage_version FROM schema_migration ORDER BY name"))


def _refuse_newer(applied: dict[str, str], path: Path | None, migrations: Sequence[Migration]) -> None:
    newer = sorted(applied.keys() - {migration.name for migration in migrations})
    if newer:
        raise Unavailable(
            f"{path} was written by Moorage {applied[newer[-1]]} (migration {newer[-1]}), "
            f"this is {__version__}: start that release or a newer one, or put back the copy it made first"
        )


def _holds_records(db: sqlite3.Connection) -> bool:
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_migration'")
    return any(_scalar(db, f'SELECT EXISTS (SELECT 1 FROM "{table}")') for (table,) in tables.fetchall())


def _copy(db: sqlite3.Connection, path: Path, *, before: Migration) -> None:
    """Write the database to `<name>-before-<migration>.sqlite3` beside it, whole or not at all."""
    verdict = _scalar(db, "PRAGMA quick_check(1)")
    if verdict != "ok":
        raise Unavailable(f"{path} is damaged ({verdict}): put a copy in its place, then start again")
    copy = path.with_name(f"{path.stem}-before-{before.name}.sqlite3")
    unfinished = copy.with_suffix(".unfinished")
    _remove(unfinished)
    _create(unfinished)
    try:
        with closing(connect(unfinished)) as target:
            db.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, which can be copied back by itself
        unfinished.replace(copy)
    except BaseException:
        _remove(unfinished)
        raise
    sync_folder(path.parent)


def _remove(path: Path) -> None:
    """Remove a database with its companions: a journal left behind would be rolled into the next database."""
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def _apply(db: sqlite3.Connection, migration: Migration, position: int) -> None:
    if not _MIGRATION_NAME.fullmatch(migration.name):
        raise ValueError(f"migration {migration.name!r} is not named like 0001_initial")
    try:
        db.executescript(
            f"BEGIN IMMEDIATE;\n{migration.sql}\n"
            f"INSERT INTO schema_migration VALUES ('{migration.name}', '{__version__}');\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {position};\nCOMMIT;"
        )
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _scalar(db: sqlite3.Connection, sql: str) -> object:
    return db.execute(sql).fetchone()[0]
