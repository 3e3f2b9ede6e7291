"""`bub-cron log` of 20 rows with a million firings of history in each store, against a hundred.

In: the whole process, its start included. Out: the gateway and the tick; both stores are filled at once, with the same
firings in both, of 100 reminders, one a second until a day ago. Who asks about one reminder, and `list`, which looks for
each one's newest firing, are told below.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack, closing

from benchmarks.measure import SCRIPTS, Figure, Pairs, in_turn, main, run
from benchmarks.places import Place
from bub_cron.gateway.inbox_schema import SHAPE
from bub_cron.store import open_store

FEW = 100
# Both sides know them: the ledger that they were accepted, the inbox how each ended.
LEDGER_ROWS = """
INSERT INTO firings (id, reminder, fire_time, expires, content, state, recorded_at, submitted_at, settled_at)
SELECT 'old-' || (n % 100) || '@' || n, 'old-' || (n % 100), :end - n, :end - n + 3600, '{"text": "Time for your pills."}',
    'accepted', :end - n, :end - n, :end - n FROM numbers
"""
INBOX_ROWS = """
INSERT INTO firings (id, reminder, fire_time, moment, request, expires, state, accepted_at, started_at, finished_at)
SELECT 'old-' || (n % 100) || '@' || n, 'old-' || (n % 100), strftime('%Y-%m-%dT%H:%M:%SZ', :end - n, 'unixepoch'),
    :end - n + 0.0, '{"body":"Time for your pills.","kind":"text","to":"benchchat:alice"}', :end - n + 3600.0, 'delivered',
    :end - n + 1.0, :end - n + 1.0, :end - n + 2.0 FROM numbers
"""
MESSAGE_ROWS = """
INSERT INTO messages (firing, number, kind, "to", until, state, sends, finished_at)
SELECT 'old-' || (n % 100) || '@' || n, 1, 'reply', 'benchchat:alice', :end - n + 3600.0, 'delivered', 1, :end - n + 2.0
    FROM numbers
"""


def fill(place: Place, count: int) -> None:
    """Put old firings into both stores of a place, which a tick has made."""
    with closing(open_store(place.paths.inbox, SHAPE)) as inbox:
        _insert(inbox, count, INBOX_ROWS, MESSAGE_ROWS)
    with closing(sqlite3.connect(place.paths.ledger, isolation_level=None)) as ledger:
        _insert(ledger, count, LEDGER_ROWS)


def _insert(store: sqlite3.Connection, count: int, *statements: str) -> None:
    numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count) "
    store.execute("PRAGMA cache_size = -200000")
    store.execute("BEGIN")
    for statement in statements:
        store.execute(numbers + statement, {"count": count, "end": int(time.time()) - 86400})
    store.execute("COMMIT")


def measure(pairs: int = 15, firings: int = 1_000_000) -> Figure:
    """Compare the CPU of `bub-cron log` with so many firings in each store with that with a hundred."""
    with ExitStack() as stack:
        few, many = stack.enter_context(Place()), stack.enter_context(Place())
        for place, count in ((few, min(FEW, firings)), (many, firings)):
            place.write(10)
            place.tick()
            fill(place, count)

        def compared(*command: str) -> Pairs:
            def cpu(place: Place) -> float:
                return run([str(SCRIPTS / "bub-cron"), *command], place.environment).cpu

            return in_turn(lambda: cpu(few), lambda: cpu(many), pairs)

        log, of_one, listing = compared("log"), compared("log", "old-7"), compared("list")
    ratio = log.ratio
    return Figure(
        f"CPU of `bub-cron log` (20 rows) with {firings:,} firings in each store",
        f"with {FEW} ({sum(log.baseline) / pairs * 1000:.0f} ms)",
        "at most 2",
        f"{ratio.text()}, {pairs} pairs",
        ratio.median <= 2,
        (f"`log` of one reminder: {of_one.ratio.text()}", f"`list`: {listing.ratio.text()}"),
    )


if __name__ == "__main__":
    main(measure)
