"""A firing in hand: what the store can't tell about one that is being driven."""

from __future__ import annotations

import asyncio

from bub_cron.gateway.firing import Firing

WAITING = "waiting"  # for its time, its session, a place
STARTING = "starting"  # the beginning of a turn or of a send is being written
GATE = "gate"
TURN = "turn"
SEND = "send"


class Hand:
    """A firing as it was last stored, its `phase`, the task that drives it, and who waits for its outcome (`final`)."""

    __slots__ = ("final", "firing", "phase", "task")

    def __init__(self, firing: Firing) -> None:
        self.firing = firing
        self.phase = WAITING
        self.task: asyncio.Task[None] | None = None
        self.final: asyncio.Future[Firing] | None = None
