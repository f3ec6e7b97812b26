"""What a request asks for: the syntax tree of a SensorThings URL."""

from dataclasses import dataclass, field
from enum import Enum


class LiteralKind(Enum):
    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    NULL = "null"
    INSTANT = "instant"  # microseconds
    INTERVAL = "interval"  # (start, end) in microseconds
    DATE = "date"  # YYYY-MM-DD
    DURATION = "duration"  # microseconds
    GEOGRAPHY = "geography"  # well-known text


@dataclass(frozen=True)
class Literal:
    kind: LiteralKind
    value: int | float | str | bool | tuple[int, int] | None


@dataclass(frozen=True)
class Path:
    """A property, a member of a JSON property, or either of a related entity: `Datastream/properties/lamppost`."""

    steps: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    function: str
    arguments: "tuple[Expression, ...]"


@dataclass(frozen=True)
class Comparison:
    operator: str  # eq ne gt ge lt le
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True)
class Membership:
    item: "Expression"
    values: "tuple[Expression, ...]"


@dataclass(frozen=True)
class Arithmetic:
    operator: str  # add sub mul div mod
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True)
class Negative:
    operand: "Expression"


@dataclass(frozen=True)
class Not:
    operand: "Expression"


@dataclass(frozen=True)
class Junction:
    """Terms joined by `and` or by `or`."""

    operator: str
    terms: "tuple[Expression, ...]"


Expression = Literal | Path | Call | Comparison | Membership | Arithmetic | Negative | Not | Junction


@dataclass(frozen=True)
class Ordering:
    key: Expression
    descending: bool


@dataclass(frozen=True)
class Expansion:
    navigation: str
    query: "Query"


@dataclass(frozen=True)
class Query:
    """The query options of a request, or of one $expand."""

    filter: Expression | None = None
    orderby: tuple[Ordering, ...] = ()
    select: tuple[str, ...] | None = None
    expand: tuple[Expansion, ...] = ()
    top: int | None = None
    skip: int = 0
    count: bool = False
    skiptoken: str | None = None


@dataclass(frozen=True)
class Segment:
    name: str
    key: int | None = None


class Tail(Enum):
    NONE = ""
    REF = "$ref"
    VALUE = "$value"


@dataclass(frozen=True)
class ResourcePath:
    segments: tuple[Segment, ...] = field(default=())
    tail: Tail = Tail.NONE
