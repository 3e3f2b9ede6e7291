"""Log what went wrong, without logging what was said, and without end.

Invariants:
- A line in the log is one plain line, and no text of a message is in it. A traceback, whose words may be a caller's or a
  model's, is for the debug level.
- Of what others can cause, so many lines a minute are logged; the rest is counted.
"""

from __future__ import annotations

import asyncio
import os
import traceback

from loguru import logger

from bub_cron.errors import described


def log_fault(what: str, error: BaseException) -> None:
    """Log a fault of ours: where it came up in one line, and at the debug level how."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "nowhere"
    logger.error("{}: {} at {}", what, described(error), where)
    logger.opt(exception=error).debug("{}", what)


class LogLimit:
    """Logs so many lines a minute of what others can cause, and counts the rest."""

    def __init__(self, lines_a_minute: int) -> None:
        self._lines_a_minute = lines_a_minute
        self._minute = 0
        self._lines = 0

    def log(self, level: str, text: str, *values: object) -> None:
        minute = int(asyncio.get_running_loop().time() // 60)
        if minute != self._minute:
            if self._lines > self._lines_a_minute:
                logger.warning("cron.log: {} more lines were left out", self._lines - self._lines_a_minute)
            self._minute, self._lines = minute, 0
        self._lines += 1
        if self._lines <= self._lines_a_minute:
            logger.log(level, text, *values)
