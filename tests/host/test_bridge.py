"""`lamppost bridge` as people run it: real processes, real platform, killed and cut off; and the files it leaves."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lamppost_host.audit import audit
from lamppost_host.bridge import report
from lamppost_host.broker import RunningBroker
from lamppost_host.home import Home
from tests import brokers, frames
from tests.host.sta_fake import FakePlatform, said
from tests.host.synthetic import SyntheticNode, wait_for
from tests.platforms import Platform

running_broker = brokers.running_broker
running_mosquitto = brokers.running_mosquitto


class Bridge:
    """The command in a process of its own."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.options = options
        self.log = home / "bridge.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> "Bridge":
        file = self.home / "bridge-ready.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "lamppost_host", "bridge", "--home", str(self.home), *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, "--ready-file", str(file)], stdout=log, stderr=log)
        if ready:
            wait_for(lambda: file.exists() or self.process.poll() is not None)
            assert file.exists(), self.log.read_text()
        return self

    @property
    def sink_pids(self) -> list[int]:
        assert self.process is not None
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(pid) for pid in found.stdout.split()]

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def status(self) -> dict[str, Any]:
        return report.status(self.home / "bridge")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def start_bridge(tmp_path: Path) -> Iterator[Callable[..., Bridge]]:
    started: list[Bridge] = []

    def start(*options: str, **how: Any) -> Bridge:
        started.append(Bridge(tmp_path, *options))
        return started[-1].start(**how)

    yield start
    for bridge in started:
        bridge.close()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path).start()
    yield made
    made.close()


def connect(broker: RunningBroker, node: str = "alpha/one", **options: Any) -> SyntheticNode:
    made = SyntheticNode(node, broker.connect_host, broker.port, broker.credentials.get(node), **options)
    made.wait_connected()
    return made


def settled(home: Path, sampled: int, seconds: float = 30.0) -> Any:
    """The audit once everything taken is stored."""
    found = None

    def complete() -> bool:
        nonlocal found
        found = audit(Home(home))
        return found.sampled == sampled and found.exit_code == 0

    wait_for(complete, seconds, "not everything is stored")
    return found


def test_readings_go_from_the_broker_to_the_platform(
    running_broker: RunningBroker, platform: Platform, start_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    bridge = start_bridge()
    node = connect(running_broker)
    for value in range(40):
        node.take([[value, None, value]])
    node.wait_confirmed()
    settled(tmp_path, 80)
    (thing,) = platform.get("Things", expand="Locations,Datastreams")["value"]
    assert thing["properties"]["lamppost"] == "alpha/one"
    assert thing["Locations"][0]["location"]["coordinates"] == [24.7535, 59.4369]
    found = platform.get("Observations", top="1", orderby="id")["value"]
    assert found[0]["result"] == 0.0
    assert found[0]["parameters"] == {"reading": f"{node.boot.hex()}/0/0"}
    sinks = bridge.sink_pids
    assert len(sinks) == 1
    assert bridge.stop() == 0
    assert not any(alive(pid) for pid in sinks)
    assert "Traceback" not in bridge.log.read_text()
    secret = running_broker.credentials.get("bridge")
    assert secret not in bridge.log.read_text()
    assert platform.token not in bridge.log.read_text()
    node.close()


def test_a_node_that_moves_and_is_renamed_changes_on_the_platform(
    running_mosquitto: RunningBroker, platform: Platform, start_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    start_bridge()
    node = connect(running_mosquitto)
    node.take([[1]])
    settled(tmp_path, 1)
    node.about = frames.encode_about(
        frames.datastream(sensor="SHT31"),
        frames.datastream("second"),
        name="Moved",
        location=[10**8, 5 * 10**8, 250],
    )
    node.publish("about", node.about)
    node.take([[2], [3]])
    settled(tmp_path, 3)
    (thing,) = platform.get("Things", expand="Locations,Datastreams")["value"]
    assert thing["name"] == "Moved"
    assert thing["Locations"][0]["location"]["coordinates"] == [10.0, 50.0, 2.5]
    assert {d["properties"]["lamppost"] for d in thing["Datastreams"]} == {
        "alpha/one/temperature",
        "alpha/one/second",
    }
    back = frames.encode_about(frames.datastream(), name="Moved back")
    node.about = back
    node.publish("about", back)
    node.take([[4]])
    settled(tmp_path, 4)
    (thing,) = platform.get("Things", expand="Locations")["value"]
    assert [place["location"]["coordinates"] for place in thing["Locations"]] == [[24.7535, 59.4369]]
    assert platform.get("Locations", count="true", top="0")["@iot.count"] == 2, (
        "a place known before is used again"
    )
    node.close()


@pytest.mark.faults
def test_killed_at_random_points_it_stores_every_reading_once(
    running_broker: RunningBroker, platform: Platform, start_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    chance = random.Random(20)
    node = connect(running_broker)
    bridge = start_bridge(ready=False)
    for _ in range(6):
        until = time.monotonic() + chance.uniform(0.05, 0.9)
        while time.monotonic() < until:
            node.take([[node.seq, None, 7]])
            time.sleep(0.002)
        sinks = bridge.sink_pids
        bridge.kill()
        wait_for(lambda pids=sinks: not any(alive(pid) for pid in pids), 5, "a sink outlives its bridge")
        bridge.start(ready=chance.random() < 0.5)
    node.wait_confirmed(30)
    found = settled(tmp_path, node.taken, 60)
    assert (found.stored, found.duplicates, found.lost) == (node.taken, 0, 0)
    assert "Traceback" not in bridge.log.read_text()
    node.close()


@pytest.mark.faults
def test_a_killed_sink_is_started_again(
    running_mosquitto: RunningBroker, platform: Platform, start_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    bridge = start_bridge()
    node = connect(running_mosquitto)
    for turn in range(4):
        (sink,) = wait_for(lambda: bridge.sink_pids)
        for value in range(50):
            node.take([[value, turn]])
        os.kill(sink, signal.SIGKILL)
        wait_for(lambda old=sink: [pid for pid in bridge.sink_pids if pid != old])
    node.wait_confirmed()
    assert settled(tmp_path, 400).duplicates == 0
    node.close()


@pytest.mark.faults
def test_a_platform_away_holds_up_nothing_and_is_caught_up_with(
    running_mosquitto: RunningBroker, platform: Platform, start_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    bridge = start_bridge()
    node = connect(running_mosquitto)
    node.take([[1]])
    settled(tmp_path, 1)
    platform.kill()
    for value in range(500):
        node.take([[value, value, value]])
    node.wait_confirmed()
    wait_for(lambda: bridge.status()["sinks"]["sensorthings"]["state"] == "waiting")
    sink = bridge.status()["sinks"]["sensorthings"]
    assert sink["lag_readings"] == 1500
    assert "can't be reached" in sink["error"]
    bridge.kill()
    bridge.start()
    platform.start()
    settled(tmp_path, 1501)
    wait_for(lambda: bridge.status()["spool_rows"] == 0, 10, "what all have delivered is pruned")
    node.close()


def test_a_platform_that_does_not_answer_does_not_hold_up_the_end(
    running_mosquitto: RunningBroker, start_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    fake = FakePlatform()
    fake.fault = lambda method, path, body: said(503, "down for repairs")
    with fake.served() as url:
        bridge = start_bridge("--platform", url)
        node = connect(running_mosquitto)
        node.take([[1]])
        node.wait_confirmed()
        wait_for(lambda: "down for repairs" in (bridge.status()["sinks"]["sensorthings"]["error"] or ""))
        began = time.monotonic()
        assert bridge.stop() == 0
        assert time.monotonic() - began < 5
        node.close()
        fake.fault = lambda method, path, body: None
        bridge.start()
        wait_for(lambda: len(fake.observations) == 1)


def test_the_broker_and_platform_may_come_after_the_bridge(
    start_bridge: Callable[..., Bridge], tmp_path: Path, mosquitto: str
) -> None:
    bridge = start_bridge(ready=False)
    wait_for(lambda: "no broker has run" in bridge.log.read_text())
    with brokers.open_broker(tmp_path / "broker", "mosquitto") as broker:
        node = connect(broker)
        node.take([[5]])
        node.wait_confirmed()
        platform = Platform(tmp_path).start()
        settled(tmp_path, 1)
        platform.close()
        node.close()
        assert bridge.stop() == 0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lamppost_host", *arguments], capture_output=True, text=True, timeout=60
    )


def test_a_second_bridge_on_the_same_home_is_refused(
    running_mosquitto: RunningBroker, start_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    start_bridge()
    second = run("bridge", "--home", str(tmp_path))
    assert second.returncode == 1
    assert "another bridge works in" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_wrong_password_ends_the_command_with_two_lines(
    running_mosquitto: RunningBroker, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("wrong\n")
    address = f"{running_mosquitto.connect_host}:{running_mosquitto.port}"
    options = ("--broker", address, "--user", "bridge", "--password-file", str(tmp_path / "password"))
    done = run("bridge", "--home", str(tmp_path / "other"), *options, "--log-level", "error")
    assert done.returncode == 1
    assert f"the broker {address} refuses user 'bridge'" in done.stderr
    assert "Check --user and the password file" in done.stderr
    assert "Traceback" not in done.stderr


def test_options_that_belong_together(tmp_path: Path) -> None:
    done = run("bridge", "--home", str(tmp_path), "--user", "x")
    assert done.returncode == 1
    assert "Name the broker with --broker" in done.stderr
    assert "no bridge has run in" in run("bridge", "--home", str(tmp_path), "status").stderr


def test_status_and_dead_letters_for_people_and_programs(
    running_mosquitto: RunningBroker, start_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    fake = FakePlatform()
    fake.refuse = lambda observation: "too cold" if observation["result"] < 0 else None
    with fake.served() as url:
        bridge = start_bridge("--platform", url)
        node = connect(running_mosquitto)
        node.take([[1, -1]])
        node.publish("obs", b"\xff\xff")
        node.take([[2]], clock=1)
        wait_for(lambda: bridge.status()["sinks"]["sensorthings"]["cursor"] == 2)
        shown = json.loads(run("bridge", "status", "--home", str(tmp_path), "--json").stdout)
        assert shown["running"] is True
        assert shown["broker"]["state"] == "subscribed"
        assert (shown["nodes"], shown["frames"], shown["readings"], shown["refused_frames"]) == (1, 2, 3, 1)
        assert shown["dead_letters"] == {"not-messagepack": 1, "undated": 1} or shown["dead_letters"] == {
            "trailing-bytes": 1,
            "undated": 1,
        }
        assert shown["sinks"]["sensorthings"]["dead_letters"] == {"http-400": 1}
        assert shown["sinks"]["sensorthings"]["delivered"] == 1
        listed = json.loads(run("bridge", "--home", str(tmp_path), "dead-letters", "--json").stdout)
        assert {(letter["where"], letter["code"]) for letter in listed} >= {
            ("intake", "undated"),
            ("sensorthings", "http-400"),
        }
        refused = next(letter for letter in listed if letter["where"] == "sensorthings")
        assert refused["observations"][0]["result"] == -0.01
        people = run("bridge", "--home", str(tmp_path), "dead-letters").stdout
        assert "too cold" in people
        assert "never learnt the time" in people
        assert "1 http-400" in run("bridge", "--home", str(tmp_path), "status").stdout
        node.close()
        bridge.stop()
    assert "bridge not running" in run("bridge", "--home", str(tmp_path), "status").stdout
    assert json.loads(run("bridge", "--home", str(tmp_path), "status", "--json").stdout)["running"] is False
