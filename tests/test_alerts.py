"""alerts: who is told what, and that no secret is in it."""

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import telegram.error
from fake_bub import (
    NOON,
    House,
    breaks,
    completion,
    house,
    in_house,
    in_virtual_time,
    now,
    open_inbox,
    real_loop,
    says,
    settle,
)
from fake_bub import request as asked_for

from bub_cron.alerts import sentence, target, without_secrets
from bub_cron.gateway.firing import Firing
from bub_cron.gateway.limits import period_start
from bub_cron.states import BAD, FAILED, FINAL
from bub_cron.wire import Request


def request(**fields: Any) -> Request:
    given = {"to": "t:1", "prompt": "hi", "id": "pills@2026-12-01T08:00:00Z", "reminder": "pills", **fields}
    return Request(given, new_id=lambda: "a", now=0)


@pytest.mark.parametrize("outcome", sorted(FINAL))
def test_who_is_told(outcome: str) -> None:
    bad = outcome in BAD
    assert target(request(alert="t:99"), outcome) == (("alert", "t:99") if bad else None)
    assert target(request(alert="none"), outcome) is None
    assert target(request(), outcome) == (("notice", "t:1") if outcome == FAILED else None)
    assert target(request(reminder=None, alert="t:99"), outcome) is None


def test_a_sentence_says_what_when_why_and_where_to_look() -> None:
    fire_time = "2026-12-01T08:00:00Z"
    assert sentence(request(fire_time=fire_time, timezone="Europe/Berlin"), "missed", "late", None) == (
        "The reminder pills, due Tue 2026-12-01 09:00 Europe/Berlin, was missed: too late to start by the time it could."
        " To look: bub-cron log --id pills@2026-12-01T08:00:00Z"
    )
    assert sentence(request(), "failed", "attempts", "the model is down.") == (
        "The reminder pills failed: the model is down. To look: bub-cron log --id pills@2026-12-01T08:00:00Z"
    )
    for outcome in BAD:
        assert sentence(request(), outcome, None, None).startswith("The reminder pills ")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("Incorrect API key provided: sk-proj-abc***def. See below", "Incorrect API key provided: [...] See below"),
        ("401 for sk-ant-REDACTED", "401 for [...]"),
        ("Authorization: Bearer eyJhbGciOi.J9.x refused", "Authorization: Bearer [...] refused"),
        ("GET https://user:pass@host/x?token=1 gave 500", "GET https://[...] gave 500"),
        ("bot123456:AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc is gone", "bot123456:[...] is gone"),
        ("api_key=abc", "api_key=[...]"),
        ("OPENAI_API_KEY=abc access_token=ya29 refused", "OPENAI_API_KEY=[...] access_token=[...] refused"),
        ("""400 {'api_key': 'abc'} "client_secret":"d" """, """400 {'api_key': [...] "client_secret":[...]"""),
        ("password is wrong for postgres://bub:hunter2@db/x", "password is wrong for postgres://[...]"),
        ("proxy SOCKS5://user:pass@proxy:1080 refused", "proxy SOCKS5://[...] refused"),
        ("Authorization: Token abc123 refused", "Authorization: Token [...] refused"),
        ("{'authorization': 'abc'}", "{'authorization': '[...]"),
        ("Cookie: sid=abc; user=7", "Cookie: [...]"),
        ("SecretAccessKey: wJalrXUtnFEMI/K7MDENG", "SecretAccessKey: [...]"),
        ("403 wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "403 [...]"),
        (
            "no such file: /usr/lib/python3/dist-packages/bub/builtin/agent",
            "no such file: /usr/lib/python3/dist-packages/bub/builtin/agent",
        ),
        ("the turn did not end within 600 s", "the turn did not end within 600 s"),
        ("no such file: /home/bub/notes.txt", "no such file: /home/bub/notes.txt"),
        ("two\nlines", "two lines"),
    ],
)
def test_secrets_are_out(error: str, told: str) -> None:
    assert without_secrets(error) == told


def test_a_long_cause_is_cut() -> None:
    assert len(without_secrets("word " * 500)) == 200


# --- In the gateway

NO_CHAT = "this gateway has no channel nosuch"
ENDED: list[tuple[dict[str, Any], Any, str, str]] = [
    # what is asked, what the chat does; the outcome, what is told of it
    ({"prompt": "no"}, None, "failed", "r, due noon, failed: RuntimeError: no luck. To look: bub-cron log --id 1"),
    ({"text": "x"}, telegram.error.Forbidden("blocked"), "undelivered", "r, due noon, could not be delivered: "),
    ({"text": "x", "to": "nosuch:1"}, None, "undelivered", f"r, due noon, could not be delivered: {NO_CHAT}"),
    (
        {"text": "x"},
        RuntimeError("?"),
        "unknown",
        "r, due noon, may not have arrived: chat's send() raised RuntimeError: ?",
    ),
    ({"text": "x", "expires": NOON - 1}, None, "missed", "r, due noon, was missed: too late to start when it was"),
]


@pytest.mark.parametrize(("fields", "chat", "state", "told"), ENDED)
@in_house()
async def test_an_alert_tells_of_each_bad_outcome_once_until_it_works_again(
    home: House, fields: dict[str, Any], chat: Any, state: str, told: str
) -> None:
    ids = count(1)

    async def run(**more: Any) -> str:
        asked = {"id": str(next(ids)), "reminder": "r", "fire_time": "noon", "alert": "other:9", "attempts": 1, **more}
        firing = await home.run(**asked)
        await settle()
        return firing.state

    home.model.always = breaks(RuntimeError("no luck"))
    home.chat.always = chat
    assert [await run(**fields) for _ in range(3)] == [state] * 3
    assert len(home.other.texts) == 1
    assert told in home.other.texts[0]
    home.chat.always = None
    assert [await run(text="x") for _ in range(2)] == ["delivered"] * 2
    assert home.other.texts[1:] == ["The reminder r works again."]
    assert {message.chat_id for message in home.other.taken} == {"9"}
    home.chat.always = chat
    await run(**fields)
    assert len(home.other.texts) == 3
    assert not [text for text in home.chat.texts if text != "x"]


@pytest.mark.parametrize(("alert", "told"), [({"alert": "other:9"}, (0, 2)), ({}, (1, 0))])
@in_house()
async def test_an_alert_is_told_once_for_a_cause_and_the_own_chat_once_for_all(
    home: House, alert: dict[str, str], told: tuple[int, int]
) -> None:
    for number, answers in enumerate([breaks(RuntimeError("no luck")), says(""), breaks(RuntimeError("again"))]):
        home.model.always = answers
        await home.run(id=str(number), reminder="r", prompt="x", attempts=1, **alert)
    await settle()
    rows = await home.inbox.sql("SELECT reason FROM firings ORDER BY seq")
    assert rows == [("attempts",), ("empty",), ("attempts",)]
    assert (len(home.chat.texts), len(home.other.texts)) == told


@in_house()
async def test_each_outcome_is_told_by_itself_and_each_reminder(home: House) -> None:
    home.model.always = breaks(RuntimeError("no luck"))
    home.chat.always = RuntimeError("?")
    for number, (reminder, kind) in enumerate([("r", "prompt"), ("r", "text"), ("s", "text"), ("r", "prompt")]):
        await home.run(id=str(number), reminder=reminder, alert="other:9", attempts=1, **{kind: "x"})
    await settle()
    assert [text.partition(":")[0] for text in home.other.texts] == [
        "The reminder r failed", "The reminder r may not have arrived", "The reminder s may not have arrived",
    ]  # fmt: skip


UNTOLD: list[tuple[dict[str, Any], list[str]]] = [
    # what is asked, what its own chat hears
    ({"prompt": "x"}, ["The reminder r failed: RuntimeError: Incorrect API key provided: [...]."]),
    ({"prompt": "x", "alert": "none"}, []),
    ({"prompt": "x", "reminder": None}, []),
    ({"text": "x", "expires": NOON - 1}, []),
    ({"text": "x", "to": "nosuch:1"}, []),
]


@pytest.mark.parametrize(("fields", "texts"), UNTOLD)
@in_house()
async def test_without_an_alert_the_own_chat_hears_of_failed_alone(
    home: House, fields: dict[str, Any], texts: list[str]
) -> None:
    home.model.always = breaks(RuntimeError("Incorrect API key provided: sk-proj-0123456789abcdef"))
    asked = {key: value for key, value in {"reminder": "r", "attempts": 1, **fields}.items() if value is not None}
    for number in "12":
        await home.run(id=number, **asked)
    home.model.always = says("ok")
    await home.run(id="3", text="fine", reminder="r")
    await settle()
    assert home.chat.texts == [*texts, "fine"]


@in_house()
async def test_what_ends_at_acceptance_is_told_once_of_many_at_a_time(home: House) -> None:
    asked = [asked_for(id=number, reminder="r", alert="other:9", expires=NOON - 1) for number in "123"]
    accepted = await home.runner.accept(asked)
    assert [firing.state for firing in accepted if isinstance(firing, Firing)] == ["missed"] * 3
    await settle()
    assert len(home.other.texts) == 1


@in_house()
async def test_a_skip_is_told_to_nobody(home: House) -> None:
    assert (await home.run(text="x", reminder="r", gate="false", alert="other:9")).state == "skipped"
    await settle()
    assert home.other.texts == []


@in_house()
async def test_an_alert_is_tried_again_and_changes_nothing_nor_causes_another(home: House) -> None:
    home.other.always = ConnectionRefusedError("not now")
    firing = await home.run(text="x", to="nosuch:1", reminder="r", alert="other:9")
    assert firing.state == "undelivered"
    await asyncio.sleep(7200)
    firing = await home.get()
    assert (firing.state, firing.reason) == ("undelivered", "no_channel")
    assert [(one.kind, one.to, one.state) for one in firing.messages] == [
        ("reply", "nosuch:1", "undelivered"), ("alert", "other:9", "undelivered"),
    ]  # fmt: skip
    assert len(home.other.begun) > 3
    home.other.always = None
    await home.run(id="b", text="x", to="nosuch:1", reminder="r", alert="other:9")
    await settle()
    assert len(home.other.texts) == 1  # the first one never arrived


@in_house()
async def test_the_context_of_the_reminders_chat_does_not_go_to_another(home: House) -> None:
    home.chat.script = [RuntimeError("?")]
    await home.run(text="x", reminder="r", alert="other:9", context={"thread_id": "7"})
    await settle()
    assert "thread_id" not in home.other.taken[0].context


@in_virtual_time
async def test_an_alert_that_is_due_survives_a_kill(tmp_path: Path) -> None:
    async with open_inbox(tmp_path) as inbox:
        firing = await inbox.put("accepted", reminder="r", alert="other:9")
        await inbox.move(firing, "fail", NOON, reason="attempts", error="no luck")
    async with house(tmp_path, recover=True) as home:
        await settle()
        assert home.other.texts == ["The reminder r failed: no luck. To look: bub-cron log --id a"]
    async with house(tmp_path, recover=True) as home:
        await settle()
        assert home.other.texts == []


@in_house()
async def test_an_alert_from_a_clock_that_was_ahead_is_followed_up_once(home: House) -> None:
    async def run(number: int, to: str) -> None:
        await home.run(id=str(number), text="x", to=to, reminder="r", alert="other:9")
        await settle()

    failed = await home.inbox.put("accepted", "z", reminder="r", alert="other:9")
    await home.inbox.move(failed, "fail", NOON + 300 * 86400, reason="attempts", error="no luck")
    for number in range(3):
        await run(number, "chat:1")
    works = "The reminder r works again."
    assert home.other.texts == [works]
    for number in range(3, 6):
        await run(number, "nosuch:1")
    assert [text.partition(" could")[0] for text in home.other.texts] == [works, "The reminder r"]
    await run(6, "chat:1")
    await run(7, "chat:1")
    assert home.other.texts[2:] == [works]


@in_house()
async def test_a_used_up_budget_is_told_once_in_its_period(home: House) -> None:
    async def run(number: int, **fields: Any) -> None:
        asked = {"reminder": "r", "budget": "50/day", "timezone": "Etc/UTC", "alert": "other:9", **fields}
        await home.run(id=str(number), prompt="x", expires=NOON + 9e5, **asked)
        await settle()

    with real_loop(home) as provider:
        provider.always = completion("ok", 60)
        for number in range(4):
            await run(number)
        told = "The reminder r is skipped until the next day: 60 tokens were taken this day, and its budget is 50/day."
        assert home.other.texts == [told]
        await asyncio.sleep(86400)
        for number in range(4, 7):
            await run(number)
        assert home.other.texts == [told, told]
        await asyncio.sleep(86400)
        # Used up before anything has worked on that day: by what failed, say.
        await home.inbox.sql(
            "INSERT INTO spent (reminder, day, tokens) VALUES ('r', ?, 60)", period_start("day", now(), "Etc/UTC")
        )
        await run(7)
        assert home.other.texts == [told, told, told]
        await run(8, reminder="s", alert="none")
        await run(9, reminder="s", alert="none")
        assert len(home.other.texts) == 3
