"""Syntax tree -> text: the other direction of parser.py, for links that carry query options on."""

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
    Path,
    Query,
)
from lamppost_host.platform.times import format_instant


def _literal(literal: Literal) -> str:
    value = literal.value
    match literal.kind:
        case LiteralKind.NULL:
            return "null"
        case LiteralKind.BOOLEAN:
            return "true" if value else "false"
        case LiteralKind.INSTANT if isinstance(value, int):
            return format_instant(value)
        case LiteralKind.INTERVAL if isinstance(value, tuple):
            return f"{format_instant(value[0])}/{format_instant(value[1])}"
        case LiteralKind.DURATION if isinstance(value, int):
            sign, rest = ("-" if value < 0 else ""), abs(value)
            return f"duration'{sign}PT{rest // 1_000_000}.{rest % 1_000_000:06d}S'"
        case LiteralKind.NUMBER:
            # 1e+20 is no OData number without its fraction.
            text = repr(value)
            return text.replace("e+", "e") if "." in text or "e" not in text else text.replace("e", ".0e", 1)
        case LiteralKind.DATE:
            return str(value)
        case kind:
            quoted = "'" + str(value).replace("'", "''") + "'"
            return f"geography{quoted}" if kind is LiteralKind.GEOGRAPHY else quoted


def unparse(expression: Expression) -> str:
    """Text that parses to the same expression."""
    match expression:
        case Literal():
            return _literal(expression)
        case Path(steps=steps):
            return "/".join(steps)
        case Call(function=name, arguments=arguments):
            return f"{name}({','.join(map(unparse, arguments))})"
        case Comparison(operator=operator, left=left, right=right):
            return f"({unparse(left)} {operator} {unparse(right)})"
        case Arithmetic(operator=operator, left=left, right=right):
            return f"({unparse(left)} {operator} {unparse(right)})"
        case Membership(item=item, values=values):
            return f"({unparse(item)} in ({','.join(map(unparse, values))}))"
        case Negative(operand=operand):
            return f"(-{unparse(operand)})"
        case Not(operand=operand):
            return f"(not {unparse(operand)})"
        case Junction(operator=operator, terms=terms):
            return "(" + f" {operator} ".join(map(unparse, terms)) + ")"


def _expansion(expansion: Expansion) -> str:
    options = unparse_query(expansion.query)
    inside = ";".join(f"{name}={text}" for name, text in options.items())
    return f"{expansion.navigation}({inside})" if inside else expansion.navigation


def unparse_query(query: Query) -> dict[str, str]:
    """Query options by name, not percent-encoded."""
    options: dict[str, str] = {}
    if query.filter is not None:
        options["$filter"] = unparse(query.filter)
    if query.orderby:
        options["$orderby"] = ",".join(
            unparse(each.key) + (" desc" if each.descending else "") for each in query.orderby
        )
    if query.select is not None:
        options["$select"] = ",".join(query.select)
    if query.expand:
        options["$expand"] = ",".join(map(_expansion, query.expand))
    if query.top is not None:
        options["$top"] = str(query.top)
    if query.skip:
        options["$skip"] = str(query.skip)
    if query.count:
        options["$count"] = "true"
    if query.skiptoken is not None:
        options["$skiptoken"] = query.skiptoken
    return options
