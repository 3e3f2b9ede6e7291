"""The schemas of the stores as version 1 made them, which the migrations have to bring up to date."""

LEDGER = (
    """
CREATE TABLE tick (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    last_tick   INTEGER,    -- instants are seconds since the epoch
    signature   TEXT,       -- of the reminders file as it was last read
    faults      TEXT,       -- of that file, NULL if it was good
    status      INTEGER,    -- the exit status that these faults have
    trouble     TEXT,       -- what the last tick had to say
    said_at     INTEGER     -- when that was last printed
)
""",
    """
CREATE TABLE reminders (
    name        TEXT PRIMARY KEY,
    schedule    TEXT NOT NULL,      -- as schedule.encode() writes it
    content     TEXT NOT NULL,      -- JSON: the request's fields but for id, fire_time, expires
    enabled     INTEGER NOT NULL,
    grace       INTEGER NOT NULL,   -- seconds
    catch_up    TEXT NOT NULL,
    next_at     INTEGER             -- the first fire time that is not yet recorded
) WITHOUT ROWID
""",
    """
CREATE TABLE firings (
    id           TEXT PRIMARY KEY,
    reminder     TEXT NOT NULL,
    fire_time    INTEGER NOT NULL,
    count        INTEGER NOT NULL DEFAULT 1,    -- fire times that share the row; fire_time is the last of them
    expires      INTEGER NOT NULL,
    content      TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('due', 'accepted', 'missed', 'rejected')),
    reason       TEXT,
    edited       INTEGER NOT NULL DEFAULT 0,    -- its reminder is gone, disabled or rescheduled
    recorded_at  INTEGER NOT NULL,
    submitted_at INTEGER,                       -- when its line may first have been written
    settled_at   INTEGER
)
""",
    """CREATE INDEX reminders_next ON reminders (next_at)""",
    """CREATE INDEX firings_due ON firings (fire_time) WHERE state = 'due'""",
    """CREATE INDEX firings_reminder ON firings (reminder, fire_time)""",
    """CREATE INDEX firings_time ON firings (fire_time)""",
    """INSERT INTO tick (one) VALUES (1)""",
)

INBOX = (
    """
CREATE TABLE firings (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of acceptance
    id          TEXT NOT NULL UNIQUE,
    reminder    TEXT,
    fire_time   TEXT,               -- a label; UTC when a tick wrote it
    target      TEXT NOT NULL,      -- channel:chat_id
    session     TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('prompt', 'text', 'command')),
    content     TEXT NOT NULL,      -- canonical JSON of what it does
    expires     REAL NOT NULL,      -- instants are seconds since the epoch
    state       TEXT NOT NULL CHECK (state IN ('accepted', 'running', 'retrying', 'delivered', 'silent', 'ran',
                                               'undelivered', 'failed', 'unknown', 'missed')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    sends       INTEGER NOT NULL DEFAULT 0,
    sending     INTEGER NOT NULL DEFAULT 0,
    reply       TEXT,               -- what is, or was, to be sent
    error       TEXT,
    tokens      INTEGER,            -- of all attempts, where the model's provider tells
    not_before  REAL,
    accepted_at REAL NOT NULL,
    started_at  REAL,
    finished_at REAL
)
""",
    """CREATE INDEX firings_open ON firings (seq) WHERE state IN ('accepted', 'running', 'retrying')""",
    """CREATE INDEX firings_reminder ON firings (reminder, seq)""",
    """CREATE TABLE told (reminder TEXT PRIMARY KEY, firing TEXT NOT NULL, begun INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
)
