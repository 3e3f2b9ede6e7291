"""Settle a firing that was left in the middle, by a gateway that was killed or by one that stops.

| found on disk                            | after a kill                      | at a stop                            |
|------------------------------------------|-----------------------------------|--------------------------------------|
| a send that has begun                    | unknown; `at-least-once`: again   | the same                             |
| a send whose beginning is written alone  | (looks like one that has begun)   | waiting, and doesn't count           |
| a ping that has begun                    | waiting: two do no harm           | the same                             |
| a kept reply, no send under way          | retrying, at once                 | the same                             |
| a gate                                   | as a turn without side effects    | accepted, and counts no attempt      |
| a turn with side effects, attempts left  | retrying, after the usual delay   | retrying, at once                    |
| a turn with side effects, none left      | unknown                           | the same                             |
| another turn                             | retrying after a delay, or failed | accepted, and counts no attempt      |

Invariants: each step is a move like any other, so what is killed in the middle of this goes on with it at the next start.
"""

from __future__ import annotations

from bub_cron.gateway.delays import attempt_delay
from bub_cron.gateway.firing import PING, Firing, Message
from bub_cron.gateway.hand import SEND, TURN
from bub_cron.gateway.inbox import Inbox
from bub_cron.states import RUNNING, SENDING

LOST_IN_CRASH = "the gateway ended in the middle of the turn"
LOST_IN_STOP = "the gateway stopped in the middle of the turn"


async def recover(inbox: Inbox, now: float) -> list[Firing]:
    """Settle what a killed gateway left; return every firing that is not done with, in order of acceptance."""
    return [await settle(inbox, firing, now) for firing in await inbox.unfinished(now)]


async def settle(inbox: Inbox, firing: Firing, now: float, phase: str | None = None) -> Firing:
    """Settle one firing. `phase` is what a stop ended (see `hand.py`), None after a kill."""
    stops = phase is not None
    for message in firing.messages:
        if message.state == SENDING:
            firing = await _settle_send(inbox, firing, message, now, phase)
    if firing.state != RUNNING:
        return firing
    if firing.text is not None:
        return await inbox.move(firing, "resume", now, not_before=None)
    if stops and (phase != TURN or not firing.has_side_effects):
        return await inbox.move(firing, "give_back", now, attempts=firing.attempts - 1)
    error = LOST_IN_STOP if stops else LOST_IN_CRASH
    if firing.attempts < firing.request.attempts_allowed:
        again = now if stops else now + attempt_delay(firing.attempts)
        return await inbox.move(firing, "retry", now, error=error, not_before=again)
    event, reason = ("lose", "lost_turn") if firing.has_side_effects else ("fail", "attempts")
    return await inbox.move(firing, event, now, reason=reason, error=error)


async def _settle_send(inbox: Inbox, firing: Firing, message: Message, now: float, phase: str | None) -> Firing:
    stops = phase is not None
    if stops and phase != SEND:
        return await inbox.move_message(firing, message, "give_back", now)
    error = "the gateway stopped while the message was on its way"
    if not stops:
        error = "the gateway ended in the middle of the send"
    is_repeated = message.kind == PING or (message.decides and firing.request.delivery == "at-least-once")
    event = "retry" if is_repeated else "lose"
    return await inbox.move_message(firing, message, event, now, reason="not_seen", error=error)
