-- When devices and modules of a hub connected and were heard of, by device id or device/module.
CREATE TABLE presence (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE presence_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX presence_index_by_key ON presence_index (scope, key);
