"""The firings in the ledger: recorded, edited, submitted, settled, pruned.

Invariants:
- A state changes only by a move of `states.LEDGER_MOVES`, from the states that it names.
- A known id stays as it is, except where a clock that was ahead of this one recorded it and it was never submitted: its
  time comes only now, so it is judged anew.
- Pruning never takes a firing that is not final.

Each function is called within a transaction of the caller's, unless it only reads.
"""

from bub_cron.states import ACCEPTED, DUE, GOOD, LEDGER_MOVES, MISSED, SKIPPED, sql_list
from bub_cron.trigger.ledger import is_instant
from bub_cron.wire import firing_id, iso

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from sqlite3 import Row

    from bub_cron.pauses import Pause
    from bub_cron.trigger.ledger import Ledger

LATE = "its grace was over before a tick ran"
PAST = "already past when the file was saved"
_TAKE_BACK = sql_list(LEDGER_MOVES["take_back"].sources)


class Firing:
    """A firing that waits to be submitted, beside what its reminder says now. Instants are epoch seconds."""

    __slots__ = (
        "catch_up", "content", "edited", "expires", "fire_time", "id", "new_content", "new_grace", "reminder",
        "submitted_at",
    )  # fmt: skip

    def __init__(self, row: "Row") -> None:
        self.id: str = row["id"]
        self.reminder: str = row["reminder"]
        self.fire_time: int = row["fire_time"]
        self.expires: int = row["expires"]
        self.content: str = row["content"]
        self.edited: int = row["edited"]
        self.submitted_at: int | None = row["submitted_at"]
        self.catch_up: str | None = row["catch_up"]
        self.new_content: str | None = row["new_content"]
        self.new_grace: int | None = row["new_grace"]

    @property
    def changed(self) -> bool:
        """Whether its reminder's content or grace was edited since it was recorded."""
        if self.edited or self.new_content is None or self.new_grace is None:
            return False
        return self.content != self.new_content or self.expires != self.fire_time + self.new_grace

    def take_over(self) -> None:
        """Take the edited content and grace over."""
        if self.new_content is not None and self.new_grace is not None:
            self.content, self.expires = self.new_content, self.fire_time + self.new_grace

    def line(self) -> bytes:
        """Return the request that submits it, as a line of the protocol."""
        # Ids, instants and the stored content need no quoting, so that no JSON library is loaded before the socket.
        head = f'{{"id": "{self.id}", "fire_time": "{iso(self.fire_time)}", "expires": "{iso(self.expires)}", "wait": false, '
        return (head + self.content[1:]).encode() + b"\n"


class Verdict:
    """What is to become of a firing: a move of `LEDGER_MOVES`, the reason's code, and its sentence."""

    __slots__ = ("error", "id", "move", "reason")

    def __init__(self, firing: str, move: str, reason: str | None = None, error: str | None = None) -> None:
        self.id = firing
        self.move = move
        self.reason = reason
        self.error = error


def record(
    ledger: "Ledger",
    reminder: str,
    fire_times: "Iterable[int]",
    *,
    content: str,
    grace: int,
    now: int,
    past: bool = False,
    pause: "Pause | None" = None,
) -> None:
    """Record fire times: `due`, or `missed` where the grace is over, or where they were `past` when they first appeared, or
    `skipped` where a pause holds them back.
    """
    skipped = None if pause is None else (SKIPPED, pause.reason, pause.sentence())
    rows: list[tuple[object, ...]] = []
    for fire_time in fire_times:
        late = past or now > fire_time + grace
        missed = (MISSED, "past", PAST) if past else (MISSED, "late", LATE) if late else None
        state, reason, error = skipped or missed or (DUE, None, None)
        rows.append((
            firing_id(reminder, iso(fire_time)), reminder, fire_time, 1, fire_time + grace, content,
            state, reason, error, now, None if state == DUE else now,
        ))  # fmt: skip
    _insert(ledger, rows)


def record_crowd(
    ledger: "Ledger",
    reminder: str,
    first: int,
    last: int,
    count: int,
    content: str,
    now: int,
    *,
    pause: "Pause | None" = None,
) -> None:
    """Record many fire times that passed while no tick ran as one row: `missed`, or `skipped` by a pause."""
    error = f"{count:,} fire times passed while no tick ran"
    state, reason = MISSED, "downtime"
    if pause is not None:
        state, reason, error = SKIPPED, pause.reason, f"{count:,} fire times: {pause.sentence()}"
    crowd = f"{firing_id(reminder, iso(first))}/{iso(last)}"
    _insert(ledger, [(crowd, reminder, last, count, last, content, state, reason, error, now, now)])


def _insert(ledger: "Ledger", rows: list[tuple[object, ...]]) -> None:
    ended = [str(row[0]) for row in rows if row[6] != DUE and _tells(str(row[5]))]
    there = "SELECT 1 FROM firings WHERE id = ? AND state <> 'due'"  # somebody was told of it
    ended = [firing for firing in ended if ledger.db.execute(there, (firing,)).fetchone() is None]
    ledger.db.executemany(
        "INSERT INTO firings (id, reminder, fire_time, count, expires, content, state, reason, error, recorded_at,"
        " settled_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET expires = excluded.expires, content = excluded.content,"
        " state = excluded.state, reason = excluded.reason, error = excluded.error, recorded_at = excluded.recorded_at,"
        " settled_at = excluded.settled_at, edited = 0"
        f" WHERE state IN {_TAKE_BACK} AND submitted_at IS NULL AND recorded_at > excluded.recorded_at",
        rows,
    )
    if ended:
        _note(ledger, ended)


def _tells(content: str) -> bool:
    """Tell whether a firing of this content, once it ends, may have to be told to somebody."""
    return '"alert"' in content or '"ping"' in content


def _note(ledger: "Ledger", ended: list[str]) -> None:
    from bub_cron.trigger.alerting import note

    note(ledger, ended)


def _forget_what_is_gone(ledger: "Ledger") -> None:
    """Let nobody be told of a firing that has not ended any more, or has been pruned."""
    ledger.db.execute(
        "DELETE FROM tellings WHERE NOT EXISTS (SELECT 1 FROM firings f WHERE f.id = firing AND f.state <> 'due')"
    )


def take_back(ledger: "Ledger", after: int, recorded_from: int) -> None:
    """Forget what a clock that was ahead recorded, from an instant on, of the fire times after another one.

    What was submitted stays. The fire times are to be recorded again when their time comes.
    """
    ledger.db.execute(
        "DELETE FROM firings WHERE fire_time > ? AND recorded_at >= ? AND submitted_at IS NULL"
        f" AND state IN {_TAKE_BACK}",
        (after, recorded_from),
    )
    _forget_what_is_gone(ledger)


def judge_anew(ledger: "Ledger", now: int) -> None:
    """Make due again what a clock that was ahead found too late, and what isn't so at `now`."""
    found = ledger.db.execute(
        "SELECT id, reminder, fire_time, expires, content FROM firings WHERE fire_time <= ? AND expires >= ?"
        " AND recorded_at > ? AND state = 'missed' AND reason IN ('late', 'past') AND submitted_at IS NULL",
        (now, now, now),
    ).fetchall()
    ledger.db.executemany("DELETE FROM firings WHERE id = ?", ((row["id"],) for row in found))
    for row in found:
        grace = row["expires"] - row["fire_time"]
        record(ledger, row["reminder"], [row["fire_time"]], content=row["content"], grace=grace, now=now)
    _forget_what_is_gone(ledger)


def due(ledger: "Ledger", now: int) -> list[Firing]:
    """Return every firing that is due and whose fire time has come, the oldest first."""
    rows = ledger.db.execute(
        "SELECT f.id, f.reminder, f.fire_time, f.expires, f.content, f.edited, f.submitted_at, r.catch_up,"
        " r.content AS new_content, r.grace AS new_grace"
        " FROM firings f LEFT JOIN reminders r ON r.name = f.reminder"
        " WHERE f.state = 'due' AND f.fire_time <= ? ORDER BY f.fire_time, f.id",
        (now,),
    )
    return [_sound(ledger, row) for row in rows]


def _sound(ledger: "Ledger", row: "Row") -> Firing:
    if (
        isinstance(row["reminder"], str)
        and isinstance(row["content"], str)
        and all(map(is_instant, (row["fire_time"], row["edited"], row["submitted_at"] or 0)))
        and isinstance(row["expires"], int)
        and row["id"] == firing_id(row["reminder"], iso(row["fire_time"]))
    ):
        return Firing(row)
    raise ledger.damaged("a firing that is due", row)


def change_due(ledger: "Ledger", firings: "Iterable[Firing]") -> None:
    """Store the content and expiry of due firings that took an edit over."""
    ledger.db.executemany(
        "UPDATE firings SET content = ?, expires = ? WHERE id = ? AND state = 'due'",
        ((firing.content, firing.expires, firing.id) for firing in firings),
    )


def mark_edited(ledger: "Ledger", ids: "Iterable[str]") -> None:
    """Mark due firings whose reminder is gone, disabled, paused or rescheduled; they are ended when they would be submitted."""
    ledger.db.executemany("UPDATE firings SET edited = 1 WHERE id = ? AND state = 'due'", ((firing,) for firing in ids))


def mark_submitted(ledger: "Ledger", ids: "Iterable[str]", now: int) -> None:
    """Mark due firings whose lines are about to be written."""
    ledger.db.executemany(
        "UPDATE firings SET submitted_at = coalesce(submitted_at, ?) WHERE id = ? AND state = 'due'",
        ((now, firing) for firing in ids),
    )


def settle(ledger: "Ledger", verdicts: "Iterable[Verdict]", now: int) -> None:
    """Make each verdict's move, where the firing is in a state that the move starts from."""
    ended = []
    for verdict in verdicts:
        move = LEDGER_MOVES[verdict.move]
        moved = ledger.db.execute(
            "UPDATE firings SET state = ?, reason = ?, error = ?, settled_at = ?"
            f" WHERE id = ? AND state IN {sql_list(move.sources)}",
            (move.state, verdict.reason, verdict.error, now, verdict.id),
        )
        if moved.rowcount and move.state != ACCEPTED:
            ended.append(verdict.id)
    if ended:
        _note(ledger, ended)


def without_outcome(ledger: "Ledger", accepted_before: int, most: int) -> list[str]:
    """Return the ids of the firings whose gateway has not told their final outcome yet, the oldest first."""
    rows = ledger.db.execute(
        "SELECT id FROM firings WHERE state = 'accepted' AND outcome IS NULL AND settled_at <= ?"
        " ORDER BY fire_time LIMIT ?",
        (accepted_before, most),
    )
    return [row["id"] for row in rows]


def keep_outcomes(ledger: "Ledger", outcomes: "Sequence[tuple[str, str]]") -> None:
    """Store (id, final outcome) of accepted firings, as their gateway told it."""
    ledger.db.executemany(
        "UPDATE firings SET outcome = ? WHERE id = ? AND state = ?",
        ((outcome, firing, ACCEPTED) for firing, outcome in outcomes),
    )
    about = f"SELECT 1 FROM firings WHERE id = ? AND outcome IN {sql_list(GOOD)} AND instr(content, '\"alert\"')"
    if good := [firing for firing, _ in outcomes if ledger.db.execute(about, (firing,)).fetchone()]:
        from bub_cron.trigger.alerting import note_recoveries

        note_recoveries(ledger, good)


def prune(ledger: "Ledger", before: int) -> None:
    """Drop what there was before an instant: final rows of fire times, gaps, and pauses that had ended."""
    ledger.db.execute("DELETE FROM firings WHERE fire_time < ? AND settled_at < ? AND state <> 'due'", (before, before))
    _forget_what_is_gone(ledger)
    ledger.db.execute("DELETE FROM gaps WHERE ended < ?", (before,))
    ledger.db.execute("DELETE FROM pauses WHERE until < ?", (before,))


def prune_to_size(ledger: "Ledger", most: int) -> None:
    """Drop the oldest final firings until what is in the store takes no more than so many bytes."""
    page_size = ledger.db.execute("PRAGMA page_size").fetchone()[0]
    while True:
        pages = (
            ledger.db.execute("PRAGMA page_count").fetchone()[0]
            - ledger.db.execute("PRAGMA freelist_count").fetchone()[0]
        )
        if pages * page_size <= most:
            return
        [total] = ledger.db.execute("SELECT count(*) FROM firings").fetchone()
        # About what is too much, and a little more, so that a few rounds will do.
        share = max(1, int(total * (1 - most / (pages * page_size)) * 1.1))
        gone = ledger.db.execute(
            "DELETE FROM firings WHERE rowid IN"
            " (SELECT rowid FROM firings WHERE state <> 'due' ORDER BY fire_time LIMIT ?)",
            (share,),
        ).rowcount
        if not gone:
            return
