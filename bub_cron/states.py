"""Every state that a firing or a message can be in, and every move between them.

Each table maps an event to a `Move`: the states that it may start from, and the state that it leads to. Everything else
that knows states is made from these tables: the updates of both stores, their CHECK constraints and partial indexes, the
tests, and the tables in docs/states.md.

Invariants:
- A state changes only by a move of its table, as `UPDATE ... WHERE id = ? AND state IN (from states)` and a look at the
  row count.
- A state that no move starts from is final. `OPEN` and `FINAL` are computed here and nowhere else.
- Why a firing ended is a code (`REASONS`), never read out of a sentence.

Imports nothing: a tick that has nothing to do pays for every module it loads.

The states of a firing:

due          In the ledger alone: the fire time has come, and no gateway is known to have the firing. The tick submits it,
             or ends it. If the tick dies, the next one goes on with it.
accepted     In the ledger: a gateway has said that it has it. In the inbox: on disk, not started. The runner starts it. If
             the gateway dies, its next start goes on with it.
running      A turn or a send is under way. If the gateway dies, its next start judges it: see `recover` in the inbox.
retrying     Between two attempts, or between two sends. The runner goes on at `not_before`.
delivered    Final. Every message was taken by its channel, and nothing said otherwise.
silent       Final. The reminder may be quiet, and the reply was empty or `<no_reply/>`.
ran          Final. The turn ended without error, and nothing was to be sent for it.
skipped      Final. Not run, on purpose. The reason says why.
undelivered  Final. No such channel, or the message was refused to the end.
failed       Final. Every attempt failed.
unknown      Final. It may have happened: an end was not seen, or the record was lost.
missed       Final. Too late to start by the time it could.
rejected     Final, in the ledger alone. The gateway doesn't take such a request.

The states of a message:

waiting      On disk, to be sent at once or at `not_before`. If the gateway dies, its next start sends it.
sending      A send has begun. If the gateway dies, nobody knows its end: the next start makes it `unknown`.
delivered    Final. The channel took it and returned, and nothing said otherwise.
undelivered  Final. Refused to the end, or for good.
unknown      Final. A send began and its end was not seen.
skipped      Final. Not sent, because an earlier part of the same reply was not delivered, or its firing ended before.

Final rows are kept for BUB_CRON_KEEP_DAYS, as long as the store's size allows.
"""

DUE = "due"
ACCEPTED = "accepted"
RUNNING = "running"
RETRYING = "retrying"
DELIVERED = "delivered"
SILENT = "silent"
RAN = "ran"
SKIPPED = "skipped"
UNDELIVERED = "undelivered"
FAILED = "failed"
UNKNOWN = "unknown"
MISSED = "missed"
REJECTED = "rejected"

WAITING = "waiting"
SENDING = "sending"


class Move:
    """One row of a table: an event may move a row from one of `sources` to `state`.

    Without sources, the event makes the row. Without a state, it takes the row away. `meaning` is for the documentation.
    """

    __slots__ = ("meaning", "sources", "state")

    def __init__(self, sources: tuple[str, ...], state: str | None, meaning: str) -> None:
        self.sources = sources
        self.state = state
        self.meaning = meaning


LEDGER_MOVES = {
    "record": Move((), DUE, "its fire time has come"),
    "record_missed": Move((), MISSED, "its fire time has come, and its grace is over already"),
    "record_skipped": Move((), SKIPPED, "its fire time has come while the reminder is paused"),
    "accept": Move((DUE,), ACCEPTED, "the gateway has it"),
    "reject": Move((DUE,), REJECTED, "the gateway doesn't take such a request"),
    "miss": Move((DUE,), MISSED, "its grace is over, and no inbox knows it"),
    "skip": Move((DUE,), SKIPPED, "edited away, paused, or a later one starts in its place"),
    "lose": Move((ACCEPTED,), UNKNOWN, "no inbox knows it any more"),
    "take_back": Move((DUE, MISSED, SKIPPED), None, "a clock that was ahead recorded it, and it was never submitted"),
}
"""Of the firings in the ledger."""

FIRING_MOVES = {
    "accept": Move((), ACCEPTED, "a request"),
    "accept_missed": Move((), MISSED, "a request that comes too late to start"),
    "accept_skipped": Move((), SKIPPED, "a request while an earlier firing of its reminder still runs"),
    "start": Move((ACCEPTED, RETRYING), RUNNING, "an attempt starts: attempts + 1"),
    "keep_gate": Move((RUNNING,), RUNNING, "its gate lets it run: the gate's output is kept"),
    "keep_reply": Move((RUNNING,), RUNNING, "the turn ended with a reply: it is kept"),
    "begin_send": Move((ACCEPTED, RUNNING, RETRYING), RUNNING, "a send of one of its messages begins"),
    "retry": Move((RUNNING,), RETRYING, "the attempt failed, or a send was refused: again later"),
    "resume": Move((RUNNING,), RETRYING, "found at a start with its reply kept and no send under way"),
    "give_back": Move(
        (RUNNING,), ACCEPTED, "the gateway stops: the attempt, or the send that didn't begin, doesn't count"
    ),
    "deliver": Move((RUNNING,), DELIVERED, "all of its messages were delivered"),
    "be_silent": Move((RUNNING,), SILENT, "a quiet reminder's turn had nothing to say"),
    "run": Move((RUNNING,), RAN, "the turn ended, and nothing is to be sent for it"),
    "skip": Move((ACCEPTED, RUNNING, RETRYING), SKIPPED, "its gate or its budget says no"),
    "miss": Move((ACCEPTED,), MISSED, "too late to start"),
    "refuse": Move((ACCEPTED, RUNNING, RETRYING), UNDELIVERED, "no such channel, or its messages were refused"),
    "fail": Move((ACCEPTED, RUNNING, RETRYING), FAILED, "the last attempt failed, or it may not run here"),
    "lose": Move((ACCEPTED, RUNNING, RETRYING), UNKNOWN, "an end was not seen, and it is not repeated"),
}
"""Of the firings in the inbox."""

MESSAGE_MOVES = {
    "keep": Move((), WAITING, "it is to be sent"),
    "begin": Move((WAITING,), SENDING, "a send begins: sends + 1"),
    "deliver": Move((SENDING,), DELIVERED, "the channel took it"),
    "retry": Move((SENDING,), WAITING, "the channel refused it: again later"),
    "give_back": Move((SENDING,), WAITING, "the gateway stops before the send began: it doesn't count"),
    "refuse": Move((WAITING, SENDING), UNDELIVERED, "refused to the end, or for good"),
    "lose": Move(
        (WAITING, SENDING), UNKNOWN, "the send's end was not seen, or that of an earlier one, and it is given up"
    ),
    "skip": Move(
        (WAITING,), SKIPPED, "an earlier part of the same reply was not delivered, or its firing ended before"
    ),
}
"""Of the messages in the inbox."""


def open_states(moves: dict[str, Move]) -> tuple[str, ...]:
    """Return the states of a table that a row can still leave, sorted."""
    return tuple(sorted({source for move in moves.values() if move.state for source in move.sources}))


def all_states(moves: dict[str, Move]) -> tuple[str, ...]:
    """Return every state of a table, sorted."""
    return tuple(sorted({state for move in moves.values() for state in (*move.sources, move.state) if state}))


OPEN = frozenset(open_states(FIRING_MOVES))
"""The states of a firing in the inbox that are not final."""
IN_INBOX = frozenset(all_states(FIRING_MOVES))
FINAL = (IN_INBOX | {REJECTED}) - OPEN
"""The final outcomes of a firing, in either store."""
GOOD = frozenset({DELIVERED, SILENT, RAN})
"""The final outcomes by which a reminder has worked."""
BAD = FINAL - GOOD - {SKIPPED}
"""The final outcomes that somebody should look at; but see `is_bad` in records.py."""
OUTCOMES = (
    DUE, ACCEPTED, RUNNING, RETRYING, DELIVERED, SILENT, RAN, SKIPPED, UNDELIVERED, FAILED, UNKNOWN, MISSED, REJECTED,
)  # fmt: skip
"""Every outcome of a firing, in the order in which people read them."""
MESSAGE_OPEN = frozenset(open_states(MESSAGE_MOVES))
MESSAGE_KINDS = ("reply", "copy", "alert", "notice", "ping")
"""`reply` and `copy` decide the firing's outcome; the others never change it."""

REASONS = {
    # missed
    "late": "too late to start by the time it could",
    "past": "an `at` that was past when it first appeared in the file",
    "downtime": "many fire times that passed while no tick ran, in one row",
    # skipped
    "paused": "the reminder was paused",
    "overlap": "an earlier firing of the reminder still ran",
    "superseded": "a later firing of the reminder starts in its place",
    "edited": "its reminder was removed, disabled, paused or rescheduled in the file",
    "gate": "its gate said no",
    "unchanged": "its gate's output is that of the last good firing",
    "budget": "the reminder's budget of tokens is used up",
    "skip": "skipped by hand",
    # undelivered
    "no_channel": "no such channel in this gateway, or not enabled",
    "refused": "the channel refused the message to the end",
    "refused_for_good": "the channel refused the message, and would refuse it again",
    # failed
    "attempts": "every attempt failed",
    "empty": "an empty reply, and the reminder is not quiet",
    "not_allowed": "this gateway does not run it",
    "limit": "over its limit of tokens",
    "unreadable": "its record in the inbox was damaged",
    "fault": "a fault of bub-cron",
    # unknown
    "not_seen": "a send began, and its end was not seen",
    "lost_turn": "a turn that acts by itself was lost in the middle",
    "moved": "another plugin moved the turn's output away",
    "lost_record": "no inbox knows it any more",
    # rejected
    "rejected": "the gateway doesn't take such a request",
}
"""Why a firing ended, where its outcome alone doesn't say it."""


def worst(states: list[str]) -> str:
    """Return the outcome of a firing whose replies ended so. Parts that were not sent because of another don't count."""
    return next((state for state in (UNDELIVERED, UNKNOWN) if state in states), DELIVERED)


def sql_list(states: "tuple[str, ...] | frozenset[str]") -> str:
    """Return states as SQL's list for `IN`, always in the same order: a partial index is found by its exact words."""
    return f"({', '.join(repr(state) for state in sorted(states))})"
