"""Rows of scaled integers in preallocated columns, and their encoding as one frame (WIRE.md, `obs`).

`Batch.add` and `Batch.encode` make no object on the heap: times and values are small integers on a 32-bit board too.
"""

from array import array

from micropython import const

from .datastream import LIMIT, MISSING

MAX_ROWS = const(255)
MAX_FRAME = const(8192)
# Nibbles cost four bytes of frame and half a byte a row, plain differences that fit them one byte a row: from here on they are shorter.
NIBBLES_FROM = const(8)
# Rows further apart than this (s) go into two frames, so that milliseconds between rows stay small integers.
MAX_GAP = const(500000)

OUT_OF_RANGE = const(1)
TIME_UNCERTAIN = const(2)

# A frame's first bytes: array of 14, version 1, about (4 bytes at ABOUT_AT), boot (8 bytes at BOOT_AT); then integers of any width.
ABOUT_AT = const(3)
BOOT_AT = const(9)
SEQ_AT = const(17)


def worst_size(rows, columns):
    """The most bytes that a frame of so many rows and columns takes."""
    return 56 + 6 * rows + 3 + columns * (3 + 5 * rows)


def most_rows(columns):
    """The most rows of so many columns whose frame is within the wire contract's bound in every case."""
    return min(MAX_ROWS, (MAX_FRAME - 59 - 3 * columns) // (6 + 5 * columns))


def begin_frame(buffer, at, about_revision, boot):
    """Write what all frames of a boot have in common to `buffer` from `at`: `about_revision` is an unsigned 32-bit integer, `boot` 8 bytes."""
    buffer[at] = 0x9E
    buffer[at + 1] = 1
    buffer[at + 2] = 0xCE
    for i in range(4):
        buffer[at + ABOUT_AT + i] = (about_revision >> (24 - 8 * i)) & 0xFF
    buffer[at + BOOT_AT - 2] = 0xC4
    buffer[at + BOOT_AT - 1] = 8
    for i in range(8):
        buffer[at + BOOT_AT + i] = boot[i]


class Batch:
    """Up to `capacity` rows of the columns of `datastreams` (a sequence), the first of which has index `first` in the about document.

    `interval_ms` 0: readings of an instant; else each row describes the interval of that length that ends at its time.
    `rows` and `readings` (values that are not missing) say what it holds.
    """

    def __init__(self, datastreams, first, capacity, interval_ms=0):
        self.width = len(datastreams)
        self.first = first
        self.capacity = max(1, min(capacity, most_rows(self.width)))
        self.interval_ms = interval_ms
        self.rows = 0
        self.readings = 0
        self.overflows = 0  # values too large for the wire, kept as missing
        self.number = -1  # the seq that its first try to be stored had
        self.undated = False
        self.seconds = 0
        self.milliseconds = 0
        self.clock_at = 0  # after `encode`: where the frame's clock item is, counted from its first byte
        self._last_seconds = 0
        self._last_milliseconds = 0
        self._step = 0
        self._regular = True
        self._flagged = False
        self._values = array("i", bytearray(4 * self.width * self.capacity))  # column after column
        self._steps = array("i", bytearray(4 * self.capacity))
        self._quality = bytearray(self.capacity)
        self._low = array("i", [stream.low for stream in datastreams])
        self._high = array("i", [stream.high for stream in datastreams])

    def accepts(self, seconds, undated):
        """Can a row of that time join the rows there are? If not, encode and clear the batch first."""
        if self.rows == 0:
            return True
        if self.rows >= self.capacity or undated is not self.undated:
            return False
        return -MAX_GAP < seconds - self._last_seconds < MAX_GAP

    def add(self, seconds, milliseconds, values, undated=False, uncertain=False):
        """Add a row: seconds since 2020 (or since the boot, if `undated`) and milliseconds; `values` holds a scaled integer or MISSING
        for each column. Call only when `accepts` says so. Returns how many readings there are in it; a row with none is not kept.
        Makes no object on the heap."""
        row = self.rows
        store = self._values
        low = self._low
        high = self._high
        readings = self.width
        flags = TIME_UNCERTAIN if uncertain else 0
        at = row
        for column in range(self.width):
            value = values[column]
            if value < low[column] or value > high[column]:
                if value < -LIMIT or value > LIMIT:
                    if value != MISSING:
                        self.overflows += 1
                        value = MISSING
                    readings -= 1
                else:
                    flags |= OUT_OF_RANGE
            store[at] = value
            at += self.capacity
        if not readings:
            return 0
        if row:
            step = (seconds - self._last_seconds) * 1000 + milliseconds - self._last_milliseconds
            self._steps[row] = step
            if row == 1:
                self._step = step
            elif step != self._step:
                self._regular = False
        else:
            self.undated = undated
            self.seconds = seconds
            self.milliseconds = milliseconds
        self._last_seconds = seconds
        self._last_milliseconds = milliseconds
        self._quality[row] = flags
        if flags:
            self._flagged = True
        self.readings += readings
        self.rows = row + 1
        return readings

    def clear(self):
        """Forget the rows."""
        self.rows = 0
        self.readings = 0
        self.number = -1
        self._step = 0
        self._regular = True
        self._flagged = False

    def encode(self, buffer, at, seq, taken):
        """Write the rows (one at least) as a frame to `buffer` from `at`, where `begin_frame` wrote its first bytes; `buffer` must have
        `worst_size` bytes from there. `seq` and `taken` as in WIRE.md. Returns the index after the frame's last byte. Makes no object on the heap.
        """
        rows = self.rows
        p = _uint(buffer, at + SEQ_AT, seq)
        p = _uint(buffer, p, taken)
        p = _uint(buffer, p, self.first)
        p = _uint(buffer, p, rows)
        self.clock_at = p - at
        date(buffer, p, 1 if self.undated else 0, self.seconds, self.milliseconds)
        p += 9
        if self._regular and self._step >= 0:
            p = _uint(buffer, p, self._step)
        else:
            p = _array(buffer, p, rows - 1)
            for row in range(1, rows):
                p = _int(buffer, p, self._steps[row])
        if self._flagged:
            buffer[p] = 0xC4
            buffer[p + 1] = rows
            p += 2
            for row in range(rows):
                buffer[p] = self._quality[row]
                p += 1
        else:
            buffer[p] = 0xC0
            p += 1
        p = _uint(buffer, p, self.interval_ms)
        p = _array(buffer, p, self.width)
        start = 0
        for _ in range(self.width):
            end = _nibbles(buffer, p, self._values, start, rows) if rows >= NIBBLES_FROM else 0
            p = end if end else _plain(buffer, p, self._values, start, rows)
            start += self.capacity
        return p


def date(buffer, p, clock, seconds, milliseconds):
    """Write clock, seconds and milliseconds in their fixed width to `buffer` at `p`, the place of the frame's clock item."""
    buffer[p] = clock
    buffer[p + 1] = 0xD2
    buffer[p + 2] = (seconds >> 24) & 0xFF
    buffer[p + 3] = (seconds >> 16) & 0xFF
    buffer[p + 4] = (seconds >> 8) & 0xFF
    buffer[p + 5] = seconds & 0xFF
    buffer[p + 6] = 0xCD
    buffer[p + 7] = milliseconds >> 8
    buffer[p + 8] = milliseconds & 0xFF


def shift(buffer, p, seconds, milliseconds):
    """Date a frame whose times count from its boot: that boot's tick 0 was at `seconds` and `milliseconds` of UTC since 2020. `p` as in `date`."""
    milliseconds += buffer[p + 7] << 8 | buffer[p + 8]
    since = buffer[p + 2] << 24 | buffer[p + 3] << 16 | buffer[p + 4] << 8 | buffer[p + 5]
    date(buffer, p, 0, since + seconds + milliseconds // 1000, milliseconds % 1000)


def _nibbles(buffer, p, values, start, rows):
    """One column as nibbles; 0 if a difference does not fit, and then what is at `p` is to be written over."""
    stop = start + rows
    i = start
    while i < stop and values[i] == MISSING:
        i += 1
    last = values[i] if i < stop else 0
    buffer[p] = 0x92
    p = _int(buffer, p + 1, last)
    buffer[p] = 0xC4
    buffer[p + 1] = (rows + 1) >> 1
    p += 2
    # MISSING is looked for first: a difference to it would not be a small integer on a 32-bit board.
    i = start
    pairs = stop - 1
    while i < pairs:
        value = values[i]
        if value == MISSING:
            high = 0x80
        else:
            high = value - last
            if not -7 <= high <= 7:
                return 0
            last = value
            high = (high & 15) << 4
        value = values[i + 1]
        if value == MISSING:
            buffer[p] = high | 8
        else:
            low = value - last
            if not -7 <= low <= 7:
                return 0
            last = value
            buffer[p] = high | (low & 15)
        p += 1
        i += 2
    if i < stop:
        value = values[i]
        if value == MISSING:
            buffer[p] = 0x80
        else:
            high = value - last
            if not -7 <= high <= 7:
                return 0
            buffer[p] = (high & 15) << 4
        p += 1
    return p


def _plain(buffer, p, values, start, rows):
    p = _array(buffer, p, rows)
    last = 0
    for i in range(start, start + rows):
        value = values[i]
        if value == MISSING:
            buffer[p] = 0xC0
            p += 1
        else:
            step = value - last
            last = value
            if -32 <= step <= 127:
                buffer[p] = step & 0xFF
                p += 1
            else:
                p = _int(buffer, p, step)
    return p


def _array(buffer, p, size):
    if size < 16:
        buffer[p] = 0x90 | size
        return p + 1
    buffer[p] = 0xDC
    buffer[p + 1] = size >> 8
    buffer[p + 2] = size & 0xFF
    return p + 3


def _uint(buffer, p, value):
    if value < 0x80:
        buffer[p] = value
        return p + 1
    if value < 0x100:
        buffer[p] = 0xCC
        buffer[p + 1] = value
        return p + 2
    if value < 0x10000:
        buffer[p] = 0xCD
        buffer[p + 1] = value >> 8
        buffer[p + 2] = value & 0xFF
        return p + 3
    buffer[p] = 0xCE
    buffer[p + 1] = (value >> 24) & 0xFF
    buffer[p + 2] = (value >> 16) & 0xFF
    buffer[p + 3] = (value >> 8) & 0xFF
    buffer[p + 4] = value & 0xFF
    return p + 5


def _int(buffer, p, value):
    if value >= 0:
        return _uint(buffer, p, value)
    if value >= -32:
        buffer[p] = value & 0xFF
        return p + 1
    if value >= -0x80:
        buffer[p] = 0xD0
        buffer[p + 1] = value & 0xFF
        return p + 2
    if value >= -0x8000:
        buffer[p] = 0xD1
        buffer[p + 1] = (value >> 8) & 0xFF
        buffer[p + 2] = value & 0xFF
        return p + 3
    buffer[p] = 0xD2
    buffer[p + 1] = (value >> 24) & 0xFF
    buffer[p + 2] = (value >> 16) & 0xFF
    buffer[p + 3] = (value >> 8) & 0xFF
    buffer[p + 4] = value & 0xFF
    return p + 5
