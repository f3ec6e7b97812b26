"""The SensorThings sink: observations over HTTP by `CreateObservations`, with every row of the answer read."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import orjson

from lamppost_host.bridge.sink_store import DeadLetter, SinkStore
from lamppost_host.bridge.sinks import Unavailable
from lamppost_host.bridge.sinks.entities import Entities
from lamppost_host.bridge.sinks.observations import (
    FEATURE,
    column_rows,
    components,
    rows_of,
    split_by_quality,
    tails_with_quality,
)
from lamppost_host.bridge.sinks.sta_client import Access, Gone, Refused, StaClient, json_of, url_of
from lamppost_host.bridge.spool_reader import Batch, Described, Observed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Where the platform is. `batch_readings`: observations in one request, about 120 bytes each."""

    access: Access
    batch_readings: int = 6_000

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> "Settings":
        """From a sink's configuration."""
        url = settings.get("url")
        files = [
            Path(name) if (name := settings.get(key)) else None for key in ("address_file", "token_file")
        ]
        return cls(
            access=Access(None if url is None else str(url), *files),
            batch_readings=int(settings.get("batch_readings", cls.batch_readings)),
        )


@dataclass(slots=True)
class Group:
    """Rows for one Datastream, as JSON text: `[phenomenonTime, resultTime, feature?, result, parameters, resultQuality?]`."""

    node: str
    datastream: str
    id: str
    with_feature: bool
    with_quality: bool
    rows: list[str] = field(default_factory=list)

    def body(self) -> str:
        """The group as `CreateObservations` takes it (OGC 18-088, 12.2)."""
        names = orjson.dumps(components(self.with_feature, self.with_quality)).decode()
        return (
            f'{{"Datastream":{{"@iot.id":{json_of(self.id)}}},"components":{names},'
            f'"dataArray@iot.count":{len(self.rows)},"dataArray":[{",".join(self.rows)}]}}'
        )

    def observation(self, row: int) -> dict[str, Any]:
        """One row as an Observation of its own."""
        values = orjson.loads(self.rows[row])
        observation = dict(zip(components(self.with_feature, self.with_quality), values, strict=True))
        if self.with_feature:
            observation["FeatureOfInterest"] = {"@iot.id": observation.pop(FEATURE)}
        return observation


@dataclass(slots=True)
class Delivery:
    """One request: groups of rows, its body, and the readings that no entity could be made for."""

    groups: list[Group]
    count: int
    body: bytes
    dead_letters: list[DeadLetter]


class SensorThingsSink:
    """Delivers to any SensorThings 1.1 service that keeps (Datastream, parameters.reading) unique, or that never loses an answer."""

    def __init__(
        self, settings: Settings, store: SinkStore, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.batch_readings = settings.batch_readings
        self._client = StaClient(settings.access, transport)
        # `post` runs in a thread of its own, so it has a connection of its own.
        self._poster = StaClient(settings.access, transport)
        self._entities = Entities(self._client, store, lambda: self._poster.connections_lost)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._poster.close()

    def prepare(self, batch: Batch) -> Delivery:
        """Make the entities that are not there, and the request's body."""
        groups: dict[tuple[str, bool, bool], Group] = {}
        dead_letters: list[DeadLetter] = []
        for entry in batch.entries:
            if isinstance(entry, Described):
                self._entities.describe(entry.node, entry.about)
            else:
                self._add_frame(entry, groups, dead_letters)
        found = list(groups.values())
        body = "[" + ",".join([group.body() for group in found]) + "]"
        return Delivery(found, sum(len(group.rows) for group in found), body.encode(), dead_letters)

    def _add_frame(
        self, entry: Observed, groups: dict[tuple[str, bool, bool], Group], dead_letters: list[DeadLetter]
    ) -> None:
        frame, node = entry.frame, entry.node
        entities = self._entities.of(node, entry.about)
        placed = entities.feature is not None
        heads, tails = rows_of(frame, None if entities.feature is None else json_of(entities.feature))
        quality = frame.quality if frame.quality is not None and any(frame.quality) else None
        for column, values in zip(
            entry.about.datastreams[frame.first : frame.first + len(frame.columns)],
            frame.columns,
            strict=True,
        ):
            identifier = entities.datastreams.get(column.key)
            if identifier is None:
                code, reason = entities.refused[column.key]
                rows = column_rows(values, column.decimals, heads, tails)
                if rows:
                    observations = [orjson.loads(row) for row in rows]
                    dead_letters.append(
                        DeadLetter(node, column.key, frame.boot.hex(), frame.seq, code, reason, observations)
                    )
                continue
            if quality is None:
                self._rows(groups, node, column.key, identifier, placed, False).extend(
                    column_rows(values, column.decimals, heads, tails)
                )
                continue
            good, marked = split_by_quality(values, quality)
            self._rows(groups, node, column.key, identifier, placed, False).extend(
                column_rows(good, column.decimals, heads, tails)
            )
            self._rows(groups, node, column.key, identifier, placed, True).extend(
                column_rows(marked, column.decimals, heads, tails_with_quality(tails, quality))
            )

    @staticmethod
    def _rows(
        groups: dict[tuple[str, bool, bool], Group],
        node: str,
        key: str,
        identifier: str,
        with_feature: bool,
        with_quality: bool,
    ) -> list[str]:
        group = groups.get((identifier, with_feature, with_quality))
        if group is None:
            group = Group(node, key, identifier, with_feature, with_quality)
            groups[identifier, with_feature, with_quality] = group
        return group.rows

    def post(self, delivery: Delivery) -> list[str] | Refused | None:
        """The answer's rows; Refused when the request as a whole is; None when there was nothing to send."""
        if not delivery.count:
            return None
        try:
            return self._poster.create_observations(delivery.body, delivery.count)
        except Refused as refusal:
            return refusal

    def settle(self, delivery: Delivery, answer: list[str] | Refused | None) -> Sequence[DeadLetter]:
        """Every row is confirmed when its answer is an Observation's link. Any other row is sent once more, alone, for a reason."""
        dead_letters = list(delivery.dead_letters)
        if answer is None:
            return dead_letters
        if isinstance(answer, Refused):
            log.warning("the platform refuses a request of %d observations: %s", delivery.count, answer)
            dead_letters += self._settle_refused(delivery.groups, answer)
            return dead_letters
        failed = [
            place
            for place, row in enumerate(answer)
            if "Observations(" not in row or row.startswith(("error", "Error"))
        ]
        begin = 0
        for group in delivery.groups:
            end = begin + len(group.rows)
            for place in failed:
                if begin <= place < end:
                    dead_letters += self._post_alone(group, place - begin)
            begin = end
        return dead_letters

    def _settle_refused(self, groups: list[Group], refusal: Refused) -> list[DeadLetter]:
        """The whole request was refused: halve it until what is refused stands alone."""
        count = sum(len(group.rows) for group in groups)
        if count == 1:
            (group,) = groups
            return self._post_alone(group, 0)
        dead_letters: list[DeadLetter] = []
        for half in _halves(groups):
            body = ("[" + ",".join([group.body() for group in half]) + "]").encode()
            part = Delivery(half, sum(len(group.rows) for group in half), body, [])
            dead_letters += self.settle(part, self.post(part))
        return dead_letters

    def _post_alone(self, group: Group, index: int) -> list[DeadLetter]:
        """One observation by itself: delivered, or the platform's own words why not."""
        observation = group.observation(index)
        try:
            try:
                self._client.create(f"Datastreams({group.id})/Observations", observation)
            except Refused:
                if group.with_feature:
                    # A link to what is no longer there is answered with 400; that says nothing of the reading.
                    feature = url_of(observation["FeatureOfInterest"]["@iot.id"])
                    self._client.get(f"FeaturesOfInterest({feature})")
                raise
        except Gone:
            self._entities.forget(group.node)
            raise Unavailable(
                f"the platform no longer has the Datastream {group.node}/{group.datastream} or its place; making it again"
            ) from None
        except Refused as refusal:
            boot, seq, _ = observation["parameters"]["reading"].split("/")
            return [
                DeadLetter(
                    group.node,
                    group.datastream,
                    boot,
                    int(seq),
                    f"http-{refusal.status}",
                    refusal.reason,
                    [observation],
                )
            ]
        return []


def _halves(groups: list[Group]) -> tuple[list[Group], list[Group]]:
    """Two lists of groups with half of the rows each; at least two rows in all."""
    total = sum(len(group.rows) for group in groups)
    first: list[Group] = []
    second: list[Group] = []
    room = total // 2
    for group in groups:
        taken = min(room, len(group.rows))
        room -= taken
        for rows, half in ((group.rows[:taken], first), (group.rows[taken:], second)):
            if rows:
                half.append(replace(group, rows=rows))
    return first, second
