"""The command `lamppost`. Each command is a file here, loaded when it is asked for, so that `--help` and completion stay quick."""

import importlib
import os
import sys

import rich_click as click

from lamppost_host import __version__
from lamppost_host.errors import LamppostError
from lamppost_host.parent import END_WITH_PARENT, end_with_parent

_COMMANDS = {
    "demo": "Broker, platform, bridge and virtual nodes in one command.",
    "broker": "Run the MQTT broker; keep the nodes' credentials.",
    "platform": "Run the embedded SensorThings service and its page.",
    "bridge": "Carry readings from MQTT into the platform.",
    "audit": "Compare what nodes took with what the platform holds.",
}


class _LazyGroup(click.RichGroup):
    """Lists commands from a table, and loads the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """What help and completion list: the name and a line, without loading the command."""
        line = _COMMANDS.get(cmd_name)
        return None if line is None else click.Command(cmd_name, help=line)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is to run, loaded."""
        name, listed, rest = super().resolve_command(ctx, args)
        if name is None or listed is None:
            return name, listed, rest
        command: click.Command = importlib.import_module(f"lamppost_host.cli.{name}").command
        command.name = name
        return name, command, rest


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
        _tell(error.message, error.remedy)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone. Point stdout at nothing, so that the interpreter's last flush stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        # What no command foresaw: a file of the home that is another user's, a disk that is full.
        what = f"can't use {error.filename}" if error.filename else "the system refuses"
        _tell(f"{what}: {error.strerror or error}", "Is there room, and does the file belong to this user?")
        sys.exit(1)
    except Exception as error:
        sqlite3 = sys.modules.get("sqlite3")  # loaded by the commands that need it
        if sqlite3 is None or not isinstance(error, sqlite3.Error):
            raise
        _tell(f"a database can't be used: {error}", "Is the disk full, or a file in the home damaged?")
        sys.exit(1)


def _tell(message: str, remedy: str) -> None:
    click.secho(f"lamppost: {message}", fg="red", err=True)
    if remedy:
        click.echo(remedy, err=True)
