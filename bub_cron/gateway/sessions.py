"""Who is busy: the turns that users have running, by session.

Kept true here: a session counts as busy from `load_state` of a user's turn until its `save_state` or the end of its
asyncio task, whichever is first (Bub calls no `save_state` when building the prompt raises). Nothing here raises or
waits on behalf of the user's turn: these calls stand in the way of every message of every channel.
"""

from __future__ import annotations

import asyncio
from functools import partial


class UserTurns:
    """The users' running turns; firings wait for them with `idle`."""

    def __init__(self) -> None:
        self._running: dict[str, set[asyncio.Task[object]]] = {}
        self._since: dict[str, float] = {}  # the loop's time at which a session became busy
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def begin(self, session: str) -> None:
        """Note that the current task runs a user's turn in this session."""
        task = asyncio.current_task()
        if task is None:
            return
        running = self._running.setdefault(session, set())
        self._since.setdefault(session, task.get_loop().time())
        if task not in running:
            running.add(task)
            task.add_done_callback(partial(self._end, session))

    def end(self, session: str) -> None:
        """Note that the current task's turn in this session is over."""
        task = asyncio.current_task()
        if task is not None:
            self._end(session, task)

    def _end(self, session: str, task: asyncio.Task[object]) -> None:
        running = self._running.get(session)
        if running is None:
            return
        running.discard(task)
        if not running:
            del self._running[session], self._since[session]
            for waiter in self._waiting.pop(session, ()):
                if not waiter.done():
                    waiter.set_result(None)

    def busy_since(self, session: str) -> float | None:
        """Return the loop's time since which users' turns have been running in the session, None if none runs now."""
        return self._since.get(session)

    async def idle(self, session: str, most: float) -> bool:
        """Wait until no user's turn runs in the session, at most `most` seconds; return whether it is idle."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + most
        while session in self._running:
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiting.setdefault(session, set()).add(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                return False
            finally:
                self._waiting.get(session, set()).discard(waiter)
        return True
