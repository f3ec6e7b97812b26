"""Readings a second from the broker to the durable platform: real Mosquitto, bridge, sink and platform, each its own process.

Frames are published before the clock runs, into the bridge's persistent session, so that the publishers take no processor time from the chain.
The clock runs from the bridge's SUBACK until the sink's cursor is at the end; then the platform is asked whether it has every reading.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from lamppost_host.bridge.holdings import SensorThingsHoldings
from lamppost_host.bridge.report import status
from lamppost_host.bridge.sinks.sta_client import Access
from lamppost_host.broker import RunningBroker
from lamppost_host.platform.database import open_writer

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests import frames
from tests.brokers import open_broker
from tests.platforms import Platform

NODES = ("alpha/one", "alpha/two", "beta/one")
ROWS = 20
COLUMNS = 3
KEYS = ("air_temperature", "relative_humidity", "air_pressure")


class Bridge:
    """`lamppost bridge` on a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._ready = home / "bridge-ready.json"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and wait for its SUBACK; when that was (monotonic)."""
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "lamppost_host", "bridge", "--home", str(self.home)]
        with (self.home / "bridge.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--ready-file", str(self._ready)], stdout=log, stderr=log
            )
        while not self._ready.exists():
            if self._process.poll() is not None:
                raise RuntimeError((self.home / "bridge.log").read_text())
            time.sleep(0.002)
        return time.monotonic()

    def pids(self) -> dict[str, int]:
        """The bridge's processes, by what they do."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        sinks = children.read_text().split() if children.exists() else []
        return {"intake": pid} | ({"sink": int(sinks[0])} if sinks else {})

    def stop(self) -> None:
        """SIGTERM, and wait."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)


def _about() -> bytes:
    units = {"air_temperature": "Cel", "relative_humidity": "%", "air_pressure": "hPa"}
    return frames.encode_about(*(frames.datastream(key, property=key, unit=units[key]) for key in KEYS))


def _publish(broker: RunningBroker, node: str, count: int) -> None:
    """`count` frames of 60 readings from one node, and wait until the broker has them all."""
    about, boot = _about(), os.urandom(8)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=node.replace("/", "."))
    client.username_pw_set(node, broker.credentials.get(node))
    client.max_inflight_messages_set(500)
    client.connect(broker.connect_host, broker.port)
    client.loop_start()
    client.publish(f"lamppost/1/{node}/about", about, 1, True).wait_for_publish(10)
    last = None
    for seq in range(count):
        columns = [
            [base + (seq * ROWS + row) * step % 97 for row in range(ROWS)]
            for base, step in ((2000, 3), (5000, 7), (101000, 11))
        ]
        payload = frames.encode_obs(
            frames.revision(about),
            boot,
            seq,
            columns,
            taken=seq * ROWS * COLUMNS,
            seconds=180_000_000 + seq * ROWS * 60,
            step=60_000,
        )
        last = client.publish(f"lamppost/1/{node}/obs", payload, 1)
    assert last is not None
    last.wait_for_publish(120)
    client.disconnect()
    client.loop_stop()


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, where the system tells (Linux); else 0."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cursor_at_end(home: Path, readings: int) -> bool:
    try:
        with sqlite3.connect(f"file:{home}/bridge/sink-sensorthings.db?mode=ro", uri=True) as db:
            return bool(db.execute("SELECT delivered >= ? FROM progress", (readings,)).fetchone()[0])
    except sqlite3.OperationalError:
        return False


def _raw_rows_per_s(source: Path, folder: Path) -> float:
    """The same rows straight into the platform's schema: one executemany and commit every 6,000 rows."""
    with sqlite3.connect(f"file:{source}?mode=ro", uri=True) as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(observation)")]
        # Columns that hold nothing are left out, as the platform does: binding them would halve the speed of what this is a measure of.
        names = [name for name in names if db.execute(f"SELECT count({name}) FROM observation").fetchone()[0]]
        rows = db.execute(f"SELECT {', '.join(names)} FROM observation ORDER BY id").fetchall()
    target = open_writer(folder / "raw.db")
    insert = f"INSERT INTO observation ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    began = time.monotonic()
    for start in range(0, len(rows), 6_000):
        target.execute("BEGIN")
        target.executemany(insert, rows[start : start + 6_000])
        target.execute("COMMIT")
    took = time.monotonic() - began
    target.close()
    return len(rows) / took


def measure(readings: int = 600_000) -> dict[str, Any]:
    """`readings_per_s`, `raw_rows_per_s` (the same rows in the same run), `ratio`, and what was `stored` of `readings`.

    `cpu_seconds`: processor time by process while the clock ran.
    """
    per_node = -(-readings // (ROWS * COLUMNS * len(NODES)))
    readings = per_node * ROWS * COLUMNS * len(NODES)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        platform = Platform(home).start()
        with open_broker(home / "broker", "mosquitto") as broker:
            bridge = Bridge(home)
            bridge.start()
            bridge.stop()  # its session stays, and the broker queues for it
            for node in NODES:
                _publish(broker, node, per_node)
            before = {
                name: _cpu_seconds(pid) for name, pid in (("broker", broker.pid), ("platform", platform.pid))
            }
            began = bridge.start()
            deadline = began + 300
            while not _cursor_at_end(home, readings) and time.monotonic() < deadline:
                time.sleep(0.01)
            took = time.monotonic() - began
            pids = bridge.pids() | {"broker": broker.pid, "platform": platform.pid}
            cpu = {name: round(_cpu_seconds(pid) - before.get(name, 0.0), 2) for name, pid in pids.items()}
            found = status(home / "bridge")
            bridge.stop()
            holdings = SensorThingsHoldings(Access(platform.url))
            held = [holdings.of(node) for node in NODES]
        platform.stop()
        raw = _raw_rows_per_s(home / "platform" / "platform.db", home)
        platform.close()
    stored = sum(sum(one.frames.values()) for one in held)
    if stored != readings or any(one.duplicates for one in held):
        raise RuntimeError(f"{stored} of {readings} readings stored: {json.dumps(found)}")
    rate = readings / took
    return {
        "readings_per_s": round(rate),
        "raw_rows_per_s": round(raw),
        "ratio": round(rate / raw, 3),
        "readings": readings,
        "stored": stored,
        "seconds": round(took, 2),
        "cpu_seconds": cpu,
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 600_000)))
