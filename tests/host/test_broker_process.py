"""The broker as a process: starting it wrongly, its end, and the command line."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lamppost_host.broker import BRIDGE_USER, Credentials, read_address, running, start_broker
from lamppost_host.broker.probe import connect_code
from lamppost_host.broker.running import Kind
from lamppost_host.cli.broker import command
from lamppost_host.errors import LamppostError

KINDS = ("mosquitto", "embedded")


def until(condition: Callable[[], object], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "mosquitto":
        request.getfixturevalue("mosquitto")
    found: Kind = request.param
    return found


@pytest.fixture
def run_command(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`lamppost --home <tmp> broker ...` as a process."""
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "lamppost_host", "broker", "--home", str(tmp_path), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def test_a_port_in_use_is_named(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_PORT_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LamppostError, match=f"port {port}") as error:
            start_broker(tmp_path, kind, port=port)
    assert "--port" in error.value.remedy


def test_a_port_freed_a_moment_later_is_waited_for(kind: Kind, tmp_path: Path) -> None:
    with start_broker(tmp_path / "first", kind) as first:
        port = first.port
        os.kill(first.pid, signal.SIGTERM)
        with start_broker(tmp_path / "second", kind, port=port) as second:
            assert second.port == port


def test_no_mosquitto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPPOST_MOSQUITTO", "")
    with pytest.raises(LamppostError, match="not installed") as error:
        start_broker(tmp_path, "mosquitto")
    assert "apt-get install mosquitto" in error.value.remedy
    with start_broker(tmp_path, "auto") as broker:
        assert broker.kind == "embedded"


def test_auto_is_mosquitto_where_it_is_installed(mosquitto: str, tmp_path: Path) -> None:
    with start_broker(tmp_path) as broker:
        assert broker.kind == "mosquitto"


@pytest.mark.parametrize("says", ["mosquitto version 1.6.9", "something else"])
def test_a_mosquitto_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    program = tmp_path / "mosquitto"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("LAMPPOST_MOSQUITTO", str(program))
    with pytest.raises(LamppostError, match=r"needs 2\.0"):
        start_broker(tmp_path / "broker", "mosquitto")


def test_a_mosquitto_that_ends_at_once_shows_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mosquitto"
    program.write_text(
        '#!/bin/sh\n[ "$1" = -h ] && echo "mosquitto version 2.0.99" && exit 3\necho "no such luck"; exit 7\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("LAMPPOST_MOSQUITTO", str(program))
    with pytest.raises(LamppostError, match="exit code 7") as error:
        start_broker(tmp_path / "broker", "mosquitto")
    assert "no such luck" in error.value.remedy


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_the_embedded_broker_stays_on_this_machine(tmp_path: Path, host: str) -> None:
    with pytest.raises(LamppostError, match="no access list") as error:
        start_broker(tmp_path, "embedded", host=host)
    assert "Mosquitto" in error.value.remedy


def test_options_that_can_not_be(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("")
    with pytest.raises(LamppostError, match="certificate needs its key"):
        start_broker(tmp_path, cert=cert)
    with pytest.raises(LamppostError, match="can't read"):
        start_broker(tmp_path, cert=cert, key=tmp_path / "missing.pem")
    with pytest.raises(LamppostError, match="no TLS"):
        start_broker(tmp_path, "embedded", cert=cert, key=cert)
    with pytest.raises(LamppostError, match="can't listen on 192"):
        start_broker(tmp_path, "mosquitto", host="192.0.2.1")
    with pytest.raises(LamppostError, match="no broker has run"):
        read_address(tmp_path / "elsewhere")


def test_the_command_runs_until_sigterm(
    kind: Kind, tmp_path: Path, run_command: Callable[..., subprocess.Popen[str]]
) -> None:
    ready = tmp_path / "ready.json"
    process = run_command("--port", "0", "--kind", kind, "--ready-file", str(ready))
    until(ready.exists)
    facts = json.loads(ready.read_text())
    password = Credentials(tmp_path / "broker").get(BRIDGE_USER)
    assert connect_code(facts["host"], facts["port"], BRIDGE_USER, password) == 0
    assert facts["url"] == f"mqtt://127.0.0.1:{facts['port']}"
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=10)
    assert process.returncode == 0
    assert not alive(facts["pid"])
    assert password not in log
    assert ("no access list" in log) == (kind == "embedded")
    assert "Traceback" not in log


def test_ctrl_c_stops_it(
    kind: Kind, tmp_path: Path, run_command: Callable[..., subprocess.Popen[str]]
) -> None:
    ready = tmp_path / "ready.json"
    process = run_command("--port", "0", "--kind", kind, "--ready-file", str(ready))
    until(ready.exists)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert not alive(json.loads(ready.read_text())["pid"])


def test_a_killed_command_leaves_no_broker(
    kind: Kind, tmp_path: Path, run_command: Callable[..., subprocess.Popen[str]]
) -> None:
    ready = tmp_path / "ready.json"
    process = run_command("--port", "0", "--kind", kind, "--ready-file", str(ready))
    until(ready.exists)
    broker = json.loads(ready.read_text())["pid"]
    assert alive(broker)
    process.kill()
    until(lambda: not alive(broker), 5)


def test_a_broker_that_dies_ends_the_command_with_its_reason(
    kind: Kind, tmp_path: Path, run_command: Callable[..., subprocess.Popen[str]]
) -> None:
    ready = tmp_path / "ready.json"
    process = run_command("--port", "0", "--kind", kind, "--ready-file", str(ready))
    until(ready.exists)
    os.kill(json.loads(ready.read_text())["pid"], signal.SIGKILL)
    _, log = process.communicate(timeout=10)
    assert process.returncode == 1
    assert f"the broker ({kind}) ended with exit code" in log
    assert "Traceback" not in log


def cli(home: Path, *arguments: str) -> tuple[int, str, str, BaseException | None]:
    done = CliRunner().invoke(command, ["--home", str(home), "credential", *arguments])
    return done.exit_code, done.stdout, done.stderr, done.exception


def test_credentials_on_the_command_line(tmp_path: Path) -> None:
    entry = tmp_path / "broker.json"
    status, out, err, _ = cli(tmp_path, "add", "alpha/one", "--out", str(entry))
    password = Credentials(tmp_path / "broker").get("alpha/one")
    assert status == 0
    assert password not in out + err
    assert entry.stat().st_mode & 0o777 == 0o600
    assert json.loads(entry.read_text()) == {
        "host": "127.0.0.1",
        "port": 1883,
        "user": "alpha/one",
        "password": password,
        "tls": False,
    }

    status, out, err, _ = cli(tmp_path, "add", "alpha/two")
    assert status == 0
    assert Credentials(tmp_path / "broker").get("alpha/two") not in out + err
    status, out, _, _ = cli(tmp_path, "add", "beta/one", "--show")
    assert out.split() == [Credentials(tmp_path / "broker").get("beta/one")]

    assert cli(tmp_path, "list")[1].split() == ["alpha/one", "alpha/two", "beta/one"]
    assert cli(tmp_path, "remove", "alpha/two")[0] == 0
    assert json.loads(cli(tmp_path, "list", "--json")[1]) == ["alpha/one", "beta/one"]

    for arguments, text in (
        (("add", "alpha/one"), "already"),
        (("remove", "alpha/two"), "no credential"),
        (("add", "Alpha/one"), "not a node's user name"),
        (("add", "alpha"), "not a node's user name"),
        (("add", "alpha/one/two"), "not a node's user name"),
        (("add", "alpha/+"), "not a node's user name"),
        (("add", "--", "-alpha/one"), "not a node's user name"),
        (("add", "alpha/" + "x" * 33), "not a node's user name"),
        (("add", "alpha/one\n"), "not a node's user name"),
        (("add", "bridge"), "Name a node"),
        (("remove", "bridge"), "Name a node"),
        (("add", "gamma/one", "--out", str(entry)), "exists"),
        (("add", "gamma/one", "--out", str(tmp_path / "no" / "where.json")), "can't write"),
    ):
        error = cli(tmp_path, *arguments)[3]
        assert isinstance(error, LamppostError), arguments
        assert text in str(error)
    assert "gamma/one" not in Credentials(tmp_path / "broker").users()


def test_credentials_from_many_processes_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lamppost_host.broker import Credentials\n"
        "for i in range(10): Credentials(Path(sys.argv[1])).add(f'{sys.argv[2]}/n{i}')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), tenant]) for tenant in "abcd"]
    assert [process.wait(60) for process in processes] == [0] * 4
    credentials = Credentials(tmp_path)
    assert len(credentials.users()) == 40
    assert len(set(credentials.all().values())) == 40
    lines = credentials.mosquitto_path.read_text().splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == credentials.users()
    for path in (credentials.path, credentials.mosquitto_path):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not any(
        password in credentials.mosquitto_path.read_text() for password in credentials.all().values()
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_a_broken_credentials_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials.json").write_text(text)
    with pytest.raises(LamppostError, match=r"credentials\.json"):
        Credentials(tmp_path).users()
