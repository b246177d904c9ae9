-- CA certificates of a provisioning service, by lower-cased name.
CREATE TABLE ca_certificate (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE ca_certificate_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX ca_certificate_index_by_key ON ca_certificate_index (scope, key);
