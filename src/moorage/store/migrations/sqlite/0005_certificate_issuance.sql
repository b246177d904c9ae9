-- Credential policies of a provisioning service, by lower-cased name.
CREATE TABLE credential_policy (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE credential_policy_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX credential_policy_index_by_key ON credential_policy_index (scope, key);

-- The CA that issues certificates to its devices, with its keys.
CREATE TABLE issuing_ca (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE issuing_ca_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX issuing_ca_index_by_key ON issuing_ca_index (scope, key);

-- CAs that a hub trusts, by lower-cased name, and by the subjects of their certificates.
CREATE TABLE trusted_authority (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE trusted_authority_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX trusted_authority_index_by_key ON trusted_authority_index (scope, key);
