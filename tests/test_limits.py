"""limits: tools and tokens of a turn, and when a budget's period begins."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from any_llm.types.completion import ChatCompletion
from bub.builtin.model_runner import ModelRunner
from bub.channels import ChannelMessage
from bub.hooks.interception import ToolCall
from bub.tools import ToolExecutor
from fake_bub import NOON, House, completion, house, in_house, in_virtual_time, logged, open_inbox, real_loop

from bub_cron.gateway.limits import Meter, period_start, unknown_tools
from bub_cron.wire import Request

DAY = 86400.0


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


def test_a_call_that_failed_is_no_call_that_cannot_be_counted() -> None:
    """Its attempt fails, and is made again."""
    limited = meter(max_tokens=100)
    limited.after_model(None, RuntimeError("overloaded"))
    assert limited.before_model() is None


def test_a_command_needs_no_model() -> None:
    limited = Meter(Request({"to": "t:1", "command": ",x", "max_tokens": 5}, new_id=lambda: "a", now=0), 0, ",")
    assert limited.judge_end() == ""
    limited.after_model({"total_tokens": 6})
    assert limited.judge_end() == "over its limit of 5 tokens"


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


# --- In turns of Bub's own agent loop

TOOL: dict[str, Any] = {"fs_read": {"path": "/nowhere"}}


@contextmanager
def ran_tools() -> Iterator[list[str]]:
    """The names of the tools that are run within; `bash` does nothing."""
    ran: list[str] = []

    def note(executor: Any, *, tool_name: str, tool_obj: Any, tool_args: Any, context: Any) -> Any:
        ran.append(tool_name)
        return (
            "done"
            if tool_name == "bash"
            else invoke(executor, tool_name=tool_name, tool_obj=tool_obj, tool_args=tool_args, context=context)
        )

    invoke = ToolExecutor._invoke_tool
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToolExecutor, "_invoke_tool", note)
        yield ran


LIMITED: list[tuple[dict[str, Any], list[ChatCompletion | Exception], str, str | None, int, int, int | None]] = [
    # what is asked, what the provider says; the outcome, the reason, the attempts, the calls, the tokens
    ({"max_tokens": 100}, [completion("ok", 100)], "delivered", None, 1, 1, 100),
    ({"max_tokens": 100}, [completion("ok", 101)], "failed", "limit", 1, 1, 101),
    ({"max_tokens": 100}, [completion(tokens=60, **TOOL), completion("ok", 30)], "delivered", None, 1, 2, 90),
    ({"max_tokens": 100}, [completion("Let me see.", 100, **TOOL), completion("ok", 1)], "failed", "limit", 1, 1, 100),
    ({"max_tokens": 100}, [completion("ok")], "failed", "limit", 1, 1, None),
    ({"max_tokens": 100}, [RuntimeError("overloaded"), completion("ok", 9)], "delivered", None, 2, 2, 9),
    (  # of all attempts: the first one's tokens count for the second
        {"max_tokens": 100},
        [completion(tokens=60, **TOOL), RuntimeError("overloaded"), completion("ok", 50)],
        "failed", "limit", 2, 3, 110,
    ),
    (  # of a subagent, too, though its usage is not in the turn's stream
        {"max_tokens": 100},
        [completion(tokens=40, subagent={"prompt": "look"}), completion("found", 40), completion("ok", 40)],
        "failed", "limit", 1, 3, 120,
    ),
    ({"max_tokens": 100, "reply": "agent"}, [completion("ok", 101)], "failed", "limit", 1, 1, 101),
    ({"budget": "1k/day"}, [completion("ok", 5000)], "delivered", None, 1, 1, 5000),
    ({"budget": "1k/day"}, [completion("ok")], "failed", "limit", 1, 1, None),
    ({}, [completion("ok")], "delivered", None, 1, 1, None),
    ({}, [completion(tokens=4, subagent={"prompt": "x"}), completion("f", 4), completion("ok", 4)],
     "delivered", None, 1, 3, 12),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "answers", "state", "reason", "attempts", "calls", "tokens"), LIMITED)
@in_house()
async def test_what_a_limited_turn_comes_to(
    home: House, fields: dict[str, Any], answers: list[ChatCompletion | Exception], state: str, reason: str | None,
    attempts: int, calls: int, tokens: int | None,
) -> None:  # fmt: skip
    with real_loop(home) as provider:
        provider.script = [*answers]
        firing = await home.run(prompt="x", reminder="r", **fields)
    assert (firing.state, firing.reason, firing.attempts, len(provider.calls)) == (state, reason, attempts, calls)
    assert firing.tokens == tokens
    replies = [message.content for message in home.chat.taken if "failed" not in message.content]
    assert replies == (["ok"] if state == "delivered" else [])
    spent = await home.inbox.sql("SELECT sum(tokens) FROM spent WHERE reminder = 'r'")
    assert spent == [(tokens,)]


CALLED: list[tuple[list[str] | None, dict[str, Any], str]] = [
    # the reminder's tools, what the model calls, what it hears
    (["fs.read"], {"bash": {"cmd": "touch called"}}, "not among those"),
    ([], {"bash": {"cmd": "touch called"}}, "not among those"),
    (["subagent"], {"subagent": {"prompt": ",bash touch called"}}, "may not run commands"),
    (["bash"], {"bash": {"cmd": "touch called"}}, ""),
    (["BASH", "fs_read"], {"bash": {"cmd": "touch called"}}, ""),
    (None, {"bash": {"cmd": "touch called"}}, ""),
]


@pytest.mark.parametrize(("tools", "call", "heard"), CALLED)
@in_house(begin=False)
async def test_a_tool_is_refused_where_it_is_called(
    home: House, tools: list[str] | None, call: dict[str, Any], heard: str
) -> None:
    fields = {} if tools is None else {"tools": tools}
    asked = await home.get(await home.take(prompt="x", **fields))
    with real_loop(home) as provider, ran_tools() as ran:
        provider.script = [completion(tokens=1, **call), completion("ok", 1)]
        assert (await home.turns.run(asked)).text == "ok"
    assert heard in provider.tool_results[0]
    assert ran == ([] if heard else ["bash"])


@in_house()
async def test_a_subagent_has_no_more_tools_than_its_turn(home: House) -> None:
    with real_loop(home) as provider, ran_tools() as ran:
        provider.script = [
            completion(tokens=1, subagent={"prompt": "do it"}), completion(tokens=1, bash={"cmd": "x"}),
            completion("refused", 1), completion("ok", 1),
        ]  # fmt: skip
        firing = await home.run(prompt="x", tools=["subagent"])
    assert (firing.state, firing.tokens, ran) == ("delivered", 4, ["subagent"])


@in_house()
async def test_a_turn_that_was_left_behind_calls_no_model_and_no_tool(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def stubborn(runner: Any, **_: Any) -> ChatCompletion:
        nonlocal calls
        calls += 1
        for _attempt in range(3):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(100)
        return completion(tokens=1, bash={"cmd": "x"})

    with real_loop(home), ran_tools() as ran:
        monkeypatch.setattr(ModelRunner, "completion_response", stubborn)
        firing = await home.run(prompt="x", timeout=10, attempts=1)
        assert "did not end within 10 s" in (firing.error or "")
        await asyncio.sleep(3000)
        assert (calls, ran) == (1, [])


@in_house()
async def test_turns_of_users_have_no_limits(home: House) -> None:
    with real_loop(home) as provider, ran_tools() as ran:
        provider.script = [completion(bash={"cmd": "x"}), completion("ok")]
        await home.framework.process_inbound(ChannelMessage("chat:1", "chat", "hi", chat_id="1"))
    assert (ran, len(provider.calls)) == (["bash"], 2)


@in_house()
async def test_the_model_is_told_its_tools_and_the_log_what_the_gateway_lacks(home: House) -> None:
    with logged() as lines:
        for number in "123":
            await home.run(id=number, prompt="x", reminder="r", tools=["tape.info", "nosuch"])
    assert "Of the tools you may use tape.info, nosuch; any other is refused." in home.model.system_prompts[0]
    assert home.turns.unknown_tools == {"r": ["nosuch"]}
    assert [line for line in lines if "nosuch" in line] == ["cron.tools reminder=r: this gateway has no tool nosuch"]
    await home.run(id="4", prompt="x", reminder="r", tools=["tape.info"])
    assert home.turns.unknown_tools == {}


@pytest.mark.parametrize("fields", [{"max_tokens": 5}, {"budget": "5/day"}])
@in_house()
async def test_where_another_plugin_runs_the_model_a_limited_reminder_fails_before_it_runs(
    home: House, fields: dict[str, Any]
) -> None:
    firing = await home.run(prompt="x", reminder="r", **fields)
    assert (firing.state, firing.reason, firing.attempts, home.model.turns) == ("failed", "limit", 0, 0)
    assert "the plugin model runs the model here" in (firing.error or "")
    assert (await home.run(id="b", command=",help", reminder="r", **fields)).state == "delivered"


@pytest.mark.parametrize(("period", "days"), [("day", 1), ("week", 7), ("month", 31)])
@in_house()
async def test_a_budget_that_is_used_up_skips_until_its_period_ends(home: House, period: str, days: int) -> None:
    async def run(number: int) -> tuple[str, str | None]:
        budget = {"budget": f"100/{period}", "timezone": "Europe/Berlin", "expires": NOON + 400 * DAY}
        firing = await home.run(id=str(number), prompt="x", reminder="r", **budget)
        return firing.state, firing.reason

    with real_loop(home) as provider:
        provider.always = completion("ok", 60)
        assert [await run(number) for number in range(3)] == [
            ("delivered", None),
            ("delivered", None),
            ("skipped", "budget"),
        ]
        assert (await home.get("2")).error == f"120 tokens were taken this {period}, and its budget is 100/{period}"
        assert (await home.run(id="other", prompt="x", reminder="s", budget="100/day")).state == "delivered"
        await asyncio.sleep(period_start(period, NOON + days * DAY, "Europe/Berlin") - NOON - 1)
        assert await run(3) == ("skipped", "budget")
        await asyncio.sleep(2)
        assert await run(4) == ("delivered", None)
        assert len(provider.calls) == 4


@in_virtual_time
async def test_a_budget_is_remembered_over_a_restart_and_a_retry_keeps_to_it(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        with real_loop(home) as provider:
            provider.script = [completion(tokens=100, **TOOL), RuntimeError("overloaded")]
            await home.take(prompt="x", reminder="r", budget="100/day")
            await asyncio.sleep(10)
            assert (await home.get()).state == "retrying"
    async with house(tmp_path, recover=True) as home:
        with real_loop(home) as provider:
            firing = await home.outcome("a")
    assert (firing.state, firing.reason, firing.attempts, provider.calls) == ("failed", "attempts", 1, [])


@in_virtual_time
async def test_what_was_spent_is_dropped_after_400_days(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        for day in (0.0, 401.0):
            await inbox.sql("INSERT INTO spent (reminder, day, tokens) VALUES ('r', ?, 1)", NOON - day * DAY)
        await inbox.prune_old(NOON, 30)
        assert await inbox.sql("SELECT day FROM spent") == [(NOON,)]
