"""Every performance claim, measured: `python -m tests.bench.run --json [NAME...]` (or `python tests/bench/run.py`).

One JSON object a line: name, value, unit, target (and whether more or less is wanted), against. Every ratio is of two things measured side by side in this
run; absolute figures depend on the machine.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lamppost_host.broker import start_broker  # noqa: E402
from lamppost_host.virtual.interpreter import find_micropython  # noqa: E402
from tests.bench import chain  # noqa: E402

Figure = dict[str, Any]
_HERE = Path(__file__).parent


def _figure(name: str, value: float, unit: str, target: str, against: str) -> Figure:
    return {"name": name, "value": round(value, 3), "unit": unit, "target": target, "against": against}


def _micropython(script: str, *arguments: object) -> Any:
    command = [*find_micropython(), "-X", "heapsize=1m", str(_HERE / script), str(ROOT / "firmware")]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def encoding() -> Iterator[Figure]:
    """60 regular readings of a slow quantity at 0.01, as a frame and as SensorThings JSON, on the node."""
    found = _micropython("node_encode.py")
    yield _figure(
        "wire_bytes_per_reading", found["wire_bytes_per_reading"], "B", "<= 1.5",
        f"{found['json_bytes_per_reading']} B as SensorThings JSON",
    )  # fmt: skip
    yield _figure(
        "heap_bytes_per_sample", found["heap_bytes_per_sample"], "B", "0", "the steady state of sampling"
    )
    yield _figure(
        "encode_speed_vs_json", found["json_us_per_reading"] / found["frame_us_per_reading"], "ratio", ">= 8",
        f"json.dumps of the same: {found['json_us_per_reading']:.2f} us a reading; frame: {found['frame_us_per_reading']:.2f} us",
    )  # fmt: skip


def node_to_broker() -> Iterator[Figure]:
    """QoS 1 messages of 150 bytes from one node to Mosquitto."""
    for window in (8, 32):
        with tempfile.TemporaryDirectory() as folder, start_broker(Path(folder), kind="mosquitto") as broker:
            user = "bench/n1"
            password = broker.admit(user)
            rates = [
                _micropython("node_qos1.py", "127.0.0.1", broker.port, user, password, 20_000, 150, window)
                for _ in range(3)
            ]
        yield _figure(
            "qos1_messages_per_s", max(rates), "1/s", "none stated", f"Mosquitto, window {window}, best of 3"
        )


def broker_to_platform() -> Iterator[Figure]:
    """Frames of 60 readings from Mosquitto to the platform, durable at each step."""
    rounds = [chain.measure() for _ in range(3)]
    for found in rounds:
        if found["stored"] != found["readings"]:
            raise SystemExit(f"{found['stored']} of {found['readings']} readings were stored")
    best = max(rounds, key=lambda found: found["readings_per_s"])
    yield _figure(
        "readings_per_s_broker_to_platform",
        best["readings_per_s"],
        "1/s",
        ">= 100000",
        "best of 3; bridge, sink, platform as processes",
    )
    ratios = sorted(found["ratio"] for found in rounds)
    yield _figure(
        "readings_vs_raw_executemany", ratios[1], "ratio", ">= 0.5",
        f"median of 3; executemany of the same rows: {best['raw_rows_per_s']} 1/s",
    )  # fmt: skip


def demo() -> Iterator[Figure]:
    """From the command to each node's first readings on the page."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "lamppost_host", "demo", "--nodes", "3", "--port", "0", "--seconds", "1", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip().startswith("page"):
                times.append(time.monotonic() - began)
                break
        process.communicate(timeout=120)
        if process.returncode != 0:
            raise SystemExit("the demo did not end with every reading stored once")
    yield _figure("demo_ready_s", sorted(times)[1], "s", "<= 10", "median of 3; three virtual nodes")


BENCHMARKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "encoding": encoding,
    "node_to_broker": node_to_broker,
    "broker_to_platform": broker_to_platform,
    "demo": demo,
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
def main(as_json: bool, names: tuple[str, ...]) -> None:
    """Measure. NAMES: which benchmarks; without one, all."""
    for name in names or BENCHMARKS:
        for figure in BENCHMARKS[name]():
            if as_json:
                click.echo(json.dumps(figure))
            else:
                click.echo(
                    f"{figure['name']:36} {figure['value']:>12} {figure['unit']:6} target {figure['target']:12} {figure['against']}"
                )


if __name__ == "__main__":
    main()
