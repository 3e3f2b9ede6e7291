"""One attempt: from the start of a firing's turn to a kept reply, a later attempt, or the firing's end.

Invariants: the start of an attempt is on disk before the turn begins, and the reply before anything is sent; every way in
which a turn can end is a case of `run`, but for a stop of the gateway (`settling.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from bub_cron.gateway.delays import attempt_delay
from bub_cron.gateway.faults import LogLimit
from bub_cron.gateway.firing import Firing
from bub_cron.gateway.hand import STARTING, TURN, Hand
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.no_reply import is_no_reply, without_no_reply
from bub_cron.gateway.turns import Reply, TurnFailedError, TurnMovedError, Turns, add_tokens
from bub_cron.wire import COMMAND, NO_REPLY

_NO_OUTPUT = "(no output)"  # what Bub returns for a command that printed nothing


class Attempts:
    """Runs attempts. `now` gives epoch seconds."""

    def __init__(self, inbox: Inbox, turns: Turns, lines: LogLimit, *, now: Callable[[], float]) -> None:
        self._inbox = inbox
        self._turns = turns
        self._lines = lines
        self._now = now

    async def run(self, hand: Hand, about_chat: str | None) -> None:
        """Run one attempt of a firing that holds its session and a place.

        Raises `GatewayStopsError` if it fell into a stop; then nothing has become of it yet.
        """
        firing, hand.phase = hand.firing, STARTING
        started_at = firing.started_at or self._now()
        firing = await self._inbox.move(
            firing, "start", attempts=firing.attempts + 1, not_before=None, started_at=started_at
        )
        hand.firing, hand.phase = firing, TURN
        self._lines.log("INFO", "cron.start id={} to={} attempt={}", firing.id, firing.request.to, firing.attempts)
        try:
            reply = await self._turns.run(firing, about_chat)
        except TurnMovedError as error:
            tokens = add_tokens(firing.tokens, error.tokens)
            hand.firing = await self._inbox.end(
                firing, "lose", self._now(), reason="moved", error=str(error), tokens=tokens
            )
        except TurnFailedError as error:
            hand.firing = await self._failed(firing, error)
        else:
            hand.firing = await self._ended(firing, reply)

    async def _ended(self, firing: Firing, reply: Reply) -> Firing:
        """Judge a turn that ended without error."""
        request, now = firing.request, self._now()
        tokens = add_tokens(firing.tokens, reply.tokens)
        text = without_no_reply(reply.text)
        nothing = not text.strip() or is_no_reply(reply.text)
        if request.reply_mode == "agent" or (request.kind == COMMAND and (nothing or text.strip() == _NO_OUTPUT)):
            return await self._inbox.end(firing, "run", now, error=None, tokens=tokens)
        if not nothing:
            return await self._inbox.move(firing, "keep_reply", reply=text, error=None, tokens=tokens)
        if request.quiet:
            return await self._inbox.end(firing, "be_silent", now, error=None, tokens=tokens)
        # Not tried again: the turn has done its work, and a model that sent by a skill says nothing more.
        error = f"the whole reply was {NO_REPLY}, which needs quiet: true" if reply.text.strip() else "an empty reply"
        return await self._inbox.end(firing, "fail", now, reason="empty", error=error, tokens=tokens)

    async def _failed(self, firing: Firing, error: TurnFailedError) -> Firing:
        now, tokens = self._now(), add_tokens(firing.tokens, error.tokens)
        again = now + attempt_delay(firing.attempts)
        if firing.attempts < firing.request.attempts_allowed and again <= firing.request.expires:
            self._lines.log("WARNING", "cron.retry id={} attempt={} error={}", firing.id, firing.attempts, error)
            return await self._inbox.move(firing, "retry", error=str(error), not_before=again, tokens=tokens)
        return await self._inbox.end(firing, "fail", now, reason="attempts", error=str(error), tokens=tokens)
