"""Plugins that misbehave: whatever a `send()` does, it has an outcome, and the gateway goes on."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile_plugin as hostile
import pytest
from bub import BubFramework
from bub.channels import ChannelMessage
from bub.channels.admission import TurnSnapshot
from bub.envelope import field_of
from demo import expose_plugin
from fake_bub import bub_home, framework_in
from gateway_kit import House

from bub_cron.wire import iso
from neighbours.rigs import rig

HERE = Path(__file__).parent / "hostile"

SENDS = {
    "": "sent", "exit": "not seen", "panic": "not seen", "group": "not seen", "raise": "not seen", "refuse": "refused",
    "cancel": "not seen", "hang": "not seen", "swallow": "not seen", "block": "sent", "warn": "not seen",
    "warn-thread": "not seen",
}  # fmt: skip


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Say which misdeeds are in force from now on."""
    file = tmp_path / "hostile"
    monkeypatch.setenv(hostile.FILE, str(file))
    monkeypatch.setenv(hostile.OUT, str(tmp_path / "out"))

    def tell(*misdeeds: str) -> None:
        file.write_text(" ".join(misdeeds))

    yield tell


def test_every_misdeed_of_a_send_has_its_outcome(tmp_path: Path, told: Callable[..., None]) -> None:
    assert set(SENDS) == set(hostile.SENDS)

    async def main() -> dict[str, str]:
        async with rig(tmp_path, "hostile", {}, lambda _: hostile.HostileChat(), send_seconds=1.5) as made:
            found = await asyncio.gather(*(made.send(f"hostile:takes-{how}") for how in SENDS))
            assert await made.send("hostile:afterwards") == "sent"
        return dict(zip(SENDS, found, strict=True))

    assert asyncio.run(main()) == SENDS


@pytest.fixture
def framework(tmp_path: Path) -> Iterator[BubFramework]:
    with bub_home(tmp_path):
        made = framework_in(tmp_path)
        made.plugin_manager.register(hostile.HostilePlugin(made), name="hostile")
        yield made


def message(content: str = "hi") -> ChannelMessage:
    return ChannelMessage("s", "hostile", content, chat_id="1")


def test_it_behaves_until_it_is_told_otherwise(
    tmp_path: Path, framework: BubFramework, told: Callable[..., None]
) -> None:
    async def main() -> None:
        admitted = await framework.admit_message(session_id="s", message=message(), turn=TurnSnapshot("s", False, 0, 0))
        assert admitted is None
        await framework.process_inbound(message(",fs.read path=/dev/null"))
        async with framework.running():
            store: Any = framework.get_tape_store()
            assert await store.list_tapes() == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("misdeed", "error"),
    [("load-exit", SystemExit), ("prompt-panic", hostile.PanicError), ("save-exit", SystemExit)],
)
def test_a_turn_dies_of_a_hook(
    framework: BubFramework, told: Callable[..., None], misdeed: str, error: type[BaseException]
) -> None:
    told(misdeed)
    with pytest.raises(error):
        asyncio.run(framework.process_inbound(message(",fs.read path=/dev/null")))


def test_messages_are_swallowed_and_outputs_moved(framework: BubFramework, told: Callable[..., None]) -> None:
    async def main() -> None:
        told("admit")
        decision = await framework.admit_message(session_id="s", message=message(), turn=TurnSnapshot("s", False, 0, 0))
        assert decision is not None
        assert decision.action == "drop"
        told("move")
        result = await framework.process_inbound(message(",fs.read path=/dev/null"))
        assert [field_of(outbound, "output_channel") for outbound in result.outbounds] == ["void"]

    asyncio.run(main())


def test_start_and_tapes_hang_for_as_long_as_told(framework: BubFramework, told: Callable[..., None]) -> None:
    async def main() -> None:
        told("start", "tape")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hostile.HostileChat().start(asyncio.Event()), 0.1)
        listing = asyncio.create_task(hostile.HangingTapes().list_tapes())
        await asyncio.sleep(0.1)
        assert not listing.done()
        told()
        assert await listing == []

    asyncio.run(main())


# --- In a real gateway


def sent(house: House) -> list[str]:
    out = house.home / "hostile.out"
    return [json.loads(line)["chat_id"] for line in out.read_text().splitlines()] if out.exists() else []


@pytest.fixture
def neighbour(house: House) -> House:
    """A house whose gateways have the hostile plugin, too."""
    path = expose_plugin(HERE, house.home / "hostile-site")
    house.environment["PYTHONPATH"] = os.pathsep.join([house.environment["PYTHONPATH"], *path])
    house.environment[hostile.FILE] = str(house.home / "misdeeds")
    house.environment[hostile.OUT] = str(house.home / "hostile.out")
    return house


def test_a_real_gateway_survives_a_channel_that_ends_programs(neighbour: House) -> None:
    gateway = neighbour.gateway()
    outcomes = {}
    for how in ("exit", "panic", "group", "cancel", "warn", "warn-thread"):
        [*_, last] = gateway.ask(to=f"hostile:takes-{how}", text="hello")
        outcomes[how] = last["status"]
    assert set(outcomes.values()) == {"unknown"}
    assert gateway.ask(to="testchat:1", text="on it goes")[-1]["status"] == "delivered"
    assert sent(neighbour) == [f"takes-{how}" for how in outcomes]
    assert gateway.stop() == 0


LATER = """
import sys, time
from bub_cron.__main__ import main
now = time.time
time.time = lambda: now() + 61
sys.argv[:] = ["bub-cron", "status"]
main()
"""


def test_a_start_that_never_returns_is_said_everywhere_and_a_firing_is_missed(neighbour: House) -> None:
    misdeeds = neighbour.home / "misdeeds"
    misdeeds.write_text("start")
    neighbour.write_due({})
    neighbour.command("tick")
    gateway = neighbour.gateway(wait=False)
    gateway.wait_for_log("cron.listening")
    [pong] = gateway.ask(ping=True)
    assert pong["ready"] is False
    assert "start() of one of them has not returned" in pong["why"]
    [*_, last] = gateway.ask(to="testchat:1", text="hello", expires=iso(time.time() + 2))
    assert (last["status"], last["reason"]) == ("missed", "late")
    assert neighbour.messages() == []
    neighbour.command("status", check=0)  # for a minute, it may be starting
    later = subprocess.run([sys.executable, "-c", LATER], env=neighbour.environment, capture_output=True, text=True)
    assert later.returncode == 1
    assert "is not ready to start firings" in later.stdout
    assert gateway.stop() == 0


def test_a_plugin_that_swallows_every_message_does_not_keep_the_gateway_from_starting(neighbour: House) -> None:
    (neighbour.home / "misdeeds").write_text("admit")
    gateway = neighbour.gateway()
    [pong] = gateway.ask(ping=True)
    assert pong["ready"] is True
    assert gateway.ask(to="testchat:1", text="hello")[-1]["status"] == "delivered"
    assert gateway.stop() == 0


def test_a_tape_store_that_hangs_holds_up_neither_texts_nor_a_stop(neighbour: House) -> None:
    (neighbour.home / "misdeeds").write_text("tape")
    gateway = neighbour.gateway()
    for number in range(10):  # more than may be sent to one channel at once
        assert gateway.ask(to="testchat:1", text=f"text {number}")[-1]["status"] == "delivered"
    # A turn needs its tape: it ends with its own limit.
    [*_, last] = gateway.ask(to="testchat:1", prompt="hello", attempts=1, timeout="1s")
    assert (last["status"], last["reason"]) == ("failed", "attempts")
    (neighbour.home / "misdeeds").write_text("")
    assert gateway.ask(to="testchat:1", prompt="hello")[-1]["status"] == "delivered"
    assert gateway.stop() == 0
    assert [text for _, text in neighbour.messages()] == [f"text {number}" for number in range(10)] + [
        "the model's reply"
    ]
