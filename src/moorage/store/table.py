"""The SQL of one kind of record: its table, and beside it the index table by which its records are found."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from moorage.errors import Conflict, Invalid, NotFound, PreconditionFailed, TooMany
from moorage.interfaces import (
    AtMost,
    Delete,
    DeleteBelow,
    DeleteFound,
    Expect,
    Kind,
    Put,
    PutAll,
    Require,
)

_BELOW, _BEHIND = "/", "0"  # a key and "/" begin what is below it; "0" follows the slash

_encode = json.JSONEncoder(
    separators=(",", ":"), allow_nan=False
).encode  # json.dumps would make one each time

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

Write = Callable[[sqlite3.Connection], None]
"""One change, checked and encoded, to be run within a transaction.

Raises Conflict, NotFound, PreconditionFailed or TooMany, always before it has changed anything.
"""


class Table:
    """Statements are built once, so that the connection finds each compiled in its cache."""

    def __init__(self, kind: Kind[Any]) -> None:
        table, index = kind.name, f"{kind.name}_index"
        if not table.isidentifier():
            raise ValueError(f"{table!r} cannot be the name of a table")
        self.kind = kind

        self.get = f"SELECT document FROM {table} WHERE scope = ? AND key = ?"
        self.first_page = f"SELECT document FROM {table} WHERE scope = ? ORDER BY key LIMIT ?"
        self.next_page = f"SELECT document FROM {table} WHERE scope = ? AND key > ? ORDER BY key LIMIT ?"
        self.find = (
            f"SELECT document FROM {index} JOIN {table} USING (scope, key) "
            f"WHERE scope = ? AND name = ? AND value = ? ORDER BY key"
        )
        self.first_page_found = f"{self.find} LIMIT ?"
        self.next_page_found = self.first_page_found.replace("ORDER BY", "AND key > ? ORDER BY")
        self.count = f"SELECT count(*) FROM {table} WHERE scope = ?"
        self.count_by_index = f"SELECT count(*) FROM {index} WHERE scope = ? AND name = ? AND value = ?"

        self._exists = f"SELECT 1 FROM {table} WHERE scope = ? AND key = ?"
        self._insert = f"INSERT INTO {table} (scope, key, etag, document) VALUES (?, ?, ?, ?) "
        self._insert_new = self._insert + "ON CONFLICT DO NOTHING"
        self._insert_any = self._insert + (
            "ON CONFLICT DO UPDATE SET etag = excluded.etag, document = excluded.document"
        )
        # One step of SQLite for all: with one each, the thread would have to get the interpreter back as often.
        self._insert_all = (
            f"INSERT INTO {table} (scope, key, etag, document) SELECT ?1, key, '', value FROM json_each(?2) WHERE true "
            "ON CONFLICT DO UPDATE SET etag = excluded.etag, document = excluded.document"
        )
        self._update = f"UPDATE {table} SET etag = ?, document = ? WHERE scope = ? AND key = ?"
        self._delete = f"DELETE FROM {table} WHERE scope = ? AND key = ?"

        keys_found = f"(SELECT key FROM {index} WHERE scope = ?1 AND name = ?2 AND value = ?3)"
        self._delete_found = f"DELETE FROM {table} WHERE scope = ?1 AND key IN {keys_found}"
        self._index_clear_found = f"DELETE FROM {index} WHERE scope = ?1 AND key IN {keys_found}"

        self._delete_below = f"DELETE FROM {table} WHERE scope = ? AND key >= ? AND key < ?"
        self._index_clear_below = f"DELETE FROM {index} WHERE scope = ? AND key >= ? AND key < ?"

        self._clear = f"DELETE FROM {table} WHERE scope = ?"
        self._index_clear_scope = f"DELETE FROM {index} WHERE scope = ?"

        self._index_rows = f"SELECT name, value FROM {index} WHERE scope = ? AND key = ?"
        self._index_add = f"INSERT INTO {index} (scope, key, name, value) VALUES (?, ?, ?, ?)"
        self._index_remove = f"DELETE FROM {index} WHERE scope = ? AND key = ? AND name = ? AND value = ?"
        self._index_clear = f"DELETE FROM {index} WHERE scope = ? AND key = ?"

    def write(
        self, change: Put[Any] | PutAll[Any] | Delete | DeleteFound | DeleteBelow | Require | AtMost
    ) -> Write:
        """Encode `change` now, on the caller's time, to be run later. Raises Invalid for what is not text."""
        match change:
            case Put():
                return self._put_of(change)
            case PutAll():
                return self._put_all_of(change)
            case Delete():
                return self._delete_of(change)
            case DeleteFound():
                return self._delete_found_of(change)
            case DeleteBelow():
                return self._delete_below_of(change)
            case Require():
                return self._require_of(change)
            case AtMost():
                return self._at_most_of(change)

    def check_index(self, index: str) -> None:
        if index not in self.kind.index:
            raise ValueError(f"{self.kind.name} has no index named {index!r}")

    def clear(self, scope: int) -> Write:
        """Delete all records of a scope."""

        def run(db: sqlite3.Connection) -> None:
            db.execute(self._clear, (scope,))
            db.execute(self._index_clear_scope, (scope,))

        return run

    def _put_of(self, change: Put[Any]) -> Write:
        kind, scope, record, expect = self.kind, change.scope, change.record, change.expect
        key, etag = kind.key(record), record.etag
        document = _encode(kind.to_document(record))
        found_by = {(name, value) for name, values in kind.index.items() for value in values(record)}
        self._check(key, etag, expect, *(value for _, value in found_by))

        def run(db: sqlite3.Connection) -> None:
            if expect is Expect.ABSENT:
                if db.execute(self._insert_new, (scope, key, etag, document)).rowcount == 0:
                    raise Conflict(kind.name, key)
                self._add_to_index(db, scope, key, found_by)
                return
            if expect is Expect.ANY:
                db.execute(self._insert_any, (scope, key, etag, document))
            else:
                self._change(db, self._update, (etag, document), scope, key, expect)
            self._reindex(db, scope, key, found_by)

        return run

    def _put_all_of(self, change: PutAll[Any]) -> Write:
        kind, scope = self.kind, change.scope
        if kind.index or any(record.etag for record in change.records):
            raise ValueError(f"records of the kind {kind.name} cannot be put all at once")
        documents = {kind.key(record): kind.to_document(record) for record in change.records}
        self._check(*documents)
        encoded = _encode(documents)

        def run(db: sqlite3.Connection) -> None:
            db.execute(self._insert_all, (scope, encoded))

        return run

    def _delete_of(self, change: Delete) -> Write:
        scope, key, expect = change.scope, change.key, change.expect
        self._check(key, expect)
        if expect is Expect.ABSENT:
            raise ValueError("a deletion cannot expect that there is no record")

        def run(db: sqlite3.Connection) -> None:
            if expect is Expect.ANY:
                db.execute(self._delete, (scope, key))
            else:
                self._change(db, self._delete, (), scope, key, expect)
            if self.kind.index:
                db.execute(self._index_clear, (scope, key))

        return run

    def _delete_found_of(self, change: DeleteFound) -> Write:
        self.check_index(change.index)
        self._check(change.value)
        found = change.scope, change.index, change.value

        def run(db: sqlite3.Connection) -> None:
            db.execute(self._delete_found, found)
            db.execute(self._index_clear_found, found)

        return run

    def _delete_below_of(self, change: DeleteBelow) -> Write:
        self._check(change.key)
        below = change.scope, change.key + _BELOW, change.key + _BEHIND

        def run(db: sqlite3.Connection) -> None:
            db.execute(self._delete_below, below)
            if self.kind.index:
                db.execute(self._index_clear_below, below)

        return run

    def _require_of(self, change: Require) -> Write:
        self._check(change.key)

        def run(db: sqlite3.Connection) -> None:
            if not db.execute(self._exists, (change.scope, change.key)).fetchone():
                raise NotFound(self.kind.name, change.key)

        return run

    def _at_most_of(self, change: AtMost) -> Write:
        self.check_index(change.index)
        self._check(change.value)
        found = change.scope, change.index, change.value

        def run(db: sqlite3.Connection) -> None:
            (count,) = db.execute(self.count_by_index, found).fetchone()
            if count > change.limit:
                raise TooMany(self.kind.name, change.value, change.limit)

        return run

    def _change(
        self,
        db: sqlite3.Connection,
        sql: str,
        values: tuple[str, ...],
        scope: int,
        key: str,
        expect: Expect | str,
    ) -> None:
        """Update or delete the record if it is there, and at the etag `expect` if that is one."""
        if isinstance(expect, str):
            changed = db.execute(f"{sql} AND etag = ?", (*values, scope, key, expect)).rowcount
        else:
            changed = db.execute(sql, (*values, scope, key)).rowcount
        if changed:
            return
        if isinstance(expect, str) and db.execute(self._exists, (scope, key)).fetchone():
            raise PreconditionFailed(self.kind.name, key)
        raise NotFound(self.kind.name, key)

    def _reindex(self, db: sqlite3.Connection, scope: int, key: str, found_by: set[tuple[str, str]]) -> None:
        """Write only what differs: most changes leave alone what their record is found by."""
        if not self.kind.index:
            return
        rows = set(db.execute(self._index_rows, (scope, key)).fetchall())
        for name, value in rows - found_by:
            db.execute(self._index_remove, (scope, key, name, value))
        self._add_to_index(db, scope, key, found_by - rows)

    def _add_to_index(self, db: sqlite3.Connection, scope: int, key: str, rows: set[tuple[str, str]]) -> None:
        for name, value in rows:
            db.execute(self._index_add, (scope, key, name, value))

    def _check(self, *texts: Expect | str) -> None:
        """Here and not on the committing thread, where it would fail everybody's transaction."""
        for text in texts:
            try:
                str(text).encode()
            except UnicodeEncodeError as error:
                raise Invalid(self.kind.name, f"{text!r} holds half a surrogate pair") from error
