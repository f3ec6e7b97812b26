"""Running the firmware's tests in MicroPython's unix port."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import BOARDS, FIRMWARE

RunFirmware = Callable[..., str]


@pytest.fixture
def run_firmware(micropython: list[str], tmp_path: Path) -> RunFirmware:
    """Run a script with the firmware and the virtual board importable; returns what it printed. A failure shows its output.

    `run_firmware("from lamppost import batch ...", "argument", timeout=30)`. Hand in hardware and paths as arguments (`sys.argv[1:]`).
    """

    def run(script: str, *arguments: str, timeout: float = 60, heap: str = "4m") -> str:
        file = tmp_path / "script.py"
        file.write_text(
            f"import sys\nsys.path[:0] = [{str(FIRMWARE)!r}, {str(BOARDS / 'unix')!r}]\n" + script,
            encoding="utf-8",
        )
        done = subprocess.run(
            [*micropython, "-X", f"heapsize={heap}", str(file), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=tmp_path,
        )
        if done.returncode != 0:
            pytest.fail(f"the script ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    return run
