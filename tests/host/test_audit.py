"""The audit: every reading that a node took is counted once, stored or with the reason why not."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamppost_host.audit import Audit, audit, lines
from lamppost_host.bridge import holdings as holdings_module
from lamppost_host.bridge.holdings import Held, SensorThingsHoldings
from lamppost_host.bridge.sink_store import DeadLetter, SinkStore
from lamppost_host.bridge.sinks.sta_client import Access
from lamppost_host.bridge.spool import Message, Spool
from lamppost_host.bridge.supervisor import spool_path, store_path
from lamppost_host.cli.audit import command
from lamppost_host.errors import LamppostError
from lamppost_host.home import Home
from tests import frames, platforms
from tests.platforms import Platform

running_platform = platforms.running_platform

ABOUT = frames.encode_about(
    frames.datastream(), frames.datastream("humidity", property="relative_humidity", unit="%")
)
REVISION = frames.revision(ABOUT)
BOOT = bytes(range(8))
NODE = "city/one"


class World:
    """A bridge's files without the processes, a platform that is a dictionary, and a node that says what it took."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.spool = Spool(spool_path(self.home.bridge))
        self.store = SinkStore(store_path(self.home.bridge, "sensorthings"))
        self.store.follow(self.spool.identity)
        self.spool.register_sinks({"sensorthings": 0})
        self.held = Held()
        self.taken = 0
        self.seq = 0
        self.receive("about", ABOUT)
        self.store.advance(1, 0)

    def close(self) -> None:
        self.spool.close()
        self.store.close()

    def of(self, node: str) -> Held:
        return self.held if node == NODE else Held()

    def receive(self, kind: str, payload: bytes, node: str = NODE) -> None:
        self.spool.receive([Message(f"lamppost/1/{node}/{kind}", payload, 0)])

    def take(self, readings: int = 3, boot: bytes = BOOT, **fields: Any) -> bytes:
        """The node journals a frame."""
        payload = frames.encode_obs(
            REVISION,
            boot,
            self.seq,
            [[*range(readings), None]],
            taken=self.taken,
            seconds=10**8 + self.seq,
            **fields,
        )
        self.seq += 1
        self.taken += readings
        return payload

    def deliver(self, readings: int, seq: int, boot: bytes = BOOT) -> None:
        """The platform has them."""
        self.held.frames[boot.hex(), seq] += readings

    def through(self) -> None:
        """The sink has come to the end of the spool."""
        (last,) = self.spool._db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name='spool'").fetchone()
        self.store.advance(last, 0)

    def status(self, boot: bytes = BOOT, **fields: Any) -> None:
        document = {
            "v": 1,
            "state": "online",
            "boot": boot,
            "seq": self.seq,
            "taken": self.taken,
            "pending": 0,
        }
        self.receive("status", msgpack.packb(document | fields))

    def audit(self, **options: Any) -> Audit:
        return audit(self.home, platform="http://nowhere/v1.1", holdings=self, **options)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def gaps(found: Audit) -> list[tuple[int | None, int | None, int, str]]:
    return [(gap.first, gap.last, gap.readings, gap.why) for node in found.nodes for gap in node.gaps]


def test_everything_stored(world: World) -> None:
    for seq in range(5):
        world.receive("obs", world.take())
        world.deliver(3, seq)
    world.through()
    world.status()
    found = world.audit()
    assert (found.sampled, found.stored, found.lost, found.pending, found.duplicates) == (15, 15, 0, 0, 0)
    assert gaps(found) == []
    assert found.exit_code == 0
    assert found.document()["complete"] is True


def test_each_cause_is_named_with_its_frames_and_readings(world: World) -> None:
    payloads = [world.take() for _ in range(12)]
    undated = world.take(clock=1)
    for seq in (0, 1, 4, 5, 6, 7, 9):
        world.receive("obs", payloads[seq])
    world.receive("obs", undated)
    world.deliver(3, 0)
    world.deliver(2, 1)
    world.store.advance(
        5, 8, [DeadLetter(NODE, "temperature", BOOT.hex(), 1, "http-400", "too cold", [{}])]
    )  # up to frame 5: 1 about, frames 0, 1, 4, 5
    world.deliver(3, 4)
    world.status(dropped=6, drops=[[BOOT, 2, 3, 6]], refused=4, pending=3)
    found = world.audit()
    assert gaps(found) == [
        (1, 1, 1, "dead-letter"),
        (2, 3, 6, "dropped"),
        (5, 5, 3, "missing"),
        (6, 7, 6, "spooled"),
        (8, 8, 3, "on-its-way"),
        (9, 9, 3, "spooled"),
        (10, 11, 6, "on-its-way"),
        (12, 12, 3, "dead-letter"),
        (None, None, 4, "refused"),
    ]
    assert found.sampled == 13 * 3 + 4
    assert found.sampled == found.stored + found.pending + found.lost
    assert (found.dropped, found.refused, found.dead_letters, found.missing) == (6, 4, 4, 3)
    assert found.exit_code == 1
    reasons = {gap.reason for gap in found.nodes[0].gaps if gap.why == "dead-letter"}
    assert reasons == {"http-400: too cold", "undated"}
    said = "\n".join(lines(found))
    assert "frames 2 to 3: 6 readings dropped" in said


def test_what_is_only_on_its_way_has_an_exit_code_of_its_own(world: World) -> None:
    world.receive("obs", world.take())
    world.take()
    world.status(pending=2)
    found = world.audit()
    assert (found.pending, found.lost, found.exit_code) == (6, 0, 3)


def test_a_frame_that_never_came_though_the_node_has_nothing_left_is_missing(world: World) -> None:
    first, _, third = world.take(), world.take(), world.take()
    world.receive("obs", first)
    world.receive("obs", third)
    world.deliver(3, 0)
    world.deliver(3, 2)
    world.through()
    world.status(pending=1)
    assert gaps(world.audit()) == [(1, 1, 3, "on-its-way")]
    world.status(pending=0)
    assert gaps(world.audit()) == [(1, 1, 3, "missing")]
    world.status(pending=0, dropped=3)
    assert gaps(world.audit()) == [(1, 1, 3, "dropped")], (
        "counted by the node, though no longer among its last 16 runs"
    )


def test_a_boot_that_ended_without_a_word_still_tells_by_its_frames(world: World) -> None:
    other = os.urandom(8)
    for _ in range(3):
        world.receive("obs", world.take(boot=other))
    world.deliver(3, 0, other)
    world.deliver(3, 2, other)
    world.through()
    world.seq = world.taken = 0
    world.receive("obs", world.take())
    world.deliver(3, 0)
    world.through()
    world.status()
    found = world.audit()
    assert gaps(found) == [(1, 1, 3, "missing")]
    assert (found.sampled, found.nodes[0].boots) == (12, 2)


def test_readings_twice_and_readings_from_nowhere_are_told(world: World) -> None:
    world.receive("obs", world.take())
    world.deliver(3, 0)
    world.through()
    world.held.duplicates = 2
    world.deliver(7, 99)
    found = world.audit()
    assert (found.stored, found.duplicates, found.unknown, found.exit_code) == (3, 2, 7, 1)


def test_a_frame_that_comes_while_the_platform_is_asked_is_not_from_nowhere(world: World) -> None:
    world.receive("obs", world.take())
    world.deliver(3, 0)
    world.through()

    class Slow:
        def of(self, node: str) -> Held:
            world.receive("obs", world.take())
            world.deliver(3, 1)
            return world.held

    found = audit(world.home, platform="http://nowhere/v1.1", holdings=Slow())
    assert (found.sampled, found.stored, found.unknown, found.exit_code) == (3, 3, 0, 0)


def test_nodes_are_told_apart(world: World) -> None:
    world.receive("obs", world.take())
    world.receive("about", ABOUT, "city/two")
    world.receive("obs", frames.encode_obs(REVISION, BOOT, 0, [[1]]), "city/two")
    found = world.audit()
    assert [(node.node, node.counts.sampled) for node in found.nodes] == [("city/one", 3), ("city/two", 1)]
    assert [node.node for node in world.audit(node="city/two").nodes] == ["city/two"]


FATES = ("stored", "stored", "stored", "dropped", "undated", "unreadable", "spooled", "on-its-way")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(FATES), st.integers(0, 5)), max_size=25))
def test_whatever_becomes_of_the_frames_the_counts_agree(
    tmp_path_factory: Any, fates: list[tuple[str, int]]
) -> None:
    # What the sink has not delivered comes after all that it has, as in a spool.
    fates = sorted(fates, key=lambda fate: fate[0] == "spooled")
    world = World(tmp_path_factory.mktemp("audit"))
    expected = dict.fromkeys(FATES, 0)
    runs: list[list[Any]] = []
    for seq, (fate, readings) in enumerate(fates):
        payload = world.take(readings, clock=int(fate == "undated"))
        expected[fate] += readings
        if fate in ("stored", "undated"):
            world.receive("obs", payload)
        elif fate == "unreadable":
            world.receive("obs", msgpack.packb([1, 2, BOOT, seq]))
        elif fate == "dropped":
            if runs and runs[-1][2] == seq - 1:
                runs[-1][2] = seq
                runs[-1][3] += readings
            else:
                runs.append([BOOT, seq, seq, readings])
        if fate == "stored":
            world.deliver(readings, seq)
            world.through()
        if fate == "spooled":
            world.receive("obs", payload)
    world.status(drops=runs[-16:], dropped=expected["dropped"], pending=1)
    found = world.audit()
    world.close()
    assert found.stored == expected["stored"]
    assert found.sampled == world.taken == found.stored + found.pending + found.lost
    assert found.missing == 0
    if len(runs) <= 16 and "unreadable" not in dict(fates):
        # An unreadable frame does not say how many readings it had: with others beside it, the split between them is not known.
        assert found.dropped == expected["dropped"]
        assert found.dead_letters == expected["undated"]
        assert found.pending == expected["spooled"] + expected["on-its-way"]


# The platform's side


def test_the_platform_is_read_to_its_last_page(
    running_platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings_module, "PAGE", 7)
    body = platforms.thing(datastreams=2) | {"properties": {"lamppost": NODE}}
    running_platform.create("Things", body)
    rows = [
        ["2026-01-01T00:00:00Z", 1, {"reading": f"{BOOT.hex()}/{seq}/{row}"}]
        for seq in range(3)
        for row in range(9)
    ]
    arrays = [
        {
            "Datastream": {"@iot.id": datastream},
            "components": ["phenomenonTime", "result", "parameters"],
            "dataArray": rows,
        }
        for datastream in (1, 2)
    ]
    assert running_platform.post("CreateObservations", arrays).status_code == 201
    running_platform.create(
        "Datastreams(1)/Observations", {"phenomenonTime": "2026-01-01T00:00:00Z", "result": 5}
    )
    asked = SensorThingsHoldings(Access(running_platform.url))
    held = asked.of(NODE)
    assert held.frames == {(BOOT.hex(), seq): 18 for seq in range(3)}
    assert (held.duplicates, held.foreign) == (0, 1)
    assert asked.of("city/other").frames == {}
    asked.close()


def test_a_platform_that_can_not_be_asked_is_a_clear_error(world: World) -> None:
    with pytest.raises(LamppostError, match="can't be asked"):
        audit(world.home, platform="http://127.0.0.1:1/v1.1")
    with pytest.raises(LamppostError, match="no platform has run"):
        audit(world.home)


def test_no_bridge_yet_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LamppostError, match="no bridge has run"):
        audit(Home(tmp_path), platform="http://127.0.0.1:1/v1.1")


def test_the_command_exits_by_what_it_found(world: World, running_platform: Platform) -> None:
    def run(*options: str) -> Any:
        return CliRunner().invoke(
            command, ["--home", str(world.home.path), "--platform", running_platform.url, *options]
        )

    assert run().exit_code == 0
    world.receive("obs", world.take())
    pending = run("--json")
    assert pending.exit_code == 3
    document = json.loads(pending.output)
    assert (document["pending"], document["nodes"][0]["gaps"][0]["why"]) == (3, "spooled")
    world.through()
    missing = run("--node", NODE)
    assert missing.exit_code == 1
    assert "3 readings missing" in missing.output
    assert isinstance(run("--node", "city/nobody").exception, LamppostError)
