"""The one thread that writes: jobs one after the other, several to a commit."""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from lamppost_host.platform.errors import Conflict, RequestError, Unavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")

# A commit waits for the disk; jobs that arrive within this time share it.
_GROUP_SECONDS = 0.02
# More jobs waiting than this: the disk does not keep up, and the client had better come again.
_MAX_WAITING = 1_000


class State(Protocol):
    """What the jobs remember of the database between transactions."""

    def forget(self) -> None:
        """The transaction was undone: what was remembered may be wrong."""

    def committed(self) -> None:
        """The transaction is on the disk."""


@dataclass(frozen=True)
class _Job:
    run: Callable[[], Any]
    undoable: bool
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


class Writer:
    """Runs jobs on a thread that owns the writing connection, and answers after their commit."""

    def __init__(self, connection: sqlite3.Connection, state: State) -> None:
        self._connection = connection
        self._state = state
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._closed = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the jobs that were submitted, then end the thread and close the connection."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    async def submit(self, run: Callable[[], T], *, undoable: bool = True) -> T:
        """Run `run` in a transaction and return its result once it is on the disk.

        undoable: a failure of this job undoes what it wrote, and no other job's. A job that checks everything before
        it writes can do without, and is faster.
        """
        if self._closed or self._jobs.qsize() >= _MAX_WAITING:
            raise Unavailable(
                "the service is stopping" if self._closed else "too many writes are waiting; try again"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(run, undoable, loop, future))
        return await future

    def _work(self) -> None:
        job = self._jobs.get()
        while job is not None:
            job = self._commit_group(job)

    def _commit_group(self, first: _Job) -> _Job | None:
        """Run `first` and what arrives meanwhile in one transaction; returns the job after that, None at the end."""
        outcomes: list[tuple[_Job, Any, BaseException | None]] = []
        waiting: _Job | None = first
        ended = False
        running: _Job = first
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            deadline = time.monotonic() + _GROUP_SECONDS
            while waiting is not None:
                running, waiting = waiting, None
                outcomes.append((running, *self._run(running)))
                if time.monotonic() < deadline and not self._jobs.empty():
                    waiting = self._jobs.get()
                    ended = waiting is None
            self._connection.execute("COMMIT")
        except Exception as error:  # the thread must outlive any job; whoever asked gets the error
            self._undo()
            failure = self._explain(error)
            known = [job for job, _, _ in outcomes]
            outcomes = [(job, None, failure) for job in (known if running in known else [*known, running])]
        else:
            self._state.committed()
        for job, result, problem in outcomes:
            _answer(job, result, problem)
        return None if ended else self._jobs.get()

    def _run(self, job: _Job) -> tuple[Any, BaseException | None]:
        """The job's result, or the error that concerns this job alone. Raises what concerns the whole transaction."""
        if not job.undoable:
            try:
                return job.run(), None
            except RequestError as error:
                return None, error
        self._connection.execute("SAVEPOINT job")
        try:
            result = job.run()
        except sqlite3.OperationalError:
            raise
        except (
            Exception
        ) as error:  # told to whoever asked; a defect of one job is no reason to fail the others
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            self._state.forget()
            return None, self._explain(error)
        self._connection.execute("RELEASE job")
        return result, None

    def _undo(self) -> None:
        try:
            self._connection.rollback()
        except sqlite3.Error:
            logger.exception("rollback failed")
        self._state.forget()

    @staticmethod
    def _explain(error: Exception) -> Exception:
        if isinstance(error, sqlite3.IntegrityError):
            return Conflict(f"this contradicts what is stored: {error}")
        if isinstance(error, sqlite3.Error):
            logger.error("the database refused a transaction: %s", error)
            return Unavailable(f"nothing was stored: {error}")
        return error


def _answer(job: _Job, result: Any, problem: BaseException | None) -> None:
    def settle() -> None:
        if job.future.cancelled():
            return
        if problem is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(problem)

    try:
        job.loop.call_soon_threadsafe(settle)
    except RuntimeError:
        logger.debug("the event loop ended before a write was answered")
