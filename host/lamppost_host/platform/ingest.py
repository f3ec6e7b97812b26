# ruff: noqa: S608 - names in the SQL come from model.py; what a request says is always a bound parameter.
"""Observations on their way in: single ones and data arrays, as fast as SQLite takes them.

A reading (`parameters.reading`) is stored once a Datastream, however often it is delivered: a repetition gets the link of
the Observation that is there. See the partial unique index in schema/v1.sql.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any, cast

import orjson

from lamppost_host.platform import times
from lamppost_host.platform.errors import BadRequest
from lamppost_host.platform.model import READING_MEMBER

# The columns that nearly every Observation has, and the others.
_PLAIN = ("id", "datastream", "phenomenon_start", "result_time", "result", "feature", "reading")
_WHOLE = (
    *_PLAIN,
    "phenomenon_end",
    "result_is_json",
    "parameters",
    "result_quality",
    "valid_start",
    "valid_end",
)
# Rows a statement: fewer calls into SQLite, and the interpreter's lock is let go of for longer.
_ROWS = 100
_MAX_INTEGER = 9_223_372_036_854_775_807
_MAX_REMEMBERED_TIMES = 65_536

ERROR = -1  # in place of an id: this row was not stored

_COMPONENTS = {
    "phenomenonTime": "phenomenonTime",
    "resultTime": "resultTime",
    "result": "result",
    "resultQuality": "resultQuality",
    "validTime": "validTime",
    "parameters": "parameters",
    "FeatureOfInterest/id": "feature",
    "FeatureOfInterest/@iot.id": "feature",
}
_PLAIN_COMPONENTS = {"phenomenonTime", "resultTime", "result", "parameters", "feature"}


class _Unusual(Exception):
    """The fast path met a row that is not plain."""


@lru_cache(maxsize=4 * _ROWS)
def _insert(columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT INTO observation ({', '.join(columns)}) VALUES {', '.join([row] * rows)} "
        "ON CONFLICT (datastream, reading) WHERE reading IS NOT NULL DO NOTHING"
    )


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


@dataclass
class _Batch:
    """The rows of one request before they go into the database."""

    first: int
    next: int
    ids: list[int] = field(default_factory=list)  # one a row of the request; ERROR where it is bad
    plain: list[Any] = field(default_factory=list)  # values of all plain rows, one after the other
    whole: list[Any] = field(default_factory=list)


class Ingest:
    """Lives on the writer's thread; remembers which Datastreams and features there are."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._instants: dict[str, int] = {}
        self.latest: dict[
            int, tuple[int, int | None, Any]
        ] = {}  # datastream -> start, end, result; since it was last taken
        self.forget()

    def forget_entities(self) -> None:
        """Entities changed: look again which there are."""
        self._features: dict[int, int] = {}  # datastream -> the feature made for it
        self._pairs: set[tuple[int, int]] = set()  # (feature, datastream) that the database knows

    def forget(self) -> None:
        """A transaction was undone: read again from the database what is remembered of it."""
        self.forget_entities()
        self.latest.clear()
        (highest,) = self._connection.execute("SELECT max(id) FROM observation").fetchone()
        counted = self._connection.execute("SELECT value FROM counter WHERE name = 'observation'").fetchone()
        self._next_id: int = max((highest or 0) + 1, counted[0] if counted else 1)

    def take_latest(self) -> dict[int, tuple[int, int | None, Any]]:
        """The latest result of each Datastream that got some since the last call."""
        latest, self.latest = self.latest, {}
        return latest

    def keep_ids(self) -> None:
        """Before Observations are deleted: note that their ids were used."""
        self._connection.execute(
            "INSERT INTO counter VALUES ('observation', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (self._next_id,),
        )

    # --- data arrays -----------------------------------------------------------------------------------------------

    def create_observations(self, body: bytes) -> list[int]:
        """Store the data arrays of a CreateObservations request; an id a row, ERROR for a row that can't be stored.

        Raises BadRequest for a body that is no list of data arrays; nothing is stored then.
        """
        groups = parse_json(body)
        if not isinstance(groups, list):
            raise BadRequest("CreateObservations takes an array of data arrays")
        batch = _Batch(self._next_id, self._next_id)
        checked = [_check_group(group) for group in groups]
        for datastream, positions, width, rows in checked:
            self._add_group(batch, datastream, positions, width, rows)
        self._store(batch)
        return batch.ids

    def _add_group(
        self, batch: _Batch, datastream: object, positions: dict[str, int], width: int, rows: list[Any]
    ) -> None:
        if type(datastream) is not int or not self._known_datastream(datastream):
            batch.ids += [ERROR] * len(rows)
            return
        if positions.keys() <= _PLAIN_COMPONENTS and "phenomenonTime" in positions:
            try:
                self._add_plain(batch, datastream, positions, width, rows)
            except (_Unusual, TypeError, KeyError):
                pass
            else:
                return
        names = {index: name for name, index in positions.items()}
        for row in rows:
            try:
                if not isinstance(row, list) or len(row) != width:
                    raise BadRequest(f"a row must be an array of {width}")
                values = {names[index]: value for index, value in enumerate(row)}
                self._add_whole(batch, datastream, values)
            except BadRequest:
                batch.ids.append(ERROR)

    def _add_plain(
        self, batch: _Batch, datastream: int, positions: dict[str, int], width: int, rows: list[Any]
    ) -> None:
        """Rows of an instant, a number or text, and no parameter but the reading's name; _Unusual leaves `batch` as it was.

        Works on whole columns with functions written in C: half of the time a loop over the rows takes.
        """
        if not rows or set(map(type, rows)) != {list} or set(map(len, rows)) != {width}:
            raise _Unusual
        columns = list(zip(*rows, strict=True))
        starts = self._instants_of(columns[positions["phenomenonTime"]])
        result_times = self._result_times(columns, positions, starts)
        results = columns[positions["result"]]
        kinds = set(map(type, results))
        if not kinds <= {float, int, str}:
            raise _Unusual
        if int in kinds and any(type(each) is int and abs(each) > _MAX_INTEGER for each in results):
            raise _Unusual
        readings = _readings(columns[positions["parameters"]]) if "parameters" in positions else None
        features = (
            self._features_of(columns[positions["feature"]], datastream) if "feature" in positions else None
        )
        count, size = len(rows), len(_PLAIN)
        values: list[Any] = [None] * (count * size)
        values[0::size] = range(batch.next, batch.next + count)
        values[1::size] = [datastream] * count
        values[2::size] = starts
        values[3::size] = result_times
        values[4::size] = results
        values[5::size] = [self._feature_for(datastream)] * count if features is None else features
        if readings is not None:
            values[6::size] = readings
        batch.plain += values
        batch.ids += range(batch.next, batch.next + count)
        batch.next += count
        self.latest[datastream] = (starts[-1], None, results[-1])

    def _instants_of(self, texts: Sequence[Any]) -> list[int]:
        found = list(map(self._instants.get, texts))
        return [self._instant(each) for each in texts] if None in found else cast(list[int], found)

    def _result_times(
        self, columns: list[tuple[Any, ...]], positions: dict[str, int], starts: list[int]
    ) -> Sequence[int | None]:
        if "resultTime" not in positions:
            return [None] * len(starts)
        texts = columns[positions["resultTime"]]
        if texts == columns[positions["phenomenonTime"]]:
            return starts
        return [None if each is None else self._instant(each) for each in texts]

    def _features_of(self, features: tuple[Any, ...], datastream: int) -> tuple[int, ...]:
        if set(map(type, features)) != {int} or not all(
            self._known_feature(each, datastream) for each in set(features)
        ):
            raise _Unusual
        return features

    def _instant(self, text: object) -> int:
        if type(text) is not str:
            raise _Unusual
        instant = self._instants.get(text)
        if instant is None:
            try:
                instant = times.parse_instant(text)
            except BadRequest as error:
                raise _Unusual from error
            if len(self._instants) >= _MAX_REMEMBERED_TIMES:
                self._instants.clear()
            self._instants[text] = instant
        return instant

    # --- single Observations ---------------------------------------------------------------------------------------

    def create(self, datastream: int, values: dict[str, Any]) -> int:
        """Store one Observation of the members of a SensorThings Observation, with `feature` the id of its feature or
        absent; returns its id, or that of the Observation that has the same reading already."""
        if not self._known_datastream(datastream):
            raise BadRequest(f"there is no Datastream {datastream}")
        batch = _Batch(self._next_id, self._next_id)
        self._add_whole(batch, datastream, values)
        self._store(batch)
        return batch.ids[0]

    def _add_whole(self, batch: _Batch, datastream: int, values: dict[str, Any]) -> None:
        """Add one row of any form; BadRequest leaves `batch` as it was."""
        columns = observation_columns(values)
        feature = values.get("feature")
        if feature is None:
            feature = self._feature_for(datastream)
        elif type(feature) is not int or not self._known_feature(feature, datastream):
            raise BadRequest(f"there is no FeatureOfInterest {feature!r}"[:200])
        columns |= {"id": batch.next, "datastream": datastream, "feature": feature}
        batch.whole += [columns[column] for column in _WHOLE]
        batch.ids.append(batch.next)
        batch.next += 1
        self.latest[datastream] = (columns["phenomenon_start"], columns["phenomenon_end"], values["result"])

    # --- the database ----------------------------------------------------------------------------------------------

    def _store(self, batch: _Batch) -> None:
        wanted = batch.next - batch.first
        if not wanted:
            return
        self._next_id = batch.next
        before = self._connection.total_changes
        for columns, values in ((_PLAIN, batch.plain), (_WHOLE, batch.whole)):
            step = _ROWS * len(columns)
            for start in range(0, len(values), step):
                part = values[start : start + step]
                self._connection.execute(_insert(columns, len(part) // len(columns)), part)
        if self._connection.total_changes - before < wanted:
            self._find_repeated(batch)

    def _find_repeated(self, batch: _Batch) -> None:
        """Some readings were there already: put the ids of their Observations in place of the ones set aside."""
        stored = {
            identity
            for (identity,) in self._connection.execute(
                "SELECT id FROM observation WHERE id >= ?", (batch.first,)
            )
        }
        others: dict[int, int] = {}
        for columns, values in ((_PLAIN, batch.plain), (_WHOLE, batch.whole)):
            for start in range(0, len(values), len(columns)):
                if values[start] not in stored:
                    (others[values[start]],) = self._connection.execute(
                        "SELECT id FROM observation WHERE datastream = ? AND reading = ?",
                        (values[start + 1], values[start + 6]),
                    ).fetchone()
        batch.ids = [others.get(identity, identity) for identity in batch.ids]

    def _known_datastream(self, datastream: int) -> bool:
        if datastream in self._features:
            return True
        if not -_MAX_INTEGER <= datastream <= _MAX_INTEGER:
            return False
        return (
            self._connection.execute("SELECT 1 FROM datastream WHERE id = ?", (datastream,)).fetchone()
            is not None
        )

    def _known_feature(self, feature: int, datastream: int) -> bool:
        if (feature, datastream) in self._pairs:
            return True
        if not 0 < feature <= _MAX_INTEGER:
            return False
        row = self._connection.execute(
            "SELECT 1 FROM feature_of_interest WHERE id = ?", (feature,)
        ).fetchone()
        if row is None:
            return False
        self.note_feature(feature, datastream)
        return True

    def note_feature(self, feature: int, datastream: int) -> None:
        """Remember that this Datastream has Observations of this feature."""
        if (feature, datastream) not in self._pairs:
            self._connection.execute(
                "INSERT OR IGNORE INTO datastream_feature VALUES (?, ?)", (feature, datastream)
            )
            self._pairs.add((feature, datastream))

    def _feature_for(self, datastream: int) -> int:
        """The feature of Observations that name none: made once from the current Location of the Datastream's Thing.

        A Thing with no Location gets a feature without geometry, so that its Observations have a place to hang on.
        """
        feature = self._features.get(datastream)
        if feature is None:
            feature = self._features[datastream] = self._find_or_make_feature(datastream)
            self.note_feature(feature, datastream)
        return feature

    def _find_or_make_feature(self, datastream: int) -> int:
        thing, thing_name, location = self._connection.execute(
            "SELECT t.id, t.name, (SELECT min(l.location) FROM thing_location l WHERE l.thing = t.id) "
            "FROM datastream d JOIN thing t ON t.id = d.thing WHERE d.id = ?",
            (datastream,),
        ).fetchone()
        column, source = ("thing", thing) if location is None else ("location", location)
        found = self._connection.execute(
            f"SELECT id FROM feature_of_interest WHERE {column} = ?",
            (source,),
        ).fetchone()
        if found is not None:
            return int(found[0])
        if location is None:
            nowhere = _json({"type": "Feature", "geometry": None, "properties": {}})
            cursor = self._connection.execute(
                "INSERT INTO feature_of_interest (name, description, encoding_type, feature, thing) VALUES (?, ?, ?, ?, ?)",
                (thing_name, "made for a Thing with no Location", "application/geo+json", nowhere, thing),
            )
        else:
            cursor = self._connection.execute(
                "INSERT INTO feature_of_interest (name, description, encoding_type, feature, location) "
                "SELECT name, description, encoding_type, location, id FROM location WHERE id = ?",
                (location,),
            )
        return int(cursor.lastrowid or 0)


def _readings(parameters: Sequence[Any]) -> list[str | None]:
    """The reading's name in each of `parameters` that have nothing else; _Unusual where they have."""
    if set(map(type, parameters)) == {dict}:
        readings = list(map(itemgetter(READING_MEMBER), parameters))
        if set(map(len, parameters)) == {1} and set(map(type, readings)) == {str}:
            return cast(list[str | None], readings)
    elif set(parameters) == {None}:
        return [None] * len(parameters)
    raise _Unusual


def parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def _check_group(group: object) -> tuple[object, dict[str, int], int, list[Any]]:
    """Datastream id, position of each component, width of a row, and rows of one data array."""
    if not isinstance(group, dict):
        raise BadRequest("a data array must be an object with Datastream, components and dataArray")
    stream, components, rows = group.get("Datastream"), group.get("components"), group.get("dataArray")
    if not isinstance(stream, dict) or "@iot.id" not in stream:
        raise BadRequest('a data array must name its Datastream: {"Datastream": {"@iot.id": 1}}')
    if not isinstance(components, list) or not isinstance(rows, list):
        raise BadRequest("a data array must have the arrays components and dataArray")
    positions: dict[str, int] = {}
    for index, component in enumerate(components):
        name = _COMPONENTS.get(component) if isinstance(component, str) else None
        if name is None or name in positions:
            raise BadRequest(
                f"can't use the component {component!r}; known are {', '.join(_COMPONENTS)}, each once"[:400]
            )
        positions[name] = index
    if "result" not in positions:
        raise BadRequest("the components must have result")
    return stream["@iot.id"], positions, len(components), rows


def observation_columns(values: dict[str, Any]) -> dict[str, Any]:
    """Columns of the members phenomenonTime, resultTime, result, resultQuality, validTime and parameters."""
    columns: dict[str, Any] = dict.fromkeys(_WHOLE)
    phenomenon = values.get("phenomenonTime")
    columns["phenomenon_start"], columns["phenomenon_end"] = (
        (times.now(), None) if phenomenon is None else times.parse_period(phenomenon)
    )
    if values.get("resultTime") is not None:
        instant, end = times.parse_period(values["resultTime"])
        if end is not None:
            raise BadRequest("resultTime is an instant, not an interval")
        columns["result_time"] = instant
    if values.get("validTime") is not None:
        columns["valid_start"], columns["valid_end"] = times.parse_period(values["validTime"])
    if "result" not in values:
        raise BadRequest("an Observation must have a result")
    columns["result"], columns["result_is_json"] = result_columns(values["result"])
    if values.get("resultQuality") is not None:
        columns["result_quality"] = _json(values["resultQuality"])
    columns["parameters"], columns["reading"] = parameter_columns(values.get("parameters"))
    return columns


def result_columns(result: object) -> tuple[Any, int | None]:
    """A number or text as it is; anything else as JSON text and a flag."""
    if isinstance(result, int) and not isinstance(result, bool):
        return (result if abs(result) <= _MAX_INTEGER else float(result)), None
    if isinstance(result, (float, str)):
        return result, None
    return _json(result), 1


def parameter_columns(parameters: object) -> tuple[str | None, str | None]:
    """The parameters without the reading's name, as JSON text, and that name."""
    if parameters is None:
        return None, None
    if not isinstance(parameters, dict):
        raise BadRequest("parameters must be a JSON object")
    others = dict(parameters)
    reading = others.pop(READING_MEMBER, None)
    if reading is not None and not isinstance(reading, str):
        raise BadRequest("parameters.reading must be text: it names the reading, for ever")
    return (_json(others) if others or reading is None else None), reading


def links(root: str, ids: Sequence[int]) -> bytes:
    """The answer to CreateObservations: a self link a row, or "error"."""
    head, tail = f'"{root}/Observations(', ')"'
    if ERROR in ids:
        return (
            "[" + ",".join(['"error"' if each == ERROR else f"{head}{each}{tail}" for each in ids]) + "]"
        ).encode()
    return (f"[{head}" + f"{tail},{head}".join(map(str, ids)) + f"{tail}]").encode() if ids else b"[]"
