"""The sender between a real journal and a client that the test plays: what is sent, sent again, held back and confirmed."""

from tests.firmware.conftest import RunFirmware
from tests.firmware.sender_lab import PARTS


def test_a_connection_begins_with_who_the_node_is_and_ends_with_an_empty_journal(
    run_firmware: RunFirmware,
) -> None:
    """The about document goes before the frames that refer to it, once a connection; about and status are retained, frames are not."""
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up()
    for _ in range(5):
        put(journal)
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: journal.pending == 0)
    topics = [entry[0] for entry in broker.published]
    assert topics[:2] == ["about", "status"] and topics.count("about") == 1, topics
    assert broker.frames() == [(bytes([1]) * 8, seq) for seq in range(5)]
    for topic, payload, qos, retain in broker.published:
        assert (qos, retain) == {"about": (1, True), "status": (1, True), "obs": (1, False), "ask": (0, False)}[topic]
    put(journal)
    sender.wake()
    await until(lambda: journal.pending == 0)
    assert [entry[0] for entry in broker.published].count("about") == 1
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_frames_of_an_earlier_firmware_go_with_their_own_about(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up()
    put(journal)
    cut_power(journal)
    journal, documents, broker, sender, clock = set_up(2)
    documents.document = b"a later one"
    journal.set_about(documents.document, crc32(documents.document))
    put(journal)
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: journal.pending == 0)
    order = [payload if topic == "about" else identity(payload) for topic, payload, _, _ in broker.published if topic in ("about", "obs")]
    assert order == [b"a later one", b"the about document", (bytes([1]) * 8, 0), b"a later one", (bytes([2]) * 8, 0)], order
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_a_puback_forgets_nothing_and_silence_is_answered_by_sending_again(run_firmware: RunFirmware) -> None:
    """The broker acknowledges everything and loses it; the host hears of it at the second or third try."""
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up(resend_s=1)
    broker.host = False
    for _ in range(3):
        put(journal)
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: len(broker.frames()) == 3)
    assert journal.pending == 3
    await until(lambda: len(broker.frames()) == 6)
    began = sender._resend_ms
    assert began == 2000, began
    await until(lambda: len(broker.frames()) == 9)
    assert sender._resend_ms == 4000
    assert broker.frames() == [(bytes([1]) * 8, seq) for seq in (0, 1, 2)] * 3
    broker.marks[bytes([1]) * 8] = 1
    broker.host = True
    await broker.mark()
    assert journal.pending == 1 and sender._resend_ms == 1000, "a mark that moves starts the wait anew"
    await until(lambda: journal.pending == 0)
    assert broker.frames()[9:] == [(bytes([1]) * 8, 2)]
    task.cancel()
    print("done")
go(main())
""",
        timeout=60,
    )
    assert "done" in out


def test_a_new_session_sends_all_again_and_a_resumed_one_what_was_not_acknowledged(
    run_firmware: RunFirmware,
) -> None:
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up()
    broker.host = False
    for _ in range(4):
        put(journal)
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: len(broker.frames()) == 4)
    await asyncio.sleep_ms(50)
    broker.acknowledging = False
    put(journal)
    put(journal)
    sender.wake()
    await until(lambda: len(broker.frames()) == 6)
    await asyncio.sleep_ms(50)
    broker.drop()
    del broker.published[:]
    broker.acknowledging = True
    broker.connect(session_present=True)
    await until(lambda: len(broker.frames()) == 2)
    await asyncio.sleep_ms(50)
    assert broker.frames() == [(bytes([1]) * 8, seq) for seq in (4, 5)], broker.frames()
    broker.drop()
    del broker.published[:]
    broker.connect(session_present=False)
    await until(lambda: len(broker.frames()) == 6)
    assert broker.frames() == [(bytes([1]) * 8, seq) for seq in range(6)]
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_the_retained_mark_spares_what_the_host_has(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up()
    for _ in range(6):
        put(journal)
    broker.retained_mark = msgpack.pack([1, [[b"unknown!", 7], [bytes([1]) * 8, 3]]])
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: journal.pending == 0)
    assert broker.frames() == [(bytes([1]) * 8, 4), (bytes([1]) * 8, 5)], broker.frames()
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_messages_that_can_not_be_read_are_ignored(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up()
    broker.host = False
    for _ in range(3):
        put(journal)
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: len(broker.frames()) == 3)
    one = bytes([1]) * 8
    for payload in (b"", b"\\xff", b"\\xc1" * 30, bytes(range(256)), b"\\x81\\x01\\x02", b"\\xdd\\xff\\xff\\xff\\xff"):
        for topic in ("mark", "time"):
            broker.on_message((PREFIX + topic).encode(), memoryview(payload), False)
    for message in (5, "mark", None, [], [2, [[one, 2]]], [1], [1, 5], [1, [5]], [1, [[one]]], [1, [[one, "2"]]], [1, [[one, None]]], [1, [["x" * 8, 2]]],
                    [1, [[one[:7], 2]]], [1, [[one, 3]]], [1, [[one, -5]]], [1, [[one, 2]], 3]):
        broker.say("mark", message)
        broker.say("time", message)
    for message in ([1, 0, 200000000], [1, 0, 200000000, 1000], [1, 0, "now", 0], [1, "x", 200000000, 0]):
        broker.say("time", message)
    broker.on_message(b"lamppost/1/t/n/cmd", memoryview(b"\\x01"), False)
    assert journal.pending == 3
    broker.say("mark", [1, [[one, 2]]])
    assert journal.pending == 0
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_frames_of_unknown_time_wait_for_the_hosts_answer(run_firmware: RunFirmware) -> None:
    """The node asks, the host answers, and what was held goes out with its UTC; an answer to another question changes nothing."""
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    clock = Clock(calendar=False)
    journal, documents, broker, sender, clock = set_up(clock=clock)
    clock.on_sync = sender.wake
    for _ in range(2):
        put(journal, undated=True)
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: broker.of("ask"))
    version, ticks = msgpack.unpack(broker.of("ask")[0])
    await asyncio.sleep_ms(1200)
    assert broker.frames() == [] and journal.pending == 2
    broker.say("time", [1, ticks + 1, 200000000, 0])
    broker.on_message((PREFIX + "time").encode(), memoryview(msgpack.pack([1, ticks, 100000000, 0])), True)  # retained: of some other day
    assert not clock.synced
    broker.say("time", [1, ticks, 200000000, 500])
    assert clock.synced and clock.source == "host"
    await until(lambda: journal.pending == 0)
    for frame in broker.of("obs"):
        assert not is_undated(frame)
    task.cancel()

    # An earlier boot that never knew it can't be helped: its frames go as they are, and none waits behind them.
    new_flash(64)
    journal = set_up(1)[0]
    put(journal, undated=True)
    cut_power(journal)
    journal = set_up(2)[0]
    put(journal, undated=True)
    journal.note_clock(-500000000, 0)
    cut_power(journal)
    journal, documents, broker, sender, clock = set_up(3)
    put(journal)
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: journal.pending == 0)
    assert [is_undated(frame) for frame in broker.of("obs")] == [True, False, False]
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_frames_of_unknown_time_are_not_held_for_ever(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up(clock=Clock(calendar=False), undated_s=1)
    put(journal, undated=True)
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: journal.pending == 0)
    assert [is_undated(frame) for frame in broker.of("obs")] == [True]
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_the_status_goes_out_when_it_changed_and_not_too_often(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up(status_s=1)
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: broker.of("status"))
    for _ in range(60):
        put(journal, 1)
        sender.wake()
        await asyncio.sleep_ms(20)
    await until(lambda: journal.pending == 0)
    assert 2 <= documents.said <= 3, documents.said
    await until(lambda: documents.said >= 3, 3000)
    said = documents.said
    await asyncio.sleep_ms(2500)
    assert documents.said == said, "nothing changed"
    await sender.finish(1000)
    last = broker.of("status")[-1]
    assert b"stopped" in last, last
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_finishing_is_bounded_when_nobody_confirms(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PARTS
        + """
import time
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up()
    broker.host = False
    put(journal)
    task = asyncio.create_task(sender.run())
    for connected in (True, False):
        if connected:
            broker.connect()
        else:
            broker.drop()
        began = time.ticks_ms()
        await sender.finish(700)
        assert 650 < time.ticks_diff(time.ticks_ms(), began) < 4000
        assert journal.pending == 1
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_an_earlier_boots_lost_frames_are_sent_again_while_marks_of_this_boot_come(
    run_firmware: RunFirmware,
) -> None:
    """The broker acknowledges and loses the first boot's frames; the second boot's, which the host confirms one by one, are no reason to wait."""
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up(1)
    put(journal)
    put(journal)
    cut_power(journal)
    journal, documents, broker, sender, clock = set_up(2, resend_s=1)
    first = bytes([1]) * 8
    publish = broker.publish
    times = [0]
    async def losing(topic, payload, qos=0, retain=False):
        if topic.endswith("obs") and identity(payload)[0] == first:
            times[0] += 1
            broker.host = times[0] > 2
        try:
            return await publish(topic, payload, qos, retain)
        finally:
            broker.host = True
    broker.publish = losing
    task = asyncio.create_task(sender.run())
    broker.connect()
    for _ in range(40):
        put(journal)
        sender.wake()
        await asyncio.sleep_ms(100)
        if times[0] > 2 and journal.pending == 0:
            break
    assert times[0] >= 4, times
    assert journal.pending == 0, journal.pending
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_a_time_that_can_not_be_is_refused(run_firmware: RunFirmware) -> None:
    """A host whose own clock is unset says 1970."""
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up(1, clock=Clock(calendar=False))
    put(journal, undated=True)
    task = asyncio.create_task(sender.run())
    broker.connect()
    await until(lambda: broker.of("ask"))
    ticks = msgpack.unpack(broker.of("ask")[-1])[1]
    broker.say("time", [1, ticks, -1577836800 + 30, 0])
    assert not clock.synced
    broker.say("time", [1, ticks, 200000000, 0])
    assert clock.synced
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out


def test_a_broker_that_forgot_is_noticed_though_that_connection_was_over_at_once(
    run_firmware: RunFirmware,
) -> None:
    out = run_firmware(
        PARTS
        + """
async def main():
    new_flash(64)
    journal, documents, broker, sender, clock = set_up(1)
    broker.host = False
    for _ in range(3):
        put(journal)
    task = asyncio.create_task(sender.run())
    broker.connect(True)
    await until(lambda: len(broker.frames()) == 3)
    await until(lambda: not sender._in_flight)
    broker.drop()
    broker.connect(False)
    broker.drop()
    broker.connect(True)
    await until(lambda: len(broker.frames()) == 6)
    task.cancel()
    print("done")
go(main())
"""
    )
    assert "done" in out
