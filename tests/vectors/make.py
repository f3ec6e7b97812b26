"""Write the golden vectors anew: `python -m tests.vectors.make`. A change of their bytes is a change of the wire contract."""

import json
from pathlib import Path
from typing import Any

import msgpack

from tests.frames import datastream, encode_about, encode_obs, revision

BOOT = bytes.fromhex("9f86d081884c7d65")
HERE = Path(__file__).parent


def _error(name: str, payload: bytes, code: str) -> dict[str, Any]:
    return {"name": name, "hex": payload.hex(), "error": code}


def about() -> list[dict[str, Any]]:
    plain = encode_about()
    full = encode_about(
        datastream("temperature"),
        datastream("pm10", property="pm10", unit="ug/m3", decimals=0, sensor="PMS5003", sensor_id="28ff641f"),
        description="On the fence",
        location=[-1_800_000_000, 900_000_000, -1250],
        place="Kesklinn",
        properties={"owner": "Tallinn", "floor": 2, "public": True},
        of_a_later_version={"kept": "out"},
    )
    return [
        {"name": "one datastream", "hex": plain.hex(), "revision": revision(plain), "node": "School yard",
         "location": [24.7535, 59.4369], "keys": ["temperature"]},
        {"name": "everything, and a key of a later version", "hex": full.hex(), "revision": revision(full),
         "node": "School yard", "location": [-180.0, 90.0, -12.5], "keys": ["temperature", "pm10"]},
        {"name": "no place", "hex": (p := encode_about(location=None)).hex(), "revision": revision(p),
         "node": "School yard", "location": None, "keys": ["temperature"]},
        _error("a later version", encode_about(v=2), "version-unknown"),
        _error("no name", encode_about(name=None), "wrong-type"),
        _error("no datastream", encode_about(datastreams=[]), "wrong-type"),
        _error("two of one key", encode_about(datastream(), datastream()), "out-of-bounds"),
        _error("a key with a slash", encode_about(datastream("a/b")), "out-of-bounds"),
        _error("ten decimals", encode_about(datastream(decimals=10)), "out-of-bounds"),
        _error("latitude over 90", encode_about(location=[0, 900_000_001]), "out-of-bounds"),
        _error("degrees as floats", encode_about(location=[24.7, 59.4]), "wrong-type"),
        _error("an array", msgpack.packb([1]), "wrong-type"),
        _error("cut short", plain[:-1], "not-messagepack"),
        _error("too long", encode_about(description="x" * 4096), "too-long"),
    ]  # fmt: skip


def _frame(
    name: str, epoch_ms: int, offsets: list[int], columns: list[list[int | None]], **fields: Any
) -> dict[str, Any]:
    payload = encode_obs(0xCBF43926, BOOT, columns=columns, **fields)
    return {
        "name": name, "hex": payload.hex(), "about": 0xCBF43926, "boot": BOOT.hex(), "seq": fields["seq"],
        "taken": fields.get("taken", 0), "first": fields.get("first", 0), "dated": fields.get("clock", 0) == 0,
        "epoch_ms": epoch_ms, "offsets_ms": offsets, "interval_ms": fields.get("interval", 0),
        "quality": fields["quality"].hex() if fields.get("quality") else None, "columns": columns,
    }  # fmt: skip


def obs() -> list[dict[str, Any]]:
    good = encode_obs(1, BOOT, 0, [[2150]])
    items = msgpack.unpackb(good)

    def changed(index: int, value: Any) -> bytes:
        copy = list(items)
        copy[index] = value
        return msgpack.packb(copy)

    slow = [2150 + (row * 7 % 5) - 2 for row in range(60)]
    return [
        _frame("one reading", 1_577_836_800_000, [0], [[2150]], seq=0),
        _frame("sixty slow readings, nibbles", 1_795_320_000_250, [60_000 * row for row in range(60)], [slow],
               seq=7, taken=420, seconds=217_483_200, milliseconds=250, step=60_000),
        _frame("three columns with gaps", 1_795_320_000_000, [0, 1000, 2000],
               [[None, 5, 9000], [None, None, None], [-7, -14, -7]], seq=65_536, taken=70_000, first=2,
               seconds=217_483_200),
        _frame("before 2020, at uneven times", 1_078_941_600_000, [0, 3_600_000, 3_600_001, 3_599_001],
               [[1360, 489, None, 488]], seq=1, seconds=-498_895_200, step=[3_600_000, 1, -1000]),
        _frame("undated, with quality, of intervals", 61_005, [0, 1000], [[1, 2]], seq=2, clock=1, seconds=61,
               milliseconds=5, quality=b"\x01\x02", interval=1000),
        _frame("the largest and smallest value", 1_577_836_800_000, [0, 0], [[2**30 - 1, 0], [0, 1 - 2**30]], seq=3, step=0),
        _frame("an odd number of nibbles", 1_577_836_800_000, [1000 * row for row in range(9)],
               [[None, 100, 107, 100, 93, None, 93, 94, 95]], seq=4),
        _error("nothing", b"", "not-messagepack"),
        _error("a map", msgpack.packb({"v": 1}), "wrong-type"),
        _error("a later version", changed(0, 2), "version-unknown"),
        _error("truth for a version", changed(0, True), "version-unknown"),
        _error("thirteen items", msgpack.packb(items[:13]), "wrong-length"),
        _error("trailing bytes", good + b"\x00", "trailing-bytes"),
        _error("cut short", good[:-1], "not-messagepack"),
        _error("a boot of seven bytes", changed(2, BOOT[:7]), "wrong-type"),
        _error("a negative seq", changed(3, -1), "out-of-bounds"),
        _error("no rows", changed(6, 0), "out-of-bounds"),
        _error("more rows than readings", changed(6, 2), "wrong-length"),
        _error("a clock of neither kind", changed(7, 2), "out-of-bounds"),
        _error("a thousand milliseconds", changed(9, 1000), "out-of-bounds"),
        _error("a float for a time", changed(8, 1.5), "wrong-type"),
        _error("a step too few", encode_obs(1, BOOT, 0, [[1, 2, 3]], step=[1]), "wrong-type"),
        _error("quality of another length", encode_obs(1, BOOT, 0, [[1, 2]], quality=b"\x00"), "wrong-type"),
        _error("no columns", changed(13, []), "wrong-type"),
        _error("a column of text", changed(13, [["21.5"]]), "column-unknown"),
        _error("a column that is a number", changed(13, [2150]), "column-unknown"),
        _error("a value of 2^30", changed(13, [[2**30]]), "out-of-bounds"),
        _error("a sum of 2^30", msgpack.packb([*items[:6], 2, *items[7:13], [[2**30 - 1, 1]]]), "out-of-bounds"),
        _error("a spare nibble that is not 0", changed(13, [[5, b"\x01"]]), "out-of-bounds"),
        _error("nibbles for more rows", changed(13, [[5, b"\x00\x00"]]), "wrong-length"),
    ]  # fmt: skip


def status() -> list[dict[str, Any]]:
    full = {"v": 1, "state": "online", "boot": BOOT, "seq": 3, "taken": 180, "pending": 2, "dropped": 60,
            "drops": [[BOOT, 0, 1, 60]], "refused": 0, "faults": {"temperature": 2}, "cuts": 1, "at_risk": 60,
            "uptime": 180, "heap": 100_000, "reset": "power on", "of a later version": 1}  # fmt: skip
    return [
        {"name": "everything", "hex": msgpack.packb(full).hex(), "state": "online", "boot": BOOT.hex(), "seq": 3,
         "taken": 180, "dropped": 60, "drops": [[BOOT.hex(), 0, 1, 60]], "faults": {"temperature": 2}},
        {"name": "a will", "hex": msgpack.packb({"v": 1, "state": "lost"}).hex(), "state": "lost", "boot": None,
         "seq": None, "taken": None, "dropped": None, "drops": None, "faults": None},
        _error("a state unknown", msgpack.packb({"v": 1, "state": "asleep"}), "wrong-type"),
        _error("a later version", msgpack.packb({"v": 2, "state": "online"}), "version-unknown"),
        _error("a drop that runs backwards", msgpack.packb(full | {"drops": [[BOOT, 2, 1, 0]]}), "out-of-bounds"),
        _error("faults by number", msgpack.packb(full | {"faults": {1: 1}}), "wrong-type"),
    ]  # fmt: skip


def mark() -> list[dict[str, Any]]:
    two = msgpack.packb([1, [[BOOT, 7], [bytes(8), -1]]])
    return [
        {"name": "two boots", "hex": two.hex(), "marks": [[BOOT.hex(), 7], ["00" * 8, -1]]},
        {"name": "none yet", "hex": msgpack.packb([1, []]).hex(), "marks": []},
        _error("a later version", msgpack.packb([2, []]), "version-unknown"),
        _error("a boot alone", msgpack.packb([1, [BOOT]]), "wrong-type"),
        _error("cut short", two[:-1], "not-messagepack"),
    ]


def time() -> list[dict[str, Any]]:
    return [
        {"name": "an answer", "hex": msgpack.packb([1, 123_456, 217_483_200, 250]).hex(), "ticks": 123_456,
         "unix_ms": 1_795_320_000_250},
        {"name": "large ticks", "hex": msgpack.packb([1, 2**40, 0, 0]).hex(), "ticks": 2**40,
         "unix_ms": 1_577_836_800_000},
    ]  # fmt: skip


def main() -> None:
    for make in (about, obs, status, mark, time):
        lines = ",\n".join(json.dumps(vector) for vector in make())
        (HERE / f"{make.__name__}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
