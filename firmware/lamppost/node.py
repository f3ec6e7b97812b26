"""Node: what a maker's main.py builds and runs. It wires the parts together and has no logic of its own."""

import asyncio
import gc
import os
from binascii import hexlify

from . import config as configuration
from . import documents
from .batch import MAX_ROWS, worst_size
from .clock import Clock, set_calendar
from .datastream import check_key
from .journal import Journal
from .log import Log
from .observer import Observer
from .segment import FRAME_AT
from .sender import Sender

_RESTART_MS = 1000  # before a task that failed is started again
_NTP_RETRY_S = 60
_NTP_AGAIN_S = 3600
_MAX_COLUMNS = 128
_CANCEL_ROUNDS = 10  # of the event loop, in which cancelled tasks clean up


class Node:
    """A board with its sensors.

    `config`: settings as in node.json (dict). What else it is made of can be handed in: `clock` (Clock), `journal` (Journal), `client` (MqttClient or alike),
    `log` (callable with a text). `stream`: where the log goes beside memory, such as sys.stdout. Raises ConfigError.
    """

    def __init__(self, config, clock=None, journal=None, client=None, log=None, stream=None):
        self.config = configuration.check(config)
        self.log = log or Log(stream=stream)
        self.clock = clock or Clock(calendar=self.config["clock"]["calendar"])
        self.journal = journal
        self.client = client
        self._observers = []
        self._columns = 0
        self._about = b""
        self._revision = 0
        self._sender = None
        self._tasks = {}
        self._stopping = asyncio.Event()
        self._fatal = None

    @classmethod
    def from_config(cls, path="node.json", **overrides):
        """A node with the settings in a file. `overrides` replace single settings, or are arguments of Node (clock, journal, client, log, stream)."""
        settings = configuration.read(path)
        parts = {}
        for key in overrides:
            if key in ("clock", "journal", "client", "log", "stream") and not isinstance(
                overrides[key], dict
            ):
                parts[key] = overrides[key]
            else:
                settings[key] = overrides[key]
        return cls(settings, **parts)

    # Buses

    def i2c(self):
        """The board's I2C bus, as the settings wire it."""
        import machine

        pins = self._bus("i2c", "scl", "sda")
        return machine.I2C(
            pins.get("id", 0),
            scl=machine.Pin(pins["scl"]),
            sda=machine.Pin(pins["sda"]),
            freq=pins.get("freq", 100000),
        )

    def uart(self):
        """The board's UART, as the settings wire it, at 9600 baud if they name no `baudrate`."""
        import machine

        pins = self._bus("uart", "tx", "rx")
        return machine.UART(
            pins.get("id", 2),
            baudrate=pins.get("baudrate", 9600),
            tx=machine.Pin(pins["tx"]),
            rx=machine.Pin(pins["rx"]),
        )

    def onewire(self):
        """The board's 1-Wire bus, as the settings wire it."""
        import machine
        import onewire

        return onewire.OneWire(machine.Pin(self._bus("onewire", "pin")["pin"]))

    def _bus(self, name, *keys):
        pins = self.config[name]
        if pins is None:
            raise configuration.ConfigError("{} is missing: say which pins the bus is on".format(name))
        for key in keys:
            if not isinstance(pins.get(key), int):
                raise configuration.ConfigError("{}.{} must be the number of a pin".format(name, key))
        return pins

    # What it observes

    def observe(self, driver, every=60, key=None):
        """Sample a driver every so many seconds (see Observer); the setting `every`, if there is one, goes before what the program says.
        `key` goes before its Datastreams' keys, to tell two sensors of a model apart.
        Raises ValueError."""
        keys = []
        taken = [known for observer in self._observers for known in observer.keys]
        for stream in driver.datastreams:
            name = stream.key if key is None else key + "_" + stream.key
            check_key(name)
            if name in taken or name in keys:
                raise ValueError("there is a Datastream {} already: give this sensor a key=".format(name))
            keys.append(name)
        if self._columns + len(keys) > _MAX_COLUMNS:
            raise ValueError("a node has {} Datastreams at most".format(_MAX_COLUMNS))
        config = self.config
        self._observers.append(
            Observer(
                driver,
                config["every"] or every,
                keys,
                self._columns,
                self.clock,
                self._store,
                self._describe,
                self.log,
                min(config["batch"]["rows"], MAX_ROWS),
                config["batch"]["seconds"],
                config["clock"]["tolerance_ms"],
            )
        )
        self._columns += len(keys)

    # What the sender asks for

    def about(self):
        """The about document in force, and its revision."""
        return self._about, self._revision

    def status(self, state):
        """The status document."""
        faults = {}
        at_risk = 0
        for observer in self._observers:
            at_risk += observer.at_risk
            if observer.faults:
                faults[observer.keys[0]] = observer.faults
        self.clock.update()
        return documents.make_status(state, self.journal, faults, at_risk, self.clock.uptime)

    def changes(self):
        """Differs from before when the status does (but for uptime and heap)."""
        journal = self.journal
        faults = sum([observer.faults for observer in self._observers])
        return journal.seq, journal.taken, journal.pending, journal.dropped, journal.refused, faults

    def _describe(self):
        """Write the about document anew; what is in batches belongs to the old one."""
        for observer in self._observers:
            observer.close()
        columns = []
        for observer in self._observers:
            driver = observer.driver
            for i in range(len(observer.keys)):
                columns.append((observer.keys[i], driver.datastreams[i], driver.model, observer.sensor_id))
        self._about, self._revision = documents.make_about(self.config, columns)
        self.journal.set_about(self._about, self._revision)

    def _store(self, batch):
        """Put a batch into the journal, once, and clear it."""
        journal = self.journal
        journal.settle()
        if batch.number < 0:
            batch.number = journal.seq
        elif journal.seq > batch.number:
            batch.clear()  # Ctrl-C came between the journal and here
            return
        end = batch.encode(journal.buffer, FRAME_AT, journal.seq, journal.taken)
        journal.append(end, batch)
        batch.clear()
        self._sender.wake()

    def _synced(self):
        seconds, milliseconds = self.clock.boot_utc()
        self.log("clock: set by {}".format(self.clock.source))
        for observer in self._observers:
            if observer.batch.undated:
                observer.close()
        self.journal.note_clock(seconds, milliseconds)
        if self.clock.source != "calendar":
            set_calendar(self.clock)
        self._sender.wake()

    # Running

    def run(self):
        """Run until `stop()` or Ctrl-C, then stop cleanly: journal and send what there is, wait for the host a while, say so. Raises ValueError if
        nothing is observed."""
        if not self._observers:
            raise ValueError("observe() a sensor first")
        interrupted = False
        try:
            self._prepare()
        except KeyboardInterrupt:
            # What earlier boots left in the journal is to be sent before a clean stop, too.
            interrupted = True
            self._prepare()
        try:
            try:
                if not interrupted:
                    asyncio.run(self._serve())
            except KeyboardInterrupt:
                interrupted = True
            if interrupted:
                self.log("node: interrupted")
            asyncio.run(self._finish(interrupted))
        finally:
            self.journal.stop()
            asyncio.new_event_loop()
        if self._fatal is not None:
            raise self._fatal

    def stop(self):
        """Make `run` stop cleanly and return. For callbacks and tasks of the same program."""
        self._stopping.set()

    def _prepare(self):
        config = self.config
        longest = max(
            [worst_size(observer.batch.capacity, observer.batch.width) for observer in self._observers]
        )
        if self.journal is None:
            settings = config["journal"]
            self.journal = Journal(
                settings["path"],
                os.urandom(8),
                limit=settings["bytes"],
                segment_size=settings["segment"],
                max_frame=longest,
                on_event=self.log,
            )
        self.journal.make_room(longest)
        if self.client is None:
            self.client = self._make_client()
        self._sender = Sender(
            self.client,
            self.journal,
            self.clock,
            "lamppost/1/{}/{}/".format(config["tenant"], config["node"]),
            self,
            self.log,
            config["resend_s"],
            config["undated_s"],
            config["status_s"],
        )
        self._describe()
        self.journal.begin()
        self.clock.on_sync = self._synced
        gc.collect()

    def _make_client(self):
        from .mqtt import MqttClient

        config = self.config
        broker = config["broker"]
        settings = config["mqtt"]
        context = None
        if broker["tls"]:
            from .mqtt_socket import tls_context

            context = tls_context(broker["ca"])
        client = MqttClient(
            broker["host"],
            broker["port"],
            "{}.{}".format(config["tenant"], config["node"]),
            user=broker["user"],
            password=broker["password"],
            keepalive=settings["keepalive"],
            window=settings["window"],
            timeout_ms=settings["timeout_s"] * 1000,
            ssl=context,
            server_hostname=broker["host"],
            will=(
                "lamppost/1/{}/{}/status".format(config["tenant"], config["node"]),
                documents.make_will(),
                1,
                True,
            ),
            backoff_ms=[int(1000 * seconds) for seconds in settings["backoff_s"]],
        )
        client.on_error = self._connection_failed
        return client

    def _connection_failed(self, error):
        self.log("mqtt: {}: {}".format(type(error).__name__, error))

    async def _serve(self):
        self.log("node: runs as boot {}".format(hexlify(self.journal.boot).decode()))
        if self.config["wifi"] is not None:
            from . import net

            self._start("wifi", net.keep_connected(self.config["wifi"], self.log))
        if self.config["ntp"] is not None:
            self._start("ntp", self._keep_time())
        self._start_link()
        for i in range(len(self._observers)):
            self._start(i, self._observers[i].run())
        await self._stopping.wait()

    def _start_link(self):
        """Client and sender; again if Ctrl-C hit one of them, for they are needed to stop cleanly."""
        for name, part in (("client", self.client), ("sender", self._sender)):
            if name not in self._tasks or self._tasks[name].done():
                self._start(name, self._keep(name, part))

    def _start(self, name, work):
        self._tasks[name] = asyncio.create_task(self._watch(name, work))

    async def _watch(self, name, work):
        """Run a task that must not end by an error; if it does, the node stops and `run` raises it."""
        try:
            await work
        except Exception as error:
            self.log("node: {} failed: {!r}".format(name, error))
            self._fatal = error
            self._stopping.set()
        except KeyboardInterrupt:
            # It goes through the event loop, which then takes this task for alive for ever.
            del self._tasks[name]
            raise

    async def _keep(self, name, part):
        while True:
            try:
                await part.run()
            except MemoryError:
                raise
            except Exception as error:
                # A mistake in there must not stop the sampling: the journal keeps what it takes.
                self.log("node: {} failed: {!r}".format(name, error))
            await asyncio.sleep_ms(_RESTART_MS)

    async def _keep_time(self):
        from . import sntp

        while True:
            wait = _NTP_AGAIN_S
            try:
                await sntp.ask(self.config["ntp"], self.clock)
            except OSError as error:
                self.log("ntp: {}".format(error))
                # Each try looks a name up, which blocks: seldom, where there is no NTP but the host tells the time.
                if self.clock.wants_better():
                    wait = _NTP_RETRY_S
            await asyncio.sleep(wait)

    async def _finish(self, interrupted):
        """A clean stop, in a bounded time."""
        for name in self._tasks:
            # Ctrl-C may have hit client or sender in the middle of a packet, or of a mark that nobody repeats: they start anew on a
            # new connection, from what the journal knows.
            if name != "wifi" and (interrupted or name not in ("client", "sender")):
                self._tasks[name].cancel()
        for _ in range(_CANCEL_ROUNDS):
            await asyncio.sleep_ms(0)
        # A batch that Ctrl-C hit on its way into the journal goes first: only its number tells whether its frame is there.
        for interrupted_first in (True, False):
            for observer in self._observers:
                if observer.batch.number >= 0 or not interrupted_first:
                    observer.close()
        self._start_link()
        await self._sender.finish(self.config["stop_s"] * 1000)
        try:
            await asyncio.wait_for_ms(self.client.disconnect(), 2000)
        except (OSError, asyncio.TimeoutError):
            pass  # the broker will publish the will; the journal has everything
        for name in self._tasks:
            self._tasks[name].cancel()
        await asyncio.sleep_ms(0)
