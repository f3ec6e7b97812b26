"""The real platform in a child process, to talk to, stop, kill and start again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest


class Platform:
    """One `lamppost platform` on a folder. `url` is the SensorThings root, `page` the page's address."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self._options = options
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.client = httpx.Client(timeout=30)

    @property
    def page(self) -> str:
        return self.url.removesuffix("v1.1")

    @property
    def token(self) -> str:
        return (self.home / "platform" / "token").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> "Platform":
        """Start it, the second time on the same port, and wait until it takes requests."""
        ready = self.home / "platform-ready.json"
        ready.unlink(missing_ok=True)
        self.home.mkdir(parents=True, exist_ok=True)
        log = (self.home / "platform.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "lamppost_host", "platform", "--home", str(self.home)),
                    *("--port", str(self._port), "--ready-file", str(ready), *self._options),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail("the platform did not start:\n" + (self.home / "platform.log").read_text())
            time.sleep(0.01)
        facts = json.loads(ready.read_text())
        self._port, self.url = facts["port"], facts["url"]
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=20)

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=20)

    def restart(self) -> "Platform":
        self.stop()
        return self.start()

    def close(self) -> None:
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()

    def get(self, path: str, **options: str) -> Any:
        """A read that must succeed; options without the dollar sign: get("Things", top="1")."""
        answer = self.client.get(
            f"{self.url}/{path}", params={f"${name}": text for name, text in options.items()}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.client.post(f"{self.url}/{path}", json=body, headers=self.headers)

    def create(self, path: str, body: Any) -> int:
        """Create an entity; returns its id."""
        answer = self.post(path, body)
        assert answer.status_code == 201, answer.text
        return int(answer.headers["location"].rpartition("(")[2].removesuffix(")"))


@pytest.fixture
def running_platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform with an empty database."""
    platform = Platform(tmp_path / "home").start()
    yield platform
    platform.close()


@pytest.fixture
def start_platform(tmp_path: Path) -> Iterator[Callable[..., Platform]]:
    """Starts platforms with options of the test's choosing, each on a folder of its own."""
    started: list[Platform] = []

    def start(*options: str) -> Platform:
        started.append(Platform(tmp_path / f"home{len(started)}", *options))
        return started[-1].start()

    yield start
    for platform in started:
        platform.close()


def thing(
    name: str = "Node 1", *, datastreams: int = 1, location: bool = True, **properties: Any
) -> dict[str, Any]:
    """A Thing with all that is nested in it, as the bridge would make it."""
    body: dict[str, Any] = {
        "name": name,
        "description": "a node in a test",
        "properties": {"lamppost": f"city/{name.lower().replace(' ', '-')}", **properties},
        "Datastreams": [
            {
                "name": f"{name} temperature {index}",
                "description": "air temperature",
                "observationType": "http://www.opengis.net/def/observationType/OGC-OM/2.0/OM_Measurement",
                "unitOfMeasurement": {
                    "name": "degree Celsius",
                    "symbol": "°C",
                    "definition": "http://qudt.org/vocab/unit/DEG_C",
                },
                "properties": {"lamppost": f"city/{name.lower().replace(' ', '-')}/temperature-{index}"},
                "Sensor": {
                    "name": "BME280",
                    "description": "a sensor",
                    "encodingType": "application/pdf",
                    "metadata": "https://example.org/bme280.pdf",
                },
                "ObservedProperty": {
                    "name": "Air temperature",
                    "definition": "http://vocab.nerc.ac.uk/standard_name/air_temperature/",
                    "description": "the temperature of the air",
                },
            }
            for index in range(datastreams)
        ],
    }
    if location:
        body["Locations"] = [
            {
                "name": "the square",
                "description": "a square",
                "encodingType": "application/geo+json",
                "location": {"type": "Point", "coordinates": [24.9384, 60.1699]},
            }
        ]
    return body
