"""Being the only process on a file; the system lets go of the lock when the process ends, however it does."""

import fcntl
import time
from pathlib import Path
from typing import IO

from lamppost_host.errors import LamppostError


def lock(path: Path, seconds: float, taken: str) -> IO[bytes]:
    """The lock file, held until it is closed. LamppostError, with `taken` as its message, when another keeps it for so long."""
    file = path.open("ab")
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise LamppostError(taken, "Stop it, or give this one another --home.") from None
            time.sleep(0.02)
        else:
            return file
