"""Becomes a virtual board's MicroPython, and sees to it that the board ends when its host does: `python -m ... COMMAND ARGUMENT...`."""

import os
import signal
import subprocess
import sys

from lamppost_host.parent import end_with_parent

_POLL_S = 0.5


def _watch(command: list[str]) -> int:
    """Where the kernel has no such signal (macOS): run the board as a child, in the same process group, and watch the parent."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the whole group gets it; it is the board's to answer
    board = subprocess.Popen(
        command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    )
    while True:
        try:
            return board.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                board.kill()


def main(command: list[str]) -> int:
    if sys.platform == "linux" and not os.environ.get("LAMPPOST_WATCH_PARENT"):
        end_with_parent(signal.SIGKILL)
        os.execv(command[0], command)  # noqa: S606 - that is its purpose
    status = _watch(command)
    # A board that was killed by a signal is reported as such.
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
