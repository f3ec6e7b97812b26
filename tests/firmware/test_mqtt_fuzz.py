"""Arbitrary bytes from a broker do a node no harm: one long-lived client, a connection for every example."""

import queue
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import FIRMWARE
from tests.firmware.mqtt_peer import CONNACK, PRELUDE, Connection, Gone, Peer, length

EXAMPLES = 400

# Prints one line a connection that ended: its reason. What it gets, it looks at.
CLIENT = (
    PRELUDE
    + """
async def main():
    c = client(int(sys.argv[1]), backoff_ms=(1, 2), rx_bytes=256)
    c.on_message = lambda topic, payload, retained: bytes(topic) + bytes(payload)
    await c.run()
asyncio.run(main())
"""
)

packet = st.builds(
    lambda first, body: bytes((first,)) + length(len(body)) + body,
    st.one_of(st.integers(0, 255), st.sampled_from([0x30, 0x32, 0x33, 0x40, 0x90, 0xB0, 0xD0])),
    st.one_of(
        st.binary(max_size=40),
        st.builds(
            lambda topic, rest: len(topic).to_bytes(2, "big") + topic + rest,
            st.binary(max_size=30),
            st.binary(max_size=400),
        ),
        st.builds(
            lambda identifier, rest: identifier + rest,
            st.binary(min_size=2, max_size=2),
            st.binary(max_size=2),
        ),
    ),
)
stream = st.one_of(
    st.binary(max_size=100),
    st.binary(max_size=100).map(lambda data: CONNACK + data),
    st.lists(packet, max_size=12).map(lambda packets: CONNACK + b"".join(packets)),
)


class Fuzzed:
    """A client that connects again and again; each connection gets the next bytes that are put."""

    def __init__(self) -> None:
        self.to_send: queue.Queue[bytes] = queue.Queue()
        self.connects: queue.Queue[bytes] = queue.Queue()
        self.stopping = False

    def script(self, connection: Connection) -> None:
        while not self.stopping:
            try:
                data = self.to_send.get(timeout=0.1)
                break
            except queue.Empty:
                continue
        else:
            return
        self.connects.put(connection.expect(1))
        connection.send(data)
        connection.sock.settimeout(0.01)
        try:
            connection.until_gone()
        except TimeoutError:
            return  # nothing wrong with those bytes: we hang up
        except Gone:
            return


@pytest.fixture(scope="module")
def fuzzed(micropython: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    fuzz = Fuzzed()
    file: Path = tmp_path_factory.mktemp("fuzz") / "client.py"
    file.write_text(f"import sys\nsys.path.insert(0, {str(FIRMWARE)!r})\n" + CLIENT, encoding="utf-8")
    with Peer(fuzz.script) as peer:
        with subprocess.Popen(
            [*micropython, "-X", "heapsize=400k", str(file), str(peer.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            yield fuzz
            alive = process.poll() is None
            process.kill()
            out = process.communicate()[0]
        fuzz.stopping = True
    assert alive, f"the client died:\n{out[-2000:]}"
    reasons = {line.partition("error: ")[2] for line in out.splitlines()}
    assert {reason.partition(" ")[0] for reason in reasons} <= {"MqttError", "MqttRefused", "OSError"}, (
        reasons
    )
    assert len(reasons) > 10  # it told different faults apart, so the bytes reached the decoder


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(stream)
def test_any_bytes(fuzzed: Fuzzed, data: bytes) -> None:
    fuzzed.to_send.put(data)
    connect = fuzzed.connects.get(timeout=10)  # it came back after the last ones, and speaks as it should
    assert connect.startswith(b"\x00\x04MQTT\x04")
    assert connect.endswith(b"\x00\x09alpha.one")
