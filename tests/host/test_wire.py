"""The host's half of the wire contract: golden vectors, properties, and bytes of any kind."""

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamppost_host import wire
from tests.conftest import VECTORS
from tests.frames import encode_obs
from tests.vectors import make


def _vectors(file: str) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in json.loads((VECTORS / file).read_text())]


@pytest.mark.parametrize("file", ["about", "obs", "status", "mark", "time"])
def test_the_golden_vectors_are_what_the_contract_says_today(file: str) -> None:
    assert json.loads((VECTORS / f"{file}.json").read_text()) == getattr(make, file)()


@pytest.mark.parametrize("vector", _vectors("obs.json"))
def test_frame(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["hex"])
    if "error" in vector:
        with pytest.raises(wire.WireError) as refusal:
            wire.decode_obs(payload)
        assert refusal.value.code == vector["error"]
        return
    frame = wire.decode_obs(payload)
    assert frame.boot.hex() == vector["boot"]
    assert frame.columns == vector["columns"]
    assert (frame.quality.hex() if frame.quality else None) == vector["quality"]
    for name in ("about", "seq", "taken", "first", "dated", "epoch_ms", "offsets_ms", "interval_ms"):
        assert getattr(frame, name) == vector[name], name
    assert frame.readings == sum(value is not None for column in vector["columns"] for value in column)
    assert wire.peek_identity(payload) == (frame.boot, frame.seq)


@pytest.mark.parametrize("vector", _vectors("about.json"))
def test_about(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["hex"])
    if "error" in vector:
        with pytest.raises(wire.WireError) as refusal:
            wire.decode_about(payload)
        assert refusal.value.code == vector["error"]
        return
    about = wire.decode_about(payload)
    assert about.revision == vector["revision"]
    assert about.name == vector["node"]
    assert about.location == (tuple(vector["location"]) if vector["location"] else None)
    assert [datastream.key for datastream in about.datastreams] == vector["keys"]


@pytest.mark.parametrize("vector", _vectors("status.json"))
def test_status(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["hex"])
    if "error" in vector:
        with pytest.raises(wire.WireError) as refusal:
            wire.decode_status(payload)
        assert refusal.value.code == vector["error"]
        return
    status = wire.decode_status(payload)
    assert (status.boot.hex() if status.boot else None) == vector["boot"]
    drops = (
        None if status.drops is None else [[d.boot.hex(), d.first, d.last, d.readings] for d in status.drops]
    )
    assert drops == vector["drops"]
    for name in ("state", "seq", "taken", "dropped", "faults"):
        assert getattr(status, name) == vector[name], name


@pytest.mark.parametrize("vector", _vectors("mark.json"))
def test_mark(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["hex"])
    if "error" in vector:
        with pytest.raises(wire.WireError) as refusal:
            wire.decode_mark(payload)
        assert refusal.value.code == vector["error"]
        return
    marks = [(bytes.fromhex(boot), seq) for boot, seq in vector["marks"]]
    assert wire.decode_mark(payload) == marks
    assert wire.encode_mark(marks) == payload


@pytest.mark.parametrize("vector", _vectors("time.json"))
def test_time(vector: dict[str, Any]) -> None:
    assert wire.encode_time(vector["ticks"], vector["unix_ms"]).hex() == vector["hex"]
    assert wire.decode_ask(msgpack.packb([1, vector["ticks"]])) == vector["ticks"]


_values = st.one_of(st.none(), st.integers(-(2**29) + 1, 2**29 - 1), st.integers(-9, 9))


@st.composite
def _frames(draw: st.DrawFn) -> dict[str, Any]:
    rows = draw(st.integers(1, 20))
    columns = draw(st.lists(st.lists(_values, min_size=rows, max_size=rows), min_size=1, max_size=3))
    step = draw(
        st.one_of(
            st.integers(0, 2**20), st.lists(st.integers(-9999, 2**20), min_size=rows - 1, max_size=rows - 1)
        )
    )
    return {
        "about": draw(st.integers(0, 2**32 - 1)),
        "boot": draw(st.binary(min_size=8, max_size=8)),
        "seq": draw(st.integers(0, 2**32 - 1)),
        "columns": columns,
        "taken": draw(st.integers(0, 2**32 - 1)),
        "first": draw(st.integers(0, 200)),
        "clock": draw(st.integers(0, 1)),
        "seconds": draw(st.integers(-(2**31), 2**31 - 1)),
        "milliseconds": draw(st.integers(0, 999)),
        "step": step,
        "quality": draw(st.one_of(st.none(), st.binary(min_size=rows, max_size=rows))),
        "interval": draw(st.integers(0, 2**30 - 1)),
    }


@settings(max_examples=200, deadline=None)
@given(_frames())
def test_what_was_encoded_is_what_is_decoded(fields: dict[str, Any]) -> None:
    frame = wire.decode_obs(encode_obs(**fields))
    assert frame.columns == fields["columns"]
    assert (frame.boot, frame.seq, frame.taken, frame.first) == tuple(
        fields[k] for k in ("boot", "seq", "taken", "first")
    )
    epoch = 0 if fields["clock"] else wire.EPOCH_UNIX_MS
    assert frame.epoch_ms == epoch + fields["seconds"] * 1000 + fields["milliseconds"]
    step = fields["step"]
    steps = [step] * (frame.rows - 1) if isinstance(step, int) else step
    assert [b - a for a, b in zip(frame.offsets_ms, frame.offsets_ms[1:], strict=False)] == steps


_documents = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=8),
        st.binary(max_size=9),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=15), st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=16,
)


def _refusal(decode: Any, payload: bytes) -> str | None:
    try:
        decode(payload)
    except wire.WireError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    "decode", [wire.decode_obs, wire.decode_about, wire.decode_status, wire.decode_mark, wire.decode_ask]
)
def test_a_document_of_any_kind_is_decoded_or_refused(decode: Any) -> None:
    refusals = set()

    @settings(max_examples=200, deadline=None, database=None)
    @given(_documents.map(msgpack.packb))
    def refuses(payload: bytes) -> None:
        refusals.add(_refusal(decode, payload))

    refuses()
    assert {"wrong-type", "version-unknown"} & refusals


def test_ten_thousand_frames_of_random_bytes_are_refused() -> None:
    @settings(max_examples=100, deadline=None, database=None)
    @given(st.binary(min_size=100 * 16, max_size=100 * 16))
    def refuses(noise: bytes) -> None:
        for at in range(0, len(noise), 16):
            # Half of them begin as a frame does.
            start = b"\x9e\x01" if at % 32 else b""
            assert _refusal(wire.decode_obs, start + noise[at : at + 16]) is not None

    refuses()


@settings(max_examples=400, deadline=None)
@given(_frames(), st.data())
def test_a_damaged_frame_is_decoded_or_refused(fields: dict[str, Any], data: st.DataObject) -> None:
    payload = bytearray(encode_obs(**fields))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] = data.draw(st.integers(0, 255))
    try:
        frame = wire.decode_obs(bytes(payload))
    except wire.WireError:
        return
    assert all(len(column) == frame.rows == len(frame.offsets_ms) for column in frame.columns)
    assert all(abs(value) < 2**30 for column in frame.columns for value in column if value is not None)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("lamppost/2/tallinn/n1/obs", "version-unknown"),
        ("lamppost/1/tallinn/n1/blob", "topic-unknown"),
        ("lamppost/1/tallinn/N1/obs", "topic-unknown"),
        ("lamppost/1/tallinn/n1", "topic-unknown"),
        ("lamppost/1//n1/obs", "topic-unknown"),
        ("lamppost/1/tallinn/n1/obs/x", "topic-unknown"),
        ("lamppost/1/tallinn/" + "n" * 33 + "/obs", "topic-unknown"),
    ],
)
def test_a_foreign_topic_is_refused(text: str, code: str) -> None:
    with pytest.raises(wire.WireError) as refusal:
        wire.parse_topic(text)
    assert refusal.value.code == code


def test_a_topic_there_and_back() -> None:
    assert wire.parse_topic(wire.topic("tallinn", "n-1", "obs")) == ("tallinn", "n-1", "obs")
    with pytest.raises(wire.WireError):
        wire.topic("Tallinn", "n-1", "obs")
