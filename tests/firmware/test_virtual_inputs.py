"""What simulated sensors measure: constants, waveforms and recordings, at the world's time."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.firmware.conftest import RunFirmware

RECORDING = ROOT.parent / "shared" / "data" / "air_quality_uci.csv"

INPUTS = """
import json
from simulated.inputs import build_input, parse_time, scaled, unix_seconds
from simulated.world import world

now = 0
def clock():
    return now
world.use_clock(clock)
"""


def test_numbers_are_scaled_exactly(run_firmware: RunFirmware) -> None:
    run_firmware(
        INPUTS
        + """
for text, decimals, value in (("13.6", 2, 1360), ("-0.05", 1, -1), ("0.049", 1, 0), ("-200", 0, -200), ("1e2", 1, 1000),
                              ("+7", 0, 7), (".5", 2, 50), ("1013.25", 2, 101325), ("21474836.47", 2, 2147483647)):
    assert scaled(text, decimals) == value, (text, scaled(text, decimals))
assert scaled("13,6", 2, ",") == 1360
for text in ("", "x", "1.2.3", "-", "1 2"):
    try:
        scaled(text, 2)
        raise AssertionError(text)
    except ValueError:
        pass
assert build_input(None, 2).read() is None
assert build_input(-12.345, 2).read() == -1235 or build_input(-12.345, 2).read() == -1234
assert build_input({"constant": 7}, 0).read() == 7
"""
    )


def test_dates_are_those_of_the_calendar(run_firmware: RunFirmware) -> None:
    dates = [
        "1970-01-01 00:00:00",
        "2000-02-29 23:59:59",
        "2004-03-10 18:00:00",
        "2024-12-31 00:00:00",
        "2100-03-01 12:00:00",
    ]
    printed = run_firmware(
        INPUTS + "import sys\nfor text in sys.argv[1:]:\n    print(parse_time(text, '%Y-%m-%d %H:%M:%S'))",
        *dates,
    )
    assert [int(line) for line in printed.split()] == [
        int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) for text in dates
    ]
    run_firmware(
        INPUTS
        + """
assert parse_time("1700000000", "%s") == 1700000000
assert parse_time("7/3/2004 1:02", "%d/%m/%Y %H:%M") == unix_seconds(2004, 3, 7, 1, 2, 0)
for text, format in (("2004-13-01", "%Y-%m-%d"), ("2004-01-01x", "%Y-%m-%d"), ("", "%Y"), ("2004/01", "%Y-%m")):
    try:
        parse_time(text, format)
        raise AssertionError(text)
    except ValueError:
        pass
"""
    )


def test_a_waveform_depends_on_the_time_alone(run_firmware: RunFirmware) -> None:
    run_firmware(
        INPUTS
        + """
description = {"waveform": {"mean": 10, "amplitude": 5, "period_s": 100, "noise": 0.5, "seed": 3}}
a, b = build_input(description, 2), build_input(description, 2)
seen = []
for step in range(400):
    now = 1_700_000_000_000 + step * 250
    value = a.read()
    assert value == b.read()
    assert 450 <= value <= 1550, value
    seen.append(value)
assert max(seen) > 1400 and min(seen) < 600
now = 1_700_000_000_000
assert a.read() == seen[0], "the same time again"
description["waveform"]["noise"] = 0
smooth = build_input(description, 2)
now = 1_700_000_025_000
assert smooth.read() == 1500, smooth.read()
"""
    )


def test_a_recording_stands_until_its_next_row(run_firmware: RunFirmware, tmp_path: Path) -> None:
    file = tmp_path / "recording.csv"
    file.write_text(
        "\ufefftime;a;b\r\n100;1,5;2\r\n200;-200;3\r\n300;;4\r\nnonsense\r\n400;x;5\r\n500;2,5;6\r\n450;9;9\r\n600;3,5;7\r\n",
        encoding="utf-8",
    )
    run_firmware(
        INPUTS
        + """
import sys
def recording(column, **more):
    description = {"path": sys.argv[1], "column": column, "time": "time", "format": "%s", "missing": ["-200"], "delimiter": ";",
                   "decimal": ","}
    description.update(more)
    return build_input({"csv": description}, 1)
a, b = recording("a"), recording("b")
def at(seconds, source=a):
    global now
    now = int(seconds * 1000)
    return source.read()
assert at(99.999) is None and at(100) == 15 and at(199.999) == 15
assert at(200) is None and at(300) is None and at(450) is None
assert at(200, b) == 30 and at(399, b) == 40
assert at(500) == 25 and at(599) == 25 and at(600) == 35 and at(10 ** 7) == 35
assert at(100) == 15, "time that goes back"
assert at(99) is None
held = recording("a", hold_s=10)
assert at(109.999, held) == 15 and at(110, held) is None
shifted = recording("a", utc_offset_s=3600)
assert at(100 - 3600, shifted) == 15
for wrong, text in ((lambda: recording("c"), "has no column c; it has: time, a, b"), (lambda: recording("a", time="when"), "no column when"),
                    (lambda: build_input("x", 1), "not x"), (lambda: build_input({"sine": 1}, 1), "an input is")):
    try:
        wrong()
        raise AssertionError(text)
    except ValueError as error:
        assert text in str(error), error
""",
        str(file),
    )


@pytest.mark.skipif(not RECORDING.exists(), reason="the recording is not here")
def test_a_real_recording_goes_through_the_sensors_registers(run_firmware: RunFirmware) -> None:
    """Every row of 13 months of hourly data: the real driver, on the simulated BME280, reads the file's numbers; none where it has none."""
    printed = run_firmware(
        INPUTS
        + """
import sys, machine
from array import array
from simulated.build import attach
from lamppost.drivers.bme280 import BME280

def column(name):
    return {"csv": {"path": sys.argv[1], "column": name, "time": ["Date", "Time"], "format": "%d/%m/%Y %H:%M:%S", "missing": ["-200"]}}
attach({"sensor": "bme280", "temperature": column("T"), "humidity": column("RH")})
driver = BME280(machine.I2C(0))
out = array("i", [0, 0, 0])
start = unix_seconds(2004, 3, 10, 18, 0, 0)
for hour in range(int(sys.argv[2])):
    now = (start + 3600 * hour) * 1000
    try:
        driver.start()
        now += driver.conversion_ms
        driver.read(out)
        print(start + 3600 * hour, out[0], out[1])
    except OSError:
        pass
""",
        str(RECORDING),
        "9357",
    )
    read = {int(line.split()[0]): [int(word) for word in line.split()[1:]] for line in printed.splitlines()}
    wanted = {}
    with RECORDING.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            at = datetime.strptime(f"{row['Date']} {row['Time']}", "%d/%m/%Y %H:%M:%S").replace(tzinfo=UTC)
            if float(row["T"]) != -200:
                wanted[int(at.timestamp())] = [round(float(row["T"]) * 100), round(float(row["RH"]) * 100)]
    assert len(wanted) == 8991
    assert read == wanted
