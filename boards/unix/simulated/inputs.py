"""What a simulated sensor measures: a constant, a waveform, or a column of a recording.

An input gives a scaled integer (`value × 10^decimals`) or None where there is nothing to measure. Descriptions are what
JSON can say:

    21.5
    {"constant": 21.5}
    {"waveform": {"mean": 12, "amplitude": 6, "period_s": 86400, "phase_s": 0, "noise": 0.05, "seed": 1}}
    {"csv": {"path": "air.csv", "column": "T", "time": ["Date", "Time"], "format": "%d/%m/%Y %H:%M:%S", "missing": ["-200"]}}

Of a recording: `delimiter` (","), `decimal` ("."), `utc_offset_s` (0: the times are UTC), `hold_s` (how long a row stands; without it, until
the next one, and the last one for ever).
"""

import math

from simulated.world import world

_MONTH_DAYS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


def scaled(text, decimals, decimal="."):
    """A decimal number as text -> value × 10^decimals, exactly, halves away from zero. ValueError for other text."""
    text = text.strip()
    if "e" in text or "E" in text:
        return _rounded(float(text) * 10**decimals)
    negative = text[:1] == "-"
    if text[:1] in ("-", "+"):
        text = text[1:]
    whole, _, fraction = text.partition(decimal)
    if not (whole + fraction).isdigit():
        raise ValueError("not a number: " + text)
    kept = (fraction + "0" * decimals)[:decimals]
    value = int((whole or "0") + kept)
    if fraction[decimals : decimals + 1] >= "5":
        value += 1
    return -value if negative else value


def _rounded(value):
    return math.floor(value + 0.5) if value >= 0 else -math.floor(0.5 - value)


class Constant:
    def __init__(self, value, decimals):
        self._value = None if value is None else _rounded(value * 10**decimals)

    def read(self):
        return self._value


class Waveform:
    """A sine about a mean, with noise that depends on the time alone: the same time gives the same value."""

    def __init__(self, decimals, mean=0, amplitude=1, period_s=86400, phase_s=0, noise=0, seed=0):
        scale = 10**decimals
        self._mean = mean * scale
        self._amplitude = amplitude * scale
        self._noise = noise * scale
        self._period_ms = int(period_s * 1000)
        self._phase_ms = int(phase_s * 1000)
        self._seed = seed

    def read(self):
        now = world.now_ms()
        turn = ((now + self._phase_ms) % self._period_ms) / self._period_ms
        value = self._mean + self._amplitude * math.sin(2 * math.pi * turn)
        if self._noise:
            value += self._noise * self._unit_noise(now)
        return _rounded(value)

    def _unit_noise(self, now):
        """-1 to 1, evenly: the high bits of a multiplicative hash of the time and the seed."""
        mixed = ((now & 0xFFFFFFFF) ^ (self._seed * 0x9E3779B1)) & 0xFFFFFFFF
        mixed = (mixed ^ (mixed >> 15)) * 0x85EBCA6B & 0xFFFFFFFF
        mixed = (mixed ^ (mixed >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
        return (mixed >> 16) / 32768 - 1


class Recording:
    """A column of a CSV file, read row by row as the time goes on: the row that stands at the world's time.

    `open_file(path)` opens the host's file. Rows must be in order of time; one that is out of order, or can't be read, is passed over.
    A cell that is empty, or one of `missing`, is None.
    """

    def __init__(
        self,
        decimals,
        open_file,
        path,
        column,
        time,
        format,
        missing=(),
        delimiter=",",
        decimal=".",
        utc_offset_s=0,
        hold_s=None,
    ):
        self._decimals = decimals
        self._file = open_file(path)
        self._delimiter = delimiter
        self._decimal = decimal
        self._missing = missing
        self._format = format
        self._utc_offset_s = utc_offset_s
        self._hold_ms = None if hold_s is None else int(hold_s * 1000)
        header = [cell.strip().lstrip("\ufeff") for cell in self._cells(self._file.readline())]
        names = [time] if isinstance(time, str) else time
        for name in list(names) + [column]:
            if name not in header:
                raise ValueError("%s has no column %s; it has: %s" % (path, name, ", ".join(header)))
        self._time_columns = [header.index(name) for name in names]
        self._column = header.index(column)
        self._first_row = self._file.tell()
        self._rewind()

    def _rewind(self):
        self._file.seek(self._first_row)
        self._row = None
        self._next = self._read_row(None)

    def _cells(self, line):
        return line.rstrip("\r\n").split(self._delimiter)

    def _read_row(self, after_ms):
        while True:
            line = self._file.readline()
            if not line:
                return None
            cells = self._cells(line)
            try:
                at = self._unix_ms(" ".join([cells[i] for i in self._time_columns]))
                cell = cells[self._column].strip()
                value = (
                    None if not cell or cell in self._missing else scaled(cell, self._decimals, self._decimal)
                )
            except (ValueError, IndexError):
                continue
            if after_ms is None or at > after_ms:
                return at, value

    def _unix_ms(self, text):
        return (parse_time(text, self._format) - self._utc_offset_s) * 1000

    def read(self):
        now = world.now_ms()
        if self._row is not None and now < self._row[0]:
            self._rewind()
        while self._next is not None and self._next[0] <= now:
            self._row = self._next
            self._next = self._read_row(self._row[0])
        if self._row is None or (self._hold_ms is not None and now - self._row[0] >= self._hold_ms):
            return None
        return self._row[1]


def parse_time(text, format):
    """Text -> Unix seconds, by the fields %Y %m %d %H %M %S of strptime, and %s for Unix seconds. ValueError where it does not fit."""
    fields = {"Y": 1970, "m": 1, "d": 1, "H": 0, "M": 0, "S": 0}
    at = 0
    i = 0
    while i < len(format):
        if format[i] != "%":
            if text[at : at + 1] != format[i]:
                raise ValueError("%s is not of the form %s" % (text, format))
            at += 1
            i += 1
            continue
        key = format[i + 1]
        i += 2
        end = at
        longest = {"Y": 4, "s": 12}.get(key, 2)
        while end < len(text) and end - at < longest and text[end].isdigit():
            end += 1
        fields[key] = int(text[at:end])
        at = end
    if at != len(text):
        raise ValueError("%s is not of the form %s" % (text, format))
    if "s" in fields:
        return fields["s"]
    return unix_seconds(fields["Y"], fields["m"], fields["d"], fields["H"], fields["M"], fields["S"])


def unix_seconds(year, month, day, hour, minute, second):
    """Unix seconds of a UTC date (proleptic Gregorian; the same on every interpreter, whatever its epoch and width)."""
    if not 1 <= month <= 12:
        raise ValueError("month %d" % month)
    past = year - 1
    days = past * 365 + past // 4 - past // 100 + past // 400 + _MONTH_DAYS[month - 1] + day - 1
    if month > 2 and ((year % 4 == 0 and year % 100 != 0) or year % 400 == 0):
        days += 1
    return (days - 719162) * 86400 + hour * 3600 + minute * 60 + second


def build_input(description, decimals, open_file=open):
    """The input that `description` names. ValueError, in a person's words, for one that can't be read."""
    if description is None or isinstance(description, (int, float)):
        return Constant(description, decimals)
    if isinstance(description, dict) and len(description) == 1:
        kind = next(iter(description))
        if kind == "constant":
            return Constant(description[kind], decimals)
        if kind == "waveform":
            return Waveform(decimals, **description[kind])
        if kind == "csv":
            return Recording(decimals, open_file, **description[kind])
    raise ValueError("an input is a number, constant, waveform or csv, not %s" % description)
