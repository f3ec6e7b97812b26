"""SensorThings times: ISO 8601 text with a zone <-> integer microseconds since 1970-01-01T00:00:00Z."""

import re
from datetime import UTC, datetime, timedelta

from lamppost_host.platform.errors import BadRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC by definition; naive so that isoformat() writes no offset
_MICROSECOND = timedelta(microseconds=1)
_DURATION = re.compile(
    r"(?P<sign>-)?P(?:(?P<days>\d{1,7})D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d{1,7})H)?(?:(?P<minutes>\d{1,7})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,9})?)S)?)?",
)

MIN_INSTANT = -62_135_596_800_000_000
MAX_INSTANT = 253_402_300_799_999_999


def parse_instant(text: str) -> int:
    """Microseconds since 1970 of an ISO 8601 time; BadRequest when it is none, or has no zone."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"{text!r} is not an ISO 8601 time like 2026-11-22T02:52:41Z") from error
    if time.tzinfo is None:
        raise BadRequest(f"the time {text!r} has no zone: write 2026-11-22T02:52:41Z or ...+02:00")
    return (time - _EPOCH) // _MICROSECOND


def parse_interval(text: str) -> tuple[int, int]:
    """Start and end of `start/end`."""
    start_text, separator, end_text = text.partition("/")
    if not separator:
        raise BadRequest(f"{text!r} is not a time interval like 2026-11-22T02:00:00Z/2026-11-22T03:00:00Z")
    start, end = parse_instant(start_text), parse_instant(end_text)
    if end < start:
        raise BadRequest(f"the interval {text!r} ends before it begins")
    return start, end


def parse_period(text: object) -> tuple[int, int | None]:
    """Start and end of an instant (end None) or an interval."""
    if not isinstance(text, str):
        raise BadRequest(f"a time must be text, not {text!r}"[:200])
    return parse_interval(text) if "/" in text else (parse_instant(text), None)


def parse_duration(text: str) -> int:
    """Microseconds of an ISO 8601 duration of days and smaller units, like P1DT2H or PT0.5S."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match[part] for part in ("days", "hours", "minutes", "seconds")):
        raise BadRequest(f"{text!r} is not a duration like P1DT2H30M")
    seconds = (
        int(match["days"] or 0) * 86_400 + int(match["hours"] or 0) * 3_600 + int(match["minutes"] or 0) * 60
    )
    whole, _, fraction = (match["seconds"] or "0").partition(".")
    microseconds = (seconds + int(whole)) * 1_000_000 + int(fraction[:6].ljust(6, "0"))
    return -microseconds if match["sign"] else microseconds


def format_instant(microseconds: int) -> str:
    """ISO 8601 in UTC, with milli- or microseconds only where they are not 0."""
    text = (_NAIVE_EPOCH + timedelta(microseconds=microseconds)).isoformat()
    if len(text) > 19 and text.endswith("000"):
        text = text[:-3]
    return text + "Z"


def format_period(start: int, end: int | None) -> str:
    return format_instant(start) if end is None else f"{format_instant(start)}/{format_instant(end)}"


def now() -> int:
    """The time of this machine."""
    return (datetime.now(UTC) - _EPOCH) // _MICROSECOND
