"""The functions of $filter (OGC 18-088, tables 24 and 25) in SQL."""

from collections.abc import Callable

from lamppost_host.platform import times
from lamppost_host.platform.errors import BadRequest
from lamppost_host.platform.odata.fragments import Sql, Value, ValueKind, number

_NUMBER, _TEXT, _BOOLEAN = ValueKind.NUMBER, ValueKind.TEXT, ValueKind.BOOLEAN
_TEMPORAL = (ValueKind.INSTANT, ValueKind.PERIOD)

Function = Callable[[list[Value]], Value]

# SQLite's / cuts towards zero; times before 1970 need the floor.
_SECONDS = "(({0} - (({0} % 1000000) + 1000000) % 1000000) / 1000000)"


def _text(value: Value) -> Sql:
    """`value` as text; NULL for what has no text."""
    if value.kind in (_TEXT, ValueKind.DATE, ValueKind.CLOCK, ValueKind.NULL):
        return value.sql
    if value.kind in (ValueKind.ANY, ValueKind.RESULT):
        return Sql.build("CASE WHEN typeof({0}) = 'text' THEN {0} END", value.sql)
    raise BadRequest(f"a function of text got {value.kind.value}")


def _start(value: Value) -> Sql:
    if value.kind not in _TEMPORAL:
        raise BadRequest(f"a function of time got {value.kind.value}")
    return value.sql


def _text_function(template: str, kind: ValueKind, texts: int, numbers: int = 0) -> Function:
    def build(arguments: list[Value]) -> Value:
        parts = [_text(each) for each in arguments[:texts]]
        parts += [number(each) for each in arguments[texts : texts + numbers]]
        return Value(kind, Sql.build(template, *parts))

    return build


def _number_function(template: str) -> Function:
    return lambda arguments: Value(_NUMBER, Sql.build(template, number(arguments[0])))


def _time_function(template: str, kind: ValueKind = _NUMBER) -> Function:
    whole = template.replace("seconds", _SECONDS)
    return lambda arguments: Value(kind, Sql.build(whole, _start(arguments[0])))


def _strftime(code: str) -> Function:
    return _time_function(f"CAST(strftime('{code}', seconds, 'unixepoch') AS INTEGER)")


def _relation(template: str) -> Function:
    """A temporal relation: {0} and {1} are start and end of the first argument, {2} and {3} of the second."""

    def build(arguments: list[Value]) -> Value:
        first, second = arguments
        return Value(_BOOLEAN, Sql.build(template, _start(first), first.last, _start(second), second.last))

    return build


def _constant(kind: ValueKind, value: Callable[[], int]) -> Function:
    return lambda _: Value(kind, Sql.bound(value()), literal=True)


# name: (fewest arguments, most arguments, builder)
_FUNCTIONS: dict[str, tuple[int, int, Function]] = {
    "substringof": (2, 2, _text_function("(instr({1}, {0}) > 0)", _BOOLEAN, 2)),
    "contains": (2, 2, _text_function("(instr({0}, {1}) > 0)", _BOOLEAN, 2)),
    "startswith": (2, 2, _text_function("(substr({0}, 1, length({1})) = {1})", _BOOLEAN, 2)),
    "endswith": (2, 2, _text_function("(length({1}) = 0 OR substr({0}, -length({1})) = {1})", _BOOLEAN, 2)),
    "indexof": (2, 2, _text_function("(instr({0}, {1}) - 1)", _NUMBER, 2)),
    "length": (1, 1, _text_function("length({0})", _NUMBER, 1)),
    "tolower": (1, 1, _text_function("unicode_lower({0})", _TEXT, 1)),
    "toupper": (1, 1, _text_function("unicode_upper({0})", _TEXT, 1)),
    "trim": (1, 1, _text_function("trim({0})", _TEXT, 1)),
    "concat": (2, 2, _text_function("({0} || {1})", _TEXT, 2)),
    "round": (1, 1, _number_function("round({0})")),
    "floor": (1, 1, _number_function("(CAST({0} AS INTEGER) - ({0} < CAST({0} AS INTEGER)))")),
    "ceiling": (1, 1, _number_function("(CAST({0} AS INTEGER) + ({0} > CAST({0} AS INTEGER)))")),
    "year": (1, 1, _strftime("%Y")),
    "month": (1, 1, _strftime("%m")),
    "day": (1, 1, _strftime("%d")),
    "hour": (1, 1, _strftime("%H")),
    "minute": (1, 1, _strftime("%M")),
    "second": (1, 1, _strftime("%S")),
    "fractionalseconds": (1, 1, _time_function("((({0} % 1000000) + 1000000) % 1000000 / 1000000.0)")),
    "date": (1, 1, _time_function("strftime('%Y-%m-%d', seconds, 'unixepoch')", ValueKind.DATE)),
    "time": (1, 1, _time_function("strftime('%H:%M:%S', seconds, 'unixepoch')", ValueKind.CLOCK)),
    "totaloffsetminutes": (1, 1, _time_function("({0} * 0)")),  # times are kept in UTC
    "now": (0, 0, _constant(ValueKind.INSTANT, times.now)),
    "mindatetime": (0, 0, _constant(ValueKind.INSTANT, lambda: times.MIN_INSTANT)),
    "maxdatetime": (0, 0, _constant(ValueKind.INSTANT, lambda: times.MAX_INSTANT)),
    "before": (2, 2, _relation("({1} < {2})")),
    "after": (2, 2, _relation("({0} > {3})")),
    "meets": (2, 2, _relation("({1} = {2} OR {0} = {3})")),
    "during": (2, 2, _relation("({0} >= {2} AND {1} <= {3})")),
    "overlaps": (2, 2, _relation("({0} <= {3} AND {1} >= {2})")),
    "starts": (2, 2, _relation("({0} = {2})")),
    "finishes": (2, 2, _relation("({1} = {3})")),
}


def _substring(arguments: list[Value]) -> Value:
    template = "substr({0}, {1} + 1)" if len(arguments) == 2 else "substr({0}, {1} + 1, max({2}, 0))"
    return Value(_TEXT, Sql.build(template, _text(arguments[0]), *(number(each) for each in arguments[1:])))


_FUNCTIONS["substring"] = (2, 3, _substring)


def call(name: str, arguments: list[Value]) -> Value:
    """The function `name` of compiled arguments; BadRequest when there is no such function or it takes others."""
    if name not in _FUNCTIONS:
        raise BadRequest(f"$filter: this service has no function {name[:40]!r}")
    fewest, most, build = _FUNCTIONS[name]
    if not fewest <= len(arguments) <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} or {most}"
        raise BadRequest(f"$filter: {name} takes {wanted} arguments, not {len(arguments)}")
    return build(arguments)
