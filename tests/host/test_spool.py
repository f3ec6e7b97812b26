"""The spool: every frame once, nothing acknowledged that is not on disk, everything refused kept with its reason."""

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamppost_host.bridge import database
from lamppost_host.bridge.ledger import Boot
from lamppost_host.bridge.spool import Message, Receipt, Spool, SpoolError
from lamppost_host.bridge.spool_reader import Described, Observed, SpoolReader
from lamppost_host.errors import LamppostError
from tests import frames

ABOUT = frames.encode_about(
    frames.datastream(), frames.datastream("humidity", property="relative_humidity", unit="%")
)
REVISION = frames.revision(ABOUT)
BOOT = bytes(range(8))


def obs(seq: int, boot: bytes = BOOT, about: int = REVISION, **fields: Any) -> bytes:
    columns = fields.pop("columns", [[2000 + seq, 2001 + seq]])
    return frames.encode_obs(about, boot, seq, columns, **({"taken": 2 * seq, "seconds": 10**8} | fields))


def message(kind: str, payload: bytes, node: str = "city/one") -> Message:
    return Message(f"lamppost/1/{node}/{kind}", payload, 1_700_000_000_000)


def status(**fields: Any) -> Message:
    return message("status", msgpack.packb({"v": 1, "state": "online"} | fields))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool.db")
    yield made
    made.close()


def take(spool: Spool, *messages: Message) -> Receipt:
    return spool.receive(messages)


def entries(spool: Spool) -> list[Described | Observed]:
    reader = SpoolReader(spool.path)
    batch = reader.after(0, 10**9)
    reader.close()
    return list(batch.entries) if batch else []


def seqs(spool: Spool) -> list[int]:
    return [entry.frame.seq for entry in entries(spool) if isinstance(entry, Observed)]


def marks(spool: Spool, receipt: Receipt) -> list[list[tuple[bytes, int]]]:
    (node,) = receipt.touched
    return node.marks(receipt.touched[node])


def query(spool: Spool, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(spool.path) as db:
        return db.execute(sql).fetchall()


def test_a_repeated_frame_is_dropped_at_the_door_and_answered_with_the_mark(spool: Spool) -> None:
    take(
        spool, message("about", ABOUT), message("obs", obs(0)), message("obs", obs(1)), message("obs", obs(0))
    )
    again = take(spool, message("obs", obs(1)))
    assert seqs(spool) == [0, 1]
    assert again.duplicates == 1
    assert marks(spool, again) == [[(BOOT, 1)]]


def test_a_restart_knows_what_was_taken_in(spool: Spool) -> None:
    take(spool, message("about", ABOUT), message("obs", obs(0)), message("obs", obs(2)))
    spool.close()
    second = Spool(spool.path)
    receipt = take(second, message("about", ABOUT), message("obs", obs(2)), message("obs", obs(1)))
    assert (receipt.duplicates, receipt.spooled) == (1, 1)
    assert marks(second, receipt) == [[(BOOT, 2)]]
    assert sorted(seqs(second)) == [0, 1, 2]
    second.close()


def test_the_mark_stops_before_a_gap_and_passes_declared_drops(spool: Spool) -> None:
    take(spool, message("about", ABOUT))
    assert marks(spool, take(spool, message("obs", obs(3)))) == [[(BOOT, -1)]]
    assert marks(spool, take(spool, status(drops=[[BOOT, 0, 1, 4]]))) == [[(BOOT, 1)]]
    assert marks(spool, take(spool, message("obs", obs(2)))) == [[(BOOT, 3)]]
    assert marks(spool, take(spool, status(drops=[[BOOT, 0, 1, 4], [BOOT, 4, 9, 12]]))) == [[(BOOT, 9)]]


def test_a_frame_that_was_declared_dropped_and_comes_after_all_is_kept(spool: Spool) -> None:
    take(spool, message("about", ABOUT), status(drops=[[BOOT, 0, 4, 10]]), message("obs", obs(2)))
    assert take(spool, message("obs", obs(2))).duplicates == 1
    assert seqs(spool) == [2]


def test_a_mark_tells_of_every_boot_that_moved_and_ends_with_the_last_eight(spool: Spool) -> None:
    take(spool, message("about", ABOUT))
    boots = [os.urandom(8) for _ in range(20)]
    receipt = take(spool, *(message("obs", obs(0, boot)) for boot in boots))
    told = marks(spool, receipt)
    assert all(len(group) <= 8 for group in told)
    assert {boot for group in told for boot, _ in group} == set(boots)
    assert [boot for boot, _ in told[-1]] == boots[-8:]
    later = take(spool, message("obs", obs(1, boots[0])))
    assert marks(spool, later)[-1][-1] == (boots[0], 1)


def test_frames_wait_for_their_about_document(spool: Spool) -> None:
    receipt = take(spool, message("obs", obs(0)), message("obs", obs(1)))
    assert receipt.dead_letters == 2
    assert marks(spool, receipt) == [[(BOOT, 1)]], "sending them again would not mend them"
    assert entries(spool) == []
    take(spool, message("about", ABOUT))
    assert seqs(spool) == [0, 1]
    assert query(spool, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert query(spool, "SELECT count(*) FROM frames WHERE refused IS NOT NULL") == [(0,)]
    assert take(spool, message("obs", obs(1))).duplicates == 1


def test_frames_that_waited_in_the_same_batch_follow_their_about_document(spool: Spool) -> None:
    take(spool, message("obs", obs(0)), message("about", ABOUT), message("obs", obs(1)))
    kinds = [type(entry).__name__ for entry in entries(spool)]
    assert kinds == ["Described", "Observed", "Observed"]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\xc1", "not-messagepack"),
        (obs(5) + b"\x00", "trailing-bytes"),
        (b"\x9e\x02" + obs(5)[2:], "version-unknown"),
        (obs(5, clock=1), "undated"),
        (obs(5, first=2), "column-unknown"),
        (obs(5, about=1), "about-unknown"),
    ],
)
def test_what_can_not_be_used_is_kept_with_its_reason(spool: Spool, payload: bytes, code: str) -> None:
    receipt = take(spool, message("about", ABOUT), message("obs", payload), message("obs", obs(6)))
    assert receipt.dead_letters == 1
    assert query(spool, "SELECT code, payload, times FROM dead_letters") == [(code, payload, 1)]
    assert seqs(spool) == [6], "the rest goes on"
    take(spool, message("obs", payload))
    assert query(spool, "SELECT count(*) FROM dead_letters") == [(1,)], (
        "the same message again is no second dead letter"
    )


def test_a_refused_frame_whose_name_can_be_read_counts_for_the_mark(spool: Spool) -> None:
    broken = msgpack.packb([1, REVISION, BOOT, 0, "not a count", *range(9)])
    receipt = take(spool, message("about", ABOUT), message("obs", broken), message("obs", obs(1)))
    assert marks(spool, receipt) == [[(BOOT, 1)]]
    assert take(spool, message("obs", obs(0))).spooled == 1, (
        "the same frame, readable this time, takes its place"
    )
    assert query(spool, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert sorted(seqs(spool)) == [0, 1]


def test_topics_of_no_node_are_dead_letters(spool: Spool) -> None:
    receipt = take(
        spool,
        Message("lamppost/1/city/one/mark", b"", 0),
        Message("lamppost/2/city/one/obs", b"", 0),
        Message("elsewhere", b"\xff", 0),
        Message("lamppost/1/CITY/one/obs", obs(0), 0),
    )
    assert receipt.dead_letters == 4
    assert {code for (code,) in query(spool, "SELECT code FROM dead_letters")} == {
        "topic-unknown",
        "version-unknown",
    }


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.builds(
        lambda s, i, b: obs(s)[:i] + bytes([b]) + obs(s)[i + 1 :],
        st.integers(0, 9),
        st.integers(0, 40),
        st.integers(0, 255),
    )
)
def test_no_payload_stops_the_stream(noise_spool: Spool, payload: bytes) -> None:
    for kind in ("obs", "about", "status"):
        take(noise_spool, message(kind, payload, "city/noise"))
    receipt = take(noise_spool, message("obs", obs(random.getrandbits(30), os.urandom(8)), "city/good"))
    assert receipt.spooled == 1


@pytest.fixture(scope="module")
def noise_spool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spool]:
    made = Spool(tmp_path_factory.mktemp("noise") / "spool.db")
    take(made, message("about", ABOUT, "city/good"))
    yield made
    made.close()


def test_a_fault_of_ours_in_one_message_buries_that_one_only(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(spool, message("about", ABOUT))
    original = Spool._take_status
    monkeypatch.setattr(Spool, "_take_status", lambda *a: 1 / 0)
    receipt = take(spool, message("obs", obs(0)), status(pending=0), message("obs", obs(1)))
    assert (receipt.spooled, receipt.dead_letters) == (2, 1)
    assert query(spool, "SELECT code, reason FROM dead_letters") == [
        ("internal", "ZeroDivisionError: division by zero")
    ]
    monkeypatch.setattr(Spool, "_take_status", original)
    assert seqs(spool) == [0, 1]


def test_a_full_disk_keeps_nothing_of_the_batch_and_says_so(spool: Spool) -> None:
    take(spool, message("about", ABOUT), message("obs", obs(0)))
    (pages,) = spool._db.execute("PRAGMA page_count").fetchone()
    spool._db.execute(f"PRAGMA max_page_count={pages + 2}")
    batch = [message("obs", obs(seq, columns=[list(range(0, 200 * 99, 99))])) for seq in range(1, 200)]
    with pytest.raises(SpoolError, match="full"):
        take(spool, *batch)
    assert seqs(spool) == [0]
    spool._db.execute("PRAGMA max_page_count=1000000")
    receipt = take(spool, *batch)
    assert receipt.spooled == 199
    assert receipt.duplicates == 0
    assert marks(spool, receipt) == [[(BOOT, 199)]]


def test_a_locked_spool_keeps_nothing_and_works_again_after(spool: Spool) -> None:
    take(spool, message("about", ABOUT))
    with sqlite3.connect(spool.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolError, match="locked"):
            take(spool, message("obs", obs(0)))
        other.execute("ROLLBACK")
    assert take(spool, message("obs", obs(0))).spooled == 1


def test_status_is_kept_and_a_will_changes_the_state_only(spool: Spool) -> None:
    take(
        spool,
        status(
            boot=BOOT, seq=7, taken=14, pending=2, dropped=3, refused=1, cuts=4, at_risk=60, faults={"t": 2}
        ),
    )
    take(spool, message("status", msgpack.packb({"v": 1, "state": "lost"})))
    assert query(spool, "SELECT state, boot, pending, dropped, cuts, at_risk FROM nodes") == [
        ("lost", BOOT, 2, 3, 4, 60)
    ]
    assert query(spool, "SELECT seq, taken, refused, faults FROM boots") == [(7, 14, 1, '{"t": 2}')]
    take(spool, status(boot=BOOT, seq=6, taken=12))
    assert query(spool, "SELECT seq, taken FROM boots") == [(7, 14)], "an old one does not take counts back"


def test_an_about_document_in_force_is_told_once_and_again_when_it_returns(spool: Spool) -> None:
    other = frames.encode_about(name="Other")
    take(spool, *(message("about", about) for about in (ABOUT, ABOUT, other, ABOUT)))
    assert [entry.about.name for entry in entries(spool)] == ["School yard", "Other", "School yard"]


def test_what_all_sinks_have_is_pruned_and_ids_are_never_used_again(spool: Spool) -> None:
    take(spool, message("about", ABOUT), *(message("obs", obs(seq)) for seq in range(5)))
    spool.register_sinks({"a": 0, "b": 0})
    assert spool.prune({"a": 6, "b": 3}) == 3
    assert [entry.id for entry in entries(spool)] == [4, 5, 6]
    assert spool.prune({"a": 6, "b": 6}) == 3
    take(spool, message("obs", obs(5)))
    assert [entry.id for entry in entries(spool)] == [7]
    spool.register_sinks({"a": 6})
    assert query(spool, "SELECT name FROM sinks") == [("a",)]
    assert take(spool, message("obs", obs(0))).duplicates == 1, "the ledger outlives the payload"


def test_every_version_of_the_schema_is_brought_to_the_newest(tmp_path: Path) -> None:
    for name in ("spool", "sink"):
        steps = database.scripts(name)
        assert steps
        path = tmp_path / f"{name}.db"
        for _ in range(2):
            db = database.open_database(path, name)
            assert db.execute("PRAGMA user_version").fetchone() == (len(steps),)
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            db.close()
        assert path.stat().st_mode & 0o077 == 0
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version=99")
    with pytest.raises(LamppostError, match="schema version 99"):
        database.open_database(path, "sink")


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"not a database" * 100)
    with pytest.raises(LamppostError, match="can't open"):
        Spool(tmp_path / "spool.db")


@given(st.lists(st.one_of(st.integers(0, 30), st.tuples(st.integers(0, 30), st.integers(0, 6))), max_size=60))
def test_high_is_the_last_frame_before_the_first_gap(events: list[int | tuple[int, int]]) -> None:
    boot = Boot(1, BOOT, 1)
    here: set[int] = set()
    dropped: set[int] = set()
    for event in events:
        if isinstance(event, int):
            boot.add(event)
            here.add(event)
        else:
            boot.drop(event[0], event[0] + event[1])
            dropped.update(range(event[0], event[0] + event[1] + 1))
        high = next(seq for seq in range(100) if seq not in here | dropped) - 1
        assert boot.high == high
        for seq in range(40):
            known = boot.received(seq)
            assert (seq in here) == known if known is not None else seq in dropped
