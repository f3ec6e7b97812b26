"""The node's encoder in a MicroPython process: what to encode goes in as integers, the frame comes back."""

from collections.abc import Sequence
from typing import Any

from tests.firmware.conversation import Conversation

MISSING = -(2**30)
LIMIT = 2**29 - 1
ABOUT = 0xCBF43926
BOOT = bytes.fromhex("9f86d081884c7d65")

_SCRIPT = f"""
import gc, micropython
from array import array
from binascii import hexlify
from lamppost.batch import Batch, begin_frame, worst_size
from lamppost.datastream import Datastream

LIMIT = {LIMIT}
AT = 3

def answer(width, first, capacity, interval, seq, taken, undated, count, *numbers):
    '''`numbers`: low and high of each column; then of each row uncertain, seconds, milliseconds and the values.'''
    streams = []
    for i in range(width):
        streams.append(Datastream("c%d" % i, "air_temperature", "Cel", 2, numbers[2 * i], numbers[2 * i + 1]))
    batch = Batch(streams, first, capacity, interval)
    buffer = bytearray(b"*" * (AT + worst_size(batch.capacity, width) + 1))
    begin_frame(buffer, AT, {ABOUT}, {BOOT!r})
    undated = bool(undated)
    size = 3 + width
    values = array("i", bytes(4 * width))
    at = 2 * width
    refused = 0
    for row in range(count):
        for i in range(width):
            values[i] = numbers[at + 3 + i]
        uncertain = bool(numbers[at])
        seconds = numbers[at + 1]
        milliseconds = numbers[at + 2]
        micropython.heap_lock()
        taken_in = batch.accepts(seconds, undated)
        if taken_in:
            batch.add(seconds, milliseconds, values, undated, uncertain)
        micropython.heap_unlock()
        refused += not taken_in
        at += size
    if not batch.rows:
        return "none %d" % refused
    micropython.heap_lock()
    end = batch.encode(buffer, AT, seq, taken)
    micropython.heap_unlock()
    if buffer[:AT] != b"***" or buffer[-1] != 42:
        return "written outside its place"
    clock = buffer[AT + batch.clock_at]
    if clock != undated:
        return "the clock item is not at clock_at"
    return "%s %d" % (hexlify(buffer[AT:end]).decode(), refused)
"""


class Encoder:
    """One long-lived process. Adding a row and encoding run with the heap locked: an allocation fails them."""

    def __init__(self, micropython: list[str]) -> None:
        self._conversation = Conversation(micropython, _SCRIPT, heap="16m")  # for the words of a wide batch

    def encode(
        self,
        columns: Sequence[Sequence[int]],
        times: Sequence[tuple[int, int]],
        *,
        seq: int = 0,
        taken: int = 0,
        first: int = 0,
        capacity: int = 255,
        interval: int = 0,
        undated: bool = False,
        uncertain: Sequence[bool] = (),
        ranges: Sequence[tuple[int, int]] = (),
    ) -> tuple[bytes, int]:
        """The frame of `columns` (MISSING where a value is not there) and of rows at `times` (seconds, milliseconds); and how many rows
        the batch refused. The frame is empty if no row was kept."""
        numbers: list[Any] = [len(columns), first, capacity, interval, seq, taken, int(undated), len(times)]
        for low, high in ranges or [(-LIMIT, LIMIT)] * len(columns):
            numbers += [low, high]
        for row, (seconds, milliseconds) in enumerate(times):
            numbers += [int(bool(uncertain) and uncertain[row]), seconds, milliseconds]
            numbers += [column[row] for column in columns]
        frame, refused = self._conversation.ask(*numbers).split(" ")
        return b"" if frame == "none" else bytes.fromhex(frame), int(refused)

    def close(self) -> None:
        self._conversation.close()
