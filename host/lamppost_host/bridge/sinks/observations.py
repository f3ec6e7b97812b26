"""Frames to SensorThings Observations: rows of `CreateObservations` as JSON text, built with as little work a reading as Python allows.

A row's ends are shared by all columns of a frame, and the texts of times and results come again and again, so they are kept.
"""

from typing import Final

from lamppost_host import wire

_REMEMBERED: Final = 65_536
"""Texts of days and results that are kept, each."""


def _quality_text(bits: int) -> str:
    names = {0: "outside-range", 1: "time-uncertain"}
    return ",".join(names.get(bit, f"bit-{bit}") for bit in range(8) if bits >> bit & 1)


QUALITY: Final = tuple(_quality_text(bits) for bits in range(256))
"""resultQuality by a row's quality bits; empty for a good row, which gets none."""

FEATURE: Final = "FeatureOfInterest/id"


def components(with_feature: bool, with_quality: bool) -> list[str]:
    """The names of a row's items."""
    names = ["phenomenonTime", "resultTime", FEATURE, "result", "parameters", "resultQuality"]
    return [
        name
        for name in names
        if (with_feature or name != FEATURE) and (with_quality or name != "resultQuality")
    ]


class _Days(dict[int, str]):
    """Days since 1970 to `YYYY-MM-DDT`, in the proleptic Gregorian calendar."""

    def __missing__(self, days: int) -> str:
        # Howard Hinnant's civil_from_days, in years that begin in March.
        shifted = days + 719_468
        era, of_era = divmod(shifted, 146_097)
        year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
        day_of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
        month = (5 * day_of_year + 2) // 153
        day = day_of_year - (153 * month + 2) // 5 + 1
        month = month + 3 if month < 10 else month - 9
        year = year_of_era + era * 400 + (month <= 2)
        if len(self) >= _REMEMBERED:
            self.clear()
        text = self[days] = f"{year:04d}-{month:02d}-{day:02d}T"
        return text


class _Clock(dict[int, str]):
    """Seconds of a day to `HH:MM:SS.`"""

    def __missing__(self, seconds: int) -> str:
        minutes, second = divmod(seconds, 60)
        text = self[seconds] = f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}."
        return text


class _Results(dict[int, str]):
    """Scaled integers to results: divided by a power of ten, and written as the shortest decimal that reads back the same.

    That gives exactly the digits that the node sent: a double holds 15 of them, and a value has at most 10.
    """

    def __init__(self, decimals: int) -> None:
        super().__init__()
        self._scale = 10**decimals

    def __missing__(self, value: int) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        text = self[value] = repr(value / self._scale) if self._scale > 1 else str(value)
        return text


_DAYS: Final = _Days()
_CLOCK: Final = _Clock()
_RESULTS: Final = tuple(_Results(decimals) for decimals in range(10))
_MILLISECONDS: Final = tuple(f"{ms:03d}Z" for ms in range(1000))
_ROW_ENDS: Final = tuple(f'{row}"}}]' for row in range(wire.ROWS))


def iso(unix_ms: int) -> str:
    """A time as SensorThings wants it: UTC with Z, to the millisecond."""
    seconds, ms = divmod(unix_ms, 1000)
    days, second = divmod(seconds, 86_400)
    return _DAYS[days] + _CLOCK[second] + _MILLISECONDS[ms]


def rows_of(frame: wire.Frame, feature: str | None = None) -> tuple[list[str], list[str]]:
    """What stands before and after the result in each row of the frame: `["…","…",` and `,{"reading":"…"}]`.

    phenomenonTime is the row's time, or the interval that ends there; resultTime the row's time (WIRE.md, obs). `feature`: the id of
    the FeatureOfInterest, as JSON, which stands before the result then.
    """
    epoch = frame.epoch_ms
    times = [iso(epoch + offset) for offset in frame.offsets_ms]
    last = "" if feature is None else f"{feature},"
    if frame.interval_ms:
        begin = epoch - frame.interval_ms
        starts = [iso(begin + offset) for offset in frame.offsets_ms]
        heads = [f'["{start}/{end}","{end}",{last}' for start, end in zip(starts, times, strict=True)]
    else:
        heads = [f'["{time}","{time}",{last}' for time in times]
    name = f',{{"reading":"{frame.boot.hex()}/{frame.seq}/'
    return heads, [name + end for end in _ROW_ENDS[: frame.rows]]


def column_rows(values: list[int | None], decimals: int, heads: list[str], tails: list[str]) -> list[str]:
    """The rows of one column without its missing values."""
    texts = _RESULTS[decimals]
    return [
        head + texts[value] + tail
        for head, value, tail in zip(heads, values, tails, strict=True)
        if value is not None
    ]


def split_by_quality(values: list[int | None], quality: bytes) -> tuple[list[int | None], list[int | None]]:
    """A column's good values and its others, each with the other kind missing."""
    good = [None if bits else value for value, bits in zip(values, quality, strict=True)]
    marked = [value if bits else None for value, bits in zip(values, quality, strict=True)]
    return good, marked


def tails_with_quality(tails: list[str], quality: bytes) -> list[str]:
    """Row ends that carry resultQuality."""
    return [f'{tail[:-1]},"{QUALITY[bits]}"]' for tail, bits in zip(tails, quality, strict=True)]
