"""The pauses in the ledger: read, begun, ended.

Invariants: a pause that has ended stays until the ticks have recorded what fell into it, and is pruned with the firings.

Each function is called within a transaction of the caller's, unless it only reads. An idle tick loads none of this.
"""

from bub_cron.pauses import PAUSE, SKIP, Pause, Pauses
from bub_cron.trigger.ledger import is_instant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from bub_cron.trigger.ledger import Ledger


def read(ledger: "Ledger") -> Pauses:
    """Return all pauses and skips that the ledger knows."""
    found = []
    for row in ledger.db.execute("SELECT reminder, kind, since, until, why, who FROM pauses").fetchall():
        if not is_instant(row["since"]) or not is_instant(row["until"] or 0) or row["kind"] not in (PAUSE, SKIP):
            raise ledger.damaged("a pause", row)
        found.append(Pause(*row))
    return Pauses(found)


def pause(ledger: "Ledger", names: "Iterable[str]", *, until: int | None, why: str | None, who: str, now: int) -> None:
    """Pause reminders (`ALL`: all) from now on. One that is paused already stays so, with the new end and reason."""
    for name in names:
        changed = ledger.db.execute(
            "UPDATE pauses SET until = ?, why = ?, who = ? WHERE reminder = ? AND kind = ?"
            " AND (until IS NULL OR until > ?)",
            (until, why, who, name, PAUSE, now),
        )
        if not changed.rowcount:
            _put(ledger, Pause(name, PAUSE, now, until, why, who))


def skip(ledger: "Ledger", name: str, last: int, *, who: str, now: int) -> None:
    """Skip a reminder's fire times after now, up to the `last` one; this takes the place of an earlier skip."""
    resume(ledger, [name], now, kinds=(SKIP,))
    _put(ledger, Pause(name, SKIP, now + 1, last + 1, None, who))


def resume(ledger: "Ledger", names: "Iterable[str]", now: int, kinds: "Iterable[str]" = (PAUSE, SKIP)) -> None:
    """End the pauses and skips of these names (`ALL`: the pause of all)."""
    ledger.db.executemany(
        "UPDATE pauses SET until = ? WHERE reminder = ? AND kind = ? AND (until IS NULL OR until > ?)",
        [(now, name, kind, now) for name in names for kind in kinds],
    )


def _put(ledger: "Ledger", made: Pause) -> None:
    # One of the same second was ended in it.
    ledger.db.execute(
        "REPLACE INTO pauses (reminder, kind, since, until, why, who) VALUES (?, ?, ?, ?, ?, ?)",
        (made.reminder, made.kind, made.since, made.until, made.why, made.who),
    )
