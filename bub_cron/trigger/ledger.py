"""The trigger side's store: which fire times there were, and what the tick did about each.

Kept true here:
- A firing is in the ledger, on disk, before the socket is touched; its id is there once, so no fire time repeats.
- The ledger judges a firing until the inbox has its id. `submitted_at` marks one whose line may have been written: before
  it ends `missed`, or changes, the inbox is asked (tick.py does that).
- Recording a fire time and moving on past it are one transaction, so no tick can do one without the other.
- `reminders` is the last good file, each with its next fire time: a tick with nothing due reads three rows, whatever the
  file's size, and a broken file changes nothing.

| state  | event                                                             | next state | moved by |
|--------|-------------------------------------------------------------------|------------|----------|
| (none) | its fire time has come                                            | due        | record   |
| (none) | its fire time has come, and its grace is over already             | missed     | record   |
| (none) | an `at` that was past when its file was saved                     | missed     | load     |
| missed | its fire time comes, and it was a clock ahead of this one's that  | due        | record   |
|        | called it missed, and never submitted it                          |            |          |
| due    | its reminder's message, target, ... was edited: taken over        | due        | submit   |
| due    | its reminder is gone, disabled or rescheduled                     | missed     | submit   |
| due    | its grace is over, and the inbox doesn't know it                  | missed     | submit   |
| due    | a later one starts in its place (`catch_up: latest`)              | missed     | submit   |
| due    | its line is about to be written (submitted_at)                    | due        | submit   |
| due    | the gateway is absent or busy                                     | due        | submit   |
| due    | the gateway has it: any answer but rejected and busy              | accepted   | submit   |
| due    | the gateway rejected it                                           | rejected   | submit   |

`accepted` and `rejected` are never left, nor is `missed` but for that one row; such rows are pruned after `BUB_CRON_KEEP_DAYS` (30). The journal is a rollback journal: a reader leaves no files behind.
"""

from __future__ import annotations

from bub_cron.errors import DamagedStoreError
from bub_cron.states import ACCEPTED, DUE, MISSED, REJECTED
from bub_cron.store import FAR, Transaction, check_whole, instant, made_anew, number, open_store, text
from bub_cron.wire import MAX_DURATION, firing_id, iso

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence
    from typing import Any

    from bub_cron.errors import StoreError

APPLICATION_ID = 0x62634C64  # "bcLd"
VERSION = 3
ROWS_EACH = 1000  # fire times of one reminder, recorded at once, that get a row each
# The checks say what a whole row is: a damaged store's rows come over only if they pass. The statements have no comments:
# SQLite keeps their text, and salvage.py needs all of it in the store's first page.
# Instants are seconds since the epoch.

# A time without ticks: the last tick before it, the first one after.
_GAPS = f"""
CREATE TABLE gaps (
    began       INTEGER PRIMARY KEY {instant("began")},
    ended       INTEGER NOT NULL {instant("ended")}
)
"""
# The tick's own row: the signature of the files as they were last read, the path of the reminders file that was last
# taken over, what the last tick had to say, and when that was last printed.
_TICK = f"""
CREATE TABLE tick (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    last_tick   INTEGER {instant("last_tick")},
    signature   TEXT,
    file        TEXT,
    trouble     TEXT,
    said_at     INTEGER {instant("said_at")}
)
"""
# The files that are at fault, each with the exit status that its faults have; their last good versions are in force.
_FILES = f"""
CREATE TABLE files (
    path        TEXT PRIMARY KEY {text("path")},
    faults      TEXT NOT NULL {text("faults")},
    status      INTEGER NOT NULL {number("status", 255)}
) WITHOUT ROWID
"""
# The last good files: `schedule` as schedule.encode() writes it; `content` is JSON, the request's fields but for id,
# fire_time and expires; `grace` is seconds; `next_at` is the first fire time that is not yet recorded.
_REMINDERS = f"""
CREATE TABLE reminders (
    name        TEXT PRIMARY KEY {text("name")},
    file        TEXT NOT NULL {text("file")},
    schedule    TEXT NOT NULL {text("schedule")},
    content     TEXT NOT NULL {text("content")},
    enabled     INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    grace       INTEGER NOT NULL {number("grace", MAX_DURATION)},
    catch_up    TEXT NOT NULL CHECK (catch_up IN ('latest', 'all')),
    next_at     INTEGER {instant("next_at")}
) WITHOUT ROWID
"""
# `count` fire times share a row, of which `fire_time` is the last; `edited`: its reminder is gone, disabled or rescheduled;
# `submitted_at` is when its line may first have been written.
_FIRINGS = f"""
CREATE TABLE firings (
    id           TEXT PRIMARY KEY {text("id")},
    reminder     TEXT NOT NULL {text("reminder")},
    fire_time    INTEGER NOT NULL {instant("fire_time")},
    count        INTEGER NOT NULL DEFAULT 1,
    expires      INTEGER NOT NULL {number("expires", FAR + MAX_DURATION)},
    content      TEXT NOT NULL {text("content")},
    state        TEXT NOT NULL CHECK (state IN ('due', 'accepted', 'missed', 'rejected')),
    reason       TEXT,
    edited       INTEGER NOT NULL DEFAULT 0 CHECK (edited IN (0, 1)),
    recorded_at  INTEGER NOT NULL {instant("recorded_at")},
    submitted_at INTEGER {instant("submitted_at")},
    settled_at   INTEGER {instant("settled_at")},
    CHECK (state <> 'due' OR id = reminder || '@' || strftime('%Y-%m-%dT%H:%M:%SZ', fire_time, 'unixepoch'))
)
"""
_INDEXES = (
    "CREATE INDEX reminders_next ON reminders (next_at)",
    "CREATE INDEX firings_due ON firings (fire_time) WHERE state = 'due'",
    "CREATE INDEX firings_reminder ON firings (reminder, fire_time)",
    "CREATE INDEX firings_time ON firings (fire_time)",
)
SCHEMA = (_TICK, _FILES, _REMINDERS, _FIRINGS, _GAPS, *_INDEXES, "INSERT INTO tick (one) VALUES (1)")
_MIGRATIONS = {
    # Version 1 had no checks, which migration 2 adds, and no gaps.
    1: (_GAPS,),
    # Version 2 knew one file. Without a signature, the next tick reads them all.
    2: (
        *made_anew("tick", _TICK, "one, last_tick, trouble, said_at", "one, last_tick, trouble, said_at"),
        *made_anew("reminders", _REMINDERS, "", "name, '', schedule, content, enabled, grace, catch_up, next_at"),
        *made_anew("firings", _FIRINGS),
        *made_anew("gaps", _GAPS),
        _FILES,
        *_INDEXES,
    ),
}


def _open(path: str) -> sqlite3.Connection:
    return open_store(
        path,
        application_id=APPLICATION_ID,
        version=VERSION,
        schema=SCHEMA,
        journal="DELETE",
        migrations=_MIGRATIONS,
    )


def mend(path: str, now: float) -> StoreError | None:
    """Put a damaged ledger aside, keep what can be read of it, and return what to say; None if it is whole by now."""
    from bub_cron import salvage

    def finish(fresh: sqlite3.Connection) -> None:
        # The file is to be read again, for its reminders may be among what was lost; and the minute of the mending counts.
        fresh.execute("UPDATE tick SET signature = NULL, last_tick = coalesce(last_tick, ?)", (int(now) - 60,))

    return salvage.mend(path, iso(now), _open_with_its_row, finish)


def _open_with_its_row(path: str) -> sqlite3.Connection:
    """Open a ledger that has the tick's own row; no check of SQLite's misses that."""
    ledger = _open(path)
    if ledger.execute("SELECT 1 FROM tick").fetchone() is None:
        ledger.close()
        raise DamagedStoreError(f"{path} is damaged: the tick's own row has gone")
    return ledger


class Due:
    """A firing that waits to be submitted, beside what its reminder says now. Instants are epoch seconds."""

    __slots__ = (
        "catch_up", "content", "edited", "expires", "fire_time", "id", "new_content", "new_grace", "reminder",
        "submitted_at",
    )  # fmt: skip

    def __init__(self, row: Sequence[object]) -> None:
        self.id: str
        self.reminder: str
        self.fire_time: int
        self.expires: int
        self.content: str
        self.edited: int
        self.submitted_at: int | None
        self.catch_up: str | None
        self.new_content: str | None
        self.new_grace: int | None
        (self.id, self.reminder, self.fire_time, self.expires, self.content, self.edited, self.submitted_at,
         self.catch_up, self.new_content, self.new_grace) = row  # type: ignore[assignment] # fmt: skip

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


def _is_instant(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= FAR


def _is_text(value: object) -> bool:
    return isinstance(value, str)


class Ledger:
    """The open store. Every method raises one of `store.ERRORS` when the disk refuses, `DamagedStoreError` for a row no tick wrote."""

    def __init__(self, path: str) -> None:
        """Open or create it; `StoreError` if that can't be done (`DamagedStoreError`: `mend` it)."""
        self.path = path
        self._db = _open(path)

    def close(self) -> None:
        self._db.close()

    def transaction(self) -> Transaction:
        """Return `with`'s subject for one write transaction."""
        return Transaction(self._db)

    # --- The tick's own row

    def tick_row(self) -> tuple[int | None, str | None, str | None]:
        """Return (the last tick's instant, the files' signature, the reminders file that was last taken over)."""
        row = self._db.execute("SELECT last_tick, signature, file FROM tick").fetchone()
        if row is None or not (_is_instant(row[0] or 0) and _is_text(row[1] or "") and _is_text(row[2] or "")):
            raise self._damaged("its tick", row)
        found: tuple[int | None, str | None, str | None] = row
        return found

    def set_last_tick(self, now: int) -> None:
        self._db.execute("UPDATE tick SET last_tick = ?", (now,))

    def note_gap(self, began: int, ended: int) -> None:
        """Note that no tick ran in at least one whole minute between these two."""
        self._db.execute("REPLACE INTO gaps (began, ended) VALUES (?, ?)", (began, ended))

    # --- The files

    def set_files(self, signature: str, faulty: Iterable[tuple[str, str, int]], file: str | None = None) -> None:
        """Note that the files were read: their signature, and (path, faults, exit status) of each that is at fault.

        `file` is the reminders file that was taken over, if one was.
        """
        self._db.execute("UPDATE tick SET signature = ?, file = coalesce(?, file)", (signature, file))
        self._db.execute("DELETE FROM files")
        self._db.executemany("INSERT INTO files (path, faults, status) VALUES (?, ?, ?)", faulty)

    def faulty_files(self) -> list[tuple[str, int, bool]]:
        """Return (faults, their exit status, whether an older version is in force) of each file that is at fault."""
        rows = self._db.execute(
            "SELECT faults, status, EXISTS (SELECT 1 FROM reminders r WHERE r.file = f.path"
            " OR r.file > f.path || '/' AND r.file < f.path || '0') FROM files f ORDER BY path"
        ).fetchall()
        if not all(_is_text(faults) and _is_instant(status) for faults, status, _ in rows):
            raise self._damaged("a faulty file", rows[0])
        return [(faults, status, bool(older)) for faults, status, older in rows]

    def is_news(self, trouble: str, now: int) -> bool:
        """Tell whether a tick's trouble ("" for none) is to be printed: one with something new, or last printed an hour ago.

        What is left of it when a part has gone is nothing new.
        """
        known, said_at = self._db.execute("SELECT trouble, said_at FROM tick").fetchone()
        if not _is_instant(said_at or 0):
            raise self._damaged("its tick", (known, said_at))
        known = known or ""
        is_old = said_at is not None and 0 <= now - said_at < 3600 and {*trouble.split("\n")} <= {*known.split("\n")}
        if trouble and not is_old:
            self._db.execute("UPDATE tick SET trouble = ?, said_at = ?", (trouble, now))
            return True
        if trouble != known:
            self._db.execute("UPDATE tick SET trouble = ?", (trouble,))
        return False

    # --- Reminders: the last good file

    def reminders(self) -> dict[str, tuple[str, str, int, int, str, int | None]]:
        """Return name -> (schedule, content, enabled, grace, catch_up, next_at) of the last good files."""
        rows = self._db.execute("SELECT name, schedule, content, enabled, grace, catch_up, next_at FROM reminders")
        return {row[0]: row[1:] for row in map(self._sound_reminder, rows)}

    def files_of_reminders(self) -> dict[str, str]:
        """Return name -> path of the file that holds it."""
        return dict(self._db.execute("SELECT name, file FROM reminders"))

    def put_reminders(self, file: str, rows: Iterable[tuple[str, str, str, int, int, str, int | None]]) -> None:
        """Store reminders of a file: (name, schedule, content, enabled, grace, catch_up, next_at)."""
        self._db.executemany(
            "REPLACE INTO reminders (file, name, schedule, content, enabled, grace, catch_up, next_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            ((file, *row) for row in rows),
        )

    def drop_reminders(self, names: Iterable[str]) -> None:
        self._db.executemany("DELETE FROM reminders WHERE name = ?", ((name,) for name in names))

    def overdue_reminders(self, now: int) -> list[tuple[str, str, str, int, int]]:
        """Return (name, schedule, content, grace, next_at) of the reminders that have a fire time to record."""
        # Beyond the calendar's end stand only values that no tick wrote: they are not to wait there unseen. Each of the two
        # looks into the index alone; one condition with OR would read every reminder.
        columns = "SELECT name, schedule, content, enabled, grace, catch_up, next_at FROM reminders WHERE next_at"
        rows = self._db.execute(f"{columns} <= ? UNION ALL {columns} > ?", (now, FAR))
        sound = sorted(map(self._sound_reminder, rows), key=lambda row: (row[6], row[0]))
        return [(*row[:3], row[4], row[6]) for row in sound]

    def _sound_reminder(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        name, schedule, content, enabled, grace, catch_up, next_at = row
        if (
            all(map(_is_text, (name, schedule, content, catch_up)))
            and _is_instant(enabled)
            and _is_instant(grace)
            and (next_at is None or _is_instant(next_at))
        ):
            return row
        raise self._damaged("a reminder", row)

    def _damaged(self, what: str, row: tuple[Any, ...] | None) -> DamagedStoreError:
        return DamagedStoreError(f"{self.path} is damaged: {what} holds what no tick wrote: {str(row)[:200]}")

    def set_next(self, rows: Iterable[tuple[int | None, str]]) -> None:
        """Store (next_at, name)."""
        self._db.executemany("UPDATE reminders SET next_at = ? WHERE name = ?", rows)

    # --- Firings

    def record(
        self, reminder: str, fire_times: Iterable[int], *, content: str, grace: int, now: int, past: str | None = None
    ) -> None:
        """Record fire times: `due`, or `missed` where the grace is over, or where `past` says why.

        Known ids stay, but for a `missed` that a clock wrote which was ahead of this one: its time comes only now.
        The last thousand get a row each; what is older shares one, `missed`, with their count.
        """
        from collections import deque

        latest: deque[int] = deque()
        first = last = count = 0
        for fire_time in fire_times:
            latest.append(fire_time)
            if len(latest) > ROWS_EACH:
                last = latest.popleft()
                first = first or last
                count += 1
        late = "its grace was over before a tick ran"
        rows: list[tuple[object, ...]] = [] if not count else [self._crowd(reminder, first, last, count, content, now)]
        for fire_time in latest:
            reason = past or (late if now > fire_time + grace else None)
            rows.append((
                firing_id(reminder, iso(fire_time)), reminder, fire_time, 1, fire_time + grace, content,
                MISSED if reason else DUE, reason, now, now if reason else None,
            ))  # fmt: skip
        self._db.executemany(
            "INSERT INTO firings (id, reminder, fire_time, count, expires, content, state, reason, recorded_at, settled_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            # What a clock that was ahead called missed, before its time had come, and was never submitted.
            " ON CONFLICT (id) DO UPDATE SET expires = excluded.expires, content = excluded.content,"
            " state = excluded.state, reason = excluded.reason, recorded_at = excluded.recorded_at,"
            " settled_at = excluded.settled_at, edited = 0"
            " WHERE state = 'missed' AND submitted_at IS NULL AND recorded_at > excluded.recorded_at",
            rows,
        )

    @staticmethod
    def _crowd(reminder: str, first: int, last: int, count: int, content: str, now: int) -> tuple[object, ...]:
        reason = f"{count:,} fire times passed while no tick ran"
        crowd = f"{firing_id(reminder, iso(first))}/{iso(last)}"
        return (crowd, reminder, last, count, last, content, MISSED, reason, now, now)

    def prune(self, before: int) -> None:
        """Drop what there was before an instant: rows of fire times, but never one that is still due, and gaps."""
        self._db.execute(
            "DELETE FROM firings WHERE fire_time < ? AND settled_at < ? AND state <> 'due'", (before, before)
        )
        self._db.execute("DELETE FROM gaps WHERE ended < ?", (before,))

    def check(self) -> None:
        """Look through the whole store, and raise `DamagedStoreError` if anything in it is not as it was written."""
        check_whole(self._db, self.path, SCHEMA)

    def due(self) -> list[Due]:
        """Return every due firing, the oldest first."""
        rows = self._db.execute(
            "SELECT f.id, f.reminder, f.fire_time, f.expires, f.content, f.edited, f.submitted_at, r.catch_up,"
            " r.content, r.grace"
            " FROM firings f LEFT JOIN reminders r ON r.name = f.reminder"
            " WHERE f.state = 'due' ORDER BY f.fire_time, f.id"
        )
        return [self._sound_due(row) for row in rows]

    def _sound_due(self, row: tuple[Any, ...]) -> Due:
        firing_id_, reminder, fire_time, expires, content, edited, submitted_at, *_ = row
        if (
            all(map(_is_text, (reminder, content)))
            and all(map(_is_instant, (fire_time, edited, submitted_at or 0)))
            and isinstance(expires, int)
            and firing_id_ == firing_id(reminder, iso(fire_time))
        ):
            return Due(row)
        raise self._damaged("a firing that is due", row)

    def any_due(self) -> bool:
        return self._db.execute("SELECT 1 FROM firings WHERE state = 'due' LIMIT 1").fetchone() is not None

    def change_due(self, firings: Iterable[Due]) -> None:
        """Store the content and expiry of due firings that took an edit over."""
        self._db.executemany(
            "UPDATE firings SET content = ?, expires = ? WHERE id = ? AND state = 'due'",
            ((firing.content, firing.expires, firing.id) for firing in firings),
        )

    def mark_edited(self, ids: Iterable[str]) -> None:
        """Mark due firings whose reminder is gone, disabled or rescheduled; `submit` ends them."""
        self._db.executemany(
            "UPDATE firings SET edited = 1 WHERE id = ? AND state = 'due'", ((firing,) for firing in ids)
        )

    def mark_submitted(self, ids: Iterable[str], now: int) -> None:
        """Mark due firings whose lines are about to be written."""
        self._db.executemany(
            "UPDATE firings SET submitted_at = coalesce(submitted_at, ?) WHERE id = ? AND state = 'due'",
            ((now, firing) for firing in ids),
        )

    def settle(self, rows: Iterable[tuple[str, str, str | None]], now: int) -> None:
        """Move due firings to accepted, missed or rejected: (id, state, reason). Others stay as they are."""
        changes = [(state, reason, now, firing) for firing, state, reason in rows]
        if any(state not in (ACCEPTED, MISSED, REJECTED) for state, *_ in changes):
            raise ValueError(f"no state to settle in: {changes}")
        self._db.executemany(
            "UPDATE firings SET state = ?, reason = ?, settled_at = ? WHERE id = ? AND state = 'due'", changes
        )
