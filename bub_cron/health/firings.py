"""What became of the last firings, and what to change where they didn't work.

Invariants: a firing that went wrong is never ok; each has a remedy, and one that only looks only where no cause is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bub_cron import records
from bub_cron.health.finding import BROKEN, OK, WARNING, Finding
from bub_cron.health.status import MOST, Status, local, log_of, retried, told
from bub_cron.paths import Paths
from bub_cron.records import Record
from bub_cron.states import FAILED, MISSED, RETRYING, UNDELIVERED
from bub_cron.trigger.remedies import command_line

# What providers of models say, and what to change then. It is advice alone: nothing else is decided by a sentence.
_OF_MODELS = (
    (
        r"\b401\b|api.?key|unauthori[sz]ed|authentication",
        "give the gateway a valid BUB_API_KEY, or run `bub onboard`, and restart it",
    ),
    (r"\b429\b|rate.?limit|quota|billing|insufficient", "look at the limits and the balance at the model's provider"),
    (r"\b404\b|model.{0,40}not (found|exist)", "give the gateway a BUB_MODEL that its provider has, and restart it"),
)
# What Telegram, Slack and Discord say of a chat that doesn't exist, or that the bot isn't in.
_NO_SUCH_CHAT = r"chat not found|channel_not_found|unknown channel"


def firing_findings(paths: Paths, status: Status) -> Iterator[Finding]:
    """Look at each reminder's newest firing, at what is tried again, and at the newest of all."""
    if status.stores_error is not None:
        yield Finding("firings", BROKEN, status.stores_error, "do what is said of the stores, above")
        return
    if status.stuck:
        yield Finding("firings", BROKEN, status.stuck, f"{command_line(paths, 'tick')}    # says why")
    for record in status.bad[:MOST]:
        yield Finding("firings", BROKEN, told(record), _remedy(record, paths))
    if len(status.bad) > MOST:
        text = f"and {len(status.bad) - MOST:,} more reminders like that"
        yield Finding("firings", BROKEN, text, command_line(paths, "status"))
    for record in status.retrying[:MOST]:
        yield Finding("firings", WARNING, retried(record), _remedy(record, paths))
    if status.bad or status.stuck or status.retrying:
        return
    newest = records.history(paths, until=status.until, most=1)
    if not newest:
        yield Finding("firings", OK, "none yet")
    elif newest[0].is_bad:
        yield Finding("firings", WARNING, f"the newest one: {told(newest[0])}", _remedy(newest[0], paths))
    else:
        text = f"{newest[0].reminder or newest[0].id} at {local(newest[0].moment)}: {newest[0].outcome}"
        yield Finding("firings", OK, text)


def _remedy(record: Record, paths: Paths) -> str:
    """Return what to change, where the cause is known; else what shows all that is known of it."""
    look = log_of(paths, record)
    if record.outcome in (FAILED, RETRYING):
        for pattern, remedy in _OF_MODELS:
            if re.search(pattern, record.why or "", re.IGNORECASE):
                return f"{remedy}; then: {_again(record, paths)}"
    if record.reason == "no_channel":
        return f"see the channels, above; then: {_again(record, paths)}"
    if record.outcome in (UNDELIVERED, RETRYING) and re.search(_NO_SUCH_CHAT, record.why, re.IGNORECASE):
        chats = command_line(paths, "chats")
        return (
            f"{chats}    # lists the chats that have written to the bot; correct `to:`, then: {_again(record, paths)}"
        )
    if record.outcome == MISSED:
        return f"{look}    # a longer `grace:` lets it start later; the trigger and the gateway, above, have to run"
    return f"{look}    # shows every try; once it is put right: {_again(record, paths)}"


def _again(record: Record, paths: Paths) -> str:
    return command_line(paths, "fire", record.reminder) if record.reminder else "send it again"
