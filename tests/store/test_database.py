from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from moorage import __version__, app
from moorage.errors import StorageFull, Unavailable
from moorage.store import database
from moorage.store.database import (
    APPLICATION_ID,
    Migration,
    connect,
    fault,
    known_migrations,
    migrate,
    open_database,
)

KINDS = {kind.name for kind in app.KINDS}
TWIN = '{"tags":{"site":"a"},"desired":{"values":{}},"reported":{"values":{}}}'
OWN = len(known_migrations())
# A later release's: they come behind all that this one has.
ADD_NOTE = Migration("9001_note", "CREATE TABLE note (text TEXT NOT NULL) STRICT;")
FILL_NOTE = Migration("9002_fill", "INSERT INTO note VALUES ('one');\nINSERT INTO note VALUES ('two');")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite3"


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def create(path: Path, *, with_record: bool = False) -> None:
    with closing(open_database(path)) as db:
        if with_record:
            db.execute("INSERT INTO twin VALUES (1, 'n1', 'e1', ?)", (TWIN,))


def migrate_with(path: Path, *further: Migration) -> None:
    with closing(connect(path)) as db:
        migrate(db, path, [*known_migrations(), *further])


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [int(migration.name[:4]) for migration in known_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_new_database_has_the_tables_of_every_kind_all_strict(path: Path) -> None:
    create(path)
    tables = {row[1]: row[5] for row in query(path, "PRAGMA table_list") if not row[1].startswith("sqlite_")}
    assert tables == dict.fromkeys(
        KINDS
        | {f"{kind}_index" for kind in KINDS}
        | {"schema_migration", "twin_search", "module_twin_search", "twin_tag", "module_twin_tag"},
        1,
    )


def test_the_file_says_whose_it_is_and_what_was_done_to_it(path: Path) -> None:
    create(path)
    assert query(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert query(path, "PRAGMA user_version") == [(len(known_migrations()),)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    names = [migration.name for migration in known_migrations()]
    assert query(path, "SELECT * FROM schema_migration") == [(name, __version__) for name in names]


def test_every_connection_syncs_each_commit(path: Path) -> None:
    with closing(connect(path)) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA fullfsync").fetchone() == (1,)


def test_an_empty_file_is_a_new_database(path: Path) -> None:
    path.touch()
    create(path)
    assert query(path, "SELECT count(*) FROM twin") == [(0,)]


# --- A newer release -------------------------------------------------------------------------------------------


def test_only_what_is_not_recorded_is_applied(path: Path) -> None:
    create(path)
    migrate_with(path, ADD_NOTE)
    migrate_with(path, ADD_NOTE, FILL_NOTE)
    migrate_with(path, ADD_NOTE, FILL_NOTE)
    assert query(path, "SELECT text FROM note") == [("one",), ("two",)]
    assert query(path, "PRAGMA user_version") == [(OWN + 2,)]


def test_a_migration_that_fails_leaves_what_the_one_before_it_made(path: Path) -> None:
    create(path)
    broken = Migration("9002_broken", "INSERT INTO note VALUES ('half');\nINSERT INTO nowhere VALUES (1);")
    with pytest.raises(Unavailable, match="no such table: nowhere"):
        migrate_with(path, ADD_NOTE, broken)
    assert query(path, "SELECT count(*) FROM note") == [(0,)]
    assert query(path, "PRAGMA user_version") == [(OWN + 1,)]
    migrate_with(path, ADD_NOTE, FILL_NOTE)
    assert query(path, "SELECT count(*) FROM note") == [(2,)]


def test_a_migration_has_a_number_and_a_name(path: Path) -> None:
    create(path)
    with pytest.raises(ValueError, match="0001_initial"):
        migrate_with(path, Migration("note'; DROP TABLE twin", ""))


def test_records_are_copied_before_the_first_migration(path: Path) -> None:
    create(path, with_record=True)
    migrate_with(path, ADD_NOTE, FILL_NOTE)
    copy = path.with_name("records-before-9001_note.sqlite3")
    assert query(copy, "SELECT key FROM twin") == [("n1",)]
    assert query(copy, "PRAGMA user_version") == [(OWN,)]
    assert copy.stat().st_mode & 0o077 == 0
    assert {file.name for file in path.parent.iterdir()} == {path.name, copy.name}


def test_the_copy_is_made_anew_when_an_earlier_attempt_has_left_one(path: Path) -> None:
    create(path, with_record=True)
    path.with_name("records-before-9001_note.sqlite3").write_text("old")
    for leftover in ("records-before-9001_note.unfinished", "records-before-9001_note.unfinished-journal"):
        path.with_name(leftover).write_text("cut short")
    migrate_with(path, ADD_NOTE)
    assert query(path.with_name("records-before-9001_note.sqlite3"), "SELECT key FROM twin") == [("n1",)]
    assert len(list(path.parent.iterdir())) == 2


def test_no_copy_is_made_of_an_empty_database_or_without_a_migration(path: Path) -> None:
    create(path)
    migrate_with(path, ADD_NOTE)
    migrate_with(path, ADD_NOTE)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_damaged_records_are_not_migrated(path: Path) -> None:
    create(path, with_record=True)
    content = bytearray(path.read_bytes())
    content[-3 * 4096 :] = b"\xff" * (3 * 4096)
    path.write_bytes(content)
    with pytest.raises(Unavailable, match="is damaged"):
        migrate_with(path, ADD_NOTE)
    assert path.read_bytes() == content


# --- What is refused ---------------------------------------------------------------------------------------------


def test_a_database_of_a_newer_release_is_refused_unchanged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(database, "__version__", "9.1.0")
        create(path)
        migrate_with(path, ADD_NOTE)
    content = path.read_bytes()
    expected = (
        f"was written by Moorage 9.1.0 (migration 9001_note), this is {__version__}: start that release"
    )
    with pytest.raises(Unavailable, match=re.escape(expected)):
        open_database(path)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("pragma", ["", "PRAGMA application_id = 7; PRAGMA user_version = 3;"])
def test_a_database_of_another_program_is_refused_unchanged(path: Path, pragma: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{pragma} CREATE TABLE bookmark (url TEXT);")
    content = path.read_bytes()
    with pytest.raises(Unavailable, match="is a database of another program: choose another data folder"):
        open_database(path)
    assert path.read_bytes() == content


def test_a_sqlite_without_strict_tables_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(Unavailable, match=r"Moorage needs 3\.37 or newer"):
        open_database(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("SQLITE_FULL", StorageFull, "no more room"),
        ("SQLITE_IOERR_WRITE", StorageFull, "no more room"),
        ("SQLITE_CORRUPT_INDEX", Unavailable, "damaged"),
        ("SQLITE_NOTADB", Unavailable, "damaged"),
        ("SQLITE_BUSY_SNAPSHOT", Unavailable, "held by another program"),
        ("SQLITE_IOERR_FSYNC", Unavailable, "SQLITE_IOERR_FSYNC"),
        ("", Unavailable, "OperationalError"),
    ],
)
def test_an_error_names_the_file_and_what_to_do(path: Path, name: str, kind: type, word: str) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    if name:
        error.sqlite_errorname = name
    told = fault(error, path)
    assert type(told) is kind
    assert str(path) in str(told)
    assert word in str(told)
