"""The broker as Lamppost runs it: who gets in, what each may do, what it keeps."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from lamppost_host.broker import Credentials, RunningBroker, read_address, start_broker
from lamppost_host.broker.probe import connect_code
from lamppost_host.errors import LamppostError
from tests import brokers

running_broker = brokers.running_broker
running_mosquitto = brokers.running_mosquitto

NODE_WRITES = ("about", "obs", "status", "ask", "log", "reply")
HOST_WRITES = ("mark", "time", "cmd")


def until(condition: Callable[[], object], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class User:
    """A connected client that keeps what it gets."""

    def __init__(
        self, broker: RunningBroker, user: str, client_id: str = "", clean: bool = True, **options: object
    ) -> None:
        self.messages: list[MQTTMessage] = []
        self.acknowledged: set[int] = set()
        self.subscribed: set[int] = set()
        self.disconnected = False
        self.connections = 0
        self.client = Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean)
        self.client.max_inflight_messages_set(1000)
        self.client.username_pw_set(user, broker.credentials.get(user))
        if "will" in options:
            self.client.will_set(str(options["will"]), b"lost", 1)
        self.client.on_message = lambda _client, _data, message: self.messages.append(message)
        self.client.on_publish = lambda _client, _data, mid, *_: self.acknowledged.add(mid)
        self.client.on_subscribe = lambda _client, _data, mid, *_: self.subscribed.add(mid)
        self.client.on_connect = self._connected
        self.client.on_disconnect = self._disconnected
        self.client.connect(broker.connect_host, broker.port)
        self.client.loop_start()
        until(lambda: self.connections)

    def _connected(
        self, client: Client, data: object, flags: object, code: ReasonCode, properties: Properties | None
    ) -> None:
        assert not code.is_failure
        self.connections += 1

    def _disconnected(self, *_: object) -> None:
        self.disconnected = True

    def subscribe(self, topic: str, qos: int = 1) -> None:
        mid = self.client.subscribe(topic, qos)[1]
        until(lambda: mid in self.subscribed)

    def publish(self, topic: str, payload: str | bytes = b"x", retain: bool = False) -> None:
        """Publish at QoS 1 and wait for the PUBACK."""
        self.client.publish(topic, payload, 1, retain).wait_for_publish(10)

    def topics(self) -> list[str]:
        return [message.topic for message in self.messages]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def die(self) -> None:
        """Close the connection without a DISCONNECT."""
        sock = self.client.socket()
        assert sock is not None
        self.client.loop_stop()
        sock.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., User]]:
    users: list[User] = []

    def make(*arguments: object, **options: object) -> User:
        users.append(User(*arguments, **options))  # type: ignore[arg-type]
        return users[-1]

    yield make
    for user in users:
        user.close()


def code(broker: RunningBroker, user: str | None, password: str | None) -> int | None:
    return connect_code(broker.connect_host, broker.port, user, password)


def test_only_the_right_password_gets_in(running_broker: RunningBroker) -> None:
    right = running_broker.credentials.get("alpha/one")
    assert code(running_broker, "alpha/one", right) == 0
    assert code(running_broker, "alpha/one", right + "x") != 0
    assert code(running_broker, "alpha/one", "") != 0
    assert code(running_broker, "alpha/one", None) != 0
    assert code(running_broker, "alpha/two", right) != 0
    assert code(running_broker, "nobody/here", right) != 0
    assert code(running_broker, None, None) != 0


def test_it_listens_on_loopback_and_its_files_are_the_owners(running_broker: RunningBroker) -> None:
    assert running_broker.connect_host == "127.0.0.1"
    assert read_address(running_broker.folder) == {
        "host": "127.0.0.1",
        "port": running_broker.port,
        "kind": running_broker.kind,
    }
    for path in running_broker.folder.iterdir():
        text = path.read_bytes()
        if any(password.encode() in text for password in running_broker.credentials.all().values()):
            assert path.stat().st_mode & 0o077 == 0, path
            assert path.name in ("credentials.json", "embedded.toml")
    command = Path(f"/proc/{running_broker.pid}/cmdline")
    if command.exists():
        assert not any(
            password.encode() in command.read_bytes()
            for password in running_broker.credentials.all().values()
        )


def test_the_host_hears_the_nodes_and_the_nodes_the_host(
    running_broker: RunningBroker, connect: Callable[..., User]
) -> None:
    bridge, node = connect(running_broker, "bridge"), connect(running_broker, "alpha/one")
    for kind in NODE_WRITES:
        bridge.subscribe(f"lamppost/1/+/+/{kind}")
    for kind in HOST_WRITES:
        node.subscribe(f"lamppost/1/alpha/one/{kind}")
    for kind in NODE_WRITES:
        node.publish(f"lamppost/1/alpha/one/{kind}")
    for kind in HOST_WRITES:
        bridge.publish(f"lamppost/1/alpha/one/{kind}")
    until(lambda: len(bridge.messages) == len(NODE_WRITES) and len(node.messages) == len(HOST_WRITES))
    assert bridge.topics() == [f"lamppost/1/alpha/one/{kind}" for kind in NODE_WRITES]
    assert node.topics() == [f"lamppost/1/alpha/one/{kind}" for kind in HOST_WRITES]


def test_a_node_reaches_its_own_topics_only(
    running_mosquitto: RunningBroker, connect: Callable[..., User]
) -> None:
    """The broker says nothing of a refusal to an MQTT 3.1.1 client, so what counts is that nothing arrives."""
    bridge, node, other = (connect(running_mosquitto, user) for user in ("bridge", "alpha/one", "alpha/two"))
    for topic in ("#", "lamppost/1/+/+/obs", "lamppost/1/#", "$SYS/#"):
        bridge.subscribe(topic)
        node.subscribe(topic)
    for topic in (
        "lamppost/1/alpha/two/mark",
        "lamppost/1/alpha/two/cmd",
        "lamppost/1/beta/one/cmd",
        "lamppost/1/+/+/mark",
    ):
        node.subscribe(topic)
    foreign = [f"lamppost/1/{name}/{kind}" for name in ("alpha/two", "beta/one") for kind in NODE_WRITES]
    foreign += [f"lamppost/1/alpha/one/{kind}" for kind in HOST_WRITES]  # those are the host's
    foreign += [
        "lamppost/1/alpha/one",
        "lamppost/1/alpha/one/other",
        "lamppost/1/alpha/one/obs/more",
        "anything",
        "lamppost/2/alpha/one/obs",
    ]
    for topic in foreign:
        node.publish(topic)
        node.publish(topic, retain=True)
    for topic in ("lamppost/1/alpha/two/mark", "lamppost/1/alpha/two/cmd", "lamppost/1/beta/one/cmd"):
        bridge.publish(topic)
    other.publish("lamppost/1/alpha/two/obs", b"end")
    bridge.publish("lamppost/1/alpha/one/mark", b"end")
    until(lambda: bridge.messages and node.messages)
    assert set(bridge.topics()) == {"lamppost/1/alpha/two/obs"}
    assert {message.payload for message in bridge.messages} == {b"end"}
    assert set(node.topics()) == {"lamppost/1/alpha/one/mark"}


def test_a_will_is_bound_like_any_other_publish(
    running_mosquitto: RunningBroker, connect: Callable[..., User]
) -> None:
    bridge = connect(running_mosquitto, "bridge")
    bridge.subscribe("lamppost/1/+/+/status")
    connect(running_mosquitto, "alpha/one", will="lamppost/1/alpha/two/status").die()
    connect(running_mosquitto, "alpha/one", will="lamppost/1/alpha/one/status").die()
    until(lambda: bridge.messages)
    assert bridge.topics() == ["lamppost/1/alpha/one/status"]


def test_a_bridge_that_is_away_misses_nothing(
    running_broker: RunningBroker, connect: Callable[..., User]
) -> None:
    """Five times the queue at which Mosquitto's defaults drop what they have acknowledged."""
    messages = 5000
    bridge = connect(running_broker, "bridge", "the-bridge", clean=False)
    bridge.subscribe("lamppost/1/+/+/obs")
    bridge.close()
    node = connect(running_broker, "alpha/one")
    last = [
        node.client.publish("lamppost/1/alpha/one/obs", str(number).ljust(150), 1)
        for number in range(messages)
    ][-1]
    until(lambda: len(node.acknowledged) == messages, 30)
    assert last.is_published()
    bridge = connect(running_broker, "bridge", "the-bridge", clean=False)
    until(lambda: len(bridge.messages) >= messages, 30)
    assert [int(message.payload) for message in bridge.messages] == list(range(messages))


def test_mosquitto_keeps_sessions_and_retained_messages_over_a_restart(
    running_mosquitto: RunningBroker, connect: Callable[..., User]
) -> None:
    bridge = connect(running_mosquitto, "bridge", "the-bridge", clean=False)
    bridge.subscribe("lamppost/1/+/+/obs")
    bridge.close()
    node = connect(running_mosquitto, "alpha/one")
    for number in range(100):
        node.publish("lamppost/1/alpha/one/obs", str(number))
    node.publish("lamppost/1/alpha/one/about", b"retained", retain=True)
    node.close()
    running_mosquitto.restart()
    bridge = connect(running_mosquitto, "bridge", "the-bridge", clean=False)
    bridge.subscribe("lamppost/1/+/+/about")
    until(lambda: len(bridge.messages) == 101)
    assert bridge.messages[-1].payload == b"retained" or b"retained" in {
        message.payload for message in bridge.messages
    }


def test_a_credential_added_or_removed_holds_at_once(
    running_mosquitto: RunningBroker, connect: Callable[..., User]
) -> None:
    broker = running_mosquitto
    assert code(broker, "gamma/one", broker.admit("gamma/one")) == 0
    node = connect(broker, "gamma/one")
    # As another process would, with nothing but the files.
    elsewhere = Credentials(broker.folder)
    password = elsewhere.add("gamma/two")
    until(lambda: code(broker, "gamma/two", password) == 0, 3)
    gone = elsewhere.get("gamma/one")
    elsewhere.remove("gamma/one")
    until(lambda: code(broker, "gamma/one", gone) != 0, 3)
    until(lambda: node.disconnected, 3)  # who was connected with it has to go
    assert code(broker, "alpha/one", broker.credentials.get("alpha/one")) == 0


def test_the_embedded_broker_says_that_a_credential_needs_a_restart(tmp_path: Path) -> None:
    with start_broker(tmp_path, "embedded") as broker:
        with pytest.raises(LamppostError, match="only when it starts"):
            broker.admit("gamma/one")
        password = broker.credentials.add("gamma/one")
        assert code(broker, "gamma/one", password) != 0
        broker.restart()
        assert code(broker, "gamma/one", password) == 0


def test_a_packet_too_large_costs_the_connection_not_the_broker(
    running_broker: RunningBroker, connect: Callable[..., User]
) -> None:
    bridge, node, other = (connect(running_broker, user) for user in ("bridge", "alpha/one", "alpha/two"))
    bridge.subscribe("lamppost/1/+/+/obs")
    other.publish("lamppost/1/alpha/two/obs", bytes(8192))  # the largest of WIRE.md
    node.client.publish("lamppost/1/alpha/one/obs", bytes(40_000), 1)
    until(lambda: node.disconnected)
    other.publish("lamppost/1/alpha/two/obs", b"end")
    until(lambda: len(bridge.messages) >= 2)
    assert [len(message.payload) for message in bridge.messages] == [8192, 3]


def test_kill_and_start_again_on_the_same_port(running_broker: RunningBroker) -> None:
    port, pid = running_broker.port, running_broker.pid
    running_broker.kill()
    assert not running_broker.alive()
    running_broker.start()
    assert running_broker.alive()
    assert (running_broker.port, running_broker.pid != pid) == (port, True)
    running_broker.stop()
    running_broker.stop()
    assert not running_broker.alive()


def test_mosquitto_speaks_tls_with_the_certificate_given(mosquitto: str, tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("broker.lamppost.example")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    with start_broker(tmp_path / "broker", "mosquitto", cert=cert, key=key) as broker:
        password = broker.credentials.get("bridge")
        assert connect_code("127.0.0.1", broker.port, "bridge", password, certificate=cert) == 0
        assert connect_code("127.0.0.1", broker.port, "bridge", password) is None  # not without TLS
        assert read_address(broker.folder)["cert"] == str(cert)


def test_an_expired_certificate_is_named(mosquitto: str, tmp_path: Path) -> None:
    import datetime

    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    issued = trustme.CA().issue_cert(
        "broker.example", not_before=yesterday - datetime.timedelta(days=1), not_after=yesterday
    )
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    with pytest.raises(LamppostError, match="expired"):
        start_broker(tmp_path / "broker", "mosquitto", cert=cert, key=key)
