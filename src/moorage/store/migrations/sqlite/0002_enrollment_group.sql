-- 0002_enrollment_group.sql: enrollment groups of a provisioning service, by lower-cased group id.

CREATE TABLE enrollment_group (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE enrollment_group_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX enrollment_group_index_by_key ON enrollment_group_index (scope, key);
