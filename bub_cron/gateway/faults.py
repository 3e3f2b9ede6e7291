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

WARNINGS_A_MINUTE = 30


def log_fault(what: str, error: BaseException) -> None:
    """Log a fault of ours: where it came up in one line, and at the debug level how."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "nowhere"
    logger.error("{}: {} at {}", what, described(error), where)
    logger.opt(exception=error).debug("{}", what)


class Warnings:
    """Warnings that others can cause, so many a minute; what is left out is counted."""

    def __init__(self) -> None:
        self._minute = 0
        self._logged = 0
        self._left_out = 0

    def say(self, text: str, *values: object) -> None:
        minute = int(asyncio.get_running_loop().time() // 60)
        if minute != self._minute:
            if self._left_out:
                logger.warning("cron.warnings: {} more were left out", self._left_out)
            self._minute, self._logged, self._left_out = minute, 0, 0
        if self._logged < WARNINGS_A_MINUTE:
            self._logged += 1
            logger.warning(text, *values)
        else:
            self._left_out += 1
