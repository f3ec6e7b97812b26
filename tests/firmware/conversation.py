"""A MicroPython process that answers line by line, so that thousands of cases cost one start."""

import contextlib
import subprocess

from tests.conftest import BOARDS, FIRMWARE

_LOOP = """
while True:
    _line = sys.stdin.readline()
    if not _line:
        break
    print(answer(*[int(_word) for _word in _line.split()]))
"""


class Conversation:
    """Runs a script that defines `answer(*integers)`; `ask(...)` calls it and returns what it returned, as text."""

    def __init__(self, micropython: list[str], script: str, heap: str = "1m") -> None:
        whole = f"import sys\nsys.path[:0] = [{str(FIRMWARE)!r}, {str(BOARDS / 'unix')!r}]\n{script}\n{_LOOP}"
        self._process = subprocess.Popen(
            [*micropython, "-X", f"heapsize={heap}", "-c", whole],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self, *numbers: int) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(" ".join(str(number) for number in numbers) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line or line.startswith("Traceback"):
            rest = self._process.stdout.read()
            raise AssertionError(
                f"MicroPython ended with {self._process.wait(10)} on {numbers}: {line}{rest}"
            )
        return line.strip()

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def integers(text: str) -> list[int]:
    """`[1, -2]` as the firmware prints a list."""
    return [int(word) for word in text.strip("[]").split(",")]
