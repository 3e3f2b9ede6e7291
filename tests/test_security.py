"""What SECURITY.md says, tried as an attacker would: other users, other prefixes, floods, and what shows of them.

The live gateway is attacked in test_attacks.py; the parsers in test_fuzz.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from bub.builtin.commands import strip_command_prefix
from fake_bub import breaks, house, in_virtual_time, run, says, settle, takes
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from test_listener import TEXT, Caller, Door, at_door, door

from bub_cron import terminal, wire
from bub_cron.errors import FileUnreadableError, GatewayAbsentError, RequestError, StoreError, described, one_line
from bub_cron.gateway import listener as listener_module
from bub_cron.gateway.address import AddressError, BoundSocket, Ownership
from bub_cron.gateway.commands import CommandRule
from bub_cron.gateway.connection import _WARNINGS_A_MINUTE, GONE_SECONDS, UNREAD_SECONDS
from bub_cron.gateway.faults import log_fault
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.turns import MOST_REPLY, bub_message
from bub_cron.paths import others_write, why_unsafe
from bub_cron.reminders import load
from bub_cron.trigger.client import Connection

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


@pytest.fixture
def place(path: Path) -> Path:
    return path


@contextmanager
def as_user(uid: int, act: Callable[[], object]) -> Iterator[IO[str]]:
    """Let a process of another user, without any group of ours, act; yield what it prints. (Not by exec: where this
    Python lies, another user may not be able to run it.)
    """
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child doesn't use
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            with open(writes, "w", buffering=1) as sys.stdout:
                try:
                    print(act())
                except OSError as error:
                    print(type(error).__name__)
        finally:
            os._exit(0)
    os.close(writes)
    with open(reads) as printed:
        try:
            yield printed
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def said_as(uid: int, act: Callable[[], object]) -> str:
    with as_user(uid, act) as printed:
        return printed.read().strip()


# --- Who may talk: the place


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_socket_its_lock_and_the_store_are_private_whatever_the_umask(place: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        owned = Ownership(str(place / "cron" / "s"))
        bound = BoundSocket(str(place / "cron" / "s"), 0o600)
        asyncio.run(open_inbox(place / "cron" / "inbox.db"))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (place / "cron").iterdir()}
    assert modes == {"s": 0o600, "s.lock": 0o600, "inbox.db": 0o600}
    assert stat.S_IMODE((place / "cron").stat().st_mode) == 0o700
    bound.remove()
    bound.socket.close()
    owned.release()


async def open_inbox(path: Path) -> None:
    inbox = Inbox(str(path))
    await inbox.open()
    await inbox.close()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o722])
def test_a_directory_that_others_may_write_holds_no_socket_no_lock_and_no_store(place: Path, mode: int) -> None:
    place.chmod(mode)
    shutil.chown(place, group="nogroup")
    why = rf"others may write in .* \(mode {mode:04o}\); run: chmod go-w "
    with pytest.raises(AddressError, match=why):
        Ownership(str(place / "s"))
    with pytest.raises(AddressError, match=why):
        BoundSocket(str(place / "s"), 0o600)
    with pytest.raises(StoreError, match=why):
        asyncio.run(open_inbox(place / "inbox.db"))
    assert list(place.iterdir()) == []


def test_a_place_below_one_that_others_may_write_is_refused_unless_that_is_sticky(place: Path) -> None:
    (place / "mine").mkdir(mode=0o700)
    place.chmod(0o1777)
    assert why_unsafe(str(place / "mine")) is None
    place.chmod(0o777)
    assert why_unsafe(str(place / "mine")) == f"others may write in {place} (mode 0777); run: chmod go-w {place}"


def test_a_directory_that_the_operator_vouches_for_is_taken_as_it_is(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "mine").mkdir(mode=0o700)
    place.chmod(0o777)
    monkeypatch.setenv("BUB_CRON_TRUST_DIRS", f"/elsewhere:{place}")
    assert why_unsafe(str(place / "mine")) is None
    (place / "mine").chmod(0o777)
    assert why_unsafe(str(place / "mine")) is not None


@as_root
def test_a_place_that_another_user_made_in_a_sticky_directory_is_refused(place: Path) -> None:
    place.chmod(0o1777)
    (place / "theirs").mkdir(mode=0o700)
    os.chown(place / "theirs", NOBODY, NOBODY)
    (place / "link").symlink_to("/root")
    os.chown(place / "link", NOBODY, NOBODY, follow_symlinks=False)
    theirs = "belongs to user nobody, who could replace what is in it"
    assert why_unsafe(str(place / "theirs")) == f"{place / 'theirs'} {theirs}"
    assert why_unsafe(str(place / "link")) == f"{place / 'link'} {theirs}"


@as_root
def test_root_trusts_whom_root_gave_a_place_and_others_trust_nobody_else(place: Path) -> None:
    (place / "home" / "cron").mkdir(parents=True)
    (place / "home").chmod(0o755)
    for path in (place / "home", place / "home" / "cron"):
        os.chown(path, NOBODY, NOBODY)
    assert why_unsafe(str(place / "home" / "cron")) is None
    assert said_as(NOBODY, lambda: why_unsafe(str(place / "home" / "cron"))) == "None"
    assert "belongs to user " in said_as(1234, lambda: why_unsafe(str(place / "home" / "cron")))


def test_links_that_lead_in_a_circle_are_an_end_in_words(place: Path) -> None:
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    assert why_unsafe(str(place / "a")) == f"{place / 'a'} leads through too many symbolic links"


def test_a_link_to_a_safe_place_is_followed_and_one_to_an_unsafe_one_refused(place: Path) -> None:
    (place / "real").mkdir(mode=0o700)
    (place / "to-real").symlink_to("real")
    (place / "to-tmp").symlink_to("/tmp")  # noqa: S108
    assert why_unsafe(str(place / "to-real")) is None
    assert str(why_unsafe(str(place / "to-tmp"))).startswith("others may write in /tmp")


@pytest.mark.parametrize("name", ["inbox.db", "s.lock"])
def test_a_symbolic_link_in_the_way_is_not_followed(place: Path, name: str) -> None:
    (place / "precious").write_text("precious")
    (place / name).symlink_to(place / "precious")
    with pytest.raises((StoreError, AddressError), match="symbolic link"):
        if name == "s.lock":
            Ownership(str(place / "s"))
        else:
            asyncio.run(open_inbox(place / name))
    assert (place / "precious").read_text() == "precious"


@pytest.mark.parametrize("mode", [0o666, 0o602, 0o660])
def test_a_store_that_others_may_have_written_is_refused(place: Path, mode: int) -> None:
    asyncio.run(open_inbox(place / "inbox.db"))
    shutil.chown(place / "inbox.db", group="nogroup")
    (place / "inbox.db").chmod(mode)
    with pytest.raises(StoreError, match=r"may have been written by others.* chmod 600 "):
        asyncio.run(open_inbox(place / "inbox.db"))


def test_a_lock_that_was_removed_and_made_anew_meanwhile_is_not_the_one_held(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = place / "s.lock"
    removed: list[str] = []
    real = os.open

    def removed_at_once(path: str, *arguments: Any) -> int:
        found = real(path, *arguments)
        if path == str(lock) and not removed:
            removed.append(path)
            lock.unlink()
        return found

    monkeypatch.setattr(os, "open", removed_at_once)
    owned = Ownership(str(place / "s"))
    assert lock.read_text() == f"{os.getpid()}\n"
    owned.release()


@as_root
@pytest.mark.parametrize(("uid", "says"), [(NOBODY, "PermissionError"), (0, "None")])
def test_the_kernel_keeps_other_users_from_the_socket(place: Path, uid: int, says: str) -> None:
    bound = BoundSocket(str(place / "s"), 0o600)
    assert said_as(uid, lambda: socket.socket(socket.AF_UNIX).connect(str(place / "s"))) == says
    bound.socket.close()


@as_root
def test_the_tick_says_nothing_to_a_stranger_that_has_taken_the_sockets_place(place: Path) -> None:
    place.chmod(0o1777)

    def listen() -> bytes:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(place / "s"))
            listening.listen()
            print("listens")
            return listening.accept()[0].recv(100)

    with as_user(NOBODY, listen) as printed:
        assert printed.readline() == "listens\n"
        with pytest.raises(GatewayAbsentError, match=r"user nobody listens at .*, where anybody may"):
            Connection(str(place / "s"))
        assert printed.readline() == "b''\n"


# --- The file


@pytest.mark.parametrize(("mode", "counts"), [(0o600, True), (0o644, True), (0o664, False), (0o606, False)])
def test_a_file_that_others_may_write_is_ignored(place: Path, mode: int, counts: bool) -> None:
    file = place / "reminders.yaml"
    file.write_text("reminders:\n  a: {every: 1h, to: 'chat:1', text: hi}\n")
    shutil.chown(file, group="nogroup")
    file.chmod(mode)
    if counts:
        assert [reminder.name for reminder in load(str(file))] == ["a"]
        return
    with pytest.raises(FileUnreadableError, match=rf"written by others \(mode {mode:04o}\).*: chmod go-w {file}"):
        load(str(file))


@as_root
def test_a_file_of_another_user_is_ignored_unless_root_put_it_in_their_place(place: Path) -> None:
    file = place / "reminders.yaml"
    file.write_text("reminders:\n  a: {every: 1h, to: 'chat:1', text: hi}\n")
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(FileUnreadableError, match="belongs to user nobody, so it is ignored"):
        load(str(file))
    os.chown(place, NOBODY, NOBODY)
    assert len(load(str(file))) == 1


@pytest.mark.parametrize(("group", "members", "primary", "writes"), [
    ("ann", [], 1000, False),
    ("ann", ["ann"], 1000, False),
    ("ann", ["bob"], 1000, True),
    ("users", [], 1000, True),
    ("ann", [], 100, True),
])  # fmt: skip
def test_a_group_counts_as_others_unless_it_is_the_owners_own(
    monkeypatch: pytest.MonkeyPatch, group: str, members: list[str], primary: int, writes: bool
) -> None:
    import grp
    import pwd

    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="ann", pw_gid=primary))
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name=group, gr_mem=members))
    found = os.stat_result((0o100664, 1, 1, 1, 1000, 1000, 0, 0, 0, 0))
    assert others_write(found, __file__) is writes


# --- What may pass: commands


BLANKS = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2028\u2029\u202f\u205f\u3000"
LOOK_ALIKES = "\ufeff\u200b\u200c\u200d\u2060\u00ad\u202e\u180e\uff0c\u201a\u060c\u3001\u02bb\ufe50\ufe10"
PREFIXES = [",", "!", "/", "..", "-", "run:", "\uff0c", "\u200b", "context", "c", "$", "0", "_"]


def request(prefix: str, **fields: Any) -> wire.Request:
    made = wire.parse_request(json.dumps({"to": "chat:1", **fields}).encode(), now=0, new_id=lambda: "a")
    assert isinstance(made, wire.Request)
    return made


def bub_would_run(what: wire.Request, prefix: str) -> bool:
    """Judge as Bub's hook build_prompt and its agent do, one after the other, with Bub's own function."""
    message = bub_message(what, "1")
    if strip_command_prefix(message.content, prefix) is not None:
        return True
    prompt = f"{message.context_str}\n---Date: 2026---\n{message.content}"
    return strip_command_prefix(prompt, prefix) is not None


@given(
    prefix=st.sampled_from(PREFIXES),
    before=st.text(alphabet=BLANKS + LOOK_ALIKES, max_size=4),
    rest=st.text(alphabet="ab,!/.-" + BLANKS, max_size=5),
    key=st.text(alphabet="ac.-!0", min_size=1, max_size=8),
    kind=st.sampled_from(["prompt", "command", "text"]),
    allowed=st.booleans(),
)
def test_what_bub_would_run_as_a_command_never_passes_as_anything_else(
    prefix: str, before: str, rest: str, key: str, kind: str, allowed: bool
) -> None:
    try:
        what = request(prefix, **{kind: f"{before}{prefix}{rest}"}, context={key: "; rm -rf"})
    except RequestError as error:
        assert "context" in str(error)
        return
    passes = CommandRule(prefix, allowed=allowed).refusal(what) is None
    if kind == "prompt":
        assert passes is not bub_would_run(what, prefix)
    elif kind == "command":
        assert passes <= (allowed and strip_command_prefix(what.body, prefix) is not None)
    else:
        assert passes  # a text goes to the chat and through no turn


def test_a_key_of_context_that_begins_with_the_prefix_does_not_begin_the_prompt() -> None:
    what = request(".", prompt="hi", context={".touch": "proof"})
    assert bub_message(what, "1").context_str.startswith("channel=$chat|chat_id=1|.touch=")
    assert not bub_would_run(what, ".")


@pytest.mark.parametrize(("kind", "body", "before", "after"), [
    ("prompt", "/rm", CommandRule(",", allowed=False), CommandRule("/", allowed=True)),
    ("command", ",rm", CommandRule(",", allowed=True), CommandRule(",", allowed=False)),
    ("command", ",rm", CommandRule(",", allowed=True), CommandRule("/", allowed=True)),
])  # fmt: skip
@in_virtual_time
async def test_what_was_accepted_under_another_rule_does_not_run(
    tmp_path: Path, kind: str, body: str, before: CommandRule, after: CommandRule
) -> None:
    assert before.refusal(request(",", **{kind: body})) is None

    async with house(tmp_path) as home:
        home.runner._refusal = after.refusal
        firing = await home.run(**{kind: body})
        assert firing.state == "failed"
        assert firing.attempts == 0
        assert home.model.prompts == []


@pytest.mark.parametrize("key", ["_bub_cron_turn", "_bub_cron_ready", "_runtime_agent", "channel", "chat_id", "model"])
def test_context_cannot_set_what_the_framework_or_this_plugin_reads(key: str) -> None:
    with pytest.raises(RequestError, match=f"may not set {key}"):
        request(",", prompt="x", context={key: "1"})


# --- How much


@in_virtual_time
async def test_each_user_has_so_many_connections_and_the_next_is_told_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "_connections_a_user", lambda _: 3)
    uids = iter([1, 1, 1, 1, 2])
    monkeypatch.setattr(listener_module, "_peer_uid", lambda _: next(uids))
    async with door(path, uids=frozenset({1, 2})) as made:
        first, *_ = [await made.call() for _ in range(3)]
        await settle()
        answer = await (await made.call()).answer()
        assert answer == {"status": "busy", "error": "user 1 has 3 connections open already; try again later"}
        assert (await (await made.call()).ask({"ping": True}))["status"] == "pong"
        assert (await first.ask({"ping": True}))["status"] == "pong"


@pytest.fixture
def three_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "_connections_a_user", lambda _: 3)


@pytest.mark.usefixtures("three_connections")
@at_door()
async def test_the_caller_longest_in_the_middle_of_a_line_makes_room(made: Door) -> None:
    callers = [await made.call() for _ in range(3)]
    for caller in (callers[1], callers[0]):
        caller.send(json.dumps({"id": "half", **TEXT}).encode())  # whole but for its newline
        await asyncio.sleep(1)
    assert (await (await made.call()).ask({"ping": True}))["status"] == "pong"
    told = await callers[1].answer()
    assert (told["status"], "middle of a line" in told["error"]) == ("busy", True)
    assert await callers[1].reader.read() == b""
    assert await made.home.inbox.get("half") is None
    for caller in (callers[0], callers[2]):
        caller.send(b"\n", {"ping": True})
        assert "pong" in [(await caller.answer())["status"] for _ in range(2 if caller is callers[0] else 1)]


@at_door()
async def test_half_open_callers_lock_nobody_of_their_own_user_out(made: Door) -> None:
    for _ in range(300):
        (await made.call()).send(b"{")
    await settle()
    assert (await (await made.call()).ask({"ping": True}))["status"] == "pong"
    assert asyncio.get_running_loop().time() < 1


@pytest.mark.usefixtures("three_connections")
@at_door()
async def test_idle_and_waiting_callers_make_no_room(made: Door) -> None:
    made.home.model.script = [takes(100)]
    idler, asker, waiter = [await made.call() for _ in range(3)]
    await asker.ask({"ping": True})
    await waiter.ask({"to": "chat:1", "prompt": "x"})
    waiter.send(b"{")  # it has begun the next line, and still waits
    await settle()
    assert (await (await made.call()).answer())["status"] == "busy"
    assert (await idler.ask({"ping": True}))["status"] == "pong"
    assert (await waiter.answer())["status"] == "rejected"  # its line, after 30 s
    assert (await waiter.answer())["status"] == "delivered"


@pytest.mark.usefixtures("three_connections")
@at_door()
async def test_a_caller_whose_line_waits_for_the_disk_makes_no_room(made: Door) -> None:
    callers = [await made.call() for _ in range(3)]
    line = json.dumps({"wait": False, **TEXT}).encode() + b"\n"
    for caller in callers:
        caller.send(line[:10])
    await settle()
    async with made.home.inbox.thread_held():
        for caller in callers:
            caller.send(line[10:], b"{")
        for _ in range(20):
            await asyncio.sleep(0)
        fourth = await made.call()
        for _ in range(20):
            await asyncio.sleep(0)
    assert (await fourth.answer())["status"] == "busy"
    assert [(await caller.answer())["status"] for caller in callers] == ["accepted"] * 3


def test_the_connections_of_all_users_leave_most_descriptors_to_the_chats() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, before[1]))
        assert [listener_module._connections_a_user(users) for users in (1, 2, 5, 1000)] == [100, 50, 20, 4]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@at_door()
async def test_a_line_that_does_not_end_in_time_ends_the_requests(made: Door) -> None:
    caller = await made.call()
    caller.send(b'{"ping"')
    began = asyncio.get_running_loop().time()
    assert await caller.answer() == {"status": "rejected", "error": "the line did not end within 30 s"}
    assert await caller.reader.read() == b""
    assert asyncio.get_running_loop().time() - began == pytest.approx(30, abs=1)


@at_door()
async def test_a_line_that_trickles_in_has_no_more_time_than_one_that_stops(made: Door) -> None:
    caller = await made.call()
    loop = asyncio.get_running_loop()
    began, answer = loop.time(), b""
    while not answer and loop.time() < began + 100:
        caller.send(b" ")
        await asyncio.sleep(1)
        answer = bytes(caller.reader._buffer)  # type: ignore[attr-defined]
    assert b"did not end" in answer
    assert loop.time() <= began + 32


@at_door()
async def test_a_caller_that_asks_nothing_is_let_go_and_one_that_waits_is_not(made: Door) -> None:
    made.home.model.script = [takes(3000)]
    idler, waiter = await made.call(), await made.call()
    await waiter.ask({"to": "chat:1", "prompt": "x", "timeout": 4000, "expires": 4e9})
    assert await idler.reader.read() == b""
    assert asyncio.get_running_loop().time() < 700
    assert (await waiter.answer())["status"] == "delivered"
    assert asyncio.get_running_loop().time() > 2999


@at_door()
async def test_a_caller_that_leaves_in_mid_wait_gives_its_place_back_and_loses_only_the_answer(made: Door) -> None:
    made.home.model.script = [takes(500)]
    caller = await made.call()
    await caller.ask({"id": "a", "to": "chat:1", "prompt": "x"})
    assert len(made.serving) == 1
    await caller.leave()
    await asyncio.sleep(GONE_SECONDS + 1)
    assert not made.serving
    assert (await made.home.outcome("a")).state == "delivered"


@at_door()
async def test_a_half_close_is_not_a_leaving(made: Door) -> None:
    made.home.model.script = [takes(500)]
    caller = await made.call()
    caller.send({"id": "a", "to": "chat:1", "prompt": "x"})
    assert [answer["status"] for answer in await caller.rest()] == ["accepted", "delivered"]


async def ask_without_reading(made: Door, *requests: dict[str, Any]) -> Caller:
    caller = await made.call()
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
    caller.send(*requests)
    await settle()
    return caller


@at_door()
async def test_a_caller_that_reads_nothing_is_let_go_in_the_end(made: Door) -> None:
    await ask_without_reading(made, *[{"id": "i" * 200, "to": "chat"}] * 6000)
    assert len(made.serving) == 1
    await asyncio.sleep(UNREAD_SECONDS * 2 + 10)
    assert not made.serving


@pytest.mark.parametrize("line", [b'{"ping": true}\n', b"[]\n", b'{"status": "x"}\n'])
@at_door()
async def test_a_flood_from_one_caller_leaves_the_others_their_turn(made: Door, line: bytes) -> None:
    hog, caller = await made.call(), await made.call()
    hog.send(line * 6000)
    assert (await caller.ask({"ping": True}))["status"] == "pong"
    assert bytes(hog.reader._buffer).count(b"\n") < 3000  # type: ignore[attr-defined]
    assert len(await hog.rest()) == 6000


@at_door()
async def test_a_crowd_of_bad_requests_writes_few_lines_into_the_log(made: Door) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    try:
        caller = await made.call()
        caller.send(*[b"not json\n"] * 5000)
        assert len(await caller.rest()) == 5000
        await asyncio.sleep(61)
        await (await made.call()).ask(b"nor this\n")
    finally:
        logger.remove(sink)
    ours = [str(line) for line in lines if "cron." in str(line)]
    assert len(ours) == _WARNINGS_A_MINUTE + 2
    assert "4970 more lines were left out" in ours[-2]


@pytest.mark.parametrize("expires", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.9Z"])
@at_door()
async def test_an_instant_that_the_store_refuses_costs_no_other_request_its_place(made: Door, expires: str) -> None:
    bad, good = await made.call(), await made.call()
    async with made.home.inbox.thread_held():
        good.send({"id": "a", **TEXT})
        bad.send({"id": "b", "expires": expires, **TEXT})
        for _ in range(20):
            await asyncio.sleep(0)
    assert (await good.answer())["status"] == "accepted"
    assert await bad.answer() == {
        "id": "b", "status": "rejected", "error": "expires is out of range; write an instant from 1970 to 9999",
    }  # fmt: skip


@in_virtual_time
async def test_a_reply_without_end_is_cut_and_says_so(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.model.script = [says("x" * (10 * MOST_REPLY))]
        firing = await home.run(prompt="x")
        assert firing.state == "delivered"
        assert firing.reply is not None
        assert firing.reply == "x" * MOST_REPLY + "\n\n[cut here: the reply was longer than 65,536 characters]"


# --- What shows


HOSTILE = "\x1b[2J\x1b]0;title\x07 \u202eevil\u2066 \r\nforged line \x9b31m \u2028 \x00 \ud800"


def test_errors_are_one_printable_line_of_a_bounded_length() -> None:
    for text in (one_line(HOSTILE), described(RuntimeError(HOSTILE)), one_line(HOSTILE * 10_000_000)):
        assert text.isprintable()
        assert len(text) <= 330
    assert one_line("a\n b") == "a b"


def test_what_a_terminal_would_obey_reaches_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.clean(HOSTILE).isprintable()
    assert terminal.json_line({"reply": HOSTILE}).isprintable()
    terminal.table(("a", "b"), [(HOSTILE, HOSTILE)], elastic=("a",))
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_texts_of_messages_are_in_no_line_of_ours_above_debug(tmp_path: Path) -> None:
    secret, lines = "the-secret-text", []

    async def test() -> None:
        async with house(tmp_path) as home:
            home.model.script = [says(secret), breaks(RuntimeError(HOSTILE))]
            await home.run(prompt=secret, id="a")
            await home.run(prompt=secret, id="b", attempts=1)
            await home.run(text=secret, id="c")
            log_fault("cron.fault", ValueError(HOSTILE))
            assert secret not in repr(await home.get("a"))

    sink = logger.add(
        lambda line: lines.append(str(line)[:-1]),
        level="INFO",
        format="{message}",
        filter=lambda record: str(record["name"]).startswith("bub_cron"),
        backtrace=True,
        diagnose=True,
    )
    try:
        run(test())
    finally:
        logger.remove(sink)
    assert any("cron.failed id=b" in line for line in lines)
    assert not any(secret in line for line in lines)
    assert all(line.isprintable() for line in lines)


# --- The stores


HOLES = ["'; DROP TABLE firings; --", '" OR 1=1', "%", "?1", ":a", "\\"]


@pytest.mark.parametrize("text", HOLES)
@in_virtual_time
async def test_sql_in_any_field_is_text(tmp_path: Path, text: str) -> None:
    async with house(tmp_path) as home:
        firing = await home.run(text=text, to=f"chat:{text}", session=text, fire_time=text, context={"a": text})
        assert (firing.request.body, firing.request.session, firing.request.fire_time) == (text, text, text)
        assert await home.inbox.sql("SELECT count(*) FROM firings") == [(1,)]


def test_no_statement_is_put_together_from_values() -> None:
    """Every f-string that goes to SQLite holds our own constants alone: none of these names is a value's."""
    import re

    held = set()
    for path in Path("bub_cron").rglob("*.py"):
        for statement in re.findall(r'f"+[^"]*(?:SELECT|UPDATE|INSERT|DELETE|PRAGMA|ATTACH)[^"]*"', path.read_text()):
            held |= set(re.findall(r"{([^}]*)}", statement))
    made_of_ours = (
        "sql_list(",
        "_SOURCES[",
        "', '.join(columns)",
        "', '.join('?' * len(",
        "', '.join([row] * size)",
        "'FROM inbox.messages m' if",
    )
    assert {name for name in held if not name.startswith(made_of_ours)} <= {
        "_VIEW", "change", "marks", "where", "condition", "query", "name", "shape.journal", "shape.application_id",
        "shape.version", "pragma", "into", "values", "columns", "table", "names", "key", "column", "rowid", "later", "oldest",
        "backwards", "conflict", "each", "ids", "nothing", "only", "source", "store", "DUE", "FAR", "OPEN_BESIDE", "TOLD",
        "_COLUMNS", "_ENDED",
    }  # fmt: skip


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    file, proof = tmp_path / "reminders.yaml", tmp_path / "proof"
    file.write_text(f"reminders:\n  a: !!python/object/apply:os.mkdir ['{proof}']\n")
    done = subprocess.run([sys.executable, "-m", "bub_cron", "check", "--file", file], capture_output=True, text=True)
    assert (done.returncode, "tags (!) are not taken" in done.stdout) == (65, True)
    assert not proof.exists()


def test_the_socket_of_a_gateway_says_who_speaks_by_the_kernel(place: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    assert listener_module._peer_uid(ours) == os.getuid()
    ours.close()
    theirs.close()
