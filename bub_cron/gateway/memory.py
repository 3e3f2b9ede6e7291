"""Let the agent know what was said in its name: write a delivered message onto the tape of its chat's session.

A `text` runs no turn, and a `prompt` may run in another session than the chat's own; without this, an answer such as
"done" or "skip it tomorrow" would mean nothing to the agent. Invariants: only what was delivered is written, as one
message of the assistant's, by Bub's public tape; a failure here is logged and never touches the firing's outcome.

What it costs: one append per such message to the session's tape, thus its tokens in that session's later turns until the
next handoff. It is not part of the firing's record: a crash right after `delivered` leaves the tape without it.
"""

from __future__ import annotations

import asyncio

import bub
from bub import BubFramework
from bub.store import AsyncTapeStoreAdapter, is_async_tape_store
from bub.tape import Tape, TapeEntry
from loguru import logger

from bub_cron.errors import described
from bub_cron.gateway.firing import Firing
from bub_cron.wire import TEXT

_SECONDS = 10.0  # that a tape store may take


class Memory:
    """Writes onto the tapes of the live framework."""

    def __init__(self, framework: BubFramework) -> None:
        self._framework = framework

    async def note(self, firing: Firing) -> None:
        """Write a firing's message onto the tape of each chat that got it, unless its own turn has put it there."""
        request = firing.request
        for to in firing.reached:
            if firing.text is None or (request.kind != TEXT and request.session == to):
                continue
            try:
                async with asyncio.timeout(_SECONDS):
                    await self._append(to, firing.text, firing)
            except Exception as error:
                logger.warning("cron.tape id={} not written: {}", firing.id, described(error))

    async def _append(self, session: str, content: str, firing: Firing) -> None:
        found = self._framework.get_tape_store()
        if found is None:
            return  # the gateway is stopping
        store = found if is_async_tape_store(found) else AsyncTapeStoreAdapter(found)
        tapes = Tape(bub.home / "tapes", store, self._framework.build_tape_context())
        tape = tapes.session_tape(session, self._framework.workspace)
        # As a turn does: a session's first entry is its anchor.
        await tape.ensure_bootstrap_anchor()
        entry = TapeEntry.message({"role": "assistant", "content": content}, source="bub-cron", firing=firing.id)
        await store.append(tape.name, entry)
