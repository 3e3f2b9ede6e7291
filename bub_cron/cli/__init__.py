"""The commands: the operator's face.

Kept true here: data goes to standard output, words about it to standard error; commands that only look change nothing.
"""

from bub_cron.cli import (  # noqa: F401 - each adds its commands
    completion,
    file,
    firings,
    install,
    look,
    now,
    pausing,
    remove,
    state,
    uninstall,
    usage,
    week,
)
from bub_cron.cli.base import commands

__all__ = ["commands"]
