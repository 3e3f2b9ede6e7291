"""Fixtures that more than one test file uses."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway_kit import House
from stand_in_model import Answer, Messages

# A shell that starts the tests in the background lets them ignore SIGINT, and so all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Held:
    """A model's answer that can be held back, so that a test finds the turn in its middle."""

    def __init__(self) -> None:
        self.text = "the model's reply"
        self._free = threading.Event()
        self._free.set()

    def hold(self) -> None:
        self._free.clear()

    def let_go(self) -> None:
        self._free.set()

    def __call__(self, messages: Messages) -> str:
        self._free.wait(120)
        return self.text


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
