"""One sink's process: reads the spool after its cursor, delivers in order, moves the cursor when the platform has confirmed.

Started by the supervisor as `python -m lamppost_host.bridge.worker`. Standard input brings one line of JSON (`Job`), then a line whenever the
spool has something new, and `stop` for a clean end. Its end without `stop` is the parent's death: this process then ends at once, wherever
it is, because that is safe at any point.
"""

import json
import logging
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lamppost_host.bridge import sinks
from lamppost_host.bridge.backoff import Backoff, Outage
from lamppost_host.bridge.locking import lock
from lamppost_host.bridge.sink_store import SinkStore
from lamppost_host.bridge.spool_reader import Batch, SpoolReader
from lamppost_host.errors import LamppostError

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.2, 10.0)
QUIET_SECONDS = 5.0
"""How long to sleep when nothing wakes us; only a safeguard."""

PREDECESSOR_SECONDS = 90.0
"""How long to wait for a killed bridge's sink to let go of its file."""

STOP = b"stop"


@dataclass(frozen=True)
class Job:
    """What a sink's process needs to know; no secrets."""

    spec: sinks.SinkSpec
    spool: str
    store: str
    log_level: str = "INFO"

    def line(self) -> bytes:
        """As the first line of standard input."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> "Job":
        """The other way."""
        document = json.loads(line)
        return cls(sinks.SinkSpec(**document.pop("spec")), **document)


class Signals:
    """What standard input says: `wake` is set when there may be work, `stopping` when the process should end cleanly."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.stopping = threading.Event()

    def stop(self) -> None:
        """End cleanly."""
        self.stopping.set()
        self.wake.set()

    def listen(self, stream: BinaryIO, orphaned: Callable[[], None]) -> None:
        """Read until the end; runs in a thread."""
        for line in stream:
            if line.strip() == STOP:
                self.stopping.set()
            self.wake.set()
        if not self.stopping.is_set():
            orphaned()


@dataclass(slots=True)
class _Flight:
    """A batch on its way."""

    batch: Batch
    delivery: Any
    answer: "Future[Any]"


class Runner:
    """Moves one sink along the spool. While the platform works on one batch, the next one is prepared; never more than one is on its way."""

    def __init__(
        self, sink: sinks.Sink[Any, Any], reader: SpoolReader, store: SinkStore, signals: Signals
    ) -> None:
        self._sink = sink
        self._reader = reader
        self._store = store
        self._signals = signals
        self._pool = ThreadPoolExecutor(1, "post")
        self._backoff = Backoff(*RETRY_SECONDS)
        self._outage = Outage()
        self._position = store.cursor
        self._flight: _Flight | None = None

    def run(self) -> None:
        """Deliver until told to stop."""
        try:
            while not self._signals.stopping.is_set():
                self._signals.wake.clear()
                if not self.step():
                    self._signals.wake.wait(QUIET_SECONDS)
            if self._flight is not None:
                self.step(reading=False)
        finally:
            self._pool.shutdown(wait=True)

    def step(self, *, reading: bool = True) -> bool:
        """Deliver what there is, up to one batch; False when there was nothing to do."""
        try:
            return self._step(reading)
        except sinks.Unavailable as problem:
            self._wait(problem)
            return True

    def _step(self, reading: bool) -> bool:
        batch = self._reader.after(self._position, self._sink.batch_readings) if reading else None
        if self._flight is not None and (batch is None or not batch.full):
            # Not enough to fill a request: let the one on its way land first, and take along what came meanwhile.
            self._land()
            return True
        if batch is None:
            self._store.state("idle")
            return False
        try:
            delivery = self._sink.prepare(batch)
        except sinks.Unavailable:
            self._land()  # what is on its way may well be confirmed
            raise
        if self._flight is not None:
            self._land()
        self._flight = _Flight(batch, delivery, self._pool.submit(self._sink.post, delivery))
        self._position = batch.last
        return True

    def _land(self) -> None:
        """Wait for the batch on its way, and move the cursor behind it."""
        flight = self._flight
        if flight is None:
            return
        self._flight = None
        try:
            answer = flight.answer.result()
            dead_letters = self._sink.settle(flight.delivery, answer)
        except sinks.Unavailable:
            self._position = self._store.cursor  # begin again with this batch
            raise
        refused = sum(len(letter.observations) for letter in dead_letters)
        self._store.advance(flight.batch.last, flight.batch.readings - refused, dead_letters)
        if dead_letters:
            log.error("%d readings refused for good, the last one: %s", refused, dead_letters[-1].reason)
        self._backoff.reset()
        self._outage.over()

    def _wait(self, problem: sinks.Unavailable) -> None:
        delay = max(self._backoff.next(), problem.retry_after)
        if self._outage.worth_telling(str(problem)):
            log.warning("%s; trying again", problem)
        self._store.state("waiting", str(problem))
        self._signals.stopping.wait(delay)


def _orphaned() -> None:
    os._exit(0)


def main() -> None:
    """The process."""
    line = sys.stdin.buffer.readline()
    if not line:
        return  # the bridge died while we started
    job = Job.read(line)
    logging.basicConfig(
        level=job.log_level,
        format=f"%(asctime)s %(levelname)s sink {job.spec.name}: %(message)s",
        stream=sys.stderr,
    )
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    signals = Signals()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the bridge tells us when to stop
    signal.signal(signal.SIGTERM, lambda *_: signals.stop())
    threading.Thread(
        target=signals.listen, args=(sys.stdin.buffer, _orphaned), name="signals", daemon=True
    ).start()
    try:
        lock_path = Path(job.store).with_suffix(".lock")
        with lock(lock_path, PREDECESSOR_SECONDS, f"another bridge delivers from {job.store}"):
            store = SinkStore(Path(job.store))
            reader = SpoolReader(Path(job.spool))
            store.follow(reader.identity())
            sink = sinks.build(job.spec, store)
            try:
                Runner(sink, reader, store, signals).run()
            finally:
                store.state("stopped")
                sink.close()
                reader.close()
                store.close()
    except LamppostError as error:
        log.error("%s", error)  # noqa: TRY400 - for people; a traceback would not help them
        sys.exit(error.exit_code)
    except sqlite3.DatabaseError as error:
        log.error("can't use %s or %s: %s", job.store, job.spool, error)  # noqa: TRY400 - likewise; the bridge starts us again
        sys.exit(1)


if __name__ == "__main__":
    main()
