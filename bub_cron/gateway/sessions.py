"""Who is busy: the turns that users have running, by session.

Invariants: a session counts as busy from `load_state` of a user's turn until its `save_state` or the end of its
asyncio task, whichever is first (Bub calls no `save_state` when building the prompt raises). Nothing here raises or
waits on behalf of the user's turn: these calls stand in the way of every message of every channel.
"""

from __future__ import annotations

import asyncio
from functools import partial


class _Busy:
    """The users' turns in one session: their tasks, the loop's time at which the first of them began, and their end."""

    def __init__(self, since: float) -> None:
        self.tasks: set[asyncio.Task[object]] = set()
        self.since = since
        self.over = asyncio.Event()


class UserTurns:
    """The users' running turns; firings wait for them with `idle`."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Busy] = {}

    def begin(self, session: str) -> None:
        """Note that the current task runs a user's turn in this session."""
        task = asyncio.current_task()
        if task is None:
            return
        busy = self._sessions.setdefault(session, _Busy(task.get_loop().time()))
        if task not in busy.tasks:
            busy.tasks.add(task)
            task.add_done_callback(partial(self._end, session))

    def end(self, session: str) -> None:
        """Note that the current task's turn in this session is over."""
        task = asyncio.current_task()
        if task is not None:
            self._end(session, task)

    def _end(self, session: str, task: asyncio.Task[object]) -> None:
        busy = self._sessions.get(session)
        if busy is None:
            return
        busy.tasks.discard(task)
        if not busy.tasks:
            del self._sessions[session]
            busy.over.set()

    def busy_since(self, session: str) -> float | None:
        """Return the loop's time since which users' turns have been running in the session, None if none runs now."""
        busy = self._sessions.get(session)
        return None if busy is None else busy.since

    async def idle(self, session: str, most: float) -> None:
        """Wait until no user's turn runs in the session, at most `most` seconds."""
        try:
            async with asyncio.timeout(most):
                while busy := self._sessions.get(session):
                    await busy.over.wait()
        except TimeoutError:
            return
