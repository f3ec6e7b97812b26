"""A year of a real station, through the sensor's registers and the whole chain, and back over SensorThings."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lamppost_host.audit import audit
from tests.conftest import ROOT
from tests.e2e.chain import TENANT, wait_for
from tests.e2e.conftest import MakeChain

RECORDING = ROOT.parent / "shared" / "data" / "air_quality_uci.csv"
MISSING = "-200"
EPOCH_2020 = datetime(2020, 1, 1, tzinfo=UTC)

MAIN = """
import sys

from lamppost import Node
from lamppost.drivers.bme280 import BME280
from replay_clock import ReplayClock
from simulated.world import world

clock = ReplayClock({start}, end={end})
world.use_clock(clock.unix_ms)
node = Node.from_config(clock=clock, stream=sys.stdout)
clock.follow(node)
node.observe(BME280(node.i2c()), every=3600)
node.run()
"""


def _read(file: Path) -> dict[str, dict[datetime, float]]:
    """Column → time → value; missing values are not there."""
    rows: dict[str, dict[datetime, float]] = {"T": {}, "RH": {}}
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            time = datetime.strptime(f"{row['Date']} {row['Time']}", "%d/%m/%Y %H:%M:%S").replace(tzinfo=UTC)
            for column, values in rows.items():
                if row[column] != MISSING:
                    values[time] = float(row[column])
    return rows


def _column(name: str) -> dict[str, object]:
    return {
        "csv": {
            "path": str(RECORDING),
            "column": name,
            "time": ["Date", "Time"],
            "format": "%d/%m/%Y %H:%M:%S",
            "missing": [MISSING],
        }
    }


@pytest.mark.timeout(300)
def test_the_recording_comes_back_as_it_is(make_chain: MakeChain) -> None:
    if not RECORDING.exists():
        pytest.skip(
            f"the recording {RECORDING.name} is not beside this checkout; it is no part of the project"
        )
    recorded = _read(RECORDING)
    times = sorted(recorded["T"].keys() | recorded["RH"].keys())
    start, end = (int((time - EPOCH_2020).total_seconds()) for time in (times[0], times[-1]))
    chain = make_chain("embedded")
    board = chain.board(
        "n1",
        main=MAIN.format(start=start - 1, end=end + 1),
        sensors=[
            {"sensor": "bme280", "temperature": _column("T"), "humidity": _column("RH"), "pressure": 1013.25}
        ],
        config={"batch": {"rows": 60, "seconds": 86_400}},
    )
    board.start()
    assert board.wait(240) == 0, board.log_end()
    found = wait_for(lambda: (a := audit(chain.home)).pending == 0 and a, "the platform to hold everything")
    assert (found.exit_code, found.lost, found.duplicates) == (0, 0, 0)

    # The resolution of a BME280: 0.01 °C, 0.008 % (BST-BME280-DS002, tables 1 and 2).
    for key, column, resolution in (("air_temperature", "T", 0.01), ("relative_humidity", "RH", 0.01)):
        (datastream,) = chain.get(f"Datastreams?$filter=properties/lamppost eq '{TENANT}/n1/{key}'")["value"]
        path = f"Datastreams({datastream['@iot.id']})/Observations?$select=phenomenonTime,result&$top=1000&$orderby=phenomenonTime"
        held = {datetime.fromisoformat(o["phenomenonTime"]): o["result"] for o in chain.pages(path)}
        assert held.keys() == recorded[column].keys()
        worst = max(abs(held[time] - value) for time, value in recorded[column].items())
        assert worst <= resolution + 1e-9, f"{key} is off by {worst}"
