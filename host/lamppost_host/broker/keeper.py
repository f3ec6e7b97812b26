"""Runs a broker that knows nothing of us: `python -m lamppost_host.broker.keeper FILE PROGRAM ARGUMENTS...`

The broker must not outlive whoever started it, even one that was killed, nor need it to notice changes of its files. So this
small process stands between: it stops the broker when its own standard input closes (which the kernel does for a
dead parent, on every system), and sends it SIGHUP whenever FILE changes. It writes the broker's process id to standard output, and ends
with its exit code (128 + n for signal n).
"""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from lamppost_host.parent import end_with_parent

_LOOK_S = 0.2
_STOP_S = 10.0


def _stamp(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (facts.st_mtime_ns, facts.st_ino)


def main(arguments: list[str]) -> int:
    """Run the program in `arguments[1:]` until it ends or standard input does."""
    watched = Path(arguments[0])
    stop = False

    def on_signal(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Should this process be killed itself, the kernel ends the broker (on Linux). Nothing else runs here that a fork could harm.
    child = subprocess.Popen(
        arguments[1:],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=end_with_parent if sys.platform == "linux" else None,
    )
    os.write(1, f"{child.pid}\n".encode())
    seen = _stamp(watched)
    while child.poll() is None and not stop:
        ready, _, _ = select.select([0], [], [], _LOOK_S)
        if ready and not os.read(0, 1024):
            break
        if seen != (now := _stamp(watched)):
            seen = now
            child.send_signal(signal.SIGHUP)
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
