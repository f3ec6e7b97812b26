"""The whole way of a reading with real processes: virtual nodes, broker, bridge, platform; each can be killed."""

import json
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lamppost_host.broker.credentials import Credentials
from lamppost_host.home import Home
from lamppost_host.service import Service
from lamppost_host.virtual.board import VirtualBoard

TENANT = "test"

QUICK = {
    "batch": {"rows": 10, "seconds": 1},
    "mqtt": {"keepalive": 5, "window": 8, "timeout_s": 3, "backoff_s": [1, 2]},
    "resend_s": 1,
    "status_s": 1,
    "stop_s": 20,
}
"""Node settings with which an outage is over in a second, not a minute."""

MAIN = """
import sys

from lamppost import Node
from lamppost.drivers.bme280 import BME280

node = Node.from_config(stream=sys.stdout)
node.observe(BME280(node.i2c()), every={every})
node.run()
"""

BME280 = {
    "sensor": "bme280",
    "temperature": {"waveform": {"mean": 21.0, "amplitude": 4.0, "period_s": 60}},
    "humidity": 45.0,
    "pressure": 1013.25,
}


class Chain:
    """Broker, platform and bridge as `lamppost` commands under one home; they keep their ports through restarts."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.kind = kind
        self.nodes: dict[str, VirtualBoard] = {}
        self._services: dict[str, Service] = {}
        self._ports = {"broker": 0, "platform": 0}
        self.facts: dict[str, dict[str, Any]] = {}

    def start(self) -> None:
        for node in ("n1", "n2", "n3"):
            Credentials(self.home.broker).add(f"{TENANT}/{node}")
        self.start_service("broker")
        self.start_service("platform")
        self.start_service("bridge")

    def _arguments(self, name: str) -> list[str]:
        arguments = [name, "--home", str(self.home.path)]
        if name in self._ports:
            arguments += ["--port", str(self._ports[name])]
        if name == "broker":
            arguments += ["--kind", self.kind]
        return arguments

    def launch_service(self, name: str) -> Service:
        """Start without waiting."""
        service = Service(name, self._arguments(name), self.folder)
        service.start()
        self._services[name] = service
        return service

    def start_service(self, name: str) -> Service:
        service = self.launch_service(name)
        self.facts[name] = service.ready()
        if name in self._ports:
            self._ports[name] = self.facts[name]["port"]
        return service

    def service(self, name: str) -> Service:
        return self._services[name]

    def board(
        self,
        name: str,
        *,
        every: float = 0.1,
        config: dict[str, Any] | None = None,
        credential: str | None = None,
        **options: Any,
    ) -> VirtualBoard:
        """A virtual node; not started yet."""
        broker = self.facts["broker"]
        settings: dict[str, Any] = {
            "tenant": TENANT,
            "node": name,
            "name": f"Node {name}",
            "location": [247_535_000, 594_369_000],
            "i2c": {"id": 0, "scl": 22, "sda": 21},
            "broker": {
                "host": broker["host"],
                "port": broker["port"],
                "user": f"{TENANT}/{name}",
                "password": credential or Credentials(self.home.broker).get(f"{TENANT}/{name}"),
            },
        }
        options.setdefault("main", MAIN.format(every=every))
        options.setdefault("sensors", [BME280])
        board = VirtualBoard(self.folder / name, config=settings | QUICK | (config or {}), **options)
        self.nodes[name] = board
        return board

    def close(self) -> None:
        for board in self.nodes.values():
            board.kill()
        for name in ("bridge", "platform", "broker"):
            if name in self._services and self._services[name].alive():
                self._services[name].kill()

    # What the platform holds, asked over SensorThings.
    def get(self, path: str) -> Any:
        url = path if path.startswith("http") else f"{self.facts['platform']['url']}/{path}"
        with urllib.request.urlopen(urllib.parse.quote(url, safe=":/?&=$,;()'%"), timeout=30) as answer:
            return json.load(answer)

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        answer = self.get(path)
        while True:
            yield from answer["value"]
            following = answer.get("@iot.nextLink")
            if following is None:
                return
            answer = self.get(following)

    def stored(self) -> dict[str, dict[tuple[str, int, int], Any]]:
        """Datastream key → (boot, seq, index) → result. A key that is there twice fails."""
        held: dict[str, dict[tuple[str, int, int], Any]] = defaultdict(dict)
        for datastream in self.pages("Datastreams?$select=id,properties&$top=1000"):
            key = datastream["properties"]["lamppost"]
            path = f"Datastreams({datastream['@iot.id']})/Observations?$select=result,parameters&$top=1000&$orderby=id"
            for observation in self.pages(path):
                boot, seq, index = observation["parameters"]["reading"].split("/")
                name = (boot, int(seq), int(index))
                assert name not in held[key], f"{key} has {name} twice"
                held[key][name] = observation["result"]
        return held


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 60) -> Any:
    """Poll until `condition` holds and return what it gave; fail with `what` when it does not."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.05)
