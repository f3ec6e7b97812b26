"""Both real brokers as fixtures.

A test module takes the ones it needs with `from tests import brokers` and `running_broker = brokers.running_broker`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lamppost_host.broker import Credentials, RunningBroker, start_broker
from lamppost_host.broker.running import Kind

USERS = ("alpha/one", "alpha/two", "beta/one")
"""Nodes that have credentials on the fixtures' brokers, besides "bridge". Passwords: `broker.credentials.get(user)`."""

StartBroker = Callable[..., RunningBroker]


def open_broker(folder: Path, kind: Kind, users: tuple[str, ...] = USERS) -> RunningBroker:
    """A broker of `kind` on a free port of the loopback interface with its files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    Credentials(folder).add_all(users)
    return start_broker(folder, kind)


@pytest.fixture(params=["mosquitto", "embedded"])
def running_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningBroker]:
    """A fresh broker, once of each kind."""
    if request.param == "mosquitto":
        request.getfixturevalue("mosquitto")
    with open_broker(tmp_path / "broker", request.param) as broker:
        yield broker


@pytest.fixture
def running_mosquitto(mosquitto: str, tmp_path: Path) -> Iterator[RunningBroker]:
    """A fresh Mosquitto."""
    with open_broker(tmp_path / "broker", "mosquitto") as broker:
        yield broker


@pytest.fixture
def brokers() -> Iterator[StartBroker]:
    """`start_broker`, with everything it starts stopped at the end of the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(start_broker(*arguments, **options))
