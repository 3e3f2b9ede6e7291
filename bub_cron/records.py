"""One read-only view of both stores: what became of each firing.

Invariants:
- Reading changes no byte of a store, creates nothing beside it and waits for no writer for long; a store that isn't there
  is an empty one.
- Each firing is seen once. Where both stores have its id, the inbox's record counts: it is the judge from then on.
- What is seen was committed, in one state of each store. What a killed tick left half written is rolled back in a private
  copy (`_attach_copy`); an inbox that a gateway opens while it is read as one at rest is read again.
- A store of an older version, not yet brought up to date, can be read: `_recorded` and `_accepted` alone know how it
  differs.
- The newest firings are found by an index in each store and merged: what is asked for counts, not the length of history.
"""

from __future__ import annotations

import os
import sqlite3

from bub_cron.errors import DamagedStoreError, StoreError
from bub_cron.paths import text_of
from bub_cron.pauses import Pause, Pauses
from bub_cron.states import BAD, DUE, GOOD, MISSED, OPEN, REASONS, sql_list
from bub_cron.store import ERRORS, FAR, MENDED, store_error
from bub_cron.store_check import uri

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from bub_cron.paths import Paths

_BUSY_SECONDS = 10.0
_TRIES = 3
_MOST_IDS = 500  # in one statement
# SQLite's lock bytes (https://www.sqlite.org/lockingv3.html): while one holds these shared, nobody writes to the file.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510


class Record:
    """What became of one firing. Instants are epoch seconds; `fire_time` is UTC text, or the caller's own label.

    `moment` is where it stands in time: its fire time where that is an instant, else when it was accepted. `count` fire
    times share it. `gate` is its output. `messages` are rows of kind, to, state, sends, error; only `history` fetches them.
    """

    __slots__ = (
        "accepted_at", "attempts", "content", "count", "error", "finished_at", "fire_time", "gate", "id", "messages", "moment",
        "outcome", "reason", "reminder", "reply", "sends", "started_at", "tokens",
    )  # fmt: skip
    id: str
    reminder: str | None
    moment: float
    count: int
    content: str
    outcome: str
    reason: str | None
    error: str | None
    attempts: int
    sends: int
    tokens: int | None
    reply: str | None
    gate: str | None
    accepted_at: float | None
    started_at: float | None
    finished_at: float | None

    def __init__(self, row: sqlite3.Row) -> None:
        for column in _COLUMNS:
            setattr(self, column, row[column])
        fire_time = row["fire_time"]
        self.fire_time: str | None = _utc(fire_time) if isinstance(fire_time, int) else fire_time
        self.messages: list[sqlite3.Row] = []

    @property
    def seconds(self) -> float | None:
        """How long it took from its first start to its final outcome, None before that."""
        if self.started_at is None or self.finished_at is None:
            return None
        return round(max(0.0, self.finished_at - self.started_at), 3)

    @property
    def is_bad(self) -> bool:
        """Whether somebody should look at it. An `at` that was past when it was saved was missed by whoever saved it."""
        return self.outcome in BAD and not (self.outcome == MISSED and self.reason == "past")

    @property
    def why(self) -> str:
        """Why it is where it is, as a sentence; "" where nothing more is known than its outcome."""
        return (self.error or "").strip() or REASONS.get(self.reason or "", "")

    @property
    def text(self) -> str | None:
        """What a `text` says, None for other firings."""
        fields = self._fields()
        text = fields.get("body") if fields.get("kind") == "text" else fields.get("text")
        return text if isinstance(text, str) else None

    @property
    def to(self) -> str | None:
        to = self._fields().get("to")
        return to if isinstance(to, str) else None

    def _fields(self) -> dict[str, Any]:
        """Return the fields of its request; none for one that is damaged, whose outcome can be shown all the same."""
        import json

        try:
            fields = json.loads(self.content)
        except (ValueError, RecursionError, TypeError):
            return {}
        return fields if isinstance(fields, dict) else {}


class LastTick:
    """What the last tick left in the ledger. `instant` is None before the first; `trouble` is "" where it had none."""

    __slots__ = ("instant", "trouble")

    def __init__(self, instant: int | None, trouble: str) -> None:
        self.instant = instant
        self.trouble = trouble


def history(
    paths: Paths,
    *,
    firing_id: str | None = None,
    reminder: str | None = None,
    outcome: str | None = None,
    since: float | None = None,
    until: float | None = None,
    most: int | None = None,
) -> list[Record]:
    """Return the firings of both stores with their messages, the newest first, at most `most`.

    `since` and `until` (epoch seconds, both inclusive) are about their moments. Raises `StoreError` if a store can't be
    read.
    """
    given = {"id =": firing_id, "reminder =": reminder, "outcome =": outcome, "moment >=": since, "moment <=": until}
    wanted = {condition: value for condition, value in given.items() if value is not None}

    def ask(view: sqlite3.Connection) -> list[Record]:
        found = _newest(view, "accepted", wanted, most)
        if found and len(found) == most:
            # Of the ledger, only what is newer than these matters. Without this, all that the inbox has, too, is passed by.
            wanted["moment >="] = found[-1].moment
        found += _newest(view, "recorded", wanted, most)
        found.sort(key=_by_moment, reverse=True)
        return _with_messages(view, found[:most])

    return _read(paths, ask)


def last_records(paths: Paths, since: float = 0, until: float = FAR) -> dict[str, Record]:
    """Return each reminder's newest firing between two instants, both inclusive, without its messages."""

    between = {"since": since, "until": until}

    def ask(view: sqlite3.Connection) -> dict[str, Record]:
        found = [
            Record(row) for source in _SOURCES for row in view.execute(_newest_of_each(source), between).fetchall()
        ]
        return {record.reminder: record for record in sorted(found, key=_by_moment) if record.reminder is not None}

    return _read(paths, ask)


def last_good(paths: Paths) -> dict[str, float]:
    """Return when each reminder last worked; one that never did, as far as the stores go back, is left out."""
    good = f" AND outcome IN {sql_list(GOOD)}"
    between = {"since": 0, "until": FAR}

    def ask(view: sqlite3.Connection) -> dict[str, float]:
        found = [
            Record(row)
            for source in _SOURCES
            for row in view.execute(_newest_of_each(source, good), between).fetchall()
        ]
        return {
            record.reminder: record.moment if record.finished_at is None else record.finished_at
            for record in sorted(found, key=_by_moment)
            if record.reminder is not None
        }

    return _read(paths, ask)


def counts(paths: Paths, since: float, until: float) -> dict[str, int]:
    """Return how many fire times between two instants ended, or stand, with each outcome."""
    each = " UNION ALL ".join(
        f"SELECT outcome, count FROM {source} WHERE moment BETWEEN :since AND :until{only}"  # noqa: S608 - our own words
        for source, only in _SOURCES.items()
    )
    query = f"SELECT outcome, sum(count) FROM ({each}) GROUP BY outcome"  # noqa: S608
    return _read(paths, lambda view: dict(map(tuple, view.execute(query, {"since": since, "until": until}))))


class Usage:
    """What one reminder took: its firings by their outcomes, the tokens that are known, and seconds from start to end."""

    __slots__ = ("outcomes", "reminder", "seconds", "tokens")

    def __init__(self, reminder: str) -> None:
        self.reminder = reminder
        self.outcomes: dict[str, int] = {}
        self.tokens = 0
        self.seconds = 0.0

    @property
    def firings(self) -> int:
        return sum(self.outcomes.values())


def usage(paths: Paths, since: float, until: float) -> list[Usage]:
    """Return what each reminder took between two instants, sorted by name; firings without a reminder are left out."""
    each = " UNION ALL ".join(
        "SELECT reminder, outcome, count, tokens, max(0, finished_at - started_at) AS seconds FROM "  # noqa: S608
        f"{source} WHERE reminder IS NOT NULL AND moment BETWEEN :since AND :until{only}"
        for source, only in _SOURCES.items()
    )
    query = (
        "SELECT reminder, outcome, sum(count) AS count, coalesce(sum(tokens), 0) AS tokens,"  # noqa: S608
        f" coalesce(sum(seconds), 0) AS seconds FROM ({each}) GROUP BY reminder, outcome ORDER BY reminder"
    )

    def ask(view: sqlite3.Connection) -> list[Usage]:
        found: dict[str, Usage] = {}
        for row in view.execute(query, {"since": since, "until": until}):
            one = found.setdefault(row["reminder"], Usage(row["reminder"]))
            one.outcomes[row["outcome"]] = row["count"]
            one.tokens += row["tokens"]
            one.seconds = round(one.seconds + row["seconds"], 3)
        return list(found.values())

    return _read(paths, ask)


class Gated:
    """How many of a reminder's firings its gate skipped."""

    __slots__ = ("firings", "reminder", "skipped")

    def __init__(self, reminder: str, skipped: int, firings: int) -> None:
        self.reminder = reminder
        self.skipped = skipped
        self.firings = firings


def gated(paths: Paths, since: float, until: float) -> list[Gated]:
    """Return what gates skipped between two instants, by reminder; those whose gate skipped nothing are left out."""
    query = (
        "SELECT reminder, sum(reason IS NOT NULL AND reason IN ('gate', 'unchanged')) AS skipped, sum(count) AS firings"
        " FROM accepted WHERE reminder IS NOT NULL AND moment BETWEEN ? AND ?"
        " GROUP BY reminder HAVING skipped > 0 ORDER BY reminder"
    )
    return _read(paths, lambda view: [Gated(*row) for row in view.execute(query, (since, until))])


def waiting(paths: Paths) -> list[Record]:
    """Return the firings that wait for a gateway, or are open in its inbox, the newest first."""
    # Each in the words of a partial index.
    inbox = f"SELECT * FROM accepted WHERE outcome IN {sql_list(OPEN)}"  # noqa: S608
    ledger = f"SELECT * FROM recorded WHERE state = '{DUE}'{_SOURCES['recorded']}"  # noqa: S608

    def ask(view: sqlite3.Connection) -> list[Record]:
        found = [Record(row) for query in (inbox, ledger) for row in view.execute(query).fetchall()]
        return sorted(found, key=_by_moment, reverse=True)

    return _read(paths, ask)


def lost(paths: Paths, since: float, until: float) -> list[Record]:
    """Return what a gateway accepted while the inbox, which is there, has no record of it, the newest first."""
    if not os.path.exists(paths.inbox):
        return []  # it is elsewhere
    query = (
        f"SELECT * FROM recorded WHERE moment BETWEEN ? AND ? AND outcome IN {sql_list(OPEN)}"  # noqa: S608
        f"{_SOURCES['recorded']} ORDER BY moment DESC, id DESC"
    )
    return _read(paths, lambda view: list(map(Record, view.execute(query, (since, until)).fetchall())))


def last_tick(paths: Paths) -> LastTick:
    """Return what the last tick left; `StoreError` if a store can't be read."""
    rows = _read(paths, lambda view: _rows(view, "tick", "SELECT last_tick, trouble FROM ledger.tick"))
    return LastTick(rows[0]["last_tick"], rows[0]["trouble"] or "") if rows else LastTick(None, "")


def gaps(paths: Paths, since: float = 0) -> list[tuple[int, int]]:
    """Return (the last tick before, the first one after) of each time without ticks that ended since, the newest first."""
    query = "SELECT began, ended FROM ledger.gaps WHERE ended >= ? ORDER BY began DESC"
    return _read(paths, lambda view: [(row["began"], row["ended"]) for row in _rows(view, "gaps", query, since)])


def pauses(paths: Paths) -> Pauses:
    """Return the pauses and skips that the ledger knows; `StoreError` if a store can't be read."""
    query = "SELECT reminder, kind, since, until, why, who FROM ledger.pauses"
    return _read(paths, lambda view: Pauses(Pause(*row) for row in _rows(view, "pauses", query)))


class FilesRead:
    """What a tick noted of the files that it has in force: `tick.signature` makes the first of the others."""

    __slots__ = ("signature", "tz", "zone_files")

    def __init__(self, row: sqlite3.Row) -> None:
        self.signature: str = row["signature"]
        self.tz: str = row["tz"] or ""
        self.zone_files: list[str] = (row["zone_files"] or "").splitlines()


def files_read(paths: Paths) -> FilesRead | None:
    """Return how the files were when a tick last read them; None where none did, or one of them has a fault."""
    query = "SELECT signature, tz, zone_files FROM ledger.tick WHERE signature IS NOT NULL AND file = ?"
    query += " AND NOT EXISTS (SELECT 1 FROM ledger.files)"

    def ask(view: sqlite3.Connection) -> FilesRead | None:
        if not {"signature", "file", "tz", "zone_files"} <= _columns_of(view, "ledger", "tick"):
            return None
        if not _columns_of(view, "ledger", "files"):
            return None
        file = text_of(paths.file)
        row = view.execute(query, (file,)).fetchone()
        return None if row is None else FilesRead(row)

    return _read(paths, ask)


def names_in_force(paths: Paths) -> list[str]:
    """Return the names of the reminders that the ledger has in force, sorted."""
    query = "SELECT name FROM ledger.reminders ORDER BY name"
    return _read(paths, lambda view: [row["name"] for row in _rows(view, "reminders", query)])


def next_in_force(paths: Paths) -> dict[str, int]:
    """Return the first fire time that is not yet recorded of each reminder that the ledger has in force, if it has one."""
    query = "SELECT name, next_at FROM ledger.reminders WHERE next_at IS NOT NULL AND enabled"
    return _read(paths, lambda view: {row["name"]: row["next_at"] for row in _rows(view, "reminders", query)})


def files_in_force(paths: Paths) -> dict[str, int]:
    """Return the files whose reminders the ledger has in force, with how many of each."""
    query = "SELECT file, count(*) AS reminders FROM ledger.reminders GROUP BY file"
    return _read(paths, lambda view: {row["file"]: row["reminders"] for row in _rows(view, "reminders", query)})


def check(path: str) -> None:
    """Look through a whole store; `StoreError` says what is wrong with it, `DamagedStoreError` if it is damaged."""
    name = "inbox" if path.endswith("inbox.db") else "ledger"
    if not _is_there(path):
        raise StoreError(f"{path} is not there")
    try:
        found = _look({name: path}, lambda view: view.execute(f"PRAGMA {name}.quick_check(1)").fetchone()[0])
    except ERRORS as error:
        raise store_error(path, error) from error
    if found != "ok":
        raise DamagedStoreError(f"{path} is damaged: {found}")


def known_to_inbox(path: str, ids: Iterable[str]) -> set[str] | None:
    """Return which of the ids the inbox at `path` has; None if it can't be read, so that nobody knows."""
    if os.path.lexists(path + MENDED):
        return None  # a mend was interrupted: the next gateway finishes it
    try:
        if not _is_there(path):
            return None
        return _look({"inbox": path}, lambda view: {firing_id for firing_id in ids if _has(view, firing_id)})
    except (StoreError, *ERRORS):
        return None


def _has(view: sqlite3.Connection, firing_id: str) -> bool:
    return view.execute("SELECT 1 FROM inbox.firings WHERE id = ?", (firing_id,)).fetchone() is not None


# --- Asking the two views

_COLUMNS = (
    "id", "reminder", "moment", "count", "content", "outcome", "reason", "error", "attempts", "sends", "tokens", "reply", "gate",
    "accepted_at", "started_at", "finished_at",
)  # fmt: skip
# The view of each store, and which of its rows count: of the ledger those that the inbox doesn't have.
_SOURCES = {
    "accepted": "",
    "recorded": " AND NOT EXISTS (SELECT 1 FROM accepted WHERE accepted.id = recorded.id)",
}


def _newest(view: sqlite3.Connection, source: str, wanted: Mapping[str, object], most: int | None) -> list[Record]:
    where = " AND ".join(["true", *(f"{condition} ?" for condition in wanted)])
    # By their ids first: of thousands with the same moment, only those that are shown are fetched as a whole.
    ids = f"SELECT id FROM {source} WHERE {where}{_SOURCES[source]} ORDER BY moment DESC, id DESC LIMIT ?"  # noqa: S608
    query = f"SELECT * FROM {source} WHERE id IN ({ids}) ORDER BY moment DESC, id DESC"  # noqa: S608
    values = (*wanted.values(), -1 if most is None else most)
    return [Record(row) for row in view.execute(query, values).fetchall()]


def _newest_of_each(source: str, only: str = "") -> str:
    """Return the query for each reminder's newest row between two instants: from name to name in the index.

    `only` is a further condition, from its AND on.
    """
    return f"""
    WITH RECURSIVE names (name) AS (
        SELECT min(reminder) FROM {source}
        UNION ALL SELECT (SELECT min(reminder) FROM {source} WHERE reminder > name) FROM names WHERE name IS NOT NULL
    )
    SELECT * FROM {source} WHERE id IN (
        SELECT (
            SELECT id FROM {source} WHERE reminder = name AND moment BETWEEN :since AND :until{only}
            ORDER BY moment DESC, id DESC LIMIT 1
        ) FROM names WHERE name IS NOT NULL
    ){_SOURCES[source]}"""  # noqa: S608 - our own words


def _with_messages(view: sqlite3.Connection, records: list[Record]) -> list[Record]:
    by_id = {record.id: record for record in records}
    ids = list(by_id)
    for start in range(0, len(ids), _MOST_IDS):
        some = ids[start : start + _MOST_IDS]
        query = f"SELECT * FROM sent WHERE firing IN ({', '.join('?' * len(some))}) ORDER BY firing, number"  # noqa: S608
        for row in view.execute(query, some):
            by_id[row["firing"]].messages.append(row)
    return records


def _rows(view: sqlite3.Connection, table: str, query: str, *values: object) -> list[sqlite3.Row]:
    """Ask the ledger for rows of one of its tables: none if it isn't there, or of a version without that table."""
    return view.execute(query, values).fetchall() if _columns_of(view, "ledger", table) else []


def _by_moment(record: Record) -> tuple[float, str]:
    return record.moment, record.id


def _utc(instant: int) -> str:
    from bub_cron.wire import iso

    return iso(instant)


# --- The stores as views: `recorded` (the ledger) and `accepted` (the inbox) have the same columns; `sent` has messages

# What a ledger of version 2 has as the sentence of a `missed` one: pattern, outcome, reason.
_SENTENCES = (
    ("edited: %", "skipped", "edited"),
    ("catching up: %", "skipped", "superseded"),
    ("already past %", "missed", "past"),
    ("% fire times passed while no tick ran", "missed", "downtime"),
    ("%", "missed", "late"),
)


def _recorded(have: set[str]) -> dict[str, str]:
    """Return what each column is in a ledger whose firings have these columns."""
    if "error" in have:
        outcome, reason, error = "coalesce(f.outcome, f.state)", "f.reason", "f.error"
    else:  # up to version 2
        outcome = _by_sentence({pattern: outcome for pattern, outcome, _ in _SENTENCES}, "f.state")
        rejected = "iif(f.state = 'rejected', 'rejected', NULL)"
        reason = _by_sentence({pattern: reason for pattern, _, reason in _SENTENCES}, rejected)
        error = "f.reason"
    return {
        "id": "f.id", "reminder": "f.reminder", "fire_time": "f.fire_time", "moment": "f.fire_time", "count": "f.count",
        "content": "f.content", "state": "f.state", "outcome": outcome, "reason": reason, "error": error,
        "attempts": "0", "sends": "0", "tokens": "NULL", "reply": "NULL", "gate": "NULL", "accepted_at": "NULL", "started_at": "NULL",
        "finished_at": "CASE WHEN f.state <> 'accepted' THEN f.settled_at END",
    }  # fmt: skip


def _by_sentence(words: dict[str, str], otherwise: str) -> str:
    cases = " ".join(f"WHEN coalesce(f.reason, '') LIKE '{pattern}' THEN '{word}'" for pattern, word in words.items())
    return f"CASE WHEN f.state <> 'missed' THEN {otherwise} {cases} END"


def _accepted(have: set[str]) -> dict[str, str]:
    """Return what each column is in an inbox whose firings have these columns."""
    if "request" in have:
        own = {
            "moment": "f.moment", "content": "f.request", "outcome": "f.state", "reason": "f.reason", "reply": "f.reply",
            "sends": "(SELECT coalesce(sum(m.sends), 0) FROM inbox.messages m WHERE m.firing = f.id"
            " AND m.kind IN ('reply', 'copy'))",
        }  # fmt: skip
    else:  # up to version 2: as its migration in gateway/inbox_schema.py has it
        own = {
            "moment": "coalesce(CASE WHEN f.fire_time GLOB '????-??-??T??:??:??Z'"
            " THEN CAST(strftime('%s', f.fire_time) AS REAL) END, f.accepted_at)",
            "content": "f.content",
            "outcome": "iif(f.state = 'missed' AND f.error LIKE '% still ran', 'skipped', f.state)",
            "reason": "CASE f.state WHEN 'missed' THEN iif(f.error LIKE '% still ran', 'overlap', 'late')"
            " WHEN 'undelivered' THEN iif(f.sends > 0, 'refused', 'no_channel')"
            " WHEN 'unknown' THEN iif(f.sends > 0, 'not_seen', 'lost_turn') WHEN 'failed' THEN 'attempts' END",
            "reply": "iif(f.kind = 'text', NULL, f.reply)",
            "sends": "f.sends",
        }
    same = ("id", "reminder", "fire_time", "error", "attempts", "tokens", "accepted_at", "started_at", "finished_at")
    return {
        **{column: f"f.{column}" for column in same},
        "count": "1",
        "gate": "f.gate" if "gate" in have else "NULL",
        **own,
    }


_SENT = ("firing", "number", "kind", "to", "state", "sends", "error")


def _define(view: sqlite3.Connection) -> None:
    """Make the views over the two attached stores."""
    for name, source, columns_in in (("ledger", "recorded", _recorded), ("inbox", "accepted", _accepted)):
        have = _columns_of(view, name, "firings")
        if have:
            columns = ", ".join(f"{expression} AS {column}" for column, expression in columns_in(have).items())
            view.execute(f"CREATE TEMP VIEW {source} AS SELECT {columns} FROM {name}.firings f")  # noqa: S608
        elif _is_attached_file(view, name):
            raise sqlite3.DatabaseError(f"{name}.db has no firings: it is no store of bub-cron")
        else:
            nothing = ", ".join(f"NULL AS {column}" for column in (*_COLUMNS, "fire_time", "state"))
            view.execute(f"CREATE TEMP VIEW {source} AS SELECT {nothing} WHERE false")
    has_messages = bool(_columns_of(view, "inbox", "messages"))
    columns = ", ".join(f'm."{column}"' if has_messages else f'NULL AS "{column}"' for column in _SENT)
    view.execute(
        f"CREATE TEMP VIEW sent AS SELECT {columns} {'FROM inbox.messages m' if has_messages else 'WHERE false'}"
    )


def _columns_of(view: sqlite3.Connection, store: str, table: str) -> set[str]:
    return {row["name"] for row in view.execute(f"PRAGMA {store}.table_info({table})")}


def _is_attached_file(view: sqlite3.Connection, name: str) -> bool:
    return any(row["name"] == name and row["file"] for row in view.execute("PRAGMA database_list"))


# --- Opening them


def _read[Result](paths: Paths, ask: Callable[[sqlite3.Connection], Result]) -> Result:
    """Ask both stores by their views; `StoreError` if one can't be read."""

    def defined(view: sqlite3.Connection) -> Result:
        _define(view)
        return ask(view)

    try:
        return _look({"ledger": paths.ledger, "inbox": paths.inbox}, defined)
    except ERRORS as error:
        raise StoreError(f"the stores in {paths.state} can't be read: {error}") from error


def _look[Result](stores: dict[str, str], ask: Callable[[sqlite3.Connection], Result]) -> Result:
    """Ask a connection to which stores are attached by these names, all that it asks in one transaction."""
    for _ in range(_TRIES):
        at_rest = _at_rest(stores.get("inbox"))
        view = sqlite3.connect(":memory:", uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            view.row_factory = sqlite3.Row
            # What is no UTF-8 was damaged; it is shown as well as it can be.
            view.text_factory = lambda raw: raw.decode("utf-8", "replace")
            for name, path in stores.items():
                _attach(view, name, path, immutable=name == "inbox" and at_rest is not None)
            view.execute("BEGIN")
            result = ask(view)
        except ERRORS as error:
            if _at_rest(stores.get("inbox")) == at_rest and not _is_half_written(error):
                raise
            continue  # a gateway has opened or closed its store meanwhile, or a tick was killed
        finally:
            view.close()
        if at_rest is None or _at_rest(stores.get("inbox")) == at_rest:
            return result
    raise StoreError(f"{' or '.join(stores.values())} changed each time that it was read: try again")


def _at_rest(inbox: str | None) -> tuple[int, int, int] | None:
    """Return what tells this state of an inbox from others, if no gateway has it open.

    A reader of a WAL store would make its -wal and -shm files if they weren't there. They aren't when nobody has it open;
    then it is read as immutable, which leaves no trace, and is right as long as it stays as it is.
    """
    if inbox is None or os.path.exists(f"{inbox}-wal"):
        return None
    try:
        found = os.stat(inbox)
    except OSError:  # `_is_there` tells why
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _is_there(path: str) -> bool:
    try:
        if os.stat(path).st_size == 0:
            raise DamagedStoreError(f"{path} is damaged: it is empty")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error
    return True


def _attach(view: sqlite3.Connection, name: str, path: str, *, immutable: bool) -> None:
    """Attach a store for reading, an empty one if it isn't there."""
    if not _is_there(path):
        view.execute(f"ATTACH ':memory:' AS {name}")
        return
    try:  # this reads the schema, too
        view.execute(f"ATTACH ? AS {name}", (uri(path, "mode=ro&immutable=1" if immutable else "mode=ro"),))
    except sqlite3.OperationalError as error:
        if not _is_half_written(error):
            raise
        _attach_copy(view, name, path)


def _is_half_written(error: Exception) -> bool:
    """Tell whether SQLite would have to roll back what a killed writer left, which a reader may not."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK


def _attach_copy(view: sqlite3.Connection, name: str, path: str) -> None:
    """Attach a private copy of a store that was killed in the middle of a transaction, rolled back.

    Only a writer may roll back the store itself, and who looks writes nothing; the next tick does it.
    """
    import shutil
    import tempfile

    why = f"{path} was left in the middle of a write, and can't be copied"
    try:
        directory = tempfile.mkdtemp(prefix="bub-cron-")  # mode 0700
    except OSError as error:
        raise StoreError(f"{why}: {error}") from error
    try:
        copy = os.path.join(directory, os.path.basename(path))
        try:
            _copy_with_journal(path, copy)
        except OSError as error:
            raise StoreError(f"{why}: {error}") from error
        view.execute(f"ATTACH ? AS {name}", (uri(copy, "mode=rw"),))  # rolls back
    finally:
        shutil.rmtree(directory)  # the connection has it open


def _copy_with_journal(path: str, copy: str) -> None:
    """Copy a store and its journal as they are at one moment.

    With the lock of a reader of SQLite's held, nobody writes to the store: what wants to, and what would roll it back, has
    to wait. A journal that a live writer fills meanwhile is of a store that it hasn't touched. (Closing the file gives up
    all locks that this process has on the store; who reads here has none.)
    """
    import fcntl
    import shutil
    import time

    deadline = time.monotonic() + _BUSY_SECONDS
    with open(path, "rb") as store:
        while True:
            try:
                fcntl.lockf(store, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        shutil.copyfile(path, copy)
        try:
            shutil.copyfile(f"{path}-journal", f"{copy}-journal")
        except FileNotFoundError:
            return  # rolled back meanwhile
