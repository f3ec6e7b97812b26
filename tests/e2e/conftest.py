"""A chain of real processes for each test that asks for one."""

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import missing_service
from tests.e2e.chain import Chain

MakeChain = Callable[[str], Chain]


@pytest.fixture
def make_chain(tmp_path: Path, micropython: list[str]) -> Iterator[MakeChain]:
    """`make_chain("embedded" | "mosquitto")` starts broker, platform and bridge; all is killed when the test ends."""
    with ExitStack() as stack:

        def make(kind: str) -> Chain:
            if kind == "mosquitto" and not shutil.which(
                "mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/sbin"
            ):
                missing_service("Mosquitto", "apt-get install mosquitto")
            chain = Chain(tmp_path / f"chain-{kind}", kind)
            chain.folder.mkdir()
            stack.callback(chain.close)
            chain.start()
            return chain

        yield make


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random points that a failure can be repeated with: the seed is the test's name."""
    return random.Random(request.node.nodeid)
