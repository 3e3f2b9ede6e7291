"""The tables of the inbox, and how an older inbox becomes one of today.

Invariants: the states and kinds that a row may hold are those of `bub_cron.states`; a row says all that its firing needs,
so a gateway that is killed at any moment goes on from the rows alone.
"""

from __future__ import annotations

from bub_cron.states import FIRING_MOVES, MESSAGE_KINDS, MESSAGE_MOVES, MESSAGE_OPEN, OPEN, all_states, sql_list
from bub_cron.store import FAR, Shape, instant, made_anew, number, text


def _compact(statement: str) -> str:
    """Return a statement without its comments and needless blanks: the whole schema is to fit on the store's first page."""
    return "\n".join(
        line for line in (" ".join(line.partition("--")[0].split()) for line in statement.splitlines()) if line
    )


_FIRINGS = _compact(f"""
CREATE TABLE firings (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of acceptance
    id          TEXT NOT NULL UNIQUE {text("id")},
    reminder    TEXT,
    fire_time   TEXT,               -- a label; UTC when a tick wrote it
    moment      REAL NOT NULL {instant("moment", "real")}, -- its fire time where the label is an instant, else accepted_at
    request     TEXT NOT NULL {text("request")},    -- canonical JSON of what it does
    expires     REAL NOT NULL {instant("expires", "real")}, -- instants are seconds since the epoch
    state       TEXT NOT NULL CHECK (state IN {sql_list(all_states(FIRING_MOVES))}),
    reason      TEXT,               -- a code of states.REASONS
    error       TEXT,
    attempts    INTEGER NOT NULL DEFAULT 0 {number("attempts", 1_000_000)},
    tokens      INTEGER,            -- of all attempts, where the model's provider tells
    gate        TEXT,               -- its gate's output; NULL until the gate let it run
    reply       TEXT,               -- of its turn; a `text` without a gate has none
    not_before  REAL {instant("not_before", "real")},
    accepted_at REAL NOT NULL {instant("accepted_at", "real")},
    started_at  REAL {instant("started_at", "real")},
    finished_at REAL {instant("finished_at", "real")}
)
""")
_MESSAGES = _compact(f"""
CREATE TABLE messages (
    firing      TEXT NOT NULL {text("firing")},
    number      INTEGER NOT NULL {number("number", 1_000_000)},
    kind        TEXT NOT NULL CHECK (kind IN {sql_list(MESSAGE_KINDS)}),
    "to"        TEXT NOT NULL {text('"to"')},       -- channel:chat_id
    until       REAL NOT NULL {instant("until", "real")}, -- when a refused one is given up
    content     TEXT,               -- NULL: the whole text of its firing
    state       TEXT NOT NULL CHECK (state IN {sql_list(all_states(MESSAGE_MOVES))}),
    sends       INTEGER NOT NULL DEFAULT 0 {number("sends", 1_000_000)},
    reason      TEXT,
    error       TEXT,
    not_before  REAL {instant("not_before", "real")},
    finished_at REAL {instant("finished_at", "real")},
    UNIQUE (firing, number)
)
""")
_GATES = _compact("""
CREATE TABLE gates (
    reminder    TEXT NOT NULL UNIQUE,
    digest      TEXT NOT NULL       -- of the gate's output at the reminder's last good firing
)
""")
_SPENT = _compact(f"""
CREATE TABLE spent (
    reminder    TEXT NOT NULL,
    day         REAL NOT NULL {instant("day", "real")}, -- its start, on the reminder's clock
    tokens      INTEGER NOT NULL,
    UNIQUE (reminder, day)
)
""")
_CHATS = _compact(f"""
CREATE TABLE chats (
    "to"        TEXT NOT NULL UNIQUE {text('"to"')}, -- channel:chat_id
    seen        REAL NOT NULL {instant("seen", "real")} -- when somebody last wrote there
)
""")
TOLD = "kind IN ('alert', 'notice')"
"""Which messages tell somebody that a reminder doesn't work."""
OPEN_BESIDE = f"kind IN ('alert', 'notice', 'ping') AND state IN {sql_list(MESSAGE_OPEN)}"
"""Which messages are still to be sent after their firing has ended."""
_INDEXES = (
    f"CREATE INDEX firings_open ON firings (seq) WHERE state IN {sql_list(OPEN)}",
    # Of those, the few that have started: what a new firing of the same reminder may overlap.
    f"CREATE INDEX firings_started ON firings (reminder) WHERE state IN {sql_list(OPEN)} AND started_at IS NOT NULL",
    "CREATE INDEX firings_reminder ON firings (reminder, moment)",
    "CREATE INDEX firings_moment ON firings (moment)",
    # One for each time that a reminder began to fail.
    f"CREATE INDEX messages_told ON messages (firing) WHERE {TOLD}",
    f"CREATE INDEX messages_open ON messages (firing) WHERE {OPEN_BESIDE}",
)
_FROM_2 = (
    "CREATE TEMP TABLE former AS SELECT * FROM firings",
    "CREATE TEMP TABLE former_told AS SELECT * FROM told",
    "DROP TABLE firings",
    "DROP TABLE told",
    _FIRINGS,
    _MESSAGES,
    f"""
    INSERT INTO firings (seq, id, reminder, fire_time, moment, request, expires, state, reason, error, attempts, tokens,
                         reply, not_before, accepted_at, started_at, finished_at)
    SELECT seq, id, reminder, fire_time,
           coalesce(CASE WHEN fire_time GLOB '????-??-??T??:??:??Z' AND strftime('%s', fire_time) + 0 BETWEEN 0 AND {FAR}
                         THEN CAST(strftime('%s', fire_time) AS REAL) END, accepted_at),
           content, expires,
           CASE WHEN state = 'missed' AND error LIKE '% still ran' THEN 'skipped' ELSE state END,
           CASE state WHEN 'missed' THEN iif(error LIKE '% still ran', 'overlap', 'late')
                      WHEN 'undelivered' THEN iif(sends > 0, 'refused', 'no_channel')
                      WHEN 'unknown' THEN iif(sends > 0, 'not_seen', 'lost_turn')
                      WHEN 'failed' THEN 'attempts' END,
           error, attempts, tokens, iif(kind = 'text', NULL, reply), not_before, accepted_at, started_at, finished_at
    FROM former ORDER BY seq
    """,  # noqa: S608 - a constant of ours
    """
    INSERT INTO messages (firing, number, kind, "to", until, state, sends, error, not_before, finished_at)
    SELECT id, 1, 'reply', target, expires,
           CASE WHEN sending THEN 'sending' WHEN finished_at IS NULL THEN 'waiting'
                WHEN state IN ('delivered', 'unknown') THEN state ELSE 'undelivered' END,
           sends, iif(state = 'delivered', NULL, error), not_before, finished_at
    FROM former WHERE sends > 0 ORDER BY seq
    """,
    """
    INSERT INTO messages (firing, number, kind, "to", until, content, state, sends, finished_at)
    SELECT f.id, 2, 'notice', f.target, min(coalesce(f.finished_at, 0) + 3600.0, 253402300799.0),
           'The reminder ' || f.reminder || ' failed: ' || f.error || '.', iif(t.begun, 'delivered', 'waiting'), t.begun,
           iif(t.begun, f.finished_at, NULL)
    FROM former_told t JOIN former f ON f.id = t.firing
    """,
    "DROP TABLE former",
    "DROP TABLE former_told",
)
_OF_3 = (
    "seq, id, reminder, fire_time, moment, request, expires, state, reason, error, attempts, tokens, reply, not_before,"
    " accepted_at, started_at, finished_at"
)
_FROM_3 = (
    "DROP INDEX IF EXISTS messages_notices",
    *made_anew("firings", _FIRINGS, _OF_3, _OF_3),
    *made_anew("messages", _MESSAGES),  # in fewer words, for the schema to fit on its page
    _GATES,
    _SPENT,
    _CHATS,
    *_INDEXES,
)
SHAPE = Shape(
    application_id=0x62634958,  # "bcIX"
    version=4,
    schema=(_FIRINGS, _MESSAGES, _GATES, _SPENT, _CHATS, *_INDEXES),
    journal="WAL",
    # Version 1 is version 2 without checks: its rows are read the same way.
    migrations={1: (), 2: _FROM_2, 3: _FROM_3},
)
