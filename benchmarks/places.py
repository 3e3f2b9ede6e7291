"""A BUB_HOME of its own: reminders files of any size, ledgers in which just so much is due, the real tick.

Invariants: nothing outside of the place is read or written. Its directory is where TMPDIR says, so that the syncs are
those of a real disk if that is one.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from types import TracebackType
from zoneinfo import ZoneInfo

from benchmarks.measure import SCRIPTS, Usage, run
from bub_cron.paths import Paths, find_paths
from bub_cron.trigger import tick
from bub_cron.wire import iso

MINUTE = 60
ZONE = "Europe/Berlin"
TICK = [str(SCRIPTS / "bub-cron"), "tick"]
# None of them is due within the time that a benchmark takes, but for the minute of one in 10,000.
FAR = ("0 3 29 2 *", "30 4 29 2 mon-fri", "*/15 6-9 29 2 *", "0 9 29 2 *")


class Place:
    """Use as a context manager; the directory is gone afterwards."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="bub-cron-bench-"))
        self.reminders = self.home / "reminders.yaml"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BUB_", "PYTHON"))}
        self.environment = {**kept, "HOME": str(self.home), "BUB_HOME": str(self.home)}
        self.paths: Paths = find_paths(self.environment)

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.home)

    def tick(self, *, expect: int = 0) -> Usage:
        """Run `bub-cron tick`, the console script, as cron would."""
        return run(TICK, self.environment, expect=expect)

    def idle_tick(self) -> Usage:
        """Run `bub-cron tick` as one with nothing to do, a minute after the tick before.

        Within the second of the tick before it would not even write its own time down.
        """
        with closing(sqlite3.connect(self.paths.ledger)) as ledger, ledger:
            ledger.execute("UPDATE tick SET last_tick = ?", (int(time.time()) - MINUTE,))
        return self.tick()

    def tick_at(self, now: float) -> None:
        """Run a tick in this process with its clock at `now`, so that nobody need wait for a minute to come."""
        if status := tick.run(self.paths, now):
            raise RuntimeError(f"the tick ended with {status}")

    def write(self, count: int, *, edited: str = "") -> None:
        """Save a file of so many reminders, none of them due. `edited` goes into the message of the last one."""
        lines = ["defaults:", f"  timezone: {ZONE}", "  to: benchchat:alice", "reminders:"]
        for number in range(count):
            text = f"Message number {number} of a file with many of them.{edited if number == count - 1 else ''}"
            lines += [f"  reminder-{number}:", f'    cron: "{FAR[number % len(FAR)]}"', f"    text: {text}"]
        self._save("\n".join([*lines, ""]))

    def write_drop_ins(self, count: int) -> None:
        """Save so many drop-ins, of one reminder each, none of them due."""
        directory = self.home / "reminders.d"
        directory.mkdir()
        for number in range(count):
            entry = f'  drop-in-{number}: {{cron: "{FAR[0]}", text: A message.}}'
            text = f"defaults: {{timezone: {ZONE}, to: 'benchchat:alice'}}\nreminders:\n{entry}\n"
            (directory / f"{number}.yaml").write_text(text)

    def write_due(
        self, count: int, *, message: str, kind: str = "cron", chats: int = 1, others: int = 0, label: str = "due"
    ) -> int:
        """Save a file of which `count` reminders are due at the last full minute, and at no other; return that instant.

        The ledger has taken the file in before that minute and recorded nothing of it, so what is left for a tick is what
        it does at nine o'clock when something is due at nine. `message` is a reminder's key and value, such as `text: x`;
        `kind` is cron or at; `label` begins the names.
        """
        minute = int(time.time()) // MINUTE * MINUTE
        local = datetime.fromtimestamp(minute, ZoneInfo(ZONE))
        cron = f"cron: '{local.minute} {local.hour} * * *', timezone: {ZONE}"
        schedule = cron if kind == "cron" else f"at: '{iso(minute)}'"
        lines = ["reminders:"]
        for number in range(count):
            entry = f"{schedule}, {message}, to: 'benchchat:chat-{number % chats}', grace: 1d"
            lines.append(f"  {label}-{number}: {{{entry}}}")
        for number in range(others):
            lines.append(f"  other-{number}: {{cron: '{FAR[number % len(FAR)]}', {message}, to: 'benchchat:alice'}}")
        self._save("\n".join([*lines, ""]))
        os.utime(self.reminders, (minute - 2 * MINUTE, minute - 2 * MINUTE))
        self.tick_at(minute - MINUTE / 2)
        return minute

    def keep_ledger(self) -> None:
        """Keep the ledger as it is, for `restore_ledger`."""
        shutil.copy(self.paths.ledger, self.home / "kept.db")

    def restore_ledger(self) -> None:
        shutil.copy(self.home / "kept.db", self.paths.ledger)

    def _save(self, text: str) -> None:
        written = self.home / "written.yaml"
        written.write_text(text)
        written.replace(self.reminders)
