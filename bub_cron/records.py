"""One read-only view of both stores: what became of each firing.

Kept true here:
- Reading changes nothing, creates nothing and leaves no file behind; a store that isn't there is an empty one.
- Each firing is seen once. Where both stores have a word, the inbox's counts: it is the judge from the moment it knows
  the id.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import contextmanager

from bub_cron.errors import DamagedStoreError, StoreError
from bub_cron.states import BAD, MISSED
from bub_cron.store import ERRORS, FAR, MENDED, store_error
from bub_cron.store_check import uri
from bub_cron.wire import iso

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from bub_cron.paths import Paths

_BUSY_SECONDS = 10.0
_COPIES = 5  # of a store that changes all the while
_EMPTY_LEDGER = (
    "CREATE TABLE ledger.firings (id, reminder, fire_time, count, content, state, reason, error, outcome,"
    " recorded_at, settled_at)",
    "CREATE TABLE ledger.tick (last_tick, trouble)",
    "PRAGMA ledger.user_version = 3",
    "CREATE TABLE ledger.reminders (name)",
    "CREATE TABLE ledger.gaps (began, ended)",
)
_EMPTY_INBOX = (
    "CREATE TABLE inbox.firings (id, reminder, fire_time, target, content, state, attempts, sends, error, reply, tokens,"
    " accepted_at, started_at, finished_at)"
)
_VIEW = """
SELECT l.id, l.reminder, l.fire_time AS fire_time, l.count, coalesce(i.content, l.content), coalesce(i.state, l.outcome, l.state) AS
    outcome, coalesce(i.attempts, 0), coalesce(i.sends, 0), CASE WHEN i.id IS NULL THEN l.error ELSE i.error END, i.reply,
    i.tokens, i.accepted_at, i.started_at, CASE WHEN i.id IS NULL AND l.state <> 'accepted' THEN l.settled_at ELSE
    i.finished_at END, CASE WHEN i.id IS NULL THEN l.reason END AS reason, l.fire_time AS moment
FROM ledger.firings l LEFT JOIN inbox.firings i ON i.id = l.id
UNION ALL
SELECT i.id, i.reminder, i.fire_time, 1, i.content, i.state, i.attempts, i.sends, i.error, i.reply, i.tokens,
    i.accepted_at, i.started_at, i.finished_at, NULL, CASE WHEN i.fire_time GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]Z' THEN CAST(strftime('%s', i.fire_time)
        AS INTEGER) ELSE i.accepted_at END
FROM inbox.firings i WHERE NOT EXISTS (SELECT 1 FROM ledger.firings l WHERE l.id = i.id)
"""


class Record:
    """What became of one firing. Instants are epoch seconds; `fire_time` is UTC text, or the caller's own label.

    `moment` is where it stands in time: its fire time where that is an instant, else when it was accepted.
    """

    __slots__ = (
        "accepted_at", "attempts", "content", "count", "error", "finished_at", "fire_time", "id", "moment", "outcome",
        "reason", "reminder", "reply", "sends", "started_at", "tokens",
    )  # fmt: skip

    def __init__(self, row: Sequence[Any]) -> None:
        self.id: str = row[0]
        self.reminder: str | None = row[1]
        self.fire_time: str | None = iso(row[2]) if isinstance(row[2], int) else row[2]
        self.count: int = row[3]
        self.content: str = row[4]
        self.outcome: str = row[5]
        self.attempts: int = row[6]
        self.sends: int = row[7]
        self.error: str | None = row[8]
        self.reply: str | None = row[9]
        self.tokens: int | None = row[10]
        self.accepted_at: float | None = row[11]
        self.started_at: float | None = row[12]
        self.finished_at: float | None = row[13]
        self.reason: str | None = row[14]  # a code of states.REASONS
        self.moment: float = row[15]

    @property
    def seconds(self) -> float | None:
        """How long it took from its first start to its last word, None before that."""
        if self.started_at is None or self.finished_at is None:
            return None
        return round(max(0.0, self.finished_at - self.started_at), 3)

    @property
    def is_bad(self) -> bool:
        """Whether it did not come to what was meant; what was edited away, caught up or skipped on purpose is not bad."""
        # What the inbox's version has no reason for yet says it in its sentence.
        chosen = self.reason == "past" or (self.outcome == MISSED and (self.error or "").endswith(_CHOSEN_END))
        return self.outcome in BAD and not chosen


_CHOSEN_END = " still ran"


class LastTick:
    """What the last tick left in the ledger. `instant` is None before the first; `trouble` is "" where it had none."""

    __slots__ = ("instant", "trouble")

    def __init__(self, instant: int | None, trouble: str) -> None:
        self.instant = instant
        self.trouble = trouble


def history(
    paths: Paths,
    *,
    reminder: str | None = None,
    outcome: str | None = None,
    since: float | None = None,
    until: float | None = None,
    most: int | None = None,
) -> list[Record]:
    """Return the firings of both stores, the newest first, at most so many; `StoreError` if a store can't be read.

    `since` and `until` (epoch seconds, both inclusive) are about their moments.
    """
    where: list[str] = []
    values: list[object] = []
    wanted = (("reminder =", reminder), ("outcome =", outcome), ("moment >=", since), ("moment <=", until))
    for condition, value in wanted:
        if value is not None:
            where.append(f"{condition} ?")
            values.append(value)
    condition = f"WHERE {' AND '.join(where)}" if where else ""
    query = f"SELECT * FROM ({_VIEW}) {condition} ORDER BY moment DESC, id DESC LIMIT ?"  # noqa: S608 - our own words
    return [Record(row) for row in _read(paths, query, (*values, -1 if most is None else most))]


def last_records(paths: Paths, since: float = 0, until: float = FAR) -> dict[str, Record]:
    """Return each reminder's newest firing between two instants, both inclusive."""
    # With max(), SQLite takes the other columns from the row that has the maximum.
    where = "reminder IS NOT NULL AND moment BETWEEN ? AND ?"
    query = f"SELECT *, max(moment) FROM ({_VIEW}) WHERE {where} GROUP BY reminder"  # noqa: S608 - our own words
    records = [Record(row) for row in _read(paths, query, (since, until))]
    return {record.reminder: record for record in records if record.reminder is not None}


def counts(paths: Paths, since: float, until: float) -> dict[str, int]:
    """Return how many fire times between two instants ended, or stand, with each outcome."""
    query = f"SELECT outcome, sum(count) FROM ({_VIEW}) WHERE moment BETWEEN ? AND ? GROUP BY outcome"  # noqa: S608
    return dict(_read(paths, query, (since, until)))


def not_final(paths: Paths) -> list[Record]:
    """Return the firings that have none yet, the newest first."""
    query = f"SELECT * FROM ({_VIEW}) WHERE outcome IN ('due', 'accepted', 'running', 'retrying')"  # noqa: S608
    return [Record(row) for row in _read(paths, f"{query} ORDER BY moment DESC", ())]


def last_tick(paths: Paths) -> LastTick:
    """Return what the last tick left; `StoreError` if a store can't be read."""
    rows = _read(paths, "SELECT last_tick, trouble FROM ledger.tick", ())
    return LastTick(rows[0][0], rows[0][1] or "") if rows else LastTick(None, "")


def gaps(paths: Paths, since: float = 0) -> list[tuple[int, int]]:
    """Return (the last tick before, the first one after) of each time without ticks that ended since, the newest first."""
    if not _read(paths, "SELECT 1 FROM ledger.sqlite_master WHERE name = 'gaps'", ()):
        return []  # written by the version before: the next tick brings it up to date
    return _read(paths, "SELECT began, ended FROM ledger.gaps WHERE ended >= ? ORDER BY began DESC", (since,))


def names_in_force(paths: Paths) -> list[str]:
    """Return the names of the reminders that the ledger has in force, sorted."""
    return [name for (name,) in _read(paths, "SELECT name FROM ledger.reminders ORDER BY name", ())]


def check(path: str) -> None:
    """Look through a whole store; `StoreError` says what is wrong with it, `DamagedStoreError` if it is damaged."""
    _is_there(path)
    try:
        store = sqlite3.connect(_read_only(path, wal=path.endswith("inbox.db")), uri=True, timeout=_BUSY_SECONDS)
        try:
            found = store.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            store.close()
    except ERRORS as error:
        raise store_error(path, error) from error
    if found != "ok":
        raise DamagedStoreError(f"{path} is damaged: {found}")


def known_to_inbox(path: str, ids: Iterable[str]) -> set[str] | None:
    """Return which of the ids the inbox at `path` has; None if it can't be read, so that nobody knows."""
    if os.path.lexists(path + MENDED):
        return None  # a mend was interrupted: the next gateway finishes it
    try:
        inbox = sqlite3.connect(_read_only(path, wal=True), uri=True, timeout=_BUSY_SECONDS)
    except ERRORS:
        return None
    try:
        return {
            firing_id
            for firing_id in ids
            if inbox.execute("SELECT 1 FROM firings WHERE id = ?", (firing_id,)).fetchone()
        }
    except ERRORS:
        return None
    finally:
        inbox.close()


def _read(paths: Paths, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    try:
        try:
            return _read_from(paths.ledger, paths.inbox, query, values)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
                raise
        # A tick was killed in the middle of a transaction, and the next writer will take back what it wrote. Whoever only
        # looks does so in a copy.
        with _copy(paths.ledger) as copied:
            return _read_from(copied, paths.inbox, query, values, copied=True)
    except (OSError, *ERRORS) as error:
        raise StoreError(f"the stores in {paths.state} can't be read: {error}") from error


def _read_from(
    ledger: str, inbox: str, query: str, values: Sequence[object], *, copied: bool = False
) -> list[tuple[Any, ...]]:
    view = sqlite3.connect(":memory:", uri=True, timeout=_BUSY_SECONDS)
    try:
        # What is no UTF-8 was damaged; it is shown as well as it can be.
        view.text_factory = lambda raw: raw.decode("utf-8", "replace")
        _attach(view, "ledger", ledger, _EMPTY_LEDGER, wal=False, copied=copied)
        _attach(view, "inbox", inbox, (_EMPTY_INBOX,), wal=True)
        if view.execute("PRAGMA ledger.user_version").fetchone()[0] in (1, 2):
            # Written by a version before: the next tick brings it up to date. Its reasons were sentences.
            query = query.replace("l.outcome, ", "").replace("l.reason", "NULL").replace("l.error", "l.reason")
        return view.execute(query, values).fetchall()
    finally:
        view.close()


@contextmanager
def _copy(path: str) -> Iterator[str]:
    """Copy a store and its journal, as they are at one moment."""

    def seen() -> list[tuple[int, int, int]]:
        found = [os.stat(f"{path}{end}") for end in ("", "-journal")]
        return [(one.st_mtime_ns, one.st_size, one.st_ino) for one in found]

    with tempfile.TemporaryDirectory(prefix="bub-cron-") as directory:
        copied = os.path.join(directory, "ledger.db")
        for _ in range(_COPIES):
            before = seen()
            for end in ("", "-journal"):
                shutil.copyfile(f"{path}{end}", f"{copied}{end}")
            if seen() == before:
                break
        yield copied


def _attach(
    view: sqlite3.Connection, name: str, path: str, empty: tuple[str, ...], *, wal: bool, copied: bool = False
) -> None:
    there = _is_there(path)
    place = _read_only(path, wal=wal) if not copied else path
    view.execute(f"ATTACH ? AS {name}", (place if there else ":memory:",))
    for statement in () if there else empty:
        view.execute(statement)


def _is_there(path: str) -> bool:
    try:
        if os.stat(path).st_size == 0:
            raise DamagedStoreError(f"{path} is damaged: it is empty")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error
    return True


def _read_only(path: str, *, wal: bool) -> str:
    """Return the URI that opens a store for reading without leaving a trace.

    A reader of a WAL store would make its -wal and -shm files if they weren't there. They aren't when no gateway has the
    store open; then nobody writes, and it can be read as immutable.
    """
    return uri(path, "mode=ro&immutable=1" if wal and not os.path.exists(f"{path}-wal") else "mode=ro")
