"""A place in the journal, from which the frames that are not confirmed are read one by one."""

import errno
import struct
from binascii import crc32

from micropython import const

from .batch import MAX_FRAME, shift
from .segment import ABOUT, BEGIN, CLOCK, FRAME_AT, OBS, PREFIX

_PATIENCE = const(
    5
)  # failures to read flash, one after the other, before the rest of a segment is passed over


class Cursor:
    """Stands on a frame of `journal` after `load`: `boot`, `seq` and `readings` describe it, `frame()` has its bytes. Its methods raise OSError
    if flash can't be read."""

    def __init__(self, journal):
        self._journal = journal
        self.number = 0  # of the segment
        self.offset = 0
        self.boot = b""
        self.seq = 0
        self.readings = 0
        self._buffer = bytearray(512)
        self._size = 0  # of the record it stands on; 0 before `load`
        self._failures = 0  # to read, one after the other
        self._looked_up = None  # the boot that `boot_utc` was last asked for, and what it found
        self._boot_utc = None

    def rewind(self):
        """Go to the first frame that is not confirmed."""
        self.go(*self._journal.head)

    def go(self, number, offset):
        """Go to a place where this cursor was before."""
        self.number = number
        self.offset = offset
        self._size = 0
        self._journal.jump()

    def load(self):
        """Read the frame that the cursor stands on, or else the next one that is not confirmed. False at the journal's end."""
        journal = self._journal
        reader = journal.reader
        if (self.number, self.offset) < journal.head:
            self.rewind()
        while True:
            place = journal.place(self.number)
            if place is None:
                return False
            number, end = place
            if number != self.number:
                self.number = number
                self.offset = BEGIN
            try:
                size = reader.peek(number, self.offset, end)
                self._failures = 0
            except OSError as error:
                self._failures += 1
                if error.errno != errno.ENOENT and self._failures < _PATIENCE:
                    raise
                size = 0  # not to be had: what it held is missed and named when the next frame is read
            if size and reader.kind != OBS:
                self.offset += size
                continue
            if size and journal.confirmed():
                journal.follow(number, self.offset, False)
                self.offset += size
                continue
            if size and self._read(number, size, end):
                return True
            # The end of the segment, or of what can be read of it.
            if journal.place(number + 1) is None:
                return False
            self.number = number + 1
            self.offset = BEGIN

    def _read(self, number, size, end):
        reader = self._journal.reader
        if size > len(self._buffer):
            self._buffer = bytearray(min(size + 256, FRAME_AT + MAX_FRAME))
        if not reader.load(number, self.offset, end, self._buffer):
            return False
        self._size = size
        self.boot = reader.boot
        self.seq = reader.seq
        self.readings = reader.readings
        self._journal.follow(number, self.offset)
        return True

    def skip(self):
        """Go past the frame that was loaded."""
        self.offset += self._size
        self._size = 0

    def frame(self):
        """The frame, a memoryview that holds until the next `load`."""
        return memoryview(self._buffer)[FRAME_AT : self._size]

    def undated(self):
        """Do the frame's times count from its boot?"""
        return self._buffer[self._clock_at()] != 0

    def date(self, seconds, milliseconds):
        """Give the frame, as it is read here, its UTC: tick 0 of its boot was at `seconds` and `milliseconds` since 2020."""
        shift(self._buffer, self._clock_at(), seconds, milliseconds)

    def _clock_at(self):
        return FRAME_AT + self._buffer[18]

    def about_revision(self):
        """The revision of the about document that the frame refers to."""
        return struct.unpack_from(">I", self._buffer, FRAME_AT + 3)[0]

    def find_about(self, revision):
        """The about document of that revision (bytes), looked for in the cursor's segment; None if it is not there."""
        reader = self._journal.reader
        place = self._journal.place(self.number)
        offset = BEGIN
        while place is not None:
            size = reader.peek(place[0], offset, place[1])
            if not size:
                break
            if reader.kind == ABOUT:
                record = bytearray(size)
                if reader.load(place[0], offset, place[1], record):
                    document = bytes(memoryview(record)[PREFIX:])
                    if crc32(document) == revision:
                        return document
            offset += size
        return None

    def boot_utc(self):
        """(seconds, milliseconds) of tick 0 of the boot whose frame this is, or None if it never learnt it. Looks from here to the boot's end."""
        if self.boot == self._looked_up:
            return self._boot_utc
        journal = self._journal
        reader = journal.reader
        found = None
        place = journal.place(self.number)
        offset = self.offset
        while place is not None and found is None:
            size = reader.peek(place[0], offset, place[1])
            if not size:
                place = journal.place(place[0] + 1)
                offset = BEGIN
                continue
            if reader.kind == OBS and reader.boot != self.boot:
                break
            if reader.kind == CLOCK and reader.check(place[0], offset, place[1]):
                if bytes(memoryview(reader.body)[:8]) == self.boot:
                    found = struct.unpack_from("<iH", reader.body, 8)
            offset += size
        self._looked_up = self.boot
        self._boot_utc = found
        return found
