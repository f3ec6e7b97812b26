"""MicroPython code that the journal's tests share: LittleFS on a flash in memory that can be cut off, fail and fill; frames that say who they are."""

LAB = """
import os, vfs
from array import array
from lamppost.batch import Batch, worst_size
from lamppost.cursor import Cursor
from lamppost.datastream import Datastream
from lamppost.journal import Journal
from lamppost.segment import FRAME_AT

BLOCK = 4096

class PowerCut(BaseException):
    pass

class Flash:
    '''Blocks of 4 KiB in memory. Write or erase number `cut_at` happens half, and PowerCut is raised; those in `fails` give EIO.'''
    def __init__(self, blocks=24, data=None):
        self.data = data or bytearray(BLOCK * blocks)
        self.view = memoryview(self.data)
        self.operations = 0
        self.cut_at = -1
        self.dead = False  # no power, or no longer mounted: files that are still open must not reach it
        self.fails = ()
        self.unreadable = ()
    def readblocks(self, block, buffer, offset=0):
        if self.dead:
            return 0
        if self.operations in self.unreadable:
            return -5
        at = BLOCK * block + offset
        buffer[:] = self.view[at:at + len(buffer)]
    def _operation(self, at, size, source):
        if self.dead:
            return 0
        self.operations += 1
        if self.operations == self.cut_at:
            size //= 2
        elif self.operations in self.fails:
            return -5
        if source is None:
            self.view[at:at + size] = bytes(size)
        else:
            self.view[at:at + size] = memoryview(source)[:size]
        if self.operations == self.cut_at:
            self.dead = True
            raise PowerCut()
        return 0
    def writeblocks(self, block, buffer, offset=0):
        return self._operation(BLOCK * block + offset, len(buffer), buffer)
    def ioctl(self, operation, argument):
        if operation == 4:
            return len(self.data) // BLOCK
        if operation == 5:
            return BLOCK
        if operation == 6:
            return self._operation(BLOCK * argument, BLOCK, None)
        return 0

last_mounted = []
def mounted(flash):
    '''Mount at /flash, in place of what was there.'''
    for before in last_mounted:
        before.dead = True
        vfs.umount("/flash")
    last_mounted[:] = [flash]
    vfs.mount(vfs.VfsLfs2(flash), "/flash")
    return flash

def new_flash(blocks=24):
    flash = Flash(blocks)
    vfs.VfsLfs2.mkfs(flash)
    return mounted(flash)

STREAM = (Datastream("t", "air_temperature", "Cel", 2),)
events = []

def cut_power(journal):
    '''Leave a journal as a cut between two appends does, with its file not left for the garbage collector to close.'''
    journal._close()
    journal.reader.close()

def open_journal(boot=1, limit=12288, segment_size=4096, folder="/flash/j"):
    '''A journal of the boot whose id is that number 8 times, ready to append.'''
    del events[:]
    journal = Journal(folder, bytes([boot]) * 8, limit, segment_size, worst_size(255, 1), events.append)
    journal.set_about(b"about of boot %d" % boot, 1000 + boot)
    return journal

def value_of(boot, seq):
    return boot * 1000 + seq

def put(journal, rows=3, undated=False):
    '''Append a frame with that many readings, each telling boot and seq. Wild ones, so that a row takes five bytes.'''
    batch = Batch(STREAM, 0, 255)
    value = value_of(journal.boot[0], journal.seq)
    for row in range(rows):
        batch.add(1000 + row, 0, array("i", [value if row % 2 == 0 else value + 0x10000000]), undated)
    end = batch.encode(journal.buffer, FRAME_AT, journal.seq, journal.taken)
    return journal.append(end, batch)

def read_all(journal):
    '''[(boot, seq, readings)] of the frames that are not confirmed; each checked to be the frame that it should be.'''
    cursor = Cursor(journal)
    cursor.rewind()
    frames = []
    while cursor.load():
        frame = bytes(cursor.frame())
        boot = cursor.boot[0]
        assert frame[9:17] == cursor.boot
        batch = Batch(STREAM, 0, 255)
        value = value_of(boot, cursor.seq)
        for row in range(cursor.readings):
            batch.add(1000 + row, 0, array("i", [value if row % 2 == 0 else value + 0x10000000]), cursor.undated())
        expected = bytearray(FRAME_AT + worst_size(255, 1))
        end = batch.encode(expected, FRAME_AT, cursor.seq, taken_before(boot, cursor.seq))
        assert frame[17:] == expected[FRAME_AT + 17:end], "another frame than was written"
        frames.append((boot, cursor.seq, cursor.readings))
        cursor.skip()
    return frames

taken = {}
def taken_before(boot, seq):
    '''The readings that the boot had taken when it wrote that frame.'''
    return taken[(boot, seq)]

def note(journal):
    taken[(journal.boot[0], journal.seq)] = journal.taken
"""
