"""Run one tick, and print the seconds from its first line on the socket until it has the last answer."""

import sys
import time
from collections.abc import Callable
from typing import Any

from bub_cron.paths import find_paths
from bub_cron.trigger import client, tick


class Timed(client.Connection):
    """A connection that tells how long an exchange takes."""

    def exchange(
        self, lines: list[bytes], on_answer: Callable[[dict[str, Any]], None], patience: float | None = None
    ) -> None:
        began = time.perf_counter()
        super().exchange(lines, on_answer, patience)
        print(len(lines), time.perf_counter() - began)


client.Connection = Timed  # type: ignore[misc]
sys.exit(tick.run(find_paths(), time.time()))
