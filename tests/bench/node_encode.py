"""What a node's encoding costs, in MicroPython: `micropython tests/bench/node_encode.py FIRMWARE_FOLDER` prints one JSON object.

The same 60 readings, in turn in one process: each as one SensorThings Observation through `json.dumps`, and all as one frame. Of several
rounds the fastest counts: other programs can only slow a round down.

    json_us, json_bytes       a reading: json.dumps of {"phenomenonTime", "result"}, given as a dict
    made_and_json_us          a reading: making that dict from the seconds and the scaled integer too
    frame_us, frame_bytes     a reading: encoding the frame of a full batch of one column
    add_us, add_and_frame_us  a reading: putting it into the batch too
    frame3_us, add3_and_frame3_us, frame3_bytes   the same with three columns, as a BME280 has
    heap_bytes_per_sample     what 60 rows and their frame leave on the heap
"""

import gc
import json
import sys
import time
from array import array

sys.path.insert(0, sys.argv[1])

from lamppost.batch import Batch, begin_frame, worst_size
from lamppost.datastream import Datastream

ROWS = 60
ROUNDS = 9
REPEATS = 20


def fastest(work):
    """µs of one call of `work`, in the fastest round."""
    best = None
    for _ in range(ROUNDS):
        gc.collect()
        begin = time.ticks_us()
        for _ in range(REPEATS):
            work()
        took = time.ticks_diff(time.ticks_us(), begin)
        best = took if best is None else min(best, took)
    return best / REPEATS


class Frames:
    """60 rows of a slow quantity at a resolution of 0.01 in each of `width` columns."""

    def __init__(self, width):
        streams = [Datastream("t%d" % i, "air_temperature", "Cel", 2) for i in range(width)]
        self.batch = Batch(streams, 0, ROWS)
        self.buffer = bytearray(worst_size(ROWS, width))
        begin_frame(self.buffer, 0, 0xCBF43926, b"12345678")
        self.rows = [array("i", [value(row) + 7 * i for i in range(width)]) for row in range(ROWS)]
        self.end = 0

    def add(self):
        batch = self.batch
        batch.clear()
        seconds = 200000000
        for row in self.rows:
            batch.add(seconds, 0, row)
            seconds += 60

    def encode(self):
        self.end = self.batch.encode(self.buffer, 0, 1000, 60000)


def value(row):
    return 2153 + abs(row % 12 - 6)


def main():
    observations = [
        {"phenomenonTime": "2026-05-03T12:%02d:00Z" % row, "result": value(row) / 100} for row in range(ROWS)
    ]

    def as_json():
        for observation in observations:
            json.dumps(observation)

    def made_and_json():
        seconds = 200000000
        for row in range(ROWS):
            year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
            text = "%d-%02d-%02dT%02d:%02d:%02dZ" % (year, month, day, hour, minute, second)
            json.dumps({"phenomenonTime": text, "result": one.rows[row][0] / 100})
            seconds += 60

    one = Frames(1)
    three = Frames(3)
    one.add()
    three.add()
    readings = {1: ROWS, 3: 3 * ROWS}
    result = {
        "json_us": fastest(as_json) / ROWS,
        "made_and_json_us": fastest(made_and_json) / ROWS,
        "json_bytes": sum([len(json.dumps(observation)) for observation in observations]) / ROWS,
        "frame_us": fastest(one.encode) / readings[1],
        "frame_bytes": one.end / readings[1],
        "frame3_us": fastest(three.encode) / readings[3],
        "frame3_bytes": three.end / readings[3],
        "add_us": fastest(one.add) / readings[1],
        "add3_us": fastest(three.add) / readings[3],
    }
    result["add_and_frame_us"] = result["add_us"] + result["frame_us"]
    result["add3_and_frame3_us"] = result["add3_us"] + result["frame3_us"]
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    for _ in range(10):
        three.add()
        three.encode()
    result["heap_bytes_per_sample"] = (gc.mem_alloc() - before) / (10 * ROWS)
    print(json.dumps(result))


main()
