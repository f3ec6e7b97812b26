"""The command line as a person and as a program meets it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def _lamppost(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lamppost_host", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )


def test_help_names_every_command() -> None:
    done = _lamppost("--help")
    assert done.returncode == 0
    for command in ("demo", "broker", "platform", "bridge", "audit"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["demo", "broker", "platform", "bridge", "audit"])
def test_each_command_has_help(command: str) -> None:
    done = _lamppost(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "--home" in done.stdout or command == "demo"


def test_an_unknown_command_is_refused_without_a_traceback() -> None:
    done = _lamppost("dmo")
    assert done.returncode == 2
    assert "No such command" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_is_told_with_its_remedy_and_without_a_traceback(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("home") / "file"
    file.write_text("")
    done = _lamppost("audit", "--home", str(file / "home"))
    assert done.returncode == 1
    assert str(file) in done.stderr
    assert "--home" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["broker", "--kind", "embedded", "--port", "0"], "broker/credentials.lock"),
        (["broker", "credential", "add", "city/one"], "broker/credentials.lock"),
        (["platform", "--port", "0"], "platform/lock"),
        (["bridge"], "bridge/bridge.lock"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_file_that_can_not_be_used_is_named(tmp_path: Path, arguments: list[str], file: str) -> None:
    (tmp_path / file).mkdir(parents=True)  # as good as another user's, for whoever runs the tests
    done = _lamppost(*arguments, "--home", str(tmp_path))
    assert done.returncode == 1
    assert file in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "file", "content"),
    [
        (["broker", "credential", "add", "city/one"], "broker/address.json", "[]"),
        (["audit"], "platform/address.json", '"x"'),
        (["platform", "--port", "0"], "platform/token", "\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_file_with_something_else_in_it_is_no_traceback(
    tmp_path: Path, arguments: list[str], file: str, content: str
) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(content)
    done = _lamppost(*arguments, "--home", str(tmp_path))
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if "credential" in arguments else 1)


def test_completion_lists_the_commands() -> None:
    done = _lamppost(_LAMPPOST_COMPLETE="bash_complete", COMP_WORDS="lamppost b", COMP_CWORD="1")
    assert "broker" in done.stdout
    assert "bridge" in done.stdout


def test_no_colour_codes_outside_a_terminal() -> None:
    assert "\x1b[" not in _lamppost("--help").stdout


def test_help_loads_no_service() -> None:
    code = "import sys; import lamppost_host.cli; print([m for m in ('starlette', 'paho', 'httpx', 'lark', 'sqlite3') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
