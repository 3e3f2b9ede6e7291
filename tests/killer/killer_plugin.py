"""A plugin for the tests that sends its own process a signal, SIGKILL unless KILL_WITH says another, at the step KILL_AT.

It wraps the functions of bub-cron from outside, so that nothing of this stands in what users run. It strikes once: the
file named by KILL_MARK is made first, and while it is there nothing happens. Lost attempts are made again soon: how soon
is not what these tests show, and half a minute of it would be each time.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bub_cron.gateway import delays
from bub_cron.gateway.attempts import Attempts
from bub_cron.gateway.delivery import Delivery
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.turns import Turns

delays._ATTEMPT_DELAYS = (1.0, 1.0)

BEFORE: dict[str, tuple[type, str]] = {
    "before the gate": (Attempts, "_through_gate"),
    "before the turn": (Turns, "run"),
    "before the send": (Delivery, "send"),
}
AFTER: dict[str, tuple[type, str, str | None]] = {
    # whose method, its name, and the event that it has to be called with
    "after the inbox's commit": (Inbox, "accept", None),
    "after the attempt is counted": (Inbox, "move", "start"),
    "after the gate is kept": (Inbox, "move", "keep_gate"),
    "after the turn": (Turns, "run", None),
    "after the reply is kept": (Inbox, "move", "keep_reply"),
    "after the send's beginning is kept": (Inbox, "move_message", "begin"),
    "after the send": (Delivery, "send", None),
    "after the failure is kept": (Inbox, "move", "fail"),
    "after the final outcome": (Inbox, "move_message", "deliver"),
}


def strike() -> None:
    mark = Path(os.environ["KILL_MARK"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.Signals[os.environ.get("KILL_WITH", "SIGKILL")])


def _wrap(owner: type, name: str, event: str | None = None, *, before: bool) -> None:
    method: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(method)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            strike()
        result = await method(*args, **kwargs)
        if not before and (event is None or event in args):
            strike()
        return result

    setattr(owner, name, wrapped)


step = os.environ.get("KILL_AT", "")
if step in BEFORE:
    _wrap(*BEFORE[step], before=True)
elif step in AFTER:
    _wrap(*AFTER[step], before=False)
