"""Settle what a killed gateway left in the middle, before anything starts.

| found                                  | becomes                                                     |
|----------------------------------------|-------------------------------------------------------------|
| a send had begun                       | the message is unknown; with `at-least-once`, sent again    |
| a reply is kept, no send under way     | retrying, at once                                           |
| in a turn, attempts left               | retrying, after the usual delay                             |
| in a turn, none left                   | failed; unknown where the turn has side effects             |

Invariants: each step is a move like any other, so a gateway that is killed in the middle of this goes on with it at its
next start.
"""

from __future__ import annotations

from bub_cron.gateway.delays import attempt_delay
from bub_cron.gateway.firing import Firing, Message
from bub_cron.gateway.inbox import Inbox
from bub_cron.states import RUNNING, SENDING

LOST_IN_CRASH = "the gateway ended in the middle of the turn"
LOST_IN_SEND = "the gateway ended in the middle of the send"


async def recover(inbox: Inbox, now: float) -> list[Firing]:
    """Return every firing that is not done with, settled, in order of acceptance."""
    return [await _settle(inbox, firing, now) for firing in await inbox.unfinished(now)]


async def _settle(inbox: Inbox, firing: Firing, now: float) -> Firing:
    for message in firing.messages:
        if message.state == SENDING:
            firing = await _settle_send(inbox, firing, message, now)
    if firing.state != RUNNING:
        return firing
    if firing.text is not None:
        return await inbox.move(firing, "resume", not_before=None)
    if firing.attempts < firing.request.attempts_allowed:
        again = now + attempt_delay(firing.attempts)
        return await inbox.move(firing, "retry", error=LOST_IN_CRASH, not_before=again)
    if firing.has_side_effects:
        return await inbox.end(firing, "lose", now, reason="lost_turn", error=LOST_IN_CRASH)
    return await inbox.end(firing, "fail", now, reason="attempts", error=LOST_IN_CRASH)


async def _settle_send(inbox: Inbox, firing: Firing, message: Message, now: float) -> Firing:
    if message.decides and firing.request.delivery == "at-least-once":
        return await inbox.move_message(firing, message, "retry", now, error=LOST_IN_SEND)
    return await inbox.move_message(firing, message, "lose", now, reason="not_seen", error=LOST_IN_SEND)
