"""Mosquitto: finding it, and writing what it is told.

Anonymous access is off. A node's user name is `tenant/node`, and the access list gives it its own topics only (firmware/WIRE.md,
"Topics"); the bridge reads what nodes write and writes what they read. Nobody may do anything else.
"""

import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

from lamppost_host.broker.credentials import BRIDGE_USER, Credentials
from lamppost_host.errors import LamppostError
from lamppost_host.home import write_atomically

INSTALL = "Install it with `apt-get install mosquitto` or `brew install mosquitto`"

_NODE_WRITES = ("about", "obs", "status", "ask", "log", "reply")
_HOST_WRITES = ("mark", "time", "cmd")

# A client that sends a larger packet is disconnected. Twice the largest message that WIRE.md allows.
_PACKET_BYTES = 16_384


def find_mosquitto() -> str | None:
    """The path of Mosquitto, or None: LAMPPOST_MOSQUITTO, else on the PATH, else where packages put it (which a user's PATH may lack)."""
    named = os.environ.get("LAMPPOST_MOSQUITTO")
    if named is not None:
        return shutil.which(named) if named else None
    return shutil.which("mosquitto") or shutil.which(
        "mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:/opt/homebrew/bin"
    )


def check_version(program: str) -> None:
    """LamppostError unless `program` is Mosquitto 2 or later: before, it had other password hashes, and anonymous access by default."""
    try:
        done = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise LamppostError(f"can't run {program}: {error}", INSTALL + ".") from error
    found = re.search(r"mosquitto version (\d+)\.(\d+)", done.stdout)
    if found is None or int(found[1]) < 2:
        version = ".".join(found.groups()) if found else "of unknown version"
        raise LamppostError(
            f"{program} is Mosquitto {version}; Lamppost needs 2.0 or later",
            INSTALL + ", or use `--kind embedded` on this machine alone.",
        )


def write_config(
    folder: Path, credentials: Credentials, host: str, port: int, cert: Path | None, key: Path | None
) -> Path:
    """Write the configuration, the access list and the password file into `folder`; the configuration's path."""
    if "\n" in str(folder):
        raise LamppostError(
            "the home folder's name has a line break, which Mosquitto's configuration can't hold"
        )
    credentials.write_mosquitto()
    access = folder / "access"
    write_atomically(access, _access_list(), 0o600)
    lines = [
        "# Written by `lamppost broker` at every start: changes are lost.",
        f"listener {port} {host}",
        "set_tcp_nodelay true",
        "allow_anonymous false",
        f"password_file {credentials.mosquitto_path}",
        f"acl_file {access}",
        # The default keeps 1,000 messages for a bridge that is away, and drops the rest after acknowledging them. 0 means no bound, but
        # some releases also compare it with what waits to be sent, and then end connections or stall (eclipse-mosquitto/mosquitto
        # issue 3088; 2.0.11 ends a connection at a publish that the access list denies).
        "max_queued_messages 1000000000",
        "max_queued_bytes 0",
        # The bridge commits hundreds of frames at a time, and acknowledges them after.
        "max_inflight_messages 1000",
        f"max_packet_size {_PACKET_BYTES}",
        # What a kill loses between two saves is sent again by the nodes (WIRE.md, "Confirmation"), so saving at each change, at
        # a fifth of the speed, would buy nothing.
        "persistence true",
        f"persistence_location {folder}/",
        "persistence_file mosquitto.db",
        "autosave_interval 60",
        # A node that was taken down, or a bridge that was replaced, leaves a session that queues for ever. Two months outlast any
        # repair; what it held is still in the nodes' journals if it was not confirmed.
        "persistent_client_expiration 2m",
        "log_dest stdout",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages true",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
    ]
    if cert is not None and key is not None:
        lines[2:2] = [f"certfile {cert}", f"keyfile {key}", "tls_version tlsv1.2"]
    if os.geteuid() == 0:
        # Else it would turn into the user `mosquitto`, who can't read our files.
        lines.append(f"user {pwd.getpwuid(0).pw_name}")
    path = folder / "mosquitto.conf"
    write_atomically(path, "\n".join(lines) + "\n", 0o600)
    return path


def _access_list() -> str:
    """Patterns for the nodes: `%u` is the user name, `tenant/node`, so the file need not change when a node comes or goes."""
    lines = [f"user {BRIDGE_USER}"]
    lines += [f"topic read lamppost/1/+/+/{kind}" for kind in _NODE_WRITES]
    lines += [f"topic write lamppost/1/+/+/{kind}" for kind in _HOST_WRITES]
    lines += [f"pattern write lamppost/1/%u/{kind}" for kind in _NODE_WRITES]
    lines += [f"pattern read lamppost/1/%u/{kind}" for kind in _HOST_WRITES]
    return "\n".join(lines) + "\n"
