"""The SensorThings 1.1 entity model (OGC 18-088, clause 8) as data, and where SQLite keeps each part of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a property holds, and how its columns do."""

    TEXT = "text"
    JSON = "json"  # any JSON value, as JSON text
    OBJECT = "object"  # a JSON object, as JSON text
    INSTANT = "instant"  # one column, microseconds
    PERIOD = "period"  # two columns: start and end (NULL for an instant), microseconds
    INTERVAL = "interval"  # two columns: start and end, microseconds
    RESULT = (
        "result"  # a number or text as it is; anything else as JSON text with the flag in the second column
    )
    PARAMETERS = "parameters"  # JSON object without its member "reading", which has the second column
    OBSERVED_PERIOD = "observed period"  # computed from the Observations


@dataclass(frozen=True)
class Property:
    name: str
    kind: Kind
    columns: tuple[str, ...]
    required: bool = False


@dataclass(frozen=True)
class Owns:
    """The relation is a column of this entity's table: the id of the other."""

    column: str


@dataclass(frozen=True)
class OwnedBy:
    """The relation is a column of the other's table: the id of this entity."""

    column: str


@dataclass(frozen=True)
class Through:
    """The relation is a table of pairs: `near` is this entity's id, `far` the other's."""

    table: str
    near: str
    far: str


@dataclass(frozen=True)
class Navigation:
    name: str
    target: str
    many: bool
    link: Owns | OwnedBy | Through
    required: bool = False


@dataclass(frozen=True)
class EntityType:
    name: str
    collection: str
    table: str
    properties: dict[str, Property]
    navigations: dict[str, Navigation]


# The members of `properties` and `parameters` that have an index: the stable keys of Lamppost's bridge.
INDEXED_MEMBER = "lamppost"
READING_MEMBER = "reading"


def _text(name: str, column: str | None = None, required: bool = True) -> Property:
    return Property(name, Kind.TEXT, (column or name,), required)


def _entity(
    name: str, collection: str, table: str, properties: Iterable[Property], navigations: Iterable[Navigation]
) -> EntityType:
    return EntityType(
        name,
        collection,
        table,
        {each.name: each for each in properties},
        {each.name: each for each in navigations},
    )


_PROPERTIES = Property("properties", Kind.OBJECT, ("properties",))

_TYPES = (
    _entity(
        "Thing",
        "Things",
        "thing",
        [_text("name"), _text("description"), _PROPERTIES],
        [
            Navigation("Locations", "Location", True, Through("thing_location", "thing", "location")),
            Navigation("HistoricalLocations", "HistoricalLocation", True, OwnedBy("thing")),
            Navigation("Datastreams", "Datastream", True, OwnedBy("thing")),
        ],
    ),
    _entity(
        "Location",
        "Locations",
        "location",
        [
            _text("name"),
            _text("description"),
            _text("encodingType", "encoding_type"),
            Property("location", Kind.JSON, ("location",), required=True),
            _PROPERTIES,
        ],
        [
            Navigation("Things", "Thing", True, Through("thing_location", "location", "thing")),
            Navigation(
                "HistoricalLocations",
                "HistoricalLocation",
                True,
                Through("historical_location_location", "location", "historical_location"),
            ),
        ],
    ),
    _entity(
        "HistoricalLocation",
        "HistoricalLocations",
        "historical_location",
        [Property("time", Kind.INSTANT, ("time",), required=True)],
        [
            Navigation("Thing", "Thing", False, Owns("thing"), required=True),
            Navigation(
                "Locations",
                "Location",
                True,
                Through("historical_location_location", "historical_location", "location"),
            ),
        ],
    ),
    _entity(
        "Datastream",
        "Datastreams",
        "datastream",
        [
            _text("name"),
            _text("description"),
            _text("observationType", "observation_type"),
            Property("unitOfMeasurement", Kind.OBJECT, ("unit_of_measurement",), required=True),
            Property("observedArea", Kind.JSON, ("observed_area",)),
            Property("phenomenonTime", Kind.OBSERVED_PERIOD, ()),
            _PROPERTIES,
        ],
        [
            Navigation("Thing", "Thing", False, Owns("thing"), required=True),
            Navigation("Sensor", "Sensor", False, Owns("sensor"), required=True),
            Navigation(
                "ObservedProperty", "ObservedProperty", False, Owns("observed_property"), required=True
            ),
            Navigation("Observations", "Observation", True, OwnedBy("datastream")),
        ],
    ),
    _entity(
        "Sensor",
        "Sensors",
        "sensor",
        [
            _text("name"),
            _text("description"),
            _text("encodingType", "encoding_type"),
            Property("metadata", Kind.JSON, ("metadata",), required=True),
            _PROPERTIES,
        ],
        [Navigation("Datastreams", "Datastream", True, OwnedBy("sensor"))],
    ),
    _entity(
        "ObservedProperty",
        "ObservedProperties",
        "observed_property",
        [_text("name"), _text("definition"), _text("description"), _PROPERTIES],
        [Navigation("Datastreams", "Datastream", True, OwnedBy("observed_property"))],
    ),
    _entity(
        "Observation",
        "Observations",
        "observation",
        [
            Property("phenomenonTime", Kind.PERIOD, ("phenomenon_start", "phenomenon_end")),
            Property("resultTime", Kind.INSTANT, ("result_time",)),
            Property("result", Kind.RESULT, ("result", "result_is_json"), required=True),
            Property("resultQuality", Kind.JSON, ("result_quality",)),
            Property("validTime", Kind.INTERVAL, ("valid_start", "valid_end")),
            Property("parameters", Kind.PARAMETERS, ("parameters", "reading")),
        ],
        [
            Navigation("Datastream", "Datastream", False, Owns("datastream"), required=True),
            Navigation("FeatureOfInterest", "FeatureOfInterest", False, Owns("feature")),
        ],
    ),
    _entity(
        "FeatureOfInterest",
        "FeaturesOfInterest",
        "feature_of_interest",
        [
            _text("name"),
            _text("description"),
            _text("encodingType", "encoding_type"),
            Property("feature", Kind.JSON, ("feature",), required=True),
            _PROPERTIES,
        ],
        [Navigation("Observations", "Observation", True, OwnedBy("feature"))],
    ),
)

ENTITY_TYPES: dict[str, EntityType] = {each.name: each for each in _TYPES}
COLLECTIONS: dict[str, EntityType] = {each.collection: each for each in _TYPES}


def target_of(navigation: Navigation) -> EntityType:
    return ENTITY_TYPES[navigation.target]
