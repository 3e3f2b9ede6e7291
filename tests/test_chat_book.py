"""book and tools: what a chat's agent may do with reminders, and what it is told."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from bub.channels import ChannelMessage
from bub.tools import REGISTRY, ToolContext

from bub_cron.errors import BubCronError
from bub_cron.gateway.chat import tools
from bub_cron.gateway.chat.book import Book
from bub_cron.gateway.chat.callers import KEY, Caller, Desk
from bub_cron.gateway.chat.tools import offer
from bub_cron.paths import Paths, find_paths
from bub_cron.reminders import Reminder, load
from bub_cron.reminders.chat_file import ChatFile, edit
from bub_cron.trigger import tick
from bub_cron.wire import Request

NOW = datetime(2026, 11, 26, 18, 0, 30, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


class Desktop:
    """A book in a home of its own, with chats whose tools are called."""

    def __init__(self, home: Path, setting: str = "prompt") -> None:
        self.now = NOW
        self.paths: Paths = find_paths({"BUB_HOME": str(home)})
        self.asked: list[Request] = []
        self.path = home / "reminders.d" / "chat.yaml"
        self._desk = Desk()
        book = Book(
            self.paths,
            setting,
            no_way=lambda to: "this gateway has no channel nowhere" if to.startswith("nowhere:") else None,
            refusal=lambda request: "no such prompts here" if request.body.startswith("!") else None,
            accept=self._accept,
            now=lambda: self.now,
        )
        self._desk.book = lambda: book

    async def _accept(self, requests: Sequence[Request]) -> list[object]:
        self.asked += requests
        return [BubCronError("full") if len(self.asked) > 1 else object()]

    def caller(self, chat: str = "telegram:1", *, reminder: bool = False, **said: Any) -> Caller:
        channel, _, chat_id = chat.partition(":")
        content = json.dumps({"message": "hi", **said})
        message = ChannelMessage(session_id=chat, channel=channel, chat_id=chat_id, content=content)
        state = self._desk.state(message, chat if reminder else None)
        found = state[KEY]
        assert isinstance(found, Caller)
        return found

    def context(self, by: Any = None, chat: Any = "telegram:1") -> ToolContext:
        return ToolContext(tape=None, state={KEY: by or self.caller(chat)})  # type: ignore[arg-type]

    def call(self, tool: str, *words: str, by: Any = None, chat: Any = "telegram:1", **given: Any) -> str:
        answer = asyncio.run(REGISTRY[f"reminder.{tool}"].run(*words, context=self.context(by, chat), **given))
        assert isinstance(answer, str)
        return answer

    def stored(self) -> dict[str, Reminder]:
        return {reminder.name: reminder for reminder in load(self.paths.file)} if self.path.exists() else {}


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desktop:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    offer("prompt")
    return Desktop(tmp_path)


def test_after_is_counted_by_our_clock_and_rounded_up_to_the_minute(desktop: Desktop) -> None:
    answer = desktop.call("add", text="Take the cake out.", after="20m")
    assert answer.startswith("Added take-the-cake-out.\nSchedule: once, at 2026-11-26 18:21 Europe/Berlin.\n")
    assert "Next: Thu 2026-11-26 18:21 Europe/Berlin. Now: Thu 2026-11-26 18:00 Europe/Berlin." in answer
    assert 'Sent word for word, no model runs: "Take the cake out."' in answer
    (stored,) = desktop.stored().values()
    assert (stored.to, stored.timezone, stored.body) == ("telegram:1", "Europe/Berlin", "Take the cake out.")
    desktop.now = NOW - 30
    assert "18:20" in desktop.call("add", text="on the minute", after="20m")


def test_after_into_the_hour_that_the_clock_shows_twice_is_one_instant(desktop: Desktop) -> None:
    desktop.now = datetime(2026, 10, 25, 0, 45, tzinfo=ZoneInfo("UTC")).timestamp()  # 02:45, the first time
    desktop.call("add", text="hi", after="1h")
    (stored,) = desktop.stored().values()
    assert next(stored.schedule.between(0, 1 << 40)) == desktop.now + 3600


def test_the_zone_is_the_parameter_then_the_defaults_then_the_machine(desktop: Desktop) -> None:
    assert "Europe/Berlin" in desktop.call("add", text="a", cron="0 9 * * *")
    Path(desktop.paths.file).write_text("defaults: {timezone: Asia/Tokyo}\nreminders: {}\n")
    assert "at 09:00, every day, Asia/Tokyo" in desktop.call("add", text="b", cron="0 9 * * *")
    assert "America/New_York" in desktop.call("add", text="c", cron="0 9 * * *", timezone="America/New_York")
    assert {one.timezone for one in desktop.stored().values()} == {"Europe/Berlin", "Asia/Tokyo", "America/New_York"}
    assert desktop.call("add", text="c", cron="0 9 * * *", timezone="Mars").startswith(
        "Not done: timezone: 'Mars' is not"
    )


def test_the_same_reminder_twice_is_one(desktop: Desktop) -> None:
    desktop.call("add", text="pills", cron="0 9 * * *", name="pills")
    for given in ({"name": "pills"}, {"name": "other"}, {}):
        answer = desktop.call("add", text="pills", cron="0 9 * * *", **given)
        assert answer.startswith("It is there already, as pills; nothing was added.")
    desktop.call("add", text="cake", after="20m")
    desktop.now += 40  # a model tries again, a minute later by the clock
    assert "there already, as cake" in desktop.call("add", text="cake", after="20m")
    assert "Added cake-2" in desktop.call("add", text="cake", after="40m")
    assert "Added pills-2" in desktop.call("add", text="pills", cron="0 9 * * *", chat="telegram:2")
    assert len(desktop.stored()) == 4


def test_a_name_that_is_taken_offers_change(desktop: Desktop) -> None:
    Path(desktop.paths.file).write_text("reminders: {own: {at: 2027-01-01 08:00, to: 'x:1', text: hi}}\n")
    desktop.call("add", text="a", after="1h", name="pills")
    for name, chat in (("pills", "telegram:1"), ("pills", "telegram:2"), ("own", "telegram:1")):
        answer = desktop.call("add", text="b", after="1h", name=name, chat=chat)
        assert answer.startswith(f"Not done: the name {name} is taken")
        assert "reminder.change" in answer
    assert desktop.call("add", text="b", after="1h", name="not a name!").startswith("Not done: 'not a name!'")


def test_change_is_partial(desktop: Desktop) -> None:
    desktop.call("add", prompt="News?", cron="0 9 * * *", name="news", quiet=True, start="2026-12-01 00:00", times=3)
    assert "Next: Wed 2026-12-02 09:00" in desktop.call("change", name="news", pause_until="2026-12-02")
    assert 'each time: "What is new?"' in desktop.call("change", "news", prompt="What is new?")
    stored = desktop.stored()["news"]
    assert (stored.quiet, stored.schedule_text, stored.to) == (True, "0 9 * * *", "telegram:1")
    assert "3 times in all" in desktop.call("change", name="news", pause_until="none", timezone="Asia/Tokyo")
    assert desktop.stored()["news"].pause_until is None
    answer = desktop.call("change", name="news", every="2h", enabled="false")  # a new schedule has its own limits
    assert "every 2 hours, counted from" in answer
    assert "It is disabled" in answer
    answer = desktop.call("change", name="news", text="hello")
    assert 'no model runs: "hello"' in answer
    assert desktop.call("change", name="news") == (
        "Not done: nothing to change was given; give what changes, as to reminder.add"
    )


def test_a_chat_sees_its_own_reminders_alone(desktop: Desktop) -> None:
    Path(desktop.paths.file).write_text(
        "reminders:\n"
        "  mine: {cron: 0 9 * * *, to: 'telegram:1', text: hi}\n"
        "  foreign: {cron: 0 9 * * *, to: 'telegram:2', text: secret}\n"
    )
    desktop.call("add", text="theirs too", after="1h", name="theirs", chat="telegram:2")
    desktop.call("add", text="ours", after="1h", name="ours")
    listed = desktop.call("list")
    assert "2 reminders in this chat (telegram:1)." in listed
    assert f"mine: at 09:00, every day, Europe/Berlin; next Fri 2026-11-27 09:00 Europe/Berlin" in listed  # noqa: F541
    assert f"in the user's own file {desktop.paths.file}, can't be changed from chat" in listed
    assert not {"foreign", "theirs", "secret"} & set(listed.replace(":", " ").split())
    for name in ("foreign", "theirs", "nowhere"):
        for tool in ("change", "remove", "fire", "log"):
            given = {"text": "x"} if tool == "change" else {}
            answer = desktop.call(tool, name=name, **given)
            assert answer == f"Not done: there is no reminder {name} in this chat; there are: mine, ours"
    for tool in ("change", "remove"):
        given = {"text": "x"} if tool == "change" else {}
        answer = desktop.call(tool, name="mine", **given)
        assert answer == (
            f"Not done: mine stands in {desktop.paths.file}, the user's own file: it can be changed there, not from chat"
        )
    assert "No reminders in this chat (telegram:3)" in desktop.call("list", chat="telegram:3")
    assert desktop.asked == []


def test_remove(desktop: Desktop) -> None:
    desktop.call("add", text="hi", after="1h", name="cake")
    assert desktop.call("remove", "cake") == 'Removed cake ("hi"). It no longer fires.'
    assert desktop.stored() == {}
    assert desktop.call("remove") == "Not done: name is missing; reminder.list shows the names"


def test_fire_asks_the_gateway(desktop: Desktop) -> None:
    desktop.call("add", prompt="News?", cron="0 9 * * *", name="news")
    assert desktop.call("fire", name="news").startswith("Accepted: news fires once this turn has ended, in this chat.")
    (request,) = desktop.asked
    assert (request.to, request.body, request.reminder, request.overlap) == ("telegram:1", "News?", "news", "queue")
    assert request.expires == NOW + 3600
    assert desktop.call("fire", name="news") == "Not done: the gateway did not take it: full"


def test_a_turn_that_a_reminder_started_can_only_look_and_remove(desktop: Desktop) -> None:
    desktop.call("add", text="hi", after="1h", name="cake")
    by = desktop.caller(reminder=True)
    before = desktop.path.read_bytes()
    assert "reminder started this turn" in desktop.call("add", by=by, text="again", after="1h")
    assert "reminder started this turn" in desktop.call("change", by=by, name="cake", text="x")
    assert "reminder started this turn" in desktop.call("fire", by=by, name="cake")
    assert desktop.path.read_bytes() == before
    assert "1 reminder in" in desktop.call("list", by=by)
    assert "Removed cake" in desktop.call("remove", by=by, name="cake")


def test_without_a_chat_or_a_gateway_nothing_is_done(desktop: Desktop) -> None:
    context = ToolContext(tape=None, state={})  # type: ignore[arg-type]
    answer = asyncio.run(REGISTRY["reminder.list"].run(context=context))
    assert answer.startswith("Not done: no chat's message started this turn")
    answer = desktop.call("add", chat="nowhere:1", text="hi", after="1h")
    assert answer == "Not done: nothing can be delivered to this chat, nowhere:1: this gateway has no channel nowhere"
    desktop._desk.close()
    assert "here is none that is ready" in desktop.call("list")


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"after": "1h"}, "there is no message; give one of text, prompt"),
        ({"text": "hi"}, "there is no schedule; give one of after, at, every, cron, rrule"),
        ({"text": "hi", "prompt": "x", "after": "1h"}, "there are 2 messages, text and prompt; give one of them"),
        ({"text": "hi", "at": "2027-01-01 08:00", "cron": "* * * * *"}, "there are 2 schedules, at and cron"),
        ({"text": "hi", "after": "20"}, "after '20' is not a duration; write it like 90s, 15m"),
        ({"text": "hi", "at": "2026-11-26 17:59"}, "once, at 2026-11-26 17:59 Europe/Berlin is past"),
        ({"text": "hi", "cron": "0 25 * * *"}, "cron, hour: '25' is out of range"),
        (
            {"text": "hi", "cron": "0 9 * * *", "to": "telegram:9"},
            "there is no parameter to here; known are name, text",
        ),
        ({"text": "hi", "schedule": {"cron": "0 9 * * *"}}, "there is no parameter schedule here"),
        ({"text": "hi", "cron": {"hour": 9}}, "cron must be one value, not dict"),
        ({"text": "hi", "cron": "0 9 * * *", "quiet": "maybe"}, "quiet must be true or false"),
        ({"text": "hi", "rrule": "FREQ=DAILY"}, "rrule counts from a start"),
        (
            {"prompt": "hi", "every": "4m"},
            "a prompt runs a model each time, so one made in chat may run every 5 minutes",
        ),
        ({"prompt": "hi", "cron": "0,2 9 * * mon"}, "a prompt runs a model each time"),
        ({"prompt": "!rm", "cron": "0 9 * * *"}, "no such prompts here"),
        ({"prompt": ",rm", "cron": "0 9 * * *"}, "prompt begins with a comma, so Bub would run it as a command"),
    ],
)
def test_what_is_refused_says_what_would_be_right(desktop: Desktop, given: dict[str, Any], answer: str) -> None:
    assert desktop.call("add", **given).startswith(f"Not done: {answer}")
    assert desktop.stored() == {}


def test_what_models_fill_in_for_nothing_is_nothing(desktop: Desktop) -> None:
    assert "Added hi" in desktop.call("add", text="hi", after="1h", cron="", at=None, prompt="", times=None, name="")
    at = ["2026-12-01 08:00", "2026-12-02 08:00"]
    assert "2 times, at 2026-12-01 08:00 and" in desktop.call("add", text="list", at=at)
    assert "2 times, at 2026-12-01 08:00 and" in desktop.call("add", text="commas", at=", ".join(at))
    assert "2 times in all" in desktop.call("add", text="n", cron="0 9 * * *", start="2026-12-01 00:00", times="2")


def test_what_check_would_warn_of_is_noted(desktop: Desktop) -> None:
    assert "\nNote: water has no start, so it counts from 1970" in desktop.call(
        "add", text="Water.", every="1d", name="water"
    )
    assert "Note:" not in desktop.call("add", text="Tea.", every="1d", start="2026-12-01 08:00")
    assert desktop.call("add", prompt=",rm", cron="0 9 * * *").endswith("run it as a command")


def test_fifty_reminders_are_the_most_and_those_that_are_over_do_not_count(desktop: Desktop) -> None:
    desktop.call("add", text="first", after="1m")
    values = {"to": "telegram:1", "timezone": "UTC", "at": "2026-11-28 18:00", "text": "hi"}

    def put(file: ChatFile) -> None:
        for number in range(49):
            file.put(f"n{number}", values, f"# made {number}")

    edit(str(desktop.path), put)
    assert desktop.call("add", text="more", after="1h").startswith("Not done: this chat has 50 reminders")
    assert "Added" in desktop.call("add", text="more", after="1h", chat="telegram:2")
    desktop.now += 120
    assert "Added" in desktop.call("add", text="more", after="1d")
    assert desktop.call("add", text="once more", after="1h").startswith("Not done: this chat has 50 reminders")
    desktop.now += 10 * 86400
    assert "Added" in desktop.call("add", text="new", after="1h")
    assert set(desktop.stored()) == {"new"}


def test_text_alone(desktop: Desktop, tmp_path: Path) -> None:
    strict = Desktop(tmp_path, "text")
    assert "BUB_CRON_CHAT=text" in strict.call("add", prompt="News?", cron="0 9 * * *")
    assert "Added" in strict.call("add", text="News?", cron="0 9 * * *")


def test_off_takes_the_tools_away() -> None:
    offer("off")
    assert not any(name.startswith("reminder.") for name in REGISTRY)
    offer("prompt")
    assert sum(name.startswith("reminder.") for name in REGISTRY) == 6


def test_each_tool_has_one_flat_schema(desktop: Desktop) -> None:
    for name in ("add", "list", "change", "remove", "fire", "log"):
        tool = REGISTRY[f"reminder.{name}"]
        assert not tool.deferred
        assert set(tool.parameters) <= {"type", "properties", "required"}
        for value in tool.parameters["properties"].values():
            assert value["type"] in {"string", "integer", "boolean"}
            assert set(value) == {"type", "description"}
        assert "to" not in tool.parameters["properties"]


def test_where_no_tick_runs_the_result_says_so(desktop: Desktop) -> None:
    assert "no tick has run here yet, so nothing will fire" in desktop.call("add", text="hi", after="1h")
    assert tick.run(desktop.paths, int(NOW)) == 0
    desktop.now = NOW + 120
    assert "WARNING" not in desktop.call("list")
    desktop.now = NOW + 240
    assert "the last tick was 4 minutes ago, so nothing will fire" in desktop.call("list")


def test_faults_of_the_files_are_told(desktop: Desktop) -> None:
    desktop.call("add", text="hi", after="1h", name="cake")
    Path(desktop.paths.file).write_text("reminders: {a: {}}\n")
    assert f"{desktop.paths.file} has faults, so what it holds may be missing here" in desktop.call("list")
    assert "Added" in desktop.call("add", text="tea", after="1h")
    Path(desktop.paths.file).write_text("reminders: {cake: {cron: 0 9 * * *, to: 'x:1', text: hi}}\n")
    assert "Not done: the name cake stands in" in desktop.call("add", text="x", after="1h")
    assert "Removed cake" in desktop.call("remove", name="cake")
    desktop.path.write_text("reminders: {a: {}}\n")
    answer = desktop.call("add", text="x", after="1h")
    assert answer.startswith(f"Not done: {desktop.path}, line 1: 'a' has no schedule")
    assert answer.endswith(f"nothing can be changed from chat until somebody has corrected {desktop.path}")


def test_a_directory_that_cannot_be_written_is_told_in_one_sentence(desktop: Desktop) -> None:
    Path(desktop.paths.file).with_suffix(".d").write_text("")
    answer = desktop.call("add", text="x", after="1h")
    assert answer == (f"Not done: {desktop.path.parent} can't be used for reminders made in chat: {os.strerror(17)}")


@pytest.mark.parametrize(
    ("said", "who"),
    [
        ({"full_name": "Ada Lovelace", "username": "ada"}, "Ada Lovelace"),
        ({"sender_id": 42}, "42"),
        ({"username": "eve\n  evil: {}"}, "eve evil: {}"),
        ({}, "telegram:1"),
    ],
)
def test_the_file_tells_who_made_it(desktop: Desktop, said: dict[str, Any], who: str) -> None:
    desktop.call("add", by=desktop.caller(**said), text="hi", after="1h", name="cake")
    made = f"  # made by {who} in telegram:1 on Thu 2026-11-26 18:00 Europe/Berlin\n  cake:\n"
    assert made in desktop.path.read_text()
    desktop.call("change", by=desktop.caller(username="bob"), name="cake", text="ho")
    assert "\n  # changed by bob on Thu 2026-11-26 18:00 Europe/Berlin\n  cake:\n" in desktop.path.read_text()
    assert list(desktop.stored()) == ["cake"]


def test_several_messages_at_once_are_from_who_wrote_the_first(desktop: Desktop) -> None:
    content = '{"message": "a", "username": "ada"}\n{"message": "b", "username": "bob"}'
    message = ChannelMessage(session_id="t:1", channel="t", chat_id="1", content=content)
    caller = desktop._desk.state(message, None)[KEY]
    assert caller.who == "ada"


def test_a_disk_that_hangs_while_the_book_is_loaded_ends_the_call_too(
    desktop: Desktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(tools, "_SECONDS", 0.05)
    monkeypatch.setattr(tools, "import_module", lambda _: goes_on.wait(60))

    async def call() -> str:
        try:
            return str(await REGISTRY["reminder.list"].run(context=desktop.context()))
        finally:
            goes_on.set()

    assert asyncio.run(call()).startswith("Not known: the disk did not answer within 0.05 s.")


def test_a_package_that_was_changed_under_the_gateway_is_said(
    desktop: Desktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def import_module(name: str) -> None:
        raise ImportError(f"cannot import name 'x' from {name!r}")

    monkeypatch.setattr(tools, "import_module", import_module)
    assert desktop.call("list").startswith("Not done: bub-cron was changed under this gateway, which needs a restart: ")
