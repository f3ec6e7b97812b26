"""The examples, as virtual boards run them."""

import json
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

    @property
    def main(self) -> Path:
        """Its program."""
        return self.folder / "main.py"

    def config_for(self, broker: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """node.json for a virtual board: this broker, no Wi-Fi; `changes` replace other keys.

        `every=1` samples each second, whatever the program says.
        """
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
