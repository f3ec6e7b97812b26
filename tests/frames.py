"""A node's side of the wire contract in CPython, for tests of the host: straight from WIRE.md, with the msgpack library."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import msgpack


def nibble_column(values: Sequence[int | None]) -> list[Any] | None:
    """The nibble form of a column, or None where a difference does not fit."""
    start = next((value for value in values if value is not None), 0)
    last = start
    nibbles = []
    for value in values:
        if value is None:
            nibbles.append(8)
            continue
        if not -7 <= value - last <= 7:
            return None
        nibbles.append((value - last) & 15)
        last = value
    if len(nibbles) % 2:
        nibbles.append(0)
    return [start, bytes(high << 4 | low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))]


def plain_column(values: Sequence[int | None]) -> list[int | None]:
    """The plain form of a column."""
    last = 0
    column: list[int | None] = []
    for value in values:
        column.append(None if value is None else value - last)
        last = last if value is None else value
    return column


def column(values: Sequence[int | None]) -> list[Any]:
    """The shorter form; the plain one where they are equally long."""
    nibbles, plain = nibble_column(values), plain_column(values)
    if nibbles is not None and len(msgpack.packb(nibbles)) < len(msgpack.packb(plain)):
        return nibbles
    return plain


class _Verbatim(bytes):
    """Bytes that already are MessagePack."""


def encode_obs(
    about: int,
    boot: bytes,
    seq: int,
    columns: Sequence[Sequence[int | None]],
    *,
    taken: int = 0,
    first: int = 0,
    clock: int = 0,
    seconds: int = 0,
    milliseconds: int = 0,
    step: int | list[int] = 1000,
    quality: bytes | None = None,
    interval: int = 0,
) -> bytes:
    """One `obs` frame."""
    rows = len(columns[0])
    items: list[Any] = [1, about, boot, seq, taken, first, rows, clock]
    items += [_Verbatim(struct.pack(">Bi", 0xD2, seconds)), _Verbatim(struct.pack(">BH", 0xCD, milliseconds))]
    items += [step, quality, interval, [column(values) for values in columns]]
    return b"\x9e" + b"".join(item if isinstance(item, _Verbatim) else msgpack.packb(item) for item in items)


def datastream(key: str = "temperature", **changes: Any) -> dict[str, Any]:
    """One entry of an about document's `datastreams`."""
    return {
        "key": key,
        "property": "air_temperature",
        "unit": "Cel",
        "decimals": 2,
        "sensor": "BME280",
    } | changes


def encode_about(*datastreams: dict[str, Any], **changes: Any) -> bytes:
    """An `about` document."""
    document: dict[str, Any] = {
        "v": 1,
        "name": "School yard",
        "location": [247_535_000, 594_369_000],
        "datastreams": list(datastreams) or [datastream()],
        "board": "unix",
        "hardware": "020000000001",
        "sdk": "0.1.0",
        "micropython": "1.28.0",
    } | changes
    packed: bytes = msgpack.packb({key: value for key, value in document.items() if value is not None})
    return packed


def revision(about: bytes) -> int:
    """The number by which frames name an about document."""
    return zlib.crc32(about)
