"""The node's MessagePack, and its about and status documents as the host reads them."""

import re
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamppost_host.wire import (
    ABOUT_BYTES,
    STATUS_BYTES,
    WireError,
    about_revision,
    decode_about,
    decode_status,
    encode_mark,
    encode_time,
)
from tests.firmware.conftest import RunFirmware
from tests.firmware.conversation import Conversation

_SCRIPT = """
from binascii import hexlify, unhexlify
from lamppost.msgpack import pack, unpack

def show(value):
    if isinstance(value, list):
        return "[" + ",".join([show(item) for item in value]) + "]"
    return repr(value)

def answer(packing, *octets):
    data = bytes(octets)
    if packing:
        return hexlify(pack(eval(data.decode()))).decode()
    try:
        return show(unpack(data))
    except ValueError as error:
        return "ValueError"
"""


@pytest.fixture(scope="module")
def conversation(micropython: list[str]) -> Iterator[Conversation]:
    conversation = Conversation(micropython, _SCRIPT)
    yield conversation
    conversation.close()


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXTS | st.binary(max_size=40)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(value=DOCUMENTS)
def test_the_host_reads_what_the_node_packs(conversation: Conversation, value: Any) -> None:
    packed = bytes.fromhex(conversation.ask(1, *ascii(value).encode()))
    assert msgpack.unpackb(packed, strict_map_key=False) == value


@settings(max_examples=400, deadline=None)
@given(value=st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=20), max_leaves=20))
def test_the_node_reads_what_the_host_packs(conversation: Conversation, value: Any) -> None:
    answered = conversation.ask(0, *msgpack.packb(value))
    depth = ascii(value).count("[")
    if answered == "ValueError":
        assert depth > 6
    else:
        assert eval(answered) == value


@settings(max_examples=1000, deadline=None)
@given(data=st.binary(max_size=60))
def test_random_bytes_do_the_node_no_harm(conversation: Conversation, data: bytes) -> None:
    conversation.ask(0, *data)


def test_a_huge_claimed_size_takes_no_memory(conversation: Conversation) -> None:
    assert conversation.ask(0, 0xDC, 0xFF, 0xFF, *[0xC0] * 100) == "ValueError"
    assert conversation.ask(0, *[0x91] * 500, 0xC0) == "ValueError"


def test_marks_and_times_of_the_host_are_read(conversation: Conversation) -> None:
    boot = bytes.fromhex("9f86d081884c7d65")
    assert eval(conversation.ask(0, *encode_mark([(boot, -1), (boot, 70_000)]))) == [
        1,
        [[boot, -1], [boot, 70_000]],
    ]
    assert eval(conversation.ask(0, *encode_time(123, 1_777_000_000_250)))[:2] == [1, 123]


MAKE_ABOUT = """
from binascii import hexlify
from lamppost import Datastream
from lamppost.config import check
from lamppost.documents import make_about
settings = {"tenant": "t", "node": "n", "broker": {"host": "h", "password": "secret"}, "name": "Kooliõu", "description": "On a fence",
            "location": [247535000, 594369000, 1250], "place": "Tartu mnt", "properties": {"floor": 2, "public": True, "owner": "city", "height": 1.5},
            "wifi": {"ssid": "w", "password": "secret"}}
columns = [("temperature", Datastream("temperature", "air_temperature", "Cel", 2), "BME280", None),
           ("a_temperature", Datastream("temperature", "air_temperature", "Cel", 4), "DS18B20", "28ff641f")]
for _ in range(3):
    document, revision = make_about(check(settings), columns)
    print(hexlify(document).decode(), revision)
"""


def test_the_host_reads_the_about_document(run_firmware: RunFirmware) -> None:
    lines = run_firmware(MAKE_ABOUT).strip().split("\n")
    assert len(set(lines)) == 1, "the same description must have the same revision"
    hexadecimal, revision = lines[0].split()
    payload = bytes.fromhex(hexadecimal)
    about = decode_about(payload)
    assert about.revision == int(revision) == about_revision(payload)
    assert (about.name, about.description, about.place) == ("Kooliõu", "On a fence", "Tartu mnt")
    assert about.location == (24.7535, 59.4369, 12.5)
    assert about.properties == {"floor": 2, "public": True, "owner": "city", "height": 1.5}
    assert [(s.key, s.property, s.unit, s.decimals, s.sensor, s.sensor_id) for s in about.datastreams] == [
        ("temperature", "air_temperature", "Cel", 2, "BME280", None),
        ("a_temperature", "air_temperature", "Cel", 4, "DS18B20", "28ff641f"),
    ]
    assert re.fullmatch(r"\d+\.\d+\.\d+", about.micropython)
    assert b"secret" not in payload


def test_an_about_document_over_the_bound_is_refused_with_a_reason(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        MAKE_ABOUT.replace('"owner": "city"', '"owner": "x" * 4096').replace("for _ in range(3):", "try:")
        + "except ValueError as error:\n    print('refused:', error)\n"
    )
    assert out.startswith("refused: the about document takes")
    assert str(ABOUT_BYTES) in out


@pytest.mark.parametrize("runs", [0, 3, 16])
def test_the_host_reads_the_status_document(run_firmware: RunFirmware, runs: int) -> None:
    out = run_firmware(
        """
from binascii import hexlify
from lamppost.documents import make_status, make_will
class Journal:
    boot = b"12345678"
    seq, taken, pending, dropped, refused, cuts = 70000, 4200000, 3, 120, 7, 2
    drops = [[bytes([i]) * 8, i, i + 70000, 3000000 + i] for i in range(int(sys.argv[1]))]
faults = {}
for i in range(40):
    faults["temperature_of_sensor_%d" % i] = 1000000 + i
print(hexlify(make_status("online", Journal, faults, 180, 12345)).decode())
print(hexlify(make_will()).decode())
""",
        str(runs),
    )
    full, will = (bytes.fromhex(line) for line in out.split())
    assert len(full) <= STATUS_BYTES
    status = decode_status(full)
    assert (status.state, status.boot, status.seq, status.taken) == ("online", b"12345678", 70_000, 4_200_000)
    assert (status.pending, status.dropped, status.refused, status.cuts) == (3, 120, 7, 2)
    assert (status.at_risk, status.uptime) == (180, 12_345)
    assert status.heap is not None
    assert status.heap > 0
    assert status.faults is not None
    assert status.faults["temperature_of_sensor_39"] == 1_000_039
    assert status.drops is not None
    if runs:
        last = status.drops[-1]
        assert (last.boot, last.first, last.last, last.readings) == (
            bytes([runs - 1]) * 8,
            runs - 1,
            runs + 69_999,
            2_999_999 + runs,
        )
    lost = decode_status(will)
    assert (lost.state, lost.seq, lost.faults) == ("lost", None, None)


def test_the_will_is_no_online_status() -> None:
    with pytest.raises(WireError):
        decode_status(msgpack.packb({"v": 1, "state": "gone"}))
