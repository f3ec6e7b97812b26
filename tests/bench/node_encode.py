"""What a node's encoding costs, in MicroPython: `micropython tests/bench/node_encode.py FIRMWARE_FOLDER` prints one JSON object.

The same 60 readings, in turn in one process: each as one SensorThings Observation through `json.dumps`, and all as one frame. Of several
rounds the fastest counts: other programs can only slow a round down.

    json_us_per_reading, json_bytes_per_reading   json.dumps of {"phenomenonTime", "result"}, given as a dict
    made_and_json_us_per_reading                  making that dict from the seconds and the scaled integer too
    frame_us_per_reading, wire_bytes_per_reading  the frame of a full batch of one column
    add_us_per_reading, add_and_frame_us_per_reading   putting the readings into the batch; that and the frame
    ..._of_3_columns                              the same with three columns, as a BME280 has
    heap_bytes_per_sample                         what adding 600 rows and making their ten frames leaves on the heap
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
        self.end = self.batch.encode(self.buffer, 0, 100000, 6000000)  # late in a boot: longer counters


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
        "json_us_per_reading": fastest(as_json) / ROWS,
        "made_and_json_us_per_reading": fastest(made_and_json) / ROWS,
        "json_bytes_per_reading": sum([len(json.dumps(observation)) for observation in observations]) / ROWS,
        "frame_us_per_reading": fastest(one.encode) / readings[1],
        "wire_bytes_per_reading": one.end / readings[1],
        "frame_us_per_reading_of_3_columns": fastest(three.encode) / readings[3],
        "wire_bytes_per_reading_of_3_columns": three.end / readings[3],
        "add_us_per_reading": fastest(one.add) / readings[1],
        "add_us_per_reading_of_3_columns": fastest(three.add) / readings[3],
    }
    result["add_and_frame_us_per_reading"] = result["add_us_per_reading"] + result["frame_us_per_reading"]
    result["add_and_frame_us_per_reading_of_3_columns"] = (
        result["add_us_per_reading_of_3_columns"] + result["frame_us_per_reading_of_3_columns"]
    )
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    for _ in range(10):
        three.add()
        three.encode()
    result["heap_bytes_per_sample"] = (gc.mem_alloc() - before) / (10 * ROWS)
    print(json.dumps(result))


main()
