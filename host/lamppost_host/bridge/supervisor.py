"""`lamppost bridge`: the intake in this process, each sink in one of its own, started again when it dies."""

import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lamppost_host.bridge.backoff import Backoff
from lamppost_host.bridge.database import open_for_reading
from lamppost_host.bridge.intake import CLIENT_ID, BrokerAccess, Intake, State
from lamppost_host.bridge.locking import lock
from lamppost_host.bridge.sinks import KINDS, SinkSpec
from lamppost_host.bridge.spool import PRUNE_ROWS, Receipt, Spool, SpoolError
from lamppost_host.bridge.worker import STOP, Job
from lamppost_host.errors import LamppostError

log = logging.getLogger(__name__)

RESTART_SECONDS = (0.2, 30.0)
STEADY_SECONDS = 60.0
"""A sink that lived this long is started again at once."""

HOUSEKEEPING_SECONDS = 0.5
LOCK_SECONDS = 0.5
"""How long the folder may seem taken: `lamppost bridge status` holds its lock for a moment to see whether a bridge runs."""

FINISH_SECONDS = 10.0
"""How long a sink may take to land the batch on its way when the bridge stops."""


def spool_path(folder: Path) -> Path:
    """The spool of the bridge whose folder this is."""
    return folder / "spool.db"


def store_path(folder: Path, sink: str) -> Path:
    """One sink's own file."""
    return folder / f"sink-{sink}.db"


@dataclass(frozen=True)
class Settings:
    """What one bridge does: where it keeps its files, which broker it reads, and where it delivers."""

    folder: Path
    find_broker: Callable[[], BrokerAccess]
    sinks: Sequence[SinkSpec]
    log_level: str = "INFO"
    client_id: str = CLIENT_ID


class SinkProcess:
    """One sink's process and its restarts."""

    def __init__(self, spec: SinkSpec, folder: Path, log_level: str) -> None:
        self.name = spec.name
        self.store = store_path(folder, spec.name)
        self._job = Job(spec, str(spool_path(folder)), str(self.store), log_level)
        self._process: subprocess.Popen[bytes] | None = None
        self._backoff = Backoff(*RESTART_SECONDS)
        self._start_at = 0.0
        self._started = 0.0

    def start(self) -> None:
        """Start the process; its standard input ends when this process does."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lamppost_host.bridge.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C at a terminal is for us; we let the sinks finish
        )
        self._started = time.monotonic()
        self._write(self._job.line())
        os.set_blocking(self._pipe.fileno(), False)

    @property
    def _pipe(self) -> IO[bytes]:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the sink's process is not started")
        return self._process.stdin

    def _write(self, line: bytes) -> None:
        # A full pipe has wake-ups enough; a broken one belongs to a process that `look_after` will find dead.
        with suppress(BlockingIOError, BrokenPipeError):
            self._pipe.write(line)

    def wake(self) -> None:
        """Tell it that the spool has something new."""
        if self._process is not None:
            self._write(b"\n")

    def look_after(self) -> None:
        """Start it again if it has died, after a delay that grows while it keeps dying."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_at:
                self.start()
            return
        code = self._process.poll()
        if code is None:
            return
        self._reap()
        if now - self._started > STEADY_SECONDS:
            self._backoff.reset()
        delay = self._backoff.next()
        self._start_at = now + delay
        log.error("the sink %s ended (%s); starting it again in %.1f s", self.name, code, delay)

    def cursor(self, spool: str) -> int | None:
        """How far it has come in this spool; None when its file can't be read now."""
        try:
            with closing(open_for_reading(self.store)) as db:
                followed, cursor = db.execute("SELECT spool, cursor FROM progress").fetchone()
                return int(cursor) if followed == spool else 0
        except sqlite3.DatabaseError:
            return None

    def ask_to_stop(self) -> None:
        """Let it land what is on its way, and end."""
        if self._process is not None:
            os.set_blocking(self._pipe.fileno(), True)
            self._write(STOP + b"\n")
            self._pipe.close()

    def wait(self, seconds: float) -> None:
        """Wait for its end; kill it when it takes too long, which is safe."""
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning(
                "the sink %s did not end in time: killed; it goes on from its cursor next time", self.name
            )
            self._process.kill()
            self._process.wait()
        self._reap()

    def _reap(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process = None


class Bridge:
    """Spool, intake and sinks. `run` returns after a signal or `stop`."""

    def __init__(self, settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._ready = False
        self._stopping = False
        self._lock = lock(
            settings.folder / "bridge.lock", LOCK_SECONDS, f"another bridge works in {settings.folder}"
        )
        names = [spec.name for spec in settings.sinks]
        for spec in settings.sinks:
            if spec.kind not in KINDS:
                raise LamppostError(
                    f"there is no sink of the kind {spec.kind!r}", f"There are: {', '.join(KINDS)}."
                )
        if len(set(names)) != len(names):
            raise LamppostError("two sinks have the same name", "Give each a name of its own.")
        self.spool = Spool(spool_path(settings.folder))
        self._sinks = [SinkProcess(spec, settings.folder, settings.log_level) for spec in settings.sinks]
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._intake = Intake(
            settings.find_broker,
            self.spool,
            self._committed,
            self._state,
            self._wake_reader,
            settings.client_id,
        )
        self._tidy_at = 0.0
        self._pruned_to: dict[str, int] = {}

    def stop(self) -> None:
        """End `run` cleanly; may be called from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Take in and deliver until told to stop."""
        previous = {
            number: signal.signal(number, lambda *_: self.stop())
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        previous_wakeup = signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        try:
            self.spool.register_sinks(
                {sink.name: sink.cursor(self.spool.identity) or 0 for sink in self._sinks}
            )
            for sink in self._sinks:
                sink.start()
            while not self._stopping:
                self._intake.step()
                self._tidy()
        finally:
            signal.set_wakeup_fd(previous_wakeup)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._close()

    def _close(self) -> None:
        self._intake.stop()
        for sink in self._sinks:
            sink.ask_to_stop()
        deadline = time.monotonic() + FINISH_SECONDS
        for sink in self._sinks:
            sink.wait(max(0.1, deadline - time.monotonic()))
        self.spool.close()
        self._wake_reader.close()
        self._wake_writer.close()
        self._lock.close()

    def _committed(self, receipt: Receipt) -> None:
        if receipt.spooled:
            for sink in self._sinks:
                sink.wake()

    def _state(self, state: State, reason: str) -> None:
        # Of an outage the intake tells itself, now and then; every try is for those who look for it.
        level = logging.INFO if state in (State.SUBSCRIBED, State.STOPPED) else logging.DEBUG
        log.log(level, "broker: %s%s", state.value, f" ({reason})" if reason else "")
        with suppress(SpoolError):
            self.spool.note("broker", {"state": state.value, "reason": reason})
        if state is State.SUBSCRIBED and not self._ready:
            self._ready = True
            self._on_ready()

    def _tidy(self) -> None:
        """Look after the sinks, and let go of what all have delivered."""
        now = time.monotonic()
        if now < self._tidy_at:
            return
        self._tidy_at = now + HOUSEKEEPING_SECONDS
        for sink in self._sinks:
            sink.look_after()
        cursors = {
            sink.name: cursor
            for sink in self._sinks
            if (cursor := sink.cursor(self.spool.identity)) is not None
        }
        if cursors == self._pruned_to:
            return
        try:
            if self.spool.prune(cursors) < PRUNE_ROWS:
                self._pruned_to = cursors
        except SpoolError as error:
            log.warning("delivered frames are not removed yet: %s", error.message)
