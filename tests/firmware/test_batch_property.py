"""Whatever a node encodes, the host decodes to the same: thousands of random frames through both."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamppost_host.wire import EPOCH_UNIX_MS, OBS_BYTES, decode_obs
from tests.firmware.encoder import ABOUT, BOOT, LIMIT, MISSING, Encoder


@pytest.fixture(scope="module")
def encoder(micropython: list[str]) -> Iterator[Encoder]:
    encoder = Encoder(micropython)
    yield encoder
    encoder.close()


# Shapes are hypothesis's to choose, and to make smaller; within one, a seed gives the numbers: drawing each would take minutes.


def column(random: Random, rows: int, reach: int, gaps: float) -> list[int]:
    """Slow ones, that fit nibbles; ones that nearly do; wild ones; each with gaps."""
    value = random.choice([0, random.randint(-LIMIT, LIMIT), LIMIT, -LIMIT])
    values = []
    for _ in range(rows):
        value = max(-LIMIT, min(LIMIT, value + random.randint(-reach, reach)))
        values.append(MISSING if random.random() < gaps else value)
    return values


def row_times(random: Random, rows: int, step: int, jitter: int) -> list[tuple[int, int]]:
    """Of a regular schedule, of one with jitter, or wild, backwards too."""
    now = random.randint(-600_000_000, 1_000_000_000) * 1000 + random.randint(0, 999)
    times = []
    for _ in range(rows):
        times.append(divmod(now, 1000))
        now += step + random.randint(-jitter, jitter)
    return times


REACHES = st.sampled_from([1, 7, 8, 100, 40_000, LIMIT])
GAPS = st.sampled_from([0.0, 0.0, 0.2, 0.9])
STEPS = st.sampled_from([0, 10, 100, 1000, 60_000, 300_000, -1000])
JITTERS = st.sampled_from([0, 0, 1, 400, 100_000])
COUNTS = st.integers(0, 2**30 - 1) | st.sampled_from([127, 128, 255, 256, 65_535, 65_536])


@settings(max_examples=1200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 20) | st.integers(1, 255),
    shapes=st.lists(st.tuples(REACHES, GAPS), min_size=1, max_size=3),
    schedule=st.tuples(STEPS, JITTERS),
    limits=st.none() | st.tuples(st.integers(-LIMIT, LIMIT), st.integers(-LIMIT, LIMIT)),
    seq=COUNTS,
    taken=COUNTS,
    first=st.integers(0, 250),
    undated=st.booleans(),
)
def test_host_decodes_what_node_encodes(
    encoder: Encoder,
    seed: int,
    rows: int,
    shapes: list[tuple[int, float]],
    schedule: tuple[int, int],
    limits: tuple[int, int] | None,
    seq: int,
    taken: int,
    first: int,
    undated: bool,
) -> None:
    random = Random(seed)
    columns = [column(random, rows, *shape) for shape in shapes]
    times = row_times(random, rows, *schedule)
    uncertain = [seed % 3 == 0 and random.random() < 0.5 for _ in range(rows)]
    low, high = (min(limits), max(limits)) if limits else (-LIMIT, LIMIT)
    ranges = [(low, high)] * len(columns)
    payload, refused = encoder.encode(
        columns, times, seq=seq, taken=taken, first=first, undated=undated, uncertain=uncertain, ranges=ranges
    )

    kept = [row for row in range(rows) if any(column[row] != MISSING for column in columns)]
    assert refused == 0
    if not kept:
        assert payload == b""
        return
    frame = decode_obs(payload)
    assert len(payload) <= OBS_BYTES
    assert (frame.about, frame.boot, frame.seq, frame.taken, frame.first) == (ABOUT, BOOT, seq, taken, first)
    assert frame.dated is not undated
    assert frame.rows == len(kept)
    assert frame.columns == [
        [None if column[row] == MISSING else column[row] for row in kept] for column in columns
    ]
    epoch = 0 if undated else EPOCH_UNIX_MS
    at = [seconds * 1000 + milliseconds + epoch for seconds, milliseconds in (times[row] for row in kept)]
    assert [frame.epoch_ms + offset for offset in frame.offsets_ms] == at
    flags = [
        2 * uncertain[row]
        | any(column[row] != MISSING and not low <= column[row] <= high for column in columns)
        for row in kept
    ]
    assert frame.quality == (bytes(flags) if any(flags) else None)
    assert frame.readings == sum(column[row] != MISSING for column in columns for row in kept)


@pytest.mark.parametrize("width", [1, 2, 6, 7, 30, 128])
def test_no_frame_is_over_the_bound(encoder: Encoder, width: int) -> None:
    """The widest columns, the wildest values, as many rows as a batch takes."""
    wild = [[LIMIT if (row + index) % 2 else -LIMIT for row in range(255)] for index in range(width)]
    times = [(-400_000, 999) if row % 2 else (0, 0) for row in range(255)]
    payload, refused = encoder.encode(wild, times, seq=2**30 - 1, taken=2**30 - 1, uncertain=[True] * 255)
    frame = decode_obs(payload)
    assert len(payload) <= OBS_BYTES
    assert frame.rows + refused == 255
    assert frame.columns == [values[: frame.rows] for values in wild]
    if refused:
        assert len(payload) > OBS_BYTES - 200 - 8 * width, "there was room for another row"
