"""The embedded broker, `iotcore` (rumqttd inside): what it is told. embedded_child.py is the process that it runs in.

It knows passwords but no access list: every user may read and write every topic. That's why it listens on loopback only. It forgets
sessions, retained messages and what it queued when it stops; the nodes send again what no `mark` has confirmed.
"""

import json
from pathlib import Path

from lamppost_host.broker.credentials import Credentials
from lamppost_host.errors import LamppostError
from lamppost_host.home import write_secret

LOOPBACK = ("127.0.0.1", "localhost")

# It drops a client that sends more. Twice the largest message that WIRE.md allows, and room for the topic.
_MESSAGE_BYTES = 20_480
# Unacknowledged messages a client: what the bridge may have between two commits.
_IN_FLIGHT = 500
# What it keeps for a subscriber that is away (a log a topic filter): 100 MB. Then the oldest go without a word, though they were
# acknowledged; the nodes send them again, as no `mark` covers them.
_SEGMENT_BYTES = 10 * 1024 * 1024
_SEGMENTS = 10


def check_host(host: str) -> None:
    """LamppostError unless `host` is this machine alone."""
    if host not in LOOPBACK:
        raise LamppostError(
            f"the embedded broker does not listen on {host}: it has no access list, so any node could pose as any other",
            "Install Mosquitto (`apt-get install mosquitto`) for nodes on a network, or leave --host away.",
        )


def write_config(folder: Path, credentials: Credentials, port: int) -> Path:
    """Write rumqttd's configuration, passwords included, for its owner's eyes only; its path."""
    users = "".join(
        f"{json.dumps(user)} = {json.dumps(password)}\n" for user, password in credentials.all().items()
    )
    path = folder / "embedded.toml"
    write_secret(
        path,
        f"""# Written by `lamppost broker` at every start: changes are lost.
id = 0

[router]
id = 0
max_connections = 1010
max_outgoing_packet_count = 200
max_segment_size = {_SEGMENT_BYTES}
max_segment_count = {_SEGMENTS}

[v4.1]
name = "v4-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v4.1.connections]
connection_timeout_ms = 10000
max_payload_size = {_MESSAGE_BYTES}
max_inflight_count = {_IN_FLIGHT}
dynamic_filters = true

[v4.1.connections.auth]
{users}""",
    )
    return path
