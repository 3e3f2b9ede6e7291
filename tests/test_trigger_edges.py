"""The trigger side at its edges: a gateway that lost a record or is stopped, a journal that was left, odd names and places."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fake_gateway import Message, Place, at, firing, silent
from gateway_kit import SCRIPTS

from bub_cron.errors import FileFaultsError, RequestError
from bub_cron.health.status import look
from bub_cron.records import history
from bub_cron.reminders import parse
from bub_cron.trigger import client, crontabs, submitting, units
from bub_cron.wire import parse_request

DAY = "2026-11-23T"
NOON = at(DAY + "12:00:00")
MINUTE, HOUR = 60, 3600
FILE = "defaults: {to: 'telegram:1', timezone: UTC}\nreminders:\n  a: {every: 1h, text: hi}\n"
EVERY_MINUTE = FILE.replace("1h", "1m")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "bub")


def a(clock: str) -> str:
    return firing("a", f"{DAY}{clock}:00")


def begin(place: Place, text: str = FILE, now: int = NOON - 30) -> None:
    place.write(text, now)
    assert place.tick(now) == (0, "")


# --- What a gateway accepted


def ending(place: Place, words: dict[str, str], now: int) -> list[str]:
    """Run a tick with a gateway that tells where firings stand, by their clocks; return which it was asked for."""

    def script(request: Message) -> list[Message]:
        if "status" in request:
            return [{"id": request["status"], "status": words[request["status"][-9:-4]]}]
        return [{"id": request["id"], "status": "accepted"}]

    with place.gateway(script) as gateway:
        assert place.tick(now) == (0, "")
    return [asked[-9:-4] for asked in gateway.asked]


def test_a_tick_that_talks_to_a_gateway_learns_the_final_outcomes_of_before(place: Place) -> None:
    begin(place, EVERY_MINUTE)
    assert ending(place, {}, NOON) == []
    assert ending(place, {"12:00": "running"}, NOON + MINUTE) == ["12:00"]
    assert ending(place, {"12:00": "delivered", "12:01": "retrying"}, NOON + 2 * MINUTE) == ["12:00", "12:01"]
    assert ending(place, {"12:01": "failed", "12:02": "silent"}, NOON + 3 * MINUTE) == ["12:01", "12:02"]
    found = {entry.id[-9:-4]: entry.outcome for entry in history(place.paths)}
    assert found == {"12:00": "delivered", "12:01": "failed", "12:02": "silent", "12:03": "accepted"}
    assert set(place.states().values()) == {"accepted"}


def test_a_tick_with_nothing_due_asks_nobody(place: Place) -> None:
    begin(place)
    ending(place, {}, NOON)
    assert ending(place, {}, NOON + 5 * MINUTE) == []


def test_it_asks_for_no_more_than_so_many_the_oldest_first(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "MOST_ASKED", 3)
    begin(place, EVERY_MINUTE.replace("text: hi", "text: hi, catch_up: all"))
    ending(place, {}, NOON + 5 * MINUTE)
    words = {f"12:0{minute}": "delivered" for minute in range(7)}
    assert ending(place, words, NOON + 6 * MINUTE) == ["12:00", "12:01", "12:02"]
    assert ending(place, words, NOON + 7 * MINUTE) == ["12:03", "12:04", "12:05"]


def test_what_no_inbox_knows_any_more_ends_unknown_once_and_is_named(place: Place) -> None:
    begin(place)
    ending(place, {}, NOON)
    assert ending(place, {"12:00": "unknown-id"}, NOON + HOUR) == ["12:00"]
    assert place.states() == {a("12:00"): "unknown", a("13:00"): "accepted"}
    assert place.reason(a("12:00")) == "lost_record"
    assert "inbox doesn't know it any more" in str(place.error(a("12:00")))
    assert ending(place, {"13:00": "delivered"}, NOON + 2 * HOUR) == ["13:00"]  # it is not asked for again
    assert place.select("SELECT settled_at FROM firings WHERE id = ?", a("12:00")) == [(NOON + HOUR,)]
    sentences = {now: [s for s in look(place.paths, now).attention if "inbox doesn't know" in s] for now in (
        NOON + 2 * HOUR, NOON + 24 * HOUR, NOON + 26 * HOUR)}  # fmt: skip
    # Also after others of the reminder have worked.
    assert [len(found) for found in sentences.values()] == [1, 1, 0]


def test_what_is_lost_stays_lost_though_it_is_delivered_late(place: Place) -> None:
    """The inbox's word counts, where it has one again: its store was put back."""
    begin(place)
    ending(place, {}, NOON)
    ending(place, {"12:00": "unknown-id"}, NOON + HOUR)
    place.fill_inbox(id=a("12:00"), reminder="a", fire_time=f"{DAY}12:00:00Z", state="delivered", accepted_at=NOON)
    assert {entry.id: entry.outcome for entry in history(place.paths)}[a("12:00")] == "delivered"


@pytest.mark.parametrize("answer", [{"status": "busy"}, {"status": "rejected", "error": "x"}, {"status": "pong"}])
def test_an_answer_that_tells_nothing_changes_nothing(place: Place, answer: Message) -> None:
    begin(place)
    ending(place, {}, NOON)

    def script(request: Message) -> list[Message]:
        return [
            {
                "id": request.get("status") or request["id"],
                **(answer if "status" in request else {"status": "accepted"}),
            }
        ]

    with place.gateway(script):
        assert place.tick(NOON + HOUR)[0] == 0
    assert place.states()[a("12:00")] == "accepted"


# --- A gateway that lives and doesn't answer


@pytest.fixture
def in_doubt(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A firing that was submitted and not answered; its inbox, as the file shows it, doesn't have it; it is edited away."""
    begin(place)
    with place.gateway(leave_after=1):
        assert place.tick(NOON)[0] == 69
    place.fill_inbox(id="another")
    place.write(FILE.replace("a:", "b:"), NOON + 5)
    monkeypatch.setattr(client, "PATIENCE", 0.1)
    return place


def test_while_somebody_listens_the_inboxs_file_is_not_asked(in_doubt: Place) -> None:
    with in_doubt.gateway(silent):
        assert in_doubt.tick(NOON + MINUTE)[0] == 69
    assert in_doubt.states() == {a("12:00"): "due"}
    assert in_doubt.tick(NOON + 2 * MINUTE) == (0, "")  # nobody there: the file tells
    assert in_doubt.states() == {a("12:00"): "skipped"}


@pytest.mark.parametrize("place_", ["inbox", "socket"])
def test_while_somebody_holds_the_lock_the_inboxs_file_is_not_asked(in_doubt: Place, place_: str) -> None:
    with open(f"{getattr(in_doubt.paths, place_)}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert in_doubt.tick(NOON + MINUTE)[0] == 69
        assert in_doubt.states() == {a("12:00"): "due"}
    assert in_doubt.tick(NOON + 2 * MINUTE) == (0, "")
    assert in_doubt.states() == {a("12:00"): "skipped"}


STOPPED = """
import socket, sys, time
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def stopped(in_doubt: Place) -> Iterator[subprocess.Popen[str]]:
    """A process that listens, and is stopped by SIGSTOP."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, in_doubt.paths.socket], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_gateway_that_is_stopped_leaves_it_due(in_doubt: Place, stopped: subprocess.Popen[str]) -> None:
    assert in_doubt.tick(NOON + MINUTE)[0] == 69
    assert in_doubt.states() == {a("12:00"): "due"}
    stopped.kill()
    stopped.wait()
    assert in_doubt.tick(NOON + 2 * MINUTE) == (0, "")  # the socket's file is still there, and nobody behind it
    assert in_doubt.states() == {a("12:00"): "skipped"}


# --- A journal that was left

KILLED = """
import os, signal, sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("PRAGMA cache_size = 1")
store.execute("BEGIN IMMEDIATE")
store.execute("UPDATE firings SET error = 'half of it' || hex(randomblob(2000))")
store.execute("DELETE FROM firings WHERE fire_time < 1")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_readers_of_a_ledger_with_a_hot_journal_still_read(place: Place) -> None:
    begin(place, EVERY_MINUTE.replace("text: hi", "text: hi, catch_up: all"))
    with place.gateway():
        place.tick(NOON + 50 * MINUTE)
    before = [(entry.id, entry.outcome, entry.error) for entry in history(place.paths)]
    subprocess.run([sys.executable, "-c", KILLED, place.paths.ledger], check=False)
    files = {path.name: path.read_bytes() for path in Path(place.paths.state).iterdir()}
    assert "ledger.db-journal" in files
    assert [(entry.id, entry.outcome, entry.error) for entry in history(place.paths)] == before
    assert {path.name: path.read_bytes() for path in Path(place.paths.state).iterdir()} == files
    assert place.tick(NOON + 51 * MINUTE)[0] == 69  # the next tick takes it back for good
    assert not os.path.exists(f"{place.paths.ledger}-journal")


def test_a_ledger_of_the_version_before_is_readable_before_a_tick_has_run(place: Place) -> None:
    os.makedirs(place.paths.state, mode=0o700)
    shutil.copyfile(Path(__file__).parent / "stores" / "ledger-2.db", place.paths.ledger)
    os.chmod(place.paths.ledger, 0o600)
    with closing(sqlite3.connect(place.paths.ledger)) as store:
        sentences = {reason for (reason,) in store.execute("SELECT reason FROM firings")}
    found = history(place.paths)
    assert {entry.error for entry in found} == sentences


# --- Names and places


@pytest.mark.parametrize("name", ["-n", "-", ".a", "--file"])
def test_a_name_that_a_command_would_take_for_an_option_is_none(name: str) -> None:
    with pytest.raises(FileFaultsError) as error:
        parse(f"reminders:\n  '{name}': {{every: 1h, text: hi, to: 't:1'}}\n".encode(), "f")
    assert error.value.faults[0].line == 2
    with pytest.raises(RequestError):
        parse_request(json.dumps({"to": "t:1", "text": "x", "reminder": name}).encode(), now=0, new_id=str)


@pytest.mark.parametrize("name", ["a", "_a", "7", "a-b", "a.b-"])
def test_other_names_are(name: str) -> None:
    assert parse(f"reminders:\n  '{name}': {{every: 1h, text: hi, to: 't:1'}}\n".encode(), "f")[0].name == name


COMMANDS = [["tick"], ["list"], ["log"], ["status"], ["doctor"], ["next"], ["check"]]


def test_a_home_that_is_not_utf_8_is_one(tmp_path: Path) -> None:
    home = os.fsencode(tmp_path) + b"/\xff%?#"
    os.mkdir(home)
    with open(home + b"/reminders.yaml", "w") as file:
        file.write(FILE)
    environment = {**os.environb, b"BUB_HOME": home}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPTS / "bub-cron"), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)

    for _ in range(2):
        assert run("tick").returncode == 0
    for command in COMMANDS:
        done = run(*command)
        assert (done.returncode, "Traceback" in done.stderr) == (1 if command[0] in ("status", "doctor") else 0, False)
    os.unlink(home + b"/reminders.yaml")
    assert run("tick").returncode == 66


@pytest.mark.parametrize("command", COMMANDS)
def test_a_working_directory_that_was_removed(tmp_path: Path, command: list[str]) -> None:
    gone, home = tmp_path / "gone", tmp_path / "home"
    home.mkdir()
    (home / "reminders.yaml").write_text(FILE)
    for path, status in (("relative", 65), (str(home), 1 if command[0] in ("status", "doctor") else 0)):
        gone.mkdir()
        words = [
            "/bin/sh",
            "-c",
            'cd "$1" && rmdir "$1" && shift && exec "$@"',
            "sh",
            str(gone),
            str(SCRIPTS / "bub-cron"),
            *command,
        ]
        done = subprocess.run(words, env={**os.environ, "BUB_HOME": path}, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        assert (done.returncode, "which has been removed" in done.stderr) == (status, path == "relative")


@pytest.mark.parametrize(
    "name", ["TZ", "PYTHONTZPATH", "BUB_CRON_KEEP_DAYS", "BUB_CRON_KEEP_MIB", "BUB_CRON_TRUST_DIRS"]
)
def test_a_unit_and_a_crontab_have_the_settings_that_a_tick_goes_by(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    bare = units.unit_files(units.USER, units.baked("/usr/bin/python", place.paths))[units.SERVICE]
    monkeypatch.setenv(name, "/some value")
    told = units.unit_files(units.USER, units.baked("/usr/bin/python", place.paths))[units.SERVICE]
    assert f"{name}=" not in bare
    assert f'"{name}=/some value"' in told
    assert f"{name}=/some value" in crontabs.tick_command("/usr/bin/python", place.paths)


def test_the_text_of_a_gateway_that_holds_half_a_character_ends_no_tick(place: Place) -> None:
    begin(place)
    with place.gateway(
        lambda request: [f'{{"id": "{request["id"]}", "status": "rejected", "error": "\\ud800"}}\n'.encode()]
    ):
        assert place.tick(NOON)[0] == 76
    assert place.error(a("12:00")) == "?"
