"""Full disks, read-only disks, and stores that are damaged, newer or foreign, with the real tick and a real gateway.

Each disk is a small tmpfs in a mount namespace of its own, which a sleeping process keeps; nothing of it is seen outside.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Held
from demo import expose_plugin
from fake_bub import request
from fake_gateway import FakeGateway, Message
from gateway_kit import PATIENCE, SCRIPTS, Gateway, House, until

from bub_cron.gateway import inbox
from bub_cron.store import open_store
from bub_cron.trigger import ledger
from bub_cron.wire import iso

PAGE = 4096
SIZE = 1536 * 1024


class Disk:
    """A tmpfs at `house.home/disk`, seen by what `run` and `gateway` start, with both stores on it."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.state = house.home / "disk"
        self.state.mkdir(mode=0o700)
        mounted = Path("/proc/self/mounts").read_text().split("\n")
        assert all(str(house.home) not in mount for mount in mounted)
        script = f"mount --make-rprivate / && mount -t tmpfs -o size={SIZE},mode=700 tmpfs '{self.state}' && echo there && exec sleep 600"
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "bash", "-c", script],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        self.trouble = self._keeper.stdout.readline().strip().removeprefix("there")
        # The same directory, as it is seen from outside of the namespace.
        self.outside = Path(f"/proc/{self._keeper.pid}/root{self.state}")
        self._filler = self.outside / "filler"
        self.environment = {
            **house.environment,
            "BUB_CRON_STATE": str(self.state),
            "BUB_CRON_SOCKET": str(house.socket),
        }

    def close(self) -> None:
        self._keeper.kill()
        self._keeper.communicate()

    def inside(self, *command: str | Path) -> list[str | Path]:
        enter: list[str | Path] = ["nsenter", "-t", str(self._keeper.pid), "-m", "--"]
        return [*enter, "env", f"--chdir={self.house.home}", *command]

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.inside(*command), env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )

    def tick(self) -> tuple[int, str]:
        """Run the real tick; return its exit status and what it said."""
        done = self.run(SCRIPTS / "bub-cron", "tick")
        assert done.stdout == ""
        return done.returncode, done.stderr

    def outcomes(self) -> dict[str, str]:
        done = self.run(SCRIPTS / "bub-cron", "log", "--json", "-n", "1000")
        assert done.returncode == 0, done.stderr
        return {entry["id"]: entry["outcome"] for entry in map(json.loads, done.stdout.splitlines())}

    def write_due(self, reminders: dict[str, str]) -> None:
        """As the house's, with the tick before them run on this disk."""
        minute = int(time.time()) // 60 * 60
        lines = [f'  {name}: {{at: "{iso(minute)}", {rest}}}' for name, rest in reminders.items()]
        self.house.reminders.write_text("\n".join(["reminders:", *lines, ""]))
        os.utime(self.house.reminders, (minute - 20, minute - 20))
        code = "import sys; from bub_cron.trigger import tick; from bub_cron.paths import find_paths\n"
        code += "sys.exit(tick.run(find_paths(), float(sys.argv[1])))"
        done = self.run(sys.executable, "-c", code, str(minute - 30))
        assert (done.returncode, done.stderr) == (0, "")

    def gateway(self, also: dict[str, str] | None = None, *, ready: bool = True, **environment: str) -> Gateway:
        made = GatewayOnDisk(self, {**(also or {}), **environment})
        self.house._gateways.append(made)  # it ends with the house
        if ready:
            made.wait_until_ready()
        return made

    def fill(self) -> None:
        """Leave not one byte."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(PAGE))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def make_room(self) -> None:
        self._filler.unlink()

    def remount(self, how: str) -> None:
        done = self.run("mount", "-o", f"remount,{how}", self.state)
        assert done.returncode == 0, done.stderr

    def contents(self) -> dict[str, bytes]:
        """Return what each file on the disk holds."""
        return {entry.name: entry.read_bytes() for entry in self.outside.iterdir() if entry != self._filler}


class GatewayOnDisk(Gateway):
    """A `bub gateway` in the disk's namespace."""

    def __init__(self, disk: Disk, environment: dict[str, str]) -> None:
        self._house = disk.house
        self.log = disk.house.home / f"gateway-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                disk.inside(SCRIPTS / "bub", "gateway"),
                env={**disk.environment, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip


@pytest.fixture
def disk(house: House) -> Iterator[Disk]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "mount"))):
        pytest.skip("needs root, unshare and nsenter, for a mount namespace of its own")
    made = Disk(house)
    if made.trouble:
        made.close()
        pytest.skip(f"no mount namespace can be had here: {made.trouble}")
    yield made
    made.close()


def one_line(said: tuple[int, str], *words: str) -> None:
    """Hold that a tick exited with 74 and said these words in one line."""
    status, text = said
    assert (status, text.count("\n")) == (74, 1), said
    assert all(word in text for word in ("bub-cron: ", *words)), said


def texts(count: int) -> dict[str, str]:
    return {f"r{number}": f'to: "testchat:{number}", text: Hello.' for number in range(count)}


def all_arrive(disk: Disk, count: int) -> None:
    """Hold that each of the texts arrives, once."""
    until(lambda: set(disk.outcomes().values()) == {"delivered"} or None, "all delivered")
    assert sorted(disk.house.messages()) == sorted((str(number), "Hello.") for number in range(count))


# --- A chat that somebody writes into, to see that the gateway's other work goes on

POSTBOX = """
import asyncio
import os
from pathlib import Path
from bub import hookimpl
from bub.channels import Channel, ChannelMessage

class Postbox(Channel):
    name = "postbox"
    def __init__(self, handler):
        self.handler = handler
        self.place = Path(os.environ["POSTBOX"])
    async def start(self, stop_event):
        self.task = asyncio.create_task(self.look())
    async def stop(self):
        self.task.cancel()
    async def look(self):
        while True:
            for letter in self.place.glob("*.letter"):
                text = letter.read_text()
                letter.unlink()
                await self.handler(ChannelMessage(session_id="postbox:1", channel="postbox", chat_id="1", content=text))
            await asyncio.sleep(0.02)
    async def send(self, message):
        with (self.place / "answers").open("a") as file:
            file.write(message.content + "\\n")

@hookimpl
def provide_channels(message_handler):
    return [Postbox(message_handler)]
"""
POSTBOX_PROJECT = """
[project]
name = "postbox"
version = "0"
[project.entry-points.bub]
postbox = "postbox_plugin"
"""


def with_postbox(house: House) -> dict[str, str]:
    """Return the environment of a gateway with a postbox."""
    project = house.home / "postbox"
    project.mkdir()
    (project / "postbox_plugin.py").write_text(POSTBOX)
    (project / "pyproject.toml").write_text(POSTBOX_PROJECT)
    folders = expose_plugin(project, house.home / "postbox-site")
    path = os.pathsep.join([house.environment["PYTHONPATH"], *folders])
    return {"PYTHONPATH": path, "POSTBOX": str(project)}


def chats_are_served(house: House) -> None:
    """Write to the gateway as a user does, and hold that the answer comes."""
    answers = house.home / "postbox" / "answers"
    before = answers.read_text() if answers.exists() else ""
    draft = house.home / "postbox" / "draft"
    draft.write_text("are you there?")
    draft.rename(draft.with_suffix(".letter"))
    until(
        lambda: (answers.exists() and len(answers.read_text()) > len(before)) or None, "an answer to a user's message"
    )
    assert "the model's reply" in answers.read_text()[len(before) :]


# --- The tick


def test_a_full_disk_then_room(disk: Disk) -> None:
    disk.write_due(texts(5))
    disk.fill()
    for _ in range(2):
        one_line(disk.tick(), f"{disk.state}/ledger.db", "full")
    assert disk.outcomes() == {}
    disk.make_room()
    disk.gateway()
    assert disk.tick() == (0, "")
    all_arrive(disk, 5)


def test_a_first_tick_on_a_full_disk(disk: Disk) -> None:
    disk.house.reminders.write_text("reminders:\n  a: {every: 1d, to: 'testchat:1', text: hi}\n")
    disk.fill()
    for _ in range(2):
        one_line(disk.tick(), f"{disk.state}/ledger.db")
    disk.make_room()
    assert disk.tick() == (0, "")


def test_a_disk_that_fills_while_the_gateway_answers(disk: Disk) -> None:
    """The answer can't be recorded: the next tick submits again, the inbox knows the id, and it runs once."""
    disk.write_due(texts(1))

    def fill(_: Message) -> None:
        disk.fill()

    with FakeGateway(str(disk.house.socket), on_line=fill) as first:
        one_line(disk.tick(), "full")
    assert list(disk.outcomes().values()) == ["due"]
    disk.make_room()
    with FakeGateway(str(disk.house.socket)) as second:
        second.inbox, second.taken = first.inbox, first.taken
        assert disk.tick() == (0, "")
    assert first.taken == first.submitted == second.submitted, "taken once"
    assert list(disk.outcomes().values()) == ["accepted"]


def test_a_read_only_disk(disk: Disk) -> None:
    disk.write_due(texts(3))
    before = disk.contents()
    disk.remount("ro")
    for _ in range(2):
        one_line(disk.tick(), f"{disk.state}/ledger.db", "ead-only")
    assert disk.outcomes() == {}, "what only looks works"
    assert disk.contents() == before
    disk.remount("rw")
    disk.gateway()
    assert disk.tick() == (0, "")
    all_arrive(disk, 3)


def test_a_first_tick_on_a_read_only_disk(disk: Disk) -> None:
    disk.remount("ro")
    one_line(disk.tick(), f"{disk.state}/ledger.db", "ead-only")
    assert disk.contents() == {}


def test_a_damaged_ledger_on_a_full_disk(disk: Disk) -> None:
    """There is no room for a new one yet: whatever is done at once, in the end every row that can be read is kept."""
    names = [f"reminder-{number:03}" for number in range(300)]
    disk.write_due({name: f'to: "testchat:{name}", text: Hello.' for name in names})
    assert disk.tick()[0] == 69
    before = disk.outcomes()
    assert set(before.values()) == {"due"}
    path = disk.outside / "ledger.db"
    good = path.read_bytes()
    damaged = with_a_lost_page(good, 7)
    path.write_bytes(damaged)
    disk.fill()
    for _ in range(2):
        one_line(disk.tick())
    disk.make_room()
    said = [disk.tick() for _ in range(2)]  # it may have to be found again
    assert said[1][0] in (0, 69), said
    noise = next(damaged[at : at + PAGE] for at in range(0, len(damaged), PAGE) if damaged[at : at + PAGE] not in good)
    assert any(noise in content for content in disk.contents().values()), said
    assert len(disk.outcomes().keys() & before.keys()) > len(before) - 40


# --- The gateway


def test_an_inbox_that_fills_in_the_middle_of_a_turn(disk: Disk, held: Held) -> None:
    gateway = disk.gateway(with_postbox(disk.house))
    held.hold()
    with gateway.connect() as poke:
        # One in its turn, one that waits for its session.
        poke.send(id="first", to="testchat:1", prompt="hello")
        poke.send(id="second", to="testchat:1", prompt="hello")
        assert {poke.answer()["status"] for _ in range(2)} == {"accepted"}
        until(lambda: disk.house.model.conversations, "the turn under way")
        disk.fill()

        [answer] = gateway.ask(id="third", to="testchat:3", text="hello", wait=False)
        assert (answer["status"], "full" in answer["error"]) == ("busy", True)
        assert gateway.ask(status="third")[0]["status"] == "unknown-id"
        assert gateway.ask(status="first")[0]["status"] == "running"
        [pong] = gateway.ask(ping=True)
        assert (pong["waiting"], pong["running"]) == (1, 1)

        held.let_go()
        gateway.wait_for_log("trying again")
        chats_are_served(disk.house)
        assert disk.house.messages() == [], "nothing is sent before its reply is on disk"
        disk.make_room()

        poke.half_close()
        last = poke.rest()
    assert {answer["id"]: (answer["status"], answer["attempts"]) for answer in last} == {
        "first": ("delivered", 1),
        "second": ("delivered", 1),
    }
    assert gateway.ask(id="third", to="testchat:3", text="hello")[-1]["status"] == "delivered"
    assert sorted(disk.house.messages()) == [("1", "the model's reply"), ("1", "the model's reply"), ("3", "hello")]
    assert len(disk.outcomes()) == 3


def test_what_was_accepted_before_the_disk_filled_is_sent_when_there_is_room(disk: Disk) -> None:
    disk.write_due(texts(20))
    gateway = disk.gateway(ready=False, TESTCHAT_SLOW_START="2")
    gateway.wait_for_log("cron.listening")
    assert disk.tick() == (0, "")
    disk.fill()
    gateway.wait_for_log("trying again")
    assert disk.house.messages() == []
    disk.make_room()
    all_arrive(disk, 20)


def test_a_tick_whose_gateway_has_a_full_disk_says_busy(disk: Disk) -> None:
    """The two stores may be on two disks: here the ledger's has room."""
    disk.environment["BUB_CRON_STATE"] = str(disk.house.home / "cron")
    disk.write_due(texts(2))
    gateway = disk.gateway(BUB_CRON_STATE=str(disk.state))
    disk.fill()
    status, text = disk.tick()
    assert (status, "the gateway is busy" in text, "full" in text) == (69, True, True)
    assert set(disk.outcomes().values()) == {"due"}
    disk.make_room()
    assert disk.tick() == (0, "")
    until(lambda: len(disk.house.messages()) >= 2 or None, "both messages")
    assert gateway.process.poll() is None


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_gateway_that_starts_on_a_bad_disk_serves_its_chats(disk: Disk, how: str) -> None:
    disk.fill() if how == "full" else disk.remount("ro")
    gateway = disk.gateway(with_postbox(disk.house), ready=False)
    gateway.wait_for_log("cron.off")
    chats_are_served(disk.house)
    assert not disk.house.socket.exists()
    assert "Traceback" not in gateway.log.read_text()
    assert gateway.stop() == 0


# --- Stores of somebody else, or of a newer version


def foreign(path: Path, _: Any) -> None:
    with closing(sqlite3.connect(path)) as store:
        store.execute("CREATE TABLE mine (x)")
        store.execute("INSERT INTO mine VALUES ('precious')")
        store.commit()


def newer(path: Path, side: Any) -> None:
    make(path, side).close()
    with closing(sqlite3.connect(path)) as store:
        store.execute(f"PRAGMA user_version = {side.SHAPE.version + 1}")


def make(path: Path, side: Any) -> sqlite3.Connection:
    return open_store(str(path), side.SHAPE)


REFUSED = [(foreign, "is not a store of bub-cron"), (newer, "was written by a newer bub-cron")]


@pytest.mark.parametrize(("spoil", "words"), REFUSED)
def test_a_tick_refuses_such_a_ledger(house: House, spoil: Callable[[Path, Any], None], words: str) -> None:
    path = house.home / "cron" / "ledger.db"
    path.parent.mkdir(mode=0o700)
    spoil(path, ledger)
    content = path.read_bytes()
    house.reminders.write_text("reminders:\n  a: {every: 1m, to: 'testchat:1', text: hi}\n")
    for _ in range(2):
        done = house.command("tick", check=74)
        one_line((done.returncode, done.stderr), str(path), words)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["ledger.db"]


@pytest.mark.parametrize(("spoil", "words"), REFUSED)
def test_a_gateway_refuses_such_an_inbox_and_serves_its_chats(
    house: House, spoil: Callable[[Path, Any], None], words: str
) -> None:
    path = house.home / "cron" / "inbox.db"
    path.parent.mkdir(mode=0o700)
    spoil(path, inbox)
    content = path.read_bytes()
    gateway = house.gateway(with_postbox(house), wait=False)
    gateway.wait_for_log("cron.off")
    assert words in gateway.log.read_text()
    chats_are_served(house)
    assert path.read_bytes() == content
    assert {entry for entry in os.listdir(path.parent) if not entry.endswith(".lock")} == {"inbox.db"}
    assert gateway.stop() == 0


# --- Damage


def with_a_lost_page(content: bytes, seed: int) -> bytes:
    """Overwrite one page of rows, not the last, with noise."""
    chance = random.Random(seed)
    starts = [start for start in range(PAGE, len(content), PAGE) if content[start] == 0x0D]
    full = [start for start in starts if b'"text"' in content[start : start + PAGE]]
    start = chance.choice(full[1:-1])
    return content[:start] + chance.randbytes(PAGE) + content[start + PAGE :]


def fill_inbox(path: Path, delivered: int, open_: int) -> None:
    """Fill an inbox with texts `f0`, `f1`, ..., each for a chat of its own; the open ones come last."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    now = time.time()
    with closing(make(path, inbox)) as store:
        store.execute("BEGIN")
        for number in range(delivered + open_):
            asked = request(now, id=f"f{number}", to=f"testchat:{number}", text=f"Hello {number}.")
            state = "delivered" if number < delivered else "accepted"
            store.execute(
                "INSERT INTO firings (id, moment, request, expires, state, accepted_at) VALUES (?, ?, ?, ?, ?, ?)",
                (asked.id, now, asked.content(), asked.expires, state, now),
            )
        store.execute("COMMIT")


def test_a_gateway_on_a_damaged_inbox_runs_once_what_could_be_read(house: House) -> None:
    path = house.home / "cron" / "inbox.db"
    fill_inbox(path, 150, 150)
    damaged = with_a_lost_page(path.read_bytes(), 0)
    path.write_bytes(damaged)
    gateway = house.gateway()
    [aside] = path.parent.glob("inbox.db.damaged-*")
    assert aside.read_bytes() == damaged
    outcomes = until(lambda: all_ended(house.outcomes()), "a final outcome for each")
    assert len(outcomes) > 260
    arrived = Counter(chat for chat, _ in house.messages())
    assert arrived == Counter(firing.removeprefix("f") for firing in outcomes if int(firing.removeprefix("f")) >= 150)
    log = gateway.log.read_text()
    assert f"{len(outcomes):,} rows that could still be read were kept" in log
    assert log.count("was put aside as") == 1
    assert "Traceback" not in log


def all_ended(outcomes: dict[str, str]) -> dict[str, str] | None:
    return outcomes if set(outcomes.values()) == {"delivered"} else None


def test_a_gateway_goes_on_though_one_row_holds_nonsense(house: House) -> None:
    """One byte of one row: a firing that can't be read must not keep the others, and the gateway, from working."""
    path = house.home / "cron" / "inbox.db"
    fill_inbox(path, 0, 5)
    with closing(sqlite3.connect(path)) as store:
        store.execute("UPDATE firings SET request = replace(request, '{', '[') WHERE id = 'f2'")
        store.commit()
    gateway = house.gateway(wait=False)
    until(lambda: any(word in gateway.log.read_text() for word in ("cron.ready", "cron.off")) or None, "its start")
    assert "cron.ready" in gateway.log.read_text()
    until(lambda: len(house.messages()) >= 4 or None, "the other messages")


def test_a_tick_and_a_gateway_over_ruins(house: House) -> None:
    content = b"reminders: {}\n" * 500
    state = house.home / "cron"
    house.write_due(texts(2))
    for name in ("ledger.db", "inbox.db"):
        (state / name).write_bytes(content)
    done = house.command("tick", check=74)
    told, absent, waiting = done.stderr.splitlines()
    assert "was put aside as" in told
    assert "and 0 rows that could still be read were kept" in told
    assert "no gateway listens" in absent
    assert waiting == "bub-cron: 2 due firings wait for it"
    house.gateway()
    house.command("tick", check=0)
    found = sorted(entry.name.split("-")[0] for entry in state.glob("*.damaged-*"))
    assert found == ["inbox.db.damaged", "ledger.db.damaged"]
    assert all(entry.read_bytes() == content for entry in state.glob("*.damaged-*"))
