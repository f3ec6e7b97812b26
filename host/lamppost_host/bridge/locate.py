"""Where a bridge finds its broker and its platform: what the options say, else what they left in the same home."""

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from lamppost_host.bridge.intake import BrokerAccess
from lamppost_host.bridge.sinks import SinkSpec
from lamppost_host.broker import BRIDGE_USER, Credentials, read_address
from lamppost_host.errors import LamppostError
from lamppost_host.home import Home, read_object

DEFAULT_PORT = 1883
DEFAULT_TLS_PORT = 8883


def parse_broker(text: str, tls: bool) -> tuple[str, int]:
    """(host, port) of `host`, `host:port`, `[v6]:port`."""
    host, colon, port = text.rpartition(":")
    if not colon or (text.count(":") > 1 and "]" not in text) or port.endswith("]"):
        return text.strip("[]"), DEFAULT_TLS_PORT if tls else DEFAULT_PORT
    if not port.isdigit() or not 0 < int(port) < 65536 or not host:
        raise LamppostError(f"{text!r} is not HOST:PORT", "For example localhost:1883")
    return host.strip("[]"), int(port)


def find_broker(
    home: Home, broker: str | None, user: str | None, password_file: Path | None, tls: bool, ca: Path | None
) -> Callable[[], BrokerAccess]:
    """What says, before every connection, where the broker is. With `broker` it is that one; else the one of this home."""
    tls = tls or ca is not None
    if broker is None:
        return lambda: _home_broker(home)
    host, port = parse_broker(broker, tls)

    def named() -> BrokerAccess:
        password = None if password_file is None else _first_line(password_file)
        return BrokerAccess(host, port, user, password, tls, ca)

    if ca is not None and not os.access(ca, os.R_OK):
        raise LamppostError(f"can't read {ca}", "--ca names a PEM file with the certificates to trust.")
    named()  # a file that can't be read is an error now; later it is waited for
    return named


def _home_broker(home: Home) -> BrokerAccess:
    address = read_address(home.broker)
    certificate = address.get("cert")
    return BrokerAccess(
        address["host"],
        address["port"],
        BRIDGE_USER,
        Credentials(home.broker).get(BRIDGE_USER),
        tls=certificate is not None,
        ca=Path(certificate) if certificate else None,
        pinned=True,
    )


def sensorthings_sink(
    home: Home, url: str | None, token_file: Path | None, name: str = "sensorthings"
) -> SinkSpec:
    """The SensorThings sink: on `url`, else on the platform of this home."""
    settings: dict[str, str] = {}
    if token_file is not None and not os.access(token_file, os.R_OK):
        raise LamppostError(
            f"can't read {token_file}", "--token-file names a file with the platform's bearer token."
        )
    if url is not None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise LamppostError(
                f"{url!r} is not the URL of a SensorThings service", "For example http://127.0.0.1:8080/v1.1"
            )
        settings["url"] = url
        if token_file is not None:
            settings["token_file"] = str(token_file.absolute())
    else:
        settings["address_file"] = str((home.platform / "address.json").absolute())
        settings["token_file"] = str((token_file or home.platform / "token").absolute())
    return SinkSpec(name, "sensorthings", settings)


def platform_url(home: Home) -> str:
    """Where the platform of this home is; LamppostError when none has run."""
    path = home.platform / "address.json"
    try:
        return str(read_object(path)["url"])
    except (OSError, ValueError, KeyError) as error:
        raise LamppostError(
            f"no platform has run in {home.platform}",
            "Start one with `lamppost platform`, or name one with --platform.",
        ) from error


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").splitlines()[0].strip()
    except OSError as error:
        raise LamppostError(
            f"can't read {path}: {error.strerror}", "It should hold the password, in one line."
        ) from error
    except IndexError:
        raise LamppostError(f"{path} is empty", "It should hold the password, in one line.") from None
