"""Pieces of SQL with their bound parameters, and the kind of value that a piece yields."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Self

Parameter = int | float | str | None

_SLOT = re.compile(r"\{(\d)\}")


@dataclass(frozen=True)
class Sql:
    """SQL text and the parameters of its question marks, in order.

    Text comes from this package only; whatever a request says is a parameter.
    """

    text: str
    parameters: tuple[Parameter, ...] = ()

    @classmethod
    def bound(cls, value: Parameter) -> Self:
        return cls("?", (value,))

    @classmethod
    def build(cls, template: str, *parts: "Sql") -> Self:
        """`template` with {0}, {1}, ... replaced by `parts`, as often as they occur."""
        text: list[str] = []
        parameters: list[Parameter] = []
        for position, piece in enumerate(_SLOT.split(template)):
            if position % 2:
                part = parts[int(piece)]
                text.append(part.text)
                parameters.extend(part.parameters)
            else:
                text.append(piece)
        return cls("".join(text), tuple(parameters))

    @classmethod
    def join(cls, separator: str, parts: "list[Sql]") -> Self:
        return cls(
            separator.join(part.text for part in parts),
            tuple(parameter for part in parts for parameter in part.parameters),
        )


class ValueKind(Enum):
    NUMBER = "a number"
    TEXT = "text"
    BOOLEAN = "true or false"
    INSTANT = "a time"
    PERIOD = "a time or an interval"
    DURATION = "a duration"
    DATE = "a date"
    CLOCK = "a time of day"
    NULL = "null"
    ANY = "a value of any type"  # from JSON: SQLite's types, true and false as 1 and 0
    RESULT = "a result"  # as ANY, with true, false, null, objects and arrays as JSON text under a flag


@dataclass(frozen=True)
class Value:
    """A compiled expression. `sql` is its value (of a PERIOD its start); `end` is the end of a PERIOD;
    `flag` tells where a RESULT is JSON text; `literal` that the request wrote it out."""

    kind: ValueKind
    sql: Sql
    end: Sql | None = None
    flag: Sql | None = None
    literal: bool = False

    @property
    def last(self) -> Sql:
        """The end of a PERIOD, the value itself of an INSTANT."""
        return self.sql if self.end is None else self.end


def number(value: Value) -> Sql:
    """`value` as a number, NULL where it is none."""
    if value.kind in (ValueKind.NUMBER, ValueKind.NULL):
        return value.sql
    return Sql.build("CASE WHEN typeof({0}) IN ('integer', 'real') THEN {0} END", value.sql)
