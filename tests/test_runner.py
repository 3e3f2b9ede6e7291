"""runner.py: every firing to its final outcome, in order, in time, over stops and bad disks; and `delivered` never without evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import telegram.error
from bub import hookimpl
from bub.channels import ChannelMessage
from fake_bub import (
    NOON,
    FakeClockInbox,
    House,
    Play,
    breaks,
    elapsed,
    error_event,
    hang,
    house,
    in_house,
    in_virtual_time,
    now,
    open_inbox,
    plays,
    request,
    says,
    settle,
    step,
    takes,
)
from loguru import logger

from bub_cron.gateway.delays import attempt_delay
from bub_cron.gateway.firing import Firing
from bub_cron.gateway.inbox import FullError

HOUR = 3600.0


class ReadTimeout(Exception):
    pass


# --- Each outcome


@in_house()
async def test_a_prompt_is_run_and_its_reply_delivered(home: House) -> None:
    home.model.always = says("good morning")
    firing = await home.run(prompt="say it", to="chat:12:34", context={"thread_id": "t"})
    assert firing.answer() == {
        "id": "a", "status": "delivered", "reply": "good morning", "attempts": 1, "seconds": 0.0
    }  # fmt: skip
    (message,) = home.chat.taken
    assert (message.chat_id, message.content, message.session_id) == ("12:34", "good morning", "chat:12:34")
    assert message.context["thread_id"] == "t"
    assert home.other.taken == []


@in_house()
async def test_a_command_sends_its_output(home: House) -> None:
    firing = await home.run(command=" ,help ")
    assert firing.state == "delivered"
    assert "tape.info" in home.chat.texts[0]
    assert home.model.turns == 0


class Commands:
    """Commands without a shell: `,silent` prints nothing, `,boom` fails, `,slow` takes a minute."""

    def __init__(self) -> None:
        self.run: list[str] = []

    async def __call__(self, tape: Any, *, line: str) -> str:
        self.run.append(line)
        if line == "slow":
            await asyncio.sleep(60)
        if line == "boom":
            raise RuntimeError("command exited with status 3")
        return "(no output)" if line == "silent" else f"did {line}"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    made = Commands()
    monkeypatch.setattr("bub.builtin.agent.Agent._run_command", lambda self, tape, *, line: made(tape, line=line))
    return made


OUTCOMES: list[tuple[dict[str, Any], Play, str, str, int, list[str]]] = [
    # what is asked, what the model says; the outcome, what its error says, the attempts, what the chat gets
    ({"text": "  <b>Time</b> for ,your pills.\n"}, says(""), "delivered", "", 0, ["  <b>Time</b> for ,your pills.\n"]),
    ({"prompt": "x", "quiet": True}, says(" <no_reply/>\n"), "silent", "", 1, []),
    ({"prompt": "x", "quiet": True}, says(" \n "), "silent", "", 1, []),
    ({"prompt": "x"}, says(" \n "), "failed", "an empty reply", 1, []),
    ({"prompt": "x"}, says("<no_reply/>"), "failed", "needs quiet: true", 1, []),
    ({"prompt": "x"}, says("Hello.<no_reply/>"), "delivered", "", 1, ["Hello."]),
    ({"prompt": "x", "quiet": True}, says("Hello.<no_reply/>"), "delivered", "", 1, ["Hello."]),
    ({"prompt": "x", "quiet": True}, says("<no_reply/>\nHello."), "delivered", "", 1, ["Hello."]),
    ({"prompt": "x"}, says("a <no_reply/> b<no_reply/>"), "delivered", "", 1, ["a  b"]),
    ({"prompt": "x", "quiet": True}, says("<no_<no_reply/>reply/>x"), "delivered", "", 1, ["x"]),
    ({"prompt": "x", "reply": "agent"}, says("the reply"), "ran", "", 1, []),
    (
        {"prompt": "x", "attempts": 1},
        plays(*step("half"), error_event("the line broke")),
        "failed",
        "line broke",
        1,
        [],
    ),
    ({"command": ",say"}, says(""), "delivered", "", 1, ["did say"]),
    ({"command": ",silent"}, says(""), "ran", "", 1, []),
    ({"command": ",boom"}, says(""), "failed", "status 3", 1, []),
    ({"command": ",boom", "attempts": 2}, says(""), "failed", "status 3", 2, []),
]


@pytest.mark.parametrize(("fields", "model", "state", "error", "attempts", "texts"), OUTCOMES)
@in_house()
async def test_what_a_turn_or_a_text_comes_to(
    home: House, commands: Commands, fields: dict[str, Any], model: Play, state: str, error: str, attempts: int,
    texts: list[str],
) -> None:  # fmt: skip
    home.model.always = model
    firing = await home.run(**fields)
    assert (firing.state, firing.attempts, firing.sends, home.chat.texts) == (state, attempts, len(texts), texts)
    assert error in (firing.error or "")
    assert (firing.error is None) == (error == "")
    assert home.model.turns == (1 if "prompt" in fields else 0)


# --- Undelivered, before any model


@pytest.mark.parametrize("kind", ["prompt", "text"])
@pytest.mark.parametrize(
    ("channel", "why"),
    [("nosuch", "no channel nosuch"), ("off", "not enabled"), ("telegram", "not enabled"), ("cli", "reaches no chat"),
     ("face", "reaches no chat"), ("cron", "reaches no chat"), ("mute", "no send() of its own")],
)  # fmt: skip
@in_house()
async def test_a_channel_that_cannot_deliver_is_said_before_a_model_is_run(
    home: House, channel: str, why: str, kind: str
) -> None:
    firing = await home.run(to=f"{channel}:1", **{kind: "x"})
    assert (firing.state, firing.attempts, firing.sends) == ("undelivered", 0, 0)
    assert why in (firing.error or "")
    assert home.model.turns == 0


@in_house()
async def test_an_interface_is_refused_even_where_it_is_enabled(home: House) -> None:
    home.manager._enabled_channels = ["all", "face", "chat"]
    assert (await home.run(to="face:1")).state == "undelivered"


@in_virtual_time
async def test_a_kept_reply_whose_channel_is_gone_after_a_restart_is_undelivered(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        await inbox.put("kept", to="nosuch:1")
    async with house(tmp_path, recover=True) as home:
        assert (await home.outcome("a")).state == "undelivered"
        assert home.model.turns == 0


# --- Evidence


async def seen_by_the_store(home: House) -> tuple[Any, ...]:
    firing = await home.get()
    return firing.state, firing.reply, [message.state for message in firing.messages], firing.sends


@in_house()
async def test_the_reply_is_on_disk_before_the_send_begins(home: House) -> None:
    seen: list[Any] = []

    async def look() -> None:
        seen.append(await seen_by_the_store(home))

    home.chat.always = look
    await home.run(prompt="x")
    assert seen == [("running", "the reply", ["sending"], 1)]


@in_house()
async def test_delivered_is_said_only_after_send_has_returned(home: House) -> None:
    async def slowly() -> None:
        await asyncio.sleep(30)

    home.chat.always = slowly
    firing_id = await home.take(text="x")
    await asyncio.sleep(29)
    assert (await home.get(firing_id)).state == "running"
    firing = await home.outcome(firing_id)
    assert (firing.state, firing.finished_at) == ("delivered", NOON + 30)


@in_house()
async def test_the_model_starts_only_once_its_attempt_is_on_disk(home: House) -> None:
    seen: list[Any] = []

    async def play(prompt: str) -> Any:
        firing = await home.get()
        seen.append((firing.state, firing.attempts))
        for event in step("ok"):
            yield event

    home.model.always = play
    await home.run(prompt="x")
    assert seen == [("running", 1)]


# --- Attempts


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 30), (2, 120), (3, 300), (4, 300), (99, 300)])
def test_the_delays_between_attempts(attempts: int, seconds: float) -> None:
    assert attempt_delay(attempts) == seconds


NO_MODEL = breaks(RuntimeError("no model today"))
ATTEMPTS: list[tuple[dict[str, Any], list[Play], str, list[float], float]] = [
    # what is asked, what the turns do (the last one's for ever); the outcome, when the turns start, when it ends
    ({"attempts": 5}, [NO_MODEL], "failed", [0, 30, 150, 450, 750], 750),
    ({}, [NO_MODEL, NO_MODEL, says("at last")], "delivered", [0, 30, 150], 150),
    ({}, [NO_MODEL], "failed", [0, 30, 150], 150),
    ({"attempts": 100, "expires": NOON + 500}, [NO_MODEL], "failed", [0, 30, 150, 450], 450),  # not when grace ends
    ({"timeout": "1m", "attempts": 2}, [takes(1000)], "failed", [0, 90], 150),
    ({"expires": NOON + 1}, [takes(300)], "delivered", [0], 300),  # it has begun within its grace
]


@pytest.mark.parametrize(("fields", "turns", "state", "starts", "end"), ATTEMPTS)
@in_house()
async def test_a_failed_attempt_is_tried_again_while_attempts_and_grace_last(
    home: House, fields: dict[str, Any], turns: list[Play], state: str, starts: list[float], end: float
) -> None:
    *home.model.script, home.model.always = turns
    firing = await home.run(prompt="x", **fields)
    assert [seconds for seconds, _ in home.model.starts] == starts
    assert (firing.state, firing.attempts, firing.finished_at) == (state, len(starts), NOON + end)
    if state == "failed":
        assert ("no model today" if turns == [NO_MODEL] else "60 s") in (firing.error or "")
        assert home.chat.begun == []


@in_house()
async def test_between_attempts_it_is_retrying_with_the_reason(home: House) -> None:
    home.model.script = [breaks(RuntimeError("once"))]
    firing_id = await home.take(prompt="x")
    await asyncio.sleep(10)
    firing = await home.get(firing_id)
    assert (firing.state, firing.not_before, firing.attempts) == ("retrying", NOON + 30, 1)
    assert "once" in (firing.error or "")


# --- Sends


async def stubborn() -> None:
    for _ in range(5):
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            continue


NO = ConnectionRefusedError("nobody there")
WAIT, LONG, LONGER, TOO_LONG = map(telegram.error.RetryAfter, (300, 5 * 3600, 3650, 3670))
SENDS: list[tuple[dict[str, Any], list[Any], str, list[float], float]] = [
    # what is asked, what the sends do (the last one for ever); the outcome, when the sends begin, when it ends
    ({"prompt": "x"}, [NO, NO, NO, NO, None], "delivered", [0, 30, 60, 180, 480], 480),
    ({"text": "x", "expires": NOON + 800}, [NO], "undelivered", [0, 30, 60, 180, 480, 780], 780),
    ({"text": "x", "expires": NOON + 1}, [NO], "undelivered", [0, 30, 60], 60),  # twice, even without grace
    ({"text": "x"}, [httpx.ConnectTimeout("no way there"), None], "delivered", [0, 30], 30),
    ({"text": "x"}, [ReadTimeout("no answer")], "unknown", [0], 0),
    ({"prompt": "x"}, [hang], "unknown", [0], 60),
    ({"text": "x"}, [stubborn], "unknown", [0], 60),
    ({"text": "x"}, [WAIT, None], "delivered", [0, 300], 300),
    ({"text": "x", "expires": NOON + 24 * HOUR}, [LONG, None], "delivered", [0, 5 * HOUR], 5 * HOUR),
    ({"text": "x", "expires": NOON + 60}, [LONGER, None], "delivered", [0, 3650], 3650),  # past its grace by an hour
    ({"text": "x", "expires": NOON + 60}, [TOO_LONG, None], "undelivered", [0], 0),
]


@pytest.mark.filterwarnings("ignore::telegram.warnings.PTBDeprecationWarning")
@pytest.mark.parametrize(("fields", "sends", "state", "begun", "end"), SENDS)
@in_house()
async def test_a_refused_send_is_repeated_from_the_kept_text_and_one_that_was_not_seen_is_not(
    home: House, fields: dict[str, Any], sends: list[Any], state: str, begun: list[float], end: float
) -> None:
    *home.chat.script, home.chat.always = sends
    firing = await home.run(**fields)
    assert (firing.state, firing.finished_at, firing.sends) == (state, NOON + end, len(begun))
    assert (firing.error is None) == (state == "delivered")
    await asyncio.sleep(HOUR)
    assert [seconds for seconds, _ in home.chat.begun] == begun
    assert home.model.turns == (1 if "prompt" in fields else 0)


@in_virtual_time
async def test_a_refused_send_goes_on_after_a_restart_and_the_model_runs_once(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.chat.always = ConnectionRefusedError("no")
        await home.take(prompt="x")
        await asyncio.sleep(10)
        assert home.model.turns == 1
    async with house(tmp_path, recover=True) as home:
        firing = await home.outcome("a")
        assert home.chat.begun == [(30, "the reply")]
        assert (firing.state, firing.sends, firing.attempts, home.model.turns) == ("delivered", 2, 1, 0)


# --- Order and places


@in_house()
async def test_one_turn_at_a_time_per_session_in_the_order_of_acceptance(home: House) -> None:
    home.model.always = takes(10)
    for number in range(5):
        await home.take(id=str(number), prompt=f"number {number}")
    firings = [await home.outcome(str(number)) for number in range(5)]
    assert [firing.finished_at for firing in firings] == [NOON + 10 * (number + 1) for number in range(5)]
    assert [prompt[-1] for prompt in home.model.prompts] == ["0", "1", "2", "3", "4"]
    assert home.model.most_running == 1


@in_house()
async def test_the_session_counts_and_not_the_chat(home: House) -> None:
    home.model.always = takes(10)
    await home.take(id="a", prompt="x", to="chat:1", session="s")
    await home.take(id="b", prompt="x", to="other:1", session="s")
    await home.take(id="c", prompt="x", to="chat:1", session="t")
    await home.outcome("b")
    assert home.model.starts == [(0, "s"), (0, "t"), (10, "s")]


@in_house(max_concurrent=2)
async def test_no_more_turns_at_once_than_there_are_places(home: House) -> None:
    home.model.always = takes(10)
    for number in range(6):
        await home.take(id=str(number), prompt="x", to=f"chat:{number}")
    for number in range(6):
        await home.outcome(str(number))
    assert home.model.most_running == 2
    assert elapsed() == 30


@in_house(max_concurrent=2)
async def test_a_slow_turn_delays_no_other_session(home: House) -> None:
    home.model.script = [takes(500)]
    for number in range(5):  # one runs, four wait for its session: none of them may hold a place
        await home.take(id=f"slow{number}", prompt="x", to="chat:slow")
    firing = await home.run(id="quick", prompt="x", to="chat:quick")
    assert (firing.state, elapsed()) == ("delivered", 0)


@in_house(max_concurrent=1)
async def test_a_retry_gives_its_session_and_its_place_to_others_meanwhile(home: House) -> None:
    home.model.script = [breaks(RuntimeError("no"))]
    await home.take(prompt="x")
    await home.run(id="b", prompt="y")
    assert elapsed() == 0


@in_house(max_concurrent=1)
async def test_a_text_waits_for_no_turn(home: House) -> None:
    home.model.always = takes(100)
    user = asyncio.create_task(home.user_turn("chat:1", 100))
    await settle()
    await home.take(prompt="x")
    await home.take(id="b", prompt="x", to="chat:2")
    assert (await home.run(id="t", text="now")).state == "delivered"
    assert round(elapsed()) == 0
    await user


@in_house()
async def test_sends_to_one_chat_do_not_wait_for_another_chats(home: House) -> None:
    home.chat.always = hang
    for number in range(20):
        await home.take(id=str(number), text="x")
    assert (await home.run(id="o", to="other:1")).state == "delivered"
    assert elapsed() == 0


@in_house()
async def test_a_text_that_waits_behind_hanging_sends_is_missed_when_its_time_is_over(home: House) -> None:
    home.chat.script = [hang] * 8
    for number in range(8):
        await home.take(id=str(number), text="x")
    firing = await home.run(text="x", expires=NOON + 30)
    assert (firing.state, firing.finished_at) == ("missed", NOON + 30)


# --- Users


@in_house()
async def test_a_firing_waits_for_a_users_turn_in_its_session(home: House) -> None:
    user = asyncio.create_task(home.user_turn("chat:1", 100))
    await settle()
    await home.take(prompt="x")
    await home.take(id="b", prompt="x", to="chat:2")
    await home.outcome("a")
    assert [(round(seconds), session) for seconds, session in home.model.starts] == [
        (0, "chat:1"), (0, "chat:2"), (100, "chat:1")
    ]  # fmt: skip
    await user


@in_house()
async def test_it_waits_for_a_user_ten_minutes_at_most_and_then_starts_beside(home: House) -> None:
    user = asyncio.create_task(home.user_turn("chat:1", 5000))
    await settle()
    await home.run(prompt="x")
    assert round(elapsed()) == 600
    assert home.model.most_running == 2
    await user


@in_house(max_concurrent=1)
async def test_while_it_waits_for_a_user_it_holds_no_place(home: House) -> None:
    user = asyncio.create_task(home.user_turn("chat:1", 100))
    await settle()
    await home.take(prompt="x")
    await home.run(id="b", prompt="x", to="chat:2")
    assert round(elapsed()) == 0
    await user


@in_house()
async def test_it_never_waits_for_a_user_past_its_grace(home: House) -> None:
    user = asyncio.create_task(home.user_turn("chat:1", 5000))
    await settle()
    firing = await home.run(prompt="x", expires=NOON + 60)
    assert (firing.state, round(elapsed())) == ("missed", 60)
    assert home.model.turns == 1  # the user's
    await user


@in_house(max_concurrent=1)
async def test_a_user_who_begins_while_it_waits_for_a_place_is_waited_for_and_the_place_is_for_others(
    home: House,
) -> None:
    home.model.script = [takes(100)]
    await home.take(id="first", prompt="x", to="chat:2")
    await home.take(prompt="x")
    await asyncio.sleep(50)
    user = asyncio.create_task(home.user_turn("chat:1", 200))
    await settle()
    other = await home.run(id="other", prompt="x", to="chat:3")
    assert round(elapsed()) == 100  # the first one's place, though "a" had asked for it before
    assert other.state == "delivered"
    await home.outcome("a")
    assert [(round(seconds), session) for seconds, session in home.model.starts] == [
        (0, "chat:2"), (50, "chat:1"), (100, "chat:3"), (250, "chat:1")
    ]  # fmt: skip
    await user


@pytest.mark.parametrize("places", [1, 4])
@in_virtual_time
async def test_a_user_who_never_stops_talking_cannot_starve_a_firing(tmp_path: Path, places: int) -> None:
    async with house(tmp_path, max_concurrent=places) as home:

        async def chat() -> None:
            while True:  # a turn begins before the last one has ended
                tasks.append(asyncio.create_task(home.user_turn("chat:1", 70)))
                await asyncio.sleep(60)

        tasks: list[asyncio.Task[None]] = []
        chatter = asyncio.create_task(chat())
        await asyncio.sleep(1)
        firing = await home.run(prompt="x", attempts=1)
        assert (firing.state, round(elapsed())) == ("delivered", 601)
        assert home.model.most_running > 1
        chatter.cancel()
        await asyncio.gather(*tasks)


@in_house()
async def test_nor_can_one_whose_turn_lasts_for_hours_starve_those_that_come_more_often(home: House) -> None:
    user = asyncio.create_task(home.user_turn("chat:1", 10000))
    await settle()
    home.model.always = takes(20)
    for number in range(20):
        await home.take(id=str(number), prompt="x")
        await asyncio.sleep(120)
    firings = [await home.outcome(str(number)) for number in range(20)]
    assert {firing.state for firing in firings} == {"delivered"}
    assert {round((firing.started_at or 0) - firing.accepted_at) for firing in firings} == {600}
    await user


@in_house()
async def test_a_turn_that_a_user_began_while_a_firing_waited_for_another_is_waited_for(home: House) -> None:
    home.model.script = [takes(1000)]
    await home.take(id="first", prompt="x", timeout=2000)
    await home.take(prompt="x")
    await asyncio.sleep(990)
    user = asyncio.create_task(home.user_turn("chat:1", 100))
    firing = await home.outcome("a")
    assert firing.started_at is not None
    assert round(firing.started_at - NOON) == 1090
    await user


@in_house(max_concurrent=1)
async def test_nor_can_one_who_pauses_while_all_places_are_taken(home: House) -> None:
    async def chat() -> None:
        while True:
            await home.user_turn("chat:1", 40)
            await asyncio.sleep(0.001)

    async def keep_busy() -> None:
        home.model.always = takes(30)
        for number in range(1000):
            await home.run(id=str(number), prompt="x", to="chat:2")

    others = [asyncio.create_task(chat()), asyncio.create_task(keep_busy())]
    await asyncio.sleep(1)
    firing = await home.run(prompt="x")
    assert firing.state == "delivered"
    assert firing.started_at is not None
    assert 600 <= firing.started_at - firing.accepted_at <= 630  # and then one turn of the other, at most
    for other in others:
        other.cancel()
    await asyncio.wait(others)


@in_house(max_concurrent=2)
async def test_a_turn_of_ten_minutes_delays_another_sessions_start_by_less_than_a_second(home: House) -> None:
    home.model.script = [takes(600)]
    await home.take(id="slow", prompt="x", to="chat:1", timeout=700)
    user = asyncio.create_task(home.user_turn("chat:9", 600))
    for number in range(10):
        await asyncio.sleep(30)
        came = elapsed()
        firing = await home.run(id=f"n{number}", prompt="x", to=f"chat:2{number}")
        assert firing.state == "delivered"
        assert home.model.starts[-1][0] - came < 1
    assert (await home.outcome("slow")).state == "delivered"
    await user


# --- Too late


@in_house()
async def test_a_firing_that_waits_for_its_session_is_missed_promptly_when_its_time_is_over(home: House) -> None:
    home.model.script = [takes(500)]
    await home.take(id="first", prompt="x")
    firing = await home.run(prompt="x", expires=NOON + 60)
    assert (firing.state, firing.finished_at, firing.attempts) == ("missed", NOON + 60, 0)
    assert "too late" in (firing.error or "")
    assert (await home.outcome("first")).state == "delivered"


@in_house(max_concurrent=1)
async def test_a_firing_that_waits_for_a_place_is_missed_promptly_when_its_time_is_over(home: House) -> None:
    home.model.script = [takes(500)]
    await home.take(id="first", prompt="x", to="chat:2")
    firing = await home.run(prompt="x", expires=NOON + 60)
    assert (firing.state, firing.finished_at) == ("missed", NOON + 60)


@in_house(max_concurrent=1)
async def test_what_it_waited_for_is_free_again_after_it_was_missed(home: House) -> None:
    home.model.script = [takes(100)]
    await home.take(id="first", prompt="x")
    await home.take(id="late", prompt="x", expires=NOON + 60)
    firing = await home.run(id="next", prompt="x")
    assert (firing.state, firing.finished_at) == ("delivered", NOON + 100)


@in_house()
async def test_a_retry_that_comes_too_late_is_failed_with_the_attempts_own_error(home: House) -> None:
    home.model.script = [breaks(RuntimeError("the real reason")), takes(500)]
    await home.take(prompt="x", expires=NOON + 100)
    await settle()
    await home.take(id="b", prompt="y")
    firing = await home.outcome("a")
    assert (firing.state, firing.finished_at) == ("failed", NOON + 100)
    assert "the real reason" in (firing.error or "")


@pytest.mark.parametrize("kind", ["prompt", "text"])
@in_virtual_time
async def test_what_expired_while_the_gateway_was_away_is_missed(tmp_path: Path, kind: str) -> None:
    async with open_inbox(tmp_path) as inbox:
        await inbox.take_in(request(expires=NOON + 10, **{kind: "x"}), NOON)
    async with house(tmp_path, recover=True, begin=False) as home:
        await asyncio.sleep(11)
        home.runner.begin()
        firing = await home.outcome("a")
        assert (firing.state, firing.attempts, firing.sends) == ("missed", 0, 0)
        assert home.model.turns == 0
        assert home.chat.begun == []


@in_virtual_time
async def test_a_kept_reply_is_sent_after_its_grace_all_the_same(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        await inbox.put("kept", expires=NOON + 1)
    async with house(tmp_path, recover=True, begin=False) as home:
        await asyncio.sleep(HOUR - 1)
        home.runner.begin()
        assert (await home.outcome("a")).state == "delivered"
        assert (home.chat.texts, home.model.turns) == (["the reply"], 0)


# --- Before the beginning


@in_house(begin=False)
async def test_nothing_starts_before_begin(home: House) -> None:
    await home.take(text="x")
    await home.take(id="b", prompt="x")
    await home.take(id="c", text="x", to="nosuch:1")
    await asyncio.sleep(100)
    assert [(await home.get(firing_id)).state for firing_id in "abc"] == ["accepted"] * 3
    assert (home.chat.begun, home.model.turns) == ([], 0)
    assert (home.runner.waiting, home.runner.running) == (3, 0)
    home.runner.begin()
    assert [(await home.outcome(firing_id)).state for firing_id in "abc"] == [
        "delivered", "delivered", "undelivered"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "fields", "outcome", "reason", "seconds"),
    [
        ("accepted", {"text": "x"}, "missed", "late", HOUR),
        ("accepted", {"prompt": "x"}, "missed", "late", HOUR),
        ("retrying", {"prompt": "x"}, "failed", "attempts", HOUR),
        ("kept", {"expires": NOON + 1}, "undelivered", "refused", HOUR),
    ],
)
@in_virtual_time
async def test_what_cannot_start_in_time_ends_and_the_caller_hears_of_it(
    tmp_path: Path, state: str, fields: dict[str, Any], outcome: str, reason: str, seconds: float
) -> None:
    """Another plugin swallowed our sentinel, or a channel's start() never returns."""
    async with open_inbox(tmp_path) as inbox:
        await inbox.put(state, **fields)
    async with house(tmp_path, recover=True, begin=False) as home:
        firing = await home.outcome("a")
        assert (firing.state, firing.reason, firing.finished_at) == (outcome, reason, NOON + seconds)


@in_house()
async def test_the_counts_of_what_runs_and_waits(home: House) -> None:
    home.model.always = takes(100)
    home.chat.script = [hang]
    await home.take(id="turn", prompt="x")
    await home.take(id="behind", prompt="x")
    await home.take(id="send", text="x")
    await asyncio.sleep(1)
    assert (home.runner.running, home.runner.waiting) == (2, 1)
    await home.outcome("behind")
    await home.outcome("send")
    await settle()
    assert (home.runner.running, home.runner.waiting) == (0, 0)


@in_house()
async def test_several_may_wait_for_one_outcome_and_one_that_leaves_takes_it_from_nobody(home: House) -> None:
    home.model.always = takes(10)
    await home.take(prompt="x")
    waiting = [asyncio.create_task(home.outcome("a")) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    assert (await waiting[1]).state == (await waiting[2]).state == "delivered"
    assert (await home.outcome("a")).state == "delivered"  # and who asks afterwards is told, too


# --- Stops


async def after_stop(path: Path, seconds: float, start: Callable[[House], Awaitable[Any]]) -> Firing:
    """Run for so many seconds, stop, and return what is on disk."""
    async with house(path) as home:
        await start(home)
        await asyncio.sleep(seconds)
    async with open_inbox(path) as inbox:
        firing = await inbox.get("a")
        assert firing is not None
        return firing


async def lasts_12_s() -> None:
    await asyncio.sleep(12)


async def refused_after_11_s() -> None:
    await asyncio.sleep(11)
    raise NO


IN_TURN, IN_SEND = (
    "the gateway stopped in the middle of the turn",
    "the gateway stopped while the message was on its way",
)
STOPS: list[tuple[dict[str, Any], Any, str, int, int, str | None]] = [
    # what is asked, what its send does; what the stop after 10 s leaves: state, attempts, sends, error
    ({"prompt": "x", "to": "chat:busy"}, None, "accepted", 0, 0, None),
    ({"prompt": "x", "attempts": 1}, None, "accepted", 0, 0, None),
    ({"prompt": "x", "reply": "agent"}, None, "retrying", 1, 0, IN_TURN),
    ({"prompt": "x", "reply": "agent", "attempts": 1}, None, "unknown", 1, 0, IN_TURN),
    ({"command": ",slow"}, None, "unknown", 1, 0, IN_TURN),
    ({"text": "x"}, lasts_12_s, "delivered", 0, 1, None),
    ({"text": "x"}, hang, "unknown", 0, 1, IN_SEND),
    ({"text": "x"}, NO, "retrying", 0, 1, "chat's send() raised ConnectionRefusedError: nobody there"),
    ({"text": "x"}, refused_after_11_s, "retrying", 0, 1, "chat's send() raised ConnectionRefusedError: nobody there"),
]


@pytest.mark.parametrize(("fields", "send", "state", "attempts", "sends", "error"), STOPS)
@in_virtual_time
async def test_what_a_stop_leaves(
    tmp_path: Path, commands: Commands, fields: dict[str, Any], send: Any, state: str, attempts: int, sends: int,
    error: str | None,
) -> None:  # fmt: skip
    async def start(home: House) -> None:
        home.model.always, home.chat.always = takes(100), send
        await home.take(id="busy", prompt="x", to="chat:busy")
        await home.take(**fields)

    firing = await after_stop(tmp_path, 10, start)
    assert (firing.state, firing.attempts, firing.sends, firing.error) == (state, attempts, sends, error)


@in_virtual_time
async def test_a_stop_before_the_beginning_leaves_it_accepted(tmp_path: Path) -> None:
    async with house(tmp_path, begin=False) as home:
        await home.take(prompt="x")
    async with house(tmp_path, recover=True) as home:
        assert (await home.outcome("a")).state == "delivered"


@in_virtual_time
async def test_a_stop_in_a_prompts_turn_puts_it_back_and_counts_no_attempt(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.model.always = takes(100)
        await home.take(prompt="x", attempts=1)
        await asyncio.sleep(50)
    async with house(tmp_path, recover=True) as home:
        before = await home.get()
        assert (before.state, before.attempts, before.not_before) == ("accepted", 0, None)
        firing = await home.outcome("a")
        assert (firing.state, firing.attempts, home.chat.texts) == ("delivered", 1, ["the reply"])


@in_virtual_time
async def test_a_stop_while_the_start_of_a_turn_is_being_written_puts_it_back(
    tmp_path: Path, commands: Commands
) -> None:
    async with house(tmp_path, begin=False) as home:
        await home.take(command=",slow")
        async with home.inbox.thread_held():
            home.runner.begin()
            for _ in range(10):
                await asyncio.sleep(0)  # now the start is asked for
            stopping = asyncio.create_task(home.runner.stop())
            for _ in range(5):
                await asyncio.sleep(0)
        await stopping
        firing = await home.get()
        assert (firing.state, firing.attempts, commands.run) == ("accepted", 0, [])


@in_virtual_time
async def test_a_stop_takes_a_few_seconds_at_most_whatever_runs(tmp_path: Path) -> None:
    async def play(prompt: str) -> Any:
        await stubborn()
        for event in step("never"):
            yield event

    async with house(tmp_path) as home:
        home.model.always = play
        home.chat.always = stubborn
        await home.take(id="t", text="x")
        await home.take(id="p", prompt="x")
        await home.take(id="g", prompt="x", to="chat:2", reply="agent", attempts=1)
        await asyncio.sleep(10)
        before = elapsed()
        await home.runner.stop()
        assert elapsed() - before <= 10
        assert [(await home.get(firing_id)).state for firing_id in "tpg"] == ["unknown", "accepted", "unknown"]


@in_virtual_time
async def test_nothing_is_taken_after_the_stop_but_it_stays_in_the_inbox(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.runner.stop()
        await home.take(text="x")
        await asyncio.sleep(10)
        assert (await home.get()).state == "accepted"
        assert home.chat.begun == []


@in_virtual_time
async def test_whoever_waits_for_a_outcome_is_let_go_by_the_stop(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.model.always = takes(100)
        waiting = asyncio.create_task(home.run(prompt="x"))
        await asyncio.sleep(1)
        await home.runner.stop()
        await asyncio.wait({waiting})
        assert waiting.cancelled()


# --- Bub's router unbound: the window before the stop


@in_virtual_time
async def test_a_turn_that_ends_after_the_router_was_unbound_keeps_its_reply_for_the_next_start(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.model.always = takes(10)
        await home.take(prompt="x")
        await asyncio.sleep(5)
        home.framework.bind_channel_router(None)
        await asyncio.sleep(10)
        firing = await home.get()
        assert (firing.state, firing.reply, firing.sends, firing.attempts) == ("accepted", "done", 0, 1)
        assert home.chat.begun == []
    async with house(tmp_path, recover=True) as home:
        assert (await home.outcome("a")).state == "delivered"
        assert (home.chat.texts, home.model.turns) == (["done"], 0)


@in_virtual_time
async def test_a_prompt_that_starts_after_the_router_was_unbound_is_put_back(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.framework.bind_channel_router(None)
        await home.take(prompt="x", attempts=1)
        await asyncio.sleep(5)
        await home.runner.stop()
        firing = await home.get()
        assert (firing.state, firing.attempts) == ("accepted", 0)
    async with house(tmp_path, recover=True) as home:
        assert (await home.outcome("a")).state == "delivered"


@in_virtual_time
async def test_a_text_whose_send_met_no_router_has_not_been_sent(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.framework.bind_channel_router(None)
        await home.take(text="x")
        await asyncio.sleep(5)
        firing = await home.get()
        assert (firing.state, firing.sends, firing.messages[0].state) == ("accepted", 0, "waiting")
    async with house(tmp_path, recover=True) as home:
        firing = await home.outcome("a")
        assert (firing.state, firing.sends, home.chat.texts) == ("delivered", 1, ["x"])


@pytest.mark.parametrize("starts_before", [True, False])
@in_virtual_time
async def test_a_command_that_ends_after_the_router_was_unbound_is_not_run_twice(
    tmp_path: Path, commands: Commands, starts_before: bool
) -> None:
    """Bub runs a command before it asks the router for anything, so the router is often gone when it ends."""
    async with house(tmp_path) as home:
        if not starts_before:
            home.framework.bind_channel_router(None)
        await home.take(command=",slow")
        await asyncio.sleep(30)
        home.framework.bind_channel_router(None)
        await asyncio.sleep(60)
    async with house(tmp_path, recover=True) as home:
        await home.outcome("a")
        assert commands.run == ["slow"]


@in_virtual_time
async def test_an_agents_turn_that_ran_while_the_router_was_unbound_counts(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.framework.bind_channel_router(None)
        await home.take(prompt="x", reply="agent", attempts=1)
        await asyncio.sleep(5)
        assert home.model.turns == 1
        assert (await home.get()).state == "ran"


# --- A clock that was ahead


@in_virtual_time
async def test_a_retry_that_a_clock_a_day_ahead_put_off_is_not_waited_for_for_a_day(tmp_path: Path) -> None:
    day = 86400
    async with open_inbox(tmp_path) as inbox:
        firing = await inbox.put("running", expires=NOON + 2 * day)
        await inbox.move(firing, "retry", NOON, error="it broke", not_before=NOON + day + 30)
    async with house(tmp_path, recover=True) as home:
        assert (await home.outcome("a")).state == "delivered"
        assert elapsed() == 0


# --- Crashes


@in_virtual_time
async def test_a_failure_settled_at_the_start_after_a_crash_is_a_outcome(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        await inbox.put("running", attempts=1, reminder="r")
    async with house(tmp_path, recover=True) as home:
        assert (await home.outcome("a")).state == "failed"
        assert home.model.turns == 0


@in_virtual_time
async def test_a_turn_that_acts_by_itself_and_was_lost_is_unknown_when_it_is_too_late_to_start_again(
    tmp_path: Path,
) -> None:
    async with open_inbox(tmp_path) as inbox:
        await inbox.put("running", reply="agent", reminder="r", expires=NOON + 10)
    async with house(tmp_path, recover=True) as home:
        assert (await home.outcome("a")).state == "unknown"
        assert home.model.turns == 0


@in_virtual_time
async def test_the_chat_hears_of_a_failure_that_is_settled_at_the_start_after_a_crash(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        await inbox.put("running", attempts=1, reminder="r")
    async with house(tmp_path, recover=True) as home:
        home.model.always = breaks(RuntimeError("no"))
        await home.run(id="b", prompt="x", attempts=1, reminder="r", overlap="queue")
        await settle()
        assert len(home.chat.texts) == 1


@in_virtual_time
async def test_a_crash_in_a_turn_is_a_failed_attempt_that_is_tried_again(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        await inbox.put("running")
    async with house(tmp_path, recover=True) as home:
        firing = await home.outcome("a")
        assert (firing.state, firing.attempts, firing.finished_at) == ("delivered", 2, NOON + 30)


# --- The notice of a failure


@in_house()
async def test_the_chat_hears_of_a_failure_once_in_one_sentence_that_names_the_reminder(home: House) -> None:
    home.model.always = breaks(RuntimeError("no model"))
    for number in range(3):
        await home.run(id=str(number), prompt="x", reminder="standup", attempts=2, overlap="queue")
        await settle()
        assert home.chat.texts == ["The reminder standup failed: RuntimeError: no model."]
    home.model.always = says("fine")
    await home.run(id="good", prompt="x", reminder="standup")
    home.model.always = breaks(RuntimeError("again"))
    await home.run(id="bad", prompt="x", reminder="standup", attempts=1)
    await settle()
    assert home.chat.texts[1:] == ["fine", "The reminder standup failed: RuntimeError: again."]


@in_house()
async def test_it_hears_of_it_only_after_the_last_attempt(home: House) -> None:
    home.model.script = [breaks(RuntimeError("no")), breaks(RuntimeError("no"))]
    await home.run(prompt="x", reminder="r")
    await settle()
    assert home.chat.texts == ["the reply"]


@in_house()
async def test_a_poke_that_fails_tells_its_caller_and_not_the_chat(home: House) -> None:
    home.model.always = breaks(RuntimeError("no"))
    await home.run(prompt="x", attempts=1)
    await settle()
    assert home.chat.begun == []


@in_house()
async def test_a_notice_that_was_refused_is_made_up_for_at_the_next_failure(home: House) -> None:
    """The network is often down for the model and for the chat at once."""
    home.model.always = breaks(RuntimeError("no"))
    home.chat.script = [ConnectionRefusedError("no network")]
    await home.run(id="1", prompt="x", reminder="r", attempts=1)
    await asyncio.sleep(HOUR)
    await home.run(id="2", prompt="x", reminder="r", attempts=1)
    await settle()
    assert len(home.chat.texts) == 1


@in_virtual_time
async def test_a_notice_that_hangs_holds_up_neither_outcome_nor_stop(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.model.always = breaks(RuntimeError("no"))
        home.chat.always = hang
        firing = await home.run(prompt="x", reminder="r", attempts=1)
        assert (firing.state, elapsed()) == ("failed", 0)
        await home.runner.stop()
    assert elapsed() == 0


@in_house()
async def test_a_notice_is_tried_again_as_any_text_is(home: House) -> None:
    home.model.always = breaks(RuntimeError("no"))
    home.chat.script = [ConnectionRefusedError("no network")] * 4
    await home.run(prompt="x", reminder="r", attempts=1)
    await asyncio.sleep(HOUR)
    assert [seconds for seconds, _ in home.chat.begun] == [0, 30, 60, 180, 480]
    assert len(home.chat.texts) == 1
    assert (await home.get()).state == "failed"


@in_virtual_time
async def test_a_notice_that_a_stop_fell_into_is_sent_by_the_next_gateway(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.model.always = breaks(RuntimeError("no"))
        home.chat.script = [ConnectionRefusedError("no network")]
        await home.run(prompt="x", reminder="r", attempts=1)
        await settle()
    async with house(tmp_path, recover=True) as home:
        await asyncio.sleep(60)
        assert home.chat.texts == ["The reminder r failed: RuntimeError: no."]
        assert home.runner.waiting == 0


@in_house()
async def test_a_notice_whose_end_was_not_seen_is_not_repeated_nor_made_up_for(home: House) -> None:
    home.model.always = breaks(RuntimeError("no"))
    home.chat.script = [hang]
    for number in range(3):
        await home.run(id=str(number), prompt="x", reminder="r", attempts=1, overlap="queue")
        await asyncio.sleep(HOUR)
    assert len(home.chat.begun) == 1


# --- A bad disk


def mend_after(inbox: FakeClockInbox, seconds: float) -> asyncio.Task[None]:
    async def mend() -> None:
        await asyncio.sleep(seconds)
        await inbox.mend_disk()

    return asyncio.create_task(mend())


@in_house(begin=False)
async def test_a_step_that_the_disk_refuses_is_repeated_until_it_is_written(home: House) -> None:
    await home.take(prompt="x")
    await home.inbox.break_disk()
    mending = mend_after(home.inbox, 100)
    home.runner.begin()
    firing = await home.outcome("a")
    assert (firing.state, firing.attempts, firing.sends) == ("delivered", 1, 1)
    assert 100 <= elapsed() <= 165
    await mending


@in_house()
async def test_a_reply_is_not_sent_before_it_could_be_kept(home: House) -> None:
    home.model.always = takes(10)
    await home.take(prompt="x")
    await asyncio.sleep(5)
    await home.inbox.break_disk()
    await asyncio.sleep(1000)
    assert home.chat.begun == []
    await home.inbox.mend_disk()
    await home.outcome("a")
    assert (home.chat.texts, home.model.turns) == (["done"], 1)


@in_house()
async def test_what_was_sent_is_not_sent_again_because_the_disk_refused_the_outcome(home: House) -> None:
    async def then_the_disk_breaks() -> None:
        await home.inbox.break_disk()

    home.chat.script = [then_the_disk_breaks]
    await home.take(text="x")
    await asyncio.sleep(300)
    assert (await home.get()).state == "running"
    await home.inbox.mend_disk()
    assert (await home.outcome("a")).state == "delivered"
    assert home.chat.texts == ["x"]


@in_virtual_time
async def test_a_stop_while_the_disk_refuses_ends_and_leaves_what_a_crash_would(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.model.always = takes(100)
        await home.take(prompt="x")
        await asyncio.sleep(5)
        await home.inbox.break_disk()
        before = elapsed()
        await home.runner.stop()
        assert elapsed() - before <= 10
        assert (await home.get()).state == "running"


@in_virtual_time
async def test_a_text_that_was_never_sent_is_put_back_when_the_stop_falls_into_the_beginning_of_its_send(
    tmp_path: Path,
) -> None:
    """The disk stalls while the beginning of the send is being written."""
    async with house(tmp_path, begin=False) as home:
        await home.take(text="x")
        async with home.inbox.thread_held():
            home.runner.begin()
            for _ in range(10):
                await asyncio.sleep(0)  # now the beginning of the send is asked for
            stopping = asyncio.create_task(home.runner.stop())
            for _ in range(5):
                await asyncio.sleep(0)
        await stopping
        firing = await home.get()
        assert (firing.state, firing.sends, home.chat.begun) == ("accepted", 0, [])


# --- Faults of ours, and of others


class Panic(BaseException):
    """No Exception: what a pyo3 panic is."""


BAD_ENDS = [
    Panic("boom"),
    BaseExceptionGroup("both", [Panic("a"), ValueError("b")]),
    SystemExit(3),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", BAD_ENDS, ids=lambda error: type(error).__name__)
@in_house()
async def test_a_turn_may_end_in_whatever_can_be_raised(home: House, error: BaseException) -> None:
    home.model.script = [breaks(error)]
    firing = await home.run(prompt="x")
    assert (firing.state, firing.attempts) == ("delivered", 2)


@pytest.mark.parametrize("error", BAD_ENDS, ids=lambda error: type(error).__name__)
@in_house()
async def test_a_send_may_end_in_whatever_can_be_raised(home: House, error: BaseException) -> None:
    async def bad() -> None:
        raise error

    home.chat.script = [bad]
    firing = await home.run(text="x", reminder="r")
    assert (firing.state, firing.reason, firing.sends) == ("unknown", "not_seen", 1)
    assert (await home.run(id="b", text="x", reminder="r")).state == "delivered"


@pytest.mark.parametrize("stops", [True, False])
@in_virtual_time
async def test_a_notice_that_falls_into_a_stop_is_sent_by_the_next_start(tmp_path: Path, stops: bool) -> None:
    """Or a minute later, where no stop follows."""
    async with house(tmp_path) as home:
        home.model.always = breaks(RuntimeError("no"))
        router, home.framework._channel_router = home.framework._channel_router, None
        assert (await home.run(prompt="x", reminder="r", attempts=1)).state == "failed"
        await asyncio.sleep(10)
        assert home.chat.begun == []
        if not stops:
            home.framework._channel_router = router
            await asyncio.sleep(60)
            assert home.chat.texts == ["The reminder r failed: RuntimeError: no."]
    if stops:
        async with house(tmp_path, recover=True) as home:
            await asyncio.sleep(1)
            assert home.chat.texts == ["The reminder r failed: RuntimeError: no."]


@in_house()
async def test_at_least_once_sends_again_what_was_not_seen_while_the_grace_lasts(home: House) -> None:
    home.chat.script = [ReadTimeout("no answer")]
    firing = await home.run(text="x", delivery="at-least-once")
    assert (firing.state, firing.sends) == ("delivered", 2)
    home.chat.always = ReadTimeout("no answer")
    firing = await home.run(id="b", text="x", delivery="at-least-once", expires=now() + 100)
    assert (firing.state, firing.reason, firing.sends) == ("unknown", "not_seen", 3)


@in_house()
async def test_what_was_not_seen_once_stays_unknown_if_its_repetition_is_refused(home: House) -> None:
    gone = ConnectionRefusedError("nobody there")
    home.chat.script = [ReadTimeout("no answer"), gone, telegram.error.Forbidden("bot was blocked by the user")]
    firing = await home.run(text="x", delivery="at-least-once")
    assert (firing.state, firing.reason, firing.sends) == ("unknown", "not_seen", 3)
    assert firing.error is not None
    assert "blocked" in firing.error
    home.chat.script = [ReadTimeout("no answer"), gone]
    assert (await home.run(id="b", text="x", delivery="at-least-once")).state == "delivered"
    assert [(message.state, message.reason) for message in (await home.get("b")).messages] == [("delivered", None)]


@in_virtual_time
async def test_a_firing_that_ends_leaves_no_message_waiting(tmp_path: Path) -> None:
    """Its channel is gone at the next start, after a refused send, or after one that was not seen."""
    async with house(tmp_path) as home:
        home.chat.script = [ConnectionRefusedError("nobody there"), ReadTimeout("no answer")]
        for each in ("refused", "not seen"):
            await home.take(id=each.replace(" ", "-"), text="x", delivery="at-least-once")
            await asyncio.sleep(1)
    async with house(tmp_path, recover=True, begin=False) as home:
        refused, not_seen = await home.outcome("refused"), await home.outcome("not-seen")
        assert (refused.state, [message.state for message in refused.messages]) == ("undelivered", ["undelivered"])
        assert (not_seen.state, [message.state for message in not_seen.messages]) == ("unknown", ["unknown"])


@in_virtual_time
async def test_at_least_once_is_sent_again_after_a_stop_in_the_middle_of_the_send(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.chat.always = hang
        await home.take(text="x", delivery="at-least-once")
        await asyncio.sleep(5)
    async with house(tmp_path, recover=True) as home:
        assert (await home.outcome("a")).state == "delivered"
        assert home.chat.texts == ["x"]


@in_house()
async def test_a_turn_whose_output_another_plugin_moved_away_is_unknown_and_not_repeated(home: House) -> None:
    class Mover:
        @hookimpl
        async def build_prompt(self, message: Any, session_id: str, state: dict[str, Any]) -> str:
            message.output_channel = "other"
            return str(message.content)

    home.framework.plugin_manager.register(Mover(), name="mover")
    firing = await home.run(prompt="x")
    assert (firing.state, firing.reason, firing.attempts) == ("unknown", "moved", 1)
    await asyncio.sleep(HOUR)
    assert home.model.turns == 1
    assert home.chat.texts == []


@in_house()
async def test_where_the_router_is_unbound_and_no_stop_follows_it_still_ends(home: House) -> None:
    home.framework.bind_channel_router(None)
    turn = await home.run(prompt="x")
    assert (turn.state, turn.reason, turn.finished_at) == ("unknown", "moved", NOON + 60)
    send = await home.run(id="b", text="x", expires=now() + 100)
    assert (send.state, send.reason, send.sends) == ("undelivered", "refused", 0)


@in_house()
async def test_a_firing_whose_row_was_lost_in_the_turn_ends_with_its_reply(home: House) -> None:
    home.model.always = takes(10)
    await home.take(prompt="x")
    await asyncio.sleep(5)
    await home.inbox.sql("DELETE FROM firings")
    firing = await home.outcome("a")
    assert (firing.state, firing.reply, home.chat.texts) == ("delivered", "done", ["done"])
    assert await home.get() == firing


@in_house(begin=False, max_waiting=3)
async def test_no_more_are_taken_than_may_wait(home: House) -> None:
    await home.take(text="x")
    accepted = await home.runner.accept([request(id=str(number), text="x") for number in range(5)])
    assert [type(found) for found in accepted] == [Firing, Firing, FullError, FullError, FullError]
    home.runner.begin()
    await home.outcome("1")
    await settle()
    assert await home.take(id="next", text="x") == "next"


@in_house(max_waiting=3)
async def test_a_monitor_that_hangs_keeps_no_firing_out(home: House) -> None:
    async def hang(url: str, body: str) -> None:
        await asyncio.sleep(10)
        raise TimeoutError

    home.runner._sends._post = hang
    for number in range(6):
        await home.run(id=str(number), text="x", ping="http://x/y")
    # Nor is their number without end.
    with pytest.raises(FullError):
        await home.take(text="x")
    await asyncio.sleep(60)
    assert await home.take(text="x") == "a"


@in_virtual_time
async def test_those_that_ended_unreadable_take_no_room(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        await inbox.put("accepted")
        await inbox.sql("UPDATE firings SET request = 'no JSON'")
    async with house(tmp_path, recover=True, max_waiting=1) as home:
        assert await home.take(id="b", text="x") == "b"


@in_house()
async def test_a_flood_of_firings_to_no_channel_is_bounded_in_the_log(home: House) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    await home.runner.accept([request(id=str(number), to="nosuch:1", text="x") for number in range(300)])
    await asyncio.sleep(59)
    assert home.runner.waiting == 0
    assert len(lines) == 121, "with one for all that were accepted"
    await asyncio.sleep(10)
    await home.run(id="later", text="x")
    logger.remove(sink)
    assert lines[-2] == "cron.log: 180 more lines were left out"


@in_house()
async def test_what_arrives_while_the_caller_leaves_is_driven_all_the_same(home: House) -> None:
    async with home.inbox.thread_held():
        accepting = asyncio.create_task(home.runner.accept([request(text="x")]))
        await asyncio.sleep(0)
        accepting.cancel()
        await asyncio.wait({accepting})
    await asyncio.sleep(1)
    assert (await home.get()).state == "delivered"


@in_house()
async def test_a_fault_of_ours_still_ends_in_a_outcome(home: House) -> None:
    def broken(to: str) -> str | None:
        raise LookupError("a bug")

    home.delivery.refusal = broken  # type: ignore[method-assign]
    firing = await home.run(text="x")
    assert (firing.state, firing.error) == ("failed", "a fault of bub-cron: LookupError: a bug")


@in_virtual_time
async def test_a_text_that_ended_in_a_fault_of_ours_is_told_by_the_next_gateway_and_not_sent(tmp_path: Path) -> None:
    def broken(to: str) -> str | None:
        raise LookupError("a bug")

    async with house(tmp_path) as home:
        home.delivery.refusal = broken  # type: ignore[method-assign]
        assert (await home.run(text="x", reminder="r")).state == "failed"
    async with house(tmp_path, recover=True) as home:
        await asyncio.sleep(1)
        assert home.chat.texts == ["The reminder r failed: a fault of bub-cron: LookupError: a bug."]


@in_house()
async def test_a_fault_of_ours_in_the_middle_of_a_send_is_told_as_it_ended(home: House) -> None:
    move = home.inbox.move_message

    async def broken(firing: Firing, message: Any, event: str, *rest: Any, **changes: Any) -> Firing:
        if event == "deliver":
            raise LookupError("a bug")
        return await move(firing, message, event, *rest, **changes)

    home.inbox.move_message = broken  # type: ignore[method-assign]
    firing = await home.run(text="x")
    assert (firing.state, firing.reason, firing.error) == (
        "unknown",
        "fault",
        "a fault of bub-cron: LookupError: a bug",
    )


@in_house()
async def test_a_reply_with_half_a_surrogate_pair_arrives_as_well_as_it_can(home: House) -> None:
    """Model servers escape JSON and cut streams anywhere, also within an emoji."""
    home.model.always = says("wake up \ud83d")
    firing = await home.run(prompt="x")
    assert firing.state == "delivered"
    assert home.chat.texts[0].startswith("wake up ")


@in_house()
async def test_an_error_with_half_a_surrogate_pair_is_an_error_like_others(home: House) -> None:
    home.model.script = [breaks(RuntimeError("bad emoji \ud83d"))]
    firing = await home.run(prompt="x")
    assert (firing.state, firing.attempts) == ("delivered", 2)


@pytest.mark.parametrize(
    ("fields", "text"), [({"quiet": True}, "<no_reply/>"), ({"reply": "agent"}, "sent it"), ({}, "")]
)
@in_house()
async def test_tokens_are_kept_for_every_turn_that_took_some(home: House, fields: dict[str, Any], text: str) -> None:
    home.model.always = says(text, tokens=123)
    await home.run(prompt="x", **fields)
    assert await home.inbox.column("a", "tokens") == 123


@in_house()
async def test_the_tokens_of_failed_attempts_count(home: House) -> None:
    home.model.script = [plays(*step("half", tokens=5), error_event("broke"))]
    home.model.always = says("fine", tokens=7)
    await home.run(prompt="x")
    assert await home.inbox.column("a", "tokens") == 12


@in_house()
async def test_tokens_of_a_delivered_reply_are_kept(home: House) -> None:
    home.model.always = plays(*step("a", tokens=5, tools=True), *step("b", tokens=7))
    await home.run(prompt="x")
    assert await home.inbox.column("a", "tokens") == 12
    assert home.chat.texts == ["b"]


@in_house()
async def test_many_firings_at_once_all_end_and_each_is_sent_once(home: House) -> None:
    for number in range(200):
        await home.take(id=str(number), prompt=f"{number}", to=f"chat:{number % 7}")
    firings = [await home.outcome(str(number)) for number in range(200)]
    assert {firing.state for firing in firings} == {"delivered"}
    assert len(home.chat.taken) == 200
    assert home.model.most_running <= 4


@in_house()
async def test_a_users_message_during_a_firing_runs_beside_it(home: House) -> None:
    home.model.script = [takes(100)]
    await home.take(prompt="x")
    await asyncio.sleep(1)
    await home.framework.process_inbound(ChannelMessage("chat:1", "chat", "hi", chat_id="1"))
    assert elapsed() == 1
    assert now() == NOON + 1
    await home.outcome("a")
