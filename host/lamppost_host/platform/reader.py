# ruff: noqa: S608 - names in the SQL come from model.py; what a request says is always a bound parameter.
"""Reading: a resource path and its query -> rows of SQLite -> JSON, a piece at a time."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import orjson

from lamppost_host.platform import times
from lamppost_host.platform.errors import BadRequest, NotFound
from lamppost_host.platform.model import (
    COLLECTIONS,
    READING_MEMBER,
    EntityType,
    Kind,
    Navigation,
    OwnedBy,
    Owns,
    Property,
    Through,
    target_of,
)
from lamppost_host.platform.odata.fragments import Sql
from lamppost_host.platform.odata.sql import IDS, Compiler, Scope
from lamppost_host.platform.odata.syntax import Expansion, Ordering, Path, Query, ResourcePath
from lamppost_host.platform.odata.unparse import unparse_query
from lamppost_host.platform.paging import Key, after, decode_token, encode_token

_ROW = "e"  # the alias of the entity that is read
_CHUNK_BYTES = 65_536
_MAX_EXPAND_DEPTH = 5
_ABSENT = object()

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Limits:
    """Rows a page: where a request names no $top, and at most. `expanded` is the page of an expanded collection."""

    default_top: int = 100
    max_top: int = 10_000
    expanded: int = 100


@dataclass(frozen=True)
class Collection:
    """Entities of one type that meet a condition on the row `e`."""

    entity: EntityType
    condition: Sql
    path: str


@dataclass(frozen=True)
class One:
    entity: EntityType
    identity: int


@dataclass(frozen=True)
class PropertyOf:
    one: One
    name: str
    members: tuple[str, ...]


Target = Collection | One | PropertyOf


def _decode(item: Property) -> Callable[[Row, int], Any]:
    """Column values from an index onwards -> JSON value, or _ABSENT."""

    def text(row: Row, at: int) -> Any:
        return _ABSENT if row[at] is None else row[at]

    def json(row: Row, at: int) -> Any:
        return _ABSENT if row[at] is None else orjson.Fragment(row[at])

    def instant(row: Row, at: int) -> Any:
        return None if row[at] is None else times.format_instant(row[at])

    def period(row: Row, at: int) -> Any:
        return _ABSENT if row[at] is None else times.format_period(row[at], row[at + 1])

    def observed(row: Row, at: int) -> Any:
        return (
            _ABSENT
            if row[at] is None
            else f"{times.format_instant(row[at])}/{times.format_instant(row[at + 1])}"
        )

    def result(row: Row, at: int) -> Any:
        return row[at] if row[at + 1] is None else orjson.Fragment(row[at])

    def parameters(row: Row, at: int) -> Any:
        others, reading = row[at], row[at + 1]
        if reading is None:
            return _ABSENT if others is None else orjson.Fragment(others)
        named = {READING_MEMBER: reading}
        return named if others is None else orjson.loads(others) | named

    return {
        Kind.TEXT: text,
        Kind.JSON: json,
        Kind.OBJECT: json,
        Kind.INSTANT: instant,
        Kind.PERIOD: period,
        Kind.INTERVAL: period,
        Kind.OBSERVED_PERIOD: observed,
        Kind.RESULT: result,
        Kind.PARAMETERS: parameters,
    }[item.kind]


def _columns(item: Property) -> list[str]:
    if item.kind is Kind.OBSERVED_PERIOD:
        source = f"FROM observation o WHERE o.datastream = {_ROW}.id"
        return [f"(SELECT {each}(o.phenomenon_start) {source})" for each in ("min", "max")]
    return [f"{_ROW}.{column}" for column in item.columns]


def related_condition(navigation: Navigation, source: EntityType, identity: Sql) -> Sql:
    """The condition on the row `e` to be related by `navigation` to the `source` of this id."""
    match navigation.link:
        case Owns(column=column):
            return Sql.build(
                f"{_ROW}.id = (SELECT s.{column} FROM {source.table} s WHERE s.id = {{0}})", identity
            )
        case OwnedBy(column="feature"):
            # The table of Observations has no index by feature.
            streams = "SELECT f.datastream FROM datastream_feature f WHERE f.feature = {0}"
            return Sql.build(f"{_ROW}.feature = {{0}} AND {_ROW}.datastream IN ({streams})", identity)
        case OwnedBy(column=column):
            return Sql.build(f"{_ROW}.{column} = {{0}}", identity)
        case Through(table=table, near=near, far=far):
            return Sql.build(f"{_ROW}.id IN (SELECT p.{far} FROM {table} p WHERE p.{near} = {{0}})", identity)


class Reader:
    """Answers reads from one snapshot of the database. `root` is the service's URL without a trailing slash."""

    def __init__(self, connection: sqlite3.Connection, root: str, limits: Limits) -> None:
        self._connection = connection
        self._root = root
        self._limits = limits

    # --- what a path names -----------------------------------------------------------------------------------------

    def resolve(self, path: ResourcePath) -> Target:
        """What a resource path names. NotFound where it names nothing."""
        first = path.segments[0]
        entity = COLLECTIONS.get(first.name)
        if entity is None:
            raise NotFound(f"there is no collection {first.name[:60]!r}; there are {', '.join(COLLECTIONS)}")
        everything = Collection(entity, Sql("1"), first.name)
        target: Target = everything if first.key is None else self._member(everything, first.key)
        for segment in path.segments[1:]:
            if isinstance(target, PropertyOf) and segment.key is None:
                target = replace(target, members=(*target.members, segment.name))
                continue
            if not isinstance(target, One):
                raise NotFound(f"there is no {segment.name[:60]!r} here")
            target = self._step(target, segment.name, segment.key)
        return target

    def _step(self, one: One, name: str, key: int | None) -> Target:
        navigation = one.entity.navigations.get(name)
        if navigation is None:
            if key is None and (name in one.entity.properties or name in (*IDS, "@iot.selfLink", "selfLink")):
                return PropertyOf(one, name, ())
            raise NotFound(f"a {one.entity.name} has no {name[:60]!r}")
        condition = related_condition(navigation, one.entity, Sql.bound(one.identity))
        path = f"{one.entity.collection}({one.identity})/{name}"
        collection = Collection(target_of(navigation), condition, path)
        if navigation.many:
            return collection if key is None else self._member(collection, key)
        if key is not None:
            raise NotFound(f"{name} is one, not a collection")
        row = self._execute(
            Sql.build(f"SELECT {_ROW}.id FROM {collection.entity.table} {_ROW} WHERE {{0}}", condition)
        )
        found = row.fetchone()
        if found is None:
            raise NotFound(f"{one.entity.name} {one.identity} has no {name}")
        return One(collection.entity, found[0])

    def _member(self, collection: Collection, key: int) -> One:
        entity = collection.entity
        query = Sql.build(
            f"SELECT 1 FROM {entity.table} {_ROW} WHERE {_ROW}.id = {{0}} AND {{1}}",
            Sql.bound(key),
            collection.condition,
        )
        if self._execute(query).fetchone() is None:
            raise NotFound(f"there is no {collection.path}({key})")
        return One(entity, key)

    def _execute(self, sql: Sql) -> sqlite3.Cursor:
        return self._connection.execute(sql.text, sql.parameters)

    # --- one entity, one property ----------------------------------------------------------------------------------

    def entity(self, one: One, query: Query) -> dict[str, Any]:
        """An entity as JSON values."""
        plan = _Plan(self, one.entity, query, Sql.build(f"{_ROW}.id = {{0}}", Sql.bound(one.identity)))
        for row in plan.rows(limit=1, offset=0, token=None):
            return plan.build(row)
        raise NotFound(f"there is no {one.entity.collection}({one.identity})")

    def property_value(self, target: PropertyOf) -> Any:
        """The JSON value of a property or a member of it. NotFound where it is absent."""
        entity = target.one.entity
        if target.name in ("@iot.selfLink", "selfLink"):
            value: Any = f"{self._root}/{entity.collection}({target.one.identity})"
        elif target.name in IDS:
            value = target.one.identity
        else:
            whole = self.entity(target.one, Query(select=(target.name,)))
            if target.name not in whole:
                raise NotFound(f"this {entity.name} has no {target.name}")
            value = orjson.loads(orjson.dumps(whole[target.name]))
        for member in target.members:
            if isinstance(value, dict) and member in value:
                value = value[member]
            elif isinstance(value, list) and member.isdecimal() and int(member) < len(value):
                value = value[int(member)]
            else:
                raise NotFound(f"{target.name} has no {'/'.join(target.members)[:80]!r}")
        return value

    # --- collections -----------------------------------------------------------------------------------------------

    def collection(self, target: Collection, query: Query, *, references: bool = False) -> Iterator[bytes]:
        """A page of a collection as JSON text, in pieces of about 64 KiB. references: $ref, self links only."""
        if references:
            query = replace(query, select=("@iot.selfLink",), expand=())
        plan = _Plan(self, target.entity, query, target.condition)
        top = self._limits.default_top if query.top is None else min(query.top, self._limits.max_top)
        pieces = [b"{"]
        size = 0
        if query.count:
            pieces.append(b'"@iot.count":%d,' % plan.count())
        pieces.append(b'"value":[')
        last: Row | None = None
        more = False
        for written, row in enumerate(plan.rows(limit=top + 1, offset=query.skip, token=query.skiptoken)):
            if written == top:
                more = True
                break
            piece = orjson.dumps(plan.build(row))
            if written:
                pieces.append(b",")
            pieces.append(piece)
            size += len(piece)
            last = row
            if size > _CHUNK_BYTES:
                yield b"".join(pieces)
                pieces.clear()
                size = 0
        pieces.append(b"]")
        if more and last is not None:
            following = replace(query, skip=0, skiptoken=plan.token(last))
            suffix = "/$ref" if references else ""
            pieces.append(b',"@iot.nextLink":' + orjson.dumps(self._link(target.path + suffix, following)))
        pieces.append(b"}")
        yield b"".join(pieces)

    def _link(self, path: str, query: Query) -> str:
        options = unparse_query(query)
        return f"{self._root}/{path}?" + "&".join(
            f"{name}={quote(text, safe='')}" for name, text in options.items()
        )

    def expanded(self, plan: "_Plan", path: str, query: Query, identity: int) -> dict[str, Any]:
        """An expanded collection: its value, and its count and next link where they are due."""
        top = self._limits.expanded if query.top is None else min(query.top, self._limits.max_top)
        values: list[dict[str, Any]] = []
        answer: dict[str, Any] = {}
        last: Row | None = None
        for row in plan.rows(limit=top + 1, offset=query.skip, token=None, parent=identity):
            if len(values) == top:
                if last is not None:
                    following = replace(query, skip=0, skiptoken=plan.token(last))
                    answer["@iot.nextLink"] = self._link(path, following)
                break
            values.append(plan.build(row))
            last = row
        if query.count:
            answer["@iot.count"] = plan.count(parent=identity)
        answer[""] = values
        return answer


class _Plan:
    """One SELECT over an entity's table and how its rows become JSON; made once, run for each parent of an expansion."""

    def __init__(
        self,
        reader: Reader,
        entity: EntityType,
        query: Query,
        condition: Sql,
        depth: int = 0,
    ) -> None:
        if depth > _MAX_EXPAND_DEPTH:
            raise BadRequest(f"$expand goes deeper than {_MAX_EXPAND_DEPTH} levels")
        self._reader = reader
        self._entity = entity
        self._depth = depth
        compiler, scope = Compiler(), Scope(entity, _ROW)
        self._condition = condition
        if query.filter is not None:
            self._condition = Sql.build("({0}) AND {1}", condition, compiler.condition(query.filter, scope))
        self._keys = self._order(query.orderby, compiler, scope)
        self._choose(query)
        self._expansions = [self._expand(expansion) for expansion in query.expand]
        keys = [key.sql for key in self._keys]
        self._selection = Sql.join(", ", [*map(Sql, [f"{_ROW}.id", *self._columns]), *keys])
        self._first_key = 1 + len(self._columns)

    def _order(self, orderby: tuple[Ordering, ...], compiler: Compiler, scope: Scope) -> list[Key]:
        keys = [self._key(compiler.sort_key(each.key, scope), each.descending) for each in orderby]
        if (
            not keys
            and self._entity.name == "Observation"
            and f"{_ROW}.datastream = ?" in self._condition.text
        ):
            keys = [self._key(Sql(f"{_ROW}.phenomenon_start"), False)]  # the order of the index
        if not any(isinstance(each.key, Path) and each.key.steps[0] in IDS for each in orderby):
            keys.append(self._key(Sql(f"{_ROW}.id"), keys[-1].descending if keys else False))
        return keys

    @staticmethod
    def _key(sql: Sql, descending: bool) -> Key:
        return Key(sql, descending, never_null=sql.text in (f"{_ROW}.id", f"{_ROW}.phenomenon_start"))

    def _choose(self, query: Query) -> None:
        """Which columns to read and which members to write."""
        entity, select = self._entity, query.select
        known = {*entity.properties, *entity.navigations, *IDS, "@iot.selfLink", "selfLink"}
        for name in select or ():
            if name not in known:
                raise BadRequest(f"$select: a {entity.name} has no {name[:60]!r}")
        self._columns: list[str] = []
        self._decoders: list[tuple[str, Callable[[Row, int], Any], int]] = []
        for name, item in entity.properties.items():
            if select is None or name in select:
                self._decoders.append((name, _decode(item), 1 + len(self._columns)))
                self._columns += _columns(item)
        self._with_id = select is None or any(name in IDS for name in select)
        self._with_link = select is None or any(name in ("@iot.selfLink", "selfLink") for name in select)
        expanded = {expansion.navigation for expansion in query.expand}
        self._links = [
            (f"{name}@iot.navigationLink", f")/{name}")
            for name in entity.navigations
            if (select is None or name in select) and name not in expanded
        ]
        self._head = f"{self._reader._root}/{entity.collection}("

    def _expand(self, expansion: Expansion) -> "tuple[Navigation, Query, _Plan]":
        navigation = self._entity.navigations.get(expansion.navigation)
        if navigation is None:
            raise BadRequest(f"$expand: a {self._entity.name} has no {expansion.navigation[:60]!r}")
        # The id of the parent is bound anew for each; see rows().
        condition = related_condition(navigation, self._entity, Sql("?", (_PARENT,)))
        plan = _Plan(self._reader, target_of(navigation), expansion.query, condition, self._depth + 1)
        return navigation, expansion.query, plan

    def rows(self, limit: int, offset: int, token: str | None, parent: int | None = None) -> Iterator[Row]:
        condition = self._condition
        if token is not None:
            values = decode_token(token, len(self._keys))
            condition = Sql.build("({0}) AND {1}", condition, after(self._keys, values))
        order = ", ".join(
            f"{self._first_key + 1 + index}{' DESC' if key.descending else ''}"
            for index, key in enumerate(self._keys)
        )
        sql = Sql.build(
            f"SELECT {{0}} FROM {self._entity.table} {_ROW} WHERE {{1}} ORDER BY {order} LIMIT ? OFFSET ?",
            self._selection,
            condition,
        )
        return self._run(Sql(sql.text, (*sql.parameters, limit, offset)), parent)

    def _run(self, sql: Sql, parent: int | None) -> sqlite3.Cursor:
        parameters = [parent if each is _PARENT else each for each in sql.parameters]
        return self._reader._connection.execute(sql.text, parameters)

    def count(self, parent: int | None = None) -> int:
        sql = Sql.build(f"SELECT count(*) FROM {self._entity.table} {_ROW} WHERE {{0}}", self._condition)
        return int(self._run(sql, parent).fetchone()[0])

    def token(self, row: Row) -> str:
        """Where a page ended: the key values of its last row."""
        return encode_token(list(row[self._first_key :]))

    def build(self, row: Row) -> dict[str, Any]:
        """A row as the JSON values of its entity."""
        head = f"{self._head}{row[0]}"
        answer: dict[str, Any] = {}
        if self._with_id:
            answer["@iot.id"] = row[0]
        if self._with_link:
            answer["@iot.selfLink"] = head + ")"
        for name, decode, at in self._decoders:
            value = decode(row, at)
            if value is not _ABSENT:
                answer[name] = value
        for name, tail in self._links:
            answer[name] = head + tail
        for navigation, query, plan in self._expansions:
            name = navigation.name
            if navigation.many:
                found = self._reader.expanded(
                    plan, f"{self._entity.collection}({row[0]})/{name}", query, row[0]
                )
                answer[name] = found.pop("")
                for suffix, value in found.items():
                    answer[name + suffix] = value
            else:
                related = next(plan.rows(limit=1, offset=0, token=None, parent=row[0]), None)
                answer[name] = None if related is None else plan.build(related)
        return answer


class _Parent(str):
    """Marks the place of the parent's id among the parameters."""


_PARENT = _Parent("parent")
