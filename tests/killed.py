"""Do something to a copy of a directory again and again, and kill the process that does it (SIGKILL) at each line in turn.

`python killed.py STEP DIRECTORY STATES` leaves what each kill left in STATES/1, STATES/2, ... A process of its own, so
that it can fork without harm.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from bub_cron import salvage, store
from bub_cron.gateway import inbox_schema
from bub_cron.trigger import ledger

NOW = 1_800_000_000.0
STEPS: dict[str, Callable[[str], object]] = {
    "mend ledger": lambda directory: ledger.mend(f"{directory}/ledger.db", NOW),
    "mend inbox": lambda directory: salvage.mend(f"{directory}/inbox.db", inbox_schema.SHAPE, NOW),
    "open ledger": lambda directory: store.open_store(f"{directory}/ledger.db", ledger.SHAPE),
    "open inbox": lambda directory: store.open_store(f"{directory}/inbox.db", inbox_schema.SHAPE),
}
FUNCTIONS = {
    function.__code__
    for function in (
        salvage.mend,
        salvage._make_new,
        store.finish_mend,
        store.put_in_place,
    )
}


def states_of(step: str, directory: Path, states: Path) -> list[Path]:
    """Return the directories as the kills left them, in order; the last one is that of the process that came through."""
    states.mkdir()
    subprocess.run([sys.executable, __file__, step, directory, states], check=True)
    return sorted(states.iterdir(), key=lambda path: int(path.name))


def kill_at(line: int) -> None:
    """Let this process be killed before it executes its so many-th line of these functions."""
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(lambda frame, *_: trace if frame.f_code in FUNCTIONS else None)


def main(step: str, directory: str, states: str) -> None:
    for line in itertools.count(1):
        state = f"{states}/{line}"
        subprocess.run(["cp", "-a", directory, state], check=True)  # keeps what has two names
        child = os.fork()
        if child == 0:
            kill_at(line)
            STEPS[step](state)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != signal.SIGKILL:
            sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
