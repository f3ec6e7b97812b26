"""The host's half of the wire contract (`firmware/WIRE.md`, version 1): payloads to typed values, and back for what a host sends."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgpack

from lamppost_host.errors import LamppostError

VERSION: Final = 1
EPOCH_UNIX_MS: Final = 1_577_836_800_000
"""2020-01-01T00:00:00Z, where times on the wire begin, in Unix milliseconds."""

OBS_BYTES: Final = 8_192
ABOUT_BYTES: Final = 4_096
STATUS_BYTES: Final = 2_048
SMALL_BYTES: Final = 512

KINDS: Final = frozenset({"about", "obs", "status", "ask", "log", "reply", "mark", "time", "cmd"})
ROWS: Final = 255
BOOT_BYTES: Final = 8
VALUE: Final = 2**30 - 1
"""The largest magnitude of a value or a difference: a small integer on a 32-bit node."""

QUALITY_OUTSIDE_RANGE: Final = 1
QUALITY_TIME_UNCERTAIN: Final = 2

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_KEY = re.compile(r"[a-z0-9_-]{1,32}\Z")
_UINT32 = 2**32 - 1
# High and low nibble of each byte as differences; 8 is "missing".
_NIBBLE: Final[tuple[int | None, ...]] = tuple(None if n == 8 else n - 16 if n > 8 else n for n in range(16))


class WireError(LamppostError):
    """A payload or topic that this version does not know. `code` is the dead letter's reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Datastream:
    """One column's description: a value on the wire is `result × 10^decimals` in the UCUM `unit`."""

    key: str
    property: str
    unit: str
    decimals: int
    sensor: str
    sensor_id: str | None = None


@dataclass(frozen=True, slots=True)
class About:
    """How a node describes itself. `location` is (longitude, latitude) or with height: degrees WGS 84, metres."""

    revision: int
    name: str
    description: str
    location: tuple[float, ...] | None
    place: str | None
    datastreams: tuple[Datastream, ...]
    board: str
    hardware: str
    sdk: str
    micropython: str
    properties: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One batch of readings.

    `epoch_ms`: Unix milliseconds of row 0 where `dated`, else milliseconds since the boot. `offsets_ms`: each row's distance from row 0.
    `quality`: nothing, or one byte a row. `columns`: a list of `rows` scaled integers a datastream, from `first` on; None is missing.
    """

    about: int
    boot: bytes
    seq: int
    taken: int
    first: int
    rows: int
    dated: bool
    epoch_ms: int
    offsets_ms: list[int]
    quality: bytes | None
    interval_ms: int
    columns: list[list[int | None]]

    @property
    def readings(self) -> int:
        """Values that are not missing."""
        return sum(self.rows - column.count(None) for column in self.columns)


@dataclass(frozen=True, slots=True)
class Drop:
    """Frames `first` to `last` of a boot, which the node's journal dropped before the host confirmed them."""

    boot: bytes
    first: int
    last: int
    readings: int


@dataclass(frozen=True, slots=True)
class Status:
    """A node's counters. What a will leaves out is None: the last known value holds."""

    state: str
    boot: bytes | None = None
    seq: int | None = None
    taken: int | None = None
    pending: int | None = None
    dropped: int | None = None
    drops: tuple[Drop, ...] | None = None
    refused: int | None = None
    faults: dict[str, int] | None = None
    cuts: int | None = None
    at_risk: int | None = None
    uptime: int | None = None
    heap: int | None = None
    reset: str | None = None


def is_name(text: str) -> bool:
    """Whether `text` can name a tenant or a node."""
    return _NAME.match(text) is not None


def topic(tenant: str, node: str, kind: str) -> str:
    """The topic of one kind of message of one node."""
    if not (is_name(tenant) and is_name(node)) or kind not in KINDS:
        raise WireError("topic-unknown", f"no topic for {tenant!r}, {node!r}, {kind!r}")
    return f"lamppost/{VERSION}/{tenant}/{node}/{kind}"


def parse_topic(text: str) -> tuple[str, str, str]:
    """(tenant, node, kind) of a topic; WireError `version-unknown` or `topic-unknown`."""
    parts = text.split("/")
    if len(parts) != 5 or parts[0] != "lamppost":
        raise WireError("topic-unknown", f"{text!r} is no topic of this contract")
    if parts[1] != str(VERSION):
        raise WireError(
            "version-unknown", f"{text!r} is of wire version {parts[1]!r}; this host knows {VERSION}"
        )
    _, _, tenant, node, kind = parts
    if not (is_name(tenant) and is_name(node)) or kind not in KINDS:
        raise WireError("topic-unknown", f"{text!r} is no topic of this contract")
    return tenant, node, kind


def _refuse(code: str, message: str) -> NoReturn:
    raise WireError(code, message)


def _unpack(payload: bytes, limit: int) -> Any:
    if len(payload) > limit:
        _refuse("too-long", f"{len(payload)} bytes; at most {limit} are allowed")
    try:
        return msgpack.unpackb(payload, strict_map_key=False, use_list=True, raw=False)
    except msgpack.ExtraData:
        _refuse("trailing-bytes", "bytes follow the document")
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        # TypeError: a map key that can't be hashed; ValueError covers bad UTF-8 and nesting too deep.
        _refuse("not-messagepack", f"can't be read as MessagePack: {error or type(error).__name__}")


def _integer(value: Any, what: str, low: int, high: int) -> int:
    if type(value) is not int:
        _refuse("wrong-type", f"{what} is not an integer")
    if not low <= value <= high:
        _refuse("out-of-bounds", f"{what} is {value}; {low} to {high} are allowed")
    return value


def _text(document: dict[Any, Any], key: str, default: str | None = None, limit: int = 256) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        _refuse("wrong-type", f"{key} is {'missing' if value is None else 'not text'}")
    if len(value) > limit:
        _refuse("out-of-bounds", f"{key} is longer than {limit} characters")
    return value


def _map_of_version(payload: bytes, limit: int) -> dict[Any, Any]:
    document = _unpack(payload, limit)
    if not isinstance(document, dict):
        _refuse("wrong-type", "not a map")
    if type(document.get("v")) is not int or document["v"] != VERSION:
        _refuse("version-unknown", f"version {document.get('v')!r}; this host knows {VERSION}")
    return document


def about_revision(payload: bytes) -> int:
    """The CRC-32 by which frames name this about document."""
    return zlib.crc32(payload)


def decode_about(payload: bytes) -> About:
    """Read an about document; WireError where it breaks the contract."""
    document = _map_of_version(payload, ABOUT_BYTES)
    items = document.get("datastreams")
    if not isinstance(items, list) or not 1 <= len(items) <= 255:
        _refuse("wrong-type", "datastreams is not an array of 1 to 255 maps")
    datastreams = tuple(_datastream(item) for item in items)
    if len({datastream.key for datastream in datastreams}) != len(datastreams):
        _refuse("out-of-bounds", "two datastreams have the same key")
    properties = document.get("properties", {})
    if not isinstance(properties, dict) or not all(
        isinstance(key, str) and isinstance(value, str | int | float) for key, value in properties.items()
    ):
        _refuse("wrong-type", "properties is not a map of text to text, number or truth value")
    return About(
        revision=about_revision(payload),
        name=_text(document, "name"),
        description=_text(document, "description", "", 1024),
        location=_location(document.get("location")),
        place=_text(document, "place") if document.get("place") is not None else None,
        datastreams=datastreams,
        board=_text(document, "board", ""),
        hardware=_text(document, "hardware", ""),
        sdk=_text(document, "sdk", ""),
        micropython=_text(document, "micropython", ""),
        properties=properties,
    )


def _datastream(item: Any) -> Datastream:
    if not isinstance(item, dict):
        _refuse("wrong-type", "a datastream is not a map")
    key = _text(item, "key")
    if _KEY.match(key) is None:
        _refuse("out-of-bounds", f"{key!r} can't be a datastream's key")
    return Datastream(
        key=key,
        property=_text(item, "property", limit=64),
        unit=_text(item, "unit", limit=32),
        decimals=_integer(item.get("decimals"), "decimals", 0, 9),
        sensor=_text(item, "sensor", limit=64),
        sensor_id=_text(item, "sensor_id", limit=64) if item.get("sensor_id") is not None else None,
    )


def _location(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) not in (2, 3):
        _refuse("wrong-type", "location is not an array of two or three integers")
    longitude = _integer(value[0], "longitude", -1_800_000_000, 1_800_000_000) / 10**7
    latitude = _integer(value[1], "latitude", -900_000_000, 900_000_000) / 10**7
    if len(value) == 2:
        return longitude, latitude
    return longitude, latitude, _integer(value[2], "height", -1_200_000, 10_000_000) / 100


def peek_identity(payload: bytes) -> tuple[bytes, int] | None:
    """(boot, seq) of a frame that `decode_obs` refuses, where it still says so: a `mark` can then cover it."""
    try:
        document = _unpack(payload, OBS_BYTES)
    except WireError:
        return None
    if not isinstance(document, list) or len(document) < 4 or type(document[0]) is not int:
        return None
    _, _, boot, seq = document[:4]
    if document[0] != VERSION or not isinstance(boot, bytes) or len(boot) != BOOT_BYTES:
        return None
    if type(seq) is not int or not 0 <= seq <= _UINT32:
        return None
    return boot, seq


def decode_obs(payload: bytes) -> Frame:
    """Read a frame of readings; WireError where it breaks the contract. Whether its `about` is known is the caller's to ask."""
    document = _unpack(payload, OBS_BYTES)
    if not isinstance(document, list) or not document:
        _refuse("wrong-type", "not an array")
    if type(document[0]) is not int or document[0] != VERSION:
        _refuse("version-unknown", f"version {document[0]!r}; this host knows {VERSION}")
    if len(document) != 14:
        _refuse("wrong-length", f"{len(document)} items instead of 14")
    (_, about, boot, seq, taken, first, rows, clock, seconds, ms, step, quality, interval, columns) = document
    if not isinstance(boot, bytes) or len(boot) != BOOT_BYTES:
        _refuse("wrong-type", f"boot is not {BOOT_BYTES} bytes")
    _integer(rows, "rows", 1, ROWS)
    _integer(first, "first", 0, 254)
    if not isinstance(columns, list) or not 1 <= len(columns) <= 255 - first:
        _refuse("wrong-type", "columns is not an array of one to 255 columns")
    dated = _integer(clock, "clock", 0, 1) == 0
    # 32-bit times on the wire: 1951 to 2088.
    epoch_ms = _integer(seconds, "seconds", -(2**31), 2**31 - 1) * 1000 + _integer(ms, "milliseconds", 0, 999)
    if dated:
        epoch_ms += EPOCH_UNIX_MS
    if quality is not None and (not isinstance(quality, bytes) or len(quality) != rows):
        _refuse("wrong-type", "quality is neither nil nor one byte a row")
    return Frame(
        about=_integer(about, "about", 0, _UINT32),
        boot=boot,
        seq=_integer(seq, "seq", 0, _UINT32),
        taken=_integer(taken, "taken", 0, _UINT32),
        first=first,
        rows=rows,
        dated=dated,
        epoch_ms=epoch_ms,
        offsets_ms=_offsets(step, rows),
        quality=quality,
        interval_ms=_integer(interval, "interval", 0, VALUE),
        columns=[_column(column, rows) for column in columns],
    )


def _offsets(step: Any, rows: int) -> list[int]:
    if type(step) is int:
        _integer(step, "step", 0, VALUE)
        return [step * row for row in range(rows)]
    if not isinstance(step, list) or len(step) != rows - 1:
        _refuse("wrong-type", "step is neither an integer nor an array of rows − 1")
    offsets = [0]
    for delta in step:
        offsets.append(offsets[-1] + _integer(delta, "a step", -VALUE, VALUE))
    return offsets


def _column(column: Any, rows: int) -> list[int | None]:
    if not isinstance(column, list):
        _refuse("column-unknown", "a column is not an array")
    if len(column) == 2 and isinstance(column[1], bytes):
        return _nibbles(column[0], column[1], rows)
    if len(column) != rows:
        _refuse("wrong-length", f"a column of {len(column)} items in a frame of {rows} rows")
    value = 0
    values: list[int | None] = []
    append = values.append
    for delta in column:
        if delta is None:
            append(None)
        elif type(delta) is int:
            value += delta
            if not -VALUE <= delta <= VALUE or not -VALUE <= value <= VALUE:
                _refuse("out-of-bounds", f"the value {value} does not fit")
            append(value)
        else:
            _refuse("column-unknown", "a column's item is neither an integer nor nil")
    return values


def _nibbles(start: Any, packed: bytes, rows: int) -> list[int | None]:
    value = _integer(start, "a column's start", -VALUE, VALUE)
    if len(packed) != (rows + 1) // 2:
        _refuse("wrong-length", f"{len(packed)} bytes of nibbles for {rows} rows")
    if rows % 2 and packed[-1] & 15:
        _refuse("out-of-bounds", "the spare nibble is not 0")
    values: list[int | None] = []
    append = values.append
    for byte in packed:
        for delta in (_NIBBLE[byte >> 4], _NIBBLE[byte & 15]):
            if delta is None:
                append(None)
            else:
                value += delta
                append(value)
    if not -VALUE <= value - 7 * rows or not value + 7 * rows <= VALUE:
        present = [item for item in values[:rows] if item is not None]
        if present and not (-VALUE <= min(present) and max(present) <= VALUE):
            _refuse("out-of-bounds", "a value does not fit")
    del values[rows:]
    return values


def decode_status(payload: bytes) -> Status:
    """Read a status document, a will's short one included; WireError where it breaks the contract."""
    document = _map_of_version(payload, STATUS_BYTES)
    state = document.get("state")
    if state not in ("online", "stopped", "lost"):
        _refuse("wrong-type", "state is none of online, stopped, lost")

    def count(key: str) -> int | None:
        return None if document.get(key) is None else _integer(document[key], key, 0, _UINT32)

    faults = document.get("faults")
    if faults is not None and not (
        isinstance(faults, dict) and all(isinstance(k, str) and type(v) is int for k, v in faults.items())
    ):
        _refuse("wrong-type", "faults is not a map of text to integer")
    drops = document.get("drops")
    if drops is not None and not isinstance(drops, list):
        _refuse("wrong-type", "drops is not an array")
    return Status(
        state=state,
        boot=None if document.get("boot") is None else _boot(document["boot"]),
        seq=count("seq"),
        taken=count("taken"),
        pending=count("pending"),
        dropped=count("dropped"),
        drops=None if drops is None else tuple(_drop(drop) for drop in drops),
        refused=count("refused"),
        faults=faults,
        cuts=count("cuts"),
        at_risk=count("at_risk"),
        uptime=count("uptime"),
        heap=count("heap"),
        reset=_text(document, "reset", limit=32) if document.get("reset") is not None else None,
    )


def _boot(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) != BOOT_BYTES:
        _refuse("wrong-type", f"boot is not {BOOT_BYTES} bytes")
    return value


def _drop(item: Any) -> Drop:
    if not isinstance(item, list) or len(item) != 4:
        _refuse("wrong-type", "a drop is not an array of four")
    first = _integer(item[1], "a drop's first seq", 0, _UINT32)
    return Drop(
        boot=_boot(item[0]),
        first=first,
        last=_integer(item[2], "a drop's last seq", first, _UINT32),
        readings=_integer(item[3], "a drop's readings", 0, _UINT32),
    )


def encode_mark(marks: Sequence[tuple[bytes, int]]) -> bytes:
    """What the host has on disk: (boot, highest seq without a gap, or −1), at most 8 boots."""
    packed: bytes = msgpack.packb([VERSION, [[boot, seq] for boot, seq in marks]])
    return packed


def decode_mark(payload: bytes) -> list[tuple[bytes, int]]:
    """The other way, as a node reads it."""
    document = _unpack(payload, SMALL_BYTES)
    if not isinstance(document, list) or len(document) != 2 or document[0] != VERSION:
        _refuse("version-unknown", "not a mark of this version")
    if not isinstance(document[1], list) or not all(isinstance(m, list) and len(m) == 2 for m in document[1]):
        _refuse("wrong-type", "marks are not an array of pairs")
    return [(_boot(boot), _integer(seq, "seq", -1, _UINT32)) for boot, seq in document[1]]


def decode_ask(payload: bytes) -> int:
    """The ticks in a node's request for the time."""
    document = _unpack(payload, SMALL_BYTES)
    if not isinstance(document, list) or len(document) != 2 or document[0] != VERSION:
        _refuse("version-unknown", "not a request for the time of this version")
    return _integer(document[1], "ticks", -(2**63), 2**63 - 1)


def encode_time(ticks: int, unix_ms: int) -> bytes:
    """The answer to a request for the time."""
    seconds, ms = divmod(unix_ms - EPOCH_UNIX_MS, 1000)
    packed: bytes = msgpack.packb([VERSION, ticks, seconds, ms])
    return packed
