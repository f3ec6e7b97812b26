"""`lamppost broker`: run the MQTT broker, and keep its credentials."""

import json
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import rich_click as click

from lamppost_host.broker import BRIDGE_USER, Credentials, RunningBroker, read_address, start_broker
from lamppost_host.errors import LamppostError
from lamppost_host.home import Home, announce_ready

_FILE = click.Path(path_type=Path, dir_okay=False)
_HOME = click.Path(path_type=Path, file_okay=False)
_LEVELS = click.Choice(["debug", "info", "warning", "error"])


@click.group(invoke_without_command=True)
@click.option("--home", type=_HOME, help="Folder of this installation.")
@click.option(
    "--port", default=1883, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 for a network's nodes.",
)
@click.option(
    "--kind",
    type=click.Choice(["auto", "mosquitto", "embedded"]),
    default="auto",
    show_default=True,
    help="auto: Mosquitto where it is installed, else the embedded one (this machine only).",
)
@click.option("--cert", type=_FILE, help="Certificate chain (PEM): listen with TLS.")
@click.option("--key", type=_FILE, help="Its private key (PEM).")
@click.option("--ready-file", type=_FILE, help="Written as JSON when the broker takes connections.")
@click.option("--log-level", type=_LEVELS, default="info", show_default=True)
@click.pass_context
def command(context: click.RichContext, /, home: Path | None, log_level: str, **options: Any) -> None:
    """Run the MQTT broker until SIGTERM or Ctrl-C.

    Every connection needs a credential, and a node's reaches its own topics only (with Mosquitto; the embedded broker has no access list).
    """
    context.obj = Home(home) if home else Home.default()
    if context.invoked_subcommand is not None:
        return
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _run(context.obj, **options)


def _run(home: Home, ready_file: Path | None, **options: Any) -> None:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with start_broker(home.broker, **options) as broker:
        scheme = "mqtts" if broker.tls else "mqtt"
        url = f"{scheme}://{broker.connect_host}:{broker.port}"
        announce_ready(
            ready_file, url=url, host=broker.connect_host, port=broker.port, kind=broker.kind, pid=broker.pid
        )
        _wait(broker, stopping)


def _wait(broker: RunningBroker, stopping: threading.Event) -> None:
    while not stopping.wait(0.2):
        if not broker.alive():
            raise LamppostError(
                f"the broker ({broker.kind}) ended with exit code {broker.wait(0)}. The end of {broker.log_path}:",
                broker.log_end(5) or "(nothing)",
            )


@command.group()
def credential() -> None:
    """Make, remove and list the credentials of nodes."""


_own_home = click.option("--home", "own_home", type=_HOME, help="Folder of this installation.")


@credential.command()
@click.argument("user", metavar="TENANT/NODE")
@click.option(
    "--out",
    type=_FILE,
    help='Write the "broker" entry for the node\'s node.json, readable by its owner only.',
)
@click.option("--show", is_flag=True, help="Print the password.")
@click.option("--host", help="The broker's address as the node sees it (default: as this machine does).")
@_own_home
@click.pass_obj
def add(home: Home, user: str, out: Path | None, show: bool, host: str | None, own_home: Path | None) -> None:
    """Make a credential for TENANT/NODE."""
    home = Home(own_home) if own_home else home
    if user == BRIDGE_USER:
        raise LamppostError(
            "the bridge has its credential from the broker's first start", "Name a node, TENANT/NODE."
        )
    credentials = Credentials(home.broker)
    address = _address(home)
    if out is not None and out.exists():
        raise LamppostError(f"{out} exists", "Choose another file with --out, or delete it.")
    entry: dict[str, Any] = {
        "host": host or address["host"],
        "port": address["port"],
        "user": user,
        "tls": "cert" in address,
    }
    password = credentials.add(user)
    if out is not None:
        try:
            _write_new_secret(out, json.dumps(entry | {"password": password}, indent=1) + "\n")
        except OSError as error:
            credentials.remove(user)
            raise LamppostError(
                f"can't write {out}: {error.strerror}", "Choose another file with --out."
            ) from error
        click.echo(f'{user} may connect; merge {out} into the "broker" entry of its node.json.')
    elif not show:
        click.echo(f"{user} may connect; its password is in {credentials.path}.")
    if show:
        click.echo(password)
    _tell_when(address)


@credential.command()
@click.argument("user", metavar="TENANT/NODE")
@_own_home
@click.pass_obj
def remove(home: Home, user: str, own_home: Path | None) -> None:
    """Take the credential of TENANT/NODE back."""
    home = Home(own_home) if own_home else home
    if user == BRIDGE_USER:
        raise LamppostError("the bridge can't do without its credential", "Name a node, TENANT/NODE.")
    Credentials(home.broker).remove(user)
    click.echo(f"{user} may not connect any more.")
    _tell_when(_address(home))


@credential.command("list")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
@_own_home
@click.pass_obj
def list_(home: Home, as_json: bool, own_home: Path | None) -> None:
    """List who has a credential; passwords are not shown."""
    home = Home(own_home) if own_home else home
    users = [user for user in Credentials(home.broker).users() if user != BRIDGE_USER]
    if as_json:
        click.echo(json.dumps(users))
    else:
        for user in users:
            click.echo(user)


def _address(home: Home) -> dict[str, Any]:
    try:
        return read_address(home.broker)
    except LamppostError:
        return {"host": "127.0.0.1", "port": 1883, "kind": "mosquitto"}


def _tell_when(address: dict[str, Any]) -> None:
    if address["kind"] == "embedded":
        click.echo(
            "The embedded broker learns of it when it starts the next time: stop and start `lamppost broker`.",
            err=True,
        )
    else:
        click.echo("A running broker learns of it within a second.", err=True)


def _write_new_secret(path: Path, text: str) -> None:
    """Make a file only its owner can read; OSError if it exists."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
