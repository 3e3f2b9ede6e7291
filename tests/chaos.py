"""The random crash test: ticks and gateways killed at random moments of many fake minutes, and then the accounting.

    python tests/chaos.py [--seed N] [--minutes M] [--speed X]

Debian's libfaketime runs the clocks of the ticks and of the gateways `--speed` times faster than the wall's; the chat and
the model are stand-ins. Every message says which firing it is from (a `text` at least which reminder), so that the chat,
`log`, the ledger and the inbox can be held against each other at the end. The seed fixes what is planned and how the model
behaves; at which instruction a kill strikes is the machine's, so a seed makes a fault likely again, not certain.

The chat of this test tells the truth (what it refuses has not arrived, what it writes down has), so the accounting is
stricter than the promise has to be: no firing's message may be there twice at all.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "demo"))

from demo import expose_plugin
from gateway_kit import SCRIPTS, Gateway, House, until
from stand_in_model import Messages

from bub_cron.reminders import load
from bub_cron.schedule import fire_times
from bub_cron.states import FINAL, GOOD
from bub_cron.wire import NO_REPLY, firing_id, iso, parse_instant

# The hour in which Berlin's clocks go forward: some of the wall-clock times below don't exist.
BASE = int(parse_instant("2026-03-29T00:52:00Z"))
LIBRARY = "faketime/libfaketimeMT.so.1"
STEPS = (
    "after the inbox's commit", "after the attempt is counted", "before the turn", "after the turn", "after the reply is kept",
    "after the send's beginning is kept", "before the send", "after the send", "after the final outcome",
)  # fmt: skip
SETTLE_MINUTES = 40  # fake ones, until everything must have its final outcome; the longest grace is 6 minutes
READY_SECONDS = 60.0  # of the wall's, for a gateway that is alone
STOP_SECONDS = 30.0  # of the wall's, for a gateway or a tick to end by itself

REMINDERS = """\
defaults: {timezone: UTC, grace: 6m}
reminders:
  text:     {every: 1m, to: "testchat:text", text: TEXT text}
  textall:  {every: 1m, to: "testchat:textall", text: TEXT textall, catch_up: all}
  tight:    {every: 1m, to: "testchat:tight", text: TEXT tight, grace: 65s, overlap: queue}
  reftext:  {every: 2m, to: "testchat:refuse-text", text: TEXT reftext}
  hang:     {cron: "*/7 * * * *", to: "testchat:hang", text: TEXT hang}
  nowhere:  {every: 9m, to: "nosuchchat:1", text: TEXT nowhere}
  berlin:   {cron: "*/3,7 * * * *", timezone: Europe/Berlin, to: "testchat:berlin", text: TEXT berlin}
  gap:      {cron: "10,40 2 * * *", timezone: Europe/Berlin, to: "testchat:gap", text: TEXT gap}
  dates:    {at: [DATES], to: "testchat:dates", text: TEXT dates, grace: 2h}
  ask:      {every: 2m, to: "testchat:ask", session: shared, prompt: ASKED, overlap: queue}
  plan:     {every: 2m, to: "testchat:plan", session: shared, prompt: ASKED}
  all:      {every: 1m, to: "testchat:all", prompt: ASKED, catch_up: all, overlap: queue}
  once:     {every: 2m, to: "testchat:once", prompt: ASKED, attempts: 1}
  quiet:    {every: 2m, to: "testchat:quiet", prompt: ASKED, quiet: true}
  refask:   {every: 3m, to: "testchat:refuse-ask", prompt: ASKED, attempts: 2}
  slow:     {every: 4m, to: "testchat:slow", prompt: ASKED, timeout: 20s}
  agent:    {every: 2m, to: "testchat:agent", prompt: ASKED, reply: agent, attempts: 1}
  agents:   {every: 3m, to: "testchat:agents", prompt: ASKED, reply: agent, attempts: 3}
"""


def find_library() -> str | None:
    """Return where libfaketime is, None if it isn't installed."""
    places = itertools.chain.from_iterable(Path(root).glob(f"*/{LIBRARY}") for root in ("/usr/lib", "/lib"))
    plain = (Path(root) / LIBRARY for root in ("/usr/lib", "/usr/local/lib", "/usr/lib64"))
    return next((str(path) for path in itertools.chain(places, plain) if path.exists()), None)


class Clock:
    """The fake time, and what makes a process start at it."""

    def __init__(self, library: str, speed: float, since: float = BASE) -> None:
        self._library = library
        self.speed = speed
        self._since = since
        self._started = time.monotonic()

    def now(self) -> float:
        return self._since + (time.monotonic() - self._started) * self.speed

    def environment(self) -> dict[str, str]:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.now()))
        return {
            "LD_PRELOAD": self._library,
            "FAKETIME": f"@{moment} x{self.speed:g}",
            "NO_FAKE_STAT": "1",  # or the time of the reminders file would be another one for each tick
            "TZ": "UTC",
        }


class Model:
    """Echoes which firing asked; is sometimes slow, silent or broken, as the seed and the firing's id say."""

    _WHOSE = re.compile(r"started by the reminder ([\w-]+), due at ([\w:-]+)")

    def __init__(self, seed: int, speed: float) -> None:
        self._seed = seed
        self._speed = speed
        self._lock = threading.Lock()
        self.asked: Counter[str] = Counter()

    def __call__(self, messages: Messages) -> str:
        told = "\n".join(str(message.get("content")) for message in messages if message.get("role") == "system")
        whose = self._WHOSE.search(told)
        if whose is None:
            return "REPLY to nobody"
        name, firing = whose[1], firing_id(whose[1], whose[2])
        with self._lock:
            self.asked[firing] += 1
            time_asked = self.asked[firing]
        chance = random.Random(f"{self._seed} {firing}")
        mood = chance.random()
        seconds = chance.choice((0.0, 0.0, 0.2, 1.0, 5.0, 15.0))
        time.sleep((seconds + (30 * chance.random() if name == "slow" else 0)) / self._speed)
        reply = f"REPLY {firing}"
        if name.startswith("agent") or mood < 0.6:
            return reply
        if mood < 0.7:  # Bub's client asks again by itself, so some of these come through
            if time_asked <= chance.randint(1, 8):
                raise ConnectionResetError
            return reply
        if mood < 0.78:
            raise ConnectionResetError
        if mood < 0.86:
            return ""
        return NO_REPLY if mood < 0.94 else f"{reply}\n{NO_REPLY}"


@dataclass
class DoomedTick:
    """A tick, and when it is killed (of the monotonic clock) or, if it isn't to be, must have ended by itself."""

    process: subprocess.Popen[bytes]
    killed: bool
    began_at: float
    ends_at: float


@dataclass
class DoomedGateway:
    """A gateway, and how it is to end: `life` seconds after it is ready, or, if `ends_at` is set, then."""

    gateway: Gateway
    how: str
    life: float
    began_at: float
    ends_at: float | None
    struck_at: float | None = None

    def is_ready(self) -> bool:
        return b"cron.ready" in self.gateway.log.read_bytes()


@dataclass
class Outcome:
    """What a run came to."""

    broken: list[str]
    table: str
    kills: int
    messages: int


class Chaos:
    """One run."""

    def __init__(
        self, seed: int, minutes: float, speed: float, *, library: str, say: Callable[[str], None] = print
    ) -> None:
        # Each strand has a chance of its own, so that one's timing changes nothing of what another one does next.
        chances = (random.Random(f"{seed} {strand}") for strand in range(3))
        self._chance, self._tick_chance, self._gateway_chance = chances
        self._wall_seconds = minutes * 60
        self._say = say
        self._model = Model(seed, speed)
        self.house = House(self._model)
        # The model breaks connections on purpose; its server would show each on standard error.
        vars(self.house.model._server)["handle_error"] = lambda *_: None
        self._killer = expose_plugin(Path(__file__).resolve().parent / "killer", self.house.home / "killer-site")
        self._marks = itertools.count()
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self._broken: list[str] = []
        self._ticks: list[DoomedTick] = []
        self._gateways: list[DoomedGateway] = []
        self._wanted = 2
        self._tick_seconds = 0.2
        self._startup_seconds = 4.0
        self._tick_log = self.house.home / "ticks.log"
        self._write_reminders(minutes * speed)
        self.clock = Clock(library, speed)  # from here on the fake time runs

    def _write_reminders(self, fake_minutes: float) -> None:
        dates = sorted({BASE + 60 * self._chance.randint(2, max(3, int(fake_minutes))) for _ in range(20)})
        text = REMINDERS.replace("DATES", ", ".join(f'"{iso(date)}"' for date in dates))
        self.house.reminders.write_text(text)
        os.utime(self.house.reminders, (BASE - 60, BASE - 60))

    # --- The run

    def run(self) -> Outcome:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A shell starts what it runs in the background so, and the gateways would inherit it: deaf to SIGINT.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            # Without a tick before it, it is where every schedule begins.
            self._run_tick()
            first = self._last_tick()
            self._rage()
            self._settle()
            books = Books(self, first, self._last_tick(), self._model.asked)
            return Outcome(self._broken + books.broken(), books.table(), self._kills(), len(self.house.messages()))
        finally:
            for tick in self._ticks:
                tick.process.kill()
                tick.process.wait()
            for doomed in self._gateways:
                doomed.gateway.kill()

    def _rage(self) -> None:
        self._start_gateway()
        first = self._gateways[0]
        until(lambda: first.is_ready() or first.gateway.process.poll() is not None, "the first gateway ready")
        started = said = time.monotonic()
        next_tick = self.clock.now()
        next_gateway = next_mood = 0.0
        while (now := time.monotonic()) < started + self._wall_seconds:
            fake = self.clock.now()
            if fake >= next_tick:
                next_tick = fake + self._tick()
            if fake >= next_gateway:
                self._keep_gateways()
            if self._strike_gateways():
                next_gateway = fake + self._downtime()
            if fake >= next_mood:
                self._refuse(self._chance.random() < 0.5)
                next_mood = fake + self._chance.uniform(20, 240)
            self._strike_ticks()
            if now >= said + 15:
                said = now
                self._progress(now - started)
            time.sleep(0.005)

    def _progress(self, seconds: float) -> None:
        done = f"{self._kills()} kills, {len(self.house.messages())} messages"
        self._say(f"{seconds:4.0f} s, fake time {iso(self.clock.now())}: {done}")

    def _kills(self) -> int:
        return sum(count for what, count in self.counts.items() if "SIGKILL" in what)

    def _refuse(self, refuse: bool) -> None:
        if refuse:
            self.house.release.unlink(missing_ok=True)
        else:
            self.house.release.touch()

    # --- Ticks

    def _tick(self) -> float:
        """Run none, one or two ticks; return the fake seconds until the next."""
        draw = self._tick_chance.random()
        if draw < 0.04:
            minutes = self._tick_chance.randint(1, 4)
            self.counts["minutes without a tick"] += minutes
            return 60.0 * minutes
        ticks = 2 if draw < 0.2 else 1
        if ticks == 2:
            self.counts["two ticks at once"] += 1
        for _ in range(ticks):
            self._start_tick(killed=self._tick_chance.random() < 0.6)
        return self._tick_chance.uniform(10, 40)

    def _run_tick(self) -> None:
        self._start_tick(killed=False)
        while self._ticks:
            self._strike_ticks()
            time.sleep(0.005)

    def _start_tick(self, *, killed: bool) -> None:
        with self._tick_log.open("ab") as log:
            process = subprocess.Popen(
                [SCRIPTS / "bub-cron", "tick"],
                env={**self.house.environment, **self.clock.environment()}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.counts["ticks"] += 1
        now = time.monotonic()
        after = self._tick_chance.uniform(0.3, 1.1) * self._tick_seconds if killed else STOP_SECONDS
        self._ticks.append(DoomedTick(process, killed, now, now + after))

    def _strike_ticks(self) -> None:
        for doomed in list(self._ticks):
            now = time.monotonic()
            status = doomed.process.poll()
            if status is None and now >= doomed.ends_at:
                if not doomed.killed:
                    self._broken.append(f"a tick did not end within {STOP_SECONDS:g} s")
                doomed.process.kill()
                status = doomed.process.wait()
            if status is None:
                continue
            self._ticks.remove(doomed)
            if status == -signal.SIGKILL:
                self.counts["ticks ended by SIGKILL"] += 1
                continue
            self.statuses[status] += 1
            self._tick_seconds += 0.1 * (now - doomed.began_at - self._tick_seconds)

    # --- Gateways

    def _keep_gateways(self) -> None:
        """Start what is wanted: one, mostly with a second one that waits to take over, for a start takes its time."""
        if not self._gateways:
            self._start_gateway()
            self._wanted = self._gateway_chance.choice((1, 2, 2, 2))
        elif len(self._gateways) < self._wanted:
            self.counts["second gateways beside a first"] += 1
            self._start_gateway()

    def _start_gateway(self) -> None:
        how = self._gateway_chance.choices(("SIGKILL", "step", "SIGTERM", "SIGINT"), (4, 4, 2, 1))[0]
        environment = self.clock.environment()
        if how == "step":
            path = os.pathsep.join([self.house.environment["PYTHONPATH"], *self._killer])
            mark = str(self.house.home / f"killed-{next(self._marks)}")
            environment |= {"PYTHONPATH": path, "KILL_AT": self._gateway_chance.choice(STEPS), "KILL_MARK": mark}
        now = time.monotonic()
        life = self._gateway_chance.uniform(0.0, 6.0)
        early = (
            now + self._gateway_chance.uniform(0.2, 1.1) * self._startup_seconds
            if self._gateway_chance.random() < 0.1
            else None
        )
        gateway = self.house.gateway(environment, wait=False)
        self.counts["gateways"] += 1
        self._gateways.append(DoomedGateway(gateway, how, life, now, early))

    def _strike_gateways(self) -> bool:
        """End those whose time has come; return whether the last one has just ended."""
        for doomed in list(self._gateways):
            self._strike_gateway(doomed, first=doomed is self._gateways[0])
            status = doomed.gateway.process.poll()
            if status is not None:
                self._gateways.remove(doomed)
                self._count_end(doomed, status)
                if not self._gateways:
                    return True
        return False

    def _strike_gateway(self, doomed: DoomedGateway, *, first: bool) -> None:
        now = time.monotonic()
        if doomed.ends_at is None:
            if doomed.is_ready():
                doomed.ends_at = now + doomed.life
                if first:
                    self._startup_seconds += 0.2 * (now - doomed.began_at - self._startup_seconds)
            elif first and now > doomed.began_at + READY_SECONDS:
                self._broken.append(f"a gateway was not ready within {READY_SECONDS:g} s: {doomed.gateway.log.name}")
                doomed.ends_at = now
        elif doomed.struck_at is None and now >= doomed.ends_at:
            doomed.struck_at = now
            # One whose step never came is killed at this moment instead.
            doomed.gateway.process.send_signal(getattr(signal, doomed.how, signal.SIGKILL))
        elif doomed.struck_at is not None and now >= doomed.struck_at + STOP_SECONDS:
            log = doomed.gateway.log.name
            self._broken.append(f"a gateway did not end within {STOP_SECONDS:g} s after {doomed.how}: {log}")
            doomed.gateway.kill()

    def _count_end(self, doomed: DoomedGateway, status: int) -> None:
        if status == -signal.SIGKILL:
            at_step = doomed.how == "step" and doomed.struck_at is None
            self.counts[f"gateways ended by SIGKILL {'at a named step' if at_step else 'at a random moment'}"] += 1
        elif doomed.struck_at is not None:
            self.counts[f"gateways ended by {doomed.how}"] += 1
        else:
            self._broken.append(f"a gateway ended by itself, with status {status}: {doomed.gateway.log.name}")

    def _downtime(self) -> float:
        """Return the fake seconds until the next gateway."""
        if self._gateway_chance.random() < 0.7:
            return 0.0
        self.counts["gateway down for minutes"] += 1
        return self._gateway_chance.uniform(30, 300)

    # --- The end

    def _settle(self) -> None:
        """Let no more harm be done, and time run until every firing has its final outcome."""
        self._say("no more kills; waiting for the final outcomes")
        self._refuse(False)
        for doomed in self._gateways:
            doomed.gateway.kill()
        self._gateways.clear()
        while self._ticks:
            self._strike_ticks()
            time.sleep(0.005)
        gateway = self.house.gateway(self.clock.environment())
        give_up = self.clock.now() + SETTLE_MINUTES * 60
        while self._waits("due") or self._waits("accepted", "running", "retrying"):
            if self.clock.now() > give_up:
                break  # the accounting will say which are open
            if self._waits("due"):
                # Each tick brings new ones, until one leaves none behind.
                self._run_tick()
            time.sleep(0.2)
        time.sleep(30 / self.clock.speed)  # a notice may still be on its way
        if (status := gateway.stop()) != 0:
            self._broken.append(f"the last gateway ended with status {status} after SIGTERM")

    def _waits(self, *outcomes: str) -> bool:
        return any(entry["outcome"] in outcomes for entry in self.house.log("-n", "1000000"))

    def _last_tick(self) -> int:
        [(last,)] = select(self.house.home / "cron" / "ledger.db", "SELECT last_tick FROM tick")
        return int(last)


def select(store: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(store, timeout=30)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


@dataclass
class Account:
    """What one reminder came to."""

    outcomes: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    sends: int = 0
    messages: int = 0
    notices: int = 0
    streaks: int = 0


class Books:
    """Chat, log, ledger and inbox, held against each other and against what the schedules say."""

    _NOTICE = re.compile(r"The reminder ([\w-]+) failed: .+\.", re.DOTALL)
    _MESSAGE = re.compile(r"(?:\(due at [\w:,/ ]+ late\)\n)?(TEXT|REPLY) ([\w:@-]+)")

    def __init__(self, chaos: Chaos, first: int, last: int, asked: Counter[str]) -> None:
        self._chaos = chaos
        self._house = chaos.house
        self._first, self._last = first, last
        self._asked = asked
        self._reminders = {reminder.name: reminder for reminder in load(str(self._house.reminders))}
        self._state = self._house.home / "cron"
        query = "SELECT id, reminder, fire_time, count, state FROM firings"
        self._ledger = {row[0]: row for row in select(self._state / "ledger.db", query)}
        query = "SELECT id, state, finished_at, reply FROM firings ORDER BY finished_at, seq"
        self._inbox = {row[0]: row for row in select(self._state / "inbox.db", query)}
        self._entries = self._house.log("-n", "1000000")
        self._texts: Counter[str] = Counter()  # reminder -> messages
        self._replies: Counter[str] = Counter()  # firing -> messages
        self._notices: Counter[str] = Counter()  # reminder -> notices of failure
        self._strange: list[str] = []
        for chat_id, text in self._house.messages():
            self._read_message(chat_id, text)

    def _read_message(self, chat_id: str, text: str) -> None:
        notice, message = self._NOTICE.fullmatch(text), self._MESSAGE.fullmatch(text)
        name = notice[1] if notice else message[2].partition("@")[0] if message else ""
        if name not in self._reminders or self._reminders[name].to != f"testchat:{chat_id}":
            self._strange.append(f"the chat {chat_id} got what no reminder says there: {text!r}")
        elif notice:
            self._notices[name] += 1
        elif message and message[1] == "TEXT":
            self._texts[name] += 1
        elif message:
            self._replies[message[2]] += 1

    # --- The promises

    def broken(self) -> list[str]:
        checks = (
            self._every_fire_time, self._one_last_word, self._stores_agree, self._messages_of_turns, self._messages_of_texts,
            self._at_most_once, self._told_once, self._sound,
        )  # fmt: skip
        return self._strange + [fault for check in checks for fault in check()]

    def _every_fire_time(self) -> Iterator[str]:
        """Every fire time of every schedule is there, once, and nothing else is."""
        there: Counter[str] = Counter()
        for _, name, fire_time, count, _ in self._ledger.values():
            times = [fire_time]
            if count > 1:  # a row for many: fire_time is the last of them
                times = list(fire_times(self._reminders[name].schedule, 0, fire_time))[-count:]
            there.update(firing_id(name, iso(each)) for each in times)
        expected = {
            firing_id(name, iso(fire_time))
            for name, reminder in self._reminders.items()
            for fire_time in fire_times(reminder.schedule, self._first, self._last)
        }
        yield from (f"{firing} is lost: no row tells of it" for firing in sorted(expected - there.keys()))
        yield from (f"{firing} is there, and is no fire time" for firing in sorted(there.keys() - expected))
        yield from (f"{firing} is there {count} times" for firing, count in there.items() if count > 1)

    def _one_last_word(self) -> Iterator[str]:
        seen = Counter(entry["id"] for entry in self._entries)
        yield from (f"{firing} is in the log {count} times" for firing, count in seen.items() if count > 1)
        yield from (f"{firing} is not in the log" for firing in self._ledger.keys() - seen.keys())
        for entry in self._entries:
            if entry["outcome"] not in FINAL:
                yield f"{entry['id']} has no final outcome: {entry['outcome']}"
            if entry["outcome"] == "rejected" or "a fault of bub-cron" in (entry["error"] or ""):
                yield f"{entry['id']} is {entry['outcome']}: {entry['error']}"

    def _stores_agree(self) -> Iterator[str]:
        yield from (f"{firing} is in the inbox alone" for firing in sorted(self._inbox.keys() - self._ledger.keys()))
        for firing, *_, state in self._ledger.values():
            if state == "accepted" and firing not in self._inbox:
                yield f"{firing} is `accepted` in the ledger, and the inbox doesn't have it"
            elif state in ("missed", "rejected") and firing in self._inbox:
                yield f"{firing} is `{state}` in the ledger and `{self._inbox[firing][1]}` in the inbox"
        for entry in self._entries:
            word = self._inbox.get(entry["id"], self._ledger.get(entry["id"], ("",)))
            state = word[1] if entry["id"] in self._inbox else word[-1]
            if state != entry["outcome"]:
                yield f"{entry['id']} is `{state}` in its store and `{entry['outcome']}` in the log"

    def _messages_of_turns(self) -> Iterator[str]:
        for entry in self._entries:
            if self._reminders[entry["reminder"]].kind != "prompt":
                continue
            firing, outcome, count = entry["id"], entry["outcome"], self._replies[entry["id"]]
            least, most = int(outcome == "delivered"), int(outcome in ("delivered", "unknown") and entry["sends"] > 0)
            if not least <= count <= most:
                yield f"{firing} is `{outcome}` (sends: {entry['sends']}), and its message is there {count} times"
            if count and entry["reply"] != f"REPLY {firing}":
                yield f"{firing}: the chat got its reply, and the log says {entry['reply']!r}"
        known = {entry["id"] for entry in self._entries}
        yield from (
            f"the chat got the reply of {firing}, which nobody knows" for firing in self._replies.keys() - known
        )

    def _messages_of_texts(self) -> Iterator[str]:
        """A text can't tell which firing it is from, so a reminder's are counted together."""
        for name, reminder in self._reminders.items():
            account = self._account(name)
            least = account.outcomes["delivered"]
            if reminder.kind == "text" and not least <= account.messages <= least + account.outcomes["unknown"]:
                yield f"{name}: {account.messages} messages for {dict(account.outcomes)}"

    def _at_most_once(self) -> Iterator[str]:
        """A turn that acts by itself was started no oftener than its attempts say."""
        for entry in self._entries:
            if self._reminders[entry["reminder"]].reply != "agent":
                continue
            if entry["attempts"] > self._reminders[entry["reminder"]].attempts:
                yield f"{entry['id']} had {entry['attempts']} attempts"
            if self._asked[entry["id"]] > entry["attempts"]:
                yield f"{entry['id']}: the model was asked {self._asked[entry['id']]} times in {entry['attempts']} attempts"

    def _told_once(self) -> Iterator[str]:
        for name in self._reminders:
            if self._notices[name] > (streaks := self._streaks(name)):
                yield f"{name}: the chat heard {self._notices[name]} times of {streaks} streaks of failures"

    def _sound(self) -> Iterator[str]:
        for store in ("ledger.db", "inbox.db"):
            if (found := select(self._state / store, "PRAGMA integrity_check")) != [("ok",)]:
                yield f"{store}: {found}"
        yield from (f"a store was put aside: {path.name}" for path in self._state.glob("*damaged*"))
        strange = {status: count for status, count in self._chaos.statuses.items() if status not in (0, 69)}
        if strange:
            yield f"ticks ended with other statuses than 0 and 69: {strange}"
        for log in [*self._house.home.glob("gateway-*.log"), self._house.home / "ticks.log"]:
            yield from _faults_of_ours(log)

    # --- The table

    def _streaks(self, name: str) -> int:
        """Return how often the reminder began to fail: a success ends a streak, nothing else does."""
        words = (row[1] for firing, row in self._inbox.items() if self._ledger_name(firing) == name)
        judged = [word == "failed" for word in words if word == "failed" or word in GOOD]
        return sum(1 for failed, _ in itertools.groupby(judged) if failed)

    def _ledger_name(self, firing: str) -> str:
        return firing.partition("@")[0]

    def _account(self, name: str) -> Account:
        account = Account(notices=self._notices[name], streaks=self._streaks(name), messages=self._texts[name])
        for entry in self._entries:
            if entry["reminder"] == name:
                account.outcomes[entry["outcome"]] += self._ledger.get(entry["id"], (0, 0, 0, 1))[3]
                account.attempts += entry["attempts"]
                account.sends += entry["sends"]
                account.messages += self._replies[entry["id"]]
        return account

    def table(self) -> str:
        accounts = {name: self._account(name) for name in self._reminders}
        words = sorted({word for account in accounts.values() for word in account.outcomes})
        head = ["reminder", "firings", *words, "attempts", "sends", "messages", "streaks", "notices"]
        columns = [
            (account.outcomes.total(), *(account.outcomes[word] for word in words), account.attempts, account.sends,
             account.messages, account.streaks, account.notices)
            for account in accounts.values()
        ]  # fmt: skip
        rows = [head]
        rows += [[name, *map(str, numbers)] for name, numbers in zip(accounts, columns, strict=True)]
        rows.append(["all", *(str(sum(numbers)) for numbers in zip(*columns, strict=True))])
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = [
            "  ".join([name.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True))])
            for name, *cells in rows
        ]
        minutes = (self._last - self._first) / 60
        done = [f"{count:6,}  {what}" for what, count in sorted(self._chaos.counts.items())]
        done += [
            f"{count:6,}  ticks that exited with {status}" for status, count in sorted(self._chaos.statuses.items())
        ]
        span = f"from {iso(self._first)} to {iso(self._last)}: {minutes:.0f} fake minutes"
        return "\n".join([span, *done, "", *lines])


def _faults_of_ours(log: Path) -> Iterator[str]:
    text = log.read_text(errors="replace") if log.exists() else ""
    signs = [
        "cron.fault",
        "cron.stale",
        "cron.connection",
        "cron.answer",
        "cron.off",
        "never retrieved",
        "never awaited",
    ]
    if not log.name.startswith("gateway"):
        signs.append("Traceback")
    for sign in signs:
        if (at := text.find(sign)) >= 0:
            yield f"{log.name} says {sign}: {text[max(0, at - 200) : at + 600]}"


def report(outcome: Outcome) -> Iterable[str]:
    yield outcome.table
    yield ""
    if outcome.broken:
        yield f"{len(outcome.broken)} broken promises:"
        yield from (f"- {fault}" for fault in outcome.broken)
    else:
        yield "every promise was kept"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kill ticks and gateways at random, then hold the books against each other."
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--minutes", type=float, default=10.0, help="of the wall's clock, for the kills alone")
    parser.add_argument("--speed", type=float, default=20.0, help="how much faster the fake time runs")
    options = parser.parse_args()
    library = find_library()
    if library is None:
        print("libfaketime is not installed (Debian, Ubuntu: apt install libfaketime)", file=sys.stderr)
        return 1
    print(f"--seed {options.seed} --minutes {options.minutes:g} --speed {options.speed:g}", flush=True)
    say: Callable[[str], None] = lambda line: print(line, flush=True)
    chaos = Chaos(options.seed, options.minutes, options.speed, library=library, say=say)
    outcome = chaos.run()
    print("\n" + "\n".join(report(outcome)), flush=True)
    if outcome.broken:
        chaos.house.model.stop()
        print(f"\nlogs and stores are kept in {chaos.house.home}; again: --seed {options.seed}")
        return 1
    chaos.house.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
