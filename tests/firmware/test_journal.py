"""The journal on a real LittleFS: cuts at any byte and any flash operation, flipped bits, failing and full flash, the ring, the marks."""

import random

from tests.firmware.conftest import RunFirmware
from tests.firmware.journal_lab import LAB

# A journal of one segment with several kinds of record, its bytes in `whole`, and what was appended with the byte at which each was complete.
RECORDED = """
new_flash()
journal = open_journal()
journal.begin()
appended = []
def append(journal, rows, undated=False):
    note(journal)
    seq = journal.seq
    assert put(journal, rows, undated)
    appended.append(((journal.boot[0], seq, rows), os.stat("/flash/j/00000001.seg")[6]))
append(journal, 3, True)
append(journal, 1)
journal.note_clock(200000000, 5)
append(journal, 4)
journal.stop()
journal = open_journal(2)
journal.begin()
append(journal, 9)
journal.set_about(b"another about", 77)
append(journal, 2)
append(journal, 1)
with open("/flash/j/00000001.seg", "rb") as file:
    whole = file.read()
journal.stop()

def lay(data):
    '''A journal folder whose only segment has these bytes.'''
    for name in os.listdir("/flash/j"):
        os.remove("/flash/j/" + name)
    with open("/flash/j/00000001.seg", "wb") as file:
        file.write(data)
"""


def test_a_cut_at_any_byte_leaves_exactly_what_was_complete(run_firmware: RunFirmware) -> None:
    """And the next boot appends after it, never after garbage, whether the cut file ends in garbage or not."""
    out = run_firmware(
        LAB
        + RECORDED
        + """
for length in range(len(whole) + 1):
    lay(whole[:length])
    expected = [frame for frame, end in appended if end <= length]
    journal = open_journal(3)
    assert read_all(journal) == expected, (length, read_all(journal), expected)
    assert journal.pending == len(expected), length
    assert journal.begin()
    note(journal)
    assert put(journal, 2)
    cut_power(journal)
    journal = open_journal(4)
    assert read_all(journal) == expected + [(3, 0, 2)], length
    cut_power(journal)
print("lengths", len(whole), "frames", len(appended))
""",
        timeout=120,
    )
    assert "frames 6" in out


def test_a_cut_that_leaves_garbage_is_never_appended_to(run_firmware: RunFirmware) -> None:
    """Not every filesystem ends a file where the last flush was: zeros, erased flash and old records may follow."""
    out = run_firmware(
        LAB
        + RECORDED
        + """
for tail in (bytes(40), b"\\xff" * 40, whole[8:90], whole[-30:], b"\\x00"):
    for length in (len(whole), len(whole) - 10):
        lay(whole[:length] + tail)
        expected = [frame for frame, end in appended if end <= length]
        journal = open_journal(3)
        assert read_all(journal) == expected, (length, tail)
        note(journal)
        assert put(journal, 2)
        assert sorted(os.listdir("/flash/j")) == ["00000001.seg", "00000002.seg"]
        cut_power(journal)
        journal = open_journal(4)
        assert read_all(journal) == expected + [(3, 0, 2)]
        cut_power(journal)
print("done")
"""
    )
    assert "done" in out


def test_a_flipped_bit_never_makes_a_wrong_frame(run_firmware: RunFirmware) -> None:
    """Each byte in turn, each time another of its bits: what reads back is right, and in order, up to the flip."""
    out = run_firmware(
        LAB
        + RECORDED
        + """
data = bytearray(whole)
fewer = 0
for at in range(len(whole)):
    data[at] ^= 1 << (at % 8)
    lay(data)
    data[at] = whole[at]
    journal = open_journal(3)
    frames = read_all(journal)  # which checks each frame's bytes
    cut_power(journal)
    assert frames == [frame for frame, end in appended][:len(frames)], at
    assert len(frames) >= len([1 for frame, end in appended if end <= at]) or at < appended[0][1], (at, frames)
    fewer += len(frames) < len(appended)
print("flips", len(whole), "that cost frames", fewer)
assert fewer > len(whole) * 0.8
""",
        timeout=120,
    )
    assert "flips" in out


# Appends, marks and full rings, as they come; what happened is in `acknowledged`, `confirmed` and `in_flight`.
WORK = """
def work(flash, appends):
    acknowledged = []
    confirmed = []
    state = [acknowledged, confirmed, None, 0]
    journal = None
    try:
        journal = open_journal()
        journal.begin()
        for i in range(appends):
            rows = 40 + 7 * (i % 13)
            note(journal)
            frame = (1, journal.seq, rows)
            state[2] = frame
            if put(journal, rows):
                acknowledged.append(frame)
            else:
                state[3] += rows
            state[2] = None
            if i % 9 == 4:
                # Sometimes all, more often less than is there.
                upto = journal.seq - 1 - (i // 9) % 4 * 3
                if upto >= 0:
                    dropped = [seq for run in journal.drops for seq in range(run[1], run[2] + 1)]
                    confirmed.extend([f for f in acknowledged if f[1] <= upto and f not in confirmed and f[1] not in dropped])
                    journal.confirm(journal.boot, upto)
        state.append(journal)
    except PowerCut:
        if journal is not None:
            cut_power(journal)
    return state

def account(journal, acknowledged, confirmed, in_flight):
    '''Every frame is there, or confirmed, or named as dropped, and none of them twice.'''
    frames = read_all(journal)
    if in_flight is not None and in_flight in frames and in_flight not in acknowledged:
        acknowledged = acknowledged + [in_flight]
    assert frames == [frame for frame in acknowledged if frame in frames], "a frame that was never written, or out of order"
    assert len(frames) == journal.pending
    gone = [frame for frame in acknowledged if frame not in frames and frame not in confirmed]
    assert sum([frame[2] for frame in gone]) == journal.dropped, (gone, journal.dropped, journal.drops)
    named = []
    for boot, first, last, readings in journal.drops:
        if readings:
            named.extend(range(first, last + 1))
    assert named == [frame[1] for frame in gone], (named, gone)
    return frames
"""


def test_a_power_cut_at_any_flash_operation_loses_and_repeats_nothing(run_firmware: RunFirmware) -> None:
    """Through appends, new segments, dropped segments, confirmations: after each write or erase of the flash in turn, half done."""
    out = run_firmware(
        LAB
        + WORK
        + """
flash = new_flash()
blank = bytes(flash.data)
acknowledged, confirmed, _, refused, journal = work(flash, 48)
account(journal, acknowledged, confirmed, None)
cut_power(journal)
assert journal.dropped > 0 and refused == 0
operations = flash.operations
for cut in range(int(sys.argv[1]), flash.operations + 1, 8):
    flash = mounted(Flash(data=bytearray(blank)))
    flash.operations = 0
    flash.cut_at = cut
    acknowledged, confirmed, in_flight, refused = work(flash, 48)[:4]
    flash = mounted(Flash(data=flash.data))
    journal = open_journal(2)
    frames = account(journal, acknowledged, confirmed, in_flight)
    assert journal.cuts == 1 or not acknowledged, journal.cuts
    assert journal.begin()
    note(journal)
    assert put(journal, 5)
    dropped = journal.dropped
    cut_power(journal)
    journal = open_journal(3)
    assert journal.dropped == dropped
    again = read_all(journal)
    assert again[-1] == (2, 0, 5)
    assert journal.cuts >= 1, (cut, journal.cuts)
    cut_power(journal)
print("operations", operations)
""",
        str(random.randrange(8)),  # an eighth of them a run
        timeout=280,
        heap="8m",
    )
    assert int(out.split()[-1]) > 500


def test_flash_that_fails_refuses_frames_and_loses_none_it_took(run_firmware: RunFirmware) -> None:
    """EIO at each write or erase in turn, once or for a while: every frame is either refused or there, and numbers have no gap and no double."""
    out = run_firmware(
        LAB
        + WORK
        + """
flash = new_flash()
blank = bytes(flash.data)
work(flash, 30)[4].stop()
operations = flash.operations
refusals = 0
for length, reads in ((1, False), (2, False), (25, False), (8, True)):
    for first in range(1 + int(sys.argv[1]) * 2 + length % 2, operations, 16):
        flash = mounted(Flash(data=bytearray(blank)))
        flash.fails = range(first, first + length)
        if reads:
            flash.unreadable = flash.fails
        del events[:]
        acknowledged, confirmed, _, refused, journal = work(flash, 30)
        assert journal.refused == refused
        refusals += refused > 0
        assert journal.taken == sum([frame[2] for frame in acknowledged])
        flash.fails = flash.unreadable = ()
        if not reads:  # LittleFS itself may need a new mount after both have failed
            account(journal, acknowledged, confirmed, None)
            note(journal)
            frame = (1, journal.seq, 6)
            assert put(journal, 6), "flash takes frames again, so must the journal"
            acknowledged.append(frame)
        cut_power(journal)
        flash = mounted(Flash(data=flash.data))
        journal = open_journal(2)
        frames = account(journal, acknowledged, confirmed, None)
        assert reads or frames[-1] == frame
        cut_power(journal)
print("operations", operations, "runs that refused", refusals)
assert refusals > 10
""",
        str(random.randrange(8)),
        timeout=280,
        heap="8m",
    )
    assert "runs that refused" in out


def test_full_flash_is_counted_and_over_when_there_is_room(run_firmware: RunFirmware) -> None:
    """Another file takes the flash that the journal was promised; then it goes away."""
    out = run_firmware(
        LAB
        + """
flash = new_flash(12)
journal = open_journal(limit=1000000)
assert journal.begin()
with open("/flash/other", "wb") as file:
    for _ in range(6):
        file.write(bytes(4096))
acknowledged = []
refused = 0
for _ in range(30):
    note(journal)
    frame = (1, journal.seq, 100)
    if put(journal, 100):
        acknowledged.append(frame)
    else:
        refused += 100
assert refused > 0 and journal.refused == refused
assert len([event for event in events if "refuses" in event]) == 1, events
assert read_all(journal) == acknowledged
os.remove("/flash/other")
for _ in range(4):
    note(journal)
    frame = (1, journal.seq, 100)
    if put(journal, 100):
        acknowledged.append(frame)
assert "takes records again" in events[-1], events
assert read_all(journal) == acknowledged
print(len(acknowledged), refused)
cut_power(journal)

# A journal that can't even make its folder lives on, and begins when it can.
flash = new_flash(8)
with open("/flash/other", "wb") as file:
    try:
        while True:
            file.write(bytes(512))
            file.flush()
    except OSError:
        pass
del events[:]
journal = open_journal()
assert not journal.begin()
note(journal)
assert not put(journal, 2)
assert journal.refused == 2 and journal.seq == 0
os.remove("/flash/other")
note(journal)
assert put(journal, 3)
assert read_all(journal) == [(1, 0, 3)]
print("done")
"""
    )
    assert "done" in out


def test_marks_move_the_head_and_free_segments(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        LAB
        + """
new_flash()
journal = open_journal(limit=40960)
journal.begin()
for _ in range(30):
    note(journal)
    assert put(journal, 100)
segments = len(os.listdir("/flash/j"))
assert segments >= 4 and journal.pending == 30
one = bytes([1]) * 8
assert not journal.confirm(one, 30), "ahead of what there is"
assert not journal.confirm(one, -1)
assert not journal.confirm(b"another!", -1)
assert journal.pending == 30
assert journal.confirm(one, 4)
assert not journal.confirm(one, 4) and not journal.confirm(one, 3), "idempotent, and never back"
assert [frame[1] for frame in read_all(journal)] == list(range(5, 30))
assert journal.confirm(bytearray(one), 17)
assert journal.pending == 12
assert len(os.listdir("/flash/j")) < segments
note(journal)
put(journal, 1)  # the head goes with the next frame: no flush of its own
cut_power(journal)
journal = open_journal(2, limit=40960)
assert [frame[1] for frame in read_all(journal)] == list(range(18, 31))
assert journal.pending == 13
journal.begin()
note(journal)
put(journal, 1)
# The marks of two boots, the later one first: its frames wait for the earlier ones, and are not sent again.
assert journal.confirm(bytes([2]) * 8, 0)
assert [frame[:2] for frame in read_all(journal)] == [(1, seq) for seq in range(18, 31)]
assert journal.confirm(one, 30)
assert read_all(journal) == [] and journal.pending == 0
assert os.listdir("/flash/j") == [os.listdir("/flash/j")[0]], "only the segment in use is left"
journal.stop()
journal = open_journal(3, limit=40960)
assert journal.pending == 0 and journal.cuts == 1
print("done")
"""
    )
    assert "done" in out


def test_unknown_marks_are_bounded(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        LAB
        + """
new_flash()
journal = open_journal()
note(journal)
put(journal, 1)
for i in range(1000):
    journal.confirm(bytes([i // 256, i % 256]) * 4, 5)
assert len(journal._marks) <= 16 and journal.pending == 1
assert journal.confirm(journal.boot, 0) and journal.pending == 0
print("done")
"""
    )
    assert "done" in out


def test_a_clean_stop_is_no_cut_and_goes_on_in_the_same_segment(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        LAB
        + """
new_flash()
for boot, clean in ((1, True), (2, False), (3, True), (4, True), (5, False)):
    journal = open_journal(boot)
    print(journal.cuts, end=" ")
    journal.begin()
    note(journal)
    put(journal, 1)
    if clean:
        assert journal.stop()
    else:
        cut_power(journal)
journal = open_journal(6)
print(journal.cuts, os.listdir("/flash/j"))
assert [frame[0] for frame in read_all(journal)] == [1, 2, 3, 4, 5]
"""
    )
    assert out.split("\n")[0] == "0 0 1 1 1 2 ['00000001.seg']"


def test_every_segment_explains_itself(run_firmware: RunFirmware) -> None:
    """The about document of each frame is found in its own segment, also after it changed, and after older segments went."""
    out = run_firmware(
        LAB
        + """
from binascii import crc32
new_flash(64)
journal = open_journal(limit=200000)
journal.begin()
documents = {}
for i in range(60):
    if i % 25 == 0:
        document = b"document %d " % i + b"x" * 1500  # longer than what a reader keeps of a record
        documents[crc32(document)] = document
        journal.set_about(document, crc32(document))
    note(journal)
    assert put(journal, 60)
assert len(os.listdir("/flash/j")) > 4
journal.confirm(journal.boot, 20)
cut_power(journal)
journal = open_journal(2, limit=200000)
cursor = Cursor(journal)
cursor.rewind()
seen = set()
while cursor.load():
    revision = cursor.about_revision()
    assert cursor.find_about(revision) == documents[revision]
    assert cursor.find_about(revision ^ 1) is None
    seen.add(revision)
    cursor.skip()
assert len(seen) == 3
print("done")
"""
    )
    assert "done" in out


def test_frames_are_dated_by_a_boot_that_learnt_the_time_later(run_firmware: RunFirmware) -> None:
    """Boot 1 learns it after two segments, boot 2 never, boot 3 has it from the start: each is dated by its own, also after a restart."""
    out = run_firmware(
        LAB
        + """
new_flash(40)
journal = open_journal(1, limit=100000)
journal.begin()
for _ in range(20):
    note(journal)
    assert put(journal, 60, undated=True)
assert len(os.listdir("/flash/j")) > 1
assert journal.note_clock(-500000000, 250)
size = sum([os.stat("/flash/j/" + name)[6] for name in os.listdir("/flash/j")])
assert journal.note_clock(7, 7)
assert size == sum([os.stat("/flash/j/" + name)[6] for name in os.listdir("/flash/j")]), "once is enough"
cut_power(journal)
for boot, undated in ((2, True), (3, False)):
    journal = open_journal(boot, limit=100000)
    journal.begin()
    note(journal)
    put(journal, 2, undated=undated)
    cut_power(journal)
journal = open_journal(4, limit=100000)
cursor = Cursor(journal)
cursor.rewind()
found = {}
while cursor.load():
    boot = cursor.boot[0]
    found.setdefault(boot, set()).add((cursor.undated(), cursor.boot_utc()))
    if boot == 1:
        cursor.date(*cursor.boot_utc())
        assert not cursor.undated()
    cursor.skip()
assert found == {1: {(True, (-500000000, 250))}, 2: {(True, None)}, 3: {(False, None)}}, found
print("done")
"""
    )
    assert "done" in out


def test_frames_that_flash_lost_are_named_and_counted_once(run_firmware: RunFirmware) -> None:
    """A segment in the middle rots: what can't be read back is known from the numbers around it, through restarts, and never counted twice."""
    out = run_firmware(
        LAB
        + """
new_flash(40)
journal = open_journal(limit=100000)
journal.begin()
for i in range(40):
    note(journal)
    put(journal, 60 + i)
cut_power(journal)
names = sorted(os.listdir("/flash/j"))
with open("/flash/j/" + names[2], "rb") as file:
    data = bytearray(file.read())
data[len(data) // 2] ^= 16
with open("/flash/j/" + names[2], "wb") as file:
    file.write(data)
for boot in (2, 3, 4):
    journal = open_journal(boot, limit=100000)
    left = [frame[1] for frame in read_all(journal)]
    lost = [seq for seq in range(40) if seq not in left]
    assert lost and lost == list(range(lost[0], lost[-1] + 1))
    assert journal.drops == [[bytes([1]) * 8, lost[0], lost[-1], sum([60 + seq for seq in lost])]], journal.drops
    assert journal.dropped == journal.drops[0][3]
    assert journal.pending == len(left)
    if boot != 2:
        assert journal.begin()
    cut_power(journal)
# The host, told so, marks all of them, and the journal is empty.
journal = open_journal(5, limit=100000)
journal.confirm(bytes([1]) * 8, 39)
assert journal.pending == 0 and read_all(journal) == []
print("lost", len(lost))
"""
    )
    assert "lost" in out


def test_names_at_most_sixteen_runs_and_counts_all(run_firmware: RunFirmware) -> None:
    """Boot after boot fills the ring; the newest runs are named, the sum is of all."""
    out = run_firmware(
        LAB
        + """
new_flash(24)
total = 0
for boot in range(1, 61):
    journal = open_journal(boot, limit=12288)
    journal.begin()
    for _ in range(3):
        note(journal)
        assert put(journal, 60)
        total += 60
    cut_power(journal)
journal = open_journal(61, limit=12288)
left = read_all(journal)
assert len(journal.drops) == 16
assert journal.dropped + 60 * len(left) == total
assert journal.drops[-1][0][0] <= left[0][0]
size = sum([(os.stat("/flash/j/" + name)[6] + 4095) // 4096 * 4096 for name in os.listdir("/flash/j")])
assert size <= 12288, size
assert journal.cuts == 60
print("done")
""",
        heap="4m",
    )
    assert "done" in out


def test_memory_does_not_grow_with_the_journal(run_firmware: RunFirmware) -> None:
    """A journal of 240 KiB is opened, read through, and confirmed in 30 KiB of heap."""
    out = run_firmware(
        LAB
        + """
import gc
new_flash(80)
journal = open_journal(limit=245760, segment_size=16384)
journal.begin()
for _ in range(400):
    note(journal)
    assert put(journal, 100)
cut_power(journal)
del journal, note
taken.clear()
gc.collect()
gc.threshold(4096)
before = gc.mem_alloc()
journal = open_journal(2, limit=245760, segment_size=16384)
assert journal.pending == 400
cursor = Cursor(journal)
cursor.rewind()
most = 0
frames = 0
while cursor.load():
    frames += 1
    cursor.skip()
    most = max(most, gc.mem_alloc() - before)
for seq in range(0, 400, 3):
    journal.confirm(bytes([1]) * 8, seq)
    most = max(most, gc.mem_alloc() - before)
assert frames == 400
print(most)
""",
        heap="4m",
    )
    assert int(out) < 30_000
