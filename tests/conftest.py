"""What all tests share: the MicroPython under test, and services that may not be there."""

import os
import shutil
from pathlib import Path

import pytest

from lamppost_host.errors import LamppostError
from lamppost_host.virtual.interpreter import find_micropython

ROOT = Path(__file__).parent.parent
FIRMWARE = ROOT / "firmware"
BOARDS = ROOT / "boards"
VECTORS = ROOT / "tests" / "vectors"


def missing_service(what: str, remedy: str) -> None:
    """Skip the test because `what` is not on this machine; fail it where LAMPPOST_REQUIRE_SERVICES=1 asks for everything."""
    message = f"{what} is not here; to have it: {remedy}"
    if os.environ.get("LAMPPOST_REQUIRE_SERVICES") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def micropython() -> list[str]:
    """The command that starts the MicroPython under test."""
    try:
        return find_micropython()
    except LamppostError as error:
        missing_service("MicroPython", error.remedy)
        raise


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """The path of a Mosquitto broker."""
    found = shutil.which("mosquitto") or shutil.which(
        "mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
    )
    if found is None:
        missing_service("Mosquitto", "apt-get install mosquitto")
    assert found is not None
    return found
