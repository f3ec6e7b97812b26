"""How fast the platform takes CreateObservations, beside SQLite's executemany of the same rows into the same schema."""

import http.client
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from lamppost_host.platform.database import open_writer

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.platforms import Platform, thing

_DATASTREAMS = 20
_START = 1_795_305_600  # 2026-11-22T00:00:00Z
_BOOT = "9f86d081884c7d65"


def _rows(request: int, count: int) -> list[list[Any]]:
    """`count` rows of one Datastream in request number `request`, one a second, 60 a frame."""
    rows = []
    for index in range(request * count, (request + 1) * count):
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_START + index))
        rows.append(
            [moment, moment, 20 + index % 997 / 100, {"reading": f"{_BOOT}/{index // 60}/{index % 60}"}]
        )
    return rows


def _bodies(requests: int, rows: int) -> list[bytes]:
    bodies = []
    for request in range(requests):
        arrays = []
        block = _rows(request, rows // _DATASTREAMS)
        for datastream in range(1, _DATASTREAMS + 1):
            arrays.append(
                {
                    "Datastream": {"@iot.id": datastream},
                    "components": ["phenomenonTime", "resultTime", "result", "parameters"],
                    "dataArray@iot.count": len(block),
                    "dataArray": block,
                }
            )
        bodies.append(orjson.dumps(arrays))
    return bodies


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, where the system tells (Linux); else 0."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100.0


def _over_http(folder: Path, bodies: list[bytes], rows: int) -> tuple[float, float]:
    """Rows a second, and rows a second of the service's processor time, of real requests one after the other."""
    platform = Platform(folder).start()
    try:
        platform.create("Things", thing(datastreams=_DATASTREAMS))
        headers = platform.headers | {"Content-Type": "application/json"}
        address = urlsplit(platform.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        began, cpu = time.perf_counter(), _cpu_seconds(platform.pid)
        for body in bodies:
            connection.request("POST", "/v1.1/CreateObservations", body, headers)
            answer = connection.getresponse()
            assert b"error" not in answer.read()
            assert answer.status == 201
        took, cpu = time.perf_counter() - began, _cpu_seconds(platform.pid) - cpu
        total = len(bodies) * rows
        assert platform.get("Observations", top="0", count="true")["@iot.count"] == total
        return total / took, total / cpu if cpu else 0.0
    finally:
        platform.close()


def _executemany(folder: Path, requests: int, rows: int) -> float:
    """Rows a second of executemany: one transaction a request, the same durability, values ready in memory."""
    connection: sqlite3.Connection = open_writer(folder / "raw.db")
    connection.execute("PRAGMA foreign_keys = off")
    identity = 0
    batches: list[list[tuple[Any, ...]]] = []
    for request in range(requests):
        batch = []
        for datastream in range(1, _DATASTREAMS + 1):
            for index in range(request * (rows // _DATASTREAMS), (request + 1) * (rows // _DATASTREAMS)):
                identity += 1
                moment = (_START + index) * 1_000_000
                reading = f"{_BOOT}/{index // 60}/{index % 60}"
                batch.append((identity, datastream, moment, moment, 20 + index % 997 / 100, 1, reading))
        batches.append(batch)
    began = time.perf_counter()
    for batch in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO observation (id, datastream, phenomenon_start, result_time, result, feature, reading) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            batch,
        )
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return requests * rows / took


def measure(requests: int = 75, rows: int = 4_000, rounds: int = 3) -> list[dict[str, Any]]:
    """Both in turns, the best of `rounds` each. One object a figure: name, value, unit, target, against."""
    bodies = _bodies(requests, rows)
    wall, cpu, raw = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            per_second, per_cpu_second = _over_http(Path(folder) / "http", bodies, rows)
            raw.append(_executemany(Path(folder), requests, rows))
        wall.append(per_second)
        cpu.append(per_cpu_second)
    return [
        {
            "name": "platform_ingest_rows_per_s",
            "value": round(max(wall)),
            "unit": "rows/s",
            "target": 150_000,
            "against": round(max(raw)),
        },
        {
            "name": "platform_ingest_rows_per_cpu_s",
            "value": round(max(cpu)),
            "unit": "rows/s of processor time",
            "target": 150_000,
            "against": round(max(raw)),
        },
        {
            "name": "platform_ingest_vs_raw_executemany",
            "value": round(max(wall) / max(raw), 3),
            "unit": "ratio",
            "target": 0.5,
            "against": round(max(raw)),
        },
    ]


if __name__ == "__main__":
    for figure in measure():
        print(orjson.dumps(figure).decode())
