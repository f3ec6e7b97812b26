"""`lamppost bridge`: carry readings from MQTT into the platforms; say how far they have come."""

import json
import logging
import os
from pathlib import Path

import rich_click as click

from lamppost_host.bridge import locate, report
from lamppost_host.bridge.intake import CLIENT_ID
from lamppost_host.bridge.supervisor import Bridge, Settings
from lamppost_host.errors import LamppostError
from lamppost_host.home import Home, announce_ready

_FILE = click.Path(path_type=Path, dir_okay=False)
_HOME = click.Path(path_type=Path, file_okay=False)


@click.group(invoke_without_command=True)
@click.option(
    "--home", type=_HOME, help="Folder of this installation; broker and platform are found there, too."
)
@click.option("--broker", metavar="HOST[:PORT]", help="Another broker than the one of this home.")
@click.option("--user", help="User name at that broker.")
@click.option("--password-file", type=_FILE, help="File with the password, in one line.")
@click.option("--tls", is_flag=True, help="Speak TLS with it.")
@click.option("--ca", type=_FILE, help="Certificates (PEM) to trust instead of the system's; implies --tls.")
@click.option("--platform", metavar="URL", help="Another SensorThings service than the one of this home.")
@click.option("--token-file", type=_FILE, help="File with its bearer token.")
@click.option(
    "--name", default=CLIENT_ID, show_default=True, help="MQTT client id; the broker keeps what comes for it."
)
@click.option("--ready-file", type=_FILE, help="Written as JSON when the bridge is subscribed.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.pass_context
def command(
    context: click.RichContext,
    /,
    home: Path | None,
    broker: str | None,
    user: str | None,
    password_file: Path | None,
    tls: bool,
    ca: Path | None,
    platform: str | None,
    token_file: Path | None,
    name: str,
    ready_file: Path | None,
    log_level: str,
) -> None:
    """Run the bridge until SIGTERM or Ctrl-C.

    It waits for a broker or a platform that is away, and goes on where it was. It ends at once if the broker refuses its password when it starts.
    """
    context.obj = place = Home(home) if home else Home.default()
    if context.invoked_subcommand is not None:
        return
    if broker is None and (user or password_file or tls or ca):
        raise LamppostError(
            "--user, --password-file, --tls and --ca belong to --broker", "Name the broker with --broker."
        )
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings(
        folder=place.bridge,
        find_broker=locate.find_broker(place, broker, user, password_file, tls, ca),
        sinks=[locate.sensorthings_sink(place, platform, token_file)],
        log_level=log_level.upper(),
        client_id=name,
    )
    Bridge(settings, on_ready=lambda: announce_ready(ready_file, pid=os.getpid())).run()


@command.command()
@click.option("--home", "own_home", type=_HOME, help="Folder of this installation.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def status(home: Home, own_home: Path | None, as_json: bool) -> None:
    """Show what came in, how far each sink is, and what went wrong."""
    found = report.status((Home(own_home) if own_home else home).bridge)
    if as_json:
        click.echo(json.dumps(found))
        return
    for line in report.status_lines(found):
        click.echo(line)


@command.command("dead-letters")
@click.option("--home", "own_home", type=_HOME, help="Folder of this installation.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1), help="How many, the newest first."
)
@click.pass_obj
def dead_letters(home: Home, own_home: Path | None, as_json: bool, limit: int) -> None:
    """List what could not be used, or was refused by a platform, with the reason."""
    found = report.dead_letters((Home(own_home) if own_home else home).bridge, limit)
    if as_json:
        click.echo(json.dumps(found))
        return
    for line in report.dead_letter_lines(found):
        click.echo(line)
