"""One attempt: from the start of a firing's turn to a kept reply, a later attempt, or the firing's end.

Invariants:
- The start of an attempt is on disk before the turn begins, and the reply before anything is sent.
- Every way in which a turn can end is a case of `run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loguru import logger

from bub_cron.errors import BubCronError
from bub_cron.gateway.delays import attempt_delay
from bub_cron.gateway.delivery import Delivery
from bub_cron.gateway.firing import Firing
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.no_reply import is_no_reply, without_marker
from bub_cron.gateway.recovery import LOST_IN_CRASH
from bub_cron.gateway.turns import GatewayStopsError, Reply, TurnFailedError, TurnMovedError, Turns, add_tokens
from bub_cron.states import RUNNING
from bub_cron.wire import COMMAND, NO_REPLY

LOST_IN_STOP = "the gateway stopped in the middle of the turn"
STOP_FOLLOWS_SECONDS = 60.0  # between the unbinding of Bub's router and our own stop; more than its channels take
_NO_OUTPUT = "(no output)"  # what Bub returns for a command that printed nothing


def may_have_acted(firing: Firing) -> bool:
    """Tell whether the last attempt has side effects and was lost in the middle."""
    return firing.has_side_effects and firing.error in (LOST_IN_CRASH, LOST_IN_STOP)


class Attempts:
    """Runs attempts. `now` gives epoch seconds."""

    def __init__(self, inbox: Inbox, turns: Turns, delivery: Delivery, *, now: Callable[[], float]) -> None:
        self._inbox = inbox
        self._turns = turns
        self._delivery = delivery
        self._now = now

    async def run(self, firing: Firing) -> Firing:
        """Run one attempt of a firing that holds its session and a place; return the firing as it is afterwards."""
        before = firing
        try:
            firing = await self._inbox.move(
                firing,
                "start",
                attempts=firing.attempts + 1,
                not_before=None,
                started_at=firing.started_at or self._now(),
            )
            logger.info("cron.start id={} to={} attempt={}", firing.id, firing.request.to, firing.attempts)
            reply = await self._turns.run(firing, self._delivery.limit_words(firing.request.to))
        except asyncio.CancelledError:
            await self._stopped(before, firing)
            raise
        except GatewayStopsError as error:
            return await self._wait_for_the_stop(firing, error)
        except TurnMovedError as error:
            tokens = add_tokens(firing.tokens, error.tokens)
            return await self._inbox.end(firing, "lose", self._now(), reason="moved", error=str(error), tokens=tokens)
        except TurnFailedError as error:
            return await self._failed(firing, error)
        return await self._ended(firing, reply)

    async def _ended(self, firing: Firing, reply: Reply) -> Firing:
        """Judge a turn that ended without error."""
        request, now = firing.request, self._now()
        tokens = add_tokens(firing.tokens, reply.tokens)
        text = without_marker(reply.text)
        nothing = not text or is_no_reply(reply.text)
        if request.reply_mode == "agent" or (request.kind == COMMAND and (nothing or text == _NO_OUTPUT)):
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
            logger.warning("cron.retry id={} attempt={} error={}", firing.id, firing.attempts, error)
            return await self._inbox.move(firing, "retry", error=str(error), not_before=again, tokens=tokens)
        return await self._inbox.end(firing, "fail", now, reason="attempts", error=str(error), tokens=tokens)

    async def _wait_for_the_stop(self, firing: Firing, error: GatewayStopsError) -> Firing:
        """Bub's router is unbound, which a stop begins with. If none follows, the turn's output went nowhere."""
        logger.info("cron.held id={}: {}", firing.id, error)
        try:
            await asyncio.sleep(STOP_FOLLOWS_SECONDS)
        except asyncio.CancelledError:
            await self._stopped(firing, firing)
            raise
        return await self._inbox.end(
            firing, "lose", self._now(), reason="moved", error=f"{error}, and the gateway did not stop"
        )

    async def _stopped(self, before: Firing, firing: Firing) -> None:
        """Put a turn that the stop has ended back. One that has side effects counts, since it may have acted."""
        begun = firing.state == RUNNING
        running = firing if begun else before
        try:
            if not begun or not firing.has_side_effects:
                attempts = firing.attempts - 1 if begun else before.attempts
                await self._inbox.move(running, "give_back", attempts=attempts, once=True)
            elif firing.attempts < firing.request.attempts_allowed:
                await self._inbox.move(firing, "retry", error=LOST_IN_STOP, not_before=self._now(), once=True)
            else:
                await self._inbox.end(firing, "lose", self._now(), reason="lost_turn", error=LOST_IN_STOP, once=True)
        except BubCronError as error:
            # Not repeated, since the gateway is going: what is on disk is settled at the next start.
            logger.warning("cron.stop id={} not recorded: {}", firing.id, error)
