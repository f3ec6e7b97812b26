"""Files that hold secrets, files that are whole or not there, and children that end with their parent."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lamppost_host import home
from lamppost_host.errors import LamppostError
from lamppost_host.service import Service


def test_a_secret_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    first = home.read_or_make_secret(path)
    assert len(first) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert home.read_or_make_secret(path) == first
    assert home.read_or_make_secret(tmp_path / "other") != first


def test_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    home.write_atomically(tmp_path / "a", "old")
    home.write_atomically(tmp_path / "a", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "new")]


def test_a_full_disk_leaves_no_half_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        home.write_secret(tmp_path / "token", "secret")
    assert not list(tmp_path.iterdir())


def test_an_empty_secret_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(LamppostError, match="is empty"):
        home.read_or_make_secret(tmp_path / "token")


def test_home_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPPOST_HOME", str(tmp_path / "here"))
    assert home.Home.default().bridge == tmp_path / "here" / "bridge"
    assert stat.S_IMODE((tmp_path / "here" / "bridge").stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LamppostError) as refusal:
        _ = home.Home(tmp_path / "file").broker
    assert "--home" in refusal.value.remedy


def test_announcing_without_a_file_does_nothing(tmp_path: Path) -> None:
    home.announce_ready(None, port=1)
    home.announce_ready(tmp_path / "ready", port=1)
    assert json.loads((tmp_path / "ready").read_text()) == {"port": 1}


def test_a_service_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    service = Service("nonsense", ["nonsense"], tmp_path)
    service.start()
    with pytest.raises(LamppostError) as refusal:
        service.ready(20)
    assert "ended with exit code 2" in refusal.value.message
    assert "nonsense" in refusal.value.remedy


def test_a_child_ends_when_its_parent_is_killed() -> None:
    child = "from lamppost_host.parent import end_with_parent; end_with_parent(); import time; print('up', flush=True); time.sleep(60)"
    parent = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # The child holds the other end of the pipe: it reads as ended when the child is gone.
    assert process.stdout.read() == b""
