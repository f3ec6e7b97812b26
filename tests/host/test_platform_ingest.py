"""Data arrays and readings on their way in: every row answered, bad rows alone refused, repetitions harmless."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.platforms import Platform, thing

_PLAIN = ["phenomenonTime", "resultTime", "result", "parameters"]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("platform")).start()
    yield running
    running.close()


@pytest.fixture
def streams(platform: Platform, request: pytest.FixtureRequest) -> list[int]:
    """Three new Datastreams, of a Thing of the test's name: stable keys are unique."""
    node = platform.create("Things", thing(request.node.name, datastreams=3))
    return [each["@iot.id"] for each in platform.get(f"Things({node})/Datastreams", orderby="id")["value"]]


def _array(stream: int, rows: list[Any], components: list[str] | None = None) -> dict[str, Any]:
    return {
        "Datastream": {"@iot.id": stream},
        "components": components or _PLAIN,
        "dataArray@iot.count": len(rows),
        "dataArray": rows,
    }


def _row(second: int, result: Any = 1.5, reading: str | None = None) -> list[Any]:
    moment = f"2026-11-22T02:{second // 60:02}:{second % 60:02}Z"
    return [moment, moment, result, {"reading": reading or f"boot/0/{second}"}]


def _ids(platform: Platform, arrays: list[dict[str, Any]]) -> list[int | None]:
    """The ids that CreateObservations answers with, None for an error."""
    answer = platform.post("CreateObservations", arrays)
    assert answer.status_code == 201, answer.text
    links = answer.json()
    assert all(each == "error" or each.startswith(f"{platform.url}/Observations(") for each in links)
    return [None if each == "error" else int(each.rpartition("(")[2][:-1]) for each in links]


def _stored(platform: Platform, stream: int) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = platform.get(
        f"Datastreams({stream})/Observations", top="10000", orderby="id"
    )["value"]
    return values


def test_links_come_in_the_order_of_the_rows(platform: Platform, streams: list[int]) -> None:
    arrays = [_array(stream, [_row(second, second + stream) for second in range(120)]) for stream in streams]
    ids = _ids(platform, arrays)
    assert len(set(ids)) == 360
    for index, stream in enumerate(streams):
        back = _stored(platform, stream)
        assert [each["@iot.id"] for each in back] == ids[index * 120 : index * 120 + 120]
        assert [each["result"] for each in back] == [second + stream for second in range(120)]
        assert back[61]["parameters"] == {"reading": "boot/0/61"}
        assert back[61]["phenomenonTime"] == back[61]["resultTime"] == "2026-11-22T02:01:01Z"


def test_a_bad_row_spoils_no_other(platform: Platform, streams: list[int]) -> None:
    rows = [
        _row(0),
        ["yesterday", None, 1, None],
        _row(1, None),
        [],
        "row",
        _row(2)[:3],
        [*_row(2), 5],
        [1, 2, 3, 4],
        [["a"], None, 1, None],
        ["2026-11-22T03:00:00Z", None, 1, {"reading": 5}],
        ["2026-11-22T03:00:00Z", None, 1, "parameters"],
        _row(3, "warm"),
        _row(4, 2**70),
    ]
    ids = _ids(
        platform,
        [_array(streams[0], rows), _array(99_999, [_row(0), _row(1)]), _array(streams[1], [_row(0)])],
    )
    good = [index for index, each in enumerate(ids) if each is not None]
    assert good == [0, 2, 11, 12, 15]
    assert [each["result"] for each in _stored(platform, streams[0])] == [1.5, None, "warm", float(2**70)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [1],
        [{}],
        [{"Datastream": {"@iot.id": 1}, "components": ["result"]}],
        [{"Datastream": {"@iot.id": 1}, "components": ["colour", "result"], "dataArray": []}],
        [{"Datastream": {"@iot.id": 1}, "components": ["result", "result"], "dataArray": []}],
        [{"Datastream": {"@iot.id": 1}, "components": ["phenomenonTime"], "dataArray": []}],
        [{"Datastream": 1, "components": ["result"], "dataArray": []}],
    ],
)
def test_a_body_that_is_no_data_array_is_refused_whole(platform: Platform, body: Any) -> None:
    answer = platform.post("CreateObservations", body)
    assert answer.status_code == 400
    assert answer.json()["message"]


def test_odd_datastream_ids_are_errors_of_their_rows(platform: Platform) -> None:
    for odd in ("1", None, -1, 2**64, 1.0, True, {}):
        assert _ids(platform, [_array(odd, [_row(0)])]) == [None]  # type: ignore[arg-type]


def test_a_repeated_delivery_changes_nothing(platform: Platform, streams: list[int]) -> None:
    arrays = [_array(stream, [_row(second) for second in range(100)]) for stream in streams]
    first = _ids(platform, arrays)
    assert _ids(platform, arrays) == first
    # Some old, some new, one twice in the request, and a repetition with another result.
    rows = [_row(second, 99.0) for second in range(80, 140)] + [_row(130, 77.0)]
    mixed = _ids(platform, [_array(streams[1], rows)])
    assert mixed[:20] == first[180:200]
    assert mixed[60] == mixed[50]
    back = {each["@iot.id"]: each["result"] for each in _stored(platform, streams[1])}
    assert len(back) == 140
    assert back[first[180]] == 1.5  # type: ignore[index]
    assert back[mixed[50]] == 99.0  # type: ignore[index]


def test_a_single_post_knows_readings_too(platform: Platform, streams: list[int]) -> None:
    body = {"result": 1, "parameters": {"reading": "a/0/0"}}
    first = platform.create(f"Datastreams({streams[0]})/Observations", body)
    again = platform.post(f"Datastreams({streams[0]})/Observations", body | {"result": 2})
    assert again.status_code == 201
    assert again.headers["location"] == f"{platform.url}/Observations({first})"
    assert platform.create(f"Datastreams({streams[1]})/Observations", body) != first
    assert platform.get(f"Observations({first})/result") == {"result": 1}


def test_rows_without_a_reading_are_all_stored(platform: Platform, streams: list[int]) -> None:
    rows = [["2026-11-22T02:00:00Z", None, 1, None]] * 3 + [
        ["2026-11-22T02:00:00Z", None, 1, {"note": "x"}]
    ] * 2
    assert len(set(_ids(platform, [_array(streams[0], rows)]))) == 5


def test_concurrent_deliveries_of_the_same_readings_store_each_once(
    platform: Platform, streams: list[int]
) -> None:
    rows = [_row(second) for second in range(600)]

    def deliver(seed: int) -> dict[str, int | None]:
        shuffled = rows[:]
        random.Random(seed).shuffle(shuffled)
        found: dict[str, int | None] = {}
        for start in range(0, 600, 60):
            part = shuffled[start : start + 60]
            ids = _ids(platform, [_array(streams[2], part)])
            found |= {row[3]["reading"]: each for row, each in zip(part, ids, strict=True)}
        return found

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(deliver, range(8)))
    assert all(each == answers[0] for each in answers)
    stored = {each["parameters"]["reading"]: each["@iot.id"] for each in _stored(platform, streams[2])}
    assert stored == answers[0]


def test_every_component(platform: Platform, streams: list[int]) -> None:
    feature = platform.create(
        "FeaturesOfInterest",
        {
            "name": "F",
            "description": "",
            "encodingType": "application/geo+json",
            "feature": {"type": "Point"},
        },
    )
    components = [
        "result",
        "FeatureOfInterest/id",
        "phenomenonTime",
        "validTime",
        "resultQuality",
        "parameters",
    ]
    interval = "2026-11-22T02:00:00Z/2026-11-22T02:01:00Z"
    rows = [
        [5, feature, interval, interval, {"bits": 1}, {"reading": "x/0/0", "n": 1}],
        [6, 99_999, interval, None, None, None],
        [7, None, "2026-11-22T02:00:00Z", None, None, None],
    ]
    ids = _ids(platform, [_array(streams[0], rows, components)])
    assert ids[1] is None
    back = platform.get(f"Observations({ids[0]})", expand="FeatureOfInterest($select=id)")
    assert back["FeatureOfInterest"] == {"@iot.id": feature}
    assert (back["phenomenonTime"], back["validTime"]) == (interval, interval)
    assert (back["resultQuality"], back["parameters"]) == ({"bits": 1}, {"reading": "x/0/0", "n": 1})
    assert platform.get(f"Observations({ids[2]})/FeatureOfInterest/name") == {"name": "the square"}
    # The same, as the fast path takes it.
    plain = ["phenomenonTime", "result", "FeatureOfInterest/id"]
    ids = _ids(
        platform, [_array(streams[1], [["2026-11-22T02:00:00Z", n, feature] for n in range(3)], plain)]
    )
    assert platform.get(f"Observations({ids[2]})/FeatureOfInterest/@iot.id") == {"@iot.id": feature}
    found = platform.get(f"FeaturesOfInterest({feature})/Observations", count="true", select="id")
    assert found["@iot.count"] == 4


def test_a_missing_phenomenon_time_is_now(platform: Platform, streams: list[int]) -> None:
    (made,) = _ids(platform, [_array(streams[0], [[5]], ["result"])])
    found = platform.get(
        "Observations", filter=f"id eq {made} and phenomenonTime gt now() sub duration'PT1M'"
    )
    assert len(found["value"]) == 1
