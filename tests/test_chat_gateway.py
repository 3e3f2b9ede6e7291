"""Reminders made in chat, on a real gateway with the real agent loop: from a user's words to the message in that chat."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from chat_kit import Call, ChatHouse
from gateway_kit import until

from bub_cron.errors import FileFaultsError
from bub_cron.reminders import Reminder, load
from bub_cron.schedule import fire_times

ZONE = "Europe/Berlin"
USERS_OWN = f"""\
defaults: {{timezone: {ZONE}}}
reminders:
  bins: {{cron: "0 19 * * tue", to: "testchat:own", text: Paper bin.}}
"""
TOOLS = {f"reminder_{verb}" for verb in ("add", "list", "change", "remove", "fire", "log")}


def at_work(*, has_clock: bool = False) -> Iterator[ChatHouse]:
    """Yield a house with a gateway whose chats' users may make reminders, and a tick that has run."""
    with closing(ChatHouse(has_clock=has_clock)) as made:
        made.reminders.write_text(USERS_OWN)
        made.gateway()
        made.command("tick", check=0)
        yield made


@pytest.fixture(scope="module")
def house() -> Iterator[ChatHouse]:
    yield from at_work()


@pytest.fixture(scope="module")
def clocked() -> Iterator[ChatHouse]:
    """The same with a clock that can be put forward, which makes the gateway slow."""
    yield from at_work(has_clock=True)


@pytest.fixture(scope="module")
def strict() -> Iterator[ChatHouse]:
    """A gateway whose chats may have texts only, and that may not write everywhere, even if root runs the tests."""
    with closing(ChatHouse()) as made:
        made.reminders.write_text(USERS_OWN)
        made.gateway(
            by=["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else [],
            BUB_CRON_CHAT="text",
            BUB_STREAM_OUTPUT="true",
        )
        yield made


@pytest.fixture
def fresh() -> Iterator[ChatHouse]:
    """A house of the test's own; nothing runs yet."""
    with closing(ChatHouse()) as made:
        made.reminders.write_text(USERS_OWN)
        yield made


def add(**values: Any) -> Call:
    return "reminder_add", values


def made_in(house: ChatHouse) -> dict[str, Reminder]:
    """Return what chat.yaml holds."""
    return {one.name: one for one in load(str(house.made_in_chat))} if house.made_in_chat.exists() else {}


def of_chat(house: ChatHouse, chat_id: str) -> dict[str, Reminder]:
    return {name: one for name, one in made_in(house).items() if one.to == f"testchat:{chat_id}"}


def clock(moment: float, zone: str = ZONE) -> str:
    return f"{datetime.fromtimestamp(moment, ZoneInfo(zone)):%a %Y-%m-%d %H:%M} {zone}"


def first_time(reminder: Reminder) -> int:
    return next(iter(fire_times(reminder.schedule, 0, 4_000_000_000)))


# --- From a user's words to the message


@pytest.mark.parametrize(
    ("chat_id", "model", "sender", "is_streamed"),
    [("cake", None, {"sender": "alice"}, True), ("tea", "llamafile:stand-in", {}, False)],
    ids=["streamed", "whole"],
)
def test_remind_me_in_a_minute_brings_the_message_to_that_chat(
    clocked: ChatHouse, chat_id: str, model: str | None, sender: dict[str, Any], *, is_streamed: bool
) -> None:
    if model is not None:
        clocked.command_in_chat(chat_id, f",model {model}")  # one whose provider can't stream
    before = clocked.now()
    turn = clocked.say(chat_id, "Remind me in 1 minute.", add(text=f"Take out the {chat_id}.", after="1m"), **sender)
    assert clocked.model.requests[-1].get("stream", False) is is_streamed
    [reminder] = of_chat(clocked, chat_id).values()
    moment = first_time(reminder)
    assert before + 60 <= moment <= clocked.now() + 120
    assert f"\nNext: {clock(moment)}. Now: " in turn.result
    assert turn.result.split("Now: ")[1].split(".\n")[0] in {clock(before), clock(clocked.now())}
    assert "Sent word for word, no model runs" in turn.result
    assert "WARNING" not in turn.result

    clocked.command("tick", check=0)
    asked = len(clocked.model.requests)
    clocked.pass_time_until(moment)
    clocked.command("tick", check=0)
    until(lambda: (chat_id, f"Take out the {chat_id}.") in clocked.messages(), "the message in that chat")
    assert len(clocked.model.requests) == asked, "a text runs no model"
    name = reminder.name
    until(lambda: [one["outcome"] for one in clocked.log(name)] == ["delivered"], "delivered in the log")
    told = clocked.say(chat_id, "Did it come?", ("reminder_log", {"name": name}))
    assert f"{name}: delivered" in told.result


def test_the_next_three_times_are_told_with_weekday_and_zone(house: ChatHouse) -> None:
    turn = house.say("three", "Each morning.", add(text="Stretch.", cron="0 9 * * *", timezone="Asia/Tokyo"))
    times = re.findall(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d{4}-\d\d-\d\d 09:00 Asia/Tokyo", turn.result)
    assert len(times) == 3
    assert f"Now: {clock(house.now(), 'Asia/Tokyo')[:14]}" in turn.result
    assert "Schedule: at 09:00, every day, Asia/Tokyo." in turn.result
    [reminder] = of_chat(house, "three").values()
    assert reminder.timezone == "Asia/Tokyo", "the zone's name is kept"


def test_the_zone_is_that_of_the_users_defaults_by_name(house: ChatHouse) -> None:
    house.say("zone", "At nine.", add(text="Nine.", cron="0 9 * * *"))
    [name] = of_chat(house, "zone")
    assert f"timezone: {ZONE}" in house.made_in_chat.read_text().split(f"  {name}:")[1].split("\n\n")[0]


def test_who_made_it_and_when_stands_above_the_entry(house: ChatHouse) -> None:
    name = "Mallory\u2028  evil: {every: 1m}\n  evil: x # "
    turn = house.say("who", "Each day.", add(name="signed", text="x", cron="0 9 * * *"), sender=name)
    assert "Added signed" in turn.result
    [comment] = re.findall(r"(.*)\n  signed:", house.made_in_chat.read_text())
    assert "Mallory" in comment.title()
    assert "in testchat:who on" in comment
    assert "evil" not in made_in(house), "a name can't write into the file"


# --- Whose reminders


def test_two_chats_at_once_with_the_same_words_each_have_their_own(house: ChatHouse) -> None:
    call = add(text="Water.", every="1h")
    with ThreadPoolExecutor(2) as both:
        turns = list(both.map(lambda chat_id: house.say(chat_id, "Each hour.", call), ("red", "blue")))
    assert all("Added" in turn.result for turn in turns)
    [red], [blue] = of_chat(house, "red"), of_chat(house, "blue")
    assert red != blue
    listed = house.say("red", "What have I?", ("reminder_list", {})).result
    assert f"{red}:" in listed
    assert f"{blue}:" not in listed
    assert listed.startswith("1 reminder in this chat (testchat:red).")
    assert house.say("green", "And I?", ("reminder_list", {})).result.startswith("No reminders in this chat")


@pytest.mark.parametrize("tool", ["change", "remove", "fire", "log"])
def test_a_name_of_another_chat_is_not_there(house: ChatHouse, tool: str) -> None:
    if not of_chat(house, "alice"):
        house.say("alice", "Each day.", add(name="secret", text="Buy a ring.", cron="0 9 * * *"))
    before, messages = house.made_in_chat.read_bytes(), house.messages()
    more = {"text": "Gone."} if tool == "change" else {}
    foreign = house.say("mallory", "Theirs.", (f"reminder_{tool}", {"name": "secret", **more}))
    missing = house.say("mallory", "None.", (f"reminder_{tool}", {"name": "nosuch", **more}))
    assert foreign.result.replace("secret", "nosuch") == missing.result, "whether it exists elsewhere is not told"
    assert "there is no reminder nosuch in this chat" in missing.result
    assert house.made_in_chat.read_bytes() == before
    until(lambda: len(house.messages()) == len(messages) + 2, "what the agent answered")
    assert {chat for chat, _ in house.messages()[len(messages) :]} == {"mallory"}


@pytest.mark.parametrize(
    "parameter", ["to", "chat_id", "command", "gate", "session", "model", "tools", "also", "alert"]
)
def test_what_no_chat_may_set_is_no_parameter(house: ChatHouse, parameter: str) -> None:
    call = add(**{"text": "x", "every": "1h", parameter: "testchat:alice"})
    assert f"there is no parameter {parameter}" in house.say("parameters", "There.", call).result
    assert of_chat(house, "parameters") == {}


def test_the_users_own_are_listed_as_such_and_stay_as_they_are(house: ChatHouse) -> None:
    listed = house.say("own", "What have I?", ("reminder_list", {})).result
    assert "- bins:" in listed
    assert "the user's own file" in listed
    for tool, more in (("change", {"text": "x"}), ("remove", {})):
        refused = house.say("own", "Bins.", (f"reminder_{tool}", {"name": "bins", **more}))
        assert "the user's own file" in refused.result
    taken = house.say("own", "Bins.", add(name="bins", text="Glass.", every="1h"))
    assert "the name bins is taken" in taken.result
    assert house.reminders.read_text() == USERS_OWN
    fired = house.say("own", "Now.", ("reminder_fire", {"name": "bins"}))
    assert "Accepted" in fired.result
    until(lambda: ("own", "Paper bin.") in house.messages(), "the message")


# --- Changing and removing


def test_a_change_is_partial_and_a_removed_one_is_gone(house: ChatHouse) -> None:
    house.say("edit", "Look.", add(name="look", prompt="Look at the news.", cron="0 9 * * mon-fri", quiet=True))
    changed = house.say("edit", "At ten.", ("reminder_change", {"name": "look", "cron": "0 10 * * mon-fri"}))
    assert "10:00" in changed.result
    look = of_chat(house, "edit")["look"]
    assert (look.kind, look.body, look.quiet, look.timezone) == ("prompt", "Look at the news.", True, ZONE)
    house.say("edit", "Off.", ("reminder_change", {"name": "look", "enabled": False}))
    look = of_chat(house, "edit")["look"]
    assert (look.enabled, look.body) == (False, "Look at the news.")
    removed = house.say("edit", "Away.", ("reminder_remove", {"name": "look"}))
    assert "Removed look" in removed.result
    assert of_chat(house, "edit") == {}
    assert "look" not in house.made_in_chat.read_text()


def test_the_same_twice_is_one_and_a_taken_name_offers_change(house: ChatHouse) -> None:
    call = add(text="Drink water.", every="2h")
    house.say("twice", "Water.", call)
    again = house.say("twice", "Water.", call)
    assert "It is there already" in again.result
    soon = add(text="Cake!", after="20m")
    assert "Added" in house.say("twice", "Cake.", soon).result
    assert "It is there already" in house.say("twice", "Cake.", soon).result
    assert len(of_chat(house, "twice")) == 2
    taken = house.say("twice", "Water.", add(name=next(iter(of_chat(house, "twice"))), text="Drink tea.", every="3h"))
    assert "is taken" in taken.result
    assert "reminder.change" in taken.result
    assert len(of_chat(house, "twice")) == 2


def test_the_same_words_after_it_has_fired_make_a_new_one(clocked: ChatHouse) -> None:
    for count in (1, 2):  # the second within a minute of the first one's time
        turn = clocked.say("again", "In 20 seconds.", add(text="Eggs.", after="20s"))
        assert "Added" in turn.result
        clocked.command("tick", check=0)
        clocked.pass_time_until(max(map(first_time, of_chat(clocked, "again").values())))
        clocked.command("tick", check=0)
        until(lambda count=count: clocked.messages().count(("again", "Eggs.")) == count, "the message")  # type: ignore[misc]


def test_what_was_made_by_several_calls_of_one_step_is_all_there(house: ChatHouse) -> None:
    calls = [add(text=f"Number {number}.", every="1h") for number in range(5)]
    turn = house.say("bulk", "Five.", *calls, at_once=True)
    assert len(turn.results) == 5
    assert sorted(one.body for one in of_chat(house, "bulk").values()) == [f"Number {number}." for number in range(5)]


# --- Comma commands


def test_comma_commands_do_what_the_tools_do(house: ChatHouse) -> None:
    added = house.command_in_chat("comma", ',reminder.add after=20m text="Take the cake out."')
    assert "Added take-the-cake-out." in added
    assert "- take-the-cake-out:" in house.command_in_chat("comma", ",reminder.list")
    assert "Changed" in house.command_in_chat("comma", ",reminder.change take-the-cake-out text=Now!")
    assert of_chat(house, "comma")["take-the-cake-out"].body == "Now!"
    assert "there is no reminder nosuch" in house.command_in_chat("comma", ",reminder.remove nosuch")
    before = len(house.messages())
    house.write("comma", ",reminder.fire name=take-the-cake-out")
    told = until(lambda: found if len(found := house.messages()[before:]) == 2 else None, "the message and the answer")
    assert ("comma", "Now!") in told, "which of the two comes first is open: a text waits for no turn"
    assert any(text.startswith("Accepted") for _, text in told)
    until(lambda: house.log("take-the-cake-out")[0]["outcome"] == "delivered", "the outcome")
    assert "delivered" in house.command_in_chat("comma", ",reminder.log")
    assert "Removed" in house.command_in_chat("comma", ",reminder.remove take-the-cake-out")
    assert of_chat(house, "comma") == {}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (",reminder.add cake", "what is 'cake'"),
        (",reminder.add after=20m", "there is no message; give one of text, prompt"),
        (",reminder.add text=x", "there is no schedule; give one of after, at, every, cron, rrule"),
        (",reminder.add text=x after=20m at=08:30", "there are 2 schedules"),
        (",reminder.add text=x cron='99 9 * * *'", "99"),
        (",reminder.add text=x after=soon", "after"),
        (",reminder.add text=x after=1h timezone=Mars", "Mars"),
        (",reminder.add text=x at='2020-01-01 10:00'", "it would never fire; now is"),
        (",reminder.add prompt=,date after=1h", "begins with a comma"),
        (",reminder.add text=x after=1h name='a b'", "name"),
        (",reminder.change name=nosuch", "nothing to change was given"),
        (",reminder.fire", "name is missing"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence_that_says_what_would_be_right(
    house: ChatHouse, line: str, told: str
) -> None:
    answer = house.command_in_chat("wrong", line)
    assert told in answer
    assert "\n" not in answer
    assert "An error occurred" not in answer
    assert of_chat(house, "wrong") == {}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"schedule": {"every": "1h"}, "text": "x"}, "there is no parameter schedule here; known are name, text, "),
        ({"every": {"hours": 1}, "text": "x"}, "every must be one value, not dict"),
        ({"every": "1h", "text": ["x"]}, "text must be one value, not list"),
        ({"rrule": "FREQ=DAILY", "text": "x"}, "start"),
        ({"every": "1h", "text": "x", "times": 0, "start": "2030-01-01 09:00"}, "times"),
    ],
)
def test_what_a_model_makes_of_the_schema_is_judged_when_it_is_called(
    house: ChatHouse, values: dict[str, Any], told: str
) -> None:
    answer = house.say("nested", "Each hour.", add(**values)).result
    assert answer.startswith("Not done: ")
    assert told in answer
    assert of_chat(house, "nested") == {}


def test_what_a_model_fills_in_for_nothing_is_left_out(house: ChatHouse) -> None:
    nothing = {"prompt": "", "at": None, "cron": "", "until": None, "timezone": "", "name": ""}
    call = add(text="Thrice.", every="1d", start="2030-01-01 09:00", times="3", enabled="true", **nothing)
    assert "Added thrice." in house.say("nothing", "Thrice.", call).result
    assert len(list(fire_times(of_chat(house, "nothing")["thrice"].schedule, 0, 4_000_000_000))) == 3


# --- A reminder's own turn


def test_a_fired_prompt_runs_once_the_users_turn_has_ended_and_can_make_no_reminder(house: ChatHouse) -> None:
    """Nor can a subagent in it, nor a command of the subagent's; and its system prompt says so."""
    in_subagents = [
        ("subagent", {"prompt": f"Do it. {house.script.mark(add(text='a', every='1h'))}", "session": session})
        for session in ("temp", "inherit", "another")
    ]
    calls = [
        add(text="Me again.", every="1h"),
        ("reminder_change", {"name": "weekly", "text": "Changed."}),
        ("reminder_fire", {"name": "weekly"}),
        *in_subagents,
        ("subagent", {"prompt": ",reminder.add text=b every=1h"}),
        ("reminder_list", {}),
    ]
    mark = house.script.mark(*calls)
    prompt = f"Each Monday, remind me to look at the numbers. {mark}"
    made = house.say(
        "loop", "Each Monday.",
        add(name="weekly", prompt=prompt, cron="0 9 * * mon"), ("reminder_fire", {"name": "weekly"}),
    )  # fmt: skip
    assert "It runs a model with this prompt each time" in made.results[0]
    assert "once this turn has ended" in made.results[1]
    replies = until(
        lambda: found if len(found := [text for chat, text in house.messages() if chat == "loop"]) == 2 else None,
        "the reply of the user's turn, and then the reminder's",
    )
    assert "Added weekly." in replies[0]
    turn = house.turn(mark)
    assert len(turn.results) == len(calls)
    assert all("a reminder started this turn" in result for result in turn.results[:-1])
    assert "- weekly:" in turn.results[-1], "it may look"
    assert "Reminders can't be added or changed in this turn." in turn.system
    assert list(of_chat(house, "loop")) == ["weekly"]
    assert of_chat(house, "loop")["weekly"].body == prompt


# --- What is refused


def test_a_chat_that_nothing_can_be_delivered_to_is_refused(house: ChatHouse) -> None:
    turn = house.say("1", "Each hour.", add(text="x", every="1h"), channel="mute")
    assert turn.result.startswith("Not done: nothing can be delivered to this chat, mute:1: ")
    assert "the channel mute can't send" in turn.result
    assert not [one for one in made_in(house).values() if one.to.startswith("mute")]


def test_a_chat_has_fifty_at_most(house: ChatHouse) -> None:
    house.say("full", "One.", add(text="Number 0.", every="1h"))
    lines = [f'  hand-{number}: {{to: "testchat:full", every: 1h, text: "{number}"}}' for number in range(1, 50)]
    before = house.made_in_chat.read_text()
    write_by_hand(house, before + "\n".join([*lines, ""]))
    assert len(of_chat(house, "full")) == 50
    refused = house.say("full", "One more.", add(text="Number 51.", every="1h"))
    assert "this chat has 50 reminders, which is the most" in refused.result
    assert len(of_chat(house, "full")) == 50
    assert "Added" in house.say("not-full", "Mine.", add(text="Mine.", every="1h")).result
    house.say("full", "Away.", ("reminder_remove", {"name": "hand-7"}))
    assert "Added" in house.say("full", "One more.", add(text="Number 51.", every="1h")).result
    write_by_hand(house, before)  # the tests that follow have less to read


@pytest.mark.parametrize("schedule", [{"every": "1m"}, {"cron": "*/4 * * * *"}, {"cron": "0,1 9 * * *"}])
def test_a_prompt_runs_every_five_minutes_at_most(house: ChatHouse, schedule: dict[str, str]) -> None:
    refused = house.say("often", "Often.", add(prompt="Look at the news.", **schedule))
    assert "may run every 5 minutes at most" in refused.result
    assert "Added" in house.say("often", "A text may.", add(text=f"Blink. {schedule}", **schedule)).result
    name = next(reversed(of_chat(house, "often")))
    changed = house.say("often", "Think.", ("reminder_change", {"name": name, "prompt": "Think."}))
    assert "may run every 5 minutes at most" in changed.result
    assert {one.kind for one in of_chat(house, "often").values()} == {"text"}


# --- The schema


def test_each_tool_has_one_flat_schema_and_is_never_deferred(house: ChatHouse) -> None:
    tools = {tool["function"]["name"]: tool["function"] for tool in house.say("schema", "Hello.").tools}
    assert tools.keys() >= TOOLS
    for name in TOOLS:
        schema = tools[name]["parameters"]
        assert schema["type"] == "object"
        assert schema.keys() <= {"type", "properties", "required"}
        assert tools[name]["description"]
        for parameter, described in schema["properties"].items():
            assert described.keys() <= {"type", "description", "enum"}, (name, parameter)
            assert described["type"] in ("string", "integer", "boolean"), (name, parameter)
    assert "word for word" in tools["reminder_add"]["parameters"]["properties"]["text"]["description"]
    assert next(iter(tools["reminder_add"]["parameters"]["properties"])) in ("name", "text")


# --- The file


def write_by_hand(house: ChatHouse, text: str) -> None:
    """Save chat.yaml as an editor does."""
    aside = house.made_in_chat.with_name(".chat.yaml.swp")
    aside.write_text(text)
    aside.chmod(0o600)
    aside.rename(house.made_in_chat)


def test_what_somebody_wrote_into_the_file_stays(house: ChatHouse) -> None:
    house.say("hand", "Mine.", add(name="by-agent", text="Agent's.", every="1h"))
    entry = """\
  # Do not touch: the doctor's words.
  by-hand:
    cron: "30 7 * * *"
    to: testchat:hand
    text: |
      Two pills,
      with water.
    attempts: 5
    context: {thread_id: "7"}
"""
    write_by_hand(house, house.made_in_chat.read_text() + entry)
    before = of_chat(house, "hand")["by-hand"]
    house.say("hand", "Another.", add(name="another", text="Another.", every="1h"))
    house.say("hand", "Away.", ("reminder_remove", {"name": "by-agent"}))
    after = of_chat(house, "hand")
    assert list(after) == ["by-hand", "another"]
    assert after["by-hand"].content() == before.content()
    text = house.made_in_chat.read_text()
    assert "# Do not touch: the doctor's words.\n  by-hand:\n" in text
    assert "comments go" in text.split("reminders:")[0], "it says at its top what goes"
    house.command("check", check=0)


def test_a_fault_in_the_file_is_told_in_one_sentence_and_the_file_stays_as_it_is(house: ChatHouse) -> None:
    house.say("fault", "Mine.", add(text="Mine.", every="1h"))
    whole = house.made_in_chat.read_text()
    broken = whole + '  broken: {to: "testchat:fault", every: 1h, text: x, evry: 1h}\n'
    write_by_hand(house, broken)
    try:
        for call in (add(text="Two.", every="2h"), ("reminder_remove", {"name": "mine"})):
            told = house.say("fault", "Two.", call).result
            assert re.fullmatch(r"Not done: .*chat\.yaml, line \d+: .*evry.*", told), told
        assert "chat.yaml has faults" in house.say("fault", "What have I?", ("reminder_list", {})).result
        assert house.made_in_chat.read_text() == broken
    finally:
        write_by_hand(house, whole)
    assert "Added" in house.say("fault", "Two.", add(text="Two.", every="2h")).result


def test_thirty_adds_at_once_in_five_chats_are_all_there(house: ChatHouse) -> None:
    def six(chat_id: str) -> list[str]:
        calls = [add(text=f"{chat_id} {number}", every="1h") for number in range(6)]
        return house.say(chat_id, "Six.", *calls, at_once=True).results

    with Checked(house), ThreadPoolExecutor(5) as all_chats:
        results = list(all_chats.map(six, [f"many-{number}" for number in range(5)]))
    assert [result.split()[0] for chat in results for result in chat] == ["Added"] * 30
    for number in range(5):
        bodies = sorted(one.body for one in of_chat(house, f"many-{number}").values())
        assert bodies == [f"many-{number} {each}" for each in range(6)]
    house.command("check", check=0)


class Checked:
    """Reads chat.yaml all the while, as `bub-cron check` and a tick do, and fails if it is ever faulty."""

    def __init__(self, house: ChatHouse) -> None:
        self._house = house
        self._over = threading.Event()
        self._fault: FileFaultsError | None = None
        self.looks = 0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Checked:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        assert self._fault is None
        assert self.looks > 10

    def _look(self) -> None:
        while not self._over.is_set() and self._fault is None:
            try:
                made_in(self._house)
            except FileFaultsError as fault:
                self._fault = fault
            self.looks += 1
            self._over.wait(0.005)  # the others need the processor, too


def test_a_gateway_killed_during_adds_leaves_a_whole_file_with_all_that_was_confirmed(fresh: ChatHouse) -> None:
    chance = random.Random(15)
    confirmed: set[str] = set()
    with Checked(fresh):
        for round_ in range(2):
            gateway = fresh.gateway()
            texts = [f"{round_}-{number}" for number in range(12)]
            asked = len(fresh.model.requests)
            mark = fresh.script.mark(*(add(text=text, every="1h") for text in texts))
            fresh.write(f"kill-{round_}", f"Twelve. {mark}")
            most = asked + chance.randint(3, 10)
            until(lambda most=most: len(fresh.model.requests) >= most, "some adds")  # type: ignore[misc]
            time.sleep(chance.random() / 20)
            gateway.kill()
            # What the model was told stands in its last request.
            done = fresh.turn(mark).results
            assert all(result.startswith("Added") for result in done)
            confirmed.update(texts[: len(done)])
            fresh.command("check", check=0)
            there = {one.body for one in made_in(fresh).values()}
            assert confirmed <= there
            assert len(there) <= len(confirmed) + round_ + 1, "one that wasn't confirmed may be there"
    assert len(confirmed) >= 4
    assert {path.name for path in fresh.made_in_chat.parent.iterdir()} <= {"chat.yaml", ".chat.yaml.new"}


@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_directory_that_may_not_be_written_is_told_in_one_sentence(strict: ChatHouse, mode: int) -> None:
    directory = strict.made_in_chat.parent
    directory.mkdir(exist_ok=True)
    before = list(directory.iterdir())
    directory.chmod(mode)
    try:
        told = strict.say("locked", "Each hour.", add(text="x", every="1h")).result
    finally:
        directory.chmod(0o700)
    assert re.fullmatch(r"Not done: \S*/reminders\.d\S* can't be [^.;\n]*: Permission denied", told), told
    assert list(directory.iterdir()) == before
    assert "Added" in strict.say("locked", "Each hour.", add(text=f"once more {mode}", every="1h")).result


# --- Whether anything fires at all


def test_where_no_tick_runs_the_result_says_so(strict: ChatHouse, clocked: ChatHouse) -> None:
    never = strict.say("1", "Each hour.", add(text="x", every="1h")).result
    assert "WARNING, tell the user: no tick has run here yet, so nothing will fire until one runs" in never
    assert "no tick has run here yet" in strict.say("1", "What have I?", ("reminder_list", {})).result

    clocked.command("tick", check=0)
    clocked.pass_time(100)
    assert "WARNING" not in clocked.say("late", "Each day.", add(text="y", cron="0 9 * * *")).result
    clocked.pass_time(500)
    late = clocked.say("late", "Each two.", add(text="z", every="2h")).result
    assert re.search(r"the last tick was 1\d minutes ago, so nothing will fire until one runs", late), late
    clocked.command("tick", check=0)


# --- Settings


def test_text_allows_no_prompts_and_the_tools_say_so(strict: ChatHouse) -> None:
    refused = strict.say("1", "Think.", add(prompt="Think.", every="1h"))
    assert "prompts are turned off in chat here (BUB_CRON_CHAT=text)" in refused.result
    assert "Added" in strict.say("1", "Say.", add(name="say", text="Say.", every="1h")).result
    changed = strict.say("1", "Think.", ("reminder_change", {"name": "say", "prompt": "Think."}))
    assert "prompts are turned off" in changed.result
    assert made_in(strict)["say"].kind == "text"


def test_off_offers_no_tools(fresh: ChatHouse) -> None:
    fresh.gateway(BUB_CRON_CHAT="off")
    turn = fresh.say("1", "Each hour.", add(text="x", every="1h"))
    assert not TOOLS & {tool["function"]["name"] for tool in turn.tools}
    assert "`reminder_add` does not exist" in turn.result
    assert not fresh.made_in_chat.exists()
