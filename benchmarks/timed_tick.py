"""Run one tick; print how many lines it wrote on the socket, and the instants of the first one and of the last answer."""

import sys
import time
from collections.abc import Callable
from typing import Any

from bub_cron.paths import find_paths
from bub_cron.trigger import client, tick


class Timed(client.Connection):
    """A connection that tells when an exchange begins and ends."""

    def exchange(
        self, lines: list[bytes], on_answer: Callable[[dict[str, Any]], None], patience: float | None = None
    ) -> None:
        began = time.monotonic()
        super().exchange(lines, on_answer, patience)
        print(len(lines), began, time.monotonic())


client.Connection = Timed  # type: ignore[misc]
sys.exit(tick.run(find_paths(), time.time()))
