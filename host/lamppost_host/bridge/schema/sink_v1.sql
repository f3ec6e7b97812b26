-- One sink's own file: its place in the spool, the ids that its platform gave, and what the platform refused.

CREATE TABLE progress (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    spool TEXT,                      -- which spool the cursor belongs to
    cursor INTEGER NOT NULL,         -- id in the spool up to which everything is delivered or a dead letter
    delivered INTEGER NOT NULL,      -- readings
    state TEXT NOT NULL,
    error TEXT,                      -- the last one
    error_at INTEGER,                -- Unix ms
    updated INTEGER NOT NULL
);
INSERT INTO progress VALUES (1, NULL, 0, 0, 'new', NULL, NULL, 0);

CREATE TABLE entities (
    kind TEXT NOT NULL,              -- entity set of SensorThings, for example Things
    key TEXT NOT NULL,               -- properties.lamppost
    id TEXT NOT NULL,                -- as it stands in a URL: 17 or 'a8f3'
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

-- The about revision that a node's entities were last made from.
CREATE TABLE described (
    node TEXT PRIMARY KEY,           -- tenant/node
    revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    node TEXT NOT NULL,              -- tenant/node
    datastream TEXT NOT NULL,        -- key in the about document
    boot TEXT NOT NULL,              -- hexadecimal
    seq INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    observations TEXT NOT NULL,      -- JSON array: the readings as they were to be delivered
    at INTEGER NOT NULL,             -- Unix ms
    UNIQUE (node, datastream, boot, seq, observations)
);
CREATE INDEX dead_letters_frame ON dead_letters (boot, seq);
