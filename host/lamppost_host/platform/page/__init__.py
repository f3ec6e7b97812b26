"""The page at `/`: static files of ours, and Leaflet from the wheel that brings it."""

import importlib.util
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Router
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from lamppost_host.errors import LamppostError

_FILES = Path(__file__).parent / "static"
_HEADERS = {
    # No script, style, image or connection but our own; Leaflet positions its layers by inline style attributes.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def leaflet_folder() -> Path:
    """Where the wheel django-js-lib-leaflet put Leaflet. It is found, not imported: importing it needs Django."""
    spec = importlib.util.find_spec("js_lib_leaflet")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(place) / "static" / "js_lib_leaflet"
        if (folder / "leaflet.js").is_file():
            return folder
    raise LamppostError(
        "Leaflet, which draws the map, is not installed", "Run: python -m pip install django-js-lib-leaflet"
    )


class _Files(StaticFiles):
    """Static files with the page's security headers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers") or [])  # type: ignore[call-overload]
                headers += [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": headers}
            await send(message)

        await super().__call__(scope, receive, with_headers)  # type: ignore[arg-type]


async def index(_: Request) -> Response:
    return FileResponse(_FILES / "index.html", headers=_HEADERS, media_type="text/html; charset=utf-8")


def files() -> Router:
    return Router(
        routes=[Mount("/leaflet", _Files(directory=leaflet_folder())), Mount("/", _Files(directory=_FILES))]
    )


__all__ = ["files", "index", "leaflet_folder"]
