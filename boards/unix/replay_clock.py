"""A clock that jumps from one sample to the next: years of recorded data are replayed in seconds, at their own times."""

import asyncio

from lamppost.clock import Clock


class ReplayClock(Clock):
    """It is `seconds` after 2020-01-01T00:00:00Z (negative: before), and stays so until everything that samples sleeps; then it is the time that the first
    of them waits for. At `end` (same scale) it stands still and calls `on_end()`.

    `may_advance()` says whether time may go on; see `follow`. `unix_ms()` is for the simulated sensors (`world.use_clock`).
    """

    def __init__(self, seconds, end=None, on_end=None, may_advance=None):
        super().__init__(calendar=False)
        self._now_ms = 0
        self._waiting = []
        self._end = end
        self._on_end = on_end
        self._may_advance = may_advance
        super().set_utc(seconds, 0, 0, "recording")

    def follow(self, node, most_pending=64):
        """Let time go on only while the node's journal has room: a recording fills it faster than any host reads. Stops the node at the end."""
        self._may_advance = lambda: node.journal.pending < most_pending
        self._on_end = node.stop

    def update(self):
        """Nothing passes by itself."""

    def set_utc(self, seconds, milliseconds, uncertainty_ms, source=""):
        """Refused: the recording's time is the time."""
        return False

    def uncertainty_ms(self):
        """A recording's time does not drift."""
        return 0

    def unix_ms(self):
        """Unix time in ms, as an integer of any size."""
        return (self.seconds + 1577836800) * 1000 + self.milliseconds

    def sleep_ms(self, milliseconds):
        return self._sleep(self._now_ms + max(0, milliseconds))

    async def _sleep(self, due):
        self._waiting.append(due)
        try:
            while True:
                # Samplers wait for nothing but this clock: after a round of the loop, all of them are here.
                await asyncio.sleep_ms(0)
                if due <= self._now_ms:
                    return
                if due > min(self._waiting):
                    continue
                if self._end is not None and self.seconds >= self._end:
                    if self._on_end is not None:
                        self._on_end()
                        self._on_end = None
                    await asyncio.sleep_ms(10)
                elif self._may_advance is not None and not self._may_advance():
                    await asyncio.sleep_ms(1)
                else:
                    self._pass(due - self._now_ms)
                    self._now_ms = due
                    return
        finally:
            self._waiting.remove(due)
