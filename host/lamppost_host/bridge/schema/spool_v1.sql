-- The spool and its ledger. One writer (the intake); sinks, status and audit read.
-- Times are Unix milliseconds. A boot is the node's 8 random bytes.

CREATE TABLE nodes (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    node TEXT NOT NULL,
    revision INTEGER,            -- of the about document in force
    state TEXT,                  -- from here on: the last status
    boot BLOB,
    pending INTEGER,
    dropped INTEGER,
    cuts INTEGER,
    at_risk INTEGER,
    status_at INTEGER,
    UNIQUE (tenant, node)
);

-- Every about document ever heard, so that a frame of any age can be read.
CREATE TABLE abouts (
    node INTEGER NOT NULL REFERENCES nodes,
    revision INTEGER NOT NULL,
    payload BLOB NOT NULL,
    received INTEGER NOT NULL,
    PRIMARY KEY (node, revision)
) WITHOUT ROWID;

CREATE TABLE boots (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL REFERENCES nodes,
    boot BLOB NOT NULL,
    heard INTEGER NOT NULL,      -- order in which the node's boots were last heard of
    high INTEGER NOT NULL,       -- this frame and all before it are here or declared dropped; -1: none
    seq INTEGER,                 -- from here on: the boot's last status
    taken INTEGER,
    refused INTEGER,
    faults TEXT,                 -- JSON: datastream key to failed reads
    uptime INTEGER,
    reset TEXT,
    UNIQUE (node, boot)
);

-- The ledger: one row a frame, for ever. A second frame of the same name is stopped here.
CREATE TABLE frames (
    boot INTEGER NOT NULL REFERENCES boots,
    seq INTEGER NOT NULL,
    taken INTEGER,               -- readings of the boot before this frame; null when the frame can't be read
    readings INTEGER,
    received INTEGER NOT NULL,
    refused TEXT,                -- reason code of its dead letter; null: handed to the sinks
    PRIMARY KEY (boot, seq)
) WITHOUT ROWID;

-- Runs of frames that a node says it dropped.
CREATE TABLE drops (
    boot INTEGER NOT NULL REFERENCES boots,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    PRIMARY KEY (boot, first)
) WITHOUT ROWID;

-- What the sinks have still to deliver, in order. AUTOINCREMENT: an id is never used twice, also after the table has been empty.
CREATE TABLE spool (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    node INTEGER NOT NULL REFERENCES nodes,
    revision INTEGER NOT NULL,
    boot INTEGER,                -- null: the about document `revision` came into force here
    seq INTEGER,
    readings INTEGER NOT NULL,
    received INTEGER NOT NULL,
    payload BLOB
);

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    received INTEGER NOT NULL,   -- when it came last
    times INTEGER NOT NULL DEFAULT 1,
    node INTEGER REFERENCES nodes,
    boot INTEGER REFERENCES boots,
    seq INTEGER,
    revision INTEGER,            -- the about document that a frame asks for
    readings INTEGER,
    digest BLOB NOT NULL UNIQUE  -- of topic and payload: the same message twice is one dead letter
);
CREATE INDEX dead_letters_waiting ON dead_letters (node, revision) WHERE code = 'about-unknown';
CREATE INDEX dead_letters_frame ON dead_letters (boot, seq);

-- How far each sink has come, as the bridge last saw it: nothing beyond the slowest is pruned.
CREATE TABLE sinks (
    name TEXT PRIMARY KEY,
    cursor INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL          -- JSON
) WITHOUT ROWID;
