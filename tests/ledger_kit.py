"""Put rows into a ledger, without a tick."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import Any

from bub_cron.states import LEDGER_MOVES
from bub_cron.trigger import firings
from bub_cron.trigger.firings import Verdict
from bub_cron.trigger.ledger import Ledger

FAR = 253402300799
COLUMNS = {
    "name": "a", "file": "f", "schedule": "s", "machine_zone": 0, "content": "{}", "enabled": 1, "grace": 3600,
    "catch_up": "latest", "since": None, "next_at": None, "done_until": None, "pause_until": None,
}  # fmt: skip
REASONS = {"missed": "late", "rejected": "rejected"}  # by state, where a test says none
MOVES = {move.state: name for name, move in LEDGER_MOVES.items() if move.sources and move.state}


def put(ledger: Ledger, **columns: Any) -> None:
    """Put a reminder into the ledger: the columns given, and something for the others."""
    row = {**COLUMNS, **columns}
    ledger.db.execute(f"REPLACE INTO reminders VALUES ({', '.join('?' * len(row))})", tuple(row.values()))  # noqa: S608


def settle(
    ledger: Ledger, ids: Iterable[str], state: str, error: str | None, now: int, reason: str | None = None
) -> None:
    """Settle firings in a state."""
    with ledger.transaction():
        firings.settle(ledger, [Verdict(one, MOVES[state], reason, error) for one in ids], now)


def settle_due(path: str, state: str, error: str | None, now: int, reason: str | None = None) -> None:
    """Settle all that is due in the ledger at a path."""
    with closing(Ledger(path)) as ledger:
        settle(ledger, [found.id for found in firings.due(ledger, FAR)], state, error, now, reason)


def record(
    path: str,
    *fire_times: int,
    name: str,
    content: str,
    state: str | None = None,
    error: str | None = None,
    reason: str | None = None,
    grace: int = 3600,
) -> None:
    """Put firings into the ledger at a path, settled a minute later in a state if one is given."""
    with closing(Ledger(path)) as ledger:
        with ledger.transaction():
            firings.record(ledger, name, fire_times, content=content, grace=grace, now=fire_times[0])
        if state is not None:
            due = [found.id for found in firings.due(ledger, FAR)]
            settle(ledger, due, state, error, fire_times[0] + 60, reason or REASONS.get(state))
