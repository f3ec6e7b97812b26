"""Where one installation keeps its files: credentials, spool, database."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from lamppost_host.errors import LamppostError


@dataclass(frozen=True)
class Home:
    """The folder of one installation; broker, bridge and platform on one machine find each other through it.

    `path` is `--home`, else the environment variable LAMPPOST_HOME, else the user's data folder.
    """

    path: Path

    @classmethod
    def default(cls) -> "Home":
        named = os.environ.get("LAMPPOST_HOME")
        return cls(Path(named) if named else Path(platformdirs.user_data_dir("lamppost")))

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LamppostError(
                f"can't make the folder {folder}: {error.strerror}",
                "Choose another with --home, or set LAMPPOST_HOME.",
            ) from error
        return folder

    @property
    def broker(self) -> Path:
        return self._folder("broker")

    @property
    def bridge(self) -> Path:
        return self._folder("bridge")

    @property
    def platform(self) -> Path:
        return self._folder("platform")


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write `text` so that a reader finds the old file or the new one, whole. `mode` holds from the first byte."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    write_atomically(path, text, 0o600)


def read_or_make_secret(path: Path) -> str:
    """The secret in `path`; made (256 bits from the system's generator) when the file is not there."""
    if not path.exists():
        write_secret(path, secrets.token_urlsafe(32) + "\n")
    secret = path.read_text(encoding="utf-8").strip()
    if not secret:
        raise LamppostError(
            f"{path} is empty", "Delete it, and a new secret is made; or restore the old one."
        )
    return secret


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. OSError when it can't be read, ValueError when it is something else."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError(f"{path} is no JSON object")  # noqa: TRY004 - as for text that is no JSON at all
    return document


def announce_ready(ready_file: Path | None, **facts: Any) -> None:
    """Tell whoever started this service that it takes requests: `facts` as JSON in `ready_file`."""
    if ready_file is not None:
        write_atomically(ready_file, json.dumps(facts) + "\n")
