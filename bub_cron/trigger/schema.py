"""The ledger's tables: the checks made from states.py, and what brings an older ledger up to date.

Invariants:
- The checks say what a whole row is: a damaged store's rows come over only if they pass.
- SQLite's own table of these statements fits on one page, the file's first: no other damaged page can cost all rows.

Instants are seconds since the epoch. Loaded only where a ledger is made, migrated or checked.
"""

from bub_cron.checkers import MAX_DURATION
from bub_cron.states import FINAL, LEDGER_MOVES, all_states, sql_list
from bub_cron.store import FAR, made_anew

MOST_TRIES = 3  # of a ping


# The statements have no comments, for SQLite keeps their text.
def number(column: str, most: int) -> str:
    """Return the CHECK that lets an INTEGER column hold a whole number from 0 to `most`, or NULL, in few letters.

    `%` cuts its operands to whole numbers, so that what is a fraction, a text or a blob isn't equal to what comes out.
    """
    return f"CHECK({column}=max({column},0)%{most + 1})"


def instant(column: str) -> str:
    """Return the CHECK that lets an INTEGER column hold an instant, or NULL."""
    return number(column, FAR)


def text(column: str) -> str:
    """Return the CHECK that lets a TEXT column hold nothing but text, or NULL.

    A number becomes text there, so a blob is all that it could hold besides, and any text is less than any blob.
    """
    return f"CHECK({column}<x'')"


# A time without ticks: the last tick before it, the first one after.
_GAPS = f"""
CREATE TABLE gaps (
began INTEGER PRIMARY KEY {instant("began")},
ended INTEGER NOT NULL {instant("ended")}
)"""
# The tick's own row. `high`: the latest instant that a tick ran at by a clock that wasn't found to be ahead. `signature`: of
# the files, the machine's zone and `zone_files` (paths, one a line, also those that calendars' days were read from) as they
# were last read. `file`: the reminders file that was last taken over. `tz`: the TZ in force; `tz_seen`: that of the last
# tick. `trouble`: what the last tick had to say, last printed at `said_at`.
_TICK = f"""
CREATE TABLE tick (
one INTEGER PRIMARY KEY CHECK(one = 1),
last_tick INTEGER {instant("last_tick")},
high INTEGER {instant("high")},
signature TEXT,
zone_files TEXT,
file TEXT,
tz TEXT,
tz_seen TEXT,
trouble TEXT,
said_at INTEGER {instant("said_at")}
)"""
# The zone data that `next_at` was computed with.
_ZONES = """
CREATE TABLE zones (
name TEXT PRIMARY KEY,
data BLOB NOT NULL
) WITHOUT ROWID"""
# The files that are at fault, each with the exit status that its faults have; their last good versions are in force.
_FILES = f"""
CREATE TABLE files (
path TEXT PRIMARY KEY {text("path")},
faults TEXT NOT NULL {text("faults")},
status INTEGER NOT NULL {number("status", 255)}
) WITHOUT ROWID"""
# The days of calendars' sources that were read, with their names: schedule.sources has the meaning of each column.
_CALENDAR_DAYS = f"""
CREATE TABLE calendar_days (
source TEXT PRIMARY KEY {text("source")},
ground TEXT NOT NULL,
first INTEGER NOT NULL,
last INTEGER NOT NULL,
days TEXT NOT NULL
) WITHOUT ROWID"""
# The last good files. `schedule` as schedule.encode() writes it; `machine_zone`: its zone is the machine's; `content` is
# JSON, the request's fields but for id, fire_time and expires; `grace` is seconds; `since` is when it came into force;
# `next_at` is the first fire time that is not yet recorded; what is up to `done_until` was recorded by a clock from which
# the present one has gone back; before `pause_until` the file lets it not run.
_REMINDERS = f"""
CREATE TABLE reminders (
name TEXT PRIMARY KEY {text("name")},
file TEXT NOT NULL {text("file")},
schedule TEXT NOT NULL {text("schedule")},
machine_zone INTEGER NOT NULL CHECK(machine_zone IN (0,1)),
content TEXT NOT NULL {text("content")},
enabled INTEGER NOT NULL CHECK(enabled IN (0,1)),
grace INTEGER NOT NULL {number("grace", MAX_DURATION)},
catch_up TEXT NOT NULL CHECK(catch_up IN ('latest','all')),
since INTEGER {instant("since")},
next_at INTEGER {instant("next_at")},
done_until INTEGER {instant("done_until")},
pause_until INTEGER {instant("pause_until")}
) WITHOUT ROWID"""
# `count` fire times share a row, of which `fire_time` is the last. `reason` is a code, `error` its sentence. `outcome`: the
# final outcome of an accepted one, as its gateway told it. `edited`: its reminder is gone, disabled, paused or rescheduled.
# `submitted_at`: when its line may first have been written.
_FIRINGS = f"""
CREATE TABLE firings (
id TEXT PRIMARY KEY {text("id")},
reminder TEXT NOT NULL {text("reminder")},
fire_time INTEGER NOT NULL {instant("fire_time")},
count INTEGER NOT NULL DEFAULT 1,
expires INTEGER NOT NULL {number("expires", FAR + MAX_DURATION)},
content TEXT NOT NULL {text("content")},
state TEXT NOT NULL CHECK(state IN {sql_list(all_states(LEDGER_MOVES))}),
reason TEXT,
error TEXT,
outcome TEXT CHECK(outcome IN {sql_list(FINAL)}),
edited INTEGER NOT NULL DEFAULT 0 CHECK(edited IN (0,1)),
recorded_at INTEGER NOT NULL {instant("recorded_at")},
submitted_at INTEGER {instant("submitted_at")},
settled_at INTEGER {instant("settled_at")},
CHECK(state <> 'due' OR id = reminder || '@' || strftime('%Y-%m-%dT%H:%M:%SZ', fire_time, 'unixepoch'))
)"""
# What holds reminders back, by hand: the fire times of `reminder` ('' for all of them) in [since, until), which may be open.
# A skip ends with the last fire time that was to be skipped. `who` asked for it.
_PAUSES = f"""
CREATE TABLE pauses (
reminder TEXT NOT NULL {text("reminder")},
kind TEXT NOT NULL CHECK(kind IN ('pause','skip')),
since INTEGER NOT NULL {instant("since")},
until INTEGER {instant("until")},
why TEXT {text("why")},
who TEXT NOT NULL {text("who")},
PRIMARY KEY (reminder, kind, since)
) WITHOUT ROWID"""
# What the ledger has ended and somebody is still to be told: an alert until a gateway has it, a ping until it is answered
# or its `tries` are used up.
_TELLINGS = f"""
CREATE TABLE tellings (
firing TEXT NOT NULL {text("firing")},
kind TEXT NOT NULL CHECK(kind IN ('alert','ping')),
tries INTEGER NOT NULL DEFAULT 0 {number("tries", MOST_TRIES)},
PRIMARY KEY (firing, kind)
) WITHOUT ROWID"""
_INDEXES = (
    "CREATE INDEX reminders_next ON reminders (next_at)",
    "CREATE INDEX firings_due ON firings (fire_time) WHERE state = 'due'",
    "CREATE INDEX firings_open ON firings (fire_time) WHERE state = 'accepted' AND outcome IS NULL",
    "CREATE INDEX firings_reminder ON firings (reminder, fire_time)",
    "CREATE INDEX firings_time ON firings (fire_time)",
)
SCHEMA = (
    _TICK,
    _ZONES,
    _FILES,
    _CALENDAR_DAYS,
    _REMINDERS,
    _FIRINGS,
    _GAPS,
    _PAUSES,
    _TELLINGS,
    *_INDEXES,
    "INSERT INTO tick (one) VALUES (1)",
)

# What version 2 said of a firing in one sentence.
_CHOSEN = "state = 'missed' AND (reason LIKE 'edited: %' OR reason LIKE 'catching up: %')"
_STATE = f"CASE WHEN {_CHOSEN} THEN 'skipped' ELSE state END"
_REASON = """CASE WHEN state = 'rejected' THEN 'rejected'
WHEN state <> 'missed' THEN NULL
WHEN reason LIKE 'edited: %' THEN 'edited'
WHEN reason LIKE 'catching up: %' THEN 'superseded'
WHEN reason LIKE 'already past %' THEN 'past'
WHEN count > 1 THEN 'downtime'
ELSE 'late' END"""
_SAME = "id, reminder, fire_time, count, expires, content, edited, recorded_at, submitted_at, settled_at"

MIGRATIONS = {
    # Version 1 had no checks, which the next step adds, and no gaps.
    1: (_GAPS,),
    # Version 2 knew one file and no zone data. Without a signature, the next tick reads all of them.
    2: (
        *made_anew(
            "tick", _TICK, "one, last_tick, high, trouble, said_at", "one, last_tick, last_tick, trouble, said_at"
        ),
        *made_anew(
            "reminders",
            _REMINDERS,
            "name, file, schedule, machine_zone, content, enabled, grace, catch_up, next_at",
            "name, '', schedule, 0, content, enabled, grace, catch_up, next_at",
        ),
        *made_anew("firings", _FIRINGS, f"{_SAME}, state, reason, error", f"{_SAME}, {_STATE}, {_REASON}, reason"),
        *made_anew("gaps", _GAPS),
        _FILES,
        _ZONES,
        _CALENDAR_DAYS,
        _PAUSES,
        *_INDEXES,
    ),
    # Version 3 said the same in longer checks: its schema took more than a page.
    3: (
        *made_anew("tick", _TICK),
        *made_anew("files", _FILES),
        *made_anew("calendar_days", _CALENDAR_DAYS),
        *made_anew("reminders", _REMINDERS),
        *made_anew("firings", _FIRINGS),
        *made_anew("gaps", _GAPS),
        *made_anew("pauses", _PAUSES),
        *_INDEXES,
    ),
    # Version 4 told nobody of what it ended. Its checks were longer, so there was no room for a table more.
    4: (
        *made_anew("tick", _TICK),
        *made_anew("files", _FILES),
        *made_anew("calendar_days", _CALENDAR_DAYS),
        *made_anew("reminders", _REMINDERS),
        *made_anew("firings", _FIRINGS),
        *made_anew("gaps", _GAPS),
        *made_anew("pauses", _PAUSES),
        _TELLINGS,
        *_INDEXES,
    ),
}
"""By version: the statements that lead to the next."""
