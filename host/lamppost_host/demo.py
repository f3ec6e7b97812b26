"""The whole chain on one machine, with nothing real but the software: broker, platform, bridge and virtual nodes in one folder."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson

from lamppost_host.audit import Audit, audit
from lamppost_host.broker import Credentials
from lamppost_host.errors import LamppostError
from lamppost_host.home import Home
from lamppost_host.service import Service
from lamppost_host.virtual.board import VirtualBoard
from lamppost_host.virtual.examples import load_example
from lamppost_host.virtual.interpreter import find_micropython

TENANT = "demo"
_SETTLE_S = 20.0
_STOP_NODE_S = 20.0
_READY_S = 30.0
_LATENCIES_KEPT = 100_000


@dataclass(frozen=True)
class Scene:
    """One kind of virtual node: an example, and where it stands. The example's virtual.json says what its sensors measure."""

    example: str
    name: str
    place: str
    longitude: float
    latitude: float


SCENES = (
    Scene("air", "Air, Liivalaia street", "Tallinn", 24.7495, 59.4297),
    Scene("weather", "Weather, Kumpula hill", "Helsinki", 24.9633, 60.2039),
    Scene("climate", "Climate, Söderport school", "Stockholm", 18.0649, 59.3170),
)


@dataclass(frozen=True)
class Reading:
    """An Observation as a page shows it; `latency_ms` from its phenomenonTime to the page."""

    node: str
    datastream: str
    result: float
    unit: str
    latency_ms: float


class Latest:
    """What the platform's event stream tells, kept for whoever shows it: the latest reading a Datastream, and the latencies."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._readings: dict[tuple[str, str], Reading] = {}
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self.count = 0
        threading.Thread(target=self._follow, name="demo-events", daemon=True).start()

    def _follow(self) -> None:
        names = _Names(self._url)
        while True:
            try:
                for reading in _events(self._url, names):
                    with self._lock:
                        self._readings[reading.node, reading.datastream] = reading
                        self._latencies.append(reading.latency_ms)
                        self.count += 1
            except httpx.HTTPError:
                time.sleep(0.2)  # the platform is ending, or not there yet

    def readings(self) -> list[Reading]:
        """The latest reading of each Datastream, by node and Datastream."""
        with self._lock:
            return [self._readings[key] for key in sorted(self._readings)]

    def latency_ms(self) -> dict[str, float]:
        """The median and the 95th percentile; NaN before the first reading."""
        with self._lock:
            ordered = sorted(self._latencies)
        if not ordered:
            return {"p50": math.nan, "p95": math.nan}
        return {
            "p50": round(ordered[len(ordered) // 2], 1),
            "p95": round(ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)], 1),
        }


class Demo:
    """`start`, then readings arrive by themselves, then `stop`, which gives the account.

    `folder` holds everything; `nodes` virtual nodes share the scenes in turn, and measure every `every_s` seconds.
    """

    def __init__(self, folder: Path, nodes: int = 3, every_s: float = 1.0, port: int = 0) -> None:
        self.home = Home(folder)
        self._every_s = every_s
        self._services = {
            name: Service(name, [name, "--home", str(folder), *options], folder)
            for name, options in (
                ("broker", ["--kind", "embedded", "--port", "0"]),
                ("platform", ["--port", str(port)]),
                ("bridge", []),
            )
        }
        self._boards: dict[str, VirtualBoard] = {}
        self._names = [f"{SCENES[i % len(SCENES)].example}-{i // len(SCENES) + 1}" for i in range(nodes)]
        self._started = 0.0
        self.page_url = ""
        self.latest: Latest | None = None

    def start(self, progress: Callable[[str], None], stopping: threading.Event) -> None:
        """Bring everything up, and wait until each node's first readings are on the platform, or until `stopping` is set. `progress` is
        told each step."""
        find_micropython()
        credentials = Credentials(self.home.broker)
        passwords = {name: credentials.add(f"{TENANT}/{name}") for name in self._names}
        progress("starting broker and platform")
        self._services["broker"].start()
        self._services["platform"].start()
        broker = self._services["broker"].ready()
        progress("starting virtual nodes")
        self._started = time.monotonic()
        for index, (name, password) in enumerate(passwords.items()):
            access = {
                "host": broker["host"],
                "port": broker["port"],
                "user": f"{TENANT}/{name}",
                "password": password,
            }
            self._boards[name] = self._board(name, SCENES[index % len(SCENES)], index // len(SCENES), access)
            self._boards[name].start()
        platform = self._services["platform"].ready()
        self.page_url = platform["url"].rsplit("/", 1)[0] + "/"
        self.latest = Latest(platform["url"])
        progress("starting bridge")
        self._services["bridge"].start()
        self._services["bridge"].ready()
        progress("waiting for each node's first readings")
        deadline = time.monotonic() + _READY_S
        while {reading.node for reading in self.latest.readings()} != self._thing_names():
            self.check()
            if time.monotonic() > deadline:
                raise LamppostError(
                    f"not every node's readings arrived within {_READY_S:.0f} s", self._logs_end()
                )
            if stopping.wait(0.02):
                return

    def _thing_names(self) -> set[str]:
        return {
            _thing_name(SCENES[index % len(SCENES)], index // len(SCENES))
            for index in range(len(self._names))
        }

    def _board(self, name: str, scene: Scene, turn: int, access: dict[str, Any]) -> VirtualBoard:
        example = load_example(scene.example)
        config = example.config_for(
            access,
            tenant=TENANT,
            node=name,
            name=_thing_name(scene, turn),
            place=scene.place,
            # Those of a scene's second, third, ... node stand 300 m further east each, so that every one has its dot.
            location=[round((scene.longitude + 0.005 * turn) * 10**7), round(scene.latitude * 10**7)],
            every=self._every_s,
            batch={"rows": 60, "seconds": 1},
            mqtt={"backoff_s": [1, 5]},
            status_s=2,
            stop_s=int(_STOP_NODE_S) - 5,
        )
        return VirtualBoard(self.home.path / "nodes" / name, example.main, config, example.sensors)

    def check(self) -> None:
        """Raise LamppostError if a part has ended by itself."""
        for name, service in self._services.items():
            if not service.alive():
                raise LamppostError(f"the demo's {name} has ended", service.log_end())
        for name, board in self._boards.items():
            if not board.running:
                raise LamppostError(f"the virtual node {name} has ended", board.log_end())

    def _logs_end(self) -> str:
        parts = [f"{name}:\n{service.log_end(5)}" for name, service in self._services.items()]
        parts += [f"{name}:\n{board.log_end(5)}" for name, board in self._boards.items()]
        return "\n".join(parts)

    def stop(self) -> dict[str, Any]:
        """Stop the nodes, let what is on its way arrive, and count: what `lamppost demo --json` prints."""
        for board in self._boards.values():
            board.interrupt()
        for board in self._boards.values():
            board.wait(_STOP_NODE_S)
        seconds = time.monotonic() - self._started
        deadline = time.monotonic() + _SETTLE_S
        found = audit(self.home)
        while found.pending and time.monotonic() < deadline:
            time.sleep(0.1)
            found = audit(self.home)
        return self._account(found, seconds)

    def _account(self, found: Audit, seconds: float) -> dict[str, Any]:
        return {
            "nodes": len(self._boards),
            "sampled": found.sampled,
            "stored": found.stored,
            "lost": found.lost + found.pending,
            "duplicates": found.duplicates,
            "seconds": round(seconds, 1),
            "latency_ms": self.latest.latency_ms() if self.latest else {"p50": math.nan, "p95": math.nan},
        }

    def close(self) -> None:
        """End whatever still runs."""
        for board in self._boards.values():
            if board.running:
                board.kill()
        for name in ("bridge", "platform", "broker"):
            if self._services[name].alive():
                self._services[name].stop(5)


def _thing_name(scene: Scene, turn: int) -> str:
    return scene.name if turn == 0 else f"{scene.name} {turn + 1}"


class _Names:
    """What the Datastreams are called, asked for when one is heard of that is not known yet."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._known: dict[int, tuple[str, str, str]] = {}

    def of(self, datastream: int) -> tuple[str, str, str]:
        """(Thing's name, ObservedProperty's name, unit's symbol)."""
        if datastream not in self._known:
            expand = "$expand=Thing($select=name),ObservedProperty($select=name)"
            answer = httpx.get(f"{self._url}/Datastreams({datastream})?{expand}", timeout=10)
            entity = answer.raise_for_status().json()
            unit = entity["unitOfMeasurement"]["symbol"]
            self._known[datastream] = entity["Thing"]["name"], entity["ObservedProperty"]["name"], unit
        return self._known[datastream]


def _events(url: str, names: _Names) -> Iterator[Reading]:
    """The latest reading of each Datastream, whenever the platform's event stream tells of one."""
    events = f"{url.rsplit('/', 1)[0]}/events"
    with httpx.stream("GET", events, timeout=httpx.Timeout(10, read=None)) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("data:"):
                heard = datetime.now(UTC)
                for item in orjson.loads(line[5:]):
                    taken = datetime.fromisoformat(item["phenomenonTime"].rsplit("/", 1)[-1])
                    latency_ms = (heard - taken).total_seconds() * 1000
                    yield Reading(
                        *names.of(item["datastream"])[:2],
                        item["result"],
                        names.of(item["datastream"])[2],
                        latency_ms,
                    )
