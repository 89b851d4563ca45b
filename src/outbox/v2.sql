-- Version 2: the audit lines are chained. A version that was released is never edited: add the
-- next one.

ALTER TABLE audit ADD COLUMN chain TEXT NOT NULL DEFAULT '';  -- 64 hex digits; see chain.rs

CREATE TABLE chain (
    place TEXT PRIMARY KEY,                -- anchor: the last line that was pruned; head: the newest
    seq INTEGER NOT NULL,
    at TEXT,
    hash TEXT NOT NULL,
    seal BLOB NOT NULL
) STRICT, WITHOUT ROWID;

DROP TRIGGER audit_stays_as_written;
DROP TRIGGER audit_stays;

-- A line is written once, and chained once: with it, or when it came from version 1.
CREATE TRIGGER audit_stays_as_written BEFORE UPDATE ON audit WHEN OLD.chain <> ''
BEGIN SELECT raise(ABORT, 'the audit trail is append-only'); END;

-- It goes only once the anchor has taken its place.
CREATE TRIGGER audit_stays BEFORE DELETE ON audit
WHEN OLD.seq > ifnull((SELECT seq FROM chain WHERE place = 'anchor'), 0)
BEGIN SELECT raise(ABORT, 'the audit trail is append-only'); END;
