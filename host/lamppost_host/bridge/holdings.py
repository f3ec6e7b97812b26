"""What a platform holds of a node's readings, by frame."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from lamppost_host.bridge.sinks import Unavailable
from lamppost_host.bridge.sinks.sta_client import Access, Gone, Refused, StaClient, quoted, url_of
from lamppost_host.errors import LamppostError

log = logging.getLogger(__name__)

PAGE = 10_000
"""Observations asked for at once; the platform may give fewer and say where to go on."""


@dataclass(slots=True)
class Held:
    """One node's readings at one platform."""

    frames: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(boot in hexadecimal, seq) to the number of different readings."""
    duplicates: int = 0
    """Readings that stand there more than once, each time after the first."""
    foreign: int = 0
    """Observations that carry no reading's name: not ours."""


class Holdings(Protocol):
    """A platform that can be asked."""

    def of(self, node: str) -> Held:
        """What it holds of a node (tenant/node); LamppostError when it can't be asked."""
        ...


class SensorThingsHoldings:
    """Asks a SensorThings service: every Observation of every Datastream of the node, by its `parameters/reading`."""

    def __init__(self, access: Access) -> None:
        self._client = StaClient(access)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def of(self, node: str) -> Held:
        """All pages of all Datastreams."""
        try:
            held = Held()
            filtered = quote(f"properties/lamppost eq {quoted(node)}", safe="/'")
            for thing in self._pages(f"Things?$filter={filtered}"):
                for datastream in self._pages(f"Things({url_of(thing['@iot.id'])})/Datastreams"):
                    self._count(url_of(datastream["@iot.id"]), held)
        except (Unavailable, Refused, Gone, KeyError, TypeError) as error:
            raise LamppostError(
                f"the platform can't be asked: {error}",
                "The audit needs it running, and reading from it allowed.",
            ) from error
        return held

    def _count(self, datastream: str, held: Held) -> None:
        # One bit a row: a frame has at most 255.
        rows: dict[tuple[str, int], int] = {}
        query = f"Datastreams({datastream})/Observations?$select=parameters&$orderby=id&$top={PAGE}"
        for observation in self._pages(query):
            parameters = observation.get("parameters") or {}
            parts = str(parameters.get("reading", "")).split("/")
            if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
                held.foreign += 1
                continue
            frame = parts[0], int(parts[1])
            bit = 1 << int(parts[2])
            known = rows.get(frame, 0)
            if known & bit:
                held.duplicates += 1
            rows[frame] = known | bit
        for frame, bits in rows.items():
            held.frames[frame] += bits.bit_count()

    def _pages(self, path: str) -> Any:
        following: str | None = path
        while following is not None:
            document = self._client.get(following)
            yield from document["value"]
            following = self._client.next_page(document)
