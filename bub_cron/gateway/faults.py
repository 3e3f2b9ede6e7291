"""Log what went wrong without logging what was said.

Kept true here: a line in the log is one plain line, and no text of a message is in it. A traceback, whose words may be a
caller's or a model's, is for the debug level.
"""

from __future__ import annotations

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
