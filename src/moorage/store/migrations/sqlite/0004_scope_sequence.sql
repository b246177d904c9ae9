-- 0004_scope_sequence.sql: the last internal id that was given out, so that a deleted hub's is never given again.
CREATE TABLE scope_sequence (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE scope_sequence_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX scope_sequence_index_by_key ON scope_sequence_index (scope, key);
