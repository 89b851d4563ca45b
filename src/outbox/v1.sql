-- Version 1. A version that was released is never edited: add the next one.

CREATE TABLE entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice
    seen_at TEXT NOT NULL,
    card TEXT NOT NULL,
    draft TEXT NOT NULL,                   -- JSON
    stage TEXT NOT NULL,                   -- JSON
    seal BLOB NOT NULL
) STRICT;

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    outcome TEXT NOT NULL,
    card TEXT,
    entry INTEGER,
    line TEXT NOT NULL,                    -- JSON
    seal BLOB NOT NULL
) STRICT;

CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_card ON audit (card, at) WHERE card IS NOT NULL;

CREATE TRIGGER audit_stays_as_written BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the audit trail is append-only'); END;

CREATE TRIGGER audit_stays BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'the audit trail is append-only'); END;

CREATE TABLE stay (
    reader TEXT PRIMARY KEY,
    stay TEXT NOT NULL,                    -- JSON
    seal BLOB NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA application_id = 1667396196;        -- "cbrd"
