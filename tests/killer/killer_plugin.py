"""A plugin for the tests that sends its own process a signal, SIGKILL unless KILL_WITH says another, at the step KILL_AT.

It wraps the functions of bub-cron from outside, so that nothing of this stands in what users run. It strikes once: the
file named by KILL_MARK is made first, and while it is there nothing happens.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bub_cron.gateway.delivery import Delivery
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.turns import Turns

BEFORE: dict[str, tuple[type, str]] = {
    "before the turn": (Turns, "run"),
    "before the send": (Delivery, "send"),
}
AFTER: dict[str, tuple[type, str]] = {
    "after the inbox's commit": (Inbox, "accept"),
    "after the attempt is counted": (Inbox, "start_attempt"),
    "after the turn": (Turns, "run"),
    "after the reply is kept": (Inbox, "keep_reply"),
    "after the send's beginning is kept": (Inbox, "begin_send"),
    "after the send": (Delivery, "send"),
    "after the last word": (Inbox, "finish"),
}


def strike() -> None:
    mark = Path(os.environ["KILL_MARK"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.Signals[os.environ.get("KILL_WITH", "SIGKILL")])


def _wrap(owner: type, name: str, *, before: bool) -> None:
    method: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(method)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            strike()
        result = await method(*args, **kwargs)
        strike()
        return result

    setattr(owner, name, wrapped)


step = os.environ.get("KILL_AT", "")
if step in BEFORE:
    _wrap(*BEFORE[step], before=True)
elif step in AFTER:
    _wrap(*AFTER[step], before=False)
