"""`kill -9` at every step of a firing's way, one by one: each has one final outcome, and no message is there twice
unless the record says that it may be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Held
from demo import expose_plugin
from examples_kit import THOROUGH
from gateway_kit import House, until

HERE = Path(__file__).parent


def with_killer(house: House, step: str, with_signal: str = "SIGKILL") -> dict[str, str]:
    """Return the environment in which a gateway sends itself that signal at that step, once."""
    folders = expose_plugin(HERE / "killer", house.home / "killer-site")
    path = os.pathsep.join([house.environment["PYTHONPATH"], *folders])
    return {"PYTHONPATH": path, "KILL_AT": step, "KILL_WITH": with_signal, "KILL_MARK": str(house.home / "killed")}


def settle(house: House) -> dict[str, str]:
    """Tick until every firing has its final outcome; return what each reminder came to."""

    def settled() -> bool:
        house.command("tick")
        outcomes = {entry["outcome"] for entry in house.log()}
        return bool(outcomes) and not outcomes & {"due", "accepted", "running", "retrying"}

    until(settled, "a final outcome for every firing", 90)
    entries = house.log()
    assert len(entries) == len({entry["id"] for entry in entries})
    return {entry["reminder"]: entry["outcome"] for entry in entries}


# step -> (kind, what it comes to, attempts, sends, messages in the chat)
STEPS = [
    ("after the inbox's commit", "prompt", "delivered", 1, 1, 1),
    ("after the attempt is counted", "prompt", "delivered", 2, 1, 1),
    ("before the turn", "prompt", "delivered", 2, 1, 1),
    ("after the turn", "prompt", "delivered", 2, 1, 1),
    ("after the reply is kept", "prompt", "delivered", 1, 1, 1),
    ("after the send's beginning is kept", "prompt", "unknown", 1, 1, 0),
    ("before the send", "prompt", "unknown", 1, 1, 0),
    ("after the send", "prompt", "unknown", 1, 1, 1),
    ("after the final outcome", "prompt", "delivered", 1, 1, 1),
    ("after the inbox's commit", "text", "delivered", 0, 1, 1),
    ("before the send", "text", "unknown", 0, 1, 0),
    ("after the send", "text", "unknown", 0, 1, 1),
    ("after the final outcome", "text", "delivered", 0, 1, 1),
]


@pytest.mark.parametrize(("step", "kind", "outcome", "attempts", "sends", "messages"), STEPS)
def test_the_gateway_killed(
    house: House, step: str, kind: str, outcome: str, attempts: int, sends: int, messages: int
) -> None:
    house.write_due({"one": f'to: "testchat:1", {kind}: Hello.'})
    killer = with_killer(house, step)
    gateway = house.gateway(killer)
    house.command("tick")
    assert gateway.process.wait(60) == -signal.SIGKILL
    house.gateway(killer)  # which has struck
    assert settle(house) == {"one": outcome}
    [entry] = house.log()
    assert (entry["attempts"], entry["sends"]) == (attempts, sends)
    assert len(house.messages()) == messages


def test_the_gateway_killed_in_a_turn_that_acts_by_itself(house: House, held: Held) -> None:
    """It may have acted: with no attempt left nobody repeats it, and nobody says that it failed."""
    house.write_due({"one": 'to: "testchat:1", prompt: Hello., reply: agent, attempts: 1'})
    gateway = house.gateway()
    held.hold()
    house.command("tick", check=0)
    until(lambda: house.model.conversations, "the turn under way")
    gateway.kill()
    house.gateway()
    assert settle(house) == {"one": "unknown"}
    assert len(house.model.conversations) == 1


TICK_STEPS = {
    "after the ledger's commit": "from bub_cron.trigger import client; client.Connection.__init__ = strike",
    "before the line is written": "from bub_cron.trigger.client import Connection; Connection.exchange = strike",
    "after the line is written": (
        "from bub_cron.trigger.client import Connection\n"
        "def write(self, lines, on_answer): self._socket.sendall(b''.join(lines)); strike()\n"
        "Connection.exchange = write"
    ),
    "after the answer is read": "from bub_cron.trigger import firings; firings.settle = strike_for_accepted",
}
STRIKE = """
import os, signal, sys, time
def strike(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
def strike_for_accepted(ledger, verdicts, now):
    if any(verdict.move == "accept" for verdict in verdicts): strike()
"""


@pytest.mark.parametrize("step", TICK_STEPS)
def test_the_tick_killed(house: House, step: str) -> None:
    house.write_due({"one": 'to: "testchat:1", text: Hello.'})
    house.gateway()
    run = "\nfrom bub_cron.paths import find_paths\nfrom bub_cron.trigger import tick\n"
    run += "tick.run(find_paths(), time.time())"
    killed = subprocess.run([sys.executable, "-c", STRIKE + TICK_STEPS[step] + run], env=house.environment, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert settle(house) == {"one": "delivered"}
    assert house.messages() == [("1", "Hello.")]


def test_the_tick_and_the_gateway_killed_together(house: House) -> None:
    """The line was written and nobody knows if it was read: the next tick asks, and the firing runs once."""
    house.write_due({"one": 'to: "testchat:1", text: Hello.'})
    gateway = house.gateway(with_killer(house, "after the inbox's commit"))
    assert house.command("tick", check=69).stderr
    assert gateway.process.wait(60) == -signal.SIGKILL
    house.gateway()
    assert settle(house) == {"one": "delivered"}
    assert house.messages() == [("1", "Hello.")]


STOPS = [
    "after the inbox's commit",
    "after the attempt is counted",
    "before the turn",
    "after the turn",
    "after the reply is kept",
    "after the send's beginning is kept",
    "before the send",
    "after the send",
    "after the final outcome",
]


@pytest.mark.parametrize(
    ("step", "with_signal"),
    # Of the stops by SIGINT a usual run tries three; THOROUGH=1 tries them at all steps.
    [(step, "SIGTERM") for step in STOPS] + [(step, "SIGINT") for step in (STOPS if THOROUGH else STOPS[2::3])],
)
def test_the_gateway_stopped_brings_one_message_and_counts_one_attempt(
    house: House, step: str, with_signal: str
) -> None:
    gateway = house.gateway(with_killer(house, step, with_signal))
    with gateway.connect() as poke:
        poke.send(id="one", to="testchat:1", prompt="Hello.", reminder="one")
        said = [answer["status"] for answer in poke.rest()]
    assert said in ([], ["accepted"], ["accepted", "delivered"]), "an answer or a closed connection, never silence"
    gateway.process.wait(60)
    if said[-1:] != ["delivered"]:
        last = house.gateway().ask(id="one", to="testchat:1", prompt="Hello.", reminder="one")[-1]
        assert last["status"] == "delivered"
    [entry] = house.log()
    assert (entry["outcome"], entry["attempts"], entry["sends"]) == ("delivered", 1, 1)
    assert house.messages() == [("1", "the model's reply")]
