"""Know when the gateway's channels have started, which Bub tells nobody.

A sentinel message goes through the channel manager, which takes it up only once every channel has started. Any of three
hooks of ours may see it; a plugin that swallows it in one of them doesn't keep it from the others. A user's turn is as good
a sign.

Invariants: what is not ready says why, in the log after a minute, and in the answer to each ping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from bub.channels import ChannelMessage
from bub.envelope import Envelope, field_of
from loguru import logger

from bub_cron.gateway.turns import CHANNEL

PATIENCE_SECONDS = 60.0
_KEY = "_bub_cron_ready"
_WHY = (
    "the gateway's channels have not started: the start() of one of them has not returned, or another plugin takes"
    " bub-cron's messages away"
)


class Readiness:
    """Whether firings may start. One for each plugin; `begin` makes it anew for each start of a gateway."""

    def __init__(self) -> None:
        self._event: asyncio.Event | None = None

    def begin(self) -> None:
        """The gateway starts: nothing is ready yet."""
        self._event = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        return self._event is not None and self._event.is_set()

    def sentinel(self) -> ChannelMessage:
        """Return the message to send through the channel manager."""
        return ChannelMessage(session_id=f"{CHANNEL}:ready", channel=CHANNEL, content="", context={_KEY: self._event})

    def see(self, message: Envelope) -> bool:
        """Note that a message has come through the channel manager; return whether it is a sentinel."""
        context = field_of(message, "context")
        event = context.get(_KEY) if isinstance(context, Mapping) else None
        if not isinstance(event, asyncio.Event):
            return False
        event.set()
        return True

    def see_turn(self) -> None:
        """Note that a turn of a user's runs, which it does only once the channels have started."""
        if self._event is not None and not self._event.is_set():
            self._event.set()

    async def wait(self) -> None:
        """Wait until the channels have started; after a minute, log that they haven't."""
        if self._event is None:
            raise RuntimeError("begin() comes first")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._event.wait()
        except TimeoutError:
            logger.error("cron.not_ready: {}; firings that can't start in time end as missed", _WHY)
            await self._event.wait()

    def answer(self) -> dict[str, Any]:
        """Return what a ping is answered about it."""
        return {"ready": True} if self.is_ready else {"ready": False, "why": _WHY}
