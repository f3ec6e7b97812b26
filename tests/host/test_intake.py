"""The intake on real brokers: on disk before PUBACK, marks after, credentials told apart, nothing lost when the disk refuses."""

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import trustme
from paho.mqtt.enums import CallbackAPIVersion

from lamppost_host import wire
from lamppost_host.bridge import intake as intake_module
from lamppost_host.bridge.backoff import Outage
from lamppost_host.bridge.intake import BrokerAccess, BrokerRefusal, Intake, State
from lamppost_host.bridge.ledger import Boot, Node
from lamppost_host.bridge.locate import find_broker, parse_broker
from lamppost_host.bridge.marks import Marks
from lamppost_host.bridge.spool import Message, Receipt, Spool, SpoolError
from lamppost_host.broker import BRIDGE_USER, Credentials, RunningBroker, start_broker
from lamppost_host.errors import LamppostError
from lamppost_host.home import Home
from tests import brokers, frames
from tests.host.synthetic import SyntheticNode, wait_for

running_broker = brokers.running_broker
running_mosquitto = brokers.running_mosquitto


class RecordingSpool(Spool):
    """Tells what it committed; `refuse` makes the next commits fail."""

    refuse = 0

    def receive(self, messages: Any) -> Receipt:
        if self.refuse:
            self.refuse -= 1
            raise SpoolError("disk full")
        receipt = super().receive(messages)
        self.batches.append(list(messages))
        return receipt

    @property
    def batches(self) -> list[list[Message]]:
        return self.__dict__.setdefault("_batches", [])


class Running:
    """An intake that turns in a thread."""

    def __init__(self, folder: Path, access: BrokerAccess) -> None:
        self.access = access
        self.states: list[State] = []
        self.error: Exception | None = None
        self.turning = threading.Event()
        self.turning.set()
        self._ending = threading.Event()
        self._made = threading.Event()
        self.spool: RecordingSpool
        self._thread = threading.Thread(target=self._run, args=(folder / "spool.db",), daemon=True)
        self._thread.start()
        assert self._made.wait(10)

    def _run(self, path: Path) -> None:
        self.spool = RecordingSpool(path)
        self.intake = Intake(
            lambda: self.access,
            self.spool,
            lambda receipt: None,
            lambda state, reason: self.states.append(state),
        )
        self._made.set()
        try:
            while not self._ending.is_set():
                if self.turning.wait(0.05):
                    self.intake.step()
            self.intake.stop()
        except Exception as error:
            self.error = error
        self.spool.close()

    def wait_subscribed(self) -> None:
        wait_for(lambda: self.error or self.intake.state is State.SUBSCRIBED)
        if self.error:
            raise self.error

    def close(self) -> None:
        self._ending.set()
        self.turning.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def seqs(self) -> list[int]:
        """Frames on disk, in the order in which each came first."""
        found = [
            wire.decode_obs(message.payload).seq
            for batch in self.spool.batches
            for message in batch
            if message.topic.endswith("/obs")
        ]
        return list(dict.fromkeys(found))


def access_to(broker: RunningBroker, user: str = BRIDGE_USER, password: str | None = None) -> BrokerAccess:
    return BrokerAccess(broker.connect_host, broker.port, user, password or broker.credentials.get(user))


@pytest.fixture
def running(running_broker: RunningBroker, tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path, access_to(running_broker))
    made.wait_subscribed()
    yield made
    made.close()


@pytest.fixture
def node(running_broker: RunningBroker) -> Iterator[SyntheticNode]:
    made = connect(running_broker)
    yield made
    made.close()


def connect(broker: RunningBroker) -> SyntheticNode:
    node = SyntheticNode("alpha/one", broker.connect_host, broker.port, broker.credentials.get("alpha/one"))
    node.wait_connected()
    return node


def test_frames_are_confirmed_when_they_are_on_disk(running: Running, node: SyntheticNode) -> None:
    for value in range(300):
        node.take([[value, value]])
    node.wait_confirmed()
    assert running.seqs == list(range(300))
    assert node.marked == 299


def test_what_the_disk_refuses_is_kept_and_acknowledged_later(running: Running, node: SyntheticNode) -> None:
    running.spool.refuse = 4
    for value in range(50):
        node.take([[value]])
    node.wait_confirmed()
    assert running.spool.refuse == 0
    assert running.seqs == list(range(50))


def test_what_was_not_committed_comes_again_to_the_next_bridge(
    running_broker: RunningBroker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Running(tmp_path, access_to(running_broker))
    first.wait_subscribed()
    first.spool.refuse = 10**9
    node = connect(running_broker)
    node.resend_s = 1000  # the broker must do it
    for value in range(20):
        node.take([[value]])
    wait_for(lambda: len(first.intake._pending) >= 20)
    first.close()
    assert first.seqs == []
    second = Running(tmp_path, access_to(running_broker))
    node.wait_confirmed()
    assert sorted(set(second.seqs)) == list(range(20))
    second.close()
    node.close()


def test_memory_is_bounded_while_the_disk_refuses(
    running: Running, node: SyntheticNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "HELD", 10)
    monkeypatch.setattr(intake_module, "BATCH", 5)
    running.spool.refuse = 3
    for value in range(100):
        node.take([[value]])
    most = 0
    while running.spool.refuse:
        most = max(most, len(running.intake._pending))
        time.sleep(0.001)
    assert most <= 15, "at most what was held, and one batch"
    node.wait_confirmed()
    assert running.seqs == list(range(100))


def test_the_time_is_told_at_once(
    running: Running, running_broker: RunningBroker, node: SyntheticNode
) -> None:
    answers: list[bytes] = []
    arrived = threading.Event()

    def on_message(client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        answers.append(message.payload)
        arrived.set()

    node._client.message_callback_add(node.topic("time"), on_message)
    node._client.subscribe(node.topic("time"), 0)
    asked = threading.Event()
    node._client.on_subscribe = lambda *_: asked.set()
    assert asked.wait(5)
    import msgpack

    before = time.time()
    node._client.publish(node.topic("ask"), msgpack.packb([1, 123_456_789]), qos=0)
    node._client.publish(node.topic("ask"), b"\xc1", qos=0)
    assert arrived.wait(5)
    version, ticks, seconds, milliseconds = msgpack.unpackb(answers[0])
    assert (version, ticks) == (1, 123_456_789)
    told = wire.EPOCH_UNIX_MS / 1000 + seconds + milliseconds / 1000
    assert before - 0.01 <= told <= time.time() + 0.01


def test_a_node_that_comes_later_finds_the_mark_waiting(
    running: Running, running_broker: RunningBroker, node: SyntheticNode
) -> None:
    node.take([[1]])
    node.wait_confirmed()
    marks: list[list[tuple[bytes, int]]] = []
    late = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="late")
    late.username_pw_set(
        BRIDGE_USER if running_broker.kind == "embedded" else "alpha/one",
        running_broker.credentials.get(BRIDGE_USER if running_broker.kind == "embedded" else "alpha/one"),
    )
    late.on_connect = lambda client, *_: client.subscribe(node.topic("mark"), 1)
    late.on_message = lambda client, userdata, message: marks.append(wire.decode_mark(message.payload))
    late.connect(running_broker.connect_host, running_broker.port)
    late.loop_start()
    wait_for(lambda: marks)
    late.disconnect()
    late.loop_stop()
    assert marks[0] == [(node.boot, 0)]


def test_a_broker_that_restarts_is_found_again(
    running: Running, running_broker: RunningBroker, node: SyntheticNode
) -> None:
    node.take([[1]])
    node.wait_confirmed()
    running_broker.kill()
    wait_for(lambda: State.WAITING in running.states)
    node.take([[2]])
    running_broker.start()
    node.wait_confirmed()
    assert set(running.seqs) == {0, 1}
    assert node.marked == 1


def test_a_wrong_password_at_the_start_is_a_clear_error(
    running_broker: RunningBroker, tmp_path: Path
) -> None:
    made = Running(tmp_path, access_to(running_broker, password="wrong"))
    wait_for(lambda: made.error)
    made.close()
    assert isinstance(made.error, BrokerRefusal)
    # The embedded broker closes the connection without an answer.
    assert "refuses user 'bridge'" in made.error.message or "without an answer" in made.error.message
    assert "password" in made.error.remedy
    assert "wrong" not in str(made.error)


def test_a_password_that_changes_later_is_waited_for(
    running_mosquitto: RunningBroker, tmp_path: Path
) -> None:
    broker = running_mosquitto
    made = Running(tmp_path, access_to(broker))
    made.wait_subscribed()
    broker.stop()
    broker.credentials.remove(BRIDGE_USER)
    broker.start()  # with a new password
    wait_for(lambda: State.REFUSED in made.states)
    made.access = access_to(broker)
    wait_for(lambda: made.intake.state is State.SUBSCRIBED)
    made.close()


def test_a_user_who_may_not_subscribe_is_a_clear_error(
    running_mosquitto: RunningBroker, tmp_path: Path
) -> None:
    # Mosquitto grants any subscription and filters what it delivers; one that refuses answers 0x80, as this one does.
    server = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        connection, _ = server.accept()
        connection.recv(1000)
        connection.sendall(b"\x20\x02\x00\x00")
        packet = connection.recv(1000)
        connection.sendall(b"\x90\x06" + packet[2:4] + b"\x01\x80\x01\x00")
        connection.recv(1000)
        connection.close()

    threading.Thread(target=refuse, daemon=True).start()
    made = Running(tmp_path, BrokerAccess("127.0.0.1", server.getsockname()[1], "someone", "x"))
    wait_for(lambda: made.error)
    made.close()
    server.close()
    assert isinstance(made.error, BrokerRefusal)
    assert "subscribe" in made.error.message


def test_a_broker_that_is_not_there_is_waited_for(tmp_path: Path, mosquitto: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "broker").mkdir()
    password = Credentials(tmp_path / "broker").ensure(BRIDGE_USER)
    made = Running(tmp_path, BrokerAccess("127.0.0.1", port, BRIDGE_USER, password))
    wait_for(lambda: State.WAITING in made.states)
    with start_broker(tmp_path / "broker", "mosquitto", port):
        made.wait_subscribed()
        made.close()


def test_a_long_outage_is_told_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(intake_module, "RECONNECT_SECONDS", (0.001, 0.002))
    tries = 0

    def away() -> BrokerAccess:
        nonlocal tries
        tries += 1
        raise LamppostError("no broker" if tries < 10 else "another reason")

    spool = Spool(tmp_path / "spool.db")
    intake = Intake(away, spool, lambda receipt: None, lambda state, reason: None)
    while tries < 20:
        intake.step()
    spool.close()
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["no broker; trying again", "another reason; trying again"]


def test_an_outage_is_told_at_growing_intervals() -> None:
    now = 0.0
    outage = Outage(lambda: now)
    told = []
    for second in range(0, 4 * 3600, 10):
        now = float(second)
        if outage.worth_telling("away"):
            told.append(second)
    assert told == [0, 60, 180, 420, 900, 1860, 3780, 7380, 10980]
    outage.over()
    assert outage.worth_telling("away")


def test_tls_is_checked(tmp_path: Path, mosquitto: str) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    files = {name: tmp_path / name for name in ("ca.pem", "other.pem", "cert.pem", "key.pem")}
    authority.cert_pem.write_to_path(str(files["ca.pem"]))
    stranger.cert_pem.write_to_path(str(files["other.pem"]))
    certificate.cert_chain_pems[0].write_to_path(str(files["cert.pem"]))
    certificate.private_key_pem.write_to_path(str(files["key.pem"]))
    (tmp_path / "other").mkdir()
    (tmp_path / "home").mkdir()
    home = Home(tmp_path / "home")
    with start_broker(home.broker, "mosquitto", cert=files["cert.pem"], key=files["key.pem"]) as broker:
        plain = access_to(broker)
        trusted = BrokerAccess(
            plain.host, plain.port, plain.user, plain.password, tls=True, ca=files["ca.pem"]
        )
        for access in (trusted, find_broker(home, None, None, None, False, None)()):
            made = Running(tmp_path, access)
            made.wait_subscribed()
            made.close()
        wrong = BrokerAccess(
            plain.host, plain.port, plain.user, plain.password, tls=True, ca=files["other.pem"]
        )
        reasons: list[str] = []
        spool = Spool(tmp_path / "other" / "spool.db")
        refused = Intake(
            lambda: wrong, spool, lambda receipt: None, lambda state, reason: reasons.append(reason)
        )
        refused.step()
        spool.close()
        assert any("certificate that can't be trusted" in reason for reason in reasons)


def test_broker_addresses_as_people_write_them(tmp_path: Path) -> None:
    assert parse_broker("localhost", False) == ("localhost", 1883)
    assert parse_broker("localhost", True) == ("localhost", 8883)
    assert parse_broker("h:99", False) == ("h", 99)
    assert parse_broker("[::1]:99", False) == ("::1", 99)
    assert parse_broker("::1", False) == ("::1", 1883)
    with pytest.raises(LamppostError, match="HOST:PORT"):
        parse_broker("h:x", False)
    with pytest.raises(LamppostError, match="can't read"):
        find_broker(Home(tmp_path), "h", "u", tmp_path / "nothing", False, None)
    (tmp_path / "password").write_text("secret\n")
    found = find_broker(Home(tmp_path), "h", "u", tmp_path / "password", False, None)()
    assert found.password == "secret"
    assert "secret" not in repr(found)


def test_marks_are_few_under_load_and_immediate_after_quiet() -> None:
    now = 1000.0
    marks, node = Marks(lambda: now), Node(1, "a", "b")
    boot = node.boots[b"12345678"] = Boot(1, b"12345678", 0)
    sent = []
    for turn in range(1000):  # 10 s, a frame every 10 ms
        now = 1000.0 + turn / 100
        boot.add(turn)
        marks.touch({node: {boot.boot}})
        sent += [wire.decode_mark(payload) for _, payload in marks.take()]
    assert 10 <= len(sent) <= 15
    assert 0.0 < (marks.wait() or 0.0) <= 1.0
    now += 1.0
    assert [wire.decode_mark(payload) for _, payload in marks.take()] == [[(boot.boot, 999)]]
    assert marks.wait() is None
    now += 60.0
    marks.touch({node: {boot.boot}})
    assert marks.wait() == 0.0


def test_a_mark_that_waits_says_nothing_of_a_batch_that_the_disk_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    about, boot = frames.encode_about(), bytes(8)

    def messages(*seqs: int) -> list[Message]:
        payloads = [frames.encode_obs(frames.revision(about), boot, seq, [[seq]]) for seq in seqs]
        return [Message("lamppost/1/city/one/obs", payload, 0) for payload in payloads]

    marks = Marks()
    spool.receive([Message("lamppost/1/city/one/about", about, 0)])
    marks.touch(spool.receive(messages(0, 1)).touched)
    spool._db.set_authorizer(_no_commit)
    with pytest.raises(SpoolError):
        spool.receive(messages(2, 3))
    assert [wire.decode_mark(payload) for _, payload in marks.take()] == [[(boot, 1)]]
    spool.close()


def _no_commit(action: int, argument: str | None, *_: Any) -> int:
    """Have SQLite refuse the COMMIT alone."""
    refused = action == sqlite3.SQLITE_TRANSACTION and argument == "COMMIT"
    return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK
