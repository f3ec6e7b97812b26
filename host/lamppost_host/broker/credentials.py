"""Who may connect to the broker: a password a node, and one for the bridge.

`credentials.json` holds {user: password} in clear, readable by its owner only: the embedded broker needs them so, and the bridge
its own. Mosquitto gets `passwords`, the same users with salted hashes. Passwords are 256 bits from the system's generator.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from lamppost_host.errors import LamppostError
from lamppost_host.home import write_secret

BRIDGE_USER = "bridge"

# firmware/WIRE.md, "Topics"
_NODE_USER = re.compile(r"[a-z0-9][a-z0-9-]{0,31}/[a-z0-9][a-z0-9-]{0,31}")

# Mosquitto's own default. Stretching a random 256-bit key buys nothing, and each costs the broker time when a city's nodes all
# come back at once.
_PBKDF2_ITERATIONS = 101


def check_user(user: str) -> str:
    """`user` if it is the bridge or `tenant/node` as WIRE.md has them, else LamppostError."""
    if user != BRIDGE_USER and _NODE_USER.fullmatch(user) is None:
        raise LamppostError(
            f"{user!r} is not a node's user name",
            "Write TENANT/NODE, each 1 to 32 characters of a-z, 0-9 and -, beginning with a letter or a digit.",
        )
    return user


def mosquitto_hash(password: str) -> str:
    """`password` as Mosquitto 2 keeps it: `$7$`, iterations, salt and PBKDF2-HMAC-SHA512, in base 64 (mosquitto_passwd(1))."""
    salt = os.urandom(12)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _PBKDF2_ITERATIONS)
    return f"$7${_PBKDF2_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


class Credentials:
    """The credentials in `folder` (HOME/broker). Several processes may change them at once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "credentials.json"
        self.mosquitto_path = folder / "passwords"
        self._lock = folder / "credentials.lock"

    def users(self) -> list[str]:
        """All users, sorted."""
        return sorted(self._read())

    def get(self, user: str) -> str:
        """The password of `user`; LamppostError when there is none."""
        try:
            return self._read()[user]
        except KeyError:
            raise LamppostError(
                f"no credential for {user}", f"Make one with `lamppost broker credential add {user}`."
            ) from None

    def all(self) -> dict[str, str]:
        """{user: password}."""
        return self._read()

    def add(self, user: str) -> str:
        """Make a credential and return its password. LamppostError when `user` has one."""
        return self.add_all([user])[user]

    def add_all(self, users: Iterable[str]) -> dict[str, str]:
        """Make several at once: all of them, or none."""
        added = {check_user(user): secrets.token_urlsafe(32) for user in users}
        with self._locked():
            known = self._read()
            for user in added:
                if user in known:
                    raise LamppostError(
                        f"{user} has a credential already",
                        f"Use that, or remove it first with `lamppost broker credential remove {user}`.",
                    )
            self._write(known | added)
        return added

    def ensure(self, user: str) -> str:
        """The password of `user`, made when there is none."""
        check_user(user)
        with self._locked():
            known = self._read()
            if user not in known:
                known[user] = secrets.token_urlsafe(32)
                self._write(known)
            return known[user]

    def remove(self, user: str) -> None:
        """Remove a credential. LamppostError when there is none."""
        with self._locked():
            known = self._read()
            if known.pop(user, None) is None:
                raise LamppostError(
                    f"no credential for {user}", "`lamppost broker credential list` shows them all."
                )
            self._write(known)

    def write_mosquitto(self) -> None:
        """Bring Mosquitto's password file up to date with credentials.json."""
        with self._locked():
            self._write_mosquitto(self._read())

    def _read(self) -> dict[str, str]:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            raise LamppostError(
                f"can't read {self.path}: {error}", "Restore it from a backup, or delete it."
            ) from error
        if not isinstance(known, dict) or not all(
            isinstance(text, str) for pair in known.items() for text in pair
        ):
            raise LamppostError(
                f"{self.path} is not a map of user names to passwords", "Restore it from a backup."
            )
        return known

    def _write(self, known: dict[str, str]) -> None:
        write_secret(self.path, json.dumps(known, indent=1, sort_keys=True) + "\n")
        self._write_mosquitto(known)

    def _write_mosquitto(self, known: dict[str, str]) -> None:
        """Mosquitto reads this when it gets SIGHUP."""
        lines = [f"{user}:{mosquitto_hash(password)}\n" for user, password in sorted(known.items())]
        write_secret(self.mosquitto_path, "".join(lines))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
