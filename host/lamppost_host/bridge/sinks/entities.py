"""A node's SensorThings entities: looked for by stable key, made once, changed when the node describes itself anew."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from lamppost_host import vocabulary
from lamppost_host.bridge.sink_store import SinkStore
from lamppost_host.bridge.sinks import Unavailable
from lamppost_host.bridge.sinks.sta_client import Gone, Refused, StaClient, json_of, url_of
from lamppost_host.wire import About, Datastream

log = logging.getLogger(__name__)

REFUSED_SECONDS = 600.0
"""How long a description that the platform refused is taken as refused before it is tried again."""

VERIFIED_SECONDS = 5.0
"""How long the platform is taken to be the same one without a look."""


@dataclass(slots=True)
class NodeEntities:
    """What a frame needs: the Datastream ids of an about document's columns, and why one has none; the id of the place."""

    datastreams: dict[str, str] = field(default_factory=dict)
    feature: str | None = None
    """FeatureOfInterest of the document's location. Named with each reading, because the platform knows only where the node stands
    now, and a frame from the journal may be of before it was moved."""
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Datastream key to (code, reason)."""
    since: float = field(default_factory=time.monotonic)


class Entities:
    """Entities of one platform. `properties.lamppost` of each is its stable key."""

    def __init__(
        self, client: StaClient, store: SinkStore, connections_lost: Callable[[], int] = lambda: 0
    ) -> None:
        """`connections_lost`: by others who talk to the same platform."""
        self._client = client
        self._store = store
        self._known: dict[tuple[str, int], NodeEntities] = {}
        self._others_lost = connections_lost
        self._connections_lost = -1  # verify at the start, too
        self._verified = 0.0

    def of(self, node: str, about: About) -> NodeEntities:
        """The ids for a frame under this document; made where they are missing, never changed."""
        self._verify_platform()
        known = self._known.get((node, about.revision))
        if known is not None and not (known.refused and time.monotonic() - known.since > REFUSED_SECONDS):
            return known
        return self._make(node, about, changing=False)

    def describe(self, node: str, about: About) -> None:
        """Bring the entities to what the document says."""
        self._verify_platform()
        self._make(node, about, changing=self._store.described(node) != about.revision)

    def forget(self, node: str) -> None:
        """The platform no longer knows an id of this node: look everything up again."""
        log.warning("the platform no longer has an entity of %s: looking its entities up again", node)
        self._store.forget_node(node)
        self._known = {key: value for key, value in self._known.items() if key[0] != node}

    def _verify_platform(self) -> None:
        """After a lost connection or a pause, see that the newest Datastream is still the one we made: an emptied or restored platform gives its ids anew."""
        lost = self._client.connections_lost + self._others_lost()
        now = time.monotonic()
        if self._connections_lost == lost and now - self._verified < VERIFIED_SECONDS:
            return
        newest = self._store.newest("Datastreams")
        if newest is not None:
            key, identifier = newest
            try:
                properties = self._client.get(f"Datastreams({identifier})").get("properties") or {}
            except Gone:
                properties = {}
            if properties.get("lamppost") != key:
                log.warning(
                    "the platform is not the one that we knew, or was set back: looking all entities up again"
                )
                self._store.forget_entities()
                self._known.clear()
        self._connections_lost, self._verified = lost, now

    def _make(self, node: str, about: About, changing: bool) -> NodeEntities:
        for _ in range(3):
            try:
                found = self._try_to_make(node, about, changing)
            except Gone:
                self.forget(node)
                continue
            self._known[node, about.revision] = found
            if changing or self._store.described(node) is None:
                self._store.keep_described(node, about.revision)
            return found
        raise Unavailable(f"the entities of {node} vanish from the platform as they are made")

    def _try_to_make(self, node: str, about: About, changing: bool) -> NodeEntities:
        result = NodeEntities()
        try:
            thing = self._thing(node, about, changing)
            result.feature = self._feature(node, about)
        except Refused as refusal:
            result.refused = {d.key: ("entity-refused", str(refusal)) for d in about.datastreams}
            return result
        for datastream in about.datastreams:
            try:
                result.datastreams[datastream.key] = self._datastream(
                    node, about, thing, datastream, changing
                )
            except vocabulary.VocabularyError as error:
                result.refused[datastream.key] = ("property-unknown", error.message)
            except Refused as refusal:
                result.refused[datastream.key] = ("entity-refused", str(refusal))
        for key, (code, reason) in result.refused.items():
            log.error("no readings of %s/%s can reach the platform (%s): %s", node, key, code, reason)
        return result

    # One entity each

    def _thing(self, node: str, about: About, changing: bool) -> str:
        properties = {
            **about.properties,
            **{
                key: value
                for key in ("board", "hardware", "sdk", "micropython", "place")
                if (value := getattr(about, key))
            },
            "lamppost": node,
        }
        plain = {
            "name": about.name,
            "description": about.description or f"Lamppost node {node}",
            "properties": properties,
        }
        identifier = self._known_or_found("Things", node)
        if identifier is None:
            location = self._location(node, about)
            links = {"Locations": [{"@iot.id": _id(location)}]} if location else {}
            return self._create("Things", node, plain | links)
        if changing:
            self._update(f"Things({identifier})", plain)
            location = self._location(node, about)
            if location is not None:
                # The platform keeps the earlier ones as HistoricalLocations.
                self._update(f"Things({identifier})", {"Locations": [{"@iot.id": _id(location)}]})
        return identifier

    def _location(self, node: str, about: About) -> str | None:
        return self._place("Locations", "location", node, about)

    def _feature(self, node: str, about: About) -> str | None:
        return self._place("FeaturesOfInterest", "feature", node, about)

    def _place(self, kind: str, member: str, node: str, about: About) -> str | None:
        """The entity of this kind that is the document's location; None where it has none."""
        if about.location is None:
            return None
        coordinates = list(about.location)
        key = node + "/" + ",".join(str(number) for number in coordinates)
        return self._ensure(
            kind,
            key,
            {
                "name": about.place or about.name,
                "description": f"Where the node {node} stands",
                "encodingType": "application/geo+json",
                member: {"type": "Point", "coordinates": coordinates},
                "properties": {"lamppost": key},
            },
        )

    def _datastream(self, node: str, about: About, thing: str, column: Datastream, changing: bool) -> str:
        key = f"{node}/{column.key}"
        measures = f"{column.property}/{column.unit}"
        identifier = self._known_or_found("Datastreams", key)
        remade = identifier is not None and self._measures(key, identifier, column) != measures
        if remade:
            # All results of a Datastream have its one unit and property: with others they go to one of their own, and the old keep theirs.
            key += "/" + measures
            identifier = self._known_or_found("Datastreams", key)
        if identifier is not None and not changing:
            return identifier
        observed = vocabulary.observed_property(column.property)
        unit = vocabulary.unit_of_measurement(column.unit)
        sensor = self._ensure("Sensors", _sensor_key(column), _sensor(column))
        property_id = self._ensure(
            "ObservedProperties",
            column.property,
            {
                "name": observed.name,
                "definition": observed.definition,
                "description": observed.description,
                "properties": {"lamppost": column.property},
            },
        )
        alone = sum(other.property == column.property for other in about.datastreams) == 1
        plain = {
            "name": f"{observed.name}, {about.name}"
            + ("" if alone else f" ({column.key})")
            + (f" [{unit['symbol']}]" if remade else ""),
            "description": f"{observed.description} Measured by {_sensor_key(column)}.",
            "unitOfMeasurement": unit,
            "properties": {
                "lamppost": key,
                "property": column.property,
                "ucum": column.unit,
                "resolution": 10.0**-column.decimals,
            },
            "Sensor": {"@iot.id": _id(sensor)},
            "ObservedProperty": {"@iot.id": _id(property_id)},
        }
        if identifier is not None:
            self._update(f"Datastreams({identifier})", plain)
            return identifier
        return self._create(
            "Datastreams",
            key,
            plain
            | {
                "observationType": "http://www.opengis.net/def/observationType/OGC-OM/2.0/OM_Measurement",
                "Thing": {"@iot.id": _id(thing)},
            },
        )

    def _measures(self, key: str, identifier: str, column: Datastream) -> str:
        """Property and unit of a Datastream; they never change. Where it does not say, it is taken to be the column's."""
        known = self._store.entity(_MEASURES, key)
        if known is None:
            properties = self._client.get(f"Datastreams({identifier})").get("properties") or {}
            known = f"{properties.get('property', column.property)}/{properties.get('ucum', column.unit)}"
            self._store.keep_entity(_MEASURES, key, known)
        return known

    # Keys to ids

    def _known_or_found(self, kind: str, key: str) -> str | None:
        identifier = self._store.entity(kind, key)
        if identifier is None:
            identifier = self._client.find(kind, key)
            if identifier is not None:
                self._store.keep_entity(kind, key, identifier)
        return identifier

    def _ensure(self, kind: str, key: str, entity: dict[str, Any]) -> str:
        return self._known_or_found(kind, key) or self._create(kind, key, entity)

    def _create(self, kind: str, key: str, entity: dict[str, Any]) -> str:
        try:
            identifier = self._client.create(kind, entity)
        except Refused as refusal:
            # 409: another bridge was quicker. Otherwise an id that we linked may be gone, which platforms answer with 400.
            identifier_found = self._client.find(kind, key) if refusal.status == 409 else None
            if identifier_found is None:
                self._check_links(entity)
                raise
            identifier = identifier_found
        self._store.keep_entity(kind, key, identifier)
        return identifier

    def _update(self, path: str, changes: dict[str, Any]) -> None:
        try:
            self._client.update(path, changes)
        except Refused:
            self._check_links(changes)
            raise

    def _check_links(self, entity: dict[str, Any]) -> None:
        """Raise Gone if an entity that `entity` links to is not there."""
        for name, kind in _LINKS.items():
            linked = entity.get(name)
            if linked is not None:
                identifier = linked[0]["@iot.id"] if isinstance(linked, list) else linked["@iot.id"]
                self._client.get(f"{kind}({url_of(identifier)})")


_MEASURES = "Measures"
"""What the store remembers of a Datastream's property and unit, beside the ids of real kinds of entities."""

_LINKS = {
    "Thing": "Things",
    "Locations": "Locations",
    "Sensor": "Sensors",
    "ObservedProperty": "ObservedProperties",
}


def _id(identifier: str) -> Any:
    """An id of a URL as a value for JSON."""
    return orjson.loads(json_of(identifier))


def _sensor_key(column: Datastream) -> str:
    return column.sensor if column.sensor_id is None else f"{column.sensor}/{column.sensor_id}"


def _sensor(column: Datastream) -> dict[str, Any]:
    key = _sensor_key(column)
    metadata = {"model": column.sensor} | ({} if column.sensor_id is None else {"id": column.sensor_id})
    return {
        "name": key,
        "description": f"Sensor {column.sensor}"
        + ("" if column.sensor_id is None else f" with the id {column.sensor_id}"),
        "encodingType": "application/json",
        "metadata": metadata,
        "properties": {"lamppost": key},
    }
