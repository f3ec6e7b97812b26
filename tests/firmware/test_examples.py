"""The examples, run as they are on virtual boards."""

import time
from pathlib import Path

import pytest

from lamppost_host import vocabulary
from lamppost_host.errors import LamppostError
from lamppost_host.virtual.board import VirtualBoard
from lamppost_host.virtual.examples import example_names, load_example
from lamppost_host.virtual.flash import read_image
from tests.conftest import ROOT

TIMEOUT_S = 30.0
NO_BROKER = {"host": "127.0.0.1", "port": 1}

# Before an example's own lines: what it observes is collected, and `node.run()` reads each sensor once and prints.
READ_ONCE = """
import time
from array import array
from lamppost import Node

drivers = []
observe = Node.observe

def collect(self, driver, **how):
    drivers.append(driver)
    observe(self, driver, **how)

def read_once(self):
    for driver in drivers:
        out = array("i", [0] * len(driver.datastreams))
        driver.start()
        time.sleep_ms(driver.conversion_ms)
        driver.read(out)
        for stream, value in zip(driver.datastreams, out):
            print(driver.model, driver.sensor_id, stream.property, stream.unit, stream.decimals, value)

Node.observe = collect
Node.run = read_once
"""

EXPECTED = {
    "air": {"pm1": (0, 20), "pm2_5": (0, 30), "pm10": (0, 50), "air_temperature": (5, 25), "relative_humidity": (40, 85), "air_pressure": (1000, 1020)},
    "weather": {"air_temperature": (5, 25), "relative_humidity": (40, 95), "air_pressure": (1000, 1020)},
    "climate": {"air_temperature": (18, 25), "relative_humidity": (25, 50), "air_pressure": (1000, 1020), "water_temperature": (40, 55)},
}  # fmt: skip


def test_every_example_is_tested() -> None:
    assert set(example_names()) == set(EXPECTED)
    with pytest.raises(LamppostError, match="no example moon"):
        load_example("moon")


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_reads_its_sensors(micropython: list[str], tmp_path: Path, name: str) -> None:
    example = load_example(name)
    program = READ_ONCE + example.main.read_text(encoding="utf-8")
    with VirtualBoard(tmp_path, program, example.config_for(NO_BROKER), example.sensors) as board:
        assert board.wait(TIMEOUT_S) == 0, board.log
    read = {}
    for line in board.log.splitlines():
        _, sensor_id, key, unit, decimals, value = line.split()
        read[key] = int(value) / 10 ** int(decimals)
        assert vocabulary.observed_property(key)
        assert vocabulary.unit_of_measurement(unit)
        assert (sensor_id != "None") == (key == "water_temperature")
    assert set(read) == set(EXPECTED[name])
    for key, (low, high) in EXPECTED[name].items():
        assert low <= read[key] <= high


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_runs_and_stops(micropython: list[str], tmp_path: Path, name: str) -> None:
    """Unchanged and with no broker: it samples into its journal, and Ctrl-C ends it."""
    example = load_example(name)
    config = example.config_for(NO_BROKER, every=1, stop_s=1, batch={"rows": 1})
    board = VirtualBoard(tmp_path, example.main, config, example.sensors)
    board.start()
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while not frames(board):
            assert board.running, board.log
            assert time.monotonic() < deadline, board.log
            time.sleep(0.05)
        assert board.stop() == 0, board.log
    finally:
        if board.running:
            board.kill()
    assert frames(board)


def frames(board: VirtualBoard) -> int:
    """How many frames the journal in the board's flash holds, by how they begin (WIRE.md: an array of 14, version 1)."""
    try:
        files = read_image(board.flash_path)
    except LamppostError:
        return 0  # the board is writing just now
    return sum(content.count(b"\x9e\x01") for path, content in files.items() if path.startswith("/journal/"))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_is_short_and_explained(name: str) -> None:
    folder = ROOT / "examples" / name
    lines = (folder / "main.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 20
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "GPIO" in readme
    assert f"examples/{name}/main.py" in readme
    placeholder = load_example(name).config
    assert placeholder["broker"]["host"] == "broker.example", (
        "no one's real broker or password is in an example"
    )
