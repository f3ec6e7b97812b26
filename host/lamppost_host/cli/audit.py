"""`lamppost audit`: compare what nodes say they took with what the platform holds."""

import json
import sys
from pathlib import Path

import rich_click as click

from lamppost_host.audit import audit, lines
from lamppost_host.errors import LamppostError
from lamppost_host.home import Home


@click.command()
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="Folder of this installation.")
@click.option("--platform", metavar="URL", help="Another SensorThings service than the one of this home.")
@click.option("--node", metavar="TENANT/NODE", help="Only this node.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(home: Path | None, platform: str | None, node: str | None, as_json: bool) -> None:
    """Compare what nodes say they took with what the platform holds, and name every gap.

    Exit code 0: every reading taken is stored, once. 1: something is lost, doubled or unexplained. 3: nothing is, but something is still on its way.
    """
    place = Home(home) if home else Home.default()
    found = audit(place, platform=platform, node=node)
    if node is not None and not found.nodes:
        raise LamppostError(
            f"the bridge has never heard of {node}", "`lamppost audit` without --node lists all."
        )
    if as_json:
        click.echo(json.dumps(found.document()))
    else:
        for line in lines(found):
            click.echo(line)
    sys.exit(found.exit_code)
