"""A virtual board: a process of MicroPython with a flash of its own, which can be killed and started again."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lamppost_host.errors import LamppostError
from lamppost_host.virtual.flash import build_image, read_image
from lamppost_host.virtual.interpreter import find_micropython, shipped

RESET_EXIT = 2
"""Exit status by which a board asks to be started again (machine.reset, machine.deepsleep)."""

DEFAULT_FLASH_BYTES = 1 << 20
DEFAULT_HEAP = "1m"
_KILL_TIMEOUT_S = 10.0


class VirtualBoard:
    """One board in `folder`: its flash image, its description, its log.

    `main`: source of /main.py, or the Path of one. `config`: what becomes /node.json. `sensors`: descriptions of the simulated
    sensors, and `buses` of their faults (boards/unix/simulated says what they take). `files`: more files for the flash, path -> content.
    `flash_faults`, `wifi`, `rtc_set`: see boards/unix/start.py. `heap`: MicroPython's, such as "512k".

    The flash is built when the folder has none, so a board made again in the same folder goes on where it was; `config`, `main` and `files`
    are then left as they are (`rebuild=True` starts afresh).
    """

    def __init__(
        self,
        folder: Path,
        main: str | Path,
        config: Mapping[str, Any] | None = None,
        sensors: Sequence[Mapping[str, Any]] = (),
        *,
        buses: Sequence[Mapping[str, Any]] = (),
        files: Mapping[str, bytes] | None = None,
        flash_bytes: int = DEFAULT_FLASH_BYTES,
        flash_faults: Mapping[str, int] | None = None,
        wifi: Mapping[str, Any] | None = None,
        rtc_set: bool = True,
        unique_id: str | None = None,
        heap: str = DEFAULT_HEAP,
        firmware: Path | None = None,
        rebuild: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder.resolve()
        self.flash_path = self.folder / "flash.bin"
        self.log_path = self.folder / "log.txt"
        self._description_path = self.folder / "board.json"
        self._heap = heap
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor: threading.Thread | None = None
        self._lock = threading.Lock()
        self._wanted = False
        self._exit_code: int | None = None
        self.starts = 0
        self.resets = 0
        source = main.read_text(encoding="utf-8") if isinstance(main, Path) else main
        if rebuild or not self.flash_path.exists():
            self._forget_state()
            content = {"/main.py": source.encode(), "/node.json": json.dumps(dict(config or {})).encode()}
            build_image(self.flash_path, flash_bytes, content | dict(files or {}))
        self.description: dict[str, Any] = {
            "firmware": str(firmware or shipped("firmware")),
            "flash": {"path": str(self.flash_path), "bytes": flash_bytes, "faults": dict(flash_faults or {})},
            "state": str(self.folder),
            "sensors": [dict(sensor) for sensor in sensors],
            "buses": [dict(bus) for bus in buses],
            "wifi": dict(wifi or {}),
            "rtc_set": rtc_set,
            "unique_id": unique_id or self._unique_id(),
        }

    def start(self) -> None:
        """Switch the power on. Does not wait. A board that asks for a reset is started again, until it is stopped or killed."""
        if self.running:
            raise LamppostError(f"the board in {self.folder} is running already")
        interpreter = find_micropython()
        # Written at each start: `description` may be changed between two of them, to bring in a fault.
        self._description_path.write_text(json.dumps(self.description), encoding="utf-8")
        (self.folder / "retained.json").unlink(missing_ok=True)
        script = shipped("boards") / "unix" / "start.py"
        command = [*interpreter, "-X", f"heapsize={self._heap}", str(script), str(self._description_path)]
        self._wanted = True
        self._exit_code = None
        started = threading.Event()
        # The supervisor starts the process: on Linux a child's parent is the thread that made it, and this one lasts as long as the child.
        self._supervisor = threading.Thread(
            target=self._supervise, args=(command, started), name=f"board-{self.folder.name}", daemon=True
        )
        self._supervisor.start()
        started.wait()
        if self._process is None:
            raise LamppostError(f"the board in {self.folder} did not start", self.log_end())

    def _supervise(self, command: list[str], started: threading.Event) -> None:
        launcher = [sys.executable, "-m", "lamppost_host.virtual.launcher", *command]
        try:
            while True:
                with self._lock:
                    if not self._wanted:
                        return
                    with self.log_path.open("ab") as log:
                        self._process = subprocess.Popen(
                            launcher,
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=log,
                            cwd=self.folder,
                            # Ctrl-C at a terminal is for whoever started the board; kill() reaches the whole group.
                            start_new_session=True,
                        )
                    self.starts += 1
                started.set()
                self._exit_code = self._process.wait()
                if self._exit_code != RESET_EXIT:
                    return
                self.resets += 1
        finally:
            started.set()

    @property
    def running(self) -> bool:
        """Whether the board's power is on and its program has not ended."""
        return self._supervisor is not None and self._supervisor.is_alive()

    @property
    def pid(self) -> int | None:
        """The process of the board; None while there is none."""
        return self._process.pid if self.running and self._process is not None else None

    def kill(self) -> None:
        """A power cut: SIGKILL, from which nothing on the board can save itself."""
        self._signal(signal.SIGKILL)
        self.wait(_KILL_TIMEOUT_S)
        # RTC memory needs power.
        (self.folder / "retained.json").unlink(missing_ok=True)

    def interrupt(self) -> None:
        """Ctrl-C: KeyboardInterrupt in the board's program, which a node answers with a clean stop. Does not wait."""
        self._signal(signal.SIGINT)

    def stop(self, timeout: float = 20.0) -> int:
        """Interrupt the board and wait; kill it after `timeout` seconds. Its exit code."""
        self.interrupt()
        try:
            return self.wait(timeout)
        except LamppostError:
            self.kill()
            raise

    def restart(self) -> None:
        """Cut the power, and switch it on again."""
        self.kill()
        self.start()

    def wait(self, timeout: float) -> int:
        """Wait until the board's program has ended; its exit code (-9: it was killed; 130, or -2 in the first moments of a start:
        it was interrupted, and main.py did not catch that). LamppostError after `timeout` seconds."""
        if self._supervisor is None:
            raise LamppostError(f"the board in {self.folder} was never started")
        self._supervisor.join(timeout)
        if self._supervisor.is_alive():
            raise LamppostError(
                f"the board in {self.folder} still runs after {timeout:.0f} s", self.log_end()
            )
        if self._exit_code is None:
            raise LamppostError(f"the board in {self.folder} did not start", self.log_end())
        return self._exit_code

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            self._wanted = False
            process = self._process
            if process is not None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)

    @property
    def log(self) -> str:
        """All that the board has printed, of all its starts."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def log_end(self, lines: int = 15) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.splitlines()[-lines:])

    def files(self) -> dict[str, bytes]:
        """Every file in the flash: path on the board -> content."""
        self._refuse_while_running()
        return read_image(self.flash_path)

    def read_file(self, name: str) -> bytes:
        """One file of the flash, by its path on the board."""
        files = self.files()
        if name not in files:
            raise LamppostError(f"{name} is not in the flash", f"There are: {', '.join(sorted(files))}")
        return files[name]

    def _refuse_while_running(self) -> None:
        if self.running:
            raise LamppostError("the flash of a running board can't be read", "Stop the board first.")

    def _unique_id(self) -> str:
        """The one that the folder's board had, else a new one."""
        file = self.folder / "unique_id"
        if not file.exists():
            # 02: a locally administered address, which no maker's board has.
            file.write_text("02" + secrets.token_hex(5), encoding="ascii")
        return file.read_text(encoding="ascii")

    def _forget_state(self) -> None:
        for name in ("retained.json", "nvs.json"):
            (self.folder / name).unlink(missing_ok=True)

    def __enter__(self) -> "VirtualBoard":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.kill()
