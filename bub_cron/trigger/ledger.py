"""The trigger side's store, opened: the tick's own row, and what there is to do.

Invariants:
- A firing is in the ledger, on disk, before the socket is touched; its id is there once, so no fire time repeats.
- The ledger judges a firing until the inbox has its id. `submitted_at` marks one whose line may have been written: before
  it ends, or changes, the inbox is asked (submitting.py does that).
- Recording a fire time and moving on past it are one transaction, so no tick can do one without the other.
- `reminders` is the last good files, each with its next fire time: a tick with nothing due reads a few rows, whatever the
  files' size, and a broken file changes nothing.
- The journal is a rollback journal: a reader leaves no files behind.

schema.py has the tables, firings.py what is done with the firings; states.py has their moves, and docs/states.md shows them.
An idle tick loads this module and pays for what it imports.
"""

from sqlite3 import Row

from bub_cron.store import FAR, Shape, Transaction, open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from bub_cron.errors import DamagedStoreError, StoreError


class _Shape(Shape):
    """The ledger's; its statements are loaded when they are asked for."""

    __slots__ = ()

    def __init__(self) -> None:
        self.application_id = 0x62634C64  # "bcLd"
        self.version = 5
        self.journal = "DELETE"

    @property
    def schema(self) -> "tuple[str, ...]":  # type: ignore[override]
        from bub_cron.trigger import schema

        return schema.SCHEMA

    @property
    def migrations(self) -> "Mapping[int, tuple[str, ...]]":  # type: ignore[override]
        from bub_cron.trigger import schema

        return schema.MIGRATIONS


SHAPE = _Shape()
REMINDERS = (
    "SELECT name, file, schedule, machine_zone, content, enabled, grace, catch_up, since, next_at, done_until, pause_until"
    " FROM reminders"
)
"""All columns, so that a store which has lost one is found to be damaged."""


def mend(path: str, now: float) -> "StoreError | None":
    """Put a damaged ledger aside, keep what can be read of it, and return what to say; None if it is whole by now."""
    from bub_cron import salvage

    def finish(fresh: "sqlite3.Connection") -> None:
        # The files are to be read again, for reminders may be among what was lost; and the minute of the mending counts.
        fresh.execute("UPDATE tick SET signature = NULL, last_tick = coalesce(last_tick, ?)", (int(now) - 60,))

    return salvage.mend(path, SHAPE, now, finish)


def is_instant(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= FAR


class Ledger:
    """The open store. What uses it raises one of `store.ERRORS` when the disk refuses, `DamagedStoreError` for a row that no
    tick wrote.
    """

    def __init__(self, path: str) -> None:
        """Open or create it; `StoreError` if that can't be done (`DamagedStoreError`: `mend` it)."""
        self.path = path
        self.db = open_store(path, SHAPE)

    def close(self) -> None:
        self.db.close()

    def transaction(self) -> Transaction:
        """Return `with`'s subject for one write transaction."""
        return Transaction(self.db)

    def damaged(self, what: str, row: "Sequence[object] | None") -> "DamagedStoreError":
        """Return the error for a row that no tick wrote."""
        from bub_cron.errors import DamagedStoreError

        return DamagedStoreError(
            f"{self.path} is damaged: {what} holds what no tick wrote: {str(row and [*row])[:200]}"
        )

    def check(self) -> None:
        """Look through the whole store, and raise `DamagedStoreError` if anything in it is not as it was written."""
        from bub_cron.store_check import check_whole

        check_whole(self.db, self.path, SHAPE)

    # --- The tick's own row

    def tick_row(self) -> Row:
        """Return the tick's own row."""
        row: Row | None = self.db.execute(
            "SELECT last_tick, high, signature, zone_files, file, tz, tz_seen, trouble, said_at FROM tick"
        ).fetchone()
        if row is None:
            raise self.damaged("its tick", None)
        instants = (row["last_tick"] or 0, row["high"] or 0, row["said_at"] or 0)
        texts = (row["signature"], row["zone_files"], row["file"], row["tz"], row["tz_seen"], row["trouble"])
        if not all(map(is_instant, instants)) or not all(isinstance(text or "", str) for text in texts):
            raise self.damaged("its tick", row)
        return row

    def set_last_tick(self, now: int, high: int) -> None:
        self.db.execute("UPDATE tick SET last_tick = ?, high = ?", (now, high))

    def set_seen_tz(self, tz: str) -> None:
        self.db.execute("UPDATE tick SET tz_seen = ?", (tz,))

    def note_gap(self, began: int, ended: int) -> None:
        """Note that no tick ran in at least one whole minute between these two."""
        self.db.execute("REPLACE INTO gaps (began, ended) VALUES (?, ?)", (began, ended))

    def is_news(self, trouble: str, now: int) -> bool:
        """Tell whether a tick's trouble ("" for none) is to be printed: something new in it, or last printed an hour ago.

        What is left of it when a part has gone is nothing new.
        """
        row = self.tick_row()
        known, said_at = row["trouble"] or "", row["said_at"]
        is_old = said_at is not None and 0 <= now - said_at < 3600 and {*trouble.split("\n")} <= {*known.split("\n")}
        if trouble and not is_old:
            self.db.execute("UPDATE tick SET trouble = ?, said_at = ?", (trouble, now))
            return True
        if trouble != known:
            self.db.execute("UPDATE tick SET trouble = ?", (trouble,))
        return False

    # --- The files

    def set_files(self, *, signature: str | None, faulty: "Iterable[tuple[str, str, int]]") -> None:
        """Note that the files were read: their signature, and (path, faults, exit status) of each that is at fault."""
        self.db.execute("UPDATE tick SET signature = ?", (signature,))
        self.db.execute("DELETE FROM files")
        self.db.executemany("INSERT INTO files (path, faults, status) VALUES (?, ?, ?)", faulty)

    def faulty_files(self) -> list[Row]:
        """Return `faults`, `status`, and whether an `older` version is in force, of each file that is at fault."""
        rows: list[Row] = self.db.execute(
            "SELECT faults, status, EXISTS (SELECT 1 FROM reminders r WHERE r.file = f.path"
            " OR r.file > f.path || '/' AND r.file < f.path || '0') AS older FROM files f ORDER BY path"
        ).fetchall()
        for row in rows:
            if not isinstance(row["faults"], str) or not is_instant(row["status"]):
                raise self.damaged("a faulty file", row)
        return rows

    # --- What there is to do

    def overdue(self, now: int) -> list[Row]:
        """Return the reminders that have a fire time to record, the longest overdue first."""
        # Beyond the calendar's end stand only values that no tick wrote: they are not to wait there unseen. Each of the two
        # looks into the index alone; one condition with OR would read every reminder.
        query = f"{REMINDERS} WHERE next_at"
        rows = self.db.execute(f"{query} <= ? UNION ALL {query} > ?", (now, FAR)).fetchall()
        return sorted(map(self.sound_reminder, rows), key=lambda row: (row["next_at"], row["name"])) if rows else rows

    def sound_reminder(self, row: Row) -> Row:
        """Return a reminder's row, if a tick may have written it."""
        texts = (row["name"], row["file"], row["schedule"], row["content"], row["catch_up"])
        instants = [row["grace"], row["enabled"]]
        instants += [row[column] or 0 for column in ("since", "next_at", "done_until", "pause_until")]
        if all(isinstance(text, str) for text in texts) and all(map(is_instant, instants)):
            return row
        raise self.damaged("a reminder", row)

    def waiting(self, now: int) -> set[str]:
        """Return what there is to do of: `due` firings whose fire time has come; `alert`s and `ping`s about those that ended."""
        query = (
            "SELECT 'due' WHERE EXISTS (SELECT 1 FROM firings WHERE state = 'due' AND fire_time <= ?)"
            " UNION ALL SELECT DISTINCT kind FROM tellings"
        )
        return {kind for (kind,) in self.db.execute(query, (now,))}
