"""The platform as a service: who may write, limits, faults of disk and process, starting and stopping."""

import json
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.platforms import Platform, running_platform, start_platform, thing  # noqa: F401 - fixtures

_PARTS = ["phenomenonTime", "result", "parameters"]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("platform")).start()
    running.create("Things", thing())
    yield running
    running.close()


def _array(first: int, count: int, stream: int = 1) -> list[dict[str, Any]]:
    rows = [
        ["2026-11-22T02:00:00Z", n, {"reading": f"b/{n // 60}/{n % 60}"}] for n in range(first, first + count)
    ]
    return [{"Datastream": {"@iot.id": stream}, "components": _PARTS, "dataArray": rows}]


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", "Basic abc", "Bearer tökén".encode(), "bearer x", "TOKEN"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "Things"),
        ("POST", "CreateObservations"),
        ("PATCH", "Things(1)"),
        ("DELETE", "Things(1)"),
        ("POST", "Nothings"),
    ],
)
def test_writing_needs_the_token(platform: Platform, method: str, path: str, authorization: Any) -> None:
    if authorization == "TOKEN":
        authorization = platform.token  # without its scheme
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = platform.client.request(method, f"{platform.url}/{path}", json={"name": "x"}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert platform.get("Things(1)/name") == {"name": "Node 1"}


def test_the_token_is_its_owners_alone(platform: Platform) -> None:
    assert (platform.home / "platform" / "token").stat().st_mode & 0o777 == 0o600
    assert len(platform.token) >= 40


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"name": NaN}', b"[" * 5000, b'{"a": "\\ud800"}'])
@pytest.mark.parametrize("path", ["Things", "CreateObservations"])
def test_a_body_that_is_no_json_is_refused(platform: Platform, path: str, body: bytes) -> None:
    answer = platform.client.post(f"{platform.url}/{path}", content=body, headers=platform.headers)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["message"]


def test_a_body_that_is_too_large_is_refused(platform: Platform) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 1_000_000

    announced = platform.client.post(
        f"{platform.url}/Things", content=b" " * 33_600_000, headers=platform.headers
    )
    assert announced.status_code == 413
    try:
        streamed = platform.client.post(
            f"{platform.url}/CreateObservations", content=pieces(), headers=platform.headers
        )
    except httpx.TransportError:
        pass  # the service may close the connection before all is sent
    else:
        assert streamed.status_code == 413
    assert platform.get("Things(1)/name") == {"name": "Node 1"}


def test_methods_that_a_resource_has_not(platform: Platform) -> None:
    for method, path in [
        ("POST", "Things(1)"),
        ("PATCH", "Things"),
        ("DELETE", "Things"),
        ("PUT", "Things"),
        ("GET", "CreateObservations"),
    ]:
        answer = platform.client.request(method, f"{platform.url}/{path}", json={}, headers=platform.headers)
        assert answer.status_code in (404, 405), (method, path)
        assert answer.json()["message"]


def test_scripts_of_other_sites_may_read_and_not_write(platform: Platform) -> None:
    origin = {"Origin": "https://elsewhere.example"}
    answer = platform.client.get(f"{platform.url}/Things", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "*"
    ask = origin | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    assert platform.client.options(f"{platform.url}/Things", headers=ask).status_code == 400


def test_a_strange_host_header_is_not_echoed(platform: Platform) -> None:
    answer = platform.client.get(f"{platform.url}/Things", headers={"Host": 'x"><script>'})
    assert answer.status_code == 400


def test_head_is_get_without_its_body(platform: Platform) -> None:
    answer = platform.client.head(f"{platform.url}/Things(1)")
    assert answer.status_code == 200
    assert answer.content == b""


def test_the_address_is_written_where_the_bridge_looks(platform: Platform) -> None:
    assert json.loads((platform.home / "platform" / "address.json").read_text()) == {"url": platform.url}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_clean_and_quick_with_pages_open(
    start_platform: Callable[..., Platform],  # noqa: F811
    number: int,
) -> None:
    running = start_platform()
    with running.client.stream("GET", f"{running.page}events") as events:
        assert next(events.iter_bytes())
        began = time.monotonic()
        assert running.stop(number) == 0
        assert time.monotonic() - began < 4
    assert "Traceback" not in (running.home / "platform.log").read_text()


def test_events_tell_what_arrives(platform: Platform) -> None:
    with platform.client.stream("GET", f"{platform.page}events") as events:
        lines = events.iter_lines()
        next(lines)
        platform.post("CreateObservations", _array(5_000, 3))
        data = next(line for line in lines if line.startswith("data: "))
    assert json.loads(data[6:]) == [
        {"datastream": 1, "phenomenonTime": "2026-11-22T02:00:00Z", "result": 5002}
    ]


def _refusal(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lamppost_host", "platform", *options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_in_use_is_told(platform: Platform, tmp_path: Path) -> None:
    port = platform.url.rpartition(":")[2].partition("/")[0]
    assert "--port" in _refusal("--home", str(tmp_path), "--port", port)


def test_a_second_platform_on_the_same_folder_is_refused(platform: Platform) -> None:
    assert "another platform" in _refusal("--home", str(platform.home), "--port", "0")


@pytest.mark.parametrize(
    ("content", "says"), [("newer", "newer Lamppost"), ("text", "can't open the database")]
)
def test_a_database_it_cannot_use_is_told(tmp_path: Path, content: str, says: str) -> None:
    folder = tmp_path / "platform"
    folder.mkdir()
    if content == "newer":
        database = sqlite3.connect(folder / "platform.db")
        database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        (folder / "platform.db").write_text("this is no database, and long enough to tell " * 50)
    assert says in _refusal("--home", str(tmp_path), "--port", "0")


def test_what_was_answered_is_there_after_a_kill(running_platform: Platform) -> None:  # noqa: F811
    """SIGKILL at ten moments of a stream of deliveries, each repeated until it is answered: nothing lost, nothing twice."""
    platform = running_platform
    platform.create("Things", thing())
    answered: dict[int, str] = {}
    for turn in range(10):
        killer = threading.Timer(0.02 + turn * 0.013, platform.kill)
        killer.start()
        first = turn * 2_000
        try:
            while first < (turn + 1) * 2_000:
                answer = platform.post("CreateObservations", _array(first, 100))
                assert answer.status_code == 201
                answered |= {first + index: link for index, link in enumerate(answer.json())}
                first += 100
        except httpx.TransportError:
            pass
        killer.join()
        platform.start()
        for start in range(first, (turn + 1) * 2_000, 100):
            links = platform.post("CreateObservations", _array(start, 100)).json()
            answered |= {start + index: link for index, link in enumerate(links)}
    assert len(answered) == len(set(answered.values())) == 20_000
    assert platform.get("Observations", top="0", count="true")["@iot.count"] == 20_000
    for number in (0, 9_999, 19_999):
        assert platform.get(answered[number].rpartition("/")[2])["result"] == number


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux sets the limits of another process")
def test_a_full_disk_is_said_and_heals(running_platform: Platform) -> None:  # noqa: F811
    platform = running_platform
    platform.create("Things", thing())
    stored = 0
    _, hard = resource.prlimit(platform.pid, resource.RLIMIT_FSIZE)  # type: ignore[attr-defined]
    resource.prlimit(platform.pid, resource.RLIMIT_FSIZE, (600_000, hard))  # type: ignore[attr-defined]
    while (answer := platform.post("CreateObservations", _array(stored, 500))).status_code == 201:
        stored += 500
        assert stored < 200_000
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert platform.post("Things", thing("Other")).status_code == 503
    assert platform.get("Observations", top="0", count="true")["@iot.count"] == stored
    resource.prlimit(platform.pid, resource.RLIMIT_FSIZE, (hard, hard))  # type: ignore[attr-defined]
    assert platform.post("CreateObservations", _array(stored, 500)).status_code == 201
    assert platform.get("Observations", top="0", count="true")["@iot.count"] == stored + 500


def test_a_locked_database_is_said_while_reads_go_on(running_platform: Platform) -> None:  # noqa: F811
    platform = running_platform
    platform.create("Things", thing())
    other = sqlite3.connect(platform.home / "platform" / "platform.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert platform.get("Things(1)/name") == {"name": "Node 1"}
    answer = platform.post("CreateObservations", _array(0, 10))
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    other.execute("ROLLBACK")
    other.close()
    assert platform.post("CreateObservations", _array(0, 10)).status_code == 201


def test_reads_do_not_wait_for_the_writer(running_platform: Platform) -> None:  # noqa: F811
    """While one client delivers without pause, another reads: no read takes long."""
    platform = running_platform
    platform.create("Things", thing())
    stop = threading.Event()

    def deliver() -> None:
        with httpx.Client(timeout=30) as client:
            first = 0
            while not stop.is_set():
                body = _array(first, 2_000)
                client.post(
                    f"{platform.url}/CreateObservations", json=body, headers=platform.headers
                ).raise_for_status()
                first += 2_000

    thread = threading.Thread(target=deliver)
    thread.start()
    times = []
    try:
        for _ in range(60):
            began = time.monotonic()
            platform.get("Datastreams", expand="Observations($top=1;$orderby=phenomenonTime desc)")
            times.append(time.monotonic() - began)
    finally:
        stop.set()
        thread.join()
    assert sorted(times)[len(times) // 2] < 0.25


def test_clients_that_go_away_leave_the_readers_free(running_platform: Platform) -> None:  # noqa: F811
    """Many more broken-off reads than there are readers; the next read is answered, and promptly."""
    platform = running_platform
    platform.create("Things", thing())
    for first in range(0, 20_000, 5_000):
        assert platform.post("CreateObservations", _array(first, 5_000)).status_code == 201
    for _ in range(12):
        with platform.client.stream("GET", f"{platform.url}/Observations?$top=10000") as answer:
            next(answer.iter_raw(1_000))
    began = time.monotonic()
    assert len(platform.get("Observations", top="10000")["value"]) == 10_000
    assert time.monotonic() - began < 5
