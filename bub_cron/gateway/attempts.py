"""One attempt: from the start of a firing's gate and turn to a kept reply, a later attempt, or the firing's end.

Invariants: the start of an attempt is on disk before the turn begins, and the reply before anything is sent; every way in
which a gate or a turn can end is a case here, but for a stop of the gateway (`settling.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bub_cron.errors import described
from bub_cron.gateway import gates
from bub_cron.gateway.delays import attempt_delay
from bub_cron.gateway.faults import LogLimit
from bub_cron.gateway.firing import Firing
from bub_cron.gateway.hand import GATE, STARTING, TURN, Hand
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.limits import is_limited, period_start
from bub_cron.gateway.no_reply import is_no_reply, without_no_reply
from bub_cron.gateway.settling import LOST_IN_CRASH, LOST_IN_STOP
from bub_cron.gateway.turns import Turn, Turns, add_tokens
from bub_cron.rare_fields import split_budget
from bub_cron.wire import COMMAND, NO_REPLY, PROMPT, TEXT

_NO_OUTPUT = "(no output)"  # what Bub returns for a command that printed nothing


type RunGate = Callable[[Mapping[str, Any], str | None, str | None], Awaitable[gates.GateOutput]]


class Attempts:
    """Runs attempts. `now` gives epoch seconds."""

    def __init__(
        self, inbox: Inbox, turns: Turns, lines: LogLimit, *, run_gate: RunGate = gates.run, now: Callable[[], float]
    ) -> None:
        self._inbox = inbox
        self._turns = turns
        self._lines = lines
        self._run_gate = run_gate
        self._now = now

    async def run(self, hand: Hand, about_chat: str | None) -> None:
        """Run one attempt of a firing that holds its session and a place.

        Raises `GatewayStopsError` if it fell into a stop; then nothing has become of it yet.
        """
        firing, now = hand.firing, self._now()
        if (ended := await self._may_not_start(firing, now)) is not None:
            hand.firing = ended
            return
        hand.phase = STARTING
        firing = hand.firing = await self._inbox.move(
            firing, "start", now, attempts=firing.attempts + 1, not_before=None, started_at=firing.started_at or now
        )
        self._lines.log("INFO", "cron.start id={} to={} attempt={}", firing.id, firing.request.to, firing.attempts)
        if firing.awaits_gate:
            hand.phase = GATE
            firing = hand.firing = await self._through_gate(firing)
            if firing.awaits_gate:
                return
        if firing.request.kind == TEXT:
            text = gates.text_with(firing.request.body, firing.gate or "")
            hand.firing = await self._inbox.move(firing, "keep_reply", self._now(), reply=text, error=None)
            return
        hand.phase = TURN
        hand.firing = await self._ended(firing, await self._turns.run(firing, about_chat))

    async def _through_gate(self, firing: Firing) -> Firing:
        """Run a firing's gate; return the firing as it is then: running with the gate's output kept, or as the gate ended it."""
        request = firing.request
        gate = request.gate or {}
        # Before it runs: what a gate has said, and may have consumed, is kept at once.
        is_compared = gate["changed"] and request.reminder is not None
        last = await self._inbox.gate_digest(request.reminder or "") if is_compared else None
        try:
            said = await self._run_gate(gate, request.reminder, request.fire_time)
        except gates.GateFailedError as error:
            return await self._ended(firing, Turn(firing, error=str(error)))
        except OSError as error:
            return await self._ended(firing, Turn(firing, error=described(error)))
        why = None if said.runs else "gate"
        if said.runs and is_compared:
            why = "unchanged" if last == gates.digest(said.text) else None
        if why is not None:  # nothing was attempted
            attempts = firing.attempts - 1
            return await self._inbox.move(firing, "skip", self._now(), reason=why, error=None, attempts=attempts)
        return await self._inbox.move(firing, "keep_gate", self._now(), gate=said.text)

    async def _may_not_start(self, firing: Firing, now: float) -> Firing | None:
        """End a firing whose tokens are used up, or can't be counted; return None for one that may start."""
        request = firing.request
        if request.kind == PROMPT and is_limited(request) and (other := self._turns.other_model()):
            error = f"its tokens can't be counted: the plugin {other} runs the model here"
            if firing.attempts:
                return await self._not_again(firing, now, error)
            return await self._inbox.move(firing, "fail", now, reason="limit", error=error)
        if request.budget is None or request.reminder is None:
            return None
        tokens, period = split_budget(request.budget)
        spent = await self._inbox.spent(request.reminder, period_start(period, now, request.timezone), now)
        if spent < tokens:
            return None
        error = f"{spent:,} tokens were taken this {period}, and its budget is {request.budget}"
        if firing.attempts:
            return await self._not_again(firing, now, error)
        return await self._inbox.move(firing, "skip", now, reason="budget", error=error)

    async def _not_again(self, firing: Firing, now: float, why: str) -> Firing:
        """End a firing that was attempted, and may not be again: what it has come to is no skip."""
        error = f"{firing.error}; not tried again: {why}" if firing.error else why
        if firing.has_side_effects and firing.error in (LOST_IN_CRASH, LOST_IN_STOP):
            return await self._inbox.move(firing, "lose", now, reason="lost_turn", error=error)
        return await self._inbox.move(firing, "fail", now, reason="attempts", error=error)

    async def _ended(self, firing: Firing, turn: Turn) -> Firing:
        """Judge what a turn came to, and move its firing."""
        request, now, tokens = firing.request, self._now(), add_tokens(firing.tokens, turn.tokens)

        def move(event: str, **changes: Any) -> Awaitable[Firing]:
            return self._inbox.move(firing, event, now, tokens=tokens, **{"error": None, **changes})

        if turn.moved:
            return await move("lose", reason="moved", error=turn.error)
        if turn.limit:
            return await move("fail", reason="limit", error=turn.limit)
        if turn.error is not None:
            again = now + attempt_delay(firing.attempts)
            if firing.attempts >= request.attempts_allowed or again > request.expires:
                return await move("fail", reason="attempts", error=turn.error)
            self._lines.log("WARNING", "cron.retry id={} attempt={} error={}", firing.id, firing.attempts, turn.error)
            return await move("retry", error=turn.error, not_before=again)
        text = without_no_reply(turn.text)
        nothing = not text.strip() or is_no_reply(turn.text)
        if request.reply_mode == "agent" or (request.kind == COMMAND and (nothing or text.strip() == _NO_OUTPUT)):
            return await move("run")
        if not nothing:
            return await move("keep_reply", reply=text)
        if request.quiet:
            return await move("be_silent")
        # Not tried again: the turn has done its work, and a model that sent by a skill says nothing more.
        error = f"the whole reply was {NO_REPLY}, which needs quiet: true" if turn.text.strip() else "an empty reply"
        return await move("fail", reason="empty", error=error)
