"""frost-sta-client, which cities use against FROST, reads and writes the embedded platform."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import missing_service
from tests.platforms import Platform, thing

_MINUTES = 30


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("platform")).start()
    running.create("Things", thing("Harbour", datastreams=2))
    rows = [[f"2026-11-22T02:{minute:02}:00Z", minute + 0.5] for minute in range(_MINUTES)]
    running.post(
        "CreateObservations",
        [{"Datastream": {"@iot.id": 1}, "components": ["phenomenonTime", "result"], "dataArray": rows}],
    )
    yield running
    running.close()


@pytest.fixture
def client() -> Any:
    try:
        import frost_sta_client
    except ImportError:
        missing_service("frost-sta-client", "pip install frost_sta_client")
        raise
    return frost_sta_client


def test_it_reads(platform: Platform, client: Any) -> None:
    service = client.SensorThingsService(platform.url)
    found = service.things().query().filter("name eq 'Harbour'").expand("Datastreams/Sensor,Locations").list()
    (node,) = found.entities
    assert node.datastreams.entities[1].sensor.name == "BME280"
    assert node.locations.entities[0].location["coordinates"] == [24.9384, 60.1699]
    stream = service.datastreams().find(1)
    assert stream.unit_of_measurement.symbol == "°C"
    # Seven a page: it follows the next links.
    readings = stream.get_observations().query().orderby("phenomenonTime", "desc").top(7).list()
    assert [each.result for each in readings] == [minute + 0.5 for minute in reversed(range(_MINUTES))]


def test_it_writes(platform: Platform, client: Any) -> None:
    from frost_sta_client.service.auth_handler import AuthHandler
    from requests.auth import AuthBase

    class Bearer(AuthBase):
        def __call__(self, request: Any) -> Any:
            request.headers.update(platform.headers)
            return request

    class Handler(AuthHandler):  # type: ignore[misc]
        def __init__(self) -> None:
            """The library's own knows basic authentication only."""

        def add_auth_header(self) -> AuthBase:
            return Bearer()

    service = client.SensorThingsService(platform.url, auth_handler=Handler())
    made = client.Thing(name="made", description="by the client", properties={"a": 1})
    service.create(made)
    assert platform.get(f"Things({made.id})/properties") == {"properties": {"a": 1}}
    made.name = "renamed"
    service.update(made)
    assert platform.get(f"Things({made.id})/name") == {"name": "renamed"}
    reading = client.Observation(
        result=12, phenomenon_time="2026-11-22T05:00:00Z", datastream=service.datastreams().find(1)
    )
    service.create(reading)
    assert platform.get(f"Observations({reading.id})/Datastream/@iot.id") == {"@iot.id": 1}
    service.delete(made)
    assert platform.client.get(f"{platform.url}/Things({made.id})").status_code == 404
