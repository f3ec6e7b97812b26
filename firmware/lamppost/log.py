"""A log of bounded size: the last lines in memory, and on a stream if one is handed in."""


class Log:
    """Keeps the last `size` lines of at most `width` characters. `stream` has write(str)."""

    def __init__(self, size=32, width=160, stream=None):
        self._lines = [""] * size
        self._width = width
        self._next = 0
        self.stream = stream
        self.count = 0  # lines ever written

    def __call__(self, text):
        """Add a line."""
        text = text[: self._width].replace("\n", " ")
        self._lines[self._next] = text
        self._next = (self._next + 1) % len(self._lines)
        self.count += 1
        if self.stream is not None:
            try:
                self.stream.write(text + "\n")
            except OSError:
                self.stream = None  # nobody reads there any more

    def lines(self):
        """The lines kept, oldest first."""
        kept = self._lines[self._next :] + self._lines[: self._next]
        return [line for line in kept if line]
