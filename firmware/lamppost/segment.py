"""The journal's segment files: how records are laid out, and how they are read back and checked.

A segment is a file `<number>.seg` (8 digits): MAGIC, its number (4 bytes), then records to its end. A record, little-endian:

    0  CRC-32 of all that follows it, seeded with the segment's number
    4  length of the body (2 bytes)
    6  kind
    7  0
    8  body

The body of a frame (OBS): seq (4), taken (4), readings (2), where in the frame its clock item is (1), 0 (1), the frame.
ABOUT: the document. HEAD: number (4) and offset (4) of the first record that is not confirmed. CLOCK: boot (8), seconds (4, signed) and milliseconds (2)
of its tick 0. STATE: see `journal.py`.
"""

import os
import struct
from binascii import crc32

from micropython import const

MAGIC = b"LPJ1"
BEGIN = const(8)  # where a segment's first record is
PREFIX = const(8)  # bytes of a record before its body

OBS = const(1)
ABOUT = const(2)
STATE = const(3)
CLOCK = const(4)
HEAD = const(5)

FRAME_AT = const(20)  # where the frame starts in an OBS record
BOOT_AT = const(29)  # and its boot
MAX_BODY = const(8204)
_PEEK = const(37)  # an OBS record up to the end of its boot
_CHUNK = const(1024)
_SUFFIX = ".seg"


def segment_path(folder, number):
    """The path of a segment."""
    return "{}/{:08d}{}".format(folder, number, _SUFFIX)


def list_segments(folder):
    """[number, size] of each segment in `folder`, oldest first. Files that are none are left alone."""
    found = []
    for entry in os.ilistdir(folder):
        name = entry[0]
        if name.endswith(_SUFFIX) and len(name) == 12 and name[:8].isdigit():
            found.append([int(name[:8]), os.stat(folder + "/" + name)[6]])
    found.sort()
    return found


def seal(record, kind, number):
    """Complete a record whose body is in place at record[PREFIX:], for segment `number`. `record` is a memoryview."""
    struct.pack_into("<HBB", record, 4, len(record) - PREFIX, kind, 0)
    struct.pack_into("<I", record, 0, crc32(record[4:], number))


def make_record(kind, body, number):
    """A whole record as a bytearray."""
    record = bytearray(PREFIX + len(body))
    record[PREFIX:] = body
    seal(memoryview(record), kind, number)
    return record


class SegmentReader:
    """Reads records of the segments in `folder`, one file open at a time. After `peek` or `check`, `kind` and, for a frame, `boot`, `seq`, `taken`
    and `readings` describe the record. No method reads at or after the `end` it is given. Raises OSError as the filesystem does.
    """

    def __init__(self, folder):
        self._folder = folder
        self._file = None
        self._number = -1
        self._end = 0
        self.body = bytearray(_CHUNK)  # after `check`: the body, where it is not longer than this
        self._body = memoryview(self.body)
        self._rest = bytearray(256)
        self._rest_view = memoryview(self._rest)
        self._head = bytearray(_PEEK)
        self.kind = 0
        self.boot = b""
        self.seq = 0
        self.taken = 0
        self.readings = 0

    def close(self):
        """Close the file that is open, if any; it opens again by itself."""
        file = self._file
        self._file = None
        self._number = -1
        if file is not None:
            file.close()

    def _seek(self, number, offset, end):
        # LittleFS shows a file as it was when it was opened: open it again to see what has been appended.
        if number != self._number or end > self._end:
            self.close()
            self._file = open(segment_path(self._folder, number), "rb")
            self._number = number
            self._end = end
        self._file.seek(offset)

    def is_segment(self, number, end):
        """Does the file begin as segment `number` must?"""
        if end < BEGIN:
            return False
        self._seek(number, 0, end)
        return self._file.read(BEGIN) == MAGIC + struct.pack("<I", number)

    def peek(self, number, offset, end):
        """Read the record's first bytes, unchecked: for records that were checked before. Returns its size, 0 where there is none."""
        if end - offset < PREFIX:
            return 0
        self._seek(number, offset, end)
        head = self._head
        got = self._file.readinto(head, min(_PEEK, end - offset))
        if got < PREFIX:
            return 0
        return self._describe(head, got, end - offset)

    def _describe(self, head, got, room):
        size = PREFIX + struct.unpack_from("<H", head, 4)[0]
        if size > room or size > PREFIX + MAX_BODY or head[7]:
            return 0
        self.kind = head[6]
        if self.kind == OBS:
            if got < _PEEK or size < _PEEK:
                return 0
            self.seq, self.taken, self.readings = struct.unpack_from("<IIH", head, PREFIX)
            if self.boot != head[BOOT_AT:_PEEK]:
                self.boot = bytes(head[BOOT_AT:_PEEK])
        return size

    def check(self, number, offset, end):
        """Read the record and check it piece by piece. Returns its size, 0 if no whole and right record is there."""
        size = self.peek(number, offset, end)
        if not size:
            return 0
        crc = crc32(memoryview(self._head)[4:PREFIX], number)
        self._seek(number, offset + PREFIX, end)
        left = size - PREFIX
        piece = self._body
        while left:
            got = self._file.readinto(piece, min(left, len(piece)))
            if not got:
                return 0
            crc = crc32(piece[:got], crc)
            left -= got
            piece = self._rest_view  # what does not fit the body's buffer is checked and let go
        return size if crc == struct.unpack_from("<I", self._head)[0] else 0

    def load(self, number, offset, end, buffer):
        """Read a record of a size known from `peek` into `buffer` (bytearray, large enough) and check it. Returns its size, 0 if it is not right."""
        size = self.peek(number, offset, end)
        if not size or size > len(buffer):
            return 0
        self._seek(number, offset, end)
        got = self._file.readinto(buffer, size)
        if got != size or crc32(memoryview(buffer)[4:size], number) != struct.unpack_from("<I", buffer)[0]:
            return 0
        return size
