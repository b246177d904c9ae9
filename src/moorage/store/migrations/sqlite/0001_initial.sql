-- 0001_initial.sql: one table per kind of record, and beside it what its records are found by.
--
-- scope     the immutable internal id of the hub or provisioning service that a record belongs to
-- key       unique within kind and scope; compared byte by byte, as every text here
-- etag      the version of the record
-- document  the record itself, JSON
--
-- The tables keep SQLite's own row ids: documents of a few KB inside the key's tree (WITHOUT ROWID) made writing
-- four times slower, a lookup three times and a count fifty times. The small index rows are the tree itself.
-- <kind>_index_by_key finds the index rows of a record that changes or goes.

CREATE TABLE schema_migration (
    name TEXT NOT NULL PRIMARY KEY,
    moorage_version TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- IoT hubs; under scope 0, by their id.
CREATE TABLE hub (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE hub_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX hub_index_by_key ON hub_index (scope, key);

-- Device identities of a hub, by device id.
CREATE TABLE device_identity (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE device_identity_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_identity_index_by_key ON device_identity_index (scope, key);

-- Twins of a hub, by device id.
CREATE TABLE twin (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE twin_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX twin_index_by_key ON twin_index (scope, key);

-- Named rights and their keys, of a hub or of a provisioning service.
CREATE TABLE shared_access_policy (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE shared_access_policy_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX shared_access_policy_index_by_key ON shared_access_policy_index (scope, key);

-- DPS instances; under scope 0, by their id.
CREATE TABLE provisioning_service (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE provisioning_service_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX provisioning_service_index_by_key ON provisioning_service_index (scope, key);

-- Hubs that a provisioning service may assign devices to.
CREATE TABLE linked_hub (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE linked_hub_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX linked_hub_index_by_key ON linked_hub_index (scope, key);

-- Individual enrollments of a provisioning service, by lower-cased registration id.
CREATE TABLE individual_enrollment (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE individual_enrollment_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX individual_enrollment_index_by_key ON individual_enrollment_index (scope, key);

-- Registration states of a provisioning service, by lower-cased registration id.
CREATE TABLE registration (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE registration_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX registration_index_by_key ON registration_index (scope, key);
