"""sessions.py: when a user's turn counts as running, and how long a firing waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fake_bub import elapsed, in_virtual_time, settle

from bub_cron.gateway.sessions import UserTurns


def turn(users: UserTurns, session: str, seconds: float, *, says_its_end: bool = True) -> asyncio.Task[None]:
    async def main() -> None:
        users.begin(session)
        await asyncio.sleep(seconds)
        if says_its_end:
            users.end(session)
            await asyncio.sleep(1000)

    return asyncio.create_task(main())


@in_virtual_time
async def test_a_session_without_turns_is_idle_at_once() -> None:
    await UserTurns().idle("s", 10)
    assert elapsed() == 0


@pytest.mark.parametrize("says_its_end", [True, False])
@in_virtual_time
async def test_a_turn_is_over_at_its_save_state_or_with_its_task(says_its_end: bool) -> None:
    users = UserTurns()
    turn(users, "s", 100, says_its_end=says_its_end)
    await settle()
    await users.idle("s", 600)
    assert elapsed() == 100


@pytest.mark.parametrize("end", [lambda task: task.cancel(), lambda task: None])
@in_virtual_time
async def test_a_turn_that_breaks_off_is_over(end: Callable[[asyncio.Task[Any]], object]) -> None:
    users = UserTurns()

    async def breaks() -> None:
        users.begin("s")
        await asyncio.sleep(10)
        raise RuntimeError("build_prompt broke")

    task = asyncio.create_task(breaks())
    await settle()
    end(task)
    await users.idle("s", 600)
    assert elapsed() <= 10
    await asyncio.wait({task})
    _ = task.cancelled() or task.exception()


@in_virtual_time
async def test_waiting_ends_after_the_time_given() -> None:
    users = UserTurns()
    turn(users, "s", 5000)
    await settle()
    await users.idle("s", 600)
    assert users.busy_since("s") is not None
    assert round(elapsed()) == 600


@in_virtual_time
async def test_the_time_given_is_for_all_turns_together() -> None:
    users = UserTurns()

    async def talkative() -> None:
        for _ in range(10):
            await turn(users, "s", 90, says_its_end=False)

    task = asyncio.create_task(talkative())
    turn(users, "s", 1000)
    await settle()
    await users.idle("s", 600)
    assert users.busy_since("s") is not None
    assert round(elapsed()) == 600
    await task


@in_virtual_time
async def test_all_turns_of_the_session_must_be_over() -> None:
    users = UserTurns()
    for seconds in (10, 50, 30):
        turn(users, "s", seconds)
    turn(users, "other", 400)
    await settle()
    await users.idle("s", 600)
    assert elapsed() == 50


@in_virtual_time
async def test_several_may_wait_and_one_that_leaves_takes_nothing_from_the_others() -> None:
    users = UserTurns()
    turn(users, "s", 10)
    await settle()
    waiting = [asyncio.create_task(users.idle("s", 600)) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    await waiting[1]
    await waiting[2]
    assert elapsed() == 10


@in_virtual_time
async def test_one_task_may_run_turns_in_two_sessions() -> None:
    users = UserTurns()

    async def both() -> None:
        users.begin("a")
        users.begin("b")
        users.begin("b")
        await asyncio.sleep(10)
        users.end("a")
        await asyncio.sleep(10)

    task = asyncio.create_task(both())
    await settle()
    await users.idle("a", 600)
    assert elapsed() == 10
    await users.idle("b", 600)
    assert elapsed() == 20
    await task


@in_virtual_time
async def test_an_end_without_a_beginning_is_nothing() -> None:
    users = UserTurns()
    users.end("s")
    turn(users, "s", 10)
    await settle()
    users.end("s")  # of another task
    await users.idle("s", 600)
    assert elapsed() == 10


@in_virtual_time
async def test_a_session_is_busy_since_the_first_of_the_turns_that_overlap() -> None:
    users = UserTurns()
    seen = []
    for _ in range(3):  # from 0 to 100, from 60 to 160, from 120 to 220
        turn(users, "s", 100)
        await asyncio.sleep(60)
        seen.append(users.busy_since("s"))
    assert [round(since) for since in seen if since is not None] == [0, 0, 0]
    await users.idle("s", 600)
    assert users.busy_since("s") is None
    turn(users, "s", 100)
    await settle()
    since = users.busy_since("s")
    assert since is not None
    assert round(since) == 220
    await users.idle("s", 600)


@in_virtual_time
async def test_nothing_is_left_behind() -> None:
    users = UserTurns()
    turn(users, "s", 10)
    await settle()
    await users.idle("s", 600)
    assert users._sessions == {}


@in_virtual_time
async def test_outside_of_any_task_nothing_is_noted_and_nothing_raised() -> None:
    users = UserTurns()
    done = asyncio.get_running_loop().create_future()

    def call() -> None:
        users.begin("s")
        users.end("s")
        done.set_result(None)

    asyncio.get_running_loop().call_soon(call)
    await done
    await users.idle("s", 600)
    assert elapsed() == 0
