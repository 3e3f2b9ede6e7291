"""The random test of neighbours: which one misbehaves when, with kills in between, and then the accounting.

    python tests/chaos_neighbours.py [--seed N] [--firings N] [--speed X]

A real gateway has Bub's own Telegram channel, over a Bot API that misbehaves, and the hostile plugin. Firings are submitted
one by one; before each, a neighbour's misdeed is drawn, and after each, sometimes, the gateway's end. Debian's libfaketime
runs the gateway's clock `--speed` times faster. The seed fixes what is planned; at which instruction a kill strikes is the
machine's, so a seed makes a fault likely again, not certain.

Each text names its firing and is no other's, so every message that arrived belongs to one row of the inbox. At the end each
row says how often it may have arrived, and each id has one final outcome that its rows bear out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "demo"))

from chaos import Clock, find_library, select
from demo import expose_plugin
from gateway_kit import Gateway, House, Poke, until
from neighbours import bot_api, platform
from neighbours.bot_api import BotApi
from stand_in_model import Messages

from bub_cron.states import DELIVERED, FINAL, MESSAGE_OPEN, OPEN, UNDELIVERED, UNKNOWN, sql_list, worst
from bub_cron.wire import iso

HERE = Path(__file__).resolve().parent
START_SECONDS = STOP_SECONDS = 120.0  # of the wall's
SETTLE_SECONDS = 900.0  # fake ones, until every row must be final; the longest grace is `MOST_GRACE`
MOST_GRACE = 300.0

PLATFORM = {
    "takes": platform.TAKES,
    "takes, closes": platform.TAKES_AND_CLOSES,
    "takes, resets": platform.TAKES_AND_RESETS,
    "takes, babbles": platform.TAKES_AND_BABBLES,
    "takes, breaks off": platform.TAKES_AND_BREAKS_OFF,
    "takes, fails": platform.TAKES_AND_FAILS,
    "takes, hangs": platform.TAKES_AND_HANGS,
    "closes": platform.CLOSES,
    "hangs": platform.HANGS,
    "429": bot_api.refuses(429, "Too Many Requests: retry after 20", retry_after=20),
    "400": bot_api.NOT_FOUND,
    "403": bot_api.BLOCKED,
    "500": bot_api.INTERNAL,
}
"""What the Bot API does with the next message, or with the next few."""
AWAY = "no connections"
HOOKS = ("load-exit", "prompt-panic", "model-group", "save-exit", "move", "tape", "admit", "start")
"""Misdeeds of the hostile plugin (hostile_plugin.py)."""
SENDS = ("", "exit", "panic", "group", "raise", "refuse", "cancel", "hang", "swallow", "block", "warn", "warn-thread")
# Nobody sees through a channel that returns without a word and without having sent, nor through one that took the message and
# says that it found no connection.
LIES = {"": "takes-", "block": "takes-", "swallow": "takes-", "refuse": ""}
"""What its channel does, by the chat id."""
ENDS = (None, signal.SIGKILL, signal.SIGTERM)


class Plan(NamedTuple):
    """One firing, and what happens around it."""

    number: int
    misdeed: str
    times: int
    """How many messages a misdeed of the platform strikes."""
    request: dict[str, Any]
    grace: float
    text: str
    """What is to arrive, in one message or in parts."""
    end: signal.Signals | None
    after: float
    """Seconds of the wall's from the answer to the gateway's end, or to the next firing."""

    @property
    def id(self) -> str:
        return f"n{self.number}"


def planned(seed: int, firings: int) -> list[Plan]:
    """Return what happens, in order."""
    chance = random.Random(seed)
    return [_plan(chance, number) for number in range(1, firings + 1)]


def _plan(chance: random.Random, number: int) -> Plan:
    where = chance.choices(("platform", "hook", "send"), (6, 3, 2))[0]
    misdeed, to = "", f"telegram:{number}"
    if where == "platform":
        misdeed = chance.choice((*PLATFORM, AWAY))
    elif where == "hook":
        misdeed = chance.choice(HOOKS)
    else:
        how = chance.choice(SENDS)
        misdeed = f"send: {how or 'takes'}"
        takes = chance.choice(("takes-", ""))
        if how in LIES:
            takes = LIES[how]
        to = f"hostile:{takes}{how}"
    asks = where == "hook" or chance.random() < 0.4
    text = text_of(f"n{number}", asks=asks, parts=chance.choice((1, 1, 2, 3)))
    request: dict[str, Any] = {
        "id": f"n{number}", "to": to, "wait": False, "attempts": chance.choice((1, 2)), "timeout": "15s",
        "delivery": chance.choice(("at-most-once", "at-most-once", "at-least-once")),
    }  # fmt: skip
    if asks:
        request["prompt"] = f"ASK n{number} {len(text)}"
        if chance.random() < 0.3:
            request["session"] = f"shared:{chance.randint(1, 3)}"
    else:
        request["text"] = text
    if chance.random() < 0.5:
        request["reminder"] = f"r{number}"
    end = chance.choices(ENDS, (84, 11, 5))[0]
    return Plan(
        number, misdeed, chance.choice((1, 1, 2, 3)), request, chance.uniform(30, MOST_GRACE), text, end,
        chance.uniform(0.0, 0.8),
    )  # fmt: skip


def text_of(firing: str, *, asks: bool, parts: int) -> str:
    """Return a text that no other firing has, and of whose words none is there twice."""
    words = f"{'REPLY' if asks else 'TEXT'} {firing}"
    return words if parts == 1 else words + "".join(f" {firing}.{word}" for word in range(450 * (parts - 1)))


class Model:
    """Gives each firing its reply. Some are broken off, and some are empty, as the seed says."""

    _WHOSE = re.compile(r"ASK (n\d+)\b")

    def __init__(self, seed: int, plans: Iterable[Plan]) -> None:
        self._chance = random.Random(f"{seed} model")
        self._replies = {plan.id: plan.text for plan in plans}

    def __call__(self, messages: Messages) -> str:
        asked = [str(message.get("content")) for message in messages if message.get("role") == "user"]
        whose = self._WHOSE.findall(asked[-1])
        mood = self._chance.random()
        if mood < 0.06:
            raise ConnectionResetError
        return "" if mood < 0.1 else self._replies[whose[-1]]


@dataclass
class Outcome:
    """What a run came to."""

    broken: list[str]
    table: str
    kills: int
    arrived: int
    outcomes: Counter[str] = field(default_factory=Counter)


class Neighbours:
    """One run."""

    def __init__(self, seed: int, firings: int, speed: float, *, library: str) -> None:
        self.plans = planned(seed, firings)
        self.house = House(Model(seed, self.plans))
        # The model breaks connections on purpose; its server would show each on standard error.
        vars(self.house.model._server)["handle_error"] = lambda *_: None
        self.api = BotApi(self.house.home).start()
        self._misdeeds = self.house.home / "misdeeds"
        self._out = self.house.home / "hostile.out"
        path = expose_plugin(HERE / "neighbours" / "hostile", self.house.home / "hostile-site")
        self.house.environment |= {
            **self.api.environment,
            "PYTHONPATH": os.pathsep.join([self.house.environment["PYTHONPATH"], *path]),
            "HOSTILE": str(self._misdeeds),
            "HOSTILE_OUT": str(self._out),
        }
        self.clock = Clock(library, speed, since=time.time())
        self.counts: Counter[str] = Counter()
        self._broken: list[str] = []
        self._gateway: Gateway | None = None
        self._never_starts = False

    def close(self) -> None:
        self.house.close()
        self.api.stop()

    def run(self) -> Outcome:
        started = said = time.monotonic()
        for plan in self.plans:
            self._misbehave(plan)
            self._submit(plan)
            time.sleep(plan.after)
            if plan.end is not None:
                self._end(plan.end)
            if (now := time.monotonic()) > said + 15:
                said = now
                print(f"{now - started:4.0f} s: {plan.number} firings, {dict(self.counts)}", flush=True)
        self._settle()
        books = Books(self, self.arrived())
        broken = [*self._broken, *books.broken()]
        arrived = sum(books.arrived.values())
        return Outcome(broken, books.table(), self.counts["SIGKILL"], arrived, Counter(books.outcomes.values()))

    def arrived(self) -> Counter[tuple[str, str]]:
        """Return what arrived anywhere: how often each content at each target."""
        lines = self._out.read_text().splitlines() if self._out.exists() else []
        at_hostile = [(f"hostile:{entry['chat_id']}", entry["content"]) for entry in map(json.loads, lines)]
        return Counter([(f"telegram:{chat_id}", text) for chat_id, text in self.api.messages()] + at_hostile)

    # --- What happens around a firing

    def _misbehave(self, plan: Plan) -> None:
        """Let one neighbour misbehave from now on, and the others behave."""
        self._behave()
        if plan.misdeed == AWAY:
            self._wait_until_started()  # Telegram's start() ends a gateway that doesn't reach it, by Bub's doing
            self.api.stop()
        elif plan.misdeed in PLATFORM:
            self.api.script = [PLATFORM[plan.misdeed]] * plan.times
        elif plan.misdeed in HOOKS:
            self._misdeeds.write_text(plan.misdeed)

    def _behave(self) -> None:
        self._misdeeds.write_text("")
        self.api.script = []
        if not self.api.is_listening:
            self.api.start()

    def _submit(self, plan: Plan) -> None:
        """Submit a firing as the tick does: again, until a gateway says that it has it."""

        def is_taken() -> bool:
            self._keep_gateway()
            try:
                with Poke(self.house.socket) as poke:
                    # The grace counts from here: a start can take minutes of the fake time.
                    poke.send(**plan.request, expires=iso(self.clock.now() + plan.grace))
                    answer = poke.answer()
            except (OSError, ValueError):
                time.sleep(0.1)
                return False
            if answer["status"] not in OPEN | FINAL - {"rejected"}:
                self._broken.append(f"{plan.id} was answered {answer}")
            return True

        until(is_taken, f"{plan.id} taken by a gateway", START_SECONDS)

    def _keep_gateway(self) -> None:
        if self._gateway is not None and self._gateway.process.poll() is not None:
            self._broken.append(f"a gateway ended by itself, with status {self._gateway.process.returncode}")
            self._gateway = None
        if self._gateway is None:
            self.counts["gateways"] += 1
            self._never_starts = self._misdeeds.read_text() == "start"
            self._gateway = self.house.gateway(self.clock.environment(), wait=False)

    def _wait_until_started(self) -> None:
        self._keep_gateway()
        if (gateway := self._gateway) is not None and not self._never_starts:
            until(lambda: "cron.ready" in gateway.log.read_text(), "a gateway that is ready", START_SECONDS)

    def _end(self, how: signal.Signals) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is None:
            return
        self.counts[how.name] += 1
        gateway.process.send_signal(how)
        started = time.monotonic()
        while gateway.process.poll() is None:
            if time.monotonic() > started + STOP_SECONDS:
                self._broken.append(f"a gateway did not end within {STOP_SECONDS:g} s after {how.name}")
                gateway.kill()
                return
            time.sleep(0.02)

    def _settle(self) -> None:
        """Let everybody behave, and time run until every row is final."""
        self._behave()
        self._end(signal.SIGTERM)  # one whose neighbour never started would never be ready
        self._keep_gateway()
        give_up = self.clock.now() + SETTLE_SECONDS
        while self._open() and self.clock.now() < give_up:
            time.sleep(0.2)
        self._end(signal.SIGTERM)

    def _open(self) -> int:
        inbox = self.house.home / "cron" / "inbox.db"
        open_firings = f"SELECT id FROM firings WHERE state IN {sql_list(OPEN)}"  # noqa: S608 - constants of ours
        open_messages = f"SELECT firing FROM messages WHERE state IN {sql_list(MESSAGE_OPEN)}"  # noqa: S608
        return len(select(inbox, open_firings)) + len(select(inbox, open_messages))


class Row(NamedTuple):
    """One row of `messages`, with the text that it stands for."""

    kind: str
    to: str
    content: str
    state: str
    sends: int

    def limits(self, delivery: str) -> tuple[int, int]:
        """Return how often it must have arrived at least, and may have at most."""
        most = self.sends if delivery == "at-least-once" and self.kind == "reply" else 1
        return {DELIVERED: (1, most), UNKNOWN: (0, most)}.get(self.state, (0, 0))


class Books:
    """What was planned, what the stores say and what arrived, held against each other."""

    def __init__(self, run: Neighbours, arrived: Counter[tuple[str, str]]) -> None:
        self._run = run
        self._plans = {plan.id: plan for plan in run.plans}
        self.arrived = arrived
        self._inbox = run.house.home / "cron" / "inbox.db"
        self._log = run.house.log("-n", "1000000")
        firings = select(self._inbox, "SELECT id, state, coalesce(reply, '') FROM firings")
        self.outcomes = {each: state for each, state, _ in firings}
        replies = {each: reply for each, _, reply in firings}
        self._rows: defaultdict[str, list[Row]] = defaultdict(list)
        query = 'SELECT firing, kind, "to", content, state, sends FROM messages ORDER BY firing, number'
        for each, kind, to, content, state, sends in select(self._inbox, query):
            whole = self._plans[each].request.get("text", replies[each])
            self._rows[each].append(Row(kind, to, whole if content is None else content, state, sends))

    def broken(self) -> list[str]:
        checks = (self._one_final_outcome, self._rows_bear_it_out, self._every_message, self._sound)
        return [fault for check in checks for fault in check()]

    def _one_final_outcome(self) -> Iterator[str]:
        logged = Counter(entry["id"] for entry in self._log)
        for each in self._plans:
            if self.outcomes.get(each) not in FINAL:
                yield f"{each} has no final outcome: {self.outcomes.get(each)}"
            if logged[each] != 1:
                yield f"{each} is in the log {logged[each]} times"
        yield from (f"{each} was never submitted" for each in self.outcomes.keys() - self._plans.keys())
        for entry in self._log:
            if entry["outcome"] != self.outcomes.get(entry["id"]) or entry["reason"] == "fault":
                yield f"{entry['id']} is `{self.outcomes.get(entry['id'])}`, and the log says {entry}"

    def _rows_bear_it_out(self) -> Iterator[str]:
        for each, plan in self._plans.items():
            outcome, replies = self.outcomes.get(each, ""), [row for row in self._rows[each] if row.kind == "reply"]
            if still := [row.state for row in self._rows[each] if row.state in MESSAGE_OPEN]:
                yield f"{each} is `{outcome}`, and has messages that are {still}"
            if (
                replies
                and outcome in (DELIVERED, UNDELIVERED, UNKNOWN)
                and worst([r.state for r in replies]) != outcome
            ):
                yield f"{each} is `{outcome}`, and its replies are {[row.state for row in replies]}"
            sent = " ".join(row.content for row in replies)
            if outcome == DELIVERED and sent.split() != plan.text.split():
                yield f"{each} is `delivered`, and what was sent is {sent[:200]!r}"

    def _every_message(self) -> Iterator[str]:
        """Each row's message arrived as often as the row says, and nothing else did."""
        known = set()
        for each, rows in self._rows.items():
            delivery = self._plans[each].request["delivery"]
            for row in rows:
                known.add((row.to, row.content))
                (least, most), count = row.limits(delivery), self.arrived[row.to, row.content]
                if not least <= count <= most:
                    yield (
                        f"{each} is `{self.outcomes[each]}` ({delivery}), its {row.kind} is `{row.state}` after"
                        f" {row.sends} sends, and is there {count} times: {self._plans[each].misdeed}"
                    )
        yield from (f"{to} got what no row says: {text[:200]!r}" for to, text in self.arrived.keys() - known)

    def _sound(self) -> Iterator[str]:
        if (found := select(self._inbox, "PRAGMA integrity_check")) != [("ok",)]:
            yield f"inbox.db: {found}"
        yield from (f"a store was put aside: {path.name}" for path in self._inbox.parent.glob("*damaged*"))
        for log in self._run.house.home.glob("gateway-*.log"):
            yield from faults_of_ours(log)

    def table(self) -> str:
        """Return what came of the firings, by what was misbehaving when they were submitted."""
        of_misdeeds: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for each, plan in self._plans.items():
            account = of_misdeeds[plan.misdeed]
            account[self.outcomes.get(each, "none")] += 1
            account["sends"] += sum(row.sends for row in self._rows[each])
            account["arrived"] += sum(self.arrived[row.to, row.content] for row in self._rows[each])
        words = [*sorted(set(self.outcomes.values())), "sends", "arrived"]
        total = sum(of_misdeeds.values(), Counter())
        lines = [["misdeed", "firings", *words]]
        for misdeed, account in [*sorted(of_misdeeds.items()), ("all", total)]:
            firings = account.total() - account["sends"] - account["arrived"]
            lines.append([misdeed, str(firings), *(str(account[word]) for word in words)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        done = [f"{count:6,}  {what}" for what, count in sorted(self._run.counts.items())]
        rows = [
            "  ".join([name.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True))])
            for name, *cells in lines
        ]
        return "\n".join([*done, "", *rows])


def faults_of_ours(log: Path) -> Iterator[str]:
    """Yield what a gateway's log says of faults that are ours: a neighbour's own traceback is the neighbour's."""
    text = log.read_text(errors="replace")
    for sign in ("cron.fault", "cron.stale", "cron.connection", "cron.answer", "cron.off", "cron.chores"):
        if (at := text.find(sign)) >= 0:
            yield f"{log.name} says {sign}: {text[max(0, at - 200) : at + 600]}"
    for _, block in itertools.pairwise(re.split(r"^Traceback ", text, flags=re.MULTILINE)):
        files = re.findall(r'File "([^"]+)"', block.partition("\n\n")[0])
        if files and "/bub_cron/" in files[-1]:
            yield f"{log.name} has a traceback of ours: {block[:2000]}"


def report(outcome: Outcome) -> Iterator[str]:
    yield outcome.table
    yield ""
    if outcome.broken:
        yield f"{len(outcome.broken)} broken promises:"
        yield from (f"- {fault}" for fault in outcome.broken)
    else:
        yield "every promise was kept"


def main() -> int:
    parser = argparse.ArgumentParser(description="Let neighbours misbehave at random, then hold the books to account.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--firings", type=int, default=300)
    parser.add_argument("--speed", type=float, default=10.0, help="how much faster the gateway's time runs")
    options = parser.parse_args()
    library = find_library()
    if library is None:
        print("libfaketime is not installed (Debian, Ubuntu: apt install libfaketime)", file=sys.stderr)
        return 1
    print(f"--seed {options.seed} --firings {options.firings} --speed {options.speed:g}", flush=True)
    run = Neighbours(options.seed, options.firings, options.speed, library=library)
    try:
        outcome = run.run()
        print("\n" + "\n".join(report(outcome)), flush=True)
        if outcome.broken:
            kept = shutil.copytree(run.house.home, f"{run.house.home}-kept", ignore=shutil.ignore_patterns("*.sock"))
            print(f"\nlogs and stores are kept in {kept}")
        return int(bool(outcome.broken))
    finally:
        run.close()


if __name__ == "__main__":
    sys.exit(main())
