"""channel.py: when the gateway side is up, and that the gateway never suffers from it; with Bub's own channel manager."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from bub.channels import Channel, ChannelManager
from fake_bub import (
    Background,
    CoroutineTest,
    Face,
    FakeChat,
    FakeClockInbox,
    FakeModel,
    FakeParts,
    bub_home,
    elapsed,
    framework_in,
    hang,
    run,
    settle,
    takes,
)
from loguru import logger

from bub_cron.gateway import channel as channel_module
from bub_cron.gateway.address import Ownership
from bub_cron.gateway.inbox_schema import SHAPE
from bub_cron.gateway.plugin import CronPlugin


@pytest.fixture(autouse=True)
def fake_clock_inbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "Inbox", FakeClockInbox)


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="DEBUG")
    yield lines
    logger.remove(sink)


def at_home(test: CoroutineTest) -> Callable[..., None]:
    """Make a test of a coroutine function: it runs under a fake clock, and sees nothing of the user's."""

    @functools.wraps(test)
    def main(path: Path, **fixtures: Any) -> None:
        with bub_home(path):
            run(test(path=path, **fixtures))

    return main


class Gateway:
    """Bub's channel manager with our plugin, a chat and a model."""

    def __init__(self, path: Path, channels: list[Channel] | None = None, enabled: str = "all") -> None:
        self.path = path
        self.framework = framework_in(path)
        self.chat = FakeChat()
        self.model = FakeModel(self.framework)
        self.framework.plugin_manager.register(FakeParts([self.chat] if channels is None else channels))
        self.framework.plugin_manager.register(self.model)
        # Last, so that our channel is started first: before the chats.
        self.framework.plugin_manager.register(CronPlugin(self.framework), name="cron")
        self.manager = ChannelManager(self.framework, enabled_channels=enabled.split(","), stream_output=False)
        self.task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        self.task = asyncio.create_task(self.manager.listen_and_run())
        try:
            await settle()
            yield
        finally:
            self.task.cancel()
            await asyncio.wait({self.task})

    async def call(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        reader, writer = await asyncio.open_unix_connection(str(self.path / "cron" / "cron.sock"))
        writer.write(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
        writer.write_eof()
        answers = [json.loads(line) for line in (await reader.read()).splitlines()]
        writer.close()
        return answers

    @property
    def listens(self) -> bool:
        return (self.path / "cron" / "cron.sock").exists()


TEXT = {"id": "a", "to": "chat:1", "text": "hello"}


def test_making_the_channels_has_no_side_effect(path: Path) -> None:
    with bub_home(path):
        gateway = Gateway(path)
        gateway.framework.get_channels(gateway.manager.on_receive)
        assert not (path / "cron").exists()


@at_home
async def test_a_gateway_listens_and_delivers_and_leaves_no_socket_behind(path: Path) -> None:
    gateway = Gateway(path)
    async with gateway.up():
        (pong,) = await gateway.call({"ping": True})
        assert (pong["pid"], pong["channels"], pong["protocol"]) == (os.getpid(), ["chat"], 1)
        assert {"version", "bub", "since", "waiting", "running"} <= set(pong)
        assert [answer["status"] for answer in await gateway.call(TEXT)] == ["accepted", "delivered"]
        socket_mode = (path / "cron" / "cron.sock").stat().st_mode
        assert socket_mode & 0o777 == 0o600
    assert not gateway.listens
    Ownership(str(path / "cron" / "inbox.db")).release()


@at_home
async def test_nothing_starts_before_all_channels_have_started(path: Path) -> None:
    slow = FakeChat()
    gateway = Gateway(path, [slow])

    async def slowly(stop_event: asyncio.Event) -> None:
        await asyncio.sleep(100)

    slow.on_start = slowly
    async with gateway.up():
        await asyncio.sleep(50)
        assert (await gateway.call({**TEXT, "wait": False}))[0]["status"] == "accepted"
        await asyncio.sleep(10)
        assert slow.begun == []
        await asyncio.sleep(51)
        await gateway.call(TEXT)
        assert (slow.started, [text for _, text in slow.begun]) == (True, ["hello"])


@at_home
async def test_the_collector_leaves_alone_what_had_started_until_the_stop(path: Path) -> None:
    async with Gateway(path).up():
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


@at_home
async def test_the_sign_that_all_have_started_runs_no_turn(path: Path) -> None:
    gateway = Gateway(path)
    async with gateway.up():
        await asyncio.sleep(10)
        assert gateway.model.turns == 0
        assert gateway.manager._session_controllers == {}


@at_home
async def test_bub_chat_never_takes_the_socket_nor_keeps_it_from_the_gateway(path: Path) -> None:
    chat = Gateway(path, [Face(), Background()], enabled="face")
    gateway = Gateway(path)
    async with chat.up():
        await asyncio.sleep(10)
        assert not (path / "cron").exists()
        async with gateway.up():
            assert [answer["status"] for answer in await gateway.call(TEXT)] == ["accepted", "delivered"]


@at_home
async def test_a_ping_tells_whether_and_where_reminders_can_be_made_in_chat(path: Path) -> None:
    gateway = Gateway(path)
    async with gateway.up():
        (pong,) = await gateway.call({"ping": True})
        assert (pong["chat"], pong["chat_file"]) == ("prompt", f"{path}/reminders.d/chat.yaml")
        assert "chat_error" not in pong
        (path / "reminders.d").write_text("")
        (pong,) = await gateway.call({"ping": True})
        assert pong["chat_error"] == f"{path}/reminders.d is not a directory"


def named(name: str, *, is_set_up: bool = True) -> FakeChat:
    """Return a chat of a known channel's name, which may lack its settings."""
    made: FakeChat = type("Named", (FakeChat,), {"name": name, "enabled": property(lambda _: is_set_up)})()
    return made


@at_home
async def test_a_gateway_without_any_chat_says_so_and_which_channels_it_could_enable(
    path: Path, log: list[str]
) -> None:
    set_up, bare = named("telegram"), named("slack", is_set_up=False)
    gateway = Gateway(path, [set_up, bare, named("discord")], enabled="cron,discord")
    async with gateway.up():
        (pong,) = await gateway.call({"ping": True})
        assert pong["not_enabled"] == {"telegram": "left out", "slack": "not configured"}
        assert not any(line.startswith("cron.no_chat") for line in log)
    gateway = Gateway(path, [bare])
    async with gateway.up():
        (pong,) = await gateway.call({"ping": True})
        assert pong["channels"] == []
        assert pong["not_enabled"] == {"telegram": "not configured", "slack": "not configured"}
        assert [line for line in log if line.startswith("cron.no_chat: no chat is enabled")]


@at_home
async def test_a_ping_tells_which_tools_are_not_known_and_whether_gates_are_allowed(path: Path) -> None:
    gateway = Gateway(path)
    async with gateway.up():
        (pong,) = await gateway.call({"ping": True})
        assert (pong["gates"], "unknown_tools" in pong) == (False, False)
        asked = {"to": "chat:1", "prompt": "x", "reminder": "r", "tools": ["nosuch"], "attempts": 1}
        await gateway.call(asked)
        (pong,) = await gateway.call({"ping": True})
        assert pong["unknown_tools"] == {"r": ["nosuch"]}
        rejected, *_ = await gateway.call({"to": "chat:1", "text": "x", "gate": "true"})
        assert (rejected["status"], "BUB_CRON_ALLOW_GATES=true" in rejected["error"]) == ("rejected", True)


def test_gates_are_taken_where_they_are_allowed(path: Path) -> None:
    async def main() -> None:
        gateway = Gateway(path)
        async with gateway.up():
            (answer,) = await gateway.call({"to": "chat:1", "text": "x", "gate": "exit 1", "wait": False})
            assert answer["status"] == "accepted"

    with bub_home(path, {"BUB_CRON_ALLOW_GATES": "true"}):
        run(main())


def test_with_chat_off_nothing_is_said_of_where_it_would_be_written(path: Path) -> None:
    async def main() -> None:
        (path / "reminders.d").write_text("")
        gateway = Gateway(path)
        async with gateway.up():
            (pong,) = await gateway.call({"ping": True})
            assert pong["chat"] == "off"
            assert "chat_error" not in pong

    with bub_home(path, {"BUB_CRON_CHAT": "off"}):
        run(main())


def test_without_a_channel_manager_it_stays_off_and_says_so(path: Path, log: list[str]) -> None:
    async def main() -> None:
        gateway = Gateway(path)

        async def handler(message: Any) -> None: ...

        channel = gateway.framework.get_channels(handler)["cron"]
        await channel.start(asyncio.Event())
        await channel.stop()
        assert not gateway.listens

    with bub_home(path):
        run(main())
    assert any("no gateway" in line for line in log)


@at_home
async def test_a_second_gateway_waits_says_so_once_and_takes_over(path: Path, log: list[str]) -> None:
    first, second = Gateway(path), Gateway(path)
    async with first.up(), second.up():
        await asyncio.sleep(100)
        assert len([line for line in log if "takes over" in line and str(os.getpid()) in line]) == 1
        await first.call(TEXT)
        assert (first.chat.texts, second.chat.texts) == (["hello"], [])
        assert first.task is not None
        first.task.cancel()
        await asyncio.wait({first.task})
        await asyncio.sleep(2)
        await second.call({**TEXT, "id": "b"})
        assert second.chat.texts == ["hello"]


@at_home
async def test_a_gateway_that_waits_for_another_can_be_stopped(path: Path) -> None:
    first, second = Gateway(path), Gateway(path)
    async with first.up():
        async with second.up():
            await asyncio.sleep(5)
        assert first.listens


@at_home
async def test_a_stop_lets_a_turn_go_back_and_the_next_gateway_delivers_it(path: Path) -> None:
    gateway = Gateway(path)
    gateway.model.always = takes(100)
    async with gateway.up():
        await gateway.call({"id": "a", "to": "chat:1", "prompt": "x", "wait": False})
        await asyncio.sleep(10)
        assert gateway.model.running == 1
    gateway = Gateway(path)
    async with gateway.up():
        await asyncio.sleep(10)
        assert gateway.chat.texts == ["the reply"]
        assert (await gateway.call({"status": "a"}))[0]["attempts"] == 1


@at_home
async def test_callers_that_wait_at_the_stop_get_a_closed_connection(path: Path) -> None:
    gateway = Gateway(path)
    gateway.chat.always = hang
    async with gateway.up():
        waiting = asyncio.create_task(gateway.call(TEXT))
        await asyncio.sleep(5)
    assert [answer["status"] for answer in await waiting] == ["accepted"]


# --- SIGTERM


def test_sigterm_stops_as_cleanly_as_sigint_and_the_handler_is_undone(path: Path) -> None:
    async def main() -> None:
        gateway = Gateway(path)
        async with gateway.up():
            os.kill(os.getpid(), signal.SIGTERM)
            assert gateway.task is not None
            await gateway.task
            assert not gateway.listens

    with bub_home(path):
        before = signal.getsignal(signal.SIGTERM)
        assert before is signal.SIG_DFL
        run(main())
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_somebody_elses_sigterm_handler_stays(path: Path) -> None:
    seen: list[int] = []

    async def main() -> None:
        gateway = Gateway(path)
        async with gateway.up():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(5)
            assert gateway.task is not None
            assert not gateway.task.done()

    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with bub_home(path):
            run(main())
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_stops_a_gateway_whose_chat_never_finishes_its_start(path: Path) -> None:
    """SIGINT does: it cancels the task."""
    ended: list[str] = []

    async def main() -> None:
        slow = FakeChat()

        async def never(stop_event: asyncio.Event) -> None:
            try:
                await hang()
            finally:
                ended.append("start")

        slow.on_start = never
        async with Gateway(path, [slow]).up():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(100)

    with bub_home(path), pytest.raises(SystemExit) as caught:
        run(main())
    assert (caught.value.code, ended) == (0, ["start"])
    assert not (path / "cron" / "cron.sock").exists()


# --- Errors at the start


def file_in_the_way(path: Path) -> None:
    (path / "cron").mkdir()
    (path / "cron" / "cron.sock").write_text("precious")


def newer_store(path: Path) -> None:
    (path / "cron").mkdir()
    with closing(sqlite3.connect(path / "cron" / "inbox.db")) as store:
        store.execute(f"PRAGMA application_id = {SHAPE.application_id}")
        store.execute("PRAGMA user_version = 99")


def file_for_a_directory(path: Path) -> None:
    (path / "cron").write_text("precious")


async def _said(log: list[str], words: str) -> None:
    """Wait, by the machine's own clock, until a line of the log begins with these words."""
    end = time.monotonic() + 20
    while not any(line.startswith(words) for line in log):
        assert time.monotonic() < end, log
        await asyncio.sleep(1)


@pytest.mark.parametrize("trouble", [file_in_the_way, newer_store, file_for_a_directory])
def test_what_goes_wrong_at_the_start_is_said_and_leaves_the_gateway_alone(
    path: Path, log: list[str], trouble: Any
) -> None:
    async def main() -> None:
        gateway = Gateway(path)
        async with gateway.up():
            await _said(log, "cron.off: ")
            assert gateway.task is not None
            assert not gateway.task.done()
            assert gateway.chat.started
            if trouble is not file_for_a_directory:
                Ownership(str(path / "cron" / "inbox.db")).release()  # nothing is held

    trouble(path)
    with bub_home(path):
        run(main())
    assert any(line.startswith("cron.off: ") for line in log)


def test_what_went_wrong_at_the_start_is_looked_after_again(path: Path, log: list[str]) -> None:
    async def main() -> None:
        gateway = Gateway(path)
        async with gateway.up():
            for _ in range(100):
                await asyncio.sleep(1)
            assert sum(line.startswith("cron.off: ") for line in log) == 1
            (path / "cron").unlink()
            await _said(log, "cron.ready")
            assert gateway.listens

    file_for_a_directory(path)
    with bub_home(path):
        run(main())


def test_a_setting_that_is_wrong_is_said_and_leaves_the_gateway_alone(path: Path, log: list[str]) -> None:
    async def main() -> None:
        gateway = Gateway(path)
        async with gateway.up():
            assert gateway.task is not None
            assert not gateway.task.done()
            assert not gateway.listens

    with bub_home(path, {"BUB_CRON_ALLOW_UIDS": "me"}):
        run(main())
    assert any("'me' is not a user id" in line for line in log)


def test_settings_from_the_environment_open_the_door_to_others_and_to_commands(path: Path) -> None:
    async def main() -> None:
        gateway = Gateway(path)
        async with gateway.up():
            assert (path / "cron" / "cron.sock").stat().st_mode & 0o777 == 0o666
            (answer,) = await gateway.call({"to": "nosuch:1", "command": "!help", "wait": False})
            assert answer["status"] == "accepted"

    environ = {"BUB_CRON_ALLOW_UIDS": "7, 8", "BUB_CRON_ALLOW_COMMANDS": "true", "BUB_COMMAND_PREFIX": "!"}
    with bub_home(path, environ):
        run(main())


def test_one_uid_in_config_yml_needs_no_quotes(path: Path) -> None:
    async def main() -> None:
        gateway = Gateway(path)
        async with gateway.up():
            assert gateway.listens

    (path / "config.yml").write_text("cron:\n  allow_uids: 1000\n")
    with bub_home(path):
        run(main())


# --- Paths


def environ_seen(path: Path, **environ: str) -> dict[str, str | None]:
    code = (
        "import json, bub\nfrom bub_cron.gateway.environment import gateway_environ\n"
        "seen = gateway_environ()\nprint(json.dumps({k: seen.get(k) for k in"
        " ('BUB_HOME', 'BUB_CRON_STATE', 'BUB_CRON_SOCKET', 'BUB_CRON_FILE', 'BUB_CRON_MAX_CONCURRENT')}))"
    )
    ours = {"PATH": os.environ["PATH"], "HOME": str(path), **environ}
    ended = subprocess.run([sys.executable, "-c", code], cwd=path, env=ours, capture_output=True, text=True, check=True)
    seen: dict[str, str | None] = json.loads(ended.stdout)
    return seen


def test_paths_that_only_dotenv_sets_are_not_used(path: Path) -> None:
    (path / ".env").write_text(
        "BUB_HOME=/from/dotenv\nBUB_CRON_STATE=/from/dotenv\nBUB_CRON_SOCKET=/from/dotenv/s\n"
        "BUB_CRON_FILE=/from/dotenv/f\nBUB_CRON_MAX_CONCURRENT=9\n"
    )
    assert environ_seen(path, BUB_CRON_STATE="/given", BUB_CRON_SOCKET="/from/dotenv/s") == {
        "BUB_HOME": None,
        "BUB_CRON_STATE": "/given",
        "BUB_CRON_SOCKET": "/from/dotenv/s",  # given as well, to the same effect
        "BUB_CRON_FILE": None,
        "BUB_CRON_MAX_CONCURRENT": "9",  # a setting, not a path
    }


@at_home
async def test_the_clock_of_these_tests_stands_still_while_things_happen(path: Path) -> None:
    gateway = Gateway(path)
    async with gateway.up():
        await gateway.call(TEXT)
        assert elapsed() < 1
