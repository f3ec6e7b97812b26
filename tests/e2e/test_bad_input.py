"""What a chain makes of input that is wrong: a clear error or a counted refusal, and the rest goes on."""

import random
import threading
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from lamppost_host.audit import audit
from lamppost_host.bridge.report import dead_letters, status
from lamppost_host.broker import Credentials
from tests.e2e.chain import BME280, TENANT, Chain, wait_for
from tests.e2e.conftest import MakeChain
from tests.frames import encode_about, encode_obs, revision

TWO_SENSORS = """
import sys

from lamppost import Node
from lamppost.drivers.bme280 import BME280
from lamppost.drivers.ds18b20 import DS18B20

node = Node.from_config(stream=sys.stdout)
node.observe(BME280(node.i2c()), every=0.1)
node.observe(DS18B20(node.onewire(), observed_property="water_temperature"), every=1)
node.run()
"""


def _publisher(chain: Chain, node: str) -> mqtt.Client:
    """A client with a node's own credential."""
    user = f"{TENANT}/{node}"
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"{TENANT}.{node}", clean_session=True)
    client.username_pw_set(user, Credentials(chain.home.broker).get(user))
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect(chain.facts["broker"]["host"], chain.facts["broker"]["port"])
    client.loop_start()
    assert connected.wait(10)
    return client


def _letters(chain: Chain) -> dict[str, int]:
    found: dict[str, int] = status(chain.home.bridge)["dead_letters"]
    return found


def test_refused_frames_are_kept_with_their_reason_and_the_rest_goes_on(make_chain: MakeChain) -> None:
    chain = make_chain("mosquitto")
    good = chain.board("n1")
    good.start()
    client = _publisher(chain, "n2")
    base = f"lamppost/1/{TENANT}/n2"
    noise = random.Random(1)
    about = encode_about()
    boot = bytes(range(8))
    last = None
    for _ in range(300):
        client.publish(f"{base}/obs", noise.randbytes(noise.randrange(60)), qos=1)
    client.publish(f"{base}/about", b"\x81\xa1v\x01", qos=1)
    client.publish(f"{base}/about", about, qos=1, retain=True)
    client.publish(f"{base}/status", b"\xc1", qos=1)
    client.publish(f"{base}/obs", encode_obs(revision(about), boot, 0, [[2150]], seconds=200_000_000), qos=1)
    client.publish(f"{base}/obs", encode_obs(12345, boot, 1, [[2151]], seconds=200_000_001, taken=1), qos=1)
    client.publish(f"{base}/obs", encode_obs(revision(about), boot, 2, [[2152]], clock=1, taken=2), qos=1)
    client.publish(
        f"{base}/obs", encode_obs(revision(about), boot, 3, [[1], [2]], seconds=200_000_003, taken=3), qos=1
    )
    last = client.publish(
        f"{base}/obs", encode_obs(revision(about), boot, 4, [[2154]], seconds=200_000_004, taken=5), qos=1
    )
    last.wait_for_publish(10)
    client.loop_stop()

    wait_for(
        lambda: chain.get("Observations?$filter=parameters/reading eq '0001020304050607/4/0'")["value"],
        "the last frame",
    )
    letters = _letters(chain)
    assert letters["undated"] == 1
    assert letters["about-unknown"] == 1
    kept = dead_letters(chain.home.bridge, 1000)
    # The same bytes sent again are one letter that came several times.
    assert sum(letter["times"] for letter in kept) == 300 + 5
    assert all(letter["code"] and letter["reason"] for letter in kept)
    assert good.stop() == 0
    held = wait_for(lambda: (a := audit(chain.home)).pending == 0 and a, "an audit with nothing on its way")
    by_node = {node.node: node for node in held.nodes}
    assert by_node[f"{TENANT}/n1"].counts.stored == by_node[f"{TENANT}/n1"].counts.sampled > 0
    refused = by_node[f"{TENANT}/n2"].counts
    # Frames 0 and 4 stand on the platform; 1, 2 and 3 (two readings) are dead letters, each named.
    assert (refused.stored, refused.dead_letters, refused.missing, refused.unknown) == (2, 4, 0, 0)


def test_a_node_with_a_wrong_password_says_so_and_keeps_its_readings(make_chain: MakeChain) -> None:
    chain = make_chain("mosquitto")
    board = chain.board("n1", credential="not the password")
    other = chain.board("n2")
    other.start()
    board.start()
    wait_for(lambda: "password" in board.log or "authori" in board.log.lower(), "the node to say why", 20)
    wait_for(lambda: audit(chain.home).stored, "the other node's readings")
    assert board.running
    assert "not the password" not in board.log
    assert all(node.node != f"{TENANT}/n1" for node in audit(chain.home).nodes)
    assert other.stop() == 0


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"tenant": "Tallinn City"}, "tenant"),
        ({"broker": {"host": 7}}, "broker.host"),
        ({"location": [24.7, 59.4]}, "location"),
        ({"batch": {"rows": 0}}, "batch.rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_setting_is_named(make_chain: MakeChain, config: dict[str, Any], says: str) -> None:
    chain = make_chain("embedded")
    board = chain.board("n1", config=config)
    board.start()
    assert board.wait(20) == 1
    assert "ConfigError" in board.log
    assert says in board.log


def test_settings_that_are_no_json_are_named(make_chain: MakeChain) -> None:
    chain = make_chain("embedded")
    board = chain.board("n1", files={"/node.json": b'{"tenant": "x",'})
    board.start()
    assert board.wait(20) == 1
    assert "node.json is not JSON" in board.log


@pytest.mark.parametrize("fault", [{"absent": True}, {"bad_crc_every": 1}], ids=["absent", "bad CRC"])
def test_a_failing_sensor_is_counted_and_the_other_goes_on(
    make_chain: MakeChain, fault: dict[str, Any]
) -> None:
    chain = make_chain("embedded")
    board = chain.board(
        "n1",
        main=TWO_SENSORS,
        sensors=[BME280, {"sensor": "ds18b20", "faults": fault}],
        config={"onewire": {"pin": 4}},
    )
    board.start()

    def faults() -> bool:
        counted = status(chain.home.bridge)["faults"].get(f"{TENANT}/n1", {})
        return set(counted) == {"water_temperature"} and audit(chain.home).stored > 0

    wait_for(faults, "a status that counts the faults, and the other sensor's readings")
    assert board.stop() == 0
    found = wait_for(lambda: (a := audit(chain.home)).pending == 0 and a, "an audit with nothing on its way")
    assert found.exit_code == 0
    keys = {key.rsplit("/", 1)[1] for key, held in chain.stored().items() if held}
    assert keys == {"air_temperature", "relative_humidity", "air_pressure"}


def test_a_flash_that_fails_is_counted_and_the_node_lives_on(make_chain: MakeChain) -> None:
    chain = make_chain("embedded")
    board = chain.board(
        "n1", flash_faults={"fail_after_bytes": 120_000}, config={"batch": {"rows": 1, "seconds": 1}}
    )
    board.start()
    wait_for(lambda: audit(chain.home).refused, "readings counted as refused")
    assert board.running
    assert "flash refuses" in board.log
    assert board.stop(30) == 0
    found = wait_for(lambda: (a := audit(chain.home)).pending == 0 and a, "an audit with nothing on its way")
    assert found.stored == found.sampled - found.lost
    assert found.lost == found.refused > 0
    assert (found.missing, found.unknown, found.duplicates) == (0, 0, 0)
