"""Write `encode.json` anew: `python -m tests.vectors.make_encode`. What the node's encoder makes of these inputs, checked by the host's decoder.

A change of these bytes that the host still decodes is no change of the wire contract, but it is one of what every node sends: look at it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from lamppost_host.virtual.interpreter import find_micropython
from lamppost_host.wire import decode_obs
from tests.firmware.encoder import LIMIT, MISSING, Encoder

HERE = Path(__file__).parent


def _regular(rows: int, step: int, seconds: int = 200_000_000) -> list[list[int]]:
    return [list(divmod(seconds * 1000 + step * row, 1000)) for row in range(rows)]


CASES: list[dict[str, Any]] = [
    {"name": "one row", "columns": [[2153]], "times": _regular(1, 0)},
    {"name": "60 regular rows of a slow quantity", "columns": [[2153 + row * 7 % 5 for row in range(60)]],
     "times": _regular(60, 60_000), "seq": 41, "taken": 2460},
    {"name": "three columns, one with gaps, one too fast for nibbles",
     "columns": [[2100 + row // 3 for row in range(12)], [MISSING if row % 4 == 1 else 455 for row in range(12)],
                 [101_325 + row * row * 10 for row in range(12)]],
     "times": _regular(12, 1000), "seq": 70_000, "taken": 300, "first": 2},
    {"name": "seven rows: plain is as short as nibbles", "columns": [[5, 6, 7, 8, 7, 6, 5]], "times": _regular(7, 1000)},
    {"name": "eight rows: nibbles are shorter", "columns": [[5, 6, 7, 8, 7, 6, 5, 5]], "times": _regular(8, 1000)},
    {"name": "an odd row in nibbles, its spare nibble 0", "columns": [[-3, 4, -3, 4, -3, 4, -3, 4, MISSING]],
     "times": _regular(9, 1000)},
    {"name": "a column with nothing in it", "columns": [[1] * 9, [MISSING] * 9], "times": _regular(9, 1000)},
    {"name": "a difference of eight does not fit a nibble", "columns": [[0, 1, 2, 3, 4, 5, 6, 14]], "times": _regular(8, 1000)},
    {"name": "jitter", "columns": [[1, 2, 3]], "times": [[200_000_000, 0], [200_000_060, 3], [200_000_119, 999]]},
    {"name": "back in time", "columns": [[1, 2, 3]], "times": [[200_000_000, 0], [199_999_999, 0], [199_999_998, 0]]},
    {"name": "in March 2004", "columns": [[136]], "times": [[-498_981_600, 0]]},
    {"name": "undated", "columns": [[1, 2]], "times": [[3, 250], [4, 250]], "undated": True},
    {"name": "out of range and uncertain", "columns": [[-4100, 0, 8501]], "times": _regular(3, 1000),
     "ranges": [[-4000, 8500]], "uncertain": [False, True, False]},
    {"name": "the widest values", "columns": [[LIMIT, -LIMIT, LIMIT]], "times": _regular(3, 1000),
     "seq": 2**30 - 1, "taken": 2**30 - 1},
    {"name": "an interval", "columns": [[655]], "times": _regular(1, 0), "interval": 60_000},
    {"name": "255 rows", "columns": [[row % 8 for row in range(255)]], "times": _regular(255, 1000)},
    {"name": "a row with nothing in it is left out", "columns": [[7, MISSING, 8]], "times": _regular(3, 1000)},
]  # fmt: skip


def main() -> None:
    encoder = Encoder(find_micropython())
    vectors = []
    for case in CASES:
        arguments = {key: value for key, value in case.items() if key != "name"}
        payload, _ = encoder.encode(**arguments)
        decode_obs(payload)
        vectors.append(case | {"hex": payload.hex()})
    encoder.close()
    lines = ",\n".join(json.dumps(vector) for vector in vectors)
    (HERE / "encode.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    sys.stdout.write(f"{len(vectors)} vectors\n")


if __name__ == "__main__":
    main()
