"""The node's two documents: about and status (WIRE.md)."""

import gc
import sys
from binascii import crc32, hexlify

from .msgpack import pack

SDK_VERSION = "0.1.0"
MAX_ABOUT = 4096
MAX_STATUS = 2048


def make_about(config, columns):
    """The about document and its revision. `columns`: (key, Datastream, model, sensor_id or None) in the order of the frames' columns.

    Raises ValueError if it is longer than the wire contract allows.
    """
    streams = []
    for key, stream, model, sensor_id in columns:
        described = {
            "key": key,
            "property": stream.property,
            "unit": stream.unit,
            "decimals": stream.decimals,
            "sensor": model,
        }
        if sensor_id:
            described["sensor_id"] = sensor_id
        streams.append(described)
    version = sys.implementation[1]
    about = {
        "v": 1,
        "name": config["name"],
        "datastreams": streams,
        "board": config["board"],
        "hardware": _hardware(),
        "sdk": SDK_VERSION,
        "micropython": ".".join([str(part) for part in version[:3]]),
    }
    for key in ("description", "location", "place", "properties"):
        if config.get(key) is not None:
            about[key] = config[key]
    document = pack(about)
    if len(document) > MAX_ABOUT:
        raise ValueError(
            "the about document takes {} bytes, {} at most: shorten description, place or properties".format(
                len(document), MAX_ABOUT
            )
        )
    return document, crc32(document)


def _hardware():
    try:
        import machine

        return hexlify(machine.unique_id()).decode()
    except (ImportError, AttributeError):
        return ""  # the bare unix port has none


def make_status(state, journal, faults, at_risk, uptime):
    """The status document. `faults`: datastream key -> failed reads; what else, see WIRE.md."""
    drops = journal.drops
    while True:
        status = {
            "v": 1,
            "state": state,
            "boot": journal.boot,
            "seq": journal.seq,
            "taken": journal.taken,
            "pending": journal.pending,
            "dropped": journal.dropped,
            "drops": drops,
            "refused": journal.refused,
            "faults": faults,
            "cuts": journal.cuts,
            "at_risk": at_risk,
            "uptime": uptime,
            "heap": gc.mem_free(),
            "reset": _reset_cause(),
        }
        document = pack(status)
        if len(document) <= MAX_STATUS or not drops:
            return document
        drops = drops[1:]


def make_will():
    """What the broker publishes as the status when it loses the node."""
    return pack({"v": 1, "state": "lost"})


def _reset_cause():
    try:
        import machine

        cause = machine.reset_cause()
        for name in ("PWRON_RESET", "HARD_RESET", "WDT_RESET", "DEEPSLEEP_RESET", "SOFT_RESET"):
            if getattr(machine, name, None) == cause:
                return name[:-6].lower()
    except (ImportError, AttributeError):
        pass  # the bare unix port has none
    return "unknown"
