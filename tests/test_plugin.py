"""plugin.py: hooks that are called for everybody's turns, quick and without a way to break them; and the settings."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bub.channels import ChannelMessage
from bub.channels.admission import TurnSnapshot
from fake_bub import bub_home, elapsed, framework_in, house, in_virtual_time, run, settle
from loguru import logger
from pydantic import ValidationError

from bub_cron.gateway.channel import CronChannel
from bub_cron.gateway.plugin import CronPlugin
from bub_cron.gateway.readiness import PATIENCE_SECONDS, Readiness
from bub_cron.gateway.settings import CronSettings
from bub_cron.gateway.turns import TURN_KEY

SNAPSHOT = TurnSnapshot(session_id="s", is_running=False, running_count=0, pending_count=0)
STRANGE: list[Any] = [
    {}, {"context": None}, {"context": "text"}, {"context": {"_bub_cron_turn": 5}}, {"context": {"_bub_cron_turn": "99"}},
    None, object(), ChannelMessage("s", "chat", "x"),
]  # fmt: skip


def plugin_in(path: Path) -> CronPlugin:
    return CronPlugin(framework_in(path))


@pytest.mark.parametrize("message", STRANGE)
def test_no_hook_raises_whatever_the_message_is(tmp_path: Path, message: Any) -> None:
    async def main() -> None:
        plugin = plugin_in(tmp_path)
        assert TURN_KEY not in plugin.load_state(message=message, session_id="s")
        plugin.save_state(session_id="s", state={}, message=message, model_output="")
        assert plugin.system_prompt(prompt="x", state={"_bub_cron_turn": "no turn"}) is None
        plugin.on_error(stage="turn", error=RuntimeError("x"), message=message)
        assert plugin.admit_message(session_id="s", message=message, turn=SNAPSHOT) is None

    with bub_home(tmp_path):
        run(main())


@pytest.mark.parametrize("hook", ["resolve_session", "admit_message", "a user's turn"])
def test_each_of_three_hooks_tells_that_the_channels_have_started(tmp_path: Path, hook: str) -> None:
    async def main() -> None:
        plugin = plugin_in(tmp_path)
        readiness = plugin._readiness
        readiness.begin()
        sentinel = readiness.sentinel()
        assert readiness.answer()["ready"] is False
        if hook == "resolve_session":
            assert plugin.resolve_session(message=sentinel) is None
        elif hook == "admit_message":
            decision = plugin.admit_message(session_id="s", message=sentinel, turn=SNAPSHOT)
            assert decision is not None
            assert decision.action == "drop"
        else:
            plugin.load_state(message=ChannelMessage("s", "chat", "x"), session_id="s")
        await readiness.wait()
        assert readiness.answer() == {"ready": True}

    with bub_home(tmp_path):
        run(main())


def test_what_is_not_ready_says_why_in_the_log_after_a_minute() -> None:
    async def main() -> None:
        readiness = Readiness()
        readiness.begin()
        waiting = asyncio.create_task(readiness.wait())
        await asyncio.sleep(PATIENCE_SECONDS + 1)
        assert not waiting.done()
        assert "have not started" in readiness.answer()["why"]
        readiness.see_turn()
        await waiting

    said: list[str] = []
    sink = logger.add(lambda message: said.append(str(message)), level="ERROR")
    try:
        run(main())
    finally:
        logger.remove(sink)
    assert len(said) == 1
    assert "cron.not_ready" in said[0]


def test_it_provides_one_channel_named_cron_as_often_as_asked(tmp_path: Path) -> None:
    async def handler(message: Any) -> None: ...

    with bub_home(tmp_path):
        plugin = plugin_in(tmp_path)
        first, second = plugin.provide_channels(handler), plugin.provide_channels(handler)
        assert [channel.name for channel in first + second] == ["cron", "cron"]
        assert isinstance(first[0], CronChannel)


@in_virtual_time
async def test_a_users_turn_counts_until_it_ends_and_ours_never_do(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        user = asyncio.create_task(home.user_turn("chat:1", 50))
        await settle()
        assert list(home.users._sessions) == ["chat:1"]
        await user
        assert home.users._sessions == {}
        await home.run(prompt="x")
        assert home.users._sessions == {}
        assert round(elapsed()) == 50


@in_virtual_time
async def test_a_users_turn_whose_prompt_could_not_be_built_does_not_count_for_ever(tmp_path: Path) -> None:
    class Broken:
        from bub import hookimpl

        @hookimpl
        def build_prompt(self, message: Any, session_id: str, state: Any) -> str:
            raise RuntimeError("no prompt")

    async with house(tmp_path) as home:
        broken = Broken()
        home.framework.plugin_manager.register(broken)
        task = asyncio.create_task(home.user_turn("chat:1", 50))
        await asyncio.wait({task})
        assert isinstance(task.exception(), RuntimeError)
        await settle()
        assert home.users._sessions == {}


@in_virtual_time
async def test_a_users_turn_gets_nothing_of_ours(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.user_turn("chat:1", 1)
        assert home.chat.texts == ["to the user"]


# --- Settings


def test_the_settings_have_safe_defaults() -> None:
    settings = CronSettings()
    assert (settings.max_concurrent, settings.max_waiting) == (4, 20_000)
    assert (settings.allow_commands, settings.uids) == (False, frozenset())


@pytest.mark.parametrize(("given", "uids"), [("", set()), ("5", {5}), (" 5 ,6,", {5, 6})])
def test_uids_are_numbers_with_commas(given: str, uids: set[int]) -> None:
    assert CronSettings(allow_uids=given).uids == uids


@pytest.mark.parametrize(
    "wrong", [{"allow_uids": "me"}, {"allow_uids": "-1"}, {"max_concurrent": 0}, {"max_waiting": 0}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CronSettings(**wrong)


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUB_CRON_MAX_CONCURRENT", "9")
    assert CronSettings(max_concurrent=2).max_concurrent == 9


def test_what_may_be_made_in_chat_is_chosen_by_the_environment_or_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CronSettings().chat == "prompt"
    assert CronSettings.model_validate({"chat": yaml.safe_load("off")}).chat == "off"
    with pytest.raises(ValidationError):
        CronSettings.model_validate({"chat": "all"})
    monkeypatch.setenv("BUB_CRON_CHAT", "text")
    assert CronSettings().chat == "text"


def test_what_reads_reminders_is_in_memory_only_once_somebody_asks_in_chat() -> None:
    look = "import sys, bub_cron.gateway.plugin; print([one for one in ('reminders', 'schedule', 'records') if f'bub_cron.{one}' in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
