"""A flash chip in a file of the host: what was written when the process is killed is what the next start finds."""

import errno
import os

BLOCK_BYTES = 4096
_BLOCK_COUNT, _BLOCK_SIZE, _ERASE = 4, 5, 6
_ERASED = b"\xff" * BLOCK_BYTES


class FileFlash:
    """A block device (MicroPython's extended interface) on an open file of whole blocks.

    `faults`: `fail_after_bytes`: every write and erase fails with EIO once so many bytes were programmed in this run (a worn chip);
    `cut_after_bytes`: the power is cut in the middle of the write that passes this number, of which the bytes up to it are there.
    """

    def __init__(self, file, faults=None, cut_power=None):
        self._file = file
        file.seek(0, 2)
        self._blocks = file.tell() // BLOCK_BYTES
        faults = faults or {}
        self._fail_after = faults.get("fail_after_bytes")
        self._cut_after = faults.get("cut_after_bytes")
        self._cut_power = cut_power or kill_this_process
        self.programmed = 0
        self.erased_blocks = 0

    def readblocks(self, block, buf, offset=0):
        self._file.seek(block * BLOCK_BYTES + offset)
        self._file.readinto(buf)

    def writeblocks(self, block, buf, offset=None):
        if offset is None:
            self._erase(block)
            offset = 0
        # An errno returned, not an exception raised: the file system's C code has to see it and tidy up.
        if self._failing():
            return -errno.EIO
        at = block * BLOCK_BYTES + offset
        if self._cut_after is not None and self.programmed + len(buf) > self._cut_after:
            self._file.seek(at)
            self._file.write(memoryview(buf)[: self._cut_after - self.programmed])
            self._cut_power()
        self.programmed += len(buf)
        self._file.seek(at)
        self._file.write(buf)
        return 0

    def _failing(self):
        return self._fail_after is not None and self.programmed >= self._fail_after

    def _erase(self, block):
        self.erased_blocks += 1
        self._file.seek(block * BLOCK_BYTES)
        self._file.write(_ERASED)

    def ioctl(self, operation, argument):
        if operation == _BLOCK_COUNT:
            return self._blocks
        if operation == _BLOCK_SIZE:
            return BLOCK_BYTES
        if operation == _ERASE:
            if self._failing():
                return -errno.EIO
            self._erase(argument)
        return 0


def kill_this_process():
    """A power cut: SIGKILL, so that nothing tidies up. The unix port has no kill(), but its child's parent is this process."""
    os.system("kill -9 $PPID")  # noqa: S605 - a fixed command, and MicroPython has no other way


def erase_file(file, size):
    """Make an open file the image of an erased chip of `size` bytes."""
    file.seek(0)
    for _ in range(size // BLOCK_BYTES):
        file.write(_ERASED)
