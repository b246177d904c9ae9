-- What queries look through, apart for each part of a twin that they name: reading a hundred bytes of tags as JSON is
-- three times faster than a whole twin. `document` has the versions and names that are left. Triggers keep it, in the
-- transaction of the twin itself.
--
-- <kind>_tag finds twins by a tag's value, wherever below `tags` a name of that kind stands: what is found so is looked
-- at once more. Texts of more than 128 characters and what stands in an array are not in it. Written only when tags change.

DROP TRIGGER twin_search_new;
DROP TRIGGER twin_search_changed;
DROP TRIGGER twin_search_gone;
DROP TABLE twin_search;
DROP TRIGGER module_twin_search_new;
DROP TRIGGER module_twin_search_changed;
DROP TRIGGER module_twin_search_gone;
DROP TABLE module_twin_search;

CREATE TABLE twin_tag (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value ANY NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX twin_tag_by_key ON twin_tag (scope, key);

CREATE TABLE twin_search (
    scope INTEGER NOT NULL, key TEXT NOT NULL,
    tags TEXT NOT NULL, desired TEXT NOT NULL, reported TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TRIGGER twin_tag_new AFTER INSERT ON twin_search WHEN new.tags <> '{}' BEGIN
    INSERT INTO twin_tag
        SELECT DISTINCT new.scope, tag.key, tag.atom, new.key FROM json_tree(new.tags) tag
        WHERE tag.atom IS NOT NULL AND typeof(tag.key) = 'text' AND length(tag.atom) <= 128;
END;
CREATE TRIGGER twin_tag_changed AFTER UPDATE OF tags ON twin_search WHEN new.tags <> old.tags BEGIN
    DELETE FROM twin_tag WHERE scope = old.scope AND key = old.key AND (name, value) NOT IN (
        SELECT tag.key, tag.atom FROM json_tree(new.tags) tag
        WHERE tag.atom IS NOT NULL AND typeof(tag.key) = 'text' AND length(tag.atom) <= 128);
    INSERT INTO twin_tag
        SELECT DISTINCT new.scope, tag.key, tag.atom, new.key FROM json_tree(new.tags) tag
        WHERE tag.atom IS NOT NULL AND typeof(tag.key) = 'text' AND length(tag.atom) <= 128 AND NOT EXISTS (
            SELECT 1 FROM twin_tag
            WHERE scope = new.scope AND name = tag.key AND value = tag.atom AND key = new.key);
END;
CREATE TRIGGER twin_tag_gone AFTER DELETE ON twin_search BEGIN
    DELETE FROM twin_tag WHERE scope = old.scope AND key = old.key;
END;

CREATE TRIGGER twin_search_new AFTER INSERT ON twin BEGIN
    INSERT INTO twin_search VALUES (new.scope, new.key, json_extract(new.document, '$.tags'),
        json_extract(new.document, '$.desired.values'), json_extract(new.document, '$.reported.values'),
        json_remove(new.document, '$.tags', '$.desired.values', '$.desired.metadata', '$.reported.values', '$.reported.metadata'));
END;
CREATE TRIGGER twin_search_changed AFTER UPDATE OF document ON twin BEGIN
    UPDATE twin_search SET tags = json_extract(new.document, '$.tags'),
        desired = json_extract(new.document, '$.desired.values'),
        reported = json_extract(new.document, '$.reported.values'),
        document = json_remove(new.document, '$.tags', '$.desired.values', '$.desired.metadata', '$.reported.values', '$.reported.metadata')
        WHERE scope = new.scope AND key = new.key;
END;
CREATE TRIGGER twin_search_gone AFTER DELETE ON twin BEGIN
    DELETE FROM twin_search WHERE scope = old.scope AND key = old.key;
END;
INSERT INTO twin_search
    SELECT scope, key, json_extract(document, '$.tags'),
        json_extract(document, '$.desired.values'), json_extract(document, '$.reported.values'),
        json_remove(document, '$.tags', '$.desired.values', '$.desired.metadata', '$.reported.values', '$.reported.metadata')
    FROM twin ORDER BY scope, key;

CREATE TABLE module_twin_tag (
    scope INTEGER NOT NULL, name TEXT NOT NULL, value ANY NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (scope, name, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX module_twin_tag_by_key ON module_twin_tag (scope, key);

CREATE TABLE module_twin_search (
    scope INTEGER NOT NULL, key TEXT NOT NULL,
    tags TEXT NOT NULL, desired TEXT NOT NULL, reported TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE TRIGGER module_twin_tag_new AFTER INSERT ON module_twin_search WHEN new.tags <> '{}' BEGIN
    INSERT INTO module_twin_tag
        SELECT DISTINCT new.scope, tag.key, tag.atom, new.key FROM json_tree(new.tags) tag
        WHERE tag.atom IS NOT NULL AND typeof(tag.key) = 'text' AND length(tag.atom) <= 128;
END;
CREATE TRIGGER module_twin_tag_changed AFTER UPDATE OF tags ON module_twin_search WHEN new.tags <> old.tags BEGIN
    DELETE FROM module_twin_tag WHERE scope = old.scope AND key = old.key AND (name, value) NOT IN (
        SELECT tag.key, tag.atom FROM json_tree(new.tags) tag
        WHERE tag.atom IS NOT NULL AND typeof(tag.key) = 'text' AND length(tag.atom) <= 128);
    INSERT INTO module_twin_tag
        SELECT DISTINCT new.scope, tag.key, tag.atom, new.key FROM json_tree(new.tags) tag
        WHERE tag.atom IS NOT NULL AND typeof(tag.key) = 'text' AND length(tag.atom) <= 128 AND NOT EXISTS (
            SELECT 1 FROM module_twin_tag
            WHERE scope = new.scope AND name = tag.key AND value = tag.atom AND key = new.key);
END;
CREATE TRIGGER module_twin_tag_gone AFTER DELETE ON module_twin_search BEGIN
    DELETE FROM module_twin_tag WHERE scope = old.scope AND key = old.key;
END;

CREATE TRIGGER module_twin_search_new AFTER INSERT ON module_twin BEGIN
    INSERT INTO module_twin_search VALUES (new.scope, new.key, json_extract(new.document, '$.tags'),
        json_extract(new.document, '$.desired.values'), json_extract(new.document, '$.reported.values'),
        json_remove(new.document, '$.tags', '$.desired.values', '$.desired.metadata', '$.reported.values', '$.reported.metadata'));
END;
CREATE TRIGGER module_twin_search_changed AFTER UPDATE OF document ON module_twin BEGIN
    UPDATE module_twin_search SET tags = json_extract(new.document, '$.tags'),
        desired = json_extract(new.document, '$.desired.values'),
        reported = json_extract(new.document, '$.reported.values'),
        document = json_remove(new.document, '$.tags', '$.desired.values', '$.desired.metadata', '$.reported.values', '$.reported.metadata')
        WHERE scope = new.scope AND key = new.key;
END;
CREATE TRIGGER module_twin_search_gone AFTER DELETE ON module_twin BEGIN
    DELETE FROM module_twin_search WHERE scope = old.scope AND key = old.key;
END;
INSERT INTO module_twin_search
    SELECT scope, key, json_extract(document, '$.tags'),
        json_extract(document, '$.desired.values'), json_extract(document, '$.reported.values'),
        json_remove(document, '$.tags', '$.desired.values', '$.desired.metadata', '$.reported.values', '$.reported.metadata')
    FROM module_twin ORDER BY scope, key;
