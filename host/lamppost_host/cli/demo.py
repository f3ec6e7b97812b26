"""`lamppost demo`."""

import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import rich_click as click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from lamppost_host.demo import Demo, Latest
from lamppost_host.errors import LamppostError

_PREFERRED_PORT = 8080
_REFRESH_S = 0.5


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _table(latest: Latest) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading, justify in (
        ("node", "left"),
        ("Datastream", "left"),
        ("latest", "right"),
        ("latency", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for reading in latest.readings():
        table.add_row(
            reading.node,
            reading.datastream,
            f"{reading.result:g} {reading.unit}",
            f"{reading.latency_ms:.0f} ms",
        )
    return table


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(min=1), help="Stop by itself after so long. Without it: at Ctrl-C."
)
@click.option(
    "--nodes", type=click.IntRange(1, 50), default=3, show_default=True, help="How many virtual nodes."
)
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Seconds between readings.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="The page's port. Without it: 8080, or a free one."
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work in this folder, and leave it behind.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the account as one JSON object, as the last line."
)
def command(
    seconds: float | None, nodes: int, every: float, port: int | None, keep: Path | None, as_json: bool
) -> None:
    """Broker, platform, bridge and virtual nodes in one command.

    Everything lives in a temporary folder and on loopback, and is gone when the demo ends. Exit code 0: every reading that the
    nodes took was stored, once. 1: it was not, or something failed.
    """
    if port is None:
        port = _PREFERRED_PORT if _free(_PREFERRED_PORT) else 0
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        account = _run(keep, seconds, nodes, every, port, stop, as_json)
    else:
        with tempfile.TemporaryDirectory(prefix="lamppost-demo-", ignore_cleanup_errors=True) as folder:
            account = _run(Path(folder), seconds, nodes, every, port, stop, as_json)
    if as_json:
        click.echo(orjson.dumps(account).decode())
    else:
        click.echo(
            f"sampled {account['sampled']}, stored {account['stored']}, lost {account['lost']}, "
            f"duplicates {account['duplicates']}; latency {account['latency_ms']['p50']:.0f} ms in the median"
        )
    exactly_once = account["stored"] == account["sampled"] and account["lost"] == account["duplicates"] == 0
    sys.exit(0 if exactly_once else 1)


def _run(
    folder: Path,
    seconds: float | None,
    nodes: int,
    every: float,
    port: int,
    stop: threading.Event,
    as_json: bool,
) -> dict[str, Any]:
    # What a program reads is on stdout, so what a person watches goes to stderr then.
    console = Console(stderr=as_json)
    demo = Demo(folder, nodes, every, port)
    try:
        with console.status("starting") as status:
            demo.start(lambda step: _tell(console, status, step), stop)
        if demo.latest is None:
            raise LamppostError("the demo did not start")
        console.print(f"[bold]Lamppost demo[/]: {nodes} virtual nodes, a reading every {every:g} s")
        console.print(f"  page  {demo.page_url}", highlight=False)
        console.print(
            "  stop  Ctrl-C" if seconds is None else f"  stop  Ctrl-C, or in {seconds:g} s", highlight=False
        )
        _watch(console, demo, seconds, stop)
        console.print("stopping: each node sends what it has")
        return demo.stop()
    finally:
        demo.close()


def _tell(console: Console, status: Any, step: str) -> None:
    if console.is_terminal:
        status.update(step)
    else:
        console.print(step)


def _watch(console: Console, demo: Demo, seconds: float | None, stop: threading.Event) -> None:
    """Show readings until it is time to stop: a table that is drawn anew on a terminal, else one line at the end."""
    latest = demo.latest
    if latest is None:
        return
    waited = 0.0
    if not console.is_terminal:
        while not stop.wait(_REFRESH_S) and (seconds is None or (waited := waited + _REFRESH_S) < seconds):
            demo.check()
        console.print(_table(latest))
        return
    with Live(_table(latest), console=console, auto_refresh=False) as live:
        while not stop.wait(_REFRESH_S) and (seconds is None or (waited := waited + _REFRESH_S) < seconds):
            demo.check()
            live.update(_table(latest), refresh=True)
