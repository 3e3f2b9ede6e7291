"""limits: tools and tokens of a turn, and when a budget's period begins."""

import time
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from bub.hooks.interception import ToolCall

from bub_cron.gateway.limits import Meter, period_start, unknown_tools
from bub_cron.wire import Request


def request(**fields: Any) -> Request:
    return Request({"to": "t:1", "prompt": "hi", **fields}, new_id=lambda: "a", now=0)


def meter(spent: int = 0, **fields: Any) -> Meter:
    return Meter(request(**fields), spent, ",")


def call(tool: str, **arguments: Any) -> ToolCall:
    return ToolCall("run", tool, arguments)


@pytest.mark.parametrize(
    ("tools", "tool", "allowed"),
    [
        (None, "bash", True),
        ([], "bash", False),
        (["tape.info"], "tape_info", True),
        (["tape_info"], "tape.info", True),
        (["Tape_Info "], "tape_info", True),
        (["tape.info"], "bash", False),
    ],
)
def test_only_the_tools_of_the_list_are_called(tools: list[str] | None, tool: str, allowed: bool) -> None:
    decision = meter(tools=tools).before_tool(call(tool))
    assert (decision is None) == allowed
    assert decision is None or decision.action == "deny"


def test_a_subagent_runs_no_command_around_the_list() -> None:
    limited = meter(tools=["subagent"])
    assert limited.before_tool(call("subagent", prompt="look it up")) is None
    assert limited.before_tool(call("subagent", prompt="  ,bash ls")) is not None
    assert meter().before_tool(call("subagent", prompt=",bash ls")) is None


def test_no_call_begins_over_the_limit() -> None:
    limited = meter(max_tokens=100)
    assert limited.before_model() is None
    limited.after_model({"total_tokens": 60})
    assert limited.before_model() is None
    limited.after_model({"total_tokens": 60})
    decision = limited.before_model()
    assert decision is not None
    assert limited.judge_end() == "over its limit of 100 tokens"
    assert limited.tokens == 120


def test_earlier_attempts_count() -> None:
    limited = meter(spent=100, max_tokens=100)
    assert limited.before_model() is not None
    assert meter(spent=40, max_tokens=100).before_model() is None


def test_the_last_call_may_go_over_it_too() -> None:
    limited = meter(max_tokens=100)
    limited.after_model({"total_tokens": 101})
    assert limited.judge_end() == "over its limit of 100 tokens"
    exact = meter(max_tokens=100)
    exact.after_model({"total_tokens": 100})
    assert exact.judge_end() == ""


@pytest.mark.parametrize("usage", [None, {}, {"total_tokens": None}, {"total_tokens": -1}, {"total_tokens": "5"}, 5])
def test_what_cannot_be_counted_does_not_run_on(usage: object) -> None:
    limited = meter(max_tokens=100)
    limited.after_model(usage)
    assert limited.before_model() is not None
    assert "can't be counted" in limited.judge_end()
    free = meter()
    free.after_model(usage)
    assert (free.before_model(), free.judge_end(), free.tokens) == (None, "", None)


def test_a_turn_of_which_no_call_was_seen_is_over_a_limit() -> None:
    assert meter(budget="1k/day").judge_end() == "its tokens can't be counted: another plugin runs the model here"
    assert meter().judge_end() == ""


def test_names_that_the_gateway_does_not_have() -> None:
    assert unknown_tools(request(tools=["tape.info", "nosuch"]), {"tape.info": 1}) == ["nosuch"]
    assert unknown_tools(request(), {}) == []


@pytest.mark.parametrize("zone", ["Europe/Berlin", None])
@pytest.mark.parametrize(
    ("period", "now", "start"),
    [
        ("day", "2026-11-26 18:00", "2026-11-26 00:00"),
        ("week", "2026-11-26 18:00", "2026-11-23 00:00"),
        ("week", "2026-10-26 00:30", "2026-10-26 00:00"),
        ("day", "2026-10-25 12:00", "2026-10-25 00:00"),  # the clock goes back at 03:00
        ("month", "2026-11-01 00:00", "2026-11-01 00:00"),
        ("month", "2026-04-30 23:59", "2026-04-01 00:00"),
    ],
)
def test_when_a_period_began(
    period: str, now: str, start: str, zone: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    berlin = ZoneInfo("Europe/Berlin")
    found = period_start(period, datetime.fromisoformat(now).replace(tzinfo=berlin).timestamp(), zone)
    assert found == datetime.fromisoformat(start).replace(tzinfo=berlin).timestamp()
