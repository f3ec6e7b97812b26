"""The command `lamppost`. Each command is a file here, loaded when it is asked for, so that `--help` and completion stay quick."""

import importlib
import os
import sys

import rich_click as click

from lamppost_host import __version__
from lamppost_host.errors import LamppostError
from lamppost_host.parent import END_WITH_PARENT, end_with_parent

_COMMANDS = {
    "demo": "broker, platform, bridge and virtual nodes in one command",
    "broker": "run the MQTT broker, and keep its credentials",
    "platform": "run the embedded SensorThings service and its page",
    "bridge": "carry readings from MQTT into the platform",
    "audit": "compare what nodes took with what the platform holds",
}


class _LazyGroup(click.RichGroup):
    """Lists commands from a table, and imports the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"lamppost_host.cli.{cmd_name}")
        command: click.Command = module.command
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lamppost")
def lamppost() -> None:
    """From a sensor on a street to a city's data platform."""


def main() -> None:
    """Run the command line; show a LamppostError as two lines, never as a traceback."""
    if os.environ.pop(END_WITH_PARENT, None):
        end_with_parent()
    try:
        lamppost(prog_name="lamppost")
    except LamppostError as error:
        click.secho(f"lamppost: {error.message}", fg="red", err=True)
        if error.remedy:
            click.echo(error.remedy, err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone. Point stdout at nothing, so that the interpreter's last flush stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
