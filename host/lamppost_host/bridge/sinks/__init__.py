"""Sinks: each carries the spool to one platform, in a process of its own, at its own pace.

A sink says how (`prepare`, `post`, `settle`); `bridge.worker` says when: in order, one batch after the other, again until it is confirmed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from lamppost_host.bridge.sink_store import DeadLetter, SinkStore
from lamppost_host.bridge.spool_reader import Batch
from lamppost_host.errors import LamppostError


class Unavailable(Exception):
    """The platform can't take it now: try the same again later. `retry_after`: seconds that it asked for."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


Delivery = TypeVar("Delivery")
Answer = TypeVar("Answer")


class Sink(Protocol[Delivery, Answer]):
    """What a platform needs. Three steps, so that the next batch is prepared while the platform works on this one.

    All three may raise `Unavailable`; then the batch begins again with `prepare`, because the platform that comes back may have given
    other ids. Delivering the same batch twice must do no harm: that is the sink's own business, by the readings' names.
    """

    batch_readings: int
    """How many readings to hand over at once."""

    def prepare(self, batch: Batch) -> Delivery:
        """Make ready what is to be sent: entities, bodies."""
        ...

    def post(self, delivery: Delivery) -> Answer:
        """Send it. Runs in another thread than the other two; touches the network only."""
        ...

    def settle(self, delivery: Delivery, answer: Answer) -> Sequence[DeadLetter]:
        """Read the answer to the last row: when this returns, every reading is confirmed, or is one of the dead letters."""
        ...

    def close(self) -> None:
        """Let connections go."""
        ...


@dataclass(frozen=True)
class SinkSpec:
    """One configured sink. `name` is unique in a bridge and names its file; `settings` as its kind wants them: paths of secrets, no secrets."""

    name: str
    kind: str
    settings: Mapping[str, Any]


def _sensorthings(spec: SinkSpec, store: SinkStore) -> Sink[Any, Any]:
    from lamppost_host.bridge.sinks.sensorthings import SensorThingsSink, Settings

    return SensorThingsSink(Settings.read(spec.settings), store)


KINDS: Final[Mapping[str, Callable[[SinkSpec, SinkStore], Sink[Any, Any]]]] = {"sensorthings": _sensorthings}
"""Kind of sink to what builds it; imported when it is used, because each brings libraries of its own."""


def build(spec: SinkSpec, store: SinkStore) -> Sink[Any, Any]:
    """The sink that `spec` describes."""
    if spec.kind not in KINDS:
        raise LamppostError(f"there is no sink of the kind {spec.kind!r}", f"There are: {', '.join(KINDS)}.")
    return KINDS[spec.kind](spec, store)
