"""The store-and-forward log in flash: frames wait here until the host has confirmed them.

A folder of append-only segment files (`segment.py`), bounded in bytes: where the next one would not fit, the oldest is dropped, and the frames in
it that are not confirmed are counted and named. Every record is flushed before `append` returns. After a cut at any byte, what reads
back is what was appended, without the record that was being written. Nothing is rewritten in place; what must outlive a restart (the head,
counters) is appended too, and each segment begins with the whole of it and the about document, so that older segments can go.

The files are not preallocated: LittleFS copies what is overwritten, so that a preallocated file costs every byte twice.
"""

import os
import struct

from micropython import const

from . import segment
from .batch import begin_frame
from .segment import ABOUT, BEGIN, CLOCK, FRAME_AT, HEAD, OBS, PREFIX, STATE, SegmentReader

_ENOSPC = const(28)  # not in every port's errno
_BLOCK = const(4096)  # a file takes whole blocks of flash
_MAX_RUNS = const(16)  # runs of dropped frames that are named (WIRE.md, status)
_MAX_MARKS = const(16)  # boots whose marks are remembered; a `mark` message has 8
_CLEAN = const(1)
_STATE_FORM = "<BBHIIIIII"
_STATE_SIZE = const(28)
_MOST_STATE = const(356)  # 8 + 28 + 16 × 20


class Journal:
    """The journal in `folder`, made if it is missing, of at most `limit` bytes of flash in segments of `segment_size` bytes.

    `boot`: this boot's id, 8 random bytes. `on_event(text)` is told what a maker should know. Opening reads the whole journal once; flash that
    can't be read or written is reported, and tried again with every append.

    `seq`, `taken`: the next frame's number, and the readings journalled in this boot. `pending`: frames not confirmed. `dropped`, `drops`
    ([boot, first, last, readings]), `cuts`, `refused` as in WIRE.md's status.
    """

    def __init__(self, folder, boot, limit=262144, segment_size=16384, max_frame=1024, on_event=None):
        if segment_size < _BLOCK or limit < 2 * segment_size:
            raise ValueError("the journal needs segments of 4096 bytes at least, and room for two")
        self._folder = folder
        self._limit = limit
        self._segment_size = segment_size
        self._tell = on_event or (lambda text: None)
        self.boot = bytes(boot)
        self.seq = 0
        self.taken = 0
        self.pending = 0
        self.dropped = 0
        self.drops = []
        self.cuts = 0
        self.refused = 0
        self.faulty = False  # the last append failed
        self._segments = []  # [number, end of its last whole record], oldest first
        self._highest = 0  # number of the newest segment that ever was
        self._head = (
            0,
            BEGIN,
        )  # place of the first record that is not confirmed; older segments count no more
        self._head_moved = False  # since it was last written
        self._marks = {}  # boot -> highest confirmed seq
        self._gap = (0, BEGIN)  # place up to which gaps in the sequence are accounted for
        self._last = None  # boot, seq and taken that the next frame read must have
        self._file = None  # the last segment, open to append
        self._stopped = False
        self._end = BEGIN  # while opening: end of the records replayed
        self._writing = False  # an append began and did not come to its end
        self._about = b""
        self._about_written = None  # the document in force at the end of the last segment
        self._undated = False  # this boot has frames in the journal that lack their UTC
        self.reader = SegmentReader(folder)
        self.buffer = bytearray(FRAME_AT + max_frame)
        self._view = memoryview(self.buffer)
        self._make_folder()
        self._recover()

    def _make_folder(self):
        try:
            os.stat(self._folder)
        except OSError:
            try:
                os.mkdir(self._folder)
            except OSError as error:
                self._tell("journal: {} can't be made: {}".format(self._folder, error))

    # Opening

    def _recover(self):
        try:
            found = segment.list_segments(self._folder)
        except OSError as error:
            self._tell("journal: can't be opened: {}".format(error))
            return
        state = self._find_state(found)
        clean = intact = False
        for number, size in found:
            self._highest = number
            if number < self._head[0]:
                self._remove(number)  # dropped or confirmed before the restart
                continue
            readable = True
            self._end = BEGIN
            clean = False
            try:
                if self.reader.is_segment(number, size):
                    clean = self._replay(number, size)
            except OSError as error:
                readable = False
                self._tell("journal: segment {} can't be read: {}".format(number, error))
            intact = self._end == size
            if self._end > BEGIN:
                self._segments.append([number, self._end])
                if not intact:
                    self._tell(
                        "journal: segment {} is whole up to byte {} of {}".format(number, self._end, size)
                    )
            elif readable:
                self._remove(number)  # cut off before its first record was whole
        if state and not clean:
            self.cuts += 1
        self.jump()
        self._advance()
        if intact and self._segments and self._segments[-1][0] == self._highest:
            self.reader.close()
            try:
                self._file = open(segment.segment_path(self._folder, self._highest), "ab")
            except OSError:
                self._file = None  # the next append begins a new segment

    def _replay(self, number, size):
        """Account for the whole records of a segment; `_end` is the end of the last one. Returns whether that marks a clean stop."""
        reader = self.reader
        clean = False
        while True:
            length = reader.check(number, self._end, size)
            if not length or (self._end == BEGIN and reader.kind != STATE):
                return clean
            clean = False
            if reader.kind == OBS:
                self.follow(number, self._end)
                if (number, self._end) >= self._head:
                    self.pending += 1
            elif reader.kind == ABOUT:
                whole = length - PREFIX <= len(reader.body)
                self._about_written = bytes(memoryview(reader.body)[: length - PREFIX]) if whole else None
            elif reader.kind == STATE:
                clean = bool(reader.body[0] & _CLEAN)
            self._end += length

    def _find_state(self, found):
        """Take head and counters from the newest segment that has them. Returns whether there is one."""
        reader = self.reader
        for number, size in reversed(found):
            offset = BEGIN
            try:
                if not reader.is_segment(number, size):
                    continue
                while True:
                    length = reader.check(number, offset, size)
                    if not length or (offset == BEGIN and reader.kind != STATE):
                        break
                    if reader.kind == STATE:
                        self._take_state(reader.body)
                    elif reader.kind == HEAD:
                        self._head = struct.unpack_from("<II", reader.body)
                    offset += length
            except OSError:
                pass  # told when the segment itself is read
            if offset > BEGIN:
                return True
        return False

    def _state(self, drops, dropped, head, clean):
        flags = _CLEAN if clean else 0
        gap = self._gap
        body = bytearray(
            struct.pack(
                _STATE_FORM, flags, len(drops), 0, self.cuts, dropped, head[0], head[1], gap[0], gap[1]
            )
        )
        for boot, first, last, readings in drops:
            body.extend(boot)
            body.extend(struct.pack("<III", first, last, readings))
        return body

    def _take_state(self, body):
        _, runs, _, self.cuts, self.dropped, number, offset, gap, gap_at = struct.unpack_from(
            _STATE_FORM, body
        )
        self._head = (number, offset)
        self._gap = (gap, gap_at)
        self.drops = []
        for i in range(runs):
            at = _STATE_SIZE + 20 * i
            first, last, readings = struct.unpack_from("<III", body, at + 8)
            self.drops.append([bytes(memoryview(body)[at : at + 8]), first, last, readings])

    # Appending

    def set_about(self, document, revision):
        """The about document (bytes) that the frames from now on refer to, and its revision."""
        self._about = document
        begin_frame(self.buffer, FRAME_AT, revision, self.boot)

    def make_room(self, max_frame):
        """See to it that a frame of so many bytes fits `buffer`. Call before `set_about`."""
        if len(self.buffer) < FRAME_AT + max_frame:
            self.buffer = bytearray(FRAME_AT + max_frame)
            self._view = memoryview(self.buffer)

    def begin(self):
        """Record that this boot runs, so that the next one knows whether it stopped cleanly. False if flash refuses."""
        return self._append(None, STATE)

    def stop(self):
        """Record a clean stop and close the files. False if flash refuses."""
        self._stopped = True
        done = self._append(None, STATE)
        self._close()
        self.reader.close()
        return done

    def note_clock(self, seconds, milliseconds):
        """This boot's tick 0 was at that UTC (since 2020): recorded if the boot has frames without it, so that a later boot can date them.
        False if flash refuses."""
        if self._undated and self._append_body(CLOCK, self.boot + struct.pack("<iH", seconds, milliseconds)):
            self._undated = False
        return not self._undated

    def append(self, end, batch):
        """Append the frame that `batch` encoded to `buffer` from FRAME_AT up to `end`, with this journal's `seq` and `taken`. True when it is in
        flash; False if flash refuses: the readings are counted in `refused`."""
        struct.pack_into(
            "<IIHBB", self.buffer, PREFIX, self.seq, self.taken, batch.readings, batch.clock_at, 0
        )
        if not self._append(self._view[:end], OBS):
            self.refused += batch.readings
            return False
        if batch.undated:
            self._undated = True
        return True

    def _append_body(self, kind, body):
        record = bytearray(PREFIX + len(body))
        record[PREFIX:] = body
        return self._append(memoryview(record), kind)

    def _append(self, record, kind):
        """Write a record (memoryview, its body in place; None: the state) to the end of the journal and flush it. False if flash refuses."""
        seq = self.seq
        size = _MOST_STATE if record is None else len(record)
        try:
            if self._writing:
                self._settle()
            if self._file is None or self._segments[-1][1] + size > self._segment_size:
                self._rotate()
            number = self._segments[-1][0]
            if record is None:
                # Now that no segment will be dropped before it is written.
                self._head_moved = False
                state = self._state(self.drops, self.dropped, self._head, self._stopped)
                record = memoryview(segment.make_record(kind, state, number))
            self._writing = True
            size = 0
            if kind == OBS and self._about_written != self._about:
                size += self._write(segment.make_record(ABOUT, self._about, number))
                self._about_written = self._about
            if self._head_moved:
                size += self._write(segment.make_record(HEAD, struct.pack("<II", *self._head), number))
                self._head_moved = False
            segment.seal(record, kind, number)
            size += self._write(record)
            self._file.flush()
            if kind == OBS:
                self.pending += 1
                self.taken += struct.unpack_from("<H", record, 16)[0]
                self.seq += 1
            self._segments[-1][1] += size
            self._writing = False
        except OSError as error:
            if not self.faulty:
                self._tell("journal: flash refuses a record: {}".format(error))
            self.faulty = True
            return self._after_error(kind, seq)
        if self.faulty:
            self.faulty = False
            self._tell("journal: flash takes records again")
        return True

    def _write(self, record):
        if self._file.write(record) != len(record):
            raise OSError(_ENOSPC)
        return len(record)

    def _after_error(self, kind, seq):
        """Returns whether the frame is in flash for all that the append failed."""
        try:
            self._settle()
        except OSError:
            self._writing = False
            if kind == OBS:
                # The flash can't even be read. The frame may come to light after a restart, so its number is not used again, and is
                # named as dropped with no reading: its readings count as refused.
                _drop_run(self.drops, self.boot, self.seq, self.seq, 0)
                self.seq += 1
            return False
        return kind == OBS and self.seq > seq

    def settle(self):
        """Before a frame is encoded: if Ctrl-C hit the last append, find out whether that frame is in flash, and count it if so."""
        if self._writing:
            try:
                self._settle()
            except OSError:
                pass  # the next append finds it out, or fails

    def _settle(self):
        """After an append that did not come to its end: leave its segment for good, and count the frame if all of it is there."""
        unsettled = self._writing
        self._close()
        if not unsettled:
            return
        self._head_moved = True
        self.reader.close()
        reader = self.reader
        current = self._segments[-1]
        size = os.stat(segment.segment_path(self._folder, current[0]))[6]
        while True:
            length = reader.check(current[0], current[1], size)
            if not length:
                break
            if reader.kind == OBS and reader.boot == self.boot and reader.seq == self.seq:
                self.pending += 1
                self.taken += reader.readings
                self.seq += 1
            current[1] += length
        self._writing = False

    def _close(self):
        file = self._file
        self._file = None
        if file is not None:
            try:
                file.close()
            except OSError:
                pass  # nothing in it counts before it has been flushed

    # The ring

    def _rotate(self):
        """Begin a new segment; drop the oldest ones if the journal would grow over its limit."""
        self._close()
        if not self._segments:
            self._make_folder()
        number = self._highest + 1
        room = self._limit - self._segment_size
        for place in self._segments:
            room -= _blocks(place[1])
        drops = [list(run) for run in self.drops]
        dropped = self.dropped
        frames = 0
        victims = 0
        while room < 0 and victims < len(self._segments):
            place = self._segments[victims]
            room += _blocks(place[1])
            victims += 1
            lost, count = self._count_unconfirmed(place[0], place[1], drops)
            dropped += lost
            frames += count
        head = self._head
        if victims:
            head = (self._segments[victims][0] if victims < len(self._segments) else number, BEGIN)
        first = bytearray(segment.MAGIC + struct.pack("<I", number))
        first.extend(segment.make_record(STATE, self._state(drops, dropped, head, False), number))
        if self._about:
            first.extend(segment.make_record(ABOUT, self._about, number))
        self._highest = number
        file = self._create(number, first)
        # From here on the drop is in flash, and the dropped segments count no more, removed or not.
        self._file = file
        self._about_written = self._about
        self._head_moved = False
        self._segments.append([number, len(first)])
        self._head = head
        self.drops = drops
        self.dropped = dropped
        self.pending -= frames
        for _ in range(victims):
            self._remove(self._segments.pop(0)[0])
        if frames:
            self._tell("journal: full; dropped {} frames, not all of them confirmed".format(frames))
        self._advance()

    def _create(self, number, first):
        """A new segment with its first bytes, open to append."""
        path = segment.segment_path(self._folder, number)
        file = open(path, "wb")
        try:
            if file.write(first) != len(first):
                raise OSError(_ENOSPC)
            file.flush()
        except OSError:
            # If it is whole in flash all the same, the segment after it tells the same story.
            try:
                file.close()
                os.remove(path)
            except OSError:
                pass
            raise
        return file

    def _count_unconfirmed(self, number, end, drops):
        """Name in `drops` the frames of a segment that are not confirmed. Returns their readings, and how many frames were pending."""
        reader = self.reader
        offset = max((number, BEGIN), self._head)
        if offset[0] > number:
            return 0, 0
        offset = offset[1]
        readings = 0
        frames = 0
        while True:
            try:
                size = reader.peek(number, offset, end)
            except OSError:
                size = 0
            if not size:
                return readings, frames
            offset += size
            if reader.kind == OBS:
                frames += 1
                if not self.confirmed():
                    readings += reader.readings
                    _drop_run(drops, reader.boot, reader.seq, reader.seq, reader.readings)

    def _remove(self, number):
        self.reader.close()
        try:
            os.remove(segment.segment_path(self._folder, number))
        except OSError as error:
            self._tell("journal: segment {} can't be removed: {}".format(number, error))

    # Confirming

    def confirm(self, boot, seq):
        """The host has this boot's frames up to `seq`. What is unknown, old or impossible is ignored. Returns whether the mark moved."""
        boot = bytes(boot)
        if seq <= self._marks.get(boot, -1) or not self.pending or (boot == self.boot and seq >= self.seq):
            return False
        if boot not in self._marks and len(self._marks) >= _MAX_MARKS:
            self._marks.clear()  # the host repeats those that still matter
        self._marks[boot] = seq
        self._advance()
        return True

    def _advance(self):
        """Move the head over frames that are confirmed, and remove the segments that it leaves."""
        number, offset = self._head
        passed = 0
        try:
            while self._segments:
                first, end = self._segments[0]
                if number != first:
                    number = first
                    offset = BEGIN
                size = self.reader.peek(number, offset, end)
                if size:
                    if self.reader.kind == OBS:
                        if not self.confirmed():
                            break
                        passed += 1
                    offset += size
                    continue
                if len(self._segments) == 1:
                    passed = self.pending
                    break
                self._segments.pop(0)
                self._remove(number)
        except OSError:
            pass  # tried again with the next mark
        finally:
            # Ctrl-C in between must not count a frame twice.
            if self._head != (number, offset):
                self._head = (number, offset)
                self._head_moved = True
            self.pending -= passed

    # For the cursor (`cursor.py`)

    @property
    def head(self):
        """Place (segment number, offset) of the first record that is not confirmed."""
        return self._head

    def confirmed(self):
        """Is the frame that `reader` stands on confirmed?"""
        return self.reader.seq <= self._marks.get(self.reader.boot, -1)

    def place(self, number):
        """[number, end] of the segment of that number, or of the next one there is; None after the last."""
        for place in self._segments:
            if place[0] >= number:
                return place
        return None

    def follow(self, number, offset, account=True):
        """The frame that `reader` stands on is the next one read. If frames are missing between it and the one before, name them: flash that can't
        be read back loses them, and they must be counted."""
        reader = self.reader
        last = self._last
        place = (number, offset)
        if (
            account
            and last is not None
            and last[0] == reader.boot
            and reader.seq > last[1]
            and place > self._gap
        ):
            self._gap = place
            _drop_run(self.drops, reader.boot, last[1], reader.seq - 1, reader.taken - last[2])
            self.dropped += reader.taken - last[2]
            self._tell("journal: frames {} to {} can't be read back".format(last[1], reader.seq - 1))
        self._last = (reader.boot, reader.seq + 1, reader.taken + reader.readings)

    def jump(self):
        """The next frame read does not follow the last one."""
        self._last = None


def _blocks(size):
    return (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _drop_run(drops, boot, first, last, readings):
    if drops and drops[-1][0] == boot and drops[-1][2] + 1 == first:
        drops[-1][2] = last
        drops[-1][3] += readings
    else:
        drops.append([boot, first, last, readings])
        if len(drops) > _MAX_RUNS:
            drops.pop(0)
