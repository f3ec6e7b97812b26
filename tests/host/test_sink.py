"""The SensorThings sink against a platform that fails in every way: told apart, tried again or refused for good, nothing lost."""

import json
import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamppost_host import wire
from lamppost_host.bridge.sink_store import SinkStore
from lamppost_host.bridge.sinks import SinkSpec, Unavailable
from lamppost_host.bridge.sinks.observations import column_rows, iso
from lamppost_host.bridge.sinks.sensorthings import SensorThingsSink, Settings
from lamppost_host.bridge.sinks.sta_client import Access, identifier_of, json_of, url_of
from lamppost_host.bridge.spool import Message, Spool
from lamppost_host.bridge.spool_reader import SpoolReader
from lamppost_host.bridge.worker import Job, Runner, Signals
from tests import frames
from tests.host.sta_fake import SETS, FakePlatform, said

ABOUT = frames.encode_about(frames.datastream())
BOOT = bytes(range(8))
KEY = "city/one/temperature"


class Chain:
    """A spool, a sink's runner and a fake platform, in this process; no delays between tries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.platform = FakePlatform()
        self.spool = Spool(folder / "spool.db")
        self.store = SinkStore(folder / "sink.db")
        self.reader = SpoolReader(folder / "spool.db")
        self.seq = 0
        self.waits: list[str] = []
        self.open()

    def open(self) -> None:
        """A new process's sink on the same files."""
        settings = Settings(Access(self.platform.root), batch_readings=100)
        self.sink = SensorThingsSink(settings, self.store, self.platform.transport())
        self.runner = Runner(self.sink, self.reader, self.store, Signals())
        self.runner._wait = self._wait  # type: ignore[method-assign]

    def _wait(self, problem: Unavailable) -> None:
        self.waits.append(str(problem))
        assert len(self.waits) < 50, self.waits[-1]

    def close(self) -> None:
        self.runner._pool.shutdown()
        self.sink.close()
        self.reader.close()
        self.store.close()
        self.spool.close()

    def take(self, *kinds: tuple[str, bytes]) -> None:
        self.spool.receive([Message(f"lamppost/1/city/one/{kind}", payload, 0) for kind, payload in kinds])

    def about(self, about: bytes = ABOUT) -> None:
        self.take(("about", about))

    def frame(self, values: list[int | None], about: bytes = ABOUT, **fields: Any) -> None:
        fields = {"seconds": 180_000_000 + self.seq * 60} | fields
        columns = fields.pop("columns", [values])
        self.take(("obs", frames.encode_obs(frames.revision(about), BOOT, self.seq, columns, **fields)))
        self.seq += 1

    def deliver(self) -> None:
        """Until nothing is left to do."""
        for _ in range(200):
            if not self.runner.step():
                return
        raise AssertionError(f"the sink does not come to rest: {self.waits[-3:]}")

    def results(self, key: str = KEY) -> list[float]:
        return [result for _, result in self.platform.results(key)]

    def dead_letters(self) -> list[tuple[Any, ...]]:
        return self.store._db.execute(
            "SELECT datastream, boot, seq, readings, code, reason FROM dead_letters"
        ).fetchall()


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    made = Chain(tmp_path)
    yield made
    made.close()


# What an Observation says


def test_an_observation_says_when_what_and_which_reading(chain: Chain) -> None:
    chain.about()
    chain.frame([2137, None, -5], seconds=180_000_000, milliseconds=250, step=1_500)
    chain.deliver()
    (place,) = chain.platform.entities["FeaturesOfInterest"]
    assert list(chain.platform.observations.values()) == [
        {
            "phenomenonTime": "2025-09-14T08:00:00.250Z",
            "resultTime": "2025-09-14T08:00:00.250Z",
            "FeatureOfInterest/id": place,
            "result": 21.37,
            "parameters": {"reading": "0001020304050607/0/0"},
        },
        {
            "phenomenonTime": "2025-09-14T08:00:03.250Z",
            "resultTime": "2025-09-14T08:00:03.250Z",
            "FeatureOfInterest/id": place,
            "result": -0.05,
            "parameters": {"reading": "0001020304050607/0/2"},
        },
    ]


def test_a_reading_of_an_interval_and_a_doubtful_one(chain: Chain) -> None:
    chain.about()
    chain.frame([1, 2, 3, 4], interval=60_000, step=60_000, quality=b"\x00\x01\x02\x03")
    chain.deliver()
    found = sorted(chain.platform.observations.values(), key=lambda o: o["resultTime"])
    assert found[0]["phenomenonTime"] == "2025-09-14T07:59:00.000Z/2025-09-14T08:00:00.000Z"
    assert found[0]["resultTime"] == "2025-09-14T08:00:00.000Z"
    qualities = [None, "outside-range", "time-uncertain", "outside-range,time-uncertain"]
    assert [o.get("resultQuality") for o in found] == qualities
    assert [o["result"] for o in found] == [0.01, 0.02, 0.03, 0.04]


@given(st.integers(-(2**62), 2**44))
def test_times_are_written_as_datetime_writes_them(unix_ms: int) -> None:
    unix_ms %= 253_402_300_800_000  # to the end of year 9999
    expected = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=unix_ms)
    assert iso(unix_ms) == expected.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@given(st.lists(st.integers(-wire.VALUE, wire.VALUE), min_size=1, max_size=20), st.integers(0, 9))
def test_results_have_exactly_the_digits_that_the_node_sent(values: list[int], decimals: int) -> None:
    rows = column_rows(values, decimals, ["["] * len(values), ["]"] * len(values))
    for value, row in zip(values, rows, strict=True):
        (result,) = json.loads(row)
        text = row[1:-1]
        assert Fraction(text) == Fraction(value, 10**decimals), "no float noise"
        assert math.isclose(result, value / 10**decimals, rel_tol=1e-15)


def test_ids_of_any_form_pass_between_urls_and_json() -> None:
    assert identifier_of("http://h/v1.1/Things(17)") == "17"
    assert identifier_of("http://h/v1.1/Things('a(b''c')") == "'a(b''c'"
    assert json_of("17") == "17"
    assert json_of("'a''b'") == '"a\'b"'
    assert url_of(17) == "17"
    assert url_of("a'b") == "'a''b'"
    with pytest.raises(Unavailable):
        identifier_of("http://h/v1.1/Things")


# Entities


def test_entities_are_made_once_and_found_again_by_key(chain: Chain, tmp_path: Path) -> None:
    chain.about()
    chain.frame([1])
    chain.deliver()
    made = {name: len(found) for name, found in chain.platform.entities.items()}
    assert made == dict.fromkeys(SETS, 1)
    chain.store.forget_entities()  # as a bridge on another disk would begin
    chain.open()
    chain.frame([2])
    chain.deliver()
    assert {name: len(found) for name, found in chain.platform.entities.items()} == made
    assert chain.results() == [0.01, 0.02]


def test_entities_carry_their_keys_and_the_vocabularys_words(chain: Chain) -> None:
    chain.about(
        frames.encode_about(frames.datastream(sensor_id="28ff"), place="Harbour", description="A mast")
    )
    chain.deliver()
    (thing,), (location,) = (
        chain.platform.entities["Things"].values(),
        chain.platform.entities["Locations"].values(),
    )
    (sensor,), (datastream,) = (
        chain.platform.entities["Sensors"].values(),
        chain.platform.entities["Datastreams"].values(),
    )
    assert thing["properties"]["lamppost"] == "city/one"
    assert (thing["name"], thing["description"]) == ("School yard", "A mast")
    assert location["location"] == {"type": "Point", "coordinates": [24.7535, 59.4369]}
    assert location["properties"]["lamppost"] == "city/one/24.7535,59.4369"
    assert sensor["properties"]["lamppost"] == "BME280/28ff"
    assert datastream["properties"]["lamppost"] == KEY
    assert datastream["unitOfMeasurement"]["definition"] == "http://qudt.org/vocab/unit/DEG_C"


def test_a_node_that_describes_itself_anew_changes_its_entities(chain: Chain) -> None:
    chain.about()
    chain.frame([1])
    moved = frames.encode_about(
        frames.datastream(unit="Cel", sensor="SHT31"), name="Harbour", location=[240_000_000, 600_000_000]
    )
    chain.about(moved)
    chain.frame([2], about=moved)
    chain.frame([3])  # of the earlier document, from the journal
    chain.deliver()
    (thing,) = chain.platform.entities["Things"].values()
    (datastream,) = chain.platform.entities["Datastreams"].values()
    assert thing["name"] == "Harbour"
    assert len(chain.platform.entities["Locations"]) == 2
    newest = max(chain.platform.entities["Locations"])
    assert thing["Locations"] == [{"@iot.id": newest}]
    assert datastream["Sensor"]["@iot.id"] == max(chain.platform.entities["Sensors"])
    assert chain.results() == [0.01, 0.02, 0.03]


def test_readings_keep_the_place_where_they_were_taken(chain: Chain) -> None:
    moved = frames.encode_about(location=[240_000_000, 600_000_000])
    nowhere = frames.encode_about(location=None)
    chain.about()
    chain.frame([1])
    chain.about(moved)
    chain.frame([2], about=moved)
    chain.frame([3])  # of before the move, from the journal
    chain.about(nowhere)
    chain.frame([4], about=nowhere)
    chain.deliver()
    places = {
        observation["result"]: observation.get("FeatureOfInterest/id")
        for observation in chain.platform.observations.values()
    }
    features = chain.platform.entities["FeaturesOfInterest"]
    where = {
        result: None if place is None else features[place]["feature"]["coordinates"]
        for result, place in places.items()
    }
    old, new = [24.7535, 59.4369], [24.0, 60.0]
    assert where == {0.01: old, 0.02: new, 0.03: old, 0.04: None}


def test_readings_keep_the_unit_and_the_property_that_they_have(chain: Chain) -> None:
    raw = frames.encode_about(frames.datastream(unit="V"))
    other = frames.encode_about(frames.datastream(property="relative_humidity", unit="%"))
    chain.about()
    chain.frame([1])
    chain.deliver()
    chain.about(raw)
    chain.frame([2], about=raw)
    chain.frame([3])  # of the earlier document, from the journal
    chain.deliver()
    chain.open()
    chain.about(other)
    chain.frame([4], about=other)
    chain.about()
    chain.frame([5])
    chain.deliver()
    units = {
        entity["properties"]["lamppost"]: entity["unitOfMeasurement"]["symbol"]
        for entity in chain.platform.entities["Datastreams"].values()
    }
    volts, humidity = f"{KEY}/air_temperature/V", f"{KEY}/relative_humidity/%"
    assert units == {KEY: "°C", volts: "V", humidity: "%"}
    assert [chain.results(key) for key in units] == [[0.01, 0.03, 0.05], [0.02], [0.04]]
    assert not chain.waits


def test_a_place_that_the_platform_lost_is_made_again(chain: Chain) -> None:
    features = chain.platform.entities["FeaturesOfInterest"]
    chain.about()
    chain.frame([1])
    chain.deliver()

    def refuse(observation: dict[str, Any]) -> str | None:
        place = observation.get("FeatureOfInterest/id") or observation["FeatureOfInterest"]["@iot.id"]
        return None if place in features else "no such FeatureOfInterest"

    chain.platform.refuse = refuse
    features.clear()
    chain.frame([2])
    chain.deliver()
    assert chain.results() == [0.01, 0.02]
    assert not chain.dead_letters()


def test_a_property_that_the_vocabulary_lacks_stops_its_own_readings_only(chain: Chain) -> None:
    about = frames.encode_about(frames.datastream(), frames.datastream("odd", property="oddness"))
    chain.about(about)
    chain.frame([], about=about, columns=[[1, 2], [3, None]])
    chain.deliver()
    assert chain.results() == [0.01, 0.02]
    ((datastream, boot, seq, readings, code, reason),) = chain.dead_letters()
    assert (datastream, boot, seq, readings, code) == ("odd", BOOT.hex(), 0, 1, "property-unknown")
    assert "oddness" in reason


def test_a_platform_that_lost_an_entity_gets_it_again(chain: Chain) -> None:
    chain.about()
    chain.frame([1])
    chain.deliver()
    for name in chain.platform.entities:
        chain.platform.entities[name].clear()
    chain.frame([2])
    chain.deliver()
    assert chain.results() == [0.02]
    assert len(chain.platform.entities["Datastreams"]) == 1


def test_a_platform_that_was_emptied_and_gave_its_ids_anew_gets_no_reading_in_the_wrong_place(
    chain: Chain,
) -> None:
    chain.about()
    chain.frame([1])
    chain.deliver()
    (identifier,) = chain.platform.entities["Datastreams"]
    chain.platform.entities["Datastreams"][identifier] = {
        "properties": {"lamppost": "city/other/temperature"}
    }
    chain.open()  # it comes back: the next process, or the next connection
    chain.frame([2])
    chain.deliver()
    assert chain.results("city/other/temperature") == [0.01], "what stood there before"
    assert chain.results() == [0.02]


# Failures


def raising(error: Exception) -> Any:
    def fault(method: str, path: str, body: bytes) -> None:
        raise error

    return fault


HTML = (200, {"content-type": "text/html"}, b"<html>login</html>")
NOT_NOW = {
    "500": said(500, "boom"),
    "502 html": (502, {"content-type": "text/html"}, b"<html>bad gateway</html>"),
    "503": (503, {"retry-after": "0"}, b""),
    "429": said(429, "slow down"),
    "401": said(401, "who are you"),
    "404": said(404, "no such service"),
    "html": HTML,
    "cut short": (201, {"content-type": "application/json"}, b'["http://platform.test/v1.1/Observa'),
    "too few rows": (201, {"content-type": "application/json"}, b"[]"),
    "no list": (201, {"content-type": "application/json"}, b"{}"),
    "timeout": httpx.ReadTimeout("slow"),
    "refused": httpx.ConnectError("refused"),
    "reset": httpx.ReadError("reset"),
    "body cut": httpx.RemoteProtocolError("peer closed connection without sending complete message body"),
}


@pytest.mark.parametrize("where", ["CreateObservations", "Datastreams"])
@pytest.mark.parametrize("how", list(NOT_NOW))
@pytest.mark.parametrize("after_the_work", [False, True])
def test_what_says_nothing_of_the_content_is_tried_again(
    chain: Chain, where: str, how: str, after_the_work: bool
) -> None:
    """`after_the_work`: the platform did it, and its answer is lost on the way."""
    left = 3

    def fault(method: str, path: str, body: bytes) -> Any:
        nonlocal left
        if not path.endswith(where) or not left:
            return None
        left -= 1
        if after_the_work and where == "CreateObservations":
            chain.platform.work(method, path, body)
        answer = NOT_NOW[how]
        if isinstance(answer, Exception):
            raise answer
        return answer

    chain.platform.fault = fault
    chain.about()
    chain.frame([1, 2, 3])
    chain.frame([4])
    chain.deliver()
    assert len(chain.waits) == 3
    assert chain.results() == [0.01, 0.02, 0.03, 0.04]
    assert chain.dead_letters() == []
    assert chain.store.cursor == 3


def test_an_error_row_is_sent_alone_and_then_kept_with_the_platforms_words(chain: Chain) -> None:
    chain.platform.refuse = lambda observation: "too cold" if observation["result"] < 0 else None
    chain.about()
    chain.frame([100, -100, 200])
    chain.frame([-300])
    chain.deliver()
    assert chain.results() == [1.0, 2.0]
    assert chain.dead_letters() == [
        ("temperature", BOOT.hex(), 0, 1, "http-400", "too cold"),
        ("temperature", BOOT.hex(), 1, 1, "http-400", "too cold"),
    ]
    assert chain.store.cursor == 3
    (kept,) = chain.store._db.execute("SELECT observations FROM dead_letters WHERE seq=0").fetchone()
    assert json.loads(kept)[0]["parameters"] == {"reading": BOOT.hex() + "/0/1"}


def test_an_error_row_that_passes_alone_is_no_dead_letter(chain: Chain) -> None:
    seen = 0

    def refuse_once(observation: dict[str, Any]) -> str | None:
        nonlocal seen
        seen += observation["result"] == 0.02
        return "not today" if observation["result"] == 0.02 and seen == 1 else None

    chain.platform.refuse = refuse_once
    chain.about()
    chain.frame([1, 2, 3])
    chain.deliver()
    assert sorted(chain.results()) == [0.01, 0.02, 0.03]
    assert chain.dead_letters() == []


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_refused_as_a_whole_is_halved_until_the_culprit_stands_alone(
    chain: Chain, status: int
) -> None:
    def fault(method: str, path: str, body: bytes) -> Any:
        return said(status, "can't have 13") if b",0.13," in body or b'"result":0.13' in body else None

    chain.platform.fault = fault
    chain.about()
    chain.frame(list(range(40)))
    chain.deliver()
    assert sorted(chain.results()) == [value / 100 for value in range(40) if value != 13]
    ((_, _, seq, readings, code, _),) = chain.dead_letters()
    assert (seq, readings, code) == (0, 1, f"http-{status}")
    assert chain.waits == []


def test_an_entity_refused_for_good_does_not_stop_other_nodes(chain: Chain) -> None:
    chain.platform.fault = lambda method, path, body: (
        said(400, "no such name")
        if method == "POST" and path.endswith("/Things") and b"School" in body
        else None
    )
    chain.about()
    chain.frame([1])
    other = frames.encode_about(name="Other")
    chain.spool.receive(
        [
            Message("lamppost/1/city/two/about", other, 0),
            Message("lamppost/1/city/two/obs", frames.encode_obs(frames.revision(other), BOOT, 0, [[7]]), 0),
        ]
    )
    chain.deliver()
    assert [letter[4] for letter in chain.dead_letters()] == ["entity-refused"]
    assert chain.results("city/two/temperature") == [0.07]


# Cursor


def test_a_killed_sink_goes_on_from_its_cursor_and_a_repetition_does_no_harm(chain: Chain) -> None:
    chain.about()
    for value in range(30):
        chain.frame([value, value])
    delivery = chain.sink.prepare(chain.reader.after(0, 100))  # type: ignore[arg-type]
    chain.sink.post(delivery)  # the platform has it; the process dies before it reads the answer
    chain.open()
    chain.deliver()
    assert chain.platform.repeated == delivery.count
    assert chain.results() == [value / 100 for value in range(30) for _ in "ab"]


def test_a_cursor_of_another_spool_is_not_followed(chain: Chain, tmp_path: Path) -> None:
    chain.store.follow(chain.reader.identity())
    chain.about()
    chain.frame([1])
    chain.deliver()
    assert chain.store.cursor == 2
    chain.store.follow(chain.reader.identity())
    assert chain.store.cursor == 2
    chain.store.follow("another")
    assert chain.store.cursor == 0


def test_batches_are_bounded_and_in_order(chain: Chain) -> None:
    chain.about()
    for value in range(70):
        chain.frame([value] * 10)
    chain.deliver()
    posts = [path for _, path in chain.platform.requests if path.endswith("CreateObservations")]
    assert len(posts) == 7
    assert chain.results() == [value / 100 for value in range(70) for _ in range(10)]


def test_a_sinks_job_passes_through_its_standard_input() -> None:
    job = Job(SinkSpec("a", "sensorthings", {"url": "http://x/v1.1"}), "s", "t")
    assert Job.read(job.line()) == job


def test_the_token_is_read_again_when_it_is_refused(tmp_path: Path) -> None:
    platform = FakePlatform()
    (tmp_path / "token").write_text("old\n")
    store = SinkStore(tmp_path / "sink.db")

    def respond(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] != "Bearer new":
            return httpx.Response(401)
        status, headers, content = platform.handle(request.method, str(request.url), request.content)
        return httpx.Response(status, headers=headers, content=content)

    settings = Settings(Access(platform.root, token_file=tmp_path / "token"))
    sink = SensorThingsSink(settings, store, httpx.MockTransport(respond))
    about = wire.decode_about(ABOUT)
    with pytest.raises(Unavailable, match="401"):
        sink._entities.of("city/one", about)
    (tmp_path / "token").write_text("new\n")
    assert list(sink._entities.of("city/one", about).datastreams) == ["temperature"]
    sink.close()
    store.close()
