"""reminders: what a file means, every fault at its place, and that nothing else ever comes out."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from examples_kit import up_to
from hypothesis import given, settings
from hypothesis import strategies as st

from bub_cron import reminders, wire
from bub_cron.errors import FileFaultsError, FileMissingError, FileUnreadableError, ScheduleError
from bub_cron.reminders import Reminder, source, values
from bub_cron.schedule import fire_times, parse_at, parse_cron, parse_every

HEAD = "defaults:\n  to: telegram:1\nreminders:\n"  # three lines
BODY = "  a:\n    every: 30m\n    text: hi\n"


def parse(text: str | bytes, machine_zone: Callable[[], str] = lambda: "UTC") -> list[Reminder]:
    return reminders.parse(text if isinstance(text, bytes) else text.encode(), "f", machine_zone=machine_zone)


def one(text: str) -> Reminder:
    (reminder,) = parse(text)
    return reminder


def faults(text: str | bytes, machine_zone: Callable[[], str] = lambda: "UTC") -> list[str]:
    """The faults as printed, without the path; none for a good file."""
    try:
        parse(text, machine_zone)
    except FileFaultsError as error:
        return [f"{fault.line}:{fault.column}: {fault.message}" for fault in error.faults]
    return []


def fault_in(*lines: str) -> list[str]:
    """The faults of a reminder that has nothing but `lines`, from line 5 on, beside a good schedule and message."""
    keys = [line.split(":")[0] for line in lines]
    given = ["every: 30m"] * (not set(keys) & set(values.SCHEDULES))
    given += ["text: hi"] * (not set(keys) & set(wire.MESSAGES))
    return faults(HEAD + "  a:\n" + "".join(f"    {line}\n" for line in [*lines, *given]))


@contextmanager
def loader(name: str) -> Iterator[None]:
    """Read with libyaml or with PyYAML's own parser, as on a machine without libyaml."""
    before = source.LOADER
    source.LOADER = getattr(yaml, name)
    try:
        yield
    finally:
        source.LOADER = before


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def both_loaders(request: pytest.FixtureRequest) -> Iterator[None]:
    with loader(request.param):
        yield


# --- What a good file means


def test_every_key_is_taken() -> None:
    text = """\
reminders:
  a.B-1_:
    cron: "0 9 * * mon-fri"
    prompt: |
      Summarise
      everything.
    to: telegram:12:34
    session: work
    timezone: Europe/Berlin
    enabled: no
    grace: 1h30m
    catch_up: all
    overlap: queue
    attempts: 7
    timeout: 90s
    reply: agent
    quiet: on
    model: openai:gpt-5
    context:
      thread_id: "12"
      note: ""
"""
    assert one(text)._replace(places={}, own=frozenset()) == Reminder(
        name="a.B-1_",
        schedule=parse_cron("0 9 * * mon-fri", "Europe/Berlin", "a.B-1_"),
        schedule_text="0 9 * * mon-fri",
        kind="prompt",
        body="Summarise\neverything.\n",
        to="telegram:12:34",
        session="work",
        timezone="Europe/Berlin",
        enabled=False,
        grace=5400,
        catch_up="all",
        overlap="queue",
        attempts=7,
        timeout=90,
        reply="agent",
        quiet=True,
        model="openai:gpt-5",
        context={"thread_id": "12", "note": ""},
        line=2,
        column=3,
        file="f",
    )


def test_what_is_not_written_has_the_defaults_of_the_contract() -> None:
    assert one("reminders:\n  a:\n    cron: 0 9 * * 1\n    text: hi\n    to: x:1\n")._replace(
        places={}, own=frozenset()
    ) == Reminder(
        name="a",
        schedule=parse_cron("0 9 * * 1", "UTC", "a"),
        schedule_text="0 9 * * 1",
        kind="text",
        body="hi",
        to="x:1",
        session="x:1",
        timezone="UTC",
        enabled=True,
        grace=3600,
        catch_up="latest",
        overlap="skip",
        attempts=3,
        timeout=600,
        reply="chat",
        quiet=False,
        model=None,
        context={},
        machine_zone=True,
        line=2,
        column=3,
        file="f",
    )


def test_an_at_has_a_day_of_grace_and_a_command_one_attempt() -> None:
    reminder = one(HEAD + "  a:\n    at: 2026-12-01 08:30\n    command: ',backup'\n")
    assert (reminder.grace, reminder.attempts) == (86400, 1)


def test_defaults_fill_in_and_the_reminder_prevails() -> None:
    text = """\
defaults:
  to: telegram:1
  timezone: Europe/Berlin
  grace: 5m
  attempts: 5
  context: {thread_id: "1"}
reminders:
  a:
    at: 2026-12-01 08:30
    command: ",x"
  b:
    cron: 0 9 * * *
    text: hi
    to: telegram:2
    timezone: Asia/Tokyo
    context: {other: "2"}
"""
    a, b = parse(text)
    assert (a.to, a.session, a.timezone, a.grace, a.attempts) == ("telegram:1", "telegram:1", "Europe/Berlin", 300, 5)
    assert (b.to, b.session, b.timezone) == ("telegram:2", "telegram:2", "Asia/Tokyo")
    assert (a.context, b.context) == ({"thread_id": "1"}, {"other": "2"})


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("at: 2026-12-01 08:30", "2026-12-01 08:30"),
        ("at: 2026-12-01 08:30:00", "2026-12-01 08:30:00"),  # a timestamp for YAML: taken by its text
        ('at: "2026-12-01T08:30"', "2026-12-01T08:30"),
        ("at: [2026-12-01 08:30, 2026-12-02 08:30]", "2026-12-01 08:30, 2026-12-02 08:30"),
        ("at:\n      - 2026-12-01 08:30", "2026-12-01 08:30"),
    ],
)
def test_at_is_one_local_date_and_time_or_a_list_of_them(line: str, written: str) -> None:
    reminder = one(HEAD + f"  a:\n    timezone: Europe/Berlin\n    {line}\n    text: hi\n")
    assert reminder.schedule == parse_at(written.split(", "), "Europe/Berlin")
    assert reminder.schedule_text == written


def test_every_needs_no_zone_and_counts_in_utc() -> None:
    reminder = one(HEAD + BODY)
    assert (reminder.schedule, reminder.schedule_text, reminder.timezone) == (parse_every(1800), "30m", "UTC")


def test_h_is_spread_by_the_reminders_name() -> None:
    text = HEAD + "".join(f"  {name}:\n    cron: H H * * *\n    text: hi\n" for name in ("a", "b"))
    a, b = parse(text)
    assert a.schedule == parse_cron("H H * * *", "UTC", "a")
    assert b.schedule == parse_cron("H H * * *", "UTC", "b")
    assert a.schedule != b.schedule


def test_content_holds_the_fields_of_a_request_and_only_what_is_set() -> None:
    assert one(HEAD + BODY).content() == {
        "reminder": "a",
        "to": "telegram:1",
        "text": "hi",
        "attempts": 3,
        "timeout": 600,
        "overlap": "skip",
        "reply": "chat",
        "quiet": False,
    }


def test_content_with_everything_set_is_a_request_that_the_gateway_takes() -> None:
    extra = "    session: s\n    model: m\n    context: {k: v}\n"
    content = one(HEAD + BODY + extra).content()
    assert {key: content[key] for key in ("session", "model", "context")} == {
        "session": "s",
        "model": "m",
        "context": {"k": "v"},
    }
    request = wire.parse_request(wire.encode(content).rstrip(), now=0, new_id=lambda: "x")
    assert isinstance(request, wire.Request)
    assert (request.reminder, request.body, request.session, request.model) == ("a", "hi", "s", "m")


@pytest.mark.parametrize(
    "text",
    [
        "reminders: {}\n",
        "reminders:\n",
        "reminders:\n  # all commented out\n",
        "defaults:\nreminders:\n",
        "---\nreminders: {}\n...\n",
        "%YAML 1.1\n---\nreminders: {}\n",
    ],
)
def test_no_reminders_is_no_fault(text: str) -> None:
    assert parse(text) == []


@pytest.mark.usefixtures("both_loaders")
@pytest.mark.parametrize("text", [HEAD + BODY, "\ufeff" + HEAD + BODY, (HEAD + BODY).replace("\n", "\r\n")])
def test_a_byte_order_mark_and_windows_line_ends_are_fine(text: str) -> None:
    assert (one(text).line, one(text).column) == (4, 3)


def test_quoted_names_and_texts_are_taken_whatever_they_look_like() -> None:
    reminder = one(HEAD + '  "1":\n    every: 30m\n    text: "yes"\n    model: "5"\n    session: "1:30"\n')
    assert (reminder.name, reminder.body, reminder.model, reminder.session) == ("1", "yes", "5", "1:30")


def test_the_machines_zone_is_asked_once_and_only_if_needed() -> None:
    asked = []

    def machine_zone() -> str:
        asked.append(1)
        return "Asia/Tokyo"

    cron = "  {}:\n    cron: 0 9 * * *\n    text: hi\n"
    assert [one.timezone for one in parse(HEAD + BODY, machine_zone)] == ["UTC"]
    assert not asked
    assert [one.timezone for one in parse(HEAD + cron.format("a") + cron.format("b"), machine_zone)] == [
        "Asia/Tokyo"
    ] * 2
    assert len(asked) == 1


def test_a_machine_without_a_zone_is_reported_once() -> None:
    def machine_zone() -> str:
        raise ScheduleError("the zone can't be found")

    cron = "  {}:\n    cron: 0 9 * * *\n    text: hi\n"
    assert faults(HEAD + cron.format("a") + cron.format("b"), machine_zone) == ["4:3: the zone can't be found"]


# --- Faults of the file as a whole


@pytest.mark.usefixtures("both_loaders")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: reminders is missing; write reminders:, and under it each reminder by its name"),
        ("# nothing\n", "1:1: reminders is missing; write reminders:, and under it each reminder by its name"),
        ("---\n", "1:1: reminders is missing; write reminders:, and under it each reminder by its name"),
        ("- a\n", "1:1: the file must be a group of keys (defaults, calendars, reminders), not a list"),
        ("hello\n", "1:1: the file must be a group of keys (defaults, calendars, reminders), not text"),
        ("\ndefaults:\n", "2:1: reminders is missing; write reminders:, and under it each reminder by its name"),
        ("reminders: {}\nremnders: {}\n", "2:1: unknown key 'remnders', did you mean 'reminders'?"),
        ("reminders: {}\nstandup: {}\n", "2:1: unknown key 'standup'; a reminder goes under reminders:, indented"),
        ("reminders: {}\ntimezone: UTC\n", "2:1: timezone belongs under defaults or to a reminder, not here"),
        ("reminders: {}\nreminders: {}\n", "2:1: 'reminders' is given twice, first on line 1; keep one"),
        ("reminders: {}\n---\na: b\n", "2:1: a second document begins here; keep all reminders in one, without ---"),
        ("reminders:\n  - name: a\n", "2:3: reminders must be names, each with its keys, not a list"),
        ("reminders: 5\n", "1:12: reminders must be names, each with its keys, not text"),
        ("defaults: []\nreminders:\n", "1:11: defaults must be a group of keys, not a list"),
        (b"reminders: {}\n# \xe9\n", "2:3: this is not UTF-8 (byte 0xE9); save the file as UTF-8"),
        (b"\xef\xbb\xbf# \xff", "1:3: this is not UTF-8 (byte 0xFF); save the file as UTF-8"),
        ("reminders:\n".encode("utf-16"), "1:1: the file is in UTF-16; save it as UTF-8"),
        ("reminders: {}\n# a\0b\n", "2:4: there is an invisible control character here, U+0000; remove it"),
        ("reminders: {}\n#\ufeff\n", "2:2: there is an invisible control character here, U+FEFF; remove it"),
        ("reminders: {}\n# \x1b[31m\n", "2:3: there is an invisible control character here, U+001B; remove it"),
        ("[" * 60, "1:51: this is nested more than 50 levels deep"),
    ],
)
def test_a_fault_of_the_file(text: str | bytes, expected: str) -> None:
    found = faults(text)
    assert expected in found
    assert len(found) == 1 or text == "[" * 60


def test_a_file_over_8_mib_is_refused_unread() -> None:
    assert faults(b"[" * (reminders.MAX_BYTES + 1)) == [
        "1:1: the file is over 8 MiB; split it, or shorten its messages"
    ]


def test_a_file_of_millions_of_values_is_given_up() -> None:
    found = faults("reminders: {}\nx: [" + "1," * 1_200_000)
    assert found == [
        "2:1: unknown key 'x'; a reminder goes under reminders:, indented",
        "2:1999995: the file holds more than 1,000,000 values",
    ]


# --- Faults of keys and names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "  a b:\n    every: 30m\n    text: hi\n", "4:3: 'a b' must be a name: letters, digits, - _ . only, at most 64; a name is no title, the chat gets the message alone"),
        (HEAD + f"  {'a' * 65}:\n    every: 30m\n    text: hi\n", f"4:3: '{'a' * 40}...' must be a name: letters, digits, - _ . only, at most 64; a name is no title, the chat gets the message alone"),
        (HEAD + BODY.replace("a:", "yes:"), "4:3: 'yes' must be text, but YAML reads 'yes' as true; put it in quotes: \"yes\""),
        (HEAD + BODY.replace("a:", "1:"), "4:3: '1' must be text, but YAML reads '1' as a number; put it in quotes: \"1\""),
        (HEAD + BODY.replace("a:", "2026-12-01:"), "4:3: '2026-12-01' must be text, but YAML reads '2026-12-01' as a date; put it in quotes: \"2026-12-01\""),
        (HEAD + BODY.replace("a:", "~:"), "4:3: '~' must be a name: letters, digits, - _ . only, at most 64; a name is no title, the chat gets the message alone"),
        (HEAD + "  ? [a]\n  : b\n", "4:5: a key must be a word, not a list"),
        (HEAD + BODY + BODY, "7:3: 'a' is given twice, first on line 4; keep one"),
        (HEAD + "  a: hello\n", "4:3: 'a' must be a group of keys, not text"),
        (HEAD + "  a: [x]\n", "4:3: 'a' must be a group of keys, not a list"),
        (HEAD + "  a:\n    every: 30m\n", "4:3: 'a' has no message; give it one of prompt, text or command"),
        (HEAD + "  a:\n    text: hi\n", "4:3: 'a' has no schedule; give it one of cron, every, at or rrule"),
        ("reminders:\n" + BODY, "2:3: 'a' has no target; write to: telegram:123456789 (channel:chat_id), here or under defaults"),
        (HEAD + BODY + "    prompt: hi\n", "7:5: 'a' has two messages, text and prompt; keep one"),
        (HEAD + BODY + '    cron: "0 9 * * *"\n', "7:5: 'a' has two schedules, every and cron; keep one"),
        (HEAD + BODY + "    every: 1h\n", "7:5: 'every' is given twice, first on line 5; keep one"),
        (HEAD + BODY + "    on: UTC\n", "7:5: unknown key 'on', did you mean 'only'?"),
        (HEAD + BODY + "    atempts: 3\n", "7:5: unknown key 'atempts', did you mean 'attempts'?"),
        (HEAD + BODY + "    zzz: UTC\n", f"7:5: unknown key 'zzz'; known are {', '.join(values.REMINDER_KEYS)}"),
        ("defaults:\n  every: 30m\nreminders:\n", "2:3: every belongs to a reminder, not here"),
        ("defaults:\n  text: hi\nreminders:\n", "2:3: text belongs to a reminder, not here"),
        ("defaults:\n  grade: 1h\nreminders:\n", "2:3: unknown key 'grade', did you mean 'grace'?"),
        ("defaults:\n  to: 1\nreminders:\n" + BODY + BODY.replace("a:", "b:"), "2:7: to must be channel:chat_id, such as telegram:123456789"),
    ],
)  # fmt: skip
def test_a_fault_of_keys(text: str, expected: str) -> None:
    assert faults(text) == [expected]


def test_an_empty_reminder_lacks_everything() -> None:
    assert faults("reminders:\n  a:\n") == [
        "2:3: 'a' has no schedule; give it one of cron, every, at or rrule",
        "2:3: 'a' has no message; give it one of prompt, text or command",
        "2:3: 'a' has no target; write to: telegram:123456789 (channel:chat_id), here or under defaults",
    ]


def test_a_merge_of_keys_is_refused() -> None:
    assert fault_in("<<: *a") == [
        "5:5: << (a merge of keys) is not taken; write the keys out, or use defaults",
        '5:9: aliases (*) are not taken; write the value out, or put text in quotes: "*a"',
    ]


@pytest.mark.parametrize("broken", ["    text: 'x\n", "    at: [x\n"])
def test_what_a_syntax_error_cut_off_is_not_called_missing(broken: str) -> None:
    assert len(faults("reminders:\n  b:\n    every: 30m\n" + broken)) == 1
    assert len(faults("reminders:\n" + BODY + "  b:\n    every: 30m\n" + broken + "defaults:\n  to: x:1\n")) == 1


# --- Faults of values: the reminder's first line is line 5


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("text: yes", "5:11: text must be text, but YAML reads 'yes' as true; put it in quotes: \"yes\""),
        ("text: 12:30", "5:11: text must be text, but YAML reads '12:30' as a number; put it in quotes: \"12:30\""),
        ("text: 2026-12-01", "5:11: text must be text, but YAML reads '2026-12-01' as a date; put it in quotes: \"2026-12-01\""),
        ("text: null", "5:11: text must be text, but YAML reads 'null' as nothing; put it in quotes: \"null\""),
        ("text:", "5:10: text is empty"),
        ("text: ''", "5:11: text is empty"),
        ("text: '  '", "5:11: text is empty"),
        ("text: [a]", "5:11: text must be text, not a list"),
        ("text: {a: b}", "5:11: text must be text, not a group of keys"),
        ("prompt: ' ,help'", "5:13: prompt begins with a comma, so Bub would run it as a command; write it under command instead"),
        ("to: 12345", "5:9: to must be channel:chat_id, such as telegram:123456789"),
        ("to: 1:23", "5:9: to must be text, but YAML reads '1:23' as a number; put it in quotes: \"1:23\""),
        ("to: telegram", "5:9: to must be channel:chat_id, such as telegram:123456789"),
        ("to:", "5:8: to is empty"),
        ("session: 5", "5:14: session must be text, but YAML reads '5' as a number; put it in quotes: \"5\""),
        ("model: 5", "5:12: model must be text, but YAML reads '5' as a number; put it in quotes: \"5\""),
        ("timezone: no", "5:15: 'no' is not a time zone known here; write an IANA name such as Europe/Berlin"),
        ("every: 30", "5:12: every needs a unit: 30m for minutes, 30h for hours"),
        ("every: 30min", "5:12: every '30min' is not a duration; write it like 90s, 15m, 2h, 1d or 1h30m"),
        ("timeout: 1:30", "5:14: timeout '1:30' is not a duration; write it like 90s, 15m, 2h, 1d or 1h30m"),
        ("timeout: 600", "5:14: timeout needs a unit: 600m for minutes, 600s for seconds"),
        ("grace: 0s", "5:12: grace '0s' is out of range; a duration lies between 1s and 366d"),
        ("grace: [1h]", "5:12: grace must be a duration such as 30m, not a list"),
        ("attempts: 1.5", "5:15: attempts must be a whole number such as 3, in plain digits and without quotes"),
        ("attempts: '3'", "5:15: attempts must be a whole number such as 3, in plain digits and without quotes"),
        ("attempts: 010", "5:15: attempts must be a whole number such as 3, in plain digits and without quotes"),
        ("attempts: 0", "5:15: attempts must lie between 1 and 100"),
        ("attempts: " + "9" * 5000, "5:15: attempts must lie between 1 and 100"),
        ("attempts: -1", "5:15: attempts must lie between 1 and 100"),
        ("quiet: \"true\"", "5:12: quiet must be true or false without quotes, not text"),
        ("quiet: 1", "5:12: quiet must be true or false, not a number"),
        ("enabled: maybe", "5:14: enabled must be true or false, not text"),
        ("enabled:", "5:13: enabled is empty"),
        ("overlap: skp", "5:14: overlap must be skip or queue"),
        ("overlap: no", "5:14: overlap must be skip or queue"),
        ("reply: Chat", "5:12: reply must be chat or agent"),
        ("catch_up: none", "5:15: catch_up must be latest or all"),
        ("context: 5", "5:14: context must be words, each with a text, not a number"),
        ("context: [a]", "5:14: context must be words, each with a text, not a list"),
        ("context:", "5:13: context is empty"),
        ("context: {thread_id: 12}", "5:26: context.thread_id must be text, but YAML reads '12' as a number; put it in quotes: \"12\""),
        ("context: {a: }", "5:18: context.a is empty"),
        ("context: {a: [b]}", "5:18: context.a must be text, not a list"),
        ("context: {a: b, a: c}", "5:21: 'a' is given twice, first on line 5; keep one"),
        ("context: {no: b}", "5:15: context must be text, but YAML reads 'no' as false; put it in quotes: \"no\""),
        ("context: {chat_id: b}", "5:15: context may not set chat_id: that is what `to` is for"),
        ("context: {_a: b}", "5:15: context may not set _a: keys that begin with _ are Bub's own"),
        ("context: {" + ", ".join(f"k{n}: v" for n in range(33)) + "}", "5:14: context has more than 32 entries"),
        ("cron:", "5:10: cron is empty"),
        ("at: []", "5:9: at is empty"),
        ("at: [[2026-12-01 08:30]]", "5:10: at must be a date and time such as 2026-12-01 08:30, not a list"),
        ("at: [2026-12-01 08:30, ]", None),
        ("text: " + "o" * 65537, "5:11: text is longer than 65,536 characters"),
        ("text: " + "ö" * 33000, "5:11: text is too long: with the other keys it makes 66,133 bytes of 64,512"),
        ("text: &a hi", "5:11: anchors (&) are not taken; put a text that begins with & in quotes"),
        ("text: *a", "5:11: aliases (*) are not taken; write the value out, or put text in quotes: \"*a\""),
        ("text: !!str hi", "5:11: tags (!) are not taken; put a text that begins with ! in quotes"),
        ("text: !!python/object/apply:os.system [x]", "5:11: tags (!) are not taken; put a text that begins with ! in quotes"),
    ],
)  # fmt: skip
def test_a_fault_of_a_value(line: str, expected: str | None) -> None:
    assert fault_in(line) == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('cron: "0 25 * * *"', "5:11"),
        ("cron: 5", "5:11"),
        ("cron: 0 0 30 2 *", "5:11"),
        ("every: 90s", "5:12"),
        ("at: 2026-12-01", "5:9"),
        ("at: 8:30", "5:9"),
        ("at: ['2026-12-01 08:30', 2026-12-02]", "5:30"),
        ("timezone: Europe/Berln", "5:15"),
    ],
)
def test_a_fault_of_a_schedule_is_told_in_its_own_words_at_the_value(line: str, place: str) -> None:
    (fault,) = fault_in(line)
    assert fault.startswith(f"{place}: ")


def test_a_context_key_that_is_no_word_does_not_get_into_a_message() -> None:
    assert fault_in(r'context: {"a\nb": 1}') == [
        "5:15: context has a key that is not a plain word (letters, digits, -, _, .; at most 64)",
        "5:23: context must be text, but YAML reads '1' as a number; put it in quotes: \"1\"",
    ]


def test_a_bad_zone_does_not_hide_a_bad_schedule() -> None:
    found = fault_in("timezone: Europe/Berln", "cron: 61 * * * *")
    assert [fault.split(" ")[0] for fault in found] == ["5:15:", "6:11:"]


# --- What YAML itself can't read


@pytest.mark.usefixtures("both_loaders")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cron: * * * * *", '5:11: a value that begins with * must be in quotes: "* * * * *"'),
        ("cron: */5 * * * *  # often", '5:11: a value that begins with * must be in quotes: "*/5 * * * *"'),
        ("cron: @daily", '5:11: a value that begins with @ must be in quotes: "@daily"'),
        ("text: `ls`", '5:11: a value that begins with ` must be in quotes: "`ls`"'),
        ("text: %d", '5:11: a value that begins with % must be in quotes: "%d"'),
        ("text: & co", '5:11: a value that begins with & must be in quotes: "& co"'),
        ("text: *bold* word", '5:11: a value that begins with * must be in quotes: "*bold* word"'),
        ("text: - a", '5:11: a value that begins with - must be in quotes: "- a"'),
        ("command: ,help", '5:14: a value that begins with , must be in quotes: ",help"'),
        ("text: Note: the card", '5:11: a text that holds a colon and a space must be in quotes: "Note: the card"'),
    ],
)  # fmt: skip
def test_a_value_that_needs_quotes_is_told_so_and_the_rest_is_still_read(line: str, expected: str) -> None:
    keys = "    every: 30m\n" if line[0] in "tc" and "cron" not in line else "    text: hi\n"
    assert faults(HEAD + f"  a:\n    {line}\n{keys}    quiet: 1\n") == [
        expected,
        "7:12: quiet must be true or false, not a number",
    ]


@pytest.mark.usefixtures("both_loaders")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("text: [urgent] call", "5:20: there is more after the closing ]; put the whole value in quotes"),
        ("text: {{name}} called", "5:20: there is more after the closing }; put the whole value in quotes"),
        ("text: 'it's'", "5:15: there is more after the closing '; put the whole value in quotes"),
        ('text: "a" b', '5:15: there is more after the closing "; put the whole value in quotes'),
        ('text: "a', "5:11: the quote that opens here is never closed"),
        ("at: [2026-12-01 08:30", "5:9: the [ that opens here is not closed with ], or lacks a comma; put text that begins with [ in quotes"),
    ],
)  # fmt: skip
def test_a_bracket_or_quote_gone_wrong_is_named_beside_the_faults_of_earlier_reminders(
    line: str, expected: str
) -> None:
    earlier = "  a:\n    quiet: 1\n    every: 30m\n    text: hi\n"
    (first, second) = faults(HEAD + earlier + f"  b:\n    {line}\n    quiet: 1\n")
    assert first == "5:12: quiet must be true or false, not a number"
    assert second == expected.replace("5:", "9:", 1)


@pytest.mark.usefixtures("both_loaders")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "  a:\n\ttext: x\n", "5:1: a tab can't be used to indent; use spaces"),
        ("reminders: {", "1:13: the file ends too early; a bracket or a quote is not closed"),
        (HEAD + BODY + "   to: x:1\n", "7:4: this line doesn't line up with the keys above it; indent keys of one reminder alike"),
        (HEAD + BODY + "      to: x:1\n", "7:7: this line is indented like a part of the one above; indent keys alike, and end each with a colon"),
        (HEAD + "  a:\n    every 30m\n    text: hi\n", "6:5: this line is indented like a part of the one above; indent keys alike, and end each with a colon"),
        (HEAD + BODY + "    to\n", "7:5: a colon and a space are missing here; write it as key: value"),
        (HEAD + "  a:\n    at:\n      - 2026-12-01 08:30\n      text: hi\n", "7:7: the items of this list must all begin with -, in the same column"),
    ],
)  # fmt: skip
def test_a_line_that_stands_wrong_is_named_and_nothing_is_guessed_from_it(text: str, expected: str) -> None:
    assert faults(text) == [expected]


@pytest.mark.usefixtures("both_loaders")
def test_an_unquoted_star_in_braces_is_named() -> None:
    text = HEAD + "  a: {cron: * * * * *, text: hi}\n  b: {every: 1m}\n"
    assert faults(text) == ["4:13: a value that begins with * must be in quotes"]


def test_what_only_lacks_quotes_is_judged_further() -> None:
    assert fault_in("prompt: ,help") == [
        '5:13: a value that begins with , must be in quotes: ",help"',
        "5:13: prompt begins with a comma, so Bub would run it as a command; write it under command instead",
    ]


def test_lines_that_continue_a_value_go_with_it() -> None:
    text = HEAD + "  a:\n    prompt: Summarise: what\n      changed: all\n\n      of it\n    every: 30m\n    quiet: 1\n"
    assert faults(text) == [
        '5:13: a text that holds a colon and a space must be in quotes: "Summarise: what"',
        "10:12: quiet must be true or false, not a number",
    ]


# --- All at once


TEN = """\
defaults:
  to: 12345
  atempts: 3
reminders:
  standup:
    cron: * 9 * * mon-fri
    text: yes
  dentist:
    at: 2026-12-01
    text: Note: bring the card
    quiet: "true"
  dentist:
    every: 30
    prompt: ",help"
    context:
      thread_id: 12
"""


@pytest.mark.usefixtures("both_loaders")
def test_all_faults_come_at_once_sorted_by_place() -> None:
    assert faults(TEN) == [
        "2:7: to must be channel:chat_id, such as telegram:123456789",
        "3:3: unknown key 'atempts', did you mean 'attempts'?",
        '6:11: a value that begins with * must be in quotes: "* 9 * * mon-fri"',
        "7:11: text must be text, but YAML reads 'yes' as true; put it in quotes: \"yes\"",
        "9:9: at: '2026-12-01' is a date without a time; add one, as in 2026-12-01 08:30",
        '10:11: a text that holds a colon and a space must be in quotes: "Note: bring the card"',
        "11:12: quiet must be true or false without quotes, not text",
        "12:3: 'dentist' is given twice, first on line 8; keep one",
        "13:12: every needs a unit: 30m for minutes, 30h for hours",
        "14:13: prompt begins with a comma, so Bub would run it as a command; write it under command instead",
        "16:18: context.thread_id must be text, but YAML reads '12' as a number; put it in quotes: \"12\"",
    ]


def test_the_error_holds_the_path_and_the_text() -> None:
    with pytest.raises(FileFaultsError) as caught:
        reminders.parse(b"reminders: 5\n# \x1b\xff\n", "some/file.yaml")
    assert caught.value.path == "some/file.yaml"
    assert str(caught.value).startswith("some/file.yaml:2:4: this is not UTF-8")
    assert caught.value.source == "reminders: 5\n# \ufffd\ufffd\n"


def test_after_a_hundred_faults_it_stops() -> None:
    found = faults(HEAD + "".join(f"  r{n}:\n    cron: '61 * * * *'\n    text: hi\n" for n in range(150)))
    assert len(found) == 101
    assert found[-1] == "302:11: there are more faults; fix these first"


def test_fixing_syntax_stays_cheap_in_a_big_file() -> None:
    reminder = "  r{}:\n    cron: * * * * *\n    text: " + "x" * 1000 + "\n"
    found = faults(HEAD + "".join(reminder.format(n) for n in range(2000)))
    assert 1 <= len(found) <= 3


# --- Anything at all


@pytest.mark.parametrize("name", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize("text", ["[", "{", "- ", "? ", "a: [", "{a: ", "&a [", "!!seq ["])
def test_deep_nesting_does_no_harm(name: str, text: str) -> None:
    """libyaml's composer crashes here, hence a process of its own."""
    code = f"""
import yaml
from bub_cron import reminders
from bub_cron.reminders import source
from bub_cron.errors import FileFaultsError
source.LOADER = yaml.{name}
try:
    reminders.parse({text!r}.encode() * 100_000, "f")
except FileFaultsError as error:
    print(len(error.faults))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) >= 1


@pytest.mark.parametrize("name", ["CSafeLoader", "SafeLoader"])
@given(source=st.binary(max_size=200))
@settings(max_examples=up_to(300), deadline=None)
def test_any_bytes_give_reminders_or_faults(name: str, source: bytes) -> None:
    with loader(name):
        assert faults(source) or parse(source) == []


PIECES = [
    "defaults:", "reminders:", "a:", "b:", "yes:", "<<:", "? ", "cron:", "every:", "at:", "text:", "prompt:", "to:",
    "context:", "timezone:", "attempts:", "quiet:", "model:", "grace:", " 30m", " * * * * *", ' "0 9 * * *"', " @daily",
    " 2026-12-01 08:30", " x:1", " yes", " 5", " 1:30", " ~", " =", " <<", " UTC", " no", "\n", "\n", "\n", "\n  ",
    "\n  ", "\n    ", "\n    ", "\n      ", "\t", "- ", "[", "]", "{", "}", ",", ": ", "#", " # x", "'", '"', "|", ">",
    "&a ", "*a", "!", "!!int ", "!<%ED%A0%80>", "%YAML 9.9", "---", "...", "\\", '"\\ud800"', '"\\UFFFFFFFF"', "\0",
    "\x85", "\u2028", "\ufeff", "\U0001f600", "\r",
]  # fmt: skip


@pytest.mark.parametrize("name", ["CSafeLoader", "SafeLoader"])
@given(pieces=st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=40), has_head=st.booleans())
@settings(max_examples=up_to(1000), deadline=None)
def test_any_yaml_gives_reminders_or_faults_at_places_in_the_file(name: str, pieces: list[str], has_head: bool) -> None:
    text = (HEAD + BODY if has_head else "") + "".join(pieces)
    with loader(name):
        try:
            parse(text.encode("utf-8", "surrogatepass"))
        except FileFaultsError as error:
            lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
            for fault in error.faults:
                assert 1 <= fault.line <= len(lines)
                assert 1 <= fault.column <= len(lines[fault.line - 1]) + 2
                assert fault.message.isprintable()
            str(error).encode()


# --- Reading a file


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "reminders.yaml"
    path.write_text(HEAD + BODY)
    assert [reminder.name for reminder in reminders.load(str(path))] == ["a"]


def test_load_reports_faults_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "reminders.yaml"
    path.write_text("- a\n")
    with pytest.raises(FileFaultsError, match=re.escape(f"{path}:1:1: the file must be")):
        reminders.load(str(path))


@pytest.mark.parametrize("name", ["none", "file/none", "dangling"])
def test_load_of_a_missing_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileMissingError, match="bub-cron init"):
        reminders.load(str(tmp_path / name))


@pytest.mark.parametrize("name", ["directory", "fifo", "loop", "n\0l"])
def test_load_of_what_is_no_readable_file_neither_hangs_nor_reads(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileUnreadableError):
        reminders.load(str(tmp_path) + "/" + name)


def test_load_of_a_device_is_refused() -> None:
    with pytest.raises(FileUnreadableError, match="not a regular file"):
        reminders.load("/dev/zero")


def test_load_reads_no_more_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(100 * 1024**3)
    with pytest.raises(FileFaultsError, match="over 8 MiB"):
        reminders.load(str(path))


def test_parsing_loads_neither_json_nor_the_schema_nor_what_suspicions_need() -> None:
    code = f"""
import sys
from bub_cron import reminders
reminders.parse({(HEAD + BODY).encode()!r}, "f")
print({{"json", "difflib", "zoneinfo", "bub_cron.reminders.schema", "bub_cron.reminders.notices"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


def written_on(monkeypatch: pytest.MonkeyPatch, path: Path, *versions: str) -> list[bytes]:
    """Let somebody write the file on, in place, each time that it has been read; return what was read."""
    seen: list[bytes] = []
    following = iter(versions)
    judge = reminders.file.parse

    def parse_meanwhile(text: bytes, name: str, **how: Any) -> list[Reminder]:
        seen.append(text)
        if (version := next(following, None)) is not None:
            path.write_text(version)
        return judge(text, name, **how)

    monkeypatch.setattr(reminders.file, "parse", parse_meanwhile)
    return seen


WHOLE = HEAD + BODY + BODY.replace("a:", "b:")


@pytest.mark.parametrize("cut", [0, len(HEAD), len(HEAD + BODY), len(WHOLE) - 2])
def test_a_file_that_is_written_on_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(WHOLE[:cut])
    seen = written_on(monkeypatch, path, WHOLE)
    assert [(one.name, one.body) for one in reminders.load(str(path))] == [("a", "hi"), ("b", "hi")]
    assert seen == [WHOLE[:cut].encode(), WHOLE.encode()]


def test_a_file_that_never_holds_still_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(WHOLE)
    seen = written_on(monkeypatch, path, *(WHOLE + "#" * number for number in range(1, 20)))
    with pytest.raises(FileUnreadableError, match=r"r\.yaml is being written"):
        reminders.load(str(path))
    assert len(seen) == 5


# --- Refusals that name what helps


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('cron: "@every 15m"', "write every: 15m"),
        ('cron: "CRON_TZ=Europe/Berlin 0 9 * * 1"', 'write timezone: Europe/Berlin and cron: "0 9 * * 1"'),
        ('cron: "TZ=UTC 0 9 * * 1"', 'write timezone: UTC and cron: "0 9 * * 1"'),
        ("cron: schedule(0 9 * * 1)", 'write cron: "0 9 * * 1"'),
        ("cron: cron(0 9 ? * MON *)", 'write cron: "0 9 * * mon"'),
        ("cron: rate(5 minutes)", "write every: 5m"),
        ('cron: "0 0 9 * * 1"', "not 6; write 0 9 * * 1"),
        ('cron: "0 0 9 ? * 2"', "not 6; write 0 9 * * 1"),  # Quartz counts from Sunday, 1
        ('cron: "0 9 ? * 2-6 *"', "not 6; write 0 9 * * 1-5"),  # AWS does, too
        ('cron: "0 0 9 ? * MON 2027"', "not 7; write 0 9 * * mon"),
        ('cron: "0 9 * * 1 2027"', "not 6; write 0 9 * * 1"),
        ('cron: "*/5 0 9 * * 1"', "no seconds, no year), not 6"),
        ('cron: ["0 9 * * *", "0 21 * * *"]', "takes one text, not a list; make two reminders of them"),
        ('cron: "0 9 * * tue/2"', "is not every 2nd tue; for every other week write every: 2w with start:"),
        ('cron: "0 9 * * tue/2"', "list them, as in tue,thu,sat"),
        ('cron: "0 9 * * mon/1"', "mon,tue,wed,thu,fri,sat"),
        ('cron: "0 9 * * 7/2"', "is not every 2nd sun"),
        ('cron: "0 9 * * Mon-Sun"', "runs backwards"),
        ('cron: "0 9 L/2 * *"', "'l' is not a number from 1 to 31"),
        ("at: 07:00:00", 'for each day write cron: "0 7 * * *"'),
        ("time: 07:00", "unknown key 'time'; write at or cron"),
        ("schedule: 0 9 * * *", "unknown key 'schedule'; write cron, every or at"),
        ("text: #standup in 5", "YAML takes '#standup in 5' for a comment; put it in quotes: \"#standup in 5\""),
    ],
)
def test_a_refusal_names_what_helps(line: str, words: str) -> None:
    assert words in fault_in(line)[0]


@pytest.mark.parametrize(
    "at",
    [
        "2031-12-01T08:30:00.000Z",
        "2031-12-01 09:30:00+0100",
        "2031-12-01T03:30-0500",
        "2031-12-01 8:30",
        "2031-12-01T08:30Z",
    ],
)
def test_an_at_is_taken_as_others_write_it(at: str) -> None:
    reminder = one(HEAD + f"  a:\n    at: {at}\n    text: hi\n    timezone: UTC\n")
    assert list(fire_times(reminder.schedule, 0, 4_000_000_000)) == [1953880200]


def test_a_name_is_no_title() -> None:
    (fault,) = faults(HEAD + BODY.replace("a:", "Müll:"))
    assert fault == (
        "4:3: 'Müll' must be a name: letters, digits, - _ . only, at most 64; a name is no title, the chat gets the message"
        " alone"
    )


@pytest.mark.parametrize("name", ["-a", ".a"])
def test_a_name_begins_with_a_letter_a_digit_or_an_underscore(name: str) -> None:
    assert faults(HEAD + BODY.replace("a:", f"{name}:")) == [f"4:3: '{name}' must begin with a letter, a digit or _"]


@pytest.mark.usefixtures("both_loaders")
def test_surrogate_pairs_of_json_are_taken() -> None:
    pill = "pills \\ud83d\\uDC8A"
    assert one(HEAD + f'  a:\n    every: 30m\n    text: "{pill} now"\n').body == "pills \U0001f48a now"
    # Elsewhere a backslash is a backslash.
    assert one(HEAD + f"  a:\n    every: 30m\n    text: '{pill} \\uD83D\\uDC8a'\n").body == f"{pill} \\uD83D\\uDC8a"
    assert faults(HEAD + '  a:\n    every: 30m\n    text: "half \\ud83d"\n') != []


@pytest.mark.usefixtures("both_loaders")
@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ('    cron\uff1a "0 9 * * *"\n    text: hi\n', "5:9"),
        ('    text: hi\n    cron\uff1a "0 9 * * *"\n', "6:9"),
        ("    to: x:1\n    cron \uff1a 0 9 * * *\n    text: hi\n", "6:10"),
    ],
)
def test_a_full_width_colon_is_named_where_it_stands(lines: str, place: str) -> None:
    found = faults(HEAD + "  a:\n" + lines)
    assert found[0].startswith(f"{place}: this colon is a full-width one")
    assert "write cron: with a plain colon" in found[0]


def test_a_full_width_colon_in_a_text_is_text() -> None:
    assert (
        one(HEAD + "  a:\n    every: 30m\n    text: \u63d0\u9192\uff1a9\uff1a00\n").body
        == "\u63d0\u9192\uff1a9\uff1a00"
    )
