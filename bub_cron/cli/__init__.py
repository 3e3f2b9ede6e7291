"""The commands: the operator's face.

Kept true here: data goes to standard output, words about it to standard error; commands that only look change nothing.
"""

from bub_cron.cli import file, firings, look, now, pausing, setup, state, week  # noqa: F401 - each adds its commands
from bub_cron.cli.base import commands

__all__ = ["commands"]
