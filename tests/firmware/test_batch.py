"""The node's encoder: golden vectors, what it costs, and what it refuses."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lamppost_host.wire import decode_obs
from tests.conftest import VECTORS
from tests.firmware.conftest import RunFirmware
from tests.firmware.encoder import LIMIT, MISSING, Encoder

CASES: list[dict[str, Any]] = json.loads((VECTORS / "encode.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def encoder(micropython: list[str]) -> Iterator[Encoder]:
    encoder = Encoder(micropython)
    yield encoder
    encoder.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_encoder_makes_exactly_these_bytes(encoder: Encoder, case: dict[str, Any]) -> None:
    arguments = {key: value for key, value in case.items() if key not in ("name", "hex")}
    payload, _ = encoder.encode(**arguments)
    assert payload.hex() == case["hex"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_host_reads_every_vector(case: dict[str, Any]) -> None:
    frame = decode_obs(bytes.fromhex(case["hex"]))
    rows = range(len(case["times"]))
    kept = [row for row in rows if any(column[row] != MISSING for column in case["columns"])]
    assert frame.columns == [
        [None if column[row] == MISSING else column[row] for row in kept] for column in case["columns"]
    ]


def test_slow_quantity_takes_at_most_one_and_a_half_bytes_a_reading(encoder: Encoder) -> None:
    """60 readings at 0.01 resolution, as late in a boot as counters of four bytes."""
    column = [2153 + (row * 7) % 13 - 6 for row in range(60)]
    slow = [2153 + abs((row % 12) - 6) for row in range(60)]
    times = [(200_000_000 + 60 * row, 0) for row in range(60)]
    payload, _ = encoder.encode([slow], times, seq=2**30 - 1, taken=2**30 - 1)
    assert len(payload) / 60 <= 1.5
    noisy, _ = encoder.encode([column], times, seq=2**30 - 1, taken=2**30 - 1)
    assert decode_obs(noisy).columns == [column]


def test_a_value_too_large_for_the_wire_is_missing_and_counted(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        f"""
from array import array
from lamppost.batch import Batch
from lamppost.datastream import Datastream
batch = Batch([Datastream("a", "x", "1", 0), Datastream("b", "x", "1", 0)], 0, 10)
print(batch.add(1, 0, array("i", [{LIMIT + 1}, 7])), batch.add(2, 0, array("i", [{-LIMIT - 1}, {LIMIT + 1}])))
print(batch.rows, batch.readings, batch.overflows)
"""
    )
    assert out.split("\n")[:2] == ["1 0", "1 1 3"]


def test_a_batch_refuses_what_would_not_fit_one_frame(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        """
from array import array
from lamppost.batch import Batch
from lamppost.datastream import Datastream
def batch():
    batch = Batch([Datastream("a", "x", "1", 0)], 0, 2)
    batch.add(1000, 0, array("i", [1]))
    return batch
print(batch().accepts(1000 + 499999, False), batch().accepts(1000 + 500000, False), batch().accepts(1000 - 500000, False))
print(batch().accepts(1001, True))
full = batch()
full.add(1001, 0, array("i", [1]))
print(full.accepts(1002, False))
full.clear()
print(full.accepts(5, True), full.rows, full.readings)
"""
    )
    assert out.split("\n")[:4] == ["True False False", "False", "False", "True 0 0"]


@pytest.mark.parametrize(
    "arguments",
    [
        '"", "x", "1", 0',
        '"a/b", "x", "1", 0',
        '"A", "x", "1", 0',
        '"a", "x", "1", 10',
        '"a", "x", "1", 0, 5, 4',
    ],
)
def test_a_datastream_that_the_wire_has_no_form_for_is_refused(
    run_firmware: RunFirmware, arguments: str
) -> None:
    out = run_firmware(
        f"""
from lamppost import Datastream
try:
    Datastream({arguments})
except ValueError as error:
    print("refused:", error)
"""
    )
    assert out.startswith("refused:")


def test_a_frame_is_dated_in_place(encoder: Encoder, run_firmware: RunFirmware) -> None:
    """Seconds and milliseconds carry over, before 2020 too, and nothing else changes."""
    payload, _ = encoder.encode([[1, 2]], [(3, 250), (4, 250)], seq=300, undated=True)
    out = run_firmware(
        """
from binascii import hexlify, unhexlify
from lamppost.batch import shift
for seconds, milliseconds in ((200000000, 900), (-500000000, 0), (0, 750)):
    buffer = bytearray(unhexlify(sys.argv[1]))
    shift(buffer, int(sys.argv[2]), seconds, milliseconds)
    print(hexlify(buffer).decode())
""",
        payload.hex(),
        str(17 + 3 + 1 + 1 + 1),
    )
    unix = 1_577_836_800_000
    before = decode_obs(payload)
    for line, at in zip(out.split(), (200_000_004_150, -499_999_996_750, 4_000), strict=True):
        frame = decode_obs(bytes.fromhex(line))
        assert (frame.dated, frame.epoch_ms) == (True, unix + at)
        assert (frame.columns, frame.seq, frame.offsets_ms) == (before.columns, before.seq, before.offsets_ms)
