"""The node's settings: what is wrong is named, with what to do, and no secret is shown."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.firmware.conftest import RunFirmware

SECRET = "hunter2-correct-horse"
GOOD: dict[str, Any] = {
    "tenant": "tallinn",
    "node": "yard-1",
    "broker": {"host": "127.0.0.1", "password": SECRET},
    "wifi": {"ssid": "school", "password": SECRET},
}

READ = """
from lamppost import Node
try:
    node = Node.from_config(sys.argv[1])
    print("accepted")
except ValueError as error:
    print(type(error).__name__ + ":", error)
"""

REMOVE = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    settings = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    section = settings
    for parent in parents:
        section = section.setdefault(parent, {})
    if value is REMOVE:
        del section[last]
    else:
        section[last] = value
    return settings


BAD: list[tuple[str, Any]] = [
    ("tenant", REMOVE),
    ("tenant", ""),
    ("tenant", "Tallinn"),
    ("tenant", "a/b"),
    ("tenant", 5),
    ("node", REMOVE),
    ("node", "-yard"),
    ("node", "x" * 33),
    ("node", "#"),
    ("name", ""),
    ("name", 7),
    ("description", "x" * 1025),
    ("broker", REMOVE),
    ("broker", SECRET),
    ("broker.host", REMOVE),
    ("broker.host", None),
    ("broker.port", 0),
    ("broker.port", 65536),
    ("broker.port", "1883"),
    ("broker.port", True),
    ("broker.password", 12345),
    ("broker.tls", "yes"),
    ("broker.tls", True),
    ("broker.ca", "ca.der"),
    ("wifi", SECRET),
    ("wifi.ssid", REMOVE),
    ("wifi.ssid", "x" * 33),
    ("wifi.password", [SECRET]),
    ("batch.rows", 0),
    ("batch.rows", 256),
    ("batch.seconds", "60"),
    ("batch", [60]),
    ("journal.bytes", 16384),
    ("journal.segment", 100),
    ("journal.path", ""),
    ("mqtt.window", 0),
    ("mqtt.keepalive", 1.5),
    ("mqtt.backoff_s", [60, 1]),
    ("mqtt.backoff_s", 5),
    ("mqtt.backoff_s", [0, 1]),
    ("clock.calendar", 1),
    ("resend_s", 0),
    ("undated_s", -1),
    ("status_s", "10"),
    ("stop_s", 100000),
    ("location", [24.7, 59.4]),
    ("location", [247000000]),
    ("location", [0, 900000001]),
    ("location", {"lon": 1}),
    ("place", 1),
    ("properties", []),
    ("properties", {"a": [1]}),
    ("i2c", 5),
    ("ntp", 123),
]


@pytest.mark.parametrize(("path", "value"), BAD, ids=lambda value: str(value)[:20])
def test_a_wrong_setting_is_named_and_no_value_is_shown(
    run_firmware: RunFirmware, tmp_path: Path, path: str, value: Any
) -> None:
    file = tmp_path / "node.json"
    file.write_text(json.dumps(changed(path, value)), encoding="utf-8")
    out = run_firmware(READ, str(file))
    assert out.startswith("ConfigError: ")
    key = "broker.ca" if (path, value) == ("broker.tls", True) else path
    assert key in out or out.count(key.split(".")[0]) > 0
    assert SECRET not in out
    assert len(out) < 200


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"' + SECRET + '"', '{"tenant": "' + SECRET, "\x00\xff", "{" * 5000]
)
def test_a_file_that_is_no_settings_is_refused(run_firmware: RunFirmware, tmp_path: Path, text: str) -> None:
    file = tmp_path / "node.json"
    file.write_text(text, encoding="utf-8")
    out = run_firmware(READ, str(file))
    assert out.startswith("ConfigError: ")
    assert str(file) in out or "tenant is missing" in out  # older versions read "{" as an empty object
    assert SECRET not in out


def test_a_file_that_is_missing_or_huge_is_refused(run_firmware: RunFirmware, tmp_path: Path) -> None:
    assert "put the node's settings there" in run_firmware(READ, str(tmp_path / "none.json"))
    file = tmp_path / "node.json"
    file.write_text(" " * 20000, encoding="utf-8")
    assert "16 KiB" in run_firmware(READ, str(file))


def test_defaults_fill_what_is_not_said(run_firmware: RunFirmware, tmp_path: Path) -> None:
    """The defaults of this version, which fleets rely on. An unknown key does no harm: a later version may know it."""
    file = tmp_path / "node.json"
    file.write_text(
        json.dumps({"tenant": "t", "node": "n", "broker": {"host": "h", "password": "p"}, "later": 1}),
        encoding="utf-8",
    )
    out = run_firmware(
        """
import json
from lamppost import config
print(json.dumps(config.check(config.read(sys.argv[1]))))
""",
        str(file),
    )
    assert json.loads(out) == {
        "tenant": "t",
        "node": "n",
        "name": "n",
        "description": None,
        "location": None,
        "place": None,
        "properties": None,
        "i2c": None,
        "uart": None,
        "onewire": None,
        "every": None,
        "wifi": None,
        "ntp": None,
        "board": "unknown",
        "broker": {"host": "h", "port": 1883, "user": "t/n", "password": "p", "ca": None, "tls": False},
        "batch": {"rows": 60, "seconds": 60},
        "journal": {"path": "/journal", "bytes": 262144, "segment": 16384},
        "mqtt": {"keepalive": 60, "window": 8, "timeout_s": 10, "backoff_s": [1, 60]},
        "clock": {"calendar": True, "tolerance_ms": 100},
        "resend_s": 30,
        "undated_s": 600,
        "status_s": 10,
        "stop_s": 10,
    }


def test_a_board_with_wifi_asks_a_time_server_unless_told_not_to(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        """
from lamppost.config import check
settings = {"tenant": "t", "node": "n", "broker": {"host": "h"}, "wifi": {"ssid": "s"}}
print(check(settings)["ntp"])
settings["ntp"] = None
print(check(settings)["ntp"])
"""
    )
    assert out.split() == ["pool.ntp.org", "None"]


def test_settings_can_be_replaced_by_the_program(run_firmware: RunFirmware, tmp_path: Path) -> None:
    file = tmp_path / "node.json"
    file.write_text(json.dumps(GOOD), encoding="utf-8")
    out = run_firmware(
        """
from lamppost import Node
from lamppost.clock import Clock
clock = Clock(calendar=False)
node = Node.from_config(sys.argv[1], name="Yard", clock=clock, resend_s=5)
print(node.config["name"], node.config["resend_s"], node.clock is clock)
""",
        str(file),
    )
    assert out.split() == ["Yard", "5", "True"]


@pytest.mark.parametrize("bus", ["i2c", "uart", "onewire"])
def test_a_bus_that_is_not_wired_is_named(run_firmware: RunFirmware, bus: str) -> None:
    out = run_firmware(
        f"""
from lamppost import Node
settings = {{"tenant": "t", "node": "n", "broker": {{"host": "h"}}}}
for pins in (None, {{}}, {{"scl": "22", "tx": "17", "pin": "4"}}):
    settings["{bus}"] = pins
    try:
        Node(settings).{bus}()
        print("made")
    except ValueError as error:
        print(error)
"""
    )
    lines = out.strip().split("\n")
    assert len(lines) == 3
    assert all(line.startswith(bus) for line in lines)
