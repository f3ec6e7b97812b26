"""`lamppost platform`: the embedded SensorThings service and its page."""

import logging
from pathlib import Path

import rich_click as click

from lamppost_host.home import Home

_LEVELS = ["debug", "info", "warning", "error"]


@click.command("platform")
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), help="Folder of this installation.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 for a network's clients.",
)
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 picks a free one.",
)
@click.option(
    "--root-url", help="The service's root as clients see it behind a proxy: https://city.example/v1.1"
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Written as JSON when requests are taken.",
)
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True)
def command(
    home: Path | None, host: str, port: int, root_url: str | None, ready_file: Path | None, log_level: str
) -> None:
    """Serve OGC SensorThings 1.1 from a SQLite file, with a live page at /.

    Anyone who reaches the port can read; writing needs the token in HOME/platform/token.
    """
    # Imported here: other commands start without a web server's weight.
    from lamppost_host.platform import serve

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    where = Home(home) if home is not None else Home.default()
    serve(
        where,
        host,
        port,
        ready_file=ready_file,
        root_url=root_url,
        ready=lambda base: click.echo(f"The page is at {base}/ and SensorThings at {base}/v1.1"),
    )
