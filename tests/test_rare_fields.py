"""rare_fields: what the fields take that few requests have, and what they say of the rest."""

import json
from typing import Any

import pytest

from bub_cron.errors import FileFaultsError, RequestError
from bub_cron.rare_fields import parse_tokens, split_budget
from bub_cron.reminders import Reminder
from bub_cron.reminders import parse as parse_file
from bub_cron.wire import Request, parse_request, stored_request

HEAD = "reminders:\n  a:\n    every: 30m\n    to: telegram:1\n    prompt: hi\n"


def request(**fields: Any) -> Request:
    line = json.dumps({"to": "telegram:1", "prompt": "hi", "id": "a", **fields}).encode()
    found = parse_request(line, now=0, new_id=lambda: "poke")
    assert isinstance(found, Request)
    return found


def from_file(lines: str) -> Reminder:
    (reminder,) = parse_file((HEAD + lines).encode(), "f", machine_zone=lambda: "UTC")
    return reminder


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        ("    also: telegram:2\n", "also", ["telegram:2"]),
        ("    also: [telegram:2, 'x:3', telegram:2]\n", "also", ["telegram:2", "x:3"]),
        ("    gate: test -f /x\n", "gate", {"run": "test -f /x", "timeout": 30.0, "changed": False}),
        (
            "    gate: [/bin/mail, --list, '']\n",
            "gate",
            {"run": ["/bin/mail", "--list", ""], "timeout": 30.0, "changed": False},
        ),
        ("    gate: {run: x, timeout: 2m, changed: true}\n", "gate", {"run": "x", "timeout": 120.0, "changed": True}),
        ("    tools: []\n", "tools", []),
        ("    tools: [tape.info, web_fetch]\n", "tools", ["tape.info", "web_fetch"]),
        ("    max_tokens: 60k\n", "max_tokens", 60_000),
        ("    max_tokens: 800\n", "max_tokens", 800),
        ("    budget: 200k/day\n", "budget", "200k/day"),
        ("    alert: none\n", "alert", "none"),
        ("    alert: telegram:99\n", "alert", "telegram:99"),
        ("    ping: https://hc-ping.com/abc\n", "ping", "https://hc-ping.com/abc"),
        ("    mark_late: never\n", "mark_late", "never"),
        ("    mark_late: 1h\n", "mark_late", 3600),
        ("    timezone: Europe/Berlin\n", "timezone", "Europe/Berlin"),
    ],
)
def test_the_file_and_the_socket_take_the_same(lines: str, key: str, value: object) -> None:
    reminder = from_file(lines)
    assert getattr(reminder, key) == value
    sent = reminder.content()
    assert sent[key] == value
    taken = request(**{k: v for k, v in sent.items() if k not in ("to", "prompt")})
    assert getattr(taken, key) == value
    again = stored_request("a", taken.expires, taken.content())
    assert again.content() == taken.content()


def test_what_is_not_given_is_not_sent() -> None:
    assert set(from_file("").content()) == {
        "reminder", "to", "prompt", "attempts", "timeout", "overlap", "reply", "quiet",
    }  # fmt: skip


def test_a_fresh_session_is_one_for_each_firing() -> None:
    first, second = request(id="a@1", session="fresh"), request(id="a@2", session="fresh")
    assert (first.session, second.session) == ("temp/a@1", "temp/a@2")
    assert stored_request("a@1", 0, first.content()).session == "temp/a@1"
    assert from_file("    session: fresh\n").content()["session"] == "fresh"


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("    also: 5\n", "6:11: also must be channel:chat_id, such as telegram:123456789"),
        ("    also: [a:1, a:2, a:3, a:4, a:5, a:6, a:7, a:8, a:9, a:10]\n", "6:11: also has more than 9 targets"),
        ("    gate: {runs: x}\n", "6:12: unknown key 'runs' in gate; known are run, timeout, changed"),
        ("    gate: {timeout: 30s}\n", "6:11: gate has no run, the command"),
        ("    gate: {run: x, timeout: 30}\n", "6:29: gate: timeout needs a unit: 30m for minutes, 30s for seconds"),
        ("    gate: ' '\n", "6:11: gate is empty"),
        ("    gate: []\n", "6:11: gate must be a shell line, or a list of a program and its arguments, not a list"),
        ("    tools: web_fetch\n", "6:12: tools must be a list of names, such as [web_fetch]; [] for none, not text"),
        ("    max_tokens: many\n", "6:17: max_tokens 'many' is not a number of tokens; write it like 800, 60k or 2m"),
        ("    max_tokens: 0\n", "6:17: max_tokens must lie between 1 and 1,000,000m tokens"),
        ("    budget: 200k\n", "6:13: budget must be tokens per day, week or month, such as 200k/day"),
        ("    budget: 200k/year\n", "6:13: budget must be tokens per day, week or month, such as 200k/day"),
        ("    alert: 99\n", "6:12: alert must be channel:chat_id, such as telegram:123456789"),
        ("    ping: hc-ping.com/abc\n", "6:11: ping must be an http or https address, such as https://hc-ping.com/..."),
        (
            "    mark_late: always\n",
            "6:16: mark_late 'always' is not a duration; write it like 90s, 15m, 2h, 1d or 1h30m",
        ),
    ],
)
def test_faults_say_what_would_be_right(lines: str, fault: str) -> None:
    with pytest.raises(FileFaultsError) as raised:
        from_file(lines)
    assert [f"{one.line}:{one.column}: {one.message}" for one in raised.value.faults] == [fault]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"also": {"a": 1}}, "also must be a target or a list of them, not a mapping"),
        ({"gate": {"run": "x", "when": 1}}, "gate has an unknown key 'when'; known are run, timeout, changed"),
        ({"gate": 5}, "gate must be a shell line, or a list of a program and its arguments, not a number"),
        ({"gate": {"run": "x", "timeout": 0}}, "gate must lie between 0 and 366 days, in seconds"),
        ({"gate": "a\0b"}, "gate holds a NUL character"),
        ({"tools": [5]}, "tools must be text, not a number"),
        ({"max_tokens": True}, "max_tokens must be a number of tokens like 60k, not true or false"),
        ({"budget": 5}, "budget must be text, not a number"),
        (
            {"mark_late": "soon"},
            "mark_late 'soon' is not a duration; write it like 90s, 15m, 2h, 1d or 1h30m, or never",
        ),
        ({"ping": "ftp://x"}, "ping must be an http or https address, such as https://hc-ping.com/..."),
        ({"ping": "http://x:99999/"}, "ping must be an http or https address, such as https://hc-ping.com/..."),
        ({"ping": "http://x/\xe4"}, "ping must be an http or https address, such as https://hc-ping.com/..."),
        ({"ping": "https://user:pass@x/"}, "ping may hold no user and password: a ping doesn't send them"),
    ],
)
def test_the_socket_refuses_the_rest(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(RequestError) as raised:
        request(**fields)
    assert str(raised.value) == error


def test_tokens_and_budgets() -> None:
    assert [parse_tokens(text) for text in ("800", "60k", "2M")] == [800, 60_000, 2_000_000]
    assert split_budget("200k/week") == (200_000, "week")


def test_a_budget_goes_with_a_reminder() -> None:
    with pytest.raises(RequestError, match="budget goes with reminder"):
        request(budget="200k/day")
    assert request(budget="200k/day", reminder="r").budget == "200k/day"
