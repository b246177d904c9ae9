-- Cloud-to-device messages that wait for their device, found by the device or by its name with that of the module.
CREATE TABLE cloud_to_device_message (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE cloud_to_device_message_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cloud_to_device_message_index_by_key ON cloud_to_device_message_index (scope, key);

-- Their bodies, by the same keys: written once, while the head may count deliveries.
CREATE TABLE cloud_to_device_body (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE cloud_to_device_body_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cloud_to_device_body_index_by_key ON cloud_to_device_body_index (scope, key);

-- What became of them, until a back end has taken it.
CREATE TABLE feedback (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE feedback_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX feedback_index_by_key ON feedback_index (scope, key);

-- What devices have subscribed to, by the name of the device or module.
CREATE TABLE stored_session (
    scope INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TABLE stored_session_index (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX stored_session_index_by_key ON stored_session_index (scope, key);
