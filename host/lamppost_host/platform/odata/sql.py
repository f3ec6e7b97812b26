# ruff: noqa: S608 - names in the SQL come from model.py; what a request says is always a bound parameter.
"""Syntax tree -> SQL conditions and sort keys over the tables of model.py."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from lamppost_host.platform.errors import BadRequest
from lamppost_host.platform.model import (
    INDEXED_MEMBER,
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
from lamppost_host.platform.odata import functions
from lamppost_host.platform.odata.fragments import Sql, Value, ValueKind, number
from lamppost_host.platform.odata.syntax import (
    Arithmetic,
    Call,
    Comparison,
    Expression,
    Junction,
    Literal,
    LiteralKind,
    Membership,
    Negative,
    Not,
    Path,
)

IDS = ("id", "@iot.id")
# SQLite refuses expressions deeper than 1,000; a chain of 1,500 nodes stays below it.
_MAX_DEPTH = 60
_MAX_NODES = 1_500

_OPERATORS = {"eq": "=", "ne": "IS NOT", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_MIRRORED = {"eq": "eq", "ne": "ne", "gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}
_ARITHMETIC = {"add": "({0} + {1})", "sub": "({0} - {1})", "mul": "({0} * {1})", "mod": "({0} % {1})"}
_TEMPORAL = (ValueKind.INSTANT, ValueKind.PERIOD)
_UNTYPED = (ValueKind.ANY, ValueKind.RESULT)
_LITERALS = {
    LiteralKind.NUMBER: ValueKind.NUMBER,
    LiteralKind.TEXT: ValueKind.TEXT,
    LiteralKind.INSTANT: ValueKind.INSTANT,
    LiteralKind.DATE: ValueKind.DATE,
    LiteralKind.DURATION: ValueKind.DURATION,
}


@dataclass(frozen=True)
class Scope:
    """The entity that a path starts from, and the name of its row in the SQL."""

    entity: EntityType
    alias: str


def _children(expression: Expression) -> tuple[Expression, ...]:
    match expression:
        case Call(arguments=parts) | Junction(terms=parts):
            return parts
        case Comparison(left=left, right=right) | Arithmetic(left=left, right=right):
            return left, right
        case Membership(item=item, values=values):
            return item, *values
        case Negative(operand=operand) | Not(operand=operand):
            return (operand,)
        case _:
            return ()


def _check_size(expression: Expression) -> None:
    """Refuse what is too deep or too large, without recursion: from here on recursion is safe."""
    level: list[Expression] = [expression]
    depth = nodes = 0
    while level:
        depth, nodes = depth + 1, nodes + len(level)
        if depth > _MAX_DEPTH or nodes > _MAX_NODES:
            raise BadRequest("the expression is too deep or too long")
        level = [child for each in level for child in _children(each)]


def _paths(expression: Expression) -> Iterator[Path]:
    if isinstance(expression, Path):
        yield expression
    for child in _children(expression):
        yield from _paths(child)


def _without_first_step(expression: Expression) -> Expression:
    """`expression` as seen from the entity that the first step of all its paths leads to."""
    match expression:
        case Path(steps=steps):
            return Path(steps[1:])
        case Call(arguments=arguments):
            return replace(expression, arguments=tuple(map(_without_first_step, arguments)))
        case Comparison(left=left, right=right) | Arithmetic(left=left, right=right):
            return replace(expression, left=_without_first_step(left), right=_without_first_step(right))
        case Membership(item=item, values=values):
            return Membership(_without_first_step(item), tuple(map(_without_first_step, values)))
        case Negative(operand=operand):
            return Negative(_without_first_step(operand))
        case _:
            return expression


def json_path(members: tuple[str, ...]) -> str:
    """SQLite's path to a member. A step is a name or an array index, by the grammar: neither holds a quotation mark."""
    return "$" + "".join(
        f"[{each}]" if each.isascii() and each.isdigit() else f'."{each}"' for each in members
    )


class Compiler:
    """Compiles the expressions of one request; hands out the aliases of its sub-queries."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def condition(self, expression: Expression, scope: Scope) -> Sql:
        """A $filter as a condition on the row `scope.alias`."""
        _check_size(expression)
        return self._condition(expression, scope)

    def sort_key(self, expression: Expression, scope: Scope) -> Sql:
        """An $orderby key; of a period its start."""
        _check_size(expression)
        return self._value(expression, scope).sql

    def _condition(self, expression: Expression, scope: Scope) -> Sql:
        if isinstance(expression, Junction):
            parts = [self._condition(term, scope) for term in expression.terms]
            return Sql.build("({0})", Sql.join(f" {expression.operator.upper()} ", parts))
        if isinstance(expression, Not):
            # Null is not true: not(null) is true, as in OData.
            return Sql.build("(NOT coalesce({0}, 0))", self._condition(expression.operand, scope))
        navigation = self._common_navigation(expression, scope.entity)
        if navigation is not None:
            inner = Scope(target_of(navigation), self._alias())
            return related(
                navigation, scope.alias, inner, self._condition(_without_first_step(expression), inner)
            )
        value = self._value(expression, scope)
        if value.kind is ValueKind.BOOLEAN:
            return value.sql
        if value.kind is ValueKind.ANY:
            return Sql.build("({0} = 1)", value.sql)
        raise BadRequest(f"a condition must be true or false; this one is {value.kind.value}")

    def _alias(self) -> str:
        return f"r{next(self._numbers)}"

    @staticmethod
    def _common_navigation(expression: Expression, entity: EntityType) -> Navigation | None:
        """The relation that all paths of a term start with, where the term is best asked of the related entity."""
        paths = list(_paths(expression))
        navigation = entity.navigations.get(paths[0].steps[0]) if paths else None
        if navigation is None or any(
            path.steps[0] != navigation.name or len(path.steps) < 2 for path in paths
        ):
            return None
        if isinstance(navigation.link, Owns) and all(
            path.steps[1:] in (("id",), ("@iot.id",)) for path in paths
        ):
            return None  # the id is in this row
        return navigation

    def _value(self, expression: Expression, scope: Scope) -> Value:
        match expression:
            case Literal():
                return self._literal(expression)
            case Path(steps=steps):
                return self._path(steps, scope)
            case Call(function=name, arguments=arguments):
                return functions.call(name, [self._value(each, scope) for each in arguments])
            case Comparison(operator=operator, left=left, right=right):
                return Value(
                    ValueKind.BOOLEAN, compare(operator, self._value(left, scope), self._value(right, scope))
                )
            case Membership(item=item, values=values):
                first = self._value(item, scope)
                terms = [compare("eq", first, self._value(each, scope)) for each in values]
                return Value(ValueKind.BOOLEAN, Sql.build("({0})", Sql.join(" OR ", terms)))
            case Arithmetic(operator=operator, left=left, right=right):
                return _arithmetic(operator, self._value(left, scope), self._value(right, scope))
            case Negative(operand=operand):
                return Value(ValueKind.NUMBER, Sql.build("(- {0})", number(self._value(operand, scope))))
            case _:
                return Value(ValueKind.BOOLEAN, self._condition(expression, scope))

    @staticmethod
    def _literal(literal: Literal) -> Value:
        value = literal.value
        match literal.kind:
            case LiteralKind.NULL:
                return Value(ValueKind.NULL, Sql("NULL"), literal=True)
            case LiteralKind.BOOLEAN:
                return Value(ValueKind.BOOLEAN, Sql("1" if value else "0"), literal=True)
            case LiteralKind.INTERVAL if isinstance(value, tuple):
                return Value(ValueKind.PERIOD, Sql.bound(value[0]), Sql.bound(value[1]), literal=True)
            case kind if kind in _LITERALS and not isinstance(value, tuple):
                return Value(_LITERALS[kind], Sql.bound(value), literal=True)
            case _:
                raise BadRequest(f"$filter: this service can't use a {literal.kind.value} yet")

    def _path(self, steps: tuple[str, ...], scope: Scope) -> Value:
        first, rest = steps[0], steps[1:]
        if first in IDS and not rest:
            return Value(ValueKind.NUMBER, Sql(f"{scope.alias}.id"))
        if first in scope.entity.properties:
            return self._property(scope.entity.properties[first], rest, scope.alias)
        navigation = scope.entity.navigations.get(first)
        if navigation is None:
            raise BadRequest(f"a {scope.entity.name} has no property {first[:40]!r}")
        if not rest:
            raise BadRequest(f"name a property of {first}: {first}/id")
        if not isinstance(navigation.link, Owns):
            raise BadRequest(f"{first} are many: there is no single {'/'.join(steps)[:80]} here")
        if rest in (("id",), ("@iot.id",)):
            return Value(ValueKind.NUMBER, Sql(f"{scope.alias}.{navigation.link.column}"))
        inner = Scope(target_of(navigation), self._alias())
        template = (
            f"(SELECT {{0}} FROM {inner.entity.table} {inner.alias} "
            f"WHERE {inner.alias}.id = {scope.alias}.{navigation.link.column})"
        )
        value = self._path(rest, inner)
        return Value(
            value.kind,
            Sql.build(template, value.sql),
            None if value.end is None else Sql.build(template, value.end),
            None if value.flag is None else Sql.build(template, value.flag),
        )

    @staticmethod
    def _property(item: Property, members: tuple[str, ...], alias: str) -> Value:
        columns = [Sql(f"{alias}.{column}") for column in item.columns]
        match item.kind:
            case Kind.PARAMETERS if members == (READING_MEMBER,):
                return Value(ValueKind.TEXT, columns[1])
            case Kind.OBJECT if members == (INDEXED_MEMBER,):
                # Written out, so that it is the indexed expression.
                return Value(
                    ValueKind.ANY, Sql.build(f"json_extract({{0}}, '$.{INDEXED_MEMBER}')", columns[0])
                )
            case Kind.OBJECT | Kind.JSON | Kind.PARAMETERS:
                path = Sql.bound(json_path(members))
                return Value(ValueKind.ANY, Sql.build("json_extract({0}, {1})", columns[0], path))
            case Kind.RESULT if members:
                path = Sql.bound(json_path(members))
                template = "CASE WHEN {0} THEN json_extract({1}, {2}) END"
                return Value(ValueKind.ANY, Sql.build(template, columns[1], columns[0], path))
            case _ if members:
                raise BadRequest(f"{item.name} has no members: {'/'.join(members)[:80]!r}")
            case Kind.TEXT:
                return Value(ValueKind.TEXT, columns[0])
            case Kind.RESULT:
                return Value(ValueKind.RESULT, columns[0], flag=columns[1])
            case Kind.INSTANT:
                return Value(ValueKind.INSTANT, columns[0])
            case Kind.OBSERVED_PERIOD:
                source = f"FROM observation o WHERE o.datastream = {alias}.id"
                return Value(
                    ValueKind.PERIOD,
                    Sql(f"(SELECT min(o.phenomenon_start) {source})"),
                    Sql(f"(SELECT max(o.phenomenon_start) {source})"),
                )
            case _:
                return Value(ValueKind.PERIOD, columns[0], Sql.build("coalesce({1}, {0})", *columns))


def related(navigation: Navigation, alias: str, inner: Scope, condition: Sql) -> Sql:
    """The condition that an entity related by `navigation` to the row `alias` meets `condition` on `inner`.

    Asked as a list of ids, not row by row, so that SQLite can start from the related table's own index.
    """
    table, row = inner.entity.table, inner.alias
    match navigation.link:
        case Owns(column=column):
            template = f"({alias}.{column} IN (SELECT {row}.id FROM {table} {row} WHERE {{0}}))"
        case OwnedBy(column=column):
            template = f"({alias}.id IN (SELECT {row}.{column} FROM {table} {row} WHERE {{0}}))"
        case Through(table=pairs, near=near, far=far):
            template = (
                f"({alias}.id IN (SELECT p.{near} FROM {pairs} p "
                f"WHERE p.{far} IN (SELECT {row}.id FROM {table} {row} WHERE {{0}})))"
            )
    return Sql.build(template, condition)


def _arithmetic(operator: str, left: Value, right: Value) -> Value:
    kinds = (left.kind, right.kind)
    if operator in ("add", "sub"):
        template = _ARITHMETIC[operator]
        if left.kind in _TEMPORAL and right.kind is ValueKind.DURATION:
            end = None if left.end is None else Sql.build(template, left.end, right.sql)
            return Value(left.kind, Sql.build(template, left.sql, right.sql), end)
        if operator == "sub" and all(kind in _TEMPORAL for kind in kinds):
            return Value(ValueKind.DURATION, Sql.build(template, left.sql, right.sql))
    if any(kind not in (ValueKind.NUMBER, ValueKind.NULL, *_UNTYPED) for kind in kinds):
        raise BadRequest(f"can't {operator} {left.kind.value} and {right.kind.value}")
    if operator == "div":
        return Value(ValueKind.NUMBER, Sql.build("({0} * 1.0 / {1})", number(left), number(right)))
    return Value(ValueKind.NUMBER, Sql.build(_ARITHMETIC[operator], number(left), number(right)))


def compare(operator: str, left: Value, right: Value) -> Sql:
    """`left operator right` as a condition."""
    if left.literal and not right.literal:
        operator, left, right = _MIRRORED[operator], right, left
    if right.kind is ValueKind.NULL:
        return _compare_to_null(operator, left)
    if left.kind in _TEMPORAL and right.kind in _TEMPORAL:
        return _compare_times(operator, left, right)
    symbol = _OPERATORS[operator]
    if left.kind is ValueKind.RESULT and right.kind not in _UNTYPED:
        return _compare_result(operator, left, right)
    if left.kind in _UNTYPED and operator not in ("eq", "ne"):
        types = {ValueKind.NUMBER: "'integer', 'real'", ValueKind.TEXT: "'text'"}.get(right.kind)
        if types is not None:
            # SQLite sorts any text after any number; a client does not mean that.
            return Sql.build(f"(typeof({{0}}) IN ({types}) AND {{0}} {symbol} {{1}})", left.sql, right.sql)
    if not _comparable(left.kind, right.kind):
        raise BadRequest(f"can't compare {left.kind.value} with {right.kind.value}")
    return Sql.build(f"({{0}} {symbol} {{1}})", left.sql, right.sql)


def _comparable(left: ValueKind, right: ValueKind) -> bool:
    if left is right or ValueKind.NULL in (left, right):
        return True
    plain = (ValueKind.NUMBER, ValueKind.TEXT, ValueKind.BOOLEAN, *_UNTYPED)
    if left in plain and right in plain:
        return left in _UNTYPED or right in _UNTYPED or {left, right} == {ValueKind.NUMBER, ValueKind.TEXT}
    # A date and a time of day compare with text written the same way.
    return {left, right} in ({ValueKind.DATE, ValueKind.TEXT}, {ValueKind.CLOCK, ValueKind.TEXT})


def _compare_to_null(operator: str, left: Value) -> Sql:
    if operator not in ("eq", "ne"):
        return Sql("0")
    if left.flag is not None:
        test = "({0} IS NULL OR ({1} IS NOT NULL AND {0} = 'null'))"
        return Sql.build(test if operator == "eq" else f"(NOT {test})", left.sql, left.flag)
    return Sql.build("({0} IS NULL)" if operator == "eq" else "({0} IS NOT NULL)", left.sql)


def _compare_times(operator: str, left: Value, right: Value) -> Sql:
    """An interval is before a time when it ends before it, and after it when it begins after it."""
    template = {
        "eq": "({0} = {2} AND {1} = {3})",
        "ne": "({0} IS NOT {2} OR {1} IS NOT {3})",
        "gt": "({0} > {3})",
        "ge": "({0} >= {2} AND {1} >= {3})",
        # The comparison of the starts follows from that of the ends; it is there for the index.
        "lt": "({0} < {2} AND {1} < {2})",
        "le": "({0} <= {2} AND {1} <= {3})",
    }[operator]
    return Sql.build(template, left.sql, left.last, right.sql, right.last)


def _compare_result(operator: str, left: Value, right: Value) -> Sql:
    symbol = _OPERATORS[operator]
    if left.flag is None:
        raise BadRequest("can't compare this result")
    if right.kind is ValueKind.BOOLEAN:
        if operator not in ("eq", "ne"):
            raise BadRequest("true and false have no order")
        same = "({1} IS NOT NULL AND {0} = CASE WHEN {2} THEN 'true' ELSE 'false' END)"
        return Sql.build(same if operator == "eq" else f"(NOT {same})", left.sql, left.flag, right.sql)
    is_number = "typeof({0}) IN ('integer', 'real')"
    if right.kind is ValueKind.NUMBER:
        guard = f"({is_number} AND {{0}} {symbol} {{1}})"
        return Sql.build(guard if operator != "ne" else "({0} IS NOT {1})", left.sql, right.sql)
    if right.kind is not ValueKind.TEXT:
        raise BadRequest(f"can't compare a result with {right.kind.value}")
    as_text = f"({{1}} IS NULL AND typeof({{0}}) = 'text' AND {{0}} {symbol} {{2}})"
    numeral = _numeral(right)
    if numeral is None:
        return Sql.build(as_text if operator != "ne" else "({0} IS NOT {2})", left.sql, left.flag, right.sql)
    # Clients write numbers in quotes: result gt '3' is meant for numeric results too.
    return Sql.build(
        f"CASE WHEN {is_number} THEN {{0}} {symbol} {{3}} ELSE {as_text} END",
        left.sql,
        left.flag,
        right.sql,
        Sql.bound(numeral),
    )


def _numeral(value: Value) -> float | None:
    if not value.literal or not isinstance(value.sql.parameters[0], str):
        return None
    try:
        return float(value.sql.parameters[0])
    except ValueError:
        return None
