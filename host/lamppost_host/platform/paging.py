"""Server-driven paging by key: a page ends with a token of its last row's sort keys, and the next begins after them.

Unlike $skip, this stays in step while rows arrive.
"""

import base64
from dataclasses import dataclass
from typing import Any

import orjson

from lamppost_host.platform.errors import BadRequest
from lamppost_host.platform.odata.fragments import Parameter, Sql

_MAX_INTEGER = 9_223_372_036_854_775_807


@dataclass(frozen=True)
class Key:
    sql: Sql
    descending: bool
    never_null: bool = False


def encode_token(values: list[Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def decode_token(token: str, length: int) -> list[Parameter]:
    try:
        values = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except ValueError as error:
        raise BadRequest("this $skiptoken is not one of this service") from error
    if not isinstance(values, list) or len(values) != length:
        raise BadRequest("this $skiptoken does not fit this query")
    for value in values:
        if not (
            value is None
            or type(value) in (float, str)
            or (type(value) is int and abs(value) <= _MAX_INTEGER)
        ):
            raise BadRequest("this $skiptoken does not fit this query")
    return values


def after(keys: list[Key], values: list[Parameter]) -> Sql:
    """The condition to come after a row with these key values. NULL sorts first."""
    branches: list[Sql] = []
    same: list[Sql] = []
    for key, value in zip(keys, values, strict=True):
        bound = Sql.bound(value)
        if value is None:
            beyond = Sql("0") if key.descending else Sql.build("{0} IS NOT NULL", key.sql)
        elif key.descending:
            beyond = Sql.build("({0} < {1} OR {0} IS NULL)", key.sql, bound)
        else:
            beyond = Sql.build("{0} > {1}", key.sql, bound)
        branches.append(Sql.build("({0})", Sql.join(" AND ", [*same, beyond])))
        same.append(Sql.build("{0} IS {1}", key.sql, bound))
    condition = Sql.build("({0})", Sql.join(" OR ", branches))
    first = keys[0]
    if values[0] is not None and len(keys) > 1 and (not first.descending or first.never_null):
        # Follows from the rest; an index can use it.
        symbol = "<=" if first.descending else ">="
        return Sql.build(f"{{0}} {symbol} {{1}} AND {{2}}", first.sql, Sql.bound(values[0]), condition)
    return condition
