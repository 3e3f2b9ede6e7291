"""Fixtures that more than one test file uses."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gateway_kit import Gateway, House
from stand_in_model import Answer, Messages

# A shell that starts the tests in the background lets them ignore SIGINT, and so all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What takes longest, and mostly waits: by these, each of four workers begins.
SLOWEST = (
    ("test_systemd", "test_examples"),
    ("test_chaos_neighbours", "test_chaos", "test_cron_command"),
    ("test_debian_cron", "test_gateway"),
    ("test_crashes",),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, let each worker begin with some of the slowest files: at the end one would be alone with them."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    first = [[item for item in items if item.path.stem in files] for files in SLOWEST]
    slow = {item for share in first for item in share}
    others = [item for item in items if item not in slow]
    size, begin = -(-len(items) // len(first)), 0
    ordered: list[pytest.Item] = []
    for share in first:
        end = begin + max(0, size - len(share))
        ordered += share + others[begin:end]
        begin = end
    items[:] = ordered + others[begin:]


class Held:
    """A model's answers: `text`, or what `answer` gives. They can be held back, so that a test finds the turn in its middle."""

    def __init__(self) -> None:
        self._free = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.text = "the model's reply"
        self.answer: Answer | None = None
        self._free.set()

    def hold(self) -> None:
        self._free.clear()

    def let_go(self) -> None:
        self._free.set()

    def __call__(self, messages: Messages) -> str | dict[str, Any]:
        self._free.wait(120)
        return self.text if self.answer is None else self.answer(messages)


@pytest.fixture
def path() -> Iterator[Path]:
    """A directory whose name is shorter than pytest's, so that a socket fits; others can look into it, but not write."""
    made = Path(tempfile.mkdtemp(prefix="bc-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def held() -> Iterator[Held]:
    model = Held()
    yield model
    model.let_go()


@pytest.fixture
def house(held: Held) -> Iterator[House]:
    """A house whose model is `held`."""
    made = House(held)
    yield made
    held.let_go()
    made.close()


class Live(NamedTuple):
    """A gateway that several tests use, each with chats and ids of its own; its model says what `held` says."""

    house: House
    gateway: Gateway
    held: Held


@pytest.fixture(scope="module")
def live_gateway() -> Iterator[Live]:
    held = Held()
    house = House(held)
    yield Live(house, house.gateway(TESTCHAT_SHORT_TAPES="1"), held)
    held.let_go()
    house.close()


@pytest.fixture
def live(live_gateway: Live) -> Iterator[Live]:
    """One gateway for the tests of a module that neither stop it nor need one of their own."""
    yield live_gateway
    live_gateway.held.reset()


@pytest.fixture
def make_house() -> Iterator[Callable[..., House]]:
    """Make houses with models of the test's own."""
    made: list[House] = []

    def make(answer: Answer) -> House:
        made.append(House(answer))
        return made[-1]

    yield make
    for house in made:
        house.close()
