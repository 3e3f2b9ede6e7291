"""How cost grows: with the reminders in the file, the firings of one minute, the rows of history, the waiting firings.

Each at three sizes, the smallest first. CPU is of the whole process; seconds are the clock's. A value is the median of
`repeats`, where it says nothing else.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from statistics import median

from benchmarks.gateways import INSTANT, Gateway, firing_lines, settle
from benchmarks.measure import SCRIPTS, Usage, main, run
from benchmarks.places import Place


def measure(
    repeats: int = 5, scale: float = 1.0, sizes: int = 3, only: str = "reminders,firings,history,waiting"
) -> str:
    """Measure the tables of `only`; `scale` makes all sizes smaller, or larger; `sizes` is how many of the three to try."""
    tables: dict[str, tuple[str, Callable[[int], Row], tuple[int, ...]]] = {
        "reminders": ("reminders in the file", lambda count: _reminders(count, repeats), (100, 1_000, 10_000)),
        "firings": ("firings in one minute", _firings, (100, 1_000, 10_000)),
        "history": (
            "rows of history, in each store",
            lambda count: _history(count, repeats),
            (10_000, 100_000, 1_000_000),
        ),
        "waiting": ("waiting firings", lambda count: _waiting(count, repeats), (100, 1_000, 10_000)),
    }
    chosen = [tables[name] for name in only.split(",")]
    return "\n\n".join(
        _table(title, [measure_one(max(1, int(count * scale))) for count in counts[:sizes]])
        for title, measure_one, counts in chosen
    )


type Row = dict[str, str]


def _table(title: str, columns: Sequence[Row]) -> str:
    names = list(columns[0])
    lines = [[title if name == names[0] else name, *(column[name] for column in columns)] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def _reminders(count: int, repeats: int) -> Row:
    with Place() as place:
        place.write(count)
        place.tick()
        idle = median(place.idle_tick().cpu for _ in range(repeats * 4))
        edits: list[Usage] = []
        for _ in range(repeats):
            place.write(count, edited=f" {os.urandom(4).hex()}")
            edits.append(place.tick())
        listing = [run([str(SCRIPTS / "bub-cron"), "list"], place.environment).cpu for _ in range(repeats)]
        return {
            "": f"{count:,}",
            "CPU of an idle tick": _ms(idle),
            "CPU of a tick after an edit": _ms(median(edit.cpu for edit in edits)),
            "its peak memory": f"{median(edit.peak_kib for edit in edits) / 1024:,.0f} MiB",
            "CPU of `bub-cron list`": _ms(median(listing)),
            "size of the ledger": _mib(place.paths.ledger),
        }


def _firings(count: int) -> Row:
    """Measured once: one minute in which so many are due, as `text`, to 100 chats."""
    with Place() as place, Gateway(place, INSTANT) as gateway:
        settle()
        place.write_due(count, message="text: Time for your pills.", chats=100)
        sent, before, began = gateway.command("sent"), gateway.cpu(), time.monotonic()
        tick = place.tick()
        ticked = time.monotonic() - began
        gateway.command("wait_for_sent", count=sent + count)
        gateway.wait_until_idle()
        delivered = time.monotonic() - began
        return {
            "": f"{count:,}",
            "CPU of the tick": _ms(tick.cpu),
            "its peak memory": f"{tick.peak_kib / 1024:,.0f} MiB",
            "from its start to its end, all accepted": f"{ticked:,.1f} s",
            "until all are delivered": f"{delivered:,.1f} s",
            "CPU of the gateway, for each": _ms((gateway.cpu() - before) / count, 2),
        }


def _history(count: int, repeats: int) -> Row:
    with Place() as place:
        place.write(10)
        place.tick()
        with Gateway(place, INSTANT) as gateway:
            gateway.run_firings(firing_lines(1, "first", kind="text"))
        _fill(place.paths.inbox, _INBOX_ROWS, count)
        _fill(place.paths.ledger, _LEDGER_ROWS, count)
        idle = median(place.idle_tick().cpu for _ in range(repeats * 4))
        log = [run([str(SCRIPTS / "bub-cron"), "log"], place.environment).cpu for _ in range(repeats)]
        listing = [run([str(SCRIPTS / "bub-cron"), "list"], place.environment).cpu for _ in range(repeats)]
        with Gateway(place, INSTANT) as gateway:
            settle()
            one = [
                _seconds(lambda label=f"one-{n}": gateway.run_firings(firing_lines(1, label, kind="text")))  # type: ignore[misc]
                for n in range(repeats * 4)
            ]
        return {
            "": f"{count:,}",
            "CPU of an idle tick": _ms(idle),
            "CPU of `bub-cron log` (20 rows)": _ms(median(log)),
            "CPU of `bub-cron list`": _ms(median(listing)),
            "a firing in an idle gateway, to its last word": _ms(median(one), 1),
            "size of both stores": _mib(place.paths.inbox, place.paths.ledger),
        }


# Old firings of a day each minute of the last 30 days, more in each if need be; the text is a usual one.
_DAY_OF_ROW = "strftime('%s', 'now') - 86400 - n % 2500000"
_INBOX_ROWS = f"""
INSERT INTO firings (id, reminder, fire_time, target, session, kind, content, expires, state, attempts, sends, reply,
    accepted_at, started_at, finished_at)
SELECT 'old-' || (n % 100) || '@' || n, 'old-' || (n % 100), strftime('%Y-%m-%dT%H:%M:%SZ', {_DAY_OF_ROW}, 'unixepoch'),
    f.target, f.session, f.kind, f.content, f.expires, 'delivered', 0, 1, f.reply, {_DAY_OF_ROW}, {_DAY_OF_ROW},
    {_DAY_OF_ROW} FROM numbers, firings f WHERE f.seq = 1
"""  # noqa: S608 - our own words
_LEDGER_ROWS = f"""
INSERT INTO firings (id, reminder, fire_time, expires, content, state, recorded_at, submitted_at, settled_at)
SELECT 'old-' || (n % 100) || '@' || n, 'old-' || (n % 100), {_DAY_OF_ROW}, {_DAY_OF_ROW}, '{{"text": "Time for your pills."}}',
    'accepted', {_DAY_OF_ROW}, {_DAY_OF_ROW}, {_DAY_OF_ROW} FROM numbers
"""  # noqa: S608 - our own words


def _fill(store: str, statement: str, count: int) -> None:
    numbers = f"WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"  # noqa: S608
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(f"PRAGMA cache_size = {-200_000}")
        connection.execute(numbers + statement)


def _waiting(count: int, repeats: int) -> Row:
    with Place() as place, Gateway(place, INSTANT, BENCH_HOLD="1") as gateway:
        settle()
        before = gateway.resident_kib()
        gateway.submit(firing_lines(count, "waits", kind="text", chats=100))
        settle()
        resident = gateway.resident_kib() - before
        ping = [_seconds(gateway.ping) for _ in range(repeats * 4)]
        one = [
            _seconds(lambda label=f"more-{n}": gateway.submit(firing_lines(1, label, kind="text")))  # type: ignore[misc]
            for n in range(repeats * 4)
        ]
        idle = gateway.cpu()
        time.sleep(5)
        idle = gateway.cpu() - idle
    return {
        "": f"{count:,}",
        "memory that they take in the gateway": f"{resident / 1024:,.1f} MiB",
        "a ping's answer": _ms(median(ping), 1),
        "one more, until `accepted`": _ms(median(one), 1),
        "CPU of the gateway in 5 s, while they wait": _ms(idle),
    }


def _seconds(do: Callable[[], object]) -> float:
    began = time.monotonic()
    do()
    return time.monotonic() - began


def _ms(seconds: float, digits: int = 0) -> str:
    return f"{seconds * 1000:,.{digits}f} ms"


def _mib(*paths: str) -> str:
    return f"{sum(os.stat(path).st_size for path in paths) / 1024 / 1024:,.1f} MiB"


if __name__ == "__main__":
    main(measure)
