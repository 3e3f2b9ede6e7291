"""Time, downtime and sessions across the modules: whatever the clock, the machine, an editor or a user does."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bub import hookimpl
from bub.channels import ChannelMessage
from fake_bub import NOON as FAKE_NOON
from fake_bub import House as FakeHouse
from fake_bub import elapsed, in_house, settle, takes
from fake_gateway import Place, at, firing
from gateway_kit import House, until
from stand_in_model import Messages

from bub_cron.cli import commands
from bub_cron.errors import FileFaultsError, RequestError
from bub_cron.reminders import parse
from bub_cron.wire import iso, parse_request

DAY = "2026-11-23T"
NOON = at(DAY + "12:00:00")
MINUTE, HOUR, A_DAY, A_YEAR = 60, 3600, 86400, 365 * 86400
HEAD = "defaults: {to: 'telegram:1', timezone: UTC}\nreminders:\n"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "bub")


def file(**entries: str) -> str:
    """A file of reminders, each with its keys separated by semicolons."""
    lines = []
    for name, keys in entries.items():
        lines += [f"  {name}:", *(f"    {key.strip()}" for key in keys.split(";"))]
        lines += [] if "text:" in keys else ["    text: hi"]
    return HEAD + "\n".join([*lines, ""])


def begin(place: Place, text: str, now: int = NOON - 30) -> None:
    """Write a file and let the first tick read it."""
    place.write(text, now)
    assert place.tick(now) == (0, "")
    assert place.states() == {}


def rows(place: Place) -> list[tuple[str, str, str]]:
    """Each firing's (id, state, first words of the reason)."""
    return place.select("SELECT id, state, coalesce(reason, '') FROM firings ORDER BY fire_time, id")


def a(clock: str, name: str = "a") -> str:
    return firing(name, f"{DAY}{clock}:00")


# --- Hours without ticks

LATE = "late"


def test_after_hours_without_ticks_each_fire_time_has_the_row_that_its_reminder_asks_for(place: Place) -> None:
    begin(
        place,
        file(
            a="every: 1h",  # latest, grace 1h
            b="every: 1h; catch_up: all; grace: 150m",
            c="at: [2026-11-23 12:15, 2026-11-23 16:50]; text: x",  # latest, grace 24h
            d="every: 1h; enabled: false",
        ),
    )
    with place.gateway() as gateway:
        assert place.tick(NOON + 5 * HOUR) == (0, "")  # 17:00
    assert rows(place) == [
        (a("12:00"), "missed", LATE), (a("12:00", "b"), "missed", LATE),
        (a("12:15", "c"), "skipped", "superseded"),
        (a("13:00"), "missed", LATE), (a("13:00", "b"), "missed", LATE),
        (a("14:00"), "missed", LATE), (a("14:00", "b"), "missed", LATE),
        (a("15:00"), "missed", LATE), (a("15:00", "b"), "accepted", ""),
        (a("16:00"), "skipped", "superseded"), (a("16:00", "b"), "accepted", ""),
        (a("16:50", "c"), "accepted", ""),
        (a("17:00"), "accepted", ""), (a("17:00", "b"), "accepted", ""),
    ]  # fmt: skip
    assert len(gateway.taken) == len(set(gateway.taken)) == 5


def test_how_often_ticks_ran_changes_nothing_but_what_was_too_late(place: Place, tmp_path: Path) -> None:
    text = file(a="cron: '*/7 * * * *'; grace: 1d; catch_up: all", b="every: 11m; grace: 1d; catch_up: all")
    taken = []
    for number, moments in enumerate([range(0, 4 * HOUR, MINUTE), (10, 3000, 3001, 9999, 4 * HOUR - 60)]):
        house = Place(tmp_path / str(number))
        begin(house, text, NOON - HOUR)
        with house.gateway() as gateway:
            for moment in moments:
                assert house.tick(NOON + moment) == (0, "")
        taken.append(sorted(gateway.taken))
    assert taken[0] == taken[1]
    minutes = range((NOON - HOUR) // MINUTE + 1, (NOON + 4 * HOUR) // MINUTE)
    expected = [f"a@{iso(minute * MINUTE)}" for minute in minutes if minute % 60 % 7 == 0]
    expected += [f"b@{iso(minute * MINUTE)}" for minute in minutes if minute % 11 == 0]
    assert taken[0] == sorted(expected)


# --- The clock


@pytest.mark.parametrize("leap", [A_DAY, A_YEAR])
@pytest.mark.parametrize("schedule", ["every: 1m", "every: 1h", "cron: '30 12 * * *'"])
def test_a_clock_that_was_ahead_for_one_tick_costs_no_fire_time_afterwards(
    place: Place, tmp_path: Path, schedule: str, leap: int
) -> None:
    """A machine that starts with a wrong clock: what it called missed had not come yet, and comes all the same."""
    begin(place, file(a=schedule))
    twin = Place(tmp_path / "twin")  # whose clock is right all the time
    begin(twin, file(a=schedule))
    ticks = [*range(NOON + 2 * MINUTE, NOON + 40 * MINUTE, MINUTE), *range(NOON + A_DAY, NOON + 2 * A_DAY, HOUR)]
    with place.gateway() as gateway, twin.gateway() as right:
        for moment in (NOON - 20, NOON + MINUTE):
            twin.tick(moment)
        assert place.tick(NOON - 20) == (0, "")
        assert place.tick(NOON + leap + 7)[0] == 0
        early = set(gateway.submitted)  # what was within its grace by the wrong clock
        status, said = place.tick(NOON + MINUTE)
        assert (status, "the clock is behind the last tick" in said) == (0, True)
        for moment in ticks:
            assert place.tick(moment) == (0, "")
            assert twin.tick(moment) == (0, "")
    came = set(right.submitted)
    assert came
    assert len(gateway.submitted) == len(set(gateway.submitted))
    assert set(gateway.submitted) >= early | came
    # Where one that is caught up with was submitted early, the one before it starts.
    others = set(gateway.submitted) - early - came
    assert {twin.states()[identity] for identity in others} <= {"skipped"}
    assert len(others) <= len(early)
    assert set(place.states()) == early | set(twin.states())


@pytest.mark.parametrize("leap", [HOUR, A_DAY, A_YEAR])
def test_a_clock_that_goes_ahead_and_stays_leaves_a_bounded_number_of_rows(place: Place, leap: int) -> None:
    begin(place, file(a="every: 1m", b="every: 1h", c="cron: '0 9 * * *'"))
    with place.gateway() as gateway:
        assert place.tick(NOON) == (0, "")
        for minute in range(5):  # tick after tick: only the first one finds anything to make up for
            assert place.tick(NOON + leap + minute * MINUTE) == (0, "")
    for name, passed, came in (("a", leap // MINUTE, 4), ("b", leap // HOUR, 0)):
        counts = place.select("SELECT count(*), sum(count) FROM firings WHERE reminder = ?", name)
        assert counts == [(1 + min(passed, 1001) + came, 1 + passed + came)]
    taken = [identity for identity in gateway.taken if identity.startswith("a@")]
    assert taken == [a("12:00"), *(f"a@{iso(NOON + leap + minute * MINUTE)}" for minute in range(5))]
    assert set(place.states().values()) <= {"accepted", "missed", "skipped"}


def test_a_clock_that_is_a_year_ahead_does_not_wipe_what_is_known_and_one_that_stays_does_so_a_day_later(
    place: Place,
) -> None:
    begin(place, file(a="cron: '0 12 * * *'"))
    with place.gateway() as gateway:
        assert place.tick(NOON) == (0, "")
        assert place.tick(NOON + A_YEAR) == (0, "")
        assert place.states()[a("12:00")] == "accepted"
        assert place.tick(NOON - MINUTE)[0] == 0  # it had been a minute ahead even before
        assert place.tick(NOON) == (0, "")
        assert gateway.submitted.count(a("12:00")) == 1
        assert place.tick(NOON + A_YEAR) == (0, "")
        assert place.tick(NOON + A_YEAR + A_DAY) == (0, "")
    assert a("12:00") not in place.states()


@pytest.mark.parametrize("leap", [HOUR, A_DAY, A_YEAR])
def test_a_clock_that_goes_back_and_stays_repeats_nothing_and_adds_only_what_comes(place: Place, leap: int) -> None:
    begin(place, file(a="every: 10m"))
    near = leap == HOUR  # from before the reminder came into force, an hour ago: no fire times
    with place.gateway() as gateway:
        for minute in range(21):
            assert place.tick(NOON + minute * MINUTE) == (0, "")
        said = [place.tick(NOON - leap + minute * MINUTE) for minute in range(90)]
    assert [status for status, _ in said] == [0] * 90
    assert [bool(text) for _, text in said] == [True] + [False] * 89
    old = [a("12:00"), a("12:10"), a("12:20")]
    after = [f"a@{iso(NOON - leap + minute * MINUTE)}" for minute in range(10, 90, 10)]
    expected = [] if near else after
    assert gateway.submitted == [*old, *expected]
    assert place.states() == dict.fromkeys(sorted({*old, *expected}), "accepted")


def test_an_at_that_was_past_by_a_wrong_clock_fires_when_it_comes(place: Place) -> None:
    wrong = NOON + A_YEAR
    place.write(file(a="every: 1d"), wrong)
    assert place.tick(wrong) == (0, "")
    place.write(file(a="at: 2026-11-23 12:30"), wrong + 5)
    assert place.tick(wrong + 10) == (0, "")
    assert place.states() == {a("12:30"): "missed"}
    place.tick(NOON)
    with place.gateway() as gateway:
        assert place.tick(NOON + 30 * MINUTE) == (0, "")
    assert gateway.taken == [a("12:30")]


# --- The file


def test_a_file_that_is_saved_a_second_before_its_minute_does_not_miss_it(place: Place) -> None:
    begin(place, file(old="every: 1d"), NOON - MINUTE + 1)
    entries = {"a": "at: 2026-11-23 12:00", "b": "cron: '0 12 * * *'", "c": "every: 1h"}
    place.write(file(**entries), NOON - 1)
    with place.gateway() as gateway:
        assert place.tick(NOON + 1) == (0, "")
    assert gateway.taken == [a("12:00", name) for name in entries]


def test_an_old_time_that_was_edited_away_just_before_it_never_fires_and_has_no_row(place: Place) -> None:
    begin(place, file(a="cron: '0 12 * * *'", b="cron: '0 12 * * *'", c="cron: '0 12 * * *'"))
    place.write(file(a="cron: '5 12 * * *'", b="cron: '0 12 * * *'; enabled: false"), NOON - 1)
    with place.gateway() as gateway:
        for minute in range(10):
            assert place.tick(NOON + minute * MINUTE + 1) == (0, "")
    assert gateway.submitted == [a("12:05")]
    assert place.states() == {a("12:05"): "accepted"}


def test_a_changed_message_keeps_its_schedule_and_its_minute(place: Place) -> None:
    begin(place, file(a="every: 1h; text: old"))
    place.write(file(a="every: 1h; text: new"), NOON + 1)  # after the fire time, before its tick
    with place.gateway() as gateway:
        assert place.tick(NOON + 2) == (0, "")
        assert place.tick(NOON + HOUR) == (0, "")
    assert [(request["id"], request["text"]) for request in gateway.requests if "id" in request] == [
        (a("12:00"), "new"), (a("13:00"), "new")
    ]  # fmt: skip


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def by_rename_aside(path: Path, text: str) -> None:
    """As vim does with a backup: the old one moves away, a new one takes its name."""
    os.rename(path, f"{path}~")
    path.write_text(text)


def behind_the_link(path: Path, text: str) -> None:
    Path(os.path.realpath(path)).write_text(text)


def other_target(path: Path, text: str) -> None:
    """As a deployment does: a new directory of files, and the link is swapped for one to it."""
    fresh = path.with_name("next.yaml")
    fresh.write_text(text)
    os.utime(fresh, (0, 0))  # it may be older than what it replaces
    link = path.with_name("link")
    os.symlink(fresh, link)
    os.replace(link, path)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("save", [in_place, by_rename, by_rename_aside, behind_the_link, other_target])
@pytest.mark.parametrize("same_size", [False, True])
def test_however_a_file_is_replaced_the_next_tick_sees_it(
    place: Place, save: Callable[[Path, str], None], linked: bool, same_size: bool
) -> None:
    path = Path(place.paths.file)
    path.parent.mkdir(parents=True)
    real = path.with_name("real.yaml") if linked else path
    real.write_text(file(a="every: 1h; text: one"))
    os.utime(real, (NOON - 60, NOON - 60))
    if linked:
        path.symlink_to(real)
    place.tick(NOON - 30)
    save(path, file(a=f"every: 1h; text: {'two' if same_size else 'another'}"))
    with place.gateway() as gateway:
        assert place.tick(NOON) == (0, "")
    assert [request["text"] for request in gateway.requests] == ["two" if same_size else "another"]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    shm = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
    if not os.access(shm, os.W_OK) or os.stat(shm).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as directory:
        yield Path(directory)


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_on_another_file_system(place: Place, elsewhere: Path, linked: bool) -> None:
    path = elsewhere / "reminders.yaml"
    path.write_text(file(a="every: 1h; text: one"))
    if linked:
        Path(place.paths.file).parent.mkdir(parents=True)
        Path(place.paths.file).symlink_to(path)
    else:
        place.paths.file = str(path)
    place.tick(NOON - 30)
    by_rename(path, file(a="every: 1h; text: two"))
    with place.gateway() as gateway:
        assert place.tick(NOON) == (0, "")
    assert [request["text"] for request in gateway.requests] == ["two"]


def test_a_link_to_nowhere_is_a_missing_file_and_the_last_good_one_stays_in_force(place: Place) -> None:
    begin(place, file(a="every: 1h"))
    path = Path(place.paths.file)
    path.unlink()
    path.symlink_to("gone.yaml")
    with place.gateway() as gateway:
        status, said = place.tick(NOON)
    assert (status, "does not exist" in said, gateway.taken) == (66, True, [a("12:00")])


def test_wherever_a_half_written_file_ends_with_a_fault_the_last_good_one_stays_in_force(place: Place) -> None:
    good = file(a="every: 1m; text: hi", b="every: 1m; attempts: 2; text: ho")
    begin(place, good)
    stored = place.select("SELECT name, schedule, content FROM reminders")
    faulty = [cut for cut in range(len(good)) if is_faulty(good[:cut])]
    assert len(faulty) > 100
    with place.gateway() as gateway:
        for minute, cut in enumerate(faulty):
            in_place(Path(place.paths.file), good[:cut])
            status, said = place.tick(NOON + minute * MINUTE)
            assert status == 65
            assert not said or said.endswith("bub-cron: until that is fixed, the last good version stays in force\n")
    assert place.select("SELECT name, schedule, content FROM reminders") == stored
    assert Counter(identity[0] for identity in gateway.taken) == {"a": len(faulty), "b": len(faulty)}


def test_a_fault_is_not_said_again_because_another_trouble_has_gone(place: Place) -> None:
    begin(place, file(a="every: 1h"))
    place.write("reminders: [", NOON - 20)
    said = [place.tick(NOON - 10), place.tick(NOON)]  # no gateway, besides
    with place.gateway():
        said += [place.tick(NOON + minute * MINUTE) for minute in range(1, 58)]
    assert [bool(text) for _, text in said] == [True, True] + [False] * 57
    assert [status for status, _ in said] == [65, 69] + [65] * 57


def is_faulty(text: str) -> bool:
    try:
        parse(text.encode(), "f")
    except FileFaultsError:
        return True
    return False  # what is there by then is a good file of its own; nobody could tell


# --- A start with much overdue


class Gate:
    """A model's answer that waits at a gate, and knows how many wait there."""

    def __init__(self) -> None:
        self.waiting = self.most = 0
        self._open = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, messages: Messages) -> str:
        with self._lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        self._open.wait(120)
        with self._lock:
            self.waiting -= 1
        return "the model's reply"

    def close(self) -> None:
        self.most = 0
        self._open.clear()

    def open(self) -> None:
        self._open.set()


def seconds_of(what: Callable[[], object]) -> float:
    """The time that something takes, the best of three: the machine may have other things to do."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        what()
        times.append(time.perf_counter() - began)
    return min(times)


def dump(path: Path) -> list[str]:
    """All of a store's content."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        return list(store.iterdump())


def look(house: House, *arguments: str) -> str:
    """Run a command in this process, so that its own time is measured and not an interpreter's start."""
    out = io.StringIO()
    paths = ["--file", str(house.reminders), "--state", str(house.socket.parent), "--socket", str(house.socket)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            assert commands([*arguments, *paths], standalone_mode=False) in (0, None)
        except SystemExit as end:  # status may have something to say
            assert end.code == 0 or (arguments[0] == "status" and end.code == 1)
    return out.getvalue()


def test_fifty_overdue_firings_at_a_start_run_a_few_at_once_while_everything_answers(
    make_house: Callable[..., House],
) -> None:
    gate, most = Gate(), 3
    house = make_house(gate)
    house.write_due({f"r{number}": f'to: "testchat:{number}", prompt: x' for number in range(50)})
    gateway = house.gateway(BUB_CRON_MAX_CONCURRENT=str(most))
    house.command("tick", check=0)
    until(lambda: gate.waiting >= most, "the first turns")
    assert gateway.stop() == 0
    gate.open()
    until(lambda: not gate.waiting, "the stopped turns' end")
    gate.close()

    gateway = house.gateway(BUB_CRON_MAX_CONCURRENT=str(most))  # finds all fifty
    until(lambda: gate.waiting >= most, "the first turns again")
    [pong] = gateway.ask(ping=True)
    assert (pong["running"], pong["waiting"]) == (most, 50 - most)
    assert seconds_of(lambda: gateway.ask(ping=True)) < 1
    before = dump(house.home / "cron" / "inbox.db"), dump(house.home / "cron" / "ledger.db")
    looks = (["list"], ["log", "-n", "100"], ["log", "r7"], ["next"], ["check"], ["list", "--json"])
    for arguments in (*looks, ["status"], ["status", "--json"]):
        shown: list[str] = []
        assert seconds_of(lambda arguments=arguments, shown=shown: shown.append(look(house, *arguments))) < 1  # type: ignore[misc]
        assert shown[0]
    for arguments in (["schema"], ["fire", "--help"]):
        look(house, *arguments)
    assert (dump(house.home / "cron" / "inbox.db"), dump(house.home / "cron" / "ledger.db")) == before

    gate.open()
    until(lambda: set(house.outcomes().values()) == {"delivered"}, "all delivered")
    assert gate.most == most
    assert Counter(house.messages()) == {(str(number), "the model's reply"): 1 for number in range(50)}
    assert {entry["attempts"] for entry in house.log()} == {1}


# --- Users, and turns of other sessions


class Dies:
    """A plugin in which a user's turn dies after 50 seconds, at one of Bub's hooks."""

    def __init__(self, hook: str) -> None:
        self._hook = hook

    async def _die(self, hook: str, message: Any) -> None:
        if hook == self._hook and getattr(message, "channel", "cron") != "cron":
            await asyncio.sleep(50)
            raise RuntimeError(f"the turn died in {hook}")

    @hookimpl(tryfirst=True)
    async def build_prompt(self, message: Any, session_id: str, state: dict[str, Any]) -> None:
        await self._die("build_prompt", message)

    @hookimpl(trylast=True)  # of those with a state, the ones before it have been asked already
    async def load_state(self, message: Any, session_id: str) -> None:
        await self._die("load_state", message)

    @hookimpl(tryfirst=True)
    async def save_state(self, session_id: str, state: Any, message: Any, model_output: str) -> None:
        await self._die("save_state", message)

    @hookimpl(tryfirst=True)
    async def render_outbound(self, message: Any, session_id: str, state: dict[str, Any], model_output: str) -> None:
        await self._die("render_outbound", message)


def user_message() -> ChannelMessage:
    return ChannelMessage("chat:1", "chat", "hi", chat_id="1")


@pytest.mark.parametrize("hook", ["build_prompt", "load_state", "save_state", "render_outbound"])
@in_house()
async def test_a_users_turn_that_dies_anywhere_lets_the_firing_that_waits_for_it_go_on(
    home: FakeHouse, hook: str
) -> None:
    home.framework.plugin_manager.register(Dies(hook))
    user = asyncio.create_task(home.framework.process_inbound(user_message()))
    await settle()
    firing = await home.run(prompt="x")
    assert firing.state == "delivered"
    assert round(elapsed()) <= 51
    await asyncio.wait({user})


@in_house()
async def test_a_users_turn_is_over_when_its_state_is_saved_whatever_its_task_goes_on_with(home: FakeHouse) -> None:
    async def turn_and_more() -> None:
        await home.user_turn("chat:1", 50)
        await asyncio.sleep(500)

    user = asyncio.create_task(turn_and_more())
    await settle()
    await home.run(prompt="x")
    assert round(elapsed()) == 50
    await user


@in_house()
async def test_a_users_turn_that_is_cancelled_lets_the_firing_that_waits_for_it_go_on(home: FakeHouse) -> None:
    user = asyncio.create_task(home.user_turn("chat:1", 500))
    await settle()
    await home.take(prompt="x")
    await asyncio.sleep(20)
    assert (await home.get()).state == "accepted"
    user.cancel()
    assert (await home.outcome("a")).state == "delivered"
    assert round(elapsed()) == 20


@in_house()
async def test_with_queue_the_later_firing_starts_after_the_earlier_and_with_skip_it_is_missed(home: FakeHouse) -> None:
    home.model.always = takes(100)
    first = {"reminder": "r", "prompt": "x", "fire_time": iso(FAKE_NOON)}
    later = {**first, "fire_time": iso(FAKE_NOON + 60)}
    await home.take(id="first", **first)
    await asyncio.sleep(60)
    skipped = await home.run(id="skips", **later)
    assert (skipped.state, skipped.error) == ("skipped", "first still ran")
    queued = await home.run(id="queues", **later, overlap="queue")
    assert (queued.state, queued.started_at) == ("delivered", FAKE_NOON + 100)


# --- What reaches the turn


@in_house()
async def test_neither_target_nor_session_smuggles_anything_into_the_turn(home: FakeHouse) -> None:
    firing = await home.run(
        prompt="x", to="chat:9|model=evil|thread_id=7", session="s|channel=$other", context={"topic": "a|model=b"}
    )
    assert firing.state == "delivered"
    (state,) = home.model.states
    assert state["session_id"] == "s|channel=$other"
    assert not {"model", "_runtime_thread_id"} & set(state)
    (message,) = home.chat.taken
    assert message.chat_id == "9|model=evil|thread_id=7"
    assert set(message.context) == {"channel", "chat_id", "topic"}
    assert home.other.taken == []


FOREIGN = [
    "channel",
    "chat_id",
    "session_id",
    "output_channel",
    "state",
    "kind",
    "media",
    "_runtime_thread_id",
    "thread_id",
]


@pytest.mark.parametrize("key", FOREIGN)
def test_no_other_key_is_taken_by_the_socket_or_the_file(key: str) -> None:
    with pytest.raises(RequestError, match=f"unknown field '{key}'"):
        parse_request(json.dumps({"to": "chat:1", "prompt": "x", key: "y"}).encode(), now=0, new_id=lambda: "made-up")
    with pytest.raises(FileFaultsError) as error:
        parse(file(a=f"every: 1h; {key}: y").encode(), "f")
    assert [fault.message.split(",")[0].split(";")[0] for fault in error.value.faults] == [f"unknown key '{key}'"]


@in_house()
async def test_what_the_file_says_of_model_and_context_is_what_the_turn_gets(home: FakeHouse, place: Place) -> None:
    entry = "  a: {every: 1h, to: 'chat:1', prompt: say it, model: openai:x, context: {thread_id: t7}}\n"
    begin(place, HEAD + entry)
    with place.gateway() as gateway:
        assert place.tick(NOON) == (0, "")
    (request,) = gateway.requests

    await home.run(**{**request, "expires": iso(FAKE_NOON + 60)})
    (state,) = home.model.states
    assert (state["model"], state["_runtime_thread_id"]) == ("openai:x", "t7")
