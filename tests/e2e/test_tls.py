"""A whole node over TLS: the right authority is believed, another is not."""

import subprocess
import threading
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
import trustme

from lamppost_host.broker import BRIDGE_USER, Credentials, start_broker
from lamppost_host.virtual.board import VirtualBoard
from tests.e2e.chain import BME280, MAIN, QUICK, TENANT, wait_for


@pytest.mark.parametrize("trusted", [True, False], ids=["right authority", "foreign authority"])
def test_a_node_checks_its_brokers_certificate(
    tmp_path: Path, mosquitto: str, micropython: list[str], trusted: bool
) -> None:
    if subprocess.run([*micropython, "-c", "import ssl"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this MicroPython has no ssl module; the one from PyPI does")
    authority, foreign = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.private_key_pem.write_to_path(str(key))
    cert.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (tmp_path / "broker").mkdir(mode=0o700)
    user = f"{TENANT}/n1"
    password = Credentials(tmp_path / "broker").add(user)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with start_broker(tmp_path / "broker", kind="mosquitto", cert=cert, key=key) as broker:
        settings = {
            "tenant": TENANT,
            "node": "n1",
            "i2c": {"id": 0, "scl": 22, "sda": 21},
            "broker": {
                "host": "localhost", "port": broker.port, "user": user, "password": password,
                "tls": True, "ca": "/ca.pem",
            },
        }  # fmt: skip
        believed = (authority if trusted else foreign).cert_pem.bytes()
        board = VirtualBoard(
            tmp_path / "n1", MAIN.format(every=0.1), settings | QUICK, [BME280], files={"/ca.pem": believed}
        )
        heard = _listen(broker.port, Credentials(tmp_path / "broker").ensure(BRIDGE_USER), str(ca))
        with board:
            if trusted:
                wait_for(lambda: f"lamppost/1/{TENANT}/n1/obs" in heard, "the node's readings", 20)
            else:
                wait_for(
                    lambda: "mqtt: ValueError" in board.log or "mqtt: OSError" in board.log,
                    "the node's refusal",
                    20,
                )
                assert not heard
            assert board.running


def _listen(port: int, password: str, ca: str) -> list[str]:
    """The topics of what nodes publish from now on."""
    heard: list[str] = []
    subscribed = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.tls_set(ca)
    client.username_pw_set(BRIDGE_USER, password)
    client.on_message = lambda _client, _data, message: heard.append(message.topic)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("localhost", port)
    client.subscribe("lamppost/1/+/+/obs", qos=1)
    client.loop_start()
    assert subscribed.wait(10)
    return heard
