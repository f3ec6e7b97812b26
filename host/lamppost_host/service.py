"""One `lamppost` command as a child process: started, awaited until it takes requests, stopped or killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamppost_host.errors import LamppostError
from lamppost_host.parent import END_WITH_PARENT

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
_POLL_S = 0.01


class Service:
    """`lamppost <arguments>` with its log in `<folder>/<name>.log`.

    The command must take `--ready-file` (see `home.announce_ready`); `ready` waits for it and returns what it says.
    """

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._ready_file = folder / f"{name}.ready"
        self._arguments = [*arguments, "--ready-file", str(self._ready_file)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; does not wait."""
        self._ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lamppost_host", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {END_WITH_PARENT: "1"},
                # Ctrl-C at a terminal is for whoever started the service; it decides in which order they end.
                start_new_session=True,
            )

    def ready(self, timeout: float = READY_TIMEOUT_S) -> dict[str, Any]:
        """Wait until the service takes requests; LamppostError with the end of its log when it does not."""
        process = self._running()
        deadline = time.monotonic() + timeout
        while not self._ready_file.exists():
            if process.poll() is not None:
                raise LamppostError(f"{self.name} ended with exit code {process.returncode}", self.log_end())
            if time.monotonic() > deadline:
                raise LamppostError(f"{self.name} was not ready within {timeout:.0f} s", self.log_end())
            time.sleep(_POLL_S)
        facts: dict[str, Any] = json.loads(self._ready_file.read_text(encoding="utf-8"))
        return facts

    def stop(self, timeout: float = STOP_TIMEOUT_S) -> int:
        """Ask the service to end (SIGTERM), kill it after `timeout` seconds; its exit code."""
        process = self._running()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        return process.returncode

    def kill(self) -> None:
        """SIGKILL: what a power cut or the kernel's memory killer does."""
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def log_end(self, lines: int = 15) -> str:
        """The last lines of the log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise LamppostError(f"{self.name} has not been started")
        return self.process
