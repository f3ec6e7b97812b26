"""The examples, as virtual boards run them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamppost_host.errors import LamppostError
from lamppost_host.virtual.interpreter import shipped


@dataclass(frozen=True)
class Example:
    """One folder of examples/: its program, its node.json, and what the simulated sensors of its virtual.json measure."""

    name: str
    folder: Path
    config: dict[str, Any]
    sensors: list[dict[str, Any]]

    def source(self, every: float | None = None) -> str:
        """The program of main.py; `every`: seconds between two samples, in place of what it says."""
        source = (self.folder / "main.py").read_text(encoding="utf-8")
        if every is None:
            return source
        replaced, count = re.subn(r"\bevery=[0-9.]+", f"every={every:g}", source)
        if not count:
            raise LamppostError(f"the example {self.name} has no every= to replace")
        return replaced

    def config_for(self, broker: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """node.json for a virtual board: this broker, no Wi-Fi; `changes` replace other keys."""
        config = {key: value for key, value in self.config.items() if key != "wifi"}
        return config | {"board": "unix", "broker": broker} | changes


def example_names() -> list[str]:
    """The examples that this installation has."""
    return sorted(path.parent.name for path in shipped("examples").glob("*/main.py"))


def load_example(name: str) -> Example:
    """The example of this name; LamppostError where there is none."""
    if name not in example_names():
        raise LamppostError(f"there is no example {name}", f"There are: {', '.join(example_names())}")
    folder = shipped("examples") / name
    virtual = json.loads((folder / "virtual.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "node.json").read_text(encoding="utf-8"))
    return Example(name, folder, config, virtual["sensors"])
