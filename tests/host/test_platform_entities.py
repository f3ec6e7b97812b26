"""Entities of the platform: deep insert, links, changes, deletions, and what is refused. Over HTTP, to the real process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.platforms import Platform, thing


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("platform")).start()
    yield running
    running.close()


def test_root_names_the_collections_exactly(platform: Platform) -> None:
    root = platform.get("")
    urls = {each["name"]: each["url"] for each in root["value"]}
    assert urls["Things"] == f"{platform.url}/Things"
    assert set(urls) == {
        *("Things", "Locations", "HistoricalLocations", "Datastreams", "Sensors"),
        *("ObservedProperties", "Observations", "FeaturesOfInterest"),
    }
    assert all(
        each.startswith("http://www.opengis.net/spec/iot_sensing/1.1/")
        for each in root["serverSettings"]["conformance"]
    )


def test_deep_insert_makes_everything_and_links_it(platform: Platform) -> None:
    body = thing("Deep", datastreams=2)
    body["Datastreams"][0]["Observations"] = [{"result": 4.5, "phenomenonTime": "2026-11-22T02:52:41Z"}]
    node = platform.create("Things", body)
    whole = platform.get(
        f"Things({node})", expand="Locations,Datastreams($expand=Sensor,ObservedProperty,Observations)"
    )
    assert whole["@iot.id"] == node
    assert whole["@iot.selfLink"] == f"{platform.url}/Things({node})"
    assert whole["properties"] == body["properties"]
    assert whole["Locations"][0]["location"] == body["Locations"][0]["location"]
    assert (
        whole["HistoricalLocations@iot.navigationLink"]
        == f"{platform.url}/Things({node})/HistoricalLocations"
    )
    first, second = whole["Datastreams"]
    assert first["unitOfMeasurement"]["symbol"] == "°C"
    assert first["Sensor"]["metadata"] == "https://example.org/bme280.pdf"
    assert second["ObservedProperty"]["name"] == "Air temperature"
    assert first["Observations"][0]["result"] == 4.5
    assert second["Observations"] == []
    assert len(platform.get(f"Things({node})/HistoricalLocations")["value"]) == 1


def test_links_take_full_objects_beside_the_id(platform: Platform) -> None:
    sensor = platform.create(
        "Sensors", {"name": "S", "description": "", "encodingType": "text/html", "metadata": {"a": [1]}}
    )
    body = thing("Linked")
    stream = body.pop("Datastreams")[0]
    node = platform.create("Things", body)
    stream["Sensor"] = {
        "@iot.id": sensor,
        "name": "S",
        "description": "x",
        "encodingType": "",
        "metadata": "",
    }
    stream["Thing"] = {"@iot.id": node}
    made = platform.create("Datastreams", stream)
    assert platform.get(f"Datastreams({made})/Sensor")["metadata"] == {"a": [1]}
    assert platform.get(f"Datastreams({made})/Thing/@iot.id") == {"@iot.id": node}
    assert platform.get(f"Sensors({sensor})/Datastreams")["value"][0]["@iot.id"] == made


def test_post_on_navigation_paths(platform: Platform) -> None:
    body = thing("Nav", location=False)
    stream = body.pop("Datastreams")[0]
    node = platform.create("Things", body)
    made = platform.create(f"Things({node})/Datastreams", stream)
    place = thing()["Locations"][0]
    first = platform.create(f"Things({node})/Locations", place | {"name": "first"})
    second = platform.create(f"Things({node})/Locations", place | {"name": "second"})
    assert [each["@iot.id"] for each in platform.get(f"Things({node})/Locations")["value"]] == [second]
    history = platform.get(f"Things({node})/HistoricalLocations", expand="Locations")["value"]
    assert [each["Locations"][0]["@iot.id"] for each in history] == [first, second]
    reading = platform.create(f"Datastreams({made})/Observations", {"result": 1})
    assert platform.get(f"Observations({reading})/Datastream/Thing/name") == {"name": "Nav"}
    assert platform.get(f"Observations({reading})/FeatureOfInterest")["feature"] == place["location"]


def test_feature_comes_from_the_location_and_follows_it(platform: Platform) -> None:
    node = platform.create("Things", thing("Moved"))
    stream = platform.get(f"Things({node})/Datastreams")["value"][0]["@iot.id"]
    location = platform.get(f"Things({node})/Locations")["value"][0]["@iot.id"]
    ids = [platform.create(f"Datastreams({stream})/Observations", {"result": n}) for n in range(2)]
    features = {platform.get(f"Observations({each})/FeatureOfInterest")["@iot.id"] for each in ids}
    assert len(features) == 1
    moved = {"type": "Point", "coordinates": [25.0, 61.0]}
    answer = platform.client.patch(
        f"{platform.url}/Locations({location})", json={"location": moved}, headers=platform.headers
    )
    assert answer.status_code == 200
    assert answer.json()["location"] == moved
    later = platform.create(f"Datastreams({stream})/Observations", {"result": 3})
    assert platform.get(f"Observations({later})/FeatureOfInterest")["feature"] == moved
    assert platform.get(f"Observations({ids[0]})/FeatureOfInterest")["feature"] != moved


def test_a_thing_with_no_location_gets_a_feature_without_geometry(platform: Platform) -> None:
    node = platform.create("Things", thing("Nowhere", location=False))
    stream = platform.get(f"Things({node})/Datastreams")["value"][0]["@iot.id"]
    reading = platform.create(f"Datastreams({stream})/Observations", {"result": 1})
    assert platform.get(f"Observations({reading})/FeatureOfInterest/feature/geometry") == {"geometry": None}


def test_update_properties_and_relations(platform: Platform) -> None:
    one, other = (platform.create("Things", thing(name)) for name in ("Before", "After"))
    stream = platform.get(f"Things({one})/Datastreams")["value"][0]["@iot.id"]
    url = f"{platform.url}/Datastreams({stream})"
    answer = platform.client.patch(
        url, json={"name": "new", "Thing": {"@iot.id": other}}, headers=platform.headers
    )
    assert answer.status_code == 200
    assert platform.get(f"Datastreams({stream})/Thing/name") == {"name": "After"}
    assert platform.get(f"Datastreams({stream})/name") == {"name": "new"}
    inline = {"Sensor": {"name": "x", "description": "", "encodingType": "", "metadata": ""}}
    for body in (inline, {"name": None}, {"name": 5}, {"Thing": {"@iot.id": 99999}}, {"nam": "x"}, []):
        refused = platform.client.patch(url, json=body, headers=platform.headers)
        assert refused.status_code == 400, body
        assert refused.json()["message"]
    gone = platform.client.patch(
        f"{platform.url}/Things(99999)", json={"name": "x"}, headers=platform.headers
    )
    assert gone.status_code == 404


def test_only_a_move_makes_history(platform: Platform) -> None:
    node = platform.create("Things", thing("Still"))
    (location,) = platform.get(f"Things({node})/Locations")["value"]
    place = {"name": "P", "description": "", "encodingType": "application/geo+json", "location": {}}
    elsewhere = platform.create("Locations", place)
    for there, entries in ((location["@iot.id"], 1), (elsewhere, 2), (elsewhere, 2)):
        body = {"Locations": [{"@iot.id": there}]}
        answer = platform.client.patch(f"{platform.url}/Things({node})", json=body, headers=platform.headers)
        assert answer.status_code == 200
        assert len(platform.get(f"Things({node})/HistoricalLocations")["value"]) == entries


def test_a_stable_key_is_one_entitys(platform: Platform) -> None:
    body = {"name": "K", "description": "", "properties": {"lamppost": "city/key"}}

    def post(_: int) -> int:
        return platform.client.post(f"{platform.url}/Things", json=body, headers=platform.headers).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(post, range(8))) == [201] + [409] * 7
    found = platform.get("Things", filter="properties/lamppost eq 'city/key'")["value"]
    assert len(found) == 1


def test_put_replaces_the_properties(platform: Platform) -> None:
    node = platform.create("Things", thing("Put"))
    url = f"{platform.url}/Things({node})"
    body = {"name": "New", "description": "new"}
    assert platform.client.put(url, json=body, headers=platform.headers).status_code == 200
    back = platform.get(f"Things({node})", expand="Datastreams")
    assert back["name"] == "New"
    assert "properties" not in back
    assert len(back["Datastreams"]) == 1
    assert platform.client.put(url, json={"name": "only"}, headers=platform.headers).status_code == 400


def test_delete_takes_what_cannot_be_without_it(platform: Platform) -> None:
    node = platform.create("Things", thing("Doomed", datastreams=2))
    streams = [each["@iot.id"] for each in platform.get(f"Things({node})/Datastreams")["value"]]
    place = platform.get(f"Things({node})/Locations")["value"][0]["@iot.id"]
    readings = [platform.create(f"Datastreams({each})/Observations", {"result": 1}) for each in streams]
    assert (
        platform.client.delete(f"{platform.url}/Things({node})", headers=platform.headers).status_code == 200
    )
    for path in (f"Things({node})", f"Datastreams({streams[0]})", f"Observations({readings[1]})"):
        assert platform.client.get(f"{platform.url}/{path}").status_code == 404
    assert platform.get(f"Locations({place})")["name"] == "the square"
    assert (
        platform.client.delete(f"{platform.url}/Things({node})", headers=platform.headers).status_code == 404
    )
    node = platform.create("Things", thing("Next"))
    stream = platform.get(f"Things({node})/Datastreams")["value"][0]["@iot.id"]
    assert platform.create(f"Datastreams({stream})/Observations", {"result": 1}) > max(readings)


def test_deleting_a_feature_deletes_its_observations_only(platform: Platform) -> None:
    node = platform.create("Things", thing("Featured"))
    stream = platform.get(f"Things({node})/Datastreams")["value"][0]["@iot.id"]
    feature = {
        "name": "F",
        "description": "",
        "encodingType": "application/geo+json",
        "feature": {"type": "Point"},
    }
    own = platform.create(f"Datastreams({stream})/Observations", {"result": 1, "FeatureOfInterest": feature})
    made = platform.create(f"Datastreams({stream})/Observations", {"result": 2})
    target = platform.get(f"Observations({own})/FeatureOfInterest")["@iot.id"]
    assert [
        each["@iot.id"] for each in platform.get(f"FeaturesOfInterest({target})/Observations")["value"]
    ] == [own]
    assert (
        platform.client.delete(
            f"{platform.url}/FeaturesOfInterest({target})", headers=platform.headers
        ).status_code
        == 200
    )
    assert [each["@iot.id"] for each in platform.get(f"Datastreams({stream})/Observations")["value"]] == [
        made
    ]


def test_a_failed_deep_insert_leaves_nothing(platform: Platform) -> None:
    before = platform.get("Things", count="true")["@iot.count"]
    sensors = platform.get("Sensors", count="true")["@iot.count"]
    body = thing("Half", datastreams=2)
    del body["Datastreams"][1]["unitOfMeasurement"]
    answer = platform.post("Things", body)
    assert answer.status_code == 400
    assert "unitOfMeasurement" in answer.json()["message"]
    assert platform.get("Things", count="true")["@iot.count"] == before
    assert platform.get("Sensors", count="true")["@iot.count"] == sensors


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("Things", []),
        ("Things", {"name": "x"}),
        ("Things", {"name": 1, "description": "x"}),
        ("Things", {"name": "x", "description": "x", "properties": "text"}),
        ("Things", {"name": "x", "description": "x", "colour": "red"}),
        ("Things", {"name": "x", "description": "x", "Datastreams": {}}),
        ("Things", {"name": "x", "description": "x", "Locations": [{"@iot.id": 99999}]}),
        ("Things", {"name": "x", "description": "x", "Locations": [{"@iot.id": "1; DROP TABLE thing"}]}),
        ("Observations", {"result": 1}),
        ("Observations", {"result": 1, "Datastream": {"@iot.id": 99999}}),
        ("Observations", {"Datastream": {"@iot.id": 1}}),
        ("Observations", {"result": 1, "Datastream": {"@iot.id": 1}, "phenomenonTime": "yesterday"}),
        (
            "Observations",
            {"result": 1, "Datastream": {"@iot.id": 1}, "phenomenonTime": "2026-11-22T02:52:41"},
        ),
        ("Observations", {"result": 1, "Datastream": {"@iot.id": 1}, "parameters": [1]}),
        ("Observations", {"result": 1, "Datastream": {"@iot.id": 1}, "parameters": {"reading": 5}}),
        ("HistoricalLocations", {"time": "2026-11-22T02:52:41Z"}),
    ],
)
def test_a_body_that_breaks_the_model_is_refused_with_a_reason(
    platform: Platform, path: str, body: Any
) -> None:
    answer = platform.post(path, body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["message"]


def test_any_result_comes_back_as_it_was(platform: Platform) -> None:
    node = platform.create("Things", thing("Results"))
    stream = platform.get(f"Things({node})/Datastreams")["value"][0]["@iot.id"]
    results = [1, -2.5, "text", "3", True, False, None, {"a": [1, {"b": None}]}, [], 2**63 - 1, 1e300, "", 0]
    for result in results:
        made = platform.create(f"Datastreams({stream})/Observations", {"result": result})
        assert platform.get(f"Observations({made})/result") == {"result": result}
    back = [
        each["result"] for each in platform.get(f"Datastreams({stream})/Observations", orderby="id")["value"]
    ]
    assert [(type(each), each) for each in back] == [(type(each), each) for each in results]


def test_times_come_back_in_utc(platform: Platform) -> None:
    node = platform.create("Things", thing("Times"))
    stream = platform.get(f"Things({node})/Datastreams")["value"][0]["@iot.id"]
    body = {
        "result": 1,
        "phenomenonTime": "2026-11-22T04:00:00+02:00/2026-11-22T03:00:00.250Z",
        "resultTime": "2026-11-22T03:00:01.000001Z",
        "validTime": "1969-12-31T23:59:59.5Z/2030-01-01T00:00:00Z",
        "resultQuality": {"DQ_Status": ["good"]},
        "parameters": {"reading": "a/1/2", "interval": 60},
    }
    made = platform.create(f"Datastreams({stream})/Observations", body)
    back = platform.get(f"Observations({made})")
    assert back["phenomenonTime"] == "2026-11-22T02:00:00Z/2026-11-22T03:00:00.250Z"
    assert back["resultTime"] == "2026-11-22T03:00:01.000001Z"
    assert back["validTime"] == "1969-12-31T23:59:59.500Z/2030-01-01T00:00:00Z"
    assert back["resultQuality"] == body["resultQuality"]
    assert back["parameters"] == body["parameters"]
