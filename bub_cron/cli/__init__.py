"""The commands: the operator's face.

Kept true here: data goes to standard output, words about it to standard error; commands that only look change nothing.
"""

from bub_cron.cli import (  # noqa: F401 - each adds its commands
    chats,
    file,
    firings,
    ics,
    look,
    now,
    pausing,
    remove,
    setup,
    show,
    state,
    usage,
    week,
)
from bub_cron.cli.base import commands

__all__ = ["commands"]
