-- Version 1. Times are integer microseconds since 1970-01-01T00:00:00Z; JSON is kept as text.
-- Columns that ingest fills come first, in the order in which it fills them.

-- properties.lamppost is the stable key by which bridges find what they made: two that make the same at once get one entity, and the
-- second a 409. Entities without it are not compared.

CREATE TABLE thing (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    properties TEXT
);
CREATE UNIQUE INDEX thing_lamppost ON thing (json_extract(properties, '$.lamppost'));

CREATE TABLE location (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    encoding_type TEXT NOT NULL,
    location TEXT NOT NULL,
    properties TEXT
);
CREATE UNIQUE INDEX location_lamppost ON location (json_extract(properties, '$.lamppost'));

CREATE TABLE thing_location (
    thing INTEGER NOT NULL REFERENCES thing ON DELETE CASCADE,
    location INTEGER NOT NULL REFERENCES location ON DELETE CASCADE,
    PRIMARY KEY (thing, location)
) WITHOUT ROWID;
CREATE INDEX thing_location_location ON thing_location (location);

CREATE TABLE historical_location (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    thing INTEGER NOT NULL REFERENCES thing ON DELETE CASCADE
);
CREATE INDEX historical_location_thing ON historical_location (thing, time);

CREATE TABLE historical_location_location (
    historical_location INTEGER NOT NULL REFERENCES historical_location ON DELETE CASCADE,
    location INTEGER NOT NULL REFERENCES location ON DELETE CASCADE,
    PRIMARY KEY (historical_location, location)
) WITHOUT ROWID;
CREATE INDEX historical_location_location_location ON historical_location_location (location);

CREATE TABLE sensor (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    encoding_type TEXT NOT NULL,
    metadata TEXT NOT NULL,
    properties TEXT
);
CREATE UNIQUE INDEX sensor_lamppost ON sensor (json_extract(properties, '$.lamppost'));

CREATE TABLE observed_property (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    definition TEXT NOT NULL,
    description TEXT NOT NULL,
    properties TEXT
);
CREATE UNIQUE INDEX observed_property_lamppost ON observed_property (json_extract(properties, '$.lamppost'));

CREATE TABLE datastream (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    observation_type TEXT NOT NULL,
    unit_of_measurement TEXT NOT NULL,
    observed_area TEXT,
    properties TEXT,
    thing INTEGER NOT NULL REFERENCES thing ON DELETE CASCADE,
    sensor INTEGER NOT NULL REFERENCES sensor ON DELETE CASCADE,
    observed_property INTEGER NOT NULL REFERENCES observed_property ON DELETE CASCADE
);
CREATE UNIQUE INDEX datastream_lamppost ON datastream (json_extract(properties, '$.lamppost'));
CREATE INDEX datastream_thing ON datastream (thing);
CREATE INDEX datastream_sensor ON datastream (sensor);
CREATE INDEX datastream_observed_property ON datastream (observed_property);

-- `location` names the Location that this feature was made from, as long as it still describes it.
CREATE TABLE feature_of_interest (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    encoding_type TEXT NOT NULL,
    feature TEXT NOT NULL,
    properties TEXT,
    location INTEGER UNIQUE REFERENCES location ON DELETE SET NULL,
    thing INTEGER UNIQUE REFERENCES thing ON DELETE SET NULL
);
CREATE UNIQUE INDEX feature_of_interest_lamppost ON feature_of_interest (json_extract(properties, '$.lamppost'));

-- No foreign keys and no third index here: both would be paid for on every reading. Deleting an entity deletes its
-- Observations in the same transaction (store.py), and datastream_feature leads from a feature to its Observations.
CREATE TABLE observation (
    id INTEGER PRIMARY KEY,
    datastream INTEGER NOT NULL,
    phenomenon_start INTEGER NOT NULL,
    result_time INTEGER,
    result,
    feature INTEGER NOT NULL,
    reading TEXT,
    phenomenon_end INTEGER,
    result_is_json INTEGER,
    parameters TEXT,
    result_quality TEXT,
    valid_start INTEGER,
    valid_end INTEGER
);
CREATE INDEX observation_time ON observation (datastream, phenomenon_start);
CREATE UNIQUE INDEX observation_reading ON observation (datastream, reading) WHERE reading IS NOT NULL;

CREATE TABLE datastream_feature (
    feature INTEGER NOT NULL,
    datastream INTEGER NOT NULL,
    PRIMARY KEY (feature, datastream)
) WITHOUT ROWID;

-- The lowest id that no Observation ever had, kept when Observations are deleted so that no link gets a new meaning.
CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
