"""A broker as a child process: started, known to be ready, stopped, killed, started again."""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from lamppost_host.broker import embedded, mosquitto
from lamppost_host.broker.credentials import BRIDGE_USER, Credentials
from lamppost_host.broker.probe import connect_code
from lamppost_host.errors import LamppostError
from lamppost_host.home import read_object, write_atomically

Kind = Literal["mosquitto", "embedded"]

log = logging.getLogger("lamppost.broker")

READY_TIMEOUT_S = 15.0
_STOP_TIMEOUT_S = 15.0
# A broker whose starter was killed needs a moment to end.
_PORT_TIMEOUT_S = 3.0
_POLL_S = 0.02
_LOG_BYTES = 1_000_000
_REFUSED = (4, 5)


class RunningBroker:
    """A broker that takes connections at `host`:`port`. A context manager: leaving it stops the broker."""

    def __init__(
        self, folder: Path, kind: Kind, host: str, port: int, cert: Path | None, key: Path | None
    ) -> None:
        self.folder = folder
        self.kind: Kind = kind
        self.host = host
        self.port = port
        self.credentials = Credentials(folder)
        self.log_path = folder / f"{kind}.log"
        self.pid = 0
        """The process id of the broker itself."""
        self._cert = cert
        self._key = key
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def connect_host(self) -> str:
        """Where a client on this machine finds it."""
        return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104

    @property
    def tls(self) -> bool:
        """Whether clients must speak TLS."""
        return self._cert is not None

    def start(self, timeout: float = READY_TIMEOUT_S) -> None:
        """Start the broker and wait until it accepts the bridge's CONNECT. LamppostError says why it did not."""
        self.credentials.ensure(BRIDGE_USER)
        _wait_for_port(self.host, self.port)
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.stat().st_size > _LOG_BYTES:
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
        descriptor = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,  # it ends when this closes, so it never outlives us
                stdout=subprocess.PIPE,
                stderr=file,
                # Ctrl-C at a terminal is for us; we stop the broker in our own time.
                start_new_session=True,
            )
        try:
            self._await_ready(time.monotonic() + timeout)
        except BaseException:
            self.kill()
            raise
        address = {"host": self.connect_host, "port": self.port, "kind": self.kind}
        if self._cert is not None:
            address["cert"] = str(self._cert)
        write_atomically(self.folder / "address.json", json.dumps(address) + "\n")
        log.info("%s listens on %s port %d", self.kind, self.host, self.port)
        if self.kind == "embedded":
            log.warning(
                "the embedded broker has no access list: every credential reaches every topic, on this machine only"
            )

    def stop(self) -> None:
        """Stop the broker and wait for its end; it saves first what it can. Harmless when it has ended."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL to the broker itself: what a power cut does to it. Waits for its end."""
        process = self._process
        if process is None:
            return
        if self.pid and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
        if process.poll() is None:
            process.kill()
            process.wait()
        self._forget()

    def restart(self) -> None:
        """Stop it if it runs, and start it again on the same port with the same files."""
        self.stop()
        self.start()

    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the broker to end by itself; its exit code, or None after `timeout` seconds."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def admit(self, user: str, timeout: float = 5.0) -> str:
        """Add a credential while the broker runs, wait until it holds, and return the password. Mosquitto only."""
        if self.kind == "embedded":
            raise LamppostError(
                "the embedded broker learns of a new credential only when it starts",
                "Add it first, or start the broker again.",
            )
        password = self.credentials.add(user)
        os.kill(self.pid, signal.SIGHUP)
        deadline = time.monotonic() + timeout
        while self._code(user, password) != 0:
            if time.monotonic() > deadline:
                raise LamppostError(f"the broker does not take the new credential of {user}", self.log_end())
            time.sleep(_POLL_S)
        return password

    def log_end(self, lines: int = 12) -> str:
        """The last lines of the broker's log."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        if self.kind == "embedded":
            config = embedded.write_config(self.folder, self.credentials, self.port)
            return [sys.executable, "-m", "lamppost_host.broker.embedded_child", str(config)]
        program = mosquitto.find_mosquitto()
        if program is None:
            raise LamppostError(
                "Mosquitto is not installed",
                mosquitto.INSTALL + ", or use `--kind embedded` on this machine alone.",
            )
        mosquitto.check_version(program)
        config = mosquitto.write_config(
            self.folder, self.credentials, self.host, self.port, self._cert, self._key
        )
        keeper = [sys.executable, "-m", "lamppost_host.broker.keeper", str(self.credentials.mosquitto_path)]
        return [*keeper, program, "-c", str(config)]

    def _await_ready(self, deadline: float) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        self.pid = int(process.stdout.readline() or 0)  # ends with the process at the latest
        password = self.credentials.get(BRIDGE_USER)
        code = None
        while code != 0:
            if process.poll() is not None:
                raise LamppostError(
                    f"the broker ({self.kind}) ended with exit code {process.returncode} as it started",
                    self.log_end(),
                )
            if code in _REFUSED:
                raise LamppostError(
                    f"the broker ({self.kind}) refuses the password that it was given", self.log_end()
                )
            if time.monotonic() > deadline:
                raise LamppostError(f"the broker ({self.kind}) does not take connections", self.log_end())
            time.sleep(_POLL_S)
            code = self._code(BRIDGE_USER, password)

    def _code(self, user: str, password: str) -> int | None:
        return connect_code(self.connect_host, self.port, user, password, certificate=self._cert)

    def _forget(self) -> None:
        process = self._process
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._process = None
        self.pid = 0


def start_broker(
    folder: Path,
    kind: Kind | Literal["auto"] = "auto",
    port: int = 0,
    host: str = "127.0.0.1",
    cert: Path | None = None,
    key: Path | None = None,
) -> RunningBroker:
    """Start a broker with its files in `folder` (HOME/broker) and wait until it takes connections.

    `auto` is Mosquitto where it is installed. Port 0 picks a free one. `cert` and `key` (PEM files) make Mosquitto speak TLS. LamppostError
    says what is wrong: a port in use, no Mosquitto, a broker that ends at once.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if kind == "auto":
        kind = "embedded" if mosquitto.find_mosquitto() is None else "mosquitto"
        if kind == "embedded":
            log.info("Mosquitto is not installed: using the embedded broker")
    if (cert is None) != (key is None):
        raise LamppostError(
            "a certificate needs its key, and a key its certificate", "Give both --cert and --key."
        )
    for file in (cert, key):
        if file is not None and not os.access(file, os.R_OK):
            raise LamppostError(
                f"can't read {file}", "--cert and --key name PEM files that this user can read."
            )
    if kind == "embedded":
        embedded.check_host(host)
        if cert is not None:
            raise LamppostError(
                "the embedded broker speaks no TLS: it is for this machine alone", mosquitto.INSTALL + "."
            )
        host = "127.0.0.1"
    elif cert is None and not _is_loopback(host):
        log.warning("without --cert and --key, passwords and readings cross the network in clear")
    cert, key = cert and cert.absolute(), key and key.absolute()
    tries = 5 if port == 0 else 1
    while True:
        tries -= 1
        broker = RunningBroker(folder, kind, host, port or _free_port(host), cert, key)
        try:
            broker.start()
        except LamppostError:
            if not tries or "in use" not in broker.log_end(3).lower():
                raise  # else another program took the free port before the broker did
        else:
            return broker


def read_address(folder: Path) -> dict[str, Any]:
    """What the broker in `folder` (HOME/broker) last said of itself: `host`, `port`, `kind`, and `cert` when it speaks TLS."""
    try:
        address = read_object(folder / "address.json")
        return {"host": str(address["host"]), "port": int(address["port"]), "kind": address["kind"]} | address
    except FileNotFoundError as error:
        raise LamppostError(f"no broker has run in {folder}", "Start one with `lamppost broker`.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LamppostError(
            f"can't read {folder / 'address.json'}: {error}", "`lamppost broker` writes it when it starts."
        ) from error


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _bind(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        number: int = probe.getsockname()[1]
        return number


def _free_port(host: str) -> int:
    try:
        return _bind(host, 0)
    except OSError as error:
        raise LamppostError(
            f"can't listen on {host}: {error.strerror}", "--host names an address of this machine."
        ) from error


def _wait_for_port(host: str, port: int) -> None:
    deadline = time.monotonic() + _PORT_TIMEOUT_S
    while True:
        try:
            _bind(host, port)
        except PermissionError as error:
            raise LamppostError(
                f"this user may not listen on port {port}", "Choose one from 1024 with --port."
            ) from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise LamppostError(
                    f"can't listen on {host} port {port}: {error.strerror}",
                    "Choose another with --port. Debian starts a Mosquitto of its own with the package: "
                    "`systemctl disable --now mosquitto` stops it.",
                ) from error
            time.sleep(_POLL_S)
        else:
            return
