"""The promise under faults: exactly once, or counted. Real processes, killed at random points."""

import random
import threading
import time
from collections import defaultdict

import pytest

from lamppost_host.audit import Audit, audit
from lamppost_host.virtual.board import VirtualBoard
from tests.e2e.chain import Chain, wait_for
from tests.e2e.conftest import MakeChain

pytestmark = [pytest.mark.faults, pytest.mark.timeout(420)]

KINDS = ["mosquitto", "embedded"]


def _stop_nodes(chain: Chain) -> None:
    """A clean stop: each node journals what it has, sends it, and waits for the host's mark."""
    for board in chain.nodes.values():
        board.interrupt()
    for board in chain.nodes.values():
        assert board.wait(40) == 0, board.log_end()


def _settled(chain: Chain) -> Audit:
    """The audit once nothing is on its way any more."""

    def nothing_pending() -> Audit | None:
        found = audit(chain.home)
        return found if found.pending == 0 else None

    settled: Audit = wait_for(nothing_pending, "the platform to hold what the bridge has", 60)
    return settled


def _check_promise(chain: Chain, *, least: int) -> Audit:
    """stored == sampled − lost, nothing twice, and the platform's own content has no gap that the audit does not name."""
    found = _settled(chain)
    assert found.duplicates == 0
    assert found.unknown == 0
    assert found.stored == found.sampled - found.lost
    held = chain.stored()
    assert sum(len(readings) for readings in held.values()) == found.stored >= least
    return found


def _check_nothing_lost(chain: Chain, *, least: int) -> None:
    found = _check_promise(chain, least=least)
    assert found.lost == 0, found
    # Not by the audit's word alone: in every boot of every Datastream the frames run from 0 without a gap.
    for key, readings in chain.stored().items():
        frames = defaultdict(set)
        for boot, seq, _ in readings:
            frames[boot].add(seq)
        for boot, seqs in frames.items():
            assert seqs == set(range(len(seqs))), f"{key}, boot {boot}: {sorted(seqs)}"


def _kill_and_restart(chain: Chain, name: str, times: int, rng: random.Random, within: float) -> None:
    """SIGKILL a service at random points of its life, its start-up included."""
    for _ in range(times):
        time.sleep(rng.uniform(0, within))  # the fault's random point, not a wait for something
        chain.service(name).kill()
        chain.launch_service(name)
    chain.service(name).ready()


@pytest.mark.parametrize(("kind", "times"), [("mosquitto", 50), ("embedded", 10)])
def test_node_killed_at_random_points(
    make_chain: MakeChain, rng: random.Random, kind: str, times: int
) -> None:
    chain = make_chain(kind)
    boards = [chain.board("n1", every=0.02), chain.board("n2", every=0.05)]
    for board in boards:
        board.start()
    for board in boards * (times // 2):
        time.sleep(rng.uniform(0, 0.8))  # the fault's random point
        board.kill()
        board.start()
    for board in boards:
        board.kill()
        _start_and_await(board)
    _stop_nodes(chain)
    _check_nothing_lost(chain, least=3 * times)


def _start_and_await(board: VirtualBoard) -> None:
    """Start a board, and wait until its node samples: Ctrl-C before that is no clean stop of a node."""
    printed = len(board.log)
    board.start()
    wait_for(lambda: "runs as boot" in board.log[printed:], "the node to run", 20)


@pytest.mark.parametrize(("kind", "times"), [("mosquitto", 50), ("embedded", 10)])
def test_bridge_killed_at_random_points(
    make_chain: MakeChain, rng: random.Random, kind: str, times: int
) -> None:
    chain = make_chain(kind)
    for name in ("n1", "n2"):
        chain.board(name, every=0.1).start()
    _kill_and_restart(chain, "bridge", times, rng, 1.6)
    _stop_nodes(chain)
    _check_nothing_lost(chain, least=10 * times)


@pytest.mark.parametrize("kind", KINDS)
def test_broker_killed_at_10_random_points(make_chain: MakeChain, rng: random.Random, kind: str) -> None:
    chain = make_chain(kind)
    for name in ("n1", "n2"):
        chain.board(name, every=0.05).start()
    _kill_and_restart(chain, "broker", 10, rng, 2)
    _stop_nodes(chain)
    _check_nothing_lost(chain, least=300)


def test_platform_killed_at_10_random_points(make_chain: MakeChain, rng: random.Random) -> None:
    chain = make_chain("embedded")
    for name in ("n1", "n2"):
        chain.board(name, every=0.05).start()
    _kill_and_restart(chain, "platform", 10, rng, 2)
    _stop_nodes(chain)
    _check_nothing_lost(chain, least=300)


def test_all_killed_at_once_again_and_again(make_chain: MakeChain, rng: random.Random) -> None:
    chain = make_chain("mosquitto")
    boards = [chain.board(name, every=0.05) for name in ("n1", "n2", "n3")]
    for board in boards:
        board.start()
    for _ in range(3):
        time.sleep(rng.uniform(0.5, 2))  # the fault's random point
        victims = [chain.service(name).kill for name in ("broker", "bridge", "platform")] + [
            b.kill for b in boards
        ]
        threads = [threading.Thread(target=victim) for victim in victims]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in ("broker", "bridge", "platform"):
            chain.launch_service(name)
        for board in boards:
            _start_and_await(board)
    for name in ("broker", "bridge", "platform"):
        chain.service(name).ready()
    _stop_nodes(chain)
    _check_nothing_lost(chain, least=100)


@pytest.mark.parametrize("away", [["broker"], ["platform"], ["broker", "platform"], ["bridge"]], ids="+".join)
def test_away_for_a_while(make_chain: MakeChain, away: list[str]) -> None:
    chain = make_chain("mosquitto")
    for name in ("n1", "n2"):
        chain.board(name, every=0.05).start()
    wait_for(lambda: audit(chain.home).stored, "the first readings")
    for name in away:
        chain.service(name).stop()
    time.sleep(4)  # how long it is away
    for name in away:
        chain.start_service(name)
    _stop_nodes(chain)
    _check_nothing_lost(chain, least=150)


def test_a_full_journal_drops_the_oldest_and_says_so(make_chain: MakeChain) -> None:
    chain = make_chain("embedded")
    small = {
        "journal": {"path": "/journal", "bytes": 16_384, "segment": 4_096},
        "batch": {"rows": 1, "seconds": 1},
    }
    board = chain.board("n1", every=0.02, config=small)
    board.start()
    wait_for(lambda: audit(chain.home).stored, "the first readings")
    chain.service("broker").stop()
    wait_for(lambda: "journal: full" in board.log, "the journal to be full")
    before = audit(chain.home).stored
    chain.start_service("broker")
    wait_for(lambda: audit(chain.home).stored > before, "readings after the outage")
    _stop_nodes(chain)
    found = _check_promise(chain, least=100)
    assert found.lost > 0
    assert {gap.why for node in found.nodes for gap in node.gaps} == {"dropped"}, found
