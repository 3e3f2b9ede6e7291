"""turns.py: what a turn through the real framework came to, and that its words reach nobody but us."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bub import hookimpl
from bub.streaming import StreamEvent
from fake_bub import House, breaks, elapsed, error_event, in_house, plays, says, settle, step, takes

from bub_cron.gateway.firing import Firing
from bub_cron.gateway.turns import GatewayStopsError, Turn, instructions


async def turn(home: House, **fields: Any) -> Turn:
    fields = {"prompt": "say it", **fields} if not {"text", "command"} & set(fields) else fields
    return await home.turns.run(await home.get(await home.take(**fields)))


async def failure(home: House, **fields: Any) -> str:
    error = (await turn(home, **fields)).error
    assert error is not None
    return error


# --- The reply


@pytest.mark.parametrize(
    ("events", "reply"),
    [
        (step("one"), "one"),
        ([*step("Let me look.", tools=True), *step("Found it.")], "Found it."),
        ([*step("Found it.", tools=True), *step("")], "Found it."),
        ([*step("Found it.", tools=True), *step(" \n")], "Found it."),
        ([*step("a", tools=True), *step("b", tools=True), *step("c")], "c"),
        ([*step("Let me look.", tools=True), *step("<no_reply/>")], "<no_reply/>"),
        ([StreamEvent("text", {"delta": "no "}), StreamEvent("text", {"delta": "final"})], "no final"),
        ([StreamEvent("reasoning", {"delta": "hm"}), *step("said")], "said"),
        (step(""), ""),
        ([], ""),
    ],
)
@in_house(begin=False)
async def test_the_reply_is_the_text_of_the_last_step_that_has_any(
    home: House, events: list[StreamEvent], reply: str
) -> None:
    home.model.always = plays(*events)
    assert (await turn(home)).text == reply


@in_house(begin=False)
async def test_tokens_are_those_of_all_steps_where_the_provider_tells(home: House) -> None:
    home.model.script = [plays(*step("a", tokens=5, tools=True), *step("b", tokens=7)), says("c")]
    assert (await turn(home)).tokens == 12
    assert (await turn(home, id="b")).tokens is None


@in_house(begin=False)
async def test_nothing_of_a_turn_reaches_a_chat_by_itself(home: House) -> None:
    await turn(home)
    home.model.always = breaks(RuntimeError("no"))
    await failure(home, id="b")
    home.model.always = plays(*step("half"), error_event("broke"))
    await failure(home, id="c")
    await settle()
    assert (home.chat.begun, home.other.begun) == ([], [])


# --- Failures


@in_house(begin=False)
async def test_an_exception_fails_the_turn_with_its_words(home: House) -> None:
    home.model.always = breaks(LookupError("no such model"), *step("half"))
    assert "LookupError: no such model" in await failure(home)


@pytest.mark.parametrize("events", [[error_event("broke")], [*step("half"), error_event("broke")],
                                    [error_event("broke"), *step("whole")]])  # fmt: skip
@in_house(begin=False)
async def test_an_error_event_anywhere_fails_the_turn(home: House, events: list[StreamEvent]) -> None:
    home.model.always = plays(*events)
    assert await failure(home) == "broke"


@in_house(begin=False)
async def test_a_step_that_says_it_is_not_ok_fails_the_turn(home: House) -> None:
    home.model.always = plays(StreamEvent("text", {"delta": "x"}), StreamEvent("final", {"ok": False, "text": "bad"}))
    assert await failure(home) == "bad"


class NoModel:
    @hookimpl
    async def run_model_stream(self, prompt: str, session_id: str, state: dict[str, Any]) -> None:
        return None


class OldModel:
    """A plugin with the text hook, as older plugins have."""

    def __init__(self, answer: str | None) -> None:
        self.answer = answer

    @hookimpl
    async def run_model(self, prompt: str, session_id: str, state: dict[str, Any]) -> str | None:
        return self.answer


def without_models(home: House) -> None:
    home.framework.plugin_manager.unregister(home.model)
    builtin = home.framework.plugin_manager.unregister(name="builtin")
    home.framework.plugin_manager.register(_Rest(builtin), name="rest")


class _Rest:
    """Bub's builtin hooks without its model."""

    def __init__(self, builtin: Any) -> None:
        self.on_error = builtin.on_error
        self.render_outbound = builtin.render_outbound
        self.dispatch_outbound = builtin.dispatch_outbound


@in_house(begin=False)
async def test_no_model_at_all_fails_the_turn_and_the_prompt_does_not_come_back_as_the_reply(home: House) -> None:
    without_models(home)
    assert "no model skill returned output" in await failure(home)
    home.framework.plugin_manager.register(NoModel())
    assert "no model skill returned output" in await failure(home, id="b")
    assert home.chat.begun == []


@in_house(begin=False)
async def test_a_text_hook_gives_the_reply_and_none_is_a_failure_not_the_text_none(home: House) -> None:
    without_models(home)
    model = OldModel("fine")
    home.framework.plugin_manager.register(model)
    assert (await turn(home)).text == "fine"
    model.answer = None
    assert await failure(home, id="b") == "no model gave a reply"
    model.answer = "None"
    assert (await turn(home, id="c")).text == "None"


@in_house(begin=False)
async def test_a_turn_past_its_timeout_is_cancelled(home: House) -> None:
    home.model.always = takes(1000)
    assert await failure(home, timeout=90) == "the turn did not end within 90 s"
    assert elapsed() == 90
    assert home.model.running == 0


@in_house(begin=False)
async def test_a_turn_that_swallows_its_cancellation_is_left_behind(home: House) -> None:
    async def play(prompt: str) -> Any:
        for _ in range(3):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                continue
        yield error_event("too late to count")

    home.model.script = [play]
    await failure(home, timeout=10)
    assert elapsed() == 15
    assert (await turn(home, id="b")).text == "the reply"
    await asyncio.sleep(1000)
    assert home.chat.begun == []


@in_house(begin=False)
async def test_a_turn_that_somebody_cancels_is_a_failed_attempt_and_not_our_end(home: House) -> None:
    home.model.always = breaks(asyncio.CancelledError())
    assert await failure(home) == "the turn was cancelled from outside"


@in_house(begin=False)
async def test_when_we_are_cancelled_the_turn_is_too(home: House) -> None:
    home.model.always = takes(1000)
    task = asyncio.create_task(turn(home))
    await asyncio.sleep(10)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert (home.model.running, elapsed()) == (0, 10)
    assert home.turns._running == {}


@in_house(begin=False)
async def test_a_turn_without_a_router_belongs_to_the_next_start(home: House) -> None:
    home.framework.bind_channel_router(None)
    with pytest.raises(GatewayStopsError):
        await turn(home)


@in_house(begin=False)
async def test_turns_at_once_do_not_mix(home: House) -> None:
    home.model.script = [takes(20, "slow"), takes(10, "quick"), breaks(RuntimeError("broken"))]
    slow, quick = asyncio.create_task(turn(home)), asyncio.create_task(turn(home, id="b"))
    await settle()
    assert "broken" in await failure(home, id="c")
    assert ((await slow).text, (await quick).text) == ("slow", "quick")


# --- What reaches the turn


@in_house(begin=False)
async def test_model_context_and_target_reach_the_turn_and_nothing_of_ours_the_model(home: House) -> None:
    await turn(home, to="other:9:8", session="s", model="openai:x", context={"thread_id": "t7", "topic": "news"})
    (state,), (prompt,) = home.model.states, home.model.prompts
    assert (state["session_id"], state["model"], state["_runtime_thread_id"]) == ("s", "openai:x", "t7")
    context, _, _ = prompt.partition("\n---Date")
    assert set(context.split("|")) == {
        "channel=$other", "chat_id=9:8", "model=openai:x", "thread_id=t7", "topic=news"
    }  # fmt: skip
    assert prompt.endswith("say it")


@in_house(begin=False)
async def test_without_a_model_of_its_own_a_turn_has_the_gateways(home: House) -> None:
    await turn(home)
    assert "model" not in home.model.states[0]


def prompt_of(home: House) -> str:
    return home.model.system_prompts[-1]


@in_house(begin=False)
async def test_the_model_is_told_that_its_reply_is_delivered_and_not_to_send_it(home: House) -> None:
    await turn(home, reminder="standup", fire_time="2027-01-15T08:00:00Z")
    ours = prompt_of(home).partition("<reminder_instruct>")[2]
    assert "the reminder standup, due at 2027-01-15T08:00:00Z (2027-01-15 " in ours
    assert "delivered to the chat for you" in ours
    assert "Do NOT also send it" in ours
    assert "<no_reply/>" not in ours
    assert "will be ignored" in prompt_of(home).partition("<reminder_instruct>")[0]  # Bub's, which ours overrides


@in_house(begin=False)
async def test_a_quiet_turn_is_told_what_sends_nothing(home: House) -> None:
    await turn(home, quiet=True)
    assert "exactly <no_reply/>" in prompt_of(home)


@in_house(begin=False)
async def test_an_agents_turn_is_told_to_send_by_itself(home: House) -> None:
    await turn(home, reply="agent", quiet=True)
    assert "NOT delivered: send" in prompt_of(home)
    assert "<no_reply/>" not in prompt_of(home)
    assert "overrides" not in prompt_of(home)


@in_house(begin=False)
async def test_a_command_and_a_users_turn_are_told_nothing(home: House) -> None:
    firing: Firing = await home.get(await home.take(command=",help"))
    assert instructions(firing) is None
    await home.user_turn("chat:1", 1)
    assert "reminder_instruct" not in prompt_of(home)


@in_house(begin=False)
async def test_a_subagents_session_is_told_nothing(home: House) -> None:
    await turn(home)
    state = {**home.model.states[0], "session_id": "temp/1234"}
    assert "reminder_instruct" not in home.framework.get_system_prompt(prompt="x", state=state)
