"""The random test of moving ground: zone data swapped, the machine moved, the clock stepped, beside kills, edits and outages.

    python tests/ground_chaos.py [--seed N] [--days D]

Ticks run at the minutes of simulated days, most of them in this process, some in one that is killed. The accounting knows
no code of bub-cron's: it goes through all minutes one by one, as a wall clock does, and notes what should have fired. The
seed fixes everything but the instruction at which a kill strikes.

What is held to account:
- Each true fire time has one row, or is counted in one.
- Each true fire time within reach of a tick was submitted once, or a later one in its place where the reminder wants that.
- Nothing was submitted before its fire time by its tick's clock.
- What has a row, and is no true fire time, belongs to a time that a wrong clock showed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zoneinfo
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from fake_gateway import FakeGateway, Message, Place
from zone_kit import install, zone_data

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400
START = 1_795_435_200  # 2026-11-23T12:00:00Z
QUIET = 5 * HOUR  # between two movements: longer than any repeated stretch
WORKER = """
import sys
from bub_cron.paths import find_paths
from bub_cron.trigger import tick
print(flush=True)
tick.run(find_paths(), float(sys.argv[1]))
"""

type Moments = Callable[[int, int], Iterator[int]]


def iso(instant: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(instant))


class TrueZone:
    """A zone as the test knows it: its rules, and from which minute on each was in force."""

    def __init__(self, first: int, *changes: tuple[int, int]) -> None:
        self._rules = [(0, first, changes)]

    def change(self, at: int, first: int, *changes: tuple[int, int]) -> None:
        self._rules.append((at, first, changes))

    def offset(self, instant: int) -> int:
        _, first, changes = self._rules[bisect_right(self._rules, instant, key=lambda rule: rule[0]) - 1]
        return next((offset for at, offset in reversed(changes) if at <= instant), first)


class TrueReminder:
    """A reminder, and what it should do at each minute of a wall clock."""

    def __init__(self, name: str, keys: str, zone: str, matches: Callable[[int], bool], kind: str) -> None:
        self.name = name
        self.keys = keys
        self.zone = zone
        self.kind = kind  # fixed, follows, elapsed, at
        self.matches = matches  # of seconds of the wall clock (elapsed: of the epoch)
        self.wants_all = "catch_up: all" in keys

    def fire_times(self, zone: TrueZone, begin: int, end: int) -> Iterator[int]:
        """Yield what should fire in (begin, end], minute by minute."""
        waits_until, seen = 0, begin + zone.offset(begin)
        for minute in range((begin // MINUTE + 1) * MINUTE, end + 1, MINUTE):
            if self.kind == "elapsed":
                if self.matches(minute):
                    yield minute
                continue
            before, now = zone.offset(minute - MINUTE), zone.offset(minute)
            wall = minute + now
            if self.kind == "at":  # once, when the wall clock first shows it or is beyond it
                if any(self.matches(shown) for shown in range(seen // MINUTE * MINUTE + MINUTE, wall + 1, MINUTE)):
                    yield minute
                seen = max(seen, wall)
                continue
            jumped = False
            if self.kind == "fixed" and -3 * HOUR <= now - before < 0:
                waits_until = minute - (now - before)
            elif self.kind == "fixed" and 0 < now - before < 3 * HOUR:
                jumped = any(self.matches(shown) for shown in range(minute + before, wall, MINUTE))
            if jumped or (self.matches(wall) and minute >= waits_until):
                yield minute


def just_at(shown: int) -> Callable[[int], bool]:
    return lambda wall: wall == shown


def at_minutes(hours: set[int], minutes: set[int]) -> Callable[[int], bool]:
    return lambda wall: wall // HOUR % 24 in hours and wall // MINUTE % 60 in minutes


class GroundChaos:
    """One run."""

    def __init__(self, seed: int, days: float) -> None:
        self._chance = random.Random(seed)
        self._end = START + int(days * DAY)
        self._directory = tempfile.TemporaryDirectory(prefix="bub-cron-ground-")
        home = Path(self._directory.name)
        self.place = Place(home / "bub")
        self._database = home / "zoneinfo"
        self.counts: Counter[str] = Counter()
        self.early: list[str] = []
        self.moves: list[str] = []
        self.wrong: list[int] = []  # the instants of ticks whose clock was wrong
        self._zones = {"Chaos/A": TrueZone(HOUR, (START + DAY, 2 * HOUR)), "Chaos/M1": TrueZone(0), "UTC": TrueZone(0)}
        self._machine = TrueZone(0)
        self._tz = "Chaos/M1"
        self._data = {"Chaos/A": zone_data(HOUR, (START + DAY, 2 * HOUR)), "Chaos/M1": zone_data(0)}
        self._gateway_down_until = 0
        self._edits = 0
        self.taken: Counter[str] = Counter()
        self._clock = START
        self.reminders = list(self._make_reminders())
        self._environment = dict(os.environ)

    def _make_reminders(self) -> Iterator[TrueReminder]:
        chance = self._chance
        for zone in ("Chaos/A", "machine"):
            for number in range(4):
                hour, minute = chance.randrange(24), chance.randrange(60)
                hours = {hour, (hour + chance.randrange(1, 24)) % 24}
                how = ["", ", catch_up: all"][number % 2]
                cron = f'cron: "{minute} {",".join(map(str, sorted(hours)))} * * *", grace: 6h{how}'
                yield TrueReminder(f"fixed{number}-{zone[-1]}", cron, zone, at_minutes(hours, {minute}), "fixed")
            step = chance.choice([7, 15, 20])
            keys = f'cron: "*/{step} * * * *", grace: 6h, catch_up: all'
            minutes = set(range(0, 60, step))
            yield TrueReminder(f"follows-{zone[-1]}", keys, zone, at_minutes(set(range(24)), minutes), "follows")
            for number in range(6):
                shown = START + 4 * HOUR + MINUTE * chance.randrange(max(1, (self._end - START - 6 * HOUR) // MINUTE))
                keys = f"at: {time.strftime('%Y-%m-%d %H:%M', time.gmtime(shown))}, grace: 6h"
                yield TrueReminder(f"at{number}-{zone[-1]}", keys, zone, just_at(shown), "at")
        period = chance.choice([11, 13, 45])
        yield TrueReminder(
            "elapsed", f"every: {period}m, grace: 6h, catch_up: all", "UTC", lambda instant: instant % (period * 60) == 0, "elapsed"
        )  # fmt: skip

    # --- The run

    def run(self) -> list[str]:
        """Run to the end, and return what is wrong."""
        os.environ["TZ"] = self._tz
        os.environ["BUB_CRON_KEEP_DAYS"] = "100000"  # the books are of all days
        os.environ["PYTHONTZPATH"] = os.pathsep.join([str(self._database), *zoneinfo.TZPATH])
        zoneinfo.reset_tzpath([str(self._database), *zoneinfo.TZPATH])
        try:
            self._install()
            self._write(START)
            assert self.place.tick(START) == (0, "")
            with FakeGateway(self.place.paths.socket, self._answer) as gateway:
                self._gateway = gateway
                self._days()
            return list(self._account())
        finally:
            os.environ.clear()
            os.environ.update(self._environment)
            zoneinfo.reset_tzpath()
            self._directory.cleanup()

    def _install(self) -> None:
        install(self._database, **{name.replace("/", "__"): data for name, data in self._data.items()})

    def _write(self, now: int) -> None:
        text = "".join(
            f"  {one.name}: {{{one.keys}, text: 'edit {self._edits}'{'' if one.zone == 'machine' else f', timezone: {one.zone}'}}}\n"
            for one in self.reminders
        )
        self.place.write("defaults: {to: 'telegram:1'}\nreminders:\n" + text, now)

    def _answer(self, request: Message) -> list[Message]:
        if "status" in request:
            return [{"id": request["status"], "status": "delivered" if self.taken[request["status"]] else "unknown-id"}]
        if self._clock < self._gateway_down_until:
            return [{"id": request["id"], "status": "busy", "error": "an outage"}]
        self.taken[request["id"]] += request["id"] not in self.taken
        if request["fire_time"] > iso(self._clock):
            self.early.append(request["id"])
        return [{"id": request["id"], "status": "accepted"}]

    def _tick(self, now: int) -> None:
        self._clock = now
        self.counts["ticks"] += 1
        status, said = self.place.tick(now)
        if status not in (0, 69):
            raise AssertionError(f"a tick at {iso(now)} ended with {status}: {said}")

    def _killed_tick(self, now: int) -> None:
        self._clock = now
        self.counts["ticks that were killed"] += 1
        environment = {**os.environ, "BUB_HOME": str(self.place.home)}
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(now)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(self._chance.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()

    def _days(self) -> None:
        now, moves_at = START + MINUTE, START + QUIET
        while now < self._end:
            if now >= moves_at and now < self._end - 2 * QUIET:
                moves_at = now + QUIET + MINUTE * self._chance.randrange(120)
                now = self._move(now)
            draw = self._chance.random()
            if draw < 0.002:
                self._edits += 1
                self.counts["edits"] += 1
                self._write(now)
            if draw > 0.995 and now < self._end - 2 * QUIET:
                self._gateway_down_until = now + MINUTE * self._chance.randrange(1, 40)
                self.counts["outages of the gateway"] += 1
            if 0.01 < draw < 0.02:
                self._killed_tick(now + self._chance.randrange(50))
            elif draw < 0.03:
                self.counts["minutes without a tick"] += 1
            else:
                self._tick(now + self._chance.randrange(3))
            now += MINUTE

    def _move(self, now: int) -> int:
        """Move the ground at a minute, and return the next one."""
        what = self._chance.choice(("data", "machine", "by hand", "clock", "clock", "clock", "downtime"))
        self.counts[what] += 1
        self.moves.append(f"{iso(now)} {what}")
        self._gateway_down_until = 0
        if what == "data":
            first, change = (900 * self._chance.randint(-16, 16) for _ in range(2))
            at = now + QUIET + HOUR * self._chance.randrange(1, 30)
            changes = (
                [(at, min(max(change, first - 2 * HOUR), first + 2 * HOUR))] if self._chance.random() < 0.5 else []
            )
            self._data["Chaos/A"] = zone_data(first, *changes)
            self._install()
            self._zones["Chaos/A"].change(now, first, *changes)
            self._tick(now)
        elif what == "machine":
            offset = 900 * self._chance.randint(-20, 20)
            name = f"Chaos/M{self._chance.randrange(10**9)}"
            self._data[name] = zone_data(offset)
            self._install()
            os.environ["TZ"] = name
            self._tick(now)  # the first of two
            now += MINUTE
            self._machine.change(now, offset)
            self._tick(now)
        elif what == "by hand":
            os.environ["TZ"], own = "America/New_York", os.environ["TZ"]
            self._tick(now)
            os.environ["TZ"] = own
        elif what == "clock":
            size = int(10 ** self._chance.uniform(0, 9.2))  # from a second to half a century
            wrong = max(0, now + self._chance.choice((-1, 1)) * size)
            self.wrong.append(wrong)
            self.moves[-1] += f" to {iso(wrong)}"
            self._tick(wrong)
        else:
            now += MINUTE * self._chance.choice((5, 60, 600, 3000))
            self._tick(now)
        return now + MINUTE

    # --- The accounting

    def _account(self) -> Iterator[str]:
        with closing(sqlite3.connect(self.place.paths.ledger)) as ledger:
            rows = ledger.execute("SELECT id, reminder, fire_time, count, state, reason, error FROM firings").fetchall()
            [(last,)] = ledger.execute("SELECT last_tick FROM tick")
        states = {row[0]: (row[4], row[5]) for row in rows}
        self.states = Counter(f"{state}{f' ({reason})' if reason else ''}" for state, reason in states.values())
        known = set()
        for one in self.reminders:
            zone = self._machine if one.zone == "machine" else self._zones[one.zone]
            crowds = [row for row in rows if row[3] > 1 and row[1] == one.name]
            for instant in one.fire_times(zone, START, last):
                firing = f"{one.name}@{iso(instant)}"
                known.add(firing)
                if firing in states:
                    yield from self._account_of(one, firing, *states[firing])
                elif not any(_within(row, instant) for row in crowds):
                    yield f"{firing} is lost: no row tells of it"
        self.true = len(known)
        yield from (f"{firing} was submitted before its time" for firing in self.early)
        yield from (f"{firing} was taken {count} times" for firing, count in self.taken.items() if count > 1)
        for identity, _, instant, count, *_ in rows:
            near = any(abs(instant - wrong) <= 6 * HOUR + MINUTE for wrong in self.wrong)
            if identity not in known and count == 1 and not near:
                yield f"{identity} has a row, and is no fire time of any clock"
        yield from (f"{identity} is due still" for identity, (state, _) in states.items() if state == "due")

    def _account_of(self, one: TrueReminder, firing: str, state: str, reason: str | None) -> Iterator[str]:
        allowed = {("accepted", None), ("missed", "late")}
        if not one.wants_all:
            allowed.add(("skipped", "superseded"))
        if (state, reason) not in allowed:
            yield f"{firing} is {state}, {reason}"
        if state == "accepted" and not self.taken[firing]:
            yield f"{firing} is accepted, and no gateway took it"


def _within(crowd: tuple[str, ...], instant: int) -> bool:
    first = crowd[0].partition("@")[2].partition("/")[0]
    return first <= iso(instant) <= iso(int(crowd[2]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Move the ground under ticks at random, then hold them to account.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--days", type=float, default=20.0, help="simulated ones")
    options = parser.parse_args()
    print(f"--seed {options.seed} --days {options.days:g}", flush=True)
    chaos = GroundChaos(options.seed, options.days)
    broken = chaos.run()
    print("\n".join(report(chaos, broken)))
    return 1 if broken else 0


def report(chaos: GroundChaos, broken: list[str]) -> Iterator[str]:
    yield from (f"{count:7,}  {what}" for what, count in sorted(chaos.counts.items()))
    yield f"{chaos.true:7,}  true fire times"
    yield from (f"{count:7,}  rows {state}" for state, count in sorted(chaos.states.items()))
    if not broken:
        yield "every promise was kept"
        return
    yield f"{len(broken)} broken promises:"
    yield from (f"- {fault}" for fault in broken[:100])
    yield from ("how the ground moved:", *chaos.moves)


if __name__ == "__main__":
    sys.exit(main())
