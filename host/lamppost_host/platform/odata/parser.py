"""Text of a SensorThings URL -> its syntax tree. One LALR grammar (grammar.lark) does the reading."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, cast

from lark import Lark, Token, Transformer
from lark.exceptions import LarkError, UnexpectedCharacters, UnexpectedInput, VisitError

from lamppost_host.platform import times
from lamppost_host.platform.errors import BadRequest, NotFound
from lamppost_host.platform.odata.syntax import (
    Arithmetic,
    Call,
    Comparison,
    Expansion,
    Expression,
    Junction,
    Literal,
    LiteralKind,
    Membership,
    Negative,
    Not,
    Ordering,
    Path,
    Query,
    ResourcePath,
    Segment,
    Tail,
)

# Longer than any query a person or a client library writes, short enough to be parsed in milliseconds.
MAX_OPTION_CHARACTERS = 8_192
# 2**63 - 1: what SQLite holds as an integer.
_MAX_INTEGER = 9_223_372_036_854_775_807


def _integer(text: str) -> int:
    if len(text) > 19 or int(text) > _MAX_INTEGER:
        raise BadRequest(f"{text[:40]} is too large a whole number here")
    return int(text)


def _quoted(text: str) -> str:
    return text[text.index("'") + 1 : -1].replace("''", "'")


class _Options(dict[str, Any]):
    """Options between the parentheses of one $expand."""


class _Build(Transformer[Token, Any]):
    """Called bottom-up while the text is being parsed: no tree in between, no recursion over it."""

    def resource_path(self, parts: list[Any]) -> ResourcePath:
        tail = parts.pop() if isinstance(parts[-1], Tail) else Tail.NONE
        return ResourcePath(tuple(parts), tail)

    def named(self, parts: list[Token]) -> Segment:
        return Segment(str(parts[0]))

    def position(self, parts: list[Token]) -> Segment:
        return Segment(str(parts[0]))

    def keyed(self, parts: list[Token]) -> Segment:
        return Segment(str(parts[0]), _integer(parts[1]))

    def keyed_by_text(self, parts: list[Token]) -> Segment:
        raise NotFound(f"there is no {parts[0]}({parts[1]}): ids here are whole numbers")

    def ref(self, _: list[Token]) -> Tail:
        return Tail.REF

    def value(self, _: list[Token]) -> Tail:
        return Tail.VALUE

    def disjunction(self, parts: list[Any]) -> Expression:
        return Junction("or", tuple(part for part in parts if not isinstance(part, Token)))

    def conjunction(self, parts: list[Any]) -> Expression:
        return Junction("and", tuple(part for part in parts if not isinstance(part, Token)))

    def negation(self, parts: list[Any]) -> Expression:
        return Not(parts[1])

    def comparison(self, parts: list[Any]) -> Expression:
        return Comparison(str(parts[1]), parts[0], parts[2])

    def membership(self, parts: list[Any]) -> Expression:
        return Membership(parts[0], tuple(parts[2:]))

    def arithmetic(self, parts: list[Any]) -> Expression:
        return Arithmetic(str(parts[1]), parts[0], parts[2])

    def negative(self, parts: list[Any]) -> Expression:
        operand = parts[0]
        if (
            isinstance(operand, Literal)
            and operand.kind is LiteralKind.NUMBER
            and isinstance(operand.value, (int, float))
        ):
            return Literal(operand.kind, -operand.value)
        return Negative(operand)

    def call(self, parts: list[Any]) -> Expression:
        return Call(str(parts[0]), tuple(part for part in parts[1:] if part is not None))

    def path(self, parts: list[Token]) -> Path:
        return Path(tuple(str(part) for part in parts))

    def integer(self, parts: list[Token]) -> Literal:
        text = str(parts[0])
        whole = int(text) if len(text) < 20 else _MAX_INTEGER + 1
        return Literal(LiteralKind.NUMBER, whole if whole <= _MAX_INTEGER else float(text))

    def decimal(self, parts: list[Token]) -> Literal:
        return Literal(LiteralKind.NUMBER, float(parts[0]))

    def string(self, parts: list[Token]) -> Literal:
        return Literal(LiteralKind.TEXT, _quoted(parts[0]))

    def true(self, _: list[Token]) -> Literal:
        return Literal(LiteralKind.BOOLEAN, True)

    def false(self, _: list[Token]) -> Literal:
        return Literal(LiteralKind.BOOLEAN, False)

    def null(self, _: list[Token]) -> Literal:
        return Literal(LiteralKind.NULL, None)

    def instant(self, parts: list[Token]) -> Literal:
        return Literal(LiteralKind.INSTANT, times.parse_instant(parts[0].replace(" ", "+")))

    def interval(self, parts: list[Token]) -> Literal:
        text = f"{parts[0]}/{parts[1]}".replace(" ", "+")
        return Literal(LiteralKind.INTERVAL, times.parse_interval(text))

    def date(self, parts: list[Token]) -> Literal:
        times.parse_instant(f"{parts[0]}T00:00:00Z")
        return Literal(LiteralKind.DATE, str(parts[0]))

    def duration(self, parts: list[Token]) -> Literal:
        return Literal(LiteralKind.DURATION, times.parse_duration(_quoted(parts[0])))

    def geography(self, parts: list[Token]) -> Literal:
        return Literal(LiteralKind.GEOGRAPHY, _quoted(parts[0]))

    def orderby(self, parts: list[Ordering]) -> tuple[Ordering, ...]:
        return tuple(parts)

    def ordering(self, parts: list[Any]) -> Ordering:
        return Ordering(parts[0], any(isinstance(part, Token) and part.type == "DESC" for part in parts[1:]))

    def select(self, parts: list[Path]) -> tuple[str, ...]:
        for path in parts:
            if len(path.steps) != 1:
                raise BadRequest(
                    f"$select takes whole properties: {path.steps[0]}, not {'/'.join(path.steps)}"
                )
        return tuple(path.steps[0] for path in parts)

    def expand(self, parts: list[Expansion]) -> tuple[Expansion, ...]:
        return tuple(parts)

    def expansion(self, parts: list[Any]) -> Expansion:
        path: Path = parts[0]
        options: dict[str, Any] = {}
        for part in parts[1:]:
            if part is not None:
                (name,) = part
                if name in options:
                    raise BadRequest(f"${name} is given twice for one $expand")
                options.update(part)
        expansion = Expansion(path.steps[-1], Query(**options))
        # Datastreams/Sensor means Datastreams($expand=Sensor).
        for step in reversed(path.steps[:-1]):
            expansion = Expansion(step, Query(expand=(expansion,)))
        return expansion

    def filter_option(self, parts: list[Any]) -> _Options:
        return _Options(filter=parts[0])

    def orderby_option(self, parts: list[Any]) -> _Options:
        return _Options(orderby=parts[0])

    def select_option(self, parts: list[Any]) -> _Options:
        return _Options(select=parts[0])

    def expand_option(self, parts: list[Any]) -> _Options:
        return _Options(expand=parts[0])

    def top_option(self, parts: list[Token]) -> _Options:
        return _Options(top=_integer(parts[0]))

    def skip_option(self, parts: list[Token]) -> _Options:
        return _Options(skip=_integer(parts[0]))

    def count_option(self, parts: list[Token]) -> _Options:
        return _Options(count=parts[0].type == "TRUE")


_STARTS = ["resource_path", "filter", "orderby", "select", "expand"]


@lru_cache(maxsize=1)
def _lark() -> Lark:
    grammar = resources.files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", start=_STARTS, transformer=_Build(), maybe_placeholders=True)


def _parse(start: str, text: str, what: str) -> Any:
    if len(text) > MAX_OPTION_CHARACTERS:
        raise BadRequest(f"{what} is longer than {MAX_OPTION_CHARACTERS} characters")
    lark = _lark()
    try:
        return lark.parse(text, start=start)
    except VisitError as error:
        if isinstance(error.orig_exc, (BadRequest, NotFound)):
            raise error.orig_exc from error
        raise BadRequest(f"{what} can't be read: {text[:200]!r}") from error
    except UnexpectedInput as error:
        position = error.pos_in_stream
        if isinstance(error, UnexpectedCharacters) or position is not None:
            rest = text[position : position + 30] if position is not None and position >= 0 else ""
            raise BadRequest(
                f"{what}: {f'did not expect {rest!r}' if rest else 'it ends too early'}"
            ) from error
        raise BadRequest(f"{what} ends too early: {text[:200]!r}") from error
    except LarkError as error:
        raise BadRequest(f"{what} can't be read: {text[:200]!r}") from error


def parse_path(text: str) -> ResourcePath:
    """`Things(1)/Datastreams` -> its segments. NotFound for what names nothing, BadRequest for what is no path."""
    return cast(ResourcePath, _parse("resource_path", text, "the path"))


def parse_filter(text: str) -> Expression:
    return cast(Expression, _parse("filter", text, "$filter"))


def _whole(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        raise BadRequest(f"{name} takes a whole number from 0, not {text[:40]!r}")
    return int(text)


def _truth(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise BadRequest(f"{name} takes true or false, not {text[:40]!r}")
    return text == "true"


_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "$filter": ("filter", parse_filter),
    "$orderby": ("orderby", lambda text: _parse("orderby", text, "$orderby")),
    "$select": ("select", lambda text: _parse("select", text, "$select")),
    "$expand": ("expand", lambda text: _parse("expand", text, "$expand")),
    "$top": ("top", lambda text: _whole("$top", text)),
    "$skip": ("skip", lambda text: _whole("$skip", text)),
    "$count": ("count", lambda text: _truth("$count", text)),
    "$skiptoken": ("skiptoken", str),
}


def parse_query(options: Mapping[str, str]) -> Query:
    """The query options of a URL, percent-decoded, by name with the dollar sign."""
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in _OPTIONS:
            raise BadRequest(f"the query option {name[:40]!r} is not known; known are {', '.join(_OPTIONS)}")
        field, parse = _OPTIONS[name]
        values[field] = parse(text)
    return Query(**values)
