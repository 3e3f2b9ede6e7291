"""listener.py: what every caller is answered, whatever it sends, however it reads, and whenever it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_bub import Decorator, House, elapsed, given, hang, house, in_virtual_time, says, settle, takes

from bub_cron.gateway import connection as connection_module
from bub_cron.gateway import listener as listener_module
from bub_cron.gateway.address import AddressError, BoundSocket
from bub_cron.gateway.commands import CommandRule
from bub_cron.gateway.connection import MOST_LINES, Service
from bub_cron.gateway.listener import Listener
from bub_cron.wire import MAX_LINE


class Caller:
    """A connection to the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *requests: dict[str, Any] | bytes) -> None:
        for request in requests:
            self.writer.write(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n")

    async def answer(self) -> dict[str, Any]:
        line = await self.reader.readline()
        assert line.endswith(b"\n"), f"closed after {line!r}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask(self, request: dict[str, Any] | bytes) -> dict[str, Any]:
        self.send(request)
        return await self.answer()

    async def rest(self) -> list[dict[str, Any]]:
        """Half-close, and read until the gateway closes."""
        self.writer.write_eof()
        return [json.loads(line) for line in (await self.reader.read()).splitlines()]

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


class Door:
    """A listening gateway side."""

    def __init__(self, home: House, path: Path, listener: Listener) -> None:
        self.home = home
        self.path = path
        self.listener = listener
        self._callers: list[Caller] = []

    async def call(self) -> Caller:
        caller = Caller(*await asyncio.open_unix_connection(str(self.path), limit=2**22))
        self._callers.append(caller)
        return caller

    @property
    def serving(self) -> list[asyncio.Task[None]]:
        """The tasks that serve callers."""
        return [one.serving for siblings in self.listener._connections.values() for one in siblings]

    async def hang_up(self) -> None:
        for caller in self._callers:
            caller.writer.close()
        await settle()


@asynccontextmanager
async def door(path: Path, **options: Any) -> AsyncIterator[Door]:
    max_waiting = options.pop("max_waiting", 100_000)
    async with house(path, max_waiting=max_waiting) as home:
        rule = CommandRule(options.pop("command_prefix", ","), allowed=options.pop("allow_commands", False))
        service = Service(
            home.inbox,
            home.runner,
            rule,
            options.pop("about", lambda: {"pid": 42}),
            lambda: {"status": "chats", "chats": []},
        )
        listener = Listener(service, options.pop("uids", frozenset()))
        bound = BoundSocket(str(path / "s"), 0o600)
        await listener.start(bound)
        made = Door(home, path / "s", listener)
        try:
            yield made
        finally:
            await made.hang_up()
            await listener.close()
            bound.remove()


def at_door(**options: Any) -> Decorator:
    """Make tests whose first parameter is a listening gateway side of their own."""
    return given(lambda path: door(path, **options), "path")


TEXT = {"to": "chat:1", "text": "hello"}


# --- A request's answers


@at_door()
async def test_a_poke_is_accepted_and_then_told_its_last_word(made: Door) -> None:
    caller = await made.call()
    caller.send(TEXT)
    first, last = await caller.rest()
    assert first["status"] == "accepted"
    assert first["id"].startswith("poke-")
    assert last == {"id": first["id"], "status": "delivered", "seconds": 0.0}


@at_door()
async def test_accepted_is_said_only_once_it_is_on_disk(made: Door) -> None:
    caller = await made.call()
    async with made.home.inbox.thread_held():
        caller.send({"id": "a", **TEXT})
        for _ in range(20):
            await asyncio.sleep(0)
        assert caller.reader._buffer == b""  # type: ignore[attr-defined]
    assert await caller.answer() == {"id": "a", "status": "accepted"}
    assert await made.home.inbox.get("a")


@at_door()
async def test_without_wait_there_is_one_answer(made: Door) -> None:
    caller = await made.call()
    caller.send({"id": "a", "wait": False, **TEXT})
    assert await caller.rest() == [{"id": "a", "status": "accepted"}]
    assert (await made.home.outcome("a")).state == "delivered"


@at_door()
async def test_answers_to_pipelined_requests_carry_ids_and_come_as_they_are_ready(made: Door) -> None:
    made.home.model.script = [takes(100)]
    caller = await made.call()
    caller.send({"id": "slow", "to": "chat:1", "prompt": "x"}, {"id": "quick", **TEXT}, b"nonsense\n", {"ping": True})
    answers = await caller.rest()
    assert [answer.get("id") for answer in answers if answer["status"] == "delivered"] == ["quick", "slow"]
    assert sorted(answer["status"] for answer in answers) == sorted([
        "accepted",
        "accepted",
        "delivered",
        "delivered",
        "rejected",
        "pong",
    ])


@at_door()
async def test_a_half_close_ends_the_requests_and_not_the_answers(made: Door) -> None:
    made.home.model.script = [takes(300)]
    caller = await made.call()
    caller.send({"id": "a", "to": "chat:1", "prompt": "x"})
    answers = await caller.rest()
    assert [answer["status"] for answer in answers] == ["accepted", "delivered"]
    assert elapsed() == 300


@at_door()
async def test_a_caller_that_sends_nothing_is_let_go(made: Door) -> None:
    assert await (await made.call()).rest() == []


@at_door()
async def test_the_last_line_needs_no_newline_and_blank_lines_are_nothing(made: Door) -> None:
    caller = await made.call()
    caller.send(b'\n\r\n{"ping": true}\r\n\n', b'{"ping": true}')
    assert [answer["status"] for answer in await caller.rest()] == ["pong", "pong"]


@at_door()
async def test_a_line_of_spaces_is_blank(made: Door) -> None:
    caller = await made.call()
    caller.send(b"   \n", b'{"ping": true}\n', b"  ")
    assert [answer["status"] for answer in await caller.rest()] == ["pong"]


def line_of(size: int) -> bytes:
    head, tail = b'{"ping":', b"true}"
    return head + b" " * (size - len(head) - len(tail)) + tail


@at_door()
async def test_a_line_may_have_64_kib_and_no_more(made: Door) -> None:
    caller = await made.call()
    assert (await caller.ask(line_of(MAX_LINE) + b"\n"))["status"] == "pong"
    refused = await caller.ask(line_of(MAX_LINE + 1) + b"\n")
    assert refused == {"status": "rejected", "error": "the line is over 64 KiB"}
    assert await caller.reader.read() == b""


@at_door()
async def test_an_overlong_line_does_not_cost_the_answers_to_those_before_it(made: Door) -> None:
    made.home.model.script = [takes(10)]
    caller = await made.call()
    caller.send({"id": "a", "to": "chat:1", "prompt": "x"}, b"x" * (MAX_LINE + 1))
    statuses = [(await caller.answer())["status"] for _ in range(3)]
    assert sorted(statuses) == ["accepted", "delivered", "rejected"]
    assert await caller.reader.read() == b""


@pytest.mark.parametrize(
    ("line", "why"),
    [(b"hello", "not JSON"), (b"\xff\xfe", "not UTF-8"), (b"[]", "not a JSON object"), (b"{}", "to is missing"),
     (b'{"to":"chat:1"}', "none of"), (b'{"to":"chat:1","text":"a","prompt":"b"}', "more than one"),
     (b'{"to":"chat:1","text":" "}', "empty"), (b'{"to":"chat","text":"a"}', "channel:chat_id"),
     (b'{"to":"chat:1","text":"a","txet":1}', "unknown field"), (b'{"to":"chat:1","text":1}', "must be text"),
     (b'{"to":"chat:1","text":"a","text":"b"}', "twice"), (b'{"to":"chat:1","text":"\\ud800"}', "surrogate"),
     (b'{"to":"chat:1","text":"a","expires":NaN}', "NaN"), (b"[" * 60000, "nested"), (b'{"ping":1}', "goes alone"),
     (b'{"ping":true,"id":"x"}', "goes alone"), (b'{"status":"a","wait":true}', "goes alone"),
     (b'{"to":"chat:1","text":"a","attempts":0}', "between 1 and 100"),
     (b'{"to":"chat:1","text":"a","context":{"model":"m"}}', "may not set model"),
     (b'{"to":"chat:1","text":"a","context":{"_bub_cron_turn":"1"}}', "may not set _bub_cron_turn")],
)  # fmt: skip
@at_door()
async def test_what_is_no_request_is_rejected_with_the_reason_and_the_connection_goes_on(
    made: Door, line: bytes, why: str
) -> None:
    caller = await made.call()
    answer = await caller.ask(line + b"\n")
    assert answer["status"] == "rejected"
    assert why in answer["error"]
    assert (await caller.ask({"ping": True}))["status"] == "pong"
    assert await made.home.inbox.sql("SELECT count(*) FROM firings") == [(0,)]


@at_door()
async def test_a_rejection_carries_the_requests_id_where_it_has_one(made: Door) -> None:
    caller = await made.call()
    assert (await caller.ask({"id": "mine", "to": "chat:1"}))["id"] == "mine"
    assert "id" not in await caller.ask({"id": "no spaces", "to": "chat:1"})


# --- Ping and status


@at_door()
async def test_a_ping_tells_about_the_gateway_and_its_counts(made: Door) -> None:
    made.home.model.script = [takes(100)]
    caller = await made.call()
    for firing_id in ("a", "b"):
        await caller.ask({"id": firing_id, "to": "chat:1", "prompt": "x", "wait": False})
    await asyncio.sleep(1)
    assert await caller.ask({"ping": True}) == {"status": "pong", "pid": 42, "waiting": 1, "running": 1}
    assert await caller.ask({"chats": True}) == {"status": "chats", "chats": []}


@in_virtual_time
async def test_a_ping_says_whether_firings_may_start_and_why_not(path: Path) -> None:
    about = {"pid": 42, "ready": False, "why": "the channels have not started"}

    async with door(path, about=lambda: about) as made:
        caller = await made.call()
        async with made.home.inbox.thread_held():  # it needs no disk
            caller.send({"ping": True})
            for _ in range(20):
                await asyncio.sleep(0)
            assert json.loads(bytes(caller.reader._buffer)) == {  # type: ignore[attr-defined]
                "status": "pong", **about, "waiting": 0, "running": 0,
            }  # fmt: skip


@in_virtual_time
async def test_a_fault_while_answering_is_an_answer_or_a_closed_connection(path: Path) -> None:
    def about() -> dict[str, Any]:
        raise LookupError("somebody's channel broke")

    async with door(path, about=about) as made:
        caller = await made.call()
        caller.send({"ping": True})
        async with asyncio.timeout(60):
            await caller.reader.readline()


@at_door()
async def test_a_status_says_where_a_firing_stands(made: Door) -> None:
    made.home.model.script = [takes(100)]
    caller = await made.call()
    assert await caller.ask({"status": "a"}) == {"id": "a", "status": "unknown-id"}
    await caller.ask({"id": "a", "to": "chat:1", "prompt": "x", "wait": False})
    await asyncio.sleep(1)
    assert await caller.ask({"status": "a"}) == {"id": "a", "status": "running", "attempts": 1}
    await made.home.outcome("a")
    assert (await caller.ask({"status": "a"}))["reply"] == "done"


# --- Repeated ids, full, bad disk


@at_door()
async def test_an_id_submitted_three_times_runs_once_and_each_is_told(made: Door) -> None:
    made.home.model.always = takes(10)
    one, two = await made.call(), await made.call()
    request = {"id": "a", "to": "chat:1", "prompt": "x"}
    one.send(request, request)
    await asyncio.sleep(1)
    two.send(request)
    assert [answer["status"] for answer in await one.rest()] == ["accepted", "running", "delivered", "delivered"]
    assert [answer["status"] for answer in await two.rest()] == ["running", "delivered"]
    three = await made.call()
    three.send(request)
    assert [answer["status"] for answer in await three.rest()] == ["delivered"]
    assert made.home.model.turns == 1


@at_door()
async def test_a_known_id_with_other_content_is_rejected_and_the_first_goes_on(made: Door) -> None:
    made.home.model.script = [takes(10)]
    caller = await made.call()
    await caller.ask({"id": "a", "to": "chat:1", "prompt": "x", "wait": False})
    answer = await caller.ask({"id": "a", "to": "chat:2", "prompt": "x"})
    assert (answer["id"], answer["status"]) == ("a", "rejected")
    assert "other content" in answer["error"]
    assert (await made.home.outcome("a")).state == "delivered"


@at_door(max_waiting=1)
async def test_a_full_inbox_is_busy_and_takes_it_later(made: Door) -> None:
    made.home.model.script = [takes(10)]
    caller = await made.call()
    await caller.ask({"id": "a", "to": "chat:1", "prompt": "x", "wait": False})
    assert (await caller.ask({"id": "b", **TEXT}))["status"] == "busy"
    await made.home.outcome("a")
    assert (await caller.ask({"id": "b", **TEXT}))["status"] == "accepted"


@at_door()
async def test_a_disk_that_refuses_is_busy_and_nothing_runs(made: Door) -> None:
    await made.home.inbox.break_disk()
    caller = await made.call()
    answer = await caller.ask({"id": "a", **TEXT})
    assert (answer["id"], answer["status"]) == ("a", "busy")
    assert made.home.chat.begun == []
    await made.home.inbox.mend_disk()
    assert (await caller.ask({"id": "a", **TEXT}))["status"] == "accepted"


@at_door()
async def test_a_request_that_is_too_late_has_its_last_word_at_once(made: Door) -> None:
    caller = await made.call()
    caller.send({"id": "a", "expires": 1, **TEXT})
    assert [answer["status"] for answer in await caller.rest()] == ["missed"]


# --- Callers that leave, or don't read


@at_door()
async def test_a_caller_that_leaves_while_it_waits_touches_no_firing_and_nobody_else(made: Door) -> None:
    made.home.model.script = [takes(100)]
    leaver, stayer = await made.call(), await made.call()
    request = {"id": "a", "to": "chat:1", "prompt": "x"}
    await leaver.ask(request)
    await stayer.ask(request)
    await leaver.leave()
    await asyncio.sleep(1)
    assert (await stayer.answer())["status"] == "delivered"
    assert (await (await made.call()).ask({"ping": True}))["status"] == "pong"


@at_door()
async def test_a_caller_that_sends_and_is_gone_has_submitted_all_the_same(made: Door) -> None:
    caller = await made.call()
    caller.send({"id": "a", **TEXT})
    await caller.leave()
    await asyncio.sleep(1)
    assert made.home.chat.texts == ["hello"]


async def break_off_while_the_disk_works(made: Door) -> None:
    """Submit `a` and close with an answer unread, as a killed process does: the gateway's next read fails."""
    caller = await made.call()
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
    async with made.home.inbox.thread_held():
        caller.send({"ping": True}, {"id": "a", **TEXT})
        for _ in range(50):
            await asyncio.sleep(0)
        caller.writer.transport.abort()
        for _ in range(50):
            await asyncio.sleep(0)
    assert (await made.home.get("a")).state == "accepted"


@at_door()
async def test_what_was_stored_for_a_caller_that_broke_off_is_run(made: Door) -> None:
    """Killed with an answer unread: the gateway's read fails while the disk is at work on the next request."""
    await break_off_while_the_disk_works(made)
    await asyncio.sleep(5000)
    firing = await made.home.get("a")
    assert firing.is_final


@at_door()
async def test_what_is_stored_and_not_run_is_run_when_it_is_submitted_again(made: Door) -> None:
    await break_off_while_the_disk_works(made)
    again = await made.call()
    again.send({"id": "a", **TEXT})
    async with asyncio.timeout(5000):
        assert (await again.rest())[-1]["status"] == "delivered"


@at_door()
async def test_a_caller_that_never_reads_delays_nobody(made: Door) -> None:
    deaf = await made.call()
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    deaf.send(*[{"id": "i" * 200, "to": "chat"}] * 6000)
    await settle()
    caller = await made.call()
    caller.send({"id": "a", **TEXT})
    assert [answer["status"] for answer in await caller.rest()] == ["accepted", "delivered"]


@at_door()
async def test_of_one_caller_no_more_is_read_until_what_came_is_answered(
    made: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, asked = made.home.inbox.accept, []

    async def noted(requests: Any, now: float, room: int) -> Any:
        asked.append(len(requests))
        return await accept(requests, now, room)

    monkeypatch.setattr(made.home.inbox, "accept", noted)
    caller = await made.call()
    async with made.home.inbox.thread_held():
        caller.send(*({"id": str(number), "wait": False, **TEXT} for number in range(1000)))
        for _ in range(500):
            await asyncio.sleep(0)
        assert len(asked) == 1
    assert [answer["id"] for answer in await caller.rest()] == [str(number) for number in range(1000)]
    assert sum(asked) == 1000
    assert max(asked) == MOST_LINES


@at_door()
async def test_what_comes_together_is_judged_alone_each(made: Door) -> None:
    caller = await made.call()
    lines = [{"id": str(number), "wait": False, **TEXT} for number in range(100)]
    lines[3] = {"id": "3", "to": "chat:1"}
    lines[4] = {"id": "2", "wait": False, "to": "chat:1", "text": "other words under an id of the same go"}
    lines[5] = {"id": "1", "wait": False, **TEXT}
    caller.send(*lines)
    answers = await caller.rest()
    statuses = Counter(answer["status"] for answer in answers)
    assert (len(answers), statuses["rejected"]) == (100, 2)
    rows = await made.home.inbox.sql("SELECT id FROM firings ORDER BY seq")
    assert rows == [(str(number),) for number in range(100) if number not in (3, 4, 5)]


@at_door()
async def test_a_caller_that_reads_only_while_the_gateway_closes_gets_all_of_it(made: Door) -> None:
    caller = await made.call()
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
    caller.send(*[{"id": "i" * 200, "to": "chat"}] * 1000)
    await settle()
    [serving] = made.serving
    closing = asyncio.create_task(made.listener.close())
    await asyncio.sleep(0.5)
    caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
    answers = (await caller.reader.read()).splitlines()
    assert {json.loads(answer)["status"] for answer in answers} == {"rejected"}
    await closing
    assert serving.done()
    assert serving.cancelled() or serving.exception() is None


@at_door()
async def test_a_close_lets_everybody_go_and_takes_nobody_new(made: Door) -> None:
    made.home.model.script = [takes(100)]
    waiter, idler = await made.call(), await made.call()
    await waiter.ask({"id": "a", "to": "chat:1", "prompt": "x"})
    await made.listener.close()
    assert await waiter.reader.read() == b""
    assert await idler.reader.read() == b""
    with pytest.raises(FileNotFoundError):
        await made.call()
    assert elapsed() < 3


@at_door()
async def test_a_caller_that_nobody_serves_yet_is_closed_too(made: Door) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    made.listener._admit(theirs)
    [serving] = made.serving
    serving.cancel()  # before its first step
    await settle()
    assert not made.serving
    ours.setblocking(False)
    assert ours.recv(1) == b""
    ours.close()


@at_door()
async def test_a_send_that_hangs_delays_no_answer(made: Door) -> None:
    made.home.chat.script = [hang]
    caller = await made.call()
    assert (await caller.ask({"id": "a", **TEXT}))["status"] == "accepted"
    await settle()
    assert (await caller.ask({"ping": True}))["running"] == 1


# --- Callers that wait


LONG = {"to": "chat:9", "prompt": "x", "timeout": 4000, "expires": 4e9}


@at_door()
async def test_waits_for_one_long_firing_cost_no_other_request_its_answer(
    made: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MOST_AWAITED", 2_000)
    made.home.model.script = [takes(3600)]
    waiting = [await made.call() for _ in range(5)]
    for caller in waiting:
        caller.send(*[{"id": "long", **LONG}] * 400)
    for caller in waiting:
        for _ in range(400):
            assert (await caller.answer())["status"] in ("accepted", "running")
    for caller in (waiting[0], await made.call()):
        assert (await caller.ask({"ping": True}))["status"] == "pong"
        caller.send({"id": f"new-{id(caller)}", **TEXT})
        assert [(await caller.answer())["status"] for _ in range(2)] == ["accepted", "delivered"]
    assert elapsed() < 1
    finals = [await caller.answer() for caller in waiting for _ in range(400)]
    assert {(final["id"], final["status"]) for final in finals} == {("long", "delivered")}
    assert 3600 <= elapsed() < 3601


@at_door()
async def test_many_requests_at_once_wait_for_no_room_among_small_ones(
    made: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Almost as many as may wait for one long firing, and others come and go; the 200 of one caller are let in."""
    monkeypatch.setattr(connection_module, "MOST_AWAITED", 2_000)

    async def small(made: Door, number: int) -> None:
        caller = await made.call()
        for turn in range(100):
            await caller.ask({"id": f"small-{number}-{turn}", "to": f"chat:{number}", "prompt": "x"})
            await caller.answer()

    made.home.model.script = [takes(3600)]
    made.home.model.always = takes(9)
    for _ in range(5):
        caller = await made.call()
        caller.send(*[{"id": "long", **LONG}] * 398)
        for _ in range(398):
            await caller.answer()
    others = [asyncio.create_task(small(made, number)) for number in range(80)]
    await asyncio.sleep(20)
    caller = await made.call()
    caller.send(*({"id": f"many-{number}", **TEXT} for number in range(200)))
    answers = [await caller.answer() for _ in range(400)]
    assert sum(answer["status"] == "delivered" for answer in answers) == 200
    assert elapsed() < 21
    for other in others:
        other.cancel()
    await asyncio.wait(others)


@at_door()
async def test_a_user_waits_for_so_many_firings_and_the_next_is_busy_before_it_is_stored(
    made: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MOST_AWAITED", 3)

    made.home.model.always = takes(100)
    one, two = await made.call(), await made.call()
    for caller, firing_id in ((one, "a"), (one, "b"), (two, "c"), (two, "a"), (two, "a")):
        expected = "busy" if caller is two and firing_id == "a" else "accepted"
        assert (await caller.ask({"id": firing_id, "to": "chat:1", "prompt": "x"}))["status"] == expected
    assert (await one.ask({"id": "a", "to": "chat:1", "prompt": "x"}))["status"] == "running"
    answer = await two.ask({"id": "d", **TEXT})
    assert (answer["id"], answer["status"]) == ("d", "busy")
    assert "waits for 3 firings already" in answer["error"]
    assert await made.home.inbox.get("d") is None
    assert (await two.ask({"id": "d", "wait": False, **TEXT}))["status"] == "accepted"
    finals = [(await one.answer())["id"] for _ in range(3)] + [(await two.answer())["id"]]
    assert finals == ["a", "a", "b", "c"]
    two.send({"id": "e", **TEXT})  # its places are given back
    assert [(await two.answer())["status"] for _ in range(2)] == ["accepted", "delivered"]


@at_door()
async def test_a_place_that_was_kept_for_a_request_that_is_not_taken_is_given_back(
    made: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MOST_AWAITED", 1)

    caller = await made.call()
    await caller.ask({"id": "a", "wait": False, **TEXT})
    await settle()
    for _ in range(2):
        assert (await caller.ask({"id": "a", "to": "chat:1", "text": "other"}))["status"] == "rejected"
        assert (await caller.ask({"id": "a", **TEXT}))["status"] == "delivered"
        assert (await caller.ask({"id": "late", "expires": 1, **TEXT}))["status"] == "missed"
    assert (await caller.ask({"id": "b", **TEXT}))["status"] == "accepted"


@at_door()
async def test_who_leaves_before_the_final_outcome_is_forgotten(made: Door) -> None:
    made.home.model.script = [takes(3000)]
    stayer = await made.call()
    await stayer.ask({"id": "long", **LONG})
    for _ in range(3):
        leaver = await made.call()
        await leaver.ask({"id": "long", **LONG})
        await leaver.leave()
    await asyncio.sleep(connection_module.GONE_SECONDS + 1)
    final = made.home.runner.final("long")
    assert final is not None
    assert len(final._callbacks) == 1
    assert (await stayer.answer())["status"] == "delivered"


@at_door()
async def test_replies_that_nobody_reads_are_looked_up_when_they_can_be_written(
    made: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_MOST_REPLIES", 2)

    made.home.model.always = says("x" * 65_000)
    caller = await made.call()
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
    caller.send(*({"id": str(number), "to": f"chat:{number}", "prompt": "x"} for number in range(40)))
    await asyncio.sleep(10)
    [connection] = next(filter(None, made.listener._connections.values()))
    waiting = list(connection._ended._queue)  # type: ignore[attr-defined]
    assert len(waiting) > 20
    assert sum(not isinstance(ended, str) for ended in waiting) <= 2
    caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
    answers = await caller.rest()
    replies = {answer["id"]: len(answer["reply"]) for answer in answers if answer["status"] == "delivered"}
    assert replies == {str(number): 65_000 for number in range(40)}


@at_door()
async def test_a_firing_that_gets_no_outcome_now_ends_the_connection_of_who_waits(made: Door) -> None:
    made.home.model.script = [takes(3000)]
    caller = await made.call()
    await caller.ask({"id": "long", **LONG})
    await made.home.runner.stop()
    async with asyncio.timeout(10):
        assert await caller.reader.read() == b""


@at_door()
async def test_what_is_being_stored_when_the_connection_ends_is_run(made: Door) -> None:
    """The connection ends because what its caller waits for gets no outcome now; its next request is at the disk."""
    made.home.model.script = [takes(3000)]
    caller = await made.call()
    await caller.ask({"id": "long", **LONG})
    async with made.home.inbox.thread_held():
        caller.send({"id": "a", **TEXT})
        for _ in range(50):
            await asyncio.sleep(0)
        final = made.home.runner.final("long")
        assert final is not None
        final.cancel()
        async with asyncio.timeout(10):
            assert await caller.reader.read() == b""
    await asyncio.sleep(1)
    assert (await made.home.get("a")).state == "delivered"


# --- HTTP


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "CONNECT", "PRI"])
@at_door()
async def test_http_gets_one_line_that_explains_the_protocol_and_nothing_of_it_is_a_request(
    made: Door, method: str
) -> None:
    caller = await made.call()
    body = json.dumps(TEXT).encode()
    caller.send(
        f"{method} /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body + b"\n"
    )
    [answer] = [json.loads(line) for line in (await caller.reader.read()).splitlines()]
    assert answer["status"] == "rejected"
    assert "not HTTP" in answer["error"]
    assert '{"ping": true}' in answer["error"]
    assert await made.home.inbox.sql("SELECT count(*) FROM firings") == [(0,)]


@at_door()
async def test_what_came_before_http_is_answered_to_its_end(made: Door) -> None:
    made.home.model.script = [takes(10)]
    caller = await made.call()
    caller.send({"id": "a", "to": "chat:1", "prompt": "GET / HTTP/1.1"}, b"GET / HTTP/1.1\r\n", {"ping": True})
    statuses = [json.loads(line)["status"] for line in (await caller.reader.read()).splitlines()]
    assert sorted(statuses) == ["accepted", "delivered", "rejected"]


# --- Who may talk


@at_door()
async def test_a_stranger_is_rejected_and_its_request_not_read(made: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "_peer_uid", lambda writer: 4242)

    caller = await made.call()
    assert await caller.answer() == {"status": "rejected", "error": "user 4242 may not talk to this gateway"}
    assert await caller.reader.read() == b""
    assert await made.home.inbox.sql("SELECT count(*) FROM firings") == [(0,)]


@pytest.mark.parametrize(("uid", "allowed"), [(0, False), (os.getuid(), False), (4242, True)])
@in_virtual_time
async def test_root_oneself_and_the_allowed_may_talk(
    path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, allowed: bool
) -> None:
    monkeypatch.setattr(listener_module, "_peer_uid", lambda writer: uid)

    async with door(path, uids=frozenset({uid} if allowed else ())) as made:
        assert (await (await made.call()).ask({"ping": True}))["status"] == "pong"


@at_door()
async def test_the_kernel_says_who_talks(made: Door, path: Path) -> None:
    seen: list[int] = []

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(listener_module._peer_uid(writer.get_extra_info("socket")))
        writer.close()

    server = await asyncio.start_unix_server(connected, str(path / "other"))
    _, writer = await asyncio.open_unix_connection(str(path / "other"))
    await settle()
    writer.close()
    await writer.wait_closed()
    server.close()
    assert seen == [os.getuid()]


# --- Commands, by the gateway's own prefix


@pytest.mark.parametrize(
    ("prefix", "allow", "message", "status"),
    [
        (",", False, {"command": ",help"}, "rejected"),
        (",", True, {"command": ",help"}, "accepted"),
        (",", True, {"command": "  ,help\n"}, "accepted"),
        (",", True, {"command": "help"}, "rejected"),
        (",", True, {"command": "!help"}, "rejected"),
        ("!", True, {"command": "!help"}, "accepted"),
        ("!", True, {"command": ",help"}, "rejected"),
        (",", True, {"prompt": ",help"}, "rejected"),
        (",", True, {"prompt": " \n\t\u2003,rm -rf /"}, "rejected"),
        ("!", False, {"prompt": "!help"}, "rejected"),
        ("!", False, {"prompt": ",help"}, "accepted"),
        ("bub>", False, {"prompt": " bub>help"}, "rejected"),
        (",", False, {"text": ",help"}, "accepted"),
    ],
)
@in_virtual_time
async def test_what_is_a_command_is_judged_by_the_gateways_prefix(
    path: Path, prefix: str, allow: bool, message: dict[str, str], status: str
) -> None:
    async with door(path, command_prefix=prefix, allow_commands=allow) as made:
        caller = await made.call()
        answer = await caller.ask({"id": "a", "to": "nosuch:1", "wait": False, **message})
        assert (answer["id"], answer["status"]) == ("a", status)


@at_door()
async def test_a_refused_command_says_who_may_change_that(made: Door) -> None:
    answer = await (await made.call()).ask({"to": "chat:1", "command": ",help"})
    assert "BUB_CRON_ALLOW_COMMANDS" in answer["error"]


@at_door()
async def test_a_socket_that_somebody_removed_is_made_again_and_callers_stay(made: Door) -> None:
    before = await made.call()
    await made.listener.look_after_place()
    made.path.unlink()
    await made.listener.look_after_place()
    assert made.path.stat().st_mode & 0o777 == 0o600
    for caller in (before, await made.call()):
        assert (await caller.ask({"ping": True}))["status"] == "pong"


@at_door()
async def test_what_stands_in_the_sockets_place_is_left_alone(made: Door) -> None:
    made.path.unlink()
    made.path.write_text("mine")
    with pytest.raises(AddressError):
        await made.listener.look_after_place()
    await made.listener.close()
    assert made.path.read_text() == "mine"
