# ruff: noqa: S608 - names in the SQL come from model.py; what a request says is always a bound parameter.
"""Creating, changing and deleting entities (OGC 18-088, clause 10). Lives on the writer's thread."""

import sqlite3
from typing import Any

import orjson

from lamppost_host.platform import times
from lamppost_host.platform.errors import BadRequest, NotFound
from lamppost_host.platform.ingest import Ingest, parameter_columns, result_columns
from lamppost_host.platform.model import (
    ENTITY_TYPES,
    EntityType,
    Kind,
    Navigation,
    OwnedBy,
    Owns,
    Property,
    Through,
    target_of,
)

# Thing > Datastream > Observation > FeatureOfInterest and the like: deeper is a mistake.
_MAX_DEPTH = 8
_COMPUTED = {"Datastream": {"phenomenonTime", "resultTime"}}
_MAX_INTEGER = 9_223_372_036_854_775_807
_OBSERVATION = ENTITY_TYPES["Observation"]


def _article(entity: EntityType) -> str:
    return f"{'an' if entity.name[0] in 'AEIOU' else 'a'} {entity.name}"


def _link_id(value: object) -> int | None:
    """The id of `{"@iot.id": 1, ...}`; None for an entity written out."""
    if not isinstance(value, dict):
        raise BadRequest("a related entity must be a JSON object")
    if "@iot.id" not in value:
        return None
    identity = value["@iot.id"]
    if type(identity) is not int or not 0 <= identity <= _MAX_INTEGER:
        raise BadRequest(f"@iot.id must be a whole number, not {identity!r}"[:200])
    return identity


def _columns(item: Property, value: object, entity: EntityType) -> dict[str, Any]:
    """Column values of a property's JSON value."""
    if value is None:
        if item.required:
            raise BadRequest(f"{_article(entity)} must have {item.name}")
        return dict.fromkeys(item.columns)
    match item.kind:
        case Kind.TEXT:
            if not isinstance(value, str):
                raise BadRequest(f"{item.name} must be text")
            return {item.columns[0]: value}
        case Kind.OBJECT:
            if not isinstance(value, dict):
                raise BadRequest(f"{item.name} must be a JSON object")
            return {item.columns[0]: orjson.dumps(value).decode()}
        case Kind.JSON:
            return {item.columns[0]: orjson.dumps(value).decode()}
        case Kind.INSTANT:
            start, end = times.parse_period(value)
            if end is not None:
                raise BadRequest(f"{item.name} is an instant, not an interval")
            return {item.columns[0]: start}
        case Kind.PERIOD | Kind.INTERVAL:
            return dict(zip(item.columns, times.parse_period(value), strict=True))
        case Kind.RESULT:
            return dict(zip(item.columns, result_columns(value), strict=True))
        case Kind.PARAMETERS:
            return dict(zip(item.columns, parameter_columns(value), strict=True))
        case Kind.OBSERVED_PERIOD:
            return {}


def _way_back(navigation: Navigation) -> str | None:
    """The name of the same relation as the other entity has it, where it is the other's column."""
    if not isinstance(navigation.link, OwnedBy):
        return None
    column = navigation.link.column
    return next(name for name, each in target_of(navigation).navigations.items() if each.link == Owns(column))


class Store:
    """Writes entities in the transaction that the caller holds."""

    def __init__(self, connection: sqlite3.Connection, ingest: Ingest) -> None:
        self._connection = connection
        self._ingest = ingest

    # --- create ----------------------------------------------------------------------------------------------------

    def create(
        self, entity: EntityType, body: object, given: dict[str, int] | None = None, depth: int = 0
    ) -> int:
        """Make an entity with what is nested in it; returns its id.

        given: relations that the request's path says, by name: POST Things(1)/Datastreams gives {"Thing": 1}.
        Raises BadRequest for a body that breaks the data model, or links to what is not there.
        """
        if not isinstance(body, dict):
            raise BadRequest(f"{_article(entity)} must be a JSON object")
        if depth > _MAX_DEPTH:
            raise BadRequest("the entities are nested too deep")
        given = dict(given or {})
        self._check_names(entity, body)
        if entity.name == "Observation":
            return self._create_observation(body, given, depth)
        columns: dict[str, Any] = {}
        for item in entity.properties.values():
            columns |= _columns(item, body.get(item.name), entity)
        for navigation in entity.navigations.values():
            if isinstance(navigation.link, Owns):
                columns[navigation.link.column] = self._one(entity, navigation, body, given, depth)
        cursor = self._connection.execute(
            f"INSERT INTO {entity.table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            tuple(columns.values()),
        )
        identity = int(cursor.lastrowid or 0)
        self._changed()
        for navigation in entity.navigations.values():
            if not isinstance(navigation.link, Owns):
                self._many(entity, identity, navigation, body, given, depth)
        return identity

    def _changed(self) -> None:
        self._ingest.forget_entities()

    @staticmethod
    def _check_names(entity: EntityType, body: dict[str, Any]) -> None:
        for name in body:
            if name in entity.properties or name in entity.navigations or "@" in name:
                continue
            if name not in _COMPUTED.get(entity.name, ()):
                raise BadRequest(f"{_article(entity)} has no {name[:60]!r}")

    def _one(
        self,
        entity: EntityType,
        navigation: Navigation,
        body: dict[str, Any],
        given: dict[str, int],
        depth: int,
    ) -> int | None:
        """The id of the entity at the other end of a relation to one."""
        if navigation.name in given:
            return given[navigation.name]
        value = body.get(navigation.name)
        if value is None:
            if navigation.required:
                raise BadRequest(f"{_article(entity)} must have {_article(target_of(navigation))}")
            return None
        identity = _link_id(value)
        if identity is None:
            return self.create(target_of(navigation), value, None, depth + 1)
        self._must_exist(target_of(navigation), identity)
        return identity

    def _many(
        self,
        entity: EntityType,
        identity: int,
        navigation: Navigation,
        body: dict[str, Any],
        given: dict[str, int],
        depth: int,
    ) -> None:
        """Make or link the entities at the other end of a relation to many."""
        values = body.get(navigation.name)
        others = [given[navigation.name]] if navigation.name in given else []
        if values is None and not others:
            return
        if values is not None and not isinstance(values, list):
            raise BadRequest(f"{navigation.name} must be an array")
        target = target_of(navigation)
        back = _way_back(navigation)
        for value in values or []:
            other = _link_id(value)
            if other is not None:
                self._must_exist(target, other)
            elif back is not None:
                self.create(target, value, {back: identity}, depth + 1)
                continue
            else:
                other = self.create(target, value, None, depth + 1)
            others.append(other)
        self._link(entity, identity, navigation, others)

    def _link(self, entity: EntityType, identity: int, navigation: Navigation, others: list[int]) -> None:
        """Relate existing entities."""
        if not others:
            return
        match navigation.link:
            case OwnedBy(column=column):
                table = target_of(navigation).table
                self._connection.executemany(
                    f"UPDATE {table} SET {column} = ? WHERE id = ?",
                    [(identity, other) for other in others],
                )
            case Through(table="thing_location"):
                if entity.name == "Thing":
                    self._move(identity, others)
                else:
                    for thing in others:
                        self._move(thing, [identity])
            case Through(table=table, near=near, far=far):
                self._connection.executemany(
                    f"INSERT OR IGNORE INTO {table} ({near}, {far}) VALUES (?, ?)",
                    [(identity, other) for other in others],
                )
        self._changed()

    def _move(self, thing: int, locations: list[int]) -> None:
        """Give a Thing new Locations, and its history a new entry; nothing where it stands there already."""
        known = self._connection.execute("SELECT location FROM thing_location WHERE thing = ?", (thing,))
        if {location for (location,) in known} == set(locations):
            return
        self._connection.execute("DELETE FROM thing_location WHERE thing = ?", (thing,))
        self._connection.executemany(
            "INSERT OR IGNORE INTO thing_location (thing, location) VALUES (?, ?)",
            [(thing, each) for each in locations],
        )
        cursor = self._connection.execute(
            "INSERT INTO historical_location (time, thing) VALUES (?, ?)", (times.now(), thing)
        )
        self._connection.executemany(
            "INSERT OR IGNORE INTO historical_location_location (historical_location, location) VALUES (?, ?)",
            [(cursor.lastrowid, each) for each in locations],
        )

    def _create_observation(self, body: dict[str, Any], given: dict[str, int], depth: int) -> int:
        relations = _OBSERVATION.navigations
        datastream = self._one(_OBSERVATION, relations["Datastream"], body, given, depth)
        feature = self._one(_OBSERVATION, relations["FeatureOfInterest"], body, given, depth)
        if datastream is None:
            raise BadRequest("an Observation must have a Datastream")
        return self._ingest.create(datastream, body | {"feature": feature})

    def _must_exist(self, entity: EntityType, identity: int) -> None:
        if not self._exists(entity, identity):
            raise BadRequest(f"there is no {entity.name} {identity}")

    def _exists(self, entity: EntityType, identity: int) -> bool:
        query = f"SELECT 1 FROM {entity.table} WHERE id = ?"
        return self._connection.execute(query, (identity,)).fetchone() is not None

    # --- update ----------------------------------------------------------------------------------------------------

    def update(self, entity: EntityType, identity: int, body: object, *, replace: bool = False) -> None:
        """Change the properties and relations that `body` names. BadRequest when it writes out a related entity.

        replace: properties that `body` does not name lose their value (PUT); relations keep theirs.
        """
        if not isinstance(body, dict):
            raise BadRequest("a change must be a JSON object")
        if not self._exists(entity, identity):
            raise NotFound(f"there is no {entity.name} {identity}")
        self._check_names(entity, body)
        columns: dict[str, Any] = {}
        for name, item in entity.properties.items():
            if name in body or (replace and item.kind is not Kind.PERIOD):
                columns |= _columns(item, body.get(name), entity)
        links: list[tuple[Navigation, list[int]]] = []
        for name, navigation in entity.navigations.items():
            if name not in body:
                continue
            values = body[name] if navigation.many else [body[name]]
            if not isinstance(values, list):
                raise BadRequest(f"{name} must be an array")
            others = [self._existing(navigation, value) for value in values]
            if isinstance(navigation.link, Owns):
                columns[navigation.link.column] = others[0]
            else:
                links.append((navigation, others))
        if columns:
            self._connection.execute(
                f"UPDATE {entity.table} SET {', '.join(f'{each} = ?' for each in columns)} WHERE id = ?",
                (*columns.values(), identity),
            )
        for navigation, others in links:
            self._link(entity, identity, navigation, others)
        self._after_update(entity, identity, columns)
        self._changed()

    def _existing(self, navigation: Navigation, value: object) -> int:
        other = _link_id(value)
        if other is None:
            raise BadRequest(f'a change can link {navigation.name} by {{"@iot.id": 1}}, not write them out')
        self._must_exist(target_of(navigation), other)
        return other

    def _after_update(self, entity: EntityType, identity: int, columns: dict[str, Any]) -> None:
        if entity.name == "Location" and "location" in columns:
            # Features made from it keep describing where the old Observations were made; new ones get a new feature.
            self._connection.execute(
                "UPDATE feature_of_interest SET location = NULL WHERE location = ?", (identity,)
            )
        if entity.name == "Observation" and {"feature", "datastream"} & columns.keys():
            self._connection.execute(
                "INSERT OR IGNORE INTO datastream_feature SELECT feature, datastream FROM observation WHERE id = ?",
                (identity,),
            )

    # --- delete ----------------------------------------------------------------------------------------------------

    def delete(self, entity: EntityType, identity: int) -> None:
        """Delete an entity and what can't be without it (OGC 18-088, table 26)."""
        if not self._exists(entity, identity):
            raise NotFound(f"there is no {entity.name} {identity}")
        delete = self._connection.execute
        owned = "SELECT id FROM datastream WHERE"
        match entity.name:
            case "Observation":
                self._ingest.keep_ids()
            case "FeatureOfInterest":
                self._ingest.keep_ids()
                delete(
                    "DELETE FROM observation WHERE feature = ?1 "
                    "AND datastream IN (SELECT datastream FROM datastream_feature WHERE feature = ?1)",
                    (identity,),
                )
                delete("DELETE FROM datastream_feature WHERE feature = ?", (identity,))
            case "Datastream" | "Thing" | "Sensor" | "ObservedProperty":
                self._ingest.keep_ids()
                column = "id" if entity.name == "Datastream" else entity.table
                streams = f"{owned} {column} = ?"
                delete(f"DELETE FROM observation WHERE datastream IN ({streams})", (identity,))
                delete(f"DELETE FROM datastream_feature WHERE datastream IN ({streams})", (identity,))
            case "Location":
                delete(
                    "DELETE FROM historical_location WHERE id IN "
                    "(SELECT historical_location FROM historical_location_location WHERE location = ?)",
                    (identity,),
                )
        delete(f"DELETE FROM {entity.table} WHERE id = ?", (identity,))
        self._ingest.forget_entities()
